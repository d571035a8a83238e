//! The dashboard as commands run it: what they measure becomes what it shows.

use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use netdiag_dashboard::{Document, Feed, FlowRow, Options, flows_json, router_and_metrics};
use netdiag_hints::{Board, StreamEntry};
use netdiag_http::GivenUp;
use netdiag_metrics::{ExportStatus, Scrape};
use netdiag_pacer::WhenStale;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::args::AccessArgs;
use crate::cmd::doctor;
use crate::confine::Confinement;
use crate::listening::Listening;
use crate::place::Places;
use crate::stop::Stop;

/// One thread: what viewers get is written once for all of them. Beside it there are the runtime's own for what blocks.
const THREADS: usize = 1;

/// How long a list of flows serves all viewers: that of one interval is not asked for twice.
const FLOWS_KEEP: Duration = Duration::from_millis(400);

/// How long an examination of the machine serves all viewers. It loads eBPF programs, and little changes.
const MACHINE_KEEP: Duration = Duration::from_secs(10);

/// What a dashboard shows beside its feed, where there is such a thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Documents {
    /// The host's flows.
    pub(crate) streams: Option<Document>,
    /// What a gateway passes on.
    pub(crate) gateway: Option<Document>,
    /// Who shares engines.
    pub(crate) fleet: Option<Document>,
    /// What this machine supports.
    pub(crate) machine: Option<Document>,
}

/// A dashboard that listens already.
#[derive(Debug)]
pub(crate) struct Dashboard(Listening);

impl Dashboard {
    /// Listens on `address`; `flags` are how to choose another or none.
    pub(crate) fn bind(
        address: SocketAddr,
        access: &AccessArgs,
        flags: &str,
        places: &Places,
    ) -> anyhow::Result<Self> {
        Listening::bind(address, access, flags, places).map(Self)
    }

    /// The port that was taken.
    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// Which of a host's processes this is.
    pub(crate) fn instance(&self) -> String {
        self.0.instance()
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        self.0.place()
    }

    /// Shows `feed` and the documents that there are until the stop, and says how to read its metrics.
    pub(crate) fn start(
        self,
        feed: Feed,
        documents: Documents,
        exports: Option<ExportStatus>,
        stop: &Stop,
    ) -> anyhow::Result<(JoinHandle<anyhow::Result<()>>, Scrape)> {
        let exposure = self.0.exposure().clone();
        let given_up = GivenUp::default();
        let Documents { streams, gateway, fleet, machine } = documents;
        let told = given_up.clone();
        let options =
            Options { exposure, streams, gateway, fleet, machine, given_up: told, exports };
        let (router, scrape) = router_and_metrics(feed, options);
        Ok((self.0.spawn(router, "dashboard", THREADS, given_up, stop)?, scrape))
    }
}

/// What `netdiag doctor` says of this machine: now, if what it takes to examine it is about to be given up, else whenever somebody looks.
pub(crate) fn machine(confinement: &Confinement) -> anyhow::Result<Document> {
    let examine = || doctor::json().map_err(|error| format!("{error:#}"));
    if !confinement.is_any() {
        return Ok(Document::new(MACHINE_KEEP, examine));
    }
    let (examined, found) = sync_channel(1);
    // Nobody waits for it, and it ends with what it knows.
    std::thread::Builder::new()
        .name("examiner".to_owned())
        .spawn(move || {
            let sent = examined.send(examine());
            tracing::info!("the machine is examined; the thread that did it ends");
            sent
        })
        .context("cannot start the thread that examines the machine")?;
    // What others say of themselves does not hold for it.
    tracing::info!("a thread examines the machine, which is not confined until it ends");
    let found = LazyLock::new(move || {
        let found = found.recv();
        found.unwrap_or_else(|_| Err("the examination of the machine panicked".to_owned()))
    });
    let found = Mutex::new(found);
    Ok(Document::new(MACHINE_KEEP, move || {
        LazyLock::force(&found.lock().unwrap_or_else(PoisonError::into_inner)).clone()
    }))
}

/// The flows of the newest board.
pub(crate) fn flows(
    boards: watch::Receiver<Arc<Board>>,
    stale_after: Duration,
    when_stale: WhenStale,
) -> Document {
    Document::new(FLOWS_KEEP, move || {
        let board = Arc::clone(&boards.borrow());
        let age = board.sampled_at.map(|at| Instant::now().saturating_duration_since(at));
        let row = |stream: &StreamEntry| {
            let stream = StreamEntry {
                hint: stream.hint.clone().aged(age, stale_after, when_stale),
                ..stream.clone()
            };
            flow(&stream)
        };
        let t = board.row.map_or(0.0, |row| row.sample.timestamp.as_secs_f64());
        flows_json(t, board.streams().iter().map(row).collect())
    })
}

fn flow(stream: &StreamEntry) -> FlowRow {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    FlowRow {
        peer: stream.key.peer,
        local: stream.key.local,
        p95_rtt_us: stream.sample.rtt.map(|rtt| micros(rtt.p95)),
        srtt_us: stream.sample.srtt.map(micros),
        retrans_count: stream.sample.retrans_segs,
        unacked_segs: stream.liveness.map(|live| live.unacked_segs),
        notsent_bytes: stream.liveness.map(|live| live.notsent.0),
        waiting_us: micros(stream.waiting),
        throughput_bps: stream.sample.throughput_bps,
        state: stream.hint.state,
        cause: stream.cause(stream.hint.state).map(str::to_owned),
        current_tps: stream.hint.current_tps.get(),
        hold: stream.hint.hold,
    }
}

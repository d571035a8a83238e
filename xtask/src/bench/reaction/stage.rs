//! Links, a connection over one, and what its server's kernel says of it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use netdiag_lab::{Duplex, Lab, LabError, Link, LinkSpec, ServerSide};
use rustix::net::sockopt::{set_tcp_congestion, set_tcp_thin_linear_timeouts};

use crate::bench::client::Client;
use crate::bench::up::Up;

/// Round trips of the links, ms.
const RTTS: [u64; 4] = [20, 60, 120, 200];
/// Links of each.
const EACH: usize = 4;

/// Between two tokens: 50 a second, as of a fast model.
pub(super) const STEP: Duration = Duration::from_millis(20);
/// A token's event in OpenAI's format with its chunk header.
pub(super) const EVENT: &[u8] = &[b'.'; 230];
/// Before something is done to a stream; a prime's worth more or less, so that nothing falls into step with ticks.
const WARM_UP: Duration = Duration::from_millis(2500);
const UNEVEN: Duration = Duration::from_millis(17);
/// How long links are silent.
const SILENCES: [u64; 4] = [1500, 2000, 3000, 4000];
/// What has not shown itself after so long counts as that.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How often the kernel is asked.
const LOOK: Duration = Duration::from_millis(1);
/// Receive buffer of a client that stops reading, bytes: a third of a second of tokens.
const SMALL: usize = 4 << 10;

/// How TCP spaces its tries while nothing is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retries {
    /// Each after twice the time of the one before.
    Doubling,
    /// All after the same time, while fewer than four segments are out (`TCP_THIN_LINEAR_TIMEOUTS`).
    Linear,
    /// Doubling up to a second (`TCP_RTO_MAX_MS`).
    Bounded,
}

impl Retries {
    pub(super) const ALL: [Self; 3] = [Self::Doubling, Self::Linear, Self::Bounded];

    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Doubling => "the kernel's own",
            Self::Linear => "thin linear timeouts",
            Self::Bounded => "retries within 1 s",
        }
    }

    fn set(self, socket: &TcpStream) -> anyhow::Result<()> {
        match self {
            Self::Doubling => Ok(()),
            Self::Linear => Ok(set_tcp_thin_linear_timeouts(socket, true)?),
            Self::Bounded => netdiag_tcpinfo::set_longest_retry(socket, Duration::from_secs(1))
                .context("TCP_RTO_MAX_MS needs Linux 6.15"),
        }
    }
}

pub(super) struct Stage {
    lab: Lab,
    bases: Vec<LinkSpec>,
    pub(super) up: Up,
}

impl Stage {
    pub(super) fn build(netdiag: &Path) -> anyhow::Result<Self> {
        let base = |n: usize| LinkSpec::delayed(Duration::from_millis(RTTS[n % RTTS.len()]) / 2);
        let bases: Vec<LinkSpec> = (0..RTTS.len() * EACH).map(base).collect::<Result<_, _>>()?;
        let links: Vec<Duplex> = bases.iter().cloned().map(Duplex::from).collect();
        let lab = Lab::start_links(links, ServerSide::Namespace, 1)?;
        let netns = lab.server_netns().as_os_str().to_owned();
        let up = Up::start(netdiag, ["--no-dashboard".into(), "--netns".into(), netns])?;
        Ok(Self { lab, bases, up })
    }

    pub(super) fn places(&self) -> usize {
        self.bases.len()
    }

    pub(super) fn failed(&self) -> Option<LabError> {
        self.lab.failed()
    }

    pub(super) fn rtt(&self, place: usize) -> Duration {
        self.bases[place].delay() * 2
    }

    /// A connection over the link of this number, whose client reads.
    pub(super) fn connect(
        &self,
        place: usize,
        number: usize,
        retries: Retries,
        buffer: Option<usize>,
    ) -> anyhow::Result<Connection<'_>> {
        let (link, base) = (&self.lab.links()[place], &self.bases[place]);
        let address = SocketAddr::new(self.lab.server_ip(), 0);
        let listener = self.lab.on_server(|| TcpListener::bind(address))??;
        let client = Client::connect(link, listener.local_addr()?, buffer)?;
        client.read(|_| {})?;
        let (server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        // Clouds have both. Where the kernel has only one, that one is measured twice.
        let _ = set_tcp_congestion(&server, ["cubic", "bbr"][number % 2]);
        retries.set(&server)?;
        let warm_up = WARM_UP + UNEVEN * (number % 13) as u32;
        let silence = Duration::from_millis(SILENCES[number / 2 % SILENCES.len()]);
        Ok(Connection { link, base, client, server, warm_up, silence })
    }

    /// One whose client will stop reading.
    pub(super) fn connect_small(
        &self,
        place: usize,
        number: usize,
    ) -> anyhow::Result<Connection<'_>> {
        self.connect(place, number, Retries::Doubling, Some(SMALL))
    }
}

pub(super) struct Connection<'a> {
    link: &'a Link,
    base: &'a LinkSpec,
    pub(super) client: Client,
    pub(super) server: TcpStream,
    pub(super) warm_up: Duration,
    /// How long the link is silent.
    pub(super) silence: Duration,
}

impl Connection<'_> {
    /// The link carries nothing; since when.
    pub(super) fn silence(&self) -> anyhow::Result<Instant> {
        let since = Instant::now();
        self.link.set(self.base.clone().blackout())?;
        Ok(since)
    }

    /// The link is what it was; since when.
    pub(super) fn restore(&self) -> anyhow::Result<Instant> {
        let since = Instant::now();
        self.link.set(self.base.clone())?;
        Ok(since)
    }

    /// Bytes acknowledged by now.
    pub(super) fn acked(&self) -> anyhow::Result<u64> {
        Ok(netdiag_tcpinfo::read(&self.server)?.counters().bytes_acked)
    }

    /// Tells, on a thread of its own, when more than `acked` bytes are acknowledged.
    pub(super) fn first_ack(
        &self,
        acked: u64,
    ) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<Instant>>> {
        let server = self.server.try_clone()?;
        Ok(std::thread::spawn(move || {
            when(|| Ok(netdiag_tcpinfo::read(&server)?.counters().bytes_acked > acked))
        }))
    }

    /// Waits until the client's window keeps back what waits; when that was.
    pub(super) fn window_shut(&self) -> anyhow::Result<Instant> {
        when(|| {
            let info = netdiag_tcpinfo::read(&self.server)?;
            let waits = info.notsent_bytes.is_some_and(|bytes| bytes > 0);
            Ok(info.snd_wnd == Some(0) || waits && info.unacked == 0)
        })
    }
}

/// The first time that it is so, or when patience ended.
fn when(is_so: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<Instant> {
    let began = Instant::now();
    loop {
        let now = Instant::now();
        if is_so()? || now - began > PATIENCE {
            return Ok(now);
        }
        std::thread::sleep(LOOK);
    }
}

//! Both sources against links whose truth is known: the emulator's RTT, the kernel's own count of retransmissions, and
//! each other. Real TCP over an emulated link; needs root, and says so where it cannot run.

#![allow(clippy::print_stdout)] // tests say what they skip

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netdiag_lab::{Lab, LinkSpec, ServerSide};
use netdiag_probe::{FlowFilter, Probe, ProbeConfig, SourceChoice};
use netdiag_telemetry::{FlowTable, Instant as Now, LinkSample, RttSummary, Source};

const INTERVAL: Duration = Duration::from_millis(500);

fn lab(round_trip: Duration, loss: f64) -> Option<Lab> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: probe truth test (needs root)");
        return None;
    }
    let spec = LinkSpec::delayed(round_trip / 2).and_then(|link| link.with_loss(loss));
    Some(Lab::start(spec.expect("a possible link"), ServerSide::Namespace).expect("lab"))
}

/// A server that streams small writes, as a model does, to a client that reads them.
struct Stream {
    running: Arc<AtomicBool>,
    server: JoinHandle<TcpStream>,
    client: JoinHandle<u64>,
}

impl Stream {
    fn start(lab: &Lab) -> Self {
        let address = SocketAddr::new(lab.server_ip(), 0);
        let listener = lab.on_server(|| TcpListener::bind(address).expect("bind")).expect("server");
        let target = listener.local_addr().expect("bound");
        let mut client =
            lab.on_client(|| TcpStream::connect(target).expect("connect")).expect("client");
        let (mut server, _) = listener.accept().expect("accept");
        server.set_nodelay(true).expect("nodelay");
        let running = Arc::new(AtomicBool::new(true));
        let keep_on = Arc::clone(&running);
        let server = std::thread::spawn(move || {
            while keep_on.load(Ordering::Relaxed) {
                server.write_all(&[b't'; 100]).expect("write");
                std::thread::sleep(Duration::from_millis(10));
            }
            server
        });
        let client = std::thread::spawn(move || {
            // A small segment is acknowledged when it is read, so a reader that waits for a core lengthens the round trip.
            // It is the link's that is compared here.
            rustix::process::setpriority_process(None, -20).expect("root");
            let mut buffer = [0; 4096];
            let mut received = 0;
            while let Ok(read @ 1..) = client.read(&mut buffer) {
                received += read as u64;
            }
            received
        });
        Self { running, server, client }
    }

    /// Stops writing. The connection stays open until the returned end is dropped.
    fn stop(self) -> (TcpStream, JoinHandle<u64>) {
        self.running.store(false, Ordering::Relaxed);
        (self.server.join().expect("server"), self.client)
    }
}

/// A probe and what it has shown so far.
struct Watch {
    probe: Probe,
    table: FlowTable,
    started: Instant,
    samples: Vec<LinkSample>,
    acked: u64,
}

impl Watch {
    fn open(lab: &Lab, source: SourceChoice) -> Self {
        let filter = FlowFilter { netns: Some(lab.server_netns().into()), ..FlowFilter::default() };
        let probe =
            Probe::open(&ProbeConfig { source, filter, ..ProbeConfig::default() }).expect("probe");
        let table = FlowTable::new(Duration::from_secs(60), probe.source());
        let mut watch =
            Self { probe, table, started: Instant::now(), samples: Vec::new(), acked: 0 };
        watch.poll();
        watch
    }

    fn poll(&mut self) {
        let flows = self.probe.snapshot().expect("snapshot");
        if let Some(flow) = flows.first() {
            self.acked = flow.counters.bytes_acked;
        }
        let now = Now { monotonic: self.started.elapsed(), unix: Duration::ZERO };
        self.samples.push(self.table.tick(&flows, now).host.sample);
    }

    fn retransmitted(&self) -> u64 {
        self.samples.iter().map(|sample| sample.retrans_segs).sum()
    }
}

/// Polls all probes every half second for a while.
fn watch_for(watches: &mut [Watch], duration: Duration) {
    let start = Instant::now();
    for tick in 1..=(duration.as_millis() / INTERVAL.as_millis()) as u32 {
        std::thread::sleep((INTERVAL * tick).saturating_sub(start.elapsed()));
        watches.iter_mut().for_each(Watch::poll);
    }
}

/// `TcpRetransSegs` of the server's namespace.
fn kernels_count(lab: &Lab) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp").expect("snmp");
    let snmp = lab.on_server(read).expect("server");
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, count) = pairs.find(|(name, _)| *name == "RetransSegs").expect("RetransSegs");
    count.parse().expect("a number")
}

/// Whether average and p95 of a source are the emulator's round trip, or what they were instead.
fn check_rtt(watch: &Watch, truth: Duration) -> Result<(), String> {
    let source = watch.probe.source();
    let tolerance = if source == Source::Ebpf { 0.05 } else { 0.10 };
    // Without the handshake, the first interval, in which the stream begins, and the last ones, in which it ends.
    let streaming = &watch.samples[3..watch.samples.len() - 3];
    let seen: Vec<RttSummary> =
        streaming.iter().map(|sample| sample.rtt.expect("samples")).collect();
    assert!(seen.len() >= 8, "{source}: {} intervals", seen.len());
    // The emulator and the reader share the cores with whatever else runs, and now and then a packet or its ACK waits for
    // one, which the kernel rightly counts: the usual interval is what can be compared with the emulator's word.
    let usual = |of: fn(&RttSummary) -> Duration| {
        let mut values: Vec<_> = seen.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    for (what, rtt) in [("average", usual(|rtt| rtt.avg)), ("p95", usual(|rtt| rtt.p95))] {
        let error = (rtt.as_secs_f64() / truth.as_secs_f64() - 1.0).abs();
        if error > tolerance {
            return Err(format!("{source}: {what} {rtt:?} for {truth:?} in {seen:#?}"));
        }
    }
    Ok(())
}

/// Tries before a machine is held to be too busy to tell the link's delay from its own.
const TRIES: usize = 10;

#[test]
fn the_rtt_is_the_links_and_both_sources_agree_on_bytes() {
    let round_trip = Duration::from_millis(50);
    let Some(lab) = lab(round_trip, 0.0) else { return };
    let mut wrong = Ok(());
    for _ in 0..TRIES {
        // The connection is older than the probes.
        let stream = Stream::start(&lab);
        let choices = [SourceChoice::Ebpf, SourceChoice::Sockdiag];
        let mut watches = choices.map(|source| Watch::open(&lab, source));
        watch_for(&mut watches, Duration::from_secs(6));
        let (server, client) = stream.stop();
        watch_for(&mut watches, Duration::from_secs(1));
        assert_eq!(
            watches.each_ref().map(|watch| watch.probe.source()),
            [Source::Ebpf, Source::Sockdiag]
        );
        drop(server);
        let received = client.join().expect("client");
        for watch in &watches {
            // The SYN counts as one.
            let error = watch.acked.abs_diff(received) as f64 / received as f64;
            assert!(error <= 0.01, "{}: {} of {received}", watch.probe.source(), watch.acked);
        }
        wrong = watches.iter().try_for_each(|watch| check_rtt(watch, round_trip));
        if wrong.is_ok() {
            return;
        }
    }
    wrong.expect("the emulator's round trip");
}

#[test]
fn retransmissions_are_the_kernels_own() {
    let Some(lab) = lab(Duration::from_millis(20), 0.05) else { return };
    let before = kernels_count(&lab);
    let mut watches = [SourceChoice::Ebpf, SourceChoice::Sockdiag].map(|s| Watch::open(&lab, s));
    let stream = Stream::start(&lab);
    watch_for(&mut watches, Duration::from_secs(6));
    let (server, client) = stream.stop();
    // What is under way, and what is lost of it, comes to an end on a good link.
    lab.set(LinkSpec::delayed(Duration::from_millis(10)).expect("possible")).expect("heals");
    watch_for(&mut watches, Duration::from_secs(3));
    let truth = kernels_count(&lab) - before;
    let [ebpf, sockdiag] = &watches;
    assert!(truth > 5, "the link lost nothing ({truth})");
    assert_eq!(ebpf.retransmitted(), truth);
    // The dump sees the flow from its first look on; what the handshake lost before is in its counters all the same.
    assert_eq!(sockdiag.retransmitted(), truth);
    drop(server);
    client.join().expect("client");
}

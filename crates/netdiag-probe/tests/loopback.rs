//! Both sources against real connections over loopback: what is counted, what is filtered, and what happens at the ends
//! of a connection's life. The eBPF half needs root and says so where it cannot run.

#![allow(clippy::print_stdout)] // tests say what they skip

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use netdiag_probe::{FlowFilter, Probe, ProbeConfig, SourceChoice};
use netdiag_telemetry::{FlowSnapshot, Source};

const DEADLINE: Duration = Duration::from_secs(10);

/// Both ends of one connection.
struct Pair {
    server: TcpStream,
    client: TcpStream,
}

impl Pair {
    fn new(bind: &str) -> Self {
        Self::accepted_by(&TcpListener::bind(bind).expect("bind"))
    }

    fn accepted_by(listener: &TcpListener) -> Self {
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        server.set_nodelay(true).expect("nodelay");
        Self { server, client }
    }

    fn port(&self) -> u16 {
        self.server.local_addr().expect("address").port()
    }

    /// Sends `rounds` messages of 100 bytes, each read before the next.
    fn stream(&mut self, rounds: usize) {
        let mut message = [7; 100];
        for _ in 0..rounds {
            self.server.write_all(&message).expect("write");
            self.client.read_exact(&mut message).expect("read");
        }
    }
}

/// The sources that can be opened here.
fn each_source(filter: impl Fn() -> FlowFilter, mut check: impl FnMut(Probe)) {
    for source in [SourceChoice::Sockdiag, SourceChoice::Ebpf] {
        let config = ProbeConfig { source, filter: filter(), ..ProbeConfig::default() };
        match Probe::open(&config) {
            Ok(probe) => check(probe),
            Err(error) if source == SourceChoice::Ebpf && !rustix::process::geteuid().is_root() => {
                println!("skipped: eBPF half of a probe test (needs root): {error}");
            }
            Err(error) => panic!("{source:?}: {error}"),
        }
    }
}

fn loopback(ports: Vec<u16>) -> FlowFilter {
    FlowFilter { ports, loopback: true, ..FlowFilter::default() }
}

/// Polls until `done` likes what all snapshots since the call have in common: the last one of each kind.
fn poll(probe: &mut Probe, mut done: impl FnMut(&[FlowSnapshot]) -> bool) {
    let end = Instant::now() + DEADLINE;
    loop {
        let flows = probe.snapshot().expect("snapshot");
        if done(&flows) {
            return;
        }
        assert!(Instant::now() < end, "{:?} never showed it; last: {flows:#?}", probe.source());
        std::thread::yield_now();
    }
}

#[test]
fn acknowledged_bytes_and_samples_are_counted() {
    let mut pair = Pair::new("127.0.0.1:0");
    let port = pair.port();
    each_source(
        || loopback(vec![port]),
        |mut probe| {
            let before = probe.snapshot().expect("baseline");
            let base = before.first().map_or(0, |flow| flow.counters.bytes_acked);
            pair.stream(200);
            let mut samples = 0;
            let source = probe.source();
            poll(&mut probe, |flows| {
                samples += flows.iter().map(|flow| flow.rtt.count()).sum::<u64>();
                flows.iter().any(|flow| flow.counters.bytes_acked >= base + 20_000)
            });
            // eBPF sees every ACK's sample (some ACKs cover two messages, and the last is not processed yet); the dump
            // estimates one per look.
            let least = if source == Source::Ebpf { 90 } else { 1 };
            assert!(samples >= least, "{source:?}: {samples} samples");
        },
    );
}

#[test]
fn a_connection_opened_before_the_probe_is_seen_without_its_past() {
    let mut pair = Pair::new("127.0.0.1:0");
    pair.stream(50);
    let port = pair.port();
    each_source(
        || loopback(vec![port]),
        |mut probe| {
            probe.snapshot().expect("baseline");
            pair.stream(1);
            poll(&mut probe, |flows| {
                flows.iter().any(|flow| flow.opened.is_none() && flow.counters.bytes_acked >= 5100)
            });
        },
    );
}

#[test]
fn a_connection_opened_later_is_marked_and_its_end_is_reported() {
    each_source(
        || loopback(Vec::new()),
        |mut probe| {
            probe.snapshot().expect("baseline");
            let mut pair = Pair::new("127.0.0.1:0");
            pair.stream(10);
            let port = pair.port();
            let ours = |flow: &&FlowSnapshot| flow.key.local.port() == port;
            poll(&mut probe, |flows| {
                flows.iter().find(ours).is_some_and(|flow| flow.opened.is_some())
            });
            drop(pair);
            if probe.source() == Source::Ebpf {
                poll(&mut probe, |flows| {
                    flows
                        .iter()
                        .find(ours)
                        .is_some_and(|flow| flow.closed && flow.counters.bytes_acked >= 1000)
                });
            }
            poll(&mut probe, |flows| flows.iter().find(ours).is_none());
        },
    );
}

#[test]
fn many_short_connections_lose_nothing() {
    const CONNECTIONS: usize = 300;
    let filter = || loopback(Vec::new());
    each_source(filter, |mut probe| {
        if probe.source() != Source::Ebpf {
            return; // A dump cannot see what opens and closes between two dumps.
        }
        probe.snapshot().expect("baseline");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("bound");
        let peers = std::thread::spawn(move || {
            for _ in 0..CONNECTIONS {
                let mut client = TcpStream::connect(address).expect("connect");
                let mut all = Vec::new();
                client.read_to_end(&mut all).expect("read");
                assert_eq!(all.len(), 1000);
            }
        });
        for _ in 0..CONNECTIONS {
            let (mut server, _) = listener.accept().expect("accept");
            server.write_all(&[1; 1000]).expect("write");
        }
        peers.join().expect("clients");
        let mut bytes = 0;
        let mut ended = 0;
        poll(&mut probe, |flows| {
            for flow in flows.iter().filter(|flow| flow.closed && flow.key.local == address) {
                // The FIN takes a sequence number, and so did the SYN.
                assert!((1000..=1002).contains(&flow.counters.bytes_acked), "{flow:?}");
                bytes += flow.counters.bytes_acked;
                ended += 1;
            }
            ended == CONNECTIONS
        });
        assert!(bytes >= 1000 * CONNECTIONS as u64);
        assert_eq!(probe.losses(), netdiag_probe::Losses::default());
    });
}

#[test]
fn filters_by_port_peer_and_loopback() {
    let mut pair = Pair::new("127.0.0.1:0");
    let (port, client_port) = (pair.port(), pair.client.local_addr().expect("address").port());
    let server_side: SocketAddr = pair.server.local_addr().expect("address");
    let mut check = |filter: FlowFilter, server: bool, client: bool| {
        each_source(
            || filter.clone(),
            |mut probe| {
                probe.snapshot().expect("baseline");
                pair.stream(3);
                let flows = probe.snapshot().expect("snapshot");
                let sees = |local: u16| flows.iter().any(|flow| flow.key.local.port() == local);
                assert_eq!((sees(port), sees(client_port)), (server, client), "{filter:?}");
                assert!(flows.iter().all(|flow| filter.matches(&flow.key)));
            },
        );
    };
    let peer = |net: &str| FlowFilter {
        peers: vec![net.parse().expect("network")],
        loopback: true,
        ..FlowFilter::default()
    };
    check(loopback(vec![port]), true, false);
    check(loopback(vec![port, client_port]), true, true);
    check(FlowFilter::default(), false, false);
    check(peer("127.0.0.0/8"), true, true);
    check(peer("10.0.0.0/8"), false, false);
    check(peer("::/0"), false, false);
    check(
        FlowFilter { netns: Some("/proc/self/ns/net".into()), ..loopback(vec![port]) },
        true,
        false,
    );
    assert!(server_side.ip().is_loopback());
}

#[test]
fn ipv6_and_mapped_addresses() {
    let Ok(listener) = TcpListener::bind("[::]:0") else {
        println!("skipped: IPv6 probe test (no IPv6 on this machine)");
        return;
    };
    let port = listener.local_addr().expect("bound").port();
    for (target, shown) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        each_source(
            || loopback(vec![port]),
            |mut probe| {
                probe.snapshot().expect("baseline");
                let client = TcpStream::connect((target, port)).expect("connect");
                let (server, _) = listener.accept().expect("accept");
                let mut pair = Pair { server, client };
                pair.stream(5);
                poll(&mut probe, |flows| {
                    flows.iter().any(|flow| flow.key.peer.ip().to_string() == shown)
                });
            },
        );
    }
}

#[test]
fn a_namespace_that_does_not_exist_is_named() {
    let filter = FlowFilter { netns: Some("/run/netns/no-such".into()), ..FlowFilter::default() };
    let config = ProbeConfig { filter, ..ProbeConfig::default() };
    let error = Probe::open(&config).expect_err("must fail").to_string();
    assert!(error.contains("/run/netns/no-such"), "{error}");
}

#[test]
fn those_who_ask_are_left_out() {
    let (asked, other) = (Pair::new("127.0.0.1:0"), Pair::new("127.0.0.1:0"));
    let client = asked.client.local_addr().expect("address").port();
    let ports = vec![asked.port(), other.port(), client];
    let filter = || FlowFilter { except_ports: vec![asked.port()], ..loopback(ports.clone()) };
    each_source(filter, |mut probe| {
        let flows = probe.snapshot().expect("snapshot");
        let local: Vec<u16> = flows.iter().map(|flow| flow.key.local.port()).collect();
        assert_eq!(local, [other.port()], "{:?}", probe.source());
    });
    // The same from the client's end, which knows the address that it went to.
    let server = asked.client.peer_addr().expect("address");
    let filter = || FlowFilter {
        except_peers: Arc::new(RwLock::new(vec![server])),
        ..loopback(ports.clone())
    };
    each_source(filter, |mut probe| {
        let flows = probe.snapshot().expect("snapshot");
        let local: Vec<u16> = flows.iter().map(|flow| flow.key.local.port()).collect();
        assert_eq!(local, [other.port()], "{:?}", probe.source());
    });
}

#[test]
fn sockets_that_are_filtered_out_make_room_for_flows() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: sockets_that_are_filtered_out_make_room_for_flows (needs root)");
        return;
    }
    // A probe for a hundred flows, and several times as many sockets that it passes over.
    let wanted_at = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = wanted_at.local_addr().expect("bound").port();
    let filter = loopback(vec![port]);
    let config = ProbeConfig { source: SourceChoice::Ebpf, filter, max_flows: 100 };
    let mut probe = Probe::open(&config).expect("probe");
    let _others: Vec<Pair> = (0..300).map(|_| Pair::new("127.0.0.1:0")).collect();
    let wanted: Vec<Pair> = (0..60).map(|_| Pair::accepted_by(&wanted_at)).collect();
    let mut flows = probe.snapshot().expect("snapshot");
    flows.retain(|flow| flow.opened.is_some());
    assert_eq!((flows.len(), probe.losses().flows), (wanted.len(), 0));
}

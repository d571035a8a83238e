//! Packets one by one: how many are lost, that they are real segments, and that none is sent unasked.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netdiag_lab::{Lab, ServerSide};

use crate::{SECOND, connect, lab, link, ms, turn};

#[test]
fn loss_takes_its_share_in_both_directions_apart() {
    let _turn = turn();
    const PACKETS: u16 = 4000;
    const LOSS: f64 = 0.1;
    let spec = link(1).with_loss(LOSS).expect("possible");
    let Some(lab) = lab(spec, ServerSide::Namespace) else { return };
    let bind = |ip| UdpSocket::bind(SocketAddr::new(ip, 0)).expect("bind");
    let (client_ip, server_ip) = (lab.client_ip(), lab.server_ip());
    let client = lab.on_client(|| bind(client_ip)).expect("client");
    let server = lab.on_server(|| bind(server_ip)).expect("server");
    let ways = std::thread::scope(|scope| {
        let receivers = [&client, &server].map(|socket| scope.spawn(|| receive(socket)));
        for number in 0..PACKETS {
            let number = number.to_ne_bytes();
            server.send_to(&number, client.local_addr().expect("bound")).expect("send");
            client.send_to(&number, server.local_addr().expect("bound")).expect("send");
            // As fast as a socket's buffer may overflow; the kernel is not what is tested here.
            std::thread::sleep(Duration::from_micros(200));
        }
        receivers.map(|receiver| receiver.join().expect("receiver"))
    });
    // Binomial, 3.29 standard deviations: outside once in a thousand seeds.
    let within = |count: usize, share: f64| {
        let mean = f64::from(PACKETS) * share;
        let tolerance = 3.29 * (mean * (1.0 - share)).sqrt();
        assert!((count as f64 - mean).abs() <= tolerance, "{count}, expected {mean} ± {tolerance}");
    };
    let lost = ways.map(|received| {
        let lost: Vec<_> = (0..PACKETS).map(|n| !received.contains(&n)).collect();
        within(lost.iter().filter(|lost| **lost).count(), LOSS);
        lost
    });
    // Independent, they fall together one time in a hundred.
    within(lost[0].iter().zip(&lost[1]).filter(|(a, b)| **a && **b).count(), LOSS * LOSS);
}

/// The numbers that arrive until none does.
fn receive(socket: &UdpSocket) -> std::collections::HashSet<u16> {
    socket.set_read_timeout(Some(SECOND)).expect("timeout");
    let mut number = [0; 2];
    let mut numbers = std::collections::HashSet::new();
    while socket.recv(&mut number).is_ok() {
        assert!(numbers.insert(u16::from_ne_bytes(number)), "came twice");
    }
    numbers
}

#[test]
fn an_unlimited_link_loses_nothing_and_carries_real_segments() {
    let _turn = turn();
    const BYTES: usize = 16 << 20;
    let Some(lab) = lab(link(10), ServerSide::Namespace) else { return };
    let (mut server, mut client) = connect(&lab);
    let sender = std::thread::spawn(move || {
        server.write_all(&vec![0; BYTES]).expect("send");
        server
    });
    client.read_exact(&mut vec![0; BYTES]).expect("receive");
    sender.join().expect("sender");
    let [bytes, packets, _, dropped] = received(&lab);
    assert!(packets >= BYTES / 1448, "{packets} packets for {BYTES} bytes");
    assert!(bytes <= packets * 1500, "{bytes} bytes in {packets} packets");
    assert_eq!(dropped, 0);
    let retransmitted = lab.on_server(|| snmp("Tcp:", "RetransSegs")).expect("server");
    assert_eq!(retransmitted, 0);
}

#[test]
fn a_burst_arrives_whole_and_a_queue_empties_when_the_link_is_fast_again() {
    const PACKETS: usize = 500;
    let _turn = turn();
    let Some(lab) = lab(link(10), ServerSide::Namespace) else { return };
    let (client_ip, server_ip) = (lab.client_ip(), lab.server_ip());
    let server = lab.on_server(|| UdpSocket::bind((server_ip, 0)).expect("bind")).expect("server");
    let burst = || {
        for _ in 0..PACKETS {
            server.send_to(&[0; 1400], (client_ip, 9)).expect("send");
        }
    };
    // The client's interface counts, since a socket's buffer would overflow.
    let arrived = || received(&lab)[1];
    let before = arrived();
    burst();
    std::thread::sleep(SECOND / 2);
    assert_eq!(arrived() - before, PACKETS);

    // One packet in 1.1 s.
    lab.set(link(10).with_rate(10_000).expect("possible")).expect("change");
    let before = arrived();
    burst();
    std::thread::sleep(SECOND / 2);
    assert!(arrived() - before <= 1, "{} passed a slow link", arrived() - before);
    lab.set(link(10)).expect("change");
    std::thread::sleep(SECOND / 2);
    assert_eq!(arrived() - before, PACKETS);
}

#[test]
fn what_tcp_repeats_is_what_the_link_lost() {
    let _turn = turn();
    let spec = link(5).with_loss(0.05).expect("possible");
    let Some(lab) = lab(link(5), ServerSide::Namespace) else { return };
    let (mut server, mut client) = connect(&lab);
    lab.set_direction(netdiag_lab::Direction::Down, spec).expect("change");
    for _ in 0..200 {
        server.write_all(&[0; 100]).expect("send");
        std::thread::sleep(ms(5));
    }
    client.read_exact(&mut [0; 200 * 100]).expect("receive");
    let retransmitted = lab.on_server(|| snmp("Tcp:", "RetransSegs")).expect("server");
    // Ten losses are expected of two hundred; more repeats than that come from a timer that ran out early.
    assert!((3..=40).contains(&retransmitted), "{retransmitted}");
}

#[test]
fn nothing_is_sent_unasked() {
    let _turn = turn();
    let Some(lab) = lab(link(0), ServerSide::Namespace) else { return };
    // Multicast groups are announced when an address is new.
    std::thread::sleep(ms(1500));
    let before = received(&lab);
    std::thread::sleep(2 * SECOND);
    assert_eq!(received(&lab), before);
}

/// Bytes, packets, errors and drops that the client's interface received.
fn received(lab: &Lab) -> [usize; 4] {
    let table = lab.on_client(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.expect("client").expect("table");
    let line = table.lines().find(|line| line.trim_start().starts_with("netdiag"));
    let (_, counters) = line.expect("interface").split_once(':').expect("named");
    let mut counters = counters.split_whitespace().map(|n| n.parse().expect("a number"));
    std::array::from_fn(|_| counters.next().expect("a column"))
}

/// A counter of the calling thread's namespace.
fn snmp(protocol: &str, counter: &str) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
    let mut lines = table.lines().filter_map(|line| line.strip_prefix(protocol));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let position = names.split_whitespace().position(|name| name == counter).expect("counter");
    values.split_whitespace().nth(position).expect("value").parse().expect("a number")
}

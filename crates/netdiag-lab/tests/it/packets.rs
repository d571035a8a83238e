//! Packets one by one: how many are lost, that they are real segments, and that none is sent unasked.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use netdiag_lab::{Direction, Discipline, Lab, Queue, QueueLength, ServerSide, Trace};

use crate::{SECOND, connect, lab, link, ms, round_trips, turn};

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
fn bursts_are_those_asked_for_and_the_same_in_every_lab_with_the_seed() {
    let _turn = turn();
    const PACKETS: u16 = 5000;
    let spec = link(1).with_burst_loss(0.1, 5.0).expect("possible");
    let runs = [1, 2].map(|_| {
        let lab = lab(spec.clone(), ServerSide::Namespace)?;
        let (client_ip, server_ip) = (lab.client_ip(), lab.server_ip());
        let bind = |ip| UdpSocket::bind(SocketAddr::new(ip, 0)).expect("bind");
        let client = lab.on_client(|| bind(client_ip)).expect("client");
        let server = lab.on_server(|| bind(server_ip)).expect("server");
        let to = client.local_addr().expect("bound");
        let receiver = std::thread::spawn(move || receive(&client));
        for number in 0..PACKETS {
            server.send_to(&number.to_ne_bytes(), to).expect("send");
            // Slowly, for a receiver that lacks a core now and then: what its socket drops is not the link's loss.
            std::thread::sleep(Duration::from_micros(400));
        }
        let received = receiver.join().expect("receiver");
        Some((0..PACKETS).map(|number| !received.contains(&number)).collect::<Vec<_>>())
    });
    let [Some(first), Some(second)] = runs else { return };
    let bursts: Vec<usize> =
        first.chunk_by(|a, b| a == b).filter(|run| run[0]).map(<[bool]>::len).collect();
    let lost: usize = bursts.iter().sum();
    let mean = lost as f64 / bursts.len() as f64;
    // A hundred geometric bursts of 5: their mean strays by 0.45, and their sum by a seventh besides.
    assert!((3.6..=6.4).contains(&mean), "bursts of {mean}");
    assert!((250..=750).contains(&lost), "{lost} lost");
    let other = first.iter().zip(&second).filter(|(first, second)| first != second).count();
    assert_eq!(other, 0, "packets that met another fate in the other lab");
}

#[test]
fn a_trace_carries_what_it_says_and_keeps_its_silences() {
    let _turn = turn();
    // 6 Mbit/s for 100 ms, then nothing for 100 ms.
    let text: String = (0..50).map(|n| format!("{}\n", 1 + 2 * n)).collect::<String>() + "200\n";
    let trace = Trace::parse(text.as_bytes()).expect("a trace");
    let Some(lab) = lab(link(1), ServerSide::Namespace) else { return };
    let (client_ip, server_ip) = (lab.client_ip(), lab.server_ip());
    let client = lab.on_client(|| UdpSocket::bind((client_ip, 0)).expect("bind")).expect("client");
    let server = lab.on_server(|| UdpSocket::bind((server_ip, 0)).expect("bind")).expect("server");
    client.set_read_timeout(Some(SECOND)).expect("timeout");
    let to = client.local_addr().expect("bound");
    lab.set(link(1).with_trace(trace.clone())).expect("change");
    // Full packets, of which 306 leave in six rounds.
    for _ in 0..306 {
        server.send_to(&[0; 1472], to).expect("send");
    }
    let mut came = Vec::new();
    let start = Instant::now();
    while came.len() < 306 && client.recv(&mut [0; 2000]).is_ok() {
        came.push(start.elapsed());
    }
    assert_eq!(came.len(), 306);
    let took = came[305];
    assert!(took.abs_diff(6 * trace.period()) < ms(50), "{took:?}");
    let silences = came.windows(2).filter(|pair| pair[1] - pair[0] > ms(70)).count();
    assert_eq!(silences, 6);
}

#[test]
fn packets_are_overtaken_only_where_that_is_asked_for() {
    let _turn = turn();
    const PACKETS: u16 = 2000;
    let jittery = link(20).with_jitter(ms(20)).expect("possible");
    let reordering = link(5).with_reordering(0.1, ms(3)).expect("possible");
    for (spec, least, most) in [(jittery, 0, 0), (reordering, 160, 240)] {
        let Some(lab) = lab(spec, ServerSide::Namespace) else { return };
        let (client_ip, server_ip) = (lab.client_ip(), lab.server_ip());
        let bind = |ip| UdpSocket::bind(SocketAddr::new(ip, 0)).expect("bind");
        let client = lab.on_client(|| bind(client_ip)).expect("client");
        let server = lab.on_server(|| bind(server_ip)).expect("server");
        client.set_read_timeout(Some(SECOND / 2)).expect("timeout");
        let to = client.local_addr().expect("bound");
        let receiver = std::thread::spawn(move || {
            let mut number = [0; 2];
            std::iter::from_fn(|| client.recv(&mut number).ok().map(|_| u16::from_ne_bytes(number)))
                .collect::<Vec<_>>()
        });
        for number in 0..PACKETS {
            server.send_to(&number.to_ne_bytes(), to).expect("send");
            std::thread::sleep(Duration::from_micros(500));
        }
        let order = receiver.join().expect("receiver");
        assert_eq!(order.len(), usize::from(PACKETS));
        // Late ones, as RFC 4737 (section 3.3) has it: a later number came before.
        let mut next = 0;
        let overtaken = order.iter().filter(|&&number| {
            let is_late = number < next;
            next = next.max(number);
            is_late
        });
        let overtaken = overtaken.count();
        // 200 with a standard deviation of 13.
        assert!((least..=most).contains(&overtaken), "{overtaken} of {PACKETS}");
    }
}

#[test]
fn codel_keeps_a_queue_short_that_a_tail_drop_fills() {
    let _turn = turn();
    let waited = [Discipline::DropTail, Discipline::CoDel].map(|discipline| {
        let queue = Queue::try_new(discipline, QueueLength::Time(ms(200))).expect("possible");
        let slow = link(5).with_rate(4_000_000).expect("possible").with_queue(queue);
        let lab = lab(link(5), ServerSide::Namespace)?;
        lab.set_direction(Direction::Down, slow).expect("change");
        let (client_ip, server_ip) = (lab.client_ip(), lab.server_ip());
        let server = lab.on_server(|| UdpSocket::bind((server_ip, 0)).expect("bind"));
        let server = server.expect("server");
        let mut ends = connect(&lab);
        let started = Instant::now();
        let over = Duration::from_secs(4);
        let load = std::thread::spawn(move || {
            // A tenth more than the link carries: CoDel gets there by dropping 37 of 367 packets a second.
            let mut sent = 0;
            while started.elapsed() < over {
                server.send_to(&[0; 1472], (client_ip, 9)).expect("send");
                sent += 1;
                let due = Duration::from_secs_f64(f64::from(sent) * 12_000.0 / 4_400_000.0);
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
        });
        std::thread::sleep(ms(2500));
        let waited = round_trips(&mut ends, 5)[2];
        load.join().expect("load");
        Some(waited)
    });
    let [Some(tail), Some(codel)] = waited else { return };
    assert!(tail > ms(150), "{tail:?} with a tail drop");
    assert!(codel < ms(100), "{codel:?} with CoDel");
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
    lab.set_direction(Direction::Down, spec).expect("change");
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

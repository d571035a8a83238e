//! The emulated link against the kernel's own TCP and UDP: delay, loss, rate, blackout, and that nothing stays behind.
//!
//! Needs root, and says so where it cannot run.

#![allow(clippy::print_stdout)] // a skipped test says so

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netdiag_lab::{Direction, Lab, LinkSpec, ServerSide};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn link(one_way: u64) -> LinkSpec {
    LinkSpec::delayed(ms(one_way)).expect("possible")
}

/// A lab, or `None` where it cannot be had.
fn lab(spec: LinkSpec, side: ServerSide) -> Option<Lab> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: link emulation test (needs root)");
        return None;
    }
    Some(Lab::start(spec, side).expect("lab"))
}

/// A connection over the link, the server's end first.
fn connect(lab: &Lab) -> (TcpStream, TcpStream) {
    let address = SocketAddr::new(lab.server_ip(), 0);
    let listener = lab.on_server(|| TcpListener::bind(address).expect("bind")).expect("server");
    let target = listener.local_addr().expect("bound");
    let client = lab.on_client(|| TcpStream::connect(target).expect("connect")).expect("client");
    let (server, _) = listener.accept().expect("accept");
    for end in [&server, &client] {
        end.set_nodelay(true).expect("nodelay");
        end.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        end.set_write_timeout(Some(Duration::from_secs(2))).expect("timeout");
    }
    (server, client)
}

/// The median round trip of `n` one-byte exchanges.
fn round_trip(server: &mut TcpStream, client: &mut TcpStream, n: usize) -> Duration {
    let mut byte = [1];
    let mut times: Vec<_> = (0..n)
        .map(|_| {
            let start = Instant::now();
            server.write_all(&byte).expect("ping");
            client.read_exact(&mut byte).expect("ping");
            client.write_all(&byte).expect("pong");
            server.read_exact(&mut byte).expect("pong");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[n / 2]
}

#[test]
fn the_delay_is_the_one_asked_for_and_changes_while_running() {
    let Some(lab) = lab(link(10), ServerSide::Namespace) else { return };
    let (mut server, mut client) = connect(&lab);
    for one_way in [10, 50, 1, 25] {
        lab.set(link(one_way)).expect("change");
        // What is under way still has the old delay.
        round_trip(&mut server, &mut client, 2);
        let measured = round_trip(&mut server, &mut client, 9);
        let asked = ms(2 * one_way);
        let error = measured.abs_diff(asked);
        assert!(error <= ms(1) + asked / 100, "{measured:?} for {asked:?}");
    }
}

#[test]
fn directions_are_set_apart_and_jitter_varies_the_delay() {
    let Some(lab) = lab(link(0), ServerSide::Namespace) else { return };
    let (mut server, mut client) = connect(&lab);
    lab.set_direction(Direction::Down, link(40)).expect("change");
    round_trip(&mut server, &mut client, 2);
    let measured = round_trip(&mut server, &mut client, 9);
    assert!(measured.abs_diff(ms(40)) <= ms(2), "{measured:?}");

    lab.set_direction(Direction::Down, link(40).with_jitter(ms(20)).expect("possible"))
        .expect("change");
    let mut byte = [1];
    let times: Vec<_> = (0..40).map(|_| round_trip(&mut server, &mut client, 1)).collect();
    server.write_all(&byte).expect("open");
    client.read_exact(&mut byte).expect("open");
    let (least, most) = (times.iter().min().expect("some"), times.iter().max().expect("some"));
    assert!(*least >= ms(20) && *least <= ms(32), "{least:?}");
    assert!(*most >= ms(48) && *most <= ms(63), "{most:?}");
}

#[test]
fn loss_takes_its_share() {
    const PACKETS: u32 = 4000;
    const LOSS: f64 = 0.1;
    let Some(lab) = lab(link(1).with_loss(LOSS).expect("possible"), ServerSide::Namespace) else {
        return;
    };
    let bind = |ip| UdpSocket::bind(SocketAddr::new(ip, 0)).expect("bind");
    let (client_ip, server_ip) = (lab.client_ip(), lab.server_ip());
    let client = lab.on_client(|| bind(client_ip)).expect("client");
    let server = lab.on_server(|| bind(server_ip)).expect("server");
    let target = client.local_addr().expect("bound");
    client.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
    let receiver = std::thread::spawn(move || {
        let mut buffer = [0; 4];
        let mut received = 0u32;
        while client.recv(&mut buffer).is_ok() {
            received += 1;
        }
        received
    });
    for number in 0..PACKETS {
        server.send_to(&number.to_ne_bytes(), target).expect("send");
        // As fast as a socket buffer may overflow; the emulator is not what is tested here.
        std::thread::sleep(Duration::from_micros(200));
    }
    let lost = PACKETS - receiver.join().expect("receiver");
    // Binomial, 3.29 standard deviations: outside once in a thousand runs.
    let mean = f64::from(PACKETS) * LOSS;
    let tolerance = 3.29 * (mean * (1.0 - LOSS)).sqrt();
    assert!(
        (f64::from(lost) - mean).abs() <= tolerance,
        "{lost} lost, expected {mean} ± {tolerance}"
    );
}

#[test]
fn the_rate_is_the_one_asked_for() {
    const RATE: u64 = 4_000_000;
    let Some(lab) = lab(link(5).with_rate(RATE).expect("possible"), ServerSide::Namespace) else {
        return;
    };
    let (mut server, mut client) = connect(&lab);
    let sender = std::thread::spawn(move || {
        let block = [0; 16 * 1024];
        while server.write_all(&block).is_ok() {}
    });
    let mut buffer = vec![0; 64 * 1024];
    let mut read_for = |duration: Duration| {
        let start = Instant::now();
        let mut bytes = 0;
        while start.elapsed() < duration {
            bytes += client.read(&mut buffer).expect("read");
        }
        bytes as f64 * 8.0 / start.elapsed().as_secs_f64()
    };
    read_for(Duration::from_secs(1));
    let goodput = read_for(Duration::from_secs(2));
    // Of 1514 bytes on the wire 1448 are data.
    let expected = RATE as f64 * 1448.0 / 1514.0;
    assert!((goodput / expected - 1.0).abs() <= 0.05, "{goodput} bit/s, expected {expected}");
    // The queue of the link is long by now and nobody reads: the sender's next write times out.
    drop(client);
    sender.join().expect("sender");
}

#[test]
fn a_blackout_passes_nothing_and_ends() {
    let Some(lab) = lab(link(5), ServerSide::Namespace) else { return };
    let (mut server, mut client) = connect(&lab);
    round_trip(&mut server, &mut client, 1);
    lab.set(link(5).blackout()).expect("change");
    server.write_all(&[2]).expect("send");
    client.set_read_timeout(Some(ms(500))).expect("timeout");
    assert!(client.read_exact(&mut [0]).is_err(), "a packet came through");
    lab.set(link(5)).expect("change");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    client.read_exact(&mut [0]).expect("TCP repeats what was lost");
}

#[test]
fn the_server_may_be_on_the_host() {
    let Some(lab) = lab(link(10), ServerSide::Host) else { return };
    let listener =
        TcpListener::bind(SocketAddr::new(lab.server_ip(), 0)).expect("bind on the host");
    let target = listener.local_addr().expect("bound");
    let mut client =
        lab.on_client(|| TcpStream::connect(target).expect("connect")).expect("client");
    let (mut server, peer) = listener.accept().expect("accept");
    assert_eq!(peer.ip(), lab.client_ip());
    let measured = round_trip(&mut server, &mut client, 9);
    assert!((ms(20)..ms(30)).contains(&measured), "{measured:?}");
}

/// What labs leave in the world while they are there.
fn traces() -> Vec<String> {
    let listed = |folder: &str, is_ours: fn(&str) -> bool| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| is_ours(name)).collect::<Vec<_>>()
    };
    let mut all = listed("/run/netns", |name| name.starts_with("ns-"));
    all.extend(listed("/sys/class/net", |name| name.starts_with("vR") || name.starts_with("vL")));
    all.extend(listed("/run/netdiag-lab", |_| true));
    all.sort_unstable();
    all
}

#[test]
fn nothing_stays_behind() {
    let before = traces();
    for side in [ServerSide::Namespace, ServerSide::Host, ServerSide::Namespace] {
        let Some(lab) = lab(link(1), side) else { return };
        assert!(traces().len() > before.len());
        let panicked = std::thread::spawn(move || {
            let _lab = lab;
            panic!("on purpose");
        });
        panicked.join().expect_err("panicked");
        wait_for(|| traces() == before);
    }
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let Some(first) = lab(link(1), ServerSide::Namespace) else { return };
    let before = traces();
    // This test as a program of its own, which makes a lab and waits to be killed.
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "a_lab_to_be_killed", "--nocapture"])
        .env(TO_BE_KILLED, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.any(|line| line.expect("line").contains(TO_BE_KILLED)));
    child.kill().expect("kill");
    child.wait().expect("reap");
    assert!(traces().len() > before.len());
    let next = lab(link(1), ServerSide::Namespace).expect("root");
    drop(next);
    wait_for(|| traces() == before);
    // The lab of a process that lives was left alone.
    let (mut server, mut client) = connect(&first);
    round_trip(&mut server, &mut client, 1);
}

const TO_BE_KILLED: &str = "NETDIAG_LAB_TO_BE_KILLED";

/// Not a test of its own: the program that the test above kills.
#[test]
fn a_lab_to_be_killed() {
    if std::env::var_os(TO_BE_KILLED).is_none() {
        return;
    }
    let _lab = lab(link(1), ServerSide::Namespace);
    println!("{TO_BE_KILLED}");
    loop {
        std::thread::park();
    }
}

/// The kernel takes namespaces and interfaces down in the background.
fn wait_for(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "still there: {:?}", traces());
        std::thread::yield_now();
    }
}

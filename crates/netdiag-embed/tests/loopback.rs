//! Streams over real TCP: readers that stop, readers that vanish, and what is counted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use netdiag_embed::{Admission, Gone, Pacing, Settings, StreamPacer};
use netdiag_pacer::{Cause, State, TpsRange};
use netdiag_telemetry::Tps;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use socket2::{SockFilter, SockRef};

/// A token as an event of OpenAI's format.
const TOKEN: [u8; 230] = [b'x'; 230];

fn tps(n: f64) -> Tps {
    Tps::try_new(n).expect("valid")
}

fn settings(max: f64) -> Settings {
    Settings::new(TpsRange::try_new(tps(5.0), tps(max)).expect("in order"), tps(16.0))
}

/// A connection whose client takes a few kilobytes ahead of its reader.
fn narrow_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    sockopt::set_socket_recv_buffer_size(&client, 4096).expect("a size");
    let SocketAddr::V4(address) = listener.local_addr().expect("bound") else { unreachable!() };
    connect(&client, &address).expect("loopback");
    let server = listener.accept().expect("a client").0;
    server.set_nodelay(true).expect("TCP");
    (client.into(), server)
}

/// Generates for as long as it may, up to `most`, and writes. What it was told at last.
fn send(stream: &StreamPacer, server: &mut TcpStream, most: Duration) -> Admission {
    let began = Instant::now();
    loop {
        let admission = stream.admit(1);
        match admission {
            Admission::Now => {
                server.write_all(&TOKEN).expect("room in the send buffer");
                stream.on_sent(1, TOKEN.len() as u64);
            }
            _ if began.elapsed() > most => return admission,
            Admission::Wait(wait) => std::thread::sleep(wait.min(Duration::from_millis(5))),
            Admission::Hold => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Reads for `time`, and says how much.
fn read(client: &mut TcpStream, time: Duration) -> u64 {
    let (began, mut taken) = (Instant::now(), 0);
    let mut buffer = [0; 4096];
    client.set_read_timeout(Some(Duration::from_millis(20))).expect("TCP");
    while began.elapsed() < time {
        taken += client.read(&mut buffer).unwrap_or(0) as u64;
    }
    taken
}

#[test]
fn a_reader_that_stops_is_named_and_held_and_goes_on_when_it_reads() {
    let (mut client, mut server) = narrow_pair();
    let pacing = Pacing::try_new(settings(80.0)).expect("valid");
    let stream = pacing.stream(&server).expect("TCP");
    // Nobody reads. Once the window is shut, it is known within a second.
    let began = Instant::now();
    let shut = loop {
        send(&stream, &mut server, Duration::from_millis(10));
        let queues = netdiag_tcpinfo::queues(&server).expect("TCP");
        if queues.notsent.0 > 0 {
            break Instant::now();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", stream.report());
    };
    while !(stream.report().hold && stream.report().state == State::Reader) {
        send(&stream, &mut server, Duration::from_millis(10));
        assert!(shut.elapsed() < Duration::from_secs(1), "{:?}", stream.report());
    }
    assert_eq!(send(&stream, &mut server, Duration::from_secs(2)), Admission::Hold);
    let held = stream.report();
    assert_eq!(send(&stream, &mut server, Duration::from_secs(2)), Admission::Hold);
    assert_eq!(stream.report().admitted, held.admitted);
    assert_eq!(stream.report().cause, Some(Cause::Reader), "{:?}", stream.report());
    assert!(held.outstanding <= held.credit.max(20.0), "{held:?}");
    // It reads on.
    let reader = std::thread::spawn(move || (read(&mut client, Duration::from_secs(3)), client));
    let resumed = Instant::now();
    stream.admitted_blocking(1).expect("open");
    // A zero window is probed for at ever longer intervals, so this is the kernel's time; a full buffer of 4 KiB tells at once.
    assert!(resumed.elapsed() < Duration::from_secs(1), "{:?}", resumed.elapsed());
    stream.on_sent(1, 0);
    send(&stream, &mut server, Duration::from_secs(2));
    let (taken, _client) = reader.join().expect("the reader");
    let report = stream.report();
    assert!(taken > 20 * TOKEN.len() as u64, "{taken}: {report:?}");
    assert!(report.admitted > held.admitted + 20 && !report.hold, "{report:?}");
}

#[test]
fn a_stream_ends_with_its_connection_and_leaves_with_its_handle() {
    let (client, mut server) = narrow_pair();
    let pacing = Pacing::try_new(settings(1000.0)).expect("valid");
    let stream = pacing.stream(&server).expect("TCP");
    assert_eq!(pacing.reports().len(), 1);
    assert_eq!(stream.key().peer, client.local_addr().expect("connected"));
    for _ in 0..2 {
        stream.admitted_blocking(1).expect("open");
        server.write_all(&TOKEN).expect("open");
        stream.on_sent(1, TOKEN.len() as u64);
    }
    // Reset, since it has not read.
    drop(client);
    let began = Instant::now();
    let gone = loop {
        match stream.admitted_blocking(1) {
            Ok(()) if began.elapsed() < Duration::from_secs(5) => {}
            gone => break gone,
        }
    };
    assert_eq!((gone, stream.is_lost()), (Err(Gone::Closed), false));
    drop(stream);
    assert_eq!(pacing.reports().len(), 0);
}

#[test]
fn the_kernel_tries_every_second_while_a_client_is_silent_and_only_then() {
    let (client, mut server) = narrow_pair();
    let before = match netdiag_tcpinfo::longest_retry(&server) {
        Ok(before) => before,
        Err(error) => return println!("skipped: bounded retries (needs Linux 6.15: {error})"),
    };
    let pacing = Pacing::try_new(settings(1000.0)).expect("valid");
    let stream = pacing.stream(&server).expect("TCP");
    let mut say = || {
        server.write_all(&TOKEN).expect("room in the send buffer");
        stream.on_sent(1, TOKEN.len() as u64);
    };
    // What the kernel gives whoever listens for a packet, if anything: it returns none of it (`BPF_RET | BPF_K`).
    let deafen = || SockRef::from(&client).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]);
    stream.admitted_blocking(1).expect("open");
    say();
    deafen().expect("a filter");
    stream.admitted_blocking(1).expect("open");
    say();
    let reaches = |expected: Duration| {
        let began = Instant::now();
        loop {
            // Which has it looked at, if that is due.
            let _ = stream.report();
            let state = stream.state();
            let now = netdiag_tcpinfo::longest_retry(&server).expect("as before");
            if now == expected {
                return state;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{now:?} in {state:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    assert_eq!(reaches(Duration::from_secs(1)), State::Stalled);
    // A second handle, which does not mistake that for what the connection had.
    let second = pacing.stream(&server).expect("TCP");
    SockRef::from(&client).detach_filter().expect("a filter");
    assert_ne!(reaches(before), State::Stalled);
    deafen().expect("a filter");
    drop(stream);
    assert_eq!(netdiag_tcpinfo::longest_retry(&server).expect("as before"), before);
    second.admitted_blocking(1).expect("open");
    server.write_all(&TOKEN).expect("room in the send buffer");
    second.on_sent(1, TOKEN.len() as u64);
    let began = Instant::now();
    while netdiag_tcpinfo::longest_retry(&server).expect("as before") == before {
        let _ = second.report();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", second.state());
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(second);
    assert_eq!(netdiag_tcpinfo::longest_retry(&server).expect("as before"), before);
}

#[test]
fn the_end_of_a_stream_outlives_its_socket_however_long_the_reader_rests() {
    let (mut client, mut server) = narrow_pair();
    let before = netdiag_tcpinfo::longest_retry(&server).ok();
    let pacing = Pacing::try_new(settings(1000.0)).expect("valid");
    let stream = pacing.stream(&server).expect("TCP");
    // More than the client's window: the rest waits in the kernel, which asks again and again whether there is room.
    server.set_nonblocking(true).expect("a socket");
    let mut written = 0;
    while let Ok(wrote) = server.write(&TOKEN) {
        stream.on_sent(1, wrote as u64);
        written += wrote;
    }
    assert!(written > 10_000, "{written}");
    // Before the socket is closed and after, the pauses between the kernel's probes grow to what would be the longest, were it a second.
    // It must not be while the window is shut, however often the stream is looked at.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        let _ = stream.report();
        assert_eq!(netdiag_tcpinfo::longest_retry(&server).ok(), before, "{:?}", stream.state());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(stream.state(), State::Reader);
    drop((stream, server));
    std::thread::sleep(Duration::from_secs(4));
    let mut taken = Vec::new();
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("TCP");
    client.read_to_end(&mut taken).expect("an end");
    assert_eq!(taken.len(), written);
}

#[test]
fn rates_are_kept_and_shares_add_up() {
    let (mut client, mut server) = narrow_pair();
    let reader = std::thread::spawn(move || read(&mut client, Duration::from_secs(4)));
    let pacing =
        Pacing::try_new(Settings { capacity: Some(tps(30.0)), ..settings(80.0) }).expect("valid");
    let stream = pacing.stream(&server).expect("TCP");
    // A second one asks as well, whose client never reads.
    let (_other_client, mut other_server) = narrow_pair();
    let other = pacing.stream(&other_server).expect("TCP");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        send(&stream, &mut server, Duration::from_millis(5));
        send(&other, &mut other_server, Duration::from_millis(5));
    }
    let granted: f64 = pacing.reports().iter().map(|(_, report)| report.granted_tps).sum();
    assert!(granted <= 30.0 + 1e-6, "{granted}");
    let tokens = stream.report().admitted + other.report().admitted;
    // The first tick's worth comes before there are shares.
    assert!((60..=120).contains(&tokens), "{tokens} in 3 s of 30/s");
    drop(server);
    drop(stream);
    let taken = reader.join().expect("the reader");
    assert!(taken > 0);
}

#[tokio::test]
async fn waiting_takes_a_task_and_no_thread() {
    let (mut client, mut server) = narrow_pair();
    let reader = std::thread::spawn(move || read(&mut client, Duration::from_secs(3)));
    let pacing = Pacing::try_new(settings(50.0)).expect("valid");
    let ticking = tokio::spawn(pacing.clone().run());
    let stream = pacing.stream(&server).expect("TCP");
    let began = Instant::now();
    for _ in 0..100 {
        stream.admitted(1).await.expect("open");
        server.write_all(&TOKEN).expect("open");
        stream.on_sent(1, TOKEN.len() as u64);
    }
    let rate = 100.0 / began.elapsed().as_secs_f64();
    assert!((35.0..52.0).contains(&rate), "{rate} tokens/s of 50");
    // All that time it waited for the pacer, and it waits no more once nobody does.
    let waited = stream.report().causes.pacer;
    assert!(waited > began.elapsed() / 2, "{:?}", stream.report());
    // One that is admitted and not handed on, so that not all of the credit is free.
    stream.admitted(1).await.expect("open");
    let given_up = tokio::time::timeout(Duration::ZERO, stream.admitted(1000)).await;
    assert!(given_up.is_err(), "1000 tokens at once");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(stream.report().causes.pacer < waited + Duration::from_millis(250));
    drop((stream, pacing));
    // With the last handle its ticking ends.
    tokio::time::timeout(Duration::from_secs(5), ticking).await.expect("in time").expect("ended");
    reader.join().expect("the reader");
}

//! Streams that pace themselves, over links that fall silent: how soon they stop, and how soon they go on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use netdiag_embed::{Pacing, Settings, StreamPacer};
use netdiag_pacer::{Cause, State, TpsRange};
use netdiag_telemetry::Tps;

use super::*;

const TOKEN: [u8; 230] = [b'x'; 230];

/// What a thread that waits for a core may be late by.
const SLACK: Duration = ms(50);

fn tps(n: f64) -> Tps {
    Tps::try_new(n).expect("valid")
}

fn pacing(max: f64, capacity: Option<f64>) -> Pacing {
    let range = TpsRange::try_new(tps(5.0), tps(max)).expect("in order");
    let settings = Settings { capacity: capacity.map(tps), ..Settings::new(range, tps(16.0)) };
    Pacing::try_new(settings).expect("valid")
}

/// Generates whenever it may, and notes when.
fn generate(
    stream: &StreamPacer,
    mut socket: &TcpStream,
    stop: &AtomicBool,
    times: &Mutex<Vec<Instant>>,
) {
    while !stop.load(Ordering::Relaxed) && stream.admitted_blocking(1).is_ok() {
        times.lock().expect("no panic").push(Instant::now());
        socket.write_all(&TOKEN).expect("room in the send buffer");
        stream.on_sent(1, TOKEN.len() as u64);
    }
}

fn read_all(mut socket: &TcpStream) {
    let mut buffer = [0; 4096];
    while socket.read(&mut buffer).is_ok_and(|taken| taken > 0) {}
}

/// Waits for it, and says when it was.
#[track_caller]
fn until(what: &str, most: Duration, is_so: impl Fn() -> bool) -> Instant {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < most, "{what}: not within {most:?}");
        thread::sleep(ms(1));
    }
    Instant::now()
}

#[test]
fn a_silent_link_is_held_within_a_second_and_resumed_within_100_ms_of_the_first_ack() {
    let _turn = turn();
    let spec = link(25);
    let Some(lab) = lab(spec.clone(), ServerSide::Namespace) else { return };
    for capacity in [None, Some(200.0)] {
        let (server, client) = connect(&lab);
        let pacing = pacing(40.0, capacity);
        let stream = pacing.stream(&server).expect("TCP");
        let (stop, times) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            scope.spawn(|| read_all(&client));
            scope.spawn(|| {
                generate(&stream, &server, &stop, &times);
                server.shutdown(std::net::Shutdown::Both).expect("open");
            });
            let generated = || times.lock().expect("no panic").len();
            let acked = || netdiag_tcpinfo::read(&server).expect("TCP").bytes_acked;
            for event in 0..4 {
                until("tokens flow", 10 * SECOND, || generated() >= 40 * (event + 1));
                assert!(!stream.report().hold, "{:?}", stream.report());
                lab.set(spec.clone().blackout()).expect("running");
                let silent = Instant::now();
                until("held", SECOND, || stream.report().hold);
                let held = silent.elapsed();
                assert_eq!(stream.report().state, State::Stalled);
                thread::sleep(SECOND);
                let (before, last) = (generated(), acked());
                lab.set(spec.clone()).expect("running");
                // The kernel sends again when its timer says so, which doubles each time.
                let heard = until("an ACK", 10 * SECOND, || acked() > last);
                let resumed = until("resumed", SECOND, || generated() > before);
                let late = resumed.saturating_duration_since(heard);
                println!(
                    "capacity {capacity:?}: held after {held:?}, resumed {late:?} after an ACK"
                );
                assert!(late < ms(100) + SLACK, "{late:?}: {:?}", stream.report());
            }
            stop.store(true, Ordering::Relaxed);
        });
        let report = stream.report();
        assert!(report.causes.path > SECOND, "{report:?}");
        assert!(report.causes.reader < ms(500), "{report:?}");
    }
}

#[test]
fn a_long_clean_link_carries_all_that_is_allowed() {
    let _turn = turn();
    let Some(lab) = lab(link(100), ServerSide::Namespace) else { return };
    let (server, client) = connect(&lab);
    let pacing = pacing(80.0, None);
    let stream = pacing.stream(&server).expect("TCP");
    let (stop, times) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        scope.spawn(|| read_all(&client));
        scope.spawn(|| {
            generate(&stream, &server, &stop, &times);
            server.shutdown(std::net::Shutdown::Both).expect("open");
        });
        thread::sleep(9 * SECOND);
        stop.store(true, Ordering::Relaxed);
    });
    let times = times.into_inner().expect("no panic");
    // After the beginning, which is what a credit that grows with what has arrived is about.
    let settled = times[0] + SECOND;
    let rest = times.iter().filter(|time| **time >= settled).count();
    let span = times[times.len() - 1] - settled;
    let rate = rest as f64 / span.as_secs_f64();
    println!("{rate:.1} tokens/s of 80 over 200 ms; {} in the first second", times.len() - rest);
    assert!((79.2..81.0).contains(&rate), "{rate}: {:?}", stream.report());
    assert_ne!(stream.report().cause, Some(Cause::Path), "{:?}", stream.report());
}

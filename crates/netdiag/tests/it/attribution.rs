//! Whom a stream waits for: something is done to it, and the time after that is given to who it was.
//!
//! One of each kind; `cargo xtask bench attribution` does hundreds. Readers are in `closed_loop`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netdiag_lab::{Lab, LinkSpec, ServerSide};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Running, get, netdiag, root, until};

/// A token as an event of OpenAI's format, 50 of which are written per second.
const EVENT: &[u8] = &[b'.'; 230];
const STEP: Duration = Duration::from_millis(20);

/// What the link carries when it is narrow, bits/s: a quarter of that, headers included. For a second or two its queue takes the rest,
/// and nothing waits in the kernel.
const NARROW: u64 = 29_000;

/// An engine that can pause, until this is dropped.
struct Engine {
    over: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
}

impl Engine {
    fn start(lab: &Lab) -> Self {
        let (over, paused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let address = SocketAddr::new(lab.server_ip(), 8000);
        let listener =
            lab.on_server(|| TcpListener::bind(address)).expect("enters").expect("binds");
        let (stop, rest) = (Arc::clone(&over), Arc::clone(&paused));
        std::thread::spawn(move || {
            let (mut server, _) = listener.accept().expect("accepts");
            server.set_nodelay(true).expect("a socket");
            while !stop.load(Ordering::Relaxed) {
                if !rest.load(Ordering::Relaxed) && server.write_all(EVENT).is_err() {
                    return;
                }
                std::thread::sleep(STEP);
            }
        });
        let client = lab.on_client(|| TcpStream::connect(address)).expect("enters");
        let mut client = client.expect("connects");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while client.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        Self { over, paused }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Seconds of the only stream by whom it has waited for: engine, path, reader, pacer.
fn seconds(address: SocketAddr) -> Option<[f64; 4]> {
    let (_, body) = get(address, "/v1/streams");
    let all: Value = serde_json::from_str(&body).expect("JSON");
    let by_cause = |cause: &str| all["streams"][0]["seconds_by_cause"][cause].as_f64();
    Some([by_cause("engine")?, by_cause("path")?, by_cause("reader")?, by_cause("pacer")?])
}

/// Whom most of the next `most` seconds of the stream are given.
fn blamed(address: SocketAddr, most: f64) -> &'static str {
    let before = until("a stream", || seconds(address));
    let spent = until("time that is accounted", || {
        let now = seconds(address)?;
        let spent: Vec<f64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
        (spent.iter().sum::<f64>() >= most).then_some(spent)
    });
    let most = (0..4).max_by(|a, b| spent[*a].total_cmp(&spent[*b])).expect("four");
    ["engine", "path", "reader", "pacer"][most]
}

fn time_is_given_to_who_it_was(source: &str) {
    let good = LinkSpec::delayed(Duration::from_millis(30)).expect("a possible link");
    let narrow = good.clone().with_rate(NARROW).expect("a possible link");
    let lab = Lab::start(good.clone(), ServerSide::default()).expect("a lab");
    let engine = Engine::start(&lab);
    let mut command = netdiag(["up", "--listen", "127.0.0.1:0", "--source", source, "--netns"]);
    command.arg(lab.server_netns());
    let mut running = Running::start(command);
    let address = running.address();
    // A path is known after a few round trips.
    assert_eq!(blamed(address, 2.0), "engine", "nothing is wrong");
    engine.paused.store(true, Ordering::Relaxed);
    assert_eq!(blamed(address, 1.5), "engine", "the engine pauses");
    engine.paused.store(false, Ordering::Relaxed);
    assert_eq!(blamed(address, 1.0), "engine", "it goes on");
    lab.set(&narrow).expect("the link gets narrow");
    assert_eq!(blamed(address, 1.5), "path", "the link is narrow");
    lab.set(&good).expect("the link heals");
    // Until the queue of the link has come.
    until("the engine again", || (blamed(address, 0.5) == "engine").then_some(()));
    lab.set(good.blackout()).expect("the link goes silent");
    assert_eq!(blamed(address, 1.5), "path", "the link is silent");
    running.end_by(Signal::TERM);
}

#[test]
fn time_is_given_to_who_it_was_by_ebpf() {
    if root("attribution::time_is_given_to_who_it_was_by_ebpf") {
        time_is_given_to_who_it_was("ebpf");
    }
}

#[test]
fn time_is_given_to_who_it_was_by_sock_diag() {
    if root("attribution::time_is_given_to_who_it_was_by_sock_diag") {
        time_is_given_to_who_it_was("sockdiag");
    }
}

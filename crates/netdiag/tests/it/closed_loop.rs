//! The purpose of it all: the link gets worse and the recommended rate falls by itself; it heals and the rate is back.
//!
//! Real TCP over an emulated link: a server that streams small writes, watched by the real binary.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netdiag_lab::{Lab, LinkSpec, ServerSide};
use rustix::process::Signal;

use crate::support::{Running, hint, netdiag, root, until};

const MAX_TPS: f64 = 80.0;

/// A stream like that of a model: a token every ten milliseconds, from the server to the client.
pub(crate) struct Stream {
    over: Arc<AtomicBool>,
}

impl Stream {
    pub(crate) fn start(lab: &Lab) -> Self {
        Self::of(lab, b"token ")
    }

    fn of(lab: &Lab, token: &'static [u8]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let address = SocketAddr::new(lab.server_ip(), 8000);
        let listener =
            lab.on_server(|| TcpListener::bind(address)).expect("enters").expect("binds");
        let stop = Arc::clone(&over);
        std::thread::spawn(move || {
            let (mut server, _) = listener.accept().expect("accepts");
            server.set_nodelay(true).expect("a socket");
            while !stop.load(Ordering::Relaxed) && server.write_all(token).is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let client = lab.on_client(|| TcpStream::connect(address)).expect("enters");
        let mut client = client.expect("connects");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while client.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        Self { over }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A link whose round trip takes `rtt`.
fn link(rtt: Duration) -> LinkSpec {
    LinkSpec::delayed(rtt / 2).expect("a possible link")
}

fn closes_with(source: &str) {
    let good = link(Duration::from_millis(20));
    let bad = link(Duration::from_millis(200)).with_loss(0.05).expect("a possible link");
    let lab = Lab::start(&good, ServerSide::default()).expect("a lab");
    let _stream = Stream::start(&lab);
    let fixed = ["up", "--listen", "127.0.0.1:0", "--policy", "classic", "--source", source];
    let mut command = netdiag(fixed);
    command.arg("--netns").arg(lab.server_netns());
    let mut running = Running::start(command);
    let address = running.address();
    let reach = |what: &str, state: &str, reached: &dyn Fn(f64) -> bool| {
        let asked = Instant::now();
        until(what, || {
            let hint = hint(address, "");
            let rate = hint["current_tps"].as_f64().expect("a rate");
            (hint["state"] == state && reached(rate)).then_some(())
        });
        asked.elapsed()
    };
    reach("a good link", "clear", &|rate| rate >= 0.9 * MAX_TPS);
    lab.set(&bad).expect("the link gets worse");
    let fallen = reach("the fall", "constrained", &|rate| rate <= 0.5 * MAX_TPS);
    assert!(fallen <= Duration::from_secs(5), "{source}: fell after {fallen:?}");
    let peer = hint(address, &format!("?peer={}", lab.client_ip()));
    assert!(peer["current_tps"].as_f64().is_some_and(|rate| rate <= 0.6 * MAX_TPS), "{peer}");
    lab.set(&good).expect("the link heals");
    let back = reach("the recovery", "clear", &|rate| rate >= 0.9 * MAX_TPS);
    assert!(back <= Duration::from_secs(10), "{source}: back after {back:?}");
    // For whoever runs this with --nocapture.
    let _ = writeln!(std::io::stderr(), "{source}: fell after {fallen:?}, back after {back:?}");
    running.end_by(Signal::TERM);
}

/// As an event of OpenAI's format.
const EVENT: &[u8] = &[b'.'; 230];

fn carries_with(source: &str) {
    let good = link(Duration::from_millis(20));
    // 25 events per second, less what their headers take.
    let narrow = link(Duration::from_millis(20)).with_rate(50_000).expect("a possible link");
    let lab = Lab::start(good.clone(), ServerSide::default()).expect("a lab");
    let _stream = Stream::of(&lab, EVENT);
    let mut command = netdiag(["up", "--listen", "127.0.0.1:0", "--source", source, "--netns"]);
    command.arg(lab.server_netns());
    let mut running = Running::start(command);
    let address = running.address();
    let rate = |hint: &serde_json::Value| hint["current_tps"].as_f64().expect("a rate");
    let reach = |what: &str, state: &str, reached: &dyn Fn(f64) -> bool| {
        let asked = Instant::now();
        until(what, || {
            let hint = hint(address, "");
            (hint["state"] == state && reached(rate(&hint))).then_some(())
        });
        asked.elapsed()
    };
    let full = |rate: f64| rate >= 0.99 * MAX_TPS;
    reach("a good link", "clear", &full);
    lab.set(&narrow).expect("the link gets narrow");
    let fallen = reach("the fall", "constrained", &|rate| (12.0..=30.0).contains(&rate));
    assert!(fallen <= Duration::from_secs(5), "{source}: fell after {fallen:?}");
    // What was sent before it got narrow is part of the average for a second or two. After that it is the most of averages over a
    // second: where only every other full segment is acknowledged, 12.6 tokens arrive at once, each 0.48 s, and just after them the
    // average is 12.6 / (1 - exp(-0.48)) = 33 tokens/s, or a bit more where a tick sees them early.
    let stream = until("what the link carries", || {
        let (_, body) = crate::support::get(address, "/v1/streams");
        let all: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let stream = all["streams"][0].clone();
        let carried =
            stream["carry_tps"].as_f64().filter(|carried| (20.0..=34.0).contains(carried));
        carried.map(|_| stream)
    });
    assert_eq!(stream["cause"], "path", "{stream}");
    let each = stream["bytes_per_token"].as_f64().expect("a length");
    assert!((225.0..=235.0).contains(&each), "{stream}");
    let told = hint(address, "")["reason"].to_string();
    assert!(told.starts_with("\"path: "), "{told}");
    lab.set(&good).expect("the link heals");
    let back = reach("the recovery", "clear", &full);
    assert!(back <= Duration::from_secs(10), "{source}: back after {back:?}");
    // For whoever runs this with --nocapture.
    let _ = writeln!(std::io::stderr(), "{source}: fell after {fallen:?}, back after {back:?}");
    running.end_by(Signal::TERM);
}

/// A way that is long, and loses now and then, carries everything; by its round trips and losses it looks bad.
fn a_long_way_carries_everything(far: &LinkSpec) {
    let lab = Lab::start(far, ServerSide::default()).expect("a lab");
    let _stream = Stream::of(&lab, EVENT);
    let begin = |policy: &str| {
        let fixed = ["up", "--listen", "127.0.0.1:0", "--policy", policy, "--netns"];
        let mut command = netdiag(fixed);
        command.arg(lab.server_netns());
        Running::start(command)
    };
    let (mut carry, mut classic) = (begin("carry"), begin("classic"));
    let (carrying, judging) = (carry.address(), classic.address());
    let rate = |address| hint(address, "")["current_tps"].as_f64();
    until("the stream", || Some(hint(carrying, "")).filter(|hint| hint["state"] == "clear"));
    let began = Instant::now();
    let (mut carried, mut judged) = (Vec::new(), Vec::new());
    while began.elapsed() < Duration::from_secs(8) {
        carried.extend(rate(carrying));
        judged.extend(rate(judging));
        std::thread::sleep(Duration::from_millis(100));
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let (carried, judged) = (mean(&carried), mean(&judged));
    assert!(carried >= 0.99 * MAX_TPS, "{carried} tokens/s on {far:?}");
    // For whoever runs this with --nocapture.
    let _ = writeln!(std::io::stderr(), "{far:?}: carry {carried:.1}, classic {judged:.1}");
    carry.end_by(Signal::TERM);
    classic.end_by(Signal::TERM);
}

#[test]
fn a_long_clean_way_is_not_slowed_down() {
    if root("closed_loop::a_long_clean_way_is_not_slowed_down") {
        a_long_way_carries_everything(&link(Duration::from_millis(200)));
    }
}

#[test]
fn a_long_way_that_loses_a_little_is_not_slowed_down() {
    if root("closed_loop::a_long_way_that_loses_a_little_is_not_slowed_down") {
        let far = link(Duration::from_millis(300)).with_loss(0.001).expect("a possible link");
        a_long_way_carries_everything(&far);
    }
}

fn the_light_follows_the_loss(source: &str) {
    let good = link(Duration::from_millis(20));
    let bad = good.clone().with_loss(0.08).expect("a possible link");
    let lab = Lab::start(good.clone(), ServerSide::default()).expect("a lab");
    let _stream = Stream::start(&lab);
    let mut command = netdiag(["up", "--listen", "127.0.0.1:0", "--source", source, "--netns"]);
    command.arg(lab.server_netns());
    let mut running = Running::start(command);
    let address = running.address();
    let reach = |what: &str, reached: &dyn Fn(&serde_json::Value) -> bool| {
        let asked = Instant::now();
        let hint = until(what, || Some(hint(address, "")).filter(reached));
        (hint, asked.elapsed())
    };
    // A few seconds of what is usual, so that what comes is not.
    let settled = Instant::now();
    reach("a good link", &|hint| {
        assert_eq!(hint["anomaly"], false, "{hint}");
        hint["state"] == "clear" && settled.elapsed() > Duration::from_secs(5)
    });
    lab.set(bad).expect("the link loses");
    let (_, raised) = reach("the light", &|hint| hint["anomaly"] == true);
    assert!(raised <= Duration::from_secs(5), "{source}: raised after {raised:?}");
    // Now and then the link stalls on top of it, which is another reason.
    reach("its reason", &|hint| {
        let told = hint["reason"].as_str().is_some_and(|told| told.contains("% retransmitted"));
        let score = hint["anomaly_score"].as_f64().expect("a score");
        told && hint["anomaly"] == true && score >= 0.5 && hint["health"].as_f64() <= Some(0.5)
    });
    lab.set(good).expect("the link heals");
    let (_, cleared) = reach("the light to go out", &|hint| hint["anomaly"] == false);
    assert!(cleared <= Duration::from_secs(10), "{source}: cleared after {cleared:?}");
    let (_, calm) = reach("health", &|hint| hint["health"].as_f64().is_some_and(|h| h > 0.9));
    assert!(cleared + calm <= Duration::from_secs(15), "{source}: healthy after {calm:?} more");
    // For whoever runs this with --nocapture.
    let _ = writeln!(std::io::stderr(), "{source}: lit after {raised:?}, out after {cleared:?}");
    running.end_by(Signal::TERM);
}

#[test]
fn silence_holds_the_stream_until_the_link_is_back() {
    if !root("closed_loop::silence_holds_the_stream_until_the_link_is_back") {
        return;
    }
    let good = link(Duration::from_millis(20));
    let lab = Lab::start(&good, ServerSide::default()).expect("a lab");
    let _stream = Stream::start(&lab);
    let mut command = netdiag(["up", "--listen", "127.0.0.1:0", "--netns"]);
    command.arg(lab.server_netns());
    let mut running = Running::start(command);
    let address = running.address();
    let reach = |state: &str, hold: bool| {
        until(state, || {
            Some(hint(address, "")).filter(|hint| hint["state"] == state && hint["hold"] == hold)
        })
    };
    reach("clear", false);
    lab.set(good.clone().blackout()).expect("the link goes silent");
    reach("stalled", true);
    let (_, body) = crate::support::get(address, "/v1/streams");
    let all: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (&all["streams"][0]["state"], &all["streams"][0]["cause"]),
        (&"stalled".into(), &"path".into())
    );
    lab.set(&good).expect("the link heals");
    reach("clear", false);
    running.end_by(Signal::TERM);
}

/// A client that stops reading fills its window, and the server's buffer behind it.
fn a_reader_that_stops_is_named(source: &str, policy: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let (mut server, _) = listener.accept().expect("accepts");
    let fixed = ["up", "--listen", "127.0.0.1:0", "--interval", "0.2", "--loopback", "--source"];
    let mut command = netdiag(fixed);
    command.args([source, "--policy", policy, "--port", &port.to_string()]);
    let mut running = Running::start(command);
    let address = running.address();
    let over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let writer = std::thread::spawn(move || {
        // Blocks until it is read, or until the client is gone.
        while !stop.load(Ordering::Relaxed) && server.write_all(&[b't'; 10_000]).is_ok() {}
    });
    // Health lowers the rate; who knows that nothing more can be delivered holds the stream.
    let held = policy == "carry";
    let stream = until("a full window", || {
        let (_, body) = crate::support::get(address, "/v1/streams");
        let all: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let stream = all["streams"][0].clone();
        let low = stream["hint"]["current_tps"].as_f64().is_some_and(|rate| rate < 6.0);
        (stream["state"] == "reader" && low && stream["hint"]["hold"] == held).then_some(stream)
    });
    assert_eq!(stream["cause"], "reader");
    let peer = client.local_addr().expect("an address").ip();
    for query in [String::new(), format!("?peer={peer}")] {
        let hint = hint(address, &query);
        assert_eq!(hint["state"], "reader", "{source}: {hint}");
    }
    over.store(true, Ordering::Relaxed);
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while client.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    until("the highest rate again", || {
        hint(address, "")["current_tps"].as_f64().filter(|&rate| rate > 0.9 * MAX_TPS)
    });
    running.end_by(Signal::TERM);
    writer.join().expect("the server's thread");
    reader.join().expect("the client's thread");
}

#[test]
fn a_reader_that_stops_is_named_by_ebpf() {
    if root("closed_loop::a_reader_that_stops_is_named_by_ebpf") {
        a_reader_that_stops_is_named("ebpf", "carry");
    }
}

#[test]
fn a_reader_that_stops_is_named_by_sock_diag() {
    a_reader_that_stops_is_named("sockdiag", "carry");
}

#[test]
fn a_reader_that_stops_is_named_by_health() {
    a_reader_that_stops_is_named("sockdiag", "classic");
}

#[test]
fn what_the_link_carries_is_followed_by_ebpf() {
    if root("closed_loop::what_the_link_carries_is_followed_by_ebpf") {
        carries_with("ebpf");
    }
}

#[test]
fn what_the_link_carries_is_followed_by_sock_diag() {
    if root("closed_loop::what_the_link_carries_is_followed_by_sock_diag") {
        carries_with("sockdiag");
    }
}

#[test]
fn the_anomaly_light_follows_the_loss_by_ebpf() {
    if root("closed_loop::the_anomaly_light_follows_the_loss_by_ebpf") {
        the_light_follows_the_loss("ebpf");
    }
}

#[test]
fn the_anomaly_light_follows_the_loss_by_sock_diag() {
    if root("closed_loop::the_anomaly_light_follows_the_loss_by_sock_diag") {
        the_light_follows_the_loss("sockdiag");
    }
}

#[test]
fn the_rate_follows_the_link_by_ebpf() {
    if root("closed_loop::the_rate_follows_the_link_by_ebpf") {
        closes_with("ebpf");
    }
}

#[test]
fn the_rate_follows_the_link_by_sock_diag() {
    if root("closed_loop::the_rate_follows_the_link_by_sock_diag") {
        closes_with("sockdiag");
    }
}

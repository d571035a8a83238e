//! The message bus over TLS: by an authority of one's own, a server is trusted and a client lets itself be known; without, neither.

use std::net::SocketAddr;
use std::path::PathBuf;

use netdiag_lab::Broker;
use rustix::process::Signal;
use serde_json::Value;

use crate::authority::{Authority, text};
use crate::support::{Running, get, netdiag, until};

/// A process that stands for election over the bus, with these arguments; it needs the bus for all it does.
fn fleet(bus: &str, arguments: &[&str]) -> (Running, SocketAddr) {
    let fixed = ["fleet", "--bus", bus, "--node", "f1", "--listen", "127.0.0.1:0"];
    let mut running = Running::start(netdiag(fixed.iter().chain(arguments)));
    let address = running.address_of("fleet on");
    (running, address)
}

fn leads(address: SocketAddr) -> bool {
    let view: Value = serde_json::from_str(&get(address, "/v1/fleet").1).expect("JSON");
    view["is_leader"] == true
}

#[test]
fn a_server_is_believed_by_its_authority_alone() {
    let (own, other) = (Authority::new(), Authority::new());
    let [cert, key] = own.sign("server", "127.0.0.1");
    let [other_cert, other_key] = own.sign("other", "bus.example");
    let broker = Broker::with(&["-js", "--tls", "--tlscert", text(&cert), "--tlskey", text(&key)]);
    let broker = broker.expect("nats-server");
    let (own, other) = (own.path("ca.pem"), other.path("ca.pem"));
    // A server that insists on TLS is spoken to so, whatever its address says.
    for scheme in ["tls", "nats"] {
        let bus = format!("{scheme}://127.0.0.1:{}", broker.port());
        let (running, address) = fleet(&bus, &["--bus-ca", text(&own)]);
        until("the bus", || leads(address).then_some(()));
        let (status, stderr) = running.end_by(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{stderr:#?}");
        for strange in [vec![], vec!["--bus-ca", text(&other)]] {
            refused(&broker, &bus, &strange, "certificate");
        }
    }
    // It is the server of another name.
    let broker = Broker::with(&[
        "-js",
        "--tls",
        "--tlscert",
        text(&other_cert),
        "--tlskey",
        text(&other_key),
    ]);
    let broker = broker.expect("nats-server");
    let bus = format!("tls://127.0.0.1:{}", broker.port());
    refused(&broker, &bus, &["--bus-ca", text(&own)], "certificate");
}

#[test]
fn a_server_that_verifies_its_clients_lets_in_whom_its_authority_has_signed() {
    let (own, other) = (Authority::new(), Authority::new());
    let [cert, key] = own.sign("server", "127.0.0.1");
    let ca = own.path("ca.pem");
    let files = ["--tlscert", text(&cert), "--tlskey", text(&key), "--tlscacert", text(&ca)];
    let broker = Broker::with(&[&["-js", "--tlsverify"], &files[..]].concat());
    let broker = broker.expect("nats-server");
    let bus = format!("tls://127.0.0.1:{}", broker.port());
    let trusting = ["--bus-ca", text(&ca)];
    let as_client = |[cert, key]: &[PathBuf; 2]| {
        let shown = ["--bus-cert", text(cert), "--bus-key", text(key)].map(str::to_owned);
        [trusting.map(str::to_owned).to_vec(), shown.to_vec()].concat()
    };
    let known = as_client(&own.sign("client", "client"));
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let (running, address) = fleet(&bus, &known);
    until("the bus", || leads(address).then_some(()));
    running.end_by(Signal::TERM);
    let strange = as_client(&other.sign("client", "client"));
    let strange: Vec<&str> = strange.iter().map(String::as_str).collect();
    for arguments in [&trusting[..], &strange] {
        refused(&broker, &bus, arguments, "trying again");
    }
}

#[test]
fn what_may_be_done_is_told_with_what_a_server_refuses() {
    let broker = Broker::with(&["--auth", "other"]).expect("nats-server");
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "ours").expect("written");
    let first_line = |scheme: &str, arguments: &[&str]| {
        let bus = format!("{scheme}://127.0.0.1:{}", broker.port());
        let (mut running, _) = fleet(&bus, arguments);
        running.line_with("trying again")
    };
    let told = first_line("nats", &["--bus-token-file", text(&token)]);
    assert!(told.contains("wants another token, login or credentials file"), "{told}");
    let told = first_line("tls", &[]);
    assert!(told.contains("that server does not speak TLS"), "{told}");
}

/// Checks that there is no connection with these arguments, that it is told why, and that it is tried again for all that.
fn refused(broker: &Broker, bus: &str, arguments: &[&str], why: &str) {
    let tries = || broker.said().matches("TLS handshake error").count();
    let before = tries();
    let (mut running, address) = fleet(bus, arguments);
    let told = running.line_with("trying again");
    assert!(told.contains(why), "{told}");
    until("three tries", || (tries() >= before + 3).then_some(()));
    assert!(!leads(address), "{arguments:?}");
    assert_eq!(get(address, "/readyz").0, 503);
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
}

//! The emulated link against the kernel's own TCP and UDP.
//!
//! Needs root. Where a test cannot have its link it says so on the standard error, past the capture of test output.

mod clients;
mod link;
mod paced;
mod packets;
mod schedule;
mod streams;
mod teardown;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use netdiag_lab::{Duplex, Lab, LabError, Link, LinkSpec, ServerSide};

const SECOND: Duration = Duration::from_secs(1);

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn link(one_way: u64) -> LinkSpec {
    LinkSpec::delayed(ms(one_way)).expect("possible")
}

/// This test's turn, until dropped. Emulators share the cores with each other, and times are measured here; a file's
/// lock holds between threads as well as between processes, whichever the runner makes of tests.
#[must_use]
fn turn() -> File {
    // Another user's file could not be opened.
    let name = format!("netdiag-lab-tests-{}.lock", rustix::process::geteuid().as_raw());
    let file = File::create(std::env::temp_dir().join(name)).expect("lock file");
    file.lock().expect("lock");
    // What is measured is the link, not this thread's wait for a core among compilers.
    let _ = rustix::process::setpriority_process(None, -20);
    file
}

/// A lab with one client, or `None` where it cannot be had.
fn lab(spec: LinkSpec, side: ServerSide) -> Option<Lab> {
    lab_of([spec.into()], side)
}

/// A lab with a client behind each link, or `None` where it cannot be had.
fn lab_of(links: impl IntoIterator<Item = Duplex>, side: ServerSide) -> Option<Lab> {
    match Lab::start_links(links, side, 7) {
        Ok(lab) => Some(lab),
        Err(error @ (LabError::NotPermitted { .. } | LabError::NoTun(_))) => {
            let test = std::thread::current();
            let test = test.name().unwrap_or("link test");
            let _ = writeln!(std::io::stderr(), "skipped: {test}: {error} (needs root)");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A connection over the link, the server's end first.
fn connect(lab: &Lab) -> (TcpStream, TcpStream) {
    connect_to(lab, lab.server_ip())
}

fn connect_to(lab: &Lab, server: IpAddr) -> (TcpStream, TcpStream) {
    connect_from(lab, &lab.links()[0], server)
}

fn connect_from(lab: &Lab, link: &Link, server: IpAddr) -> (TcpStream, TcpStream) {
    let address = SocketAddr::new(server, 0);
    let listener = lab.on_server(|| TcpListener::bind(address).expect("bind")).expect("server");
    let target = listener.local_addr().expect("bound");
    let client = link.on_client(|| TcpStream::connect(target).expect("connect")).expect("client");
    let (server, _) = listener.accept().expect("accept");
    for end in [&server, &client] {
        end.set_nodelay(true).expect("nodelay");
        end.set_read_timeout(Some(10 * SECOND)).expect("timeout");
    }
    (server, client)
}

/// The round trips of `n` one-byte exchanges, shortest first.
fn round_trips(ends: &mut (TcpStream, TcpStream), n: usize) -> Vec<Duration> {
    let (server, client) = ends;
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
    times
}

/// That a round trip is never shorter than asked, and within a millisecond and one percent of it when the machine has a
/// core to spare: at least one in `n`, tried for ten seconds, because what is above that measures the machine.
#[track_caller]
fn check_round_trip(ends: &mut (TcpStream, TcpStream), n: usize, asked: Duration) {
    let mut least = Duration::MAX;
    let tried = Instant::now();
    while tried.elapsed() < 10 * SECOND {
        least = least.min(round_trips(ends, n)[0]);
        assert!(least >= asked, "{least:?} is less than {asked:?}");
        if least <= asked + ms(1) + asked / 100 {
            return;
        }
    }
    panic!("{least:?} for {asked:?}");
}

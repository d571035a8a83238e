//! What a link is asked to be it is: delay, jitter, rate and blackout, and both sides in their places.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use netdiag_lab::{Direction, ServerSide};

use crate::{SECOND, check_round_trip, connect, connect_to, lab, link, ms, round_trips, turn};

#[test]
fn the_delay_is_the_one_asked_for_and_changes_while_running() {
    let _turn = turn();
    let Some(lab) = lab(link(10), ServerSide::Namespace) else { return };
    let mut ends = connect(&lab);
    for one_way in [10, 50, 1, 25, 0] {
        lab.set(link(one_way)).expect("change");
        // The change is seen by whatever is sent after it.
        check_round_trip(&mut ends, 9, ms(2 * one_way));
    }
}

#[test]
fn directions_are_set_apart() {
    let _turn = turn();
    let Some(lab) = lab(link(0), ServerSide::Namespace) else { return };
    let mut ends = connect(&lab);
    lab.set_direction(Direction::Down, link(40)).expect("change");
    check_round_trip(&mut ends, 5, ms(40));
    lab.set_direction(Direction::Up, link(20)).expect("change");
    check_round_trip(&mut ends, 5, ms(60));

    lab.set_direction(Direction::Up, link(20).blackout()).expect("change");
    let (mut server, mut client) = ends;
    server.write_all(&[1]).expect("send");
    client.read_exact(&mut [0]).expect("the other direction carries");
}

#[test]
fn jitter_spreads_the_delay_evenly_to_both_sides() {
    let _turn = turn();
    let spec = link(40).with_jitter(ms(20)).expect("possible");
    let Some(lab) = lab(link(0), ServerSide::Namespace) else { return };
    let mut ends = connect(&lab);
    lab.set_direction(Direction::Down, spec).expect("change");
    let times = round_trips(&mut ends, 100);
    // Draws are uniform from 20 to 60 ms. Of a hundred the least is above 25 ms once in a million runs, and quantiles of
    // the middle stray by 4 ms once in ten thousand. The longest measure the machine.
    for (quantile, from, to) in [(0, 20, 26), (25, 24, 37), (50, 33, 48), (75, 43, 57)] {
        let time = times[quantile];
        assert!(time >= ms(from) && time <= ms(to), "{time:?} at {quantile} %");
    }
}

#[test]
fn the_rate_is_the_one_asked_for() {
    let _turn = turn();
    // Packets that wait, and not TCP, whose rate is also that of the threads between: an emulator that lacks a core for a
    // moment makes up for it as long as something waits.
    const PACKETS: u32 = 300;
    const DATA: usize = 1472;
    for rate in [2_000_000_u32, 8_000_000] {
        let spec = link(5).with_rate(rate.into()).expect("possible");
        let Some(lab) = lab(spec, ServerSide::Namespace) else { return };
        let (client_ip, server_ip) = (lab.client_ip(), lab.server_ip());
        let bind = |ip| UdpSocket::bind(SocketAddr::new(ip, 0)).expect("bind");
        let client = lab.on_client(|| bind(client_ip)).expect("client");
        let server = lab.on_server(|| bind(server_ip)).expect("server");
        client.set_read_timeout(Some(5 * SECOND)).expect("timeout");
        let to = client.local_addr().expect("bound");
        let receiver = std::thread::spawn(move || {
            let mut times = Vec::new();
            while times.len() < PACKETS as usize && client.recv(&mut [0; DATA]).is_ok() {
                times.push(Instant::now());
            }
            times
        });
        for _ in 0..PACKETS {
            server.send_to(&[0; DATA], to).expect("send");
        }
        let times = receiver.join().expect("receiver");
        assert_eq!(times.len(), PACKETS as usize);
        // 28 bytes of headers; the first packet has been sent when it comes.
        let expected = SECOND * (PACKETS - 1) * 1500 * 8 / rate;
        let took = times[times.len() - 1] - times[0];
        assert!(
            took.abs_diff(expected) < expected / 20 + ms(20),
            "{took:?}, {expected:?} at {rate} bit/s"
        );
    }
}

#[test]
fn a_blackout_passes_nothing_and_ends() {
    let _turn = turn();
    let Some(lab) = lab(link(5), ServerSide::Namespace) else { return };
    let (mut server, mut client) = connect(&lab);
    lab.set(link(5).blackout()).expect("change");
    server.write_all(&[2]).expect("send");
    client.set_read_timeout(Some(ms(500))).expect("timeout");
    assert!(client.read_exact(&mut [0]).is_err(), "a packet came through");
    lab.set(link(5)).expect("change");
    client.set_read_timeout(Some(10 * SECOND)).expect("timeout");
    client.read_exact(&mut [0]).expect("TCP repeats what was lost");
}

#[test]
fn ipv6_takes_the_same_link() {
    let _turn = turn();
    let Some(lab) = lab(link(10), ServerSide::Namespace) else { return };
    if !std::path::Path::new("/proc/net/if_inet6").exists() {
        let _ = writeln!(std::io::stderr(), "skipped: IPv6 over the link (the kernel has none)");
        return;
    }
    let mut ends = connect_to(&lab, lab.server_ipv6());
    assert_eq!(ends.0.peer_addr().expect("connected").ip(), lab.client_ipv6());
    check_round_trip(&mut ends, 5, ms(20));
}

#[test]
fn the_server_may_be_on_the_host() {
    let _turn = turn();
    let Some(lab) = lab(link(10), ServerSide::Host) else { return };
    let listener = TcpListener::bind((lab.server_ip(), 0)).expect("bind on the host");
    let target = listener.local_addr().expect("bound");
    let client = lab.on_client(|| TcpStream::connect(target).expect("connect")).expect("client");
    let (server, peer) = listener.accept().expect("accept");
    assert_eq!(peer.ip(), lab.client_ip());
    check_round_trip(&mut (server, client), 9, ms(20));
}

#[test]
fn labs_run_beside_each_other() {
    let _turn = turn();
    let sides = [ServerSide::Host, ServerSide::Namespace, ServerSide::Host];
    let mut labs = Vec::new();
    for (number, side) in sides.into_iter().enumerate() {
        let Some(lab) = lab(link(10 * (number as u64 + 1)), side) else { return };
        labs.push(lab);
    }
    for (number, lab) in labs.iter().enumerate() {
        assert!(labs[..number].iter().all(|other| other.server_ip() != lab.server_ip()));
        check_round_trip(&mut connect(lab), 3, ms(20 * (number as u64 + 1)));
    }
}

#[test]
fn a_lab_lives_inside_an_asynchronous_task() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        let Some(lab) = lab(link(5), ServerSide::Namespace) else { return };
        lab.set(link(10)).expect("change");
        check_round_trip(&mut connect(&lab), 3, ms(20));
    });
}

#[test]
fn the_paths_lead_to_the_namespaces() {
    let _turn = turn();
    use std::os::unix::fs::MetadataExt;
    let Some(lab) = lab(link(0), ServerSide::Namespace) else { return };
    let own = || std::fs::metadata("/proc/thread-self/ns/net").expect("own namespace").ino();
    let at = |path: &std::path::Path| std::fs::metadata(path).expect("path").ino();
    assert_eq!(lab.on_client(own).expect("client"), lab.client_netns_inode());
    assert_eq!(lab.on_server(own).expect("server"), lab.server_netns_inode());
    assert_eq!(at(lab.client_netns()), lab.client_netns_inode());
    assert_eq!(at(lab.server_netns()), lab.server_netns_inode());
    assert_ne!(lab.client_netns_inode(), lab.server_netns_inode());
}

#[test]
fn a_link_that_fails_is_known_to_the_lab() {
    let _turn = turn();
    let Some(lab) = lab(link(1), ServerSide::Namespace) else { return };
    round_trips(&mut connect(&lab), 1);
    assert!(lab.failed().is_none());
    let gone = lab.on_client(|| {
        let script = "ip link del \"$(ip -o link | grep -o 'netdiag[0-9]*' | head -n 1)\"";
        std::process::Command::new("sh").args(["-c", script]).status()
    });
    assert!(gone.expect("inside").expect("sh").success());
    let server = lab.on_server(|| UdpSocket::bind((lab.server_ip(), 0)).expect("bind"));
    let server = server.expect("inside");
    let end = Instant::now() + 10 * SECOND;
    let error = loop {
        // It is noticed when something is sent there; then the server's interface goes as well.
        let _ = server.send_to(b"lost", (lab.client_ip(), 9));
        if let Some(error) = lab.failed() {
            break error.to_string();
        }
        assert!(Instant::now() < end, "it does not notice");
        std::thread::sleep(ms(5));
    };
    assert_eq!(error, "link emulation: a link has failed: its interface has been deleted");
}

//! Several clients at once: each behind its own link, all of them with the same server.

use netdiag_lab::{Duplex, ServerSide};

use crate::{check_round_trip, connect_from, lab_of, link, ms, turn};

#[test]
fn each_client_has_its_own_link_to_the_same_server() {
    let _turn = turn();
    for side in [ServerSide::Namespace, ServerSide::Host] {
        let delays = [1, 20, 40];
        let Some(lab) = lab_of(delays.map(|delay| link(delay).into()), side) else { return };
        let server = lab.server_ip();
        let mut ends: Vec<_> =
            lab.links().iter().map(|link| connect_from(&lab, link, server)).collect();
        for ((ends, delay), link) in ends.iter_mut().zip(delays).zip(lab.links()) {
            assert_eq!(ends.0.peer_addr().expect("connected").ip(), link.client_ip());
            check_round_trip(ends, 5, ms(2 * delay));
        }
        // One changes, the others stay.
        lab.links()[1].set(link(5)).expect("change");
        for (ends, delay) in ends.iter_mut().zip([1, 5, 40]) {
            check_round_trip(ends, 5, ms(2 * delay));
        }
        let inodes: std::collections::BTreeSet<u64> =
            lab.links().iter().map(|link| link.client_netns_inode()).collect();
        assert_eq!(inodes.len(), delays.len());
    }
}

#[test]
fn every_client_reaches_the_server_by_ipv6() {
    let _turn = turn();
    let Some(lab) = lab_of([1, 2].map(|delay| link(delay).into()), ServerSide::Namespace) else {
        return;
    };
    if !std::path::Path::new("/proc/net/if_inet6").exists() {
        let why = "skipped: IPv6 of several clients (the kernel has none)";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{why}\n").as_bytes());
        return;
    }
    for link in lab.links() {
        let ends = connect_from(&lab, link, lab.server_ipv6());
        assert_eq!(ends.0.peer_addr().expect("connected").ip(), link.client_ipv6());
    }
}

#[test]
fn directions_may_differ_from_the_start() {
    let _turn = turn();
    let duplex = Duplex { up: link(5), down: link(30) };
    let Some(lab) = lab_of([duplex], ServerSide::Namespace) else { return };
    let mut ends = connect_from(&lab, &lab.links()[0], lab.server_ip());
    check_round_trip(&mut ends, 5, ms(35));
}

#[test]
fn a_lab_without_links_is_refused() {
    let error = netdiag_lab::Lab::start_links([], ServerSide::Namespace, 1).expect_err("no links");
    assert_eq!(error.to_string(), "a lab without links: give it one at least");
}

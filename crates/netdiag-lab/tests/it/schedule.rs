//! Schedules on running links: on time, in order, for each link its own, and over when they are dropped.

use std::io::Read;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use netdiag_lab::{Duplex, Scenario, Schedule, ServerSide};

use crate::{check_round_trip, connect_from, lab_of, link, ms, turn};

/// By when a change must be felt, before or after its time.
const LATEST: Duration = Duration::from_millis(50);

fn schedule(steps: &[(u64, u64)]) -> Schedule {
    let steps = steps.iter().map(|(at, delay)| (ms(*at), link(*delay).into()));
    Schedule::try_new(steps).expect("in order")
}

#[test]
fn changes_take_effect_on_time() {
    let _turn = turn();
    let silent = link(1).blackout();
    let steps = [(0, link(1)), (300, silent.clone()), (700, link(1)), (1000, silent)];
    let steps = steps.map(|(at, link)| (ms(at), Duplex::from(link)));
    let schedule = Schedule::try_new(steps).expect("in order");
    let Some(lab) = lab_of([link(1).into()], ServerSide::Namespace) else { return };
    let client = lab.client_ip();
    let receiver = lab.on_client(|| UdpSocket::bind((client, 0)).expect("bind")).expect("client");
    let server = lab.server_ip();
    let sender = lab.on_server(|| UdpSocket::bind((server, 0)).expect("bind")).expect("server");
    let to = receiver.local_addr().expect("bound");
    let playback = lab.play(&[schedule]).expect("plays");
    let started = playback.started();
    let sending = std::thread::spawn(move || {
        while started.elapsed() < ms(1300) {
            sender.send_to(&[0], to).expect("send");
            std::thread::sleep(ms(1));
        }
    });
    receiver.set_read_timeout(Some(ms(600))).expect("timeout");
    let mut came = Vec::new();
    while receiver.recv(&mut [0]).is_ok() {
        came.push(started.elapsed());
    }
    sending.join().expect("sender");
    // The last before each silence and the first after it.
    let silence = came.windows(2).max_by_key(|pair| pair[1] - pair[0]).expect("packets");
    let edges = [(silence[0], ms(300)), (silence[1], ms(700)), (came[came.len() - 1], ms(1000))];
    for (edge, planned) in edges {
        assert!(edge.abs_diff(planned) < LATEST, "{edge:?} for {planned:?}");
    }
}

#[test]
fn each_link_has_its_own_schedule() {
    let _turn = turn();
    let links = [0, 0].map(|delay| link(delay).into());
    let Some(lab) = lab_of(links, ServerSide::Namespace) else { return };
    let mut ends: Vec<_> =
        lab.links().iter().map(|link| connect_from(&lab, link, lab.server_ip())).collect();
    let schedules = [schedule(&[(0, 10), (2000, 30)]), schedule(&[(0, 50), (4000, 1)])];
    let playback = lab.play(&schedules).expect("plays");
    let after = |time: u64, ends: &mut Vec<_>, delays: [u64; 2]| {
        std::thread::sleep(ms(time).saturating_sub(playback.started().elapsed()));
        for (ends, delay) in ends.iter_mut().zip(delays) {
            check_round_trip(ends, 1, ms(2 * delay));
        }
    };
    after(0, &mut ends, [10, 50]);
    after(2050, &mut ends, [30, 50]);
    after(4050, &mut ends, [30, 1]);
}

#[test]
fn a_schedule_that_is_dropped_changes_nothing_more() {
    let _turn = turn();
    let Some(lab) = lab_of([link(0).into()], ServerSide::Namespace) else { return };
    let mut ends = connect_from(&lab, &lab.links()[0], lab.server_ip());
    let playback = lab.play(&[schedule(&[(0, 10), (60_000, 30), (60_001, 40)])]).expect("plays");
    let dropped = Instant::now();
    drop(playback);
    assert!(dropped.elapsed() < ms(500), "it waited for its next step");
    check_round_trip(&mut ends, 3, ms(20));
    // As one that outlives its lab.
    let playback = lab.play(&[schedule(&[(0, 10), (100, 30)])]).expect("plays");
    drop(lab);
    std::thread::sleep(ms(150));
    drop(playback);
    ends.1.set_read_timeout(Some(ms(50))).expect("timeout");
    assert!(ends.1.read_exact(&mut [0]).is_err());
}

#[test]
fn schedules_and_links_must_be_as_many() {
    let _turn = turn();
    let Some(lab) = lab_of([link(0).into()], ServerSide::Namespace) else { return };
    let error = lab.play(&[]).expect_err("no schedule").to_string();
    assert_eq!(error, "0 schedules for 1 links: give one for each, in the same order");
}

#[test]
fn a_scenario_is_played_on_the_links_of_its_groups() {
    let _turn = turn();
    let text = b"[link]\ndelay = \"1ms\"\n\
                 [[phase]]\nkind = \"calm\"\nduration = \"600ms\"\n\
                 [[phase]]\nkind = \"blackout\"\nduration = \"600ms\"\n\
                 [[group]]\nname = \"train\"\nshare = 0.5\n\
                 [[group]]\nname = \"home\"\nshare = 0.5\nphases = []\n";
    let scenario = Scenario::parse(text, "s.toml", &mut |_| unreachable!()).expect("a scenario");
    let schedules = scenario.fit(ms(2000)).expect("fits").schedules();
    let links: Vec<_> = schedules.iter().map(|schedule| schedule.first().clone()).collect();
    let Some(lab) = lab_of(links, ServerSide::Namespace) else { return };
    let server = lab.server_ip();
    let sender = lab.on_server(|| UdpSocket::bind((server, 0)).expect("bind")).expect("server");
    let receivers: Vec<UdpSocket> = lab
        .links()
        .iter()
        .map(|link| {
            let address = (link.client_ip(), 0);
            link.on_client(|| UdpSocket::bind(address).expect("bind")).expect("client")
        })
        .collect();
    let playback = lab.play(&schedules).expect("plays");
    for _ in 0..200 {
        for receiver in &receivers {
            sender.send_to(&[0], receiver.local_addr().expect("bound")).expect("send");
        }
        std::thread::sleep(ms(10));
        if playback.started().elapsed() > ms(2000) {
            break;
        }
    }
    let [train, home] = [0, 1].map(|group: usize| {
        let receiver = &receivers[group];
        receiver.set_read_timeout(Some(ms(100))).expect("timeout");
        std::iter::from_fn(|| receiver.recv(&mut [0]).ok()).count()
    });
    // The train's link is silent for half of the time; two phases of a second.
    let share = train as f64 / home as f64;
    assert!((0.4..=0.6).contains(&share), "{train} on the train, {home} at home");
}

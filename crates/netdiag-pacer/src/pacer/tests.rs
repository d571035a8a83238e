//! A stream's pacer against a made-up server and kernel: what it lets through, and that nothing makes it panic.

use std::collections::VecDeque;

use netdiag_telemetry::{Bytes, Counters, FlowKey, Liveness, RttSamples};
use proptest::prelude::*;

use super::*;
use crate::carry::Cause;

const TICK: Duration = Duration::from_millis(100);
const MS: Duration = Duration::from_millis(1);
/// A token's text, and what its chunk adds.
const TEXT: u64 = 200;
const FRAME: u64 = 6;

fn tps(n: f64) -> Tps {
    Tps::try_new(n).expect("valid")
}

fn range() -> TpsRange {
    TpsRange::try_new(tps(5.0), tps(80.0)).expect("in order")
}

/// A server that generates whenever it may, a library and a kernel with little room, and a path.
struct World {
    pacer: Pacer,
    now: Duration,
    rtt: Duration,
    /// Bytes that the kernel takes beyond those that are acknowledged.
    room: u64,
    is_silent: bool,
    /// Tokens per request for admission.
    group: u32,
    in_library: u64,
    flying: VecDeque<(Duration, u64)>,
    seen: Evidence,
    last_ack: Duration,
    admitted: u64,
}

impl World {
    fn new(rtt: u64) -> Self {
        let now = Duration::from_secs(5);
        let rtt = Duration::from_millis(rtt);
        // An earlier response, and the headers of this one.
        let bytes_acked = 4000;
        let seen = Evidence {
            bytes_acked,
            srtt: Some(rtt),
            rttvar: Some(rtt / 20),
            ..Evidence::default()
        };
        let mut pacer = Pacer::new(range(), tps(16.0), now);
        pacer.observe_evidence(now, &seen);
        Self {
            pacer,
            now,
            rtt,
            room: 1 << 20,
            is_silent: false,
            group: 1,
            in_library: 300,
            flying: VecDeque::new(),
            seen,
            last_ack: now,
            admitted: 0,
        }
    }

    /// A millisecond. The most that was under way or generated beyond the credit, tokens.
    fn step(&mut self) -> f64 {
        self.now += MS;
        let mut beyond = f64::MIN;
        while self.pacer.admit(self.now, self.group) == Admission::Now {
            self.admitted += u64::from(self.group);
            let all = self.pacer.under_way() + self.pacer.pending as f64;
            beyond = beyond.max(all - self.pacer.carry().credit().max(f64::from(self.group)));
            let bytes = u64::from(self.group) * TEXT;
            self.in_library += bytes + FRAME;
            self.pacer.on_sent(self.group, bytes);
        }
        let taken = self.in_library.min(self.room.saturating_sub(self.seen.queued));
        self.in_library -= taken;
        self.seen.queued += taken;
        // What a silent path is sent is out, and not heard of.
        if taken > 0 {
            self.flying.push_back((self.now + self.rtt, taken));
        }
        while let Some((at, bytes)) = self.flying.front().copied()
            && at <= self.now
            && !self.is_silent
        {
            self.flying.pop_front();
            self.seen.bytes_acked += bytes;
            self.seen.queued -= bytes;
            self.last_ack = self.now;
            self.pacer.acknowledge(self.seen.bytes_acked);
        }
        if self.seen.queued > 0 {
            self.seen.busy += MS;
        }
        self.seen.last_ack_age = self.now - self.last_ack;
        beyond
    }

    fn tick(&mut self) -> f64 {
        let beyond = (0..100).map(|_| self.step()).fold(f64::MIN, f64::max);
        // The kernel refuses: all that it has beyond a token waits there.
        self.seen.notsent =
            if self.in_library > 0 { self.seen.queued.saturating_sub(TEXT) } else { 0 };
        self.pacer.observe_evidence(self.now, &self.seen);
        beyond
    }

    fn run(&mut self, ticks: u32) -> f64 {
        let before = self.admitted;
        for _ in 0..ticks {
            self.tick();
        }
        (self.admitted - before) as f64 / (f64::from(ticks) * TICK.as_secs_f64())
    }
}

#[test]
fn a_clean_path_gets_all_that_is_granted_however_long_it_is() {
    for (rtt, group) in [(1, 1), (20, 1), (200, 1), (600, 1), (1, 5), (200, 5)] {
        let mut world = World { group, ..World::new(rtt) };
        world.run(50);
        let rate = world.run(600);
        assert!((79.2..=80.1).contains(&rate), "{rate} tokens/s at {rtt} ms: {:?}", world.pacer);
        world.pacer.grant(world.now, 12.0);
        world.run(10);
        let rate = world.run(300);
        assert!((11.8..=12.2).contains(&rate), "{rate} tokens/s of 12 at {rtt} ms");
    }
}

#[test]
fn waits_are_as_long_as_told_and_holds_end_with_an_ack() {
    let mut world = World::new(50);
    world.run(20);
    world.pacer.grant(world.now, 10.0);
    world.run(10);
    let wait = loop {
        match world.pacer.admit(world.now, 1) {
            Admission::Now => world.pacer.on_sent(1, TEXT),
            Admission::Wait(wait) => break wait,
            Admission::Hold => panic!("held: {:?}", world.pacer),
        }
    };
    assert!(wait > Duration::ZERO && wait <= TICK, "{wait:?}");
    assert_eq!(world.pacer.admit(world.now + wait + Duration::from_nanos(1), 1), Admission::Now);

    let mut world = World { is_silent: true, ..World::new(50) };
    world.run(20);
    assert_eq!((world.pacer.admit(world.now, 1), world.pacer.is_held()), (Admission::Hold, true));
    assert_eq!((world.pacer.need().cap, world.pacer.rate()), (0.0, 0.0));
    assert_eq!(world.pacer.report().state, State::Stalled);
    // An ACK of all but a token, and no observation since.
    world.pacer.acknowledge(world.seen.bytes_acked + world.seen.queued - TEXT);
    assert_eq!(world.pacer.admit(world.now, 1), Admission::Now, "{:?}", world.pacer);
}

#[test]
fn time_is_the_pacers_while_the_server_waits_and_the_engines_while_it_does_not() {
    // Always ready, at the highest rate: it waits for the pacer.
    let mut world = World::new(20);
    world.run(100);
    assert_eq!(world.pacer.report().cause, Some(Cause::Pacer), "{:?}", world.pacer.causes());
    // It stops asking for three times as long, in the midst of a tick.
    let before = world.pacer.causes();
    let at = world.now + TICK / 4;
    world.pacer.end_wait(at);
    world.seen.bytes_acked += world.seen.queued;
    (world.seen.queued, world.seen.notsent) = (0, 0);
    for _ in 0..300 {
        world.now += TICK;
        world.pacer.observe_evidence(world.now, &world.seen);
    }
    let causes = world.pacer.causes();
    let (pacer, engine) = (causes.pacer - before.pacer, causes.engine - before.engine);
    assert!(pacer <= TICK / 4, "{pacer:?}");
    assert_eq!(pacer + engine, TICK * 300);
    assert_eq!(causes.dominant(), Some(Cause::Engine));
}

#[test]
fn nothing_granted_is_a_hold_until_something_is() {
    let mut world = World::new(20);
    world.run(10);
    world.pacer.grant(world.now, 0.0);
    assert_eq!(world.pacer.admit(world.now + 10 * TICK, 1), Admission::Hold);
    world.pacer.grant(world.now, f64::NAN);
    assert_eq!(world.pacer.admit(world.now + 10 * TICK, 1), Admission::Hold);
    world.pacer.grant(world.now, 1e9);
    assert_eq!(world.pacer.admit(world.now + 10 * TICK, 1), Admission::Now);
}

#[test]
fn tokens_without_text_do_not_hold_a_stream() {
    let mut world = World::new(20);
    for _ in 0..1000 {
        world.now += TICK;
        assert_eq!(world.pacer.admit(world.now, 1), Admission::Now, "{:?}", world.pacer);
        world.pacer.on_sent(1, 0);
    }
    let report = world.pacer.report();
    assert_eq!((report.admitted, report.sent), (1000, 0));
}

#[test]
fn what_the_library_holds_counts_as_under_way() {
    // The kernel takes two tokens at a time, of a path that has fallen silent.
    let mut world = World { room: 400, ..World::new(20) };
    world.run(20);
    world.is_silent = true;
    world.run(20);
    let (admitted, credit) = (world.admitted, world.pacer.carry().credit());
    assert!(world.in_library > 0 && world.pacer.under_way() >= credit - 1.0, "{:?}", world.pacer);
    world.run(100);
    assert_eq!(world.admitted, admitted, "{:?}", world.pacer);
    assert!(world.pacer.is_held());
    world.is_silent = false;
    assert!(world.run(10) > 0.0, "{:?}", world.pacer);
}

#[test]
fn a_report_adds_up_and_is_json() {
    let mut world = World::new(80);
    world.run(100);
    let report = world.pacer.report();
    assert_eq!(report.admitted, world.admitted);
    let sum = report.acked + report.outstanding;
    assert!((sum - report.sent as f64).abs() < 1e-6, "{report:?}");
    // Headers are no tokens, and frames are in a token's bytes.
    let arrived = (world.seen.bytes_acked - 4300) as f64 / (TEXT + FRAME) as f64;
    assert!((report.acked - arrived).abs() < 2.0, "{arrived}: {report:?}");
    assert!((report.bytes_per_token - (TEXT + FRAME) as f64).abs() < 1.0, "{report:?}");
    assert_eq!(report.causes.total(), TICK * 100);
    let json = serde_json::to_value(report).expect("JSON");
    assert_eq!(json["state"], "clear");
    let causes = json["cause_seconds"].as_object().expect("an object");
    let seconds: f64 = causes.values().filter_map(serde_json::Value::as_f64).sum();
    assert!((seconds - 10.0).abs() < 1e-9, "{json}");
}

#[test]
fn snapshots_are_observed_as_their_evidence_is() {
    let address = |text: &str| text.parse().expect("an address");
    let live = Liveness { queued: Some(Bytes(500)), notsent: Bytes(500), ..Liveness::default() };
    let snapshot = FlowSnapshot {
        key: FlowKey::new(1, address("192.0.2.1:80"), address("192.0.2.2:4000")),
        opened: None,
        closed: false,
        counters: Counters { bytes_acked: 9000, segs_out: 90, retrans_segs: 0 },
        rtt: RttSamples::default(),
        srtt: Some(TICK),
        rttvar: Some(MS),
        cwnd: 10,
        liveness: Some(live),
    };
    let mut pacer = Pacer::new(range(), tps(16.0), Duration::ZERO);
    pacer.observe(TICK, &FlowSnapshot { liveness: None, ..snapshot.clone() });
    assert_eq!(pacer.report().srtt_seconds, None);
    pacer.observe(TICK, &snapshot);
    pacer.observe(2 * TICK, &snapshot);
    assert_eq!((pacer.report().srtt_seconds, pacer.report().state), (Some(0.1), State::Reader));
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    let duration = || any::<u64>().prop_map(Duration::from_micros);
    let counters = (any::<u64>(), any::<u64>(), any::<u64>(), 0u8..3);
    let times = (duration(), duration(), duration(), prop::option::of(duration()));
    (counters, times).prop_map(|((bytes_acked, queued, notsent, backoff), times)| Evidence {
        opened: None,
        bytes_acked,
        queued,
        notsent,
        backoff,
        last_ack_age: times.0,
        busy: times.1,
        rwnd_limited: times.2,
        srtt: times.3,
        rttvar: times.3,
    })
}

proptest! {
    /// Over any path, with any room in the kernel and any silences.
    #[test]
    fn the_credit_is_never_exceeded(
        rtt in 1u64..800,
        room in 400u64..50_000,
        group in 1u32..12,
        reading in 1.0..60.0,
        silences in prop::collection::vec((any::<bool>(), 0.0..100.0), 15),
    ) {
        let mut world = World { room, group, ..World::new(rtt) };
        world.pacer.unread = Unread::new(tps(reading), world.now);
        for (is_silent, granted) in silences {
            world.is_silent = is_silent;
            world.pacer.grant(world.now, granted);
            world.pacer.set_load(if is_silent { Load::Busy } else { Load::Unshared });
            for _ in 0..5 {
                let before = world.admitted;
                let rate = world.pacer.rate();
                let beyond = world.tick();
                prop_assert!(beyond <= 1e-9, "{beyond} tokens too many: {:?}", world.pacer);
                // Within the rate, but for what was saved up and a group that is paid for afterwards.
                let most = rate.max(world.pacer.carry().cap().min(granted)) * TICK.as_secs_f64();
                let spared = f64::from(BURST.max(group));
                let taken = (world.admitted - before) as f64;
                prop_assert!(taken <= most + spared + 1e-6, "{taken} of {most}: {:?}", world.pacer);
                let report = world.pacer.report();
                prop_assert!(report.acked + report.outstanding >= report.sent as f64 - 1e-6);
            }
        }
    }

    /// Whatever the kernel, the clock and the caller say.
    #[test]
    fn nothing_makes_it_panic(
        steps in prop::collection::vec(
            (any_evidence(), any::<u64>(), any::<u32>(), any::<u64>(), any::<f64>()), 1..40
        ),
    ) {
        let mut pacer = Pacer::new(range(), tps(16.0), Duration::from_secs(1));
        for (seen, nanos, tokens, bytes, rate) in steps {
            let now = Duration::from_nanos(nanos);
            let _ = pacer.admit(now, tokens);
            pacer.on_sent(tokens, bytes);
            pacer.grant(now, rate);
            pacer.observe_evidence(now, &seen);
            pacer.acknowledge(bytes);
            let (need, report) = (pacer.need(), pacer.report());
            prop_assert!((0.0..=80.0).contains(&need.cap) && need.lead >= 0.0, "{need:?}");
            prop_assert!((0.0..=80.0).contains(&pacer.rate()) && pacer.rate() <= need.cap);
            prop_assert!(pacer.room() >= 0.0 && report.outstanding >= 0.0, "{report:?}");
        }
    }
}

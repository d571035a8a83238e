//! The carry policy against a made-up kernel: what it recognises, what it allows, and that nothing makes it panic.

use netdiag_telemetry::{Scope, Tps};
use proptest::prelude::*;

use super::under_way::LEAST_CREDIT;
use super::*;

const TICK: Duration = Duration::from_millis(100);
/// A quarter of a second of text at the maximum.
const SPARE: f64 = 20.0;

fn range() -> TpsRange {
    let tps = |n| Tps::try_new(n).expect("valid");
    TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid")
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A flow, and whose time it was.
#[derive(Clone, Debug)]
struct Flow {
    carry: Carry,
    attribution: Attribution,
}

impl Flow {
    fn new() -> Self {
        Self { carry: Carry::new(range()), attribution: Attribution::new() }
    }

    fn watched() -> Self {
        Self { carry: Carry::watching(range()), ..Self::new() }
    }

    fn observe(&mut self, now: Duration, seen: &Evidence, spare: f64) {
        self.attribution.account(&self.carry.observe(now, seen, spare));
    }

    fn causes(&self) -> Causes {
        self.attribution.causes()
    }
}

impl std::ops::Deref for Flow {
    type Target = Carry;

    fn deref(&self) -> &Carry {
        &self.carry
    }
}

impl std::ops::DerefMut for Flow {
    fn deref_mut(&mut self) -> &mut Carry {
        &mut self.carry
    }
}

/// A path and a kernel's view of it: what is written leaves at `rate` bytes/s and is acknowledged `rtt` later.
struct Path {
    rtt: Duration,
    rate: f64,
    silent: bool,
    shut: bool,
    now: Duration,
    seen: Evidence,
    /// Bytes on the way, with the time of their ACK.
    flying: std::collections::VecDeque<(Duration, u64)>,
    budget: f64,
    last_ack: Duration,
    tokens: f64,
}

impl Path {
    fn new(rtt: Duration, rate: f64) -> Self {
        let seen = Evidence { srtt: Some(rtt), rttvar: Some(rtt / 20), ..Evidence::default() };
        Self {
            rtt,
            rate,
            silent: false,
            shut: false,
            now: ms(1000),
            seen,
            flying: Default::default(),
            budget: 0.0,
            last_ack: ms(1000),
            tokens: 0.0,
        }
    }

    /// A tick: the stream writes what it may, up to `wanted` tokens/s; the kernel sends, and is looked at.
    fn tick(&mut self, carry: &mut Flow, wanted: f64) {
        for _ in 0..10 {
            self.now += TICK / 10;
            self.tokens = (self.tokens + wanted.min(carry.cap()) * 0.01).min(4.0);
            while self.tokens >= 1.0 && carry.room() >= 1.0 {
                self.tokens -= 1.0;
                carry.on_sent(1, 200);
                self.seen.queued += 200;
                self.seen.notsent += 200;
            }
            if !self.silent && !self.shut {
                self.budget = (self.budget + self.rate * 0.01).min(1e4);
                let sent = self.seen.notsent.min(self.budget as u64);
                self.budget -= sent as f64;
                if sent > 0 {
                    self.seen.notsent -= sent;
                    self.flying.push_back((self.now + self.rtt, sent));
                }
            } else if self.silent && self.seen.notsent > 0 {
                // It is sent, and not heard of.
                self.seen.notsent = 0;
            }
            while let Some((at, bytes)) = self.flying.front().copied()
                && at <= self.now
                && !self.silent
            {
                self.flying.pop_front();
                self.seen.bytes_acked += bytes;
                self.seen.queued -= bytes;
                self.last_ack = self.now;
            }
            if self.seen.queued > 0 {
                self.seen.busy += TICK / 10;
            }
            if self.shut && self.seen.queued > 0 {
                self.seen.rwnd_limited += TICK / 10;
            }
        }
        self.seen.last_ack_age = self.now - self.last_ack;
        carry.observe(self.now, &self.seen, SPARE);
    }
}

#[test]
fn a_long_clean_path_carries_everything() {
    for rtt in [ms(1), ms(20), ms(200), ms(600)] {
        let (mut path, mut carry) = (Path::new(rtt, 1e9), Flow::new());
        for _ in 0..600 {
            path.tick(&mut carry, 80.0);
            assert_eq!(carry.cap(), 80.0, "{rtt:?}: {carry:?}");
            assert!(matches!(carry.state(), State::Clear | State::Idle), "{rtt:?}: {carry:?}");
        }
        let sent = (path.seen.bytes_acked + path.seen.queued) as f64 / 200.0;
        assert!(sent > 0.99 * 80.0 * 60.0, "{sent} at {rtt:?}");
    }
}

#[test]
fn who_sends_more_than_its_credit_over_a_clean_path_is_not_slowed_down() {
    let (mut path, mut carry) = (Path::new(ms(150), 1e9), Flow::watched());
    for _ in 0..600 {
        // A hundred tokens a second, whatever is allowed.
        for _ in 0..10 {
            carry.on_sent(1, 200);
            path.seen.queued += 200;
            path.flying.push_back((path.now + path.rtt, 200));
        }
        path.tick(&mut carry, 0.0);
        assert_eq!(carry.cap(), 80.0, "{carry:?}");
    }
    assert_eq!(carry.causes().path, Duration::ZERO, "{carry:?}");
}

#[test]
fn a_narrow_path_is_followed_without_swinging() {
    // 20 tokens/s of 200 bytes.
    let (mut path, mut carry) = (Path::new(ms(80), 4000.0), Flow::new());
    let mut caps = Vec::new();
    for tick in 0..400 {
        path.tick(&mut carry, 80.0);
        if tick >= 100 {
            caps.push(carry.cap());
        }
        assert!(carry.outstanding() <= 80.0 * 0.5, "{carry:?}");
    }
    let (low, high) = caps.iter().fold((f64::MAX, 0f64), |(l, h), &cap| (l.min(cap), h.max(cap)));
    assert!(low > 10.0 && high < 60.0, "{low} to {high}");
    let delivered = path.seen.bytes_acked as f64 / 200.0 / 40.0;
    assert!(delivered > 0.9 * 20.0, "{delivered} tokens/s of 20");
}

#[test]
fn a_silent_path_is_held_within_a_second_and_resumed_at_once() {
    let (mut path, mut carry) = (Path::new(ms(50), 1e6), Flow::new());
    for _ in 0..50 {
        path.tick(&mut carry, 40.0);
    }
    path.silent = true;
    let held = (0..20).find(|_| {
        path.tick(&mut carry, 40.0);
        carry.is_held()
    });
    assert!(held.is_some_and(|ticks| ticks < 10), "{carry:?}");
    let out = carry.outstanding();
    for _ in 0..50 {
        path.tick(&mut carry, 40.0);
        assert!(carry.is_held());
    }
    assert_eq!((carry.outstanding(), carry.state()), (out, State::Stalled));
    assert!(carry.hint(&Scope::Host, TICK, None).reason.starts_with("path: "), "{carry:?}");
    path.silent = false;
    path.tick(&mut carry, 40.0);
    assert!(!carry.is_held() && carry.cap() == 80.0, "{carry:?}");
    path.silent = true;
    for _ in 0..350 {
        path.tick(&mut carry, 40.0);
    }
    assert!(carry.is_lost());
}

#[test]
fn a_shut_window_is_the_readers() {
    let (mut path, mut carry) = (Path::new(ms(50), 1e6), Flow::new());
    for _ in 0..20 {
        path.tick(&mut carry, 40.0);
    }
    path.shut = true;
    for _ in 0..10 {
        path.tick(&mut carry, 40.0);
    }
    assert_eq!(carry.state(), State::Reader, "{carry:?}");
    assert!(carry.is_held());
    for _ in 0..30 {
        path.tick(&mut carry, 40.0);
    }
    assert_eq!(carry.causes().dominant(), Some(Cause::Reader));
}

#[test]
fn time_belongs_to_whoever_the_stream_waits_for() {
    let dominant = |wanted: f64, granted: f64, path: Path| {
        let (mut path, mut carry) = (path, Flow::new());
        carry.grant(granted);
        for _ in 0..100 {
            path.tick(&mut carry, wanted.min(granted));
        }
        carry.causes().dominant()
    };
    assert_eq!(dominant(10.0, 80.0, Path::new(ms(20), 1e6)), Some(Cause::Engine));
    assert_eq!(dominant(80.0, 10.0, Path::new(ms(20), 1e6)), Some(Cause::Pacer));
    assert_eq!(dominant(0.0, 80.0, Path::new(ms(20), 1e6)), Some(Cause::Engine));
    assert_eq!(dominant(80.0, 80.0, Path::new(ms(20), 2000.0)), Some(Cause::Path));
    let silent = Path { silent: true, ..Path::new(ms(20), 1e6) };
    assert_eq!(dominant(40.0, 80.0, silent), Some(Cause::Path));
}

/// Whom two seconds of a stream were given, from now on.
fn blamed(path: &mut Path, carry: &mut Flow, wanted: f64) -> Option<Cause> {
    let before = carry.causes();
    for _ in 0..20 {
        path.tick(carry, wanted);
    }
    carry.causes().since(before).dominant()
}

#[test]
fn a_narrow_path_is_named_while_its_queue_is_short() {
    // The radio's buffer takes all that is sent, so that nothing waits in the kernel, and the credit is not spent yet: five tokens of
    // 200 bytes in each tick come in, and a share of them goes out.
    let ticks = |carry: &mut Flow, seen: &mut Evidence, began: u32, share: f64| {
        let before = carry.causes();
        for tick in began..began + 10 {
            carry.on_sent(5, 1000);
            let acked = (1000.0 * share) as u64;
            seen.bytes_acked += acked;
            seen.queued += 1000 - acked;
            seen.busy += TICK;
            carry.observe(TICK * tick, seen, 100.0);
            assert!(tick == began || carry.state() == State::Clear, "{carry:?}");
        }
        carry.causes().since(before)
    };
    for share in [0.25, 0.5] {
        let mut carry = Flow::new();
        let (rtt, rttvar) = (Some(ms(100)), Some(ms(5)));
        let mut seen = Evidence { queued: 1000, srtt: rtt, rttvar, ..Evidence::default() };
        let well = ticks(&mut carry, &mut seen, 1, 1.0);
        assert_eq!(well.dominant(), Some(Cause::Engine), "{well:?}");
        let narrow = ticks(&mut carry, &mut seen, 11, share);
        assert!(narrow.path > narrow.engine, "{share}: {narrow:?}");
    }
}

#[test]
fn an_engine_that_pauses_is_named_whatever_it_was_granted() {
    for granted in [80.0, 20.0, 6.0] {
        let (mut path, mut carry) = (Path::new(ms(100), 1e9), Flow::new());
        carry.grant(granted);
        let busy = blamed(&mut path, &mut carry, granted.min(50.0));
        let expected = if granted < 80.0 { Cause::Pacer } else { Cause::Engine };
        assert_eq!(busy, Some(expected), "{granted}");
        assert_eq!(blamed(&mut path, &mut carry, 0.0), Some(Cause::Engine), "{granted}");
    }
}

#[test]
fn what_a_path_that_was_narrow_does_not_take_yet_is_the_paths() {
    let (mut path, mut carry) = (Path::new(ms(100), 4000.0), Flow::new());
    for _ in 0..50 {
        path.tick(&mut carry, 50.0);
    }
    // The stream takes all that it is let have, and nothing waits.
    let cap = carry.cap();
    assert!(cap < 40.0, "{cap}");
    path.rate = 1e9;
    let before = carry.causes();
    for _ in 0..4 {
        path.tick(&mut carry, 50.0);
    }
    assert_eq!(carry.causes().since(before).dominant(), Some(Cause::Path), "{carry:?}");
    // Once it may have more than the engine generates, it waits for that.
    for _ in 0..30 {
        path.tick(&mut carry, 50.0);
    }
    assert_eq!(blamed(&mut path, &mut carry, 50.0), Some(Cause::Engine));
}

#[test]
fn reused_ports_and_counters_that_jump_back_begin_anew() {
    let stalled = |seen: Evidence| {
        let (mut path, mut carry) = (Path::new(ms(20), 1e6), Flow::new());
        for _ in 0..30 {
            path.tick(&mut carry, 40.0);
        }
        path.silent = true;
        for _ in 0..30 {
            path.tick(&mut carry, 40.0);
        }
        assert!(carry.is_held());
        carry.observe(
            path.now + TICK,
            &Evidence { bytes_acked: path.seen.bytes_acked, ..seen },
            SPARE,
        );
        let same = carry.is_held();
        carry.observe(path.now + 2 * TICK, &seen, SPARE);
        (same, carry.is_held(), carry.cap())
    };
    let fresh = Evidence { srtt: Some(ms(20)), ..Evidence::default() };
    assert!(!stalled(Evidence { opened: Some(7), ..fresh }).1);
    assert_eq!(stalled(fresh), (false, false, 80.0));
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    let duration = || any::<u64>().prop_map(Duration::from_micros);
    let counters = (any::<Option<u64>>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u8>());
    let times = (duration(), duration(), duration(), prop::option::of(duration()), duration());
    (counters, times).prop_map(|((opened, bytes_acked, queued, notsent, backoff), times)| {
        Evidence {
            opened: opened.map(|n| n % 2),
            bytes_acked,
            queued,
            notsent,
            backoff: backoff % 3,
            last_ack_age: times.0,
            busy: times.1,
            rwnd_limited: times.2,
            srtt: times.3,
            rttvar: times.3.map(|_| times.4),
        }
    })
}

proptest! {
    /// Whatever the kernel, the clock and the caller say.
    #[test]
    fn nothing_makes_it_panic_or_leave_its_range(
        steps in prop::collection::vec(
            (any_evidence(), any::<u32>(), any::<u32>(), any::<u64>(), any::<f64>()), 1..40
        ),
    ) {
        let mut carry = Flow::new();
        let mut now = Duration::from_secs(100);
        let mut wall = Duration::ZERO;
        let mut last = None;
        for (seen, step, tokens, bytes, grant) in steps {
            // Mostly forward, at times far, at times back.
            now = match step % 10 {
                0 => now.saturating_sub(Duration::from_micros(step.into())),
                // All of them together less than the 584 years that a flow can count.
                1 => now + Duration::from_secs(u64::from(step % 400_000_000)),
                _ => now + Duration::from_micros(u64::from(step % 1_000_000)),
            };
            carry.on_sent(tokens, bytes);
            carry.grant(grant);
            let before = carry.causes().total();
            carry.observe(now, &seen, SPARE);
            let accounted = carry.causes().total() - before;
            let elapsed = last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
            // All of the time, unless the flow was begun anew.
            prop_assert!(accounted == elapsed || accounted.is_zero(), "{accounted:?} of {elapsed:?}");
            wall += accounted;
            last = Some(now);
            let hint = carry.hint(&Scope::Host, TICK, None);
            prop_assert!(hint.min_tps <= hint.current_tps && hint.current_tps <= hint.max_tps);
            prop_assert!((0.0..=80.0).contains(&carry.cap()), "{carry:?}");
            prop_assert!(carry.credit() >= LEAST_CREDIT && carry.room() >= 0.0, "{carry:?}");
        }
        prop_assert_eq!(carry.causes().total(), wall);
    }

    /// Over any path, one who asks for room never has more under way than the credit.
    #[test]
    fn the_credit_is_never_exceeded_and_the_time_sums_up(
        rtt in 1u64..800, rate in 500.0..1e6, wanted in 1.0..200.0,
        silences in prop::collection::vec(any::<bool>(), 20),
    ) {
        let (mut path, mut carry) = (Path::new(ms(rtt), rate), Flow::new());
        path.tick(&mut carry, wanted);
        let began = path.now;
        for silent in silences {
            path.silent = silent;
            for _ in 0..5 {
                // What was sent under a credit may still be out when the next one is smaller.
                let allowed = carry.credit().max(carry.outstanding());
                path.tick(&mut carry, wanted);
                prop_assert!(carry.outstanding() <= allowed + 1e-9, "{allowed}: {carry:?}");
                prop_assert_eq!(carry.causes().total(), path.now - began);
            }
        }
    }

    /// On a link that does not change, neither does the rate by much from one tick to the next.
    #[test]
    fn rates_change_slowly_on_a_constant_link(rtt in 5u64..300, rate in 1500.0..50_000.0) {
        let (mut path, mut carry) = (Path::new(ms(rtt), rate), Flow::new());
        let mut before: Option<f64> = None;
        for _ in 0..300 {
            path.tick(&mut carry, 80.0);
            prop_assert!(carry.state() != State::Stalled || Nanos::of(path.seen.last_ack_age) > STALL_FLOOR);
            if let Some(before) = before.filter(|before| *before > 0.0) {
                let cap = carry.cap();
                // e^0.1 up and e^-0.2 down at most.
                prop_assert!(cap <= before * 1.11 && cap >= before * 0.81, "{before} to {cap}");
            }
            before = Some(carry.cap()).filter(|cap| *cap > 0.0);
        }
    }
}

//! Who gets how much of the engine, by what each policy knows.
//!
//! All of them meet the same engine, which serves who is due and admits from its queue when a step has a seat left; they differ
//! in the rates that they set, ten times a second. `buffer`, `carry` and `oracle` share out the engine by the same arithmetic
//! ([`share`]), so that what differs between them is nothing but what they know of the link:
//!
//! | policy | takes as delivered | stops for a link |
//! | --- | --- | --- |
//! | `none` | – | never |
//! | `classic` | – | as health says, from min to max tokens/s |
//! | `proteus` | – | never; the engine is shared by exp(−RTT / 500 ms) |
//! | `buffer` | what was generated, at once | never |
//! | `carry` | what the kernel acknowledged | while the path is silent or the credit is spent |
//! | `oracle` | what will arrive | while nothing that is sent would arrive; it ends what never will |
//!
//! Reading rates are told by the client, as Andes and TokenFlow have it; who does not trust that sets one for all
//! ([`Policies::assumed_reading`]).
//!
//! Invariant: only the oracle calls [`Link::foresee`].

use std::hint::black_box;
use std::time::Duration;

use netdiag_health::Health;
use netdiag_pacer::{
    Carry, Claim, Classic, Judgement, Lead, Need, Observation, TpsRange, Unread, allocate, share,
};
use netdiag_telemetry::Tps;
use serde::{Deserialize, Serialize};

use super::Micros;
use super::deliveries::Log;
use super::engine::{Engine, Job};
use super::stream::{Stream, TOKEN_BYTES};

/// How often rates are set: DESIGN §8's tick.
pub(super) const TICK: Micros = 100_000;

/// Health judges intervals of half a second, as `netdiag up` does.
const JUDGED_EVERY: u64 = 5;

/// Part of the engine's tokens that is shared out, above 1 so that it is never idle while somebody waits: steps are full or not
/// by chance, and with all streams due exactly as often as there are seats some would stay empty.
const OVERBOOKED: f64 = 1.1;

/// The oracle wakes a stream so long before its link does: a tick and a step, and what is in flight within the engine.
const WAKING: Micros = 250_000;

/// And so long before a silence it begins to send ahead, where nobody else needs the engine: a seat gives a lead of two seconds in
/// one.
const FORESIGHT: Micros = 8_000_000;

/// A way to share the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// As fast as the engine goes, first come, first served.
    None,
    /// The original's: from health to a rate.
    Classic,
    /// By round trip: exp(−RTT / 500 ms).
    Proteus,
    /// By what clients have not read, as if all had arrived.
    Buffer,
    /// By what the kernel says has arrived.
    Carry,
    /// By what will arrive.
    Oracle,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 6] = [
        Policy::None,
        Policy::Classic,
        Policy::Proteus,
        Policy::Buffer,
        Policy::Carry,
        Policy::Oracle,
    ];

    /// The name used in tables and on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::None => "none",
            Policy::Classic => "classic",
            Policy::Proteus => "proteus",
            Policy::Buffer => "buffer",
            Policy::Carry => "carry",
            Policy::Oracle => "oracle",
        }
    }
}

/// What policies can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policies {
    /// Least and greatest rate of a stream, for those that go by them.
    pub range: TpsRange,
    /// While nobody waits for the engine.
    pub idle: Lead,
    /// While somebody does.
    pub busy: Lead,
    /// Reading rate of every client, tokens/s; `None`: each one's own.
    pub assumed_reading: Option<Tps>,
}

impl Policies {
    /// The leads that `up` has, for rates within `range`.
    pub fn new(range: TpsRange) -> Self {
        Self { range, idle: Lead::IDLE, busy: Lead::BUSY, assumed_reading: None }
    }
}

/// What a policy remembers of a stream.
#[derive(Debug)]
#[repr(align(64))]
#[allow(clippy::large_enum_variant)] // a thousand streams of one kind lie side by side, in the order in which they are looked at
enum Memory {
    Nothing,
    Classic(Box<(Health, Classic)>),
    Buffer(Unread, u32),
    Carry(Carry, Unread, u64),
    Oracle(Unread, u32),
}

impl Memory {
    /// Something of each cache line that a tick touches.
    fn touch(&self) -> u64 {
        let Memory::Carry(carry, unread, known) = self else { return 0 };
        let words = [
            carry.outstanding(),
            carry.range().max().get(),
            carry.cap(),
            carry.carried().unwrap_or(0.0),
            unread.tokens(),
        ];
        let state = carry.state() as u64;
        words.into_iter().fold(known ^ state, |all, word| all ^ word.to_bits())
    }
}

/// A policy at work.
#[derive(Debug)]
pub(super) struct Controller {
    policy: Policy,
    settings: Policies,
    range: TpsRange,
    ticks: u64,
    /// Of each stream.
    memories: Vec<Memory>,
    /// The rate of each stream at the last tick, tokens/s; no number for those that had none. It is told to [`Carry`] with the next
    /// observation, before which it makes no difference: by then its memory has left the caches, and would be fetched twice.
    granted: Vec<f64>,
    needs: Vec<Need>,
    claims: Vec<Claim>,
    /// Who needs, with the tokens that it may have.
    whose: Vec<(u32, u32)>,
    /// Streams that are to be ended.
    ended: Vec<u32>,
}

impl Controller {
    pub(super) fn new(policy: Policy, settings: Policies) -> Self {
        Self {
            policy,
            settings,
            range: settings.range,
            ticks: 0,
            memories: Vec::new(),
            granted: Vec::new(),
            needs: Vec::new(),
            claims: Vec::new(),
            whose: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// The next stream comes at `now`, for a client with this reading rate.
    pub(super) fn arrive(&mut self, reading: Tps, now: Micros) {
        let reading = self.settings.assumed_reading.unwrap_or(reading);
        let unread = || Unread::new(reading, Duration::from_micros(now));
        self.granted.push(f64::NAN);
        self.memories.push(match self.policy {
            Policy::None | Policy::Proteus => Memory::Nothing,
            Policy::Classic => {
                Memory::Classic(Box::new((Health::without_training(), Classic::new(self.range))))
            }
            Policy::Buffer => Memory::Buffer(unread(), 0),
            Policy::Carry => Memory::Carry(Carry::new(self.range), unread(), 0),
            Policy::Oracle => Memory::Oracle(unread(), 0),
        });
    }

    /// Whether [`Tcp::take_interval`](super::tcp::Tcp::take_interval) is called.
    pub(super) fn takes_intervals(&self) -> bool {
        self.policy == Policy::Classic
    }

    /// Something of what a token touches.
    pub(super) fn touch(&self, stream: u32) -> u64 {
        let Memory::Carry(carry, ..) = &self.memories[stream as usize] else { return 0 };
        carry.outstanding().to_bits()
    }

    /// A token of a stream was written.
    pub(super) fn on_sent(&mut self, stream: u32) {
        if let Memory::Carry(carry, ..) = &mut self.memories[stream as usize] {
            carry.on_sent(1, TOKEN_BYTES);
        }
    }

    /// So many bytes of a stream are acknowledged; the tokens that it may have now, where that changes.
    pub(super) fn on_ack(&mut self, stream: u32, acked: u64) -> Option<u32> {
        let Memory::Carry(carry, ..) = &mut self.memories[stream as usize] else { return None };
        carry.acknowledge(acked);
        Some(carry.room() as u32)
    }

    /// Streams that the last tick has found to be lost.
    pub(super) fn take_ended(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.ended)
    }

    /// Sets the rates until the next tick.
    pub(super) fn tick(
        &mut self,
        now: Micros,
        engine: &mut Engine,
        streams: &mut [Stream],
        log: &Log,
        jobs: &mut [Job],
    ) {
        self.ticks += 1;
        let is_busy = engine.queued() > 0;
        let capacity = engine.capacity() * OVERBOOKED;
        engine.prune(jobs);
        match self.policy {
            Policy::None => return,
            Policy::Classic if !self.ticks.is_multiple_of(JUDGED_EVERY) => return,
            Policy::Classic => {
                for &stream in engine.admitted() {
                    let memory = &mut self.memories[stream as usize];
                    let rate = judge(memory, &mut streams[stream as usize], now);
                    Engine::pace(&mut jobs[stream as usize], Some(rate), u32::MAX);
                }
            }
            Policy::Proteus => self.by_round_trip(capacity, engine, streams, jobs),
            Policy::Buffer | Policy::Carry | Policy::Oracle => {
                self.gather(now, is_busy, engine.admitted(), streams, log, jobs);
                let Ok(capacity) = Tps::try_new(capacity) else { return };
                let rates = share(capacity, &self.needs);
                for (&(stream, room), rate) in self.whose.iter().zip(rates) {
                    Engine::pace(&mut jobs[stream as usize], Some(rate), room);
                    self.granted[stream as usize] = rate;
                }
            }
        }
        engine.reorder(jobs);
    }

    fn by_round_trip(
        &mut self,
        capacity: f64,
        engine: &Engine,
        streams: &[Stream],
        jobs: &mut [Job],
    ) {
        self.claims.clear();
        let max = self.range.max().get();
        for &stream in engine.admitted() {
            let weight = (-streams[stream as usize].tcp.srtt() / 500e3).exp();
            // A round trip of minutes has no weight left to be a number.
            let claim = Claim::try_new(max, weight.max(1e-9));
            self.claims.extend(claim);
        }
        let Ok(capacity) = Tps::try_new(capacity) else { return };
        let rates = allocate(capacity, &self.claims);
        for (&stream, rate) in engine.admitted().iter().zip(rates) {
            Engine::pace(&mut jobs[stream as usize], Some(rate), u32::MAX);
        }
    }

    /// What each stream needs, as far as the policy knows.
    fn gather(
        &mut self,
        now: Micros,
        is_busy: bool,
        admitted: &[u32],
        streams: &[Stream],
        log: &Log,
        jobs: &[Job],
    ) {
        self.needs.clear();
        self.whose.clear();
        let at = Duration::from_micros(now);
        let max = self.range.max().get();
        let lead = if is_busy { self.settings.busy } else { self.settings.idle };
        for (place, &number) in admitted.iter().enumerate() {
            if let Some(&next) = admitted.get(place + 1) {
                let told = streams[next as usize].tcp.touch_told();
                black_box(self.memories[next as usize].touch() ^ told);
            }
            let stream = &streams[number as usize];
            let generated = jobs[number as usize].generated;
            let memory = &mut self.memories[number as usize];
            let (unread, under_way, ahead, cap, room) = match memory {
                Memory::Nothing | Memory::Classic(_) => continue,
                Memory::Buffer(unread, known) => {
                    unread.deliver(at, f64::from(generated - *known));
                    *known = generated;
                    // What it has sent is no risk to it, so it sends ahead while it can.
                    let ahead = if is_busy { lead.ahead } else { Lead::MOST };
                    (&*unread, 0.0, ahead, max, u32::MAX)
                }
                Memory::Carry(carry, unread, known) => {
                    carry.grant(self.granted[number as usize]);
                    let acked = stream.tcp.acked();
                    unread.deliver(at, (acked - *known) as f64 / carry.bytes_per_token());
                    *known = acked;
                    carry.observe(at, &stream.tcp.evidence(now), lead.spare(unread));
                    if carry.is_lost() {
                        self.ended.push(number);
                        continue;
                    }
                    let ahead = lead.ahead(carry);
                    (&*unread, carry.outstanding(), ahead, carry.cap(), carry.room() as u32)
                }
                Memory::Oracle(unread, known) => {
                    let arrived = log.count(&stream.deliveries, now);
                    unread.deliver(at, f64::from(arrived - *known));
                    *known = arrived;
                    let arrives = stream.link.foresee(now);
                    if arrives == Micros::MAX {
                        self.ended.push(number);
                        continue;
                    }
                    let window = if is_busy { WAKING } else { FORESIGHT };
                    let silence = stream.link.foresee_silence(now, window) as f64 / 1e6;
                    let ahead = lead.ahead + silence;
                    let usual = stream.link.round_trip();
                    let is_silent = is_busy && arrives > now + usual + WAKING;
                    let under_way = f64::from(generated) - f64::from(*known);
                    let cap = if is_silent { 0.0 } else { max };
                    (&*unread, under_way, ahead, cap, u32::MAX)
                }
            };
            // What is under way will be read, too.
            let lead = unread.lead() + under_way * unread.reading().seconds_per_token();
            self.needs.push(Need { cap, reading: unread.reading(), lead, ahead });
            self.whose.push((number, room));
        }
    }
}

/// The original's way: health judges the link, and the rate follows health.
fn judge(memory: &mut Memory, stream: &mut Stream, now: Micros) -> f64 {
    let elapsed = Duration::from_micros(TICK * JUDGED_EVERY);
    let Memory::Classic(memory) = memory else { return f64::INFINITY };
    let (health, classic) = &mut **memory;
    let seen = stream.tcp.take_interval(now);
    let judged = health.observe(&seen, elapsed);
    let stalled = seen.stalled;
    classic.observe(
        Observation {
            link: Judgement { health: judged.health, ..Judgement::default() },
            round_trip: seen.rtt.is_some(),
            idle: judged.idle,
            stalled,
            hold: stalled >= 1.0,
            reader_limited: false,
            source: None,
        },
        elapsed,
    );
    if stalled >= 1.0 { 0.0 } else { classic.rate().get() }
}

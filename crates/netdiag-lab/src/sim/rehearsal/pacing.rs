//! What each arm's engine is told, and when.
//!
//! Invariant: nothing in here knows more of a link than the server's kernel does.

use std::time::Duration;

use netdiag_health::{Health, Observation as Seen, RttRange};
use netdiag_pacer::{Carry, Classic, Judgement, Lead, Observation, TpsRange, Unread};
use netdiag_telemetry::Scope;

use super::super::Micros;
use super::conversation::{Connection, TOKEN_BYTES};
use super::{Arm, Rehearsal};
use crate::engine::{Pace, Scheduler};

/// How often `classic` judges, as the experiment does, and `carry`, as `netdiag up` does.
const JUDGED: Micros = 500_000;
const TICK: Micros = 100_000;

/// What `carry` remembers of a stream.
#[derive(Debug)]
pub(super) struct Memory {
    carry: Carry,
    unread: Unread,
    acked: u64,
    written: u64,
    /// The engine hears of it: from the first interval on that ended after it had begun.
    is_told: bool,
}

/// An arm's pacer.
#[derive(Debug)]
pub(super) struct Pacing {
    arm: Arm,
    range: TpsRange,
    next: Micros,
    /// What `classic` remembers of each link, while it has connections, and its hint.
    links: Vec<(Option<(Health, Classic)>, Pace)>,
}

impl Pacing {
    pub(super) fn new(arm: Arm, of: &Rehearsal, links: usize) -> Self {
        let range = of.range;
        let mut pacing = Self { arm, range, next: Micros::MAX, links: Vec::new() };
        pacing.next = match arm {
            Arm::None => Micros::MAX,
            Arm::Classic => JUDGED,
            Arm::Carry => TICK,
        };
        pacing.links = (0..links).map(|_| (None, pacing.most())).collect();
        pacing
    }

    pub(super) fn next_tick(&self) -> Micros {
        self.next
    }

    /// How fast an answer may begin.
    pub(super) fn first(&self, link: usize) -> Pace {
        self.links[link].1
    }

    fn most(&self) -> Pace {
        Pace { rate: Some(self.range.max()), hold: false }
    }

    pub(super) fn tick(
        &mut self,
        now: Micros,
        connections: &mut [Connection],
        scheduler: &mut Scheduler,
    ) {
        match self.arm {
            Arm::None => {}
            Arm::Classic => {
                self.next += JUDGED;
                self.judge(now, connections);
                let open = connections.iter().filter(|connection| connection.is_open());
                for (id, link) in open.filter_map(|open| Some((open.request?, open.link))) {
                    scheduler.pace(Duration::from_micros(now), id, self.links[link].1);
                }
            }
            Arm::Carry => {
                self.next += TICK;
                self.hint(now, connections, scheduler);
            }
        }
    }

    /// `classic`: each link by what its connections showed together.
    fn judge(&mut self, now: Micros, connections: &mut [Connection]) {
        let elapsed = Duration::from_micros(JUDGED);
        let mut seen: Vec<Option<Together>> = self.links.iter().map(|_| None).collect();
        for connection in connections {
            let is_open = connection.is_open();
            let Some(tcp) = &mut connection.tcp else { continue };
            let interval = tcp.take_interval(now);
            let is_new = is_open || interval.segs_out.is_some_and(|sent| sent > 0);
            if is_new {
                let together = seen[connection.link].get_or_insert_default();
                together.add(&interval, is_open);
            }
        }
        for ((memory, pace), seen) in self.links.iter_mut().zip(seen) {
            let Some(together) = seen else {
                *memory = None;
                *pace = Pace { rate: Some(self.range.max()), hold: false };
                continue;
            };
            let fresh = || (Health::without_training(), Classic::new(self.range));
            let (health, classic) = memory.get_or_insert_with(fresh);
            let (seen, hold) = together.seen();
            let judged = health.observe(&seen, elapsed);
            classic.observe(
                Observation {
                    link: Judgement { health: judged.health, ..Judgement::default() },
                    round_trip: seen.rtt.is_some(),
                    idle: judged.idle,
                    stalled: seen.stalled,
                    hold,
                    reader_limited: false,
                    source: None,
                },
                elapsed,
            );
            *pace = Pace { rate: Some(classic.rate()), hold };
        }
    }

    /// `carry`: each stream by itself, for nobody in an experiment says what the engine can do or how fast clients read.
    fn hint(&mut self, now: Micros, connections: &mut [Connection], scheduler: &mut Scheduler) {
        let (at, lead) = (Duration::from_micros(now), Lead::IDLE);
        let is_interval = now.is_multiple_of(JUDGED);
        for connection in connections.iter_mut().filter(|connection| connection.is_open()) {
            let Connection { tcp: Some(tcp), memory, request, .. } = connection else { continue };
            let evidence = tcp.evidence(now);
            let written = evidence.bytes_acked + evidence.queued;
            let memory = memory.get_or_insert_with(|| Memory {
                carry: Carry::watching(self.range),
                unread: Unread::new(self.range.max(), at),
                acked: evidence.bytes_acked,
                written,
                is_told: false,
            });
            let Memory { carry, unread, .. } = memory;
            let more = written - memory.written;
            let tokens = u32::try_from(more / TOKEN_BYTES).unwrap_or(u32::MAX);
            carry.on_sent(tokens, u64::from(tokens) * TOKEN_BYTES);
            let acked = evidence.bytes_acked - memory.acked;
            unread.deliver(at, acked as f64 / carry.bytes_per_token());
            carry.observe(at, &evidence, lead.spare(unread));
            (memory.acked, memory.written) = (evidence.bytes_acked, written);
            memory.is_told |= is_interval;
            if let Some(id) = request.filter(|_| memory.is_told) {
                let hint = memory.carry.hint(&Scope::Host, Duration::ZERO, None);
                scheduler.pace(at, id, Pace::from(&hint));
            }
        }
    }
}

/// What the connections of a link showed in an interval.
#[derive(Debug, Default)]
struct Together {
    rtt: Option<RttRange>,
    retrans_segs: u64,
    segs_out: u64,
    open: u32,
    stuck: u32,
    moving: u32,
}

impl Together {
    fn add(&mut self, interval: &Seen, is_open: bool) {
        self.rtt = match (self.rtt, interval.rtt) {
            (Some(a), Some(b)) => Some(RttRange { min: a.min.min(b.min), p95: a.p95.max(b.p95) }),
            (a, b) => a.or(b),
        };
        self.retrans_segs += interval.retrans_segs;
        self.segs_out += interval.segs_out.unwrap_or(0);
        if is_open {
            self.open += 1;
            let is_stuck = interval.stalled > 0.0;
            self.stuck += u32::from(is_stuck);
            self.moving += u32::from(!is_stuck);
        }
    }

    /// As health takes it, and whether nothing can be delivered at all.
    fn seen(&self) -> (Seen, bool) {
        let hold = self.stuck > 0 && self.stuck == self.open;
        let active = (self.stuck + self.moving).max(1);
        let stalled = f64::from(self.stuck) / f64::from(active);
        let Self { rtt, retrans_segs, segs_out, .. } = *self;
        (Seen { rtt, retrans_segs, segs_out: Some(segs_out), stalled }, hold)
    }
}

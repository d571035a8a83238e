//! The `carry` policy over all flows of a host, which belong to programs that know nothing of it.
//!
//! Whoever embeds the pacer counts its tokens. Here they are counted from outside: while nothing waits in the kernel each write
//! leaves as a segment of its own, so segments are tokens and their length is a token's; while something waits, writes are merged,
//! and bytes tell how many there were. An engine that sends several tokens at a time is paced in such portions.
//!
//! Invariant: a flow whose backlog is not known ([`Evidence::of_snapshot`]) is not in here; the classic policy speaks for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use netdiag_hints::Carried;
use netdiag_hints::bus::Seat;
use netdiag_pacer::{
    Attribution, Carry, Cause, Demand, Evidence, Hint, Lead, Load, Need, Share, State, TpsRange,
    Unread, plan,
};
use netdiag_telemetry::{FlowKey, FlowSnapshot, Scope, Tps, give_back};
use tokio::time::Instant;

/// How often flows are looked at: DESIGN §8's tick.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A flow that has done nothing for this long is between two answers, and needs no share: twice the gap between tokens of the
/// slowest stream worth reading.
const ASLEEP_AFTER: Duration = Duration::from_secs(2);

/// Looks that a flow may be missing from before it is forgotten.
const FORGIVEN: u64 = 3;

/// What flows share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharing {
    /// Least and greatest rate of a stream.
    pub(crate) range: TpsRange,
    /// What the engine generates for all streams together; `None`: as much as they can take.
    pub(crate) capacity: Option<Tps>,
    /// How fast clients read; `None`: as fast as they are given.
    pub(crate) reading: Option<Tps>,
}

/// The memory of all flows.
#[derive(Debug)]
pub(super) struct Flows {
    sharing: Sharing,
    /// Where other nodes share the engine, too.
    seat: Option<Seat>,
    /// This node's part of it.
    part: Share,
    flows: HashMap<FlowKey, Flow>,
    load: Load,
    now: Duration,
    round: u64,
}

#[derive(Debug)]
struct Flow {
    carry: Carry,
    attribution: Attribution,
    unread: Unread,
    seen: Seen,
    /// When it last did something.
    awake: Duration,
    round: u64,
}

/// As much of the last look as the next one is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    opened: Option<u64>,
    bytes_acked: u64,
    /// Bytes written by the application since the connection began.
    written: u64,
    is_waiting: bool,
    /// Segments sent once, with data where that is known.
    segs: u32,
}

impl Seen {
    fn of(flow: &FlowSnapshot, evidence: &Evidence) -> Self {
        // ACKs of what the client sends are no tokens.
        let data_segs = flow.liveness.and_then(|live| live.data_segs);
        let segs = data_segs.unwrap_or(flow.counters.segs_out);
        Self {
            opened: flow.opened,
            bytes_acked: evidence.bytes_acked,
            written: evidence.bytes_acked.saturating_add(evidence.queued),
            is_waiting: evidence.notsent > 0,
            segs: segs.wrapping_sub(flow.counters.retrans_segs),
        }
    }
}

impl Flows {
    pub(super) fn new(sharing: Sharing, seat: Option<Seat>) -> Self {
        Self {
            sharing,
            seat,
            part: Share::default(),
            flows: HashMap::new(),
            load: Load::default(),
            now: Duration::ZERO,
            round: 0,
        }
    }

    /// Takes in every flow as it is at `now`, and shares out the engine anew. Tells which are new. Those that are missing are soon
    /// forgotten: a look may fail to see some.
    pub(super) fn observe(&mut self, snapshots: &[FlowSnapshot], now: Duration) -> Vec<FlowKey> {
        self.round += 1;
        self.now = now;
        let (round, sharing) = (self.round, self.sharing);
        let lead = self.load.lead();
        let mut new = Vec::new();
        for snapshot in snapshots {
            if snapshot.closed {
                self.flows.remove(&snapshot.key);
                continue;
            }
            let Some(evidence) = Evidence::of_snapshot(snapshot) else {
                // What is known of it stays, until it is seen again.
                if let Some(flow) = self.flows.get_mut(&snapshot.key) {
                    flow.round = round;
                }
                continue;
            };
            let seen = Seen::of(snapshot, &evidence);
            let flow = self.flows.entry(snapshot.key).or_insert_with(|| {
                new.push(snapshot.key);
                Flow::new(sharing, seen, now)
            });
            flow.round = round;
            flow.observe(&evidence, seen, now, lead);
        }
        self.flows.retain(|_, flow| flow.round + FORGIVEN >= round);
        give_back(&mut self.flows);
        self.share(now);
        new
    }

    /// Gives each flow its rate.
    fn share(&mut self, now: Duration) {
        let Sharing { capacity, reading, .. } = self.sharing;
        if capacity.is_none() && reading.is_none() && self.seat.is_none() {
            return;
        }
        let load = self.load;
        let flows: Vec<&mut Flow> = self.flows.values_mut().collect();
        let need = |flow: &&mut Flow| (!flow.is_asleep(now)).then(|| flow.need(load.lead()));
        let needs: Vec<Option<Need>> = flows.iter().map(need).collect();
        // Without a bound each has what it can use.
        let Ok(capacity) = capacity.map_or_else(|| Tps::try_new(Tps::HIGHEST), Ok) else { return };
        let (load, rates) = match &self.seat {
            None => plan(capacity, 0, &needs),
            Some(seat) => {
                seat.demand.send_replace(Demand::of(&needs));
                let level = seat.level.borrow().and_then(|level| level.at(Instant::now()));
                self.part.plan(level, capacity, &needs)
            }
        };
        for (flow, rate) in flows.into_iter().zip(rates) {
            flow.carry.grant(rate);
        }
        self.load = load;
    }

    /// The hint for a flow, its cause and figures, with `judged` for its health; `None` for one that is not known.
    pub(super) fn hint(&self, key: &FlowKey, judged: &Hint) -> Option<(Hint, Carried)> {
        let flow = self.flows.get(key)?;
        let carry = &flow.carry;
        // A pause within an answer is the engine's; between two answers nobody waits.
        let pausing = (!flow.is_asleep(self.now)).then_some(Cause::Engine);
        let hint = carry.hint(&Scope::Stream(*key), Duration::ZERO, judged.source);
        let carried = Carried {
            cause: flow.attribution.present_cause().or(pausing),
            carry_tps: carry.carried(),
            credit: carry.credit(),
            outstanding: carry.outstanding(),
            bytes_per_token: carry.bytes_per_token(),
            causes: flow.attribution.causes(),
        };
        Some((with_health(hint, judged), carried))
    }

    /// What flows of a scope have in common: of the host, and of each peer.
    pub(super) fn totals(&self) -> (Total, HashMap<IpAddr, Total>) {
        let mut host = Total::default();
        let mut peers: HashMap<IpAddr, Total> = HashMap::new();
        for (key, flow) in self.flows.iter().filter(|(_, flow)| flow.round == self.round) {
            host.add(key, &flow.carry);
            peers.entry(key.peer.ip()).or_default().add(key, &flow.carry);
        }
        (host, peers)
    }

    /// The hint for a scope whose flows these are, with `judged` for its health. A single one speaks for itself; of none the
    /// classic policy knows more.
    pub(super) fn hint_of(&self, total: &Total, judged: &Hint) -> Hint {
        match total.only().and_then(|key| self.hint(&key, judged)) {
            Some((hint, _)) => Hint { scope: judged.scope.clone(), ..hint },
            None if total.flows == 0 => judged.clone(),
            None => total.hint(self.sharing.range, judged),
        }
    }
}

impl Flow {
    fn new(sharing: Sharing, seen: Seen, now: Duration) -> Self {
        let reading = sharing.reading.unwrap_or(sharing.range.max());
        Self {
            carry: Carry::watching(sharing.range),
            attribution: Attribution::new(),
            unread: Unread::new(reading, now),
            seen,
            awake: now,
            round: 0,
        }
    }

    fn observe(&mut self, evidence: &Evidence, seen: Seen, now: Duration, lead: Lead) {
        let before = std::mem::replace(&mut self.seen, seen);
        if before.opened != seen.opened || seen.bytes_acked < before.bytes_acked {
            // Another connection on the same ports, with another reader.
            self.carry = Carry::watching(self.carry.range());
            self.attribution = Attribution::new();
            self.unread = Unread::new(self.unread.reading(), now);
        } else {
            let bytes = seen.written.saturating_sub(before.written);
            match self.count(bytes, before) {
                Some(tokens) => self.carry.on_sent(tokens, bytes),
                None => self.carry.on_written(bytes),
            }
            let acked = seen.bytes_acked - before.bytes_acked;
            self.unread.deliver(now, acked as f64 / self.carry.bytes_per_token());
        }
        if seen != before || evidence.queued > 0 {
            self.awake = now;
        }
        let look = self.carry.observe(now, evidence, lead.spare(&self.unread));
        self.attribution.account(&look);
    }

    /// How many tokens `bytes` are that were written since `before`; `None` where segments do not tell: writes were merged, nothing
    /// was sent, or the counter jumped.
    fn count(&self, bytes: u64, before: Seen) -> Option<u32> {
        let segs = self.seen.segs.wrapping_sub(before.segs);
        let is_merged = before.is_waiting || self.seen.is_waiting;
        (!is_merged && segs > 0 && u64::from(segs) <= bytes).then_some(segs)
    }

    fn is_asleep(&self, now: Duration) -> bool {
        now.saturating_sub(self.awake) > ASLEEP_AFTER
    }

    fn need(&self, lead: Lead) -> Need {
        let reading = self.unread.reading();
        // What is under way will be read, too.
        let under_way = self.carry.outstanding() * reading.seconds_per_token();
        Need {
            cap: self.carry.cap(),
            reading,
            lead: self.unread.lead() + under_way,
            ahead: lead.ahead(&self.carry),
        }
    }
}

/// Several flows as one: whoever knows no more than their common hint gives each of them what they have on average. Flows whose
/// clients are gone have no say, unless all are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Total {
    flows: u32,
    /// By state, in the order of [`State::ALL`].
    states: [u32; State::ALL.len()],
    held: u32,
    lost: u32,
    /// Rates of those that are neither held nor idle, tokens/s.
    rates: f64,
    /// One of those that are not lost, or any.
    one: Option<FlowKey>,
}

impl Total {
    fn add(&mut self, key: &FlowKey, carry: &Carry) {
        self.flows += 1;
        if carry.is_lost() {
            self.lost += 1;
            self.one = self.one.or(Some(*key));
            return;
        }
        self.one = Some(*key);
        let at = State::ALL.iter().position(|state| *state == carry.state());
        self.states[at.unwrap_or_default()] += 1;
        if carry.is_held() {
            self.held += 1;
        } else if carry.state() != State::Idle {
            self.rates += carry.rate();
        }
    }

    /// The flow that all of it is about, if it is about a single one.
    fn only(&self) -> Option<FlowKey> {
        self.one.filter(|_| self.flows - self.lost == 1 || self.flows == 1)
    }

    fn of(&self, state: State) -> u32 {
        State::ALL.iter().zip(self.states).find(|(other, _)| **other == state).map_or(0, |(_, n)| n)
    }

    /// The hint for all of them, with `judged` for their health.
    fn hint(&self, range: TpsRange, judged: &Hint) -> Hint {
        let (present, idle) = (self.flows - self.lost, self.of(State::Idle));
        let (awake, moving) = (present - idle, present - idle - self.held);
        // What those that sleep may yet want is nobody's to hold.
        let hold = self.flows > 0 && self.held == present;
        let state = match awake {
            0 if hold => State::Stalled,
            0 => State::Idle,
            // What half of them or more have is the scope's; of two the worse.
            _ => [State::Stalled, State::Reader, State::Constrained]
                .into_iter()
                .find(|state| 2 * self.of(*state) >= awake)
                .unwrap_or(State::Clear),
        };
        let rate = |sum: f64| match moving {
            0 if hold => range.min(),
            0 => range.max(),
            _ => range.clamp(sum / f64::from(moving)),
        };
        let current_tps = rate(self.rates);
        let hint = Hint {
            current_tps,
            sleep_seconds: current_tps.seconds_per_token(),
            // A flow's rate is what it is given at once.
            target_tps: current_tps,
            state,
            reason: self.reason(awake),
            hold,
            ..judged.clone()
        };
        with_health(hint, judged)
    }

    fn reason(&self, awake: u32) -> String {
        if awake == 0 && self.lost == 0 {
            return "nothing is under way".to_owned();
        }
        let states = [State::Stalled, State::Reader, State::Constrained, State::Clear];
        let mut counts: Vec<String> = states
            .into_iter()
            .map(|state| (state, self.of(state)))
            .filter(|(_, count)| *count > 0)
            .map(|(state, count)| format!("{count} {}", state.as_str()))
            .collect();
        if self.lost > 0 {
            counts.push(format!("{} gone without a word", self.lost));
        }
        let streams = if awake == 1 { "stream" } else { "streams" };
        format!("{awake} {streams}: {}; {:.1} tok/s in all", counts.join(", "), self.rates)
    }
}

/// A recommendation with what is judged of the link's health, and why where it is bad.
fn with_health(hint: Hint, judged: &Hint) -> Hint {
    let reason =
        if judged.anomaly { format!("{}; {}", hint.reason, judged.reason) } else { hint.reason };
    Hint {
        health: judged.health,
        anomaly: judged.anomaly,
        anomaly_score: judged.anomaly_score,
        reason,
        ..hint
    }
}

#[cfg(test)]
mod tests;

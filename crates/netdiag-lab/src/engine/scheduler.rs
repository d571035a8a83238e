//! Which request gets a token, and how long that takes: a continuous-batching engine without a model.
//!
//! As in the engines it stands for (Orca, OSDI 2022; vLLM, SOSP 2023), work goes in steps. A step gives every ready request of the
//! batch one token and takes longer the more there are; requests join and leave between steps. What is not ready, because its
//! pacing says "later", keeps its seat and costs nothing. What is held gives its seat to whoever waits and keeps its place in
//! the answer (its keys and values would stay in memory); it comes back before newcomers.
//!
//! Pure: time comes in, so a test runs an hour in no time. Invariants: no more requests than seats run; a request gets no more
//! tokens than it asked for; every token is counted once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use netdiag_pacer::TokenBucket;
use netdiag_telemetry::Tps;

/// Tokens that may come at once after a late step.
const BURST: u32 = 2;

/// How the engine performs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSpec {
    /// Requests that run at a time.
    pub seats: usize,
    /// Time for a step without any request in it.
    pub step: Duration,
    /// What each request in it adds.
    pub step_per_seat: Duration,
    /// What a new request adds to its first step, for its prompt.
    pub prefill: Duration,
    /// Requests that may wait for a seat.
    pub queue: usize,
}

impl Default for EngineSpec {
    /// A mid-size model on one accelerator, roughly: 83 tokens/s alone, 32 requests at 57 each, 30 ms to the first token. Made up.
    fn default() -> Self {
        let us = Duration::from_micros;
        Self {
            seats: 32,
            step: us(12_000),
            step_per_seat: us(170),
            prefill: us(18_000),
            queue: 256,
        }
    }
}

/// Names a request for as long as the engine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(pub(crate) u64);

/// How fast a request may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// Tokens per second; `None` for as fast as the engine can.
    pub rate: Option<Tps>,
    /// Nothing for now.
    pub hold: bool,
}

impl Allowance {
    /// As fast as the engine can.
    pub const FREE: Self = Self { rate: None, hold: false };
}

/// What a request is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Queued,
    Running,
    Held,
}

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Step {
    /// Who got a token, and whether it was the last.
    pub(crate) tokens: Vec<(RequestId, bool)>,
    /// How long it took; the tokens are there when it is over.
    pub(crate) took: Duration,
    /// If nobody was ready: how long until somebody is, as far as time alone decides.
    pub(crate) idle: Option<Duration>,
}

/// No room to wait in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full: {0} requests wait")]
pub(crate) struct QueueFull(pub(crate) usize);

/// Tokens and requests since the engine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tokens.
    pub generated_tokens: u64,
    /// Requests that were taken in.
    pub requests: u64,
    /// Those that got all their tokens.
    pub finished: u64,
    /// Those that ended before.
    pub aborted: u64,
}

#[derive(Debug)]
pub(crate) struct Scheduler {
    spec: EngineSpec,
    requests: BTreeMap<RequestId, Request>,
    queue: VecDeque<RequestId>,
    running: Vec<RequestId>,
    next: u64,
    totals: Totals,
}

#[derive(Debug)]
struct Request {
    left: u32,
    phase: Phase,
    /// By its own wish.
    paused: bool,
    /// By its allowance.
    held: bool,
    bucket: Option<TokenBucket>,
    prefilled: bool,
}

impl Scheduler {
    pub(crate) fn new(spec: EngineSpec) -> Self {
        Self {
            spec,
            requests: BTreeMap::new(),
            queue: VecDeque::new(),
            running: Vec::new(),
            next: 1,
            totals: Totals::default(),
        }
    }

    /// Takes in a request for `tokens`, at least one.
    pub(crate) fn submit(&mut self, tokens: u32) -> Result<RequestId, QueueFull> {
        if self.queue.len() >= self.spec.queue {
            return Err(QueueFull(self.queue.len()));
        }
        let id = RequestId(self.next);
        self.next += 1;
        self.totals.requests += 1;
        let request = Request {
            left: tokens.max(1),
            phase: Phase::Queued,
            paused: false,
            held: false,
            bucket: None,
            prefilled: false,
        };
        self.requests.insert(id, request);
        self.queue.push_back(id);
        Ok(id)
    }

    /// Ends a request; whether there was one.
    pub(crate) fn abort(&mut self, id: RequestId) -> bool {
        let existed = self.remove(id);
        self.totals.aborted += u64::from(existed);
        existed
    }

    /// Pauses or resumes a request; whether there is one.
    pub(crate) fn set_paused(&mut self, id: RequestId, paused: bool) -> bool {
        self.requests.get_mut(&id).map(|request| request.paused = paused).is_some()
    }

    /// How fast a request may go from `now` on.
    pub(crate) fn allow(&mut self, id: RequestId, allowance: Allowance, now: Duration) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.held = allowance.hold;
        match (&mut request.bucket, allowance.rate) {
            (Some(bucket), Some(rate)) => bucket.set_rate(now, rate),
            (bucket, Some(rate)) => *bucket = Some(TokenBucket::new(rate, BURST, now)),
            (bucket, None) => *bucket = None,
        }
    }

    /// What a request is doing; `None` once it has ended.
    pub(crate) fn phase(&self, id: RequestId) -> Option<Phase> {
        self.requests.get(&id).map(|request| request.phase)
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// One step from `now`.
    pub(crate) fn step(&mut self, now: Duration) -> Step {
        self.seat();
        let mut step = Step { took: self.spec.step, ..Step::default() };
        let mut wait: Option<Duration> = None;
        for id in self.running.clone() {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            match request.bucket.as_mut().map_or(Ok(()), |bucket| bucket.take(now, 1)) {
                Ok(()) => {
                    step.took += self.spec.step_per_seat;
                    if !std::mem::replace(&mut request.prefilled, true) {
                        step.took += self.spec.prefill;
                    }
                    request.left -= 1;
                    step.tokens.push((id, request.left == 0));
                }
                Err(more) => wait = Some(wait.map_or(more, |wait| wait.min(more))),
            }
        }
        self.totals.generated_tokens += step.tokens.len() as u64;
        for (id, _) in step.tokens.iter().filter(|(_, last)| *last) {
            self.totals.finished += 1;
            self.remove(*id);
        }
        if step.tokens.is_empty() {
            return Step { idle: wait, ..Step::default() };
        }
        step
    }

    /// Moves held requests out of their seats, released ones back to the front of the queue, and fills free seats.
    fn seat(&mut self) {
        for (id, request) in self.requests.iter_mut().rev() {
            let held = request.paused || request.held;
            if held && request.phase != Phase::Held {
                request.phase = Phase::Held;
                self.running.retain(|running| running != id);
                self.queue.retain(|queued| queued != id);
            } else if !held && request.phase == Phase::Held {
                request.phase = Phase::Queued;
                self.queue.push_front(*id);
            }
        }
        while self.running.len() < self.spec.seats
            && let Some(id) = self.queue.pop_front()
        {
            if let Some(request) = self.requests.get_mut(&id) {
                request.phase = Phase::Running;
                self.running.push(id);
            }
        }
    }

    fn remove(&mut self, id: RequestId) -> bool {
        self.running.retain(|running| *running != id);
        self.queue.retain(|queued| *queued != id);
        self.requests.remove(&id).is_some()
    }
}

#[cfg(test)]
mod tests;

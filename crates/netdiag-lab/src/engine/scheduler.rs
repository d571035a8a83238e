//! What a continuous-batching engine does, step by step: who has a seat, how long a step takes, who gets a token.
//!
//! Iteration-level scheduling (Orca, OSDI 2022, §3): every step chooses its members anew, gives each one token and takes
//! longer the more there are. Prompts are worked off in chunks beside the decoding (Sarathi-Serve, OSDI 2024, §4), so
//! that a long one delays the others' tokens by a bounded time.
//!
//! | vLLM                                           | here                                        | why                                       |
//! | ---------------------------------------------- | ------------------------------------------- | ----------------------------------------- |
//! | KV blocks as needed, recomputed when they lack | prompt and answer reserved on admission     | no eviction, so no work is done twice     |
//! | who is admitted keeps a seat to the end        | seats go round among those that may run     | a paused stream gives its seat to others and is back at once |
//! | cannot pause, rates are the client's business  | [`Scheduler::pause`], [`Scheduler::pace`]   | that is what the project is about         |
//!
//! A request that is paused, held or not due yet keeps its KV cache and no seat. New requests are admitted when a step has
//! a seat left, so pacing lets the engine serve more streams than it has seats, up to its KV cache.
//!
//! Pure: time comes in as an argument, from any origin, and must not go back. The engine runs it by the clock, the
//! simulator as fast as it can.
//!
//! Invariant: no step has more members than seats, and no reservation exceeds the KV cache.

mod model;
mod request;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use netdiag_pacer::{Hint, TokenBucket};
use netdiag_telemetry::Tps;

use request::{Request, Turn};

pub use model::{InvalidModel, Model};

/// Steps that are late by more than this are not made up for. A timer is late by a millisecond or so, which must not
/// slow the engine down; one that was suspended must not burst when it wakes.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Tokens a paced request may save up. Steps quantise time, so one that is due between two steps needs room for the next
/// token meanwhile, or it would fall behind its rate.
const BURST: u32 = 2;

/// Names a request, never reused within an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many wait as may.
    #[error("{0} requests are waiting already: try again later")]
    Busy(usize),
    /// It would never fit.
    #[error("{needed} tokens of prompt and answer do not fit into {kv_tokens}: ask for fewer")]
    TooLong {
        /// Prompt and answer, tokens.
        needed: u64,
        /// What fits.
        kv_tokens: u64,
    },
}

/// How fast a request may run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Tokens/s; `None`: as fast as the engine can.
    pub rate: Option<Tps>,
    /// Not at all, until another pace is set.
    pub hold: bool,
}

impl From<&Hint> for Pace {
    fn from(hint: &Hint) -> Self {
        Self { rate: Some(hint.current_tps), hold: hint.hold }
    }
}

/// A token that was generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose.
    pub request: RequestId,
    /// When its step ended.
    pub at: Duration,
    /// Counts from 0.
    pub index: u32,
    /// The request is done, and the scheduler has forgotten it.
    pub last: bool,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting to be admitted.
    Queued,
    /// Admitted, with a place in the KV cache.
    Admitted,
}

/// How a request is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it is.
    pub phase: Phase,
    /// Between [`Scheduler::pause`] and [`Scheduler::resume`].
    pub paused: bool,
    /// Under a [`Pace`] that holds it.
    pub hold: bool,
}

/// What a scheduler has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Requests admitted, those that are paused or held included.
    pub admitted: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Tokens reserved in the KV cache.
    pub kv_tokens: u64,
}

/// The engine's state.
#[derive(Clone, Debug)]
pub struct Scheduler {
    model: Model,
    requests: BTreeMap<RequestId, Request>,
    /// Waiting, in order of arrival.
    queue: VecDeque<RequestId>,
    /// Admitted, the one served longest ago first.
    admitted: VecDeque<RequestId>,
    kv_tokens: u64,
    step: Option<Step>,
    next_id: u64,
}

#[derive(Clone, Debug)]
struct Step {
    ends: Duration,
    /// Who is in it, with the prompt tokens it works off; 0 is decoding.
    members: Vec<(RequestId, u32)>,
}

impl Scheduler {
    /// An idle engine.
    pub fn try_new(model: Model) -> Result<Self, InvalidModel> {
        model.check()?;
        Ok(Self {
            model,
            requests: BTreeMap::new(),
            queue: VecDeque::new(),
            admitted: VecDeque::new(),
            kv_tokens: 0,
            step: None,
            next_id: 0,
        })
    }

    /// Takes a request with a prompt of `prompt` tokens (an empty one counts as one) for exactly `output` tokens.
    pub fn submit(&mut self, prompt: u32, output: NonZeroU32) -> Result<RequestId, Refused> {
        let prompt = prompt.max(1);
        let needed = u64::from(prompt) + u64::from(output.get());
        let kv_tokens = self.model.kv_tokens;
        if needed > kv_tokens {
            return Err(Refused::TooLong { needed, kv_tokens });
        }
        // Whoever finds a seat need not wait, even between two steps.
        let finds_a_seat = self.queue.is_empty()
            && self.wanted_seats() < self.model.seats.get()
            && self.kv_tokens + needed <= kv_tokens;
        if !finds_a_seat && self.queue.len() >= self.model.queue {
            return Err(Refused::Busy(self.queue.len()));
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let request = Request {
            prompt_left: prompt,
            generated: 0,
            output,
            kv_tokens: needed,
            phase: Phase::Queued,
            paused: false,
            hold: false,
            bucket: None,
        };
        self.requests.insert(id, request);
        self.queue.push_back(id);
        if finds_a_seat {
            self.admit_next();
        }
        Ok(id)
    }

    /// Forgets a request, at once: of a step under way it gets no token. `false` if there is none.
    pub fn abort(&mut self, id: RequestId) -> bool {
        let known = self.requests.contains_key(&id);
        self.forget(id);
        known
    }

    /// Gives the request no token from the next step on, until [`Scheduler::resume`]. It keeps its place in the KV cache or
    /// in the queue. `false` if there is none.
    pub fn pause(&mut self, id: RequestId) -> bool {
        self.requests.get_mut(&id).is_some_and(|request| {
            request.paused = true;
            true
        })
    }

    /// Ends a pause. It is independent of [`Pace::hold`]. `false` if there is no such request.
    pub fn resume(&mut self, id: RequestId) -> bool {
        self.requests.get_mut(&id).is_some_and(|request| {
            request.paused = false;
            true
        })
    }

    /// Sets how fast a request may run from the next step on. `false` if there is none.
    pub fn pace(&mut self, now: Duration, id: RequestId, pace: Pace) -> bool {
        let Some(request) = self.requests.get_mut(&id) else { return false };
        request.hold = pace.hold;
        match (&mut request.bucket, pace.rate) {
            (Some(bucket), Some(rate)) => bucket.set_rate(now, rate),
            (bucket, rate) => *bucket = rate.map(|rate| TokenBucket::new(rate, BURST, now)),
        }
        true
    }

    /// Ends the steps that are over by `now`, adding their tokens to `tokens`, and begins the next. Returns when to come
    /// again at the latest; `None`: when something has changed.
    pub fn advance(&mut self, now: Duration, tokens: &mut Vec<Token>) -> Option<Duration> {
        let mut from = now;
        loop {
            if let Some(step) = self.step.take_if(|step| step.ends <= now) {
                from = if now - step.ends <= CATCH_UP { step.ends } else { now };
                self.finish(step, tokens);
            }
            if let Some(step) = &self.step {
                return Some(step.ends);
            }
            if let Some(due) = self.begin(from) {
                if due > now {
                    return Some(due);
                }
                from = due;
            } else if self.step.is_none() {
                return None;
            }
        }
    }

    /// Where a request is; `None` if there is none (any more).
    pub fn status(&self, id: RequestId) -> Option<Status> {
        let Request { phase, paused, hold, .. } = *self.requests.get(&id)?;
        Some(Status { phase, paused, hold })
    }

    /// How full the engine is.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            admitted: self.admitted.len(),
            queued: self.queue.len(),
            kv_tokens: self.kv_tokens,
        }
    }

    /// Begins a step at `now` if anybody can be in it. If nobody can, returns when the next one is due, if only time
    /// is missing.
    fn begin(&mut self, now: Duration) -> Option<Duration> {
        let seats = self.model.seats.get();
        let mut prompt_budget = self.model.prompt_chunk.get();
        let mut members: Vec<(RequestId, u32)> = Vec::new();
        let mut due: Option<Duration> = None;
        let mut passed_over = VecDeque::new();
        while members.len() < seats {
            if self.admitted.is_empty() && prompt_budget > 0 {
                self.admit_next();
            }
            let Some(id) = self.admitted.pop_front() else { break };
            let Some(request) = self.requests.get_mut(&id) else { continue };
            match request.turn(now, prompt_budget) {
                Turn::Member(prompt) => {
                    prompt_budget -= prompt;
                    members.push((id, prompt));
                }
                Turn::Never => passed_over.push_back(id),
                Turn::NotBefore(at) => {
                    due = Some(due.map_or(at, |due| due.min(at)));
                    passed_over.push_back(id);
                }
            }
        }
        // Who was passed over stays in front of who was not looked at, and both of who has had a turn.
        passed_over.append(&mut self.admitted);
        passed_over.extend(members.iter().map(|&(id, _)| id));
        self.admitted = passed_over;
        if members.is_empty() {
            return due;
        }
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let prompts = self.model.prompt_chunk.get() - prompt_budget;
        let ends = now.saturating_add(self.model.time_of_step(count, prompts));
        self.step = Some(Step { ends, members });
        None
    }

    fn finish(&mut self, step: Step, tokens: &mut Vec<Token>) {
        for (id, prompt) in step.members {
            // It may have been aborted meanwhile.
            let Some(request) = self.requests.get_mut(&id) else { continue };
            request.prompt_left -= prompt;
            if request.prompt_left > 0 {
                continue;
            }
            let index = request.generated;
            request.generated += 1;
            let last = request.generated == request.output.get();
            tokens.push(Token { request: id, at: step.ends, index, last });
            if last {
                self.forget(id);
            }
        }
    }

    /// Admits the first that waits and may run, if it fits.
    fn admit_next(&mut self) {
        let Some(place) = self.queue.iter().position(|id| !self.is_stopped(id)) else { return };
        let Some(request) = self.requests.get_mut(&self.queue[place]) else { return };
        if self.kv_tokens + request.kv_tokens > self.model.kv_tokens {
            return;
        }
        self.kv_tokens += request.kv_tokens;
        request.phase = Phase::Admitted;
        self.admitted.extend(self.queue.remove(place));
    }

    /// Admitted requests that want a seat.
    fn wanted_seats(&self) -> usize {
        self.admitted.iter().filter(|id| !self.is_stopped(id)).count()
    }

    fn is_stopped(&self, id: &RequestId) -> bool {
        self.requests.get(id).is_some_and(Request::is_stopped)
    }

    fn forget(&mut self, id: RequestId) {
        let Some(request) = self.requests.remove(&id) else { return };
        match request.phase {
            Phase::Queued => self.queue.retain(|&queued| queued != id),
            Phase::Admitted => {
                self.admitted.retain(|&admitted| admitted != id);
                self.kv_tokens -= request.kv_tokens;
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The engine of the simulator: continuous batching as in [`crate::engine::scheduler`], for a thousand streams and more.
//!
//! | `engine::Scheduler` | here | why |
//! | --- | --- | --- |
//! | looks at every admitted request in each step | keeps those that wait for their time in a heap | 1,000 admitted at 40 steps a second are 40,000 looks a second, each into a tree: by itself more than the 5 ms that a simulated second may take |
//! | who was served longest ago comes first | who was due first comes first | the same where nobody is paced; where they are, the later a stream is the sooner it is served |
//! | a token bucket for each request | the time of its last token and the interval | the same bucket of two tokens, in one number |
//!
//! A test runs both side by side: unpaced, they give the same tokens at the same times.
//!
//! Invariant: no step has more members than seats, and no reservation exceeds the KV cache.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::Micros;
use crate::engine::Model;

/// An interval between tokens without an end.
const NEVER: Micros = Micros::MAX;

/// What the engine knows of a stream: small, because each of a thousand is looked at for every token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    prompt: u32,
    pub(super) prompt_left: u32,
    pub(super) output: u32,
    pub(super) generated: u32,
    pub(super) phase: Phase,
    /// Between two tokens; [`NEVER`]: not at all.
    interval: Micros,
    /// When the last token was due.
    last: Micros,
    /// Tokens that may be generated until somebody says otherwise.
    room: u32,
    /// Has an entry among those that are due which counts.
    is_waiting: bool,
    /// Is in the step under way.
    is_member: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Queued,
    Admitted,
    /// All is generated, or nobody wants it any more.
    Over,
}

/// When a stream is due, and below that its number: in order as the pair would be, but with one comparison, which the processor need
/// not guess. In a heap of a thousand half of ten guesses would be wrong for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due(u128);

impl Due {
    fn new(at: Micros, stream: u32) -> Self {
        Self(u128::from(at) << u32::BITS | u128::from(stream))
    }

    fn at(self) -> Micros {
        (self.0 >> u32::BITS) as Micros
    }

    fn stream(self) -> u32 {
        self.0 as u32
    }
}

#[derive(Debug)]
pub(super) struct Engine {
    model: Model,
    queue: VecDeque<u32>,
    /// Those whose prompts are not worked off.
    prompts: VecDeque<u32>,
    /// Those that wait for their next token, by when it is due.
    due: BinaryHeap<Reverse<Due>>,
    /// Everybody admitted, in order of admission; who is over is removed at the next look.
    admitted: Vec<u32>,
    queued: usize,
    kv_tokens: u64,
    step: Option<Micros>,
    /// Who is in the step, with the prompt tokens worked off; 0 is decoding.
    members: Vec<(u32, u32)>,
    model_capacity: f64,
}

impl Job {
    pub(super) fn new(prompt: u32, output: u32) -> Self {
        Self {
            prompt,
            prompt_left: prompt,
            output,
            generated: 0,
            phase: Phase::Queued,
            interval: 0,
            last: 0,
            room: u32::MAX,
            is_waiting: false,
            is_member: false,
        }
    }

    /// Tokens reserved in the KV cache.
    fn kv_tokens(&self) -> u64 {
        u64::from(self.prompt) + u64::from(self.output)
    }

    fn interval(&self) -> Option<Micros> {
        (self.interval != NEVER).then_some(self.interval)
    }

    /// When the next token is due; `None`: not before somebody says otherwise.
    fn due(&self) -> Option<Micros> {
        let interval = self.interval().filter(|_| self.room > 0)?;
        Some(self.last.saturating_add(interval))
    }
}

impl Engine {
    pub(super) fn new(model: Model) -> Self {
        Self {
            queue: VecDeque::new(),
            prompts: VecDeque::new(),
            due: BinaryHeap::new(),
            admitted: Vec::new(),
            queued: 0,
            kv_tokens: 0,
            step: None,
            members: Vec::with_capacity(model.seats.get()),
            model_capacity: capacity(&model),
            model,
        }
    }

    /// What it generates with all seats taken and no prompts, tokens/s.
    pub(super) fn capacity(&self) -> f64 {
        self.model_capacity
    }

    pub(super) fn submit(&mut self, stream: u32) {
        self.queue.push_back(stream);
        self.queued += 1;
    }

    /// Requests that wait to be admitted.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Takes those that are over from the list of the admitted.
    pub(super) fn prune(&mut self, jobs: &[Job]) {
        self.admitted.retain(|&stream| jobs[stream as usize].phase == Phase::Admitted);
    }

    /// Admitted and, after [`Engine::prune`], not over.
    pub(super) fn admitted(&self) -> &[u32] {
        &self.admitted
    }

    /// Sets how fast a stream may run (`None`: as fast as it goes), and how many tokens; until [`Engine::reorder`] nothing changes.
    pub(super) fn pace(job: &mut Job, rate: Option<f64>, room: u32) {
        job.room = room;
        job.interval = match rate {
            None => 0,
            // Slower than a token in eleven days is not at all.
            Some(rate) if rate >= netdiag_telemetry::Tps::LOWEST => (1e6 / rate) as Micros,
            Some(_) => NEVER,
        };
    }

    /// Takes note of new paces.
    pub(super) fn reorder(&mut self, jobs: &mut [Job]) {
        let mut due = std::mem::take(&mut self.due).into_vec();
        due.clear();
        for &stream in &self.admitted {
            let job = &mut jobs[stream as usize];
            if job.phase == Phase::Admitted && job.prompt_left == 0 && !job.is_member {
                let at = job.due();
                job.is_waiting = at.is_some();
                due.extend(at.map(|at| Reverse(Due::new(at, stream))));
            }
        }
        self.due = due.into();
    }

    /// A stream may generate `room` more tokens from now on.
    pub(super) fn make_room(&mut self, stream: u32, room: u32, jobs: &mut [Job]) {
        let job = &mut jobs[stream as usize];
        job.room = room;
        let waits = job.phase == Phase::Admitted && job.prompt_left == 0 && !job.is_member;
        if waits && !job.is_waiting {
            self.wait(stream, jobs);
        }
    }

    /// Forgets a stream; of a step under way it gets no token.
    pub(super) fn abort(&mut self, stream: u32, jobs: &mut [Job]) {
        let job = &mut jobs[stream as usize];
        match std::mem::replace(&mut job.phase, Phase::Over) {
            Phase::Queued => self.queued -= 1,
            Phase::Admitted => self.kv_tokens -= job.kv_tokens(),
            Phase::Over => {}
        }
    }

    /// When the step under way ends, or, between two steps, when somebody is due.
    pub(super) fn next(&self, now: Micros) -> Option<Micros> {
        self.step.or_else(|| self.due.peek().map(|Reverse(due)| due.at().max(now)))
    }

    /// Ends the step that is over by `now`: `token` is called with each stream that gets one, in order, whether it is its last, and those
    /// who probably get one next.
    pub(super) fn finish(
        &mut self,
        now: Micros,
        jobs: &mut [Job],
        mut token: impl FnMut(u32, bool, &[(u32, u32)]),
    ) {
        if self.step.is_none_or(|ends| ends > now) {
            return;
        }
        self.step = None;
        let mut members = std::mem::take(&mut self.members);
        for (place, &(stream, prompt)) in members.iter().enumerate() {
            let job = &mut jobs[stream as usize];
            job.is_member = false;
            if job.phase == Phase::Over {
                continue;
            }
            job.prompt_left -= prompt;
            if job.prompt_left > 0 {
                self.prompts.push_back(stream);
                continue;
            }
            if prompt > 0 {
                // The first token is due with the prompt.
                job.last = now;
            }
            job.generated += 1;
            let is_last = job.generated == job.output;
            if is_last {
                job.phase = Phase::Over;
                self.kv_tokens -= job.kv_tokens();
            } else {
                self.wait(stream, jobs);
            }
            token(stream, is_last, &members[place + 1..]);
        }
        members.clear();
        self.members = members;
    }

    /// Begins a step at `now` if anybody can be in it.
    pub(super) fn begin(&mut self, now: Micros, jobs: &mut [Job]) {
        if self.step.is_some() {
            return;
        }
        let seats = self.model.seats.get();
        let mut budget = self.model.prompt_chunk.get();
        while self.members.len() < seats
            && budget > 0
            && let Some(stream) = self.prompts.pop_front()
        {
            self.join(stream, &mut budget, jobs);
        }
        while self.members.len() < seats
            && let Some(Reverse(next)) = self.due.peek().copied()
            && next.at() <= now
        {
            let (due, stream) = (next.at(), next.stream());
            // It is fetched while the heap is put in order.
            std::hint::black_box(jobs[stream as usize].generated);
            self.due.pop();
            let job = &mut jobs[stream as usize];
            // An old entry of a stream that is over.
            if job.phase != Phase::Admitted || !std::mem::take(&mut job.is_waiting) {
                continue;
            }
            // Two tokens may be saved up.
            if job.room == 0 {
                continue;
            }
            job.last = due.max(now.saturating_sub(job.interval().unwrap_or(0)));
            job.room = job.room.saturating_sub(1);
            job.is_member = true;
            self.members.push((stream, 0));
        }
        while self.members.len() < seats && budget > 0 && self.admit(&mut budget, jobs) {}
        if self.members.is_empty() {
            return;
        }
        let micros = |duration: std::time::Duration| duration.as_micros() as Micros;
        let worked_off = u64::from(self.model.prompt_chunk.get() - budget);
        let members = self.members.len() as u64;
        let lasts = micros(self.model.step)
            + micros(self.model.step_per_seat) * members
            + micros(self.model.step_per_prompt_token) * worked_off;
        self.step = Some(now + lasts);
    }

    fn admit(&mut self, budget: &mut u32, jobs: &mut [Job]) -> bool {
        while let Some(&stream) = self.queue.front() {
            let job = &mut jobs[stream as usize];
            if job.phase == Phase::Queued {
                if self.kv_tokens + job.kv_tokens() > self.model.kv_tokens {
                    return false;
                }
                self.kv_tokens += job.kv_tokens();
                job.phase = Phase::Admitted;
                self.queue.pop_front();
                self.queued -= 1;
                self.admitted.push(stream);
                self.join(stream, budget, jobs);
                return true;
            }
            self.queue.pop_front();
        }
        false
    }

    /// A stream works off a part of its prompt in the step that begins.
    fn join(&mut self, stream: u32, budget: &mut u32, jobs: &mut [Job]) {
        let job = &mut jobs[stream as usize];
        if job.phase == Phase::Admitted {
            job.is_member = true;
            let prompt = job.prompt_left.min(*budget);
            *budget -= prompt;
            self.members.push((stream, prompt));
        }
    }

    fn wait(&mut self, stream: u32, jobs: &mut [Job]) {
        let job = &mut jobs[stream as usize];
        if let Some(due) = job.due() {
            job.is_waiting = true;
            self.due.push(Reverse(Due::new(due, stream)));
        }
    }
}

/// What a model generates with all seats taken and no prompts, tokens/s.
fn capacity(model: &Model) -> f64 {
    let seats = model.seats.get() as u32;
    f64::from(seats) / (model.step + model.step_per_seat * seats).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::engine::Scheduler;

    /// When each token of each request comes.
    type Tokens = Vec<Vec<Micros>>;

    fn ours(requests: &[(u32, u32)], model: Model) -> Tokens {
        let mut engine = Engine::new(model);
        let mut jobs: Vec<Job> = requests.iter().map(|&(p, o)| Job::new(p, o)).collect();
        let mut tokens = vec![Vec::new(); jobs.len()];
        (0..jobs.len()).for_each(|stream| engine.submit(stream as u32));
        let mut now = 0;
        engine.begin(now, &mut jobs);
        while let Some(next) = engine.next(now) {
            now = next;
            engine.finish(now, &mut jobs, |stream, _, _| tokens[stream as usize].push(now));
            engine.begin(now, &mut jobs);
        }
        assert_eq!((engine.kv_tokens, engine.queued()), (0, 0));
        tokens
    }

    fn theirs(requests: &[(u32, u32)], model: Model) -> Tokens {
        let mut scheduler = Scheduler::try_new(model).expect("runs");
        for &(prompt, output) in requests {
            let output = NonZeroU32::new(output).expect("some");
            scheduler.submit(prompt, output).expect("taken");
        }
        let mut tokens = vec![Vec::new(); requests.len()];
        let (mut now, mut step) = (Duration::ZERO, Vec::new());
        while let Some(next) = scheduler.advance(now, &mut step) {
            now = next;
            for token in step.drain(..) {
                tokens[token.request.0 as usize].push(token.at.as_micros() as Micros);
            }
        }
        step.iter().for_each(|t| tokens[t.request.0 as usize].push(t.at.as_micros() as Micros));
        tokens
    }

    #[test]
    fn unpaced_it_does_what_the_lab_engine_does() {
        // More requests than seats, and prompts that all seats together can have in one step.
        let requests: Vec<(u32, u32)> =
            (0..60).map(|n| (1 + n * 37 % 16, 1 + n * 53 % 90)).collect();
        assert_eq!(ours(&requests, Model::default()), theirs(&requests, Model::default()));
        // Where prompts take several steps, whose is worked off first may differ, and little else.
        let requests: Vec<(u32, u32)> =
            (0..200).map(|n| (1 + n * 37 % 700, 1 + n * 53 % 90)).collect();
        for kv_tokens in [3000, Model::default().kv_tokens] {
            let model = Model { kv_tokens, ..Model::default() };
            let (ours, theirs) = (ours(&requests, model), theirs(&requests, model));
            let count = |tokens: &Tokens| tokens.iter().map(Vec::len).sum::<usize>();
            assert_eq!(count(&ours), count(&theirs));
            let end = |tokens: &Tokens| *tokens.iter().flatten().max().expect("some") as f64;
            assert!(
                (end(&ours) / end(&theirs) - 1.0).abs() < 0.02,
                "{} {}",
                end(&ours),
                end(&theirs)
            );
        }
    }

    #[test]
    fn a_paced_stream_keeps_its_rate_and_its_room() {
        let mut engine = Engine::new(Model::default());
        let mut jobs = vec![Job::new(10, 1000)];
        engine.submit(0);
        engine.begin(0, &mut jobs);
        Engine::pace(&mut jobs[0], Some(10.0), 50);
        let (mut now, mut tokens) = (0, Vec::new());
        while let Some(next) = engine.next(now) {
            now = next;
            engine.finish(now, &mut jobs, |_, _, _| tokens.push(now));
            engine.begin(now, &mut jobs);
        }
        // The first came with the prompt, and none after the room was used up.
        assert_eq!(tokens.len(), 51);
        let took = (tokens[50] - tokens[0]) as f64 / 1e6;
        assert!((took - 5.0).abs() < 0.05, "{took}");
        Engine::pace(&mut jobs[0], Some(0.0), 50);
        engine.reorder(&mut jobs);
        assert_eq!(engine.next(now), None);
        Engine::pace(&mut jobs[0], None, u32::MAX);
        engine.reorder(&mut jobs);
        assert_eq!(engine.next(now), Some(now));
    }
}

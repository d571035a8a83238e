//! Policies against traces and loads, in virtual time.
//!
//! A run is an engine, a policy and all the clients that come within some minutes, each with a link and a TCP connection of its
//! own. Everything is an event or a step, nothing waits, and a run is a function of its arguments: the same seed gives the same
//! bytes. What comes out is judged by [`crate::metrics`], as what comes out of the lab is.
//!
//! ```text
//! workload ─► engine (seats, steps, KV cache) ─► TCP (window, timer, order) ─► link (trace, loss, outages) ─► client
//!                 ▲ rates, ten times a second      │ what the kernel would say
//!                 └──────────── policy ◄───────────┘
//! ```
//!
//! With a thousand streams none of them is in the nearer caches. So something of each cache line that a token or an ACK will need is
//! read, and thrown away, two of them ahead: all lines are then fetched at once while the processor is busy with what comes before, and
//! not one after the other. That is what functions named `touch` are for.
//!
//! Invariants: no policy but the oracle knows more of a link than the server's kernel does; clients are the same whatever the
//! policy; every token generated is in exactly one place at the end.

mod deliveries;
mod engine;
mod events;
mod link;
mod policy;
mod receiver;
mod rehearsal;
mod stream;
mod study;
mod table;
mod tcp;
mod workload;

use std::hint::black_box;

use serde::Serialize;

use crate::engine::{InvalidModel, Model};
use crate::metrics::{StreamRecord, Summary, TokenCounts};

use deliveries::{Deliveries, Log};
use engine::{Engine, Job, Phase};
use events::{Event, Events, What};
use policy::{Controller, TICK};
use receiver::Receiver;
use stream::{Around, Stream, TOKEN_BYTES};
use tcp::Tcp;
use workload::{Client, Gone};

pub use policy::{Policies, Policy};
pub use rehearsal::{Arm, Rehearsal, rehearse, rehearse_streams};
pub use study::{
    Capacities, Cell, Done, Estimate, Job as StudyJob, Mix, Report, Row, SERVED_QOE, Study,
    synthetic_traces,
};
pub use tcp::CongestionControl;
pub use workload::{InvalidWorld, World};

/// Virtual time, microseconds from the start of the run.
pub(crate) type Micros = u64;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The engine.
    pub model: Model,
    /// Clients, links and load.
    pub world: World,
    /// What policies are told.
    pub policies: Policies,
}

/// A run that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidSetup {
    /// The engine.
    #[error(transparent)]
    Model(#[from] InvalidModel),
    /// The world.
    #[error(transparent)]
    World(#[from] InvalidWorld),
}

/// What came out of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The policy.
    pub policy: Policy,
    /// The seed.
    pub seed: u64,
    /// The metrics, as the experiment has them.
    pub summary: Summary,
    /// Most streams at once that were not over yet.
    pub most_streams: usize,
}

/// Runs `setup` under `policy`.
pub fn run(setup: &Setup, policy: Policy, seed: u64) -> Result<Outcome, InvalidSetup> {
    let (records, most_streams) = play(setup, policy, seed)?;
    let mut tokens = TokenCounts::default();
    records.iter().for_each(|record| tokens.add(record.counts));
    let summary = Summary::of(&records, tokens, setup.world.duration);
    Ok(Outcome { policy, seed, summary, most_streams })
}

/// The same, stream by stream, and the most streams at once.
pub fn play(
    setup: &Setup,
    policy: Policy,
    seed: u64,
) -> Result<(Vec<StreamRecord>, usize), InvalidSetup> {
    setup.world.validate()?;
    if setup.model.step.is_zero() {
        return Err(InvalidModel::Instant.into());
    }
    let mut run = Run::new(setup, policy, seed);
    run.play();
    Ok(run.records())
}

/// A run under way.
struct Run {
    engine: Engine,
    events: Events,
    controller: Controller,
    /// Who has not come yet, the next one last.
    coming: Vec<Client>,
    streams: Vec<Stream>,
    log: Log,
    jobs: Vec<Job>,
    patience: Option<Micros>,
    end: Micros,
    over: usize,
    most_streams: usize,
}

impl Run {
    fn new(setup: &Setup, policy: Policy, seed: u64) -> Self {
        let engine = Engine::new(setup.model);
        let mut coming = setup.world.clients(engine.capacity(), seed);
        coming.reverse();
        Self {
            engine,
            events: Events::new(),
            controller: Controller::new(policy, setup.policies),
            streams: Vec::with_capacity(coming.len()),
            log: Log::default(),
            jobs: Vec::with_capacity(coming.len()),
            coming,
            patience: setup.world.patience.map(|patience| patience.as_micros() as Micros),
            end: setup.world.duration.as_micros() as Micros,
            over: 0,
            most_streams: 0,
        }
    }

    fn play(&mut self) {
        let (mut now, mut tick) = (0, TICK);
        while now < self.end {
            let arrival = self.coming.last().map_or(Micros::MAX, |client| client.submitted);
            let step = self.engine.next(now).unwrap_or(Micros::MAX);
            now = arrival.min(step).min(tick).min(self.end);
            while let Some(event) = self.events.pop(now) {
                let tcp_of = |stream: u32| &self.streams[stream as usize].tcp;
                // Nearly all are ACKs, which send nothing.
                black_box(self.events.ahead(0).map(|next| tcp_of(next).touch_flight()));
                let after = self.events.ahead(1);
                black_box(after.map(|after| tcp_of(after).touch() ^ self.controller.touch(after)));
                self.happen(event);
            }
            if arrival == now
                && let Some(client) = self.coming.pop()
            {
                self.arrive(client);
            }
            self.finish_step(now);
            if tick == now {
                tick += TICK;
                let (streams, jobs) = (&mut self.streams, &mut self.jobs);
                self.controller.tick(now, &mut self.engine, streams, &self.log, jobs);
                for stream in self.controller.take_ended() {
                    self.streams[stream as usize].is_ended = true;
                    self.engine.abort(stream, &mut self.jobs);
                }
                self.most_streams = self.most_streams.max(self.streams.len() - self.over);
            }
            self.engine.begin(now, &mut self.jobs);
        }
    }

    fn arrive(&mut self, client: Client) {
        let Client { submitted, prompt, output, reader, gone, link } = client;
        let number = self.streams.len() as u32;
        let enter = |at, what| Event { at, stream: number, what };
        if let Gone::Leaves(at) | Gone::Vanishes(at) = gone {
            self.events.push(enter(at, What::Leave));
        }
        if let Some(patience) = self.patience {
            self.events.push(enter(submitted + patience, What::Patience));
        }
        let tcp = Tcp::new(submitted, link.round_trip());
        self.streams.push(Stream {
            submitted,
            output,
            reader,
            gone,
            tcp: if self.controller.takes_intervals() { tcp.telling() } else { tcp },
            receiver: Receiver::default(),
            link,
            deliveries: Deliveries::default(),
            left: None,
            is_ended: false,
        });
        self.controller.arrive(reader.rate, submitted);
        self.jobs.push(Job::new(prompt, output));
        self.engine.submit(number);
    }

    /// Tokens of a step that is over are written to their connections.
    fn finish_step(&mut self, now: Micros) {
        let Self { engine, streams, events, log, controller, over, .. } = self;
        engine.finish(now, &mut self.jobs, |number, is_last, next| {
            if let Some((next, _)) = next.first() {
                let Stream { tcp, link, .. } = &streams[*next as usize];
                black_box(tcp.touch_flight() ^ link.touch_trace());
            }
            if let Some((after, _)) = next.get(1) {
                black_box(streams[*after as usize].touch() ^ controller.touch(*after));
            }
            let stream = &mut streams[number as usize];
            *over += usize::from(is_last);
            controller.on_sent(number);
            let (tcp, mut around) = parts(stream, number, events, log);
            tcp.write(now, TOKEN_BYTES, &mut around);
        });
    }

    fn happen(&mut self, event: Event) {
        let Event { at, stream: number, what } = event;
        let stream = &mut self.streams[number as usize];
        match what {
            // After the end of the connection has reached the server, nothing does.
            What::Ack { .. } | What::Timer if stream.is_ended => {}
            What::Ack { ack, start } => {
                let (tcp, mut around) = parts(stream, number, &mut self.events, &mut self.log);
                tcp.on_ack(at, ack.into(), start.into(), &mut around);
                if let Some(room) = self.controller.on_ack(number, stream.tcp.acked()) {
                    self.engine.make_room(number, room, &mut self.jobs);
                }
            }
            What::Timer => {
                let (tcp, mut around) = parts(stream, number, &mut self.events, &mut self.log);
                tcp.on_timer(at, &mut around);
            }
            What::Leave if stream.is_complete(at) || stream.left.is_some() => {}
            What::Leave => {
                stream.leave(at, &mut self.log);
                if let Gone::Leaves(_) = stream.gone {
                    let at = stream.link.answer(at);
                    self.events.push(Event { at, what: What::Fin, ..event });
                }
            }
            What::Patience if stream.is_complete(at) || stream.left.is_some() => {}
            What::Patience => {
                let Some(patience) = self.patience else { return };
                let ends = stream.patience_ends(at, patience, &self.log);
                if ends > at {
                    self.events.push(Event { at: ends, ..event });
                } else {
                    stream.leave(at, &mut self.log);
                    let at = stream.link.answer(at);
                    self.events.push(Event { at, what: What::Fin, ..event });
                }
            }
            What::Fin => {
                stream.is_ended = true;
                if self.jobs[number as usize].phase != Phase::Over {
                    self.over += 1;
                    self.engine.abort(number, &mut self.jobs);
                }
            }
        }
    }

    fn records(self) -> (Vec<StreamRecord>, usize) {
        let Self { streams, jobs, log, end, most_streams, .. } = self;
        let both = streams.into_iter().zip(jobs);
        let records = both.map(|(stream, job)| stream.record(job.generated, end, &log)).collect();
        (records, most_streams)
    }
}

/// A connection, and what it touches.
fn parts<'a>(
    stream: &'a mut Stream,
    number: u32,
    events: &'a mut Events,
    log: &'a mut Log,
) -> (&'a mut Tcp, Around<'a>) {
    let Stream { tcp, link, receiver, deliveries, .. } = stream;
    let token_bytes = TOKEN_BYTES;
    (tcp, Around { stream: number, link, events, receiver, deliveries, log, token_bytes })
}

#[cfg(test)]
mod tests;

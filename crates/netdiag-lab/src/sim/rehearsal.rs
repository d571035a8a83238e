//! The lab's experiment in virtual time: the same schedule of links, the same questions, the same scheduler of the engine, without
//! a kernel. What it says beforehand can be held against what the experiment then measures on real TCP, so that it is known how far
//! the rest of the simulator can be believed.
//!
//! Clients ask one question after the other, each on a connection of its own, over a link that they keep; some leave when nothing
//! comes. Answers, impatience, losses and jitter are drawn as [`crate::client`] and [`crate::emulator`] draw them, from the same seeds.
//!
//! | a real run | here | why |
//! | --- | --- | --- |
//! | programs and the kernel take time | none | it is microseconds, and the links' times are milliseconds |
//! | an acknowledgement for one or two segments | for each | the client's program reads at once, which sends one |
//! | `classic` judges with a model trained meanwhile | without | it needs more intervals than an experiment usually has |
//!
//! Invariants: a rehearsal is a function of its arguments; every token generated is in exactly one place at the end.

mod conversation;
mod pacing;
mod way;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use netdiag_pacer::TpsRange;
use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};
use serde::{Deserialize, Serialize};

use super::Micros;
use super::tcp::CongestionControl;
use crate::Schedule;
use crate::client::Drawn;
use crate::engine::{InvalidModel, Model, RequestId, Scheduler, Token};
use crate::metrics::{Reader, StreamRecord, Summary, TokenCounts};

use conversation::{Connection, Event, HEAD_BYTES, TOKEN_BYTES, What};
use pacing::Pacing;
use way::Way;

/// The conditions of an experiment.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// What each client's link does.
    pub schedules: Vec<Schedule>,
    /// Streams at once; the n-th is on the n-th link, and around again.
    pub streams: usize,
    /// The engine.
    pub model: Model,
    /// Lengths of answers, tokens; each as likely as the others.
    pub output_tokens: RangeInclusive<u32>,
    /// Share of the answers whose reader leaves after `patience` without a token.
    pub leavers: f64,
    /// See `leavers`.
    pub patience: Duration,
    /// Who reads.
    pub reader: Reader,
    /// The time over which the first questions are asked, evenly.
    pub ramp: Duration,
    /// The end.
    pub duration: Duration,
    /// Least and greatest rate of a stream.
    pub range: TpsRange,
    /// The kernel's.
    pub control: CongestionControl,
    /// Of what is left to chance on the links: the experiment's, so that they lose and hold up the same packets.
    pub link_seed: u64,
}

/// How the engine is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// As fast as the range allows.
    None,
    /// By hints of the `classic` policy for each client, twice a second.
    Classic,
    /// By hints of the `carry` policy for each stream, ten times a second: a rate, or hold.
    Carry,
}

impl Arm {
    /// All of them.
    pub const ALL: [Arm; 3] = [Arm::None, Arm::Classic, Arm::Carry];

    /// The name used in tables and on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Arm::None => "none",
            Arm::Classic => "classic",
            Arm::Carry => "carry",
        }
    }
}

/// Plays the conditions in `arm`. `seed` is for questions and readers; with that of the experiment they are its own.
///
/// # Errors
///
/// An engine that cannot be.
pub fn rehearse(of: &Rehearsal, arm: Arm, seed: u64) -> Result<Summary, InvalidModel> {
    let records = rehearse_streams(of, arm, seed)?;
    let mut tokens = TokenCounts::default();
    records.iter().for_each(|record| tokens.add(record.counts));
    Ok(Summary::of(&records, tokens, of.duration))
}

/// The same, stream by stream.
///
/// # Errors
///
/// An engine that cannot be.
pub fn rehearse_streams(
    of: &Rehearsal,
    arm: Arm,
    seed: u64,
) -> Result<Vec<StreamRecord>, InvalidModel> {
    let mut run = Run::try_new(of, arm, seed)?;
    run.play();
    Ok(run.records())
}

/// A rehearsal under way.
struct Run<'r> {
    of: &'r Rehearsal,
    scheduler: Scheduler,
    /// Whose answer it is.
    answers: BTreeMap<RequestId, usize>,
    /// To the server, and to the client.
    links: Vec<[Way; 2]>,
    /// What each client asks next.
    clients: Vec<Xoshiro256PlusPlus>,
    connections: Vec<Connection>,
    events: BinaryHeap<Reverse<Event>>,
    entered: u64,
    pacing: Pacing,
    end: Micros,
}

impl<'r> Run<'r> {
    fn try_new(of: &'r Rehearsal, arm: Arm, seed: u64) -> Result<Self, InvalidModel> {
        let mut of_links = SplitMix64::seed_from_u64(of.link_seed);
        let links = of.schedules.iter().map(|schedule| {
            let steps = schedule.steps();
            let up = Way::new(steps.iter().map(|(at, d)| (*at, &d.up)), of_links.next_u64());
            let down = Way::new(steps.iter().map(|(at, d)| (*at, &d.down)), of_links.next_u64());
            [up, down]
        });
        let links: Vec<[Way; 2]> = links.collect();
        let mut of_clients = Xoshiro256PlusPlus::seed_from_u64(seed);
        let clients = (0..of.streams)
            .map(|_| Xoshiro256PlusPlus::seed_from_u64(of_clients.random()))
            .collect();
        let mut run = Self {
            of,
            scheduler: Scheduler::try_new(of.model)?,
            answers: BTreeMap::new(),
            pacing: Pacing::new(arm, of, links.len()),
            links,
            clients,
            connections: Vec::new(),
            events: BinaryHeap::new(),
            entered: 0,
            end: of.duration.as_micros() as Micros,
        };
        for client in 0..of.streams {
            let at = of.ramp.mul_f64(client as f64 / of.streams as f64);
            run.enter(at.as_micros() as Micros, client, What::Ask);
        }
        Ok(run)
    }

    fn play(&mut self) {
        let (mut now, mut tokens, mut step) = (0, Vec::new(), None);
        loop {
            let event = self.events.peek().map_or(Micros::MAX, |Reverse(event)| event.at);
            let step_ends = step.map_or(Micros::MAX, |at: Micros| at.max(now));
            now = event.min(step_ends).min(self.pacing.next_tick());
            if now >= self.end {
                return;
            }
            while let Some(Reverse(event)) = self.events.pop() {
                if event.at > now {
                    self.events.push(Reverse(event));
                    break;
                }
                self.happen(event);
            }
            step = self.advance(now, &mut tokens);
            if now >= self.pacing.next_tick() {
                let Self { pacing, connections, scheduler, .. } = self;
                pacing.tick(now, connections, scheduler);
                step = self.advance(now, &mut tokens);
            }
        }
    }

    /// Lets the engine work until `now`; gives the time at which it is to work again.
    fn advance(&mut self, now: Micros, tokens: &mut Vec<Token>) -> Option<Micros> {
        let next = self.scheduler.advance(Duration::from_micros(now), tokens);
        for Token { request, last, .. } in tokens.drain(..) {
            let Some(&number) = self.answers.get(&request) else { continue };
            self.connections[number].generated += 1;
            let bytes = TOKEN_BYTES + if last { HEAD_BYTES } else { 0 };
            self.write(now, number, bytes);
            if last {
                self.answers.remove(&request);
            }
        }
        next.map(|next| next.as_nanos().div_ceil(1000) as Micros)
    }

    /// A client asks its next question.
    fn ask(&mut self, now: Micros, client: usize) {
        let drawn = Drawn::draw(self.of.leavers, &self.of.output_tokens, &mut self.clients[client]);
        let patience = drawn.leaver.then_some(self.of.patience.as_micros() as Micros);
        let link = client % self.links.len();
        let number = self.connections.len();
        self.connections.push(Connection::new(now, client, link, drawn.output_tokens, patience));
        self.enter(now, number, What::Connect(0));
        if let Some(patience) = patience {
            self.enter(now + patience, number, What::Patience);
        }
    }

    /// The question is at the server.
    fn submit(&mut self, now: Micros, number: usize) {
        let output = NonZeroU32::new(self.connections[number].output).unwrap_or(NonZeroU32::MIN);
        // Where the queue is full a real client is refused; no experiment has as many.
        let Ok(id) = self.scheduler.submit(PROMPT_TOKENS, output) else { return };
        self.answers.insert(id, number);
        let connection = &mut self.connections[number];
        connection.request = Some(id);
        let pace = self.pacing.first(connection.link);
        self.scheduler.pace(Duration::from_micros(now), id, pace);
        self.write(now, number, HEAD_BYTES);
    }

    /// Nobody wants the answer any more, as far as the server knows.
    fn abort(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        connection.is_ended = true;
        if let Some(id) = connection.request {
            self.scheduler.abort(id);
            self.answers.remove(&id);
        }
    }

    fn enter(&mut self, at: Micros, stream: usize, what: What) {
        self.entered += 1;
        self.events.push(Reverse(Event { at, entered: self.entered, stream, what }));
    }

    fn records(self) -> Vec<StreamRecord> {
        let (end, reader) = (self.end, self.of.reader);
        self.connections.into_iter().map(|connection| connection.record(end, reader)).collect()
    }
}

/// Of the experiment's question.
const PROMPT_TOKENS: u32 = 8;

#[cfg(test)]
mod tests;

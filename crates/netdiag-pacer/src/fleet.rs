//! One engine's streams, spread over many hosts: what each host asks for, and what its streams have.
//!
//! The allocator fills one vessel, so all that hosts must agree upon is how high the water stands. Each says what its streams ask for
//! ([`Demand`], of bounded size however many streams it has); whoever knows all demands finds the [`Level`]; each host then
//! knows what each of its streams has, by itself, with its own newest figures.
//!
//! A host that hears no level any more goes on with the [`Share`] that it had: what others had, they still have.
//!
//! Invariants: up to [`MOST_TURNS`] streams of a host are told exactly; of more, in [`FEW_TURNS`] parts at most, what is told differs
//! only at levels among those that are told as one, by a quarter of their distance at most; a host without a level has what it had
//! last with one, but for two tokens per second and stream for two seconds after a change, or an even part if it had nothing.

use std::borrow::Borrow;

use netdiag_telemetry::Tps;

use crate::allocator::rise;
use crate::plan::{Load, Need, claim, plan, read};

/// Most turns of each kind in a demand: with some twenty characters each they fit into a message.
const MOST_TURNS: usize = 128;

/// Most turns of each kind that more streams than that are told by. So the rate of no stream with a token per second or more is off by two
/// percent, and all together by a thousandth (`cargo xtask bench scale`). The error goes with the square of their distance, and the bytes
/// from every node with their number.
const FEW_TURNS: usize = 64;

/// Highest level and greatest weight that are believed: far beyond what streams can use.
const HIGHEST: f64 = 1e9;

/// Where streams join in as the water rises, or are full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// The level, tokens/s for a weight of 1.
    pub level: f64,
    /// The weight that takes part from there on; negative for what takes part no more.
    pub weight: f64,
}

/// What the streams of a host ask of an engine: how much at which level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    turns: Vec<Turn>,
    reading: f64,
    streams: u32,
}

/// Figures that are no demand.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InvalidDemand {
    /// A level or a weight that cannot be.
    #[error(
        "a turn at level {level} by {weight}: give a level from 0 to {HIGHEST:e} and a weight within it"
    )]
    Turn {
        /// The level.
        level: f64,
        /// The weight.
        weight: f64,
    },
    /// More than a host says.
    #[error("{0} turns: give {most} at most", most = 2 * MOST_TURNS)]
    Many(usize),
    /// What takes part is not what once joined in.
    #[error("streams that never join in or are never full: weights must add up to 0, not to {0}")]
    Sum(f64),
    /// Not a rate.
    #[error("clients that read {0} tokens/s: give a number from 0 to {HIGHEST:e}")]
    Reading(f64),
}

impl Demand {
    /// What these needs come to; those that do not ask are none.
    pub fn of(needs: &[Option<Need>]) -> Self {
        let asking: Vec<&Need> = needs.iter().flatten().collect();
        let claims = asking.iter().map(|need| claim(need)).filter(|claim| claim.cap() > 0.0);
        let (mut joining, mut full) = (Vec::new(), Vec::new());
        for [(start, weight), (end, less)] in claims.map(|claim| claim.turns()) {
            joining.push(Turn { level: start, weight });
            full.push(Turn { level: end, weight: less });
        }
        let mut turns = merged(joining);
        turns.extend(merged(full));
        turns.sort_unstable_by(|a, b| a.level.total_cmp(&b.level));
        Self {
            turns,
            reading: read(asking.iter().copied()),
            streams: asking.len().try_into().unwrap_or(u32::MAX),
        }
    }

    /// The same from its parts, as another host tells them.
    ///
    /// # Errors
    ///
    /// Figures that no host's streams come to.
    pub fn try_new(
        mut turns: Vec<Turn>,
        reading: f64,
        streams: u32,
    ) -> Result<Self, InvalidDemand> {
        if turns.len() > 2 * MOST_TURNS {
            return Err(InvalidDemand::Many(turns.len()));
        }
        for &Turn { level, weight } in &turns {
            if !(0.0..=HIGHEST).contains(&level) || !(-HIGHEST..=HIGHEST).contains(&weight) {
                return Err(InvalidDemand::Turn { level, weight });
            }
        }
        let sum: f64 = turns.iter().map(|turn| turn.weight).sum();
        let most: f64 = turns.iter().map(|turn| turn.weight.abs()).sum();
        if sum.abs() > 1e-6 * most {
            return Err(InvalidDemand::Sum(sum));
        }
        if !(0.0..=HIGHEST).contains(&reading) {
            return Err(InvalidDemand::Reading(reading));
        }
        turns.sort_unstable_by(|a, b| a.level.total_cmp(&b.level));
        Ok(Self { turns, reading, streams })
    }

    /// Where its streams join in and are full, by level; those of many streams as one.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// What the clients read that can be sent something, tokens/s.
    pub fn reading(&self) -> f64 {
        self.reading
    }

    /// How many streams it is of.
    pub fn streams(&self) -> u32 {
        self.streams
    }

    /// What is asked for in all, tokens/s.
    pub fn cap(&self) -> f64 {
        self.at(f64::MAX)
    }

    /// What its streams have together while the water stands at `level`, tokens/s.
    pub fn at(&self, level: f64) -> f64 {
        // Up to the last turn: beyond it everybody is full.
        let level = self.turns.last().map_or(0.0, |turn| turn.level).min(level);
        let part = |turn: &Turn| turn.weight * (level - turn.level).max(0.0);
        self.turns.iter().map(part).sum::<f64>().max(0.0)
    }
}

/// What all hosts that share an engine go by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// How high the water stands, tokens/s for a weight of 1; infinite while everybody has what it asks for.
    pub level: f64,
    /// How much is asked of the engine.
    pub load: Load,
    /// What is left of the capacity for each host, tokens/s.
    pub spare: f64,
    /// What each host would have if the capacity were divided by their number, tokens/s.
    pub even: f64,
    /// Which of the leader's words it is: another number, another word.
    pub number: u64,
}

/// The level at which an engine of this capacity meets the demands of all hosts.
pub fn fleet_level<D: Borrow<Demand>>(capacity: Tps, demands: &[D]) -> Level {
    let capacity = capacity.get();
    let all = || demands.iter().map(Borrow::borrow);
    let caps: f64 = all().map(Demand::cap).sum();
    let level = if caps <= capacity {
        f64::INFINITY
    } else {
        let turns = all().flat_map(Demand::turns);
        let mut turns: Vec<(f64, f64)> = turns.map(|turn| (turn.level, turn.weight)).collect();
        turns.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        rise(capacity, &turns)
    };
    let reading: f64 = all().map(Demand::reading).sum();
    let hosts = demands.len().max(1) as f64;
    Level {
        level,
        load: if reading > capacity { Load::Busy } else { Load::Idle },
        spare: (capacity - caps).max(0.0) / hosts,
        even: capacity / hosts,
        number: 0,
    }
}

/// The part of an engine that one host's streams have.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share(Option<Told>);

/// What followed from the leader's last word when it came.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Told {
    number: u64,
    /// What the host's streams may have together, tokens/s, until the next word.
    part: f64,
    /// What they had together on average of the last plans, for when there is no next word. Begun anew when that is something else.
    kept: f64,
}

/// How much each plan counts in that average: of ten a second those of the last two seconds do. What streams have at one moment is swayed
/// by a single token under way, and tokens may go in step with words; kept as it is, it would be too much or too little for as long as
/// nothing is heard. What all hosts have on average adds up to no more than the engine generates.
const NEWEST: f64 = 0.0625;

/// How far what streams have may be from that average, tokens/s for each of them, before it is an average of times that are over. A
/// token under way takes one per second off a stream's rate, and the word may be about a moment at which there was one less.
const SWAY: f64 = 2.0;

impl Share {
    /// The load, and each stream's rate in tokens/s, from the needs of those that ask; those that do not may have what they like when
    /// they come. By a `level` that is what others have, too. Without one the host's streams keep to what they had together, or
    /// to `alone` if there never was one.
    pub fn plan(
        &mut self,
        level: Option<Level>,
        alone: Tps,
        needs: &[Option<Need>],
    ) -> (Load, Vec<f64>) {
        if let Some(level) = level
            && self.0.is_none_or(|told| told.number != level.number)
        {
            let part = part(level, alone, needs);
            let kept = self.0.map_or(part, |told| told.kept);
            self.0 = Some(Told { number: level.number, part, kept });
        }
        if let (Some(level), Some(told)) = (level, &mut self.0) {
            // Without a limit streams that came since the word share what it was about.
            let is_limited = level.level.is_finite();
            let had = if is_limited { part(level, alone, needs) } else { told.part };
            let sway = SWAY * needs.iter().flatten().count() as f64;
            // Others have come or gone, or the capacity is another: what was had before would be what others have now.
            let is_over = (had - told.kept).abs() > sway;
            told.kept = if is_over { had } else { told.kept + NEWEST * (had - told.kept) };
        }
        let within = |part: f64| {
            // Streams that came since the leader's word share with the others what the word was about.
            plan(Tps::try_new(part).unwrap_or(alone), 0, needs)
        };
        match (level, self.0) {
            (Some(level), _) if level.level.is_finite() => {
                let at = |need: &Need| claim(need).at(level.level);
                let rate = |need: &Option<Need>| need.as_ref().map_or(f64::INFINITY, at);
                (level.load, needs.iter().map(rate).collect())
            }
            (Some(level), Some(told)) => (level.load, within(told.part).1),
            (None, Some(told)) => within(told.kept),
            (_, None) => within(alone.get()),
        }
    }
}

/// What a host's streams may have together by a word of the leader's, tokens/s.
fn part(level: Level, alone: Tps, needs: &[Option<Need>]) -> f64 {
    let claims = needs.iter().flatten().map(claim).filter(|claim| claim.cap() > 0.0);
    let (mut asking, mut given) = (false, 0.0);
    for claim in claims {
        asking = true;
        given += claim.at(level.level);
    }
    // A host that had nothing to ask for would starve those who come while nothing is heard.
    let part = if asking { given + level.spare } else { level.even };
    part.min(alone.get()).clamp(Tps::LOWEST, Tps::HIGHEST)
}

/// At most [`MOST_TURNS`], those next to each other as one at the mean of their levels: at levels beyond them that is the same.
fn merged(mut turns: Vec<Turn>) -> Vec<Turn> {
    turns.sort_unstable_by(|a, b| a.level.total_cmp(&b.level));
    let together = together(turns.len());
    let one = |turns: &[Turn]| {
        let weight: f64 = turns.iter().map(|turn| turn.weight).sum();
        let level = turns.iter().map(|turn| turn.level * turn.weight).sum::<f64>() / weight;
        Turn { level, weight }
    };
    turns.chunks(together).map(one).collect()
}

/// How many of so many turns are told as one.
fn together(turns: usize) -> usize {
    if turns <= MOST_TURNS { 1 } else { turns.div_ceil(FEW_TURNS) }
}

#[cfg(test)]
mod tests;

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
/// percent, and all together by a thousandth; with half as many it would be four times that, with twice as many a quarter, at twice the
/// bytes from every node (`cargo xtask bench scale`).
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::share;

    fn tps(n: f64) -> Tps {
        Tps::try_new(n).expect("valid")
    }

    fn need(cap: f64, reading: f64, lead: f64) -> Need {
        Need { cap, reading: tps(reading), lead, ahead: 5.0 }
    }

    fn any_need() -> impl Strategy<Value = Option<Need>> {
        let parts = (0.0..100.0, 1.0..50.0, 0.0..20.0);
        prop::option::of(parts.prop_map(|(cap, reading, lead)| need(cap, reading, lead)))
    }

    /// What all streams of all hosts have, when each host has told the others no more than its demand.
    fn rates(capacity: f64, hosts: &[Vec<Option<Need>>]) -> Vec<Vec<f64>> {
        let demands: Vec<Demand> = hosts.iter().map(|needs| Demand::of(needs)).collect();
        let level = fleet_level(tps(capacity), &demands);
        let plan = |needs: &Vec<_>| Share::default().plan(Some(level), tps(capacity), needs).1;
        hosts.iter().map(plan).collect()
    }

    fn asking(hosts: &[Vec<Option<Need>>]) -> Vec<Need> {
        hosts.iter().flatten().flatten().copied().collect()
    }

    #[test]
    fn hosts_that_agree_on_a_level_share_as_one_host_would() {
        let hosts = [
            vec![Some(need(80.0, 10.0, 0.0)), Some(need(80.0, 10.0, 2.0)), None],
            vec![Some(need(5.0, 10.0, 0.0))],
            vec![],
        ];
        let shared = rates(45.0, &hosts);
        let alone = share(tps(45.0), &asking(&hosts));
        assert_eq!(shared[0][2], f64::INFINITY);
        let finite = shared.iter().flatten().filter(|rate| rate.is_finite());
        for (shared, alone) in finite.zip(&alone) {
            assert!((shared - alone).abs() < 1e-9, "{shared} {alone}");
        }
    }

    #[test]
    fn a_host_that_hears_nothing_keeps_to_what_it_had() {
        let needs = vec![Some(need(80.0, 10.0, 0.0)); 3];
        let demands = [Demand::of(&needs), Demand::of(&vec![Some(need(80.0, 10.0, 0.0)); 6])];
        let level = fleet_level(tps(90.0), &demands);
        let mut share = Share::default();
        let sum = |rates: &[f64]| rates.iter().sum::<f64>();
        // Before anything was heard it has the engine for itself.
        assert!((sum(&share.plan(None, tps(90.0), &needs).1) - 90.0).abs() < 1e-9);
        assert!((sum(&share.plan(Some(level), tps(90.0), &needs).1) - 30.0).abs() < 1e-9);
        let (load, rates) = share.plan(None, tps(90.0), &needs);
        assert!(load == Load::Idle && (sum(&rates) - 30.0).abs() < 1e-9, "{rates:?}");
        // With one stream less the others have its part.
        let (_, rates) = share.plan(None, tps(90.0), &needs[1..]);
        assert!((rates[0] - 15.0).abs() < 1e-9, "{rates:?}");
    }

    #[test]
    fn what_is_kept_is_what_was_had_on_average() {
        // Each host's lead is a token more or less, as it comes; the leader's word is about what each said before.
        let leads = [[0.0, 0.05, 0.1], [0.1, 0.0, 0.05]];
        let needs = |host: usize, at: usize| vec![Some(need(80.0, 20.0, leads[host][at % 3])); 2];
        let mut shares = [Share::default(); 2];
        for tick in 0..200 {
            // Every third, so that words always find the same.
            let word = tick / 3 * 3;
            let demands = [Demand::of(&needs(0, word)), Demand::of(&needs(1, word))];
            let level = Level { number: word as u64, ..fleet_level(tps(60.0), &demands) };
            for (host, share) in shares.iter_mut().enumerate() {
                share.plan(Some(level), tps(60.0), &needs(host, tick));
            }
        }
        let kept: Vec<f64> = (0..2)
            .map(|host| shares[host].plan(None, tps(60.0), &needs(host, 0)).1.iter().sum())
            .collect();
        assert!(kept.iter().all(|kept| (kept / 30.0 - 1.0).abs() < 0.02), "{kept:?}");
        assert!(kept.iter().sum::<f64>() <= 60.0 * 1.01, "{kept:?}");
    }

    #[test]
    fn what_was_had_before_others_came_is_not_kept() {
        let streams = |count| vec![Some(need(80.0, 20.0, 0.0)); count];
        let (capacity, mut first, mut second) = (tps(60.0), Share::default(), Share::default());
        let alone = fleet_level(capacity, &[Demand::of(&streams(1))]);
        (0..100).for_each(|_| drop(first.plan(Some(alone), capacity, &streams(1))));
        // Another comes, and the bus goes at once.
        let demands = [Demand::of(&streams(1)), Demand::of(&streams(3))];
        let level = Level { number: 1, ..fleet_level(capacity, &demands) };
        first.plan(Some(level), capacity, &streams(1));
        second.plan(Some(level), capacity, &streams(3));
        let kept = [(&mut first, 1, 15.0), (&mut second, 3, 45.0)];
        for (share, count, part) in kept {
            let sum: f64 = share.plan(None, capacity, &streams(count)).1.iter().sum();
            assert!((sum - part).abs() < 1e-9, "{sum} of {part}");
        }
    }

    #[test]
    fn what_nobody_asks_for_is_every_host_s_alike() {
        let demand = Demand::of(&[Some(need(10.0, 10.0, 5.0))]);
        let level = fleet_level(tps(100.0), &[demand.clone(), demand]);
        assert_eq!((level.level, level.load, level.spare), (f64::INFINITY, Load::Idle, 40.0));
        let mut share = Share::default();
        let had = vec![Some(need(10.0, 10.0, 5.0))];
        assert_eq!(share.plan(Some(level), tps(100.0), &had).1, [10.0]);
        // Those who come before the leader's next word share what is left with those who are there, and so do those who come when
        // nothing is heard.
        let came = vec![Some(need(80.0, 10.0, 0.0)); 10];
        for level in [Some(level), None] {
            let sum: f64 = share.plan(level, tps(100.0), &came).1.iter().sum();
            assert!((sum - 50.0).abs() < 1e-9, "{sum}");
        }
        let next = Level { number: 1, ..level };
        let sum: f64 = share.plan(Some(next), tps(100.0), &came).1.iter().sum();
        assert!((sum - 100.0).abs() < 1e-9, "no more than the engine generates: {sum}");
    }

    #[test]
    fn a_host_that_had_nothing_to_ask_for_has_an_even_part_while_nothing_is_heard() {
        let busy = Demand::of(&vec![Some(need(80.0, 10.0, 0.0)); 6]);
        let level = fleet_level(tps(60.0), &[Demand::default(), busy]);
        assert!(level.level.is_finite() && level.spare == 0.0);
        let mut share = Share::default();
        share.plan(Some(level), tps(60.0), &[None]);
        let (_, rates) = share.plan(None, tps(60.0), &[Some(need(80.0, 10.0, 0.0))]);
        assert_eq!(rates, [30.0]);
    }

    #[test]
    fn what_no_host_says_is_refused() {
        let turn = |level, weight| Turn { level, weight };
        let check = |turns: Vec<Turn>, reading, told: &str| {
            let error = Demand::try_new(turns, reading, 1).expect_err("no demand").to_string();
            assert!(error.contains(told), "{error}");
        };
        check(vec![turn(f64::NAN, 1.0)], 1.0, "level NaN");
        check(vec![turn(-1.0, 1.0)], 1.0, "level -1");
        check(vec![turn(1.0, f64::INFINITY)], 1.0, "by inf");
        check(vec![turn(1.0, 1.0), turn(2.0, -2.0)], 1.0, "not to -1");
        check(vec![turn(1.0, 0.0); 257], 1.0, "257 turns");
        check(Vec::new(), -1.0, "-1 tokens/s");
        let demand = Demand::try_new(vec![turn(2.0, -3.0), turn(1.0, 3.0)], 1.0, 1).expect("one");
        assert_eq!((demand.at(1.5), demand.cap()), (1.5, 3.0));
    }

    proptest! {
        #[test]
        fn a_fleet_shares_as_one_host_would(
            hosts in prop::collection::vec(prop::collection::vec(any_need(), 0..100), 1..5),
            capacity in 1.0..2000.0,
        ) {
            let shared = rates(capacity, &hosts);
            let finite: Vec<f64> =
                shared.iter().flatten().copied().filter(|rate| rate.is_finite()).collect();
            let sum: f64 = finite.iter().sum();
            prop_assert!(sum <= capacity * (1.0 + 1e-9), "{sum} of {capacity}");
            let alone = share(tps(capacity), &asking(&hosts));
            for (shared, alone) in finite.iter().zip(&alone) {
                prop_assert!((shared - alone).abs() <= 1e-6 * capacity, "{shared} {alone}");
            }
        }

        #[test]
        fn a_demand_of_many_streams_is_small_and_nearly_theirs(
            needs in prop::collection::vec(any_need(), 0..3000),
            level in 0.0..100.0,
        ) {
            let demand = Demand::of(&needs);
            prop_assert!(demand.turns().len() <= 2 * MOST_TURNS);
            let claims: Vec<_> = needs.iter().flatten().map(claim).collect();
            let caps: f64 = claims.iter().map(|claim| claim.cap()).sum();
            prop_assert!((demand.cap() - caps).abs() <= 1e-6 * (caps + 1.0), "{caps}");
            let alone: f64 = claims.iter().map(|claim| claim.at(level)).sum();
            // Only among those that are told as one does it differ: by a quarter of their distance, for all their weight.
            let among = |kind: usize| {
                let turns = claims.iter().filter(|claim| claim.cap() > 0.0);
                let mut turns: Vec<(f64, f64)> = turns.map(|claim| claim.turns()[kind]).collect();
                turns.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
                let together = together(turns.len());
                let apart = |turns: &[(f64, f64)]| {
                    let (least, most) = (turns[0].0, turns[turns.len() - 1].0);
                    let weight: f64 = turns.iter().map(|(_, weight)| weight.abs()).sum();
                    if least < level && level < most { weight * (most - least) / 4.0 } else { 0.0 }
                };
                turns.chunks(together).map(apart).sum::<f64>()
            };
            let near = among(0) + among(1) + 1e-6 * (caps + 1.0);
            prop_assert!((demand.at(level) - alone).abs() <= near, "{} {alone}", demand.at(level));
            let again = Demand::try_new(demand.turns().to_vec(), demand.reading(), demand.streams());
            let again = again.expect("a demand");
            prop_assert_eq!(again.turns(), demand.turns());
        }
    }
}

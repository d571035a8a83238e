//! A scenario in the time there is, and clients among its groups.

use std::time::Duration;

use super::{Portion, Scenario};

/// The shortest phase, as in a file: what is sampled twice a second shows nothing of a shorter one.
const SHORTEST: Duration = Duration::from_millis(500);

/// The longest run: beyond a day nobody watches.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A duration that a scenario cannot be made to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} cannot take {asked:?}: give {least:?} to {LONGEST:?}, so that every phase has {SHORTEST:?}"
)]
pub struct InvalidDuration {
    name: String,
    asked: Duration,
    least: Duration,
}

/// Clients that do not fit a scenario's groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDivision {
    /// The groups with a count need more.
    #[error(
        "{clients} clients are fewer than the {counted} that the groups count: give at least so many"
    )]
    TooFew {
        /// As given.
        clients: usize,
        /// The sum of the counts.
        counted: usize,
    },
    /// All groups have counts, and some clients are in none.
    #[error(
        "{clients} clients are more than the {counted} that the groups count: give so many, or a group a share"
    )]
    TooMany {
        /// As given.
        clients: usize,
        /// The sum of the counts.
        counted: usize,
    },
}

impl Scenario {
    /// The same in `total`: repeated as often as brings it nearest, and then stretched or shortened, all phases alike.
    pub fn fit(&self, total: Duration) -> Result<Self, InvalidDuration> {
        let natural = self.duration();
        let shortest = self.phases.iter().map(|phase| phase.duration).min().unwrap_or(natural);
        let least = SHORTEST.mul_f64(natural.as_secs_f64() / shortest.as_secs_f64());
        if total < least || total > LONGEST {
            return Err(InvalidDuration { name: self.name.clone(), asked: total, least });
        }
        let nearest = (total.as_secs_f64() / natural.as_secs_f64()).round();
        // With more rounds than this the shortest phase would be too short.
        let most = (total.as_secs_f64() / least.as_secs_f64()).floor();
        let rounds = nearest.min(most).max(1.0) as u32;
        let all = natural.as_nanos() * u128::from(rounds);
        let mut fitted = Self { phases: Vec::new(), groups: self.groups.clone(), ..self.clone() };
        let (mut natural_end, mut start) = (0, Duration::ZERO);
        for phase in (0..rounds).flat_map(|_| &self.phases) {
            natural_end += phase.duration.as_nanos();
            // From the beginning each time, so that roundings do not add up.
            let end = total.as_nanos() * natural_end / all;
            let end = Duration::from_nanos(end as u64);
            fitted.phases.push(super::Phase { duration: end - start, ..phase.clone() });
            start = end;
        }
        for group in &mut fitted.groups {
            group.links = vec![group.links.clone(); rounds as usize].concat();
        }
        Ok(fitted)
    }

    /// How many of `clients` are of each group, in the order of the groups: first those with a count, and of the rest each
    /// group with a share as near to it as whole clients allow (largest remainders).
    pub fn divide(&self, clients: usize) -> Result<Vec<usize>, InvalidDivision> {
        let counts = self.groups.iter().map(|group| match group.portion {
            Portion::Count(count) => (count, 0.0),
            Portion::Share(share) => (0, share),
        });
        let (mut numbers, shares): (Vec<usize>, Vec<f64>) = counts.unzip();
        let counted = numbers.iter().fold(0, |sum: usize, count| sum.saturating_add(*count));
        let all: f64 = shares.iter().sum();
        let rest =
            clients.checked_sub(counted).ok_or(InvalidDivision::TooFew { clients, counted })?;
        if rest > 0 && all == 0.0 {
            return Err(InvalidDivision::TooMany { clients, counted });
        }
        let exact: Vec<f64> = shares.iter().map(|share| rest as f64 * share / all).collect();
        let mut order: Vec<usize> =
            (0..shares.len()).filter(|&group| shares[group] > 0.0).collect();
        let mut left = rest;
        for &group in &order {
            numbers[group] = exact[group] as usize;
            left = left.saturating_sub(numbers[group]);
        }
        order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
        for &group in order.iter().take(left) {
            numbers[group] += 1;
        }
        Ok(numbers)
    }
}

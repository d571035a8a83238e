//! How much of a difference between two arms is chance: a confidence interval by resampling their answers.
//!
//! B. Efron and R. J. Tibshirani, *An Introduction to the Bootstrap* (1993): the two-sample problem of chapter 8, resampling each
//! sample by itself, and the percentile interval of chapter 13. It assumes no distribution, which nobody has for stalls.
//!
//! | theirs | ours | why |
//! | --- | --- | --- |
//! | observations are independent | answers of a client share its link | so the interval is rather too narrow than too wide |
//! | every observation is drawn by itself | of more than [`MOST`] they are drawn in groups | the same variance in bounded time |
//!
//! Pure: the same answers and seed give the same interval.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::Serialize;

/// Resamples: 1000 are what Efron and Tibshirani (§13.3) ask of a percentile interval; more make its ends steadier.
pub(super) const RESAMPLES: usize = 2000;

/// Observations that are drawn one by one; 2000 draws of them for each arm take some 20 ms.
const MOST: usize = 2000;

/// What an answer contributes to the figures that are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) generated: f64,
    pub(crate) wasted: f64,
    /// Seconds from the first token on, and those in gaps.
    pub(crate) reading: f64,
    pub(crate) waiting: f64,
    pub(crate) qoe: Option<f64>,
}

/// Part of a whole: a figure of an arm is the sum of the parts by the sum of the wholes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) part: f64,
    pub(crate) whole: f64,
}

/// Where the difference lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// Whether it could be that there is no difference.
    pub(crate) fn has_zero(self) -> bool {
        self.low <= 0.0 && 0.0 <= self.high
    }
}

/// The interval of `ours` less `theirs`; `None` where one of them has nothing to judge.
pub(crate) fn difference(ours: &[Share], theirs: &[Share], seed: u64) -> Option<Interval> {
    let (ours, theirs) = (grouped(ours), grouped(theirs));
    ratio(ours.iter().copied())?;
    ratio(theirs.iter().copied())?;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut draw = |from: &[Share]| {
        // The upper half of the product is uniform but for one part in 2⁵³.
        let mut index = || ((u128::from(random.next_u64()) * from.len() as u128) >> 64) as usize;
        ratio((0..from.len()).map(|_| from[index()]))
    };
    let mut differences: Vec<f64> =
        (0..RESAMPLES).filter_map(|_| Some(draw(&ours)? - draw(&theirs)?)).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let quantile = |share| netdiag_health::quantile_of_sorted(&differences, share);
    Some(Interval { low: quantile(0.025)?, high: quantile(0.975)? })
}

fn ratio(shares: impl Iterator<Item = Share>) -> Option<f64> {
    let sum = shares.fold(Share::default(), add);
    (sum.whole > 0.0).then(|| sum.part / sum.whole)
}

fn add(a: Share, b: Share) -> Share {
    Share { part: a.part + b.part, whole: a.whole + b.whole }
}

/// At most [`MOST`] observations, each the sum of as many answers as all others but one.
fn grouped(shares: &[Share]) -> Vec<Share> {
    let mut groups = vec![Share::default(); shares.len().min(MOST)];
    for (number, share) in shares.iter().enumerate() {
        let group = &mut groups[number % shares.len().min(MOST)];
        *group = add(*group, *share);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(parts: impl IntoIterator<Item = f64>) -> Vec<Share> {
        parts.into_iter().map(|part| Share { part, whole: 1.0 }).collect()
    }

    /// So many of a hundred are 1.
    fn ones(count: usize) -> Vec<Share> {
        shares((0..100).map(|number| f64::from(u8::from(number < count))))
    }

    #[test]
    fn the_interval_is_that_of_the_normal_approximation() {
        // Two proportions: 0.3 - 0.5 ± 1.96 √(0.3·0.7/100 + 0.5·0.5/100) = -0.333 to -0.067.
        let interval = difference(&ones(30), &ones(50), 1).expect("an interval");
        assert!((interval.low + 0.333).abs() < 0.02, "{interval:?}");
        assert!((interval.high + 0.067).abs() < 0.02, "{interval:?}");
        assert!(!interval.has_zero());
        assert_eq!(difference(&ones(30), &ones(50), 1), Some(interval));
    }

    #[test]
    fn a_single_reader_who_left_shows_nothing() {
        assert!(difference(&ones(0), &ones(1), 1).expect("an interval").has_zero());
        assert!(difference(&ones(2), &ones(0), 1).expect("an interval").has_zero());
        assert!(!difference(&ones(0), &ones(20), 1).expect("an interval").has_zero());
    }

    #[test]
    fn arms_that_are_the_same_are_rarely_told_apart() {
        // Answers drawn from one distribution, a hundred experiments: five are expected to differ.
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut uniform = || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let mut arm = || shares((0..80).map(|_| uniform().powi(4)).collect::<Vec<_>>());
        let differing = (0..100)
            .filter(|&seed| !difference(&arm(), &arm(), seed).expect("an interval").has_zero())
            .count();
        assert!(differing <= 12, "{differing} of 100");
    }

    #[test]
    fn many_answers_are_drawn_in_groups_of_the_same_sum() {
        let many = shares((0..5001).map(f64::from));
        let groups = grouped(&many);
        assert_eq!(groups.len(), MOST);
        assert_eq!(ratio(groups.into_iter()), ratio(many.into_iter()));
        assert_eq!(difference(&[], &ones(3), 1), None);
    }
}

//! Reaction times: how long after something happened somebody acted on it.

use std::time::Duration;

/// For each of `causes` the time to the first of `reactions` at or after it and before the next cause; `None` where
/// there was none. Both ascending.
///
/// A reaction that comes after the next cause may belong to that one, so it does not count: a reaction too late shows as
/// missing, not as fast.
pub fn reaction_times(causes: &[Duration], reactions: &[Duration]) -> Vec<Option<Duration>> {
    let ends = causes.iter().skip(1).copied().chain([Duration::MAX]);
    let times = causes.iter().zip(ends).map(|(&cause, end)| {
        let first = reactions.partition_point(|&reaction| reaction < cause);
        let reaction = *reactions.get(first).filter(|&&reaction| reaction < end)?;
        Some(reaction - cause)
    });
    times.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_reaction() {
        let ms = |times: &[u64]| -> Vec<_> {
            times.iter().copied().map(Duration::from_millis).collect()
        };
        let check = |causes: &[u64], reactions: &[u64], expected: &[Option<u64>]| {
            let expected: Vec<_> =
                expected.iter().map(|time| time.map(Duration::from_millis)).collect();
            assert_eq!(reaction_times(&ms(causes), &ms(reactions)), expected);
        };
        check(&[], &[5], &[]);
        check(&[10], &[], &[None]);
        check(&[10], &[9, 10, 11], &[Some(0)]);
        check(&[10, 20, 30], &[12, 33], &[Some(2), None, Some(3)]);
        check(&[10, 20], &[20], &[None, Some(0)]);
    }
}

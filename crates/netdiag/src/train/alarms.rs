//! The anomaly light against labels: which bad episodes it found and how soon, and how often it came on for nothing.
//!
//! An episode is a run of rows labelled bad. The light sees the last three seconds, so it may come on that much after an episode
//! and still be right; nothing else is forgiven: a light that comes on before an episode is a false alarm, even if it then
//! stays on. Invariant: each time the light comes on belongs to an episode or is a false alarm, never both.

use std::ops::Range;
use std::time::Duration;

use netdiag_health::quantile_of_sorted;
use serde::Serialize;

/// How long after an episode the light may come on for it: what the features call recent.
const LATE: Duration = Duration::from_secs(3);

/// What the light found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Alarms {
    /// Runs of rows labelled 1.
    pub(crate) episodes: usize,
    /// Episodes during which, or within three seconds after which, the light was on.
    pub(crate) found: usize,
    /// The same as a share, 0..=1; `None` without episodes.
    pub(crate) found_share: Option<f64>,
    /// From the first row of a found episode to the first with the light on, seconds, median; 0 if it was on already.
    pub(crate) median_delay_seconds: Option<f64>,
    /// Times that the light came on outside episodes; not that it was on as the part began.
    pub(crate) false_alarms: usize,
    /// The same per hour of the part; `None` of a part without rows outside episodes.
    pub(crate) false_alarms_per_hour: Option<f64>,
    /// Share of the rows outside episodes with the light on, 0..=1; `None` without such rows.
    pub(crate) lit_outside_share: Option<f64>,
}

impl Alarms {
    /// Of rows that ended at these times (ascending, from the beginning of the part), whether each is labelled bad, and whether
    /// the light was on after it.
    pub(super) fn of(ends: &[Duration], bad: &[bool], light: &[bool]) -> Self {
        let episodes = episodes(ends, bad);
        let delay = |episode: &Range<usize>| {
            let lit = episode.clone().find(|&row| light[row])?;
            Some((ends[lit] - ends[episode.start]).as_secs_f64())
        };
        let mut delays: Vec<f64> = episodes.iter().filter_map(delay).collect();
        delays.sort_by(f64::total_cmp);
        let mut outside = vec![true; bad.len()];
        episodes.iter().for_each(|episode| outside[episode.clone()].fill(false));
        let comes_on = |row: &usize| light[*row] && *row > 0 && !light[*row - 1];
        let rows = || (0..light.len()).filter(|&row| outside[row]);
        let false_alarms = rows().filter(comes_on).count();
        let hours = ends.last().map_or(0.0, |end| end.as_secs_f64() / 3600.0);
        let share = |part: usize, all: usize| (all > 0).then(|| part as f64 / all as f64);
        Self {
            episodes: episodes.len(),
            found: delays.len(),
            found_share: share(delays.len(), episodes.len()),
            median_delay_seconds: quantile_of_sorted(&delays, 0.5),
            false_alarms,
            false_alarms_per_hour: (hours > 0.0 && rows().count() > 0)
                .then(|| false_alarms as f64 / hours),
            lit_outside_share: share(rows().filter(|&row| light[row]).count(), rows().count()),
        }
    }
}

/// The rows of each run of bad ones and the time after it in which the light may still come on for it, up to the next run.
fn episodes(ends: &[Duration], bad: &[bool]) -> Vec<Range<usize>> {
    let mut episodes: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    for run in bad.chunk_by(|a, b| a == b) {
        let next = first + run.len();
        if run[0] {
            episodes.push(first..next);
        } else if let Some(episode) = episodes.last_mut() {
            let last = ends[episode.end - 1].saturating_add(LATE);
            episode.end = ends[..next].partition_point(|&end| end <= last).max(episode.end);
        }
        first = next;
    }
    episodes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a second each, written as digits: `1` where it is bad, or lit.
    fn check(bad: &str, light: &str, expected: (usize, usize, Option<f64>, usize)) {
        let flags = |text: &str| text.bytes().map(|byte| byte == b'1').collect::<Vec<_>>();
        let ends: Vec<Duration> = (1..=bad.len() as u64).map(Duration::from_secs).collect();
        let found = Alarms::of(&ends, &flags(bad), &flags(light));
        let seen = (found.episodes, found.found, found.median_delay_seconds, found.false_alarms);
        assert_eq!(seen, expected, "{bad} {light}");
    }

    #[test]
    fn episodes_are_found_and_false_alarms_counted() {
        check("0000000000", "0000000000", (0, 0, None, 0));
        check("0011110000", "0000111000", (1, 1, Some(2.0), 0));
        // On before it, and on already: that is luck, and it is told as what it is.
        check("0011110000", "0111111000", (1, 1, Some(0.0), 1));
        // Three seconds late, and four.
        check("0010000000", "0000010000", (1, 1, Some(3.0), 0));
        check("0010000000", "0000001000", (1, 0, None, 1));
        // The light's lateness for one episode ends where the next begins.
        check("0100100000", "0000110000", (2, 1, Some(0.0), 0));
        check("0110000110", "0011000001", (2, 2, Some(1.5), 0));
        check("1111111111", "0000000000", (1, 0, None, 0));
        // What began before the part is for the part before to tell.
        check("0000011111", "1100000111", (1, 1, Some(2.0), 0));
        check("", "", (0, 0, None, 0));
    }

    #[test]
    fn rates_are_per_hour_and_per_row() {
        let ends: Vec<Duration> = (1..=100).map(|row| Duration::from_secs(36 * row)).collect();
        let bad: Vec<bool> = (0..100).map(|row| row < 20).collect();
        let light: Vec<bool> = (0..100).map(|row| row % 10 == 5).collect();
        let found = Alarms::of(&ends, &bad, &light);
        assert_eq!((found.found_share, found.false_alarms), (Some(1.0), 8));
        let per_hour = found.false_alarms_per_hour.expect("an hour");
        assert!((per_hour - 8.0).abs() < 1e-9);
        let nothing = Alarms::of(&ends, &[true; 100], &light);
        assert_eq!((nothing.false_alarms_per_hour, nothing.lit_outside_share), (None, None));
        assert_eq!(found.lit_outside_share, Some(0.1));
    }
}

//! The newest hint of each scope that was heard, and which of them nobody has looked at yet.
//!
//! Hints are ordered by what their node counts, not by clocks: those of two hosts never agree, and either may jump. Only for how long one
//! holds is measured, by our own clock from when it came.
//!
//! Invariants: one hint per key, the newest; no more than [`MOST`] keys; each untaken key once.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::message::NodeHint;

/// Most scopes remembered, some half a kilobyte each.
const MOST: usize = 200_000;

/// So few keys are not worth looking through.
const FEW: usize = 1000;

/// Least time from one look for those that have lapsed to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// How long what has lapsed is remembered, so that it is shown as gone before it is no more.
const REMEMBERED: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Latest {
    hints: HashMap<String, Heard>,
    untaken: VecDeque<String>,
    /// With so many keys it is time to look for those that have lapsed.
    sweep_at: usize,
    /// When that was done last.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Heard {
    hint: NodeHint,
    /// When it lapses.
    until: Instant,
    is_untaken: bool,
}

impl Latest {
    /// Takes in a hint at `now` that was said `age` ago; whether it is news.
    pub(crate) fn hear(&mut self, key: &str, hint: NodeHint, age: Duration, now: Instant) -> bool {
        let until = now + hint.ttl().saturating_sub(age);
        match self.hints.get_mut(key) {
            // What has lapsed is replaced by whatever comes: its node may have been restarted with its clock set back.
            Some(heard) if !hint.is_after(&heard.hint) && heard.until > now => return false,
            Some(heard) => {
                (heard.hint, heard.until) = (hint, until);
                if !std::mem::replace(&mut heard.is_untaken, true) {
                    self.untaken.push_back(key.to_owned());
                }
            }
            None => {
                // Where nothing has lapsed, looking again for each that comes would be all that is done.
                let is_due = |swept| now.saturating_duration_since(swept) >= PAUSE;
                if self.hints.len() >= self.sweep_at && self.swept.is_none_or(is_due) {
                    self.sweep(now);
                }
                if self.hints.len() >= MOST {
                    return false;
                }
                self.hints.insert(key.to_owned(), Heard { hint, until, is_untaken: true });
                self.untaken.push_back(key.to_owned());
            }
        }
        true
    }

    /// The newest hint of the scope that has waited longest to be looked at, with how long it still holds.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(NodeHint, Duration)> {
        while let Some(key) = self.untaken.pop_front() {
            if let Some(heard) = self.hints.get_mut(&key) {
                heard.is_untaken = false;
                return Some((heard.hint.clone(), heard.until.saturating_duration_since(now)));
            }
        }
        None
    }

    /// All that are remembered, each with how long it still holds (nothing: it has lapsed).
    pub(crate) fn all(&mut self, now: Instant) -> Vec<(NodeHint, Duration)> {
        self.sweep(now);
        let all = self.hints.values();
        all.map(|heard| (heard.hint.clone(), heard.until.saturating_duration_since(now))).collect()
    }

    fn sweep(&mut self, now: Instant) {
        let hints = &mut self.hints;
        hints.retain(|_, heard| heard.until + REMEMBERED > now);
        self.untaken.retain(|key| hints.contains_key(key));
        self.swept = Some(now);
        self.sweep_at = (2 * hints.len()).clamp(FEW, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::message;
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_newest_wins_and_a_restart_is_newer() {
        let now = Instant::now();
        let mut latest = Latest::default();
        let mut hear = |session, sequence, at: Duration| {
            latest.hear("n1.host", message("n1", session, sequence), Duration::ZERO, now + at)
        };
        assert!(hear(7, 1, Duration::ZERO));
        assert!(hear(7, 3, Duration::ZERO));
        assert!(!hear(7, 2, Duration::ZERO) && !hear(7, 3, Duration::ZERO));
        assert!(hear(8, 1, Duration::ZERO));
        // Its clock was set back before it was restarted: it is believed once the others have lapsed, after two seconds.
        assert!(!hear(2, 1, SOON));
        assert!(hear(2, 1, 2 * SOON));
        let (heard, holds) = latest.take(now + 3 * SOON).expect("untaken");
        assert_eq!((heard.session, holds), (2, SOON));
        assert!(latest.take(now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_has_taken_is_replaced() {
        let now = Instant::now();
        let mut latest = Latest::default();
        for sequence in 1..=100 {
            for node in ["n1", "n2"] {
                latest.hear(node, message(node, 7, sequence), Duration::ZERO, now);
            }
        }
        let taken: Vec<u64> =
            std::iter::from_fn(|| latest.take(now)).map(|(hint, _)| hint.sequence).collect();
        assert_eq!(taken, [100, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_lapsed_is_shown_for_a_while_and_then_gone() {
        let now = Instant::now();
        let mut latest = Latest::default();
        // It was said a second and a half ago.
        latest.hear("n1.host", message("n1", 7, 1), Duration::from_millis(1500), now);
        let mut holds = |at: Duration| latest.all(now + at).first().map(|(_, holds)| *holds);
        assert_eq!(holds(Duration::ZERO), Some(Duration::from_millis(500)));
        assert_eq!(holds(SOON), Some(Duration::ZERO));
        assert_eq!(holds(REMEMBERED + SOON), None);
        assert!(latest.take(now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn scopes_that_come_and_go_leave_nothing_behind() {
        let now = Instant::now();
        let mut latest = Latest::default();
        for second in 0..10_000 {
            let at = now + Duration::from_secs(second);
            for stream in 0..10 {
                let key = format!("n1.stream.{second}_{stream}");
                latest.hear(&key, message("n1", 7, second), Duration::ZERO, at);
            }
        }
        let (remembered, untaken) = (latest.hints.len(), latest.untaken.len());
        assert!(remembered <= 2000 && untaken <= remembered, "{remembered} {untaken}");
    }
}

//! One request within the scheduler, and whether it is its turn.

use std::num::NonZeroU32;
use std::time::Duration;

use netdiag_pacer::TokenBucket;

use super::Phase;

/// What a request that is not due waits at least: less than this is rounding, and a wait of nothing would never end.
const SHORTEST_WAIT: Duration = Duration::from_micros(1);

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) prompt_left: u32,
    pub(super) generated: u32,
    pub(super) output: NonZeroU32,
    pub(super) kv_tokens: u64,
    pub(super) phase: Phase,
    pub(super) paused: bool,
    pub(super) hold: bool,
    pub(super) bucket: Option<TokenBucket>,
}

/// Whether a request can be in a step.
pub(super) enum Turn {
    /// Yes, working off so many prompt tokens.
    Member(u32),
    /// No, and time alone will not change it.
    Never,
    /// Not before this time.
    NotBefore(Duration),
}

impl Request {
    pub(super) fn is_stopped(&self) -> bool {
        self.paused || self.hold
    }

    pub(super) fn turn(&mut self, now: Duration, prompt_budget: u32) -> Turn {
        if self.is_stopped() {
            return Turn::Never;
        }
        if self.prompt_left > 0 {
            // A rate is about tokens, and the first has none before it.
            let prompt = self.prompt_left.min(prompt_budget);
            return if prompt > 0 { Turn::Member(prompt) } else { Turn::Never };
        }
        match self.bucket.as_mut().map(|bucket| bucket.take(now, 1)) {
            Some(Err(wait)) => Turn::NotBefore(now.saturating_add(wait.max(SHORTEST_WAIT))),
            Some(Ok(())) | None => Turn::Member(0),
        }
    }
}

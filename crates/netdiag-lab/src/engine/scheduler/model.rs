//! What kind of machine the engine pretends to be.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// How fast the engine is and how much fits into it. The default is invented, of the order of a model of some ten billion
/// parameters on one data-centre GPU: 25 ms a step with all seats taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Requests that can be in one step.
    pub seats: NonZeroUsize,
    /// Time of a step, whoever is in it.
    pub step: Duration,
    /// More time for each member.
    pub step_per_seat: Duration,
    /// More time for each prompt token worked off.
    pub step_per_prompt_token: Duration,
    /// Prompt tokens worked off in one step.
    pub prompt_chunk: NonZeroU32,
    /// Tokens of prompts and answers that fit into the KV cache.
    pub kv_tokens: u64,
    /// Requests that may wait for a seat.
    pub queue: usize,
}

impl Default for Model {
    fn default() -> Self {
        const SEATS: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
        const PROMPT_CHUNK: NonZeroU32 = NonZeroU32::new(512).expect("not zero");
        Self {
            seats: SEATS,
            step: Duration::from_micros(20_200),
            step_per_seat: Duration::from_micros(150),
            step_per_prompt_token: Duration::from_micros(50),
            prompt_chunk: PROMPT_CHUNK,
            kv_tokens: 1 << 18,
            queue: 256,
        }
    }
}

/// The longest step: beyond an hour a stream is a stall, and times stay far from where clocks overflow.
const LONGEST_STEP: Duration = Duration::from_secs(3600);

/// A model that cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidModel {
    /// Steps without an end.
    #[error(
        "an engine whose steps take no time would generate everything at once: make `step` longer than zero"
    )]
    Instant,
    /// Steps that nobody waits for.
    #[error(
        "a step with all seats taken and a whole chunk of prompt takes {0:?}, above {LONGEST_STEP:?}: shorten `step`, \
         `step_per_seat` or `step_per_prompt_token`"
    )]
    Slow(Duration),
}

impl Model {
    pub(super) fn check(&self) -> Result<(), InvalidModel> {
        if self.step.is_zero() {
            return Err(InvalidModel::Instant);
        }
        let seats = u32::try_from(self.seats.get()).unwrap_or(u32::MAX);
        let longest = self.time_of_step(seats, self.prompt_chunk.get());
        if longest > LONGEST_STEP { Err(InvalidModel::Slow(longest)) } else { Ok(()) }
    }

    /// Time of a step with so many members that works off so many prompt tokens.
    pub(super) fn time_of_step(&self, members: u32, prompt_tokens: u32) -> Duration {
        self.step
            .saturating_add(self.step_per_seat.saturating_mul(members))
            .saturating_add(self.step_per_prompt_token.saturating_mul(prompt_tokens))
    }
}

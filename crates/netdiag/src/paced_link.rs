//! One scope's way from telemetry to a hint: health judges the link, the pacer follows health.
//!
//! The two know nothing of each other; this is where what one says becomes what the other sees.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use netdiag_health::{Health, Model, TrainingSet};
use netdiag_pacer::{Classic, Hint, Judgement, TpsRange};
use netdiag_telemetry::{LinkSample, Scope};

/// Room for a reason. There is one per connection and interval, and to grow it is what costs most in writing it.
const REASON: usize = 96;

/// The memory of one scope.
#[derive(Clone, Debug)]
pub(crate) struct PacedLink {
    health: Health,
    pacer: Classic,
}

/// What a sample does not say of an interval: who waits, and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Share of the flows with something to deliver that stall, 0..=1.
    pub(crate) stalled: f64,
    /// Every open flow stalls.
    pub(crate) hold: bool,
    /// The reader's window held back what waits.
    pub(crate) reader_limited: bool,
}

impl Waiting {
    /// As far as the sample tells: readers are not in it.
    pub(crate) fn in_sample(sample: &LinkSample) -> Self {
        let stalled = netdiag_health::Observation::from(sample).stalled;
        Self { stalled, hold: stalled >= 1.0, reader_limited: false }
    }
}

impl PacedLink {
    /// A link of which nothing is known.
    pub(crate) fn new(health: Health, range: TpsRange) -> Self {
        Self { health, pacer: Classic::new(range) }
    }

    /// Takes in an interval that lasted `elapsed`.
    pub(crate) fn observe(&mut self, sample: &LinkSample, waiting: Waiting, elapsed: Duration) {
        let Waiting { stalled, hold, reader_limited } = waiting;
        let seen = netdiag_health::Observation { stalled, ..sample.into() };
        let judged = self.health.observe(&seen, elapsed);
        let mut reason = String::with_capacity(REASON);
        // Writing to a String cannot fail.
        let _ = write!(reason, "{judged}");
        let seen = netdiag_pacer::Observation {
            link: Judgement {
                health: judged.health,
                anomaly: judged.anomaly,
                anomaly_score: judged.anomaly_score,
                reason,
            },
            round_trip: sample.rtt.is_some(),
            idle: judged.idle,
            stalled,
            hold,
            reader_limited,
            source: sample.source,
        };
        self.pacer.observe(seen, elapsed);
    }

    /// The recommendation as of the last interval; its age is for the caller to tell.
    pub(crate) fn hint(&self, scope: &Scope) -> Hint {
        self.pacer.hint(scope, Duration::ZERO)
    }

    /// What to train the next model from, if one is due.
    pub(crate) fn take_training_set(&mut self) -> Option<TrainingSet> {
        self.health.take_training_set()
    }

    /// That came to nothing: another is due soon.
    pub(crate) fn put_training_off(&mut self) {
        self.health.put_training_off();
    }

    /// The model to judge by from now on.
    pub(crate) fn set_model(&mut self, model: Arc<Model>) {
        self.health.set_model(model);
    }
}

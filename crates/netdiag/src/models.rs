//! The model that links are judged by: one from a file, or one that the host's own traffic trains as it goes.
//!
//! Training runs in a thread of its own, so that no interval waits for it, and its result is put in place between two intervals.
//!
//! Invariant: a model from a file stays the one it is; one that was trained stays until a better-informed one takes its place,
//! also if a later training fails.

use std::sync::Arc;
use std::thread::JoinHandle;

use netdiag_health::{Health, Model, TrainError};
use netdiag_iforest::Params;

use crate::confine;
use crate::paced_link::PacedLink;

/// Picks the rows that are kept for training. Any number does; the same one makes the same recording give the same model.
const SEED: u64 = 0;

/// Where models come from.
#[derive(Debug)]
pub(crate) struct Models {
    newest: Option<Arc<Model>>,
    learning: bool,
    training: Option<JoinHandle<Result<Model, TrainError>>>,
}

impl Models {
    /// The given model for good, or one trained from traffic.
    pub(crate) fn new(given: Option<Arc<Model>>) -> Self {
        Self { learning: given.is_none(), newest: given, training: None }
    }

    /// The judge of the whole host, whose rows models are trained from.
    pub(crate) fn host(&self) -> Health {
        if self.learning { Health::new(SEED) } else { self.scope() }
    }

    /// The judge of a part of the host.
    pub(crate) fn scope(&self) -> Health {
        let mut health = Health::without_training();
        if let Some(model) = &self.newest {
            health.set_model(Arc::clone(model));
        }
        health
    }

    /// Begins and ends trainings. Gives the new model if there is one; the host has it by then, the others are the caller's to
    /// tell.
    pub(crate) fn keep_up(&mut self, host: &mut PacedLink) -> Option<Arc<Model>> {
        if self.training.as_ref().is_some_and(|training| !training.is_finished()) {
            return None;
        }
        if let Some(training) = self.training.take() {
            return self.take_over(training, host);
        }
        let rows = host.take_training_set()?;
        let thread = std::thread::Builder::new().name("trainer".to_owned());
        let train = move || {
            confine::to_computing();
            rows.train(&Params::default())
        };
        match thread.spawn(train) {
            Ok(training) => self.training = Some(training),
            Err(error) => {
                tracing::warn!("cannot train a model for now: {error}");
                host.put_training_off();
            }
        }
        None
    }

    fn take_over(
        &mut self,
        training: JoinHandle<Result<Model, TrainError>>,
        host: &mut PacedLink,
    ) -> Option<Arc<Model>> {
        match training.join() {
            Ok(Ok(model)) => {
                tracing::info!("trained a model from {} intervals", model.training().rows);
                let model = Arc::new(model);
                host.set_model(Arc::clone(&model));
                self.newest = Some(Arc::clone(&model));
                Some(model)
            }
            Ok(Err(error)) => {
                tracing::info!("no new model: {error}");
                host.put_training_off();
                None
            }
            Err(_) => {
                tracing::error!("the training of a model panicked; the one before stays in use");
                host.put_training_off();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use netdiag_health::{FEATURES, TrainingSet};
    use netdiag_pacer::TpsRange;
    use netdiag_telemetry::{LinkSample, RttSummary, Scope, Tps};

    use super::*;
    use crate::paced_link::Waiting;

    fn sample(ms: u64) -> LinkSample {
        let rtt = Duration::from_millis(ms);
        LinkSample {
            timestamp: Duration::ZERO,
            rtt: Some(RttSummary { min: rtt, max: rtt, avg: rtt, p95: rtt, samples: 9 }),
            srtt: None,
            retrans_segs: 0,
            segs_out: Some(100),
            avg_cwnd: None,
            throughput_bps: None,
            flows: Some(1),
            stalled_flows: Some(0),
            source: None,
        }
    }

    /// Feeds ten minutes of an uneven link, and waits for what is trained from them.
    fn after_ten_minutes(models: &mut Models) -> (PacedLink, Option<Arc<Model>>) {
        let tps = |rate| Tps::try_new(rate).expect("valid");
        let range = TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid");
        let mut host = PacedLink::new(models.host(), range);
        for second in 0..600 {
            let sample = sample(20 + second * 37 % 11);
            host.observe(&sample, Waiting::in_sample(&sample), Duration::from_secs(1));
        }
        let asked = Instant::now();
        let mut model = models.keep_up(&mut host);
        while model.is_none() && models.training.is_some() {
            assert!(asked.elapsed() < Duration::from_secs(60), "the training does not end");
            std::thread::sleep(Duration::from_millis(1));
            model = models.keep_up(&mut host);
        }
        let sample = sample(20);
        host.observe(&sample, Waiting::in_sample(&sample), Duration::from_secs(1));
        (host, model)
    }

    #[test]
    fn the_hosts_traffic_trains_a_model_that_all_scopes_get() {
        let mut models = Models::new(None);
        assert!(models.scope().model().is_none());
        let (host, model) = after_ten_minutes(&mut models);
        assert_eq!(model.expect("trained").training().rows, 600);
        assert!(models.scope().model().is_some());
        let reason = host.hint(&Scope::Host).reason;
        assert!(reason.starts_with("p95 RTT") && !reason.contains("no model"), "{reason}");
    }

    #[test]
    fn a_given_model_stays() {
        let row = |i: u16| [0, 1, 2, 3].map(|feature| f32::from(i * 7 % (5 + feature)));
        let rows: Vec<[f32; FEATURES]> = (0..200).map(row).collect();
        let given = TrainingSet::new(rows).train(&Params::default()).expect("trainable");
        let mut models = Models::new(Some(Arc::new(given)));
        let (_, model) = after_ten_minutes(&mut models);
        assert!(model.is_none() && models.training.is_none());
        let in_use = models.host();
        assert_eq!(in_use.model().expect("given").training().rows, 200);
    }
}

//! What holds for every model that exists, wherever it comes from.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use netdiag_health::{Assessment, Health, Model, Observation, RttRange};

use crate::check_message;

/// Most intervals of an input: enough for every window in the features to fill and to slide.
const MOST_INTERVALS: usize = 32;

/// Panics if a model judges outside the range of a judgement, or is not the same after it was written and read again.
pub(crate) fn check_model(model: &Model, seen: &[(Observation, Duration)]) {
    let text = model.render();
    let again = Model::parse(text.as_bytes())
        .unwrap_or_else(|error| panic!("what was read and written is refused: {error}: {text}"));
    assert_eq!(again.render(), text);
    assert_eq!(judge(&again, seen), judge(model, seen));
}

fn judge(model: &Model, seen: &[(Observation, Duration)]) -> Vec<Assessment> {
    let mut health = Health::new(0);
    health.set_model(Arc::new(model.clone()));
    let judge = |(observation, elapsed): &(Observation, Duration)| {
        let assessment = health.observe(observation, *elapsed);
        let Assessment { health, anomaly_score, stalled, surprise, .. } = assessment;
        for (name, value) in
            [("health", health), ("anomaly score", anomaly_score), ("stalled", stalled)]
        {
            assert!((0.0..=1.0).contains(&value), "{name} {value} after {observation:?}");
        }
        assert!(surprise.is_finite() && surprise >= 0.0, "surprise {surprise}");
        check_message(&assessment.to_string());
        assessment
    };
    seen.iter().map(judge).collect()
}

/// Intervals of a good link, so that there is a baseline, and then those of the input.
pub(crate) fn observations(input: &mut Unstructured<'_>) -> Vec<(Observation, Duration)> {
    let ms = Duration::from_millis;
    let good = Observation {
        rtt: Some(RttRange { min: ms(20), p95: ms(25) }),
        segs_out: Some(40),
        ..Observation::default()
    };
    let mut seen = vec![(good, ms(500)); 3];
    while !input.is_empty()
        && seen.len() < MOST_INTERVALS
        && let Ok(next) = observation(input)
    {
        seen.push(next);
    }
    seen
}

fn observation(input: &mut Unstructured<'_>) -> Result<(Observation, Duration)> {
    let rtt = match input.arbitrary()? {
        true => Some(RttRange { min: time(input)?, p95: time(input)? }),
        false => None,
    };
    let retrans_segs = count(input)?;
    let segs_out = if input.arbitrary()? { Some(count(input)?) } else { None };
    let stalled = input.arbitrary()?;
    Ok((Observation { rtt, retrans_segs, segs_out, stalled }, time(input)?))
}

/// From a nanosecond to centuries, all magnitudes alike, and now and then the longest there is.
fn time(input: &mut Unstructured<'_>) -> Result<Duration> {
    if input.ratio(1, 32)? { Ok(Duration::MAX) } else { count(input).map(Duration::from_nanos) }
}

/// All magnitudes alike.
fn count(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(input.arbitrary::<u64>()? >> input.int_in_range(0..=63)?)
}

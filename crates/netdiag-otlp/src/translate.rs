//! From what a registry says to OTLP's metrics.
//!
//! As "Prometheus and OpenMetrics Compatibility" of OpenTelemetry's specification has it: counters are monotonic cumulative sums,
//! histograms keep their bounds, info is a sum that is 1. What differs and why:
//!
//! | theirs | ours | because |
//! | --- | --- | --- |
//! | names stay as they are | those that are OpenTelemetry's own get their dots back | dashboards for generative AI look for them |
//! | no word on empty labels | they are left out | to Prometheus an empty label is none |
//! | no word on gauges without a value | a point that says that there is none | no number is not a number |

use std::collections::HashMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, Sum, metric::Data,
};

use crate::exposition::{Family, Kind, Number, Sample, Unreadable, parse};

/// Names of the semantic conventions, which Prometheus cannot have as they are.
const CONVENTIONS: [(&str, &str); 6] = [
    ("gen_ai_server_time_to_first_token_seconds", "gen_ai.server.time_to_first_token"),
    ("gen_ai_server_time_per_output_token_seconds", "gen_ai.server.time_per_output_token"),
    ("gen_ai_server_request_duration_seconds", "gen_ai.server.request.duration"),
    ("gen_ai_operation_name", "gen_ai.operation.name"),
    ("gen_ai_request_model", "gen_ai.request.model"),
    ("error_type", "error.type"),
];

/// Units as UCUM writes them, which OTLP's are.
const UNITS: [(&str, &str); 2] = [("seconds", "s"), ("tokens_per_second", "{token}/s")];

type Labels = Vec<(String, String)>;

/// Translates the same registries again and again, and so knows since when each of their counters counts.
#[derive(Debug)]
pub(crate) struct Translator {
    /// When the process began to count, nanoseconds since 1970.
    began: u64,
    /// When it was translated last.
    last: u64,
    /// For each series that only grows, how far it was and since when it counts.
    known: HashMap<(String, Labels), (f64, u64)>,
}

impl Translator {
    pub(crate) fn new(began: u64) -> Self {
        Self { began, last: began, known: HashMap::new() }
    }

    /// What `text` says, as it is `now` (nanoseconds since 1970).
    pub(crate) fn translate(&mut self, text: &str, now: u64) -> Result<Vec<Metric>, Unreadable> {
        let families = parse(text)?;
        let metrics = families.into_iter().filter(|family| !family.samples.is_empty());
        Ok(metrics.map(|family| self.metric(family, now)).collect())
    }

    /// What comes next is translated after `now`.
    pub(crate) fn close(&mut self, now: u64) {
        self.last = now;
    }

    fn metric(&mut self, family: Family, now: u64) -> Metric {
        let temporality = AggregationTemporality::Cumulative.into();
        let data = match family.kind {
            Kind::Gauge => {
                let points = family.samples.iter().map(|sample| number(sample, 0, now));
                Data::Gauge(Gauge { data_points: points.collect() })
            }
            Kind::Counter => {
                let since = |sample: &Sample, this: &mut Self| {
                    this.since(&family.name, &sample.labels, sample.value.as_f64())
                };
                let points = family.samples.iter().map(|sample| {
                    let since = since(sample, self);
                    number(sample, since, now)
                });
                let data_points = points.collect();
                Data::Sum(Sum {
                    data_points,
                    aggregation_temporality: temporality,
                    is_monotonic: true,
                })
            }
            Kind::Info => {
                let points = family.samples.iter().map(|sample| number(sample, self.began, now));
                let data_points = points.collect();
                Data::Sum(Sum {
                    data_points,
                    aggregation_temporality: temporality,
                    is_monotonic: false,
                })
            }
            Kind::Histogram => {
                let points = histograms(&family.samples).into_iter().map(|(labels, counted)| {
                    let since = self.since(&family.name, &labels, counted.count as f64);
                    counted.point(&labels, since, now)
                });
                Data::Histogram(Histogram {
                    data_points: points.collect(),
                    aggregation_temporality: temporality,
                })
            }
        };
        Metric {
            name: of_convention(&family.name).to_owned(),
            description: family.help,
            unit: unit(&family.unit).to_owned(),
            data: Some(data),
            ..Metric::default()
        }
    }

    /// Since when a series counts that is at `value` now. One that has fallen has begun anew since it was looked at last.
    fn since(&mut self, name: &str, labels: &Labels, value: f64) -> u64 {
        let (began, last) = (self.began, self.last);
        let known = self.known.entry((name.to_owned(), labels.clone())).or_insert((0.0, began));
        if value < known.0 {
            known.1 = last;
        }
        known.0 = value;
        known.1
    }
}

fn of_convention(name: &str) -> &str {
    CONVENTIONS.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs)
}

fn unit(name: &str) -> &str {
    UNITS.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs)
}

/// A string under a name, as OTLP has it.
pub(crate) fn attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn attributes(labels: &[(String, String)]) -> Vec<KeyValue> {
    let told = labels.iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| attribute(of_convention(name), value)).collect()
}

fn number(sample: &Sample, since: u64, now: u64) -> NumberDataPoint {
    let (value, flags) = match sample.value {
        Number::Whole(number) => (Some(Value::AsInt(number)), 0),
        Number::Fraction(number) if number.is_nan() => {
            (None, DataPointFlags::NoRecordedValueMask as u32)
        }
        Number::Fraction(number) => (Some(Value::AsDouble(number)), 0),
    };
    NumberDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: since,
        time_unix_nano: now,
        flags,
        value,
        ..NumberDataPoint::default()
    }
}

/// One series of a histogram.
#[derive(Debug, Default)]
struct Counted {
    sum: f64,
    count: u64,
    /// Upper bounds, and how many were up to there.
    buckets: Vec<(f64, u64)>,
}

/// A histogram's series, in the order in which they were told.
fn histograms(samples: &[Sample]) -> Vec<(Labels, Counted)> {
    let mut series: Vec<(Labels, Counted)> = Vec::new();
    for sample in samples {
        let mut labels = sample.labels.clone();
        let bound = labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
        if series.last().is_none_or(|(last, _)| *last != labels) {
            series.push((labels, Counted::default()));
        }
        let Some((_, counted)) = series.last_mut() else { continue };
        let count = match sample.value {
            Number::Whole(count) => u64::try_from(count).unwrap_or_default(),
            Number::Fraction(_) => 0,
        };
        match (&*sample.suffix, bound.map(|bound| bound.parse())) {
            ("_sum", None) => counted.sum = sample.value.as_f64(),
            ("_count", None) => counted.count = count,
            ("_bucket", Some(Ok(bound))) => counted.buckets.push((bound, count)),
            _ => {}
        }
    }
    series
}

impl Counted {
    fn point(self, labels: &Labels, since: u64, now: u64) -> HistogramDataPoint {
        let below = [0].into_iter().chain(self.buckets.iter().map(|&(_, count)| count));
        let bucket_counts =
            self.buckets.iter().zip(below).map(|(&(_, to), from)| to.saturating_sub(from));
        let bounds = self.buckets.iter().map(|&(bound, _)| bound).filter(|bound| bound.is_finite());
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: since,
            time_unix_nano: now,
            count: self.count,
            sum: Some(self.sum),
            bucket_counts: bucket_counts.collect(),
            explicit_bounds: bounds.collect(),
            ..HistogramDataPoint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "# HELP netdiag_things Things.\n# TYPE netdiag_things counter\n\
        netdiag_things_total{a=\"x\",b=\"\"} 3\nnetdiag_things_total{a=\"y\",b=\"z\"} 1.5\n\
        # HELP netdiag_age_seconds Age.\n# TYPE netdiag_age_seconds gauge\n# UNIT netdiag_age_seconds seconds\n\
        netdiag_age_seconds NaN\n\
        # HELP netdiag_build Version.\n# TYPE netdiag_build info\nnetdiag_build_info{version=\"1\"} 1\n\
        # HELP gen_ai_server_request_duration_seconds Time.\n# TYPE gen_ai_server_request_duration_seconds histogram\n\
        # UNIT gen_ai_server_request_duration_seconds seconds\n\
        gen_ai_server_request_duration_seconds_sum{error_type=\"\",gen_ai_request_model=\"m\"} 2.5\n\
        gen_ai_server_request_duration_seconds_count{error_type=\"\",gen_ai_request_model=\"m\"} 4\n\
        gen_ai_server_request_duration_seconds_bucket{le=\"0.5\",error_type=\"\",gen_ai_request_model=\"m\"} 1\n\
        gen_ai_server_request_duration_seconds_bucket{le=\"1.0\",error_type=\"\",gen_ai_request_model=\"m\"} 3\n\
        gen_ai_server_request_duration_seconds_bucket{le=\"+Inf\",error_type=\"\",gen_ai_request_model=\"m\"} 4\n# EOF\n";

    fn points(metric: &Metric) -> &[NumberDataPoint] {
        match metric.data.as_ref().expect("data") {
            Data::Gauge(gauge) => &gauge.data_points,
            Data::Sum(sum) => &sum.data_points,
            other => panic!("no numbers: {other:?}"),
        }
    }

    #[test]
    fn each_type_becomes_its_counterpart() {
        let metrics = Translator::new(5).translate(TOLD, 9).expect("readable");
        let heads: Vec<_> = metrics
            .iter()
            .map(|metric| (&*metric.name, &*metric.unit, &*metric.description))
            .collect();
        let expected = [
            ("netdiag_things", "", "Things."),
            ("netdiag_age_seconds", "s", "Age."),
            ("netdiag_build", "", "Version."),
            ("gen_ai.server.request.duration", "s", "Time."),
        ];
        assert_eq!(heads, expected);
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality, AggregationTemporality::Cumulative as i32);
        let point = |value, labels: &[(&str, &str)]| NumberDataPoint {
            attributes: labels.iter().map(|(name, value)| attribute(name, value)).collect(),
            start_time_unix_nano: 5,
            time_unix_nano: 9,
            value: Some(value),
            ..NumberDataPoint::default()
        };
        let expected = [
            point(Value::AsInt(3), &[("a", "x")]),
            point(Value::AsDouble(1.5), &[("a", "y"), ("b", "z")]),
        ];
        assert_eq!(sum.data_points, expected);
        let age = &points(&metrics[1])[0];
        assert_eq!((age.value, age.flags), (None, 1));
        let Some(Data::Sum(info)) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
        assert!(!info.is_monotonic);
        let Some(Data::Histogram(times)) = &metrics[3].data else { panic!("{:?}", metrics[3]) };
        let expected = HistogramDataPoint {
            attributes: vec![attribute("gen_ai.request.model", "m")],
            start_time_unix_nano: 5,
            time_unix_nano: 9,
            count: 4,
            sum: Some(2.5),
            bucket_counts: vec![1, 2, 1],
            explicit_bounds: vec![0.5, 1.0],
            ..HistogramDataPoint::default()
        };
        assert_eq!(times.data_points, [expected]);
    }

    #[test]
    fn a_counter_that_falls_has_begun_anew() {
        let mut translator = Translator::new(1);
        let mut since = |value: u32, now| {
            let text = format!("# HELP a A.\n# TYPE a counter\na_total {value}\n");
            let metrics = translator.translate(&text, now).expect("readable");
            translator.close(now);
            points(&metrics[0])[0].start_time_unix_nano
        };
        assert_eq!(since(3, 10), 1);
        assert_eq!(since(3, 20), 1);
        assert_eq!(since(2, 30), 20);
        assert_eq!(since(9, 40), 20);
    }
}

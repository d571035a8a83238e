//! The OpenMetrics text that `prometheus-client` writes, read back: the one form in which a registry can be read as a whole.
//!
//! Only what that library writes is understood, with neither timestamps nor exemplars. Anything else is an error, because a number
//! that is left out in silence would be a wrong account.

/// A family of metrics.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Family {
    /// Without the suffixes of its samples.
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) unit: String,
    pub(crate) kind: Kind,
    pub(crate) samples: Vec<Sample>,
}

/// A type of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// What is behind the family's name: `_total`, `_bucket`, nothing.
    pub(crate) suffix: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: Number,
}

/// A value as it was written: whole numbers stay whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Whole(i64),
    Fraction(f64),
}

impl Number {
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Fraction(number) => number,
        }
    }
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metrics cannot be read: `{0}`")]
pub(crate) struct Unreadable(String);

/// All families of a text.
pub(crate) fn parse(text: &str) -> Result<Vec<Family>, Unreadable> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        let unreadable = || Unreadable(line.to_owned());
        if line == "# EOF" {
            break;
        }
        if let Some((name, help)) = meta(line, "HELP") {
            families.push(Family {
                name: name.to_owned(),
                help: help.to_owned(),
                unit: String::new(),
                kind: Kind::Gauge,
                samples: Vec::new(),
            });
            continue;
        }
        let family = families.last_mut().ok_or_else(unreadable)?;
        if let Some((name, kind)) = meta(line, "TYPE") {
            family.kind = match kind {
                "counter" => Kind::Counter,
                "gauge" => Kind::Gauge,
                "histogram" => Kind::Histogram,
                "info" => Kind::Info,
                _ => return Err(unreadable()),
            };
            if name != family.name {
                return Err(unreadable());
            }
        } else if let Some((_, unit)) = meta(line, "UNIT") {
            unit.clone_into(&mut family.unit);
        } else {
            let rest = line.strip_prefix(&family.name).ok_or_else(unreadable)?;
            family.samples.push(sample(rest).ok_or_else(unreadable)?);
        }
    }
    Ok(families)
}

/// The name and what is said of it in a line such as `# HELP name text`.
fn meta<'a>(line: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix("# ")?.strip_prefix(keyword)?.strip_prefix(' ')?.split_once(' ')
}

/// What is behind a family's name: `_total{a="b"} 3`.
fn sample(rest: &str) -> Option<Sample> {
    let end = rest.find(['{', ' '])?;
    let (suffix, rest) = rest.split_at(end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    let value = value.strip_prefix(' ')?;
    let value = match value.parse() {
        Ok(whole) => Number::Whole(whole),
        Err(_) => Number::Fraction(value.parse().ok()?),
    };
    Some(Sample { suffix: suffix.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what is behind it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, behind) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = behind.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    escaped => escaped,
                }),
                (_, plain) => value.push(plain),
            }
        };
        labels.push((name.to_owned(), value));
        rest = behind.get(end + 1..)?;
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family as Labelled;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::{Registry, Unit};
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn encoded(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).expect("into a string");
        text
    }

    proptest! {
        #[test]
        fn what_the_library_writes_is_read_back(
            values in proptest::collection::btree_map(".*", any::<u32>(), 1..5),
            fraction in proptest::num::f64::ANY,
        ) {
            let mut registry = Registry::with_prefix("p");
            let family: Labelled<Vec<(String, String)>, Counter> = Labelled::default();
            for (value, &count) in &values {
                let labels = vec![("a".to_owned(), value.clone()), ("b".to_owned(), "c".to_owned())];
                family.get_or_create(&labels).inc_by(count.into());
            }
            registry.register("things", "Things", family);
            let gauge: Gauge<f64, AtomicU64> = Gauge::default();
            gauge.set(fraction);
            registry.register_with_unit("age", "Age", Unit::Seconds, gauge);

            let families = parse(&encoded(&registry)).expect("readable");
            prop_assert_eq!(families.len(), 2);
            prop_assert_eq!((&*families[0].name, families[0].kind), ("p_things", Kind::Counter));
            let mut found: Vec<_> = families[0]
                .samples
                .iter()
                .map(|sample| (sample.labels[0].1.clone(), sample.value))
                .collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            let expected: Vec<_> =
                values.into_iter().map(|(value, count)| (value, Number::Whole(count.into()))).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!((&*families[1].name, &*families[1].unit), ("p_age_seconds", "seconds"));
            let value = families[1].samples[0].value.as_f64();
            prop_assert!(value == fraction || (value.is_nan() && fraction.is_nan()));
        }
    }

    #[test]
    fn what_is_no_metric_is_told() {
        for text in [
            "x 1",
            "# HELP a A\n# TYPE a summary",
            "# HELP a A\n# TYPE a gauge\nb 1",
            "# HELP a A\n# TYPE a gauge\na one",
            "# HELP a A\n# TYPE a gauge\na{b=\"c} 1",
            "# HELP a A\n# TYPE a gauge\na 1 2",
        ] {
            parse(text).expect_err(text);
        }
        assert_eq!(parse("# EOF\n"), Ok(Vec::new()));
    }
}

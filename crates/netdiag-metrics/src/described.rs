//! A registry in which every family is described, see the crate's documentation.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::reading::Reading;

/// What is known of a family before it has a single value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyDescription {
    /// Its name, with its unit and without the `_total` of counters' samples.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The unit that its name ends with, if it has one.
    pub unit: Option<String>,
    /// What it says, in a sentence without its full stop.
    pub help: &'static str,
    /// What its series are told apart by.
    pub labels: &'static [Label],
}

impl FamilyDescription {
    /// The name as people ask Prometheus for it; a histogram's has `_bucket`, `_sum` and `_count` behind it.
    pub fn sample_name(&self) -> String {
        let total = if self.kind == "counter" { "_total" } else { "" };
        format!("{}{total}", self.name)
    }
}

/// A label, and why it cannot fill anybody's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub values: &'static str,
    /// How many there can be.
    pub bound: Bound,
}

/// How many values a label can have in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// At most so many.
    Most(usize),
    /// As many as this setting names.
    Setting(&'static str),
}

/// Labels that say of themselves what they are.
pub trait Labels: EncodeLabelSet {
    /// In the order in which they are encoded.
    const LABELS: &'static [Label];
}

/// What can be described: a metric with its labels, if it has some.
pub trait Labelled {
    /// None for a metric that is one series.
    const LABELS: &'static [Label] = &[];
}

impl<N, A> Labelled for Counter<N, A> {}
impl<N, A> Labelled for Gauge<N, A> {}
impl Labelled for Histogram {}
impl<S: Labels, M, C> Labelled for Family<S, M, C> {
    const LABELS: &'static [Label] = S::LABELS;
}

/// A registry and what is in it.
#[derive(Default)]
pub struct Described {
    registry: Registry,
    families: Vec<FamilyDescription>,
}

impl Described {
    /// One with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The part of it whose names begin with `prefix` and an underscore.
    pub fn within(&mut self, prefix: &'static str) -> Within<'_> {
        let registry = self.registry.sub_registry_with_prefix(prefix);
        Within { registry, families: &mut self.families, prefix }
    }

    /// What is in it, in the order in which it was registered.
    pub fn families(&self) -> &[FamilyDescription] {
        &self.families
    }

    /// All values, in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut told = String::new();
        // Encoding into a String fails only if a metric's own encoding does, and these are the library's.
        let _ = text::encode(&mut told, &self.registry);
        told
    }
}

impl fmt::Debug for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Described").field("families", &self.families.len()).finish_non_exhaustive()
    }
}

/// Where metrics are registered under a common prefix.
pub struct Within<'a> {
    registry: &'a mut Registry,
    families: &'a mut Vec<FamilyDescription>,
    prefix: &'static str,
}

impl Within<'_> {
    /// Registers a metric. `help` is a sentence without its full stop.
    pub fn add<M: Metric + TypedMetric + Labelled>(
        &mut self,
        name: &'static str,
        help: &'static str,
        metric: M,
    ) {
        self.describe(name, None, help, kind::<M>(), M::LABELS);
        self.registry.register(name, help, metric);
    }

    /// The same for one with a unit, which becomes a part of its name.
    pub fn add_with_unit<M: Metric + TypedMetric + Labelled>(
        &mut self,
        name: &'static str,
        unit: Unit,
        help: &'static str,
        metric: M,
    ) {
        self.describe(name, Some(&unit), help, kind::<M>(), M::LABELS);
        self.registry.register_with_unit(name, help, unit, metric);
    }

    /// A counter that somebody else counts; `read` says how far it is.
    pub fn count(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.describe(name, None, help, kind::<Counter>(), &[]);
        self.registry.register_collector(Box::new(Reading::count(name, help, read)));
    }

    /// A gauge that is somebody else's to know; `read` asks.
    pub fn measure(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.describe(name, None, help, kind::<Gauge>(), &[]);
        self.registry.register_collector(Box::new(Reading::measure(name, help, read)));
    }

    /// Which version this is, as Prometheus and its exporters say it of themselves: a gauge that is 1.
    pub fn version(&mut self, version: &'static str) {
        let family: Family<Version, Gauge> = Family::default();
        family.get_or_create(&Version { version }).set(1);
        self.add("build_info", "Version of netdiag, as a label of what is always 1", family);
    }

    fn describe(
        &mut self,
        name: &'static str,
        unit: Option<&Unit>,
        help: &'static str,
        kind: &'static str,
        labels: &'static [Label],
    ) {
        let unit = unit.map(|unit| unit.as_str().to_owned());
        let suffix = unit.as_ref().map_or_else(String::new, |unit| format!("_{unit}"));
        let name = format!("{}_{name}{suffix}", self.prefix);
        debug_assert!(self.families.iter().all(|family| family.name != name), "{name} is there");
        self.families.push(FamilyDescription { name, kind, unit, help, labels });
    }
}

impl fmt::Debug for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn kind<M: TypedMetric>() -> &'static str {
    use prometheus_client::metrics::MetricType;
    match M::TYPE {
        MetricType::Counter => "counter",
        MetricType::Gauge => "gauge",
        MetricType::Histogram => "histogram",
        MetricType::Info => "info",
        MetricType::Unknown => "unknown",
    }
}

/// Of [`Within::version`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

impl Labels for Version {
    const LABELS: &'static [Label] =
        &[Label { name: "version", values: "the version", bound: Bound::Most(1) }];
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn what_is_registered_is_described_and_exposed_under_the_same_name() {
        let mut described = Described::new();
        let mut ours = described.within("netdiag_x");
        ours.version("1.2.3");
        ours.add_with_unit("age", Unit::Seconds, "Age of it", Gauge::<f64, AtomicU64>::default());
        ours.add("things", "Things seen", Counter::<u64>::default());
        ours.count("asked", "Times that it was asked", || 7);
        ours.measure("share", "What there is of it", || 0.5);
        let told = described.encode();
        let names: Vec<String> =
            described.families().iter().map(FamilyDescription::sample_name).collect();
        assert_eq!(
            names,
            [
                "netdiag_x_build_info",
                "netdiag_x_age_seconds",
                "netdiag_x_things_total",
                "netdiag_x_asked_total",
                "netdiag_x_share"
            ]
        );
        for family in described.families() {
            let (name, kind, help) = (&family.name, family.kind, family.help);
            assert!(told.contains(&format!("# TYPE {name} {kind}\n")), "{told}");
            assert!(told.contains(&format!("# HELP {name} {help}.\n")), "{told}");
        }
        for line in ["netdiag_x_build_info{version=\"1.2.3\"} 1", "netdiag_x_asked_total 7"] {
            assert!(told.lines().any(|found| found == line), "{line} in {told}");
        }
    }
}

//! A metric that is read when it is asked for, from whoever counts it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// One of them, without labels.
pub(crate) struct Reading {
    name: &'static str,
    help: String,
    read: Read,
}

enum Read {
    Count(Box<dyn Fn() -> u64 + Send + Sync>),
    Measure(Box<dyn Fn() -> f64 + Send + Sync>),
}

impl Reading {
    pub(crate) fn count(
        name: &'static str,
        help: &str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self { name, help: sentence(help), read: Read::Count(Box::new(read)) }
    }

    pub(crate) fn measure(
        name: &'static str,
        help: &str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self { name, help: sentence(help), read: Read::Measure(Box::new(read)) }
    }
}

/// With the full stop that the registry puts behind the help of all others.
fn sentence(help: &str) -> String {
    format!("{help}.")
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self { name, help, read } = self;
        match read {
            Read::Count(read) => {
                let counter = ConstCounter::new(read());
                counter.encode(encoder.encode_descriptor(
                    name,
                    help,
                    None,
                    counter.metric_type(),
                )?)
            }
            Read::Measure(read) => {
                let gauge = ConstGauge::new(read());
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
            }
        }
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("name", &self.name).finish_non_exhaustive()
    }
}

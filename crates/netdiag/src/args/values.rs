//! Value parsers: from one argument's text to one valid value, or to a reason that says what would be valid.
//!
//! The complaint names neither the flag nor the value; whoever shows it knows both, and the place besides.

mod addresses;

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser};
use netdiag_hints::bus::{EngineName, NodeName};
use netdiag_iforest::Contamination;
use netdiag_pacer::WhenStale;
use netdiag_probe::SourceChoice;
use netdiag_telemetry::Tps;

use super::bus::BusScope;
use crate::experiment::{Policy, Via};

pub(crate) use addresses::{
    ADMIN_PORT, DASHBOARD_PORT, FLEET_PORT, GATEWAY_PORT, HINT_PORT, ListenAddr, NetnsPath,
    ServerUrl, admin_listen, bus, dashboard_listen, fleet_listen, fleet_url, gateway_listen,
    gateway_url, hint_url, listen, netns, network, otlp, upstream,
};

/// The shortest interval or window. A round trip to the kernel for ten thousand flows takes longer.
const SHORTEST: f64 = 0.01;
/// The shortest time between two exports: a collector writes every one of them somewhere.
const SHORTEST_EXPORT: f64 = 0.1;
/// The longest interval: beyond an hour, nothing here is live.
const LONGEST_INTERVAL: f64 = 3600.0;
/// The longest window: a day.
const LONGEST_WINDOW: f64 = 86_400.0;
/// The longest run: a century, far below where clocks overflow.
const LONGEST_RUN: f64 = 3.2e9;
/// The most flows that the kernel maps are made for, at something over a kilobyte each.
const MOST_FLOWS: u32 = 1 << 20;
/// The most trees of a forest: fifty times what scores need to settle, and a third of the largest model file.
const MOST_TREES: usize = 10_000;
/// The longest segment: longer than any model's context.
const MOST_SEGMENT_TOKENS: NonZeroU32 = NonZeroU32::new(1_000_000).expect("not zero");
/// More than a server answers per second.
const MOST_REQUESTS: u32 = 1_000_000;
/// More than any broker passes on.
const MOST_BUS_RATE: u32 = 1_000_000;

/// `--interval`.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    seconds(text, SHORTEST, LONGEST_INTERVAL)
}

/// `--window`.
pub(crate) fn window(text: &str) -> Result<Duration, String> {
    seconds(text, SHORTEST, LONGEST_WINDOW)
}

/// `--otlp-interval`.
pub(crate) fn otlp_interval(text: &str) -> Result<Duration, String> {
    seconds(text, SHORTEST_EXPORT, LONGEST_WINDOW)
}

/// `--duration`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    seconds(text, SHORTEST, LONGEST_RUN)
}

fn seconds(text: &str, low: f64, high: f64) -> Result<Duration, String> {
    let wanted = || format!("must be a number of seconds from {low} to {high}");
    let value: f64 = text.trim().parse().map_err(|_| wanted())?;
    if !(low..=high).contains(&value) {
        return Err(wanted());
    }
    Ok(Duration::from_secs_f64(value))
}

/// `--max-tps` and `--min-tps`.
pub(crate) fn rate(text: &str) -> Result<Tps, String> {
    let rate = text.trim().parse().ok().and_then(|rate| Tps::try_new(rate).ok());
    let (low, high) = (Tps::LOWEST, Tps::HIGHEST);
    rate.ok_or_else(|| format!("must be a number of tokens/s from {low} to {high}"))
}

/// A flag that may stand alone. Takes what clap's own parser of this kind takes, but says what that is.
pub(crate) fn truth() -> impl TypedValueParser<Value = bool> {
    StringValueParser::new().try_map(|text| match text.trim().to_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("must be true or false"),
    })
}

/// `--node`.
pub(crate) fn node(text: &str) -> Result<NodeName, String> {
    NodeName::try_new(text.trim())
        .map_err(|_| "must be 1 to 63 characters of A-Z a-z 0-9 - _".to_owned())
}

/// `--capacity` of the fleet.
pub(crate) fn engine_capacity(text: &str) -> Result<EngineCapacity, String> {
    let wanted = || "must be ENGINE=TPS, such as llama=400".to_owned();
    let (engine, capacity) = text.split_once('=').ok_or_else(wanted)?;
    Ok(EngineCapacity { engine: node(engine)?, capacity: rate(capacity)? })
}

/// An engine, and what it generates.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EngineCapacity {
    pub(crate) engine: EngineName,
    pub(crate) capacity: Tps,
}

/// `--bus-scope`.
pub(crate) fn bus_scope() -> impl TypedValueParser<Value = BusScope> {
    StringValueParser::new().try_map(|text| match text.trim() {
        "host" => Ok(BusScope::Host),
        "peer" => Ok(BusScope::Peer),
        "stream" => Ok(BusScope::Stream),
        _ => Err("must be host, peer or stream"),
    })
}

/// `--bus-rate`.
pub(crate) fn bus_rate(text: &str) -> Result<NonZeroU32, String> {
    let rate = text.trim().parse().ok().filter(|rate: &NonZeroU32| rate.get() <= MOST_BUS_RATE);
    rate.ok_or_else(|| format!("must be a whole number from 1 to {MOST_BUS_RATE}"))
}

/// `--streams`.
pub(crate) fn streams(text: &str) -> Result<usize, String> {
    let streams = text.trim().parse().ok().filter(|streams| (1..=200).contains(streams));
    streams.ok_or_else(|| "must be a whole number from 1 to 200".to_owned())
}

/// One of `--arms`.
pub(crate) fn arm(text: &str) -> Result<Policy, String> {
    let policy = Policy::ALL.into_iter().find(|policy| policy.name() == text.trim());
    policy.ok_or_else(|| {
        "must be one of none, classic and carry, or several with commas between them".to_owned()
    })
}

/// `--via`.
pub(crate) fn via() -> impl TypedValueParser<Value = Via> {
    PossibleValuesParser::new(Via::ALL.map(Via::name)).map(|name| match name.as_str() {
        "gateway" => Via::Gateway,
        _ => Via::Engine,
    })
}

/// One of the simulator's policies.
pub(crate) fn policy(text: &str) -> Result<netdiag_lab::sim::Policy, String> {
    let all = netdiag_lab::sim::Policy::ALL;
    let policy = all.into_iter().find(|policy| policy.as_str() == text.trim());
    policy.ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|policy| policy.as_str()).collect();
        format!("must be one of {}, or several with commas between them", names.join(", "))
    })
}

/// A load of the simulator's engine.
pub(crate) fn load(text: &str) -> Result<f64, String> {
    let load = text.trim().parse().ok().filter(|load| (0.01..=10.0).contains(load));
    load.ok_or_else(|| "must be a number from 0.01 to 10".to_owned())
}

/// How many seeds to simulate.
pub(crate) fn seeds(text: &str) -> Result<u64, String> {
    let seeds = text.trim().parse().ok().filter(|seeds| (1..=1000).contains(seeds));
    seeds.ok_or_else(|| "must be a whole number from 1 to 1000".to_owned())
}

/// A local port of a flow.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("must be a TCP port from 1 to 65535".to_owned()),
    }
}

/// A port to listen on; 0 for any.
pub(crate) fn any_port(text: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| "must be a TCP port from 0 to 65535".to_owned())
}

/// `--source`.
pub(crate) fn source() -> impl TypedValueParser<Value = SourceChoice> {
    PossibleValuesParser::new(["auto", "ebpf", "sockdiag"]).map(|name| match name.as_str() {
        "ebpf" => SourceChoice::Ebpf,
        "sockdiag" => SourceChoice::Sockdiag,
        _ => SourceChoice::Auto,
    })
}

/// `--when-stale`.
pub(crate) fn when_stale() -> impl TypedValueParser<Value = WhenStale> {
    PossibleValuesParser::new(["max", "min", "hold"]).map(|name| match name.as_str() {
        "min" => WhenStale::Min,
        "hold" => WhenStale::Hold,
        _ => WhenStale::Max,
    })
}

/// How `netdiag gateway` holds engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineKind {
    Generic,
    Segment,
    Netdiag,
}

/// `--engine`.
pub(crate) fn engine_kind() -> impl TypedValueParser<Value = EngineKind> {
    PossibleValuesParser::new(["generic", "segment", "netdiag"]).map(|name| match name.as_str() {
        "segment" => EngineKind::Segment,
        "netdiag" => EngineKind::Netdiag,
        _ => EngineKind::Generic,
    })
}

/// `--segment-tokens`.
pub(crate) fn segment_tokens(text: &str) -> Result<NonZeroU32, String> {
    match text.trim().parse() {
        Ok(tokens) if tokens <= MOST_SEGMENT_TOKENS => Ok(tokens),
        _ => Err(format!("must be a number of tokens from 1 to {MOST_SEGMENT_TOKENS}")),
    }
}

/// `--max-flows`.
pub(crate) fn max_flows(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(flows) if (1..=MOST_FLOWS).contains(&flows) => Ok(flows),
        _ => Err(format!("must be a number of flows from 1 to {MOST_FLOWS}")),
    }
}

/// `--contamination`.
pub(crate) fn contamination(text: &str) -> Result<Contamination, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Contamination::Auto);
    }
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 0.5 => Ok(Contamination::Fraction(share)),
        _ => Err("must be a share of the rows above 0 and at most 0.5, or auto".to_owned()),
    }
}

/// `--estimators`.
pub(crate) fn estimators(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(trees) if (1..=MOST_TREES).contains(&trees) => Ok(trees),
        _ => Err(format!("must be a number of trees from 1 to {MOST_TREES}")),
    }
}

/// `--seed`.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("must be a whole number from 0 to {}", u64::MAX))
}

/// A number of things, at least one.
pub(crate) fn count(text: &str) -> Result<NonZeroU64, String> {
    text.trim().parse().map_err(|_| format!("must be a whole number from 1 to {}", u64::MAX))
}

/// `--rate-limit`: requests per second; `None` for as many as come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateLimit(pub(crate) Option<NonZeroU32>);

/// `--rate-limit`.
pub(crate) fn rate_limit(text: &str) -> Result<RateLimit, String> {
    let number = text.trim().parse().ok().filter(|number| *number <= MOST_REQUESTS);
    let number = number.ok_or_else(|| format!("must be a whole number from 0 to {MOST_REQUESTS}"));
    number.map(|number| RateLimit(NonZeroU32::new(number)))
}

/// `--max-streams`.
pub(crate) fn at_once(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| "must be a whole number from 1 to 1000000".to_owned())
}

/// `--max-body`.
pub(crate) fn megabytes(text: &str) -> Result<u64, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=4096).contains(number));
    number.ok_or_else(|| "must be a whole number of megabytes from 1 to 4096".to_owned())
}

/// `--drain`.
pub(crate) fn drain(text: &str) -> Result<Duration, String> {
    seconds(text, 0.0, LONGEST_WINDOW)
}

/// A path to ask for, as `--health-path`.
pub(crate) fn path(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_path && !text.contains('#') {
        Ok(text.to_owned())
    } else {
        Err("must be a path, such as /health".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_finite_and_in_range() {
        for bad in ["0", "-1", "NaN", "inf", "-inf", "1e9", "", "fast", "0.5s", "0.009"] {
            let error = interval(bad).expect_err(bad);
            assert!(error.contains("from 0.01 to 3600"), "{bad}: {error}");
        }
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(window("86400"), Ok(Duration::from_secs(86_400)));
    }
}

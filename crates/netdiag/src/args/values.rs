//! Value parsers: from one argument's text to one valid value, or to a reason that says what would be valid.
//!
//! The complaint names neither the flag nor the value; whoever shows it knows both, and the place besides.

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser};
use ipnet::IpNet;
use netdiag_gateway::UpstreamUrl;
use netdiag_iforest::Contamination;
use netdiag_pacer::WhenStale;
use netdiag_probe::SourceChoice;
use netdiag_telemetry::Tps;

use crate::experiment::Policy;

/// The shortest interval or window. A round trip to the kernel for ten thousand flows takes longer.
const SHORTEST: f64 = 0.01;
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
/// Where hints are served unless told otherwise; the original's port.
pub(crate) const HINT_PORT: u16 = 9000;

/// The dashboard's usual port, the original project's.
pub(crate) const DASHBOARD_PORT: u16 = 8501;

/// The gateway's usual port: HTTP's second one, beside engines on 8000.
pub(crate) const GATEWAY_PORT: u16 = 8080;

/// The usual port of `--admin-listen`.
pub(crate) const ADMIN_PORT: u16 = 9901;

/// `--interval`.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    seconds(text, SHORTEST, LONGEST_INTERVAL)
}

/// `--window`.
pub(crate) fn window(text: &str) -> Result<Duration, String> {
    seconds(text, SHORTEST, LONGEST_WINDOW)
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

/// A network, or an address as a network of one.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
    network.map(|network| canonical(network.trunc())).map_err(|_| {
        "must be an address or a network in CIDR notation, such as 192.0.2.0/24 or 2001:db8::/32"
            .to_owned()
    })
}

/// A network of IPv4-mapped addresses as the IPv4 network it is, because that is how flows are shown.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, bits)| IpNet::new(address.into(), bits).ok()).unwrap_or(network)
}

/// A path that leads into a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetnsPath(pub(crate) PathBuf);

/// `--netns`. Checked here, because a wrong one would otherwise look like a host without connections.
pub(crate) fn netns(text: &str) -> Result<NetnsPath, String> {
    if text.is_empty() {
        return Err("must be a path, the name of a namespace, or the ID of a process".to_owned());
    }
    let (path, remedy) = if text.contains('/') {
        (PathBuf::from(text), "give a path such as /run/netns/NAME or /proc/PID/ns/net")
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        (PathBuf::from(format!("/proc/{text}/ns/net")), "give the ID of a running process")
    } else {
        (PathBuf::from("/run/netns").join(text), "`ip netns list` shows the names there are")
    };
    let file = File::open(&path).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => "run as root, or with CAP_SYS_PTRACE",
            _ => remedy,
        };
        format!("cannot open {} ({error}); {remedy}", path.display())
    })?;
    if is_network_namespace(&file) {
        return Ok(NetnsPath(path));
    }
    Err(format!("{} is not a network namespace; {remedy}", path.display()))
}

/// The kernel names a namespace file after its kind (`net:[4026531840]`), except where it is bound to a file of its own
/// (`ip netns add`), whose path is shown instead; there, the file system tells.
fn is_network_namespace(file: &File) -> bool {
    let Ok(name) = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) else {
        return true;
    };
    let name = name.to_string_lossy();
    match name.split_once(":[") {
        Some((kind, _)) => kind == "net",
        None => rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type == NSFS_MAGIC),
    }
}

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

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

/// An address to listen on; without a port it is up to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListenAddr {
    /// The interface's address.
    pub(crate) ip: IpAddr,
    /// The port, if one was given.
    pub(crate) port: Option<u16>,
}

impl ListenAddr {
    /// The address with its port, or with the server's usual one.
    pub(crate) fn socket(self, usual: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(usual))
    }
}

/// `--listen` of the hint server.
pub(crate) fn listen(text: &str) -> Result<ListenAddr, String> {
    listen_like(text, HINT_PORT)
}

/// `--dashboard-listen`.
pub(crate) fn dashboard_listen(text: &str) -> Result<ListenAddr, String> {
    listen_like(text, DASHBOARD_PORT)
}

/// `--listen` of the gateway.
pub(crate) fn gateway_listen(text: &str) -> Result<ListenAddr, String> {
    listen_like(text, GATEWAY_PORT)
}

/// `--admin-listen`.
pub(crate) fn admin_listen(text: &str) -> Result<ListenAddr, String> {
    listen_like(text, ADMIN_PORT)
}

/// `--upstream`.
pub(crate) fn upstream(text: &str) -> Result<UpstreamUrl, String> {
    text.parse().map_err(|error: netdiag_gateway::InvalidUpstream| error.to_string())
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

fn listen_like(text: &str, usual: u16) -> Result<ListenAddr, String> {
    let text = text.trim();
    let wanted = format!(
        "must be ADDR or ADDR:PORT with an IP address or localhost, such as 127.0.0.1:{usual} or [::1]:{usual}"
    );
    if let Ok(address) = SocketAddr::from_str(text) {
        return Ok(ListenAddr { ip: address.ip(), port: Some(address.port()) });
    }
    if let Ok(ip) = IpAddr::from_str(text.trim_start_matches('[').trim_end_matches(']')) {
        return Ok(ListenAddr { ip, port: None });
    }
    let localhost = text.strip_prefix("localhost").ok_or_else(|| wanted.clone())?;
    let port = match localhost.strip_prefix(':') {
        Some(port) => Some(port.parse().map_err(|_| wanted)?),
        None if localhost.is_empty() => None,
        None => return Err(wanted),
    };
    Ok(ListenAddr { ip: Ipv4Addr::LOCALHOST.into(), port })
}

/// A hint server's address, from a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HintUrl {
    /// Name or address, IPv6 in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for HintUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// `--hints`.
pub(crate) fn hint_url(text: &str) -> Result<HintUrl, String> {
    let wanted = "must be http://HOST or http://HOST:PORT, such as http://127.0.0.1:9000";
    let text = text.trim();
    if text.starts_with("https://") {
        return Err(format!(
            "{wanted}; encryption is for a proxy in between, whose plain side is meant here"
        ));
    }
    let rest = text.strip_prefix("http://").ok_or(wanted)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wanted)?),
        _ => (rest, HINT_PORT),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(is_name),
    };
    if !is_host || port == 0 {
        return Err(wanted.to_owned());
    }
    Ok(HintUrl { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_servers_are_found_by_url() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let found = hint_url(text).ok();
            let expected = expected.map(|(host, port)| HintUrl { host: host.to_owned(), port });
            assert_eq!(found, expected, "{text}");
        };
        check("http://127.0.0.1:9000", Some(("127.0.0.1", 9000)));
        check("http://engine-1.lan/", Some(("engine-1.lan", 9000)));
        check("http://[::1]:81", Some(("[::1]", 81)));
        check("http://[::1]", Some(("[::1]", 9000)));
        for bad in [
            "",
            "127.0.0.1:9000",
            "https://a",
            "http://",
            "http://:9",
            "http://a:0",
            "http://a:x",
            "http://a/v1/hint",
            "http://a b",
            "http://[::1",
            "http://a@b",
            "http://[x]",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn seconds_are_finite_and_in_range() {
        for bad in ["0", "-1", "NaN", "inf", "-inf", "1e9", "", "fast", "0.5s", "0.009"] {
            let error = interval(bad).expect_err(bad);
            assert!(error.contains("from 0.01 to 3600"), "{bad}: {error}");
        }
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(window("86400"), Ok(Duration::from_secs(86_400)));
    }

    #[test]
    fn addresses_to_listen_on() {
        let check = |text: &str, expected: Option<&str>| {
            let address = listen(text).map(|listen| listen.socket(HINT_PORT).to_string());
            assert_eq!(address.ok().as_deref(), expected, "{text}");
        };
        check("127.0.0.1:80", Some("127.0.0.1:80"));
        check("127.0.0.1", Some("127.0.0.1:9000"));
        check("[::1]:0", Some("[::1]:0"));
        check("::1", Some("[::1]:9000"));
        check("localhost:81", Some("127.0.0.1:81"));
        check("localhost", Some("127.0.0.1:9000"));
        for bad in ["", "localhost81", "127.0.0.1:70000", "127.0.0.1:", "example.com:80", ":80"] {
            check(bad, None);
        }
    }

    #[test]
    fn networks_are_networks_or_addresses() {
        assert_eq!(network("192.0.2.7").map(|net| net.to_string()), Ok("192.0.2.7/32".to_owned()));
        assert_eq!(
            network("192.0.2.7/24").map(|net| net.to_string()),
            Ok("192.0.2.0/24".to_owned())
        );
        assert_eq!(
            network("::ffff:10.0.0.0/104").map(|net| net.to_string()),
            Ok("10.0.0.0/8".to_owned())
        );
        for bad in ["", "192.0.2.0/33", "192.0.2", "2001:db8::/129", "host"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn namespaces_are_looked_up_by_path_and_by_process() {
        assert!(netns("/proc/self/ns/net").is_ok());
        assert!(netns(&std::process::id().to_string()).is_ok());
        for bad in
            ["/etc/passwd", "/nowhere", "no-such-name", "", "4294967295", "/proc/self/ns/mnt"]
        {
            assert!(netns(bad).is_err(), "{bad}");
        }
    }
}

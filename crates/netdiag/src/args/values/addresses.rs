//! Value parsers for what is reached by an address: listeners, servers, networks and namespaces.
//!
//! Invariant: an address without a port is told from one with a wrong port.

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::str::FromStr as _;

use ipnet::IpNet;
use netdiag_gateway::UpstreamUrl;
use netdiag_hints::bus::BusUrl;
use netdiag_otlp::Endpoint;

/// Where hints are served unless told otherwise; the original's port.
pub(crate) const HINT_PORT: u16 = 9000;

/// The dashboard's usual port, the original project's.
pub(crate) const DASHBOARD_PORT: u16 = 8501;

/// The gateway's usual port: HTTP's second one, beside engines on 8000.
pub(crate) const GATEWAY_PORT: u16 = 8080;

/// The usual port of `--admin-listen`.
pub(crate) const ADMIN_PORT: u16 = 9901;

/// The usual port of `netdiag fleet`, beside those of hints.
pub(crate) const FLEET_PORT: u16 = 9002;

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

/// `--listen` of the fleet.
pub(crate) fn fleet_listen(text: &str) -> Result<ListenAddr, String> {
    listen_like(text, FLEET_PORT)
}

/// `--upstream`.
pub(crate) fn upstream(text: &str) -> Result<UpstreamUrl, String> {
    text.parse().map_err(|error: netdiag_gateway::InvalidUpstream| error.to_string())
}

/// `--otlp`.
pub(crate) fn otlp(text: &str) -> Result<Endpoint, String> {
    Endpoint::of_base(text).map_err(|error| error.to_string())
}

/// `--bus`.
pub(crate) fn bus(text: &str) -> Result<BusUrl, String> {
    text.parse().map_err(|error: netdiag_hints::bus::InvalidBus| error.to_string())
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
pub(crate) struct ServerUrl {
    /// Name or address, IPv6 in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// `--hints`.
pub(crate) fn hint_url(text: &str) -> Result<ServerUrl, String> {
    server_url(text, HINT_PORT)
}

/// `--gateway`.
pub(crate) fn gateway_url(text: &str) -> Result<ServerUrl, String> {
    server_url(text, ADMIN_PORT)
}

/// `--fleet`.
pub(crate) fn fleet_url(text: &str) -> Result<ServerUrl, String> {
    server_url(text, FLEET_PORT)
}

/// A server of ours, by its usual port if none is given.
fn server_url(text: &str, usual: u16) -> Result<ServerUrl, String> {
    let wanted =
        &format!("must be http://HOST or http://HOST:PORT, such as http://127.0.0.1:{usual}");
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
        _ => (rest, usual),
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
    Ok(ServerUrl { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_servers_are_found_by_url() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let found = hint_url(text).ok();
            let expected = expected.map(|(host, port)| ServerUrl { host: host.to_owned(), port });
            assert_eq!(found, expected, "{text}");
        };
        check("http://127.0.0.1:9000", Some(("127.0.0.1", 9000)));
        check("http://engine-1.lan/", Some(("engine-1.lan", 9000)));
        check("http://[::1]:81", Some(("[::1]", 81)));
        check("http://[::1]", Some(("[::1]", 9000)));
        assert_eq!(gateway_url("http://a").ok().map(|url| url.port), Some(ADMIN_PORT));
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

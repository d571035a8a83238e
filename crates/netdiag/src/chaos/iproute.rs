//! Talking to the kernel's traffic control through `tc` and `ip` (iproute2), which every distribution has and keeps in step
//! with the kernel; and what they say, as far as it matters here.
//!
//! Invariant: a tool that has been started is not interrupted by the Ctrl-C that ends us.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a tool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// It could not be started.
    #[error("`{tool}` cannot be run: {source}; install iproute2")]
    Absent { tool: &'static str, source: io::Error },
    /// It refused, or the kernel did.
    #[error("`{command}`: {complaint}")]
    Refused { command: String, complaint: String },
    /// Its answer is none.
    #[error("`{command}` answers what cannot be read: {source}; iproute2 4.17 or later is needed")]
    Unreadable { command: String, source: serde_json::Error },
    /// It says it has done it, and has not.
    #[error("`{command}` reports success, and nothing has changed")]
    Ignored { command: &'static str },
}

impl ToolError {
    /// Whether the kernel has no such queueing discipline, nor a module with it.
    pub(crate) fn is_unknown_discipline(&self) -> bool {
        // The second is how kernels before 4.16 put it.
        self.complains("qdisc kind is unknown") || self.complains("No such file or directory")
    }

    /// Whether a privilege is lacking.
    pub(crate) fn is_not_permitted(&self) -> bool {
        self.complains("Operation not permitted")
    }

    fn complains(&self, text: &str) -> bool {
        matches!(self, Self::Refused { complaint, .. } if complaint.contains(text))
    }
}

/// A network interface.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Link {
    #[serde(rename = "ifindex")]
    pub(crate) index: u32,
    #[serde(rename = "ifname")]
    pub(crate) name: String,
    #[serde(default, rename = "altnames")]
    other_names: Vec<String>,
    pub(crate) mtu: u32,
    /// The bridge or bond that it is a part of.
    master: Option<String>,
    /// What it stands on (a VLAN's Ethernet), or the other end (of a veth pair).
    link: Option<String>,
}

impl Link {
    /// Whether it is called so.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name || self.other_names.iter().any(|other| other == name)
    }
}

/// The root queueing discipline of an interface.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RootQdisc {
    #[serde(rename = "dev")]
    pub(crate) interface: String,
    pub(crate) kind: String,
    pub(crate) handle: String,
    #[serde(default)]
    root: bool,
}

/// The way to an address.
#[derive(Debug, Deserialize)]
struct Route {
    dev: Option<String>,
}

/// The interfaces of this network namespace.
pub(crate) fn links() -> Result<Vec<Link>, ToolError> {
    ask("ip", &["-j", "link", "show"])
}

/// The root queueing discipline of every interface of this network namespace that is up or has been given one.
pub(crate) fn root_qdiscs() -> Result<Vec<RootQdisc>, ToolError> {
    let all: Vec<RootQdisc> = ask("tc", &["-j", "qdisc", "show"])?;
    Ok(all.into_iter().filter(|qdisc| qdisc.root).collect())
}

/// `tc qdisc VERB dev INTERFACE root handle HANDLE WORDS`.
pub(crate) fn tc_qdisc(
    verb: &str,
    interface: &str,
    handle: &str,
    words: &str,
) -> Result<(), ToolError> {
    let mut args = vec!["qdisc", verb, "dev", interface, "root", "handle", handle];
    args.extend(words.split_whitespace());
    run("tc", &args).map(drop)
}

/// The interface by which packets from `source` leave for `destination`; `None` if they cannot.
pub(crate) fn way(source: IpAddr, destination: IpAddr) -> Result<Option<String>, ToolError> {
    let (source, destination) = (source.to_string(), destination.to_string());
    // Which way often depends on the source, where there are several ways; but the source may be another namespace's.
    let from = ["-j", "route", "get", &destination, "from", &source];
    let routes: Result<Vec<Route>, _> = ask("ip", &from).or_else(|_| ask("ip", &from[..4]));
    match routes {
        Ok(routes) => Ok(routes.into_iter().find_map(|route| route.dev)),
        Err(ToolError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The interfaces that carry what leaves by `interface`: itself, the parts of a bridge or bond, what a VLAN stands on.
pub(crate) fn carriers<'l>(interface: &str, links: &'l [Link]) -> BTreeSet<&'l str> {
    let named = |name: &str| links.iter().find(|link| link.is(name));
    let mut carriers = BTreeSet::new();
    let mut left: Vec<&Link> = named(interface).into_iter().collect();
    while let Some(next) = left.pop() {
        if carriers.insert(next.name.as_str()) {
            left.extend(next.link.as_deref().and_then(named));
            let is_part = |link: &&Link| link.master.as_ref() == Some(&next.name);
            left.extend(links.iter().filter(is_part));
        }
    }
    carriers
}

fn ask<T: DeserializeOwned>(tool: &'static str, args: &[&str]) -> Result<Vec<T>, ToolError> {
    let answer = run(tool, args)?;
    // Some versions print nothing instead of an empty list.
    if answer.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&answer)
        .map_err(|source| ToolError::Unreadable { command: told(tool, args), source })
}

fn run(tool: &'static str, args: &[&str]) -> Result<Vec<u8>, ToolError> {
    let mut command = Command::new(tool);
    // In a process group of its own, which a terminal does not send Ctrl-C to.
    command.args(args).stdin(Stdio::null()).process_group(0);
    let output = command.output().map_err(|source| ToolError::Absent { tool, source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaint = match stderr.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => line.strip_prefix("Error: ").unwrap_or(line).trim_end_matches('.').to_owned(),
        None => output.status.to_string(),
    };
    Err(ToolError::Refused { command: told(tool, args), complaint })
}

fn told(tool: &str, args: &[&str]) -> String {
    format!("{tool} {}", args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, master: Option<&str>, link: Option<&str>) -> Link {
        let [master, link] = [master, link].map(|name| name.map(str::to_owned));
        Link { index: 1, name: name.to_owned(), other_names: vec![], mtu: 1500, master, link }
    }

    #[test]
    fn what_ip_says_is_understood() {
        let text = r#"[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"qdisc":"noqueue"},
            {"ifindex":2,"link":"eth0","ifname":"eth0.7","mtu":1500,"master":"br0","altnames":["enp0s3.7"]},
            {"ifindex":3,"link_index":8,"ifname":"veth9","mtu":9000,"link_netnsid":0}]"#;
        let links: Vec<Link> = serde_json::from_str(text).expect("links");
        assert_eq!((links[0].index, links[0].mtu), (1, 65536));
        assert!(links[1].is("eth0.7") && links[1].is("enp0s3.7") && !links[1].is("eth0"));
        assert_eq!(
            (links[1].master.as_deref(), links[1].link.as_deref()),
            (Some("br0"), Some("eth0"))
        );
        assert_eq!(links[2].link, None);
    }

    #[test]
    fn a_login_may_stand_on_several_interfaces() {
        let links = [
            link("eth0", Some("bond0"), None),
            link("eth1", Some("bond0"), None),
            link("eth2", None, None),
            link("bond0", None, None),
            link("bond0.7", Some("br0"), Some("bond0")),
            link("tap0", Some("br0"), None),
            link("br0", None, None),
            link("va", None, Some("vb")),
            link("vb", None, Some("va")),
        ];
        let check = |interface: &str, expected: &[&str]| {
            let carriers: Vec<_> = carriers(interface, &links).into_iter().collect();
            assert_eq!(carriers, expected, "{interface}");
        };
        check("eth2", &["eth2"]);
        check("bond0.7", &["bond0", "bond0.7", "eth0", "eth1"]);
        check("br0", &["bond0", "bond0.7", "br0", "eth0", "eth1", "tap0"]);
        check("va", &["va", "vb"]);
        check("gone", &[]);
    }
}

//! Logins that a fault could cut off: those of this process and of all that it descends from.
//!
//! `sudo` drops `SSH_CONNECTION`, and a shell in `screen` has that of its own, so the whole chain of parents is read.
//! Whose address leads out by an interface is asked in the network namespace of that interface, even if the login came to
//! another one: what a container forwards may be the very login. Refusing too much costs a flag, refusing too little a login.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use super::iproute::{self, ToolError};

/// A login over the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Login {
    /// Where the person is.
    pub(crate) client: IpAddr,
    /// The address here that was logged in to.
    pub(crate) server: IpAddr,
    /// The interface that a link-local address of the client's belongs to.
    interface: Option<String>,
}

impl Login {
    /// The interface by which it is answered, if it is from this network namespace.
    pub(crate) fn interface(&self) -> Result<Option<String>, ToolError> {
        match &self.interface {
            Some(interface) => Ok(Some(interface.clone())),
            None => iproute::way(self.server, self.client),
        }
    }
}

/// The logins of this process and its ancestors, as far as they can be seen.
pub(crate) fn logins() -> BTreeSet<Login> {
    // Our own environment is not to be read there if the binary has capabilities of its own.
    let own = std::env::var("SSH_CONNECTION").ok();
    let mut logins: BTreeSet<Login> = own.iter().filter_map(|value| login(value)).collect();
    let mut pid = std::os::unix::process::parent_id();
    while pid != 0 {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        logins.extend(ssh_connection(&environment).and_then(login));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        pid = parent(&status).unwrap_or_default();
    }
    logins
}

/// The variable's value in an environment as `/proc/PID/environ` shows it.
fn ssh_connection(environment: &[u8]) -> Option<&str> {
    let mut variables = environment.split(|&byte| byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="))?;
    str::from_utf8(value).ok()
}

/// What `SSH_CONNECTION` tells: the client's address and port, and the server's (ssh(1), ENVIRONMENT).
fn login(ssh_connection: &str) -> Option<Login> {
    let mut words = ssh_connection.split_ascii_whitespace();
    let (client, interface) = address(words.next()?)?;
    let (server, _) = address(words.nth(1)?)?;
    Some(Login { client, server, interface: interface.map(str::to_owned) })
}

/// An address, and the interface that a link-local one names (`fe80::7%eth0`). IPv4 in IPv6 is IPv4.
fn address(text: &str) -> Option<(IpAddr, Option<&str>)> {
    let (address, interface) = match text.split_once('%') {
        Some((address, interface)) => (address, Some(interface)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    Some((address.to_canonical(), interface))
}

fn parent(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_from_an_environment() {
        let check = |environment: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(client, server)| {
                [client, server].map(|ip| ip.parse::<IpAddr>().expect("an address"))
            });
            let login = ssh_connection(environment.as_bytes()).and_then(login);
            let read = login.as_ref().map(|login| [login.client, login.server]);
            assert_eq!(read, expected, "{environment:?}");
            let interface = login.and_then(|login| login.interface);
            let expected = environment.contains("%eth0").then_some("eth0");
            assert_eq!(interface.as_deref(), expected, "{environment:?}");
        };
        let v4 = "HOME=/root\0SSH_CONNECTION=192.0.2.7 50123 198.51.100.1 22\0PATH=/bin\0";
        check(v4, Some(("192.0.2.7", "198.51.100.1")));
        let v6 = "SSH_CONNECTION=2001:db8::7 50123 2001:db8::1 22\0";
        check(v6, Some(("2001:db8::7", "2001:db8::1")));
        let zone = "SSH_CONNECTION=fe80::7%eth0 50123 fe80::1%eth0 22\0";
        check(zone, Some(("fe80::7", "fe80::1")));
        let mapped = "SSH_CONNECTION=::ffff:192.0.2.7 50123 ::ffff:198.51.100.1 22\0";
        check(mapped, Some(("192.0.2.7", "198.51.100.1")));
        check("HOME=/root\0", None);
        check("", None);
        check("SSH_CONNECTION=\0", None);
        check("SSH_CONNECTION=UNKNOWN 65535 UNKNOWN 65535\0", None);
        check("XSSH_CONNECTION=192.0.2.7 1 192.0.2.8 2\0", None);
    }

    #[test]
    fn the_chain_of_parents_has_an_end() {
        let status = fs::read_to_string("/proc/self/status").expect("proc");
        assert_eq!(parent(&status), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent("Name:\tx\nPid:\t1\nPPid:\t0\n"), Some(0));
        logins();
    }
}

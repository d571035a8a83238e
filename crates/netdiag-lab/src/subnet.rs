//! Addresses that no other lab on this machine has.
//!
//! Labs run beside each other in test processes that know nothing of one another, and one with its server on the host
//! puts its addresses among the host's. Each reserves a subnet by binding an abstract socket named after it: binding is
//! atomic, and the kernel releases it however the owner ends, so that no lock file can go stale.
//!
//! IPv4 subnets are the /30s of 198.19.0.0/16, which RFC 2544 sets aside for testing network devices (its other half,
//! 198.18.0.0/16, is taken by popular proxies for addresses they invent). IPv6 subnets are /64s of a unique local
//! prefix (RFC 4193).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// How many /30s a /16 has.
const SUBNETS: u16 = 1 << 14;

/// One lab's addresses, its own until dropped.
#[derive(Debug)]
pub(crate) struct Subnet {
    number: u16,
    _reservation: UnixDatagram,
}

impl Subnet {
    /// Reserves the first free one.
    pub(crate) fn reserve() -> io::Result<Self> {
        for number in 0..SUBNETS {
            let name = format!("netdiag-lab/{}", address(number, 0));
            match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?) {
                Ok(reservation) => return Ok(Self { number, _reservation: reservation }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{SUBNETS} labs are running")))
    }

    /// The server's address.
    pub(crate) fn server(&self) -> Address {
        self.end(1)
    }

    /// The client's address.
    pub(crate) fn client(&self) -> Address {
        self.end(2)
    }

    fn end(&self, host: u16) -> Address {
        // The 40-bit global identifier spells "ndiag".
        let v6 = Ipv6Addr::new(0xfd6e, 0x6469, 0x6167, self.number, 0, 0, 0, host);
        Address { v4: address(self.number, host), v6 }
    }
}

/// One end's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

fn address(number: u16, host: u16) -> Ipv4Addr {
    let [high, low] = (number * 4 + host).to_be_bytes();
    Ipv4Addr::new(198, 19, high, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_held_and_given_back() {
        let first = Subnet::reserve().expect("free");
        let second = Subnet::reserve().expect("free");
        assert_ne!(first.number, second.number);
        assert_ne!(first.client(), first.server());
        let number = first.number;
        drop(first);
        let third = Subnet::reserve().expect("free");
        assert!(third.number <= number, "the lowest free one, {} after {number}", third.number);
    }

    #[test]
    fn the_last_subnet_is_still_inside() {
        assert_eq!(address(SUBNETS - 1, 2), Ipv4Addr::new(198, 19, 255, 254));
    }
}

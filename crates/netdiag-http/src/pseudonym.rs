//! Clients' addresses as they may be shown: pseudonyms that are addresses themselves.
//!
//! A pseudonym is the first 80 bits of HMAC-SHA-256 (RFC 2104) of the address under a key, behind [`NETWORK`], a network of unique local
//! addresses (RFC 4193) that is used for nothing else. So whatever takes an address takes a pseudonym; the same client has the same
//! one wherever the key is the same; and nobody takes it for somebody's address. Of a million clients two have the same with a
//! probability of 10⁻¹².
//!
//! Crypto-PAn (Xu et al., ICNP 2002) keeps prefixes: who is in one network stays in one. That tells more than is needed, because one who
//! knows the pseudonym of an address of their own learns those of their neighbours' networks. Nothing here goes by networks.
//!
//! Invariant: a pseudonym of a pseudonym is itself, so that two processes, one reading the other, may both be asked to do this.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// The first 48 bits of all pseudonyms, fd6e:6574:6469::/48: `fd`, which means that nobody has assigned it, and five letters as the
/// network's number.
const NETWORK: [u8; 6] = [0xfd, b'n', b'e', b't', b'd', b'i'];

/// Fewest bytes of a secret: 128 bits, if it is as random as that.
const SHORTEST_SECRET: usize = 16;

/// Most that are remembered, some five megabytes. A host has ten thousand clients, ten times a second.
const MOST_KNOWN: usize = 1 << 16;

/// Makes pseudonyms under one key; all clones are the same.
#[derive(Clone)]
pub struct Pseudonyms(Arc<Inner>);

struct Inner {
    keyed: Hmac<Sha256>,
    known: Mutex<HashMap<IpAddr, IpAddr>>,
}

/// A secret that can be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the secret has {0} characters; give at least {SHORTEST_SECRET}, such as `openssl rand -hex 32` makes"
)]
pub struct WeakSecret(usize);

impl Pseudonyms {
    /// Those under a secret, which is one line of text; who has it can find out whose a pseudonym is by trying all addresses.
    pub fn try_new(secret: &str) -> Result<Self, WeakSecret> {
        let secret = secret.trim();
        if secret.len() < SHORTEST_SECRET {
            return Err(WeakSecret(secret.len()));
        }
        Ok(Self::of_key(secret.as_bytes()))
    }

    /// Those under a key that nobody has to know.
    pub fn random(key: [u8; 32]) -> Self {
        Self::of_key(&key)
    }

    fn of_key(key: &[u8]) -> Self {
        // Keys of any length are keys of an HMAC, so the other arm is never taken.
        let keyed = Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self(Arc::new(Inner { keyed, known: Mutex::default() }))
    }

    /// The pseudonym of an address.
    pub fn address(&self, address: IpAddr) -> IpAddr {
        let address = address.to_canonical();
        if is_pseudonym(address) {
            return address;
        }
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&pseudonym) = known.get(&address) {
            return pseudonym;
        }
        let pseudonym = self.calculate(address);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(address, pseudonym);
        pseudonym
    }

    /// The same with its port, which says nothing of who somebody is.
    pub fn socket(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.address(address.ip()), address.port())
    }

    fn calculate(&self, address: IpAddr) -> IpAddr {
        let mut keyed = self.0.keyed.clone();
        match address {
            IpAddr::V4(address) => keyed.update(&address.octets()),
            IpAddr::V6(address) => keyed.update(&address.octets()),
        }
        let hash = keyed.finalize().into_bytes();
        let mut octets = [0; 16];
        octets[..NETWORK.len()].copy_from_slice(&NETWORK);
        octets[NETWORK.len()..].copy_from_slice(&hash[..16 - NETWORK.len()]);
        Ipv6Addr::from(octets).into()
    }
}

/// Whether an address is one of ours.
fn is_pseudonym(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.octets().starts_with(&NETWORK))
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pseudonyms").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_same_address_has_the_same_pseudonym_under_the_same_key() {
        let secret = "0123456789abcdef";
        let (one, same) = (Pseudonyms::try_new(secret), Pseudonyms::try_new("0123456789abcdef\n"));
        let (one, same) = (one.expect("a secret"), same.expect("a secret"));
        let other = Pseudonyms::random([7; 32]);
        for address in ["192.0.2.1", "2001:db8::1", "::1"] {
            let pseudonym = one.address(ip(address));
            assert_eq!(pseudonym, one.address(ip(address)));
            assert_eq!(pseudonym, same.address(ip(address)));
            assert_ne!(pseudonym, other.address(ip(address)));
            assert!(pseudonym.to_string().starts_with("fd6e:6574:6469:"), "{pseudonym}");
        }
        assert_eq!(one.address(ip("::ffff:192.0.2.1")), one.address(ip("192.0.2.1")));
        assert_ne!(one.address(ip("192.0.2.1")), one.address(ip("192.0.2.2")));
    }

    #[test]
    fn it_is_hmac_sha_256() {
        // printf '\xc0\x00\x02\x01' | openssl dgst -sha256 -hmac 0123456789abcdef
        let pseudonyms = Pseudonyms::try_new("0123456789abcdef").expect("a secret");
        assert_eq!(
            pseudonyms.address(ip("192.0.2.1")),
            ip("fd6e:6574:6469:400:ee4d:e38e:1234:a7f9")
        );
    }

    #[test]
    fn a_pseudonym_is_its_own() {
        let (one, other) = (Pseudonyms::random([1; 32]), Pseudonyms::random([2; 32]));
        let pseudonym = one.address(ip("192.0.2.1"));
        assert_eq!(other.address(pseudonym), pseudonym);
        let socket = SocketAddr::new(ip("192.0.2.1"), 443);
        assert_eq!(one.socket(socket), SocketAddr::new(pseudonym, 443));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let pseudonyms = Pseudonyms::random([3; 32]);
        for number in 0..=u32::try_from(MOST_KNOWN).expect("fits") {
            pseudonyms.address(IpAddr::V4(number.into()));
        }
        assert!(pseudonyms.0.known.lock().expect("no panic").len() <= MOST_KNOWN);
    }

    #[test]
    fn secrets_are_long_and_never_shown() {
        assert_eq!(Pseudonyms::try_new("short \n").expect_err("short"), WeakSecret(5));
        let pseudonyms = Pseudonyms::try_new("0123456789abcdef").expect("a secret");
        assert_eq!(format!("{pseudonyms:?}"), "Pseudonyms { .. }");
    }
}

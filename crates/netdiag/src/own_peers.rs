//! Servers that this process is the client of: the message bus, a collector of metrics. The probe leaves them out, because nobody
//! paces what we say about pacing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Where they are, as far as is known; all clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnPeers {
    /// What the probe reads.
    all: Arc<RwLock<Vec<SocketAddr>>>,
    known: Arc<Mutex<BTreeMap<&'static str, Vec<SocketAddr>>>>,
}

impl OwnPeers {
    /// Those that the probe leaves out by `all`.
    pub(crate) fn new(all: Arc<RwLock<Vec<SocketAddr>>>) -> Self {
        Self { all, known: Arc::default() }
    }

    /// One of them is at these addresses. A name that cannot be resolved now is still where it was.
    pub(crate) fn set(&self, who: &'static str, addresses: &[SocketAddr]) {
        if addresses.is_empty() {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(who, addresses.to_vec());
        let all = known.values().flatten().copied().collect();
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_does_not_forget_the_other() {
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let (a, b, c) = (address("192.0.2.1:1"), address("192.0.2.2:2"), address("192.0.2.3:3"));
        let all = Arc::default();
        let own = OwnPeers::new(Arc::clone(&all));
        own.set("bus", &[a]);
        own.set("otlp", &[b]);
        own.set("otlp", &[]);
        own.set("bus", &[c]);
        assert_eq!(*all.read().expect("no panic"), [c, b]);
    }
}

//! Which of several processes is the leader: whoever holds a lease in a key-value bucket.
//!
//! The key holds who leads, as `NODE SESSION`; each write is conditional on the revision before it (compare-and-set), so of two who write
//! only one succeeds. The leader writes again and again. Who sees the same revision for a whole lease, by its own clock, writes itself
//! in; a leader whose writes have not succeeded for a lease, by its own clock, leads no more. So clocks need not agree, only run at one
//! speed, and the broker need not expire anything. (Gray & Cheriton, *Leases*, SOSP 1989; Kubernetes' leader election does the same.)
//!
//! Invariant: a process leads only within the lease that it counts from before its last successful write.

use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::jetstream::kv::{
    CreateError, CreateErrorKind, Entry, Operation, Store, UpdateError, UpdateErrorKind,
};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::bucket::{self, Bucket};
use super::connection::Bus;
use super::publisher::session;
use super::subject::NodeName;

/// The bucket, and the key in it.
const BUCKET: Bucket = Bucket {
    name: "netdiag_v1_fleet",
    what: "Who leads the fleet",
    kept: Duration::ZERO,
    size: 64 * 1024,
};
const KEY: &str = "leader";

/// How long a leader leads without writing. With a [`TRY`] more it is the longest time without one: well within three seconds.
const LEASE: Duration = Duration::from_millis(1500);

/// How often the key is looked at or written.
const TRY: Duration = Duration::from_millis(300);

/// How long the broker may take for one of it.
const PATIENCE: Duration = Duration::from_millis(600);

/// With so many failures in a row it is told, once.
const TOLD: u32 = 2;

/// What one knows of the leader.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Leadership {
    /// Who it is; `None` while nobody is.
    pub(crate) leader: Option<NodeName>,
    /// When its lease ends without another write, as far as is known here.
    pub(crate) until: Option<Instant>,
    /// While it is oneself.
    pub(crate) own: Option<Term>,
}

/// A time as the leader.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Term {
    /// Grows from one leader to the next, as long as the bucket is there.
    pub(crate) number: u64,
    /// When it ends without another write.
    pub(crate) until: Instant,
}

impl Leadership {
    /// The number of the term, if one leads at `now`.
    pub(crate) fn leads(&self, now: Instant) -> Option<u64> {
        self.own.filter(|term| now < term.until).map(|term| term.number)
    }
}

/// Stands for election as `node` until `stop`, and gives the lease back then.
pub(crate) async fn stand(
    bus: &Bus,
    node: &NodeName,
    known: &watch::Sender<Leadership>,
    stop: impl Future<Output = ()>,
) {
    let mut candidate = Candidate {
        node,
        own: format!("{node} {}", session()).into(),
        bucket: None,
        seen: None,
        held: None,
        failures: 0,
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        let leadership = candidate.look(bus).await;
        known.send_if_modified(|before| {
            let is_news = *before != leadership;
            *before = leadership;
            is_news
        });
        tokio::select! {
            () = sleep(TRY) => {}
            () = &mut stop => break,
        }
    }
    if let (Some(bucket), Some(held)) = (candidate.bucket, candidate.held) {
        // The next one need not wait for the lease to end.
        let _ = timeout(PATIENCE, bucket.delete_expect_revision(KEY, Some(held.revision))).await;
    }
}

struct Candidate<'a> {
    node: &'a NodeName,
    /// What it writes. Two processes that go by one name differ in when they began.
    own: Bytes,
    bucket: Option<Store>,
    /// What another leader wrote last, and since when it is known.
    seen: Option<(Write, Instant)>,
    held: Option<Held>,
    /// Looks in a row that have failed while there was a connection.
    failures: u32,
}

/// A write, told from all others by its revision and by when its server took it in. In another bucket revisions are counted anew, and in
/// the same one, too, when its servers have lost their memory.
type Write = (u64, DateTime);

#[derive(Clone, Copy)]
struct Held {
    term: u64,
    revision: u64,
    until: Instant,
}

impl Candidate<'_> {
    async fn look(&mut self, bus: &Bus) -> Leadership {
        let leader = match timeout(PATIENCE, bus.ask(self.try_look(bus))).await {
            Ok(Ok(leader)) => {
                self.failures = 0;
                leader
            }
            failed => {
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "no answer in time".to_owned(),
                };
                // A bucket that was lost with its server is made anew at the next look, so one failure is nothing.
                self.bucket = None;
                self.failures =
                    if bus.is_connected() { self.failures.saturating_add(1) } else { 0 };
                if self.failures == TOLD {
                    tracing::warn!(
                        "fleet: no leader can be chosen ({why}); does the server run with JetStream (`nats-server -js`), \
                         may we use it, and has a cluster three servers (else make the bucket with `--replicas 1`)?"
                    );
                }
                None
            }
        };
        let now = Instant::now();
        self.held = self.held.filter(|held| now < held.until);
        let own = self.held.map(|held| Term { number: held.term, until: held.until });
        let leader = own.map(|_| self.node.clone()).or(leader);
        let until = match own {
            Some(term) => Some(term.until),
            None => self.seen.map(|(_, since)| since + LEASE).filter(|_| leader.is_some()),
        };
        Leadership { leader, until, own }
    }

    /// Writes or looks; who leads, if it is somebody else.
    async fn try_look(&mut self, bus: &Bus) -> Result<Option<NodeName>, async_nats::Error> {
        let bucket = match &self.bucket {
            Some(bucket) => bucket.clone(),
            None => self.bucket.insert(bucket::open(bus, BUCKET).await?).clone(),
        };
        let mut before = Instant::now();
        if self.renew(&bucket, before).await? {
            return Ok(None);
        }
        let mut entry = present(&bucket).await?;
        if let (Some(held), Some(entry)) = (&mut self.held, &entry)
            && entry.value == self.own
        {
            // Our own write, whose answer was too late.
            held.revision = entry.revision;
            before = Instant::now();
            if self.renew(&bucket, before).await? {
                return Ok(None);
            }
        }
        if self.held.take().is_some() {
            entry = present(&bucket).await?;
        }
        let taken = match entry {
            None => created(bucket.create(KEY, self.own.clone()).await)?,
            Some(entry) => {
                let now = Instant::now();
                let since = since(&mut self.seen, (entry.revision, entry.created), now);
                if now.saturating_duration_since(since) < LEASE {
                    return Ok(leader_in(&entry.value));
                }
                // It has not written for a whole lease.
                before = Instant::now();
                updated(bucket.update(KEY, self.own.clone(), entry.revision).await)?
            }
        };
        // Whoever was quicker is seen the next time.
        self.seen = None;
        if let Some(revision) = taken {
            self.held = Some(Held { term: revision, revision, until: before + LEASE });
        }
        Ok(None)
    }

    /// Writes once more what is held already; whether it still is.
    async fn renew(&mut self, bucket: &Store, now: Instant) -> Result<bool, async_nats::Error> {
        let Some(held) = &mut self.held else { return Ok(false) };
        match updated(bucket.update(KEY, self.own.clone(), held.revision).await)? {
            Some(revision) => {
                (held.revision, held.until) = (revision, now + LEASE);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// Since when, by our own clock, the write is known that is there `now`. Looks that have failed meanwhile change nothing, nor does a bucket
/// that was opened anew: a write that is still there is its leader's last, and that leader counts its lease from before it.
fn since<W: PartialEq>(seen: &mut Option<(W, Instant)>, write: W, now: Instant) -> Instant {
    let known = seen.as_ref().filter(|(known, _)| *known == write).map(|(_, since)| *since);
    known.unwrap_or_else(|| seen.insert((write, now)).1)
}

/// What is in the bucket of a leader who has not given up.
async fn present(bucket: &Store) -> Result<Option<Entry>, async_nats::Error> {
    let entry = bucket.entry(KEY).await?;
    Ok(entry.filter(|entry| entry.operation == Operation::Put))
}

/// The leader that has written this.
fn leader_in(value: &[u8]) -> Option<NodeName> {
    let text = std::str::from_utf8(value).ok()?;
    NodeName::try_new(text.split(' ').next()?).ok()
}

/// The new revision; `None` if somebody else has written meanwhile.
fn updated(result: Result<u64, UpdateError>) -> Result<Option<u64>, async_nats::Error> {
    match result {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The same of a key that was not there.
fn created(result: Result<u64, CreateError>) -> Result<Option<u64>, async_nats::Error> {
    match result {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_when_its_write_was_first_seen() {
        let start = Instant::now();
        let mut seen = None;
        let mut look = |write: (u64, &'static str), millis| {
            let now = start + Duration::from_millis(millis);
            now - since(&mut seen, write, now)
        };
        assert_eq!(look((5, "noon"), 0), Duration::ZERO);
        assert_eq!(look((6, "noon"), 300), Duration::ZERO);
        // Looks between have failed.
        assert_eq!(look((6, "noon"), 1800), LEASE);
        // The same revision, counted anew by a server that has lost its memory.
        assert_eq!(look((6, "one"), 2100), Duration::ZERO);
    }
}

//! The bucket of last values, for whoever joins late: what each node said last of each scope.
//!
//! Written a second late at most and a few hundred values at a time, because it costs the broker an answer each; read once, when a
//! subscriber begins. Invariant: a broker without JetStream, or one that is slow with it, costs late joiners their first glance and
//! nobody anything else.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::kv::Store;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _};
use netdiag_telemetry::give_back;
use tokio::time::{sleep, timeout};

use super::bucket::{self, Bucket};
use super::connection::Bus;
use super::subject;

/// The bucket: what nobody has said anew for two minutes is of a node or a stream that is no more; some fifty thousand hints fit.
const BUCKET: Bucket = Bucket {
    name: "netdiag_v1_hints",
    what: "The last hint of each scope of each node",
    kept: Duration::from_secs(120),
    size: 64 << 20,
};

/// Values written at a time. The broker answers each; so many are some ten milliseconds of its work.
const AT_ONCE: usize = 256;

/// How many of them may wait for their answers: enough to fill the way there and back.
const UNANSWERED: usize = 32;

/// Values that may wait.
const MOST_WAITING: usize = 100 * AT_ONCE;

/// Time for an answer, and for all that is read at the beginning: a broker that takes longer is in trouble, on however long a way.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time before a broker that could not do it is asked again: it has to be configured first.
const PAUSE: Duration = Duration::from_secs(30);

/// How often values are written.
const OFTEN: Duration = Duration::from_secs(1);

/// Values that wait to be written, each in the place of older ones of its key.
#[derive(Debug, Default)]
pub(crate) struct LastValues(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    values: HashMap<String, Bytes>,
    /// Their keys: the host's, then those that have waited longest.
    order: VecDeque<String>,
}

impl Waiting {
    fn set(&mut self, key: String, value: Bytes, is_host: bool) {
        if let Some(waiting) = self.values.get_mut(&key) {
            *waiting = value;
        } else if self.values.len() < MOST_WAITING || is_host {
            // Scopes come and go; what waits must not outgrow those that are. The host's is what most who join late want, and must not
            // wait for ten thousand peers'.
            if is_host {
                self.order.push_front(key.clone());
            } else {
                self.order.push_back(key.clone());
            }
            self.values.insert(key, value);
        }
    }

    fn take(&mut self) -> Vec<(String, Bytes)> {
        let count = AT_ONCE.min(self.order.len());
        let keys: Vec<String> = self.order.drain(..count).collect();
        let taken = keys.into_iter().filter_map(|key| self.values.remove_entry(&key)).collect();
        give_back(&mut self.values);
        taken
    }
}

impl LastValues {
    /// What is written next, unless something newer of the same key comes first; a host's before all others.
    pub(crate) fn set(&self, key: String, value: Bytes, is_host: bool) {
        self.waiting().set(key, value, is_host);
    }

    /// Writes what waits, for ever, and counts it in `kept`.
    pub(crate) async fn keep(&self, bus: &Bus, kept: &AtomicU64) {
        let (mut bucket, mut failures, mut told) = (None, 0, false);
        loop {
            sleep(OFTEN).await;
            let why = match self.write(bus, &mut bucket).await {
                // That nothing was to be written says nothing.
                Ok(0) => continue,
                Ok(written) => {
                    failures = 0;
                    kept.fetch_add(written as u64, Ordering::Relaxed);
                    if std::mem::take(&mut told) {
                        tracing::info!("bus: last values are kept again");
                    }
                    continue;
                }
                Err(error) => error.to_string(),
            };
            // One that was lost with its server is made anew the next time.
            let had_one = bucket.take().is_some();
            if !bus.is_connected() {
                // There is nothing to tell that has not been told.
                continue;
            }
            failures += 1;
            if failures > 1 || !had_one {
                complain(&mut told, &why);
                // One that cannot is not pestered.
                sleep(PAUSE).await;
                *self.waiting() = Waiting::default();
            }
        }
    }

    async fn write(
        &self,
        bus: &Bus,
        bucket: &mut Option<Store>,
    ) -> Result<usize, async_nats::Error> {
        let bucket = match bucket {
            Some(bucket) => bucket,
            None => bucket.insert(answered(bus, bucket::open(bus, BUCKET)).await?),
        };
        let batch = self.waiting().take();
        let written = batch.len();
        let mut puts = batch.into_iter().map(|(key, value)| answered(bus, bucket.put(key, value)));
        let mut under_way: FuturesUnordered<_> = puts.by_ref().take(UNANSWERED).collect();
        let mut failure = None;
        while let Some(answer) = under_way.next().await {
            match answer {
                Ok(_revision) if failure.is_none() => under_way.extend(puts.next()),
                Ok(_revision) => {}
                // The answers to the others are on their way.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(written), Err)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn complain(told: &mut bool, why: &str) {
    if !std::mem::replace(told, true) {
        tracing::warn!(
            "bus: last values cannot be kept ({why}), so who joins late waits for the next hint; does the server run \
             with JetStream (`nats-server -js`), may we use it, has a cluster three servers (else make the bucket with \
             `--replicas 1`), and is there room in the bucket `{}`?",
            BUCKET.name
        );
    }
}

/// The last values of the keys that `filter` names, as subjects and payloads; nothing where there is no bucket.
pub(crate) async fn read(bus: &Bus, filter: &str) -> Vec<(String, Bytes)> {
    let mut values = Vec::new();
    let reading = async {
        let bucket = jetstream::new(bus.client.clone()).get_key_value(BUCKET.name).await?;
        let mut entries = bucket.watch_with_history(filter).await?;
        // Without values there is no first entry that would say how many follow.
        let subjects = format!("{}{filter}", bucket.prefix);
        if bucket.stream.info_with_subjects(subjects).await?.try_next().await?.is_none() {
            return Ok(());
        }
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let is_last = entry.delta == 0;
            values.push((subject::subject(&entry.key), entry.value));
            if is_last {
                break;
            }
        }
        Ok::<_, async_nats::Error>(())
    };
    match timeout(PATIENCE, reading).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("bus: no last values: {error}"),
        Err(_) => tracing::debug!("bus: no last values in time"),
    }
    values
}

/// What comes of a question, within [`PATIENCE`].
async fn answered<T, E: Into<async_nats::Error>>(
    bus: &Bus,
    question: impl Future<Output = Result<T, E>>,
) -> Result<T, async_nats::Error> {
    timeout(PATIENCE, bus.ask(question)).await.map_err(|_| "no answer in time")?.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_turn_and_the_newest_is_written() {
        let mut waiting = Waiting::default();
        let mut written: HashMap<String, u32> = HashMap::new();
        for round in 0..40 {
            // Everything changes all the time.
            for key in 0..2000 {
                waiting.set(format!("n.{key}"), round.to_string().into(), false);
            }
            waiting.set("n.host".to_owned(), round.to_string().into(), true);
            let batch = waiting.take();
            assert_eq!((batch.len(), batch[0].0.as_str()), (AT_ONCE, "n.host"));
            for (key, value) in batch {
                assert_eq!(value, round.to_string());
                *written.entry(key).or_default() += 1;
            }
        }
        assert_eq!(written.remove("n.host"), Some(40));
        assert!(written.len() == 2000 && written.values().all(|times| *times >= 5));
    }
}

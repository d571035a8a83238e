//! The bucket of last values, for whoever joins late: what each node said last of each scope.
//!
//! Written a second late at most and a few hundred values at a time, because it costs the broker an answer each; read once, when a
//! subscriber begins. Invariant: a broker without JetStream, or one that is slow with it, costs late joiners their first glance and
//! nobody anything else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::kv::Store;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{sleep, timeout};

use super::bucket;
use super::connection::Bus;

/// The bucket's name.
const BUCKET: &str = "netdiag_v1_hints";

/// What nobody has said anew for so long is of a node or a stream that is no more.
const KEPT: Duration = Duration::from_secs(120);

/// Values written at once, and how many of them may wait for their answers.
const AT_ONCE: usize = 256;
const UNANSWERED: usize = 32;

/// Values that may wait.
const MOST_WAITING: usize = 100 * AT_ONCE;

/// Time for all of them, and for finding the bucket.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time before a broker that could not do it is asked again.
const PAUSE: Duration = Duration::from_secs(30);

/// How often values are written.
const OFTEN: Duration = Duration::from_secs(1);

/// Values that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct LastValues(Mutex<HashMap<String, Bytes>>);

impl LastValues {
    /// What is written next, unless something newer of the same key comes first.
    pub(crate) fn set(&self, key: String, value: Bytes) {
        let mut waiting = self.waiting();
        // Scopes come and go; what waits must not outgrow those that are.
        if waiting.len() < MOST_WAITING || waiting.contains_key(&key) {
            waiting.insert(key, value);
        }
    }

    /// Writes what waits, for ever, and counts it in `kept`.
    pub(crate) async fn keep(&self, bus: &Bus, kept: &AtomicU64) {
        let (mut bucket, mut told) = (None, false);
        loop {
            sleep(OFTEN).await;
            match timeout(PATIENCE, self.write(bus, &mut bucket)).await {
                Ok(Ok(written)) => {
                    kept.fetch_add(written as u64, Ordering::Relaxed);
                    if std::mem::take(&mut told) {
                        tracing::info!("bus: last values are kept again");
                    }
                    continue;
                }
                // It was away; there is nothing to tell that has not been told.
                _ if !bus.is_connected() => {}
                Ok(Err(error)) => complain(&mut told, &error.to_string()),
                Err(_) => complain(&mut told, "no answer in time"),
            }
            bucket = None;
            if told {
                // One that cannot is not pestered.
                sleep(PAUSE).await;
            }
            self.waiting().clear();
        }
    }

    async fn write(
        &self,
        bus: &Bus,
        bucket: &mut Option<Store>,
    ) -> Result<usize, async_nats::Error> {
        let bucket = match bucket {
            Some(bucket) => bucket,
            None => {
                let what = "The last hint of each scope of each node";
                bucket.insert(bucket::open(bus, BUCKET, what, KEPT).await?)
            }
        };
        let batch: Vec<(String, Bytes)> = {
            let mut waiting = self.waiting();
            let keys: Vec<String> = waiting.keys().take(AT_ONCE).cloned().collect();
            keys.into_iter().filter_map(|key| waiting.remove_entry(&key)).collect()
        };
        let written = batch.len();
        let bucket = &*bucket;
        stream::iter(batch)
            .map(|(key, value)| async move { bucket.put(key, value).await })
            .buffer_unordered(UNANSWERED)
            .try_for_each(|_revision| std::future::ready(Ok(())))
            .await?;
        Ok(written)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Bytes>> {
        // Each change is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn complain(told: &mut bool, why: &str) {
    if !std::mem::replace(told, true) {
        tracing::warn!(
            "bus: last values cannot be kept ({why}), so who joins late waits for the next hint; does the server run \
             with JetStream (`nats-server -js`)?"
        );
    }
}

/// The last values of the keys that `filter` names, as subjects and payloads; nothing where there is no bucket.
pub(crate) async fn read(bus: &Bus, filter: &str) -> Vec<(String, Bytes)> {
    let mut values = Vec::new();
    let reading = async {
        let bucket = jetstream::new(bus.client.clone()).get_key_value(BUCKET).await?;
        let mut entries = bucket.watch_with_history(filter).await?;
        // Without values there is no first entry that would say how many follow.
        if bucket.status().await?.values() == 0 {
            return Ok(());
        }
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let is_last = entry.delta == 0;
            values.push((super::subject::subject(&entry.key), entry.value));
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

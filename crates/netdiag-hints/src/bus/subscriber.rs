//! Hints from the bus: the newest of each scope, as soon as it comes.
//!
//! A task takes messages off the connection as they come, so a consumer that is slow misses what was replaced meanwhile, and nothing of
//! what is new. Invariant: memory is bounded by the scopes there are ([`Latest`]), whatever is published and however slow the consumer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::Bus;
use super::latest::Latest;
use super::message::NodeHint;
use super::publisher::unix_time;
use super::settings::BusSettings;
use super::{last_values, subject};

/// What one hears of a scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The hint as it was published.
    pub hint: NodeHint,
    /// For how long it still holds; nothing: it has lapsed, and its node or the way to it is gone.
    pub holds: Duration,
}

/// Listens to all nodes' hints.
#[derive(Debug)]
pub struct HintSubscriber {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    latest: Mutex<Latest>,
    heard: AtomicU64,
    news: Notify,
}

impl HintSubscriber {
    /// Connects and listens to what `filter` names: `>` for all, `*.host` for all hosts, `NODE.>` for one node. Returns when the last
    /// values have been read, and tries until then.
    pub async fn start(settings: &BusSettings, filter: &str) -> Self {
        let bus = Bus::connect(settings).await;
        let subject = subject::subject(filter);
        let subscription = loop {
            // It fails only while the connection is being closed, which nobody does.
            match bus.client.subscribe(subject.clone()).await {
                Ok(subscription) => break subscription,
                Err(error) => tracing::debug!("bus: {subject}: {error}"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let shared = Arc::new(Shared::default());
        // Live hints are heard meanwhile, and are newer.
        for (subject, payload) in last_values::read(&bus, filter).await {
            shared.hear(&subject, &payload, true);
        }
        let listening = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let (mut subscription, bus) = (subscription, bus);
            let mut overruns = 0;
            while let Some(message) = subscription.next().await {
                listening.hear(message.subject.as_str(), &message.payload, false);
                if bus.overruns() > overruns {
                    overruns = bus.overruns();
                    tracing::debug!("bus: hints come faster than they are taken; some are lost");
                }
            }
        });
        Self { shared, task }
    }

    /// The next news: the newest hint of the scope that has waited longest to be looked at.
    pub async fn next(&mut self) -> Update {
        loop {
            if let Some((hint, holds)) = self.shared.latest().take(Instant::now()) {
                return Update { hint, holds };
            }
            self.shared.news.notified().await;
        }
    }

    /// How many hints were heard, those that others of their scope replaced before anybody looked included.
    pub fn heard(&self) -> u64 {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// The newest hint of every scope, those that have just lapsed included, in no order.
    pub fn all(&self) -> Vec<Update> {
        let all = self.shared.latest().all(Instant::now());
        all.into_iter().map(|(hint, holds)| Update { hint, holds }).collect()
    }
}

impl Drop for HintSubscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn hear(&self, subject: &str, payload: &[u8], is_kept: bool) {
        match NodeHint::parse(subject, payload) {
            Ok((key, hint)) => {
                // Of what comes at once the age is nothing, whatever the two clocks say. Of what was kept only they can tell.
                let age = if is_kept { age(&hint) } else { Duration::ZERO };
                self.heard.fetch_add(1, Ordering::Relaxed);
                if self.latest().hear(key, hint, age, Instant::now()) {
                    self.news.notify_one();
                }
            }
            Err(error) => tracing::debug!(subject, "bus: a message is left out: {error}"),
        }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        // Each change is complete in itself.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long ago it was said, by two clocks that should agree.
fn age(hint: &NodeHint) -> Duration {
    Duration::try_from_secs_f64(unix_time().as_secs_f64() - hint.time).unwrap_or_default()
}

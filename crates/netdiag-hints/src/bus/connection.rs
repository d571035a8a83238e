//! The connection to the broker: made, kept, and made again for ever.
//!
//! Whatever goes wrong is tried again, wrong credentials, too: whoever runs the broker will mend it without knowing of us.
//!
//! Invariant: no client's address is in what is told of a connection at `info` or worse.

use std::collections::HashSet;
use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::time::sleep;

use super::settings::{BusSettings, Credentials};

/// Shortest and longest time between two tries. A broker that is back is found within the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A connection on which nothing was heard for three of these is dead: hints are worth seconds.
const PING: Duration = Duration::from_secs(1);

/// Time to connect, TLS and all.
const CONNECT: Duration = Duration::from_secs(3);

/// Messages that may wait between us and the connection. What finds no room is dropped, so that little that is old is sent after
/// a broker that hung goes on.
const WAITING: usize = 256;

/// Questions to the broker that may go unanswered on one connection. The library keeps each of them until its answer comes or the
/// connection is given up, some 330 bytes: a third of a megabyte.
const MOST_UNANSWERED: u32 = 1000;

/// Complaints that are told of one connection.
const MOST_TOLD: usize = 16;

/// What subjects and keys of hints begin with; a node's name follows.
const HINTS: [&str; 2] = ["netdiag.v1.hint.", "$KV.netdiag_v1_hints."];

/// Levels behind that, which a client's address follows.
const CLIENTS: [&str; 2] = [".peer.", ".stream."];

/// A connection, and what has become of it.
#[derive(Clone, Debug)]
pub struct Bus {
    pub(crate) client: Client,
    settings: BusSettings,
    life: Arc<Life>,
    /// Where the broker is asked: the same connection, until too much of what was asked on it was not answered.
    asking: Arc<Mutex<Client>>,
}

#[derive(Debug, Default)]
struct Life {
    is_connected: AtomicBool,
    /// Connections made, the first included.
    connections: AtomicU64,
    /// Subscriptions that were too slow, as often as they were told so.
    overruns: AtomicU64,
    /// Questions that were not answered where the broker is asked at present.
    unanswered: AtomicU32,
    /// What was told of what is wrong, a few texts at most.
    told: Mutex<HashSet<String>>,
}

impl Bus {
    /// Connects; tries until it succeeds. What goes wrong is logged when it begins.
    pub async fn connect(settings: &BusSettings) -> Self {
        let (mut pause, longest) = PAUSES;
        let mut told = None;
        loop {
            match Self::try_connect(settings).await {
                Ok(bus) => return bus,
                Err(error) => {
                    let error = with_remedy(&error);
                    if told.as_ref() != Some(&error) {
                        tracing::warn!("bus {}: {error}; trying again", settings.place());
                        told = Some(error);
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Connects, or says at once why not.
    ///
    /// # Errors
    ///
    /// The broker is not there, or refuses us.
    pub async fn try_connect(settings: &BusSettings) -> Result<Self, async_nats::ConnectError> {
        let life = Arc::new(Life::default());
        let client = connect(settings, Some(Arc::clone(&life))).await?;
        let asking = Arc::new(Mutex::new(client.clone()));
        Ok(Self { client, settings: settings.clone(), life, asking })
    }

    /// The connection to ask the broker on, in [`Bus::ask`]. Whoever was not answered asks for it anew, and so gets another one in time:
    /// it is made meanwhile.
    pub(crate) fn asking(&self) -> Client {
        let is_full = |unanswered| (unanswered >= MOST_UNANSWERED).then_some(0);
        let unanswered = &self.life.unanswered;
        if unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_full).is_ok() {
            let bus = self.clone();
            tokio::spawn(async move {
                // What becomes of it the first one's life tells as well.
                match connect(&bus.settings, None).await {
                    Ok(client) => *bus.asked() = client,
                    Err(_) => {
                        bus.life.unanswered.fetch_add(MOST_UNANSWERED, Ordering::Relaxed);
                    }
                }
            });
        }
        self.asked().clone()
    }

    /// What comes of a question. It is counted where it was sent and is given up before it is answered; one that waits for a connection
    /// itself is sent, and answered, when there is one.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        let is_sent = is_connected(&self.asked());
        let mut open = Open(is_sent.then_some(&self.life.unanswered));
        let answer = question.await;
        open.0 = None;
        answer
    }

    fn asked(&self) -> MutexGuard<'_, Client> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The servers, for people.
    pub fn place(&self) -> String {
        self.settings.place()
    }

    /// Whether what is sent now leaves now.
    pub fn is_connected(&self) -> bool {
        is_connected(&self.client)
    }

    /// Connections made, the first included.
    pub(crate) fn connections(&self) -> u64 {
        self.life.connections.load(Ordering::Relaxed)
    }

    /// How often the broker's messages came faster than they were taken.
    pub(crate) fn overruns(&self) -> u64 {
        self.life.overruns.load(Ordering::Relaxed)
    }
}

/// What is wrong with a connection that could not be made, and what may be done where that is known.
fn with_remedy(error: &async_nats::ConnectError) -> String {
    use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation};
    let of_io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    let of_tls = of_io.and_then(std::io::Error::get_ref).and_then(|error| error.downcast_ref());
    match (error.kind(), of_tls) {
        (Authentication | AuthorizationViolation, _) => {
            format!("{error}; the server wants another token, login or credentials file")
        }
        (_, Some(rustls::Error::InvalidMessage(_))) => {
            format!("{error}; that server does not speak TLS, which nats:// does without")
        }
        _ => error.to_string(),
    }
}

/// A question that is on its way, to be counted there when it is given up.
struct Open<'a>(Option<&'a AtomicU32>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(unanswered) = self.0 {
            unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn is_connected(client: &Client) -> bool {
    client.connection_state() == async_nats::connection::State::Connected
}

/// Connects once, and keeps the connection; what happens to it is told in `life`.
async fn connect(
    settings: &BusSettings,
    life: Option<Arc<Life>>,
) -> Result<Client, async_nats::ConnectError> {
    let mut options = ConnectOptions::new()
        .name(&settings.name)
        // Of its own, so that the broker's permissions can keep others from reading its answers.
        .custom_inbox_prefix(format!("_INBOX.{}", settings.name))
        .client_capacity(WAITING)
        .subscription_capacity(settings.untaken)
        .ping_interval(PING)
        .connection_timeout(CONNECT)
        .max_reconnects(None)
        // Only what it was told to speak to is spoken to.
        .ignore_discovered_servers()
        .reconnect_delay_callback(pause_before);
    if let Some(life) = life {
        options = options.event_callback(told(life, settings.place()));
    }
    if let Some((user, password)) = settings.servers.iter().find_map(|url| url.login.clone()) {
        options = options.user_and_password(user, password);
    }
    options = match settings.credentials.clone() {
        None => options,
        Some(Credentials::Token(token)) => options.token(token),
        Some(Credentials::File(text)) => options.credentials(&text).map_err(|error| {
            async_nats::ConnectError::with_source(
                async_nats::ConnectErrorKind::Authentication,
                error,
            )
        })?,
    };
    if let Some(tls) = &settings.tls {
        options = options.tls_client_config(tls.clone());
    }
    let servers: Vec<ServerAddr> = settings.servers.iter().map(|url| url.server.clone()).collect();
    options.connect(servers).await
}

impl Life {
    fn complain(&self, place: &str, error: &str) {
        let error = without_clients(error);
        if self.is_news(&error) {
            tracing::warn!("bus {place}: {error}");
        }
    }

    fn is_news(&self, error: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // A server that finds ever new words is not repeated for ever.
        told.len() < MOST_TOLD && told.insert(error.to_owned())
    }
}

/// A text in which subjects and keys end where a client's address begins: no client is told of at `warn`, and what is wrong with one is
/// wrong with all of them.
fn without_clients(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) =
        HINTS.iter().filter_map(|prefix| Some(rest.find(prefix)? + prefix.len())).min()
    {
        let node = rest[begin..].find('.').map_or(rest.len(), |length| begin + length);
        let client = CLIENTS.iter().find(|level| rest[node..].starts_with(**level));
        let end = node + client.map_or(0, |level| level.len());
        told += &rest[..end];
        rest = &rest[end..];
        if client.is_some() {
            told.push('…');
            let subject = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
            rest = subject.map_or("", |length| &rest[length..]);
        }
    }
    told + rest
}

/// The time before the `attempts`-th try.
fn pause_before(attempts: usize) -> Duration {
    let (shortest, longest) = PAUSES;
    let doubled = u32::try_from(attempts).unwrap_or(u32::MAX).saturating_sub(1).min(16);
    (shortest * (1 << doubled)).min(longest)
}

/// Keeps count of what happens to a connection, and tells it where a person should know.
fn told(
    life: Arc<Life>,
    place: String,
) -> impl Fn(Event) -> std::future::Ready<()> + Send + Sync + 'static {
    move |event| {
        match event {
            Event::Connected => {
                life.is_connected.store(true, Ordering::Relaxed);
                if life.connections.fetch_add(1, Ordering::Relaxed) > 0 {
                    tracing::info!("bus {place}: connected again");
                }
            }
            Event::Disconnected => {
                // It is told once, however often it is tried in vain.
                if life.is_connected.swap(false, Ordering::Relaxed) {
                    tracing::warn!("bus {place}: connection lost; trying again");
                }
            }
            Event::SlowConsumer(_) => {
                life.overruns.fetch_add(1, Ordering::Relaxed);
            }
            Event::ServerError(error) => life.complain(&place, &error.to_string()),
            Event::LameDuckMode => {
                tracing::info!("bus {place}: the server is about to be shut down");
            }
            Event::ClientError(error) => life.complain(&place, &error.to_string()),
            Event::Draining | Event::Closed => {}
        }
        std::future::ready(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use netdiag_lab::Broker;

    use super::super::bucket::{Bucket, open};
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_never_answered_is_given_up_with_its_connection() {
        let broker = Broker::start().expect("a NATS server");
        let url = broker.url().parse().expect("an address");
        let bus = Bus::try_connect(&BusSettings::new(vec![url], "test")).await.expect("connected");
        let first = bus.client.server_info().client_id;
        let unanswered = || bus.life.unanswered.load(Ordering::Relaxed);
        bus.ask(async {}).await;
        assert_eq!(unanswered(), 0);
        let mut before = first;
        for _ in 0..2 {
            for _ in 0..MOST_UNANSWERED {
                assert_eq!(bus.asking().server_info().client_id, before);
                // Nobody waits for its answer any more.
                assert!(bus.ask(std::future::pending::<()>()).now_or_never().is_none());
            }
            // The old one until there is another.
            let mut now = bus.asking().server_info().client_id;
            assert_eq!((now, unanswered()), (before, 0));
            for _ in 0..100 {
                sleep(Duration::from_millis(20)).await;
                now = bus.asking().server_info().client_id;
                if now != before {
                    break;
                }
            }
            assert_ne!(now, before);
            before = now;
        }
        assert_eq!(bus.client.server_info().client_id, first);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refusals_are_answers() {
        let broker = Broker::with(&[]).expect("a NATS server without JetStream");
        let url = broker.url().parse().expect("an address");
        let bus = Bus::try_connect(&BusSettings::new(vec![url], "test")).await.expect("connected");
        let bucket = Bucket { name: "none", what: "Nothing", kept: Duration::ZERO, size: 1024 };
        bus.ask(open(&bus, bucket)).await.expect_err("there are no buckets");
        assert_eq!(bus.life.unanswered.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_sent_yet_is_not_lost() {
        let broker = Broker::start().expect("a NATS server");
        let url = broker.url().parse().expect("an address");
        let bus = Bus::try_connect(&BusSettings::new(vec![url], "test")).await.expect("connected");
        drop(broker);
        while bus.is_connected() {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(bus.ask(std::future::pending::<()>()).now_or_never().is_none());
        assert_eq!(bus.life.unanswered.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn complaints_name_subjects_and_no_clients() {
        let check = |text: &str, told: &str| assert_eq!(without_clients(text), told);
        let refused = "Permissions Violation for Publish to ";
        for client in ["peer.192-0-2-1", "peer.2001-db8--1"] {
            check(
                &format!("{refused}\"netdiag.v1.hint.n1.{client}\""),
                &format!("{refused}\"netdiag.v1.hint.n1.peer.…\""),
            );
        }
        check(
            "\"$KV.netdiag_v1_hints.n1.stream.192-0-2-1_443\" and '$KV.netdiag_v1_hints.a.peer.192-0-2-2' are refused",
            "\"$KV.netdiag_v1_hints.n1.stream.…\" and '$KV.netdiag_v1_hints.a.peer.…' are refused",
        );
        check("to netdiag.v1.hint.a.stream.192-0-2-1_443", "to netdiag.v1.hint.a.stream.…");
        // Nodes and hosts may have such names, too.
        for text in ["netdiag.v1.hint.peer.host", "nats.stream.example: refused"] {
            check(text, text);
        }
        check("netdiag.v1.hint.peer.peer.192-0-2-1 x", "netdiag.v1.hint.peer.peer.… x");
        let host = format!("{refused}\"netdiag.v1.hint.n1.host\"");
        check(&host, &host);
        // What is told is what is remembered: the next client is no news.
        let life = Life::default();
        for client in 0..3 {
            life.complain("here", &format!("to \"netdiag.v1.hint.n1.peer.192-0-2-{client}\""));
        }
        assert_eq!(life.told.lock().expect("no panic").len(), 1);
    }

    #[test]
    fn pauses_grow_and_stay_short() {
        let pauses: Vec<Duration> = (0..40).map(pause_before).collect();
        assert!(pauses.is_sorted() && pauses[0] == PAUSES.0 && pauses[39] == PAUSES.1);
    }
}

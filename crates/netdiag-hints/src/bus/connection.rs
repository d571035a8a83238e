//! The connection to the broker: made, kept, and made again for ever.
//!
//! Whatever goes wrong is tried again, wrong credentials, too: whoever runs the broker will mend it without knowing of us.
//!
//! Invariant: no secret is in a message, in a log line, or in what `Debug` shows: credentials are taken out of the address first.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::net::lookup_host;
use tokio::time::sleep;

/// Shortest and longest time between two tries. A broker that is back is found within the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A connection on which nothing was heard for three of these is dead: hints are worth seconds.
const PING: Duration = Duration::from_secs(1);

/// Time to connect, TLS and all.
const CONNECT: Duration = Duration::from_secs(3);

/// Messages that may wait between us and the connection. What finds no room is dropped, so that little that is old is sent after
/// a broker that hung goes on.
const WAITING: usize = 256;

/// Questions to the broker that may go unanswered on one connection. The library keeps each of them, some 330 bytes, until its answer
/// comes or the connection is given up.
const MOST_UNANSWERED: u32 = 1000;

/// Complaints that are told of one connection.
const MOST_TOLD: usize = 16;

/// What subjects and keys of hints begin with; a node's name follows.
const HINTS: [&str; 2] = ["netdiag.v1.hint.", "$KV.netdiag_v1_hints."];

/// Levels behind that, which a client's address follows.
const CLIENTS: [&str; 2] = [".peer.", ".stream."];

/// Address of a broker: `nats://HOST[:PORT]`, or `tls://…`, which insists on TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct BusUrl {
    server: ServerAddr,
    login: Option<(String, String)>,
}

/// An address that is none of a broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBus {
    /// Another scheme, no host, a path.
    #[error("must be nats://HOST[:PORT] or tls://HOST[:PORT], such as nats://127.0.0.1:4222")]
    Address,
    /// A name without a password, or a password without a name.
    #[error(
        "must be nats://NAME:PASSWORD@HOST where somebody logs in, with %25 for a `%`; a token goes into a file of its own (--bus-token-file)"
    )]
    Login,
}

impl FromStr for BusUrl {
    type Err = InvalidBus;

    fn from_str(text: &str) -> Result<Self, InvalidBus> {
        let server: ServerAddr = text.trim().parse().map_err(|_| InvalidBus::Address)?;
        let mut url = server.into_inner();
        let is_plain = matches!(url.path(), "" | "/") && url.query().is_none();
        if !matches!(url.scheme(), "nats" | "tls") || !url.has_host() || !is_plain {
            return Err(InvalidBus::Address);
        }
        let decoded = |text: &str| {
            let bytes = percent_decode_str(text).decode_utf8();
            bytes.map(|text| text.into_owned()).map_err(|_| InvalidBus::Login)
        };
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            ("", Some(_)) | (_, None) => return Err(InvalidBus::Login),
            (name, Some(password)) => Some((decoded(name)?, decoded(password)?)),
        };
        url.set_username("")
            .and_then(|()| url.set_password(None))
            .map_err(|()| InvalidBus::Address)?;
        let server = ServerAddr::from_url(url).map_err(|_| InvalidBus::Address)?;
        Ok(Self { server, login })
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.server.host();
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{host}{close}:{}", self.server.scheme(), self.server.port())
    }
}

impl fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the broker lets us in by, beyond a name and a password in its address.
#[derive(Clone)]
pub enum Credentials {
    /// The text of a credentials file: a JWT and the seed that it is signed for.
    File(String),
    /// A token.
    Token(String),
}

impl Credentials {
    /// Those in a file of this text.
    ///
    /// # Errors
    ///
    /// Not a JWT and a seed.
    pub fn file(text: String) -> std::io::Result<Self> {
        ConnectOptions::with_credentials(&text)?;
        Ok(Self::File(text))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::File(_) => "File(…)",
            Credentials::Token(_) => "Token(…)",
        })
    }
}

/// Which broker, and how it is asked.
#[derive(Clone, Debug)]
pub struct BusSettings {
    /// The servers of one cluster.
    pub servers: Vec<BusUrl>,
    /// What it lets us in by.
    pub credentials: Option<Credentials>,
    /// What `tls://` servers are told by, and what we show them; `None` for what the system trusts.
    pub tls: Option<rustls::ClientConfig>,
    /// How the broker shows this connection to whoever runs it, and what its inbox is named after: one level of a subject.
    pub name: String,
    /// Messages that a subscription may leave untaken before the newest are dropped.
    pub untaken: usize,
}

impl BusSettings {
    /// Messages that a subscription may leave untaken, unless told otherwise: a second of a busy fleet.
    pub const UNTAKEN: usize = 16 * 1024;

    /// The broker at `servers`, with no credentials.
    pub fn new(servers: Vec<BusUrl>, name: impl Into<String>) -> Self {
        Self { servers, credentials: None, tls: None, name: name.into(), untaken: Self::UNTAKEN }
    }

    /// Where the servers are at present, as far as their names can be resolved.
    pub async fn addresses(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for url in &self.servers {
            if let Ok(found) = lookup_host((url.server.host(), url.server.port())).await {
                all.extend(found);
            }
        }
        all
    }

    /// The servers, for people.
    pub fn place(&self) -> String {
        self.servers.iter().map(BusUrl::to_string).collect::<Vec<_>>().join(", ")
    }
}

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
                    let error = error.to_string();
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

    /// The connection to ask the broker on. Whoever was not answered [says so](Bus::was_not_answered), asks anew, and so gets another one
    /// in time.
    pub(crate) async fn asking(&self) -> Result<Client, async_nats::ConnectError> {
        if self.life.unanswered.load(Ordering::Relaxed) >= MOST_UNANSWERED {
            // What becomes of it the first one's life tells as well.
            let client = connect(&self.settings, None).await?;
            *self.asking.lock().unwrap_or_else(PoisonError::into_inner) = client;
            self.life.unanswered.store(0, Ordering::Relaxed);
        }
        Ok(self.asking.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Counts questions that were asked there in vain.
    pub(crate) fn was_not_answered(&self, questions: u32) {
        self.life.unanswered.fetch_add(questions, Ordering::Relaxed);
    }

    /// The servers, for people.
    pub fn place(&self) -> String {
        self.settings.place()
    }

    /// Whether what is sent now leaves now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
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
    use netdiag_lab::Broker;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_never_answered_is_given_up_with_its_connection() {
        let broker = Broker::start().expect("a NATS server");
        let url = broker.url().parse().expect("an address");
        let bus = Bus::try_connect(&BusSettings::new(vec![url], "test")).await.expect("connected");
        let id = async || bus.asking().await.expect("connected").server_info().client_id;
        let first = id().await;
        assert_eq!(first, bus.client.server_info().client_id);
        bus.was_not_answered(MOST_UNANSWERED - 1);
        assert_eq!(id().await, first);
        let mut before = first;
        for _ in 0..2 {
            bus.was_not_answered(MOST_UNANSWERED);
            let now = id().await;
            assert!(now != before && now == id().await, "{now} after {before}");
            before = now;
        }
        assert_eq!(bus.client.server_info().client_id, first);
    }

    #[test]
    fn addresses_in_all_their_forms_and_never_their_secrets() {
        let check = |text: &str, shown: &str| {
            let url: BusUrl = text.parse().expect(text);
            assert_eq!((url.to_string().as_str(), format!("{url:?}").as_str()), (shown, shown));
        };
        check("nats://127.0.0.1:4222", "nats://127.0.0.1:4222");
        check("nats://broker", "nats://broker:4222");
        check("broker:4333", "nats://broker:4333");
        check("tls://broker/", "tls://broker:4222");
        check("nats://[::1]:4222", "nats://[::1]:4222");
        check("nats://me:secret@broker:4222", "nats://broker:4222");
        for bad in ["", "http://broker", "nats://", "nats://broker/x", "nats://broker:99999"] {
            assert_eq!(bad.parse::<BusUrl>(), Err(InvalidBus::Address), "{bad}");
        }
        // What is meant for a token, or lacks its half.
        for bad in ["nats://hush@broker", "nats://:hush@broker", "nats://%FF:hush@broker"] {
            let error = bad.parse::<BusUrl>().expect_err(bad);
            assert!(error == InvalidBus::Login && !error.to_string().contains("hush"), "{error}");
        }
        let url: BusUrl = "nats://me:se%2Fcr%40t@broker".parse().expect("an address");
        assert_eq!(url.login, Some(("me".to_owned(), "se/cr@t".to_owned())));
        let url: BusUrl = "nats://me:secret@broker".parse().expect("an address");
        let settings = BusSettings {
            credentials: Some(Credentials::Token("hush".to_owned())),
            ..BusSettings::new(vec![url], "n")
        };
        let shown = format!("{settings:?} {}", settings.place());
        assert!(!shown.contains("secret") && !shown.contains("hush"), "{shown}");
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

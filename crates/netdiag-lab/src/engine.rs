//! A demo engine: an OpenAI-compatible streaming server that behaves like a continuous-batching engine and has no model.
//!
//! What it writes is a built-in text, and it says so. What is real is the pace: seats, steps, a queue, a first token that takes
//! longer, requests that can be held, and tokens that go on being generated whether the client's link takes them or not, as
//! real engines do. They wait in memory, up to what the request asked for, and in the socket; [`TokenCounts`] says where each
//! one is.
//!
//! It is paced by whoever is asked how fast a peer's stream may go ([`Engine::start`]), between two steps.
//!
//! Invariant: a request ends with its connection; nothing is generated for nobody.

mod api;
mod ledger;
pub(crate) mod scheduler;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tower::ServiceExt as _;

use ledger::{Account, Connection, NotedSocket};
use scheduler::{Phase, QueueFull, RequestId, Scheduler};

pub use ledger::TokenCounts;
pub use scheduler::{Allowance, EngineSpec, Totals};

/// How often allowances are asked for while nobody is ready.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How fast the stream of a peer may go now. Asked between two steps, so it must not block.
pub type Pace = Arc<dyn Fn(SocketAddr) -> Allowance + Send + Sync>;

/// A running engine. Clones are handles to the same one.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    core: Mutex<Core>,
    /// Something changed that an idle engine should know of.
    changed: Notify,
    started: Instant,
    pace: Pace,
}

struct Core {
    scheduler: Scheduler,
    streams: HashMap<RequestId, Stream>,
    connections: Vec<Arc<Connection>>,
    /// Of connections that are no longer listed.
    settled: TokenCounts,
}

/// Where a request's tokens go.
struct Stream {
    /// As long as the answer may be: a request is bounded by its own `max_tokens`.
    tokens: mpsc::UnboundedSender<Token>,
    account: Arc<Account>,
    peer: Option<SocketAddr>,
}

/// A token has been generated; the last one, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    last: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("totals", &self.totals()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts an engine in the present runtime; it runs until that ends.
    pub fn start(spec: EngineSpec, pace: Pace) -> Self {
        let core = Core {
            scheduler: Scheduler::new(spec),
            streams: HashMap::new(),
            connections: Vec::new(),
            settled: TokenCounts::default(),
        };
        let shared = Shared {
            core: Mutex::new(core),
            changed: Notify::new(),
            started: Instant::now(),
            pace,
        };
        let engine = Self(Arc::new(shared));
        tokio::spawn(engine.clone().run());
        engine
    }

    /// The API without a socket. Whoever is answered through it has no address to be paced by.
    pub fn router(&self) -> Router {
        api::router(self.clone())
    }

    /// Accepts connections and answers them.
    ///
    /// # Errors
    ///
    /// None that ends it but those of the listener itself.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let router = self.router();
        loop {
            let (socket, _) = listener.accept().await?;
            // Tokens are small and must not wait for each other.
            let Ok(()) = socket.set_nodelay(true) else { continue };
            let Ok(connection) = Connection::new(&socket) else { continue };
            self.core().connections.push(Arc::clone(&connection));
            let router = router.clone();
            let service = service_fn({
                let connection = Arc::clone(&connection);
                move |mut request: hyper::Request<Incoming>| {
                    request.extensions_mut().insert(Arc::clone(&connection));
                    router.clone().oneshot(request.map(Body::new))
                }
            });
            let io = TokioIo::new(NotedSocket::new(socket, connection));
            tokio::spawn(async move {
                let served =
                    http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service);
                if let Err(error) = served.await {
                    tracing::debug!(%error, "a client's connection ended");
                }
            });
        }
    }

    /// Tokens and requests since the start.
    pub fn totals(&self) -> Totals {
        self.core().scheduler.totals()
    }

    /// Where the tokens are that were generated over connections, as the kernel says now.
    pub fn counts(&self) -> TokenCounts {
        let mut core = self.core();
        let mut counts = core.settled;
        let mut settled = TokenCounts::default();
        core.connections.retain(|connection| {
            let here = connection.counts();
            counts += here;
            // Nobody answers there any more, and nothing is under way: these figures are final.
            let is_final = here.in_flight == 0 && Arc::strong_count(connection) == 1;
            if is_final {
                settled += here;
            }
            !is_final
        });
        core.settled += settled;
        counts
    }

    /// Generates until the runtime ends.
    async fn run(self) {
        loop {
            let step = self.step();
            if step.tokens.is_empty() {
                let idle = step.idle.unwrap_or(ASK_AGAIN).min(ASK_AGAIN);
                let _ = tokio::time::timeout(idle, self.0.changed.notified()).await;
                continue;
            }
            tokio::time::sleep(step.took).await;
            let core = self.core();
            for (id, last) in step.tokens {
                // Who left meanwhile gets nothing.
                if let Some(stream) = core.streams.get(&id) {
                    let _ = stream.tokens.send(Token { last });
                }
            }
        }
    }

    fn step(&self) -> scheduler::Step {
        let mut core = self.core();
        let Core { scheduler, streams, .. } = &mut *core;
        let now = self.0.started.elapsed();
        for (id, stream) in &*streams {
            if let Some(peer) = stream.peer {
                scheduler.allow(*id, (self.0.pace)(peer), now);
            }
        }
        let step = scheduler.step(now);
        for (id, _) in &step.tokens {
            if let Some(stream) = streams.get(id) {
                stream.account.generated.fetch_add(1, Ordering::Relaxed);
            }
        }
        step
    }

    /// Takes in a request for `tokens`.
    fn submit(
        &self,
        tokens: u32,
        connection: Option<&Arc<Connection>>,
    ) -> Result<Running, QueueFull> {
        let account = connection.map(|connection| connection.open_account()).unwrap_or_default();
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut core = self.core();
        let id = core.scheduler.submit(tokens)?;
        let peer = connection.map(|connection| connection.peer);
        let stream = Stream { tokens: sender, account: Arc::clone(&account), peer };
        core.streams.insert(id, stream);
        drop(core);
        self.0.changed.notify_one();
        let connection = connection.cloned();
        Ok(Running { id, tokens: receiver, account, connection, engine: self.clone() })
    }

    fn phase(&self, id: RequestId) -> Option<Phase> {
        self.core().scheduler.phase(id)
    }

    /// Pauses, resumes; whether there is such a request.
    fn set_paused(&self, id: RequestId, paused: bool) -> bool {
        let existed = self.core().scheduler.set_paused(id, paused);
        self.0.changed.notify_one();
        existed
    }

    /// Ends a request; whether there was one. Its stream ends, too.
    fn abort(&self, id: RequestId) -> bool {
        let mut core = self.core();
        core.streams.remove(&id);
        let existed = core.scheduler.abort(id);
        drop(core);
        self.0.changed.notify_one();
        existed
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // Nothing here leaves the core half changed.
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request being answered. Dropped, it is aborted unless it was finished.
struct Running {
    id: RequestId,
    tokens: mpsc::UnboundedReceiver<Token>,
    account: Arc<Account>,
    connection: Option<Arc<Connection>>,
    engine: Engine,
}

impl Running {
    /// The next event that is sent has so many tokens in it.
    fn announce(&self, tokens: u64) {
        if let Some(connection) = &self.connection {
            connection.announce(&self.account, tokens);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.abort(self.id);
    }
}

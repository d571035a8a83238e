//! A demo engine: an OpenAI-compatible streaming server that behaves like a continuous-batching engine, without a model.
//!
//! What it says is a fixed text; when it says it is what matters: seats, steps that grow with the batch, prompts that take
//! time, a queue ([`Scheduler`]). It does what real engines do with a client that does not read: goes on generating, into
//! buffers that somebody else pays for. That is the problem this project exists for, so it is kept, and every token is
//! accounted for: generated = acknowledged by the client's kernel + in flight + wasted, at any moment
//! ([`TokenCounts`]).
//!
//! Unlike most engines it can be told, per request, to pause, resume, abort, or to run at a rate: as a library
//! ([`Engine`]), or over HTTP, which is the contract for engine plug-ins of a gateway:
//!
//! | request                                  | does                                                          |
//! | ---------------------------------------- | ------------------------------------------------------------- |
//! | `GET /metrics`                           | token counts of all requests, and how full the engine is, for Prometheus |
//! | `GET /v1/netdiag/engine`                 | the same as JSON                                              |
//! | `GET /v1/netdiag/requests`               | the requests that are not finished                            |
//! | `GET /v1/netdiag/requests/{id}`          | one request: its state and token counts                       |
//! | `POST /v1/netdiag/requests/{id}/pause`   | no token from the next step on; the seat goes to others, the place in the KV cache stays |
//! | `POST /v1/netdiag/requests/{id}/resume`  | back in the next step                                         |
//! | `POST /v1/netdiag/requests/{id}/abort`   | generates no more; what was generated is still sent, then the stream ends with `finish_reason` `abort` |
//!
//! `{id}` is the answer's id, which a streamed response has in its `x-request-id` header before the first token. Each
//! answers with the request as it is then; 404 for one that is not known, and 409 to pause or resume one that has finished.
//! All are idempotent. A client that closes its connection aborts its request at once.
//!
//! For the lab: it asks nobody who they are.

mod account;
mod asked;
mod connection;
mod corpus;
mod error;
mod exposition;
mod follow;
mod routes;
mod scheduler;
mod serve;
mod stream;
mod view;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::TokenCounts;
use account::Account;
use asked::{Asked, Kind, Offer};
use connection::Connection;
use stream::Ticket;

pub(crate) use corpus::pieces;

pub use account::Finish;
pub use follow::{HintServer, InvalidEvery};
pub use scheduler::{
    InvalidModel, Model, Occupancy, Pace, Phase, Refused, RequestId, Scheduler, Status, Token,
};
pub use view::{Aborted, ControlError, RequestState, RequestView};

/// Finished requests that can still be asked about; of older ones the counts alone are known.
const REMEMBERED: usize = 10_000;

/// Older ones whose counts are known: half a day of twenty answers a second, in some 60 MB. Before that, the totals have them.
const COUNTED: usize = 1_000_000;

/// How the engine is to behave.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Its speed and size.
    pub model: Model,
    /// What it is called in requests.
    pub name: String,
    /// The length of an answer that is left to the model, tokens.
    pub answer_tokens: NonZeroU32,
}

impl Default for Settings {
    fn default() -> Self {
        // A page: what an assistant answers when it is not told to be brief.
        const ANSWER_TOKENS: NonZeroU32 = NonZeroU32::new(400).expect("not zero");
        Self {
            model: Model::default(),
            name: "netdiag-demo".to_owned(),
            answer_tokens: ANSWER_TOKENS,
        }
    }
}

/// A handle to the engine. All clones are the same engine.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    /// The origin of the scheduler's time.
    started: Instant,
    core: Mutex<Core>,
    /// Something is to be done before the next step ends.
    changed: Notify,
    /// Requests that came without a seed, to give each another text.
    unseeded: AtomicU64,
}

struct Core {
    scheduler: Scheduler,
    pace_of: Box<dyn Fn(Option<SocketAddr>) -> Pace + Send>,
    running: BTreeMap<RequestId, Arc<Account>>,
    finished: VecDeque<Arc<Account>>,
    /// Tokens of the requests that are no longer remembered: of each, and of all.
    counted: BTreeMap<RequestId, TokenCounts>,
    forgotten: TokenCounts,
    aborted: Aborted,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("occupancy", &self.scheduler.occupancy())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine at rest. It generates while [`Engine::run`] or [`Engine::serve`] is polled.
    pub fn try_new(settings: Settings) -> Result<Self, InvalidModel> {
        let scheduler = Scheduler::try_new(settings.model)?;
        let core = Core {
            scheduler,
            pace_of: Box::new(|_| Pace::default()),
            running: BTreeMap::new(),
            finished: VecDeque::new(),
            counted: BTreeMap::new(),
            forgotten: TokenCounts::default(),
            aborted: Aborted::default(),
        };
        let shared = Shared {
            settings,
            started: Instant::now(),
            core: Mutex::new(core),
            changed: Notify::new(),
            unseeded: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Generates, for ever.
    pub async fn run(&self) {
        let mut tokens = Vec::new();
        loop {
            let next = self.core().advance(self.now(), &mut tokens);
            let changed = self.shared.changed.notified();
            match next {
                Some(next) => tokio::select! {
                    () = tokio::time::sleep_until(self.shared.started + next) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// Sets the pace of every request, by its client's address: of those there are, and of those that come.
    pub fn pace(&self, pace_of: impl Fn(Option<SocketAddr>) -> Pace + Send + 'static) {
        let now = self.now();
        let mut core = self.core();
        let Core { scheduler, running, .. } = &mut *core;
        for (id, account) in running {
            scheduler.pace(now, *id, pace_of(account.peer));
        }
        core.pace_of = Box::new(pace_of);
        drop(core);
        self.shared.changed.notify_one();
    }

    /// Gives the request no token from the next step on. Its seat goes to others; its place in the KV cache stays.
    pub fn pause(&self, id: &str) -> Result<RequestView, ControlError> {
        self.control(id, |core, id| core.scheduler.pause(id))
    }

    /// Ends a pause, with the next step.
    pub fn resume(&self, id: &str) -> Result<RequestView, ControlError> {
        self.control(id, |core, id| core.scheduler.resume(id))
    }

    /// Generates no more for this request. What was generated is still sent.
    pub fn abort(&self, id: &str) -> Result<RequestView, ControlError> {
        let aborted = self.control(id, |core, id| {
            core.abort(id);
            true
        });
        match aborted {
            Err(ControlError::Finished(_)) => self.request(id),
            other => other,
        }
    }

    /// One request.
    pub fn request(&self, id: &str) -> Result<RequestView, ControlError> {
        let core = self.core();
        let account = core.find(id)?;
        Ok(core.view(account))
    }

    /// Where the tokens of a request are. Known for longer than the request itself, for the last million of requests.
    pub fn counts(&self, id: &str) -> Option<TokenCounts> {
        let core = self.core();
        match core.find(id) {
            Ok(account) => Some(account.counts()),
            Err(_) => core.counted.get(&RequestId::of_name(id)?).copied(),
        }
    }

    /// The requests that are not finished, the oldest first.
    pub fn requests(&self) -> Vec<RequestView> {
        let core = self.core();
        core.running.values().map(|account| core.view(account)).collect()
    }

    /// The clients of the requests that are not finished.
    fn peers(&self) -> BTreeSet<SocketAddr> {
        self.core().running.values().filter_map(|account| account.peer).collect()
    }

    /// Where the tokens of all requests are, since the engine was made.
    pub fn tokens(&self) -> TokenCounts {
        let core = self.core();
        let mut sum = core.forgotten;
        core.running.values().chain(&core.finished).for_each(|account| sum.add(account.counts()));
        sum
    }

    /// What was aborted, since the engine was made.
    pub fn aborted(&self) -> Aborted {
        self.core().aborted
    }

    /// How full the engine is.
    pub fn occupancy(&self) -> Occupancy {
        self.core().scheduler.occupancy()
    }

    /// Reads a request and puts it in line.
    fn submit(
        &self,
        kind: Kind,
        body: &[u8],
        connection: Option<Arc<Connection>>,
    ) -> Result<(Asked, Ticket), error::ApiError> {
        let settings = &self.shared.settings;
        let longest = u32::try_from(settings.model.kv_tokens).unwrap_or(u32::MAX);
        let offer = Offer {
            model: &settings.name,
            answer_tokens: settings.answer_tokens,
            longest: NonZeroU32::MIN.saturating_add(longest - 1),
        };
        let number = self.shared.unseeded.fetch_add(1, Ordering::Relaxed);
        let asked = Asked::parse(kind, body, offer, number)?;
        let mut core = self.core();
        let id = core.scheduler.submit(asked.prompt_tokens, asked.answer.tokens())?;
        let account = Arc::new(Account::new(id, &asked, connection.as_ref()));
        let pace = (core.pace_of)(account.peer);
        core.scheduler.pace(self.now(), id, pace);
        core.running.insert(id, Arc::clone(&account));
        drop(core);
        self.shared.changed.notify_one();
        Ok((asked, Ticket::new(self.clone(), account, connection)))
    }

    /// The client of a request is gone, or has all of it.
    fn leave(&self, account: &Account) {
        let mut core = self.core();
        core.abort(account.id);
        // Under the lock, so that no token is generated behind it.
        account.abandon();
        drop(core);
        self.shared.changed.notify_one();
    }

    fn control(
        &self,
        id: &str,
        action: impl FnOnce(&mut Core, RequestId) -> bool,
    ) -> Result<RequestView, ControlError> {
        let mut core = self.core();
        let account = Arc::clone(core.find(id)?);
        if !core.running.contains_key(&account.id) || !action(&mut core, account.id) {
            return Err(ControlError::Finished(id.to_owned()));
        }
        let view = core.view(&account);
        drop(core);
        self.shared.changed.notify_one();
        Ok(view)
    }

    fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // Nothing inside panics between two changes that belong together.
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Ends what is over by `now`, hands out its tokens and says when to come again.
    fn advance(&mut self, now: Duration, tokens: &mut Vec<Token>) -> Option<Duration> {
        let next = self.scheduler.advance(now, tokens);
        for token in tokens.drain(..) {
            let Some(account) = self.running.get(&token.request) else { continue };
            account.generated();
            if token.last {
                account.finish(account.natural_end);
                self.move_to_finished(token.request);
            }
        }
        next
    }

    /// Ends a request, unless it has ended.
    fn abort(&mut self, id: RequestId) {
        self.scheduler.abort(id);
        if let Some(account) = self.running.get(&id) {
            account.finish(Finish::Abort);
            self.aborted.requests += 1;
            self.aborted.tokens += account.generated_so_far();
            self.move_to_finished(id);
        }
    }

    fn move_to_finished(&mut self, id: RequestId) {
        self.finished.extend(self.running.remove(&id));
        while self.finished.len() > REMEMBERED {
            // What is still under way may yet be acknowledged or lost, so it stays, and those behind it go. It is settled
            // when its connection is: no more stay than connections have answers on their way.
            let Some(settled) = self.oldest_settled() else { break };
            let Some(account) = self.finished.remove(settled) else { break };
            let counts = account.counts();
            self.forgotten.add(counts);
            self.counted.insert(account.id, counts);
            if self.counted.len() > COUNTED {
                self.counted.pop_first();
            }
        }
    }

    fn oldest_settled(&self) -> Option<usize> {
        let as_known = self.finished.iter().position(|account| account.is_settled());
        // Asking the kernel takes longer, and is news of all that a connection carries.
        as_known
            .or_else(|| self.finished.iter().position(|account| account.counts().in_flight == 0))
    }

    fn find(&self, name: &str) -> Result<&Arc<Account>, ControlError> {
        let known = RequestId::of_name(name).and_then(|id| {
            let finished = || self.finished.iter().find(|account| account.id == id);
            self.running.get(&id).or_else(finished)
        });
        known
            .filter(|account| account.name == name)
            .ok_or_else(|| ControlError::Unknown(name.to_owned()))
    }

    fn view(&self, account: &Account) -> RequestView {
        let state = match self.scheduler.status(account.id) {
            None => RequestState::Finished,
            Some(Status { paused: true, .. }) => RequestState::Paused,
            Some(Status { hold: true, .. }) => RequestState::Held,
            Some(Status { phase: Phase::Queued, .. }) => RequestState::Queued,
            Some(Status { phase: Phase::Admitted, .. }) => RequestState::Running,
        };
        RequestView {
            id: account.name.clone(),
            state,
            finish_reason: account.finished(),
            peer: account.peer,
            prompt_tokens: account.prompt_tokens,
            output_tokens: account.output_tokens,
            tokens: account.counts(),
        }
    }
}

//! What there is to show, shared by the one that measures and all that watch.
//!
//! A push takes microseconds whoever watches: viewers are woken by a number and take what is new by themselves, so a slow one
//! delays nobody and holds nothing of its own.
//!
//! Invariant: staleness is judged when somebody looks, as in the hint server, so a dead probe is noticed without its help.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use netdiag_pacer::{Hint, State as HintState, WhenStale};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::experiment::{ArmTick, ArmView, Experiment, Progress};
use crate::history::{History, Piece, Point};
use crate::wire;

/// Where telemetry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// This process measures.
    Up,
    /// A file that another process writes.
    Csv,
    /// Another process' hint server.
    Hints,
    /// An experiment in this process.
    Experiment,
}

/// What the page says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Label {
    /// Where telemetry comes from.
    pub mode: Mode,
    /// The same for people: a host's name, a file, an address.
    pub telemetry: String,
    /// Whether flows can be listed.
    pub has_streams: bool,
    /// Whether a gateway's streams can be listed.
    pub has_gateway: bool,
    /// Whether there is a fleet to show.
    pub has_fleet: bool,
    /// Whether the machine that is looked at can be examined.
    pub has_machine: bool,
}

/// When telemetry is too old, and what is recommended then.
#[derive(Clone, Copy, Debug)]
pub struct Staleness {
    /// The age from which it is.
    pub after: Duration,
    /// What is recommended.
    pub policy: WhenStale,
}

/// A handle; all clones are the same feed.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    label: Label,
    staleness: Staleness,
    /// Tells a restart from a pause.
    server_id: String,
    state: Mutex<State>,
    /// Counts everything that there is to tell.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    history: History,
    hint: Hint,
    sampled_at: Option<Instant>,
    /// The newest point and hint as events, written for the first viewer that asks.
    live: OnceLock<Bytes>,
    experiment: Option<Progress>,
    /// Of the experiment's description, which is sent again when it changes.
    experiment_version: u64,
    /// What was sent before belongs to this; another one begins anew.
    generation: u64,
}

/// How far a viewer has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    generation: u64,
    /// The number of the next point.
    point: u64,
    experiment_version: u64,
    /// Ticks sent of each arm.
    arms: Vec<usize>,
}

/// What a viewer gets first and next.
#[derive(Debug)]
pub(crate) enum News {
    Event(Bytes),
    Piece(Piece),
    Arm(usize, Vec<ArmTick>),
}

impl News {
    pub(crate) fn into_event(self) -> Bytes {
        match self {
            News::Event(bytes) => bytes,
            News::Piece(piece) => piece.event(),
            News::Arm(arm, ticks) => wire::json("arm", &ArmView::new(arm, &ticks)),
        }
    }
}

#[derive(Serialize)]
struct Hello<'a> {
    version: &'static str,
    server_id: &'a str,
    #[serde(flatten)]
    label: &'a Label,
    stale_after_seconds: f64,
}

impl Feed {
    /// A feed that shows `hint` until something is measured.
    pub fn new(label: Label, staleness: Staleness, hint: Hint) -> Self {
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let started = started.unwrap_or_default().as_micros();
        Self(Arc::new(Inner {
            label,
            staleness,
            server_id: format!("{started:x}-{:x}", std::process::id()),
            state: Mutex::new(State {
                history: History::new(),
                hint,
                sampled_at: None,
                live: OnceLock::new(),
                experiment: None,
                experiment_version: 0,
                generation: 0,
            }),
            changed: watch::Sender::new(0),
        }))
    }

    /// Takes in an interval: the host's point, what is recommended, and when that was measured.
    pub fn push(&self, point: Point, hint: Hint, sampled_at: Option<Instant>) {
        self.change(|state| {
            if !state.history.push(point) {
                state.generation += 1;
            }
            state.hint = hint;
            state.sampled_at = sampled_at;
            state.live = OnceLock::new();
        });
    }

    /// Takes in a recommendation without an interval behind it: telemetry has stopped, and somebody says so.
    pub fn set_hint(&self, hint: Hint, sampled_at: Option<Instant>) {
        self.change(|state| {
            state.hint = hint;
            state.sampled_at = sampled_at;
            state.live = OnceLock::new();
        });
    }

    /// Nothing is heard any more, for this reason; what is shown is old from now on.
    pub fn lose(&self, reason: &str) {
        let policy = self.0.staleness.policy;
        self.change(|state| {
            let age = state.sampled_at.map(|at| at.elapsed());
            state.hint = state.hint.clone().into_stale(age, policy);
            state.hint.reason = reason.to_owned();
            state.live = OnceLock::new();
        });
    }

    /// An experiment begins.
    pub fn begin_experiment(&self, about: Experiment) {
        self.change(|state| {
            state.experiment = Some(Progress::new(about));
            state.generation += 1;
        });
    }

    /// An interval of one of its arms.
    pub fn push_arm(&self, arm: usize, tick: ArmTick) {
        self.change(|state| {
            let Some(experiment) = &mut state.experiment else { return };
            if experiment.push(arm, tick) {
                state.generation += 1;
            }
        });
    }

    /// The experiment is over; `report` is a page that needs nothing else.
    pub fn end_experiment(&self, report: Option<Vec<u8>>) {
        self.change(|state| {
            if let Some(experiment) = &mut state.experiment {
                experiment.finish(report.map(Bytes::from));
                state.experiment_version += 1;
            }
        });
    }

    pub(crate) fn report(&self) -> Option<Bytes> {
        self.state().experiment.as_ref()?.report.clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// The longest silence on a quiet stream: staleness is told in time, and proxies keep it open.
    pub(crate) fn patience(&self) -> Duration {
        self.0.staleness.after.min(Duration::from_secs(5))
    }

    /// Everything, for a new viewer.
    pub(crate) fn all(&self) -> (Position, Vec<News>) {
        let inner = &self.0;
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION"),
            server_id: &inner.server_id,
            label: &inner.label,
            stale_after_seconds: inner.staleness.after.as_secs_f64(),
        };
        let mut news = vec![News::Event(wire::json("hello", &hello))];
        let state = self.state();
        news.extend(state.history.pieces().into_iter().map(News::Piece));
        let mut position = Position {
            generation: state.generation,
            point: state.history.pushed(),
            experiment_version: state.experiment_version,
            arms: Vec::new(),
        };
        if let Some(experiment) = &state.experiment {
            position.arms = vec![0; experiment.arms.len()];
            news.push(News::Event(wire::json("experiment", &experiment.view())));
        }
        state.arms(&mut position, &mut news);
        news.push(News::Event(self.now(&state)));
        news.push(News::Event(wire::event("live", "{}")));
        (position, news)
    }

    /// What is new since `position`; `None` if all of it must be sent anew.
    pub(crate) fn news(&self, position: &mut Position) -> Option<Vec<News>> {
        let state = self.state();
        if position.generation != state.generation {
            return None;
        }
        let mut news = Vec::new();
        let pushed = state.history.pushed();
        if position.point + 1 == pushed {
            let live = state.live.get_or_init(|| {
                let newest = wire::rows(&state.history.recent(position.point..pushed));
                [newest, self.now(&state)].concat().into()
            });
            news.push(News::Event(live.clone()));
        } else {
            let missed = state.history.recent(position.point..pushed);
            if !missed.is_empty() {
                news.push(News::Piece(Piece::Open(missed)));
            }
            news.push(News::Event(self.now(&state)));
        }
        position.point = pushed;
        if position.experiment_version != state.experiment_version {
            position.experiment_version = state.experiment_version;
            if let Some(experiment) = &state.experiment {
                news.push(News::Event(wire::json("experiment", &experiment.view())));
            }
        }
        state.arms(position, &mut news);
        Some(news)
    }

    fn now(&self, state: &State) -> Bytes {
        wire::json("now", &self.present(state))
    }

    /// The hint as it is at this moment.
    fn present(&self, state: &State) -> Hint {
        let age = state.sampled_at.map(|at| Instant::now().saturating_duration_since(at));
        let Staleness { after, policy } = self.0.staleness;
        match state.hint.state {
            // Whoever sent it knows better what is recommended then.
            HintState::Stale if age.is_some() => {
                let age_seconds = age.unwrap_or_default().as_secs_f64();
                Hint { age_seconds, ..state.hint.clone() }
            }
            _ => state.hint.clone().aged(age, after, policy),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left is still the newest that is known.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn arms(&self, position: &mut Position, news: &mut Vec<News>) {
        let Some(experiment) = &self.experiment else { return };
        for (arm, (ticks, sent)) in experiment.arms.iter().zip(&mut position.arms).enumerate() {
            if *sent < ticks.len() {
                // Written when it is sent: the one who measures waits for nobody's thousands of ticks.
                news.push(News::Arm(arm, ticks[*sent..].to_vec()));
                *sent = ticks.len();
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

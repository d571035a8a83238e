//! Whose time it was: engine, path, reader or pacer.
//!
//! Invariant: the four sum up to the time accounted, to the nanosecond, because each interval is handed out as it is and never
//! computed anew.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::nanos::Nanos;

/// What a stream waits for. At any moment it waits for something: if for nobody else, then for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The engine generates no faster.
    Engine,
    /// The path does not carry what was generated.
    Path,
    /// The client's program does not take it.
    Reader,
    /// We let the stream have less than it could use, for others' sake.
    Pacer,
}

/// Time by cause; seconds in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Causes {
    /// Waiting for the engine.
    #[serde(serialize_with = "seconds")]
    pub engine: Duration,
    /// Waiting for the path.
    #[serde(serialize_with = "seconds")]
    pub path: Duration,
    /// Waiting for the reader.
    #[serde(serialize_with = "seconds")]
    pub reader: Duration,
    /// Kept back by the pacer.
    #[serde(serialize_with = "seconds")]
    pub pacer: Duration,
}

impl Cause {
    /// The name used in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Path => "path",
            Self::Reader => "reader",
            Self::Pacer => "pacer",
        }
    }
}

impl Causes {
    /// All time accounted.
    pub fn total(&self) -> Duration {
        self.engine + self.path + self.reader + self.pacer
    }

    /// Each cause and its time.
    pub fn each(&self) -> [(Cause, Duration); 4] {
        [
            (Cause::Engine, self.engine),
            (Cause::Path, self.path),
            (Cause::Reader, self.reader),
            (Cause::Pacer, self.pacer),
        ]
    }

    /// The part of it that came after `before`, an earlier account of the same flow.
    pub fn since(&self, before: Self) -> Self {
        Self {
            engine: self.engine.saturating_sub(before.engine),
            path: self.path.saturating_sub(before.path),
            reader: self.reader.saturating_sub(before.reader),
            pacer: self.pacer.saturating_sub(before.pacer),
        }
    }

    /// The cause with the most time; of equal ones the first of path, reader, pacer, engine. `None` before any time has passed.
    pub fn dominant(&self) -> Option<Cause> {
        Times([self.engine, self.path, self.reader, self.pacer].map(Nanos::of)).dominant()
    }
}

/// The same as it is remembered, in the order of [`Causes::each`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times([Nanos; 4]);

impl Times {
    pub(super) fn add_all(&mut self, news: Self) {
        for (sum, time) in self.0.iter_mut().zip(news.0) {
            *sum = sum.saturating_add(time);
        }
    }

    pub(super) fn add(&mut self, cause: Cause, time: Nanos) {
        let sum = &mut self.0[cause as usize];
        *sum = sum.saturating_add(time);
    }

    /// See [`Causes::dominant`].
    pub(super) fn dominant(&self) -> Option<Cause> {
        let mut most = (Nanos::ZERO, None);
        for cause in [Cause::Path, Cause::Reader, Cause::Pacer, Cause::Engine] {
            let time = self.0[cause as usize];
            if time > most.0 {
                most = (time, Some(cause));
            }
        }
        most.1
    }
}

impl From<Times> for Causes {
    fn from(times: Times) -> Self {
        let [engine, path, reader, pacer] = times.0.map(Duration::from);
        Self { engine, path, reader, pacer }
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

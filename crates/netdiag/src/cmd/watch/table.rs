//! What the table knows of each node: its newest hint, and its rate in the last minute.
//!
//! Invariant: rows stay in the order of their names, so that they do not jump while one looks.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use netdiag_hints::bus::{NodeHint, Update};

/// Rates remembered, one per second.
pub(super) const HISTORY: usize = 60;

/// A row whose hint lapsed so long ago is gone.
const GONE: Duration = Duration::from_secs(60);

/// Most rows. A terminal shows fifty; somebody may scroll through some thousand.
const MOST: usize = 20_000;

pub(super) struct Table {
    /// Where hints come from.
    pub(super) place: String,
    /// There is more than one scope to a node.
    pub(super) has_scopes: bool,
    rows: BTreeMap<(String, String), Row>,
}

pub(super) struct Row {
    pub(super) message: NodeHint,
    until: Instant,
    /// Tokens/s, the newest last. Nothing for a second in which the hint had lapsed.
    pub(super) history: VecDeque<Option<f64>>,
}

impl Row {
    /// For how long its hint has lapsed, if it has.
    pub(super) fn lapsed(&self, now: Instant) -> Option<Duration> {
        (self.until <= now).then(|| now.saturating_duration_since(self.until))
    }
}

impl Table {
    pub(super) fn new(place: String, has_scopes: bool) -> Self {
        Self { place, has_scopes, rows: BTreeMap::new() }
    }

    /// Takes in a hint that came at `now`.
    pub(super) fn take(&mut self, update: Update, now: Instant) {
        let message = update.hint;
        let key = (message.node.to_string(), message.hint.scope.clone());
        let until = now + update.holds;
        if let Some(row) = self.rows.get_mut(&key) {
            (row.message, row.until) = (message, until);
        } else if self.rows.len() < MOST {
            let history = VecDeque::with_capacity(HISTORY);
            self.rows.insert(key, Row { message, until, history });
        }
    }

    /// A second has passed.
    pub(super) fn second(&mut self, now: Instant) {
        self.rows.retain(|_, row| row.lapsed(now).is_none_or(|lapsed| lapsed < GONE));
        for row in self.rows.values_mut() {
            if row.history.len() == HISTORY {
                row.history.pop_front();
            }
            let rate = row.message.hint.current_tps.get();
            row.history.push_back(row.lapsed(now).is_none().then_some(rate));
        }
    }

    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.rows.values()
    }
}

/// Text from elsewhere, without what would move the cursor or break the line.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

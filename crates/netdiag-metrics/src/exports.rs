//! What becomes of metrics that are pushed elsewhere, as metrics of the process that pushes them.
//!
//! Counted here and not by whoever pushes, so that every server can show it without knowing how that is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::described::Described;

/// Its counters; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct ExportStatus(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicU64,
    dropped: AtomicU64,
    retries: AtomicU64,
    rejected: AtomicU64,
    is_well: AtomicBool,
}

impl ExportStatus {
    /// The collector has taken everything.
    pub fn took(&self) {
        self.0.taken.fetch_add(1, Ordering::Relaxed);
        self.0.is_well.store(true, Ordering::Relaxed);
    }

    /// The collector has taken all but so many points.
    pub fn took_but(&self, rejected: u64) {
        self.0.rejected.fetch_add(rejected, Ordering::Relaxed);
        self.took();
    }

    /// It could not be had and is asked once more.
    pub fn retries(&self) {
        self.0.retries.fetch_add(1, Ordering::Relaxed);
        self.0.is_well.store(false, Ordering::Relaxed);
    }

    /// What was to be exported is dropped.
    pub fn dropped(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
        self.0.is_well.store(false, Ordering::Relaxed);
    }

    /// Registers what is counted.
    pub fn register(&self, described: &mut Described) {
        let mut ours = described.within("netdiag_otlp");
        let read = |counter: fn(&Counts) -> u64| {
            let counts = Arc::clone(&self.0);
            move || counter(&counts)
        };
        ours.count(
            "exports",
            "Times that the OTLP collector has taken these metrics",
            read(|counts| counts.taken.load(Ordering::Relaxed)),
        );
        ours.count(
            "exports_dropped",
            "Times that it has not until there were newer ones, which have all that was counted",
            read(|counts| counts.dropped.load(Ordering::Relaxed)),
        );
        ours.count(
            "retries",
            "Times that the collector was asked once more",
            read(|counts| counts.retries.load(Ordering::Relaxed)),
        );
        ours.count(
            "points_rejected",
            "Data points that the collector says it has not taken",
            read(|counts| counts.rejected.load(Ordering::Relaxed)),
        );
        let counts = Arc::clone(&self.0);
        let is_well = move || f64::from(u8::from(counts.is_well.load(Ordering::Relaxed)));
        ours.measure("up", "1 while the collector takes what it is sent", is_well);
    }
}

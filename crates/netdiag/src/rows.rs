//! Rows on their way to `net_data.csv`: a thread of its own, so that a slow disk delays neither sampling nor hints.
//!
//! Invariant: every row is written, in order, or the failure is told; none is dropped in silence. The queue is bounded:
//! a disk that took nothing for the whole length of it has failed like one that is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use anyhow::Context as _;
use netdiag_telemetry::Row;

use crate::confine::{Confinement, Exceptions};

/// Rows that may wait: half an hour at the default interval, a megabyte of memory.
const QUEUE: usize = 4096;

/// The sampler's end of the queue. Dropping it lets the writer finish.
#[derive(Debug)]
pub(crate) struct RowSender {
    queue: Option<SyncSender<Row>>,
    overflowed: Arc<AtomicBool>,
}

/// The writer at the other end.
#[derive(Debug)]
pub(crate) struct RowWriter {
    thread: JoinHandle<anyhow::Result<()>>,
    written: Arc<AtomicU64>,
}

/// Starts a thread that passes rows to `append`. When that fails, `failed` is told at once, no more rows are taken, and
/// [`RowWriter::join`] returns the error. The thread confines itself first.
pub(crate) fn start(
    mut append: impl FnMut(&Row) -> anyhow::Result<()> + Send + 'static,
    failed: impl FnOnce(&anyhow::Error) + Send + 'static,
    confinement: Confinement,
) -> anyhow::Result<(RowSender, RowWriter)> {
    let (queue, rows) = sync_channel::<Row>(QUEUE);
    let overflowed = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let (overflow, count) = (Arc::clone(&overflowed), Arc::clone(&written));
    let write_all = move || {
        for row in rows {
            append(&row)?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        anyhow::ensure!(
            !overflow.load(Ordering::Relaxed),
            "the disk is too slow: {QUEUE} rows were waiting to be written"
        );
        Ok(())
    };
    let thread = std::thread::Builder::new()
        .name("rows".to_owned())
        .spawn(move || {
            confinement.enter(Exceptions::WRITING);
            write_all().inspect_err(failed)
        })
        .context("cannot start the writing thread")?;
    Ok((RowSender { queue: Some(queue), overflowed }, RowWriter { thread, written }))
}

impl RowSender {
    /// Hands a row on without waiting.
    pub(crate) fn send(&mut self, row: &Row) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(*row) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => self.overflowed.store(true, Ordering::Relaxed),
            // The writer has failed and has said so.
            Err(TrySendError::Disconnected(_)) => {}
        }
        self.queue = None;
    }
}

impl RowWriter {
    /// How many rows are in the file by our doing, as a counter that goes on.
    pub(crate) fn written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }

    /// Waits until every row that was sent is written; the sender must be gone.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))?
    }
}

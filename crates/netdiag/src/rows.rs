//! Rows on their way to `net_data.csv`: a thread of its own, so that a slow disk delays neither sampling nor hints.
//!
//! A full disk passes when somebody makes room, so rows wait for it, and none of them is lost; any other failure lasts.
//! Invariant: every row is written, in order, or the failure is told; none is dropped in silence. The queue is bounded:
//! a disk that took nothing for the whole length of it has failed, whatever the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use netdiag_telemetry::Row;
use tokio::sync::mpsc::{Sender, channel, error::TrySendError};

use crate::confine::{Confinement, Exceptions};
use crate::csv_file::NoRoom;
use crate::stop::Stop;

/// Rows that may wait: half an hour at the default interval, a megabyte of memory, which is only taken while they do.
const QUEUE: usize = 4096;

/// How often a full disk is tried again: soon enough for whoever reads the file, and seldom enough to cost nothing.
const RETRY: Duration = Duration::from_millis(500);

/// The sampler's end of the queue. Dropping it lets the writer finish.
#[derive(Debug)]
pub(crate) struct RowSender {
    queue: Option<Sender<Row>>,
    overflowed: Arc<AtomicBool>,
}

/// The writer at the other end.
#[derive(Debug)]
pub(crate) struct RowWriter {
    thread: JoinHandle<anyhow::Result<()>>,
    written: Arc<AtomicU64>,
}

/// Starts a thread that passes rows to `append`. While that says [`NoRoom`], the row is tried again until `stop`. When it
/// fails otherwise, `failed` is told at once, no more rows are taken, and [`RowWriter::join`] returns the error. The thread confines
/// itself first.
pub(crate) fn start(
    mut append: impl FnMut(&Row) -> anyhow::Result<()> + Send + 'static,
    failed: impl FnOnce(&anyhow::Error) + Send + 'static,
    stop: Stop,
    confinement: Confinement,
) -> anyhow::Result<(RowSender, RowWriter)> {
    let (queue, mut rows) = channel::<Row>(QUEUE);
    let overflowed = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let (overflow, count) = (Arc::clone(&overflowed), Arc::clone(&written));
    let mut write_all = move || {
        while let Some(row) = rows.blocking_recv() {
            append_when_there_is_room(&row, &mut append, &stop)?;
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

/// Appends a row, however long the disk is full; the stop ends the waiting, with the error.
fn append_when_there_is_room(
    row: &Row,
    append: &mut impl FnMut(&Row) -> anyhow::Result<()>,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut is_told = false;
    loop {
        match append(row) {
            Err(error) if error.is::<NoRoom>() && !stop.wait(Duration::ZERO) => {
                if !is_told {
                    tracing::error!("{error:#}; rows wait until there is room");
                    is_told = true;
                }
                stop.wait(RETRY);
            }
            Ok(()) if is_told => {
                tracing::warn!("there is room again; no row was lost");
                return Ok(());
            }
            result => return result,
        }
    }
}

impl RowSender {
    /// Hands a row on without waiting.
    pub(crate) fn send(&mut self, row: &Row) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(*row) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => {
                tracing::error!(
                    "{QUEUE} rows wait to be written, and there is no room for more: recording ends"
                );
                self.overflowed.store(true, Ordering::Relaxed);
            }
            // The writer has failed and has said so.
            Err(TrySendError::Closed(_)) => {}
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    use netdiag_telemetry::{LinkSample, Rolling};

    use super::*;

    fn row(second: u64) -> Row {
        let sample = LinkSample {
            timestamp: Duration::from_secs(second),
            rtt: None,
            srtt: None,
            retrans_segs: 0,
            segs_out: None,
            avg_cwnd: None,
            throughput_bps: None,
            flows: None,
            stalled_flows: None,
            source: None,
        };
        Row { sample, rolling: Rolling::default() }
    }

    fn no_room() -> anyhow::Error {
        let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
        anyhow::Error::new(error).context(NoRoom::for_test())
    }

    #[test]
    fn rows_wait_for_room_and_none_is_lost() {
        let (full, (written, seen)) =
            (Arc::new(AtomicBool::new(true)), std::sync::mpsc::channel::<u64>());
        let is_full = Arc::clone(&full);
        let append = move |row: &Row| {
            if is_full.load(Ordering::Relaxed) {
                return Err(no_room());
            }
            written.send(row.sample.timestamp.as_secs())?;
            Ok(())
        };
        let failed = |error: &anyhow::Error| panic!("{error:#}");
        let (mut sender, writer) =
            start(append, failed, Stop::new(), Confinement::none()).expect("a thread");
        (0..5).for_each(|second| sender.send(&row(second)));
        full.store(false, Ordering::Relaxed);
        (5..8).for_each(|second| sender.send(&row(second)));
        drop(sender);
        writer.join().expect("all are written");
        assert_eq!(seen.iter().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_stop_does_not_wait_for_room_and_tells() {
        let stop = Stop::new();
        let (mut sender, writer) =
            start(|_: &Row| Err(no_room()), |_| (), stop.clone(), Confinement::none())
                .expect("a thread");
        sender.send(&row(0));
        let asked = Instant::now();
        stop.ask();
        drop(sender);
        let error = writer.join().expect_err("the row is not written");
        assert!(error.is::<NoRoom>() && asked.elapsed() < RETRY, "{error:#}");
    }

    #[test]
    fn what_does_not_pass_is_told_at_once() {
        let (told, heard) = std::sync::mpsc::channel();
        let append = |_: &Row| anyhow::bail!("torn cable");
        let failed = move |error: &anyhow::Error| told.send(error.to_string()).expect("heard");
        let (mut sender, writer) =
            start(append, failed, Stop::new(), Confinement::none()).expect("a thread");
        sender.send(&row(0));
        assert_eq!(heard.recv().expect("told"), "torn cable");
        assert!(writer.join().is_err());
    }
}

//! `net_data.csv` on disk: written so that it survives anything, followed while somebody else writes it, or read as a whole.
//!
//! What a row looks like is `netdiag_telemetry::csv`'s business; this is the I/O around it.

mod complaints;
mod lock;
mod pacer;
mod recording;
mod sink;
mod tail;
mod writer;

pub(crate) use pacer::{CsvPacer, POLL, RowClock, STALE_AFTER};
pub(crate) use recording::{Labels, read};
pub(crate) use sink::{CsvSink, is_closed, is_stdout};
pub(crate) use writer::NoRoom;

use std::path::Path;

use netdiag_telemetry::csv::CsvError;

use crate::failure::UsageError;

/// Refuses the file that `flag` named for what is in it.
fn unusable(flag: &str, path: &Path, wrong: &CsvError) -> UsageError {
    let remedy = match wrong.line() {
        1 => "give another file",
        _ => "mend or remove that line, or give another file",
    };
    UsageError::new(format!("{flag} {}: cannot be used: {wrong}; {remedy}", path.display()))
}

//! `net_data.csv` on disk: written so that it survives anything, and followed while somebody else writes it.
//!
//! What a row looks like is `netdiag_telemetry::csv`'s business; this is the I/O around it.

mod lock;
mod pacer;
mod tail;
mod writer;

pub(crate) use pacer::{CsvPacer, POLL, RowClock, STALE_AFTER};
pub(crate) use writer::CsvWriter;

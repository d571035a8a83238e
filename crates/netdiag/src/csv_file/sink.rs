//! Where rows go: to a file, or to standard output (`-`) for another program to read.
//!
//! Standard output has no past: the header comes first, and nothing is repaired, rotated or locked.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use netdiag_telemetry::{Row, csv};

use super::writer::CsvWriter;
use crate::output::{Output, Written};
use crate::stop::Stop;

/// An open end for rows.
#[derive(Debug)]
pub(crate) enum CsvSink {
    File(CsvWriter),
    Stdout { output: Output, stop: Stop },
}

impl CsvSink {
    /// Opens what `path` names. `max_rows` limits a file, and `stop` ends waiting for whoever reads standard output.
    pub(crate) fn open(path: &Path, max_rows: u64, stop: &Stop) -> anyhow::Result<Self> {
        if !is_stdout(path) {
            return CsvWriter::open(path, Some(max_rows)).map(Self::File);
        }
        let mut sink = Self::Stdout { output: Output::default(), stop: stop.clone() };
        sink.print(&csv::header())?;
        Ok(sink)
    }

    /// Appends a row. An error that [`is_closed`] tells apart says that nobody reads any more.
    pub(crate) fn append(&mut self, row: &Row) -> anyhow::Result<()> {
        match self {
            Self::File(writer) => writer.append(row),
            Self::Stdout { .. } => self.print(&csv::format_row(row)),
        }
    }

    fn print(&mut self, line: &str) -> anyhow::Result<()> {
        let Self::Stdout { output, stop } = self else { return Ok(()) };
        match output.write(line, stop)? {
            // What nobody takes while the command ends is nobody's loss.
            Written::Whole | Written::Stopped => Ok(()),
            Written::Closed => Err(io::Error::from(io::ErrorKind::BrokenPipe))
                .context("cannot write to stdout, which nobody reads any more"),
        }
    }
}

/// Whether `path` stands for standard output.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether an error is that of a reader who has left, which is no failure of a command that wrote for him alone.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().map(io::Error::kind)
    };
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}

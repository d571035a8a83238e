//! What can be wrong with a CSV file. Every message names the place, the value and what belongs there.
//!
//! Invariant: no message repeats more than a few dozen characters of the file, and none of them unescaped.

use super::LONGEST_LINE;
use super::decoder::REQUIRED;

/// What is wrong with a CSV file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// The header lacks a column.
    #[error("line 1: column `{0}` is missing (required: {list})", list = REQUIRED.join(", "))]
    MissingColumn(&'static str),
    /// A header names a column twice.
    #[error("line 1: column `{0}` appears twice; keep one of them")]
    RepeatedColumn(&'static str),
    /// A cell is not what its column holds.
    #[error("line {line}: column `{column}`: `{value}` is not {expected}")]
    Cell {
        /// Line number, from 1.
        line: u64,
        /// The column's name.
        column: &'static str,
        /// The cell, shortened.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A row has more or fewer cells than the header.
    #[error("line {line}: {found} cells, expected {expected} as in the header")]
    Width {
        /// Line number, from 1.
        line: u64,
        /// Cells found.
        found: usize,
        /// Cells of the header.
        expected: usize,
    },
    /// A line is longer than any row.
    #[error("line {line}: longer than {LONGEST_LINE} bytes; this is not a link telemetry CSV")]
    TooLong {
        /// Line number, from 1.
        line: u64,
    },
    /// Not text.
    #[error(
        "line {line}: NUL or invalid UTF-8; this is not a link telemetry CSV, or a power failure damaged it"
    )]
    NotText {
        /// Line number, from 1.
        line: u64,
    },
}

impl CsvError {
    /// The line that it speaks of, from 1. On line 1, the header, it is the whole file that cannot be read.
    pub fn line(&self) -> u64 {
        match *self {
            Self::MissingColumn(_) | Self::RepeatedColumn(_) => 1,
            Self::Cell { line, .. }
            | Self::Width { line, .. }
            | Self::TooLong { line }
            | Self::NotText { line } => line,
        }
    }
}

/// A header that is not the one this version writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderMismatch {
    /// A column differs.
    #[error("column {position} is {}, expected `{expected}`", named(found))]
    Differs {
        /// Position, from 1.
        position: usize,
        /// The column there; empty if the header ends before.
        found: String,
        /// The column that belongs there.
        expected: &'static str,
    },
    /// There are more columns than we write.
    #[error("column {position} is `{found}`, expected nothing after `{last}`")]
    Extra {
        /// Position, from 1.
        position: usize,
        /// The column there.
        found: String,
        /// The last column that we write.
        last: &'static str,
    },
}

fn named(column: &str) -> String {
    if column.is_empty() { "missing".to_owned() } else { format!("`{column}`") }
}

/// As much of a foreign text as an error message should repeat.
pub(super) fn shortened(text: &str) -> String {
    const LENGTH: usize = 40;
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", text[..end].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

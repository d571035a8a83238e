//! `net_data.csv`: its columns, its rows, and a reader for a file that is still being written.
//!
//! [`COLUMNS`] is the one declaration that header, rows and documentation follow. Writers write every column in that
//! order. Readers ([`RowDecoder`]) take columns by name, so files of the original family (fewer columns, extra ones,
//! integer timestamps, `0` for "no RTT sample") read the same.
//!
//! Invariants: an RTT that was not measured is an empty field, never 0; what [`format_row`] writes, the decoder reads;
//! a last line without its newline is not a row.

mod columns;
mod decoder;
mod error;

pub use columns::{COLUMNS, Column};
pub use decoder::RowDecoder;
pub use error::{CsvError, HeaderMismatch};

use crate::sample::Row;
use error::shortened;

/// Longest line that is read, bytes: some hundred times a full row. A longer one is no CSV of ours.
pub const LONGEST_LINE: usize = 64 * 1024;

/// The header line, with its newline.
pub fn header() -> String {
    COLUMNS.map(|column| column.name).join(",") + "\n"
}

/// One row as a line, with its newline.
pub fn format_row(row: &Row) -> String {
    // A full row takes about 130 bytes.
    let mut line = String::with_capacity(160);
    for (index, column) in COLUMNS.iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        column.write(row, &mut line);
    }
    line.push('\n');
    line
}

/// Whether a file that starts with `line` can be appended to.
pub fn check_header(line: &str) -> Result<(), HeaderMismatch> {
    let mut found = line.trim_end_matches(['\r', '\n']).split(',');
    for (index, expected) in COLUMNS.iter().enumerate() {
        let found = found.next().unwrap_or_default();
        if found != expected.name {
            return Err(HeaderMismatch::Differs {
                position: index + 1,
                found: shortened(found),
                expected: expected.name,
            });
        }
    }
    match found.next() {
        Some(extra) => Err(HeaderMismatch::Extra {
            position: COLUMNS.len() + 1,
            found: shortened(extra),
            last: COLUMNS[COLUMNS.len() - 1].name,
        }),
        None => Ok(()),
    }
}

/// Whether `line`, the file's line number `number` (from 1) with its newline, is a row under our header. Blank lines pass,
/// as they do when read.
pub fn check_row(line: &[u8], number: u64) -> Result<(), CsvError> {
    let mut result = Ok(());
    RowDecoder::after(number.saturating_sub(1))?.push(line, |row| result = row.map(drop));
    result
}

/// Reads a whole file, up to its first error. A last line without newline is left out.
pub fn read_rows(bytes: &[u8]) -> Result<Vec<Row>, CsvError> {
    let mut rows = Vec::new();
    let mut wrong = None;
    RowDecoder::default().push(bytes, |row| match row {
        Ok(row) if wrong.is_none() => rows.push(row),
        Ok(_) => {}
        Err(error) => {
            wrong.get_or_insert(error);
        }
    });
    wrong.map_or(Ok(rows), Err)
}

#[cfg(test)]
mod tests;

//! `net_data.csv`: its columns, its rows, and a reader for a file that is still being written.
//!
//! Writers write every column in one order. Readers take columns by name, so files of the original family (fewer
//! columns, extra ones, integer timestamps, `0` for "no RTT sample") read the same.
//!
//! Invariants: an RTT that was not measured is an empty field, never 0; a last line without its newline is not a row;
//! no input makes the decoder panic or hold more than [`LONGEST_LINE`] bytes.

use std::fmt::Write as _;
use std::time::Duration;

use ::csv::{ReaderBuilder, StringRecord};

use crate::sample::{LinkSample, Rolling, Row, RttSummary, Source};

/// The columns, in the order they are written. RTTs are microseconds.
pub const COLUMNS: [&str; 18] = [
    "timestamp",
    "min_rtt_us",
    "max_rtt_us",
    "avg_rtt_us",
    "p95_rtt_us",
    "rtt_samples",
    "srtt_us",
    "retrans_count",
    "segs_out",
    "avg_cwnd",
    "throughput_bps",
    "rolling_avg_rtt",
    "rolling_p95_rtt",
    "rolling_std_rtt",
    "rolling_retrans",
    "flows",
    "stalled_flows",
    "source",
];

/// Columns without which a file says nothing that a rate could follow from.
const REQUIRED: [&str; 4] = ["timestamp", "avg_rtt_us", "p95_rtt_us", "retrans_count"];

/// Longest line that is read, bytes: some hundred times a full row. A longer one is no CSV of ours.
const LONGEST_LINE: usize = 64 * 1024;

/// Largest number accepted in any column: 31 years in microseconds, a petabit per second, or 31 million years of Unix
/// time. Beyond it something else was written, and every unit still fits its type.
const LARGEST: f64 = 1e15;

/// What is wrong with a CSV file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// The header lacks a column.
    #[error("line 1: column `{0}` is missing (required: {list})", list = REQUIRED.join(", "))]
    MissingColumn(&'static str),
    /// A header names a column twice.
    #[error("line 1: column `{0}` appears twice")]
    RepeatedColumn(String),
    /// A cell is not what its column holds.
    #[error("line {line}: column `{column}`: `{value}` is not {expected}")]
    Cell {
        /// Line number, from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// The cell, shortened.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A row has more or fewer cells than the header.
    #[error("line {line}: {found} fields, expected {expected} as in the header")]
    Width {
        /// Line number, from 1.
        line: u64,
        /// Fields found.
        found: usize,
        /// Fields of the header.
        expected: usize,
    },
    /// A line is longer than any row.
    #[error("line {line}: longer than {LONGEST_LINE} bytes; this is not a link telemetry CSV")]
    TooLong {
        /// Line number, from 1.
        line: u64,
    },
    /// Not text.
    #[error("line {line}: not valid UTF-8; this is not a link telemetry CSV")]
    NotText {
        /// Line number, from 1.
        line: u64,
    },
}

/// A header that is not the one this version writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderMismatch {
    /// A column differs.
    #[error("column {position} is `{found}`, expected `{expected}`")]
    Differs {
        /// Position, from 1.
        position: usize,
        /// The column there.
        found: String,
        /// The column that belongs there.
        expected: &'static str,
    },
    /// There are more columns than we write.
    #[error("column {position} `{found}` is not one of ours")]
    Extra {
        /// Position, from 1.
        position: usize,
        /// The column there.
        found: String,
    },
}

/// The header line, with its newline.
pub fn header() -> String {
    COLUMNS.join(",") + "\n"
}

/// Whether a file that starts with `line` can be appended to.
pub fn check_header(line: &str) -> Result<(), HeaderMismatch> {
    let found: Vec<&str> = line.trim_end_matches(['\r', '\n']).split(',').collect();
    for (index, &expected) in COLUMNS.iter().enumerate() {
        let found = found.get(index).copied().unwrap_or_default();
        if found != expected {
            return Err(HeaderMismatch::Differs {
                position: index + 1,
                found: shortened(found),
                expected,
            });
        }
    }
    match found.get(COLUMNS.len()) {
        Some(extra) => {
            Err(HeaderMismatch::Extra { position: COLUMNS.len() + 1, found: shortened(extra) })
        }
        None => Ok(()),
    }
}

/// One row as a line, with its newline.
pub fn format_row(row: &Row) -> String {
    let Row { sample, rolling } = row;
    let rtt = sample.rtt;
    let mut line = String::with_capacity(160);
    // Writing to a String cannot fail.
    let _ = write!(line, "{:.3}", sample.timestamp.as_secs_f64());
    cell(&mut line, rtt.map(|rtt| micros(rtt.min)));
    cell(&mut line, rtt.map(|rtt| micros(rtt.max)));
    cell(&mut line, rtt.map(|rtt| micros(rtt.avg)));
    cell(&mut line, rtt.map(|rtt| micros(rtt.p95)));
    cell(&mut line, Some(rtt.map_or(0, |rtt| rtt.samples)));
    cell(&mut line, sample.srtt.map(micros));
    cell(&mut line, Some(sample.retrans_segs));
    cell(&mut line, sample.segs_out);
    cell(&mut line, sample.avg_cwnd.map(tenths));
    cell(&mut line, sample.throughput_bps.map(f64::round));
    cell(&mut line, rolling.avg_rtt.map(micros));
    cell(&mut line, rolling.p95_rtt.map(micros));
    cell(&mut line, rolling.std_rtt.map(micros));
    cell(&mut line, Some(rolling.retrans_segs));
    cell(&mut line, sample.flows);
    cell(&mut line, sample.stalled_flows);
    cell(&mut line, sample.source);
    line.push('\n');
    line
}

/// Reads a whole file. A last line without newline is left out.
pub fn read_rows(bytes: &[u8]) -> Result<Vec<Row>, CsvError> {
    let mut decoder = RowDecoder::default();
    let mut rows = Vec::new();
    decoder.push(bytes, |row| {
        rows.push(row);
    })?;
    Ok(rows)
}

/// Reads a file piece by piece, as it grows. A new decoder starts at the beginning of a file.
#[derive(Debug, Default)]
pub struct RowDecoder {
    /// What has come of a line that has not ended yet.
    pending: Vec<u8>,
    line: u64,
    schema: Option<Schema>,
}

impl RowDecoder {
    /// Takes in the next bytes of the file and calls `each` with every row that ends in them.
    ///
    /// After an error the decoder goes on with the next line at the next call; what followed the bad line in `bytes` is
    /// kept.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Row)) -> Result<(), CsvError> {
        let mut first_error = None;
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            // A line that is too long is not collected, only skipped.
            if self.pending.len() + piece.len() > LONGEST_LINE {
                first_error.get_or_insert(CsvError::TooLong { line: self.line + 1 });
                self.pending.truncate(0);
                self.pending.resize(LONGEST_LINE, b'?');
            } else {
                self.pending.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                self.line += 1;
                let line = std::mem::take(&mut self.pending);
                if line.len() < LONGEST_LINE {
                    match self.decode(&line) {
                        Ok(Some(row)) => each(row),
                        Ok(None) => {}
                        Err(error) => {
                            first_error.get_or_insert(error);
                        }
                    }
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Whether bytes of an unfinished line are waiting for its end.
    pub fn has_partial_line(&self) -> bool {
        !self.pending.is_empty()
    }

    fn decode(&mut self, line: &[u8]) -> Result<Option<Row>, CsvError> {
        let number = self.line;
        let text = std::str::from_utf8(line).map_err(|_| CsvError::NotText { line: number })?;
        let text = text.trim_end_matches(['\n', '\r']);
        let Some(schema) = &self.schema else {
            self.schema = Some(Schema::new(text.trim_start_matches('\u{feff}'))?);
            return Ok(None);
        };
        if text.is_empty() {
            return Ok(None);
        }
        schema.row(text, number).map(Some)
    }
}

/// Where each of our columns stands in a file.
#[derive(Debug)]
struct Schema {
    width: usize,
    places: [Option<usize>; COLUMNS.len()],
}

impl Schema {
    fn new(header: &str) -> Result<Self, CsvError> {
        let names = fields(header);
        let mut places = [None; COLUMNS.len()];
        for (place, name) in names.iter().enumerate() {
            if let Some(column) = COLUMNS.iter().position(|&column| column == name)
                && places[column].replace(place).is_some()
            {
                return Err(CsvError::RepeatedColumn(shortened(name)));
            }
        }
        for required in REQUIRED {
            let column = COLUMNS.iter().position(|&column| column == required);
            if column.and_then(|column| places[column]).is_none() {
                return Err(CsvError::MissingColumn(required));
            }
        }
        Ok(Self { width: names.len(), places })
    }

    fn row(&self, text: &str, line: u64) -> Result<Row, CsvError> {
        let cells = fields(text);
        if cells.len() != self.width {
            return Err(CsvError::Width { line, found: cells.len(), expected: self.width });
        }
        let cells = Cells { schema: self, cells, line };
        let timestamp = cells
            .number("timestamp")?
            .ok_or_else(|| cells.wrong("timestamp", "a time in seconds since 1970"))?;
        // Empty and 0 both mean that nothing was measured.
        let min = cells.micros("min_rtt_us")?;
        let max = cells.micros("max_rtt_us")?;
        let avg = cells.micros("avg_rtt_us")?;
        let p95 = cells.micros("p95_rtt_us")?;
        let samples = cells.count("rtt_samples")?;
        let rtt = avg.or(p95).map(|any| {
            let avg = avg.unwrap_or(any);
            RttSummary {
                min: min.unwrap_or(avg),
                max: max.unwrap_or(avg),
                avg,
                p95: p95.unwrap_or(avg),
                samples: samples.unwrap_or(1).max(1),
            }
        });
        Ok(Row {
            sample: LinkSample {
                timestamp: Duration::from_secs_f64(timestamp),
                rtt,
                srtt: cells.micros("srtt_us")?,
                retrans_segs: cells.count("retrans_count")?.unwrap_or_default(),
                segs_out: cells.count("segs_out")?,
                avg_cwnd: cells.number("avg_cwnd")?,
                throughput_bps: cells.number("throughput_bps")?,
                flows: cells.narrow_count("flows")?,
                stalled_flows: cells.narrow_count("stalled_flows")?,
                source: cells.source()?,
            },
            rolling: Rolling {
                avg_rtt: cells.micros("rolling_avg_rtt")?,
                p95_rtt: cells.micros("rolling_p95_rtt")?,
                std_rtt: cells.micros("rolling_std_rtt")?,
                retrans_segs: cells.count("rolling_retrans")?.unwrap_or_default(),
            },
        })
    }
}

/// One line's cells by column name.
struct Cells<'a> {
    schema: &'a Schema,
    cells: StringRecord,
    line: u64,
}

impl Cells<'_> {
    /// The cell, or `None` if it is empty or the file lacks the column.
    fn get(&self, column: &'static str) -> Option<&str> {
        let index = COLUMNS.iter().position(|&name| name == column)?;
        let cell = self.cells.get(self.schema.places[index]?)?.trim();
        (!cell.is_empty()).then_some(cell)
    }

    /// A number between 0 and [`LARGEST`].
    fn number(&self, column: &'static str) -> Result<Option<f64>, CsvError> {
        let Some(cell) = self.get(column) else { return Ok(None) };
        match cell.parse::<f64>() {
            Ok(value) if (0.0..=LARGEST).contains(&value) => Ok(Some(value)),
            _ => Err(self.wrong(column, "a finite number, 0 or above")),
        }
    }

    fn micros(&self, column: &'static str) -> Result<Option<Duration>, CsvError> {
        let us = self.number(column)?.filter(|&us| us > 0.0);
        Ok(us.map(|us| Duration::from_secs_f64(us / 1e6)))
    }

    /// A count; files of the original family write some of them as `3.0`.
    fn count(&self, column: &'static str) -> Result<Option<u64>, CsvError> {
        let value = self.number(column)?;
        if value.is_some_and(|value| value.fract() != 0.0) {
            return Err(self.wrong(column, "a whole number"));
        }
        Ok(value.map(|value| value as u64))
    }

    fn narrow_count(&self, column: &'static str) -> Result<Option<u32>, CsvError> {
        let Some(value) = self.count(column)? else { return Ok(None) };
        match u32::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(self.wrong(column, "a number of flows")),
        }
    }

    fn source(&self) -> Result<Option<Source>, CsvError> {
        match self.get("source") {
            None => Ok(None),
            Some("ebpf") => Ok(Some(Source::Ebpf)),
            Some("sockdiag") => Ok(Some(Source::Sockdiag)),
            Some(_) => Err(self.wrong("source", "`ebpf` or `sockdiag`")),
        }
    }

    fn wrong(&self, column: &'static str, expected: &'static str) -> CsvError {
        CsvError::Cell {
            line: self.line,
            column: column.to_owned(),
            value: shortened(self.get(column).unwrap_or_default()),
            expected,
        }
    }
}

fn cell(line: &mut String, value: Option<impl std::fmt::Display>) {
    line.push(',');
    if let Some(value) = value {
        // Writing to a String cannot fail.
        let _ = write!(line, "{value}");
    }
}

/// Microseconds to a tenth, the least that can be told apart from 0.
fn micros(duration: Duration) -> f64 {
    tenths(duration.as_secs_f64() * 1e6).max(0.1)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The fields of one line. Ours never need quotes; spreadsheets and foreign columns do.
fn fields(line: &str) -> StringRecord {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(line.len().max(1))
        .from_reader(line.as_bytes());
    let mut record = StringRecord::new();
    // One line of valid UTF-8 cannot fail to be read, and an empty one is an empty record.
    let _ = reader.read_record(&mut record);
    record
}

/// As much of a foreign text as an error message should repeat.
fn shortened(text: &str) -> String {
    const LENGTH: usize = 40;
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", text[..end].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests;

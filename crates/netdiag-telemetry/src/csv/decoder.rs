//! From bytes to rows, piece by piece, as a file grows.
//!
//! Lines are found first and parsed after, so a row is seen when its newline is and not before. A quoted cell may hold
//! commas but no line break; ours hold neither.
//!
//! Invariants: how the bytes are cut into pieces does not matter; no input makes it panic or hold more than
//! [`LONGEST_LINE`] bytes; a bad line costs that line, a bad header the file, and each is told once.

use std::borrow::Cow;
use std::time::Duration;

use super::LONGEST_LINE;
use super::columns::{COLUMNS, position};
use super::error::{CsvError, shortened};
use crate::sample::{LinkSample, Rolling, Row, RttSummary, Source};

/// Columns without which a file says nothing that a rate could follow from.
pub(super) const REQUIRED: [&str; 4] = ["timestamp", "avg_rtt_us", "p95_rtt_us", "retrans_count"];

/// The column in which people mark rows as bad. It is none of ours: nothing here writes it.
const LABEL: &str = "label";

/// Largest number accepted: 31 years in microseconds, or a petabit per second. Beyond it something else was written, and
/// up to it every unit fits its type and every count a float.
const LARGEST: f64 = 1e15;

/// Latest timestamp accepted, seconds: the year 5138. Milliseconds since 1970 are beyond it, and would otherwise pass
/// for seconds.
const LATEST: f64 = 1e11;

/// Decodes one file from its beginning. A last line without newline stays pending, and is absent if nothing follows.
#[derive(Debug, Default)]
pub struct RowDecoder {
    /// What has come of a line that has not ended yet.
    pending: Vec<u8>,
    /// The line is too long, which was told and counted, and its rest is passed over.
    too_long: bool,
    /// Lines that have ended, and one that is too long.
    line: u64,
    header: Header,
}

#[derive(Debug, Default)]
enum Header {
    #[default]
    Awaited,
    Read(Box<Schema>),
    /// Without a header no line means anything.
    Refused,
}

impl RowDecoder {
    /// A decoder for a file under our own header, of which `lines` were passed over, the header among them.
    pub(super) fn after(lines: u64) -> Result<Self, CsvError> {
        let mut decoder = Self::default();
        decoder.skip(super::header().as_bytes())?;
        Ok(Self { line: lines, ..decoder })
    }

    /// Takes in the next bytes of the file, and calls `each` with the row, or what is wrong with it, of every line that
    /// ends in them. After a header that cannot be used there is one error and nothing else.
    pub fn push(&mut self, bytes: &[u8], each: impl FnMut(Result<Row, CsvError>)) {
        self.rows(bytes, |cells| cells.row(), each);
    }

    /// The same with each row's label, if the file has a column of that name: whether somebody marked the row as bad.
    pub fn push_labelled(
        &mut self,
        bytes: &[u8],
        each: impl FnMut(Result<(Row, Option<bool>), CsvError>),
    ) {
        self.rows(bytes, |cells| Ok((cells.row()?, cells.label()?)), each);
    }

    /// Takes in the next bytes of the file without looking at their rows, for a file of which only the end matters. A
    /// header among them is read, and lines are counted.
    pub fn skip(&mut self, bytes: &[u8]) -> Result<(), CsvError> {
        let mut result = Ok(());
        self.lines(bytes, |decoder, line| {
            if matches!(decoder.header, Header::Awaited) {
                result = decoder.decode(line, |_| Ok(())).map(drop);
            }
        });
        result
    }

    /// Whether bytes of an unfinished line are waiting for its end.
    pub fn has_partial_line(&self) -> bool {
        self.too_long || !self.pending.is_empty()
    }

    /// Calls `each` with what `read` makes of every row that ends in `bytes`, or with what is wrong with it.
    fn rows<T>(
        &mut self,
        bytes: &[u8],
        read: impl Fn(&Cells<'_>) -> Result<T, CsvError>,
        mut each: impl FnMut(Result<T, CsvError>),
    ) {
        self.lines(bytes, |decoder, line| {
            if let Some(row) = decoder.decode(line, &read).transpose() {
                each(row);
            }
        });
    }

    /// Calls `each` with every line that ends in `bytes`, without its newline; with `None` as soon as one is too long.
    fn lines(&mut self, bytes: &[u8], mut each: impl FnMut(&mut Self, Option<&[u8]>)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (piece, ends) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            if !self.too_long && self.pending.len() + piece.len() > LONGEST_LINE {
                // Told at once: a file without line breaks may never end this one.
                self.too_long = true;
                self.pending = Vec::new();
                self.line += 1;
                each(self, None);
            }
            if !ends {
                if !self.too_long {
                    self.pending.extend_from_slice(piece);
                }
                return; // only the last piece has no end
            }
            if std::mem::take(&mut self.too_long) {
                continue;
            }
            self.line += 1;
            if self.pending.is_empty() {
                each(self, Some(piece));
            } else {
                let mut line = std::mem::take(&mut self.pending);
                line.extend_from_slice(piece);
                each(self, Some(&line));
            }
        }
    }

    fn decode<T>(
        &mut self,
        line: Option<&[u8]>,
        read: impl Fn(&Cells<'_>) -> Result<T, CsvError>,
    ) -> Result<Option<T>, CsvError> {
        let number = self.line;
        let text = || {
            let line = line.ok_or(CsvError::TooLong { line: number })?;
            let text = std::str::from_utf8(line).ok().filter(|text| !text.contains('\0'));
            text.ok_or(CsvError::NotText { line: number })
        };
        match &self.header {
            Header::Refused => Ok(None),
            Header::Awaited => {
                let schema = text().and_then(Schema::new);
                let (header, result) = match schema {
                    Ok(schema) => (Header::Read(Box::new(schema)), Ok(None)),
                    Err(error) => (Header::Refused, Err(error)),
                };
                self.header = header;
                result
            }
            Header::Read(schema) => {
                let text = text()?.trim_ascii();
                if text.is_empty() {
                    return Ok(None);
                }
                schema.cells(text, number).and_then(|cells| read(&cells)).map(Some)
            }
        }
    }
}

/// Where each of our columns stands in a file.
#[derive(Debug)]
struct Schema {
    width: usize,
    places: [Option<usize>; COLUMNS.len()],
    label: Option<usize>,
}

impl Schema {
    fn new(header: &str) -> Result<Self, CsvError> {
        let names = cells(header.trim_start_matches('\u{feff}').trim_ascii());
        let mut places = [None; COLUMNS.len()];
        for (place, name) in names.iter().enumerate() {
            if let Some(column) = position(name)
                && places[column].replace(place).is_some()
            {
                return Err(CsvError::RepeatedColumn(COLUMNS[column].name));
            }
        }
        for required in REQUIRED {
            if position(required).and_then(|column| places[column]).is_none() {
                return Err(CsvError::MissingColumn(required));
            }
        }
        let label = names.iter().position(|name| name == LABEL);
        Ok(Self { width: names.len(), places, label })
    }

    fn cells<'a>(&'a self, text: &'a str, line: u64) -> Result<Cells<'a>, CsvError> {
        let cells = cells(text);
        if cells.len() != self.width {
            return Err(CsvError::Width { line, found: cells.len(), expected: self.width });
        }
        Ok(Cells { schema: self, cells, line })
    }
}

/// One line's cells by column name.
struct Cells<'a> {
    schema: &'a Schema,
    cells: Vec<Cow<'a, str>>,
    line: u64,
}

impl Cells<'_> {
    fn row(&self) -> Result<Row, CsvError> {
        Ok(Row {
            sample: LinkSample {
                timestamp: self.timestamp()?,
                rtt: self.rtt()?,
                srtt: self.micros("srtt_us")?,
                retrans_segs: self.count("retrans_count")?.unwrap_or_default(),
                segs_out: self.count("segs_out")?,
                avg_cwnd: self.number("avg_cwnd")?,
                throughput_bps: self.number("throughput_bps")?,
                flows: self.narrow_count("flows")?,
                stalled_flows: self.narrow_count("stalled_flows")?,
                source: self.source()?,
            },
            rolling: Rolling {
                avg_rtt: self.micros("rolling_avg_rtt")?,
                p95_rtt: self.micros("rolling_p95_rtt")?,
                std_rtt: self.micros("rolling_std_rtt")?,
                retrans_segs: self.count("rolling_retrans")?.unwrap_or_default(),
            },
        })
    }

    /// Whether the row is marked; `None` in a file without the column.
    fn label(&self) -> Result<Option<bool>, CsvError> {
        let Some(place) = self.schema.label else { return Ok(None) };
        let cell = self.cells.get(place).map_or("", AsRef::as_ref);
        match cell.parse::<f64>() {
            Ok(0.0) => Ok(Some(false)),
            Ok(1.0) => Ok(Some(true)),
            _ => Err(self.wrong_cell(LABEL, cell, "0 or 1")),
        }
    }

    /// The cell, or `None` if it is empty or the file lacks the column.
    fn get(&self, column: &'static str) -> Option<&str> {
        let place = self.schema.places[position(column)?]?;
        self.cells.get(place).map(AsRef::as_ref).filter(|cell| !cell.is_empty())
    }

    fn timestamp(&self) -> Result<Duration, CsvError> {
        const COLUMN: &str = "timestamp";
        let seconds = self.get(COLUMN).and_then(|cell| cell.parse().ok());
        match seconds {
            Some(seconds) if (0.0..=LATEST).contains(&seconds) => {
                Ok(Duration::from_secs_f64(seconds))
            }
            _ => Err(self.wrong(COLUMN, "a time in seconds since 1970")),
        }
    }

    /// The interval's RTT. A file may lack the extremes and the number of samples.
    fn rtt(&self) -> Result<Option<RttSummary>, CsvError> {
        let min = self.micros("min_rtt_us")?;
        let max = self.micros("max_rtt_us")?;
        let avg = self.micros("avg_rtt_us")?;
        let p95 = self.micros("p95_rtt_us")?;
        let samples = self.count("rtt_samples")?;
        let Some(avg) = avg.or(p95) else { return Ok(None) };
        let p95 = p95.unwrap_or(avg);
        Ok(Some(RttSummary {
            min: min.unwrap_or(avg),
            max: max.unwrap_or(avg.max(p95)),
            avg,
            p95,
            samples: samples.unwrap_or(1).max(1),
        }))
    }

    /// A number between 0 and [`LARGEST`].
    fn number(&self, column: &'static str) -> Result<Option<f64>, CsvError> {
        let Some(cell) = self.get(column) else { return Ok(None) };
        match cell.parse::<f64>() {
            // Without the sign of `-0`.
            Ok(value) if (0.0..=LARGEST).contains(&value) => Ok(Some(value.abs())),
            _ => Err(self.wrong(column, "a number from 0 to 1e15")),
        }
    }

    /// A time. Empty and 0 both mean that nothing was measured, and so does what a [`Duration`] cannot tell from 0.
    fn micros(&self, column: &'static str) -> Result<Option<Duration>, CsvError> {
        let time = self.number(column)?.map(|us| Duration::from_secs_f64(us / 1e6));
        Ok(time.filter(|time| !time.is_zero()))
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
        let Some(name) = self.get("source") else { return Ok(None) };
        let source = [Source::Ebpf, Source::Sockdiag].into_iter().find(|s| s.as_str() == name);
        source.map(Some).ok_or_else(|| self.wrong("source", "`ebpf` or `sockdiag`"))
    }

    fn wrong(&self, column: &'static str, expected: &'static str) -> CsvError {
        self.wrong_cell(column, self.get(column).unwrap_or_default(), expected)
    }

    fn wrong_cell(&self, column: &'static str, cell: &str, expected: &'static str) -> CsvError {
        CsvError::Cell { line: self.line, column, value: shortened(cell), expected }
    }
}

/// The cells of one line, trimmed. Only spreadsheets and foreign columns quote them.
fn cells(line: &str) -> Vec<Cow<'_, str>> {
    if !line.contains('"') {
        return line.split(',').map(|cell| Cow::Borrowed(cell.trim_ascii())).collect();
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(line.len().max(1))
        .from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    // One line of valid UTF-8 cannot fail to be read.
    let _ = reader.read_record(&mut record);
    record.iter().map(|cell| Cow::Owned(cell.trim_ascii().to_owned())).collect()
}

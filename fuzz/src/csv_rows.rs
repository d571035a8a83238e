//! Telemetry files: any bytes, in whatever pieces, are rows that can be written again, or lines that are refused.
//!
//! An input is a file, but for [`FILLER`]: lines too long to be read would otherwise be out of reach, since inputs are a few
//! kilobytes at most.

use std::time::Duration;

use netdiag_telemetry::Row;
use netdiag_telemetry::csv::{self, CsvError, RowDecoder};

use crate::check_message;

/// A byte of no meaning in a CSV; in an input it stands for so many bytes of a cell that four of them are the longest line.
const FILLER: u8 = 0x02;
const FILLER_LENGTH: usize = csv::LONGEST_LINE / 4;

/// Enough for a line that is too long; each costs some hundred microseconds of an execution.
const MOST_FILLERS: usize = 5;

/// Panics if rows depend on the pieces that the file came in, are none by the CSV's own contract, or are not read back as they
/// were written.
pub fn csv_rows(input: &[u8]) {
    let file = expanded(input);
    let whole = decode([&file[..]]);
    assert_eq!(decode(pieces(&file)), whole, "in pieces, and as a whole");
    // Any place will do that is not always the same one.
    let place = input.iter().map(|&byte| usize::from(byte)).sum::<usize>() % (file.len() + 1);
    check_skipping(file.split_at(place), &whole);
    assert_eq!(csv::read_rows(&file), whole.iter().cloned().collect(), "up to the first error");
    for error in whole.iter().filter_map(|found| found.as_ref().err()) {
        check_message(&error.to_string());
    }
    let rows: Vec<Row> = whole.into_iter().flatten().collect();
    let lines: Vec<String> = rows.iter().map(csv::format_row).collect();
    let again = csv::read_rows((csv::header() + &lines.concat()).as_bytes())
        .unwrap_or_else(|error| panic!("{rows:?} is written as {lines:?}: {error}"));
    assert_eq!(again.iter().map(csv::format_row).collect::<Vec<_>>(), lines, "written again");
    for (row, again) in rows.iter().zip(&again) {
        check_row(row);
        check_same(row, again);
    }
}

/// What lies in front is passed over without a trace.
fn check_skipping((front, rest): (&[u8], &[u8]), whole: &[Result<Row, CsvError>]) {
    let mut decoder = RowDecoder::default();
    // A bad header is told here, and then no more.
    let _ = decoder.skip(front);
    let mut found = Vec::new();
    decoder.push(rest, |row| found.push(row));
    assert!(whole.ends_with(&found), "{} bytes skipped: {found:?} of {whole:?}", front.len());
}

fn check_row(row: &Row) {
    let sample = &row.sample;
    for value in [sample.avg_cwnd, sample.throughput_bps].into_iter().flatten() {
        assert!(value.is_finite() && value.is_sign_positive(), "{row:?}");
    }
    assert!(times(row).into_iter().flatten().all(|time| !time.is_zero()), "never 0: {row:?}");
    assert!(sample.rtt.is_none_or(|rtt| rtt.samples > 0), "{row:?}");
}

/// Whether a row is what came of it when it was written and read.
fn check_same(row: &Row, again: &Row) {
    let near = |a: Duration, b: Duration, within| {
        assert!(a.abs_diff(b) <= within, "{a:?} became {b:?}: {row:?}");
    };
    // Half of the last digit that is written, and what a float cannot tell of the largest times.
    near(row.sample.timestamp, again.sample.timestamp, Duration::from_micros(510));
    for (before, after) in times(row).into_iter().zip(times(again)) {
        assert_eq!(before.is_some(), after.is_some(), "{row:?} became {again:?}");
        if let (Some(before), Some(after)) = (before, after) {
            near(before, after, Duration::from_nanos(300));
        }
    }
    let counts = |row: &Row| {
        let sample = &row.sample;
        let samples = sample.rtt.map(|rtt| rtt.samples);
        let flows = (sample.flows, sample.stalled_flows, sample.source);
        (samples, sample.retrans_segs, sample.segs_out, row.rolling.retrans_segs, flows)
    };
    assert_eq!(counts(again), counts(row));
    let measured =
        |row: &Row| [row.sample.avg_cwnd, row.sample.throughput_bps].map(|n| n.is_some());
    assert_eq!(measured(again), measured(row), "{row:?} became {again:?}");
}

fn times(row: &Row) -> [Option<Duration>; 8] {
    let (rtt, rolling) = (row.sample.rtt, &row.rolling);
    [
        rtt.map(|rtt| rtt.min),
        rtt.map(|rtt| rtt.max),
        rtt.map(|rtt| rtt.avg),
        rtt.map(|rtt| rtt.p95),
        row.sample.srtt,
        rolling.avg_rtt,
        rolling.p95_rtt,
        rolling.std_rtt,
    ]
}

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<Row, CsvError>> {
    let mut decoder = RowDecoder::default();
    let mut found = Vec::new();
    for piece in pieces {
        decoder.push(piece, |row| found.push(row));
    }
    found
}

/// Pieces of 1 to 257 bytes. How long one is follows from its first byte and its place, so that no part of the input is
/// lost to telling it.
fn pieces(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &file[at..];
        let first = usize::from(*rest.first()?);
        let length = (1 + (first * 31 + at) % 257).min(rest.len());
        at += length;
        Some(&rest[..length])
    })
}

fn expanded(input: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(input.len());
    let mut fillers = 0;
    for &byte in input {
        if byte == FILLER && fillers < MOST_FILLERS {
            file.resize(file.len() + FILLER_LENGTH, b'x');
            fillers += 1;
        } else {
            file.push(byte);
        }
    }
    file
}

//! The CSV contract: what is written, what is read, what is refused and how it is said.

use proptest::prelude::*;

use std::time::Duration;

use super::*;
use crate::sample::{LinkSample, Rolling, RttSummary, Source};

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn row() -> Row {
    Row {
        sample: LinkSample {
            timestamp: Duration::from_millis(1_700_000_000_500),
            rtt: Some(RttSummary {
                min: us(20_000),
                max: us(90_000),
                avg: us(30_500),
                p95: us(80_000),
                samples: 17,
            }),
            srtt: Some(us(31_000)),
            retrans_segs: 2,
            segs_out: Some(40),
            avg_cwnd: Some(10.5),
            throughput_bps: Some(16_000.0),
            flows: Some(3),
            stalled_flows: Some(1),
            source: Some(Source::Ebpf),
        },
        rolling: Rolling {
            avg_rtt: Some(us(25_000)),
            p95_rtt: Some(us(60_000)),
            std_rtt: Some(us(9_000)),
            retrans_segs: 12,
        },
    }
}

fn file(lines: &[&str]) -> Vec<u8> {
    (lines.join("\n") + "\n").into_bytes()
}

fn check_error(lines: &[&str], expected: &str) {
    let error = read_rows(&file(lines)).expect_err(expected).to_string();
    assert_eq!(error, expected);
}

#[test]
fn a_row_reads_as_the_contract_says() {
    assert_eq!(
        header() + &format_row(&row()),
        "timestamp,min_rtt_us,max_rtt_us,avg_rtt_us,p95_rtt_us,rtt_samples,srtt_us,retrans_count,segs_out,avg_cwnd,\
         throughput_bps,rolling_avg_rtt,rolling_p95_rtt,rolling_std_rtt,rolling_retrans,flows,stalled_flows,source\n\
         1700000000.500,20000,90000,30500,80000,17,31000,2,40,10.5,16000,25000,60000,9000,12,3,1,ebpf\n"
    );
}

#[test]
fn an_interval_without_samples_is_empty_never_zero() {
    let mut silent = row();
    silent.sample.rtt = None;
    silent.sample.srtt = None;
    silent.rolling = Rolling::default();
    let line = format_row(&silent);
    assert_eq!(line, "1700000000.500,,,,,0,,2,40,10.5,16000,,,,0,3,1,ebpf\n");
    let rows = read_rows((header() + &line).as_bytes()).expect("reads");
    assert_eq!(rows, [silent]);
}

#[test]
fn files_of_the_original_family_are_read() {
    let rows = read_rows(&file(&[
        "\u{feff}timestamp,avg_rtt_us,p95_rtt_us,retrans_count,label,note\r",
        "1700000000,20000,25000,3.0,0,\"x\"\r",
        "1700000001,0,0,0,1,\"a, b\"\r",
        "",
    ]))
    .expect("reads");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].sample.retrans_segs, 3);
    assert_eq!(rows[0].sample.rtt.map(|rtt| (rtt.avg, rtt.p95)), Some((us(20_000), us(25_000))));
    assert_eq!((rows[0].sample.segs_out, rows[0].sample.flows), (None, None));
    assert_eq!(rows[1].sample.rtt, None, "0 means that nothing was measured");
}

#[test]
fn the_original_agents_own_file_is_read() {
    let rows = read_rows(&file(&[
        "timestamp,min_rtt_us,max_rtt_us,avg_rtt_us,p95_rtt_us,retrans_count,avg_cwnd,throughput_bps,rolling_avg_rtt,\
         rolling_p95_rtt,rolling_std_rtt,rolling_retrans",
        "1700000000.12345678,19000,45000.5,20500.25,41000.125,1,10.0,123456.789,21000.1,42000.2,3000.3,7",
        "1700000000.62345678,0,0,0.0,0.0,0,0.0,0.0,21000.1,42000.2,3000.3,7.0",
    ]))
    .expect("reads");
    let rtt = rows[0].sample.rtt.expect("samples");
    assert_eq!((rtt.min, rtt.max, rtt.samples), (us(19_000), Duration::from_nanos(45_000_500), 1));
    assert_eq!((rows[0].rolling.retrans_segs, rows[0].sample.source), (7, None));
    assert_eq!(rows[1].sample.rtt, None);
    assert_eq!(rows[1].rolling, rows[0].rolling);
}

#[test]
fn labels_are_read_where_they_are_asked_for() {
    let labelled = |header: &str, label: &str| {
        let text =
            format!("timestamp,avg_rtt_us,p95_rtt_us,retrans_count{header}\n1,2,3,0{label}\n");
        let mut found = Vec::new();
        RowDecoder::default().push_labelled(text.as_bytes(), |row| {
            found.push(row.map(|(_, label)| label).map_err(|error| error.to_string()));
        });
        // Whoever does not ask is not told what is wrong with them.
        assert_eq!(read_rows(text.as_bytes()).expect("reads").len(), 1);
        found.pop().expect("a row")
    };
    assert_eq!(labelled("", ""), Ok(None));
    assert_eq!(labelled(",label", ",0"), Ok(Some(false)));
    assert_eq!(labelled(",note,label", ",x, 1"), Ok(Some(true)));
    assert_eq!(labelled(",label", ",1.0"), Ok(Some(true)));
    for bad in ["2", "", "yes", "-1", "nan", "0.5"] {
        let told = format!("line 2: column `label`: `{bad}` is not 0 or 1");
        assert_eq!(labelled(",label", &format!(",{bad}")), Err(told));
    }
}

#[test]
fn errors_name_the_line_the_column_and_the_value() {
    let head = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count";
    check_error(
        &["timestamp,avg_rtt_us,retrans_count"],
        "line 1: column `p95_rtt_us` is missing (required: timestamp, avg_rtt_us, p95_rtt_us, retrans_count)",
    );
    check_error(
        &["timestamp,timestamp,avg_rtt_us,p95_rtt_us,retrans_count"],
        "line 1: column `timestamp` appears twice; keep one of them",
    );
    let bad = "is not a number from 0 to 1e15";
    check_error(
        &[head, "1,2,3,4", "1,fast,3,4"],
        &format!("line 3: column `avg_rtt_us`: `fast` {bad}"),
    );
    check_error(&[head, "1,NaN,3,4"], &format!("line 2: column `avg_rtt_us`: `NaN` {bad}"));
    check_error(&[head, "1,2,inf,4"], &format!("line 2: column `p95_rtt_us`: `inf` {bad}"));
    check_error(&[head, "1,1e16,3,4"], &format!("line 2: column `avg_rtt_us`: `1e16` {bad}"));
    check_error(&[head, "1,-2,3,4"], &format!("line 2: column `avg_rtt_us`: `-2` {bad}"));
    check_error(
        &[head, "1,2,3,4.5"],
        "line 2: column `retrans_count`: `4.5` is not a whole number",
    );
    check_error(
        &[head, ",2,3,4"],
        "line 2: column `timestamp`: `` is not a time in seconds since 1970",
    );
    check_error(
        &[head, "1700000000000,2,3,4"],
        "line 2: column `timestamp`: `1700000000000` is not a time in seconds since 1970",
    );
    check_error(&[head, "1,2,3"], "line 2: 3 cells, expected 4 as in the header");
    check_error(&[head, "1,2,3,4,5"], "line 2: 5 cells, expected 4 as in the header");
}

#[test]
fn a_torn_last_line_is_no_row() {
    let whole = header() + &format_row(&row());
    for cut in header().len()..whole.len() {
        assert_eq!(read_rows(&whole.as_bytes()[..cut]).expect("reads"), [], "cut at {cut}");
    }
}

/// Decodes `pieces` one after the other; errors as text.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<Row, String>> {
    let mut decoder = RowDecoder::default();
    let mut found = Vec::new();
    for piece in pieces {
        decoder.push(piece, |row| found.push(row.map_err(|error| error.to_string())));
    }
    found
}

#[test]
fn a_bad_line_costs_that_line() {
    let line = format_row(&row());
    let text = header() + &line + "garbage\n" + &line + "\0\0\n" + &line;
    let told = |what: &str| Err(what.to_owned());
    let found = decode([text.as_bytes(), b"1\xff\n"]);
    let damaged =
        "NUL or invalid UTF-8; this is not a link telemetry CSV, or a power failure damaged it";
    assert_eq!(
        found,
        [
            Ok(row()),
            told("line 3: 1 cells, expected 18 as in the header"),
            Ok(row()),
            told(&format!("line 5: {damaged}")),
            Ok(row()),
            told(&format!("line 7: {damaged}")),
        ]
    );
}

#[test]
fn a_bad_header_is_told_once() {
    let line = format_row(&row());
    for header in ["time,rtt\n", "\n", "\u{feff}\0\n", "x\n\n"] {
        let text = header.to_owned() + &line + &line;
        let found = decode([text.as_bytes(), line.as_bytes()]);
        assert!(matches!(&found[..], [Err(told)] if told.starts_with("line 1: ")), "{found:?}");
    }
}

#[test]
fn an_endless_line_is_refused_once_in_bounded_memory() {
    let header = header();
    let mut decoder = RowDecoder::default();
    decoder.push(header.as_bytes(), |row| panic!("{row:?}"));
    let chunk = vec![b'x'; 10_000];
    let mut found = Vec::new();
    for _ in 0..100 {
        decoder.push(&chunk, |row| found.push(row));
    }
    // Before it ends, because it may not.
    assert_eq!(found, [Err(CsvError::TooLong { line: 2 })]);
    assert!(decoder.has_partial_line());
    let rest = "x\n".to_owned() + &format_row(&row());
    decoder.push(rest.as_bytes(), |row| found.push(row));
    assert_eq!(found, [Err(CsvError::TooLong { line: 2 }), Ok(row())]);
    // The same in one piece.
    let line = [header.as_bytes(), &vec![b'x'; LONGEST_LINE + 1], b"\n"].concat();
    assert_eq!(read_rows(&line), Err(CsvError::TooLong { line: 2 }));
}

#[test]
fn lines_that_are_skipped_are_counted() {
    let line = format_row(&row());
    let text = header() + &line + "garbage\n" + &line;
    for cut in 0..text.len() {
        let mut decoder = RowDecoder::default();
        decoder.skip(&text.as_bytes()[..cut]).expect("a good header");
        let mut found = Vec::new();
        let rest = text[cut..].to_owned() + "more garbage\n";
        decoder.push(rest.as_bytes(), |row| found.push(row));
        let last = CsvError::Width { line: 5, found: 1, expected: COLUMNS.len() };
        assert_eq!(found.last(), Some(&Err(last)), "cut at {cut}");
    }
    let mut decoder = RowDecoder::default();
    assert_eq!(decoder.skip(b"time\n1\n"), Err(CsvError::MissingColumn("timestamp")));
    assert_eq!(decoder.skip(b"2\n"), Ok(()));
}

#[test]
fn what_is_no_number_is_not_written() {
    for value in [f64::NAN, f64::INFINITY, -1.0] {
        let mut odd = row();
        (odd.sample.avg_cwnd, odd.sample.throughput_bps) = (Some(value), Some(value));
        let read = read_rows((header() + &format_row(&odd)).as_bytes()).expect("reads")[0];
        assert_eq!((read.sample.avg_cwnd, read.sample.throughput_bps), (None, None));
    }
}

#[test]
fn numbers_at_the_edge_of_nothing_are_read_as_what_is_written() {
    // Less than half a nanosecond is no time, and a zero has no sign.
    let found = decode([&file(&[
        "timestamp,avg_rtt_us,p95_rtt_us,retrans_count,srtt_us,throughput_bps",
        "-0,0.0004,5e-324,-0.0,0.0006,-0",
    ])[..]]);
    let [Ok(found)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((found.sample.rtt, found.sample.srtt), (None, Some(Duration::from_nanos(1))));
    assert_eq!(format_row(found), "0.000,,,,,0,0.1,0,,,0,,,,0,,,\n");
}

#[test]
fn every_column_is_declared_once_and_described() {
    for (index, column) in COLUMNS.iter().enumerate() {
        assert!(!column.holds.is_empty());
        assert!(COLUMNS[..index].iter().all(|other| other.name != column.name), "{column:?}");
    }
}

#[test]
fn appending_needs_our_header() {
    assert_eq!(check_header(&header()), Ok(()));
    let swapped = header().replace("min_rtt_us,max_rtt_us", "max_rtt_us,min_rtt_us");
    assert_eq!(
        check_header(&swapped).expect_err("swapped").to_string(),
        "column 2 is `max_rtt_us`, expected `min_rtt_us`"
    );
    let longer = header().replace("source\n", "source,label\n");
    assert_eq!(
        check_header(&longer).expect_err("longer").to_string(),
        "column 19 is `label`, expected nothing after `source`"
    );
}

#[test]
fn appending_needs_a_row_to_go_on_after() {
    let check = |line: &[u8], expected: Result<(), &str>| {
        let found = check_row(line, 7).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    };
    check(format_row(&row()).as_bytes(), Ok(()));
    check(b"\n", Ok(()));
    check(b"garbage\n", Err("line 7: 1 cells, expected 18 as in the header"));
    let endless = vec![b'x'; LONGEST_LINE + 1];
    assert_eq!(check_row(&endless, 7), Err(CsvError::TooLong { line: 7 }));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_pieces_do_not_matter(
        bytes in prop::collection::vec(any::<u8>(), 0..2000), with_header: bool, cut in 1usize..100,
    ) {
        let header = if with_header { header() } else { String::new() };
        let text = [header.as_bytes(), &bytes].concat();
        prop_assert_eq!(decode([&text[..]]), decode(text.chunks(cut)));
    }

    /// Cells of all kinds under a good header: close to real files.
    #[test]
    fn pieces_of_almost_good_files_do_not_matter(
        cells in prop::collection::vec("[0-9.,e+\\-naif\"\n\r]{0,40}", 0..40),
        cut in 1usize..50,
    ) {
        let text = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n".to_owned() + &cells.concat();
        let whole = decode([text.as_bytes()]);
        prop_assert_eq!(&whole, &decode(text.as_bytes().chunks(cut)));
        for row in whole.into_iter().flatten() {
            // What was read can be written, and reads the same up to the digits kept.
            let again = read_rows((header() + &format_row(&row)).as_bytes()).expect("reads");
            prop_assert_eq!(again[0].sample.rtt.is_some(), row.sample.rtt.is_some());
            prop_assert_eq!(again[0].sample.retrans_segs, row.sample.retrans_segs);
        }
    }

    #[test]
    fn rows_survive_the_round_trip(
        timestamp_ms in 0u64..4_000_000_000_000, rtt_us in prop::option::of(1u64..100_000_000),
        retrans_segs in 0u64..1_000_000, segs_out in prop::option::of(0u64..1_000_000),
        flows in prop::option::of(any::<u32>()),
    ) {
        let mut written = row();
        written.sample.timestamp = Duration::from_millis(timestamp_ms);
        written.sample.rtt = rtt_us.map(|n| RttSummary {
            min: us(n), max: us(n * 2), avg: us(n), p95: us(n), samples: 3,
        });
        written.sample.retrans_segs = retrans_segs;
        written.sample.segs_out = segs_out;
        written.sample.flows = flows;
        let read = read_rows((header() + &format_row(&written)).as_bytes()).expect("reads")[0];
        let near = |a: Duration, b: Duration| a.abs_diff(b) <= Duration::from_nanos(500_000);
        prop_assert!(near(read.sample.timestamp, written.sample.timestamp));
        // A file that is read and written again and again must not drift.
        prop_assert_eq!(format_row(&read), format_row(&written));
        prop_assert_eq!(read.sample.rtt, written.sample.rtt);
        prop_assert_eq!(read.sample.retrans_segs, retrans_segs);
        prop_assert_eq!((read.sample.segs_out, read.sample.flows), (segs_out, flows));
        prop_assert_eq!(read.rolling, written.rolling);
    }
}

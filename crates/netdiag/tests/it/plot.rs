//! `netdiag plot` draws what there is, and says what it cannot use.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::{complaint, csv_path, netdiag, output, png_size};

/// Half-second rows, the middle third of them with ten times the round trip.
fn recording(rows: u32) -> String {
    let mut text = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n".to_owned();
    for row in 0..rows {
        let us = if (rows / 3..2 * rows / 3).contains(&row) { 200_000 } else { 20_000 };
        let at = 1_700_000_000.0 + f64::from(row) * 0.5;
        writeln!(text, "{at:.1},{us},{us},0").expect("a string");
    }
    text
}

fn plot(data: &Path, out: &Path) -> std::process::Output {
    let mut command = netdiag(["plot", "--data"]);
    command.arg(data).arg("--out").arg(out);
    output(command)
}

#[test]
fn any_recording_has_a_picture() {
    let (folder, path) = csv_path();
    let out = folder.path().join("chart.png");
    let no_round_trips = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n5,,,0\n5.5,,,0\n";
    for text in [recording(240).as_str(), recording(1).as_str(), no_round_trips] {
        std::fs::write(&path, text).expect("file");
        let output = plot(&path, &out);
        assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
        assert_eq!(png_size(&std::fs::read(&out).expect("a picture")), (1600, 1000));
    }
}

#[test]
fn what_cannot_be_drawn_is_told_and_leaves_the_old_picture() {
    let (folder, path) = csv_path();
    let out = folder.path().join("chart.png");
    std::fs::write(&out, "old").expect("file");
    let check = |text: Option<&str>, told: &[&str]| {
        if let Some(text) = text {
            std::fs::write(&path, text).expect("file");
        }
        let output = plot(&path, &out);
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        for told in told {
            assert!(complaint.contains(told), "no `{told}` in {complaint}");
        }
        assert_eq!(std::fs::read(&out).expect("there"), b"old");
    };
    check(None, &["--data", "cannot be used"]);
    let header = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n";
    check(Some(header), &["has no rows yet", "netdiag agent --csv FILE"]);
    check(Some(&(header.to_owned() + "soon,1,1,0\n")), &["line 2", "`soon`", "remove that line"]);
    check(Some("a,b\n1,2\n"), &["line 1", "`timestamp` is missing"]);
    let nowhere = folder.path().join("no/such/folder/chart.png");
    std::fs::write(&path, recording(3)).expect("file");
    let output = plot(&path, &nowhere);
    assert_eq!(output.status.code(), Some(2), "{}", complaint(&output));
    assert!(complaint(&output).contains("chart.png"), "{}", complaint(&output));
}

#[test]
fn a_recording_is_not_replaced_by_its_picture() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().join("data.csv");
    std::fs::write(&data, "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n1,2,3,4\n")
        .expect("file");
    let mut command = netdiag(["plot", "--data"]);
    command.arg(&data).arg("--out").arg(folder.path().join("./data.csv"));
    let output = output(command);
    assert_eq!(output.status.code(), Some(2), "{}", complaint(&output));
    assert!(complaint(&output).contains("is the same file as --data"), "{}", complaint(&output));
    assert!(std::fs::read_to_string(&data).expect("there").starts_with("timestamp"));
}

#[test]
fn what_is_odd_about_the_times_is_told() {
    let folder = tempfile::tempdir().expect("folder");
    let check = |times: &[u64], told: &str| {
        let data = folder.path().join("data.csv");
        let rows: String = times.iter().map(|at| format!("{at},2000,3000,0\n")).collect();
        let text = format!("timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n{rows}");
        std::fs::write(&data, text).expect("file");
        let mut command = netdiag(["plot", "--data"]);
        command.arg(&data).arg("--out").arg(folder.path().join("data.png"));
        let output = output(command);
        assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
        assert!(complaint(&output).contains(told), "no `{told}` in {}", complaint(&output));
    };
    check(&[1, 2, 3, 2, 4], "data.csv: 1 row goes back in time");
    check(&[1, 2, 3, 9_000_003, 9_000_004], "are one pause");
}

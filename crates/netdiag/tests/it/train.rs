//! `netdiag train`: three files that belong together, figures that can be trusted, and bad input that is told.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use netdiag_health::{Health, Model, Observation, RttRange};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Running, complaint, netdiag, output, png_size};

/// Rows of half a second.
struct Recording {
    rows: u32,
    /// Rows of every hundred, from the 60th on, in which the round trip is four times as long.
    bad: u32,
    labelled: bool,
}

impl Recording {
    fn calm(rows: u32) -> Self {
        Self { rows, bad: 0, labelled: false }
    }

    fn faulty(rows: u32) -> Self {
        Self { rows, bad: 20, labelled: true }
    }

    /// p95 RTT in microseconds, retransmitted segments, label.
    fn values(&self) -> impl Iterator<Item = (u64, u64, bool)> {
        let mut state = 7_u64;
        (0..self.rows).map(move |row| {
            // A linear congruential generator (Knuth's MMIX) is noise enough.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let noise = (state >> 33) % 4000;
            let bad = (60..60 + self.bad).contains(&(row % 100));
            let rtt = if bad { 80_000 + 4 * noise } else { 20_000 + noise };
            (rtt, u64::from(noise.is_multiple_of(17)), bad)
        })
    }

    fn text(&self) -> String {
        let label = if self.labelled { ",label" } else { "" };
        let mut text = format!("timestamp,avg_rtt_us,p95_rtt_us,retrans_count{label}\n");
        for (row, (rtt, segs, bad)) in self.values().enumerate() {
            let at = 1_700_000_000.0 + row as f64 * 0.5;
            write!(text, "{at:.1},{rtt},{rtt},{segs}").expect("a string");
            text += if !self.labelled {
                "\n"
            } else if bad {
                ",1\n"
            } else {
                ",0\n"
            };
        }
        text
    }
}

/// A folder with a recording and the three files of a training.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn with(text: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("folder") };
        fs::write(place.path("net_data.csv"), text).expect("file");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = netdiag(["train", "--estimators", "20"]);
        command.args(args).current_dir(&self.folder);
        command
    }

    fn train(&self, args: &[&str]) -> Output {
        output(self.command(args))
    }

    /// A training that works, and its figures.
    #[track_caller]
    fn metrics(&self, args: &[&str]) -> Value {
        let output = self.train(args);
        assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
        serde_json::from_slice(&self.read("training_metrics.json")).expect("JSON")
    }

    fn model(&self) -> Model {
        Model::parse(&self.read("isolation_forest.json")).expect("a model")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect(name)
    }

    /// Names of what is there beside the recording.
    fn written(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).expect("listed");
        let names = entries.map(|entry| entry.expect("listed").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "net_data.csv");
        names.sort();
        names
    }

    /// A training that is refused with one line, and leaves everything as it was.
    #[track_caller]
    fn check_refused(&self, args: &[&str], code: i32, told: &[&str]) {
        let before = self.written();
        let output = self.train(args);
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{args:?}: {complaint}");
        for told in told {
            assert!(complaint.contains(told), "{args:?}: no `{told}` in {complaint}");
        }
        assert_eq!(self.written(), before, "{args:?}");
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn three_files_are_written_and_belong_together() {
    let place = Place::with(&Recording::faulty(800).text());
    let metrics = place.metrics(&[]);
    let files = ["isolation_forest.json", "model_result.png", "training_metrics.json"];
    assert_eq!(place.written(), files);
    assert_eq!(png_size(&place.read("model_result.png")), (1600, 1000));
    let model = place.model();
    assert_eq!(metrics["format"], "netdiag-training-metrics/1");
    assert_eq!(metrics["data"]["file"], "net_data.csv");
    assert_eq!(
        (&metrics["data"]["rows"], &metrics["data"]["used_rows"]),
        (&800.into(), &800.into())
    );
    assert_eq!(number(&metrics["data"]["span_seconds"]), 399.5);
    assert_eq!(metrics["training"]["used_rows"], model.training().rows);
    assert_eq!(number(&metrics["training"]["offset"]), model.offset());
    assert_eq!(metrics["parameters"]["estimators"], model.training().params.n_estimators);
    let counts = metrics["training"]["score_histogram"]["counts"].as_array().expect("a list");
    assert_eq!(counts.iter().map(number).sum::<f64>(), 800.0);
    let stability = &metrics["stability"];
    assert_eq!(stability["seeds"], serde_json::json!([0, 1, 2, 3, 4]));
    assert!(number(&stability["rank_correlation_mean"]) > 0.8, "{stability}");
    assert!(
        number(&stability["rank_correlation_min"]) <= number(&stability["rank_correlation_mean"])
    );
}

#[test]
fn contamination_flags_exactly_its_share() {
    let recording = Recording::calm(700);
    let place = Place::with(&recording.text());
    for share in [0.01, 0.15, 0.5] {
        let metrics = place.metrics(&["--contamination", &share.to_string()]);
        // Counted from the model file and the live judgement's features alone.
        let (model, mut health) = (place.model(), Health::without_training());
        let flagged = recording.values().filter(|&(us, retrans_segs, _)| {
            let rtt = Duration::from_micros(us);
            let rtt = Some(RttRange { min: rtt, p95: rtt });
            let seen = Observation { rtt, retrans_segs, ..Observation::default() };
            let judged = health.observe(&seen, Duration::from_millis(500));
            model.score(&judged.features) < model.offset()
        });
        let flagged = flagged.count() as f64;
        assert!((flagged - share * 700.0).abs() <= 1.0, "{flagged} of 700 for {share}");
        assert_eq!(number(&metrics["training"]["flagged_rows"]), flagged);
    }
    let metrics = place.metrics(&["--contamination", "auto"]);
    assert_eq!(number(&metrics["training"]["offset"]), -0.5);
    assert_eq!(metrics["parameters"]["contamination"], Value::Null);
}

#[test]
fn a_seed_repeats_itself_and_another_one_does_not() {
    let place = Place::with(&Recording::faulty(400).text());
    let files = || ["isolation_forest.json", "training_metrics.json"].map(|name| place.read(name));
    place.metrics(&["--seed", "3"]);
    let first = files();
    place.metrics(&["--seed", "3"]);
    assert_eq!(files(), first);
    place.metrics(&["--seed", "4"]);
    assert!(files().iter().zip(&first).all(|(a, b)| a != b));
}

#[test]
fn labels_are_judged_on_rows_that_were_not_trained_on() {
    let place = Place::with(&Recording::faulty(1600).text());
    fs::write(place.path("other.csv"), Recording::faulty(500).text()).expect("file");
    let output = place.train(&["--validate", "other.csv"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in ["hold-out: 80 of 400 rows bad", "validation: 100 of 500 rows bad", "found 4 of 4"]
    {
        assert!(told.contains(line), "no `{line}` in {told}");
    }
    let metrics: Value =
        serde_json::from_slice(&place.read("training_metrics.json")).expect("JSON");
    assert!(metrics["training"].get("labels").is_none());
    assert_eq!(metrics["hold_out"]["trained_rows"], 1200);
    // Every hundredth row from the 60th on begins an episode of twenty.
    for (part, rows, episodes) in [("hold_out", 400, 4), ("validation", 500, 5)] {
        let part = &metrics[part];
        assert_eq!(
            (&part["rows"], &part["labels"]["bad_rows"]),
            (&rows.into(), &(rows / 5).into())
        );
        let roc = |score: &str| number(&part["labels"][score]["roc_auc"]);
        assert!(roc("anomaly_score") > 0.9 && roc("forest_score") > 0.8, "{part:#}");
        let light = &part["labels"]["anomaly_light"];
        assert_eq!((&light["episodes"], &light["found"]), (&episodes.into(), &episodes.into()));
        assert!((1.0..=3.0).contains(&number(&light["median_delay_seconds"])), "{light}");
        assert_eq!(number(&light["false_alarms_per_hour"]), 0.0);
    }
    let calm = Recording { labelled: true, ..Recording::calm(400) };
    let place = Place::with(&calm.text());
    let metrics = place.metrics(&[]);
    assert_eq!(metrics["hold_out"]["labels"]["anomaly_score"]["roc_auc"], Value::Null);
    let note = "no row of the hold-out is labelled 1";
    assert!(metrics["notes"].to_string().contains(note), "{}", metrics["notes"]);
}

#[test]
fn what_lacks_is_null_and_said() {
    // Of 120 rows the first three quarters are too few.
    let place = Place::with(&Recording::calm(120).text());
    let output = place.train(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("no hold-out: in the first three quarters, 90 rows"), "{told}");
    let metrics: Value =
        serde_json::from_slice(&place.read("training_metrics.json")).expect("JSON");
    assert_eq!((&metrics["hold_out"], &metrics["validation"]), (&Value::Null, &Value::Null));

    // Without losses, and with rows too far apart for a slope.
    let text = Recording::calm(400).text();
    let lines = text.lines().skip(1).enumerate().map(|(row, line)| {
        let rtt = line.split(',').nth(1).expect("a cell");
        format!("{},{rtt},{rtt},0\n", 1_700_000_000 + 5 * row)
    });
    let header = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n".to_owned();
    let place = Place::with(&(header + &lines.collect::<String>()));
    let output = place.train(&[]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let constant = "trained around rtt_spread, retrans_rate, rtt_slope: the same in all rows";
    assert!(told.contains(constant), "{told}{}", complaint(&output));
    assert_eq!(place.model().training().constant_features.len(), 3);
}

#[test]
fn files_of_the_original_family_are_trained_from() {
    let header =
        "timestamp,min_rtt_us,max_rtt_us,avg_rtt_us,p95_rtt_us,retrans_count,avg_cwnd,note\n";
    let mut text = header.to_owned();
    for (row, (rtt, segs, _)) in Recording::calm(400).values().enumerate() {
        let (rtt, segs) = if row % 10 == 9 { (0, 0) } else { (rtt, segs) };
        let at = 1_700_000_000 + row;
        writeln!(text, "{at},{rtt},{rtt},{rtt}.0,{rtt}.0,{segs}.0,10.0,\"a, b\"")
            .expect("a string");
    }
    let place = Place::with(&text);
    let metrics = place.metrics(&[]);
    let (rows, idle) = (&metrics["data"]["rows"], &metrics["data"]["idle_rows"]);
    assert_eq!((rows, idle), (&400.into(), &40.into()));
    assert_eq!(metrics["data"]["labelled"], false);
}

#[test]
fn recordings_that_nothing_can_be_learned_from() {
    let check = |text: &str, told: &[&str]| Place::with(text).check_refused(&[], 2, told);
    let header = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n";
    check("", &["--data net_data.csv", "has no rows yet", "netdiag agent"]);
    check(header, &["has no rows yet"]);
    check("timestamp,avg_rtt_us\n1,2\n", &["line 1", "`p95_rtt_us` is missing", "another file"]);
    let few = "99 rows with telemetry are too few: record at least 100 intervals";
    check(&Recording::calm(99).text(), &["--data net_data.csv (the default): ", few]);
    let silent: String = (0..300).map(|row| format!("{row},0,0,0\n")).collect();
    check(&(header.to_owned() + &silent), &["0 rows with telemetry are too few"]);
    let alike: String = (0..300).map(|row| format!("{row},20000,20000,0\n")).collect();
    check(
        &(header.to_owned() + &alike),
        &["all 300 rows are alike: record intervals of real traffic"],
    );
    let good = Recording::calm(200).text();
    for (cell, column) in
        [("nan,1,0", "avg_rtt_us"), ("1,inf,0", "p95_rtt_us"), ("1,1,-1", "retrans_count")]
    {
        let text = format!("{good}1700000200,{cell}\n");
        check(&text, &["line 202", column, "is not a number from 0", "mend or remove that line"]);
    }
    let labelled = Recording::faulty(200).text();
    check(&(labelled + "1700000200,1,1,0,2\n"), &["line 202: column `label`: `2` is not 0 or 1"]);

    let place = Place::with(&good);
    place.check_refused(&["--data", "missing.csv"], 2, &["--data missing.csv", "No such file"]);
    place.check_refused(&["--data", "."], 2, &["--data .: ", "Is a directory"]);
    place.check_refused(&["--validate", "missing.csv"], 2, &["--validate missing.csv"]);
    fs::write(place.path("empty.csv"), header).expect("file");
    place.check_refused(&["--validate", "empty.csv"], 2, &["--validate empty.csv has no rows yet"]);
    fs::write(place.path("idle.csv"), header.to_owned() + &silent).expect("file");
    let told = ["--validate idle.csv shows nothing to judge", "give a recording of traffic"];
    place.check_refused(&["--validate", "idle.csv"], 2, &told);
}

#[test]
fn parameters_out_of_range() {
    let place = Place::with(&Recording::calm(200).text());
    for bad in ["0", "-1", "0.6", "nan", "inf", "much", ""] {
        let flag = format!("--contamination={bad}");
        let wanted = "must be a share of the rows above 0 and at most 0.5, or auto";
        place.check_refused(&[&flag], 2, &["--contamination", bad, wanted]);
    }
    for bad in ["0", "10001", "99999999999999999999", "-5", "1.5", "many"] {
        let flag = format!("--estimators={bad}");
        let output = output({
            let mut command = netdiag(["train", &flag]);
            command.current_dir(&place.folder);
            command
        });
        assert_eq!(output.status.code(), Some(2), "{bad}");
        let wanted = "must be a number of trees from 1 to 10000";
        assert!(complaint(&output).contains(wanted), "{bad}: {}", complaint(&output));
    }
    for bad in ["-1", "x", "18446744073709551616"] {
        place.check_refused(&[&format!("--seed={bad}")], 2, &["--seed", "whole number from 0"]);
    }
}

#[test]
fn no_output_takes_the_place_of_another_file() {
    let place = Place::with(&Recording::calm(200).text());
    let same = |args: &[&str], told: &[&str]| {
        place.check_refused(args, 2, &[told, &["is the same file as", "file of its own"]].concat());
    };
    same(
        &["--model", "net_data.csv"],
        &["--model net_data.csv", "--data net_data.csv (the default)"],
    );
    same(&["--plot", "././isolation_forest.json"], &["--plot"]);
    same(&["--plot", "x", "--metrics", "x"], &["--metrics x", "--plot x"]);
    same(&["--validate", "net_data.csv"], &["--validate net_data.csv"]);
    std::os::unix::fs::symlink("net_data.csv", place.path("link")).expect("link");
    same(&["--metrics", "link"], &["--metrics link"]);
}

#[test]
fn old_files_stay_if_one_of_three_cannot_be_written() {
    let place = Place::with(&Recording::calm(200).text());
    let files = ["isolation_forest.json", "model_result.png", "training_metrics.json"];
    for name in files {
        fs::write(place.path(name), "old").expect("file");
    }
    fs::create_dir(place.path("folder")).expect("folder");
    for flag in ["--model", "--plot", "--metrics"] {
        place.check_refused(&[flag, "no/such/folder/x"], 1, &["cannot write no/such/folder/x"]);
        place.check_refused(&[flag, "folder"], 1, &["cannot write folder", "not a regular file"]);
        place.check_refused(&[flag, "/dev/null"], 1, &["/dev/null", "not a regular file"]);
    }
    for name in files {
        assert_eq!(place.read(name), b"old", "{name}");
    }
}

#[test]
fn a_signal_ends_it_with_nothing_written() {
    let place = Place::with("");
    let pipe = place.path("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a pipe");
    let running = Running::start(place.command(&["--data", "pipe"]));
    // Opens once the reader has; it then waits for an end that does not come.
    let mut writer = fs::OpenOptions::new().write(true).open(&pipe).expect("a reader");
    writer.write_all(Recording::calm(300).text().as_bytes()).expect("written");
    let (status, _) = running.end_by(Signal::INT);
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()));
    assert_eq!(place.written(), ["pipe"]);
}

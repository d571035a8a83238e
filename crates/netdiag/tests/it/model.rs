//! `--model`: a model file is used, or refused with what is wrong with it.

use netdiag_health::{FEATURES, Model, TrainingSet};
use netdiag_iforest::Params;
use rustix::process::Signal;

use crate::support::{Running, complaint, csv_path, hint, netdiag, output, until};

/// Of a link that wanders a little.
fn model() -> Model {
    let noise = |i: u16, by: u16| f32::from(i * by % 101) / 101.0;
    let row = |i| [0.1 * noise(i, 37), 0.1, 0.004 * noise(i, 53), 0.02 * noise(i, 71) - 0.01];
    let rows: Vec<[f32; FEATURES]> = (0..300).map(row).collect();
    TrainingSet::new(rows).train(&Params::default()).expect("trainable")
}

#[test]
fn hints_rest_on_the_model_that_is_given() {
    let (folder, csv) = csv_path();
    let path = folder.path().join("isolation_forest.json");
    std::fs::write(&path, model().render()).expect("file");
    let rows: String = (0..40).map(|row| format!("{row},20000,21000,0\n")).collect();
    std::fs::write(&csv, format!("timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n{rows}"))
        .expect("file");
    let check = |given: bool| {
        let mut command = netdiag(["serve", "--port", "0", "--stale-after", "86400", "--csv"]);
        command.arg(&csv);
        if given {
            command.arg("--model").arg(&path);
        }
        // What is old is fresh if it comes while somebody watches.
        let mut running = Running::start(command);
        let address = running.address();
        let text = std::fs::read_to_string(&csv).expect("file");
        std::fs::write(&csv, text + "40,20000,21000,0\n").expect("file");
        let hint =
            until("a hint", || Some(hint(address, "")).filter(|hint| hint["state"] == "clear"));
        let reason = hint["reason"].as_str().expect("text").to_owned();
        assert_eq!(reason.contains("no model yet"), !given, "{reason}");
        running.end_by(Signal::TERM);
    };
    check(true);
    check(false);
}

#[test]
fn what_is_no_model_is_refused() {
    let (folder, _) = csv_path();
    let path = folder.path().join("isolation_forest.json");
    let check = |told: &[&str]| {
        for command in ["up", "serve", "pace"] {
            let mut command = netdiag([command, "--model"]);
            command.arg(&path);
            if command.get_args().next().is_some_and(|name| name == "pace") {
                command.arg("text");
            }
            let output = output(command);
            let complaint = complaint(&output);
            assert_eq!(output.status.code(), Some(2), "{complaint}");
            assert_eq!(complaint.lines().count(), 1, "{complaint}");
            assert!(complaint.contains("--model") && complaint.contains("isolation_forest.json"));
            for told in told {
                assert!(complaint.contains(told), "no `{told}` in {complaint}");
            }
        }
    };
    check(&["No such file"]);
    std::fs::create_dir(&path).expect("folder");
    check(&["Is a directory"]);
    std::fs::remove_dir(&path).expect("folder");
    let text = model().render();
    std::fs::write(&path, &text[..text.len() / 2]).expect("file");
    check(&["line 1", "netdiag train"]);
    std::fs::write(&path, text.replace("netdiag-model/1", "netdiag-model/2")).expect("file");
    check(&["`netdiag-model/2`, and this version reads `netdiag-model/1`", "update netdiag"]);
    std::fs::write(&path, "{}").expect("file");
    check(&["missing field `format`", "netdiag train"]);
    std::fs::File::create(&path).expect("file").set_len(1 << 40).expect("a sparse file");
    check(&[&format!("more than {} bytes", Model::LARGEST_FILE)]);
}

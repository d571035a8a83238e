//! Models: what training refuses, what a file must be, and that nothing in one can do harm.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

/// A link that wanders by a tenth, with a stray loss now and then.
fn rows(count: u32) -> Vec<[f32; FEATURES]> {
    let row = |i: u32| {
        let noise = |by: u32| ((i * by) % 101) as f32 / 101.0;
        [
            0.1 * noise(37),
            0.1 + 0.05 * noise(53),
            0.004 * f32::from(i.is_multiple_of(50)),
            0.02 * noise(71) - 0.01,
        ]
    };
    (0..count).map(row).collect()
}

fn params() -> Params {
    Params { n_estimators: 20, seed: 3, ..Params::default() }
}

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| TrainingSet::new(rows(1000)).train(&params()).expect("trainable"))
}

#[test]
fn healthy_rows_are_usual_and_strange_ones_are_not() {
    let verdicts: Vec<f64> =
        rows(1000).iter().map(|row| model().judge(&Features::from_row(*row)).verdict).collect();
    let unusual = verdicts.iter().filter(|&&verdict| verdict > 0.0).count();
    assert!((40..=60).contains(&unusual), "one in twenty by definition: {unusual}");
    let strange = Features { rtt_ratio: 1.1, rtt_spread: 1.0, retrans_rate: 0.03, rtt_slope: 0.4 };
    let part = model().judge(&strange);
    assert!(part.verdict > 0.5, "{part:?}");
    assert!(model().score(&strange) < model().offset());
}

#[test]
fn the_envelope_covers_the_verdict_of_what_is_worse_than_usual_and_spares_what_is_better() {
    let mut rows = rows(1000);
    // A link that loses a little all the time, so that its losses are no rarity in themselves.
    rows.iter_mut().enumerate().for_each(|(i, row)| row[2] = 1e-5 * (i * 41 % 101) as f32);
    let model = TrainingSet::new(rows).train(&params()).expect("trainable");
    let usual = Features::from_row(model.calibration.medians);
    let at = |rtt_ratio, retrans_rate| model.judge(&Features { rtt_ratio, retrans_rate, ..usual });
    for (rtt_ratio, retrans_rate) in [(0.1, 0.005), (1.2, 0.06), (2.4, 0.12), (9.0, 0.9)] {
        let part = at(rtt_ratio, retrans_rate);
        assert!(part.envelope >= part.verdict - 1e-9, "{part:?}");
    }
    let (best, worst) = (at(0.0, 0.0).envelope, at(2.4, 0.12).envelope);
    assert!(best <= 0.0 && worst > 0.0, "{best} to {worst}");
}

#[test]
fn training_repeats_itself_and_names_constant_features() {
    let mut rows = rows(500);
    rows.iter_mut().for_each(|row| row[2] = 0.0);
    let train = || TrainingSet::new(rows.clone()).train(&params()).expect("trainable");
    assert_eq!(train().render(), train().render());
    assert_eq!(train().training().constant_features, ["retrans_rate"]);
    assert_eq!((train().training().rows, train().training().params), (500, params()));
}

#[test]
fn what_cannot_be_trained_on_is_named() {
    let check = |rows: Vec<[f32; FEATURES]>, params: &Params, expected: &str| {
        let error = TrainingSet::new(rows).train(params).expect_err("not trainable").to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(rows(99), &params(), "99 rows with telemetry are too few");
    check(vec![[0.0; FEATURES]; 200], &params(), "all 200 rows are alike");
    check(rows(200), &Params { n_estimators: 0, ..params() }, "n_estimators is 0");
    let too_many = Params { n_estimators: MOST_TREES + 1, ..params() };
    check(rows(200), &too_many, "n_estimators 10001 is more than 10000");
}

#[test]
fn a_file_reads_back_to_the_same_judgement() {
    let text = model().render();
    let again = Model::parse(text.as_bytes()).expect("our own file");
    assert_eq!(again.render(), text);
    assert_eq!(again.training(), model().training());
    for row in rows(300) {
        let features = Features::from_row(row);
        assert_eq!(again.score(&features), model().score(&features));
        assert_eq!(again.judge(&features).envelope, model().judge(&features).envelope);
    }
}

#[test]
fn a_forest_of_200_trees_makes_a_file_of_less_than_435_kilobytes() {
    let params = Params { n_estimators: 200, ..Params::default() };
    let size = TrainingSet::new(rows(8000)).train(&params).expect("trainable").render().len();
    assert!(size < 435_000, "{size} bytes");
}

/// What is said about our own file with one piece of it changed.
fn refusal(from: &str, to: &str) -> String {
    let text = model().render();
    assert!(text.contains(from), "{from} is not in {}", &text[..200]);
    Model::parse(text.replacen(from, to, 1).as_bytes()).expect_err("not a model").to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_place_and_remedy() {
    let check = |from: &str, to: &str, expected: &str| {
        let error = refusal(from, to);
        assert!(error.contains(expected) && error.contains("train"), "{error}");
    };
    check("netdiag-model/1", "netdiag-model/2", "`netdiag-model/2`, and this version reads");
    check("netdiag-model/1", "netdiag-model/zero", "format `netdiag-model/zero`, not");
    check("netdiag-model/1", "sklearn", "format `sklearn`");
    check("\"rtt_ratio\"", "\"srtt\"", "`srtt, rtt_spread");
    check("\"rtt_slope\"]", "\"rtt_slope\",\"x\"]", "rtt_slope, x`");
    check("\"score_median\":-", "\"score_median\":", "calibration.score_median");
    check("\"score_p5\":-0.", "\"score_p5\":-0.00", "calibration.score_p5");
    check("\"usual_badness\":", "\"usual_badness\":-1", "calibration.usual_badness");
    check("\"calibration\":{", "\"calibration\":{\"more\":1,", "unknown field `more`");
    check("\"constant_features\":[", "\"constant_features\":[\"x\"", "`x` is no feature");
    let twice = "\"constant_features\":[\"rtt_slope\",\"rtt_slope\"";
    check("\"constant_features\":[", twice, "`rtt_slope` is no feature, or is there twice");
    check("\"rows\":1000", "\"rows\":99", "training.rows: 99");
    check("\"n_estimators\":20", "\"n_estimators\":21", "training.params.n_estimators: 21");
    let nine = "\"contamination\":{\"fraction\":9.0}";
    check("\"contamination\":\"auto\"", nine, "training.params: contamination 9 is outside");
    check("\"format\"", "\"former\"", "missing field `format`");
    check("\"training\":", "\"trained\":", "line 1, column");
    check("{", "[", "line 1, column");
}

#[test]
fn what_a_message_repeats_of_a_file_is_short_and_steers_no_terminal() {
    let long = |text: &str| text.repeat(1000);
    let named = |name: &str| format!("\"constant_features\":[\"{name}\"");
    for error in [
        refusal("netdiag-model/1", "\\u001b[2J\\n"),
        refusal("netdiag-model/1", &format!("netdiag-model/{}2", long("0"))),
        refusal("netdiag-model/1", &long("x")),
        refusal("rtt_slope", &long("\\u0007")),
        refusal("\"constant_features\":[", &named("\\u202egpj\\u009b")),
        refusal("\"calibration\":{", "\"calibration\":{\"\\u001b]0;\":1,"),
        refusal("\"calibration\":{", &format!("\"calibration\":{{\"{}\":1,", long("y"))),
    ] {
        assert!(error.len() < 400, "{} bytes", error.len());
        let steers = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!error.contains(steers), "{error:?}");
    }
}

#[test]
fn scaler_and_forest_must_fit_the_features() {
    let text = model().render();
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["scaler"] = serde_json::json!({"mean": [0.0], "scale": [1.0]});
    let error = Model::parse(json.to_string().as_bytes()).expect_err("too narrow");
    assert_eq!(error, ModelError::Width { part: "scaler", found: 1 });
}

#[test]
fn figures_that_no_training_gives_are_refused() {
    let check = |pointer: &str, value: f64, expected: &str| {
        let mut json: serde_json::Value = serde_json::from_str(&model().render()).expect("JSON");
        *json.pointer_mut(pointer).expect("is there") = value.into();
        let error = Model::parse(json.to_string().as_bytes()).expect_err("refused").to_string();
        assert!(error.contains(expected) && error.contains("train again"), "{error}");
    };
    check(
        "/calibration/usual_badness",
        9e9,
        "calibration.usual_badness: 9000000000 is not in 0..=1e6",
    );
    check("/calibration/medians/2", -1e7, "calibration.medians: -10000000 is not in");
    check("/scaler/mean/1", 1e7, "scaler.mean: 10000000 is not in");
    check("/scaler/scale/3", 1e7, "scaler.scale: 10000000 is not in");
}

#[test]
fn a_file_of_the_wrong_size_is_refused() {
    assert!(matches!(Model::parse(b""), Err(ModelError::Json(_))));
    let huge = vec![b' '; Model::LARGEST_FILE + 1];
    assert!(matches!(Model::parse(&huge), Err(ModelError::TooLarge)));
    // Deep nesting must not exhaust the stack.
    let deep = [b"{\"format\":".to_vec(), vec![b'['; 1 << 20]].concat();
    assert!(matches!(Model::parse(&deep), Err(ModelError::Json(_))));
}

/// Two million trees of one leaf fit into a file that is small enough, and would be asked for every interval.
#[test]
fn a_file_with_more_trees_than_are_trained_is_refused() {
    let parse = |trees: usize| {
        let mut json: serde_json::Value = serde_json::from_str(&model().render()).expect("JSON");
        let tree = serde_json::json!({"nodes": [-256], "thresholds": []});
        json["forest"]["trees"] = vec![tree; trees].into();
        json["training"]["params"]["n_estimators"] = trees.into();
        Model::parse(json.to_string().as_bytes()).map(drop)
    };
    assert_eq!(parse(MOST_TREES), Ok(()));
    assert_eq!(parse(MOST_TREES + 1), Err(ModelError::TooManyTrees(MOST_TREES + 1)));
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let text = model().render();
    let text = text.trim_end();
    for end in (0..text.len()).step_by(97) {
        let error = Model::parse(&text.as_bytes()[..end]).expect_err("cut off");
        assert!(error.to_string().contains("train"), "{error}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Model::parse(&bytes).is_err());
    }

    /// Most such files are refused; those that are not must judge in peace.
    #[test]
    fn a_file_with_any_bytes_changed_does_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        digits in any::<bool>(),
    ) {
        let mut bytes = model().render().into_bytes();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = if digits { b'0' + byte % 10 } else { byte };
        }
        if let Ok(model) = Model::parse(&bytes) {
            let part = model.judge(&Features { rtt_ratio: 0.3, ..Features::default() });
            prop_assert!((0.0..=1.0).contains(&part.verdict) && (0.0..=1.0).contains(&part.envelope));
        }
    }
}

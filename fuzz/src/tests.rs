//! Every target over its committed seeds, and whether these still are what their names say.

use std::fs;
use std::path::Path;

use netdiag_health::Model;
use netdiag_telemetry::csv;

use super::*;

/// The seeds of a target, by name. There are some, or nothing would be tested.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut seeds = Vec::new();
    for file in fs::read_dir(&folder).expect("a folder of seeds") {
        let path = file.expect("a seed").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        seeds.push((name, fs::read(&path).expect("a seed")));
    }
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds
}

#[test]
fn model_seeds_pass_and_are_what_they_are_called() {
    for (name, input) in seeds("model_load") {
        model_load(&input);
        let parsed = Model::parse(model_load::parts(&input).0);
        // Without a model among its seeds the fuzzer would hardly ever get past the tag.
        assert_eq!(parsed.is_ok(), name.starts_with("model"), "{name}: {parsed:?}");
    }
}

#[test]
fn csv_seeds_pass_and_are_what_they_are_called() {
    for (name, input) in seeds("csv_rows") {
        csv_rows(&input);
        let read = csv::read_rows(&input);
        let has_rows = read.as_ref().is_ok_and(|rows| !rows.is_empty());
        assert_eq!(has_rows, name.starts_with("rows"), "{name}: {read:?}");
    }
}

#[test]
fn event_stream_seeds_pass_and_are_what_they_are_called() {
    for (name, input) in seeds("sse_split") {
        sse_split(&input);
        assert_eq!(sse_split::count(&input) > 0, name.starts_with("events"), "{name}");
    }
}

#[test]
fn request_seeds_pass_and_are_what_they_are_called() {
    use netdiag_gateway::examine::Verdict;
    for (name, input) in seeds("gateway_request") {
        gateway_request(&input);
        let verdict = gateway_request::verdict(&input);
        let kind = match &verdict {
            Verdict::Unread => "unread",
            Verdict::Refused(_) => "refused",
            Verdict::Returning => "returning",
            Verdict::Passed(passed) if passed.in_segments => "segments",
            Verdict::Passed(_) => "passed",
        };
        assert!(name.starts_with(kind), "{name}: {verdict:?}");
    }
}

#[test]
fn recipes_pass_and_are_models() {
    for (_, input) in seeds("model_judge") {
        model_judge(&input);
    }
}

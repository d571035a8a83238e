//! `cargo xtask fuzz`: each fuzz target under libFuzzer for a while, by cargo-fuzz.
//!
//! On the stable toolchain: it can count the branches that an input reaches, which is all that libFuzzer needs, and only
//! sanitizers ask for a nightly one. What is fuzzed has no `unsafe` of its own, so a sanitizer would add little to panics and
//! to limits on time and memory.
//!
//! The seeds in `fuzz/seeds/` are only read; what grows from them stays in `fuzz/corpus/`, which git ignores, and the next run
//! goes on from there. Invariant: a run that passed has executed inputs, and of one that failed there is a file that repeats
//! it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::command;

/// What is fuzzed: a file in `fuzz/fuzz_targets/` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Target {
    /// Any bytes as a model file
    ModelLoad,
    /// Any model that the format allows
    ModelJudge,
    /// Any bytes as a telemetry file, in pieces
    CsvRows,
    /// Any bytes as an event stream, cut anywhere
    SseSplit,
    /// Any bytes as a request, in pieces
    GatewayRequest,
}

/// Where the targets are built: outside the workspace, for the reason given there.
pub(crate) const MANIFEST: &str = "fuzz/Cargo.toml";

/// The feature that compiles libFuzzer is a default one.
pub(crate) const WITHOUT_LIBFUZZER: &str = "--no-default-features";

/// The series that was current when this was written.
const CARGO_FUZZ: &str = "^0.13";

/// What an input may take, in seconds and in megabytes. Inputs have a few kilobytes and take about a millisecond, and the
/// fuzzer itself some 40 MB.
const LIMITS: [&str; 2] = ["-timeout=5", "-rss_limit_mb=512"];

/// Fuzzes one target, or all, for so many seconds each. All are run, whatever the first of them finds.
pub(crate) fn run(target: Option<Target>, seconds: u32) -> anyhow::Result<()> {
    command::ensure_debian(&[("c++", "g++")])?; // which libFuzzer is compiled with
    command::ensure_cargo_tool("fuzz", CARGO_FUZZ)?;
    let targets = target.as_ref().map_or(Target::value_variants(), std::slice::from_ref);
    let mut lines = Vec::new();
    let mut failed = 0;
    for target in targets {
        let name = target.name();
        let seen = fuzz(&name, seconds)?;
        lines.push(match &seen.reproducer {
            None => format!(
                "ok {name}: {} executions in {seconds} s, coverage {} grown to {}",
                seen.executions, seen.coverage_at_first, seen.coverage
            ),
            Some(path) => {
                failed += 1;
                format!("FAILED {name}: {path} (again: `cargo fuzz run -s none {name} {path}`)")
            }
        });
    }
    for line in &lines {
        println!("{line}");
    }
    if failed > 0 {
        bail!("{failed} of {} targets failed; CONTRIBUTING.md says what to do", lines.len());
    }
    Ok(())
}

/// What the default test run proves: that the targets compile, and that their seeds pass. libFuzzer itself is left out.
pub(crate) fn check() -> anyhow::Result<()> {
    let test = ["test", "--quiet", "--lib", WITHOUT_LIBFUZZER, "--manifest-path", MANIFEST];
    command::run("cargo", &test)
}

impl Target {
    /// As in the names of its files.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn fuzz(name: &str, seconds: u32) -> anyhow::Result<Seen> {
    let [corpus, seeds] = ["corpus", "seeds"].map(|folder| format!("fuzz/{folder}/{name}"));
    std::fs::create_dir_all(crate::root().join(&corpus)).with_context(|| corpus.clone())?;
    let dictionary = format!("fuzz/dictionaries/{name}.dict");
    let mut fuzz = Command::new("cargo");
    fuzz.args(["fuzz", "run", "--fuzz-dir=fuzz", "--sanitizer=none", name, &corpus, &seeds, "--"])
        .arg(format!("-max_total_time={seconds}"))
        .args(LIMITS)
        .current_dir(crate::root())
        .stderr(Stdio::piped());
    if crate::root().join(&dictionary).exists() {
        fuzz.arg(format!("-dict={dictionary}"));
    }
    let mut child = fuzz.spawn().context("cannot run cargo fuzz")?;
    let mut seen = Seen::default();
    for line in BufReader::new(child.stderr.take().context("no stderr")?).lines() {
        let line = line?;
        seen.read(&line);
        if !is_chatter(&line) {
            eprintln!("{line}");
        }
    }
    let status = child.wait()?;
    match (status.success(), &seen.reproducer) {
        (true, None) if seen.executions == 0 => bail!("{name}: nothing was executed"),
        (false, None) => bail!("cargo fuzz run {name} failed ({status})"),
        _ => Ok(seen),
    }
}

/// What libFuzzer has said.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    executions: u64,
    /// Branches that the inputs at hand reach.
    coverage_at_first: u64,
    /// Those that are reached now.
    coverage: u64,
    /// The file with the input that failed, from the root.
    reproducer: Option<String>,
}

impl Seen {
    /// Takes in a line such as `#778535 DONE   cov: 2687 ft: 7539 corp: 1735/946Kb …`.
    fn read(&mut self, line: &str) {
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.reproducer = Some(path.to_owned());
        }
        let mut words = line.split_whitespace();
        let count = words.next().and_then(|word| word.strip_prefix('#'));
        let Some(count) = count.and_then(|count| count.parse().ok()) else { return };
        self.executions = count;
        let event = words.next();
        let coverage = words.skip_while(|&word| word != "cov:").nth(1);
        if let Some(coverage) = coverage.and_then(|coverage| coverage.parse().ok()) {
            self.coverage = coverage;
            if event == Some("INITED") {
                self.coverage_at_first = coverage;
            }
        }
    }
}

/// Each of the thousands of inputs that reach something new, and words for a dictionary that nobody will write.
fn is_chatter(line: &str) -> bool {
    let event = line.split_whitespace().nth(1);
    let is_event = line.starts_with('#') && matches!(event, Some("NEW" | "REDUCE" | "RELOAD"));
    let is_other = line.starts_with("###### ") || line.starts_with("\tNEW_FUNC[");
    is_event || is_other || line.contains(" # Uses: ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_seen_is_what_libfuzzer_said() {
        let mut seen = Seen::default();
        for line in [
            "INFO: Seed: 1969918781",
            "#2\tINITED cov: 1208 ft: 2277 corp: 12/9164b exec/s: 0 rss: 28Mb",
            "#65536\tpulse  cov: 2500 ft: 7000 corp: 1000/900Kb lim: 4096 exec/s: 12972 rss: 34Mb",
            "#778535\tDONE   cov: 2687 ft: 7539 corp: 1735/946Kb lim: 4096 exec/s: 12762 rss: 34Mb",
            "# a line of something else",
        ] {
            seen.read(line);
        }
        let done =
            Seen { executions: 778_535, coverage_at_first: 1208, coverage: 2687, reproducer: None };
        assert_eq!(seen, done);
        seen.read(
            "artifact_prefix='fuzz/artifacts/x/'; Test unit written to fuzz/artifacts/x/crash-1",
        );
        assert_eq!(seen.reproducer.as_deref(), Some("fuzz/artifacts/x/crash-1"));
    }

    #[test]
    fn chatter_is_told_from_news() {
        let check = |line: &str, expected| assert_eq!(is_chatter(line), expected, "{line}");
        check("#778338\tREDUCE cov: 2687 ft: 7539 corp: 1735/946Kb", true);
        check("#778338\tNEW    cov: 2687 ft: 7539 corp: 1735/946Kb", true);
        check("\"\\000\\000\" # Uses: 56", true);
        check("###### Recommended dictionary. ######", true);
        check("\tNEW_FUNC[1/5]: 0x55aedcbba741", true);
        check("#778535\tDONE   cov: 2687 ft: 7539 corp: 1735/946Kb", false);
        check("thread '<unnamed>' panicked at fuzz/src/csv_rows.rs:62:5:", false);
    }

    /// A target that has no name here would not be run.
    #[test]
    fn every_target_has_its_name_here_its_seeds_and_its_place_in_the_manifest() {
        let fuzz = crate::root().join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("a manifest");
        let files = fs::read_dir(fuzz.join("fuzz_targets")).expect("targets");
        let mut files: Vec<String> = files
            .map(|file| file.expect("a file").file_name().to_string_lossy().replace(".rs", ""))
            .collect();
        files.sort();
        let mut names: Vec<String> =
            Target::value_variants().iter().map(|target| target.name()).collect();
        names.sort();
        assert_eq!(files, names);
        for name in names {
            assert!(fuzz.join("seeds").join(&name).is_dir(), "fuzz/seeds/{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} in {MANIFEST}");
        }
    }
}

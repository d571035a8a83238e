//! What a file may say, and how each mistake in it is told.

use clap::CommandFactory as _;

use super::*;
use crate::cli::Cli;

fn load(text: &str) -> Result<ConfigFile, UsageError> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("netdiag.toml");
    std::fs::write(&path, text).expect("file");
    ConfigFile::load(&path, &Cli::command())
}

/// The complaint about `text`, without the folder.
fn complaint(text: &str) -> String {
    let error = load(text).expect_err(text).to_string();
    error.rsplit_once("/netdiag.toml:").map(|(_, told)| told.to_owned()).unwrap_or(error)
}

/// A default value after the file was applied.
fn default_of(text: &str, command: &str, id: &str) -> Vec<String> {
    let cli = load(text).expect(text).apply(Cli::command());
    let command = cli.find_subcommand(command).unwrap_or(&cli);
    let arg = command.get_arguments().find(|arg| arg.get_id() == id).expect("argument");
    arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect()
}

#[test]
fn keys_at_the_top_speak_to_all_and_tables_to_one() {
    let text =
        "interval = 2\nlog-level = \"debug\"\n[agent]\ninterval = 3.5\nport = [8000, 8001]\n";
    assert_eq!(default_of(text, "agent", "interval"), ["3.5"]);
    assert_eq!(default_of(text, "up", "interval"), ["2"]);
    assert_eq!(default_of(text, "agent", "port"), ["8000", "8001"]);
    assert!(default_of(text, "up", "port").is_empty());
    assert_eq!(default_of(text, "", "log_level"), ["debug"]);
    assert_eq!(default_of("loopback = true", "up", "loopback"), ["true"]);
}

#[test]
fn mistakes_name_line_key_value_and_remedy() {
    let check = |text: &str, expected: &str| assert_eq!(complaint(text), expected, "{text}");
    check("\ninterval = 0", "2: interval = 0: must be a number of seconds from 0.01 to 3600");
    check("interval = nan", "1: interval = nan: must be a number of seconds from 0.01 to 3600");
    check("[up]\nmax-tpss = 3", "2: unknown key `max-tpss` in [up]; did you mean `max-tps`?");
    check("max_tps = 3", "1: unknown key `max_tps`; did you mean `max-tps`?");
    check("[upp]\nmax-tps = 3", "1: unknown table [upp]; did you mean `up`?");
    check("up = 3", "1: `up` is a command and needs a table: write [up]");
    check("source = \"x\"", "1: source = x: must be one of auto, ebpf, sockdiag");
    check("[agent]\nport = [80, 0]", "2: port = 0: must be a TCP port from 1 to 65535");
    check("[agent]\nport = [[80]]", "2: `port` takes one value or a list, not an array");
    check("interval = [1]", "1: `interval` takes one value, not an array");
    check("csv = 1979-05-27", "1: `csv` takes one value, not a datetime");
    check(
        "[up]\nlog-level = \"debug\"",
        "2: `log-level` is not a key of [up]; put it at the top of the file",
    );
    check(
        "log-level = \"loud\"",
        "1: log-level = loud: must be one of error, warn, info, debug, trace",
    );
    assert!(complaint("port = 80").starts_with("1: `port` means different things"));
    assert!(complaint("zzz = 1").starts_with("1: unknown key `zzz`; known are "));
    assert!(complaint("a = 1\na = ").starts_with("2: not valid TOML: "));
    assert!(complaint("config = \"x\"").contains("unknown key `config`"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let error = ConfigFile::load(Path::new("/no/such.toml"), &Cli::command()).expect_err("absent");
    assert!(error.to_string().contains("/no/such.toml"), "{error}");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("binary.toml");
    std::fs::write(&path, b"interval = 1\n\xff\n").expect("file");
    let error = ConfigFile::load(&path, &Cli::command()).expect_err("binary").to_string();
    assert!(error.contains("binary.toml:2: not UTF-8"), "{error}");
}

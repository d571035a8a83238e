//! The help is documentation, so it is tested like code: every flag of every command is walked.

use clap::CommandFactory as _;

use super::*;

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_flag_is_documented_and_can_be_set_from_the_environment() {
    let cli = Cli::command();
    let commands = std::iter::once(&cli).chain(cli.get_subcommands());
    for command in commands.filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} has no help");
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long() else { continue };
            if matches!(long, "help" | "version") {
                continue;
            }
            let of = format!("{name} --{long}");
            let short = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let full = arg.get_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(!short.is_empty() && short.lines().count() == 1, "{of}: short help `{short}`");
            assert!(full.len() > short.len(), "{of}: no paragraph about units and interactions");
            let default = !arg.get_default_values().is_empty() || full.contains("Default:");
            assert!(default, "{of}: does not say what happens without it");
            let variable = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            assert!(variable.starts_with("NETDIAG_"), "{of}: environment variable `{variable}`");
            let values = arg.get_value_names().unwrap_or_default();
            assert!(!values.is_empty(), "{of}: no name for its value");
            if values[0] == "SECONDS" || values[0] == "TPS" {
                assert!(full.contains("From "), "{of}: does not say its range");
            }
        }
    }
}

#[test]
fn the_file_named_is_found_before_parsing() {
    let check = |arguments: &[&str], environment: Option<&str>, expected: Option<&str>| {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let found = config_file::path_among(&arguments, environment.map(OsString::from));
        assert_eq!(found, expected.map(PathBuf::from), "{arguments:?}");
    };
    check(&["netdiag", "up", "--config", "a.toml"], None, Some("a.toml"));
    check(&["netdiag", "--config=a.toml", "up"], Some("b.toml"), Some("a.toml"));
    check(&["netdiag", "up"], Some("b.toml"), Some("b.toml"));
    check(&["netdiag", "up"], Some(""), None);
    check(&["netdiag", "pace", "--", "--config", "a.toml"], None, None);
    check(&["netdiag", "up", "--config"], None, None);
}

#[test]
fn misspelt_variables_are_told_in_one_line() {
    let check = |set: &[&str], expected: Option<&str>| {
        let told = unknown_variables(set.iter().map(OsString::from));
        let told = told.as_deref().map(|told| told.split("; --help").next().expect("a part"));
        assert_eq!(told, expected, "{set:?}");
    };
    check(&["NETDIAG_MAX_TPS", "NETDIAG_SERVE_PORT", "NETDIAG_CONFIG", "PATH", "netdiag"], None);
    let head = "the environment sets what is no setting: ";
    let one = format!("{head}NETDIAG_MAXTPS (did you mean NETDIAG_MAX_TPS?)");
    check(&["HOME", "NETDIAG_MAXTPS"], Some(&one));
    let two = format!("{head}NETDIAG_LOGLEVEL (did you mean NETDIAG_LOG_LEVEL?), NETDIAG_QQQ");
    check(&["NETDIAG_QQQ", "NETDIAG_LOGLEVEL"], Some(&two));
}

#[test]
fn negative_values_with_units_belong_to_the_flag_before_them() {
    let check = |given: &str, expected: &str| {
        let given = given.split(' ').map(OsString::from).collect();
        let expected: Vec<_> = expected.split(' ').map(OsString::from).collect();
        assert_eq!(with_negative_values(given), expected);
    };
    check("chaos --for -5s --loss -.5%", "chaos --for=-5s --loss=-.5%");
    check("chaos --for=3s -5s", "chaos --for=3s -5s");
    check("chaos --random --loss -v", "chaos --random --loss -v");
    check("agent --interval -1 --window -2.5", "agent --interval -1 --window -2.5");
    check("pace -- --for -5s", "pace -- --for -5s");
    check("pace -5s", "pace -5s");
}

//! The command line: parse, then validate, then run.
//!
//! Precedence: flag, then `NETDIAG_…` in the environment, then the file, then the default. clap knows the first two;
//! the file's values are put in as defaults before it parses. Parsing does no work and touches nothing but that file.

mod refusal;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{
    ArgMatches, Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
};

use crate::cmd;
use crate::config_file::{self, ConfigFile, alike};
use crate::failure;
use crate::open_files;
use crate::place::{PlaceById, Places};
use crate::terminal::{self, LogLevel};
use refusal::{Refused, is_text, refused};
pub(crate) use refusal::{value_reason, without_login};

/// What the names of our variables begin with.
const PREFIX: &str = "NETDIAG_";

/// Lets the network set the pace of generation: watches the kernel's TCP state, judges each link and recommends
/// tokens/s.
///
/// Every setting can be given in four ways. The first that is present wins: the flag; the environment variable that
/// its help names; the file named by --config; the default. Exit codes: 0 done, 1 failed while running, 2 bad usage or
/// bad input. SIGINT and SIGTERM end every command cleanly.
#[derive(Debug, Parser)]
#[command(name = "netdiag", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Cmd,
}

/// Flags of every command.
#[derive(Debug, Args)]
struct Common {
    /// Read settings from this TOML file.
    ///
    /// Keys are the long names of flags. At the top of the file a key speaks to every command that has the flag; in a
    /// table named after a command (`[up]`) only to that command, and wins over the top. Unknown keys are refused.
    /// Default: no file.
    #[arg(long, global = true, value_name = "FILE", env = "NETDIAG_CONFIG")]
    config: Option<PathBuf>,

    /// How much to log on stderr: error, warn, info, debug or trace.
    ///
    /// Default: info for the servers (up, serve, dashboard, gateway, fleet), warn for the others, so that their output stays readable.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "NETDIAG_LOG_LEVEL",
        hide_possible_values = true
    )]
    log_level: Option<LogLevel>,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    Up(cmd::up::Args),
    Agent(cmd::agent::Args),
    Serve(cmd::serve::Args),
    Dashboard(cmd::dashboard::Args),
    Gateway(cmd::gateway::Args),
    Watch(cmd::watch::Args),
    Fleet(cmd::fleet::Args),
    Pace(cmd::pace::Args),
    Plot(cmd::plot::Args),
    Train(cmd::train::Args),
    Experiment(cmd::experiment::Args),
    Simulate(cmd::simulate::Args),
    Chaos(cmd::chaos::Args),
    Doctor(cmd::doctor::Args),
    Completions(cmd::completions::Args),
    Man(cmd::man::Args),
}

impl Cmd {
    fn default_log_level(&self) -> LogLevel {
        match self {
            Cmd::Up(_) | Cmd::Serve(_) | Cmd::Dashboard(_) | Cmd::Gateway(_) | Cmd::Fleet(_) => {
                LogLevel::Info
            }
            Cmd::Agent(_)
            | Cmd::Watch(_)
            | Cmd::Pace(_)
            | Cmd::Plot(_)
            | Cmd::Train(_)
            | Cmd::Experiment(_)
            | Cmd::Simulate(_)
            | Cmd::Chaos(_)
            | Cmd::Doctor(_)
            | Cmd::Completions(_)
            | Cmd::Man(_) => LogLevel::Warn,
        }
    }

    fn run(self, places: &Places) -> anyhow::Result<()> {
        match self {
            Cmd::Up(args) => cmd::up::run(args, places),
            Cmd::Serve(args) => cmd::serve::run(args, places),
            Cmd::Dashboard(args) => cmd::dashboard::run(args, places),
            Cmd::Gateway(args) => cmd::gateway::run(args, places),
            Cmd::Fleet(args) => cmd::fleet::run(args, places),
            Cmd::Watch(args) => cmd::watch::run(args, places),
            Cmd::Pace(args) => cmd::pace::run(args, places),
            Cmd::Agent(args) => cmd::agent::run(args, places),
            Cmd::Plot(args) => cmd::plot::run(&args, places),
            Cmd::Train(args) => cmd::train::run(&args, places),
            Cmd::Experiment(args) => cmd::experiment::run(&args, places),
            Cmd::Simulate(args) => cmd::simulate::run(&args, places),
            Cmd::Chaos(args) => cmd::chaos::run(&args, places),
            Cmd::Doctor(args) => cmd::doctor::run(&args),
            Cmd::Completions(args) => cmd::completions::run(&args, Cli::command()),
            Cmd::Man(args) => cmd::man::run(&args, Cli::command()),
        }
    }
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let arguments = with_negative_values(std::env::args_os().collect());
    let (cli, places) = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(Refused::Clap(error)) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Help that nobody reads (a closed pipe) is no failure.
            let _ = error.print();
            return ExitCode::from(code);
        }
        Err(Refused::Usage(error)) => return failure::report(&error.into()),
    };
    terminal::init_logging(cli.common.log_level.unwrap_or(cli.command.default_log_level()));
    if let Some(warning) = unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
        tracing::warn!("{warning}");
    }
    match open_files::ensure_enough().and_then(|()| cli.command.run(&places)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn parse(arguments: &[OsString]) -> Result<(Cli, Places), Refused> {
    let cli = without_empty_variables(with_negative_numbers(Cli::command()));
    let path = config_file::path_among(arguments, std::env::var_os("NETDIAG_CONFIG"));
    let file = match path.map(|path| ConfigFile::load(&path, &cli)).transpose() {
        Ok(file) => file,
        // Somebody who asks for help gets it even with a broken file.
        Err(wrong_file) => {
            return Err(match cli.try_get_matches_from(arguments) {
                Err(error) if is_text(&error) => Refused::Clap(error),
                _ => Refused::Usage(wrong_file),
            });
        }
    };
    let cli = match &file {
        Some(file) => file.apply(cli),
        None => cli,
    };
    let definition = cli.clone();
    let matches = cli
        .try_get_matches_from(arguments)
        .map_err(|error| refused(error, arguments, &definition))?;
    let parsed =
        Cli::from_arg_matches(&matches).map_err(|error| refused(error, arguments, &definition))?;
    Ok((parsed, places(matches, file.as_ref(), &definition)))
}

/// `--interval -1` gives -1 to the flag, which says what is wrong with it, instead of being taken for a flag of that name.
fn with_negative_numbers(cli: Command) -> Command {
    cli.mut_subcommands(|sub| {
        sub.mut_args(|arg| {
            let takes_value = arg.get_action().takes_values();
            arg.allow_negative_numbers(takes_value)
        })
    })
}

/// The same for numbers with a unit, which clap does not know for numbers: `--for -5s` is `--for=-5s`. No flag of ours begins
/// with a digit.
fn with_negative_values(arguments: Vec<OsString>) -> Vec<OsString> {
    let is_negative = |argument: &OsString| {
        let digits = argument.as_encoded_bytes().strip_prefix(b"-").unwrap_or_default();
        let digits = digits.strip_prefix(b".").unwrap_or(digits);
        digits.first().is_some_and(u8::is_ascii_digit)
            // Those that clap knows it puts in its place itself.
            && argument.to_str().is_none_or(|text| text.parse::<f64>().is_err())
    };
    let takes_it = |argument: &OsString| {
        let argument = argument.as_encoded_bytes();
        argument.starts_with(b"--") && argument != b"--" && !argument.contains(&b'=')
    };
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    let flags = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    for (at, argument) in arguments.into_iter().enumerate() {
        match joined.last_mut() {
            Some(flag) if at < flags && is_negative(&argument) && takes_it(flag) => {
                flag.push("=");
                flag.push(argument);
            }
            _ => joined.push(argument),
        }
    }
    joined
}

/// A variable that is set to nothing says nothing: that is how container files and unit files leave one out.
fn without_empty_variables(cli: Command) -> Command {
    let blank = |arg: clap::Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) { arg.env(None) } else { arg }
    };
    cli.mut_args(blank).mut_subcommands(move |sub| sub.mut_args(blank))
}

/// What to say of variables that look like ours and are not: most likely somebody's misspelt setting.
fn unknown_variables(set: impl Iterator<Item = OsString>) -> Option<String> {
    let cli = Cli::command();
    let commands = std::iter::once(&cli).chain(cli.get_subcommands());
    let known = commands.flat_map(|command| variables(command).into_values());
    let known: BTreeSet<String> =
        known.filter_map(|name| Some(name.strip_prefix(PREFIX)?.to_owned())).collect();
    let set = set.filter_map(|name| Some(name.to_str()?.strip_prefix(PREFIX)?.to_owned()));
    let mut unknown: Vec<String> = set.filter(|name| !known.contains(name)).collect();
    unknown.sort();
    let told: Vec<String> = unknown
        .iter()
        .map(|name| match alike(name, known.iter().map(String::as_str)) {
            Some(meant) => format!("{PREFIX}{name} (did you mean {PREFIX}{meant}?)"),
            None => format!("{PREFIX}{name}"),
        })
        .collect();
    let remedy = "--help names the variable of each setting";
    (!told.is_empty())
        .then(|| format!("the environment sets what is no setting: {}; {remedy}", told.join(", ")))
}

fn places(mut matches: ArgMatches, file: Option<&ConfigFile>, definition: &Command) -> Places {
    let Some((name, sub)) = matches.remove_subcommand() else {
        return Places::default();
    };
    let file = file.map_or_else(PlaceById::new, |file| file.places(&name));
    let variables = definition.find_subcommand(&name).map(variables).unwrap_or_default();
    Places::new(sub, file, variables)
}

/// The environment variable of each argument.
fn variables(command: &Command) -> PlaceById {
    let variable =
        |arg: &clap::Arg| Some((arg.get_id().to_string(), arg.get_env()?.to_str()?.to_owned()));
    command.get_arguments().filter_map(variable).collect()
}

#[cfg(test)]
mod tests;

//! The command line: parse, then validate, then run.
//!
//! Precedence: flag, then `NETDIAG_…` in the environment, then the file, then the default. clap knows the first two;
//! the file's values are put in as defaults before it parses. Parsing does no work and touches nothing but that file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{
    ArgMatches, Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
};

use crate::cmd;
use crate::config_file::{self, ConfigFile};
use crate::failure::{self, UsageError};
use crate::place::{PlaceById, Places};
use crate::terminal::{self, LogLevel};

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
    /// Default: info for the servers (up, serve), warn for the others, so that their output stays readable.
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
    Pace(cmd::pace::Args),
    Plot(cmd::plot::Args),
    Doctor(cmd::doctor::Args),
}

impl Cmd {
    fn default_log_level(&self) -> LogLevel {
        match self {
            Cmd::Up(_) | Cmd::Serve(_) => LogLevel::Info,
            Cmd::Agent(_) | Cmd::Pace(_) | Cmd::Plot(_) | Cmd::Doctor(_) => LogLevel::Warn,
        }
    }

    fn run(self, places: &Places) -> anyhow::Result<()> {
        match self {
            Cmd::Up(args) => cmd::up::run(args, places),
            Cmd::Serve(args) => cmd::serve::run(args, places),
            Cmd::Pace(args) => cmd::pace::run(args, places),
            Cmd::Agent(args) => cmd::agent::run(args, places),
            Cmd::Plot(args) => cmd::plot::run(&args),
            Cmd::Doctor(args) => cmd::doctor::run(&args),
        }
    }
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
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
    match cli.command.run(&places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

/// Why there is no command to run.
enum Refused {
    /// Help or version was asked for, or no command was given: clap's own text, printed as it is.
    Clap(clap::Error),
    Usage(UsageError),
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

/// A variable that is set to nothing says nothing: that is how container files and unit files leave one out.
fn without_empty_variables(cli: Command) -> Command {
    let blank = |arg: clap::Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) { arg.env(None) } else { arg }
    };
    cli.mut_args(blank).mut_subcommands(move |sub| sub.mut_args(blank))
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

/// Whether clap's error is a text that was asked for, or the help that answers an empty command line.
fn is_text(error: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// clap's complaint in our form: one line that names the value, its place and the remedy.
fn refused(error: clap::Error, arguments: &[OsString], definition: &Command) -> Refused {
    if is_text(&error) {
        return Refused::Clap(error);
    }
    if error.kind() == ErrorKind::InvalidUtf8 {
        return Refused::Usage(UsageError::new(not_text(arguments, definition)));
    }
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => arg.split([' ', '=', '[']).next().unwrap_or_default(),
        _ => "",
    };
    let checked = matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation);
    if !checked || named.is_empty() || value.is_empty() {
        return Refused::Usage(UsageError::new(one_line(&error)));
    }
    let place = match variable_of(named, definition) {
        Some(variable)
            if !is_given(named, arguments)
                && std::env::var_os(&variable).is_some_and(|set| !set.is_empty()) =>
        {
            format!("{variable}={value}")
        }
        _ => format!("{named} {value}"),
    };
    Refused::Usage(UsageError::new(format!("{place}: {}", value_reason(&error))))
}

/// clap does not say what was not text, so this looks for it.
fn not_text(arguments: &[OsString], definition: &Command) -> String {
    let named = |name: &str, value: &OsString| {
        format!("{name}{}: not valid UTF-8 text", value.to_string_lossy())
    };
    if let Some(argument) = arguments.iter().find(|argument| argument.to_str().is_none()) {
        return named("argument ", argument);
    }
    let commands = std::iter::once(definition).chain(definition.get_subcommands());
    let variables = commands.flat_map(Command::get_arguments).filter_map(clap::Arg::get_env);
    let set = variables.filter_map(|name| Some((name.to_str()?, std::env::var_os(name)?)));
    set.filter(|(_, value)| value.to_str().is_none())
        .map(|(name, value)| named(&format!("{name}="), &value))
        .next()
        .unwrap_or_else(|| "an argument is not valid UTF-8 text".to_owned())
}

fn is_given(flag: &str, arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| {
        let rest = argument.as_encoded_bytes().strip_prefix(flag.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'=')
    })
}

/// The environment variable of a flag, given as `--name`. Where commands differ, the one that is set.
fn variable_of(flag: &str, definition: &Command) -> Option<String> {
    let name = flag.strip_prefix("--")?;
    std::iter::once(definition)
        .chain(definition.get_subcommands())
        .flat_map(Command::get_arguments)
        .filter(|arg| arg.get_long() == Some(name))
        .filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned()))
        .max_by_key(|variable| std::env::var_os(variable).is_some())
}

/// Why a value was refused: the value parser's own words, or the list of what is allowed.
pub(crate) fn value_reason(error: &clap::Error) -> String {
    if let Some(cause) = std::error::Error::source(error) {
        return cause.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("must be one of {}", valid.join(", "))
        }
        _ => one_line(error),
    }
}

/// clap's complaint without its usage and its pointer to the help, which take four lines to say nothing about it.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or(&text);
    let told = told.split("\n\nFor more information").next().unwrap_or(told);
    let told = told.strip_prefix("error: ").unwrap_or(told);
    let lines: Vec<&str> = told.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A list ("the following arguments were not provided:") goes on; a tip is a sentence of its own.
    lines.join(" ").replace(" tip: ", "; ")
}

#[cfg(test)]
mod tests;

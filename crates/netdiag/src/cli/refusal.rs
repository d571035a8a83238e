//! What clap refuses, in our own form: one line that names the value, its place and the remedy.
//!
//! clap takes four lines for it, two of which say nothing about the mistake.

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::UsageError;

/// Why there is no command to run.
pub(super) enum Refused {
    /// Help or version was asked for, or no command was given: clap's own text, printed as it is.
    Clap(clap::Error),
    Usage(UsageError),
}

/// Whether clap's error is a text that was asked for, or the help that answers an empty command line.
pub(super) fn is_text(error: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// clap's complaint in our form.
pub(super) fn refused(error: clap::Error, arguments: &[OsString], definition: &Command) -> Refused {
    if is_text(&error) {
        return Refused::Clap(error);
    }
    Refused::Usage(UsageError::new(match error.kind() {
        ErrorKind::InvalidUtf8 => not_text(arguments, definition),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            bad_value(&error, arguments, definition)
        }
        _ => with_remedy(&error, arguments, definition),
    }))
}

/// A value that its flag cannot have.
fn bad_value(error: &clap::Error, arguments: &[OsString], definition: &Command) -> String {
    let named = context(error, ContextKind::InvalidArg);
    let named = named.split([' ', '=', '[']).next().unwrap_or_default();
    if named.is_empty() {
        return with_remedy(error, arguments, definition);
    }
    let value = context(error, ContextKind::InvalidValue);
    if value.is_empty() && std::error::Error::source(error).is_none() {
        let lacking = || format!("needs a value; {}", see_help(arguments, definition));
        return format!("{named}: {}", choice(error).unwrap_or_else(lacking));
    }
    let value = without_login(if value.is_empty() { "''" } else { value });
    let place = match variable_of(named, definition) {
        Some(variable)
            if !is_given(named, arguments)
                && std::env::var_os(&variable).is_some_and(|set| !set.is_empty()) =>
        {
            format!("{variable}={value}")
        }
        _ => format!("{named} {value}"),
    };
    format!("{place}: {}", value_reason(error))
}

/// A value as it may be shown: an address without the name and the password in it, and without its query, which may have a key.
pub(crate) fn without_login(value: &str) -> String {
    let is_url = value.contains("://");
    let (scheme, rest) = value.split_once("://").unwrap_or_default();
    if let Some(at) = rest.find(['?', '#'])
        && rest[at..].contains('@')
    {
        // A password with such a character in it, which is no query.
        return format!("{scheme}://…");
    }
    let is_path = rest.split_once('/').is_some_and(|(host, path)| {
        path.contains('@') && !host.contains('@') && !host.contains(':')
    });
    if is_path {
        return value.split(['?', '#']).next().unwrap_or_default().to_owned();
    }
    let (value, query) = match value.find(['?', '#']) {
        Some(at) if is_url => (&value[..at], "?…"),
        _ => (value, ""),
    };
    let (before, host) = match value.rsplit_once('@') {
        Some((before, host)) => (Some(before), host),
        None => (None, value),
    };
    let scheme = |text: &str| {
        text.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"))
    };
    match before {
        Some(before) => format!("{}…@{host}{query}", scheme(before)),
        None => format!("{}{query}", with_no_password_for_a_port(host)),
    }
}

/// A password with a comma, a slash or a question mark in it ends an address before its `@`, and is then where a port would be.
fn with_no_password_for_a_port(value: &str) -> String {
    let Some(begin) = value.find("://").map(|at| at + "://".len()) else { return value.to_owned() };
    let end = value[begin..].find('/').map_or(value.len(), |at| begin + at);
    match value[begin..end].rsplit_once(':') {
        // An address of IPv6 ends with a bracket.
        Some((host, port)) if !port.ends_with(']') && !port.bytes().all(|c| c.is_ascii_digit()) => {
            format!("{}{host}:…", &value[..begin])
        }
        _ => value.to_owned(),
    }
}

/// Words that mean nothing, or that lack: clap's own line, and what to do about it unless that line has a tip.
fn with_remedy(error: &clap::Error, arguments: &[OsString], definition: &Command) -> String {
    let mut told = one_line(error);
    // clap repeats what it does not understand.
    for argument in arguments.iter().filter_map(|argument| argument.to_str()) {
        if argument.contains("://") {
            told = told.replace(argument, &without_login(argument));
        }
    }
    if told.contains("; ") {
        return told;
    }
    let surplus = error.kind() == ErrorKind::UnknownArgument
        && !context(error, ContextKind::InvalidArg).starts_with('-');
    let remedy = match command_among(arguments, definition) {
        Some("pace") if surplus => "put the text in quotes".to_owned(),
        _ => see_help(arguments, definition),
    };
    format!("{told}; {remedy}")
}

fn see_help(arguments: &[OsString], definition: &Command) -> String {
    match command_among(arguments, definition) {
        Some(command) => format!("see `netdiag {command} --help`"),
        None => "see `netdiag --help`".to_owned(),
    }
}

/// The command that was asked for. A value that is written like one before it is a rare thing, and costs a worse hint.
fn command_among<'d>(arguments: &[OsString], definition: &'d Command) -> Option<&'d str> {
    let command = |argument: &OsString| definition.find_subcommand(argument);
    arguments.iter().skip(1).find_map(command).map(Command::get_name)
}

fn context(error: &clap::Error, kind: ContextKind) -> &str {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text,
        _ => "",
    }
}

/// clap does not say what was not text, so this looks for it.
fn not_text(arguments: &[OsString], definition: &Command) -> String {
    let named = |name: &str, value: &OsString| {
        format!("{name}{}: not valid UTF-8 text", without_login(&value.to_string_lossy()))
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
    choice(error).unwrap_or_else(|| one_line(error))
}

/// The list of what is allowed, where there is one.
fn choice(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            Some(format!("must be one of {}", valid.join(", ")))
        }
        _ => None,
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

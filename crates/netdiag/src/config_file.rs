//! The configuration file (`--config FILE`, TOML): the same settings as the flags, one level below the environment.
//!
//! A key is a flag's long name. A key at the top speaks to every command that has the flag; one in a table named after
//! a command speaks to that command, and wins. The values become the defaults of the command line's own definition, so
//! there is one set of value parsers and one place where a setting is described.
//!
//! Invariant: whatever is wrong with the file is told with file, line, key, value and remedy, for every command in it
//! and not only for the one that runs; a key that nobody reads is refused. Of addresses it is told without names, passwords and queries.

mod settings;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap::builder::OsStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::cli::without_login;
use crate::failure::UsageError;
use crate::place::PlaceById;
pub(crate) use settings::alike;
use settings::{Flag, flags_of, nearest};

/// A file whose every key and value has been checked against the command line's definition.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    settings: Vec<Setting>,
}

/// One key of the file.
#[derive(Debug)]
struct Setting {
    /// The command whose table it stands in; `None` at the top of the file.
    command: Option<String>,
    id: String,
    values: Vec<String>,
    place: String,
}

/// A file being read: its text turns byte offsets into lines.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl ConfigFile {
    /// Reads and checks `path` against the definition in `cli`.
    pub(crate) fn load(path: &Path, cli: &Command) -> Result<Self, UsageError> {
        let bytes = fs::read(path).map_err(|error| {
            let path = path.display();
            UsageError::new(format!(
                "--config {path}: cannot be read: {error}; give the path of a file of settings, or none"
            ))
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
            UsageError::new(format!(
                "{}:{line}: not UTF-8 text; save the file as UTF-8",
                path.display()
            ))
        })?;
        Reader { path, text: &text }.read(cli)
    }

    /// Makes the file's values the defaults of `cli`.
    pub(crate) fn apply(&self, mut cli: Command) -> Command {
        let commands: Vec<String> =
            cli.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        // Top-level keys first: a command's own table comes later and so wins.
        let (tables, top): (Vec<_>, Vec<_>) =
            self.settings.iter().partition(|setting| setting.command.is_some());
        for setting in top.into_iter().chain(tables) {
            if setting.command.is_none() && has(&cli, &setting.id) {
                cli = with_default(cli, setting);
                continue;
            }
            for name in &commands {
                let meant = setting.command.as_ref().is_none_or(|command| command == name);
                let knows = cli.find_subcommand(name).is_some_and(|sub| has(sub, &setting.id));
                if meant && knows {
                    cli = cli.mut_subcommand(name, |sub| with_default(sub, setting));
                }
            }
        }
        cli
    }

    /// `FILE:LINE` of every setting that the file gives `command`.
    pub(crate) fn places(&self, command: &str) -> PlaceById {
        let (tables, top): (Vec<_>, Vec<_>) =
            self.settings.iter().partition(|setting| setting.command.is_some());
        top.into_iter()
            .chain(tables)
            .filter(|setting| setting.command.as_ref().is_none_or(|name| name == command))
            .map(|setting| (setting.id.clone(), setting.place.clone()))
            .collect()
    }
}

fn has(command: &Command, id: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == id)
}

fn with_default(command: Command, setting: &Setting) -> Command {
    command.mut_arg(&setting.id, |arg| {
        arg.required(false).default_values(setting.values.iter().map(OsStr::from))
    })
}

impl Reader<'_> {
    fn read(&self, cli: &Command) -> Result<ConfigFile, UsageError> {
        let table = DeTable::parse(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.wrong(at, format!("not valid TOML: {}", error.message().replace('\n', ", ")))
        })?;
        let mut settings = Vec::new();
        for (key, value) in table.get_ref() {
            let command = cli.find_subcommand(key.get_ref().as_ref());
            match (command, value.get_ref()) {
                (Some(command), DeValue::Table(table)) => {
                    let flags = flags_of(command);
                    for (key, value) in table {
                        let name = command.get_name();
                        let flag = self.find(key, &flags, Some((name, cli)))?;
                        settings.push(self.setting(Some(name), flag, key, value)?);
                    }
                }
                (Some(_), _) => {
                    let key = key.get_ref();
                    return Err(self.wrong(
                        value.span().start,
                        format!("`{key}` is a command and needs a table: write [{key}]"),
                    ));
                }
                (None, DeValue::Table(_)) => {
                    let names: Vec<&str> = cli.get_subcommands().map(Command::get_name).collect();
                    let unknown = key.get_ref();
                    return Err(self.wrong(
                        key.span().start,
                        format!("unknown table [{unknown}]{}", nearest(unknown, &names)),
                    ));
                }
                (None, _) => {
                    let flags = settings::common(cli);
                    let flag = self.find(key, &flags, None)?;
                    if flag.ambiguous {
                        return Err(self.wrong(
                            key.span().start,
                            format!(
                                "`{}` means different things to different commands; put it into \
                                 the table of one of them, such as [{}]",
                                flag.long, flag.command
                            ),
                        ));
                    }
                    settings.push(self.setting(None, flag, key, value)?);
                }
            }
        }
        Ok(ConfigFile { settings })
    }

    /// The flag that a key names.
    fn find<'f>(
        &self,
        key: &Spanned<toml::de::DeString<'_>>,
        flags: &'f [Flag],
        table: Option<(&str, &Command)>,
    ) -> Result<&'f Flag, UsageError> {
        let name = key.get_ref();
        if let Some(flag) = flags.iter().find(|flag| flag.long == name.as_ref()) {
            return Ok(flag);
        }
        let message = match table {
            Some((table, cli)) if flags_of(cli).iter().any(|flag| flag.long == name.as_ref()) => {
                format!("`{name}` is not a key of [{table}]; put it at the top of the file")
            }
            _ => {
                let known: Vec<&str> = flags.iter().map(|flag| flag.long.as_str()).collect();
                let place = table.map_or(String::new(), |(table, _)| format!(" in [{table}]"));
                format!("unknown key `{name}`{place}{}", nearest(name, &known))
            }
        };
        Err(self.wrong(key.span().start, message))
    }

    fn setting(
        &self,
        command: Option<&str>,
        flag: &Flag,
        key: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Setting, UsageError> {
        let items = match value.get_ref() {
            DeValue::Array(items) if flag.repeatable => items.iter().collect(),
            _ => vec![value],
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let text = scalar(item.get_ref()).ok_or_else(|| {
                let kind = item.get_ref().type_str();
                let kind = if kind == "array" { "an array".into() } else { format!("a {kind}") };
                let wanted = if flag.repeatable { "one value or a list" } else { "one value" };
                self.wrong(item.span().start, format!("`{}` takes {wanted}, not {kind}", flag.long))
            })?;
            flag.check(&text).map_err(|reason| {
                let told = without_login(&text);
                self.wrong(item.span().start, format!("{} = {told}: {reason}", flag.long))
            })?;
            values.push(text);
        }
        Ok(Setting {
            command: command.map(str::to_owned),
            id: flag.id.clone(),
            values,
            place: self.place(key.span().start),
        })
    }

    fn wrong(&self, at: usize, message: String) -> UsageError {
        UsageError::new(format!("{}: {message}", self.place(at)))
    }

    fn place(&self, at: usize) -> String {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        format!("{}:{line}", self.path.display())
    }
}

/// A scalar as one would write it behind a flag.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// The file that the command line or the environment names, found before the command line is parsed: its values are
/// defaults, and clap wants them first. No argument of ours takes a value that begins with a hyphen, so a `--config`
/// before `--` is always the flag.
pub(crate) fn path_among(
    arguments: &[std::ffi::OsString],
    environment: Option<std::ffi::OsString>,
) -> Option<PathBuf> {
    let mut arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        let bytes = argument.as_encoded_bytes();
        if let Some(path) = bytes.strip_prefix(b"--config=") {
            use std::os::unix::ffi::OsStrExt as _;
            return Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)));
        }
    }
    environment.filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests;

//! Where a setting came from, so that a complaint about it can name the place to change.

use std::collections::HashMap;
use std::fmt;

use clap::ArgMatches;
use clap::parser::ValueSource;

/// A place by the argument's name in the program (`max_tps`).
pub(crate) type PlaceById = HashMap<String, String>;

/// Where each setting of the command that runs came from.
#[derive(Debug, Default)]
pub(crate) struct Places {
    matches: ArgMatches,
    file: PlaceById,
    variables: PlaceById,
}

impl Places {
    /// The places of `matches`; `file` holds `FILE:LINE` for every setting that the file gave, `variables` the name of
    /// every setting's environment variable.
    pub(crate) fn new(matches: ArgMatches, file: PlaceById, variables: PlaceById) -> Self {
        Self { matches, file, variables }
    }

    /// Whether a setting was given as a flag.
    pub(crate) fn is_flag(&self, id: &str) -> bool {
        self.matches.value_source(id) == Some(ValueSource::CommandLine)
    }

    /// Whether nobody has given a setting.
    pub(crate) fn is_default(&self, id: &str) -> bool {
        let given = [ValueSource::CommandLine, ValueSource::EnvVariable];
        let is_given = self.matches.value_source(id).is_some_and(|source| given.contains(&source));
        !is_given && !self.file.contains_key(id)
    }

    /// Names a setting with its value and its place: `--max-tps 40 (netdiag.toml:3)`.
    pub(crate) fn named(&self, id: &str, value: impl fmt::Display) -> String {
        let flag = id.replace('_', "-");
        let place = match self.matches.value_source(id) {
            Some(ValueSource::CommandLine) => return format!("--{flag} {value}"),
            Some(ValueSource::EnvVariable) => self.variables.get(id),
            _ => self.file.get(id),
        };
        match place {
            Some(place) => format!("--{flag} {value} ({place})"),
            None => format!("--{flag} {value} (the default)"),
        }
    }
}

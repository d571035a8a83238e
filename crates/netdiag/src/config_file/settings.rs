//! What the configuration file may set, read off the command line's own definition.

use clap::{Arg, ArgAction, Command};

use crate::cli::value_reason;

/// Flags that make no sense in a file.
const NOT_IN_A_FILE: [&str; 3] = ["config", "help", "version"];

/// A likeness (Jaro-Winkler, 0..=1) from which a name is worth suggesting; clap uses the same bound for flags.
const ALIKE: f64 = 0.7;

/// One flag of one command, as the file knows it.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    pub(super) id: String,
    pub(super) long: String,
    /// A command that has it.
    pub(super) command: String,
    pub(super) repeatable: bool,
    /// Other commands have a flag of this name that means something else.
    pub(super) ambiguous: bool,
    arg: Arg,
}

impl Flag {
    /// Why `value` cannot be this flag's value.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        // The flag's parser alone: its relations to other flags are not in question here.
        let alone = Arg::new("value")
            .long("value")
            .require_equals(true)
            .num_args(1)
            .value_parser(self.arg.get_value_parser().clone());
        Command::new("file")
            .no_binary_name(true)
            .arg(alone)
            .try_get_matches_from([format!("--value={value}")])
            .map(drop)
            .map_err(|error| value_reason(&error))
    }
}

/// The flags of `command` itself (not of its subcommands) that a file may set.
pub(super) fn flags_of(command: &Command) -> Vec<Flag> {
    let flag = |arg: &Arg| {
        let long = arg.get_long().filter(|long| !NOT_IN_A_FILE.contains(long))?;
        Some(Flag {
            id: arg.get_id().to_string(),
            long: long.to_owned(),
            command: command.get_name().to_owned(),
            repeatable: matches!(arg.get_action(), ArgAction::Append),
            ambiguous: false,
            arg: arg.clone(),
        })
    };
    command.get_arguments().filter_map(flag).collect()
}

/// What may stand at the top of the file: the flags of all commands. One variable in the environment means one
/// setting; a flag whose variables differ is several settings with the same name.
pub(super) fn common(cli: &Command) -> Vec<Flag> {
    let mut all = flags_of(cli);
    for flag in cli.get_subcommands().flat_map(flags_of) {
        match all.iter_mut().find(|known| known.long == flag.long) {
            Some(known) => known.ambiguous |= known.arg.get_env() != flag.arg.get_env(),
            None => all.push(flag),
        }
    }
    all
}

/// The end of a complaint about an unknown name: the nearest known one, or all of them.
pub(super) fn nearest(name: &str, known: &[&str]) -> String {
    match alike(name, known.iter().copied()) {
        Some(meant) => format!("; did you mean `{meant}`?"),
        None => format!("; known are {}", known.join(", ")),
    }
}

/// The known name that is most like `name`, if one is like it at all.
pub(crate) fn alike<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

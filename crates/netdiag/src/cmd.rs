//! The subcommands, one file each: its flags with their help, and what it does with them.

pub(crate) mod agent;
pub(crate) mod chaos;
pub(crate) mod completions;
pub(crate) mod dashboard;
pub(crate) mod doctor;
pub(crate) mod experiment;
pub(crate) mod fleet;
pub(crate) mod gateway;
pub(crate) mod man;
pub(crate) mod pace;
pub(crate) mod plot;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod train;
pub(crate) mod up;
pub(crate) mod watch;

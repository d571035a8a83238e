//! Flags of pseudonyms for clients' addresses.

use std::path::PathBuf;

use clap::Args;
use netdiag_http::Pseudonyms;

use super::secret::secret;
use super::values;
use crate::failure::UsageError;
use crate::place::Places;

/// Whether clients' addresses are shown.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Privacy")]
pub(crate) struct AnonymiseArgs {
    /// Show pseudonyms instead of clients' addresses.
    ///
    /// In everything that this process shows, logs, writes or sends, each address is replaced by one of fd6e:6574:6469::/48, which is
    /// always the same for the same client. Ports stay, and so do headers that proxies in front have put into requests
    /// (X-Forwarded-For, Forwarded): the gateway passes them to engines unchanged. Who knows a client's address can still ask for its
    /// hint by that. The key is made anew at every start, unless there is --anonymise-key-file. Default: addresses are shown.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_ANONYMISE", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true)]
    anonymise: bool,

    /// Make pseudonyms by the secret in this file.
    ///
    /// Its first line, at least 16 characters, such as `openssl rand -hex 32` makes. Clients then have the same pseudonyms after a
    /// restart, and on all nodes that have the same secret; who has it can find out whose they are. Only with --anonymise. Default: a
    /// secret of this process alone.
    #[arg(long, value_name = "FILE", env = "NETDIAG_ANONYMISE_KEY_FILE")]
    anonymise_key_file: Option<PathBuf>,
}

impl AnonymiseArgs {
    /// The pseudonyms, if they are wanted.
    pub(crate) fn validate(&self, places: &Places) -> Result<Option<Pseudonyms>, UsageError> {
        let named = |path: &PathBuf| places.named("anonymise_key_file", path.display());
        match &self.anonymise_key_file {
            Some(path) if !self.anonymise && places.is_flag("anonymise_key_file") => {
                Err(UsageError::new(format!(
                    "{} has no effect without --anonymise; give that, too",
                    named(path)
                )))
            }
            Some(path) if !self.anonymise => {
                // In a file of settings for many commands it may stand for others.
                tracing::warn!(
                    "{} has no effect without --anonymise: clients' addresses are shown",
                    named(path)
                );
                Ok(None)
            }
            None if !self.anonymise => Ok(None),
            None => Ok(Some(Pseudonyms::random(rand::random()))),
            Some(path) => {
                let text = secret(path, "anonymise_key_file", places)?;
                let pseudonyms = Pseudonyms::try_new(text.lines().next().unwrap_or_default());
                pseudonyms.map(Some).map_err(|error| UsageError::because(named(path), error))
            }
        }
    }
}

//! Files that hold a secret. They are read once, at the start.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use netdiag_http::Token;

use crate::failure::UsageError;
use crate::place::Places;

/// Longest file, bytes. Credentials of a message bus have some kilobyte.
const LARGEST_SECRET: u64 = 64 * 1024;

/// The text of the file at `path`, which the setting `name` gives.
pub(crate) fn secret(path: &Path, name: &str, places: &Places) -> Result<String, UsageError> {
    let mut text = String::new();
    let given = || places.named(name, path.display());
    File::open(path)
        .and_then(|file| file.take(LARGEST_SECRET + 1).read_to_string(&mut text))
        .map_err(|error| {
            UsageError::because(
                format!("{}: cannot be read; give a file that this user may read", given()),
                error,
            )
        })?;
    if text.len() as u64 > LARGEST_SECRET {
        return Err(UsageError::new(format!(
            "{}: has more than {LARGEST_SECRET} bytes; give the file that holds the secret alone",
            given()
        )));
    }
    Ok(text)
}

/// The token in the file at `path`, if the setting `name` gives one.
pub(crate) fn token(
    path: Option<&Path>,
    name: &str,
    places: &Places,
) -> Result<Option<Token>, UsageError> {
    let read = |path: &Path| {
        Token::read(path)
            .map_err(|error| UsageError::because(places.named(name, path.display()), error))
    };
    path.map(read).transpose()
}

//! A file read from its beginning to its end: what `plot` and `train` work on.
//!
//! Invariant: a file with anything wrong in it is refused with the place, because a picture or a model of a part of it would pass
//! for one of the whole; one that is still being written is read up to its last complete row.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use netdiag_telemetry::Row;
use netdiag_telemetry::csv::{CsvError, RowDecoder};

use super::unusable;
use crate::failure::UsageError;
use crate::terminal::{Progress, Unit};

/// How much is read at a time: some hundreds of rows.
const PIECE: usize = 64 * 1024;

/// What to do with a column of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Labels {
    /// Like any column that is none of ours.
    Ignored,
    /// They must be 0 or 1.
    Read,
}

/// Calls `each` with the rows of the file that `flag` named, and with their labels if they are read and there are any. A file
/// without rows is refused as well.
pub(crate) fn read(
    flag: &str,
    path: &Path,
    labels: Labels,
    progress: &Progress,
    mut each: impl FnMut(&Row, Option<bool>),
) -> Result<(), UsageError> {
    let failed = |error| {
        UsageError::new(format!(
            "{flag} {}: cannot be used: {error}; give the file that `netdiag agent` writes",
            path.display()
        ))
    };
    let mut file = File::open(path).map_err(failed)?;
    // A pipe has no length, and then there is no end to be seen.
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    progress.begin(&format!("reading {}", path.display()), length, Unit::Bytes);
    let (mut decoder, mut piece) = (RowDecoder::default(), vec![0; PIECE]);
    let (mut found, mut wrong) = (false, None);
    while wrong.is_none() {
        let read = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let take = |row: Result<(Row, Option<bool>), CsvError>| match row {
            Ok((row, label)) if wrong.is_none() => {
                found = true;
                each(&row, label);
            }
            Ok(_) => {}
            Err(error) => {
                wrong.get_or_insert(error);
            }
        };
        decode(&mut decoder, labels, &piece[..read], take);
        progress.advance(read as u64);
    }
    match wrong {
        Some(wrong) => Err(unusable(flag, path, &wrong)),
        None if found => Ok(()),
        None => Err(UsageError::new(format!(
            "{flag} {} has no rows yet; record some with `netdiag agent --csv FILE`",
            path.display()
        ))),
    }
}

fn decode(
    decoder: &mut RowDecoder,
    labels: Labels,
    bytes: &[u8],
    mut each: impl FnMut(Result<(Row, Option<bool>), CsvError>),
) {
    match labels {
        Labels::Read => decoder.push_labelled(bytes, each),
        Labels::Ignored => decoder.push(bytes, |row| each(row.map(|row| (row, None)))),
    }
}

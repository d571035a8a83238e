//! Reading the files that somebody names: never for ever, and never more than memory has.

use std::io::{self, Read as _};
use std::path::Path;

/// A file's bytes, unless there are too many.
pub(super) fn bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for somebody to write into it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file; give the path of one"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => {
            Err(io::Error::other(format!("larger than {most} bytes, which none of its kind is")))
        }
        false => Ok(bytes),
    }
}

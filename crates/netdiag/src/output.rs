//! Standard output: for texts that come whole, and for those that come piece by piece, as somebody reads them or not.
//!
//! Invariant: a reader that has stopped reading keeps nobody from hearing the wish to end.

use std::io::{self, ErrorKind, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::stop::Stop;

/// How soon the wish to end is heard while the reader is busy.
const PATIENCE: Duration = Duration::from_millis(100);

/// Prints a whole text. Whoever closes the pipe has read enough.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// How a piece went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Whole,
    /// Nobody reads any more.
    Closed,
    /// The wish to end came while nobody read.
    Stopped,
}

/// stdout.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Something was printed, and no newline after it.
    mid_line: bool,
    closed: bool,
}

impl Output {
    /// Prints `text`, which is no longer than a page (4096 bytes), at once.
    pub(crate) fn write(&mut self, text: &str, stop: &Stop) -> anyhow::Result<Written> {
        while !has_room(PATIENCE) {
            if stop.wait(Duration::ZERO) {
                return Ok(Written::Stopped);
            }
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => {
                self.mid_line = !text.ends_with('\n');
                Ok(Written::Whole)
            }
            Err(error) => {
                self.closed = true;
                match error.kind() {
                    ErrorKind::BrokenPipe => Ok(Written::Closed),
                    _ => Err(error).context("cannot write to stdout"),
                }
            }
        }
    }

    /// Puts a newline after what has none.
    pub(crate) fn end_line(&mut self) {
        if self.mid_line && !self.closed && has_room(Duration::ZERO) {
            // There is nothing to do about a reader that leaves in this moment.
            let mut stdout = io::stdout().lock();
            let _ = stdout.write_all(b"\n").and_then(|()| stdout.flush());
        }
    }
}

/// Waits until stdout takes a piece without blocking; a pipe does so if it has room for a page, and no piece is longer.
fn has_room(timeout: Duration) -> bool {
    let stdout = io::stdout();
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], timeout.as_ref()) {
        Ok(ready) => ready > 0,
        Err(rustix::io::Errno::INTR) => false,
        // The write will say what is wrong.
        Err(_) => true,
    }
}

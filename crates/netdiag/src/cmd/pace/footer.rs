//! A status line in the last row of the terminal, under a text that is being printed to the same terminal.
//!
//! A progress bar would redraw the line that the text is in. So the text is given all rows but the last to scroll in
//! (DECSTBM), as package managers do it. Invariant: dropped, it gives the last row back.

use std::io::{self, IsTerminal as _, Write};

use rustix::termios::tcgetwinsize;

use crate::terminal::fitting;

/// Fewer rows leave too little for the text.
const LEAST_ROWS: u16 = 3;

/// The last row of the terminal that stderr is.
#[derive(Debug)]
pub(super) struct Footer {
    /// Rows and columns when it was set up.
    size: (u16, u16),
    text: String,
}

impl Footer {
    /// Takes the last row, if stderr is a terminal that has enough of them.
    pub(super) fn start() -> Option<Self> {
        let size = size().filter(|(rows, _)| *rows >= LEAST_ROWS)?;
        send(&set_up(size));
        Some(Self { size, text: String::new() })
    }

    /// Shows as many words of `text` as the terminal has room for.
    pub(super) fn set(&mut self, text: &str) {
        let resized = size().filter(|&size| size.0 >= LEAST_ROWS && size != self.size);
        if let Some(size) = resized {
            self.size = size;
            send(&set_up(size));
        } else if text == self.text {
            return;
        }
        text.clone_into(&mut self.text);
        send(&draw(self.size, text));
    }
}

impl Drop for Footer {
    fn drop(&mut self) {
        send(&give_back(self.size));
    }
}

fn size() -> Option<(u16, u16)> {
    let stderr = io::stderr();
    if !stderr.is_terminal() {
        return None;
    }
    let size = tcgetwinsize(&stderr).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Makes room below the text, and keeps it there. Setting the region moves the cursor, so it is saved and restored.
fn set_up((rows, _): (u16, u16)) -> String {
    format!("\n\x1b7\x1b[1;{}r\x1b8\x1b[1A", rows - 1)
}

fn draw((rows, columns): (u16, u16), text: &str) -> String {
    let shown = fitting(text, columns.into());
    format!("\x1b7\x1b[{rows};1H\x1b[2K{shown}\x1b8")
}

fn give_back((rows, _): (u16, u16)) -> String {
    format!("\x1b7\x1b[r\x1b[{rows};1H\x1b[2K\x1b8")
}

fn send(sequence: &str) {
    // A terminal that is gone shows nothing.
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(sequence.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_is_taken_used_and_given_back() {
        let size = (24, 10);
        assert_eq!(set_up(size), "\n\x1b7\x1b[1;23r\x1b8\x1b[1A");
        assert_eq!(draw(size, "60.0 tok/s clear"), "\x1b7\x1b[24;1H\x1b[2K60.0 tok/s\x1b8");
        assert_eq!(give_back(size), "\x1b7\x1b[r\x1b[24;1H\x1b[2K\x1b8");
    }
}

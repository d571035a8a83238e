//! Lines out of a body, whatever the pieces it comes in: event streams are read line by line.

/// Longest line, bytes.
const LONGEST: usize = 1 << 20;

/// The part of a line that has come so far.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

/// What comes does not end its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of the event stream is longer than {LONGEST} bytes")]
pub struct LineTooLong;

impl Lines {
    /// Takes the next bytes and gives the lines that they complete to `on_line`, without their ends.
    pub fn push<E: From<LineTooLong>>(
        &mut self,
        mut bytes: &[u8],
        mut on_line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.rest.is_empty() {
                on_line(bare(line))?;
            } else {
                self.rest.extend_from_slice(line);
                on_line(bare(&self.rest))?;
                self.rest.clear();
            }
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > LONGEST { Err(LineTooLong.into()) } else { Ok(()) }
    }
}

fn bare(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Result<Vec<String>, LineTooLong> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| {
                found.push(String::from_utf8_lossy(line).into_owned());
                Ok::<_, LineTooLong>(())
            })?;
        }
        Ok(found)
    }

    #[test]
    fn lines_are_put_together() {
        assert_eq!(
            lines(&[b"a\r\n\nb", b"c", b"\nd"]),
            Ok(vec!["a".into(), "".into(), "bc".into()])
        );
        assert_eq!(lines(&[&vec![b'x'; LONGEST + 1]]), Err(LineTooLong));
    }
}

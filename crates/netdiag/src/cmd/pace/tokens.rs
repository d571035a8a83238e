//! From text to tokens, as the text comes.
//!
//! Invariants: the tokens, one after the other, are the text; none is empty, and none much longer than [`LONGEST`]; how
//! the text is cut into pieces on its way in does not matter (but for tokens that long).

use std::io::{ErrorKind, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use unicode_segmentation::UnicodeSegmentation as _;

use crate::failure::UsageError;

/// What counts as a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A word with the white space after it.
    Word,
    /// A user-perceived character: a grapheme cluster of Unicode's annex 29.
    Char,
}

/// A "word" beyond this many bytes is printed in parts, so that memory stays bounded and a pipe with a free page (4096
/// bytes) takes a token whole.
const LONGEST: usize = 1024;

/// Bytes read at a time; small, since they are wanted as they come.
const CHUNK: usize = 1024;

/// Tokens cut in advance. A writer whose text is not printed yet waits.
const AHEAD: usize = 256;

/// `--mode`.
pub(crate) fn mode() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(["word", "char"]).map(|name| match name.as_str() {
        "char" => Mode::Char,
        _ => Mode::Word,
    })
}

/// Cuts what `input` gives on a thread of its own, which ends with the input, or with whoever takes the tokens.
pub(super) fn read(
    input: impl Read + Send + 'static,
    mode: Mode,
) -> anyhow::Result<Receiver<anyhow::Result<String>>> {
    let (sender, tokens) = sync_channel(AHEAD);
    let cut = move || {
        if let Err(error) = cut_all(input, mode, &sender) {
            // Nobody is there to be told.
            let _ = sender.send(Err(error));
        }
    };
    let thread = std::thread::Builder::new().name("text".to_owned()).spawn(cut);
    thread.context("cannot start the thread that reads the text")?;
    Ok(tokens)
}

fn cut_all(
    mut input: impl Read,
    mode: Mode,
    sender: &SyncSender<anyhow::Result<String>>,
) -> anyhow::Result<()> {
    let mut splitter = Splitter { mode, pending: String::new() };
    let mut bytes = Vec::new();
    let mut chunk = [0; CHUNK];
    let mut read_before = 0;
    loop {
        let length = match input.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read the text from stdin"),
        };
        bytes.extend_from_slice(&chunk[..length]);
        let (valid, invalid) = match std::str::from_utf8(&bytes) {
            Ok(text) => (text.len(), false),
            // Cut in the middle of a character, unless nothing follows.
            Err(error) => (error.valid_up_to(), error.error_len().is_some() || length == 0),
        };
        let text = std::str::from_utf8(&bytes[..valid]).unwrap_or_default();
        for token in splitter.push(text) {
            if sender.send(Ok(token)).is_err() {
                return Ok(());
            }
        }
        bytes.drain(..valid);
        read_before += valid;
        if invalid || length == 0 {
            let rest = splitter.pending;
            if !rest.is_empty() && sender.send(Ok(rest)).is_err() {
                return Ok(());
            }
            if invalid {
                let place = read_before + 1;
                let message =
                    format!("TEXT -: stdin is not UTF-8 at byte {place}; convert it first");
                return Err(UsageError::new(message).into());
            }
            return Ok(());
        }
    }
}

/// Cuts a text that comes in pieces. The last token is kept until it is known to be complete.
struct Splitter {
    mode: Mode,
    pending: String,
}

impl Splitter {
    fn push(&mut self, text: &str) -> Vec<String> {
        self.pending.push_str(text);
        let mut starts: Vec<usize> = match self.mode {
            Mode::Char => self.pending.grapheme_indices(true).map(|(at, _)| at).skip(1).collect(),
            Mode::Word => word_starts(&self.pending),
        };
        let last = starts.last().copied().unwrap_or_default();
        if self.pending.len() - last > LONGEST {
            starts.push(self.pending.len());
        }
        let mut from = 0;
        let tokens = starts.into_iter().map(|to| {
            let token = self.pending[from..to].to_owned();
            from = to;
            token
        });
        let tokens = tokens.collect();
        self.pending.drain(..from);
        tokens
    }
}

/// Where words begin, but for the first.
fn word_starts(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut before = None;
    // White space at the very beginning belongs to the first word.
    let mut any_text = false;
    for (at, next) in text.char_indices() {
        if let Some(before) = before
            && any_text
            && is_boundary(before, next)
        {
            starts.push(at);
        }
        any_text |= !next.is_whitespace();
        before = Some(next);
    }
    starts
}

fn is_boundary(before: char, next: char) -> bool {
    if next.is_whitespace() {
        false
    } else if before.is_whitespace() {
        true
    } else {
        is_ideographic(next) || (is_ideographic(before) && next.is_alphanumeric())
    }
}

/// Characters of scripts without spaces, each near to a word or a token: Hiragana and Katakana, and the blocks of Han
/// ideographs (Unicode 16, chapter 18).
fn is_ideographic(char: char) -> bool {
    matches!(char,
        '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tokens of `input`, with what went wrong as the last of them.
    fn cut(input: impl Read + Send + 'static, mode: Mode) -> Vec<String> {
        let tokens = read(input, mode).expect("a thread");
        tokens.iter().map(|token| token.unwrap_or_else(|error| format!("{error:#}"))).collect()
    }

    fn check(mode: Mode, text: &'static str, expected: &[&str]) {
        assert_eq!(cut(text.as_bytes(), mode), expected);
        // Byte by byte, as a slow writer sends it.
        struct Slow(&'static [u8]);
        impl Read for Slow {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                (&mut self.0).take(1).read(buffer)
            }
        }
        assert_eq!(cut(Slow(text.as_bytes()), mode), expected);
    }

    #[test]
    fn words_take_their_white_space_along() {
        check(Mode::Word, "", &[]);
        check(Mode::Word, "once", &["once"]);
        check(
            Mode::Word,
            " Once  upon a\ttime...\n\n",
            &[" Once  ", "upon ", "a\t", "time...\n\n"],
        );
        check(Mode::Word, "  \n", &["  \n"]);
        check(Mode::Word, "well-kept, don't", &["well-kept, ", "don't"]);
    }

    #[test]
    fn ideographs_are_words() {
        check(
            Mode::Word,
            "网络很慢，等 TCP恢复。",
            &["网", "络", "很", "慢，", "等 ", "TCP", "恢", "复。"],
        );
        check(Mode::Word, "ネットdown", &["ネ", "ッ", "ト", "down"]);
    }

    #[test]
    fn chars_are_what_a_reader_sees() {
        check(Mode::Char, "né\u{301}e", &["n", "é\u{301}", "e"]);
        check(
            Mode::Char,
            "👩\u{200d}👩\u{200d}👧🇨🇭\r\n",
            &["👩\u{200d}👩\u{200d}👧", "🇨🇭", "\r\n"],
        );
    }

    #[test]
    fn what_is_not_text_is_told_after_what_is() {
        for bad in [&b"good \xff\xfe bad"[..], b"good \xe4\xbd"] {
            let tokens = cut(bad, Mode::Word);
            assert_eq!(tokens[0], "good ");
            assert!(tokens[1].contains("at byte 6"), "{tokens:?}");
            assert_eq!(tokens.len(), 2);
        }
    }

    proptest! {
        #[test]
        fn tokens_are_the_text(text in "\\PC*|(a|é|网| |\n){0,40}|x{0,5000}", word: bool) {
            let mode = if word { Mode::Word } else { Mode::Char };
            let tokens = cut(std::io::Cursor::new(text.clone()), mode);
            prop_assert_eq!(tokens.concat(), text);
            prop_assert!(tokens.iter().all(|token| !token.is_empty()));
            prop_assert!(tokens.iter().all(|token| token.len() <= LONGEST + CHUNK + 4));
        }
    }
}

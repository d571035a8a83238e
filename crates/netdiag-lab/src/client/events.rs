//! Tokens out of an event stream, whatever the pieces it comes in.
//!
//! OpenAI's streams have one line of data per event, so a line is all that needs to be put together.

use std::borrow::Cow;

use serde::Deserialize;

/// Longest line, bytes. One that is longer is no token.
const LONGEST_LINE: usize = 1 << 20;

/// What a line of a stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A token.
    Token,
    /// The answer is complete, or is broken off (`true`).
    Finish(bool),
    /// There will be no more events.
    Done,
    /// Something else: a role, a comment, usage.
    Other,
}

/// The part of a line that has come so far.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

/// What comes is no stream of OpenAI's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Garbage {
    #[error("a line of the event stream is longer than {LONGEST_LINE} bytes")]
    Long,
    #[error("the event stream has `{line}`: {why}")]
    Json { line: String, why: String },
}

impl Lines {
    /// Takes the next bytes and gives the events that they complete to `on_event`.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        mut on_event: impl FnMut(Event),
    ) -> Result<(), Garbage> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.rest.is_empty() {
                on_event(event(line)?);
            } else {
                self.rest.extend_from_slice(line);
                on_event(event(&self.rest)?);
                self.rest.clear();
            }
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > LONGEST_LINE { Err(Garbage::Long) } else { Ok(()) }
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
}

fn event(line: &[u8]) -> Result<Event, Garbage> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(data) = line.strip_prefix(b"data:") else { return Ok(Event::Other) };
    let data = data.strip_prefix(b" ").unwrap_or(data);
    if data == b"[DONE]" {
        return Ok(Event::Done);
    }
    let chunk: Chunk<'_> = serde_json::from_slice(data).map_err(|error| Garbage::Json {
        line: String::from_utf8_lossy(data).chars().take(80).collect(),
        why: error.to_string(),
    })?;
    let Some(choice) = chunk.choices.first() else { return Ok(Event::Other) };
    if let Some(reason) = &choice.finish_reason {
        return Ok(Event::Finish(reason == "abort"));
    }
    let content = choice.delta.as_ref().and_then(|delta| delta.content.as_ref());
    let has_text = content.or(choice.text.as_ref()).is_some_and(|text| !text.is_empty());
    Ok(if has_text { Event::Token } else { Event::Other })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = concat!(
        ": a comment\n\n",
        "data: {\"choices\": [{\"delta\": {\"role\": \"assistant\", \"content\": \"\"}}]}\n\n",
        "data: {\"choices\": [{\"delta\": {\"content\": \"Caf\u{e9}\\n\"}, \"finish_reason\": null}]}\n\n",
        "data:{\"choices\": [{\"text\": \" two\"}]}\r\n\r\n",
        "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"stop\"}]}\n\n",
        "data: {\"choices\": [], \"usage\": {\"total_tokens\": 3}}\n\n",
        "data: [DONE]\n\n",
    );

    fn events(pieces: &[&[u8]]) -> Result<Vec<Event>, Garbage> {
        let (mut lines, mut events) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |event| events.push(event))?;
        }
        events.retain(|event| *event != Event::Other);
        Ok(events)
    }

    #[test]
    fn tokens_are_what_has_text() {
        use Event::{Done, Finish, Token};
        assert_eq!(events(&[STREAM.as_bytes()]), Ok(vec![Token, Token, Finish(false), Done]));
        let aborted = br#"data: {"choices": [{"text": "", "finish_reason": "abort"}]}"#;
        assert_eq!(events(&[aborted, b"\n"]), Ok(vec![Finish(true)]));
    }

    #[test]
    fn garbage_is_shown() {
        let error = events(&[b"data: {oops\n"]).expect_err("no JSON").to_string();
        assert!(error.starts_with("the event stream has `{oops`: "), "{error}");
        assert_eq!(events(&[&vec![b'x'; LONGEST_LINE + 1]]), Err(Garbage::Long));
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_matter(cuts in prop::collection::vec(0..STREAM.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> =
                cuts.windows(2).map(|cut| &STREAM.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(events(&pieces), events(&[STREAM.as_bytes()]));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = events(&[&bytes]);
        }
    }
}

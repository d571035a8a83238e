//! Tokens out of the lines of an event stream. OpenAI's have one line of data per event.

use std::borrow::Cow;

use netdiag_http::LineTooLong;
use serde::Deserialize;

use crate::engine::pieces;

/// What a line of a stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// So many tokens: one, unless something on the way has put several together.
    Tokens(usize),
    /// The answer is complete, or is broken off (`true`).
    Finish(bool),
    /// There will be no more events.
    Done,
    /// Something else: a role, a comment, usage.
    Other,
}

/// What comes is no stream of OpenAI's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Garbage {
    #[error(transparent)]
    Long(#[from] LineTooLong),
    #[error("the event stream has `{line}`: {why}")]
    Json { line: String, why: String },
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

/// What a line, without its end, says.
pub(crate) fn event(line: &[u8]) -> Result<Event, Garbage> {
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
    let text = content.or(choice.text.as_ref()).filter(|text| !text.is_empty());
    // As the engine cuts its text, which a text that begins with a whole token is cut like again.
    Ok(text.map_or(Event::Other, |text| Event::Tokens(pieces(text).count())))
}

#[cfg(test)]
mod tests {
    use netdiag_http::Lines;
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = concat!(
        ": a comment\n\n",
        "data: {\"choices\": [{\"delta\": {\"role\": \"assistant\", \"content\": \"\"}}]}\n\n",
        "data: {\"choices\": [{\"delta\": {\"content\": \"\\nCaf\u{e9}\"}, \"finish_reason\": null}]}\n\n",
        "data:{\"choices\": [{\"text\": \" two more\"}]}\r\n\r\n",
        "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"stop\"}]}\n\n",
        "data: {\"choices\": [], \"usage\": {\"total_tokens\": 3}}\n\n",
        "data: [DONE]\n\n",
    );

    fn events(pieces: &[&[u8]]) -> Result<Vec<Event>, Garbage> {
        let (mut lines, mut events) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| {
                events.push(event(line)?);
                Ok::<_, Garbage>(())
            })?;
        }
        events.retain(|event| *event != Event::Other);
        Ok(events)
    }

    #[test]
    fn tokens_are_what_has_text() {
        use Event::{Done, Finish, Tokens};
        let expected = vec![Tokens(1), Tokens(2), Finish(false), Done];
        assert_eq!(events(&[STREAM.as_bytes()]), Ok(expected));
        let aborted = br#"data: {"choices": [{"text": "", "finish_reason": "abort"}]}"#;
        assert_eq!(events(&[aborted, b"\n"]), Ok(vec![Finish(true)]));
    }

    #[test]
    fn garbage_is_shown() {
        let error = events(&[b"data: {oops\n"]).expect_err("no JSON").to_string();
        assert!(error.starts_with("the event stream has `{oops`: "), "{error}");
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

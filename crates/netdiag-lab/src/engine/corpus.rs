//! What the engine answers: a short story, written for it, round and round.
//!
//! A token's text follows from the answer's seed and the token's number, so an answer of any length takes no memory and
//! nothing that was generated needs to be kept.
//!
//! A text that is given back to it is recognised, and goes on where it has ended: a continuation is exact.
//!
//! Invariant: the pieces of a text, put together again, are the text.

use std::num::NonZeroU32;
use std::sync::LazyLock;

/// Letters of a piece at most. With words cut at six, English comes to some four and a half characters a piece; real
/// tokenizers have about four.
const LONGEST: usize = 6;

static STORY: LazyLock<Vec<&str>> = LazyLock::new(|| pieces(include_str!("corpus.txt")).collect());

/// Where paragraphs begin, by piece.
static PARAGRAPHS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    // The last piece is the empty line between the end and the beginning.
    let begins = |&at: &usize| at == 0 || STORY[at].starts_with("\n\n");
    (0..STORY.len() - 1).filter(begins).collect()
});

/// Cuts a text into what this engine calls tokens: a word's letters, six at most, or one other character, each with the
/// white space before it.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = rest.trim_start();
        let letters = word.chars().take(LONGEST).take_while(|c| c.is_alphanumeric()).count();
        let end = word.char_indices().nth(letters.max(1)).map_or(word.len(), |(end, _)| end);
        let (piece, after) = rest.split_at(rest.len() - word.len() + end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A text of a certain length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    start: usize,
    said: Said,
    tokens: NonZeroU32,
    /// Bytes of the last piece that are part of the text; the rest belongs to a stop sequence.
    last_bytes: Option<usize>,
}

/// What of a text has been said before: whole tokens, and bytes of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) tokens: u32,
    bytes: usize,
}

/// Where in the story an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    start: usize,
    said: Said,
}

impl Place {
    /// The beginning that belongs to `seed`.
    pub(crate) fn of_seed(seed: u64) -> Self {
        // Neighbouring seeds start at different paragraphs: an odd multiplier, and the high bits of the product.
        let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        Self { start: PARAGRAPHS[mixed as usize % PARAGRAPHS.len()], said: Said::default() }
    }

    /// Where a text is that begins here, or wherever one may begin if `anywhere`.
    pub(crate) fn behind(self, text: &str, anywhere: bool) -> Option<Self> {
        self.starts(anywhere).find_map(|start| {
            Some(Self { start, said: said(start, text).filter(|said| *said != Said::default())? })
        })
    }

    /// The same for a text at the end of a prompt: the longest, and one token at least.
    pub(crate) fn at_end_of(self, prompt: &str, anywhere: bool) -> Option<Self> {
        let ends = self.starts(anywhere).flat_map(|start| {
            let begins = prompt.match_indices(piece(start, 0));
            begins.filter_map(move |(at, _)| Some((at, start, said(start, &prompt[at..])?)))
        });
        let (_, start, said) = ends.filter(|(.., said)| said.tokens > 0).min_by_key(|end| end.0)?;
        Some(Self { start, said })
    }

    /// What has been said.
    pub(crate) fn said(self) -> Said {
        self.said
    }

    fn starts(self, anywhere: bool) -> impl Iterator<Item = usize> {
        let all = PARAGRAPHS.iter().copied().filter(move |_| anywhere);
        std::iter::once(self.start).filter(move |_| !anywhere).chain(all)
    }
}

/// The piece with this number of a text that starts there.
fn piece(start: usize, index: usize) -> &'static str {
    let piece = STORY[(start + index) % STORY.len()];
    if index == 0 { piece.trim_start() } else { piece }
}

/// How much of a text that starts there `text` is, if it is a beginning of it.
fn said(start: usize, text: &str) -> Option<Said> {
    let mut rest = text;
    for index in 0.. {
        let piece = piece(start, index as usize);
        match rest.strip_prefix(piece) {
            Some(after) => rest = after,
            None if piece.starts_with(rest) => {
                return Some(Said { tokens: index, bytes: rest.len() });
            }
            None => return None,
        }
    }
    None
}

impl Answer {
    /// `tokens` tokens from there on.
    pub(crate) fn new(place: Place, tokens: NonZeroU32) -> Self {
        Self { start: place.start, said: place.said, tokens, last_bytes: None }
    }

    /// What comes behind the end: one token, for there is none that has none, without a text.
    pub(crate) fn nothing(place: Place) -> Self {
        Self { last_bytes: Some(0), ..Self::new(place, NonZeroU32::MIN) }
    }

    /// The answer up to the first of the `stops` in it, if there is one. The token in which that begins is its last.
    pub(crate) fn stopped_at(self, stops: &[String]) -> Option<Self> {
        // The whole text is put together for them alone.
        if stops.is_empty() {
            return None;
        }
        let text = self.text(self.tokens.get());
        let stop = stops.iter().filter_map(|stop| text.find(stop.as_str())).min()?;
        let mut begin = 0;
        for index in 0..self.tokens.get() {
            let end = begin + self.piece(index).len();
            if stop < end {
                let tokens = NonZeroU32::MIN.saturating_add(index);
                return Some(Self { tokens, last_bytes: Some(stop - begin), ..self });
            }
            begin = end;
        }
        None
    }

    /// How many tokens it has.
    pub(crate) fn tokens(&self) -> NonZeroU32 {
        self.tokens
    }

    /// The text of one token, counted from 0.
    pub(crate) fn piece(&self, index: u32) -> &'static str {
        let piece = piece(self.start, self.said.tokens as usize + index as usize);
        let piece = if index == 0 { &piece[self.said.bytes..] } else { piece };
        match self.last_bytes {
            Some(bytes) if index + 1 == self.tokens.get() => &piece[..bytes.min(piece.len())],
            _ => piece,
        }
    }

    /// The first `tokens` tokens' text.
    pub(crate) fn text(&self, tokens: u32) -> String {
        (0..tokens.min(self.tokens.get())).map(|index| self.piece(index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(seed: u64, tokens: u32) -> Answer {
        Answer::new(Place::of_seed(seed), NonZeroU32::new(tokens).expect("not zero"))
    }

    #[test]
    fn pieces_are_short_words_and_single_marks() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(pieces(text).collect::<Vec<_>>(), expected);
        };
        check("", &[]);
        check("Two keepers, one wire.", &["Two", " keeper", "s", ",", " one", " wire", "."]);
        check("\n\nIt is 11 miles  ", &["\n\nIt", " is", " 11", " miles", "  "]);
        check("网络已恢复正常，继续", &["网络已恢复正", "常", "，", "继续"]);
    }

    #[test]
    fn a_seed_has_one_answer_and_others_have_others() {
        assert_eq!(answer(7, 50).text(50), answer(7, 50).text(50));
        let beginnings: std::collections::BTreeSet<_> =
            (0..200).map(|seed| answer(seed, 20).text(20)).collect();
        assert!(beginnings.len() > 5, "{beginnings:?}");
        assert!(beginnings.iter().all(|text| !text.starts_with(char::is_whitespace)));
        // Each token is seen as one.
        assert!((0..200).all(|seed| (0..2000).all(|at| !answer(seed, 2000).piece(at).is_empty())));
        // Longer than the story.
        assert!(answer(1, 5000).text(5000).len() > 15_000);
    }

    #[test]
    fn a_stop_sequence_ends_the_answer_before_it() {
        let check = |stops: &[&str], expected: Option<(u32, &str)>| {
            let stops: Vec<_> = stops.iter().map(ToString::to_string).collect();
            let whole = (0..).map(|seed| answer(seed, 40));
            let mut whole =
                whole.filter(|answer| answer.text(9).starts_with("They told him so by"));
            let found = whole.next().and_then(|answer| answer.stopped_at(&stops));
            let found = found.map(|a| (a.tokens().get(), a.text(a.tokens().get())));
            assert_eq!(found.as_ref().map(|(n, text)| (*n, text.as_str())), expected, "{stops:?}");
        };
        check(&[], None);
        check(&["kettle"], None);
        check(&["so"], Some((4, "They told him ")));
        check(&[" so"], Some((4, "They told him")));
        // It begins within one piece and ends within another.
        check(&["im so b"], Some((3, "They told h")));
        check(&["boat", "told"], Some((2, "They ")));
        check(&["They"], Some((1, "")));
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_text(text: String) {
            prop_assert_eq!(pieces(&text).collect::<String>(), text);
        }

        #[test]
        fn a_stopped_answer_is_the_text_before_the_stop(
            seed: u64,
            tokens in 1u32..200,
            start in 0usize..400,
            length in 1usize..12,
        ) {
            let whole = answer(seed, tokens);
            let text = whole.text(tokens);
            prop_assume!(start + length <= text.len());
            let stop = text[start..start + length].to_owned();
            let stopped = whole.stopped_at(std::slice::from_ref(&stop)).expect("it is in there");
            let expected = text.split(&stop).next().expect("something before");
            prop_assert_eq!(stopped.text(stopped.tokens().get()), expected);
        }

        #[test]
        fn a_text_goes_on_where_it_has_ended(
            seed: u64,
            tokens in 2u32..2000,
            cut in 0usize..8000,
            is_prompt: bool,
        ) {
            let whole = answer(seed, tokens).text(tokens);
            // A prompt needs a whole token to be recognised.
            let first = answer(seed, tokens).piece(0).len();
            let cut = cut.clamp(first, whole.len());
            prop_assume!(whole.is_char_boundary(cut));
            let (said, rest) = whole.split_at(cut);
            let place = Place::of_seed(seed);
            let place = match is_prompt {
                true => place.at_end_of(&format!("Tell me a story: {said}"), false),
                false => place.behind(said, false),
            };
            let place = place.expect("its own text");
            let goes_on = Answer::new(place, NonZeroU32::new(tokens).expect("not zero"));
            prop_assert!(goes_on.text(tokens).starts_with(rest), "{said:?}");
            let left = tokens - place.said().tokens;
            prop_assert_eq!(goes_on.text(left), rest);
        }
    }

    #[test]
    fn texts_without_a_seed_are_found_by_their_words() {
        let anywhere = Place::of_seed(0);
        for seed in 0..50 {
            let whole = answer(seed, 60).text(60);
            let place = anywhere.behind(&whole[..100], true).expect("long enough");
            assert!(whole[100..].starts_with(Answer::new(place, NonZeroU32::MIN).piece(0)));
        }
        assert_eq!(anywhere.behind("Something else", true), None);
        assert_eq!(anywhere.behind("", true), None);
        assert_eq!(anywhere.at_end_of("Something else", true), None);
    }
}

//! What the engine answers: a short story, written for it, round and round.
//!
//! A token's text follows from the answer's seed and the token's number, so an answer of any length takes no memory and
//! nothing that was generated needs to be kept.
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
    tokens: NonZeroU32,
    /// Bytes of the last piece that are part of the text; the rest belongs to a stop sequence.
    last_bytes: Option<usize>,
}

impl Answer {
    /// The answer of `tokens` tokens that belongs to `seed`.
    pub(crate) fn new(seed: u64, tokens: NonZeroU32) -> Self {
        // Neighbouring seeds start at different paragraphs: an odd multiplier, and the high bits of the product.
        let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let start = PARAGRAPHS[mixed as usize % PARAGRAPHS.len()];
        Self { start, tokens, last_bytes: None }
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
        let piece = STORY[(self.start + index as usize) % STORY.len()];
        let piece = if index == 0 { piece.trim_start() } else { piece };
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
        Answer::new(seed, NonZeroU32::new(tokens).expect("not zero"))
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
    }
}

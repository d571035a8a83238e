//! Stop sequences in a text that comes piece by piece.
//!
//! Invariant: what is let go has no stop sequence in it, and none begins in it.

/// Finds stop sequences.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops(Vec<String>);

impl Stops {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self(stops)
    }

    /// Where the first of them begins.
    pub(crate) fn find(&self, text: &str) -> Option<usize> {
        self.0.iter().filter_map(|stop| text.find(stop.as_str())).min()
    }

    /// Bytes at the text's end with which one may have begun: the longest end that is the beginning of one.
    pub(crate) fn begun(&self, text: &str) -> usize {
        let begun = |stop: &String| {
            let longest = text.len().min(stop.len().saturating_sub(1));
            let begins = |length: &usize| text.as_bytes().ends_with(&stop.as_bytes()[..*length]);
            (1..=longest).rev().find(begins).unwrap_or(0)
        };
        // It begins as a stop sequence does, so no character is cut.
        self.0.iter().map(begun).max().unwrap_or(0)
    }

    /// Whether one has another inside, and not at its beginning. Of a text that ends with the inner one it would be left to the engine
    /// which of them it was.
    pub(crate) fn are_nested(&self) -> bool {
        let inside = |outer: &str, inner: &str| {
            outer.char_indices().skip(1).any(|(at, _)| outer[at..].starts_with(inner))
        };
        let each = |(at, outer): (usize, &String)| {
            let others = self.0.iter().enumerate().filter(|(other, _)| *other != at);
            others.into_iter().any(|(_, inner)| inside(outer, inner))
        };
        self.0.iter().enumerate().any(each)
    }
}

/// The text without what may be a part of a character at its end: some engines write U+FFFD for one that a segment's end has cut.
pub(super) fn whole(text: &str) -> &str {
    text.trim_end_matches(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(stops: &[&str]) -> Stops {
        Stops::new(stops.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_longest_beginning_is_held_back() {
        let check = |all: &[&str], text: &str, begun| {
            assert_eq!(stops(all).begun(text), begun, "{all:?} {text:?}");
        };
        check(&[], "abc", 0);
        check(&["cde"], "abc", 1);
        check(&["cde", "bcx"], "abc", 2);
        check(&["\n\n"], "a\n", 1);
        check(&["aab"], "aaa", 2);
        check(&["é!"], "é", 2);
        // A whole one is for `find`.
        check(&["abc"], "abc", 0);
    }

    #[test]
    fn stop_sequences_inside_others_are_found() {
        let check = |all: &[&str], nested| assert_eq!(stops(all).are_nested(), nested, "{all:?}");
        check(&["ab", "abc"], false);
        check(&["bc", "abc"], true);
        check(&["b", "abc"], true);
        check(&["ab", "bc"], false);
        check(&["aa"], false);
    }
}

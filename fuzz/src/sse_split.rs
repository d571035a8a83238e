//! Event streams: any bytes, cut anywhere, pass unchanged, and their events are those of the whole.
//!
//! The first byte of an input says how many follow that say where to cut.

use bytes::Bytes;
use netdiag_gateway::Dialect;
use netdiag_gateway::sse::{Kind, LONGEST_EVENT, Piece, Splitter, TokenReader, fields, merge};

/// The dialects that have events.
const DIALECTS: [Dialect; 4] =
    [Dialect::Chat, Dialect::Completions, Dialect::Messages, Dialect::Responses];

/// An event as a client gets it: type, data, id.
type Event = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// Panics if a byte is lost, if events depend on the cuts, or if tokens do.
pub fn sse_split(input: &[u8]) {
    let Some((&count, rest)) = input.split_first() else { return };
    let (cuts, stream) = rest.split_at(rest.len().min(usize::from(count) % 32));
    let (whole, whole_rest) = split(&[stream]);
    let (pieces, pieces_rest) = split(&chunks(stream, cuts));
    for (pieces, rest) in [(&whole, &whole_rest), (&pieces, &pieces_rest)] {
        let mut bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
        bytes.extend_from_slice(rest);
        assert_eq!(bytes, stream, "a byte is lost");
    }
    assert_eq!(events(&pieces), events(&whole), "in pieces, and as a whole");
    for dialect in DIALECTS {
        let tokens = |pieces: &[Piece]| {
            let mut reader = TokenReader::new(dialect);
            for piece in pieces {
                let _ = reader.read(piece);
            }
            reader.tokens()
        };
        assert_eq!(tokens(&pieces), tokens(&whole), "{dialect:?}");
        for pair in whole.windows(2) {
            check_merged(dialect, &pair[0], &pair[1]);
        }
    }
}

/// Two that are put together are one whole event.
fn check_merged(dialect: Dialect, first: &Piece, second: &Piece) {
    let Some(merged) = merge(dialect, first, second) else { return };
    let (pieces, rest) = split(&[&merged.bytes]);
    assert!(
        rest.is_empty() && events(&pieces).len() == 1,
        "{merged:?} of {first:?} and {second:?}"
    );
}

fn chunks<'a>(stream: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let (mut chunks, mut left) = (Vec::new(), stream);
    for &cut in cuts {
        let (chunk, rest) = left.split_at(usize::from(cut).min(left.len()));
        chunks.push(chunk);
        left = rest;
    }
    chunks.push(left);
    chunks
}

fn split(chunks: &[&[u8]]) -> (Vec<Piece>, Bytes) {
    let mut splitter = Splitter::new(LONGEST_EVENT);
    let mut pieces = Vec::new();
    for chunk in chunks {
        let split = splitter.push(Bytes::copy_from_slice(chunk), |piece| pieces.push(piece));
        assert_eq!(split, Ok(()), "inputs are shorter");
    }
    (pieces, splitter.take_rest())
}

/// What is read in the pieces.
pub(crate) fn events(pieces: &[Piece]) -> Vec<Event> {
    let event = |piece: &Piece| {
        let event = fields(&piece.bytes).filter(|_| piece.kind == Kind::Event)?;
        Some((event.name.into_owned(), event.data.into_owned(), event.id.map(<[u8]>::to_vec)))
    };
    pieces.iter().filter_map(event).collect()
}

/// The number of events in an input.
#[cfg(test)]
pub(crate) fn count(input: &[u8]) -> usize {
    let Some((&count, rest)) = input.split_first() else { return 0 };
    let (_, stream) = rest.split_at(rest.len().min(usize::from(count) % 32));
    events(&split(&[stream]).0).len()
}

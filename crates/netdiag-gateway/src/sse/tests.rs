//! Where a stream is cut on its way never matters.

use proptest::prelude::*;

use super::*;

/// The pieces of a stream that comes in these chunks, with what is left at its end.
fn split(chunks: &[&[u8]]) -> (Vec<Piece>, Bytes) {
    let mut splitter = Splitter::new(LONGEST_EVENT);
    let mut pieces = Vec::new();
    for chunk in chunks {
        splitter.push(Bytes::copy_from_slice(chunk), |piece| pieces.push(piece)).expect("short");
    }
    (pieces, splitter.take_rest())
}

fn bytes(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect()
}

/// What a client gets: each event's type, data and id.
fn events(pieces: &[Piece]) -> Vec<(String, String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let event = |piece: &Piece| {
        let event = fields(&piece.bytes).filter(|_| piece.kind == Kind::Event)?;
        Some((text(&event.name), text(&event.data), event.id.map(text)))
    };
    pieces.iter().filter_map(event).collect()
}

/// The same by the standard's own words: over the whole stream, line by line.
fn by_the_standard(stream: &[u8]) -> Vec<(String, String, Option<String>)> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let text = String::from_utf8_lossy(stream).replace("\r\n", "\n").replace('\r', "\n");
    let (mut found, mut name, mut data, mut id) = (Vec::new(), String::new(), String::new(), None);
    // What follows the last line's end is no line.
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                let name = if name.is_empty() { "message".to_owned() } else { name.clone() };
                found.push((name, data.clone(), id.clone()));
            }
            (name, data, id) = (String::new(), String::new(), None);
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => data = data + value + "\n",
            "id" if !value.contains('\0') => id = Some(value.to_owned()),
            _ => {}
        }
    }
    found
}

#[test]
fn events_end_with_an_empty_line_however_lines_end() {
    let check = |stream: &str, pieces: &[&str], rest: &str| {
        let (found, left) = split(&[stream.as_bytes()]);
        let found: Vec<String> =
            found.iter().map(|p| String::from_utf8_lossy(&p.bytes).into_owned()).collect();
        assert_eq!(found, pieces, "{stream:?}");
        assert_eq!(left, rest, "{stream:?}");
    };
    check("data: a\n\ndata: b\n\n", &["data: a\n\n", "data: b\n\n"], "");
    check("data: a\r\n\r\ndata: b\r\n\r\n", &["data: a\r\n\r\n", "data: b\r\n\r\n"], "");
    check("data: a\r\rdata: b\r\r", &["data: a\r\r", "data: b\r\r"], "");
    check("data: a\r\n\ndata: b\n\r\n", &["data: a\r\n\n", "data: b\n\r\n"], "");
    check("\n\n", &["\n", "\n"], "");
    check(": ping\n\ndata: a\n: b\n\n", &[": ping\n", "\n", "data: a\n: b\n\n"], "");
    check("data: a\n", &[], "data: a\n");
    check("data: [DONE]", &[], "data: [DONE]");
    check("", &[], "");
}

#[test]
fn a_line_feed_that_comes_late_is_passed_on_at_once() {
    let (pieces, rest) = split(&[b"data: a\r\n\r", b"\n", b"data: b\r", b"\n\r", b"\ndata"]);
    let found: Vec<&[u8]> = pieces.iter().map(|piece| &*piece.bytes).collect();
    assert_eq!(found, [&b"data: a\r\n\r"[..], b"\n", b"data: b\r\n\r", b"\n"]);
    assert_eq!(rest, "data");
    assert_eq!(events(&pieces).len(), 2);
}

#[test]
fn what_never_ends_is_refused_and_kept() {
    let mut splitter = Splitter::new(10);
    let mut pieces = 0;
    assert_eq!(splitter.push("data: 1\n\ndata: 2".into(), |_| pieces += 1), Ok(()));
    assert_eq!(splitter.push("345".into(), |_| pieces += 1), Ok(()));
    assert_eq!(splitter.push("6".into(), |_| pieces += 1), Err(EventTooLong));
    assert_eq!((pieces, &splitter.take_rest()[..]), (1, &b"data: 23456"[..]));
}

/// Lines that matter and such that do not, with all kinds of ends.
fn line() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        4 => Just("data: {\"choices\":[]}".to_owned()),
        2 => "data:[ -~é]{0,12}",
        2 => Just(String::new()),
        1 => "event: [a-z]{0,5}",
        1 => "id: [0-9\0]{0,3}",
        1 => ": [a-z ]{0,8}",
        1 => "retry: [0-9]{1,4}",
        1 => "[ -~\u{feff}]{0,8}",
    ];
    let end = prop_oneof![3 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\r")];
    (text, end).prop_map(|(text, end)| text + end)
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::collection::vec(line(), 0..40);
    (lines, any::<bool>(), "[ -~]{0,6}").prop_map(|(lines, bom, end)| {
        let start = if bom { "\u{feff}" } else { "" };
        (start.to_owned() + &lines.concat() + &end).into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn split_points_never_matter(stream in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        let (pieces, rest) = split(&chunks);
        prop_assert_eq!([bytes(&pieces), rest.to_vec()].concat(), stream.clone());
        prop_assert_eq!(events(&pieces), by_the_standard(&stream));
        let (whole, whole_rest) = split(&[&stream]);
        prop_assert_eq!(events(&pieces), events(&whole));
        // A return at the end of a chunk may end a piece sooner than its line feed comes.
        prop_assert_eq!(bytes(&pieces).len() + rest.len(), bytes(&whole).len() + whole_rest.len());
    }

    #[test]
    fn any_bytes_pass_unchanged(stream in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\r')], 0..200), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(stream.len() + 1);
        let (pieces, rest) = split(&[&stream[..cut], &stream[cut..]]);
        prop_assert_eq!([bytes(&pieces), rest.to_vec()].concat(), stream);
        // And every piece of an event is one whole one.
        for piece in pieces.iter().filter(|piece| piece.kind == Kind::Event) {
            prop_assert!(matches!(piece.bytes.last(), Some(b'\n' | b'\r')));
        }
    }
}

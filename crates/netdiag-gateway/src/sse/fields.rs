//! The fields of one event (WHATWG HTML §9.2.6).

use std::borrow::Cow;

/// An event as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its type; `message` if it has none.
    pub name: Cow<'a, [u8]>,
    /// Its data lines, with line feeds between them.
    pub data: Cow<'a, [u8]>,
    /// The stream's last event id from here on, if it says one.
    pub id: Option<&'a [u8]>,
}

/// What a client reads in a piece of [`super::Kind::Event`]; nothing if there is no data in it.
pub fn fields(piece: &[u8]) -> Option<Event<'_>> {
    // Only at the start of a stream it is no part of a name; no name begins with it anywhere else.
    let mut left = piece.strip_prefix(b"\xef\xbb\xbf").unwrap_or(piece);
    let (mut name, mut data, mut id) = (None, None, None);
    while !left.is_empty() {
        let length = memchr::memchr2(b'\r', b'\n', left).unwrap_or(left.len());
        let (line, end) = left.split_at(length);
        left = end.get(1..).unwrap_or_default();
        if line.is_empty() {
            continue; // the line feed after a carriage return, or the end
        }
        let (field, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = Some(value),
            b"data" => add(&mut data, value),
            b"id" if !value.contains(&0) => id = Some(value),
            _ => {}
        }
    }
    let name = name.filter(|name| !name.is_empty()).unwrap_or(b"message");
    Some(Event { name: Cow::Borrowed(name), data: data?, id })
}

fn add<'a>(data: &mut Option<Cow<'a, [u8]>>, line: &'a [u8]) {
    match data {
        None => *data = Some(Cow::Borrowed(line)),
        Some(data) => {
            let data = data.to_mut();
            data.push(b'\n');
            data.extend_from_slice(line);
        }
    }
}

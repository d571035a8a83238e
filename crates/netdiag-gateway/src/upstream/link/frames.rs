//! The frames of an answer's body: a length, chunks, or the connection's end (RFC 9112 §6.3, §7.1). No I/O.
//!
//! As strict as hyper's own decoder, with which a test compares it on any bytes: no digits, no bare LF, extensions and trailers of
//! so many bytes at most. It differs in one thing. Where hyper hands out each chunk, all that one read has brought is put together,
//! because a chunk says nothing: the engine's writes may be cut anywhere.
//!
//! Invariant: where the bytes are cut that it is given changes nothing but where the data are cut.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of chunk extensions in one body, and of its trailers. Nobody uses the one, and few the other; both are hyper's limits.
const EXTENSIONS: u32 = 16 * 1024;
const TRAILERS: usize = 16 * 1024;

/// Trailers of one body; hyper's limit as well.
const MOST_TRAILERS: usize = 100;

/// A body that is being read.
#[derive(Debug)]
pub(super) struct Frames(Kind);

#[derive(Debug)]
enum Kind {
    /// So many bytes are to come.
    Length(u64),
    Chunks(Chunks),
    UntilClosed,
    Over,
    Broken(Fault),
}

#[derive(Debug, Default)]
struct Chunks {
    place: Place,
    /// Bytes of this chunk that are to come; while its size is read, the size so far.
    left: u64,
    extensions: u32,
    trailers: Vec<u8>,
    /// Lines of them that have ended.
    lines: usize,
}

/// What may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// The first digit of a size.
    #[default]
    Start,
    Size,
    /// White space behind a size.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    /// A trailer, or the CR of the end.
    LineStart,
    EndLf,
}

/// How a body is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the connection ended before the answer did")]
    Short,
    #[error("the size of a chunk is malformed")]
    Size,
    #[error("a chunk does not end where its size says")]
    End,
    #[error("the extensions of chunks are too long")]
    Extensions,
    #[error("the trailers are malformed or too long")]
    Trailers,
}

/// What was made of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// So many bytes of data are at their beginning now.
    pub(super) data: usize,
    /// Those that belong to the body.
    pub(super) used: usize,
}

impl Frames {
    pub(super) fn length(length: u64) -> Self {
        Self(if length == 0 { Kind::Over } else { Kind::Length(length) })
    }

    pub(super) fn chunks() -> Self {
        Self(Kind::Chunks(Chunks::default()))
    }

    pub(super) fn until_closed() -> Self {
        Self(Kind::UntilClosed)
    }

    /// All of it has come.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.0, Kind::Over)
    }

    /// Why there will be no more.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self.0 {
            Kind::Broken(fault) => Some(fault),
            _ => None,
        }
    }

    /// Bytes of data that are to come, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self.0 {
            Kind::Length(left) => Some(left),
            Kind::Over => Some(0),
            _ => None,
        }
    }

    /// The connection has ended.
    pub(super) fn close(&mut self) {
        self.0 = match self.0 {
            Kind::UntilClosed | Kind::Over => Kind::Over,
            Kind::Broken(fault) => Kind::Broken(fault),
            Kind::Length(_) | Kind::Chunks(_) => Kind::Broken(Fault::Short),
        };
    }

    /// Takes what has come, and moves the data in it to its beginning. Trailers go to `trailers`.
    pub(super) fn take(&mut self, bytes: &mut [u8], trailers: &mut Option<HeaderMap>) -> Taken {
        match &mut self.0 {
            Kind::Over | Kind::Broken(_) => Taken { data: 0, used: 0 },
            Kind::UntilClosed => Taken { data: bytes.len(), used: bytes.len() },
            Kind::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                if *left == 0 {
                    self.0 = Kind::Over;
                }
                Taken { data: taken, used: taken }
            }
            Kind::Chunks(chunks) => {
                let (taken, ended) = chunks.take(bytes);
                match ended {
                    None => {}
                    Some(Err(fault)) => self.0 = Kind::Broken(fault),
                    Some(Ok(())) => match headers(&chunks.trailers, chunks.lines) {
                        Ok(found) => {
                            *trailers = found;
                            self.0 = Kind::Over;
                        }
                        Err(fault) => self.0 = Kind::Broken(fault),
                    },
                }
                taken
            }
        }
    }
}

impl Chunks {
    /// Takes bytes until the body ends, if it does.
    fn take(&mut self, bytes: &mut [u8]) -> (Taken, Option<Result<(), Fault>>) {
        let (mut data, mut used) = (0, 0);
        while used < bytes.len() {
            if self.place == Place::Data {
                let rest = bytes.len() - used;
                let more = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                bytes.copy_within(used..used + more, data);
                (data, used, self.left) = (data + more, used + more, self.left - more as u64);
                if self.left == 0 {
                    self.place = Place::DataCr;
                }
                continue;
            }
            let byte = bytes[used];
            used += 1;
            match self.step(byte) {
                Ok(Some(place)) => self.place = place,
                Ok(None) => return (Taken { data, used }, Some(Ok(()))),
                Err(fault) => return (Taken { data, used }, Some(Err(fault))),
            }
        }
        (Taken { data, used }, None)
    }

    /// One byte that is no data. Nothing comes behind the last.
    fn step(&mut self, byte: u8) -> Result<Option<Place>, Fault> {
        Ok(Some(match (self.place, byte) {
            (Place::Start | Place::Size, byte) if byte.is_ascii_hexdigit() => {
                let before = if self.place == Place::Start { 0 } else { self.left };
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.left = before.checked_mul(16).ok_or(Fault::Size)? + digit;
                Place::Size
            }
            (Place::Size | Place::Space, b'\t' | b' ') => Place::Space,
            (Place::Size | Place::Space, b';') => Place::Extension,
            (Place::Size | Place::Space | Place::Extension, b'\r') => Place::SizeLf,
            (Place::Start | Place::Size | Place::Space, _) => return Err(Fault::Size),
            (Place::Extension, b'\n') => return Err(Fault::Extensions),
            (Place::Extension, _) => {
                self.extensions += 1;
                if self.extensions >= EXTENSIONS {
                    return Err(Fault::Extensions);
                }
                Place::Extension
            }
            (Place::SizeLf, b'\n') if self.left == 0 => Place::LineStart,
            (Place::SizeLf, b'\n') => Place::Data,
            (Place::SizeLf, _) => return Err(Fault::Size),
            (Place::DataCr, b'\r') => Place::DataLf,
            (Place::DataLf, b'\n') => Place::Start,
            (Place::Data | Place::DataCr | Place::DataLf, _) => return Err(Fault::End),
            (Place::LineStart, b'\r') => Place::EndLf,
            (Place::LineStart | Place::Trailer, byte) => {
                self.keep(byte)?;
                if byte == b'\r' { Place::TrailerLf } else { Place::Trailer }
            }
            (Place::TrailerLf, b'\n') => {
                if self.lines == MOST_TRAILERS {
                    return Err(Fault::Trailers);
                }
                self.lines += 1;
                self.keep(byte)?;
                Place::LineStart
            }
            (Place::EndLf, b'\n') => return Ok(None),
            (Place::TrailerLf | Place::EndLf, _) => return Err(Fault::Trailers),
        }))
    }

    fn keep(&mut self, byte: u8) -> Result<(), Fault> {
        self.trailers.push(byte);
        // hyper counts the empty line behind them as well.
        if self.trailers.len() + 2 >= TRAILERS { Err(Fault::Trailers) } else { Ok(()) }
    }
}

/// The trailers that these lines are, if there are any.
fn headers(lines: &[u8], count: usize) -> Result<Option<HeaderMap>, Fault> {
    if lines.is_empty() {
        return Ok(None);
    }
    let whole = [lines, b"\r\n"].concat();
    let mut found = vec![httparse::EMPTY_HEADER; count];
    let Ok(httparse::Status::Complete((_, found))) = httparse::parse_headers(&whole, &mut found)
    else {
        return Err(Fault::Trailers);
    };
    let mut headers = HeaderMap::with_capacity(found.len());
    for header in found {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Fault::Trailers)?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| Fault::Trailers)?;
        headers.append(name, value);
    }
    Ok(Some(headers))
}

#[cfg(test)]
mod tests;

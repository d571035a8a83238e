//! Frames cut anywhere, and what hyper makes of the same bytes.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper::{Request, Version};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// What came of a body: its data, its trailers, and whether it ended well.
type Outcome = (Vec<u8>, Option<HeaderMap>, bool);

/// Reads a body that comes in these pieces, and then the connection ends. The bytes behind the body are the last.
fn read<'a>(mut frames: Frames, pieces: impl Iterator<Item = &'a [u8]>) -> (Outcome, usize) {
    let (mut data, mut trailers, mut surplus) = (Vec::new(), None, 0);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let taken = frames.take(&mut piece, &mut trailers);
        assert!(taken.data <= taken.used && taken.used <= piece.len());
        data.extend_from_slice(&piece[..taken.data]);
        surplus += piece.len() - taken.used;
    }
    frames.close();
    assert!(frames.is_over() != frames.fault().is_some(), "one or the other: {frames:?}");
    ((data, trailers, frames.is_over()), surplus)
}

fn chunked(body: &str) -> (Outcome, usize) {
    read(Frames::chunks(), std::iter::once(body.as_bytes()))
}

#[test]
fn chunks_are_joined() {
    let check = |body: &str, data: &str, surplus: usize| {
        let ((found, trailers, ended), left) = chunked(body);
        assert_eq!((String::from_utf8_lossy(&found), ended), (data.into(), true), "{body:?}");
        assert_eq!((trailers, left), (None, surplus), "{body:?}");
    };
    check("0\r\n\r\n", "", 0);
    check("3\r\nabc\r\n0\r\n\r\n", "abc", 0);
    check("3\r\nabc\r\n2 ;x=y\r\nde\r\n000\r\n\r\nHTTP/1.1", "abcde", 8);
    check("0000000000000000000000000a;\r\n0123456789\r\n0;\r\n\r\n", "0123456789", 0);
    check("A\r\n0123456789\r\n0\t\r\n\r\n", "0123456789", 0);
}

#[test]
fn malformed_chunks_break_off_behind_what_was_well() {
    let check = |body: &str, data: &str, fault: Fault| {
        let (mut frames, mut bytes) = (Frames::chunks(), body.as_bytes().to_vec());
        let taken = frames.take(&mut bytes, &mut None);
        frames.close();
        assert_eq!(String::from_utf8_lossy(&bytes[..taken.data]), data, "{body:?}");
        assert_eq!(frames.fault(), Some(fault), "{body:?}");
    };
    check("", "", Fault::Short);
    check("3\r\nab", "ab", Fault::Short);
    check("3\r\nabc\r\n", "abc", Fault::Short);
    check("3\r\nabc\r\n0\r\n", "abc", Fault::Short);
    check("3\r\nabc\r\nzzz\r\n", "abc", Fault::Size);
    check("3\r\nabc\r\n\r\n", "abc", Fault::Size);
    check("3\nabc", "", Fault::Size);
    check("-3\r\nabc", "", Fault::Size);
    check("3 3\r\nabc", "", Fault::Size);
    check("10000000000000000\r\n", "", Fault::Size);
    check("3\r\nabcd\r\n", "abc", Fault::End);
    check("3\r\nabc\n0\r\n", "abc", Fault::End);
    check("3;x\n\r\nabc", "", Fault::Extensions);
    check("0\r\na: b\n\r\n", "", Fault::Short);
    check("0\r\na b: c\r\n\r\n", "", Fault::Trailers);
    check("0\r\n\rx", "", Fault::Trailers);
    let long = "x".repeat(EXTENSIONS as usize);
    check(&format!("3;{long}\r\nabc"), "", Fault::Extensions);
    check(&format!("0\r\na: {long}\r\n\r\n"), "", Fault::Trailers);
    check(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(MOST_TRAILERS + 1)), "", Fault::Trailers);
}

#[test]
fn trailers_are_those_at_the_end() {
    let ((data, trailers, ended), _) = chunked("1\r\na\r\n0\r\nX-A: 1\r\nx-a:2 \r\n\r\n");
    let trailers = trailers.expect("some");
    let values: Vec<&HeaderValue> = trailers.get_all("x-a").iter().collect();
    assert_eq!((data.as_slice(), ended), (&b"a"[..], true));
    assert_eq!(values, ["1", "2"]);
}

#[test]
fn lengths_are_kept_to() {
    let pieces = || [&b"ab"[..], b"cd", b"ef"].into_iter();
    let check = |frames: Frames, data: &[u8], ended, surplus| {
        assert_eq!(read(frames, pieces()), ((data.to_vec(), None, ended), surplus));
    };
    check(Frames::length(0), b"", true, 6);
    check(Frames::length(3), b"abc", true, 3);
    check(Frames::length(6), b"abcdef", true, 0);
    check(Frames::length(7), b"abcdef", false, 0);
    check(Frames::until_closed(), b"abcdef", true, 0);
}

/// An engine that, once it is asked, says these bytes in pieces and hangs up.
struct Says<'a> {
    pieces: std::vec::IntoIter<&'a [u8]>,
    is_asked: bool,
}

impl AsyncRead for Says<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.is_asked {
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.next() {
            buffer.put_slice(piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Says<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.is_asked = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What hyper's client makes of a chunked body in these pieces.
fn by_hyper(pieces: &[&[u8]]) -> Outcome {
    let head: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let pieces: Vec<&[u8]> = std::iter::once(head).chain(pieces.iter().copied()).collect();
    let exchange = async {
        let io = TokioIo::new(Says { pieces: pieces.into_iter(), is_asked: false });
        let (mut sender, connection) = http1::handshake(io).await.expect("no I/O yet");
        let request = Request::new(http_body_util::Empty::<&[u8]>::new());
        let read = async {
            let response = sender.send_request(request).await.expect("a head");
            assert_eq!(response.version(), Version::HTTP_11);
            let (mut body, mut data, mut trailers) = (response.into_body(), Vec::new(), None);
            let mut ended = true;
            while let Some(frame) = body.frame().await {
                match frame.map(hyper::body::Frame::into_data) {
                    Ok(Ok(more)) => data.extend_from_slice(&more),
                    Ok(Err(last)) => trailers = last.into_trailers().ok(),
                    Err(_) => ended = false,
                }
            }
            (data, trailers, ended)
        };
        futures_util::future::join(read, async { drop(connection.await) }).await.0
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut context = Context::from_waker(Waker::noop());
    // Nothing waits for anything but other parts of the same.
    for _ in 0..10_000 {
        if let Poll::Ready(outcome) = exchange.as_mut().poll(&mut context) {
            return outcome;
        }
    }
    panic!("hyper comes to no end");
}

/// Bytes that are a chunked body, or nearly.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let chunk = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 1..40).prop_map(|data| {
            [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat()
        }),
        1 => "[0-9a-fA-F]{1,3}[ \t]{0,2}(;[a-z=]{0,8})?\r\n".prop_map(String::into_bytes),
        1 => "0\r\n([a-zA-Z-]{1,6}:[ a-z]{0,6}\r\n){0,3}\r\n".prop_map(String::into_bytes),
        1 => prop::collection::vec(prop::sample::select(&b"\r\n0a;: x"[..]), 1..6),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    let end = prop_oneof![
        3 => Just(b"0\r\n\r\n".to_vec()),
        1 => Just(b"0\r\na: b\r\n\r\n".to_vec()),
        1 => Just(Vec::new()),
    ];
    (prop::collection::vec(chunk, 0..6), end).prop_map(|(chunks, end)| {
        let mut body = chunks.concat();
        body.extend(end);
        body
    })
}

/// These bytes cut at these places.
fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    // An empty read is the end of a connection.
    at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).filter(|piece| !piece.is_empty()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// However the bytes are cut, and whatever they are, it is what hyper makes of them.
    #[test]
    fn any_bytes_are_what_they_are_for_hyper(
        body in nearly(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (whole, surplus) = read(Frames::chunks(), std::iter::once(&body[..]));
        let pieces = cut(&body, &cuts);
        prop_assert_eq!(read(Frames::chunks(), pieces.iter().copied()), (whole.clone(), surplus));
        prop_assert_eq!(by_hyper(&pieces), whole);
    }
}

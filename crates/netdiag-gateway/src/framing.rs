//! Whether a request of HTTP/1.1 gives its length in two ways.
//!
//! hyper takes such a request by its Transfer-Encoding, takes Content-Length away and closes the connection behind it, as RFC 9112
//! §6.3 allows; nothing can be hidden in it then, but nobody behind hyper can see what it was. Nobody sends such a request who
//! means well, so it is refused, and for that its head has to be looked at before hyper does.
//!
//! Only where the head certainly begins is known: requests with a coded body that are sent before the answer to the one before
//! are refused as well (RFC 9112 §9.3.2 wants nobody to do that with a POST).
//!
//! Invariant: [`Framing::Single`] is said of no head that has both headers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is known of the request that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// It has not been seen from its beginning, or is no HTTP/1.1.
    Unseen = 0,
    /// It gives its length in one way at most.
    Single = 1,
    /// It gives it in two.
    Double = 2,
    /// Its head is longer than any may be: hyper takes what one read brings, and its own limit is only for what does not end in it.
    Long = 3,
}

/// What the reader of a connection and those who answer on it know of each other.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Of the request that is being read.
    framing: AtomicU8,
    /// Requests that are being answered.
    busy: AtomicUsize,
}

impl Watch {
    /// A request is being answered from now on.
    pub(crate) fn begin(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// One is not any more.
    pub(crate) fn end(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// What is known of the request that has just been read. Once.
    pub(crate) fn take(&self) -> Framing {
        match self.framing.swap(Framing::Unseen as u8, Ordering::Relaxed) {
            1 => Framing::Single,
            2 => Framing::Double,
            3 => Framing::Long,
            _ => Framing::Unseen,
        }
    }

    fn tell(&self, framing: Framing) {
        self.framing.store(framing as u8, Ordering::Relaxed);
    }
}

/// A connection whose heads are looked at while they are read.
pub(crate) struct Watched<I> {
    io: I,
    watch: Arc<Watch>,
    scan: Scan,
    longest: usize,
}

/// What has been seen.
#[derive(Debug, PartialEq, Eq)]
enum Scan {
    /// A head, so far.
    Head(Vec<u8>),
    /// A body of which so many bytes are to come, and nothing else.
    Body(u64),
    /// Something that is not known.
    Lost,
}

impl<I> Watched<I> {
    /// Heads of more than `longest` bytes are refused by whoever reads them.
    pub(crate) fn new(io: I, watch: Arc<Watch>, longest: usize) -> Self {
        Self { io, watch, scan: Scan::Head(Vec::new()), longest }
    }

    fn see(&mut self, bytes: &[u8]) {
        if self.scan == Scan::Body(0) && !self.watch.is_busy() {
            self.scan = Scan::Head(Vec::new());
        }
        match &mut self.scan {
            Scan::Lost => {}
            Scan::Body(left) => {
                let more = bytes.len() as u64;
                // What is more than the body has come too early to be told apart.
                self.scan = left.checked_sub(more).map_or(Scan::Lost, Scan::Body);
            }
            Scan::Head(head) => {
                let before = head.len();
                head.extend_from_slice(bytes);
                if head.starts_with(b"PRI * HTTP/2") {
                    self.scan = Scan::Lost;
                } else if let Some(end) = end_of_head(head, before) {
                    let (framing, length) = match end <= self.longest {
                        true => read(&head[..end]),
                        false => (Framing::Long, None),
                    };
                    let surplus = (head.len() - end) as u64;
                    self.watch.tell(framing);
                    self.scan = match length {
                        Some(length) if surplus <= length => Scan::Body(length - surplus),
                        _ => Scan::Lost,
                    };
                } else if head.len() > self.longest {
                    self.watch.tell(Framing::Long);
                    self.scan = Scan::Lost;
                }
            }
        }
    }
}

/// Where the head ends: behind the first empty line, whether lines end with CR LF or with LF. Nothing ends before `from`.
fn end_of_head(head: &[u8], from: usize) -> Option<usize> {
    // Empty lines before a request are passed over (RFC 9112 §2.2).
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let from = from.saturating_sub(3).max(start);
    let mut ends = memchr::memchr_iter(b'\n', &head[from..]).map(|at| from + at + 1);
    ends.find(|&end| {
        let line = &head[start..end - 1];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.last() == Some(&b'\n')
    })
}

/// How a head gives its length, and the length where it can be known.
fn read(head: &[u8]) -> (Framing, Option<u64>) {
    let (mut encoded, mut length) = (false, None);
    for line in head.split(|&byte| byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let name = line[..colon].trim_ascii();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            encoded = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(line[colon + 1..].trim_ascii()).ok();
            length = Some(value.and_then(|value| value.parse().ok()));
        }
    }
    match (encoded, length) {
        (true, Some(_)) => (Framing::Double, None),
        (true, None) => (Framing::Single, None),
        (false, None) => (Framing::Single, Some(0)),
        (false, Some(length)) => (Framing::Single, length),
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        if self.scan != Scan::Lost && !read.is_empty() {
            self.see(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_end_with_an_empty_line_however_they_come() {
        let check = |head: &str, expected: Option<usize>| {
            let head = head.as_bytes();
            assert_eq!(end_of_head(head, 0), expected, "{head:?}");
            // Byte by byte.
            let found = (0..head.len()).find_map(|at| end_of_head(&head[..=at], at));
            assert_eq!(found, expected, "{head:?}");
        };
        check("GET / HTTP/1.1\r\nhost: x\r\n\r\nrest", Some(27));
        check("GET / HTTP/1.1\nhost: x\n\nrest", Some(24));
        check("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(22));
        check("GET / HTTP/1.1\r\n\n", Some(17));
        check("GET / HTTP/1.1\r\nhost: x\r\n", None);
        check("\r\n\r\n", None);
    }

    #[test]
    fn two_lengths_are_told_from_one() {
        let check = |head: &str, expected| {
            let head = format!("POST / HTTP/1.1\r\n{head}\r\n");
            assert_eq!(read(head.as_bytes()), expected, "{head}");
        };
        check("host: x\r\n", (Framing::Single, Some(0)));
        check("Content-Length: 12\r\n", (Framing::Single, Some(12)));
        check("content-length: x\r\n", (Framing::Single, None));
        check("Transfer-Encoding: chunked\r\n", (Framing::Single, None));
        check("transfer-encoding: chunked\ncontent-length: 1\n", (Framing::Double, None));
        check("CONTENT-LENGTH: 1\r\nx: y\r\nTransfer-encoding : x\r\n", (Framing::Double, None));
    }
}

//! What a client makes of the bytes that come: the head, the chunks, and the two times in each event.

/// Before the times.
pub(crate) const MARK: &str = r#""content":""#;

/// The digits of two times.
const TIMES: usize = 32;

/// An answer that is being read.
#[derive(Default)]
pub(crate) struct Reading {
    bytes: Vec<u8>,
    text: Vec<u8>,
    headed: bool,
    /// The answer comes in chunks.
    chunked: bool,
    /// Bytes of the chunk that are still to come, with its end.
    left: usize,
}

impl Reading {
    /// Takes bytes and gives the times of each whole event: when it was due, and when it was written.
    pub(crate) fn take(&mut self, bytes: &[u8], mut event: impl FnMut(u64, u64)) {
        self.bytes.extend_from_slice(bytes);
        if !self.headed {
            let Some(end) = end_of_head(&self.bytes) else { return };
            let head = String::from_utf8_lossy(&self.bytes[..end]).to_ascii_lowercase();
            self.chunked = head.contains("transfer-encoding: chunked");
            self.bytes.drain(..end);
            self.headed = true;
        }
        self.unchunk();
        let mut at = 0;
        while let Some(found) = memchr::memmem::find(&self.text[at..], MARK.as_bytes()) {
            let from = at + found + MARK.len();
            let Some(digits) = self.text.get(from..from + TIMES) else { break };
            let time = |digits: &[u8]| {
                u64::from_str_radix(std::str::from_utf8(digits).unwrap_or_default(), 16).ok()
            };
            if let (Some(due), Some(written)) = (time(&digits[..16]), time(&digits[16..])) {
                event(due, written);
            }
            at = from + TIMES;
        }
        // The beginning of a mark may be at the end.
        let keep = self.text.len().saturating_sub(MARK.len() + TIMES).max(at);
        self.text.drain(..keep);
    }

    fn unchunk(&mut self) {
        if !self.chunked {
            self.text.append(&mut self.bytes);
            return;
        }
        let mut at = 0;
        while at < self.bytes.len() {
            if self.left > 0 {
                let taken = self.left.min(self.bytes.len() - at);
                // The two bytes behind a chunk are not its text.
                let of_text = taken.min(self.left.saturating_sub(2));
                self.text.extend_from_slice(&self.bytes[at..at + of_text]);
                self.left -= taken;
                at += taken;
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', &self.bytes[at..]) else { break };
            let size = std::str::from_utf8(&self.bytes[at..at + end]).unwrap_or_default();
            self.left = usize::from_str_radix(size.trim(), 16).map_or(0, |size| size + 2);
            at += end + 1;
        }
        self.bytes.drain(..at);
    }
}

/// The length of a request with its body: `None` while the head is not whole, `Some(None)` for one that comes in chunks.
pub(crate) fn length_of_body(request: &[u8]) -> Option<Option<usize>> {
    let end = end_of_head(request)?;
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    Some(length.and_then(|length| length.trim().parse::<usize>().ok()).map(|length| end + length))
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

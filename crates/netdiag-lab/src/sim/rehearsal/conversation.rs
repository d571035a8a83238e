//! A question and its answer: connecting, asking, reading, leaving, and what of it is on the link.
//!
//! Invariant: what is written down as delivered was delivered before the client went away.

use std::time::Duration;

use super::super::Micros;
use super::super::receiver::Receiver;
use super::super::tcp::{HEADERS, Network, Tcp};
use super::Run;
use super::pacing::Memory;
use super::way::Way;
use crate::engine::RequestId;
use crate::metrics::{Ending, Reader, StreamRecord, TokenCounts};

/// Bytes of a token's event with its chunk header, as the engine writes it.
pub(super) const TOKEN_BYTES: u64 = super::super::stream::TOKEN_BYTES;

/// Bytes before the first token's (the response's head and the event with the role), and as many after the last one's.
pub(super) const HEAD_BYTES: u64 = 480;

/// Bytes of packets: one that opens a connection, an acknowledgement, the question.
const SYN: usize = 60;
const ACK: usize = HEADERS as usize;
const QUESTION: usize = HEADERS as usize + 360;

/// How soon a connection is tried again: after a second four times (`tcp_syn_linear_timeouts`), then twice as late each time.
const CONNECT_AGAIN: Micros = 1_000_000;
const LINEAR: u32 = 4;

/// What a client waits at least for an acknowledgement, beyond a round trip (`TCP_RTO_MIN`).
const AGAIN: Micros = 200_000;

/// Times after which a client tries nothing more; later than any run.
const MOST_TRIES: u32 = 12;

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub(super) at: Micros,
    pub(super) entered: u64,
    /// The connection; where somebody asks, the client.
    pub(super) stream: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A client asks.
    Ask,
    /// It tries to connect, for the n-th time.
    Connect(u32),
    /// The server hears of it.
    Connecting,
    /// The client hears of the server.
    Connected,
    /// It sends the question, for the n-th time.
    Question(u32),
    /// The server has it.
    Asked,
    /// These bytes reach the client, sent at that time.
    Data(u64, u64, Micros),
    /// The server hears that everything before this byte is there, and these spans, and when the segment was sent that this answers.
    Ack(u64, Vec<(u64, u64)>, Micros),
    /// The server's timer.
    Timer,
    /// The client looks whether it has waited for too long.
    Patience,
    /// It has closed the connection and says so, for the n-th time.
    Close(u32),
    /// The server hears that.
    Closed,
}

/// A client's connection for one answer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) submitted: Micros,
    pub(super) client: usize,
    pub(super) link: usize,
    pub(super) output: u32,
    patience: Option<Micros>,
    /// When the server heard of it first, and the client of the server.
    heard: Option<Micros>,
    opened: Option<Micros>,
    /// From the question on.
    pub(super) tcp: Option<Tcp>,
    pub(super) request: Option<RequestId>,
    receiver: Receiver,
    deliveries: Vec<Micros>,
    /// The last sign of life that its reader saw.
    seen: Micros,
    left: Option<Micros>,
    is_complete: bool,
    pub(super) is_ended: bool,
    pub(super) generated: u32,
    pub(super) memory: Option<Memory>,
}

impl Connection {
    pub(super) fn new(
        submitted: Micros,
        client: usize,
        link: usize,
        output: u32,
        patience: Option<Micros>,
    ) -> Self {
        Self {
            submitted,
            client,
            link,
            output,
            patience,
            heard: None,
            opened: None,
            tcp: None,
            request: None,
            receiver: Receiver::default(),
            deliveries: Vec::new(),
            seen: submitted,
            left: None,
            is_complete: false,
            is_ended: false,
            generated: 0,
            memory: None,
        }
    }

    /// The server has a socket for it.
    pub(super) fn is_open(&self) -> bool {
        let is_done = self.tcp.as_ref().is_some_and(|tcp| tcp.acked() >= self.bytes());
        self.tcp.is_some() && !self.is_ended && !is_done
    }

    fn bytes(&self) -> u64 {
        2 * HEAD_BYTES + u64::from(self.output) * TOKEN_BYTES
    }

    /// Tokens within so many bytes.
    fn tokens_in(&self, bytes: u64) -> u64 {
        (bytes.saturating_sub(HEAD_BYTES) / TOKEN_BYTES).min(self.output.into())
    }

    pub(super) fn record(self, end: Micros, reader: Reader) -> StreamRecord {
        let generated = u64::from(self.generated);
        let acked = self.tcp.as_ref().map_or(0, Tcp::acked);
        let acked = self.tokens_in(acked).min(generated);
        let rest = generated - acked;
        let (in_flight, wasted) = if self.is_ended { (0, rest) } else { (rest, 0) };
        let micros = Duration::from_micros;
        StreamRecord {
            submitted: micros(self.submitted),
            deliveries: self.deliveries.into_iter().map(micros).collect(),
            ending: match self.left {
                _ if self.is_complete => Ending::Complete,
                Some(at) => Ending::Left(micros(at)),
                None => Ending::Cut(micros(end)),
            },
            output_tokens: self.output.into(),
            reader,
            counts: TokenCounts { generated, acked, in_flight, wasted },
        }
    }
}

/// The server's side of a link, while it sends.
struct ToClient<'w> {
    way: &'w mut Way,
    /// Of segments that arrive: when, and what does.
    arrivals: Vec<(Micros, What)>,
    wake: Vec<Micros>,
}

impl Network for ToClient<'_> {
    fn send(&mut self, now: Micros, start: u64, end: u64) {
        let arrival = self.way.send(now, (end - start + HEADERS) as usize);
        self.arrivals.extend(arrival.map(|at| (at, What::Data(start, end, now))));
    }

    fn wake(&mut self, at: Micros) {
        self.wake.push(at);
    }
}

impl Run<'_> {
    pub(super) fn happen(&mut self, event: Event) {
        let Event { at: now, stream, what, .. } = event;
        match what {
            What::Ask => self.ask(now, stream),
            What::Connect(tries) => self.connect(now, stream, tries),
            What::Connecting => {
                self.connections[stream].heard.get_or_insert(now);
                self.send_down(now, stream, SYN, What::Connected);
            }
            What::Connected => {
                let connection = &mut self.connections[stream];
                if connection.opened.is_none() && connection.left.is_none() {
                    connection.opened = Some(now);
                    self.question(now, stream, 0);
                }
            }
            What::Question(tries) => self.question(now, stream, tries),
            What::Asked => self.asked(now, stream),
            What::Data(start, end, sent) => self.data(now, stream, start, end, sent),
            What::Ack(ack, blocks, sent) => self.acknowledged(now, stream, ack, &blocks, sent),
            What::Timer => self.with_tcp(stream, |tcp, network| tcp.on_timer(now, network)),
            What::Patience => self.look(now, stream),
            What::Close(tries) => self.close(now, stream, tries),
            What::Closed => self.abort(stream),
        }
    }

    /// The server's program writes.
    pub(super) fn write(&mut self, now: Micros, stream: usize, bytes: u64) {
        self.with_tcp(stream, |tcp, network| tcp.write(now, bytes, network));
    }

    fn connect(&mut self, now: Micros, stream: usize, tries: u32) {
        let connection = &self.connections[stream];
        if connection.opened.is_some() || connection.left.is_some() || tries > MOST_TRIES {
            return;
        }
        self.send_up(now, stream, SYN, What::Connecting);
        let wait = CONNECT_AGAIN << tries.saturating_sub(LINEAR);
        self.enter(now + wait, stream, What::Connect(tries + 1));
    }

    fn question(&mut self, now: Micros, stream: usize, tries: u32) {
        let connection = &self.connections[stream];
        let is_answered = connection.tcp.is_some() || connection.receiver.next() > 0;
        if is_answered || connection.left.is_some() || tries > MOST_TRIES {
            return;
        }
        let round_trip = connection.opened.map_or(0, |opened| opened - connection.submitted);
        self.send_up(now, stream, QUESTION, What::Asked);
        let wait = (round_trip + AGAIN) << tries;
        self.enter(now + wait, stream, What::Question(tries + 1));
    }

    fn asked(&mut self, now: Micros, stream: usize) {
        let connection = &mut self.connections[stream];
        if connection.tcp.is_some() || connection.is_ended {
            return;
        }
        let round_trip = connection.heard.map_or(0, |heard| now - heard);
        connection.tcp = Some(Tcp::new(now, round_trip).like_linux(self.of.control));
        self.submit(now, stream);
    }

    fn data(&mut self, now: Micros, stream: usize, start: u64, end: u64, sent: Micros) {
        let connection = &mut self.connections[stream];
        if connection.left.is_some() {
            // A kernel without the socket resets the connection.
            self.send_up(now, stream, ACK, What::Closed);
            return;
        }
        connection.receiver.receive(start, end);
        let next = connection.receiver.next();
        let tokens = connection.tokens_in(next) as usize;
        if tokens > connection.deliveries.len() {
            connection.deliveries.resize(tokens, now);
            connection.seen = now;
        }
        let is_last = next >= connection.bytes() && !connection.is_complete;
        connection.is_complete |= is_last;
        let (blocks, client) = (connection.receiver.blocks(), connection.client);
        self.send_up(now, stream, ACK, What::Ack(next, blocks, sent));
        if is_last {
            self.enter(now, client, What::Ask);
        }
    }

    fn acknowledged(
        &mut self,
        now: Micros,
        stream: usize,
        ack: u64,
        blocks: &[(u64, u64)],
        sent: Micros,
    ) {
        if self.connections[stream].is_ended {
            return;
        }
        self.with_tcp(stream, |tcp, network| {
            tcp.on_selective_ack(now, ack, blocks, sent, network);
        });
    }

    /// Whether the reader has waited for too long.
    fn look(&mut self, now: Micros, stream: usize) {
        let connection = &mut self.connections[stream];
        let Some(patience) = connection.patience else { return };
        if connection.is_complete || connection.left.is_some() {
            return;
        }
        let ends = connection.seen + patience;
        if ends > now {
            self.enter(ends, stream, What::Patience);
            return;
        }
        connection.left = Some(now);
        let client = connection.client;
        self.enter(now, client, What::Ask);
        if self.connections[stream].opened.is_some() {
            self.close(now, stream, 0);
        }
    }

    fn close(&mut self, now: Micros, stream: usize, tries: u32) {
        let connection = &self.connections[stream];
        if connection.is_ended || tries > MOST_TRIES {
            return;
        }
        let round_trip = connection.opened.map_or(0, |opened| opened - connection.submitted);
        self.send_up(now, stream, ACK, What::Closed);
        self.enter(now + ((round_trip + AGAIN) << tries), stream, What::Close(tries + 1));
    }

    fn send_up(&mut self, now: Micros, stream: usize, bytes: usize, what: What) {
        let [up, _] = &mut self.links[self.connections[stream].link];
        if let Some(at) = up.send(now, bytes) {
            self.enter(at, stream, what);
        }
    }

    fn send_down(&mut self, now: Micros, stream: usize, bytes: usize, what: What) {
        let [_, down] = &mut self.links[self.connections[stream].link];
        if let Some(at) = down.send(now, bytes) {
            self.enter(at, stream, what);
        }
    }

    fn with_tcp(&mut self, stream: usize, does: impl FnOnce(&mut Tcp, &mut ToClient<'_>)) {
        let connection = &mut self.connections[stream];
        let Some(tcp) = connection.tcp.as_mut().filter(|_| !connection.is_ended) else { return };
        let [_, way] = &mut self.links[connection.link];
        let mut network = ToClient { way, arrivals: Vec::new(), wake: Vec::new() };
        does(tcp, &mut network);
        let ToClient { arrivals, wake, .. } = network;
        for (at, what) in arrivals {
            self.enter(at, stream, what);
        }
        for at in wake {
            self.enter(at, stream, What::Timer);
        }
    }
}

//! An answer on its way to its client.
//!
//! Each token is an event and, while the socket takes it, a write of its own: the body gives one event and then pretends
//! to have nothing, upon which hyper writes out what it has. So a token is a packet, as with engines that flush, and the
//! bytes it costs mean something.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;

use super::Engine;
use super::account::{Account, Finish, Next, Place};
use super::connection::Connection;
use super::corpus::Answer;
use super::wire::{Usage, Wire};

/// The right to an answer. Dropped before its end, as when the client closes the connection, it aborts the request.
#[derive(Debug)]
pub(crate) struct Ticket {
    engine: Engine,
    account: Arc<Account>,
    /// `None` for a request that came over no socket, as in tests; then what is taken counts as acknowledged.
    connection: Option<Arc<Connection>>,
}

impl Ticket {
    pub(crate) fn new(
        engine: Engine,
        account: Arc<Account>,
        connection: Option<Arc<Connection>>,
    ) -> Self {
        Self { engine, account, connection }
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// All tokens, as soon as there will be no more; the event that carries them must be written next.
    pub(crate) async fn all(&self) -> (u64, Finish) {
        let (tokens, finish) = std::future::poll_fn(|context| self.account.poll_all(context)).await;
        self.carry(tokens);
        (tokens, finish)
    }

    /// The next event to be written carries so many of the tokens taken.
    fn carry(&self, tokens: u64) {
        match &self.connection {
            Some(connection) => connection.expect(Some((Arc::clone(&self.account), tokens))),
            None => self.account.shift(Place::Buffered, Place::Acked, tokens),
        }
    }

    /// So many of the next events to be written carry none.
    fn carry_nothing(&self, events: usize) {
        if let Some(connection) = &self.connection {
            (0..events).for_each(|_| connection.expect(None));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.engine.leave(&self.account);
    }
}

/// The events of an answer.
#[derive(Debug)]
pub(crate) struct Events {
    ticket: Ticket,
    wire: Wire,
    answer: Answer,
    /// Number of the next token.
    next: u32,
    ended: bool,
    /// The last poll gave an event, which is to be written out before there is another.
    gave: bool,
}

impl Events {
    pub(crate) fn new(ticket: Ticket, wire: Wire, answer: Answer) -> Self {
        Self { ticket, wire, answer, next: 0, ended: false, gave: false }
    }

    /// The next bytes of the body.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.gave) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = std::task::ready!(self.ticket.account.poll_next(context));
        self.gave = true;
        Poll::Ready(Some(match next {
            Next::Token => self.token(),
            Next::End(finish) => self.end(finish),
        }))
    }

    fn token(&mut self) -> Bytes {
        let event = self.wire.token(self.answer.piece(self.next));
        let begin = if self.next == 0 { self.wire.begin() } else { None };
        self.next += 1;
        let bytes = match begin {
            Some(begin) => {
                self.ticket.carry_nothing(1);
                [begin, event].concat().into()
            }
            None => event,
        };
        self.ticket.carry(1);
        bytes
    }

    fn end(&mut self, finish: Finish) -> Bytes {
        self.ended = true;
        let usage = Usage { prompt: self.ticket.account.prompt_tokens, completion: self.next };
        let events = self.wire.end(finish, usage);
        self.ticket.carry_nothing(events.count);
        events.bytes
    }
}

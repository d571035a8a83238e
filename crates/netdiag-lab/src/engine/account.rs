//! Where each token of a request is.
//!
//! A token is generated, waits until the connection takes it, goes through the connection's buffer into the kernel, and is
//! acknowledged by the client's kernel, or has been for nothing. Its text follows from its number, so what waits for a
//! socket that takes nothing is a count and not a buffer: the engine goes on generating, as engines do, and no memory
//! grows.
//!
//! Invariant: every token is in exactly one place, so the places add up to what was generated.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use serde::Serialize;

use super::asked::{Asked, Kind};
use super::connection::Connection;
use super::scheduler::RequestId;
use crate::metrics::TokenCounts;

/// Why an answer ended, in OpenAI's words; `abort` is vLLM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// It was complete, or came to a stop sequence.
    Stop,
    /// It was as long as asked.
    Length,
    /// It was aborted, or its client left.
    Abort,
}

/// Where a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Generated, and not yet taken by the connection.
    Waiting,
    /// In the connection's buffer.
    Buffered,
    /// Taken by our kernel.
    Kernel,
    /// Acknowledged by the client's kernel.
    Acked,
    /// Gone with its connection.
    Wasted,
}

const PLACES: usize = Place::Wasted as usize + 1;

/// What comes next for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A token.
    Token,
    /// The end.
    End(Finish),
}

/// One request's tokens.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: RequestId,
    /// The answer's id, which clients know it by.
    pub(crate) name: String,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) prompt_tokens: u32,
    pub(crate) output_tokens: u32,
    /// Why the answer ends, if nothing happens to it.
    pub(crate) natural_end: Finish,
    /// The connection that carries the answer, while there is one.
    connection: Option<Weak<Connection>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    generated: u64,
    places: [u64; PLACES],
    finish: Option<Finish>,
    waker: Option<Waker>,
}

impl RequestId {
    /// The name of its answer.
    fn name(self, prefix: &str) -> String {
        format!("{prefix}-{}", self.0)
    }

    /// The request whose answer may have this name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Some(Self(name.rsplit_once('-')?.1.parse().ok()?))
    }
}

impl Account {
    pub(crate) fn new(id: RequestId, asked: &Asked, connection: Option<&Arc<Connection>>) -> Self {
        let prefix = match asked.kind {
            Kind::Chat => "chatcmpl",
            Kind::Text => "cmpl",
        };
        Self {
            id,
            name: id.name(prefix),
            peer: connection.map(|connection| connection.peer()),
            prompt_tokens: asked.prompt_tokens,
            output_tokens: asked.answer.tokens().get(),
            natural_end: asked.finish,
            connection: connection.map(Arc::downgrade),
            state: Mutex::default(),
        }
    }

    /// A token was generated.
    pub(crate) fn generated(&self) {
        let mut state = self.lock();
        state.generated += 1;
        state.places[Place::Waiting as usize] += 1;
        state.wake();
    }

    /// No more will be generated.
    pub(crate) fn finish(&self, finish: Finish) {
        let mut state = self.lock();
        state.finish.get_or_insert(finish);
        state.wake();
    }

    /// Takes a token that waits, or the news that none will come, and is woken for either.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Next> {
        let mut state = self.lock();
        if state.places[Place::Waiting as usize] > 0 {
            state.shift(Place::Waiting, Place::Buffered, 1);
            return Poll::Ready(Next::Token);
        }
        if let Some(finish) = state.finish {
            return Poll::Ready(Next::End(finish));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes all the tokens at once, however many, when there will be no more.
    pub(crate) fn poll_all(&self, context: &mut Context<'_>) -> Poll<(u64, Finish)> {
        let mut state = self.lock();
        let Some(finish) = state.finish else {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let waiting = state.places[Place::Waiting as usize];
        state.shift(Place::Waiting, Place::Buffered, waiting);
        Poll::Ready((waiting, finish))
    }

    /// So many tokens have gone from one place to another.
    pub(crate) fn shift(&self, from: Place, to: Place, tokens: u64) {
        self.lock().shift(from, to, tokens);
    }

    /// Nobody takes tokens any more: those that wait are wasted.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        let waiting = state.places[Place::Waiting as usize];
        state.shift(Place::Waiting, Place::Wasted, waiting);
    }

    /// Why it ended, if it has.
    pub(crate) fn finished(&self) -> Option<Finish> {
        self.lock().finish
    }

    pub(crate) fn generated_so_far(&self) -> u64 {
        self.lock().generated
    }

    /// Whether every token has arrived or is lost, as far as is known without asking the kernel.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.lock();
        state.places[Place::Acked as usize] + state.places[Place::Wasted as usize]
            == state.generated
    }

    /// Where the tokens are now, as the kernel has it.
    pub(crate) fn counts(&self) -> TokenCounts {
        if let Some(connection) = self.connection.as_ref().and_then(Weak::upgrade) {
            connection.refresh();
        }
        let state = self.lock();
        let at = |place: Place| state.places[place as usize];
        TokenCounts {
            generated: state.generated,
            acked: at(Place::Acked),
            in_flight: at(Place::Waiting) + at(Place::Buffered) + at(Place::Kernel),
            wasted: at(Place::Wasted),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shift(&mut self, from: Place, to: Place, tokens: u64) {
        debug_assert!(self.places[from as usize] >= tokens, "{tokens} from {from:?} of {self:?}");
        let moved = tokens.min(self.places[from as usize]);
        self.places[from as usize] -= moved;
        self.places[to as usize] += moved;
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::asked::Offer;
    use super::*;

    fn account() -> Account {
        let tokens = NonZeroU32::MIN.saturating_add(8);
        let offer = Offer { model: "m", answer_tokens: tokens, longest: tokens };
        let asked = Asked::parse(Kind::Text, br#"{"model": "m", "prompt": "a"}"#, offer, 0);
        Account::new(RequestId(1), &asked.expect("valid"), None)
    }

    #[test]
    fn tokens_are_taken_one_by_one_and_then_the_end() {
        let account = account();
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(account.poll_next(&mut context), Poll::Pending);
        account.generated();
        account.generated();
        account.finish(Finish::Length);
        account.finish(Finish::Abort);
        let mut next = || account.poll_next(&mut context);
        assert_eq!(next(), Poll::Ready(Next::Token));
        assert_eq!(next(), Poll::Ready(Next::Token));
        assert_eq!(next(), Poll::Ready(Next::End(Finish::Length)));
    }

    #[test]
    fn every_token_is_in_one_place() {
        let account = account();
        (0..9).for_each(|_| account.generated());
        let mut context = Context::from_waker(Waker::noop());
        (0..6).for_each(|_| assert!(account.poll_next(&mut context).is_ready()));
        account.shift(Place::Buffered, Place::Kernel, 5);
        account.shift(Place::Kernel, Place::Acked, 3);
        account.shift(Place::Kernel, Place::Wasted, 1);
        let counts = TokenCounts { generated: 9, acked: 3, in_flight: 5, wasted: 1 };
        assert_eq!(account.counts(), counts);
        account.abandon();
        let counts = TokenCounts { generated: 9, acked: 3, in_flight: 2, wasted: 4 };
        assert_eq!(account.counts(), counts);
        assert!(counts.balances());
    }
}

//! The body of an answer: a text of ours, or what an engine sends.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::events::Events;
use crate::failure::Failure;
use crate::passing::Passing;

/// What hyper's server sends.
pub(crate) enum Outgoing {
    /// A text of ours.
    Full(Option<Bytes>),
    /// An engine's answer, as it comes.
    Passing(Box<Passing>),
    /// The same, event by event.
    Events(Box<Events>),
}

impl Outgoing {
    pub(crate) fn full(text: String) -> Self {
        Self::Full(Some(text.into()).filter(|text: &Bytes| !text.is_empty()))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Self::Full(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Passing(passing) => passing.poll_frame(context),
            Self::Events(events) => events.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(text) => text.is_none(),
            Self::Passing(passing) => passing.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Passing(passing) => passing.size_hint(),
            // An error event may come on top of what was announced.
            Self::Events(_) => SizeHint::default(),
        }
    }
}

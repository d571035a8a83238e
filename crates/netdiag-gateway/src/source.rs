//! Where an event stream comes from, and how it can be held: the seam for engines that can do more than be read.
//!
//! [`crate::passing::Course`] is one connection to any engine, which is held by not being read. An engine that can be told to pause,
//! or that is asked for its answer in segments, is another [`Source`] behind the same stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::Frame;

use crate::failure::Failure;

/// An engine's answer. Dropped, the engine is told at once that nobody wants more.
pub(crate) trait Source: Send + Sync {
    /// The next piece: data as it comes, and trailers at the end.
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>>;

    /// The client takes nothing, or takes something again. Called when that changes; meanwhile the source is hardly polled.
    fn hold(&mut self, _held: bool) {}

    /// Not all that came was handed on yet. Called before each poll.
    fn behind(&mut self, _behind: bool) {}
}

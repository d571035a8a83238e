//! Requests as others see them, and why they cannot have one otherwise.

use std::net::SocketAddr;

use serde::Serialize;

use super::account::Finish;
use crate::metrics::TokenCounts;

/// What a request is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// Waits to be admitted.
    Queued,
    /// Generates.
    Running,
    /// Paused until resumed.
    Paused,
    /// Held by its pace.
    Held,
    /// Generates no more.
    Finished,
}

/// One request at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestView {
    /// The answer's id.
    pub id: String,
    /// What it is doing.
    pub state: RequestState,
    /// Why it ended, if it has.
    pub finish_reason: Option<Finish>,
    /// The client's address; `None` if it came over no socket.
    pub peer: Option<SocketAddr>,
    /// Length of the prompt, tokens.
    pub prompt_tokens: u32,
    /// Length of the whole answer, tokens.
    pub output_tokens: u32,
    /// Where the tokens are.
    #[serde(flatten)]
    pub tokens: TokenCounts,
}

/// Why a request cannot be controlled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such request, or it finished long ago.
    #[error("request `{0}` is not known: give the `id` of an answer, or its x-request-id header")]
    Unknown(String),
    /// It generates no more.
    #[error("request `{0}` has finished")]
    Finished(String),
}

/// What was aborted since the engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Aborted {
    /// Requests that did not come to their end, mostly because their client left.
    pub requests: u64,
    /// Tokens that had been generated for them.
    pub tokens: u64,
}

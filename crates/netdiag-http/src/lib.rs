//! What the project's HTTP servers and clients share: who may ask, what a client may send or hold, as whom it is shown, how a refusal
//! looks; a connection to a server, whom to trust in TLS, and the lines of what a server sends.
//!
//! [`serve`] runs any router on a listener with limits on everything a client can send or hold. A [`Gate`] stands before a router's routes:
//! it refuses bodies that nobody reads, names that are not this host's, and requests without the token. [`Visitors`] are told apart by
//! their addresses, and one who asks too often is refused. Whom a server is open to is an [`Exposure`], which cannot be open to the network
//! by accident.
//!
//! Invariant: a token is compared in constant time and never shown; every refusal has the one shape of [`Problem`].

#![forbid(unsafe_code)]

mod auth;
mod client;
mod gate;
mod lines;
mod problem;
mod pseudonym;
mod rate;
mod server;
mod tls;
mod visitors;

pub use auth::{Exposure, ExposureError, Token};
pub use client::{HttpConnection, HttpError};
pub use gate::Gate;
pub use lines::{LineTooLong, Lines};
pub use problem::Problem;
pub use pseudonym::{Pseudonyms, WeakSecret};
pub use rate::TooOften;
pub use server::{Figure, GivenUp, Limits, Place, WhenBusy, accept, serve};
pub use tls::{TlsError, authorities, certificate, system_roots, tls_client};
pub use visitors::{Visitor, Visitors};

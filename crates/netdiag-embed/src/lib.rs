//! The pacer with a clock and sockets: for streaming servers that pace their own connections.
//!
//! A server asks before it generates ([`StreamPacer::admitted`], or [`StreamPacer::admitted_blocking`] on a thread), and says what it
//! handed on ([`StreamPacer::on_sent`]). Everything else is read from the kernel: a [`StreamPacer`] keeps a duplicate of its
//! connection's descriptor, so that the kernel can be asked while an HTTP library owns the socket.
//!
//! ```no_run
//! use std::io::Write;
//! use std::net::TcpListener;
//!
//! use netdiag_embed::{Pacing, Settings};
//! use netdiag_pacer::TpsRange;
//! use netdiag_telemetry::Tps;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tps = Tps::try_new;
//! // Rates of a stream, how fast people read, and what the engine generates with all seats taken.
//! let settings = Settings::new(TpsRange::try_new(tps(5.0)?, tps(80.0)?)?, tps(16.0)?);
//! let pacing = Pacing::try_new(Settings { capacity: Some(tps(1000.0)?), ..settings })?;
//! for socket in TcpListener::bind("127.0.0.1:8000")?.incoming() {
//!     let (mut socket, pacing) = (socket?, pacing.clone());
//!     std::thread::spawn(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!         let stream = pacing.stream(&socket)?;
//!         for token in ["Once ", "upon ", "a ", "time "] {
//!             stream.admitted_blocking(1)?; // generate now, and not before
//!             socket.write_all(token.as_bytes())?;
//!             stream.on_sent(1, token.len() as u64);
//!         }
//!         println!("{:?}", stream.report());
//!         Ok(())
//!     });
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/embedded.rs` is the same in an axum handler.
//!
//! # Who ticks
//!
//! Ten times a second all connections are looked at, and the engine is shared anew. Whoever asks next after it is due does it, so that
//! neither a runtime nor a thread is needed: while nobody asks, nothing is to be decided. It costs a few microseconds for each
//! connection, of one request's time. With thousands of them give it a place of its own: [`Pacing::run`] as a task or
//! [`Pacing::run_blocking`] on a thread; nobody else finds it due then.
//!
//! A stream that is held is looked at more often, by whoever waits for it: 20 ms after an ACK has come it goes on.
//!
//! # What is counted
//!
//! `on_sent` takes the bytes of text as they are handed to the HTTP library: the event with its `data: `, without chunk frames and
//! TLS. What the kernel has seen for each of those bytes is measured from the first observation with text in it, so headers are not in
//! it and frames, TLS and compression are; [`netdiag_pacer::Report::bytes_per_token`] is that of the wire. Bytes that the library holds
//! because the kernel takes no more count as under way.
//!
//! One connection carries one stream at a time. Streams that HTTP/2 mixes into one connection wait for one another in ways that no
//! kernel sees: ask for HTTP/1.1, or pace the connection as a whole.
//!
//! # Whose time it was
//!
//! From the first question until the answer is yes a server waits for the pacer (or for the path or the reader, where they are why);
//! between a yes and the next question it waits for its engine. So ask when a token could be generated, not before.
//!
//! # Closing
//!
//! TCP ends a connection when its last descriptor is closed, so drop a [`StreamPacer`] with its response. (Libraries that shut
//! a connection down, as hyper does after the last response, end it at once all the same.)
//!
//! Invariants: what is admitted keeps within the pacer's credit and rate; grants add up to the capacity at most; no lock is held
//! across a wait; a socket that cannot be read any more ends its stream's waits, and no other's.

#![forbid(unsafe_code)]

mod pacing;
mod patience;
mod stream;

pub use pacing::{InvalidSettings, Pacing, Settings};
pub use stream::{Gone, StreamPacer};

// What callers need to name.
pub use netdiag_pacer::{Admission, Report};

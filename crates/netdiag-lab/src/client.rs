//! Clients of a streaming server: so many at once, each token's arrival noted, some of them impatient.
//!
//! A client has one stream after the other on a connection of its own, as a person asks the next question when the answer
//! is there. What it notes is what the application sees, so a token counts when it is read from the socket.
//!
//! Sockets come from the caller, who may open each client's in another network namespace; everything else happens here.

mod events;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::{Ending, Reader, StreamRecord, TokenCounts};
use stream::{Open, Question};

/// Rest of a client whose stream failed, so that a server that refuses is not asked in a circle.
const REST: Duration = Duration::from_secs(1);

/// What is asked of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The server.
    pub target: SocketAddr,
    /// Streams at once.
    pub streams: usize,
    /// Time over which the first ones start, evenly.
    pub ramp: Duration,
    /// When to stop, counted from the start.
    pub duration: Duration,
    /// The model to ask for.
    pub model: String,
    /// What is asked.
    pub prompt: String,
    /// Lengths of answers, tokens; each as likely as the others.
    pub output_tokens: RangeInclusive<u32>,
    /// Who reads.
    pub reader: Reader,
    /// Share of the streams whose client leaves when it has waited for a token for `patience`.
    pub leavers: f64,
    /// See `leavers`.
    pub patience: Duration,
    /// What is drawn follows from it.
    pub seed: u64,
}

/// A load that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidLoad {
    /// Nobody asks.
    #[error("streams is 0: at least one is needed")]
    NoStreams,
    /// No answer has such a length.
    #[error("output_tokens {0:?} is not a range of lengths from 1 on")]
    Lengths(RangeInclusive<u32>),
    /// Not a share.
    #[error("leavers {0} is not between 0 and 1")]
    Leavers(f64),
}

/// One stream as its client saw it. Times count from the start of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientStream {
    /// The server's name for it (`x-request-id`); `None` if it never answered.
    pub request_id: Option<String>,
    /// The client's end of the connection; `None` if there never was one.
    pub address: Option<SocketAddr>,
    /// When the client asked, connecting included.
    pub submitted: Duration,
    /// When each token came.
    pub deliveries: Vec<Duration>,
    /// How it ended.
    pub ending: Ending,
    /// Tokens asked for.
    pub output_tokens: u32,
    /// Whether this client would leave.
    pub leaver: bool,
    /// Why it failed, if it has.
    pub failure: Option<String>,
}

impl ClientStream {
    /// The stream as the metrics take it, with what the server counted.
    pub fn record(&self, reader: Reader, counts: TokenCounts) -> StreamRecord {
        StreamRecord {
            submitted: self.submitted,
            deliveries: self.deliveries.clone(),
            ending: self.ending,
            output_tokens: self.output_tokens.into(),
            reader,
            counts,
        }
    }
}

/// What the clients saw. The streams that were open at the end stay open until this is dropped, so that the server's
/// counts can be read as they are then.
#[derive(Debug)]
pub struct Outcome {
    /// Every stream, in order of its end.
    pub streams: Vec<ClientStream>,
    _open: Vec<Open>,
}

impl Load {
    fn check(&self) -> Result<(), InvalidLoad> {
        if self.streams == 0 {
            return Err(InvalidLoad::NoStreams);
        }
        if self.output_tokens.is_empty() || *self.output_tokens.start() == 0 {
            return Err(InvalidLoad::Lengths(self.output_tokens.clone()));
        }
        if !(0.0..=1.0).contains(&self.leavers) {
            return Err(InvalidLoad::Leavers(self.leavers));
        }
        Ok(())
    }
}

/// Runs the clients, numbered from 0. `socket` opens a socket that is not connected yet, in the network namespace where the
/// client of that number is to be; `start` is the origin of all times.
pub async fn run(
    load: Load,
    start: Instant,
    socket: impl Fn(usize) -> io::Result<TcpSocket> + Send + Sync + 'static,
) -> Result<Outcome, InvalidLoad> {
    load.check()?;
    let mut seeds = StdRng::seed_from_u64(load.seed);
    let load = Arc::new(load);
    let socket = Arc::new(socket);
    let mut clients = JoinSet::new();
    for number in 0..load.streams {
        let (load, socket) = (Arc::clone(&load), Arc::clone(&socket));
        let random = StdRng::seed_from_u64(seeds.random());
        let begin = start + load.ramp.mul_f64(number as f64 / load.streams as f64);
        clients.spawn(async move {
            tokio::time::sleep_until(begin).await;
            client(&load, start, random, || socket(number)).await
        });
    }
    let mut outcome = Outcome { streams: Vec::new(), _open: Vec::new() };
    while let Some(ended) = clients.join_next().await {
        match ended {
            Ok((streams, open)) => {
                outcome.streams.extend(streams);
                outcome._open.extend(open);
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    Ok(outcome)
}

/// One client's streams, and the one that was open at the end.
async fn client(
    load: &Load,
    start: Instant,
    mut random: StdRng,
    socket: impl Fn() -> io::Result<TcpSocket> + Send + Sync,
) -> (Vec<ClientStream>, Option<Open>) {
    let end = start + load.duration;
    let mut streams = Vec::new();
    while Instant::now() < end {
        let leaver = random.random_bool(load.leavers);
        let question = Question {
            output_tokens: random.random_range(load.output_tokens.clone()),
            seed: random.random(),
            patience: leaver.then_some(load.patience),
            start,
            end,
        };
        let (stream, open) = question.ask(load, &socket).await;
        let failed = stream.ending == Ending::Failed;
        streams.push(stream);
        if open.is_some() {
            return (streams, open);
        }
        if failed {
            tokio::time::sleep_until(end.min(Instant::now() + REST)).await;
        }
    }
    (streams, None)
}

#[cfg(test)]
mod tests {
    use netdiag_telemetry::Tps;

    use super::*;

    #[tokio::test]
    async fn impossible_loads_are_named() {
        let load = Load {
            target: "127.0.0.1:9".parse().expect("address"),
            streams: 1,
            ramp: Duration::ZERO,
            duration: Duration::ZERO,
            model: String::new(),
            prompt: String::new(),
            output_tokens: 1..=2,
            reader: Reader {
                rate: Tps::try_new(10.0).expect("valid"),
                expected_ttft: Duration::ZERO,
            },
            leavers: 0.5,
            patience: Duration::ZERO,
            seed: 0,
        };
        let check = async |load: Load, expected: Option<&str>| {
            let result = run(load, Instant::now(), |_| TcpSocket::new_v4()).await;
            assert_eq!(result.err().map(|error| error.to_string()).as_deref(), expected);
        };
        check(load.clone(), None).await;
        check(Load { streams: 0, ..load.clone() }, Some("streams is 0: at least one is needed"))
            .await;
        check(
            Load { leavers: f64::NAN, ..load.clone() },
            Some("leavers NaN is not between 0 and 1"),
        )
        .await;
        let lengths = "output_tokens 0..=4 is not a range of lengths from 1 on";
        check(Load { output_tokens: 0..=4, ..load.clone() }, Some(lengths)).await;
        let lengths = "output_tokens 5..=4 is not a range of lengths from 1 on";
        check(Load { output_tokens: RangeInclusive::new(5, 4), ..load }, Some(lengths)).await;
    }
}

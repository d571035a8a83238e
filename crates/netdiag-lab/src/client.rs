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

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::{Ending, Reader, StreamRecord, TokenCounts};
use stream::{Open, Question};

pub(crate) use stream::Drawn;

/// Rest of a client whose stream failed, so that a server that refuses is not asked in a circle.
const REST: Duration = Duration::from_secs(1);

/// The longest of any time asked for: a day, as scenarios have. Clocks hold far more, but not whatever a `Duration` can be.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// Longer than anything here lasts.
    #[error(
        "{name} {time:?} is above {LONGEST:?}: give less (for clients that wait for ever let leavers be 0)"
    )]
    TooLong {
        /// Which one.
        name: &'static str,
        /// As given.
        time: Duration,
    },
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
    /// Every stream, by the number of its client and each client's in their order, so that two runs can be compared.
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
        let times = [("ramp", self.ramp), ("duration", self.duration), ("patience", self.patience)];
        if let Some(&(name, time)) = times.iter().find(|(_, time)| *time > LONGEST) {
            return Err(InvalidLoad::TooLong { name, time });
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
    // Nobody ever asks.
    let (_asker, stop) = watch::channel(false);
    run_until(load, start, stop, socket).await
}

/// The same, ended early when `stop` becomes true: the run is then as long as it was by that time.
pub async fn run_until(
    load: Load,
    start: Instant,
    stop: watch::Receiver<bool>,
    socket: impl Fn(usize) -> io::Result<TcpSocket> + Send + Sync + 'static,
) -> Result<Outcome, InvalidLoad> {
    load.check()?;
    let mut seeds = Xoshiro256PlusPlus::seed_from_u64(load.seed);
    let load = Arc::new(load);
    let socket = Arc::new(socket);
    let mut clients = JoinSet::new();
    for number in 0..load.streams {
        let (load, socket) = (Arc::clone(&load), Arc::clone(&socket));
        let random = Xoshiro256PlusPlus::seed_from_u64(seeds.random());
        let begin = start + load.ramp.mul_f64(number as f64 / load.streams as f64);
        let mut stop = stop.clone();
        clients.spawn(async move {
            sleep(begin, &mut stop).await;
            let (streams, open) = client(&load, start, stop, random, || socket(number)).await;
            (number, streams, open)
        });
    }
    let mut ended = Vec::with_capacity(clients.len());
    while let Some(client) = clients.join_next().await {
        match client {
            Ok(client) => ended.push(client),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    ended.sort_by_key(|(number, ..)| *number);
    let mut outcome = Outcome { streams: Vec::new(), _open: Vec::new() };
    for (_, streams, open) in ended {
        outcome.streams.extend(streams);
        outcome._open.extend(open);
    }
    Ok(outcome)
}

/// Sleeps until `end`, or until somebody asks to stop.
async fn sleep(end: Instant, stop: &mut watch::Receiver<bool>) {
    let _ = tokio::time::timeout_at(end, asked(stop)).await;
}

/// Waits until somebody asks to stop: for ever where nobody can any more.
async fn asked(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|asked| *asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One client's streams, and the one that was open at the end.
async fn client(
    load: &Load,
    start: Instant,
    mut stop: watch::Receiver<bool>,
    mut random: Xoshiro256PlusPlus,
    socket: impl Fn() -> io::Result<TcpSocket> + Send + Sync,
) -> (Vec<ClientStream>, Option<Open>) {
    let end = start + load.duration;
    let mut streams = Vec::new();
    while Instant::now() < end && !*stop.borrow() {
        let question = Question::draw(load, &mut random, start, end);
        let (stream, open) = question.ask(load, &mut stop, &socket).await;
        let failed = stream.ending == Ending::Failed;
        streams.push(stream);
        if open.is_some() {
            return (streams, open);
        }
        if failed {
            sleep(end.min(Instant::now() + REST), &mut stop).await;
        }
    }
    (streams, None)
}

#[cfg(test)]
mod tests {
    use netdiag_telemetry::Tps;

    use super::*;

    fn load() -> Load {
        Load {
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
        }
    }

    /// A seed is a run that others can repeat, with whatever version they have.
    #[test]
    fn the_questions_of_a_seed_are_the_same_in_every_version() {
        let load = Load { output_tokens: 200..=600, leavers: 0.2, ..load() };
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let now = Instant::now();
        let drawn = [(); 4].map(|()| Question::draw(&load, &mut random, now, now));
        let drawn = drawn.map(|q| (q.output_tokens, q.seed, q.patience.is_some()));
        let expected = [
            (269, -5_209_800_880_474_007_438, true),
            (586, 8_590_716_767_756_797_065, false),
            (332, -326_089_528_989_449_251, false),
            (245, 3_172_252_279_632_408_190, true),
        ];
        assert_eq!(drawn, expected);
    }

    #[tokio::test]
    async fn impossible_loads_are_named() {
        let load = load();
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
        let long = Duration::from_secs(86_401);
        let told = |name| {
            format!(
                "{name} 86401s is above 86400s: give less (for clients that wait for ever let leavers be 0)"
            )
        };
        check(Load { patience: long, ..load.clone() }, Some(&told("patience"))).await;
        check(Load { duration: long, ..load.clone() }, Some(&told("duration"))).await;
        check(Load { ramp: long, ..load.clone() }, Some(&told("ramp"))).await;
        let lengths = "output_tokens 0..=4 is not a range of lengths from 1 on";
        check(Load { output_tokens: 0..=4, ..load.clone() }, Some(lengths)).await;
        let lengths = "output_tokens 5..=4 is not a range of lengths from 1 on";
        check(Load { output_tokens: RangeInclusive::new(5, 4), ..load }, Some(lengths)).await;
    }
}

//! One stream: connect, ask, and note when each token comes.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use netdiag_http::{HttpConnection, HttpError, Lines};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::events::{Event, Garbage, event};
use super::{ClientStream, Load, asked};
use crate::metrics::Ending;

/// What chance has to say in a question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn {
    pub(crate) output_tokens: u32,
    /// Of the answer's text.
    seed: i64,
    /// Whether its reader is impatient.
    pub(crate) leaver: bool,
}

impl Drawn {
    /// The next one of a client to whom `random` belongs.
    pub(crate) fn draw(
        leavers: f64,
        output_tokens: &RangeInclusive<u32>,
        random: &mut Xoshiro256PlusPlus,
    ) -> Self {
        let leaver = random.random_bool(leavers);
        Self {
            output_tokens: random.random_range(output_tokens.clone()),
            seed: random.random(),
            leaver,
        }
    }
}

/// One question to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) output_tokens: u32,
    pub(crate) seed: i64,
    /// How long this client waits for a token before it leaves; `None`: for ever.
    pub(crate) patience: Option<Duration>,
    /// The origin of all times.
    pub(crate) start: Instant,
    /// When the run ends.
    pub(crate) end: Instant,
}

/// A connection that is kept open; dropped, it closes.
#[derive(Debug)]
pub(crate) struct Open {
    _connection: Option<HttpConnection>,
    /// hyper closes a connection whose answer nobody wants.
    _body: Option<Response<Incoming>>,
}

/// How far a stream has come.
struct Progress {
    stream: ClientStream,
    connection: Option<HttpConnection>,
    response: Option<Response<Incoming>>,
    /// The last sign of life: the question, or a token.
    seen: Instant,
}

impl Question {
    /// The next question of a client to whom `random` belongs.
    pub(crate) fn draw(
        load: &Load,
        random: &mut Xoshiro256PlusPlus,
        start: Instant,
        end: Instant,
    ) -> Self {
        let drawn = Drawn::draw(load.leavers, &load.output_tokens, random);
        Self {
            output_tokens: drawn.output_tokens,
            seed: drawn.seed,
            patience: drawn.leaver.then_some(load.patience),
            start,
            end,
        }
    }

    /// Asks and reads to the end of the stream, of the client's patience, or of the run; in that case with the connection.
    pub(crate) async fn ask(
        self,
        load: &Load,
        stop: &mut watch::Receiver<bool>,
        socket: &(impl Fn() -> io::Result<TcpSocket> + Send + Sync),
    ) -> (ClientStream, Option<Open>) {
        let now = Instant::now();
        let mut progress = Progress {
            stream: ClientStream {
                request_id: None,
                address: None,
                submitted: now - self.start,
                deliveries: Vec::new(),
                ending: Ending::Failed,
                output_tokens: self.output_tokens,
                leaver: self.patience.is_some(),
                failure: None,
            },
            connection: None,
            response: None,
            seen: now,
        };
        let ended = self.read(&mut progress, load, stop, socket).await;
        let Progress { mut stream, connection, response, .. } = progress;
        let mut open = None;
        match ended {
            Ok(Ended::Complete) => stream.ending = Ending::Complete,
            Ok(Ended::Left(at)) => stream.ending = Ending::Left(at - self.start),
            Ok(Ended::Cut(at)) => {
                stream.ending = Ending::Cut(at - self.start);
                open = Some(Open { _connection: connection, _body: response });
            }
            Err(failure) => stream.failure = Some(failure.to_string()),
        }
        (stream, open)
    }

    async fn read(
        &self,
        progress: &mut Progress,
        load: &Load,
        stop: &mut watch::Receiver<bool>,
        socket: &(impl Fn() -> io::Result<TcpSocket> + Send + Sync),
    ) -> Result<Ended, Failure> {
        let opening = HttpConnection::open(socket().map_err(HttpError::from)?, load.target);
        let Ok(connection) = self.within(stop, progress.seen, opening).await else {
            return Ok(self.gave_up(stop));
        };
        let connection = progress.connection.insert(connection?);
        progress.stream.address = Some(connection.local());
        let request = self.request(load)?;
        let Ok(response) = self.within(stop, progress.seen, connection.send(request)).await else {
            return Ok(self.gave_up(stop));
        };
        let response = progress.response.insert(response?);
        let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        progress.stream.request_id = id.map(str::to_owned);
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status()));
        }
        let (mut lines, mut aborted, mut done) = (Lines::default(), false, false);
        while !done {
            let Ok(frame) = self.within(stop, progress.seen, response.frame()).await else {
                return Ok(self.gave_up(stop));
            };
            let frame = frame.ok_or(Failure::Ended)?.map_err(HttpError::from)?;
            let Some(bytes) = frame.data_ref() else { continue };
            let now = Instant::now();
            lines.push(bytes, |line| {
                match event(line)? {
                    Event::Tokens(count) => {
                        let came = std::iter::repeat_n(now - self.start, count);
                        progress.stream.deliveries.extend(came);
                        progress.seen = now;
                    }
                    Event::Finish(abort) => aborted = abort,
                    Event::Done => done = true,
                    Event::Other => {}
                }
                Ok::<_, Garbage>(())
            })?;
        }
        if aborted { Err(Failure::Aborted) } else { Ok(Ended::Complete) }
    }

    /// What `future` gives, unless patience or the run ends before.
    async fn within<T>(
        &self,
        stop: &mut watch::Receiver<bool>,
        seen: Instant,
        future: impl Future<Output = T>,
    ) -> Result<T, ()> {
        let patience = self.patience.map(|patience| seen + patience);
        let until = patience.map_or(self.end, |patience| patience.min(self.end));
        tokio::select! {
            biased;
            () = asked(stop) => Err(()),
            result = timeout_at(until, future) => result.map_err(|_| ()),
        }
    }

    /// Why waiting ended.
    fn gave_up(&self, stop: &watch::Receiver<bool>) -> Ended {
        let now = Instant::now();
        let is_over = now >= self.end || *stop.borrow();
        if is_over { Ended::Cut(now.min(self.end)) } else { Ended::Left(now) }
    }

    fn request(&self, load: &Load) -> Result<Request<Full<Bytes>>, Failure> {
        let body = json!({
            "model": load.model,
            "messages": [{"role": "user", "content": load.prompt}],
            "max_tokens": self.output_tokens,
            // As many as asked for, be the model done or not.
            "ignore_eos": true,
            "seed": self.seed,
            "stream": true,
        });
        let request = Request::post("/v1/chat/completions")
            .header(header::HOST, load.target.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))?;
        Ok(request)
    }
}

enum Ended {
    Complete,
    Left(Instant),
    Cut(Instant),
}

/// Why a stream failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the server aborted the answer")]
    Aborted,
    #[error("the stream ended before it was complete")]
    Ended,
    #[error(transparent)]
    Garbage(#[from] Garbage),
}

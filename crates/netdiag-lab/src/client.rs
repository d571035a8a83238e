//! A reader's end of a stream: asks an OpenAI-compatible server and notes when each token came.
//!
//! Who may give up: after a stall of given length the client closes its socket, as a person closes a tab. It does not read slowly;
//! how fast a person reads is the metrics' matter.
//!
//! Invariant: a time is noted when the event was read from the socket, not when anything was done with it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::metrics::Delivered;

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The prompt.
    pub prompt: &'a str,
    /// Length of the answer, tokens.
    pub tokens: u32,
    /// A silence after which the reader leaves; `None` for one who never does.
    pub patience: Option<Duration>,
    /// When everybody stops reading; what has come by then is the answer.
    pub until: Option<Instant>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// When it was asked and when each token came, since the origin given.
    pub delivered: Delivered,
    /// How it ended,
    pub end: End,
    /// and when.
    pub ended: Duration,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With everything that was asked for.
    Finished,
    /// The reader lost patience.
    Left,
    /// Time was up ([`Question::until`]).
    TimeUp,
    /// The server or the connection did.
    Broken(String),
}

/// A connection to a server, over which one question is asked after the other.
#[derive(Debug)]
pub struct Session {
    sender: SendRequest<Full<Bytes>>,
    host: SocketAddr,
    origin: Instant,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[error("cannot speak to {host}: {cause}")]
pub struct SessionError {
    host: SocketAddr,
    cause: String,
}

impl Session {
    /// Over a connected socket, wherever that was connected. Times are counted from `origin`.
    pub async fn start(socket: TcpStream, origin: Instant) -> Result<Self, SessionError> {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let host = socket.peer_addr().unwrap_or(unspecified);
        let wrong = |cause: &dyn std::fmt::Display| SessionError { host, cause: cause.to_string() };
        socket.set_nodelay(true).map_err(|error| wrong(&error))?;
        let started = http1::handshake(TokioIo::new(socket)).await;
        let (sender, connection) = started.map_err(|error| wrong(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a session ended");
            }
        });
        Ok(Self { sender, host, origin })
    }

    /// Asks, and reads the answer to its end. `None` in place of the session if it cannot be used again.
    pub async fn ask(mut self, question: Question<'_>) -> (Answer, Option<Self>) {
        let asked = self.origin.elapsed();
        let mut tokens = Vec::new();
        let end = match self.send(question).await {
            Ok(response) => read(response, question, self.origin, &mut tokens).await,
            Err(end) => end,
        };
        let ended = self.origin.elapsed();
        let session = (end == End::Finished).then_some(self);
        (Answer { delivered: Delivered { asked, tokens }, end, ended }, session)
    }

    async fn send(&mut self, question: Question<'_>) -> Result<Response<Incoming>, End> {
        let body = json!({
            "model": question.model, "stream": true, "max_tokens": question.tokens,
            "messages": [{"role": "user", "content": question.prompt}],
        });
        let request = Request::post("/v1/chat/completions")
            .header(header::HOST, self.host.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())));
        let request = request.map_err(|error| End::Broken(error.to_string()))?;
        let ready = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let response = question.patiently(ready).await?;
        response.map_err(|error| End::Broken(error.to_string()))
    }
}

impl Question<'_> {
    /// Waits for as long as the reader does.
    async fn patiently<T>(&self, what: impl Future<Output = T>) -> Result<T, End> {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let (wait, end) = match (self.patience, left) {
            (Some(patience), Some(left)) if patience < left => (patience, End::Left),
            (_, Some(left)) => (left, End::TimeUp),
            (Some(patience), None) => (patience, End::Left),
            (None, None) => return Ok(what.await),
        };
        tokio::time::timeout(wait, what).await.map_err(|_| end)
    }
}

async fn read(
    response: Response<Incoming>,
    question: Question<'_>,
    origin: Instant,
    tokens: &mut Vec<Duration>,
) -> End {
    let status = response.status();
    if status != StatusCode::OK {
        return End::Broken(format!("the server answered {status}"));
    }
    let (mut body, mut pending) = (response.into_body(), Vec::new());
    loop {
        let frame = match question.patiently(body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return End::Broken(error.to_string()),
            Ok(None) => return End::Broken("the answer ended in the middle".to_owned()),
            Err(end) => return end,
        };
        let now = origin.elapsed();
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = pending.drain(..end + 2).collect();
            match event.strip_prefix(b"data: ").map(<[u8]>::trim_ascii) {
                Some(b"[DONE]") => {
                    // To its last byte, so that the connection can be used again.
                    while let Ok(Some(Ok(_))) = question.patiently(body.frame()).await {}
                    return End::Finished;
                }
                Some(data) if has_text(data) => tokens.push(now),
                _ => {}
            }
        }
    }
}

/// Whether an event carries a token, and not a role or the end.
fn has_text(event: &[u8]) -> bool {
    let Ok(event) = serde_json::from_slice::<Value>(event) else { return false };
    let choice = &event["choices"][0];
    let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
    text.is_some_and(|text| !text.is_empty())
}

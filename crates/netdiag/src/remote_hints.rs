//! Another process' hint server as a source for the dashboard: its event stream, and its list of flows.
//!
//! Invariant: whatever happens to the other end, it is asked again, and what it said last grows old meanwhile.

use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::Response;
use hyper::body::Incoming;
use netdiag_dashboard::{Feed, FlowRow, Point};
use netdiag_http::{HttpConnection, Lines, Token};
use netdiag_pacer::{Hint, State};
use netdiag_telemetry::Row;
use netdiag_telemetry::csv::{self, RowDecoder};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use crate::args::values::ServerUrl;
use crate::failure;
use crate::remote::{ANSWER, Who, ask};

/// A server's events come at its interval or when its hint goes stale, and something every fifteen seconds in between; a silence
/// beyond is a dead connection.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

/// Time before it is asked again, doubled from one failure to the next.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// Flows per request: the most that a hint server lists at once.
const PAGE: usize = 1000;

/// Most flows asked for.
const MOST_FLOWS: usize = 20_000;

/// Largest page of flows, bytes: some kilobyte each is plenty.
const LARGEST_PAGE: usize = 4 << 20;

/// A hint server.
#[derive(Clone, Debug)]
pub(crate) struct RemoteHints {
    pub(crate) url: ServerUrl,
    pub(crate) token: Option<Token>,
}

impl RemoteHints {
    /// Feeds what the server says, for ever. What goes wrong is logged when it begins, and so is its end.
    pub(crate) async fn follow(&self, feed: &Feed) {
        let (shortest, longest) = PAUSES;
        let (mut pause, mut told) = (shortest, None);
        let mut last = None;
        loop {
            let mut news = false;
            let Err(error) = self
                .listen(feed, &mut last, || {
                    if told.take().is_some() {
                        tracing::info!("{}: answers again", self.url);
                    }
                    news = true;
                })
                .await;
            let error = failure::chain(&error);
            feed.lose(&format!("{}: {error}", self.url));
            if told.as_ref() != Some(&error) {
                tracing::warn!("{}: {error}; asking again", self.url);
                told = Some(error);
            }
            pause = if news { shortest } else { (pause * 2).min(longest) };
            sleep(pause).await;
        }
    }

    /// Listens to one connection until it ends. `on_news` is called at every hint.
    async fn listen(
        &self,
        feed: &Feed,
        last: &mut Option<Row>,
        mut on_news: impl FnMut(),
    ) -> anyhow::Result<std::convert::Infallible> {
        let (_connection, mut response) = self.get("/v1/events?rows=true").await?;
        let (mut lines, mut event, mut row) = (Lines::default(), String::new(), None);
        loop {
            let frame = timeout(SILENCE, response.frame()).await.context("has fallen silent")?;
            let frame = frame.context("has closed the connection")??;
            let Some(bytes) = frame.data_ref() else { continue };
            lines.push(bytes, |line| {
                let line = String::from_utf8_lossy(line);
                if let Some(name) = line.strip_prefix("event:") {
                    event = name.trim().to_owned();
                } else if let Some(data) = line.strip_prefix("data:") {
                    match event.as_str() {
                        "row" => row = Some(parse_row(data.trim())?),
                        "hint" => {
                            let hint = serde_json::from_str(data).context("a hint")?;
                            take(feed, row.take(), last, hint);
                            on_news();
                        }
                        _ => {}
                    }
                }
                Ok::<_, anyhow::Error>(())
            })?;
        }
    }

    /// All flows that the server lists, up to a bound.
    pub(crate) async fn flows(&self) -> anyhow::Result<Vec<FlowRow>> {
        let mut flows = Vec::new();
        loop {
            let path = format!("/v1/streams?limit={PAGE}&offset={}", flows.len());
            let (_connection, response) = self.get(&path).await?;
            let body = Limited::new(response.into_body(), LARGEST_PAGE).collect();
            let body = timeout(ANSWER, body).await.context("did not answer in time")?;
            let body = body.map_err(|error| anyhow::anyhow!("its list of flows: {error}"))?;
            let page: Page =
                serde_json::from_slice(&body.to_bytes()).context("its list of flows")?;
            anyhow::ensure!(page.listed, "its telemetry is a file, which knows no single flows");
            let last = page.streams.len() < PAGE;
            flows.extend(page.streams.into_iter().map(FlowRow::from));
            if last || flows.len() >= page.total.min(MOST_FLOWS) {
                return Ok(flows);
            }
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<(HttpConnection, Response<Incoming>)> {
        let who = Who { token_flag: "--hints-token-file", name: "a hint server" };
        ask(&self.url, self.token.as_ref(), who, path).await
    }
}

/// A hint, and the interval behind it if that is a new one: a server repeats its newest to who connects, however old.
fn take(feed: &Feed, row: Option<Row>, last: &mut Option<Row>, hint: Hint) {
    let age = Duration::try_from_secs_f64(hint.age_seconds).unwrap_or_default();
    let never = hint.state == State::Stale && age.is_zero();
    let sampled_at = Instant::now().checked_sub(age).filter(|_| !never);
    let row = row.filter(|row| hint.state != State::Stale && *last != Some(*row));
    *last = row.or(*last);
    match row {
        Some(row) => feed.push(Point::new(&row.sample, &hint), hint, sampled_at),
        None => feed.set_hint(hint, sampled_at),
    }
}

/// A line of `net_data.csv`.
fn parse_row(line: &str) -> anyhow::Result<Row> {
    let mut row = None;
    let text = format!("{}{line}\n", csv::header());
    RowDecoder::default().push(text.as_bytes(), |read| row = Some(read));
    Ok(row.context("an empty row")??)
}

#[derive(Deserialize)]
struct Page {
    total: usize,
    listed: bool,
    streams: Vec<RemoteFlow>,
}

/// A flow as `/v1/streams` lists it.
#[derive(Deserialize)]
struct RemoteFlow {
    peer: std::net::SocketAddr,
    local: std::net::SocketAddr,
    p95_rtt_us: Option<u64>,
    srtt_us: Option<u64>,
    retrans_count: u64,
    unacked_segs: Option<u32>,
    notsent_bytes: Option<u64>,
    waiting_us: u64,
    throughput_bps: Option<f64>,
    cause: Option<String>,
    hint: Hint,
}

impl From<RemoteFlow> for FlowRow {
    fn from(flow: RemoteFlow) -> Self {
        Self {
            peer: flow.peer,
            local: flow.local,
            p95_rtt_us: flow.p95_rtt_us,
            srtt_us: flow.srtt_us,
            retrans_count: flow.retrans_count,
            unacked_segs: flow.unacked_segs,
            notsent_bytes: flow.notsent_bytes,
            waiting_us: flow.waiting_us,
            throughput_bps: flow.throughput_bps,
            state: flow.hint.state,
            cause: flow.cause,
            current_tps: flow.hint.current_tps.get(),
            hold: flow.hint.hold,
        }
    }
}

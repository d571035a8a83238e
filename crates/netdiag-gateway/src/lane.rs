//! One connection's pacer, and the event streams that go out on it: one over HTTP/1.1, many over HTTP/2.
//!
//! The kernel knows connections, not streams. So those that share one share what it is told to carry, and its credit: whoever is
//! refused waits in a row, and the first of the row goes next, because a stream of large groups would else never find room among
//! those of small ones. How much of a stream has arrived follows from the order in which the streams' tokens were handed on.
//!
//! Invariants: a lane with one stream is that stream's pacer, and nothing else. Nobody waits behind a stream that is gone, or that is
//! not about to ask again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use netdiag_embed::{Admission, Gone, InvalidSettings, Pacing, Report, Settings, StreamPacer};
use netdiag_pacer::{Cause, Causes, State, TokenBucket, TpsRange};
use netdiag_telemetry::Tps;
use tokio::time::Instant;

use crate::meter::Sight;
use crate::settings::Pace;
use crate::socket::Client;

/// How fast clients read if nobody says, tokens/s: the fastest readers that the simulator has. It is no limit of a stream's rate;
/// it says how much text may be under way beyond what the path needs.
const READING_TPS: f64 = 16.0;

/// Streams of one HTTP/2 connection at once: what browsers and SDKs expect to be given (RFC 9113 §6.5.2).
pub(crate) const MOST_STREAMS: u32 = 100;

/// Tokens of one stream that may follow each other at once, as the pacer allows them.
const BURST: u32 = 2;

/// How long those behind the first of a row wait before they look again, at least.
const TURN: Duration = Duration::from_millis(2);

/// How long a path that has held a stream is taken for narrow: some round trips through full queues.
const NARROW: Duration = Duration::from_secs(5);

/// Places in the order of tokens that a stream keeps in mind. With more, every second one is forgotten, and arrivals are noticed later.
const MARKS: usize = 64;

/// The pacers of all connections.
#[derive(Clone)]
pub(crate) struct Lanes {
    /// For connections with one stream at a time.
    single: Pacing,
    /// For those with many: the same, with room for all of them.
    shared: Pacing,
    most: Tps,
}

impl Lanes {
    pub(crate) fn try_new(pace: Pace) -> Result<Self, InvalidSettings> {
        let Pace { range, reading, .. } = pace;
        let reading = reading.or(Tps::try_new(READING_TPS).ok()).unwrap_or(range.max());
        let most = range.max();
        let wide = Tps::try_new((most.get() * f64::from(MOST_STREAMS)).min(Tps::HIGHEST));
        let wide = wide.ok().and_then(|wide| TpsRange::try_new(range.min(), wide).ok());
        Ok(Self {
            single: Pacing::try_new(Settings::new(range, reading))?,
            shared: Pacing::try_new(Settings::new(wide.unwrap_or(range), reading))?,
            most,
        })
    }

    /// Looks at all connections, on threads that end with the gateway: looking at thousands of them must not keep others waiting.
    pub(crate) fn start(self) -> io::Result<()> {
        for pacing in [self.single, self.shared] {
            let thread = thread::Builder::new().name("pacing".to_owned());
            thread.spawn(move || pacing.run_blocking())?;
        }
        Ok(())
    }

    /// For whom each client's streams wait at present: where nothing is under way, for the engine.
    pub(crate) fn causes(&self) -> HashMap<SocketAddr, &'static str> {
        let reports = [&self.single, &self.shared].into_iter().flat_map(Pacing::reports);
        let cause = |report: Report| report.cause.unwrap_or(Cause::Engine).as_str();
        reports.map(|(key, report)| (key.peer, cause(report))).collect()
    }

    /// A place on the lane of this connection. Nothing if the client is gone or descriptors have run out: the one will show, the other
    /// must not end the stream.
    pub(crate) fn join(&self, client: &Client) -> Option<Ticket> {
        let is_shared = client.is_multiplexed();
        let pacing = if is_shared { &self.shared } else { &self.single };
        let mut known = client.lane();
        let lane = match known.upgrade() {
            Some(lane) => lane,
            None => {
                let pacer = pacing.stream(client);
                let pacer =
                    pacer.inspect_err(|error| tracing::debug!(%error, "a stream is not paced"));
                let row = Mutex::default();
                let lane = Arc::new(Lane { pacer: pacer.ok()?, is_shared, most: self.most, row });
                *known = Arc::downgrade(&lane);
                lane
            }
        };
        drop(known);
        Some(Ticket::new(lane))
    }
}

/// One connection's.
pub(crate) struct Lane {
    pacer: StreamPacer,
    is_shared: bool,
    /// Of one stream.
    most: Tps,
    row: Mutex<Row>,
}

/// Who is on it.
#[derive(Default)]
struct Row {
    /// Streams that were refused, in the order in which they go.
    waiting: VecDeque<u64>,
    /// What the first of them was told.
    told: Option<Admission>,
    streams: u32,
    next: u64,
    /// Tokens of all of them that were handed on.
    handed: u64,
    /// When one of them was last held. They go in groups together, or those that do would have more of each turn.
    held: Option<Instant>,
}

impl Lane {
    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection what its streams may have. Whoever changes their number still holds the row, so that the last number counts.
    fn share(&self, row: &Row) {
        if self.is_shared {
            self.pacer.grant(self.most.get() * f64::from(row.streams));
        }
    }
}

/// A stream's place on a lane.
pub(crate) struct Ticket {
    lane: Arc<Lane>,
    number: u64,
    /// Spaces the stream's own tokens, where the connection has room for more.
    own: Option<Own>,
    /// Account of the connection when the stream came.
    causes: Causes,
    acked: f64,
}

/// What a stream that shares a lane keeps for itself.
struct Own {
    bucket: TokenBucket,
    began: Instant,
    /// Tokens that the bucket has given and the lane has not.
    paid: u32,
    handed: u64,
    /// How many tokens of all were handed on when so many of its own were.
    marks: VecDeque<(u64, u64)>,
    /// Of its own, what had arrived when marks were last dropped.
    arrived: u64,
}

impl Ticket {
    fn new(lane: Arc<Lane>) -> Self {
        let number = {
            let mut row = lane.row();
            row.streams += 1;
            row.next += 1;
            lane.share(&row);
            row.next
        };
        let Report { causes, acked, .. } = lane.pacer.report();
        let own = lane.is_shared.then(|| Own {
            bucket: TokenBucket::new(lane.most, BURST, Duration::ZERO),
            began: Instant::now(),
            paid: 0,
            handed: 0,
            marks: VecDeque::new(),
            arrived: 0,
        });
        Self { lane, number, own, causes, acked }
    }

    /// Whether so many tokens more may be handed on.
    pub(crate) fn admit(&mut self, tokens: u32) -> Admission {
        let Some(own) = &mut self.own else { return self.lane.pacer.admit(tokens) };
        let more = tokens.saturating_sub(own.paid);
        if more > 0
            && let Err(wait) = own.bucket.take(own.began.elapsed(), more)
        {
            self.step_aside();
            return Admission::Wait(wait);
        }
        own.paid = own.paid.max(tokens);
        let mut row = self.lane.row();
        if let Some(&first) = row.waiting.front()
            && first != self.number
        {
            if !row.waiting.contains(&self.number) {
                row.waiting.push_back(self.number);
            }
            return match row.told {
                Some(Admission::Wait(wait)) => Admission::Wait(wait.max(TURN)),
                Some(Admission::Hold) => Admission::Hold,
                _ => Admission::Wait(TURN),
            };
        }
        let admission = self.lane.pacer.admit(tokens);
        match admission {
            Admission::Now => {
                // If anybody waited, it was this one.
                row.waiting.pop_front();
                row.told = None;
                own.paid = 0;
            }
            refused => {
                if row.waiting.is_empty() {
                    row.waiting.push_back(self.number);
                }
                row.told = Some(refused);
            }
        }
        admission
    }

    /// It does not ask again for a while.
    pub(crate) fn step_aside(&self) {
        if self.own.is_some() {
            let mut row = self.lane.row();
            if row.waiting.front() == Some(&self.number) {
                row.told = None;
            }
            row.waiting.retain(|&waiting| waiting != self.number);
        }
    }

    /// Tokens of those admitted were handed on.
    pub(crate) fn sent(&mut self, tokens: u32, bytes: u64) {
        self.lane.pacer.on_sent(tokens, bytes);
        let Some(own) = &mut self.own else { return };
        let all = {
            let mut row = self.lane.row();
            row.handed += u64::from(tokens);
            row.handed
        };
        own.handed += u64::from(tokens);
        if tokens > 0 {
            own.marks.push_back((all, own.handed));
        }
        if own.marks.len() > MARKS {
            own.drop_marks(self.lane.pacer.report().acked);
        }
    }

    pub(crate) fn gone(&self) -> Option<Gone> {
        self.lane.pacer.gone()
    }

    /// Nothing went through for more than a moment.
    pub(crate) fn was_held(&self, now: Instant) {
        self.lane.row().held = Some(now);
    }

    /// Whether the path is the bottleneck. Where a network's own queue takes what the path does not carry, the kernel sees nothing wait,
    /// and that it has held a stream of late is all that shows it.
    pub(crate) fn is_narrow(&self) -> bool {
        let held = self.lane.row().held;
        held.is_some_and(|held| held.elapsed() < NARROW)
            || self.lane.pacer.state() == State::Constrained
    }

    pub(crate) fn sight(&self) -> Sight {
        let Report { acked, causes, srtt_seconds, .. } = self.lane.pacer.report();
        let acked = match &self.own {
            None => acked - self.acked,
            Some(own) => own.arrived(acked) as f64,
        };
        Sight { acked, causes: causes.since(self.causes), srtt_seconds }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.step_aside();
        let mut row = self.lane.row();
        row.streams -= 1;
        self.lane.share(&row);
    }
}

impl Own {
    /// Of its own tokens those that have arrived, if so many of all have.
    fn arrived(&self, acked: f64) -> u64 {
        let there = self.marks.iter().take_while(|(all, _)| *all as f64 <= acked + 0.5);
        there.last().map_or(self.arrived, |&(_, own)| own)
    }

    /// Forgets what has arrived, and every second mark if that is not enough.
    fn drop_marks(&mut self, acked: f64) {
        self.arrived = self.arrived(acked);
        let arrived = self.arrived;
        self.marks.retain(|&(_, own)| own > arrived);
        if self.marks.len() > MARKS {
            let mut keep = false;
            // The last one stays, which says when all have.
            let last = self.marks.back().copied();
            self.marks.retain(|&mark| {
                keep = !keep;
                keep || Some(mark) == last
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        let rate = Tps::try_new(1.0).expect("valid");
        Own {
            bucket: TokenBucket::new(rate, BURST, Duration::ZERO),
            began: Instant::now(),
            paid: 0,
            handed: 0,
            marks: VecDeque::new(),
            arrived: 0,
        }
    }

    #[test]
    fn what_has_arrived_of_a_stream_follows_from_the_order_of_all() {
        let mut own = own();
        // Two of its own, then three of others, then one of its own.
        own.marks.extend([(1, 1), (2, 2), (6, 3)]);
        let check = |own: &Own, acked: f64, expected| assert_eq!(own.arrived(acked), expected);
        check(&own, 0.0, 0);
        check(&own, 1.9, 2);
        check(&own, 5.0, 2);
        check(&own, 6.0, 3);
        own.drop_marks(2.0);
        assert_eq!(own.marks, [(6, 3)]);
        check(&own, 0.0, 2);
        check(&own, 7.0, 3);
    }

    #[test]
    fn marks_are_few_and_arrivals_noticed_late_rather_than_early() {
        let mut own = own();
        for n in 1..=10_000 {
            own.marks.push_back((3 * n, n));
            if own.marks.len() > MARKS {
                own.drop_marks(0.0);
            }
        }
        assert!(own.marks.len() <= MARKS, "{}", own.marks.len());
        for acked in [0, 300, 9_999, 29_999] {
            assert!(own.arrived(f64::from(acked)) <= u64::from(acked as u32) / 3, "{acked}");
        }
        assert_eq!(own.arrived(30_000.0), 10_000);
    }
}

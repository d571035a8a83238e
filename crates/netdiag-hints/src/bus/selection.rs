//! What of a board is published: what has changed, and now and then the rest, within a budget.
//!
//! Ten boards a second of ten thousand streams are a hundred thousand hints a second, nearly all as before. So a hint is repeated only
//! when it says something else, or when its time to live is nearly over; and what does not fit into the budget waits for the next
//! board, whose hint for it is the newer one anyway. The host's is always among them.
//!
//! Invariant: never more than the budget, and no scope waits for ever: where one left off, the next begins.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use netdiag_pacer::{Hint, State};
use netdiag_telemetry::{Scope, give_back};
use tokio::time::Instant;

use crate::board::Board;

/// A rate that moves by less is as before: what is heard of it is a few percent apart anyway.
const SAME: f64 = 0.02;

/// Which hints are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Each peer's.
    pub peers: bool,
    /// Each stream's.
    pub streams: bool,
}

/// What was published of each scope.
#[derive(Debug)]
pub(crate) struct Selection {
    scopes: Scopes,
    refresh: Duration,
    sent: HashMap<Scope, Sent>,
    /// The last scope that was looked at when the budget was used up.
    left_off: Option<Scope>,
    round: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    tps: f64,
    state: State,
    hold: bool,
    anomaly: bool,
    round: u64,
}

impl Sent {
    fn is_as(&self, hint: &Hint) -> bool {
        let tps = hint.current_tps.get();
        (self.state, self.hold, self.anomaly) == (hint.state, hint.hold, hint.anomaly)
            && (tps - self.tps).abs() <= SAME * self.tps
    }
}

impl Selection {
    /// Of these scopes; each is repeated after `refresh`.
    pub(crate) fn new(scopes: Scopes, refresh: Duration) -> Self {
        Self { scopes, refresh, sent: HashMap::new(), left_off: None, round: 0 }
    }

    /// What to publish of `board` at `now`, at most `budget` hints (the host's besides). Taken as published.
    pub(crate) fn take<'a>(
        &mut self,
        board: &'a Board,
        now: Instant,
        budget: usize,
    ) -> Vec<(Scope, &'a Hint)> {
        self.round += 1;
        let all = self.listed(board);
        for scope in all.keys() {
            if let Some(sent) = self.sent.get_mut(scope) {
                sent.round = self.round;
            }
        }
        self.sent.retain(|_, sent| sent.round == self.round);
        give_back(&mut self.sent);
        let mut taken = vec![(Scope::Host, &board.host)];
        let start = self.left_off.take().map_or(Bound::Unbounded, Bound::Excluded);
        let end = match start {
            Bound::Excluded(scope) => Bound::Included(scope),
            _ => Bound::Unbounded,
        };
        let rest = matches!(start, Bound::Excluded(_)).then(|| all.range((Bound::Unbounded, end)));
        for (scope, hint) in all.range((start, Bound::Unbounded)).chain(rest.into_iter().flatten())
        {
            if !self.is_due(scope, hint, now) {
                continue;
            }
            if taken.len() > budget {
                break;
            }
            taken.push((*scope, hint));
            self.left_off = Some(*scope);
        }
        for (scope, hint) in &taken {
            let sent = Sent {
                at: now,
                tps: hint.current_tps.get(),
                state: hint.state,
                hold: hint.hold,
                anomaly: hint.anomaly,
                round: self.round,
            };
            self.sent.insert(*scope, sent);
        }
        taken
    }

    /// Nothing of what was taken has arrived: all is due again.
    pub(crate) fn forget(&mut self) {
        self.sent.clear();
    }

    fn is_due(&self, scope: &Scope, hint: &Hint, now: Instant) -> bool {
        self.sent.get(scope).is_none_or(|sent| {
            now.saturating_duration_since(sent.at) >= self.refresh || !sent.is_as(hint)
        })
    }

    fn listed<'a>(&self, board: &'a Board) -> BTreeMap<Scope, &'a Hint> {
        let mut all = BTreeMap::new();
        if self.scopes.peers {
            all.extend(board.peers.iter().map(|(peer, hint)| (Scope::Peer(*peer), hint)));
        }
        if self.scopes.streams {
            let streams = board.streams().iter();
            all.extend(streams.map(|stream| (Scope::Stream(stream.key), &stream.hint)));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use netdiag_pacer::TpsRange;
    use netdiag_telemetry::Tps;

    use super::*;

    const REFRESH: Duration = Duration::from_millis(700);
    const PEERS: Scopes = Scopes { peers: true, streams: false };

    fn hint(tps: f64) -> Hint {
        let rate = |rate| Tps::try_new(rate).expect("a rate");
        let range = TpsRange::try_new(rate(5.0), rate(80.0)).expect("a range");
        Hint { current_tps: rate(tps), ..Hint::unknown(range, &Scope::Host, "") }
    }

    fn board(peers: u32, tps: f64) -> Board {
        let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n));
        let peers = (0..peers).map(|n| (address(n), hint(tps))).collect();
        Board::new(hint(tps), peers, Vec::new(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_as_before_is_repeated_only_when_it_is_about_to_lapse() {
        let mut selection = Selection::new(PEERS, REFRESH);
        let start = Instant::now();
        let mut count = |board: &Board, at: u64| {
            selection.take(board, start + Duration::from_millis(at), 1000).len()
        };
        assert_eq!(count(&board(10, 40.0), 0), 11);
        // The host's alone.
        assert_eq!(count(&board(10, 40.0), 100), 1);
        assert_eq!(count(&board(10, 40.5), 200), 1);
        assert_eq!(count(&board(10, 42.0), 300), 11);
        assert_eq!(count(&board(12, 42.0), 400), 3);
        assert_eq!(count(&board(12, 42.0), 1000), 11);
        assert_eq!(count(&board(12, 42.0), 1100), 3);
        // Who was away is new.
        assert_eq!(count(&board(0, 42.0), 1200), 1);
        assert_eq!(count(&board(12, 42.0), 1300), 13);
        selection.forget();
        assert_eq!(selection.take(&board(12, 42.0), start, 1000).len(), 13);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_for_room_in_the_budget() {
        let mut selection = Selection::new(PEERS, REFRESH);
        let mut seen: HashMap<Scope, u32> = HashMap::new();
        for round in 0..40 {
            // Everything changes all the time.
            let board = board(100, if round % 2 == 0 { 20.0 } else { 60.0 });
            let taken = selection.take(&board, Instant::now(), 10);
            assert_eq!(taken.len(), 11);
            for (scope, _) in taken {
                *seen.entry(scope).or_default() += 1;
            }
        }
        assert_eq!(seen.remove(&Scope::Host), Some(40));
        assert!(seen.len() == 100 && seen.values().all(|times| *times == 4), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_wanted_is_listed() {
        let none = Scopes { peers: false, streams: false };
        let mut selection = Selection::new(none, REFRESH);
        assert_eq!(selection.take(&board(9, 40.0), Instant::now(), 1000).len(), 1);
    }
}

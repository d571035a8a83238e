//! Who asks, by address, and how often: one who asks too often is refused, so that others are answered.
//!
//! A connection looks its visitor up once; a request then costs one atomic. An address of IPv6 counts by its /64, which is what a
//! single host is given. Everybody behind one proxy is one visitor, and so is all of loopback.
//!
//! What is limited apart is wrong tokens, and only those: a loop that goes on with yesterday's token must not keep out the others of its
//! host, so a request with the right one passes whatever came before it. What keeps guessers away is the length of tokens.
//!
//! Invariant: memory is bounded whoever comes. Visitors that are at rest are forgotten when room is needed, which changes nothing for
//! them; if there is none even so, those who have no place share one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;
use crate::rate::{Due, Pace, TooOften};
use crate::server::GivenUp;

/// Visitors that are told apart: some 2 MB.
const MOST: usize = 16_384;

/// Room is made this often at most, because it is a walk over all of them.
const MAKE_ROOM: Duration = Duration::from_secs(1);

/// Wrong tokens that somebody may show at once, as after a change of tokens when many loops of a host start anew.
const WRONG_TOKENS: u32 = 60;

/// And then one in so long.
const WRONG_EVERY: Duration = Duration::from_secs(1);

/// All visitors of a server. Clones are the same.
#[derive(Clone, Debug)]
pub struct Visitors(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    requests: Option<Pace>,
    wrong_tokens: Pace,
    refused: GivenUp,
    started: Instant,
    table: Mutex<Table>,
}

/// Those who are known.
#[derive(Debug, Default)]
struct Table {
    known: HashMap<IpAddr, Arc<Counts>>,
    others: Arc<Counts>,
    made_room: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    requests: Due,
    wrong_tokens: Due,
}

/// One visitor, on one of its connections.
#[derive(Clone, Debug)]
pub struct Visitor {
    all: Visitors,
    counts: Arc<Counts>,
}

impl Visitors {
    /// Visitors who may ask so often per second, or as often as they like. Who is refused is counted in `refused`.
    pub fn new(per_second: Option<NonZeroU32>, refused: GivenUp) -> Self {
        Self(Arc::new(Inner {
            requests: per_second.map(|number| Pace::per_second(number.get())),
            wrong_tokens: Pace::new(WRONG_EVERY, WRONG_TOKENS),
            refused,
            started: Instant::now(),
            table: Mutex::default(),
        }))
    }

    /// The one at an address.
    pub fn at(&self, address: IpAddr) -> Visitor {
        let now = self.now();
        let mut table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        Visitor { all: self.clone(), counts: table.find(key(address), now) }
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }
}

impl Table {
    fn find(&mut self, key: IpAddr, now: Duration) -> Arc<Counts> {
        if let Some(counts) = self.known.get(&key) {
            return Arc::clone(counts);
        }
        if self.known.len() >= MOST && now >= self.made_room {
            self.made_room = now + MAKE_ROOM;
            self.known.retain(|_, counts| !counts.are_at_rest(now));
        }
        if self.known.len() >= MOST {
            return Arc::clone(&self.others);
        }
        Arc::clone(self.known.entry(key).or_default())
    }
}

impl Counts {
    fn are_at_rest(self: &Arc<Self>, now: Duration) -> bool {
        Arc::strong_count(self) == 1
            && self.requests.is_rested(now)
            && self.wrong_tokens.is_rested(now)
    }
}

impl Visitor {
    /// Counts a request.
    pub fn asks(&self) -> Result<(), TooOften> {
        let Some(pace) = self.all.0.requests else { return Ok(()) };
        let asked = self.counts.requests.take(pace, self.all.now());
        asked.inspect_err(|_| self.all.0.refused.asked_too_often())
    }

    /// Counts a wrong token.
    pub fn showed_wrong_token(&self) -> Result<(), TooOften> {
        let shown = self.counts.wrong_tokens.take(self.all.0.wrong_tokens, self.all.now());
        shown.inspect_err(|_| self.all.0.refused.guessed_too_often())
    }

    /// `response`, or a refusal if it says for the n-th time that the token of a request was wrong. `showed` is whether there was one.
    pub(crate) fn judge(&self, response: Response, showed: bool) -> Response {
        if !showed || response.status() != StatusCode::UNAUTHORIZED {
            return response;
        }
        match self.showed_wrong_token() {
            Ok(()) => response,
            Err(wait) => {
                let mut refusal = refusal(wait);
                // Whoever guesses may begin with a new connection.
                let close = HeaderValue::from_static("close");
                refusal.headers_mut().insert(header::CONNECTION, close);
                refusal
            }
        }
    }
}

/// Whether a request shows something that may be the wrong token: a page that asks for the token is sent with a 401 as well, to those
/// who have shown nothing yet.
pub(crate) fn shows_token<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(header::AUTHORIZATION) || request.method() == Method::POST
}

/// What one who comes too often is told.
pub(crate) fn refusal(wait: TooOften) -> Response {
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, wait.to_string());
    ([(header::RETRY_AFTER, wait.seconds().to_string())], problem).into_response()
}

fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn visitors(per_second: u32) -> Visitors {
        Visitors::new(NonZeroU32::new(per_second), GivenUp::default())
    }

    #[test]
    fn one_visitors_requests_are_no_others() {
        let all = visitors(3);
        let at = |address: &str| all.at(address.parse().expect("an address"));
        let granted = |visitor: Visitor| (0..10).filter(|_| visitor.asks().is_ok()).count();
        assert_eq!(granted(at("192.0.2.1")), 3);
        // On another connection, and as it looks on a socket of IPv6.
        assert_eq!(granted(at("192.0.2.1")) + granted(at("::ffff:192.0.2.1")), 0);
        assert_eq!(granted(at("192.0.2.2")), 3);
        assert_eq!(granted(at("2001:db8:1:2::1")), 3);
        assert_eq!(granted(at("2001:db8:1:2:ffff::1")), 0);
        assert_eq!(granted(at("2001:db8:1:3::1")), 3);
        assert_eq!(all.0.refused.too_often(), 7 + 20 + 7 + 7 + 10 + 7);
        let all = visitors(0);
        assert_eq!(granted(all.at(Ipv4Addr::LOCALHOST.into())), 10);
    }

    #[test]
    fn wrong_tokens_run_out_and_right_ones_do_not() {
        let visitor = visitors(1000).at(Ipv4Addr::LOCALHOST.into());
        let unauthorized = || StatusCode::UNAUTHORIZED.into_response();
        for _ in 0..WRONG_TOKENS {
            assert_eq!(visitor.judge(unauthorized(), true).status(), StatusCode::UNAUTHORIZED);
        }
        let refusal = visitor.judge(unauthorized(), true);
        assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refusal.headers()[header::RETRY_AFTER], "1");
        assert_eq!(refusal.headers()[header::CONNECTION], "close");
        // Who has shown nothing is asked for it as ever, and who shows the right one is answered.
        assert_eq!(visitor.judge(unauthorized(), false).status(), StatusCode::UNAUTHORIZED);
        assert_eq!(visitor.judge(().into_response(), true).status(), StatusCode::OK);
        assert_eq!(visitor.all.0.refused.wrong_tokens(), 1);
    }

    #[test]
    fn memory_is_bounded_and_those_at_rest_make_room() {
        let mut table = Table::default();
        let address = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number));
        let pace = Pace::new(Duration::from_secs(10), 1);
        let mut busy = Vec::new();
        for number in 0..MOST as u32 {
            let counts = table.find(address(number), Duration::ZERO);
            counts.requests.take(pace, Duration::ZERO).expect("the first");
            if number % 2 == 0 {
                busy.push(counts);
            }
        }
        // Nobody is at rest yet, so who comes now shares a place, and that place is limited, too.
        let [one, other] =
            [1, 2].map(|n| table.find(Ipv6Addr::from_bits(n << 64).into(), Duration::ZERO));
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(table.known.len(), MOST);
        // Later those without a connection are forgotten, and the others are not.
        let later = Duration::from_secs(20);
        let newcomer = table.find(Ipv6Addr::from_bits(1 << 64).into(), later);
        assert!(!Arc::ptr_eq(&newcomer, &table.others));
        assert_eq!(table.known.len(), MOST / 2 + 1);
        drop(busy);
    }
}

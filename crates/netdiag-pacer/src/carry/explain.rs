//! What the `carry` policy recommends for a flow, and why, in the published form.
//!
//! Invariant: the reason begins with whose fault it is, in the words of [`super::Cause`], where it is anybody's.

use std::time::Duration;

use netdiag_telemetry::{Scope, Source};

use super::Carry;
use crate::hint::{Hint, State};

impl Carry {
    /// The recommendation for `scope`, from evidence that is `age` old. Judgements of health are for others to add.
    pub fn hint(&self, scope: &Scope, age: Duration, source: Option<Source>) -> Hint {
        if self.last.is_none() {
            return Hint::unknown(self.range, scope, "nothing observed yet");
        }
        let current_tps = self.range.clamp(self.rate());
        Hint {
            current_tps,
            sleep_seconds: current_tps.seconds_per_token(),
            target_tps: current_tps,
            state: self.state,
            reason: self.reason(),
            hold: self.is_held(),
            age_seconds: age.as_secs_f64(),
            source,
            ..Hint::unknown(self.range, scope, String::new())
        }
    }

    fn reason(&self) -> String {
        let outstanding = self.outstanding();
        match self.state {
            State::Stalled => {
                let waiting = self.waiting.seconds();
                format!("path: {outstanding:.0} tokens are out and no ACK for {waiting:.1} s")
            }
            State::Reader => format!("reader: receive window full, {outstanding:.0} tokens wait"),
            State::Constrained => {
                let unsent = self.last.is_some_and(|seen| seen.notsent > 0);
                let what = if unsent { "unsent data waits" } else { "its queue grows" };
                match self.carried() {
                    Some(carried) => format!("path: {what}, carry {carried:.1} tok/s"),
                    None => format!("path: {what}"),
                }
            }
            State::Idle => "nothing is under way".to_owned(),
            State::Clear | State::Stale if self.granted < self.cap => {
                let (share, least) = (self.granted, self.range.min().get());
                let more = if share < least { ", the least is recommended" } else { "" };
                format!("pacer: {share:.1} tok/s are this stream's share{more}")
            }
            State::Clear | State::Stale => "the path carries what is sent".to_owned(),
        }
    }
}

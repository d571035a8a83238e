//! Jitter: the delay is drawn anew fifty times a second.
//!
//! rattan-core's delay cell keeps the order of packets, as a real queue does, so drawing per packet would only let each
//! late packet hold up those behind it. A stream of tokens sends about one packet per draw.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between draws: shorter than the gap between two tokens at 50 tokens/s.
const DRAW_EVERY: Duration = Duration::from_millis(20);

/// The thread that varies one direction's delay.
#[derive(Debug)]
pub(crate) struct Jitter {
    settings: Option<Sender<(Duration, Duration)>>,
    thread: Option<JoinHandle<()>>,
}

impl Jitter {
    /// Calls `set_delay` with the delay whenever it changes.
    pub(crate) fn start(seed: u64, set_delay: impl Fn(Duration) + Send + 'static) -> Self {
        let (settings, changes) = channel::<(Duration, Duration)>();
        let thread = std::thread::spawn(move || {
            let mut random = seed;
            let (mut delay, mut jitter) = (Duration::ZERO, Duration::ZERO);
            loop {
                let change = if jitter.is_zero() {
                    changes.recv().map_err(|_| RecvTimeoutError::Disconnected)
                } else {
                    changes.recv_timeout(DRAW_EVERY)
                };
                match change {
                    Ok(change) => (delay, jitter) = change,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                set_delay(
                    delay.saturating_sub(jitter) + (2 * jitter).mul_f64(uniform(&mut random)),
                );
            }
        });
        Self { settings: Some(settings), thread: Some(thread) }
    }

    /// Varies around `delay` by up to `jitter` from now on.
    pub(crate) fn set(&self, delay: Duration, jitter: Duration) {
        if let Some(settings) = &self.settings {
            // The thread ends only with us.
            let _ = settings.send((delay, jitter));
        }
    }
}

impl Drop for Jitter {
    fn drop(&mut self) {
        self.settings = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The next of a sequence of numbers spread evenly over 0..1: SplitMix64 (Steele, Lea, Flood 2014).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) as f64 / 2f64.powi(64)
}

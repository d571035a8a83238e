//! An answer that somebody else computes, at most so often however many ask: the flows of this host, what the machine
//! supports.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use bytes::Bytes;

type Ask = dyn Fn() -> Result<Vec<u8>, String> + Send + Sync;

/// JSON that is computed when it is asked for, and then serves everybody for a while.
#[derive(Clone)]
pub struct Document {
    ask: Arc<Ask>,
    keep: Duration,
    last: Arc<Mutex<Option<(Instant, Answer)>>>,
}

type Answer = Result<Bytes, String>;

impl Document {
    /// `ask` may block: it runs on a thread for that. Its error is told to who asks.
    pub fn new(
        keep: Duration,
        ask: impl Fn() -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { ask: Arc::new(ask), keep, last: Arc::new(Mutex::new(None)) }
    }

    /// The newest, or a new one.
    pub(crate) async fn get(&self) -> Answer {
        // Held while it is computed, also if who asked goes away: who comes meanwhile waits for the same answer.
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < self.keep
        {
            return answer.clone();
        }
        let ask = Arc::clone(&self.ask);
        let computed = tokio::task::spawn_blocking(move || {
            let answer = ask().map(Bytes::from);
            *last = Some((Instant::now(), answer.clone()));
            answer
        });
        computed.await.unwrap_or_else(|_| Err("the answer could not be computed".to_owned()))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("keep", &self.keep).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_computed_once_for_all_and_again_later() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let document = Document::new(Duration::from_secs(1), move || {
            match counted.fetch_add(1, Ordering::Relaxed) {
                2 => Err("broken".to_owned()),
                number => Ok(number.to_string().into_bytes()),
            }
        });
        let (one, other) = tokio::join!(document.get(), document.get());
        assert_eq!((one, other), (Ok("0".into()), Ok("0".into())));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(document.get().await, Ok("1".into()));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(document.get().await, Err("broken".to_owned()));
        // Failures are kept like answers: they can take as long.
        assert_eq!(document.get().await, Err("broken".to_owned()));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(document.get().await, Ok("3".into()));
    }

    #[tokio::test]
    async fn who_goes_away_does_not_have_it_computed_twice() {
        let (begun, begins) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let goes_on = std::sync::Mutex::new(goes_on);
        let document = Document::new(Duration::from_secs(60), move || {
            begun.send(()).map_err(|error| error.to_string())?;
            let goes_on = goes_on.lock().map_err(|error| error.to_string())?;
            goes_on.recv().map_err(|error| error.to_string())?;
            Ok(b"once".to_vec())
        });
        let asked = tokio::spawn({
            let document = document.clone();
            async move { document.get().await }
        });
        tokio::task::spawn_blocking(move || begins.recv().map(|()| begins))
            .await
            .expect("no panic")
            .expect("begun");
        asked.abort();
        assert!(asked.await.is_err());
        // A second computation would wait for ever.
        go_on.send(()).expect("it waits");
        assert_eq!(document.get().await, Ok("once".into()));
    }
}

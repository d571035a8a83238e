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
    last: Arc<Mutex<Option<(Instant, Bytes)>>>,
}

impl Document {
    /// `ask` may block: it runs on a thread for that. Its error is told to who asks.
    pub fn new(
        keep: Duration,
        ask: impl Fn() -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { ask: Arc::new(ask), keep, last: Arc::new(Mutex::new(None)) }
    }

    /// The newest, or a new one.
    pub(crate) async fn get(&self) -> Result<Bytes, String> {
        // Held while it is computed: who comes meanwhile waits for the same answer.
        let mut last = self.last.lock().await;
        if let Some((at, bytes)) = &*last
            && at.elapsed() < self.keep
        {
            return Ok(bytes.clone());
        }
        let ask = Arc::clone(&self.ask);
        let answer = tokio::task::spawn_blocking(move || ask()).await;
        let bytes: Bytes =
            answer.map_err(|_| "the answer could not be computed".to_owned())??.into();
        *last = Some((Instant::now(), bytes.clone()));
        Ok(bytes)
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
        assert_eq!(document.get().await, Ok("3".into()));
    }
}

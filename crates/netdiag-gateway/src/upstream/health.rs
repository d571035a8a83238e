//! Whether engines are well: each is asked for its health path from time to time.
//!
//! Engines agree on `/health` (vLLM, SGLang, llama.cpp, TGI). Any answer below 500 counts, so that one without such a path
//! is well while it answers; llama.cpp says 503 while it loads its model. What requests meet counts as well, and sooner
//! (see [`super`]).

use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Request, header};
use tokio::time::timeout;

use super::{Upstream, Upstreams};
use crate::request_body::RequestBody;

/// How health is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path, with its slash.
    pub path: String,
    /// Time between two questions.
    pub every: Duration,
    /// Time for an answer.
    pub patience: Duration,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/health".to_owned(),
            // A restarted engine is asked again within two seconds; the questions cost nothing.
            every: Duration::from_secs(2),
            // Longer than a busy engine's event loop is blocked by a long prompt.
            patience: Duration::from_secs(5),
        }
    }
}

/// Asks, for ever.
pub(crate) async fn watch(engines: &Upstreams, check: &HealthCheck) {
    let each = engines.all().iter().map(|engine| watch_one(Arc::clone(engine), check));
    futures_util::future::join_all(each).await;
}

async fn watch_one(engine: Arc<Upstream>, check: &HealthCheck) {
    loop {
        match timeout(check.patience, ask(&engine, &check.path)).await {
            Ok(Ok(())) => engine.works(),
            Ok(Err(why)) => engine.is_down(&why),
            Err(_) => engine.failed(&"no answer to a health check"),
        }
        engine.tidy();
        tokio::time::sleep(check.every).await;
    }
}

/// On a connection of its own, because it is also the question whether one can be had.
async fn ask(engine: &Upstream, path: &str) -> Result<(), String> {
    let link = engine.connect().await.map_err(|error| format!("cannot connect: {error}"))?;
    let target = engine.url().target(path).ok_or("its health path is none")?;
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target;
    request.headers_mut().insert(header::HOST, engine.url().authority().clone());
    let answer = link.send(request).await.map_err(|unanswered| unanswered.error.to_string())?;
    let status = answer.status();
    if status.is_server_error() { Err(format!("its health is {status}")) } else { Ok(()) }
}

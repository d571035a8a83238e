//! Connections of clients: accepted, served in HTTP/1.1 or HTTP/2, with TLS or without, and drained at the end.
//!
//! Invariant: an event stream that is in flight when the gateway stops ends by itself or by an event of ours, if its client
//! takes it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use netdiag_http::{Limits, Place, WhenBusy, accept};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::forward::answer;
use crate::framing::Watched;
use crate::lane::MOST_STREAMS;
use crate::socket::{Client, ClientIo};
use crate::upstream::health;
use crate::{Gateway, Phase, Shared};

/// Bytes of one HTTP/2 stream that wait for its window or for the socket: as for HTTP/1.1.
const SEND_BUFFER: usize = 64 * 1024;

/// Time to take a last event, and then the end of the connection.
const GRACE: Duration = Duration::from_secs(1);

impl Gateway {
    /// Serves until `shutdown` completes, then lets what is in flight end.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let shared = &self.0;
        let limits = shared.settings.limits;
        let tls = shared.settings.tls.clone();
        let when_busy = if tls.is_some() { WhenBusy::Close } else { WhenBusy::Answer };
        let graceful = GracefulShutdown::new();
        let builders = Arc::new(Builders::new(limits));
        let accepting = accept(listener, limits, when_busy, shutdown, |stream, peer, place| {
            let visitor = shared.visitors.at(peer.ip());
            let shown = shared.settings.shown(peer);
            let client = Client::new(stream, shown, visitor, tls.is_some());
            let connection = Connection {
                shared: Arc::clone(shared),
                client,
                builders: Arc::clone(&builders),
                watcher: graceful.watcher(),
                tls: tls.clone(),
            };
            tokio::spawn(connection.serve(place));
        });
        // Dropped with us.
        let mut beside = JoinSet::new();
        beside.spawn({
            let shared = Arc::clone(shared);
            async move { health::watch(&shared.upstreams, &shared.settings.health).await }
        });
        beside.spawn({
            let shared = Arc::clone(shared);
            async move { shared.live.watch(&shared).await }
        });
        if let Some(lanes) = shared.lanes.clone()
            && let Err(error) = lanes.start()
        {
            tracing::warn!(%error, "no thread to look at streams; they look at each other");
        }
        accepting.await;
        shared.phase.send_replace(Phase::Draining);
        // Nobody can come back for them any more.
        shared.live.end_at_rest(shared);
        let mut ended = std::pin::pin!(graceful.shutdown());
        if timeout(shared.settings.drain, &mut ended).await.is_err() {
            shared.phase.send_replace(Phase::Ending);
            shared.live.drain();
            if timeout(GRACE, &mut ended).await.is_err() {
                tracing::warn!("some clients did not take the end of their answers");
            }
        }
        shared.phase.send_replace(Phase::Ended);
        // Whose client left in the moment when all of this began.
        shared.live.end_at_rest(shared);
    }
}

/// What serves a connection, once it is known what is spoken on it.
struct Builders {
    /// It begins as only HTTP/1 does. The other reads the first bytes into a buffer of its own, and the rest into one twice as large.
    http1: http1::Builder,
    either: Builder<TokioExecutor>,
}

impl Builders {
    fn new(limits: Limits) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_time)
            .max_buf_size(limits.head_bytes)
            .max_headers(limits.headers);
        let mut either = Builder::new(TokioExecutor::new());
        either
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_time)
            .max_buf_size(limits.head_bytes)
            .max_headers(limits.headers);
        either
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MOST_STREAMS)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX));
        Self { http1, either }
    }
}

/// One connection.
struct Connection {
    shared: Arc<Shared>,
    client: Arc<Client>,
    builders: Arc<Builders>,
    watcher: Watcher,
    tls: Option<TlsAcceptor>,
}

impl Connection {
    async fn serve(self, place: Place) {
        let client = Arc::clone(&self.client);
        let mut phase = self.shared.phase.subscribe();
        let served = async {
            self.run().await;
            client.linger().await;
        };
        tokio::select! {
            () = served => {}
            // Those who still hold on are cut off.
            _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
        }
        drop(place);
    }

    async fn run(self) {
        let io = ClientIo(Arc::clone(&self.client));
        let Some(tls) = self.tls.clone() else { return self.http(io).await };
        let shaken = timeout(self.shared.settings.limits.head_time, tls.accept(io));
        // What is larger than most connections need is kept apart, here and below.
        match Box::pin(self.shared.unless_draining(shaken)).await {
            Some(Ok(Ok(stream))) => Box::pin(self.http(stream)).await,
            Some(Ok(Err(error))) => tracing::debug!(%error, "TLS handshake failed"),
            Some(Err(_)) => tracing::debug!("TLS handshake took too long"),
            None => {}
        }
    }

    async fn http<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, io: I) {
        let Self { shared, client, builders, watcher, .. } = self;
        let idle = shared.settings.limits.head_time;
        let longest_head = shared.settings.limits.head_bytes;
        let service = service_fn({
            let (shared, client) = (Arc::clone(&shared), Arc::clone(&client));
            move |request| answer(Arc::clone(&shared), Arc::clone(&client), request)
        });
        let io = Watched::new(io, Arc::clone(&client.watch), longest_head);
        let io = TokioIo::new(io);
        let served = async {
            // Those that have not begun are not watched yet, and would be waited for.
            let begins = shared.unless_draining(client.begins_as_http1()).await;
            let Some(begins_as_http1) = begins else { return };
            let ended = if begins_as_http1 {
                let connection = builders.http1.serve_connection(io, service);
                watcher.watch(connection).await.map_err(Into::into)
            } else {
                let connection = builders.either.serve_connection(io, service);
                Box::pin(watcher.watch(connection)).await
            };
            if let Err(error) = ended {
                tracing::debug!(%error, peer = %client.peer(), "connection ended");
            }
        };
        tokio::select! {
            () = served => {}
            () = client.idle(idle) => {}
        }
    }
}

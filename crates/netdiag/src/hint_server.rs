//! The hint server as `up` and `serve` run it.

use std::sync::Arc;
use std::time::Duration;

use netdiag_hints::bus::BusStatus;
use netdiag_hints::{Board, Options, router};
use netdiag_http::GivenUp;
use netdiag_pacer::{TpsRange, WhenStale};
use tokio::sync::watch;

use crate::args::ServerArgs;
use crate::args::values::HINT_PORT;
use crate::listening::Listening;
use crate::stop::Stop;

/// Threads that answer requests. An answer takes microseconds; two keep one slow serialisation from delaying the next.
const THREADS: usize = 2;

/// The server, listening already.
#[derive(Debug)]
pub(crate) struct HintServer(Listening);

impl HintServer {
    /// Listens where `args` say; `port` wins over the port there.
    pub(crate) fn bind(args: &ServerArgs, port: Option<u16>) -> anyhow::Result<Self> {
        let mut wanted = args.listen.socket(HINT_PORT);
        if let Some(port) = port {
            wanted.set_port(port);
        }
        let flags = match port {
            Some(_) => "--listen ADDR:PORT or --port N",
            None => "--listen ADDR:PORT",
        };
        Listening::bind(wanted, &args.access, flags).map(Self)
    }

    /// The port that was taken.
    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        self.0.place()
    }

    /// Serves the newest of `boards` until the stop; `bus` is where they are pushed, too.
    pub(crate) fn run(
        self,
        boards: watch::Receiver<Arc<Board>>,
        range: TpsRange,
        stale_after: Duration,
        when_stale: WhenStale,
        bus: Option<Arc<BusStatus>>,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let exposure = self.0.exposure().clone();
        let given_up = GivenUp::default();
        let options =
            Options { range, stale_after, when_stale, exposure, bus, given_up: given_up.clone() };
        self.0.serve(router(boards, options), "hints", THREADS, given_up, stop)
    }
}

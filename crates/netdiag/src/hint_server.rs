//! The hint server as `up` and `serve` run it.

use axum::Router;
use netdiag_http::{Exposure, GivenUp};

use crate::args::ServerArgs;
use crate::args::values::HINT_PORT;
use crate::listening::Listening;
use crate::place::Places;
use crate::stop::Stop;

/// Threads that answer requests. An answer takes microseconds; two keep one slow serialisation from delaying the next.
const THREADS: usize = 2;

/// The server, listening already.
#[derive(Debug)]
pub(crate) struct HintServer(Listening);

impl HintServer {
    /// Listens where `args` say; `port` wins over the port there.
    pub(crate) fn bind(
        args: &ServerArgs,
        port: Option<u16>,
        places: &Places,
    ) -> anyhow::Result<Self> {
        let mut wanted = args.listen.socket(HINT_PORT);
        if let Some(port) = port {
            wanted.set_port(port);
        }
        let flags = match port {
            Some(_) => "--listen ADDR:PORT or --port N",
            None => "--listen ADDR:PORT",
        };
        Listening::bind(wanted, &args.access, flags, places).map(Self)
    }

    /// The port that was taken.
    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// Which of a host's processes this is.
    pub(crate) fn instance(&self) -> String {
        self.0.instance()
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        self.0.place()
    }

    /// Serves `router` until the stop; whom the server turns away is counted in `given_up`.
    pub(crate) fn run(self, router: Router, given_up: GivenUp, stop: &Stop) -> anyhow::Result<()> {
        self.0.serve(router, "hints", THREADS, given_up, stop)
    }

    /// Who may ask.
    pub(crate) fn exposure(&self) -> &Exposure {
        self.0.exposure()
    }
}

//! `netdiag gateway`: a streaming proxy in front of engines.
//!
//! Flags in, a [`Gateway`] out; what it does is `netdiag-gateway`'s. Invariant: a port in use, a certificate that cannot be
//! read and an engine that is no address are told before anything is served.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use netdiag_gateway::{
    Gateway, HealthCheck, RequestLimits, Settings, UpstreamUrl, acceptor, default_limits,
};

use crate::args::AccessArgs;
use crate::args::values::{self, GATEWAY_PORT, ListenAddr};
use crate::failure::UsageError;
use crate::listening::Listening;
use crate::place::Places;
use crate::stop::Stop;
use crate::terminal::say;

/// How long tasks that are stuck may delay the end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Stand between clients and engines: pass streams on, and stop an engine's work for clients that are gone
///
/// Point clients at the gateway and the gateway at any engine with an OpenAI-compatible API; other paths and methods
/// pass as well. HTTP/1.1 and HTTP/2, with TLS if a certificate is given. Runs until SIGINT or SIGTERM; streams in
/// flight then have --drain seconds to end, and get a last event if they do not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pass requests on to this engine (repeatable).
    ///
    /// http://HOST[:PORT][/BASE] or https://…, such as http://127.0.0.1:8000; a base is put before every path. Of
    /// several the one with the fewest requests is chosen; one that cannot be reached is left out until its --health-path
    /// answers again. Several values: repeat the flag, or separate with commas. Default: none; one is needed.
    #[arg(long = "upstream", value_name = "URL", env = "NETDIAG_UPSTREAM", required = true, value_delimiter = ',',
          help_heading = "Engines", value_parser = values::upstream)]
    upstream: Vec<UpstreamUrl>,

    /// Ask engines for this path to see whether they are well.
    ///
    /// Every 2 seconds; any answer with a status below 500 counts.
    #[arg(long, value_name = "PATH", env = "NETDIAG_HEALTH_PATH", default_value = "/health",
          help_heading = "Engines", value_parser = values::path)]
    health_path: String,

    /// Listen for clients on this address: ADDR or ADDR:PORT.
    ///
    /// An IP address or `localhost`, IPv6 in brackets: 127.0.0.1:8080, [::1]:8080, 0.0.0.0:8080. Port 0 takes any free
    /// port; the one taken is printed at the start. An address that others can reach needs --auth-token-file or
    /// --no-auth.
    #[arg(long, value_name = "ADDR:PORT", env = "NETDIAG_GATEWAY_LISTEN", default_value = "127.0.0.1:8080",
          help_heading = "Clients", value_parser = values::gateway_listen)]
    listen: ListenAddr,

    /// Speak TLS with this certificate.
    ///
    /// A PEM file with the server's certificate first and those of its authorities behind it. Needs --tls-key. Default:
    /// no TLS.
    #[arg(long, value_name = "FILE", env = "NETDIAG_TLS_CERT", help_heading = "Clients")]
    tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert.
    ///
    /// A PEM file: PKCS #8, PKCS #1 or SEC 1, without a password. Default: no TLS.
    #[arg(long, value_name = "FILE", env = "NETDIAG_TLS_KEY", help_heading = "Clients")]
    tls_key: Option<PathBuf>,

    #[command(flatten)]
    access: AccessArgs,

    /// Answer at most this many requests at once.
    ///
    /// From 1 to 1000000; beyond that clients get a 503. Each takes some 20 KB and two open files.
    #[arg(long, value_name = "N", env = "NETDIAG_MAX_STREAMS", default_value = "10000", help_heading = "Limits",
          value_parser = values::at_once)]
    max_streams: usize,

    /// Refuse request bodies longer than this, in megabytes.
    ///
    /// From 1 to 4096; longer ones get a 413.
    #[arg(long, value_name = "MB", env = "NETDIAG_MAX_BODY", default_value = "64", help_heading = "Limits",
          value_parser = values::megabytes)]
    max_body: u64,

    /// Wait this long for an engine to begin its answer, in seconds.
    ///
    /// From 0.01 to 86400. Engines let requests wait in a queue, so this is their longest queue; then clients get a 504.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_FIRST_BYTE_TIME", default_value = "600", help_heading = "Limits",
          value_parser = values::window)]
    first_byte_time: Duration,

    /// Wait this long for the next byte of an answer that has begun, in seconds.
    ///
    /// From 0.01 to 86400. An event stream then ends with an error event, any other answer is cut off.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_SILENT_TIME", default_value = "300", help_heading = "Limits",
          value_parser = values::window)]
    silent_time: Duration,

    /// End answers that take longer than this altogether, in seconds.
    ///
    /// From 0.01 to 86400, as for --silent-time.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_TOTAL_TIME", default_value = "3600", help_heading = "Limits",
          value_parser = values::window)]
    total_time: Duration,

    /// When told to stop, give streams this long to end by themselves, in seconds.
    ///
    /// From 0 to 86400. New connections and requests are refused meanwhile; whoever is not done then gets an error event.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_DRAIN", default_value = "30", help_heading = "Limits",
          value_parser = values::drain)]
    drain: Duration,
}

/// Runs until a signal.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    let settings = args.settings(places)?;
    let stop = Stop::on_signals()?;
    let wanted = args.listen.socket(GATEWAY_PORT);
    let listening = Listening::bind(wanted, &args.access, "--listen ADDR:PORT")?;
    let mut place = listening.place();
    if settings.tls.is_some() {
        place = place.replacen("http://", "https://", 1);
    }
    let engines: Vec<String> = settings.upstreams.iter().map(ToString::to_string).collect();
    let gateway = Gateway::try_new(settings).map_err(|error| UsageError::new(error.to_string()))?;
    let (listener, _) = listening.into_parts();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("gateway")
        .enable_all()
        .build()
        .context("cannot start the gateway")?;
    let served: anyhow::Result<()> = runtime.block_on(async {
        let listener =
            tokio::net::TcpListener::from_std(listener).context("cannot start the gateway")?;
        say(&format!("netdiag: gateway on {place}; engines: {}", engines.join(", ")));
        gateway.serve(listener, stop.asked()).await;
        Ok(())
    });
    runtime.shutdown_timeout(PATIENCE);
    served
}

impl Args {
    fn settings(&self, places: &Places) -> Result<Settings, UsageError> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some(
                acceptor(chain, key)
                    .map_err(|error| UsageError::because("TLS is not possible", error))?,
            ),
            (Some(chain), None) => {
                let given = places.named("tls_cert", chain.display());
                return Err(UsageError::new(format!("{given} needs its key: give --tls-key")));
            }
            (None, Some(key)) => {
                let given = places.named("tls_key", key.display());
                return Err(UsageError::new(format!(
                    "{given} needs its certificate: give --tls-cert"
                )));
            }
        };
        let requests = RequestLimits {
            at_once: self.max_streams,
            body_bytes: self.max_body << 20,
            head_time: self.first_byte_time,
            silent_time: self.silent_time,
            total_time: self.total_time,
            ..RequestLimits::default()
        };
        Ok(Settings {
            upstreams: self.upstream.clone(),
            health: HealthCheck { path: self.health_path.clone(), ..HealthCheck::default() },
            tls,
            limits: default_limits(),
            requests,
            drain: self.drain,
        })
    }
}

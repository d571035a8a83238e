//! `netdiag gateway`: a streaming proxy in front of engines.
//!
//! Flags in, a [`Gateway`] out; what it does is `netdiag-gateway`'s. Invariant: a port in use, a certificate that cannot be
//! read and an engine that is no address are told before anything is served.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use netdiag_gateway::{
    Adapter, Gateway, HealthCheck, Pace, RequestLimits, Settings, UpstreamUrl, acceptor,
    default_limits,
};
use netdiag_http::{Exposure, Limits, authorities};
use netdiag_pacer::TpsRange;
use netdiag_telemetry::Tps;

use crate::args::anonymise::AnonymiseArgs;
use crate::args::otlp::OtlpArgs;
use crate::args::values::{self, ADMIN_PORT, EngineKind, GATEWAY_PORT, ListenAddr};
use crate::args::{AccessArgs, SandboxArgs};
use crate::confine::{Confinement, Needs};
use crate::failure::UsageError;
use crate::listening::Listening;
use crate::open_files::raise_limit;
use crate::otlp::{Export, Exporting};
use crate::place::Places;
use crate::stop::Stop;
use crate::terminal::say;

/// Threads that answer those who run the gateway. Their questions are few.
const ADMIN_THREADS: usize = 1;

/// Descriptors that are no client's: the engines' idle connections, the listeners, the rest of the process.
const SPARE_FILES: u64 = 256;

/// Descriptors of one client that is being answered: its socket, the pacer's handle to it, and the engine's.
const FILES_EACH: u64 = 3;

/// Room for fewer is likely to be felt.
const FEW_STREAMS: usize = 1000;

/// What a stream is always given, tokens/s, unless its path takes nothing at all: a token a second shows that it lives.
const LEAST_TPS: f64 = 1.0;

/// How long tasks that are stuck may delay the end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Stand between clients and engines: pass streams on at the pace of each client's path, and tell who made them slow
///
/// Point clients at the gateway and the gateway at any engine with an OpenAI-compatible API; other paths and methods
/// pass as well. HTTP/1.1 and HTTP/2, with TLS if a certificate is given. A client that leaves ends its work at the
/// engine at once, unless it may come back (--resume-window), and one that takes nothing is held. Each stream has a name
/// (`x-netdiag-stream-id`), by which its client may end it (`DELETE /v1/netdiag/streams/NAME`); who asks with
/// `x-netdiag-report: 1` is told in a last comment how it went. Runs until SIGINT or SIGTERM; streams in flight then have
/// --drain seconds to end, and get a last event if they do not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pass requests on to this engine (repeatable).
    ///
    /// http://HOST[:PORT][/BASE] or https://…, such as http://127.0.0.1:8000, without the /v1 of every request; a base is put
    /// before every path. Of
    /// several the one with the fewest requests is chosen; one that cannot be reached is left out until its --health-path
    /// answers again. Several values: repeat the flag, or separate with commas. Default: none; one is needed.
    #[arg(long = "upstream", value_name = "URL", env = "NETDIAG_UPSTREAM", hide_env_values = true, required = true, value_delimiter = ',',
          help_heading = "Engines", value_parser = values::upstream)]
    upstream: Vec<UpstreamUrl>,

    /// Trust these authorities in https engines, and no others.
    ///
    /// A PEM file with their certificates. That of an engine that has signed its own will do if it is no authority's (openssl
    /// req -x509 -addext basicConstraints=critical,CA:FALSE). Without an https engine it has no effect. Default: the
    /// authorities that this system trusts.
    #[arg(long, value_name = "FILE", env = "NETDIAG_UPSTREAM_CA", help_heading = "Engines")]
    upstream_ca: Option<PathBuf>,

    /// Ask engines for this path to see whether they are well.
    ///
    /// Every 2 seconds; any answer with a status below 500 counts.
    #[arg(long, value_name = "PATH", env = "NETDIAG_HEALTH_PATH", default_value = "/health",
          help_heading = "Engines", value_parser = values::path)]
    health_path: String,

    /// Hold engines for clients that take nothing in this way: generic, segment or netdiag.
    ///
    /// generic: do not read them, which works with every engine, but they go on until the buffers between are full. segment:
    /// ask for --segment-tokens tokens at a time, for engines that continue a text and keep prefixes cached; a request that
    /// cannot be continued is held as with generic. netdiag: tell them to pause and to go on, for engines with the calls of
    /// docs/engines.md, such as the demo engine of netdiag-lab.
    #[arg(long, value_name = "KIND", env = "NETDIAG_ENGINE", default_value = "generic", hide_possible_values = true,
          help_heading = "Engines", value_parser = values::engine_kind())]
    engine: EngineKind,

    /// With --engine segment, ask for this many tokens at a time.
    ///
    /// From 1 to 1000000. What a client that vanishes costs at most, besides what is under way to it; each segment costs the
    /// engine a step for its prefix. Without --engine segment it has no effect.
    #[arg(long, value_name = "N", env = "NETDIAG_SEGMENT_TOKENS", default_value = "64", help_heading = "Engines",
          value_parser = values::segment_tokens)]
    segment_tokens: NonZeroU32,

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

    /// Answer those who run the gateway on this address: ADDR or ADDR:PORT.
    ///
    /// /livez, /readyz, /metrics, and /v1/netdiag/streams, which lists the streams that are being passed on; of --listen
    /// every path is an engine's. As for --listen: port 0 takes any free port, and an address that others can reach needs
    /// --auth-token-file or --no-auth. Default: nowhere.
    #[arg(long, value_name = "ADDR:PORT", env = "NETDIAG_ADMIN_LISTEN", help_heading = "Operation",
          value_parser = values::admin_listen)]
    admin_listen: Option<ListenAddr>,

    /// Pass streams on as fast as clients take them.
    ///
    /// Then nothing is spaced, put together or told about paths; clients that are gone are noticed all the same. Default:
    /// every stream is paced.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_NO_PACING", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true, help_heading = "Pacing")]
    no_pacing: bool,

    /// Pass on at most this many tokens/s of one stream.
    ///
    /// Evens out bursts that are faster. From 0.000001 to 1000000. The default is more than engines generate for one
    /// stream.
    #[arg(long, value_name = "TPS", env = "NETDIAG_GATEWAY_MAX_TPS", default_value = "1000", help_heading = "Pacing",
          value_parser = values::rate)]
    max_tps: Tps,

    /// Expect clients to read this many tokens/s.
    ///
    /// No limit of a rate: it says how much text may be on its way to a client beyond what its path needs, half a second of
    /// it at least. From 0.000001 to 1000000. Default: 16, a fast reader.
    #[arg(long, value_name = "TPS", env = "NETDIAG_READING_TPS", help_heading = "Pacing", value_parser = values::rate)]
    reading_tps: Option<Tps>,

    /// Hold a stream for at most this long while its client takes nothing, in seconds.
    ///
    /// From 0.01 to 86400. The engine is not read meanwhile; then its work is ended, and the client's connection closed.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_HOLD_MAX", default_value = "60", help_heading = "Pacing",
          value_parser = values::window)]
    hold_max: Duration,

    /// Send a comment into a stream that has had no event for this long, in seconds.
    ///
    /// From 0 to 86400; 0 sends none. Clients pass over it; proxies on the way see that the connection lives.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_KEEP_ALIVE", default_value = "15", help_heading = "Pacing",
          value_parser = values::drain)]
    keep_alive: Duration,

    /// Let a client whose connection was lost come back for its stream within this time, in seconds.
    ///
    /// From 0 to 86400; 0: a client that leaves ends its work at once. Otherwise the engine is held, and the client goes on by
    /// `GET /v1/netdiag/streams/NAME`, or by its request once more, with the last event's id as `Last-Event-ID`; events have
    /// ids then, and the last 256 KiB of each stream are kept. Who does not want to come back says so by DELETE. Streams that
    /// wait count for --max-streams. docs/engines.md says more.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_RESUME_WINDOW", default_value = "0", help_heading = "Clients",
          value_parser = values::drain)]
    resume_window: Duration,

    /// Answer at most this many requests at once.
    ///
    /// From 1 to 1000000; beyond that clients get a 503. Each takes three open files.
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

    #[command(flatten)]
    sandbox: SandboxArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
    #[command(flatten)]
    anonymise: AnonymiseArgs,
}

/// How many clients the limit of open files has room for, and that limit.
fn room() -> (usize, u64) {
    let files = raise_limit();
    let room = (files.saturating_sub(SPARE_FILES) / FILES_EACH).max(1);
    (usize::try_from(room).unwrap_or(usize::MAX), files)
}

/// Says so where fewer streams than wanted have room.
fn tell_room(wanted: usize) {
    let (room, files) = room();
    if room >= wanted {
        return;
    }
    let enough = FILES_EACH * wanted as u64 + SPARE_FILES;
    let told = format!(
        "open files are limited to {files}: there is room for {room} streams at a time, and for --max-streams {wanted} with {enough} \
         (ulimit -n, LimitNOFILE)"
    );
    if room < FEW_STREAMS { tracing::warn!("{told}") } else { tracing::info!("{told}") }
}

/// Runs until a signal.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let wanted = args.listen.socket(GATEWAY_PORT);
    let listening = Listening::bind(wanted, &args.access, "--listen ADDR:PORT", places)?;
    let admin = args.admin_listen.map(|admin| {
        let wanted = admin.socket(ADMIN_PORT);
        Listening::bind(wanted, &args.access, "--admin-listen ADDR:PORT", places)
    });
    let admin = admin.transpose()?;
    let export =
        args.otlp.validate("netdiag-gateway", listening.instance(), places)?.map(Export::new);
    let exports = export.as_ref().map(Export::status);
    let settings = Settings { exports, ..args.settings(places, listening.exposure().clone())? };
    let mut place = listening.place();
    if settings.tls.is_some() {
        place = place.replacen("http://", "https://", 1);
    }
    let engines: Vec<String> = settings.upstreams.iter().map(ToString::to_string).collect();
    let gateway = Gateway::try_new(settings).map_err(|error| UsageError::new(error.to_string()))?;
    tell_room(args.max_streams);
    // Asked for while the control group, which may say less, can still be read.
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let needs = Needs { connects: true, ..Needs::default() };
    Confinement::new(args.sandbox, needs).enter_and_tell(None);
    // Whether it is ready is asked while it drains, too.
    let drained = Stop::new();
    let asked = admin.as_ref().map(Listening::place);
    let operation = admin.map(|admin| {
        let router = gateway.admin(admin.exposure().clone());
        admin.spawn(router, "admin", ADMIN_THREADS, gateway.turned_away_by_admin(), &drained)
    });
    let operation = operation.transpose()?;
    // Streams that end while it drains are counted, too.
    let scrapes = vec![gateway.metrics()];
    let exporting = export.map(|export| export.start(scrapes, |_| (), &drained)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("gateway")
        .enable_all()
        .build()
        .context("cannot start the gateway")?;
    let (listener, _) = listening.into_parts();
    let served: anyhow::Result<()> = runtime.block_on(async {
        let listener =
            tokio::net::TcpListener::from_std(listener).context("cannot start the gateway")?;
        let asked = asked.map_or(String::new(), |place| format!("; operation on {place}"));
        say(&format!("netdiag: gateway on {place}; engines: {}{asked}", engines.join(", ")));
        gateway.serve(listener, stop.asked()).await;
        Ok(())
    });
    runtime.shutdown_timeout(PATIENCE);
    drained.ask();
    let operated = operation.map_or(Ok(()), |thread| {
        thread.join().map_err(|_| anyhow::anyhow!("the thread for --admin-listen panicked"))?
    });
    let exported = exporting.map_or(Ok(()), Exporting::join);
    served.and(operated).and(exported)
}

impl Args {
    fn settings(&self, places: &Places, exposure: Exposure) -> Result<Settings, UsageError> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some(acceptor(chain, key).map_err(|error| {
                UsageError::because("--tls-cert and --tls-key: TLS is not possible", error)
            })?),
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
        let authorities = self.upstream_ca.as_deref().map(|path| {
            authorities(path).map_err(|error| {
                UsageError::because(places.named("upstream_ca", path.display()), error)
            })
        });
        let pace = if self.no_pacing {
            None
        } else {
            let least = Tps::try_new(LEAST_TPS.min(self.max_tps.get())).unwrap_or(self.max_tps);
            let range = TpsRange::try_new(least, self.max_tps).map_err(|error| {
                UsageError::because(places.named("max_tps", self.max_tps), error)
            })?;
            Some(Pace { range, reading: self.reading_tps, hold_max: self.hold_max })
        };
        let usual = default_limits();
        // Who connects must not use up the descriptors that answering takes.
        let (room, _) = room();
        let connections = usual.connections.min(room);
        let limits = Limits { connections, rate: self.access.rate_limit.0, ..usual };
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
            authorities: authorities.transpose()?,
            adapter: match self.engine {
                EngineKind::Generic => Adapter::Generic,
                EngineKind::Segment => Adapter::Segment(self.segment_tokens),
                EngineKind::Netdiag => Adapter::Netdiag,
            },
            health: HealthCheck { path: self.health_path.clone(), ..HealthCheck::default() },
            tls,
            exposure,
            limits,
            requests,
            pace,
            keep_alive: (self.keep_alive > Duration::ZERO).then_some(self.keep_alive),
            resume_window: (self.resume_window > Duration::ZERO).then_some(self.resume_window),
            drain: self.drain,
            exports: None,
            pseudonyms: self.anonymise.validate(places)?,
        })
    }
}

//! Flags that several commands share, each documented once.
//!
//! Parsing (here, by clap) turns text into typed values; relations between flags are checked afterwards by the
//! `validate` methods, which know where each value came from.

pub(crate) mod anonymise;
pub(crate) mod bus;
pub(crate) mod otlp;
pub(crate) mod secret;
pub(crate) mod values;

use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::{StringValueParser, TypedValueParser};
use ipnet::IpNet;
use netdiag_health::Model;
use netdiag_pacer::{TpsRange, WhenStale};
use netdiag_probe::{DEFAULT_MAX_FLOWS, FlowFilter, ProbeConfig, SourceChoice};
use netdiag_telemetry::Tps;

use crate::failure::UsageError;
use crate::pacing::Sharing;
use crate::place::Places;
use crate::sampler::Settings;
use values::{ListenAddr, NetnsPath, RateLimit};

/// The most intervals that a window may hold. Each keeps its own histogram, so this bounds the memory.
const MAX_INTERVALS: u128 = 100_000;

/// Which flows to watch, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Which flows")]
pub(crate) struct FlowArgs {
    /// Watch only connections on this local TCP port (repeatable).
    ///
    /// The port that your server listens on, 1 to 65535; not the port of our own hint server. Several values:
    /// repeat the flag, or separate with commas. Default: all ports.
    #[arg(long = "port", value_name = "N", env = "NETDIAG_PORT", value_delimiter = ',', value_parser = values::port)]
    port: Vec<u16>,

    /// Watch only connections to this network (repeatable).
    ///
    /// An address, or a network in CIDR notation: 192.0.2.0/24, 2001:db8::/32. Several values: repeat the flag, or
    /// separate with commas. Default: all addresses.
    #[arg(long = "peer", value_name = "CIDR", env = "NETDIAG_PEER", value_delimiter = ',', value_parser = values::network)]
    peer: Vec<IpNet>,

    /// Watch only this network namespace.
    ///
    /// A path (/run/netns/NAME, /proc/PID/ns/net), the name of one made with `ip netns add`, or the ID of a process in
    /// it (all digits). Default: all namespaces that can be seen.
    #[arg(long, value_name = "PATH|NAME|PID", env = "NETDIAG_NETNS", value_parser = values::netns)]
    netns: Option<NetnsPath>,

    /// Watch connections that never leave this host, too.
    ///
    /// Needed where a proxy on the same host forwards to the engine and only that hop is of interest.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_LOOPBACK", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true)]
    loopback: bool,

    /// Where measurements come from: auto, ebpf or sockdiag.
    ///
    /// `ebpf` measures every round trip at the kernel's own hooks and needs root, or CAP_BPF and CAP_PERFMON. `sockdiag`
    /// needs no privileges: it asks the kernel once per interval, or ten times a second where connections are paced one by
    /// one. `auto` takes ebpf where it loads, and otherwise sockdiag with one warning that says why.
    #[arg(long, value_name = "SOURCE", env = "NETDIAG_SOURCE", default_value = "auto",
          hide_possible_values = true, value_parser = values::source())]
    source: SourceChoice,

    /// Track at most this many flows in the kernel.
    ///
    /// A number of flows, 1 to 1048576; one to two kilobytes of kernel memory each. What there is no room for is
    /// counted and reported, and has the estimates of sockdiag. Only for the ebpf source.
    #[arg(long, value_name = "N", env = "NETDIAG_MAX_FLOWS", default_value_t = DEFAULT_MAX_FLOWS,
          value_parser = values::max_flows)]
    max_flows: u32,
}

impl FlowArgs {
    /// The probe that these flags describe.
    fn probe_config(&self) -> ProbeConfig {
        ProbeConfig {
            source: self.source,
            filter: FlowFilter {
                ports: self.port.clone(),
                peers: self.peer.clone(),
                loopback: self.loopback,
                netns: self.netns.clone().map(|netns| netns.0),
                except_ports: Vec::new(),
                except_peers: Arc::default(),
            },
            max_flows: self.max_flows,
        }
    }
}

/// How often to measure, and over how long to average.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Measure this often, in seconds.
    ///
    /// From 0.01 to 3600. Shorter reacts faster and costs more; it is also the age up to which a hint can be old.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_INTERVAL", default_value = "0.5", value_parser = values::interval)]
    interval: Duration,

    /// Compute rolling statistics over this many seconds.
    ///
    /// From 0.01 to 86400; at least --interval, and at most 100,000 intervals.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_WINDOW", default_value = "60", value_parser = values::window)]
    window: Duration,
}

impl SamplingArgs {
    /// Checks what the two have to do with each other, and says how to sample `flows`.
    pub(crate) fn validate(
        &self,
        flows: &FlowArgs,
        places: &Places,
    ) -> Result<Settings, UsageError> {
        let interval = || places.named("interval", self.interval.as_secs_f64());
        let window = || places.named("window", self.window.as_secs_f64());
        if self.window < self.interval {
            return Err(UsageError::new(format!(
                "{} is shorter than {}; give a window of at least one interval",
                window(),
                interval(),
            )));
        }
        if self.window.as_nanos() > self.interval.as_nanos() * MAX_INTERVALS {
            return Err(UsageError::new(format!(
                "{} holds more than {MAX_INTERVALS} intervals of {}; shorten the window or lengthen the interval",
                window(),
                interval(),
            )));
        }
        let (interval, window) = (self.interval, self.window);
        Ok(Settings { probe: flows.probe_config(), interval, look_every: None, window })
    }
}

/// The file that telemetry is written to.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct RowsArgs {
    /// Keep the newest N rows of the CSV file.
    ///
    /// A number of rows, at least 1; older rows are dropped now and then, so the file may be a little longer for a
    /// while. The default is about an hour at the default interval.
    #[arg(long, value_name = "N", env = "NETDIAG_MAX_SAMPLES", default_value = "8000", value_parser = values::count)]
    pub(crate) max_samples: NonZeroU64,
}

/// The range of recommended rates.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Pacing")]
pub(crate) struct RateArgs {
    /// Recommend at most this many tokens/s.
    ///
    /// What the engine can do for one stream: a link in good health is given this rate. From 0.000001 to 1000000; at
    /// least --min-tps.
    #[arg(long, value_name = "TPS", env = "NETDIAG_MAX_TPS", default_value = "80", value_parser = values::rate)]
    pub(crate) max_tps: Tps,

    /// Recommend at least this many tokens/s.
    ///
    /// The rate that the worst link is still given, so that a stream is never starved by a measurement. From 0.000001
    /// to 1000000; at most --max-tps.
    #[arg(long, value_name = "TPS", env = "NETDIAG_MIN_TPS", default_value = "5", value_parser = values::rate)]
    pub(crate) min_tps: Tps,
}

impl RateArgs {
    /// The range, if there is one.
    pub(crate) fn validate(&self, places: &Places) -> Result<TpsRange, UsageError> {
        TpsRange::try_new(self.min_tps, self.max_tps).map_err(|_| {
            UsageError::new(format!(
                "{} is above {}; lower the one or raise the other",
                places.named("min_tps", self.min_tps),
                places.named("max_tps", self.max_tps),
            ))
        })
    }
}

/// How rates are found where single connections are known.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Pacing")]
pub(crate) struct PolicyArgs {
    /// Find rates by this policy: carry or classic.
    ///
    /// `carry` asks the kernel ten times a second what the path of each connection delivers: a long way that carries everything is
    /// not slowed down, a link that is too narrow is given what it carries, and a silent one nothing. `classic` goes by the link's
    /// health, once per --interval: by its round trips and losses, as with a CSV file.
    #[arg(long, value_name = "POLICY", env = "NETDIAG_POLICY", default_value = "carry", hide_possible_values = true,
          value_parser = PolicyName::parser())]
    pub(crate) policy: PolicyName,

    /// Share out this many tokens/s among all streams.
    ///
    /// What the engine generates with all seats taken. Where streams can use more, those whose clients run dry come first, and what one
    /// cannot use is the others'. No hint is below --min-tps, so the capacity should be more than that for every stream. From 0.000001 to
    /// 1000000; for --policy carry. Default: every stream is given what its path carries.
    #[arg(long, value_name = "TPS", env = "NETDIAG_CAPACITY_TPS", value_parser = values::rate)]
    pub(crate) capacity_tps: Option<Tps>,

    /// Expect clients to read this many tokens/s.
    ///
    /// A stream is then kept some seconds of text ahead of its reader, the more the less its path can be relied upon, and not
    /// further: what nobody reads need not be generated. From 0.000001 to 1000000; for --policy carry. Default: clients take
    /// whatever comes.
    #[arg(long, value_name = "TPS", env = "NETDIAG_READING_TPS", value_parser = values::rate)]
    pub(crate) reading_tps: Option<Tps>,
}

/// A policy of `up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PolicyName {
    Classic,
    Carry,
}

impl PolicyName {
    fn parser() -> impl TypedValueParser<Value = Self> {
        StringValueParser::new().try_map(|text| match text.trim() {
            "carry" => Ok(Self::Carry),
            "classic" => Ok(Self::Classic),
            _ => Err("must be carry or classic"),
        })
    }
}

impl PolicyArgs {
    /// What connections share; `None` for the `classic` policy, to which they are nothing.
    pub(crate) fn validate(
        &self,
        range: TpsRange,
        places: &Places,
    ) -> Result<Option<Sharing>, UsageError> {
        let PolicyArgs { policy, capacity_tps: capacity, reading_tps: reading } = *self;
        if policy == PolicyName::Carry {
            return Ok(Some(Sharing { range, capacity, reading }));
        }
        let given = [("capacity_tps", capacity), ("reading_tps", reading)];
        match given.into_iter().find_map(|(name, value)| Some((name, value?))) {
            None => Ok(None),
            Some((name, value)) => Err(UsageError::new(format!(
                "{} is for the carry policy, not with {}; leave out the one or the other",
                places.named(name, value),
                places.named("policy", "classic"),
            ))),
        }
    }
}

/// What links are judged by.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Health")]
pub(crate) struct ModelArgs {
    /// Judge links by the model in this file, too.
    ///
    /// As `netdiag train` writes it. It tells which combinations of round trip and loss this host never shows; rolling
    /// quantiles of the link itself are used with and without it. Default: no file; a model is trained from the host's own
    /// traffic after 300 seconds of activity, and anew from time to time.
    #[arg(long, value_name = "FILE", env = "NETDIAG_MODEL")]
    model: Option<PathBuf>,
}

impl ModelArgs {
    /// The file's model, if a file is given.
    pub(crate) fn load(&self, places: &Places) -> Result<Option<Arc<Model>>, UsageError> {
        let Some(path) = &self.model else { return Ok(None) };
        let unusable = || format!("{}: cannot be used", places.named("model", path.display()));
        let mut bytes = Vec::new();
        // A byte more than a model may have is enough to see that it is none.
        let most = Model::LARGEST_FILE as u64 + 1;
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(
            |error| {
                let unusable = unusable();
                UsageError::new(format!("{unusable}: {error}; `netdiag train` writes one"))
            },
        )?;
        let model = Model::parse(&bytes).map_err(|error| UsageError::because(unusable(), error))?;
        Ok(Some(Arc::new(model)))
    }
}

/// Where the hint server listens and who may ask it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Hint server")]
pub(crate) struct ServerArgs {
    /// Serve hints on this address: ADDR or ADDR:PORT.
    ///
    /// An IP address or `localhost`, IPv6 in brackets: 127.0.0.1:9000, [::1]:9000, 0.0.0.0:9000. Port 0 takes any free
    /// port; the one taken is printed at the start. An address that others can reach needs --auth-token-file or
    /// --no-auth.
    #[arg(long, value_name = "ADDR:PORT", env = "NETDIAG_LISTEN", default_value = "127.0.0.1:9000", value_parser = values::listen)]
    pub(crate) listen: ListenAddr,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Who may ask a server.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Who may ask")]
pub(crate) struct AccessArgs {
    /// Ask every request for the token in this file.
    ///
    /// Its first line, sent by clients as `Authorization: Bearer TOKEN`: 16 to 1024 characters of A-Z a-z 0-9 - . _ ~ +
    /// / =, such as `openssl rand -hex 32` makes. The dashboard asks for it in a browser, once. Default: no token, which is
    /// allowed only on loopback addresses.
    #[arg(long, value_name = "FILE", env = "NETDIAG_AUTH_TOKEN_FILE")]
    pub(crate) auth_token_file: Option<PathBuf>,

    /// Serve anyone who can reach the address, without a token.
    ///
    /// Needed to listen on an address that is not loopback, if there is no --auth-token-file. Whoever can reach the
    /// port then sees the addresses of your clients.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_NO_AUTH", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true)]
    pub(crate) no_auth: bool,

    /// Answer at most this many requests/s from one address.
    ///
    /// From 0 to 1000000; 0: as many as come. Beyond that they get a 429, which says when to ask again. All of loopback is one
    /// address, and so is everybody behind one proxy; of IPv6 a /64 is. Each listener counts by itself. Wrong tokens are limited
    /// besides: 60 at once, then one a second; requests with the right one pass.
    #[arg(long, value_name = "N", env = "NETDIAG_RATE_LIMIT", default_value = "10000", value_parser = values::rate_limit)]
    pub(crate) rate_limit: RateLimit,
}

/// What a command gives up once it has begun.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Who may ask")]
pub(crate) struct SandboxArgs {
    /// Keep all privileges, files, connections and system calls.
    ///
    /// Without it the command gives up, once everything is open that it needs: capabilities, files but those that it works with,
    /// listening and connecting anew, and system calls that it does not make, as far as the kernel can (Landlock, seccomp). What is
    /// in force is logged at `info`. Give this flag where that is in the way, as where a file is a link that is changed to lead to
    /// another folder. Default: they are given up.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_NO_SANDBOX", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true)]
    pub(crate) no_sandbox: bool,
}

/// Where a command that measures shows its dashboard.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Dashboard")]
pub(crate) struct DashboardArgs {
    /// Serve the dashboard on this address: ADDR or ADDR:PORT.
    ///
    /// As --listen for hints: port 0 takes any free port, and an address that others can reach needs --auth-token-file or
    /// --no-auth.
    #[arg(long, value_name = "ADDR:PORT", env = "NETDIAG_DASHBOARD_LISTEN", default_value = "127.0.0.1:8501", value_parser = values::dashboard_listen)]
    pub(crate) dashboard_listen: ListenAddr,
}

/// What to say when telemetry stops.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Pacing")]
pub(crate) struct StaleArgs {
    /// What to recommend without fresh telemetry: max, min or hold.
    ///
    /// `max` recommends --max-tps: a broken probe must not slow a working service. `min` recommends --min-tps; `hold`
    /// asks for a pause (clients that do not know `hold` run at --min-tps). The state of such hints is `stale`.
    #[arg(long, value_name = "RATE", env = "NETDIAG_WHEN_STALE", default_value = "max", hide_possible_values = true,
          value_parser = values::when_stale())]
    pub(crate) when_stale: WhenStale,

    /// Call telemetry stale when it is this old, in seconds.
    ///
    /// From 0.01 to 86400. Default: for `up` three times --interval and at least 2; for `serve`, `pace` and `dashboard` 5, because
    /// the interval of whoever writes the file is not known.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_STALE_AFTER", value_parser = values::window)]
    pub(crate) stale_after: Option<Duration>,
}

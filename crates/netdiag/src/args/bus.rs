//! Flags of the message bus: which broker, and what is said there.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use netdiag_hints::bus::{
    BusSettings, BusUrl, Credentials, EngineName, MemberSettings, NodeName, PublishSettings, Scopes,
};
use netdiag_http::{authorities, system_roots, tls_client};
use netdiag_pacer::WhenStale;

use super::secret::secret;
use super::values;
use crate::failure::UsageError;
use crate::pacing::Sharing;
use crate::place::Places;

/// Which broker.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Message bus")]
pub(crate) struct BrokerArgs {
    /// The message bus: a NATS server, nats://HOST[:PORT] or tls://HOST[:PORT] (repeatable).
    ///
    /// Port 4222 unless given. Several servers of one cluster: repeat the flag, or separate with commas. A broker that is away is
    /// asked again at least once a second, and nothing waits for it. NAME:PASSWORD@ before HOST logs in by password, with %-codes for
    /// special characters; better keep it in the configuration file. Default: for `watch` and `fleet`
    /// nats://127.0.0.1:4222, for the others no bus.
    #[arg(long, value_name = "URL", env = "NETDIAG_BUS", hide_env_values = true, value_delimiter = ',', value_parser = values::bus)]
    bus: Vec<BusUrl>,

    /// Log in to the bus with the token in this file.
    ///
    /// Its first line. Not with --bus-creds-file. Default: no token.
    #[arg(long, value_name = "FILE", env = "NETDIAG_BUS_TOKEN_FILE")]
    bus_token_file: Option<PathBuf>,

    /// Log in to the bus with the credentials in this file.
    ///
    /// A user's JWT and seed, as `nsc` writes them (NAME.creds). Default: no credentials.
    #[arg(long, value_name = "FILE", env = "NETDIAG_BUS_CREDS_FILE")]
    bus_creds_file: Option<PathBuf>,

    /// Trust the bus by the certificate authorities in this file.
    ///
    /// PEM; a certificate that the server has signed itself does as well. For tls:// and for servers that insist on TLS. Default:
    /// those that this system trusts.
    #[arg(long, value_name = "FILE", env = "NETDIAG_BUS_CA")]
    bus_ca: Option<PathBuf>,

    /// Show the bus this certificate (chain), PEM; with --bus-key.
    ///
    /// For servers that verify their clients. Default: none is shown.
    #[arg(long, value_name = "FILE", env = "NETDIAG_BUS_CERT")]
    bus_cert: Option<PathBuf>,

    /// The key of --bus-cert, PEM.
    ///
    /// Default: none.
    #[arg(long, value_name = "FILE", env = "NETDIAG_BUS_KEY")]
    bus_key: Option<PathBuf>,
}

impl BrokerArgs {
    /// The broker, if one is given; connections to it are shown as `name`.
    pub(crate) fn settings(
        &self,
        name: &str,
        places: &Places,
    ) -> Result<Option<BusSettings>, UsageError> {
        if self.bus.is_empty() {
            let given = [
                ("bus_token_file", &self.bus_token_file),
                ("bus_creds_file", &self.bus_creds_file),
                ("bus_ca", &self.bus_ca),
                ("bus_cert", &self.bus_cert),
                ("bus_key", &self.bus_key),
            ];
            // In a file of settings for many commands it may stand for others.
            let flag = given.into_iter().find(|(name, _)| places.is_flag(name));
            return match flag {
                Some((name, Some(path))) => Err(UsageError::new(format!(
                    "{} needs a bus: give --bus nats://HOST",
                    places.named(name, path.display())
                ))),
                _ => Ok(None),
            };
        }
        self.of(self.bus.clone(), name, places).map(Some)
    }

    /// The broker, or the one on this host.
    pub(crate) fn settings_or_local(
        &self,
        name: &str,
        places: &Places,
    ) -> Result<BusSettings, UsageError> {
        let local = || values::bus("nats://127.0.0.1:4222").map_err(UsageError::new);
        let servers = if self.bus.is_empty() { vec![local()?] } else { self.bus.clone() };
        self.of(servers, name, places)
    }

    fn of(
        &self,
        servers: Vec<BusUrl>,
        name: &str,
        places: &Places,
    ) -> Result<BusSettings, UsageError> {
        let credentials = match (&self.bus_token_file, &self.bus_creds_file) {
            (Some(token), Some(creds)) => {
                return Err(UsageError::new(format!(
                    "{} and {} contradict each other; give one of them",
                    places.named("bus_token_file", token.display()),
                    places.named("bus_creds_file", creds.display()),
                )));
            }
            (Some(path), None) => Some(Credentials::Token(token(path, places)?)),
            (None, Some(path)) => {
                let text = secret(path, "bus_creds_file", places)?;
                let file = Credentials::file(text).map_err(|error| {
                    UsageError::because(places.named("bus_creds_file", path.display()), error)
                })?;
                Some(file)
            }
            (None, None) => None,
        };
        let tls = self.tls(places)?;
        Ok(BusSettings { credentials, tls, ..BusSettings::new(servers, name) })
    }

    fn tls(&self, places: &Places) -> Result<Option<rustls::ClientConfig>, UsageError> {
        let identity = match (&self.bus_cert, &self.bus_key) {
            (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
            (None, None) => None,
            (Some(cert), None) => {
                let given = places.named("bus_cert", cert.display());
                return Err(UsageError::new(format!("{given} needs its key: give --bus-key")));
            }
            (None, Some(key)) => {
                let given = places.named("bus_key", key.display());
                return Err(UsageError::new(format!(
                    "{given} needs its certificate: give --bus-cert"
                )));
            }
        };
        let Some((name, path)) = self
            .bus_ca
            .as_ref()
            .map(|path| ("bus_ca", path))
            .or(self.bus_cert.as_ref().map(|path| ("bus_cert", path)))
        else {
            return Ok(None);
        };
        let unusable = |error| UsageError::because(places.named(name, path.display()), error);
        let roots = self.bus_ca.as_deref().map_or_else(system_roots, authorities);
        roots.and_then(|roots| tls_client(roots, identity)).map(Some).map_err(unusable)
    }
}

/// What is said on the bus.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Message bus")]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    /// Speak on the bus as this node.
    ///
    /// 1 to 63 characters of A-Z a-z 0-9 - _, of which no other node has the same. Default: the host's name, with - for other
    /// characters.
    #[arg(long, value_name = "NAME", env = "NETDIAG_NODE", value_parser = values::node)]
    node: Option<NodeName>,

    /// Push the hints of these: host, peer, stream (repeatable).
    ///
    /// The host's hint is always pushed, with every board (ten times a second, or once per interval); those of peers and streams
    /// when they change by more than 2 % and three times within the time that they hold (--stale-after). Several values: repeat
    /// the flag, or separate with commas.
    #[arg(long, value_name = "SCOPE", env = "NETDIAG_BUS_SCOPE", value_delimiter = ',', default_value = "host,peer",
          value_parser = values::bus_scope())]
    bus_scope: Vec<BusScope>,

    /// Push at most this many hints per second, the host's besides.
    ///
    /// From 1 to 1000000. What does not fit waits for its turn, and is the newer then.
    #[arg(long, value_name = "N", env = "NETDIAG_BUS_RATE", default_value = "2000", value_parser = values::bus_rate)]
    bus_rate: NonZeroU32,
}

/// A value of `--bus-scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BusScope {
    Host,
    Peer,
    Stream,
}

impl PublishArgs {
    /// The name of this node.
    pub(crate) fn node(&self) -> NodeName {
        self.node.clone().unwrap_or_else(this_node)
    }

    /// The broker and what is published there, if one is given.
    pub(crate) fn validate(
        &self,
        stale_after: Duration,
        when_stale: WhenStale,
        places: &Places,
    ) -> Result<Option<(BusSettings, PublishSettings)>, UsageError> {
        let node = self.node();
        let Some(bus) = self.broker.settings(&format!("netdiag-{node}"), places)? else {
            return Ok(None);
        };
        let scopes = Scopes {
            peers: self.bus_scope.contains(&BusScope::Peer),
            streams: self.bus_scope.contains(&BusScope::Stream),
        };
        let rate = self.bus_rate.get();
        Ok(Some((bus, PublishSettings { node, scopes, rate, stale_after, when_stale })))
    }
}

/// Which engine a node shares with others.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Message bus")]
pub(crate) struct MemberArgs {
    /// Share this engine with the other nodes of a fleet.
    ///
    /// 1 to 63 characters of A-Z a-z 0-9 - _, the same on every node whose streams it generates. `netdiag fleet` then finds out
    /// what there is for each stream; while nothing is heard of it, the node keeps to what it had. --capacity-tps says what the
    /// engine generates for all nodes together. Needs --bus and --policy carry. Default: the node's streams have the engine for
    /// themselves.
    #[arg(long, value_name = "NAME", env = "NETDIAG_SHARED_ENGINE", value_parser = values::node)]
    shared_engine: Option<EngineName>,
}

impl MemberArgs {
    /// The part that `node` takes in a fleet, if any.
    pub(crate) fn validate(
        &self,
        node: NodeName,
        has_bus: bool,
        sharing: Option<Sharing>,
        places: &Places,
    ) -> Result<Option<MemberSettings>, UsageError> {
        let Some(engine) = &self.shared_engine else { return Ok(None) };
        let given = || places.named("shared_engine", engine);
        if !has_bus {
            return Err(UsageError::new(format!(
                "{} needs a bus: give --bus nats://HOST",
                given()
            )));
        }
        let Some(sharing) = sharing else {
            let policy = places.named("policy", "classic");
            return Err(UsageError::new(format!(
                "{} is for the carry policy, not with {policy}; leave out the one or the other",
                given(),
            )));
        };
        Ok(Some(MemberSettings { node, engine: engine.clone(), capacity: sharing.capacity }))
    }
}

/// A node's name unless it is given another: the host's.
pub(crate) fn this_node() -> NodeName {
    NodeName::of_host(&rustix::system::uname().nodename().to_string_lossy())
}

fn token(path: &Path, places: &Places) -> Result<String, UsageError> {
    let text = secret(path, "bus_token_file", places)?;
    match text.lines().next().unwrap_or_default().trim() {
        "" => Err(UsageError::new(format!(
            "{}: the first line is empty; put the token there",
            places.named("bus_token_file", path.display())
        ))),
        token => Ok(token.to_owned()),
    }
}

//! Flags of the export of metrics, and OpenTelemetry's own variables beneath them.
//!
//! A flag (or what stands for it) wins over `OTEL_…`, which orchestrators give to all processes alike: what they say may be meant for
//! others, so one that we can do nothing with is told, and no error unless `--otlp` asks for metrics to be pushed. Invariant: what is
//! in headers is in no complaint.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use netdiag_http::{authorities, system_roots, tls_client};
use netdiag_otlp::{Endpoint, Headers, Settings, pairs};

use super::secret::secret;
use super::values;
use crate::failure::UsageError;
use crate::place::Places;

/// How long a collector may take to answer: the specification's default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where metrics are pushed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "OpenTelemetry")]
pub(crate) struct OtlpArgs {
    /// Push metrics to this OpenTelemetry collector: http://HOST[:PORT][/PATH] or https://….
    ///
    /// Those of /metrics, by OTLP over HTTP as Protobuf, to /v1/metrics below; collectors listen on port 4318. One that is away costs
    /// nothing but its metrics: they are tried until there are newer ones. The variables OTEL_EXPORTER_OTLP_ENDPOINT and
    /// OTEL_EXPORTER_OTLP_METRICS_ENDPOINT say the same, unless OTEL_EXPORTER_OTLP_PROTOCOL asks for another than http/protobuf or
    /// OTEL_METRICS_EXPORTER for others than otlp. Default: metrics are not pushed.
    #[arg(long, value_name = "URL", env = "NETDIAG_OTLP", hide_env_values = true, value_parser = values::otlp)]
    otlp: Option<Endpoint>,

    /// Push metrics this often, in seconds.
    ///
    /// From 0.1 to 86400; at the start and at the end as well. OTEL_METRIC_EXPORT_INTERVAL (milliseconds) says the same. Default: 60.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_OTLP_INTERVAL", value_parser = values::otlp_interval)]
    otlp_interval: Option<Duration>,

    /// Show the collector the headers in this file.
    ///
    /// A line each, NAME: VALUE, such as an authorization; # begins a comment. They are never logged. OTEL_EXPORTER_OTLP_HEADERS and
    /// OTEL_EXPORTER_OTLP_METRICS_HEADERS (NAME=VALUE,NAME=VALUE) say the same. Default: none.
    #[arg(long, value_name = "FILE", env = "NETDIAG_OTLP_HEADERS_FILE")]
    otlp_headers_file: Option<PathBuf>,

    /// Trust the collector by the certificate authorities in this file.
    ///
    /// PEM; a certificate that the collector has signed itself does as well. Without https it has no effect.
    /// OTEL_EXPORTER_OTLP_CERTIFICATE says the same. Default: those that this system trusts.
    #[arg(long, value_name = "FILE", env = "NETDIAG_OTLP_CA")]
    otlp_ca: Option<PathBuf>,
}

impl OtlpArgs {
    /// Where and how to push, if anywhere. We are `service`, and of its processes `instance`.
    pub(crate) fn validate(
        &self,
        service: &str,
        instance: String,
        places: &Places,
    ) -> Result<Option<Settings>, UsageError> {
        self.resolve(service, instance, places, |name| std::env::var(name).ok())
    }

    fn resolve(
        &self,
        service: &str,
        instance: String,
        places: &Places,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Settings>, UsageError> {
        // Who gives a flag of it wants metrics pushed.
        let given = [
            ("otlp_headers_file", self.otlp_headers_file.is_some()),
            ("otlp_ca", self.otlp_ca.is_some()),
            ("otlp_interval", self.otlp_interval.is_some()),
        ];
        let is_meant = || given.into_iter().any(|(flag, is)| is && places.is_flag(flag));
        match self.settings(service, instance, places, variable) {
            Ok(settings) => Ok(settings),
            Err(Wrong::Variable(error)) if self.otlp.is_none() && !is_meant() => {
                tracing::warn!("{error}; metrics are not pushed");
                Ok(None)
            }
            Err(Wrong::Variable(error) | Wrong::Ours(error)) => Err(error),
        }
    }

    fn settings(
        &self,
        service: &str,
        instance: String,
        places: &Places,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Settings>, Wrong> {
        // "Empty is as if unset", says the specification.
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let Some(endpoint) = self.endpoint(&variable)? else {
            let given =
                [("otlp_headers_file", &self.otlp_headers_file), ("otlp_ca", &self.otlp_ca)];
            // In a file of settings for many commands they may stand for others.
            let mut given =
                given.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)));
            return match given.find(|(name, _)| places.is_flag(name)) {
                Some((name, path)) => Err(Wrong::Ours(UsageError::new(format!(
                    "{} needs a collector: give --otlp http://HOST:4318",
                    places.named(name, path.display())
                )))),
                None => Ok(None),
            };
        };
        let headers = self.headers(places, &variable)?;
        let tls = if endpoint.is_tls() { Some(self.tls(places, &variable)?) } else { None };
        let interval = match (self.otlp_interval, variable("OTEL_METRIC_EXPORT_INTERVAL")) {
            (Some(interval), _) => interval,
            (None, Some(millis)) => millis
                .trim()
                .parse()
                .ok()
                .and_then(|millis: f64| values::otlp_interval(&(millis / 1000.0).to_string()).ok())
                .ok_or_else(|| {
                    wrong(
                        "OTEL_METRIC_EXPORT_INTERVAL",
                        "must be a number of milliseconds, 100 to 86400000",
                    )
                })?,
            (None, None) => Duration::from_secs(60),
        };
        let resource = resource(service, instance, &variable)?;
        Ok(Some(Settings { endpoint, headers, tls, interval, timeout: TIMEOUT, resource }))
    }

    fn endpoint(
        &self,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Endpoint>, Wrong> {
        if let Some(endpoint) = &self.otlp {
            return Ok(Some(endpoint.clone()));
        }
        let is = |value: &str, what: &str| value.trim().eq_ignore_ascii_case(what);
        let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| is(&value, "true"));
        let exporters = variable("OTEL_METRICS_EXPORTER");
        let is_meant = exporters
            .is_none_or(|exporters| exporters.split(',').any(|exporter| is(exporter, "otlp")));
        if is_disabled || !is_meant {
            return Ok(None);
        }
        let (own, all) = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        let (name, found) = match (variable(own), variable(all)) {
            (Some(url), _) => (own, Endpoint::exactly(&url)),
            (None, Some(url)) => (all, Endpoint::of_base(&url)),
            (None, None) => return Ok(None),
        };
        // What is an address for another protocol is none for this one, so this is looked at first.
        let protocols = ["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        if let Some((name, protocol)) =
            protocols.into_iter().find_map(|name| Some((name, variable(name)?)))
            && !is(&protocol, "http/protobuf")
        {
            return Err(wrong(name, "asks for another protocol than http/protobuf"));
        }
        found.map(Some).map_err(|error| wrong(name, &error.to_string()))
    }

    fn headers(
        &self,
        places: &Places,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Headers, Wrong> {
        if let Some(path) = &self.otlp_headers_file {
            let text = secret(path, "otlp_headers_file", places)?;
            let place = || places.named("otlp_headers_file", path.display());
            let headers = Headers::of_lines(&text);
            return headers.map_err(|error| Wrong::Ours(UsageError::because(place(), error)));
        }
        let names = ["OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
        match names.into_iter().find_map(|name| Some((name, variable(name)?))) {
            Some((name, text)) => {
                Headers::of_variable(&text).map_err(|error| wrong(name, &error.to_string()))
            }
            None => Ok(Headers::default()),
        }
    }

    fn tls(
        &self,
        places: &Places,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Arc<rustls::ClientConfig>, Wrong> {
        let names = ["OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
        type Kind = fn(UsageError) -> Wrong;
        let (kind, place, path): (Kind, _, _) = match &self.otlp_ca {
            Some(path) => {
                (Wrong::Ours, places.named("otlp_ca", path.display()), Some(path.clone()))
            }
            None => match names.into_iter().find_map(|name| Some((name, variable(name)?))) {
                Some((name, path)) => {
                    (Wrong::Variable, format!("{name} {path}"), Some(PathBuf::from(path)))
                }
                None if self.otlp.is_some() => {
                    (Wrong::Variable, "--otlp https://…".to_owned(), None)
                }
                None => (Wrong::Variable, "OTEL_EXPORTER_OTLP_ENDPOINT https://…".to_owned(), None),
            },
        };
        let roots = path.as_deref().map_or_else(system_roots, authorities);
        let config = roots.and_then(|roots| tls_client(roots, None));
        config.map(Arc::new).map_err(|error| kind(UsageError::because(place, error)))
    }
}

/// Who we are. What the variables say of it wins, because who wrote them knows what is unique among many.
fn resource(
    service: &str,
    instance: String,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Wrong> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut resource = vec![
        ("service.name".to_owned(), service.to_owned()),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id".to_owned(), instance),
        ("host.name".to_owned(), host),
    ];
    let mut set = |name: String, value: String| {
        resource.retain(|(known, _)| *known != name);
        resource.push((name, value));
    };
    let attributes = "OTEL_RESOURCE_ATTRIBUTES";
    for pair in pairs(&variable(attributes).unwrap_or_default()) {
        let why = "must be NAME=VALUE,NAME=VALUE, with %-codes for special characters";
        let (name, value) = pair.ok_or_else(|| wrong(attributes, why))?;
        set(name, value);
    }
    if let Some(name) = variable("OTEL_SERVICE_NAME") {
        set("service.name".to_owned(), name);
    }
    Ok(resource)
}

/// Whose mistake it is.
enum Wrong {
    /// OpenTelemetry's variables, which may be meant for others.
    Variable(UsageError),
    /// Our own settings.
    Ours(UsageError),
}

impl From<UsageError> for Wrong {
    fn from(error: UsageError) -> Self {
        Self::Ours(error)
    }
}

fn wrong(variable: &str, why: &str) -> Wrong {
    Wrong::Variable(UsageError::new(format!("the environment's {variable}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: OtlpArgs =
        OtlpArgs { otlp: None, otlp_interval: None, otlp_headers_file: None, otlp_ca: None };

    fn resolve(
        args: &OtlpArgs,
        variables: &[(&str, &str)],
    ) -> Result<Option<Settings>, UsageError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        args.resolve("netdiag-up", "h:9000".to_owned(), &Places::default(), variable)
    }

    #[test]
    fn flags_win_over_opentelemetrys_variables() {
        let url = |args: &OtlpArgs, variables: &[(&str, &str)]| {
            let settings = resolve(args, variables).expect("valid");
            settings.map(|settings| settings.endpoint.to_string())
        };
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://own:4318/x");
        assert_eq!(url(&NONE, &[]), None);
        assert_eq!(url(&NONE, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
        assert_eq!(url(&NONE, &[all]).as_deref(), Some("http://all:4318/v1/metrics"));
        assert_eq!(url(&NONE, &[all, own]).as_deref(), Some("http://own:4318/x"));
        assert_eq!(url(&NONE, &[all, ("OTEL_SDK_DISABLED", "True")]), None);
        let exporters = |names| url(&NONE, &[all, ("OTEL_METRICS_EXPORTER", names)]).is_some();
        assert_eq!(["none", "prometheus", "console,otel"].map(exporters), [false; 3]);
        assert_eq!(["otlp", "console, OTLP", ""].map(exporters), [true; 3]);
        let protocol = |name, protocol| url(&NONE, &[all, (name, protocol)]).is_some();
        for name in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"] {
            assert_eq!(["grpc", "http/json"].map(|other| protocol(name, other)), [false; 2]);
            assert!(protocol(name, "http/protobuf"));
        }
        // As it is written for gRPC.
        assert_eq!(url(&NONE, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]), None);
        let flag = OtlpArgs { otlp: Endpoint::of_base("http://flag:1").ok(), ..NONE };
        let disabled = ("OTEL_SDK_DISABLED", "true");
        assert_eq!(url(&flag, &[all, disabled]).as_deref(), Some("http://flag:1/v1/metrics"));
    }

    #[test]
    fn who_we_are_can_be_said_otherwise() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318");
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=i%201,team=a");
        let settings = resolve(&NONE, &[all, attributes, ("OTEL_SERVICE_NAME", "mine")]);
        let resource = settings.expect("valid").expect("settings").resource;
        let value = |name: &str| {
            let found = resource.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("service.name"), Some("mine"));
        assert_eq!(value("service.instance.id"), Some("i 1"));
        assert_eq!(value("team"), Some("a"));
        assert_eq!(value("service.version"), Some(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn wrong_variables_are_named_and_not_quoted() {
        let check = |name, value| {
            let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318");
            let ours = OtlpArgs { otlp: Endpoint::of_base("http://flag:1").ok(), ..NONE };
            let error = resolve(&ours, &[(name, value)]).expect_err(name).to_string();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
            // They may be meant for others.
            let pushed = resolve(&NONE, &[(name, value), all]).expect("no error");
            assert!(pushed.is_none(), "{name}");
        };
        check("OTEL_EXPORTER_OTLP_HEADERS", "secret");
        check("OTEL_METRIC_EXPORT_INTERVAL", "1");
        check("OTEL_RESOURCE_ATTRIBUTES", "secret");
    }
}

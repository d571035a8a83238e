//! Every mistake is exit code 2 and one line that names the value, the place and the remedy.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use crate::support::{complaint, netdiag, output};

/// Runs `args`; expects exit code 2 and one line with each of `told`.
fn check(args: &[&str], told: &[&str]) {
    check_with(args, &[], told);
}

fn check_with(args: &[&str], environment: &[(&str, &str)], told: &[&str]) {
    let mut command = netdiag(args);
    command.envs(environment.iter().copied());
    let output = output(command);
    let complaint = complaint(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {complaint}");
    assert_eq!(complaint.lines().count(), 1, "{args:?}: {complaint}");
    assert!(complaint.starts_with("netdiag: error: "), "{args:?}: {complaint}");
    for told in told {
        assert!(complaint.contains(told), "{args:?}: no `{told}` in {complaint}");
    }
}

#[test]
fn times_out_of_range() {
    for command in ["agent", "up"] {
        for bad in ["0", "-1", "nan", "inf", "-inf", "1e300", "fast", "", "0.5s", "3601"] {
            let flag = format!("--interval={bad}");
            let told = format!("--interval {}: must be a", if bad.is_empty() { "''" } else { bad });
            check(&[command, &flag], &[&told, "number of seconds from 0.01 to 3600"]);
        }
        check(&[command, "--interval", "-1"], &["--interval -1: must be a number of seconds"]);
        check(&[command, "--window", "-0.5"], &["--window -0.5: must be a number of seconds"]);
        for bad in ["0", "-0.5", "NaN", "1e9"] {
            let flag = format!("--window={bad}");
            check(&[command, &flag], &["--window", bad, "number of seconds from 0.01 to 86400"]);
        }
        check(
            &[command, "--interval", "10", "--window", "2"],
            &["--window 2 is shorter than --interval 10", "at least one interval"],
        );
        check(
            &[command, "--interval", "90"],
            &["--window 60 (the default) is shorter than --interval 90"],
        );
        check(
            &[command, "--interval", "0.01", "--window", "86400"],
            &["--window 86400 holds more than 100000 intervals of --interval 0.01", "shorten"],
        );
    }
    check(&["agent", "--duration", "0"], &["--duration 0", "number of seconds"]);
    check(
        &["up", "--stale-after", "0.3"],
        &["--stale-after 0.3 is not longer than --interval 0.5 (the default)", "lengthen it"],
    );
    check(&["up", "--policy", "proteus"], &["--policy proteus", "must be carry or classic"]);
    check(&["up", "--capacity-tps", "0"], &["--capacity-tps 0", "from 0.000001"]);
    check(
        &["up", "--policy", "classic", "--reading-tps", "10"],
        &["--reading-tps 10 is for the carry policy, not with --policy classic", "leave out"],
    );
    check(&["agent", "--max-samples", "0"], &["--max-samples 0", "whole number from 1"]);
    check(&["agent", "--max-samples", "1.5"], &["--max-samples 1.5", "whole number"]);
    let long = "99999999999999999999999";
    check(&["agent", "--max-samples", long], &[long, "from 1 to 18446744073709551615"]);
    for bad in ["0", "abc"] {
        let told =
            format!("--max-tps {bad}: must be a number of tokens/s from 0.000001 to 1000000");
        check(&["up", "--max-tps", bad], &[&told]);
    }
}

#[test]
fn flows_that_cannot_be() {
    for command in ["agent", "up"] {
        check(&[command, "--port", "0"], &["--port 0", "TCP port from 1 to 65535"]);
        check(&[command, "--port", "65536"], &["--port 65536", "TCP port"]);
        check(&[command, "--port", "http"], &["--port http", "TCP port"]);
        check(&[command, "--peer", "10.0.0.0/33"], &["--peer 10.0.0.0/33", "CIDR"]);
        check(&[command, "--peer", "example.com"], &["--peer example.com", "CIDR"]);
        check(
            &[command, "--netns", "/etc/passwd"],
            &["--netns /etc/passwd", "not a network namespace"],
        );
        check(&[command, "--netns", "no-such-name"], &["--netns no-such-name", "ip netns list"]);
        check(&[command, "--netns", "4294967295"], &["--netns 4294967295", "running process"]);
        check(&[command, "--source", "magic"], &["--source magic", "auto, ebpf, sockdiag"]);
        check(&[command, "--max-flows", "0"], &["--max-flows 0", "from 1 to"]);
        check(&[command, "--loopback=perhaps"], &["--loopback perhaps: must be true or false"]);
    }
}

/// Interfaces are not looked at before the faults are known, so none of these touches one.
#[test]
fn faults_that_cannot_be() {
    let check = |faults: &str, told: &[&str]| {
        let args = ["chaos", "--iface", "lo"].into_iter().chain(faults.split_ascii_whitespace());
        check(&args.collect::<Vec<_>>(), told);
    };
    for bad in ["100", "61s", "-1ms", "fast", "1h", "nanms"] {
        let told = format!("--delay {bad}: must be a time with its unit from 0ms to 60s");
        check(&format!("--delay={bad}"), &[&told, "such as 100ms"]);
    }
    check("--jitter=5", &["--jitter 5: must be a time with its unit"]);
    for bad in ["101", "-1", "5%%", "nan", "many"] {
        let told = format!("--loss {bad}: must be a percentage from 0 to 100, such as 5%");
        check(&format!("--loss={bad}"), &[&told]);
    }
    for bad in ["1", "1mbps", "0mbit", "33gbit", "-1mbit", "slow"] {
        let told = format!("--rate {bad}: must be a rate with its unit (bit, kbit, mbit, gbit)");
        check(&format!("--rate={bad}"), &[&told, "from 1kbit to 32gbit, such as 1mbit"]);
    }
    for bad in ["0", "9ms", "25h", "-30", "soon", "30sec"] {
        let told = format!("--for {bad}: must be a time from 10ms to 24h, such as 30s or 2m");
        check(&format!("--loss 5 --for={bad}"), &[&told, "or a number of seconds"]);
    }
    check("--random --seed=-1", &["--seed -1: must be a whole number from 0"]);
    check(
        "--delay 10ms --jitter 20ms",
        &["--jitter 20ms is more than --delay 10ms", "raise the delay or lower the jitter"],
    );
    check("", &["no fault is given; add --delay, --jitter, --loss", "or --random"]);
    check("--loss 0 --delay 0ms", &["no fault is given"]);
    check("--random --rate 1mbit", &["--random", "leave out --rate 1mbit, or --random"]);
    check("--seed 7 --loss 5", &["--seed 7 is for random faults; add --random, or leave it out"]);
    check("--seed 7 --restore", &["--restore injects no faults", "leave out --seed 7"]);
    check("--delay 100ns", &["--delay 100ns: is less than the kernel's microsecond"]);
    check("--loss 0.00000001", &["--loss 0.00000001: is less than the kernel can count"]);
    // Not taken for a flag of that name.
    check("--delay -5ms", &["--delay -5ms: must be a time with its unit from 0ms to 60s"]);
    check("--for -.5s --loss 5", &["--for -.5s: must be a time from 10ms to 24h"]);
    check("--rate -1mbit", &["--rate -1mbit: must be a rate with its unit"]);
    check("--loss -5%", &["--loss -5%: must be a percentage"]);
    check("--restore --random", &["--restore injects no faults", "leave out --random"]);
    check("--restore --loss 5%", &["--restore injects no faults", "leave out --loss 5%"]);
}

#[test]
fn interfaces_that_are_not_there() {
    let told = ["--iface no-such: no such interface in this network namespace; there are", "lo"];
    check(&["chaos", "--iface", "no-such", "--loss", "5"], &told);
    check(&["chaos", "--iface", "no-such", "--restore"], &told);
    check(&["chaos", "--loss", "5"], &["no interface is given; add --iface NAME", "ip -br link"]);
    check_with(
        &["chaos", "--loss", "5"],
        &[("NETDIAG_CHAOS_IFACE", "no-such")],
        &["--iface no-such (NETDIAG_CHAOS_IFACE): no such interface"],
    );
    let both = [("NETDIAG_CHAOS_DELAY", "1ms"), ("NETDIAG_CHAOS_JITTER", "2ms")];
    check_with(
        &["chaos", "--iface", "lo"],
        &both,
        &["--jitter 2ms (NETDIAG_CHAOS_JITTER) is more than --delay 1ms (NETDIAG_CHAOS_DELAY)"],
    );
}

#[test]
fn words_that_mean_nothing() {
    check(&["completions", "tcsh"], &["tcsh", "bash, elvish, fish, powershell, zsh"]);
    check(&["man", "--out", "/no/such"], &["--out /no/such: no such folder", "make it"]);
    check(&["agnet"], &["agnet", "agent"]);
    check(&["agent", "--intervall", "1"], &["--intervall", "--interval"]);
    check(&["frobnicate"], &["'frobnicate'", "; see `netdiag --help`"]);
    check(&["up", "--foo"], &["'--foo'", "; see `netdiag up --help`"]);
    check(&["agent", "--interval"], &["--interval: needs a value; see `netdiag agent --help`"]);
    check(&["agent", "--source="], &["--source: must be one of auto, ebpf"]);
    check(&["agent", "surplus"], &["'surplus'", "; see `netdiag agent --help`"]);
    check(&["pace", "once", "upon", "a", "time"], &["'upon'", "; put the text in quotes"]);
    check(&["pace"], &["<TEXT>", "; see `netdiag pace --help`"]);
    check(
        &["agent", "--log-level", "loud"],
        &["--log-level loud", "error, warn, info, debug, trace"],
    );
    check(&["doctor", "--json=perhaps"], &["--json perhaps"]);
}

#[test]
fn the_environment_is_named() {
    let check = |variable: &str, value: &str, told: &str| {
        let bad = value.rsplit(',').next().expect("a value");
        let named = format!("{variable}={bad}: ");
        check_with(&["agent"], &[(variable, value)], &[&named, told]);
    };
    check("NETDIAG_INTERVAL", "0", "number of seconds");
    check("NETDIAG_PORT", "80,none", "TCP port");
    check("NETDIAG_LOG_LEVEL", "loud", "must be one of");
    check_with(
        &["agent", "--interval", "10"],
        &[("NETDIAG_WINDOW", "2")],
        &["--window 2 (NETDIAG_WINDOW) is shorter than --interval 10"],
    );
    for (command, variable) in [
        (&["fleet", "--bus", "local"][..], "NETDIAG_AUTH_TOKEN_FILE"),
        (&["dashboard", "--hints", "http://127.0.0.1:1"], "NETDIAG_HINTS_TOKEN_FILE"),
        (&["dashboard", "--gateway", "http://127.0.0.1:1"], "NETDIAG_GATEWAY_TOKEN_FILE"),
        (&["dashboard", "--fleet", "http://127.0.0.1:1"], "NETDIAG_FLEET_TOKEN_FILE"),
    ] {
        check_with(
            command,
            &[(variable, "/no/such")],
            &[&format!("-file /no/such ({variable}): ")],
        );
    }
}

#[test]
fn the_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("netdiag.toml");
    let file = path.to_str().expect("text");
    let check = |text: &str, told: &[&str]| {
        std::fs::write(&path, text).expect("file");
        let mut all = vec![file];
        all.extend(told);
        check(&["agent", "--config", file], &all);
    };
    check("\n[agent]\ninterval = 0\n", &[":3: interval = 0: must be a number of seconds"]);
    check("[agent]\nintervall = 1\n", &[":2: unknown key `intervall`", "did you mean `interval`?"]);
    check("interval = \n", &[":1: not valid TOML"]);
    // A mistake in another command's table is told, too.
    check("[doctor]\njson = 7\n", &[":2: json = 7"]);
    check("interval = 10\nwindow = 2", &["--window 2 (", ":2) is shorter than --interval 10 ("]);
    crate::bad_input::check(&["agent", "--config", "/no/such.toml"], &["/no/such.toml"]);
}

#[test]
fn passwords_are_not_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("netdiag.toml");
    let path = file.to_str().expect("text");
    // What is wrong with each, and what is told of it.
    let cases = [
        ("bus", "nats://me:hush@broker/x", "nats://…@broker/x"),
        // A comma separates addresses, in flags and variables.
        ("bus", "nats://me:hush,hush@broker", "nats://me:…"),
        ("otlp", "http://me:hush@c:4318", "http://…@c:4318"),
        ("otlp", "http://c:4318/?api_key=hush", "http://c:4318/?…"),
        ("otlp", "grpc://c/#hush", "grpc://c/?…"),
        ("otlp", "ftp://me:hush?hush@c", "ftp://…"),
        ("otlp", "http://me:2024?hush@c", "http://…"),
        ("otlp", "ftp://10.0.0.5/@team", "ftp://10.0.0.5/@team"),
    ];
    for (name, value, shown) in cases {
        let refused = |ways: &str, args: &[&str], environment: &[(&str, &str)], place: &str| {
            let mut command = netdiag(args);
            command.envs(environment.iter().copied());
            let output = output(command);
            let told = complaint(&output);
            assert_eq!(output.status.code(), Some(2), "{ways}: {told}");
            assert!(!told.contains("hush"), "{ways}: {told}");
            assert!(told.contains(&format!("{place}{shown}")), "{ways}: {told}");
        };
        let flag = format!("--{name}");
        refused("a flag", &["up", &flag, value], &[], &format!("{flag} "));
        if !value.contains(',') {
            refused("a word", &["up", value], &[], "'");
            refused("a command", &[value], &[], "'");
        }
        let variable = format!("NETDIAG_{}", name.to_uppercase());
        refused("a variable", &["up"], &[(&variable, value)], &format!("{variable}="));
        if !value.contains(',') {
            std::fs::write(&file, format!("{name} = \"{value}\"\n")).expect("a file");
            refused("a file", &["up", "--config", path], &[], &format!(":1: {name} = "));
        }
    }
    // Help shows what variables are set to, but not these.
    for (command, variable) in [
        ("up", "NETDIAG_OTLP"),
        ("up", "NETDIAG_BUS"),
        ("gateway", "NETDIAG_UPSTREAM"),
        ("dashboard", "NETDIAG_HINTS"),
        ("dashboard", "NETDIAG_GATEWAY"),
        ("dashboard", "NETDIAG_FLEET"),
    ] {
        let mut help = netdiag([command, "--help"]);
        help.env(variable, "http://me:hush@c");
        let told = String::from_utf8(output(help).stdout).expect("text");
        assert!(told.contains(variable) && !told.contains("hush"), "{variable}: {told}");
    }
}

#[test]
fn arguments_that_are_not_text() {
    let bad = OsStr::from_bytes(b"\xff\xfe");
    let output_of = |flag| output(netdiag([OsStr::new("agent"), OsStr::new(flag), bad]));
    assert_eq!(output_of("--log-level").status.code(), Some(2));
    for flag in ["--interval", "--peer", "--netns", "--port"] {
        let output = output_of(flag);
        assert_eq!(output.status.code(), Some(2), "{flag}: {}", complaint(&output));
        assert!(complaint(&output).contains("UTF-8"), "{flag}: {}", complaint(&output));
    }
    let mut command = netdiag(["agent"]);
    command.env("NETDIAG_INTERVAL", bad);
    let output = output(command);
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("NETDIAG_INTERVAL="), "{}", complaint(&output));
}

#[test]
fn files_that_cannot_be_written() {
    let folder = tempfile::tempdir().expect("folder");
    let foreign = folder.path().join("foreign.csv");
    std::fs::write(&foreign, "timestamp,label\n1,2\n").expect("file");
    let foreign = foreign.to_str().expect("text");
    let nowhere = folder.path().join("no/such/folder/x.csv");
    for command in ["agent", "up"] {
        check(&[command, "--csv", foreign], &[foreign, "column 2 is `label`"]);
        check(&[command, "--csv", nowhere.to_str().expect("text")], &["no/such/folder", "--csv"]);
    }
}

#[test]
fn simulations_that_cannot_be() {
    check(&["simulate", "--policies", "none,fast"], &["--policies fast", "must be one of none"]);
    check(&["simulate", "--loads", "0"], &["--loads 0", "number from 0.01 to 10"]);
    check(&["simulate", "--seeds", "0"], &["--seeds 0", "whole number from 1 to 1000"]);
    check(&["simulate", "--traces", "/nowhere"], &["--traces /nowhere", "cannot be read"]);
    check(&["simulate", "--out", "x", "--plot", "x"], &["--out", "--plot"]);
    check(&["simulate", "--seed", "3"], &["--seed is for", "give --scenario"]);
    check(&["simulate", "--streams", "9"], &["--streams is for", "give --scenario"]);
}

#[test]
fn a_gateway_that_cannot_be() {
    check(&["gateway"], &["--upstream"]);
    for bad in ["127.0.0.1:8000", "unix:/run/x", ""] {
        let flag = format!("--upstream={bad}");
        check(&["gateway", &flag], &["--upstream", "must be http://HOST"]);
    }
    check(&["gateway", "--upstream", "http://me:secret@x"], &["--upstream", "no user name"]);
    let engine = ["gateway", "--upstream", "http://127.0.0.1:1"];
    let check = |more: &[&str], told: &[&str]| check(&[&engine[..], more].concat(), told);
    check(&["--upstream", "http://127.0.0.1:1"], &["http://127.0.0.1:1 is given twice"]);
    check(&["--upstream-ca", "/no/such"], &["--upstream-ca /no/such", "No such file"]);
    check(&["--tls-cert", "/no/such"], &["--tls-cert /no/such needs its key: give --tls-key"]);
    check(&["--tls-key", "/no/such"], &["--tls-key /no/such", "give --tls-cert"]);
    check(
        &["--listen", "127.0.0.1:0", "--tls-cert", "/no/such", "--tls-key", "/no/such"],
        &["TLS is not possible", "/no/such"],
    );
    check(&["--listen", "0.0.0.0:0"], &["lets everyone", "--auth-token-file"]);
    check(&["--health-path", "health"], &["--health-path health: must be a path"]);
    check(&["--rate-limit", "-1"], &["--rate-limit -1", "from 0 to 1000000"]);
    check(&["--max-streams", "0"], &["--max-streams 0", "from 1 to 1000000"]);
    check(&["--max-body", "5000"], &["--max-body 5000", "from 1 to 4096"]);
    check(&["--drain", "-1"], &["--drain -1", "number of seconds from 0 to 86400"]);
    check(&["--resume-window", "-1"], &["--resume-window -1", "number of seconds from 0 to 86400"]);
    check(&["--hold-max", "0"], &["--hold-max 0", "number of seconds from 0.01"]);
}

#[test]
fn collectors_and_pseudonyms_that_cannot_be() {
    for bad in ["collector", "http://", "grpc://c", "http://c:99999"] {
        check(&["up", "--otlp", bad], &[&format!("--otlp {bad}: must be http://HOST[:PORT]")]);
    }
    let secret = "http://name:password@c:4318";
    check(&["gateway", "--upstream", "http://127.0.0.1:1", "--otlp", secret], &["file of headers"]);
    check(
        &["fleet", "--otlp", "http://c", "--otlp-interval", "0"],
        &["number of seconds from 0.1"],
    );
    check(
        &["serve", "--port", "0", "--otlp-headers-file", "x"],
        &["--otlp-headers-file x needs a collector", "give --otlp"],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("short");
    std::fs::write(&file, "secret").expect("written");
    let file = file.to_str().expect("text");
    let headers =
        ["up", "--listen", "127.0.0.1:0", "--otlp", "http://c", "--otlp-headers-file", file];
    check(&headers, &["--otlp-headers-file", "line 1 is no header"]);
    check(
        &["up", "--anonymise", "--anonymise-key-file", file],
        &["--anonymise-key-file", "has 6 characters", "openssl rand"],
    );
    check(&["up", "--anonymise-key-file", file], &["no effect without --anonymise"]);
}

#[test]
fn what_is_printed_is_not_followed() {
    for command in [&["serve"][..], &["pace", "a text"]] {
        let args = [command, &["--csv", "-"]].concat();
        check(&args, &["--csv -: a file is followed", "agent --csv FILE"]);
    }
}

#[test]
fn open_files_too_few_to_begin_are_told() {
    for limit in ["9", "11", "63"] {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n $0; exec \"$@\"", limit, env!("CARGO_BIN_EXE_netdiag")]);
        limited.args(["watch", "--bus", "nats://127.0.0.1:1", "--duration", "1"]);
        let output = output(limited);
        let told = format!("netdiag: error: open files are limited to {limit}, and 64 are needed");
        assert!(complaint(&output).starts_with(&told), "{}", complaint(&output));
        assert_eq!(output.status.code(), Some(1));
    }
}

//! `netdiag completions` and `netdiag man`: what shells and `man` make of them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{complaint, netdiag, output, skipped};

/// Runs a program that may not be installed here.
fn by(program: &str, args: &[&str], test: &str) -> Option<String> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {args:?}: {told}");
            Some(String::from_utf8_lossy(&output.stdout).into_owned() + &told)
        }
        Err(_) => {
            skipped(test, &format!("{program} is not installed"));
            None
        }
    }
}

/// The commands, as the help names them.
fn commands() -> Vec<String> {
    let help = output(netdiag(["--help"]));
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let (_, rest) = help.split_once("Commands:\n").expect("commands");
    let (list, _) = rest.split_once("\n\n").expect("an end");
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    names.filter(|name| name != "help").collect()
}

#[test]
fn shells_complete_commands_and_flags() {
    let folder = tempfile::tempdir().expect("folder");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = output(netdiag(["completions", shell]));
        assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
        let script = String::from_utf8(output.stdout).expect("text");
        for word in ["gateway", "admin-listen", "doctor", "max-tps"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let path = folder.path().join(shell);
        std::fs::write(&path, script).expect("file");
        let path = path.to_str().expect("text");
        let test = format!("completions of {shell}");
        match shell {
            "bash" => {
                // What Tab asks, without a terminal.
                let ask = format!(
                    "source {path}; COMP_WORDS=(netdiag gateway --adm); COMP_CWORD=2; COMP_LINE='netdiag gateway --adm'; \
                     _netdiag netdiag --adm gateway; echo \"${{COMPREPLY[@]}}\""
                );
                let told = by("bash", &["-c", &ask], &test);
                assert!(told.is_none_or(|told| told.trim() == "--admin-listen"));
            }
            "zsh" | "fish" => drop(by(shell, &["-n", path], &test)),
            _ => {}
        }
    }
}

#[test]
fn every_command_has_its_page() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = netdiag(["man", "--out"]);
    command.arg(folder.path());
    let told = output(command);
    assert_eq!(told.status.code(), Some(0), "{}", complaint(&told));
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    let mut pages = vec!["netdiag".to_owned()];
    pages.extend(commands.iter().map(|name| format!("netdiag-{name}")));
    for page in &pages {
        check_page(&folder.path().join(format!("{page}.1")), page);
    }
    let index = std::fs::read_to_string(folder.path().join("netdiag.1")).expect("a page");
    let told = index.lines().filter_map(|line| line.strip_prefix("netdiag\\-")?.split_once('('));
    let told: Vec<_> = told.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(told, commands, "those that netdiag.1 refers to");
    let there = std::fs::read_dir(folder.path()).expect("folder").count();
    assert_eq!(there, pages.len(), "{pages:?}");
}

fn check_page(path: &Path, name: &str) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let version = env!("CARGO_PKG_VERSION");
    let title = format!(".TH {} 1 \"\" \"netdiag {version}\"", name.to_uppercase());
    assert!(text.contains(&title), "{name}: no `{title}` in {text}");
    let path = path.to_str().expect("text");
    let test = "manual pages are free of what groff complains of";
    let Some(warned) = by("groff", &["-Kutf8", "-man", "-Tutf8", "-ww", "-z", path], test) else {
        return;
    };
    assert_eq!(warned, "", "{name}");
    // Without overstriking, which is how it makes letters bold.
    let plain = ["-Kutf8", "-man", "-Tutf8", "-P-cbou", path];
    let shown = by("groff", &plain, test).unwrap_or_default();
    if name == "netdiag-gateway" {
        for word in ["SYNOPSIS", "upstream", "NETDIAG_ADMIN_LISTEN"] {
            assert!(shown.contains(word), "{name}: {word}");
        }
    }
}

//! Entering a user namespace as whoever may want to: one with a binary that has capabilities, and one who may have no namespace.
//!
//! A program of its own, which starts itself again: what it tries cannot be undone in a process, and needs one with a single
//! thread. It answers to the options by which a runner lists and chooses tests as if it were one test.

#![allow(clippy::print_stdout, clippy::print_stderr)] // what a runner reads

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use netdiag_lab::{Lab, LinkSpec, ServerSide, enter_user_namespace};
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};

const NAME: &str = "user_namespace";

/// Set in a process that is to enter a namespace, and say what came of it.
const CHILD: &str = "NETDIAG_LAB_NAMESPACE";

/// Options of the usual harness whose next word is no filter.
const WITH_VALUE: [&str; 4] = ["--format", "--test-threads", "--color", "--skip"];

/// The user without rights, by the number that all distributions give him.
const NOBODY: u32 = 65534;

fn main() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    // None of its tests is one to be ignored.
    if has("--ignored") {
        return;
    }
    if has("--list") {
        return println!("{NAME}: test");
    }
    let of_an_option = |at: usize| at > 0 && WITH_VALUE.contains(&args[at - 1].as_str());
    let mut filters =
        args.iter().enumerate().filter(|(at, arg)| !arg.starts_with('-') && !of_an_option(*at));
    if filters.next().is_some_and(|(_, filter)| !NAME.contains(filter.as_str())) {
        return;
    }
    whoever_starts_it_has_a_lab();
    a_limit_of_none_is_named();
    println!("test {NAME} ... ok");
}

fn child() {
    // As the kernel makes of a binary that has capabilities from its file.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).expect("less is always allowed");
    match enter_user_namespace() {
        Ok(()) if geteuid().is_root() => {}
        Ok(()) => return println!("entered, and is not root"),
        Err(error) => return println!("{error}"),
    }
    match Lab::start(LinkSpec::default(), ServerSide::Host) {
        Ok(_) => println!("entered"),
        Err(error) => println!("entered, but: {error}"),
    }
}

/// What a process that is started by `command` says. `None` if it cannot be started.
fn said(mut command: Command) -> Option<String> {
    let output = command.env(CHILD, "1").current_dir("/").stderr(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn this_program() -> std::path::PathBuf {
    std::env::current_exe().expect("own path")
}

fn whoever_starts_it_has_a_lab() {
    let mut command = Command::new(this_program());
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    match said(command).as_deref() {
        Some("entered") => {}
        None => skipped("the program is where only root can run it"),
        // The distribution's own doing, which a person can change.
        Some(text) if text.contains("making a user namespace") && !may_unshare() => skipped(text),
        Some(text) => panic!("{text}"),
    }
}

/// Whether somebody without rights may have a user namespace here, by util-linux's word.
fn may_unshare() -> bool {
    let mut unshare = Command::new("unshare");
    if geteuid().is_root() {
        unshare.uid(NOBODY).gid(NOBODY);
    }
    let tried = unshare.args(["--user", "--map-root-user", "true"]).current_dir("/").output();
    tried.is_ok_and(|output| output.status.success())
}

fn a_limit_of_none_is_named() {
    for sysctl in ["user.max_user_namespaces", "user.max_net_namespaces"] {
        let file = sysctl.replace('.', "/");
        // The limit is that of the namespaces within a namespace.
        let script = format!("echo 0 > /proc/sys/{file} && exec \"$0\"");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", &script]).arg(this_program());
        match said(command).as_deref() {
            None | Some("") => skipped("`unshare --user` is not allowed, or not there"),
            Some(text) => assert!(text.contains(&format!("`sysctl {sysctl}=")), "{text}"),
        }
    }
}

fn skipped(why: &str) {
    eprintln!("skipped: {NAME} ({why})");
}

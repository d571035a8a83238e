//! An experiment is run by whoever may make namespaces, by whatever right.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::{short_run, short_scenario, summary};
use crate::support::{complaint, output, root, skipped, unprivileged};

/// A folder that everybody can write into.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), all).expect("mode");
    folder
}

fn is_complete(folder: &Path) {
    let summary = summary(folder);
    assert_eq!(summary["source"], "sockdiag");
    assert!(summary["arms"][0]["tokens"]["acked"].as_u64() > Some(10), "{summary}");
}

#[test]
fn without_privileges_it_makes_itself_a_user_namespace() {
    let test = "experiment::privileges::without_privileges_it_makes_itself_a_user_namespace";
    let folder = open_folder();
    let out = folder.path().join("out");
    let run = short_run(&short_scenario(folder.path(), ""), &out);
    let run: Vec<&str> = run.iter().map(String::as_str).collect();
    let Some(command) = unprivileged(test, &run) else { return };
    let output = output(command);
    if output.status.code() == Some(2) && complaint(&output).contains("user namespaces") {
        return skipped(test, "this kernel allows no user namespaces");
    }
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    is_complete(&out);
}

/// As root is in a container, with the limits that `before` sets.
fn as_in_a_container(before: &str, run: &[String]) -> Command {
    let script =
        format!("{before} exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_netdiag")).args(run);
    command
}

#[test]
fn root_of_a_container_makes_itself_a_user_namespace_too() {
    let test = "experiment::privileges::root_of_a_container_makes_itself_a_user_namespace_too";
    if !root(test) {
        return;
    }
    let folder = open_folder();
    let out = folder.path().join("out");
    let run = short_run(&short_scenario(folder.path(), ""), &out);
    let output = output(as_in_a_container("", &run));
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    is_complete(&out);
}

#[test]
fn where_no_namespace_may_be_made_it_says_what_to_do() {
    let test = "experiment::privileges::where_no_namespace_may_be_made_it_says_what_to_do";
    if !root(test) {
        return;
    }
    let folder = open_folder();
    let out = folder.path().join("out");
    let run = short_run(&short_scenario(folder.path(), ""), &out);
    // Of the user namespace that this is in, and nobody else's.
    let none = "echo 0 > /proc/sys/user/max_user_namespaces;";
    let output = output(as_in_a_container(none, &run));
    let told = complaint(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("user namespaces") && told.contains("CAP_SYS_ADMIN"), "{told}");
    assert!(!out.exists());
}

#[test]
fn without_a_tun_device_it_says_what_to_do() {
    if !root("experiment::privileges::without_a_tun_device_it_says_what_to_do") {
        return;
    }
    let folder = open_folder();
    let out = folder.path().join("out");
    // In a mount namespace of its own, where the folder of the device is empty.
    let script = "mount -t tmpfs none /dev/net && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_netdiag")]);
    command.args(short_run(&short_scenario(folder.path(), ""), &out));
    let output = output(command);
    let told = complaint(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("/dev/net/tun") && told.contains("modprobe tun"), "{told}");
    assert!(!out.exists());
}

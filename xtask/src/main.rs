//! Developer automation, as `cargo xtask COMMAND`: what continuous integration and contributors run alike.
//!
//! Invariant: everything the README promises about building and testing is one of these commands, so that none of it can
//! rot in a script that only one of the two runs.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command-line tool for people

mod bench;
mod bpf;
mod clients;
mod command;
mod fuzz;
mod median;
mod metrics;
mod package;
mod process;
mod screenshots;
mod soak;
mod test;
mod tidy;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer automation for NetDiag-LLM")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything the README promises: format, lints, tidy, BPF object, licences, documentation and all tests
    Test {
        /// Only these steps; all of them if none is named
        steps: Vec<test::Step>,
    },
    /// Checks what no compiler checks: layers, file headers and lengths, documents in step
    Tidy,
    /// Compiles the BPF program and writes its object
    Bpf {
        /// Only verify that the committed object belongs to its source
        #[arg(long)]
        check: bool,
    },
    /// Writes docs/metrics.md from what the processes register
    Metrics {
        /// Only verify that the committed document says what is registered
        #[arg(long)]
        check: bool,
    },
    /// Looks for input that breaks what reads it; exits 1 if there is some
    Fuzz {
        /// Only this target; all of them if none is named
        target: Option<fuzz::Target>,
        /// How long each is fuzzed, in seconds
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
    },
    /// Measures and compares; exits 1 if a bar is missed
    Bench {
        /// Which bench
        name: bench::Name,
        #[command(flatten)]
        options: bench::Options,
    },
    /// Asks engines with and without the gateway, by clients from PyPI and npm; exits 1 if an answer differs
    Clients(clients::Options),
    /// Makes the Debian package: binary, units, completions, manual pages
    Package,
    /// Runs everything under load and lets it all fail in turn; exits 1 if anything is lost, stuck, left behind or late
    Soak(soak::Options),
    /// Takes pictures of the dashboard in all its states, and the two that the READMEs show
    Screenshots,
    /// Boots Debian's kernels under qemu and checks eBPF and fault injection there; takes minutes
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Test { steps } => test::run(&steps),
        Task::Tidy => tidy::run(),
        Task::Bpf { check } => bpf::run(check),
        Task::Metrics { check } => metrics::run(check),
        Task::Fuzz { target, seconds } => fuzz::run(target, seconds),
        Task::Bench { name, options } => bench::run(name, &options),
        Task::Clients(options) => clients::run(&options),
        Task::Package => package::run(),
        Task::Soak(options) => soak::run(&options),
        Task::Screenshots => screenshots::run(),
        Task::Vm(options) => vm::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the checkout.
fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        // As it is now rather than as it was at build time: checkouts may share a target folder, and with it this binary.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        manifest.parent().unwrap_or(Path::new(".")).to_owned()
    });
    &ROOT
}

/// The release binary of a package's target, built first if need be.
fn release_binary(package: &str, target: &[&str], name: &str) -> anyhow::Result<PathBuf> {
    let mut arguments = vec!["build", "--release", "--quiet", "--package", package];
    arguments.extend(target);
    command::run("cargo", &arguments)?;
    Ok(target_directory().join("release").join(name))
}

/// Where builds are kept.
fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

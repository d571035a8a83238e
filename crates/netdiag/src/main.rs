//! The `netdiag` binary. Everything it does lives in [`cli`] and below; a subcommand has a file of its own in [`cmd`].

#![forbid(unsafe_code)]

mod args;
mod bus;
mod chaos;
mod cli;
mod cmd;
mod config_file;
mod confine;
mod csv_file;
mod dashboard;
mod experiment;
mod failure;
mod figures;
mod hint_server;
mod listening;
mod models;
mod open_files;
mod otlp;
mod output;
mod own_peers;
mod paced_link;
mod pacing;
mod place;
mod plot;
mod pseudonymous;
mod remote;
mod remote_hints;
mod replace;
mod rows;
mod sampler;
mod status;
mod stop;
mod terminal;
mod train;

/// What a burst of connections took goes back to the kernel when it is over: of the C library's allocators glibc's keeps more of it, and
/// musl's has one lock for all threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    // Of threads' stacks as of what is allocated, a few small pages are used and never the whole of a huge one. A kernel without
    // huge pages need not be told.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    cli::main()
}

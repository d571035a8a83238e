//! The life of the emulator's thread: it makes namespaces, interfaces and links, carries packets, and takes everything with it.

use std::io;
use std::sync::{Arc, OnceLock, mpsc};

use rand::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_tun::Tun;

use crate::device;
use crate::emulator::OneWay;
use crate::lab::{LabError, Parts, ServerSide, refused};
use crate::link::{Controls, Link};
use crate::netns::Netns;
use crate::spec::Duplex;
use crate::subnet::{Address, Subnet};

/// What threads ask for on which times depend. Packets are late while they wait for a core, and on a machine that also builds
/// and tests that is most of the error: the highest priority short of real time.
const NICENESS: i32 = -20;

/// Puts the calling thread before others. Without CAP_SYS_NICE it stays as it is.
pub(crate) fn hurry() {
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// Sets up a lab, hands it over by `ready`, and carries its packets until `stopped` says so or its sender is gone. Where that
/// comes to an end before, `failed` is told why.
pub(crate) fn emulate(
    links: &[Duplex],
    server: ServerSide,
    seed: u64,
    ready: &mpsc::Sender<Result<Parts, LabError>>,
    stopped: oneshot::Receiver<()>,
    failed: &OnceLock<String>,
) {
    hurry();
    let runtime = match Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let _ = ready.send(Err(LabError::System { doing: "starting the emulator", source }));
            return;
        }
    };
    let mut tasks = JoinSet::new();
    // Who waits for the answer is not dropped meanwhile.
    let _ = ready.send(set_up(&runtime, links, server, seed, &mut tasks));
    runtime.block_on(async {
        tokio::select! {
            _ = stopped => {}
            Some(ended) = tasks.join_next() => {
                let why = match ended {
                    Ok(Ok(())) => "a link has ended".to_owned(),
                    Ok(Err(error)) => format!("a link has failed: {error}"),
                    Err(panic) => format!("a link has failed: {panic}"),
                };
                tracing::error!("{why}; the lab carries nothing any more");
                // Told once.
                let _ = failed.set(why);
            }
        }
    });
}

fn set_up(
    runtime: &Runtime,
    links: &[Duplex],
    server: ServerSide,
    seed: u64,
    tasks: &mut JoinSet<io::Result<()>>,
) -> Result<Parts, LabError> {
    let server = match server {
        ServerSide::Namespace => new_namespace()?,
        ServerSide::Host => Netns::current().map_err(namespace_refused)?,
    };
    let mut seeds = SplitMix64::seed_from_u64(seed);
    let mut address = None;
    let mut made = Vec::with_capacity(links.len());
    for spec in links {
        let subnet = Subnet::reserve()
            .map_err(|source| LabError::System { doing: "reserving addresses", source })?;
        let address = *address.get_or_insert_with(|| subnet.server());
        let client = new_namespace()?;
        let client_end = interface(runtime, &client, subnet.client(), Some(address))?;
        let server_end = interface(runtime, &server, subnet.server(), None)?;
        let _inside = runtime.enter();
        let mut one_way = |from: &Arc<_>, to: &Arc<_>, spec| {
            OneWay::build(Arc::clone(from), Arc::clone(to), spec, seeds.next_u64(), tasks)
                .map_err(|error| LabError::Emulator(error.to_string()))
        };
        let up = one_way(&client_end, &server_end, &spec.up)?;
        let down = one_way(&server_end, &client_end, &spec.down)?;
        made.push(Link::new(Controls { up, down }, client, subnet));
    }
    let address = address.ok_or(LabError::NoLinks)?;
    Ok(Parts { links: made, server: Arc::new(server), address })
}

fn new_namespace() -> Result<Netns, LabError> {
    let make = || {
        let namespace = Netns::create()?;
        namespace.run(device::loopback_up)??;
        Ok(namespace)
    };
    make().map_err(namespace_refused)
}

/// The error for a network namespace that the kernel would not make.
pub(crate) fn namespace_refused(source: io::Error) -> LabError {
    let doing = "making a network namespace";
    match source.kind() {
        // ENOSPC, which has no other cause here.
        io::ErrorKind::StorageFull => {
            LabError::TooManyNamespaces { doing, sysctl: "user.max_net_namespaces", source }
        }
        _ => refused(doing, "CAP_SYS_ADMIN and CAP_NET_ADMIN", source),
    }
}

/// An end of a link, with a way to `server` where that is in another subnet.
fn interface(
    runtime: &Runtime,
    namespace: &Netns,
    address: Address,
    server: Option<Address>,
) -> Result<Arc<Tun>, LabError> {
    let made = namespace.run(|| device::create(runtime.handle(), address, server));
    made.flatten().map(Arc::new).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LabError::NoTun(error),
        _ => refused("making a TUN interface", "CAP_NET_ADMIN", error),
    })
}

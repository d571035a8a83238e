//! An end of the link: a TUN interface, whose other side is the emulator.
//!
//! TUN rather than a veth pair with packet sockets, which is rattan-core's own way. The interface exists as long as the
//! emulator holds its file and no longer. It offers the kernel no offload: TCP segments before the emulator sees a
//! packet and merges nothing behind it, so that a packet here is a packet on a wire. And bursts wait in the interface's
//! queue, where a packet socket drops what exceeds its buffer without a word: of 200 full packets sent at once, 93 came.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use tokio::runtime::{Builder, Handle};
use tokio_tun::Tun;

use crate::subnet::Address;

/// Ethernet's, which the paths worth emulating have.
pub(crate) const MTU: usize = 1500;

/// The interface's queue, packets. The kernel's 500 are few for a window of some megabytes that an ACK sets free at
/// once; losses must come from the link's settings alone.
const QUEUE: u32 = 10_000;

/// Creates the interface in the namespace of the calling thread, to be driven by the runtime of `handle`, with a route to
/// `beyond`.
pub(crate) fn create(
    handle: &Handle,
    address: Address,
    beyond: Option<Address>,
) -> io::Result<Tun> {
    let _inside = handle.enter();
    let tun = Tun::builder()
        // The kernel puts a number that is free there.
        .name("netdiag%d")
        .mtu(MTU as i32)
        .address(address.v4)
        .netmask(Ipv4Addr::new(255, 255, 255, 252))
        .build()
        .map_err(io_error)?
        .remove(0);
    quiet(tun.name());
    let index = tun.index().map_err(io_error)?;
    netlink(async |netlink| {
        let up = LinkMessageBuilder::<LinkUnspec>::new()
            .index(index)
            .append_extra_attribute(LinkAttribute::TxQueueLen(QUEUE))
            .up()
            .build();
        netlink.link().set(up).execute().await?;
        let mut v6 = netlink.address().add(index, IpAddr::V6(address.v6), 64);
        // Usable at once: on an interface without neighbours there are no duplicates to detect.
        v6.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        if let Err(error) = v6.execute().await {
            tracing::debug!(%error, "the link carries IPv4 only");
        }
        let Some(beyond) = beyond else { return Ok(()) };
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(beyond.v4, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        netlink.route().add(v4).execute().await?;
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(beyond.v6, 128)
            .output_interface(index)
            .build();
        if let Err(error) = netlink.route().add(v6).execute().await {
            tracing::debug!(%error, "no route to the server by IPv6");
        }
        Ok(())
    })?;
    Ok(tun)
}

/// Brings up the loopback interface of the calling thread's namespace, which is down in a new one.
pub(crate) fn loopback_up() -> io::Result<()> {
    let family: OwnedFd = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let index = name_to_index(&family, "lo")?;
    netlink(async |netlink| {
        let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
        netlink.link().set(up).execute().await
    })
}

/// Keeps the kernel from sending packets of its own accord, which a test would count. Best effort: without IPv6 there
/// is nothing to silence.
fn quiet(name: &str) {
    for (setting, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("autoconf", "0")] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{setting}"), value);
    }
}

/// Talks rtnetlink to the namespace of the calling thread.
fn netlink<F>(request: impl FnOnce(rtnetlink::Handle) -> F) -> io::Result<()>
where
    F: Future<Output = Result<(), rtnetlink::Error>>,
{
    let runtime = Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        request(handle).await.map_err(|error| match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        })
    })
}

fn io_error(error: tokio_tun::Error) -> io::Error {
    match error {
        tokio_tun::Error::NixError(errno) => errno.into(),
        tokio_tun::Error::IoError(error) => error,
    }
}

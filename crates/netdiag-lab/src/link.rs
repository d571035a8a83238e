//! A running link between a client and the server.

use std::net::IpAddr;
use std::path::Path;

use crate::emulator::OneWay;
use crate::lab::{LabError, enter};
use crate::netns::Netns;
use crate::spec::{Duplex, LinkSpec};
use crate::subnet::Subnet;

/// A direction of a link, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client: where tokens go.
    Down,
}

/// A link of a running [`Lab`](crate::Lab), and the client at its end.
pub struct Link {
    controls: Controls,
    client: Netns,
    subnet: Subnet,
}

/// What changes a link, from whatever thread.
#[derive(Clone)]
pub(crate) struct Controls {
    pub(crate) up: OneWay,
    pub(crate) down: OneWay,
}

impl Link {
    pub(crate) fn new(controls: Controls, client: Netns, subnet: Subnet) -> Self {
        Self { controls, client, subnet }
    }

    /// Changes both directions. Packets sent from now on, and those under way, are treated by the new properties; order is
    /// kept, a trace begins anew, and chance draws afresh.
    pub fn set(&self, spec: impl Into<Duplex>) -> Result<(), LabError> {
        self.controls.set(&spec.into())
    }

    /// Changes one direction, as [`Link::set`] does.
    pub fn set_direction(
        &self,
        direction: Direction,
        spec: impl Into<LinkSpec>,
    ) -> Result<(), LabError> {
        let one_way = match direction {
            Direction::Up => &self.controls.up,
            Direction::Down => &self.controls.down,
        };
        change(one_way, &spec.into())
    }

    /// The client's address.
    pub fn client_ip(&self) -> IpAddr {
        self.subnet.client().v4.into()
    }

    /// The client's IPv6 address. Where the kernel has no IPv6 nothing answers to it.
    pub fn client_ipv6(&self) -> IpAddr {
        self.subnet.client().v6.into()
    }

    /// The client's network namespace: a path that `setns` and `nsenter --net=` take while the lab runs.
    pub fn client_netns(&self) -> &Path {
        self.client.path()
    }

    /// The inode number of the client's network namespace, which is how the kernel names it.
    pub fn client_netns_inode(&self) -> u64 {
        self.client.inode()
    }

    /// Runs `task` on a thread inside the client's namespace and waits for it. The sockets it opens and the processes it
    /// starts stay there for good.
    pub fn on_client<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        enter(&self.client, task)
    }

    pub(crate) fn controls(&self) -> &Controls {
        &self.controls
    }
}

impl Controls {
    pub(crate) fn set(&self, spec: &Duplex) -> Result<(), LabError> {
        change(&self.up, &spec.up)?;
        change(&self.down, &spec.down)
    }
}

fn change(one_way: &OneWay, spec: &LinkSpec) -> Result<(), LabError> {
    one_way.set(spec).map_err(|error| LabError::Emulator(error.to_string()))
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("client", &self.client_netns())
            .field("subnet", &self.subnet)
            .finish_non_exhaustive()
    }
}

//! The eBPF source: loads the committed object, attaches three raw tracepoints and reads their maps.
//!
//! The kernel aggregates; reading is one pass over the maps per interval. A flow that closes leaves its final record in
//! a ring buffer, so the order of reading matters: flows first, closings after, spilled buckets last. A flow that closes
//! in between is then seen in both and its final record wins; in the other order it could be missed.

mod batch;
mod object;
mod records;
mod samples;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap as BpfHashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf};
use ipnet::IpNet;
use netdiag_telemetry::RttSamples;

use crate::{FlowFilter, Losses, ProbeError};
use object::{Access, HOOKS, Selection};
use samples::SampleCounter;
use table::FlowTableMap;

pub(crate) use records::Flow;

/// The attached programs and their maps.
pub(crate) struct Ebpf {
    programs: aya::Ebpf,
    table: FlowTableMap,
    closings: RingBuf<MapData>,
    stats: PerCpuArray<MapData, [u64; 4]>,
    samples: SampleCounter,
}

// aya's map types have no Debug of their own.
impl fmt::Debug for Ebpf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ebpf").field("programs", &self.program_ids()).finish_non_exhaustive()
    }
}

/// What one reading gave.
pub(crate) struct Reading<T> {
    /// Flows that are open, then flows that closed since the last reading.
    pub(crate) flows: Vec<Flow>,
    /// New RTT samples by [`Flow::id`].
    pub(crate) rtt: HashMap<u64, RttSamples>,
    /// What the caller did between the readings.
    pub(crate) between: T,
}

impl Ebpf {
    /// Loads and attaches everything, or says what failed.
    pub(crate) fn open(
        filter: &FlowFilter,
        netns: Option<u32>,
        max_flows: u32,
    ) -> Result<Self, ProbeError> {
        let selection = Selection { filter, netns, max_flows };
        let [first, second] = Access::ALL;
        Self::open_with(selection, first).or_else(|error| {
            tracing::debug!("no typed access to kernel structures: {error}");
            Self::open_with(selection, second)
        })
    }

    fn open_with(selection: Selection<'_>, access: Access) -> Result<Self, ProbeError> {
        let mut programs = object::load(selection, access)?;
        fill_filters(&mut programs, selection.filter)?;
        for (program, hook) in HOOKS {
            object::attach(&mut programs, program, hook)?;
        }
        let mut take = |name: &'static str| {
            programs.take_map(name).ok_or_else(|| ProbeError::object(format!("no map {name}")))
        };
        let (flows, details) = (array_data(take("flows")?)?, array_data(take("details")?)?);
        let spilled = hash_data(take("spilled")?)?;
        let closings = RingBuf::try_from(take("closings")?).map_err(ProbeError::object)?;
        let stats = PerCpuArray::try_from(take("stats")?).map_err(ProbeError::object)?;
        Ok(Self {
            programs,
            table: FlowTableMap::try_new(flows, details).map_err(ProbeError::object)?,
            closings,
            stats,
            samples: SampleCounter::try_new(spilled).map_err(ProbeError::object)?,
        })
    }

    /// Reads flows, does `between`, then reads closings and spilled octaves.
    pub(crate) fn read<T>(
        &mut self,
        between: impl FnOnce(&[Flow]) -> T,
    ) -> Result<Reading<T>, ProbeError> {
        let mut flows = self.table.read();
        let between = between(&flows);
        let mut closed = Vec::new();
        while let Some(item) = self.closings.next() {
            closed.extend(item.first_chunk().and_then(Flow::parse_closed));
        }
        let gone: HashSet<u64> = closed.iter().map(|flow| flow.id).collect();
        flows.retain(|flow| !gone.contains(&flow.id));
        flows.append(&mut closed);
        let rtt = self.samples.advance(&flows)?;
        Ok(Reading { flows, rtt, between })
    }

    /// What the maps had no room for.
    pub(crate) fn losses(&self) -> Losses {
        let mut losses = Losses::default();
        if let Ok(values) = self.stats.get(&0, 0) {
            for &[_next_id, flows, rtt_samples, closings] in values.iter() {
                losses.flows += flows;
                losses.rtt_samples += rtt_samples;
                losses.closings += closings;
            }
        }
        losses
    }

    /// The kernel's identifiers of the programs, for statistics on their cost.
    pub(crate) fn program_ids(&self) -> Vec<(&'static str, u32)> {
        let id = |name| {
            let info = self.programs.program(name)?.info().ok()?;
            Some((name, info.id()))
        };
        HOOKS.iter().filter_map(|&(name, _)| id(name)).collect()
    }
}

/// Tries each hook by itself: loads its program and attaches it for a moment.
pub(crate) fn try_hooks() -> Vec<(&'static str, Result<(), ProbeError>)> {
    let filter = FlowFilter::default();
    let selection = Selection { filter: &filter, netns: None, max_flows: 1 };
    let attempt = |program, hook, access| {
        let mut programs = object::load(selection, access)?;
        object::attach(&mut programs, program, hook)
    };
    let [first, second] = Access::ALL;
    HOOKS
        .iter()
        .map(|&(program, hook)| {
            (hook, attempt(program, hook, first).or_else(|_| attempt(program, hook, second)))
        })
        .collect()
}

fn fill_filters(programs: &mut aya::Ebpf, filter: &FlowFilter) -> Result<(), ProbeError> {
    let missing = |name| ProbeError::object(format!("no map {name}"));
    let mut ports: BpfHashMap<_, u16, u8> = programs
        .map_mut("ports")
        .ok_or_else(|| missing("ports"))?
        .try_into()
        .map_err(ProbeError::object)?;
    for &port in &filter.ports {
        ports.insert(port, 1, 0).map_err(ProbeError::object)?;
    }
    let mut peers: LpmTrie<_, [u8; 16], u8> = programs
        .map_mut("peers")
        .ok_or_else(|| missing("peers"))?
        .try_into()
        .map_err(ProbeError::object)?;
    // IPv4 lives inside IPv6 here, but `::/0` must not match it: the longest prefix decides, so IPv4 as a whole is out
    // unless one of its networks is named.
    let ipv4 = Key::new(96, std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets());
    peers.insert(&ipv4, 0, 0).map_err(ProbeError::object)?;
    for net in &filter.peers {
        let (bits, address) = match net {
            IpNet::V4(net) => (96 + u32::from(net.prefix_len()), net.network().to_ipv6_mapped()),
            IpNet::V6(net) => (u32::from(net.prefix_len()), net.network()),
        };
        peers.insert(&Key::new(bits, address.octets()), 1, 0).map_err(ProbeError::object)?;
    }
    Ok(())
}

fn hash_data(map: Map) -> Result<MapData, ProbeError> {
    match map {
        Map::HashMap(data) => Ok(data),
        other => Err(ProbeError::object(format!("unexpected kind of map: {other:?}"))),
    }
}

fn array_data(map: Map) -> Result<MapData, ProbeError> {
    match map {
        Map::Array(data) => Ok(data),
        other => Err(ProbeError::object(format!("unexpected kind of map: {other:?}"))),
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    // A verifier log has many lines and follows the message; the first line says what went wrong.
    text.lines().next().unwrap_or_default().to_owned()
}

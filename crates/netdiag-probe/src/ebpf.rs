//! The eBPF source: loads the committed object, attaches three raw tracepoints and reads their maps.
//!
//! The kernel aggregates; reading is one pass over the maps per interval. A flow that closes leaves its final record in
//! a ring buffer, so the order of reading matters: flows first, closings after, buckets last. A flow that closes in
//! between is then seen in both and its final record wins; in the other order it could be missed.

mod batch;
mod records;

use std::collections::{HashMap, HashSet};
use std::fmt;

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap as BpfHashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Btf, EbpfLoader};
use ipnet::IpNet;
use netdiag_telemetry::RttSamples;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{FlowFilter, Losses, ProbeError};
use batch::MapReader;
use records::{Bucket, BucketKey};

pub(crate) use records::Flow;

/// The compiled `bpf/netdiag.bpf.c`, committed so that building needs no clang; `cargo xtask bpf --check` proves that it
/// belongs to its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/netdiag.bpf.o");

/// The programs and the raw tracepoints they attach to, in the order of attaching: state changes first, so that no flow
/// is tracked whose closing could be missed.
pub(crate) const HOOKS: [(&str, &str); 3] = [
    ("on_set_state", "inet_sock_set_state"),
    ("on_retransmit", "tcp_retransmit_skb"),
    ("on_tcp_probe", "tcp_probe"),
];

/// Flows tracked at once unless the user asks for another number: several times the sockets of a busy host, at about
/// 150 bytes of kernel memory each.
const DEFAULT_MAX_FLOWS: u32 = 65_536;

/// Histogram buckets per flow that memory is set aside for. A flow's RTT usually stays within a few buckets, and idle
/// flows use none.
const BUCKETS_PER_FLOW: u32 = 4;

/// The attached programs and their maps.
pub(crate) struct Ebpf {
    programs: aya::Ebpf,
    flows: MapReader<8, 88>,
    buckets: MapReader<16, 16>,
    closings: RingBuf<MapData>,
    stats: PerCpuArray<MapData, [u64; 4]>,
    /// Bucket counts at the last reading.
    counted: HashMap<BucketKey, Bucket>,
    /// Flows whose buckets were there last time without a flow or a closing to belong to.
    orphans: HashSet<u64>,
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
        max_flows: Option<u32>,
    ) -> Result<Self, ProbeError> {
        let mut programs = load(filter, netns, max_flows.unwrap_or(DEFAULT_MAX_FLOWS))?;
        fill_filters(&mut programs, filter)?;
        for (program, hook) in HOOKS {
            attach(&mut programs, program, hook)?;
        }
        let mut take = |name: &'static str| {
            programs.take_map(name).ok_or_else(|| ProbeError::object(format!("no map {name}")))
        };
        let (flows, buckets) = (take("flows")?, take("buckets")?);
        let closings = RingBuf::try_from(take("closings")?).map_err(ProbeError::object)?;
        let stats = PerCpuArray::try_from(take("stats")?).map_err(ProbeError::object)?;
        Ok(Self {
            programs,
            flows: MapReader::try_new(hash_map(flows)?).map_err(ProbeError::object)?,
            buckets: MapReader::try_new(hash_map(buckets)?).map_err(ProbeError::object)?,
            closings,
            stats,
            counted: HashMap::new(),
            orphans: HashSet::new(),
        })
    }

    /// Reads flows, does `between`, then reads closings and RTT buckets.
    pub(crate) fn read<T>(
        &mut self,
        between: impl FnOnce(&[Flow]) -> T,
    ) -> Result<Reading<T>, ProbeError> {
        let mut flows = Vec::new();
        self.flows
            .for_each(|_key, value| flows.push(Flow::from_bytes(value)))
            .map_err(|source| ProbeError::Map { map: "flows", source })?;
        let between = between(&flows);
        let mut closed = Vec::new();
        while let Some(item) = self.closings.next() {
            if let Some(bytes) = item.first_chunk() {
                closed.push(Flow::from_bytes(bytes));
            }
        }
        let gone: HashSet<u64> = closed.iter().map(|flow| flow.id).collect();
        flows.retain(|flow| !gone.contains(&flow.id));
        flows.append(&mut closed);
        let rtt = self.read_buckets(&flows)?;
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

    fn read_buckets(&mut self, flows: &[Flow]) -> Result<HashMap<u64, RttSamples>, ProbeError> {
        let open: HashSet<u64> = flows.iter().filter(|f| !f.closed).map(|f| f.id).collect();
        let closed: HashSet<u64> = flows.iter().filter(|f| f.closed).map(|f| f.id).collect();
        let mut fresh: HashMap<u64, (Vec<(u16, u32)>, u64)> = HashMap::new();
        let mut finished = Vec::new();
        let mut orphans = HashSet::new();
        let (counted, known_orphans) = (&mut self.counted, &self.orphans);
        self.buckets
            .for_each(|key, value| {
                let (key, now) = (BucketKey::from_bytes(key), Bucket::from_bytes(value));
                let before = counted.insert(key, now).unwrap_or_default();
                let count = now.count.wrapping_sub(before.count);
                if count > 0 {
                    let (buckets, sum) = fresh.entry(key.id).or_default();
                    buckets.push((key.bucket as u16, count));
                    *sum += now.sum_us.wrapping_sub(before.sum_us);
                }
                if closed.contains(&key.id) {
                    finished.push(key);
                } else if !open.contains(&key.id) {
                    // Opened after the flows were read, or its closing was lost: the next reading tells.
                    if known_orphans.contains(&key.id) {
                        finished.push(key);
                    } else {
                        orphans.insert(key.id);
                    }
                }
            })
            .map_err(|source| ProbeError::Map { map: "buckets", source })?;
        self.orphans = orphans;
        for key in finished {
            self.counted.remove(&key);
            // Gone already is as good as removed.
            let _ = self.buckets.delete(&key.to_bytes());
        }
        let samples = |(buckets, sum)| RttSamples::from_buckets(buckets, sum);
        Ok(fresh.into_iter().map(|(id, parts)| (id, samples(parts))).collect())
    }
}

/// Tries each hook by itself: loads its program and attaches it for a moment.
pub(crate) fn try_hooks() -> Vec<(&'static str, Result<(), ProbeError>)> {
    let filter = FlowFilter::default();
    HOOKS
        .iter()
        .map(|&(program, hook)| {
            let attempt = load(&filter, None, 1)
                .and_then(|mut programs| attach(&mut programs, program, hook));
            (hook, attempt)
        })
        .collect()
}

fn load(filter: &FlowFilter, netns: Option<u32>, max_flows: u32) -> Result<aya::Ebpf, ProbeError> {
    let btf = Btf::from_sys_fs().map_err(|error| ProbeError::NoBtf(chain(&error)))?;
    // Before 5.11 maps count against RLIMIT_MEMLOCK; afterwards this does nothing. If it is refused, loading says so.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    let flag = |condition: bool| u8::from(condition);
    EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("cfg_loopback", &flag(filter.loopback), true)
        .override_global("cfg_match_ports", &flag(!filter.ports.is_empty()), true)
        .override_global("cfg_match_peers", &flag(!filter.peers.is_empty()), true)
        .override_global("cfg_netns", &netns.unwrap_or(0), true)
        .map_max_entries("flows", max_flows)
        .map_max_entries("buckets", max_flows.saturating_mul(BUCKETS_PER_FLOW))
        .map_max_entries("ports", (filter.ports.len() as u32).max(1))
        .map_max_entries("peers", filter.peers.len() as u32 + 1)
        .load(OBJECT)
        .map_err(|error| ProbeError::load("the object", &error))
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

fn attach(programs: &mut aya::Ebpf, program: &'static str, hook: &str) -> Result<(), ProbeError> {
    let loaded: &mut RawTracePoint = programs
        .program_mut(program)
        .ok_or_else(|| ProbeError::object(format!("no program {program}")))?
        .try_into()
        .map_err(ProbeError::object)?;
    loaded.load().map_err(|error| ProbeError::load(hook, &error))?;
    loaded.attach(hook).map_err(|error| ProbeError::load(hook, &error))?;
    Ok(())
}

fn hash_map(map: Map) -> Result<MapData, ProbeError> {
    match map {
        Map::HashMap(data) => Ok(data),
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

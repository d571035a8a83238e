//! The eBPF source: loads the committed object, attaches three raw tracepoints and reads their maps.
//!
//! The kernel aggregates; reading is one pass over the maps per interval. A flow that closes leaves its final record in
//! a ring buffer, so the order of reading matters: flows first, closings after, spilled buckets last. A flow that closes
//! in between is then seen in both and its final record wins; in the other order it could be missed.

mod batch;
mod records;
mod table;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap as BpfHashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Btf, EbpfLoader};
use ipnet::IpNet;
use netdiag_telemetry::RttSamples;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{FlowFilter, Losses, ProbeError};
use batch::MapReader;
use records::BucketKey;
use table::FlowTableMap;

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

/// Flows tracked at once unless the user asks for another number: several times the sockets of a busy host.
const DEFAULT_MAX_FLOWS: u32 = 32_768;

/// Slots of the flow table per flow. At half load, one flow in 65,000 finds all sixteen of its slots taken.
const SLOTS_PER_FLOW: u32 = 2;

/// Spilled histogram buckets per flow that memory is set aside for. A flow holds 16 buckets itself and only one whose
/// RTT moves by more than a factor of 1.4 spills any.
const SPILLED_PER_FLOW: u32 = 4;

/// The attached programs and their maps.
pub(crate) struct Ebpf {
    programs: aya::Ebpf,
    table: FlowTableMap,
    spilled: MapReader<16, 8>,
    closings: RingBuf<MapData>,
    stats: PerCpuArray<MapData, [u64; 4]>,
    epoch: Array<MapData, u32>,
    polls: u32,
    /// What each flow's histogram held at the last reading.
    counted: HashMap<u64, Counted>,
}

/// One flow's RTT samples so far.
#[derive(Default)]
struct Counted {
    sum_us: u64,
    count: u32,
    /// Highest count seen per bucket, sorted by bucket.
    buckets: Vec<(u16, u64)>,
    /// The reading in which the flow was last there.
    poll: u32,
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
        let (table, spilled) = (array_data(take("flows")?)?, hash_data(take("spilled")?)?);
        let closings = RingBuf::try_from(take("closings")?).map_err(ProbeError::object)?;
        let stats = PerCpuArray::try_from(take("stats")?).map_err(ProbeError::object)?;
        let epoch = Array::try_from(take(".bss")?).map_err(ProbeError::object)?;
        Ok(Self {
            programs,
            table: FlowTableMap::try_new(table).map_err(ProbeError::object)?,
            spilled: MapReader::try_new(spilled).map_err(ProbeError::object)?,
            closings,
            stats,
            epoch,
            polls: 0,
            counted: HashMap::new(),
        })
    }

    /// Reads flows, does `between`, then reads closings and spilled buckets.
    pub(crate) fn read<T>(
        &mut self,
        between: impl FnOnce(&[Flow]) -> T,
    ) -> Result<Reading<T>, ProbeError> {
        let mut flows = Vec::new();
        self.table.for_each(|slot| flows.extend(Flow::parse(slot)));
        // From here on every flow's next ACK copies its counters again.
        self.polls = self.polls.wrapping_add(1);
        self.epoch
            .set(0, self.polls, 0)
            .map_err(|error| ProbeError::Map { map: ".bss", source: io::Error::other(error) })?;
        let between = between(&flows);
        let mut closed = Vec::new();
        while let Some(item) = self.closings.next() {
            closed.extend(item.first_chunk().and_then(Flow::parse));
        }
        let gone: HashSet<u64> = closed.iter().map(|flow| flow.id).collect();
        flows.retain(|flow| !gone.contains(&flow.id));
        flows.append(&mut closed);
        let rtt = self.count_samples(&flows)?;
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

    /// The RTT samples that are new since the last reading.
    ///
    /// A bucket's count is what the flow holds plus what it spilled. The two are read at different moments, so a bucket
    /// that spills in between shows twice, once; counting only what exceeds the highest count seen makes up for it at
    /// the next reading.
    fn count_samples(&mut self, flows: &[Flow]) -> Result<HashMap<u64, RttSamples>, ProbeError> {
        let mut spilled: HashMap<u64, Vec<(u16, u64)>> = HashMap::new();
        self.spilled
            .for_each(|key, count| {
                let key = BucketKey::parse(key);
                spilled
                    .entry(key.id)
                    .or_default()
                    .push((key.bucket as u16, u64::from_ne_bytes(*count)));
            })
            .map_err(|source| ProbeError::Map { map: "spilled", source })?;

        let mut fresh = HashMap::new();
        for flow in flows {
            let counted = self.counted.entry(flow.id).or_default();
            counted.poll = self.polls;
            if flow.rtt_count == counted.count {
                continue;
            }
            let sum = flow.rtt_sum_us.saturating_sub(counted.sum_us);
            (counted.sum_us, counted.count) = (flow.rtt_sum_us, flow.rtt_count);
            let mut now: Vec<_> = spilled.get(&flow.id).cloned().unwrap_or_default();
            now.extend(flow.ways.iter().map(|&(bucket, count)| (bucket, u64::from(count))));
            now.sort_unstable();
            now.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 += if same { next.1 } else { 0 };
                same
            });
            fresh.insert(flow.id, RttSamples::from_buckets(counted.advance(&now), sum));
        }
        self.forget(flows, &spilled);
        Ok(fresh)
    }

    /// Drops what belongs to flows that are gone.
    fn forget(&mut self, flows: &[Flow], spilled: &HashMap<u64, Vec<(u16, u64)>>) {
        let closed: HashSet<u64> =
            flows.iter().filter(|flow| flow.closed).map(|flow| flow.id).collect();
        // A flow whose closing record was lost is missing without having closed. One that spilled before it was ever
        // read is in `spilled` alone, for now.
        let polls = self.polls;
        let lost = |id: &u64, counted: &HashMap<u64, Counted>| {
            counted.get(id).is_some_and(|counted| counted.poll != polls)
        };
        for (&id, buckets) in spilled {
            if closed.contains(&id) || lost(&id, &self.counted) {
                for &(bucket, _) in buckets {
                    // Gone already is as good as removed.
                    let key = BucketKey { id, bucket: bucket.into() };
                    let _ = self.spilled.delete(&key.to_bytes());
                }
            }
        }
        self.counted.retain(|id, counted| counted.poll == polls && !closed.contains(id));
    }
}

impl Counted {
    /// Takes in the buckets as they are now, sorted, and returns by how much each grew.
    fn advance(&mut self, now: &[(u16, u64)]) -> Vec<(u16, u32)> {
        let mut grown = Vec::with_capacity(now.len());
        for &(bucket, count) in now {
            let place = self.buckets.binary_search_by_key(&bucket, |&(bucket, _)| bucket);
            let before = match place {
                Ok(at) => {
                    let highest = &mut self.buckets[at].1;
                    std::mem::replace(highest, count.max(*highest))
                }
                Err(at) => {
                    self.buckets.insert(at, (bucket, count));
                    0
                }
            };
            grown.push((bucket, u32::try_from(count.saturating_sub(before)).unwrap_or(u32::MAX)));
        }
        grown
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
    let slots = max_flows
        .saturating_mul(SLOTS_PER_FLOW)
        .checked_next_power_of_two()
        .unwrap_or(1 << 31)
        .max(SLOTS_PER_FLOW);
    EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("cfg_slot_mask", &(slots - 1), true)
        .override_global("cfg_loopback", &flag(filter.loopback), true)
        .override_global("cfg_match_ports", &flag(!filter.ports.is_empty()), true)
        .override_global("cfg_match_peers", &flag(!filter.peers.is_empty()), true)
        .override_global("cfg_netns", &netns.unwrap_or(0), true)
        .map_max_entries("flows", slots)
        .map_max_entries("spilled", max_flows.saturating_mul(SPILLED_PER_FLOW).max(1))
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

//! The compiled programs: filled in for this machine, loaded and attached.
//!
//! Two instructions of the object wait for their operands. The number of slots could be a constant in `.rodata`, but that
//! is one more cache line on the path of every ACK. And aya cannot resolve kernel functions: `bpf_rdonly_cast` (Linux 6.2)
//! makes a typed pointer of a raw tracepoint's argument, so that fields are read by plain loads; kernels without it get
//! a null pointer there, and the program reads by helper calls instead.

use aya::programs::RawTracePoint;
use aya::{Btf, EbpfLoader};
use aya_obj::btf::BtfKind;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::chain;
use crate::{FlowFilter, ProbeError};

/// The compiled `bpf/netdiag.bpf.c`, committed so that building needs no clang; `cargo xtask bpf --check` proves that it
/// belongs to its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/netdiag.bpf.o");

/// The programs and the raw tracepoints they attach to, in the order of attaching: state changes first, so that no flow
/// is tracked whose closing could be missed.
pub(super) const HOOKS: [(&str, &str); 3] = [
    ("on_set_state", "inet_sock_set_state"),
    ("on_retransmit", "tcp_retransmit_skb"),
    ("on_tcp_probe", "tcp_probe"),
];

/// Slots of the flow table per flow. At half load, one flow in 65,000 finds all sixteen of its slots taken.
const SLOTS_PER_FLOW: u32 = 2;

/// Sixteen slots lie together, as many as a flow may try.
const LEAST_SLOTS: u32 = 16;

/// Spilled octaves per flow that memory is set aside for. A flow holds four octaves itself and only one whose RTT moves
/// by more than a factor of eight spills any.
const SPILLED_PER_FLOW: u32 = 1;

/// `w0 = "mask"`, the placeholder in `slot_mask()`.
const SLOT_MASK: [u8; 8] = *b"\xb4\0\0\0mask";
/// `call "cast"` of a kernel function, the placeholder in `typed()`.
const CAST: [u8; 8] = *b"\x85\x20\0\0cast";
/// `r0 = 0`.
const NULL: [u8; 8] = *b"\xb7\0\0\0\0\0\0\0";

/// How the programs read the kernel's structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// By plain loads, which the kernel guards.
    Typed,
    /// By helper calls, on every kernel.
    Copied,
}

impl Access {
    /// In the order in which they are tried.
    pub(super) const ALL: [Self; 2] = [Self::Typed, Self::Copied];
}

/// Which flows are tracked, and how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection<'a> {
    pub(super) filter: &'a FlowFilter,
    /// Inode of the only network namespace to be seen.
    pub(super) netns: Option<u32>,
    pub(super) max_flows: u32,
}

/// Creates the maps and prepares the programs.
pub(super) fn load(selection: Selection<'_>, access: Access) -> Result<aya::Ebpf, ProbeError> {
    let Selection { filter, netns, max_flows } = selection;
    let btf = Btf::from_sys_fs().map_err(|error| ProbeError::NoBtf(chain(&error)))?;
    // Before 5.11 maps count against RLIMIT_MEMLOCK; afterwards this does nothing. If it is refused, loading says so.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    let flag = |condition: bool| u8::from(condition);
    let slots = max_flows
        .saturating_mul(SLOTS_PER_FLOW)
        .checked_next_power_of_two()
        .unwrap_or(1 << 31)
        .max(LEAST_SLOTS);
    let cast = match access {
        Access::Typed => Some(
            btf.id_by_type_name_kind("bpf_rdonly_cast", BtfKind::Func)
                .map_err(|error| ProbeError::load("bpf_rdonly_cast", &error))?,
        ),
        Access::Copied => None,
    };
    EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("cfg_loopback", &flag(filter.loopback), true)
        .override_global("cfg_match_ports", &flag(!filter.ports.is_empty()), true)
        .override_global("cfg_match_peers", &flag(!filter.peers.is_empty()), true)
        .override_global("cfg_netns", &netns.unwrap_or(0), true)
        .map_max_entries("flows", slots)
        .map_max_entries("details", slots)
        .map_max_entries("spilled", max_flows.saturating_mul(SPILLED_PER_FLOW).max(1))
        .map_max_entries("ports", (filter.ports.len() as u32).max(1))
        .map_max_entries("peers", filter.peers.len() as u32 + 1)
        .load(&fill_in(OBJECT, slots - 1, cast)?)
        .map_err(|error| ProbeError::load("the object", &error))
}

/// Loads one program into the kernel and attaches it.
pub(super) fn attach(
    programs: &mut aya::Ebpf,
    program: &'static str,
    hook: &str,
) -> Result<(), ProbeError> {
    let loaded: &mut RawTracePoint = programs
        .program_mut(program)
        .ok_or_else(|| ProbeError::object(format!("no program {program}")))?
        .try_into()
        .map_err(ProbeError::object)?;
    loaded.load().map_err(|error| ProbeError::load(hook, &error))?;
    loaded.attach(hook).map_err(|error| ProbeError::load(hook, &error))?;
    Ok(())
}

/// The object with its placeholders replaced.
fn fill_in(object: &[u8], slot_mask: u32, cast: Option<u32>) -> Result<Vec<u8>, ProbeError> {
    let with = |mut instruction: [u8; 8], operand: u32| {
        instruction[4..].copy_from_slice(&operand.to_le_bytes());
        instruction
    };
    let cast = cast.map_or(NULL, |id| with(CAST, id));
    let mut object = object.to_vec();
    for (placeholder, instruction) in [(SLOT_MASK, with(SLOT_MASK, slot_mask)), (CAST, cast)] {
        let mut places = 0;
        // Sections of instructions are aligned to eight bytes in the file.
        for place in object.as_chunks_mut::<8>().0 {
            if *place == placeholder {
                *place = instruction;
                places += 1;
            }
        }
        if places == 0 {
            return Err(ProbeError::object(format!(
                "no placeholder {}",
                placeholder.escape_ascii()
            )));
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_everywhere_and_must_be_there() {
        let object = [*b"\x7fELF....", SLOT_MASK, CAST, SLOT_MASK].concat();
        let filled = fill_in(&object, 0x0102, Some(0x0304)).expect("both are there");
        let mask = *b"\xb4\0\0\0\x02\x01\0\0";
        let call = *b"\x85\x20\0\0\x04\x03\0\0";
        assert_eq!(filled, [*b"\x7fELF....", mask, call, mask].concat());
        let filled = fill_in(&object, 0x0102, None).expect("both are there");
        assert_eq!(filled, [*b"\x7fELF....", mask, NULL, mask].concat());
        fill_in(&object[..16], 1, None).expect_err("no call");
    }
}

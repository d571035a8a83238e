//! The flow table, read where it lies: two array maps whose memory the kernel shares with us (`BPF_F_MMAPABLE`).
//!
//! Reading costs no system call and no copy of the slots that are free. The kernel writes while we read, so every word
//! is an atomic load, and a slot counts only if it held the same flow before and after. While samples move from a flow to
//! its histogram, the flow's version changes; then it is read again. Single counters are whole (aligned words); that two of
//! them are an ACK apart does no harm, since all are cumulative.

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::records::{DETAIL_SIZE, FLOW_SIZE, Flow, STALE};

/// Words of `struct nd_flow`.
const SK: usize = 0;
/// `version` is the lower half of it.
const VERSION: usize = 3;
/// The word of `struct nd_detail` that says whose slot it is; written last and cleared first.
const ID: usize = 0;

/// How often a slot is read again before it is taken as it is. The kernel needs less than a microsecond to move samples,
/// unless its CPU is taken away meanwhile; a bucket that then shows twice is corrected at the next reading.
const ATTEMPTS: u32 = 100;

/// Both maps: the same index in each is one flow.
pub(super) struct FlowTableMap {
    flows: SharedArray<FLOW_SIZE>,
    details: SharedArray<DETAIL_SIZE>,
}

impl FlowTableMap {
    pub(super) fn try_new(flows: MapData, details: MapData) -> io::Result<Self> {
        let (flows, details) = (SharedArray::try_new(flows)?, SharedArray::try_new(details)?);
        if flows.slots != details.slots {
            let message = format!("{} flows with {} details", flows.slots, details.slots);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self { flows, details })
    }

    /// The flows as they are now. Their counters are copied again by the kernel on the next ACK of each.
    pub(super) fn read(&self) -> Vec<Flow> {
        let mut found = Vec::new();
        for slot in 0..self.flows.slots {
            let owner = self.flows.word(slot, SK);
            if owner == 0 {
                continue;
            }
            let id = self.details.word(slot, ID);
            let flow = self.copy(slot);
            // The kernel may have taken the slot from one flow and given it to another.
            if id == self.details.word(slot, ID)
                && owner == self.flows.word(slot, SK)
                && let Some(flow) = flow
            {
                found.push(flow);
                self.flows.set_byte(slot, STALE, 1);
            }
        }
        found
    }

    /// A slot at one moment between two movements of samples.
    fn copy(&self, slot: usize) -> Option<Flow> {
        let version = || self.flows.word(slot, VERSION) as u32;
        let (mut flow, mut detail) = ([0; FLOW_SIZE], [0; DETAIL_SIZE]);
        for _ in 0..ATTEMPTS {
            let before = version();
            fence(Ordering::Acquire);
            self.flows.copy(slot, &mut flow);
            self.details.copy(slot, &mut detail);
            fence(Ordering::Acquire);
            if before % 2 == 0 && before == version() {
                break;
            }
            std::hint::spin_loop();
        }
        Flow::parse(&flow, &detail)
    }
}

/// A mapped array of records of `N` bytes, a multiple of 8.
struct SharedArray<const N: usize> {
    words: NonNull<AtomicU64>,
    slots: usize,
    /// Keeps the map, and with it the memory, alive.
    _map: MapData,
}

// SAFETY: the mapping belongs to this value alone, is accessed through atomics only, and is valid on every thread.
unsafe impl<const N: usize> Send for SharedArray<N> {}

impl<const N: usize> SharedArray<N> {
    fn try_new(map: MapData) -> io::Result<Self> {
        const { assert!(N.is_multiple_of(8)) };
        let info = map.info().map_err(io::Error::other)?;
        let (value, slots) = (info.value_size() as usize, info.max_entries() as usize);
        if value != N || slots == 0 {
            let message = format!("{slots} slots of {value} bytes, expected {N}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        // SAFETY: a new mapping at an address of the kernel's choosing touches nothing that exists.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                slots * N,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        }?;
        let words =
            NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { words, slots, _map: map })
    }

    fn copy(&self, slot: usize, to: &mut [u8; N]) {
        for (index, bytes) in to.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *bytes = self.word(slot, index).to_ne_bytes();
        }
    }

    fn word(&self, slot: usize, word: usize) -> u64 {
        assert!(slot < self.slots && word < N / 8);
        // SAFETY: in bounds (slots × N bytes were mapped), aligned (the mapping starts at a page, N is a multiple of 8),
        // and only ever accessed atomically from this side.
        unsafe { self.words.add(slot * (N / 8) + word).as_ref() }.load(Ordering::Relaxed)
    }

    fn set_byte(&self, slot: usize, byte: usize, value: u8) {
        assert!(slot < self.slots && byte < N);
        // SAFETY: in bounds as above; a byte needs no alignment, and nothing else holds a reference to it.
        let byte = unsafe { self.words.cast::<AtomicU8>().add(slot * N + byte).as_ref() };
        byte.store(value, Ordering::Relaxed);
    }
}

impl<const N: usize> Drop for SharedArray<N> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `try_new` made; no reference into it outlives `self`.
        // A failure could only mean that it is gone already.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), self.slots * N) };
    }
}

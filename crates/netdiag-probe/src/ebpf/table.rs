//! The flow table, read where it lies: an array map whose memory the kernel shares with us (`BPF_F_MMAPABLE`).
//!
//! Reading costs no system call and no copy of the slots that are free. The kernel writes while we read, so every word
//! is an atomic load and a slot counts only if it held the same flow before and after. Single counters are whole
//! (aligned words); that two of them are an ACK apart does no harm, since all are cumulative.

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::records::FLOW_SIZE;

const WORDS: usize = FLOW_SIZE / 8;
/// The words of `struct nd_flow` that say whose slot it is.
const SK: usize = 0;
const ID: usize = 1;

/// The mapped table.
pub(crate) struct FlowTableMap {
    words: NonNull<AtomicU64>,
    slots: usize,
    /// Keeps the map, and with it the memory, alive.
    _map: MapData,
}

// SAFETY: the mapping belongs to this value alone, is never written through, and is valid on every thread.
unsafe impl Send for FlowTableMap {}

impl FlowTableMap {
    pub(crate) fn try_new(map: MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        let (value, slots) = (info.value_size() as usize, info.max_entries() as usize);
        if value != FLOW_SIZE || slots == 0 {
            let message = format!("{slots} slots of {value} bytes, expected {FLOW_SIZE}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        // SAFETY: a new mapping at an address of the kernel's choosing touches nothing that exists.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                slots * FLOW_SIZE,
                ProtFlags::READ,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        }?;
        let words =
            NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { words, slots, _map: map })
    }

    /// Calls `visit` with a copy of every slot that is taken.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&[u8; FLOW_SIZE])) {
        let mut copy = [0u8; FLOW_SIZE];
        for slot in 0..self.slots {
            let owner = self.word(slot, SK);
            if owner == 0 {
                continue;
            }
            // The kernel may take the slot from one flow and give it to another while we copy; the id is written last
            // and cleared first.
            let id = self.word(slot, ID);
            fence(Ordering::Acquire);
            for (index, bytes) in copy.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *bytes = self.word(slot, index).to_ne_bytes();
            }
            fence(Ordering::Acquire);
            if id != 0 && id == self.word(slot, ID) && owner == self.word(slot, SK) {
                visit(&copy);
            }
        }
    }

    fn word(&self, slot: usize, word: usize) -> u64 {
        debug_assert!(slot < self.slots && word < WORDS);
        // SAFETY: in bounds (slots × WORDS words were mapped), aligned (the mapping starts at a page, FLOW_SIZE is a
        // multiple of 8), and only ever accessed atomically from this side.
        unsafe { self.words.add(slot * WORDS + word).as_ref() }.load(Ordering::Relaxed)
    }
}

impl Drop for FlowTableMap {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `try_new` made; no reference into it outlives `self`.
        // A failure could only mean that it is gone already.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), self.slots * FLOW_SIZE) };
    }
}

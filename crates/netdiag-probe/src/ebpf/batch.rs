//! Reading a whole BPF hash map in a few system calls.
//!
//! aya iterates with two system calls per entry; at tens of thousands of entries twice a second that is most of the
//! agent's work. `BPF_MAP_LOOKUP_BATCH` (Linux 5.6) copies thousands of entries at a time and never shows one entry
//! twice, because it advances by whole hash buckets.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::MapData;

const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Entries per system call at first; doubled when a single hash bucket holds more (`ENOSPC`).
const FIRST_BATCH: usize = 2048;

/// A hash map with keys of `K` and values of `V` bytes that is read as a whole.
#[derive(Debug)]
pub(crate) struct MapReader<const K: usize, const V: usize> {
    map: MapData,
    keys: Vec<u8>,
    values: Vec<u8>,
    batch: usize,
}

/// The `batch` member of `union bpf_attr` (`include/uapi/linux/bpf.h`).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The element member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl<const K: usize, const V: usize> MapReader<K, V> {
    /// Refuses a map whose sizes are others: everything below relies on them.
    pub(crate) fn try_new(map: MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        let (key, value) = (info.key_size(), info.value_size());
        if (key as usize, value as usize) != (K, V) {
            let message = format!(
                "the map has keys of {key} and values of {value} bytes, expected {K} and {V}"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self { map, keys: Vec::new(), values: Vec::new(), batch: FIRST_BATCH })
    }

    /// Calls `visit` with every entry.
    pub(crate) fn for_each(&mut self, mut visit: impl FnMut(&[u8; K], &[u8; V])) -> io::Result<()> {
        // The cursor: an opaque u32 for hash maps, written by one call and read by the next.
        let mut cursor = 0u32;
        let mut first = true;
        loop {
            self.keys.resize(self.batch * K, 0);
            self.values.resize(self.batch * V, 0);
            let mut next = 0u32;
            let mut attr = BatchAttr {
                in_batch: if first { 0 } else { &raw const cursor as u64 },
                out_batch: &raw mut next as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: self.batch as u32,
                map_fd: self.raw_fd(),
                ..BatchAttr::default()
            };
            // SAFETY: the kernel writes at most `count` keys of K and values of V bytes, which is what the vectors hold
            // and `try_new` proved the map to have; the cursors are u32 as hash maps require; all outlive the call.
            let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
            let end = match result {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    self.batch *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = (attr.count as usize).min(self.batch);
            let keys = self.keys.as_chunks::<K>().0;
            let values = self.values.as_chunks::<V>().0;
            for (key, value) in keys.iter().zip(values).take(count) {
                visit(key, value);
            }
            if end {
                return Ok(());
            }
            (cursor, first) = (next, false);
        }
    }

    /// Removes one entry.
    pub(crate) fn delete(&mut self, key: &[u8; K]) -> io::Result<()> {
        let mut attr =
            ElementAttr { map_fd: self.raw_fd(), key: key.as_ptr() as u64, ..Default::default() };
        // SAFETY: the kernel reads K bytes from `key`, the map's key size as `try_new` checked.
        unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) }
    }

    fn raw_fd(&self) -> u32 {
        // Descriptors are never negative.
        self.map.fd().as_fd().as_raw_fd() as u32
    }
}

/// The `bpf(2)` system call.
///
/// # Safety
/// Every pointer in `attr` must be valid for what `command` reads and writes through it.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<()> {
    // SAFETY: `attr` is a live, exclusive reference of the stated size; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! Memory that the kernel receives into: one ring of provided buffers a shard.
//!
//! An armed receive owns no buffer; the kernel takes one when bytes are there and names it in the completion. The
//! shard reads it in place and gives it back in the same turn. Source: io_uring_register_buf_ring(3), kernel 5.19.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, cqueue};

use super::RingError;

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// See the module. Invariant: a buffer belongs either to the kernel or to whoever handles the completion
/// that names it.
pub(super) struct Buffers {
    /// Entries, then the buffers themselves: one anonymous mapping.
    map: NonNull<u8>,
    map_bytes: usize,
    entries_bytes: usize,
    entries: u16,
    buffer_bytes: usize,
    tail: u16,
    /// For each buffer, the one that was given to the kernel right after it.
    next: Box<[u16]>,
    /// The one that was given last.
    last: u16,
}

impl Buffers {
    /// Maps and registers `entries` (a power of two, at most 32768) buffers of `buffer_bytes` each. The error names the call.
    pub(super) fn register(submitter: &Submitter<'_>, entries: u16, buffer_bytes: usize) -> Result<Self, RingError> {
        let entries_bytes = (usize::from(entries) * size_of::<BufRingEntry>()).next_multiple_of(4096);
        let map_bytes = entries_bytes + usize::from(entries) * buffer_bytes;
        // SAFETY: an anonymous mapping of a length that is not zero; the result is checked.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            let call = format!("mmap of {map_bytes} bytes of receive buffers");
            return Err(RingError::of(&call, &io::Error::last_os_error()));
        }
        let null = || RingError::of("mmap of receive buffers", &io::Error::other("it gave null"));
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(null)?;
        let next = vec![0; usize::from(entries)].into_boxed_slice();
        let mut buffers = Buffers { map, map_bytes, entries_bytes, entries, buffer_bytes, tail: 0, next, last: 0 };
        // SAFETY: the mapping is page-aligned, holds `entries` entries, and lives until `Buffers` is dropped, which
        // the ring's owner does after the ring itself is gone.
        let registered = unsafe { submitter.register_buf_ring_with_flags(map.as_ptr() as u64, entries, GROUP, 0) };
        registered.map_err(|error| RingError::of("io_uring_register(PBUF_RING)", &error))?;
        for buffer in 0..entries {
            buffers.push(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The first `length` bytes of a buffer that a completion has named and that was not given back yet.
    #[inline]
    pub(super) fn bytes_mut(&mut self, buffer: u16, length: usize) -> &mut [u8] {
        let length = length.min(self.buffer_bytes);
        let index = usize::from(buffer % self.entries);
        // SAFETY: inside the mapping; the kernel does not write into a buffer between naming it in a completion and
        // getting it back, and `&mut self` keeps it from being given back while the slice lives.
        unsafe {
            let start = self.map.as_ptr().add(self.entries_bytes + index * self.buffer_bytes);
            std::slice::from_raw_parts_mut(start, length)
        }
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn give_back(&mut self, buffer: u16) {
        self.push(buffer % self.entries);
        self.publish();
    }

    fn push(&mut self, buffer: u16) {
        if let Some(next) = self.next.get_mut(usize::from(self.last)) {
            *next = buffer;
        }
        self.last = buffer;
        let index = usize::from(self.tail % self.entries);
        // SAFETY: entry `index` lies inside the mapping and, being behind the published tail, is ours to write. Only
        // the three setters touch it: the field that doubles as the ring's tail stays as it is.
        unsafe {
            let entry = &mut *self.map.as_ptr().cast::<BufRingEntry>().add(index);
            let start = self.map.as_ptr().add(self.entries_bytes + usize::from(buffer) * self.buffer_bytes);
            entry.set_addr(start as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: `tail` gives the address of the ring's tail field inside our mapping; it is aligned, and the kernel
        // only reads it.
        unsafe {
            let tail = BufRingEntry::tail(self.map.as_ptr().cast::<BufRingEntry>());
            (*tail.cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }
}

/// What one receive has brought, buffer by buffer: the kernel fills them in the order in which it got them.
pub(super) struct Bundle {
    next: Option<u16>,
    left: usize,
}

impl Bundle {
    /// Of a completion; errors and the end of the stream may name a buffer without bytes.
    pub(super) fn of(completion: &cqueue::Entry) -> Self {
        Bundle { next: cqueue::buffer_select(completion.flags()), left: completion.result().max(0) as usize }
    }

    /// The next buffer, and how many bytes are in it. It may be given back as soon as it was named here.
    pub(super) fn next(&mut self, buffers: &Buffers) -> Option<(u16, usize)> {
        let buffer = self.next?;
        let length = self.left.min(buffers.buffer_bytes);
        self.left -= length;
        self.next = buffers.next.get(usize::from(buffer)).copied().filter(|_| self.left > 0);
        Some((buffer, length))
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the ring that knew it is closed (field order in `Net`).
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_bytes) };
    }
}

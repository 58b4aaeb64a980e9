//! Bytes on their way into the kernel: what one send submission refers to, kept alive until its completion.

use std::num::NonZeroU32;

use bytes::Bytes;

use ringgate_core::outbox::Chunk;

use crate::json::Texts;

/// One send in the kernel. The bytes do not move while it is there: both owners keep them on the heap.
pub(super) struct Send {
    pub(super) owner: Owner,
    pub(super) sent: usize,
    /// The driver had more for this socket, or has got something since.
    pub(super) more: bool,
}

/// The memory that holds the bytes of a send until its completion.
pub(super) enum Owner {
    /// Frames copied together, or encrypted records.
    Copied(Vec<u8>),
    /// A control chunk, to be given back to the driver.
    Control(Vec<u8>),
    /// One frame, shared with its other recipients.
    Shared(Bytes),
}

impl From<Chunk> for Owner {
    fn from(chunk: Chunk) -> Self {
        match chunk {
            Chunk::Control(control) => Owner::Control(control),
            Chunk::Data(delivery) => Owner::Shared(delivery.frame),
        }
    }
}

impl Send {
    /// What is still to be sent.
    pub(super) fn rest(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Copied(bytes) | Owner::Control(bytes) => bytes,
            Owner::Shared(bytes) => bytes,
        };
        all.get(self.sent..).unwrap_or_default()
    }
}

/// A place among [`Sends`]; none takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendKey(NonZeroU32);

impl SendKey {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Sends in the kernel, by a stable index, and spare buffers.
#[derive(Default)]
pub(super) struct Sends {
    sends: Vec<Option<Send>>,
    free: Vec<SendKey>,
    spares: Vec<Vec<u8>>,
    /// The sum of their capacities.
    spare_bytes: usize,
    /// What was sent lately to connections that speak JSON.
    pub(super) texts: Texts,
}

/// Spare buffers are kept up to this many bytes in all: as many as a busy turn of broadcasts needs, until the shard rests.
const SPARE_BYTES_MAX: usize = 8 << 20;
/// A larger one is not kept: a peer that does not read would hold it for a few bytes.
const SPARE_CAPACITY_MAX: usize = 64 * 1024;
/// What is copied together is at least two frames.
const BUFFER_BYTES_FIRST: usize = 1024;

impl Sends {
    pub(super) fn insert(&mut self, send: Send) -> SendKey {
        let key = self.free.pop().unwrap_or_else(|| {
            self.sends.push(None);
            SendKey(NonZeroU32::MIN.saturating_add(self.sends.len() as u32 - 1))
        });
        if let Some(place) = self.sends.get_mut(key.index()) {
            *place = Some(send);
        }
        key
    }

    pub(super) fn get_mut(&mut self, key: SendKey) -> Option<&mut Send> {
        self.sends.get_mut(key.index())?.as_mut()
    }

    pub(super) fn remove(&mut self, key: SendKey) -> Option<Send> {
        let send = self.sends.get_mut(key.index())?.take()?;
        self.free.push(key);
        Some(send)
    }

    pub(super) fn release_spares(&mut self) {
        (self.spares, self.spare_bytes) = (Vec::new(), 0);
        self.texts.release();
        if self.free.len() == self.sends.len() {
            // Nothing is in the kernel: no key is in use.
            *self = Sends::default();
        }
    }

    /// An empty buffer.
    pub(super) fn spare(&mut self) -> Vec<u8> {
        let Some(spare) = self.spares.pop() else { return Vec::with_capacity(BUFFER_BYTES_FIRST) };
        self.spare_bytes -= spare.capacity();
        spare
    }

    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        let kept = (1..=SPARE_CAPACITY_MAX).contains(&buffer.capacity());
        if kept && self.spare_bytes + buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            self.spare_bytes += buffer.capacity();
            self.spares.push(buffer);
        }
    }
}

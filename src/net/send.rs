//! Bytes on their way into the kernel: what one send submission refers to, kept alive until its completion.

use bytes::Bytes;

/// One send in the kernel. The bytes do not move while it is there: both owners keep them on the heap.
pub(super) struct Send {
    pub(super) owner: Owner,
    pub(super) sent: usize,
}

/// Who owns the bytes.
pub(super) enum Owner {
    /// Several frames copied together, encrypted records, or one control chunk.
    Copied(Vec<u8>),
    /// One frame, shared with its other recipients.
    Shared(Bytes),
}

impl Send {
    /// What is still to be sent.
    pub(super) fn rest(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Copied(bytes) => bytes,
            Owner::Shared(bytes) => bytes,
        };
        all.get(self.sent..).unwrap_or_default()
    }
}

/// Sends in the kernel, by a stable index, and spare buffers.
#[derive(Default)]
pub(super) struct Sends {
    sends: Vec<Option<Send>>,
    free: Vec<u32>,
    spares: Vec<Vec<u8>>,
}

/// Spare buffers kept, and the largest that is.
const SPARES_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 64 * 1024;

impl Sends {
    pub(super) fn insert(&mut self, send: Send) -> u32 {
        match self.free.pop() {
            Some(index) => {
                if let Some(place) = self.sends.get_mut(index as usize) {
                    *place = Some(send);
                }
                index
            }
            None => {
                self.sends.push(Some(send));
                self.sends.len() as u32 - 1
            }
        }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Send> {
        self.sends.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Send> {
        let send = self.sends.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(send)
    }

    pub(super) fn spare(&mut self) -> Vec<u8> {
        self.spares.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.spares.len() < SPARES_MAX && (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.spares.push(buffer);
        }
    }
}

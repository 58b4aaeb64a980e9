//! Text messages of WebSocket for what the gateway sends. A message with several recipients is made once, and copied.
//!
//! A message is known by the memory of its frame, which all its recipients and the log share. Each text made lately is kept together with a reference to that
//! frame, so that the memory cannot become another frame's meanwhile. The number and the bytes of what is kept are bounded, and a shard that rests keeps nothing.

use bytes::Bytes;
use ringgate_core::wire::ws::{FrameHeader, HEADER_BYTES_MAX, Opcode};
use ringgate_core::wire::{Split, split};

use super::push::append_text;

/// Texts that are kept, and the largest of them. What a broadcast sends at once to members of several rooms fits.
const KEPT_MAX: usize = 64;
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct Texts {
    /// Empty until the first text is made. A text is kept in the place that the address of its frame chooses.
    kept: Vec<Option<Kept>>,
    /// How many texts were made of messages, for tests.
    #[cfg(test)]
    pub(super) made: usize,
}

struct Kept {
    frame: Bytes,
    message: Vec<u8>,
}

impl Texts {
    /// Appends the text message for a frame that other connections may be sent, too.
    pub(crate) fn append_shared(&mut self, frame: &Bytes, out: &mut Vec<u8>) {
        if self.kept.is_empty() {
            self.kept.resize_with(KEPT_MAX, || None);
        }
        let index = place_of(frame);
        let Some(place) = self.kept.get_mut(index) else { return append_messages(frame, out) };
        if let Some(kept) = place
            && kept.frame.as_ptr() == frame.as_ptr()
            && kept.frame.len() == frame.len()
        {
            return out.extend_from_slice(&kept.message);
        }
        let mut message = Vec::new();
        append_messages(frame, &mut message);
        #[cfg(test)]
        {
            self.made += 1;
        }
        out.extend_from_slice(&message);
        let fits = frame.len() <= KEPT_BYTES_MAX && message.len() <= KEPT_BYTES_MAX;
        *place = fits.then(|| Kept { frame: frame.clone(), message });
    }

    /// Gives all memory back.
    pub(crate) fn release(&mut self) {
        self.kept = Vec::new();
    }
}

/// Frames lie at least 16 bytes apart; what is above that is spread.
fn place_of(frame: &Bytes) -> usize {
    let address = frame.as_ptr().addr() as u64 >> 4;
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % KEPT_MAX
}

/// Appends a text message for each of these frames.
pub(crate) fn append_messages(mut frames: &[u8], out: &mut Vec<u8>) {
    while let Ok(Split::Frame(frame, rest)) = split(frames, usize::MAX) {
        frames = rest;
        let start = out.len();
        // The header's length is known when the text is: room for the longest is left, and closed up.
        out.resize(start + HEADER_BYTES_MAX, 0);
        append_text(frame, out);
        let header = FrameHeader::new(true, Opcode::Text, out.len() - start - HEADER_BYTES_MAX);
        let unused = HEADER_BYTES_MAX - header.len();
        out.drain(start..start + unused);
        if let Some(place) = out.get_mut(start..start + header.len()) {
            place.copy_from_slice(&header);
        }
    }
    debug_assert!(frames.is_empty(), "the gateway sends whole frames");
}

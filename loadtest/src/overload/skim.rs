//! Counts the frames of a stream without reading most of them: a driver that verified every message would be the limit
//! long before the gateway is.
//!
//! Bodies are collected only for the kinds that the caller wants. A header that cannot be one ends the stream.

use ringgate_core::limits::HEADER_BYTES;
use ringgate_core::wire::Kind;

/// Longest body that is believed. Answers with history are the longest that a gateway sends.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Where one stream is: within a header, or within a body.
#[derive(Default)]
pub(super) struct Skim {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are there.
    have: usize,
    /// Bytes of the body that are missing; counts once the header is whole.
    missing: usize,
    /// The body so far, of a kind that is wanted.
    kept: Vec<u8>,
}

impl Skim {
    /// Reads on. `on_frame` gets the kind of every frame that has ended, and its body if `wants` says so, else nothing.
    /// An error says what no gateway sends.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        wants: impl Fn(Kind) -> bool,
        mut on_frame: impl FnMut(Kind, &[u8]),
    ) -> Result<(), String> {
        loop {
            if self.have < HEADER_BYTES {
                let (part, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - self.have));
                self.header[self.have..self.have + part.len()].copy_from_slice(part);
                self.have += part.len();
                bytes = rest;
                if self.have < HEADER_BYTES {
                    return Ok(());
                }
                let [l0, l1, l2, l3, ..] = self.header;
                self.missing = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
                if self.missing > BODY_BYTES_MAX {
                    return Err(format!("a frame of {} bytes", self.missing));
                }
            }
            let number = self.header[4];
            let kind = Kind::from_number(number).ok_or_else(|| format!("a frame of kind {number}"))?;
            let (part, rest) = bytes.split_at(bytes.len().min(self.missing));
            self.missing -= part.len();
            bytes = rest;
            let wanted = wants(kind);
            if self.missing > 0 {
                if wanted {
                    self.kept.extend_from_slice(part);
                }
                return Ok(());
            }
            self.have = 0;
            if !wanted {
                on_frame(kind, &[]);
            } else if self.kept.is_empty() {
                on_frame(kind, part);
            } else {
                self.kept.extend_from_slice(part);
                on_frame(kind, &self.kept);
                self.kept.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringgate_core::wire::append_header;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, body) in [(Kind::Pong, &b""[..]), (Kind::Message, b"skipped"), (Kind::Error, b"wanted")] {
            append_header(&mut bytes, kind, body.len());
            bytes.extend_from_slice(body);
        }
        append_header(&mut bytes, Kind::Goodbye, 3);
        bytes.extend_from_slice(b"end");
        append_header(&mut bytes, Kind::Pong, 0);
        bytes
    }

    #[test]
    fn stream_cut_anywhere_then_same_frames() {
        let bytes = stream();
        for portion in 1..=bytes.len() {
            let (mut skim, mut seen) = (Skim::default(), Vec::new());
            for part in bytes.chunks(portion) {
                let wants = |kind| matches!(kind, Kind::Error | Kind::Goodbye);
                skim.read(part, wants, |kind, body| seen.push((kind, body.to_vec()))).unwrap();
            }
            let wanted = [
                (Kind::Pong, Vec::new()),
                (Kind::Message, Vec::new()),
                (Kind::Error, b"wanted".to_vec()),
                (Kind::Goodbye, b"end".to_vec()),
                (Kind::Pong, Vec::new()),
            ];
            assert_eq!(seen, wanted, "in portions of {portion}");
        }
    }

    #[test]
    fn frame_that_no_gateway_sends_then_error() {
        let read = |bytes: &[u8]| Skim::default().read(bytes, |_| false, |_, _| {});
        assert!(read(&[0, 0, 0, 0, 77, 0, 0, 0, 1]).unwrap_err().contains("kind 77"));
        assert!(read(&[0, 0, 0, 0x7f, 132, 0, 0, 0, 1]).unwrap_err().contains("bytes"));
    }
}

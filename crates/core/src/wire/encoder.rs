//! Values -> frames. One [`Encoder`] per thread keeps the FlatBuffers builder's memory between frames.
//!
//! Every method appends one whole frame (header and body) to `out`; each stands in the file of its frame, in `frames`. A
//! Message is built elsewhere, as a [`Draft`](super::Draft).

use flatbuffers::{FlatBufferBuilder, WIPOffset};

use super::header::{Kind, append_header};
use crate::limits::HEADER_BYTES;

/// Builds frames; see the module.
pub struct Encoder {
    pub(super) builder: FlatBufferBuilder<'static>,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder { builder: FlatBufferBuilder::with_capacity(1024) }
    }
}

/// Largest builder that is kept between frames.
const BUILDER_BYTES_KEPT_MAX: usize = 256 * 1024;

impl Encoder {
    /// Finishes the table built so far and appends it as a frame.
    pub(super) fn finish<T>(&mut self, out: &mut Vec<u8>, kind: Kind, table: WIPOffset<T>) {
        self.builder.finish_minimal(table);
        let body = self.builder.finished_data();
        out.reserve(HEADER_BYTES + body.len());
        append_header(out, kind, body.len());
        out.extend_from_slice(body);
        let large = body.len() > BUILDER_BYTES_KEPT_MAX;
        if large {
            self.builder = FlatBufferBuilder::with_capacity(1024);
        } else {
            self.builder.reset();
        }
    }
}

/// Texts of which a few come again and again: the builder's own memory of texts is searched for each, and grows with them.
#[derive(Default)]
pub(super) struct SharedTexts<'a>(Vec<(&'a str, WIPOffset<&'a str>)>);

/// Names that devices commonly have are no more than this.
const SHARED_MAX: usize = 8;

impl<'a> SharedTexts<'a> {
    pub(super) fn or_create(&mut self, builder: &mut FlatBufferBuilder<'_>, text: &'a str) -> WIPOffset<&'a str> {
        if let Some((_, offset)) = self.0.iter().find(|(known, _)| *known == text) {
            return *offset;
        }
        let offset = WIPOffset::new(builder.create_string(text).value());
        if self.0.len() < SHARED_MAX {
            self.0.push((text, offset));
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode::PublishRequest;

    /// Bytes of the body, and memory of the builder after it was built.
    fn built(payload_bytes: usize) -> (usize, usize) {
        let mut encoder = Encoder::default();
        let mut out = Vec::new();
        let payload = vec![0; payload_bytes];
        encoder.publish(&mut out, &PublishRequest { topic: "chat:a", payload: &payload, ..PublishRequest::default() });
        (out.len() - HEADER_BYTES, encoder.builder.collapse().0.len())
    }

    #[test]
    fn a_builder_that_grew_beyond_its_bound_is_not_kept() {
        let beside_payload = built(BUILDER_BYTES_KEPT_MAX).0 - BUILDER_BYTES_KEPT_MAX;
        let (body, memory) = built(BUILDER_BYTES_KEPT_MAX - beside_payload);
        assert_eq!(body, BUILDER_BYTES_KEPT_MAX);
        assert!(memory >= BUILDER_BYTES_KEPT_MAX, "{memory}: at the bound it is kept");
        let (body, memory) = built(BUILDER_BYTES_KEPT_MAX - beside_payload + 8);
        assert!((BUILDER_BYTES_KEPT_MAX + 1..=BUILDER_BYTES_KEPT_MAX + 8).contains(&body));
        assert_eq!(memory, 1024);
    }
}

//! JSON and MessagePack: what serde makes of the messages.

use ringgate_core::wire::append_header;

use super::messages::{Digest, Message};
use super::{Codec, body};

/// serde_json. Strings are borrowed from the input where they hold no escapes; payloads are base64.
#[derive(Default)]
pub(crate) struct Json;

/// simd-json, which unescapes in place: each decode works on a fresh copy of the input, and the copy is in the figure.
#[derive(Default)]
pub(crate) struct SimdJson {
    copy: Vec<u8>,
    buffers: simd_json::Buffers,
}

/// rmp-serde, structs as arrays without field names.
#[derive(Default)]
pub(crate) struct MessagePack;

/// Room for the header, then the body, then its length.
pub(crate) fn framed<M: Message>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    append_header(out, M::KIND, 0);
    let body = out.len();
    write(out);
    let length = (out.len() - body) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

impl<M: Message> Codec<M> for Json {
    const NAME: &'static str = "JSON (serde_json)";
    type Input = M::Whole<'static>;

    fn prepare(sample: M::Whole<'static>) -> Self::Input {
        sample
    }

    fn encode(&mut self, input: &Self::Input, out: &mut Vec<u8>) {
        framed::<M>(out, |out| serde_json::to_writer(out, input).expect("a message is JSON"));
    }

    fn head(&mut self, frame: &[u8]) -> u64 {
        serde_json::from_slice::<M::Head<'_>>(body(frame)).expect("our own JSON").digest()
    }

    fn whole(&mut self, frame: &[u8]) -> u64 {
        serde_json::from_slice::<M::Whole<'_>>(body(frame)).expect("our own JSON").digest()
    }

    fn debug(&mut self, frame: &[u8]) -> String {
        format!("{:?}", serde_json::from_slice::<M::Whole<'_>>(body(frame)).expect("our own JSON"))
    }
}

impl SimdJson {
    fn copy(&mut self, frame: &[u8]) {
        self.copy.clear();
        self.copy.extend_from_slice(body(frame));
    }
}

impl<M: Message> Codec<M> for SimdJson {
    const NAME: &'static str = "JSON (simd-json)";
    const ENCODES: bool = false;
    type Input = M::Whole<'static>;

    fn prepare(sample: M::Whole<'static>) -> Self::Input {
        sample
    }

    fn encode(&mut self, input: &Self::Input, out: &mut Vec<u8>) {
        Codec::<M>::encode(&mut Json, input, out);
    }

    fn head(&mut self, frame: &[u8]) -> u64 {
        self.copy(frame);
        let head: M::Head<'_> =
            simd_json::serde::from_slice_with_buffers(&mut self.copy, &mut self.buffers).expect("our own JSON");
        head.digest()
    }

    fn whole(&mut self, frame: &[u8]) -> u64 {
        self.copy(frame);
        let whole: M::Whole<'_> =
            simd_json::serde::from_slice_with_buffers(&mut self.copy, &mut self.buffers).expect("our own JSON");
        whole.digest()
    }

    fn debug(&mut self, frame: &[u8]) -> String {
        self.copy(frame);
        let whole: M::Whole<'_> =
            simd_json::serde::from_slice_with_buffers(&mut self.copy, &mut self.buffers).expect("our own JSON");
        format!("{whole:?}")
    }
}

impl<M: Message> Codec<M> for MessagePack {
    const NAME: &'static str = "MessagePack (rmp-serde)";
    type Input = M::Whole<'static>;

    fn prepare(sample: M::Whole<'static>) -> Self::Input {
        sample
    }

    fn encode(&mut self, input: &Self::Input, out: &mut Vec<u8>) {
        framed::<M>(out, |out| rmp_serde::encode::write(out, input).expect("a message is MessagePack"));
    }

    fn head(&mut self, frame: &[u8]) -> u64 {
        rmp_serde::from_slice::<M::Head<'_>>(body(frame)).expect("our own MessagePack").digest()
    }

    fn whole(&mut self, frame: &[u8]) -> u64 {
        rmp_serde::from_slice::<M::Whole<'_>>(body(frame)).expect("our own MessagePack").digest()
    }

    fn debug(&mut self, frame: &[u8]) -> String {
        format!("{:?}", rmp_serde::from_slice::<M::Whole<'_>>(body(frame)).expect("our own MessagePack"))
    }
}

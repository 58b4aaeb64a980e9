//! Five messages in FlatBuffers, Protobuf, JSON and MessagePack: size, encoding, reading two fields and all.
//!
//! Every format gets the eight-byte header of our wire, for each needs a length and a kind, and every read begins with
//! splitting it. Every frame is read back and compared before anything is measured.

mod flat;
mod flat_gateway;
mod messages;
mod proto;
mod samples;
mod serialized;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::BenchmarkId;
use ringgate_core::limits::HEADER_BYTES;
use ringgate_core::wire::{RawFrame, Split, split};

use flat::{Flat, Unverified, Verified};
use messages::*;
use proto::{Proto, Protobuf};
use serialized::{Json, MessagePack, SimdJson};
use support::Criterion;

/// A way to write a message down.
trait Codec<M: Message>: Default {
    const NAME: &'static str;
    /// False when another codec writes the same bytes with the same code.
    const ENCODES: bool = true;
    /// What encoding starts from.
    type Input;
    fn prepare(sample: M::Whole<'static>) -> Self::Input;
    fn encode(&mut self, input: &Self::Input, out: &mut Vec<u8>);
    /// Decodes and reads two fields.
    fn head(&mut self, frame: &[u8]) -> u64;
    /// Decodes and reads all fields.
    fn whole(&mut self, frame: &[u8]) -> u64;
    /// What [`Message::sample`] would print, after the way through bytes.
    fn debug(&mut self, frame: &[u8]) -> String;
}

fn raw(frame: &[u8]) -> RawFrame<'_> {
    match split(frame, 1 << 20) {
        Ok(Split::Frame(raw, [])) => raw,
        other => panic!("one whole frame, not {other:?}"),
    }
}

/// The body of a frame of another codec, which may have a length that ours cannot have.
fn body(frame: &[u8]) -> &[u8] {
    let (header, rest) = frame.split_first_chunk::<HEADER_BYTES>().expect("a header");
    let [l0, l1, l2, l3, ..] = *header;
    rest.get(..u32::from_le_bytes([l0, l1, l2, l3]) as usize).expect("a whole frame")
}

type Sizes = BTreeMap<&'static str, BTreeMap<&'static str, usize>>;

fn main() {
    // There are eighty of them, and what takes nanoseconds needs no two seconds.
    let mut criterion = support::settings().measurement_time(Duration::from_secs(1));
    let mut sizes = Sizes::new();
    message::<PingMessage>(&mut criterion, &mut sizes);
    message::<PublishMessage>(&mut criterion, &mut sizes);
    message::<ChatMessage>(&mut criterion, &mut sizes);
    message::<PresenceMessage>(&mut criterion, &mut sizes);
    message::<HistoryMessage>(&mut criterion, &mut sizes);
    if !support::is_test() {
        let folder = support::output_folder();
        std::fs::create_dir_all(&folder).expect("criterion's folder can be made");
        let text = serde_json::to_string_pretty(&sizes).expect("sizes are JSON");
        std::fs::write(folder.join("codec-bytes.json"), text).expect("the sizes can be written");
    }
    criterion.final_summary();
}

fn message<M: Message + Flat + Proto>(criterion: &mut Criterion, sizes: &mut Sizes) {
    codec::<M, Verified>(criterion, sizes);
    codec::<M, Unverified>(criterion, sizes);
    codec::<M, Protobuf>(criterion, sizes);
    codec::<M, MessagePack>(criterion, sizes);
    codec::<M, Json>(criterion, sizes);
    codec::<M, SimdJson>(criterion, sizes);
    copy::<M>(criterion);
}

fn codec<M: Message, C: Codec<M>>(criterion: &mut Criterion, sizes: &mut Sizes) {
    let mut codec = C::default();
    let input = C::prepare(M::sample());
    let mut frame = Vec::new();
    codec.encode(&input, &mut frame);
    assert_eq!(codec.debug(&frame), format!("{:?}", M::sample()), "{} of {}", M::NAME, C::NAME);
    assert_eq!(codec.whole(&frame), M::sample().digest(), "{} of {}", M::NAME, C::NAME);
    let mut reference = Json;
    let mut json = Vec::new();
    Codec::<M>::encode(&mut reference, &M::sample(), &mut json);
    assert_eq!(codec.head(&frame), Codec::<M>::head(&mut reference, &json), "{} of {}", M::NAME, C::NAME);
    sizes.entry(M::NAME).or_default().insert(C::NAME, frame.len());

    let id = || BenchmarkId::new(C::NAME, M::NAME);
    if C::ENCODES {
        let mut out = Vec::with_capacity(2 * frame.len());
        criterion.benchmark_group("codec encode").bench_function(id(), |bencher| {
            bencher.iter(|| {
                out.clear();
                codec.encode(black_box(&input), &mut out);
                black_box(out.len())
            });
        });
    }
    if M::NAME != PingMessage::NAME {
        criterion
            .benchmark_group("codec two fields")
            .bench_function(id(), |bencher| bencher.iter(|| codec.head(black_box(&frame))));
    }
    criterion
        .benchmark_group("codec all fields")
        .bench_function(id(), |bencher| bencher.iter(|| codec.whole(black_box(&frame))));
}

/// The floor: our frame, ready made, is copied.
fn copy<M: Message + Flat>(criterion: &mut Criterion) {
    let mut frame = Vec::new();
    Codec::<M>::encode(&mut Verified::default(), &<Verified as Codec<M>>::prepare(M::sample()), &mut frame);
    let mut out = Vec::with_capacity(2 * frame.len());
    criterion.benchmark_group("codec encode").bench_function(BenchmarkId::new("memcpy", M::NAME), |bencher| {
        bencher.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&frame));
            black_box(out.len())
        });
    });
}

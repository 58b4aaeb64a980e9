//! What every Publish costs before anything is decided: header, verification, view. Budget: 150 ns.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;

use criterion::BenchmarkId;
use ringgate_core::id::ClientMessageId;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_core::wire::{ClientFrame, Encoder, Split, split};

use support::Criterion;

fn main() {
    let mut criterion = support::settings();
    publish(&mut criterion, "@user-123456", "to a user");
    publish(&mut criterion, "chat:general", "to a room");
    // Names that are not ASCII are looked at character by character.
    publish(&mut criterion, "chat:allgemeine-grüße", "to a room, not ASCII");
    criterion.final_summary();
}

fn publish(criterion: &mut Criterion, topic: &str, what: &str) {
    let payload: Vec<u8> = (0..100).collect();
    let mut frame = Vec::new();
    let request = PublishRequest {
        request: 1,
        topic,
        client_message_id: ClientMessageId { high: 1, low: 2 },
        payload: &payload,
        ..PublishRequest::default()
    };
    Encoder::default().publish(&mut frame, &request);
    assert_eq!(parse(&frame), 100);
    criterion
        .benchmark_group("parse")
        .bench_function(BenchmarkId::new("publish", what), |bencher| bencher.iter(|| parse(black_box(&frame))));
}

fn parse(frame: &[u8]) -> usize {
    let Ok(Split::Frame(raw, [])) = split(frame, 1 << 17) else { panic!("one whole frame") };
    let Ok(ClientFrame::Publish(publish)) = ClientFrame::parse(raw) else { panic!("a Publish") };
    black_box(publish).payload.len()
}

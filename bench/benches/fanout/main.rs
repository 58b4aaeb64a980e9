//! Deliveries without sockets: outboxes alone, a room's broadcast and one-to-one messages through a shard core.
//!
//! A publisher's bytes go in as the kernel would hand them over, everything that waits in outboxes is pulled, as `net`
//! does it at the end of a turn. Clients' own work (building Publish and Ack) is not measured. `room` is per delivery,
//! `one-to-one` per message: Publish and Ack in, Published and Message out, deduplication and the log in between.

mod clients;
#[path = "../support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, SamplingMode, Throughput};
use ringgate_core::id::{ClientMessageId, Position};
use ringgate_core::outbox::{Arrival, Delivery, Outbox, Spares};
use ringgate_core::wire::Encoder;
use ringgate_core::wire::encode::PublishRequest;

use clients::{Node, user};
use support::{Criterion, cpu_time};

const ROOM: &str = "chat:general";
const PAYLOAD: [u8; 100] = [7; 100];
const PAIRS: u32 = 500;

fn main() {
    let mut criterion = support::settings();
    outbox(&mut criterion, 1);
    outbox(&mut criterion, 64);
    let members: &[u32] = if support::is_test() { &[1, 100] } else { &[1, 100, 10_000, 100_000] };
    for members in members {
        room(&mut criterion, *members);
    }
    one_to_one(&mut criterion, 1);
    one_to_one(&mut criterion, 16);
    criterion.final_summary();
}

/// Pushes and pulls that many messages of an outbox that is empty before and after.
fn outbox(criterion: &mut Criterion, frames: u64) {
    let (mut outbox, mut spares) = (Outbox::default(), Spares::default());
    let frame = Bytes::from(vec![7; 200]);
    let mut group = criterion.benchmark_group("fanout outbox");
    group.throughput(Throughput::Elements(frames));
    group.bench_function(BenchmarkId::from_parameter(frames), |bencher| {
        bencher.iter(|| {
            for _ in 0..frames {
                let delivery = Delivery { frame: black_box(&frame).clone(), arrival: Arrival::at(1) };
                outbox.push(delivery, &mut spares, 1);
            }
            while let Some(chunk) = outbox.pull(&mut spares, 2) {
                black_box(chunk);
            }
        });
    });
}

/// Publish frames of one client, each with an id of its own.
struct Publisher {
    encoder: Encoder,
    number: u32,
}

impl Publisher {
    fn publish(&mut self, topic: &str) -> Vec<u8> {
        self.number += 1;
        let mut frame = Vec::new();
        let request = PublishRequest {
            request: self.number,
            topic,
            client_message_id: ClientMessageId { high: 1, low: self.number.into() },
            payload: &PAYLOAD,
            ..PublishRequest::default()
        };
        self.encoder.publish(&mut frame, &request);
        frame
    }
}

fn room(criterion: &mut Criterion, members: u32) {
    let mut node = Node::new();
    node.sign_in(members, Some(ROOM));
    let mut publisher = Publisher { encoder: Encoder::default(), number: 0 };
    // Reading the clock is nothing beside a batch.
    let batch = (1_000 / members).max(1);
    let mut group = criterion.benchmark_group("fanout room");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::from_parameter(members), |bencher| {
        bencher.iter_custom(|deliveries| {
            let (mut done, mut spent) = (0, Duration::ZERO);
            while done < deliveries {
                let frames: Vec<_> = (0..batch).map(|_| publisher.publish(ROOM)).collect();
                let before = node.delivered;
                let start = cpu_time();
                for frame in &frames {
                    node.receive(0, frame);
                    node.turn();
                }
                spent += cpu_time() - start;
                assert_eq!(node.delivered - before, u64::from(batch * members), "everybody got everything");
                done += node.delivered - before;
            }
            spent.mul_f64(deliveries as f64 / done as f64)
        });
    });
    node.check();
}

/// Users 0 to 499 write to users 500 to 999, that many in a turn.
fn one_to_one(criterion: &mut Criterion, messages_per_turn: usize) {
    let mut node = Node::new();
    node.sign_in(2 * PAIRS, None);
    let mut publisher = Publisher { encoder: Encoder::default(), number: 0 };
    let topics: Vec<String> = (PAIRS..2 * PAIRS).map(|slot| format!("@{}", user(slot))).collect();
    // The first message of each inbox tells its epoch.
    let mut positions: Vec<Position> = Vec::new();
    for (slot, topic) in topics.iter().enumerate() {
        node.receive(slot as u32, &publisher.publish(topic));
        node.turn();
        positions.push(node.last_position());
    }
    let mut group = criterion.benchmark_group("fanout one-to-one");
    group.sample_size(50).sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::from_parameter(messages_per_turn), |bencher| {
        bencher.iter_custom(|messages| {
            let (mut done, mut spent) = (0, Duration::ZERO);
            while done < messages {
                let exchanges: Vec<_> = (topics.iter().zip(&mut positions).zip(0..))
                    .map(|((topic, position), slot)| {
                        position.offset += 1;
                        let mut ack = Vec::new();
                        Encoder::ack(&mut ack, *position);
                        (slot, publisher.publish(topic), ack)
                    })
                    .collect();
                let before = node.delivered;
                let start = cpu_time();
                for turn in exchanges.chunks(messages_per_turn) {
                    for (slot, publish, _) in turn {
                        node.receive(*slot, publish);
                    }
                    node.turn();
                    for (slot, _, ack) in turn {
                        node.receive(PAIRS + slot, ack);
                    }
                    node.turn();
                }
                spent += cpu_time() - start;
                assert_eq!(node.delivered - before, u64::from(PAIRS), "every message arrived once");
                done += u64::from(PAIRS);
            }
            spent.mul_f64(messages as f64 / done as f64)
        });
    });
    node.check();
}

//! Far more senders than receive buffers: receives end for want of one, are armed again, and nothing is lost.

use std::thread;

use ringgate_core::wire::Encoder;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_net::Descriptors;

use crate::support::{Gateway, Login, wait_until};

const PAIRS: usize = 16;
const BURST: usize = 40;

fn everything_arrives(buffers: u16, buffer_bytes: usize, descriptors: Descriptors) {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(1);
        config.runtime.recv_buffers = buffers;
        config.runtime.recv_buffer_bytes = buffer_bytes;
        config.runtime.descriptors = descriptors;
        config.settings.client.messages_rate = 0;
    });
    let mut rounds = 0;
    wait_until("a receive found no buffer", || {
        rounds += 1;
        // Half of the senders over TLS: their bytes come through these buffers, too.
        let pairs: Vec<_> = (0..PAIRS)
            .map(|pair| {
                let mut sender = if pair % 2 == 0 { gateway.client() } else { gateway.tls_client() };
                sender.sign_in(&Login::user(&format!("sender{pair}")));
                (sender, gateway.sign_in(&format!("reader{pair}")))
            })
            .collect();
        thread::scope(|scope| {
            for (pair, (mut sender, mut reader)) in pairs.into_iter().enumerate() {
                scope.spawn(move || {
                    let (mut burst, mut encoder) = (Vec::new(), Encoder::default());
                    let topic = format!("@reader{pair}");
                    let payload = |number: u32| vec![number as u8; 300 + number as usize * 7];
                    for request in 1..=BURST as u32 {
                        let payload = payload(request);
                        let publish =
                            PublishRequest { request, topic: &topic, payload: &payload, ..Default::default() };
                        encoder.publish(&mut burst, &publish);
                    }
                    sender.send_bytes(&burst);
                    for number in 1..=BURST as u32 {
                        sender.published(number).unwrap();
                        let message = reader.message();
                        assert!(message.payload == payload(number), "message {number} of pair {pair}");
                        reader.ack(message.stamp.position);
                    }
                });
            }
        });
        gateway.sum(|m| &m.ring_no_buffers) > 0
    });
    let published = (rounds * PAIRS * BURST) as u64;
    assert_eq!(gateway.sum(|m| &m.messages_published), published);
    assert_eq!(gateway.sum(|m| &m.deliveries_sent), published);
    gateway.finish();
}

#[test]
fn one_receive_buffer_then_everything_arrives() {
    everything_arrives(1, 2048, Descriptors::for_this_kernel());
}

#[test]
fn two_tiny_receive_buffers_then_everything_arrives() {
    everything_arrives(2, 64, Descriptors::for_this_kernel());
}

#[test]
fn two_receive_buffers_with_ordinary_descriptors_then_everything_arrives() {
    everything_arrives(2, 1024, Descriptors::Ordinary);
}

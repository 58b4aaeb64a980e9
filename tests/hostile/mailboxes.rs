//! Mailboxes of one letter: shards push back on each other all the time, and everything arrives in order.

use ringgate_core::wire::Encoder;
use ringgate_core::wire::encode::PublishRequest;

use crate::support::{Gateway, wait_until};

const USERS: usize = 12;
const BURST: usize = 50;

fn everybody_writes_to_everybody(shards: usize, capacity: usize) {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(shards);
        config.runtime.mailbox_capacity = capacity;
        config.settings.client.messages_rate = 0;
    });
    let mut clients: Vec<_> = (0..USERS).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    let mut encoder = Encoder::default();
    let mut rounds = 0;
    // Which shard a user is on and where an inbox lives is chance, but not for so many of them.
    wait_until("a mailbox was full", || {
        for (from, client) in clients.iter_mut().enumerate() {
            let mut burst = Vec::new();
            for number in 0..BURST {
                let topic = format!("@user{}", (from + 1 + number % (USERS - 1)) % USERS);
                let payload = format!("{from} {rounds} {number}");
                let request = (number + 1) as u32;
                let publish =
                    PublishRequest { request, topic: &topic, payload: payload.as_bytes(), ..Default::default() };
                encoder.publish(&mut burst, &publish);
            }
            client.send_bytes(&burst);
        }
        for client in &mut clients {
            for request in 1..=BURST as u32 {
                client.published(request).unwrap();
            }
        }
        rounds += 1;
        gateway.sum(|m| &m.mesh_full) > 0
    });
    for (to, client) in clients.iter_mut().enumerate() {
        let mut next = vec![Vec::new(); USERS];
        for (from, numbers) in next.iter_mut().enumerate().filter(|(from, _)| *from != to) {
            for round in 0..rounds {
                let mine = |number: &usize| (from + 1 + number % (USERS - 1)) % USERS == to;
                numbers.extend((0..BURST).filter(mine).map(|number| format!("{from} {round} {number}")));
            }
            numbers.reverse();
        }
        let expected: usize = next.iter().map(Vec::len).sum();
        let mut last = None;
        for message in client.messages(expected) {
            let from: usize = message.sender.strip_prefix("user").unwrap().parse().unwrap();
            // In the order in which its sender sent it; then nothing is missing and nothing comes twice.
            assert_eq!(Some(message.text()), next[from].pop(), "from {from} to {to}");
            last = Some(message.stamp.position);
        }
        client.ack(last.unwrap());
    }
    let published = (rounds * USERS * BURST) as u64;
    gateway.wait_for("acknowledged", published, |m| &m.inbox_acked);
    assert_eq!(gateway.sum(|m| &m.deliveries_sent), published);
    gateway.finish();
}

#[test]
fn mailboxes_hold_one_letter_then_everything_arrives_in_order() {
    everybody_writes_to_everybody(2, 1);
}

#[test]
fn mailboxes_of_four_shards_hold_two_letters_then_everything_arrives_in_order() {
    everybody_writes_to_everybody(4, 2);
}

//! Acks that cross with the repetition of what they acknowledge.

use ringgate_core::id::Position;
use ringgate_core::shard::{Letter, ToHome};
use ringgate_core::wire::Encoder;

use crate::world::World;

/// A world with two devices of two users, where the Acks of the first come too late: `messages` were brought to it, the
/// letter that asks for their repetition is under way, and now it acknowledges up to `acked`. None where its inbox lives
/// on its own shard: the two cannot cross there.
fn ack_that_crosses(seed: u64, messages: usize, acked: u64) -> Option<World> {
    let mut world = World::with(seed, |settings| {
        settings.inbox.in_flight_max = 1000;
        settings.inbox.messages_max = 1000;
        settings.inbox.publish_all = true;
        (settings.client.outbox_messages_max, settings.client.outbox_bytes_max) = (1000, 1 << 20);
    });
    world.ledger.ttls = false;
    let last = world.devices.len() - 1;
    world.devices = vec![world.devices.swap_remove(last), world.devices.swap_remove(0)];
    for index in 0..2 {
        world.connect(index);
        world.settle();
        world.pull(index);
    }
    world.devices[0].forgetful = true;
    let topic = format!("@{}", world.devices[0].user);
    for _ in 0..messages {
        world.publish(1, &topic, false);
        world.settle();
        world.pull(0);
        world.pull(1);
    }
    while world.devices[0].inbox.offset < messages as u64 {
        world.pull(0);
    }
    world.pass(world.settings.inbox.ack_wait_ms + 100);
    let (shard, _) = world.devices[0].connection.unwrap();
    world.advance(shard);
    assert_eq!(world.sum(|m| m.retries.read()), 1);
    if !world.mail.letters().any(|letter| matches!(letter, Letter::ToHome(ToHome::CatchUp { .. }))) {
        return None;
    }
    let mut ack = Vec::new();
    Encoder::ack(&mut ack, Position { offset: acked, ..world.devices[0].inbox });
    world.send(0, &ack);
    world.settle();
    world.check();
    Some(world)
}

/// What was acknowledged in such worlds does not come again, and everything else does. So many of them must have been found.
fn only_the_rest_comes_again(worlds: impl Iterator<Item = World>, least: usize, rest: u64) {
    let mut count = 0;
    for world in worlds {
        count += 1;
        assert_eq!(world.sum(|m| m.inbox_pending.read()), rest);
        assert_eq!(world.sum(|m| m.messages_replayed.read()), rest);
    }
    assert!(count >= least, "in {count} worlds the two have crossed");
}

#[test]
fn ack_comes_just_after_its_time_then_it_counts() {
    only_the_rest_comes_again((0..40).filter_map(|seed| ack_that_crosses(seed, 1, 1)), 5, 0);
}

/// What comes again comes in parts, and all of the first part has been acknowledged meanwhile.
#[test]
fn part_is_acknowledged_before_a_repetition_comes_then_it_goes_on_behind_that() {
    only_the_rest_comes_again((0..12).filter_map(|seed| ack_that_crosses(seed, 300, 290)), 2, 10);
}

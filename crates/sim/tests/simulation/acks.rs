//! Acks that cross with the repetition of what they acknowledge.

use ringgate_core::id::Position;
use ringgate_core::shard::{Letter, ToHome};
use ringgate_core::wire::Encoder;

use crate::schedule::Schedule;

/// A schedule with two devices of two users, where the Acks of the first come too late: `messages` were brought to it, the
/// letter that asks for their repetition is under way, and now it acknowledges up to `acked`. None where its inbox lives
/// on its own shard: the two cannot cross there.
fn ack_that_crosses(seed: u64, messages: usize, acked: u64) -> Option<Schedule> {
    let mut schedule = Schedule::with(seed, |settings| {
        settings.inbox.in_flight_max = 1000;
        settings.inbox.messages_max = 1000;
        settings.inbox.ttl_ms = 3_600_000;
        settings.inbox.copy_to_own_devices = false;
        settings.inbox.publish_all = true;
        (settings.client.outbox_messages_max, settings.client.outbox_bytes_max) = (1000, 1 << 20);
    });
    schedule.ledger.ttls = false;
    let last = schedule.devices.len() - 1;
    schedule.devices = vec![schedule.devices.swap_remove(last), schedule.devices.swap_remove(0)];
    for index in 0..2 {
        schedule.connect(index);
        schedule.settle();
        schedule.pull(index);
    }
    schedule.devices[0].forgetful = true;
    let topic = format!("@{}", schedule.devices[0].user);
    for _ in 0..messages {
        schedule.publish(1, &topic, false);
        schedule.settle();
        schedule.pull(0);
        schedule.pull(1);
    }
    while schedule.devices[0].inbox.offset < messages as u64 {
        schedule.pull(0);
    }
    schedule.world.pass(schedule.world.settings.inbox.ack_wait_ms + 100);
    let client = schedule.devices[0].connection.unwrap();
    schedule.advance(client.shard);
    assert_eq!(schedule.world.sum(|m| &m.retries), 1);
    if !schedule.mailboxes.letters().any(|letter| matches!(letter, Letter::ToHome(ToHome::CatchUp { .. }))) {
        return None;
    }
    let mut ack = Vec::new();
    Encoder::ack(&mut ack, Position { offset: acked, ..schedule.devices[0].inbox });
    schedule.send(0, &ack);
    schedule.settle();
    schedule.world.check();
    Some(schedule)
}

/// What was acknowledged in such schedules does not come again, and everything else does. So many of them must have been found.
fn only_the_rest_comes_again(schedules: impl Iterator<Item = Schedule>, least: usize, rest: u64) {
    let mut count = 0;
    for schedule in schedules {
        count += 1;
        assert_eq!(schedule.world.sum(|m| &m.inbox_pending), rest);
        assert_eq!(schedule.world.sum(|m| &m.messages_replayed), rest);
    }
    assert!(count >= least, "in {count} schedules the two have crossed");
}

#[test]
fn ack_comes_just_after_its_time_then_it_counts() {
    only_the_rest_comes_again((0..40).filter_map(|seed| ack_that_crosses(seed, 1, 1)), 5, 0);
}

/// What comes again comes in parts, and all of the first part has been acknowledged meanwhile.
#[test]
fn part_is_acknowledged_before_a_repetition_comes_then_it_goes_on_behind_that() {
    only_the_rest_comes_again((0..24).filter_map(|seed| ack_that_crosses(seed, 300, 290)), 2, 10);
}

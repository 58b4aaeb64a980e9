//! A node that leaves: every client is told, however the table of connections looks.

use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;
use ringgate_core::shard::Event;

use crate::world::{World, settings};

#[test]
fn most_slots_are_free_then_a_drain_reaches_all_clients_within_a_few_turns() {
    let mut world = World::new(1, settings());
    for _ in 0..14_000 {
        world.open(0);
    }
    let alice = world.sign_in(0, "alice");
    for slot in 1..=14_000 {
        let connection = ConnectionKey { slot, generation: 1 };
        world.handle(0, Event::Ended { connection, reason: CloseReason::ConnectionReset });
        world.handle(0, Event::Freed { connection });
    }
    world.closed.clear();
    world.handle(0, Event::Drain);
    let mut turns = 0;
    while world.closed.is_empty() {
        assert!(world.shards[0].has_work(), "the shell would sleep now, after {turns} turns");
        world.shards[0].advance(world.now);
        world.take_effects(0);
        turns += 1;
    }
    assert_eq!(world.closed, [(alice, CloseReason::Shutdown)]);
    assert!(turns <= 2, "{turns} turns");
}

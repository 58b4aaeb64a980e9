//! A node that leaves: every client is told, however the table of connections looks.

use ringgate_core::close::CloseReason;
use ringgate_core::shard::Event;

use ringgate_sim::{World, settings};

#[test]
fn most_slots_are_free_then_a_drain_reaches_all_clients_within_a_few_turns() {
    let mut world = World::new(1, settings());
    let others: Vec<_> = (0..14_000).map(|_| world.open(0)).collect();
    let alice = world.sign_in(0, "alice");
    for client in others {
        world.end(client, CloseReason::ConnectionReset);
        world.free(client);
    }
    world.handle(0, Event::Drain);
    let mut turns = 0;
    while world.closed().is_empty() {
        assert!(world.shards[0].has_work(), "the shell would sleep now, after {turns} turns");
        world.shards[0].advance(world.now);
        world.take_effects(0);
        turns += 1;
    }
    assert_eq!(world.closed(), [(alice, CloseReason::Shutdown)]);
    assert!(turns <= 2, "{turns} turns");
}

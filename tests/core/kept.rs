//! What is kept at a topic's home: messages, cursors, positions; for how long, and what a client is told when it is gone.

use crate::world::{World, offsets, settings};

#[test]
fn what_waited_for_a_user_comes_in_order_at_sign_in() {
    for shards in [1, 3] {
        let mut world = World::new(shards, settings());
        let alice = world.sign_in(0, "alice");
        for text in ["one", "two", "three"] {
            world.publish(alice, "@bob", text.as_bytes());
        }
        let (bob, inbox, recovered, got) = world.connect(shards - 1, "bob", "phone", None);
        assert_eq!((inbox.offset, recovered, offsets(&got)), (3, true, vec![1, 2, 3]));
        world.ack(bob, inbox);
        assert_eq!(world.sum(|m| &m.inbox_acked), 3);
        world.check();
    }
}

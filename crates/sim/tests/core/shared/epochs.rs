//! An engine that begins a new epoch, because it may have lost messages.

use super::*;

#[test]
fn engine_begins_a_new_epoch_then_members_do_not_wait_in_the_old_one() {
    let mut nodes = Nodes::new(1, 1, &settings());
    let alice = member(&mut nodes, 0, "alice");
    publish(&mut nodes, 0, alice, ROOM, 1);
    nodes.settle();
    nodes.nodes[0].read_all(alice);
    nodes.disk = Default::default();
    for name in ["x", "y", "z", "w"] {
        nodes.disk.load(&name.into(), 0);
    }
    publish(&mut nodes, 0, alice, ROOM, 2);
    nodes.settle();
    let got = nodes.nodes[0].read_all(alice);
    assert!(closed(&nodes, 0, alice).is_some() || offsets(&got) == [1], "{got:?}");
    nodes.check();
}

#[test]
fn engine_begins_a_new_epoch_then_acks_of_the_old_one_do_not_pass_its_messages() {
    // On one of the shards the session is not at its inbox's home.
    for shard in 0..2 {
        let mut nodes = Nodes::new(2, 2, &settings());
        let bob = sign_in(&mut nodes, 1, "bob");
        let request = ConnectRequest { request: 1, token: "alice", device: "phone", ..Default::default() };
        let alice = nodes.nodes[0].open(shard);
        nodes.nodes[0].send(alice, |encoder, out| encoder.connect(out, &request));
        nodes.settle();
        publish(&mut nodes, 1, bob, "@alice", 1);
        nodes.settle();
        let mut replica = nodes.disk.clone();
        (2..=3).for_each(|request| publish(&mut nodes, 1, bob, "@alice", request));
        nodes.settle();
        let got = nodes.nodes[0].read_all(alice);
        assert_eq!(offsets(&got), [1, 2, 3]);
        let epoch = got.iter().find_map(|got| match got {
            Got::Message { position, .. } => Some(position.epoch),
            _ => None,
        });
        // A replica that lagged takes over, and two messages are stored there before this node hears of it.
        replica.begin_epochs_after(&nodes.disk);
        nodes.disk = replica;
        (4..=5).for_each(|request| publish(&mut nodes, 1, bob, "@alice", request));
        while nodes.work(1) {}
        nodes.news.clear();
        let topic: Arc<str> = "@alice".into();
        let unix_ms = nodes.nodes[0].now.unix_ms;
        let home = nodes.home(0, &topic).expect("it is in memory");
        let loaded = Box::new(nodes.disk.load(&topic, unix_ms));
        nodes.nodes[0].handle(home, Event::Loaded { topic, result: Ok(loaded) });
        let position = Position { epoch: epoch.expect("messages have come"), offset: 3 };
        nodes.nodes[0].send(alice, |_, out| Encoder::ack(out, position));
        nodes.settle();
        assert_eq!(closed(&nodes, 0, alice), Some(CloseReason::InsufficientState));
        nodes.nodes[0].free(alice);
        nodes.settle();
        let alice = nodes.nodes[0].open(shard);
        nodes.nodes[0].send(alice, |encoder, out| encoder.connect(out, &request));
        nodes.settle();
        assert_eq!(
            offsets(&nodes.nodes[0].read_all(alice)),
            [1, 2, 3],
            "shard {shard}: the first was not acknowledged in time"
        );
        nodes.check();
    }
}

#[test]
fn engine_begins_a_new_epoch_then_a_user_comes_back_and_is_told_of_the_loss() {
    let mut nodes = Nodes::new(1, 1, &settings());
    let alice = sign_in(&mut nodes, 0, "alice");
    publish(&mut nodes, 0, alice, "@alice", 1);
    nodes.settle();
    nodes.nodes[0].read_all(alice);
    nodes.disk = Default::default();
    for name in ["x", "y", "z", "w"] {
        nodes.disk.load(&name.into(), 0);
    }
    publish(&mut nodes, 0, alice, "@alice", 2);
    nodes.settle();
    assert_eq!(closed(&nodes, 0, alice), Some(CloseReason::InsufficientState));
    nodes.nodes[0].free(alice);
    let alice = nodes.nodes[0].open(0);
    let inbox = Some(Position { epoch: 1, offset: 1 });
    let request = ConnectRequest { request: 1, token: "alice", device: "phone", inbox, ..Default::default() };
    nodes.nodes[0].send(alice, |encoder, out| encoder.connect(out, &request));
    nodes.settle();
    let got = nodes.nodes[0].read_all(alice);
    assert!(matches!(got[0], Got::Connected { recovered: false, .. }), "{got:?}");
    assert_eq!(offsets(&got), [1], "the message of the new epoch");
    nodes.check();
}

#[test]
fn room_is_large_and_its_epoch_is_over_then_no_member_gets_a_message_of_the_new_one_before_it_is_sent_back() {
    const MEMBERS: usize = 600;
    let mut nodes = Nodes::new(1, 1, &settings());
    let members: Vec<_> = (0..MEMBERS).map(|number| member(&mut nodes, 0, &format!("user{number}"))).collect();
    publish(&mut nodes, 0, members[0], ROOM, 1);
    nodes.settle();
    members.iter().for_each(|client| drop(nodes.nodes[0].read_all(*client)));
    nodes.disk = Default::default();
    for name in ["x", "y", "z", "w"] {
        nodes.disk.load(&name.into(), 0);
    }
    (2..=4).for_each(|request| publish(&mut nodes, 0, members[0], ROOM, request));
    // The new epoch, and the next message in it, come in one turn.
    while nodes.work(0) {}
    let fields = PublishRequest { request: 5, topic: ROOM, payload: b"x", ..Default::default() };
    nodes.nodes[0].send(members[0], |encoder, out| encoder.publish(out, &fields));
    while nodes.work(0) {}
    nodes.nodes[0].work_off(0);
    for client in &members {
        let got = nodes.nodes[0].read(*client);
        assert_eq!(offsets(&got), [0_u64; 0], "{got:?}");
    }
    nodes.settle();
    for client in members {
        assert_eq!(closed(&nodes, 0, client), Some(CloseReason::InsufficientState));
    }
    nodes.check();
}

#[test]
fn engine_was_emptied_and_its_clock_is_behind_then_the_epoch_that_it_begins_is_above_the_known_one() {
    let mut nodes = Nodes::new(2, 1, &settings());
    // Its clock was ahead.
    nodes.disk.begin_above(&ROOM.into(), 1 << 40);
    let alice = member(&mut nodes, 0, "alice");
    publish(&mut nodes, 0, alice, ROOM, 1);
    nodes.settle();
    let got = nodes.nodes[0].read_all(alice);
    let known = positions(&got)[0];
    assert!(known.epoch > 1 << 40);
    nodes.disk = Default::default();
    // A node that has never heard of the room publishes there first.
    let bob = member(&mut nodes, 1, "bob");
    publish(&mut nodes, 1, bob, ROOM, 2);
    nodes.settle();
    let over = Some(CloseReason::InsufficientState);
    assert_eq!((closed(&nodes, 0, alice), closed(&nodes, 1, bob)), (over, over), "{known:?} is over");
    nodes.nodes[0].free(alice);
    nodes.nodes[1].free(bob);
    nodes.settle();
    let bob = member(&mut nodes, 1, "bob");
    let alice = sign_in(&mut nodes, 0, "alice");
    nodes.nodes[0].send(alice, |encoder, out| {
        encoder.subscribe(out, 2, RoomCursor { room: ROOM, since: Some(known), recover: Recover::Exact });
    });
    nodes.settle();
    publish(&mut nodes, 1, bob, ROOM, 3);
    nodes.settle();
    let got = nodes.nodes[0].read_all(alice);
    assert!(matches!(got[0], Got::Subscribed { recovered: false, position, .. } if position.epoch > known.epoch));
    assert_eq!(offsets(&got).last(), Some(&2));
    assert!(positions(&got).iter().all(|position| position.epoch > known.epoch), "{got:?}");
    nodes.check();
}

#[test]
fn home_publishes_to_an_engine_that_has_forgotten_its_epoch_then_no_place_of_that_epoch_is_given_again() {
    let mut nodes = Nodes::new(1, 1, &settings());
    nodes.disk.begin_above(&ROOM.into(), 1 << 40);
    let alice = member(&mut nodes, 0, "alice");
    publish(&mut nodes, 0, alice, ROOM, 1);
    nodes.settle();
    let known = positions(&nodes.nodes[0].read_all(alice))[0];
    nodes.disk = Default::default();
    publish(&mut nodes, 0, alice, ROOM, 2);
    nodes.settle();
    let topic: Arc<str> = ROOM.into();
    assert!(nodes.disk.load(&topic, 0).position.epoch > known.epoch);
    assert_eq!(closed(&nodes, 0, alice), Some(CloseReason::InsufficientState));
    nodes.check();
}

/// Where messages that came stand.
fn positions(got: &[Got]) -> Vec<Position> {
    let position = |got: &Got| match got {
        Got::Message { position, .. } => Some(*position),
        _ => None,
    };
    got.iter().filter_map(position).collect()
}

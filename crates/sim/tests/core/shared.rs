//! An engine that several nodes share: one order on all of them, without a hole and without a repetition.

mod devices;
mod epochs;
mod presence;

use std::sync::Arc;

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::id::{ClientMessageId, Position, Recover};
use ringgate_core::shard::Event;
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use ringgate_core::wire::{Encoder, RoomCursor};
use ringgate_sim::{Client, Got, News, Nodes, Random, Task, answers, offsets, settings, settings_with_namespace};

const ROOM: &str = "chat:a";

/// A node with a client of this name, who is in the room.
fn member(nodes: &mut Nodes, node: usize, user: &str) -> Client {
    let client = sign_in(nodes, node, user);
    nodes.nodes[node].send(client, |encoder, out| {
        encoder.subscribe(out, 2, RoomCursor { room: ROOM, since: None, recover: Recover::Exact });
    });
    nodes.settle();
    let got = nodes.nodes[node].read_all(client);
    assert!(matches!(got[..], [Got::Subscribed { .. }]), "{got:?}");
    client
}

fn sign_in(nodes: &mut Nodes, node: usize, user: &str) -> Client {
    sign_in_on(nodes, node, user, "phone")
}

/// A client has asked to be signed in; nothing has come of it yet.
fn begin_to_sign_in(nodes: &mut Nodes, node: usize, user: &str, device: &str) -> Client {
    let shard = user.len() % nodes.nodes[node].shards.len();
    let client = nodes.nodes[node].open(shard);
    let request = ConnectRequest { request: 1, token: user, device, ..Default::default() };
    nodes.nodes[node].send(client, |encoder, out| encoder.connect(out, &request));
    nodes.nodes[node].work();
    client
}

fn sign_in_on(nodes: &mut Nodes, node: usize, user: &str, device: &str) -> Client {
    let client = begin_to_sign_in(nodes, node, user, device);
    nodes.settle();
    let got = nodes.nodes[node].read_all(client);
    assert!(matches!(got[..], [Got::Connected { .. }, ..]), "{got:?}");
    client
}

/// Publishes with a request number, which is the client message id, too.
fn publish(nodes: &mut Nodes, node: usize, client: Client, topic: &str, request: u32) {
    let client_message_id = ClientMessageId { high: 5, low: request.into() };
    let fields = PublishRequest { request, topic, client_message_id, payload: b"x", ..Default::default() };
    nodes.nodes[node].send(client, |encoder, out| encoder.publish(out, &fields));
    nodes.nodes[node].work();
}

#[test]
fn two_nodes_publish_to_a_room_then_members_on_both_see_one_order() {
    for shards in [1, 3] {
        let mut nodes = Nodes::new(2, shards, &settings());
        let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
        for request in 1..=6 {
            let (node, client) = if request % 2 == 0 { (0, alice) } else { (1, bob) };
            publish(&mut nodes, node, client, ROOM, request);
        }
        nodes.settle();
        let (of_alice, of_bob) = (nodes.nodes[0].read_all(alice), nodes.nodes[1].read_all(bob));
        assert_eq!((offsets(&of_alice), offsets(&of_bob)), (vec![1, 2, 3, 4, 5, 6], vec![1, 2, 3, 4, 5, 6]));
        let mut places: Vec<_> = answers(&of_alice).into_iter().chain(answers(&of_bob)).collect();
        assert!(places.iter().all(|(_, answer)| answer.is_ok_and(|(_, repeated)| !repeated)), "{places:?}");
        places.sort_by_key(|(_, answer)| answer.map(|(offset, _)| offset));
        assert_eq!(places.iter().map(|(_, answer)| answer.unwrap().0).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        let messages = |got: &[Got]| -> Vec<Got> {
            got.iter().filter(|got| matches!(got, Got::Message { .. })).cloned().collect()
        };
        assert_eq!(messages(&of_alice), messages(&of_bob), "with the same stamps");
        nodes.check();
    }
}

#[test]
fn user_is_on_another_node_then_a_message_to_the_inbox_gets_there() {
    let mut nodes = Nodes::new(2, 2, &settings());
    let (alice, bob) = (sign_in(&mut nodes, 0, "alice"), sign_in(&mut nodes, 1, "bob"));
    publish(&mut nodes, 0, alice, "@bob", 1);
    nodes.settle();
    assert_eq!(answers(&nodes.nodes[0].read_all(alice)), [(1, Ok((1, false)))]);
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [1]);
    nodes.check();
}

#[test]
fn nobody_of_a_node_is_in_a_room_then_the_node_is_not_told_of_its_messages() {
    let mut nodes = Nodes::new(3, 1, &settings());
    let alice = member(&mut nodes, 0, "alice");
    let carol = member(&mut nodes, 2, "carol");
    publish(&mut nodes, 0, alice, ROOM, 1);
    while nodes.work(0) {}
    let told: Vec<_> = nodes.news.iter().map(|news| news.node).collect();
    assert_eq!((told, nodes.interested(ROOM)), (vec![0, 2], 2), "once for each node with members");
    nodes.settle();
    nodes.nodes[2].leave(carol);
    // The sweep that takes the room out of memory.
    nodes.pass(100);
    nodes.settle();
    assert_eq!(nodes.interested(ROOM), 1);
    nodes.check();
}

#[test]
fn news_are_lost_or_come_late_or_twice_then_what_lies_between_is_read() {
    let mut nodes = Nodes::new(2, 1, &settings());
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    (1..=6).for_each(|request| publish(&mut nodes, 0, alice, ROOM, request));
    while nodes.work(0) {}
    let news: Vec<News> = nodes.news.drain(..).filter(|news| news.node == 1).collect();
    // 1, then 3 before 2; 4 is lost, 5 comes twice, 6 after a pause.
    for index in [0, 2, 1, 4, 4] {
        nodes.tell(news[index].clone());
    }
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [1, 2, 3, 4, 5, 6], "the read brought the sixth, too");
    nodes.tell(news[5].clone());
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [0_u64; 0]);
    assert_eq!(offsets(&nodes.nodes[0].read_all(alice)), [1, 2, 3, 4, 5, 6], "its own messages are delivered once");
    nodes.check();
}

#[test]
fn message_is_repeated_on_another_node_then_it_gets_the_answer_of_the_first() {
    let mut nodes = Nodes::new(3, 1, &settings());
    let alice = ["phone", "laptop", "tablet"];
    let alice: Vec<_> =
        alice.iter().enumerate().map(|(node, device)| sign_in_on(&mut nodes, node, "alice", device)).collect();
    let bob = member(&mut nodes, 2, "bob");
    // Both are under way at once: the engine decides.
    publish(&mut nodes, 0, alice[0], "@bob", 1);
    publish(&mut nodes, 1, alice[1], "@bob", 1);
    nodes.settle();
    publish(&mut nodes, 2, alice[2], "@bob", 1);
    nodes.settle();
    assert_eq!(answers(&nodes.nodes[0].read_all(alice[0])), [(1, Ok((1, false)))]);
    assert_eq!(answers(&nodes.nodes[1].read_all(alice[1])), [(1, Ok((1, true)))]);
    assert_eq!(answers(&nodes.nodes[2].read_all(alice[2])), [(1, Ok((1, true)))]);
    assert_eq!(offsets(&nodes.nodes[2].read_all(bob)), [1]);
    nodes.check();
}

#[test]
fn engine_is_away_then_publishers_may_try_again_and_nothing_was_delivered() {
    let mut nodes = Nodes::new(2, 1, &settings());
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    nodes.is_away = true;
    publish(&mut nodes, 0, alice, ROOM, 1);
    publish(&mut nodes, 0, alice, "@nobody", 2);
    nodes.settle();
    let full = Err(ErrorCode::StorageFull as u16);
    assert_eq!(answers(&nodes.nodes[0].read_all(alice)), [(1, full), (2, full)]);
    nodes.is_away = false;
    publish(&mut nodes, 0, alice, ROOM, 1);
    nodes.settle();
    assert_eq!(answers(&nodes.nodes[0].read_all(alice)), [(1, Ok((1, false)))]);
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [1]);
    nodes.check();
}

#[test]
fn gap_cannot_be_read_for_a_while_then_it_is_read_again_and_nothing_is_missing() {
    let mut nodes = Nodes::new(2, 1, &settings());
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    (1..=3).for_each(|request| publish(&mut nodes, 0, alice, ROOM, request));
    while nodes.work(0) {}
    let third = nodes.news.drain(..).filter(|news| news.node == 1).nth(2).expect("three were stored");
    nodes.is_away = true;
    nodes.tell(third);
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [0_u64; 0]);
    nodes.is_away = false;
    nodes.pass(200);
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [1, 2, 3]);
    nodes.check();
}

#[test]
fn room_has_no_echo_then_publishers_hear_the_others_alone() {
    let mut nodes = Nodes::new(2, 1, &settings_with_namespace(|namespace| namespace.echo = false));
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    publish(&mut nodes, 0, alice, ROOM, 1);
    publish(&mut nodes, 1, bob, ROOM, 2);
    // Their own messages come as news before they are answered for.
    while nodes.work(0) || nodes.work(1) {}
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[0].read_all(alice)), [2]);
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [1]);
    nodes.check();
}

#[test]
fn news_are_lost_doubled_and_mixed_up_at_random_then_every_member_has_every_message_once_in_order() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let count = 2 + random.below(3);
        let mut nodes = Nodes::new(count, 1 + random.below(3), &settings());
        let members: Vec<_> = (0..count).map(|node| (node, member(&mut nodes, node, &format!("user{node}")))).collect();
        let mut got: Vec<Vec<u64>> = vec![Vec::new(); count];
        let mut sent = 0;
        for _ in 0..150 {
            let node = random.below(count);
            match random.below(8) {
                0 | 1 => {
                    sent += 1;
                    publish(&mut nodes, node, members[node].1, ROOM, sent);
                }
                2 | 3 => drop(nodes.work(node)),
                4 if !nodes.news.is_empty() => {
                    let at = random.below(nodes.news.len());
                    let news = nodes.news.remove(at).expect("it is there");
                    if random.one_in(4) {
                        nodes.news.push_back(news.clone());
                    }
                    if !random.one_in(4) {
                        nodes.tell(news);
                    }
                }
                5 => nodes.pass(50),
                6 => nodes.is_away = random.one_in(4),
                _ => got[node].extend(offsets(&nodes.nodes[node].read_all(members[node].1))),
            }
            nodes.check();
        }
        nodes.is_away = false;
        for _ in 0..3 {
            // The last that is known of brings everything before it.
            sent += 1;
            publish(&mut nodes, 0, members[0].1, ROOM, sent);
            nodes.pass(6_000);
            nodes.settle();
        }
        let stored = nodes.disk.last(ROOM);
        for (node, client) in members {
            got[node].extend(offsets(&nodes.nodes[node].read_all(client)));
            assert_eq!(got[node], (1..=stored).collect::<Vec<_>>(), "seed {seed}, node {node}");
        }
        nodes.check();
    }
}

/// Why the gateway closed a client's connection, if it did.
fn closed(nodes: &Nodes, node: usize, client: Client) -> Option<CloseReason> {
    nodes.nodes[node].closed().iter().find(|(closed, _)| *closed == client).map(|(_, reason)| *reason)
}

#[test]
fn device_signs_in_on_another_node_then_its_older_session_is_taken_over() {
    let mut nodes = Nodes::new(3, 2, &settings());
    let first = sign_in(&mut nodes, 0, "alice");
    let other = sign_in_on(&mut nodes, 0, "alice", "laptop");
    let second = sign_in(&mut nodes, 1, "alice");
    assert_eq!(closed(&nodes, 0, first), Some(CloseReason::TakenOver));
    nodes.nodes[0].free(first);
    nodes.settle();
    assert_eq!((closed(&nodes, 1, second), nodes.holder("alice", "phone")), (None, Some(1)), "an old session ends");
    let third = sign_in(&mut nodes, 1, "alice");
    assert_eq!(closed(&nodes, 1, second), Some(CloseReason::TakenOver), "and on one node, too");
    assert_eq!((closed(&nodes, 1, third), closed(&nodes, 0, other)), (None, None));
    nodes.nodes[1].leave(third);
    nodes.settle();
    assert_eq!((nodes.holder("alice", "phone"), nodes.holder("alice", "laptop")), (None, Some(0)));
    nodes.check();
}

#[test]
fn answers_to_claims_and_evictions_come_in_any_order_then_the_newest_session_wins() {
    // 0: the answer to the older claim. 1: the eviction of the older session. 2: the answer to the newer claim.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut nodes = Nodes::new(2, 1, &settings());
        let older = begin_to_sign_in(&mut nodes, 0, "alice", "phone");
        while nodes.work(0) {}
        let newer = begin_to_sign_in(&mut nodes, 1, "alice", "phone");
        while nodes.work(1) {}
        let answers: Vec<_> = nodes.claimed.drain(..).collect();
        let evictions: Vec<_> = nodes.evictions.drain(..).collect();
        assert_eq!((answers.len(), evictions.len()), (2, 1));
        for word in order {
            match word {
                0 => nodes.answer_claim(answers[0]),
                1 => nodes.evict(evictions[0].clone()),
                _ => nodes.answer_claim(answers[1]),
            }
            nodes.check();
        }
        nodes.settle();
        assert_eq!(closed(&nodes, 0, older), Some(CloseReason::TakenOver), "{order:?}");
        assert_eq!(closed(&nodes, 1, newer), None, "{order:?}");
        let got = nodes.nodes[1].read_all(newer);
        assert!(matches!(got[..], [Got::Connected { .. }]), "{got:?}");
        nodes.nodes[0].free(older);
        nodes.settle();
        assert_eq!(nodes.holder("alice", "phone"), Some(1), "{order:?}");
        nodes.check();
    }
}

#[test]
fn claim_cannot_be_made_then_the_client_is_to_come_back() {
    let mut nodes = Nodes::new(1, 1, &settings());
    let alice = begin_to_sign_in(&mut nodes, 0, "alice", "phone");
    // Its inbox is loaded.
    nodes.work(0);
    nodes.is_away = true;
    nodes.settle();
    assert_eq!(closed(&nodes, 0, alice), Some(CloseReason::Busy));
    nodes.is_away = false;
    sign_in(&mut nodes, 0, "alice");
    nodes.check();
}

#[test]
fn every_news_was_lost_then_what_the_engine_says_of_the_topic_brings_the_messages() {
    let mut nodes = Nodes::new(2, 1, &settings());
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    (1..=3).for_each(|request| publish(&mut nodes, 0, alice, ROOM, request));
    while nodes.work(0) {}
    nodes.news.retain(|news| news.node != 1);
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [0_u64; 0]);
    nodes.pass(6_000);
    let topic: Arc<str> = ROOM.into();
    let unix_ms = nodes.nodes[1].now.unix_ms;
    let loaded = Box::new(nodes.disk.load(&topic, unix_ms));
    nodes.nodes[1].handle(0, Event::Loaded { topic, result: Ok(loaded) });
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [1, 2, 3]);
    nodes.check();
}

#[test]
fn engine_does_not_have_yet_what_it_has_told_of_then_it_is_asked_again_after_a_pause() {
    let mut nodes = Nodes::new(2, 1, &settings());
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    publish(&mut nodes, 0, alice, ROOM, 1);
    while nodes.work(0) {}
    let first = nodes.news.drain(..).find(|news| news.node == 1).expect("one was stored");
    // As a replica does that lags: it has the first message alone.
    let mut later = first.clone();
    later.message.offset = 2;
    nodes.tell(later);
    let mut asked = 0;
    while asked < 100 && nodes.work(1) {
        asked += 1;
    }
    assert_eq!(asked, 2, "one read brought the first message, another one nothing");
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [1]);
    publish(&mut nodes, 0, alice, ROOM, 2);
    while nodes.work(0) {}
    nodes.news.clear();
    nodes.pass(200);
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [2]);
    nodes.check();
}

#[test]
fn claims_are_not_answered_and_clients_give_up_then_a_bounded_number_of_them_waits() {
    let mut nodes = Nodes::new(1, 1, &settings());
    let alice = sign_in(&mut nodes, 0, "alice");
    nodes.nodes[0].leave(alice);
    for _ in 0..64 * 1024 {
        let client = begin_to_sign_in(&mut nodes, 0, "alice", "phone");
        nodes.nodes[0].end(client, CloseReason::ConnectionReset);
        nodes.nodes[0].free(client);
    }
    let refused = begin_to_sign_in(&mut nodes, 0, "alice", "phone");
    assert_eq!(closed(&nodes, 0, refused), Some(CloseReason::Busy));
    nodes.settle();
    assert_eq!(nodes.holder("alice", "phone"), None, "those that have ended have let go");
    sign_in(&mut nodes, 0, "alice");
    nodes.check();
}

#[test]
fn more_is_missing_than_one_read_brings_then_it_is_read_to_its_end() {
    let mut nodes = Nodes::new(2, 1, &settings_with_namespace(|namespace| namespace.history_size = 1000));
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    for request in 1..=300 {
        publish(&mut nodes, 0, alice, ROOM, request);
        while nodes.work(0) {}
        nodes.nodes[0].read_all(alice);
    }
    let last = nodes.news.drain(..).rfind(|news| news.node == 1).expect("they were stored");
    nodes.tell(last);
    let mut got = Vec::new();
    loop {
        nodes.settle();
        let brought = offsets(&nodes.nodes[1].read_all(bob));
        if brought.is_empty() {
            break;
        }
        got.extend(brought);
    }
    assert_eq!(got, (1..=300).collect::<Vec<_>>());
    nodes.check();
}

#[test]
fn device_on_another_node_has_not_read_a_message_then_it_stays_until_it_has() {
    let mut nodes = Nodes::new(2, 1, &settings());
    let phone = sign_in(&mut nodes, 0, "alice");
    let laptop = sign_in_on(&mut nodes, 1, "alice", "laptop");
    let bob = sign_in(&mut nodes, 0, "bob");
    publish(&mut nodes, 0, bob, "@alice", 1);
    nodes.settle();
    let got = nodes.nodes[0].read_all(phone);
    let Some(Got::Message { position, .. }) = got.first() else { panic!("{got:?}") };
    nodes.nodes[1].leave(laptop);
    nodes.nodes[0].ack(phone, *position);
    for _ in 0..3 {
        nodes.pass(200);
        nodes.settle();
    }
    let laptop = begin_to_sign_in(&mut nodes, 0, "alice", "laptop");
    nodes.settle();
    let got = nodes.nodes[0].read_all(laptop);
    assert_eq!(offsets(&got), [1], "{got:?}");
    nodes.check();
}

#[test]
fn last_member_of_one_node_leaves_a_room_that_vanishes_then_members_elsewhere_keep_its_messages() {
    let mut nodes = Nodes::new(2, 1, &settings_with_namespace(|namespace| namespace.vanish_when_empty = true));
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    publish(&mut nodes, 1, bob, ROOM, 1);
    nodes.settle();
    nodes.nodes[0].leave(alice);
    for _ in 0..3 {
        nodes.pass(200);
        nodes.settle();
    }
    assert!(nodes.disk.message(ROOM, 1).is_some(), "bob is still there");
    nodes.check();
}

/// The first node hears of all messages, and tells the engine which of them have left; then the second hears of the last one alone.
fn hear_of_the_last_alone(nodes: &mut Nodes) {
    while nodes.work(0) {}
    let news: Vec<News> = nodes.news.drain(..).collect();
    for news in news.iter().filter(|news| news.node == 0) {
        nodes.tell(news.clone());
    }
    // The floor.
    nodes.nodes[0].pass(200);
    nodes.nodes[0].work();
    while nodes.work(0) {}
    nodes.tell(news.iter().rfind(|news| news.node == 1).expect("there is one").clone());
    nodes.settle();
}

#[test]
fn messages_between_have_left_the_engine_then_members_are_told_of_the_hole() {
    let mut nodes = Nodes::new(2, 1, &settings_with_namespace(|namespace| namespace.history_size = 2));
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    (1..=5).for_each(|request| publish(&mut nodes, 0, alice, ROOM, request));
    hear_of_the_last_alone(&mut nodes);
    let got = offsets(&nodes.nodes[1].read_all(bob));
    assert!(closed(&nodes, 1, bob) == Some(CloseReason::InsufficientState) || got == [1, 2, 3, 4, 5], "{got:?}");
    nodes.check();
}

#[test]
fn messages_between_have_left_the_engine_then_an_inbox_goes_on_behind_them() {
    let mut settings = settings();
    settings.inbox.messages_max = 2;
    let mut nodes = Nodes::new(2, 1, &settings);
    let (phone, laptop) = (sign_in(&mut nodes, 0, "alice"), sign_in_on(&mut nodes, 1, "alice", "laptop"));
    (1..=5).for_each(|request| publish(&mut nodes, 0, phone, "@alice", request));
    hear_of_the_last_alone(&mut nodes);
    let got = offsets(&nodes.nodes[1].read_all(laptop));
    assert_eq!(got, [4, 5]);
    nodes.check();
}

#[test]
fn user_has_devices_on_two_nodes_then_what_one_sends_is_copied_for_the_other() {
    let mut settings = settings();
    settings.inbox.copy_to_own_devices = true;
    let mut nodes = Nodes::new(2, 1, &settings);
    let phone = sign_in(&mut nodes, 0, "alice");
    let laptop = sign_in_on(&mut nodes, 1, "alice", "laptop");
    publish(&mut nodes, 0, phone, "@bob", 1);
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[1].read_all(laptop)), [1]);
    nodes.check();
}

#[test]
fn recipient_is_on_another_node_alone_then_the_publishers_node_does_not_load_the_inbox() {
    let mut nodes = Nodes::new(2, 1, &settings());
    let (alice, bob) = (sign_in(&mut nodes, 0, "alice"), sign_in(&mut nodes, 1, "bob"));
    (1..=3).for_each(|request| publish(&mut nodes, 0, alice, "@bob", request));
    let calls = nodes.nodes[0].calls.iter().filter(|call| !matches!(call.task, Task::Append(_))).count();
    assert_eq!(calls, 0, "nothing but the messages themselves");
    nodes.settle();
    assert_eq!(answers(&nodes.nodes[0].read_all(alice)), [1, 2, 3].map(|nth| (nth, Ok((u64::from(nth), false)))));
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [1, 2, 3]);
    assert_eq!(nodes.interested("@bob"), 1);
    nodes.check();
}

/// Publishes a message that is in no log.
fn publish_ephemeral(nodes: &mut Nodes, node: usize, client: Client, topic: &str) {
    let fields = PublishRequest { request: 9, topic, ephemeral: true, payload: b"typing", ..Default::default() };
    nodes.nodes[node].send(client, |encoder, out| encoder.publish(out, &fields));
    nodes.nodes[node].work();
}

#[test]
fn message_is_in_no_log_then_sessions_of_all_nodes_get_it_once() {
    let mut nodes = Nodes::new(3, 2, &settings());
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    let carol = sign_in(&mut nodes, 2, "carol");
    publish_ephemeral(&mut nodes, 0, alice, ROOM);
    publish_ephemeral(&mut nodes, 0, alice, "@carol");
    nodes.settle();
    let got = [(0, alice), (1, bob), (2, carol)].map(|(node, client)| offsets(&nodes.nodes[node].read_all(client)));
    assert_eq!(got, [vec![0], vec![0], vec![0]], "the room has an echo");
    nodes.check();
}

#[test]
fn member_joins_and_leaves_then_members_on_other_nodes_are_told() {
    let mut nodes = Nodes::new(2, 1, &settings_with_namespace(|namespace| namespace.join_leave = true));
    let bob = member(&mut nodes, 1, "bob");
    let alice = member(&mut nodes, 0, "alice");
    assert!(matches!(&nodes.nodes[1].read_all(bob)[..], [Got::Joined { .. }]));
    nodes.nodes[0].leave(alice);
    nodes.settle();
    assert!(matches!(&nodes.nodes[1].read_all(bob)[..], [Got::Left { .. }]));
    nodes.check();
}

#[test]
fn user_has_as_many_sessions_on_other_nodes_as_are_allowed_then_another_one_is_refused() {
    let mut settings = settings();
    settings.client.sessions_per_user_max = 2;
    let mut nodes = Nodes::new(3, 1, &settings);
    sign_in_on(&mut nodes, 0, "alice", "phone");
    let laptop = sign_in_on(&mut nodes, 1, "alice", "laptop");
    let tablet = begin_to_sign_in(&mut nodes, 2, "alice", "tablet");
    nodes.settle();
    assert_eq!(closed(&nodes, 2, tablet), Some(CloseReason::ConnectionLimit));
    assert_eq!(nodes.holder("alice", "tablet"), None, "and does not have the device");
    nodes.nodes[1].leave(laptop);
    nodes.settle();
    sign_in_on(&mut nodes, 2, "alice", "tablet");
    nodes.check();
}

#[test]
fn device_is_forgotten_on_one_node_then_other_nodes_do_not_wait_for_its_acknowledgements() {
    let mut settings = settings();
    settings.inbox.devices_max = 2;
    let mut nodes = Nodes::new(2, 1, &settings);
    let old = sign_in_on(&mut nodes, 1, "alice", "old");
    nodes.nodes[1].leave(old);
    nodes.settle();
    nodes.pass(10);
    let phone = sign_in(&mut nodes, 0, "alice");
    publish(&mut nodes, 0, phone, "@alice", 1);
    nodes.settle();
    let got = nodes.nodes[0].read_all(phone);
    let Some(Got::Message { position, .. }) = got.iter().find(|got| matches!(got, Got::Message { .. })) else {
        panic!("{got:?}")
    };
    nodes.nodes[0].ack(phone, *position);
    nodes.pass(200);
    nodes.settle();
    assert!(nodes.disk.message("@alice", 1).is_some(), "the old device has not read it");
    let laptop = begin_to_sign_in(&mut nodes, 0, "alice", "laptop");
    nodes.settle();
    let got = nodes.nodes[0].read_all(laptop);
    let [Got::Connected { .. }, Got::Message { position, .. }] = &got[..] else { panic!("{got:?}") };
    nodes.nodes[0].ack(laptop, *position);
    nodes.pass(200);
    nodes.settle();
    assert!(nodes.disk.message("@alice", 1).is_none(), "the two devices that are known have read it");
    nodes.check();
}

#[test]
fn message_comes_late_from_another_node_then_it_is_as_old_as_there() {
    let mut nodes = Nodes::new(2, 1, &settings_with_namespace(|namespace| namespace.history_ttl_ms = 60_000));
    let (alice, bob) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    publish(&mut nodes, 0, alice, ROOM, 1);
    while nodes.work(0) {}
    let late: Vec<News> = nodes.news.drain(..).filter(|news| news.node == 1).collect();
    nodes.pass(59_000);
    late.into_iter().for_each(|news| nodes.tell(news));
    nodes.pass(1_500);
    nodes.settle();
    assert_eq!(offsets(&nodes.nodes[1].read_all(bob)), [1]);
    nodes.nodes[1].send(bob, |encoder, out| {
        encoder.history(out, &HistoryRequest { request: 3, topic: ROOM, limit: 10, ..Default::default() });
    });
    nodes.settle();
    let got = nodes.nodes[1].read_all(bob);
    assert!(matches!(&got[..], [Got::History { offsets, .. }] if offsets.is_empty()), "{got:?}");
    nodes.check();
}

#[test]
fn messages_have_left_that_all_known_devices_had_read_then_a_client_behind_them_is_told_that_it_missed_them() {
    let mut nodes = Nodes::new(2, 1, &settings());
    let (alice, bob) = (sign_in(&mut nodes, 0, "alice"), sign_in(&mut nodes, 1, "bob"));
    (1..=3).for_each(|request| publish(&mut nodes, 0, alice, "@bob", request));
    nodes.settle();
    let got = nodes.nodes[1].read_all(bob);
    let epoch = got.iter().find_map(|got| match got {
        Got::Message { position, .. } => Some(position.epoch),
        _ => None,
    });
    let epoch = epoch.expect("a message has come");
    nodes.nodes[1].send(bob, |_, out| Encoder::ack(out, Position { epoch, offset: 3 }));
    nodes.pass(200);
    nodes.settle();
    nodes.nodes[1].leave(bob);
    nodes.settle();
    let tablet = nodes.nodes[0].open(0);
    let inbox = Some(Position { epoch, offset: 1 });
    let request = ConnectRequest { request: 1, token: "bob", device: "tablet", inbox, ..Default::default() };
    nodes.nodes[0].send(tablet, |encoder, out| encoder.connect(out, &request));
    nodes.settle();
    let got = nodes.nodes[0].read_all(tablet);
    assert!(matches!(got[..], [Got::Connected { recovered: false, .. }]), "{got:?}");
    nodes.check();
}

#[test]
fn topic_is_busy_then_who_comes_waits_for_what_there_was_and_not_for_newer_messages() {
    let mut nodes = Nodes::new(2, 1, &settings());
    let (alice, _) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    let carol = sign_in(&mut nodes, 1, "carol");
    (1..=3).for_each(|request| publish(&mut nodes, 0, alice, ROOM, request));
    while nodes.work(0) {}
    let mut newer = nodes.news.drain(..).rfind(|news| news.node == 1).expect("three were stored");
    let since = Some(Position { epoch: newer.epoch, offset: 3 });
    nodes.nodes[1].send(carol, |encoder, out| {
        encoder.subscribe(out, 2, RoomCursor { room: ROOM, since, recover: Recover::Exact });
    });
    nodes.nodes[1].work();
    assert!(nodes.work(1), "the room is loaded");
    // It comes before the answer to the read, which was made before.
    newer.message.offset = 4;
    nodes.tell(newer);
    assert!(nodes.work(1), "the three are read");
    let got = nodes.nodes[1].read_all(carol);
    assert!(matches!(got[..], [Got::Subscribed { recovered: true, .. }]), "{got:?}");
}

#[test]
fn room_could_not_be_joined_then_it_can_be_on_the_same_connection_while_others_are_in_it() {
    let mut nodes = Nodes::new(1, 1, &settings());
    member(&mut nodes, 0, "alice");
    let bob = sign_in(&mut nodes, 0, "bob");
    let join = |nodes: &mut Nodes| {
        let since = Some(Position { epoch: 1 << 60, offset: 0 });
        nodes.nodes[0].send(bob, |encoder, out| {
            encoder.subscribe(out, 2, RoomCursor { room: ROOM, since, recover: Recover::Exact });
        });
        nodes.settle();
        nodes.nodes[0].read_all(bob)
    };
    nodes.is_away = true;
    assert_eq!(answers(&join(&mut nodes)), [(2, Err(ErrorCode::Internal.code()))]);
    nodes.is_away = false;
    let got = join(&mut nodes);
    assert!(matches!(got[..], [Got::Subscribed { recovered: false, .. }]), "{got:?}");
    nodes.check();
}

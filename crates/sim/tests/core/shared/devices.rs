//! Devices and sessions of a user on several nodes, and what a client is told when the engine cannot serve it.

use ringgate_core::shard::Unstored;
use ringgate_core::wire::ServerFrame;

use super::*;

/// Does what one node asks for, and answers its claims; what others are to be told waits.
fn work_alone(nodes: &mut Nodes, node: usize) {
    loop {
        let worked = nodes.work(node);
        match nodes.claimed.iter().position(|answer| answer.node == node) {
            Some(at) => {
                let answer = nodes.claimed.remove(at).expect("it is there");
                nodes.answer_claim(answer);
            }
            None if !worked => return,
            None => {}
        }
    }
}

/// A client acknowledges the messages that it was brought.
fn acknowledge(nodes: &mut Nodes, node: usize, client: Client) {
    let got = nodes.nodes[node].read_all(client);
    let last = got.iter().rev().find_map(|got| match got {
        Got::Message { position, .. } => Some(*position),
        _ => None,
    });
    nodes.nodes[node].ack(client, last.expect("messages have come"));
}

#[test]
fn device_that_is_to_be_forgotten_is_used_again_elsewhere_then_no_new_device_is_told_of_a_loss() {
    let mut settings = settings();
    settings.inbox.devices_max = 2;
    let mut nodes = Nodes::new(2, 1, &settings);
    let laptop = sign_in_on(&mut nodes, 1, "alice", "laptop");
    nodes.nodes[1].leave(laptop);
    nodes.settle();
    nodes.pass(10);
    let phone = sign_in(&mut nodes, 0, "alice");
    (1..=3).for_each(|request| publish(&mut nodes, 0, phone, "@alice", request));
    nodes.settle();
    // For the tablet the first node forgets the laptop; before the engine hears of that, the laptop is back on the second node.
    let tablet = begin_to_sign_in(&mut nodes, 0, "alice", "tablet");
    nodes.work(0);
    let claimed = nodes.claimed.pop_front().expect("the tablet's");
    nodes.answer_claim(claimed);
    assert!(matches!(nodes.nodes[0].calls.front().map(|call| &call.task), Some(Task::Load { .. })));
    nodes.work(0);
    let laptop = begin_to_sign_in(&mut nodes, 1, "alice", "laptop");
    work_alone(&mut nodes, 1);
    nodes.settle();
    acknowledge(&mut nodes, 0, phone);
    acknowledge(&mut nodes, 0, tablet);
    acknowledge(&mut nodes, 1, laptop);
    nodes.pass(200);
    nodes.settle();
    assert!(nodes.disk.message("@alice", 3).is_none(), "all devices have read it");
    let watch = begin_to_sign_in(&mut nodes, 0, "alice", "watch");
    nodes.settle();
    let got = nodes.nodes[0].read_all(watch);
    assert!(matches!(got[..], [Got::Connected { recovered: true, .. }]), "{got:?}");
    nodes.check();
}

#[test]
fn two_devices_sign_in_at_once_on_two_nodes_then_one_of_them_is_refused_where_one_more_is_allowed() {
    let mut settings = settings();
    settings.client.sessions_per_user_max = 2;
    let mut nodes = Nodes::new(3, 1, &settings);
    sign_in_on(&mut nodes, 0, "alice", "phone");
    // Both have loaded the inbox before either is known there.
    let laptop = begin_to_sign_in(&mut nodes, 1, "alice", "laptop");
    let tablet = begin_to_sign_in(&mut nodes, 2, "alice", "tablet");
    nodes.work(1);
    nodes.work(2);
    for _ in 0..2 {
        if let Some(claimed) = nodes.claimed.pop_front() {
            nodes.answer_claim(claimed);
        }
    }
    nodes.settle();
    let refused = [closed(&nodes, 1, laptop), closed(&nodes, 2, tablet)];
    assert_eq!(refused, [None, Some(CloseReason::ConnectionLimit)]);
    assert_eq!(nodes.holder("alice", "tablet"), None);
    // At the limit, a new session of a device that is signed in replaces the old one.
    sign_in_on(&mut nodes, 2, "alice", "phone");
    nodes.check();
}

#[test]
fn user_is_disconnected_then_the_sessions_of_all_nodes_end_or_those_of_one_device() {
    let mut nodes = Nodes::new(2, 2, &settings());
    let (phone, laptop) = (sign_in(&mut nodes, 0, "alice"), sign_in_on(&mut nodes, 1, "alice", "laptop"));
    let tablet = sign_in_on(&mut nodes, 1, "alice", "tablet");
    let bob = sign_in(&mut nodes, 1, "bob");
    let home = nodes.home(0, "@alice").expect("it is in memory");
    let mut disconnect = |device: Option<&str>| {
        let (user, device) = ("alice".into(), device.map(Into::into));
        let reason = CloseReason::Expired;
        nodes.nodes[0].handle(home, Event::Disconnect { user, device, reason, everywhere: true });
        nodes.settle();
        [(0, phone), (1, laptop), (1, tablet), (1, bob)].map(|(node, client)| closed(&nodes, node, client))
    };
    let expired = Some(CloseReason::Expired);
    assert_eq!(disconnect(Some("laptop")), [None, expired, None, None]);
    assert_eq!(disconnect(None), [expired, expired, expired, None]);
    nodes.check();
}

#[test]
fn engine_has_not_stored_a_message_then_its_publisher_hears_why_and_only_402_says_that_nothing_was_stored() {
    for (why, code, word) in [
        (Unstored::Away, 402, "does not answer"),
        (Unstored::Memory, 402, "no memory left"),
        (Unstored::Disk, 402, "cannot write to its disk"),
        (Unstored::Replicas, 402, "too few replicas"),
        (Unstored::Refused, 402, "refused"),
        (Unstored::Unknown, 100, "may have been stored"),
    ] {
        let mut nodes = Nodes::new(1, 2, &settings());
        let alice = sign_in(&mut nodes, 0, "alice");
        publish(&mut nodes, 0, alice, "@bob", 7);
        let call = nodes.nodes[0].calls.pop_front().expect("the message");
        let Task::Append(append) = call.task else { panic!("{:?}", call.task) };
        nodes.nodes[0].handle(call.shard, Event::Stored { ticket: append.ticket, result: Err(why) });
        nodes.settle();
        let mut told = None;
        nodes.nodes[0].read_with(alice, |frame| match frame {
            ServerFrame::Error(error) => {
                let message = error.message().unwrap_or_default().to_owned();
                told = Some((error.request(), error.code(), error.retry_after_ms(), message));
            }
            other => panic!("{other:?}"),
        });
        let (request, told, retry_after_ms, message) = told.expect("an answer");
        assert_eq!((request, told, retry_after_ms), (7, code, 1000));
        assert!(message.contains(word) && message.starts_with(why.code().label()), "{message}");
        nodes.check();
    }
}

#[test]
fn engine_cannot_serve_a_session_then_its_client_comes_back_sooner_than_to_a_full_node() {
    let mut nodes = Nodes::new(1, 1, &settings());
    nodes.is_away = true;
    let alice = begin_to_sign_in(&mut nodes, 0, "alice", "phone");
    nodes.settle();
    assert_eq!(closed(&nodes, 0, alice), Some(CloseReason::Busy));
    let mut after_ms = None;
    nodes.nodes[0].read_with(alice, |frame| match frame {
        ServerFrame::Goodbye(goodbye) => after_ms = Some(goodbye.after_ms()),
        other => panic!("{other:?}"),
    });
    assert!(after_ms.is_some_and(|after_ms| (500..1500).contains(&after_ms)), "{after_ms:?}");
    nodes.check();
}

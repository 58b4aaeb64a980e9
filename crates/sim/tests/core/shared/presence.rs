//! The members of a room on all nodes.

use super::*;

/// What Presence tells a client of the room: how many sessions are in it, and the names of some.
fn presence(nodes: &mut Nodes, node: usize, client: Client) -> (u32, Vec<String>) {
    nodes.nodes[node].send(client, |encoder, out| encoder.presence(out, 8, ROOM, 10));
    nodes.settle();
    match &nodes.nodes[node].read_all(client)[..] {
        [Got::Presence { request: 8, count, members }] => {
            let mut names: Vec<_> = members.iter().map(|(user, device)| format!("{user}/{device}")).collect();
            names.sort();
            (*count, names)
        }
        got => panic!("{got:?}"),
    }
}

#[test]
fn members_are_on_several_nodes_then_presence_names_them_all() {
    let mut nodes = Nodes::new(3, 2, &settings_with_namespace(|namespace| namespace.presence = true));
    let alice = member(&mut nodes, 0, "alice");
    assert_eq!(presence(&mut nodes, 0, alice), (1, vec!["alice/phone".to_owned()]), "at once");
    let bob = member(&mut nodes, 1, "bob");
    let carol = member(&mut nodes, 2, "carol");
    nodes.pass(200);
    nodes.settle();
    let all = ["alice/phone", "bob/phone", "carol/phone"].map(str::to_owned).to_vec();
    assert_eq!(presence(&mut nodes, 0, alice), (3, all.clone()));
    nodes.nodes[1].leave(bob);
    nodes.pass(200);
    nodes.settle();
    assert_eq!(presence(&mut nodes, 2, carol), (2, vec![all[0].clone(), all[2].clone()]));
    nodes.crash(0);
    assert_eq!(presence(&mut nodes, 2, carol), (1, vec![all[2].clone()]), "a node that is gone has no members");
    nodes.check();
}

#[test]
fn engine_has_lost_who_is_in_a_room_then_it_is_told_anew() {
    let mut nodes = Nodes::new(2, 1, &settings_with_namespace(|namespace| namespace.presence = true));
    let (alice, _) = (member(&mut nodes, 0, "alice"), member(&mut nodes, 1, "bob"));
    nodes.pass(200);
    nodes.settle();
    nodes.forget_members();
    assert_eq!(presence(&mut nodes, 0, alice).0, 0);
    nodes.change_all();
    nodes.settle();
    nodes.pass(200);
    nodes.settle();
    assert_eq!(presence(&mut nodes, 0, alice).0, 2);
    nodes.check();
}

#[test]
fn engine_is_away_then_presence_is_refused_for_now() {
    let mut nodes = Nodes::new(1, 1, &settings_with_namespace(|namespace| namespace.presence = true));
    let alice = member(&mut nodes, 0, "alice");
    nodes.is_away = true;
    nodes.nodes[0].send(alice, |encoder, out| encoder.presence(out, 8, ROOM, 10));
    nodes.settle();
    assert_eq!(answers(&nodes.nodes[0].read_all(alice)), [(8, Err(ErrorCode::Internal.code()))]);
    nodes.check();
}

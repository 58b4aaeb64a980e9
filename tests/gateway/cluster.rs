//! Gateways on a Cluster of Redis: real servers, real sockets.

use std::collections::BTreeMap;

use ringgate::config::{HostPort, RedisConfig, RedisMode};
use ringgate_core::close::CloseReason;
use ringgate_core::id::ClientMessageId;
use ringgate_core::limits::{Engine, Namespace};
use ringgate_core::wire::encode::PublishRequest;
use ringgate_test_servers::{Append, Cluster, Options};

use crate::support::{Client, Frame, Gateway, Login, http, wait_until};

/// Three masters, of which each is used without the others.
fn cluster() -> Cluster {
    let lines = vec!["cluster-require-full-coverage no".to_owned()];
    Cluster::start(&Options { append: Append::EverySecond, lines, ..Options::default() }, false)
}

fn gateway(cluster: &Cluster, number: u16) -> Gateway {
    Gateway::with(|config| {
        let addresses = cluster.addresses().into_iter().take(2);
        let addresses = addresses.map(|address| HostPort::parse(&address.to_string()).unwrap()).collect();
        config.redis = Some(RedisConfig { mode: RedisMode::Cluster, ..RedisConfig::at(addresses) });
        config.settings.engine = Engine::Shared;
        config.settings.node_number = number;
        config.settings.namespaces = vec![Namespace::named("chat")];
    })
}

/// The slot of a user's inbox in which something stands.
fn slot_of_inbox(cluster: &Cluster, user: &str) -> u16 {
    let pattern = format!("*:t:@{user}");
    let keys = cluster.nodes.iter().map(|node| node.command(&["KEYS", &pattern]));
    let key = keys.filter_map(|keys| keys.list().first()?.text()).next().expect("the inbox");
    cluster.slot_of(&key)
}

fn is_ready(gateway: &Gateway) -> bool {
    let answer = http(gateway.admin(), "GET", "/readyz");
    answer.status == 200 && answer.body.contains("\"reasons\":[]")
}

fn publish(client: &mut Client, topic: &str, number: u64) -> Result<(), u16> {
    let payload = number.to_string();
    let id = ClientMessageId { high: 1, low: number + 1 };
    let request = PublishRequest { topic, payload: payload.as_bytes(), client_message_id: id, ..Default::default() };
    client.try_publish(request).map(drop).map_err(|refusal| {
        assert!(refusal.retry_after_ms > 0, "a temporary error: {refusal:?}");
        refusal.code
    })
}

#[test]
fn slot_of_an_inbox_moves_while_messages_flow_then_each_arrives_once_and_in_order() {
    let cluster = cluster();
    let gateways = [gateway(&cluster, 1), gateway(&cluster, 2)];
    let (mut alice, mut bob) = (gateways[0].sign_in("alice"), gateways[1].sign_in("bob"));
    publish(&mut alice, "@bob", 0).unwrap();
    let first = bob.message();
    let slot = slot_of_inbox(&cluster, "bob");
    let target = (cluster.owner_of(slot).unwrap() + 1) % 3;
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| cluster.move_slot(slot, target));
        let mut number = 1;
        while number < 30 || !moved.is_finished() {
            wait_until(format!("message {number} is answered"), || publish(&mut alice, "@bob", number).is_ok());
            number += 1;
        }
        // The log goes on in a new epoch with the new master: the client comes back, and nothing is missing.
        let (mut seen, mut expected) = (first.stamp.position, 1);
        while expected < number {
            let next = bob.take("a Message or a Goodbye", |frame| match frame {
                Frame::Message(message) => Some(Ok(message.clone())),
                Frame::Goodbye(goodbye) => Some(Err(goodbye.code)),
                _ => None,
            });
            match next {
                Ok(message) => {
                    assert_eq!(message.text(), expected.to_string());
                    (seen, expected) = (message.stamp.position, expected + 1);
                }
                Err(code) => {
                    assert_eq!(code, CloseReason::InsufficientState.code());
                    bob = gateways[1].sign_in_with(&Login::user("bob").resume(seen));
                    assert!(bob.connected().inbox_recovered);
                }
            }
        }
    });
    wait_until("both are ready", || gateways.iter().all(is_ready));
    gateways.into_iter().for_each(Gateway::finish);
}

#[test]
fn master_dies_then_publishes_to_what_it_has_are_refused_and_others_go_on_and_the_node_says_which_it_is() {
    let mut cluster = cluster();
    let gateways = [gateway(&cluster, 1), gateway(&cluster, 2)];
    let mut alice = gateways[0].sign_in("alice");
    // A user of each master.
    let mut users = BTreeMap::new();
    for number in 0.. {
        let user = format!("user{number}");
        publish(&mut alice, &format!("@{user}"), 0).unwrap();
        let owner = cluster.owner_of(slot_of_inbox(&cluster, &user)).unwrap();
        users.entry(owner).or_insert(user);
        if users.len() == cluster.nodes.len() {
            break;
        }
    }
    let mut clients: BTreeMap<_, _> = users.iter().map(|(owner, user)| (*owner, gateways[1].sign_in(user))).collect();
    let dead = cluster.owner_of(cluster.slot_of("rg:{nodes}:seed")).unwrap();
    let named = format!("Redis at {} does not answer", cluster.nodes[dead].address());
    cluster.nodes[dead].kill();
    wait_until("both nodes name it", || {
        gateways.iter().all(|gateway| {
            let answer = http(gateway.admin(), "GET", "/readyz");
            answer.status == 200 && answer.body.contains(&named)
        })
    });
    wait_until("its user is refused", || publish(&mut alice, &format!("@{}", users[&dead]), 1) == Err(402));
    for (owner, client) in &mut clients {
        if *owner != dead {
            wait_until("others go on", || publish(&mut alice, &format!("@{}", users[owner]), 1).is_ok());
            // What was published before it signed in may come first.
            while client.message().text() != "1" {}
        }
        client.ping();
    }
    cluster.nodes[dead].restart();
    wait_until("both are ready", || gateways.iter().all(is_ready));
    wait_until("its user is written to", || publish(&mut alice, &format!("@{}", users[&dead]), 2).is_ok());
    gateways.into_iter().for_each(Gateway::finish);
}

//! Several gateways on one Redis: a real server, real sockets.

use std::sync::atomic::AtomicBool;

use ringgate::config::{Config, HostPort, RedisConfig};
use ringgate_core::close::CloseReason;
use ringgate_core::id::{ClientMessageId, Position};
use ringgate_core::limits::{Engine, Namespace};
use ringgate_core::wire::encode::PublishRequest;
use ringgate_test_servers::{Append, ClientKind, Options, Server, Value};

use crate::support::{Client, Gateway, Login, http, wait_until};

/// Gateways that share a Redis.
struct Nodes {
    redis: Server,
    gateways: Vec<Gateway>,
    change: fn(&mut Config),
}

impl Nodes {
    fn start(count: u16) -> Nodes {
        Nodes::with(count, |_| {})
    }

    /// One namespace with a log and presence, and something changed.
    fn with(count: u16, change: fn(&mut Config)) -> Nodes {
        let redis = Server::start(&Options { append: Append::EverySecond, ..Options::default() });
        Nodes::on(redis, count, change)
    }

    fn on(redis: Server, count: u16, change: fn(&mut Config)) -> Nodes {
        let mut nodes = Nodes { redis, gateways: Vec::new(), change };
        (1..=count).for_each(|number| nodes.gateways.push(nodes.gateway(number)));
        nodes
    }

    fn gateway(&self, number: u16) -> Gateway {
        let address = self.redis.address();
        Gateway::with(|config| {
            let server = HostPort::parse(&address.to_string()).unwrap();
            config.redis = Some(RedisConfig::at(vec![server]));
            config.settings.engine = Engine::Shared;
            config.settings.node_number = number;
            let mut chat = Namespace::named("chat");
            (chat.presence, chat.join_leave) = (true, false);
            config.settings.namespaces = vec![chat];
            (self.change)(config);
        })
    }

    fn sign_in(&self, node: usize, user: &str) -> Client {
        self.gateways[node].sign_in(user)
    }

    fn is_ready(&self, node: usize) -> bool {
        http(self.gateways[node].admin(), "GET", "/readyz").status == 200
    }

    fn finish(self) {
        self.gateways.into_iter().for_each(Gateway::finish);
    }
}

#[test]
fn users_are_on_two_nodes_then_messages_reach_them_in_one_order() {
    let nodes = Nodes::start(2);
    let (mut alice, mut bob) = (nodes.sign_in(0, "alice"), nodes.sign_in(1, "bob"));
    for round in 0..20 {
        let place = alice.publish("@bob", format!("to bob {round}")).stamp.position;
        assert_eq!(place.offset, 2 * round + 1);
        bob.publish("@bob", format!("to myself {round}"));
    }
    let texts = bob.texts(40);
    let expected: Vec<_> =
        (0..20).flat_map(|round| [format!("to bob {round}"), format!("to myself {round}")]).collect();
    assert_eq!(texts, expected);
    wait_until("the metrics say so", || {
        let metrics = http(nodes.gateways[1].admin(), "GET", "/metrics");
        let sample = |name: &str| metrics.sample(&format!("ringgate_redis_{name}"));
        (sample("up"), sample("messages_stored_total"), sample("topics")) == (1.0, 20.0, 1.0)
            && sample("messages_arrived_total") >= 20.0
            && sample("commands_total") > 20.0
    });
    nodes.finish();
}

#[test]
fn redis_may_forget_then_the_gateway_does_not_start_and_names_the_setting() {
    let redis = Server::start(&Options::default());
    let refused = Gateway::try_with(|config| {
        let server = HostPort::parse(&redis.address().to_string()).unwrap();
        config.redis = Some(RedisConfig::at(vec![server]));
        config.settings.engine = Engine::Shared;
    });
    let text = refused.err().expect("a Redis without AOF").to_string();
    assert!(text.contains("`appendonly no`") && text.contains("redis.allow_volatile = true"), "{text}");
}

#[test]
fn redis_writes_each_message_down_first_then_published_says_durable() {
    for (append, level) in [(Append::Always, 2), (Append::EverySecond, 1)] {
        let nodes = Nodes::on(Server::start(&Options { append, ..Options::default() }), 1, |_| {});
        let mut alice = nodes.sign_in(0, "alice");
        assert_eq!(alice.publish("@bob", "x").durability, level);
        nodes.finish();
    }
}

#[test]
fn room_has_members_on_three_nodes_then_all_see_the_same_messages_at_the_same_places() {
    let nodes = Nodes::start(3);
    let mut members: Vec<_> = (0..6).map(|user| nodes.sign_in(user % 3, &format!("user{user}"))).collect();
    for member in &mut members {
        member.subscribe("chat:a");
    }
    for round in 0..10 {
        for (number, member) in members.iter_mut().enumerate() {
            member.publish("chat:a", format!("{round} of {number}"));
        }
    }
    let seen = members[0].messages(60);
    assert!(seen.iter().zip(1..).all(|(message, offset)| message.offset() == offset), "no hole and no repetition");
    for member in &mut members[1..] {
        assert_eq!(member.messages(60), seen);
    }
    nodes.finish();
}

#[test]
fn message_is_repeated_on_another_node_then_it_is_stored_once() {
    let nodes = Nodes::start(2);
    let mut bob = nodes.sign_in(1, "bob");
    let mut first = nodes.gateways[0].sign_in_with(&Login::user("alice").device("phone"));
    let mut second = nodes.gateways[1].sign_in_with(&Login::user("alice").device("laptop"));
    let publish = || PublishRequest {
        topic: "@bob",
        payload: b"once",
        client_message_id: ClientMessageId { high: 7, low: 9 },
        ..Default::default()
    };
    let before = first.try_publish(publish()).unwrap();
    let again = second.try_publish(publish()).unwrap();
    assert_eq!((before.duplicate, again.duplicate, again.stamp), (false, true, before.stamp));
    bob.publish("@bob", "after");
    assert_eq!(bob.texts(2), ["once", "after"]);
    nodes.finish();
}

#[test]
fn user_was_away_and_comes_back_on_another_node_then_the_inbox_is_brought_from_where_it_was_acknowledged() {
    let nodes = Nodes::start(2);
    let mut alice = nodes.sign_in(1, "alice");
    let mut bob = nodes.sign_in(0, "bob");
    for number in 0..3 {
        alice.publish("@bob", format!("live {number}"));
    }
    let seen = bob.messages(3);
    bob.ack(Position { epoch: seen[1].stamp.position.epoch, offset: 2 });
    // What was acknowledged is heard of before the end of the session.
    drop(bob);
    nodes.gateways[0].wait_for("bob has gone", 0, |metrics| &metrics.sessions_active);
    alice.publish("@bob", "while away");
    let mut bob = nodes.sign_in(1, "bob");
    assert!(bob.connected().inbox_recovered);
    assert_eq!(bob.texts(2), ["live 2", "while away"]);
    nodes.finish();
}

#[test]
fn device_signs_in_on_another_node_then_the_older_session_is_told_and_ends() {
    let nodes = Nodes::start(2);
    let mut older = nodes.sign_in(0, "alice");
    let mut newer = nodes.sign_in(1, "alice");
    older.expect_close(CloseReason::TakenOver.code());
    newer.publish("@alice", "still here");
    assert_eq!(newer.texts(1), ["still here"]);
    nodes.finish();
}

#[test]
fn message_is_in_no_log_then_it_reaches_members_of_other_nodes() {
    let nodes = Nodes::start(2);
    let (mut alice, mut bob) = (nodes.sign_in(0, "alice"), nodes.sign_in(1, "bob"));
    alice.subscribe("chat:a");
    bob.subscribe("chat:a");
    let typing = PublishRequest { topic: "chat:a", payload: b"typing", ephemeral: true, ..Default::default() };
    alice.try_publish(typing).unwrap();
    let message = bob.message();
    assert_eq!((message.payload.as_slice(), message.offset()), (&b"typing"[..], 0));
    nodes.finish();
}

#[test]
fn client_resumes_a_room_on_another_node_then_exactly_the_gap_is_brought() {
    let nodes = Nodes::start(2);
    let mut alice = nodes.sign_in(0, "alice");
    alice.subscribe("chat:a");
    let mut bob = nodes.sign_in(0, "bob");
    bob.subscribe("chat:a");
    alice.publish("chat:a", "seen");
    let seen = bob.message().stamp.position;
    drop(bob);
    for number in 0..5 {
        alice.publish("chat:a", format!("missed {number}"));
    }
    let mut bob = nodes.sign_in(1, "bob");
    let subscribed = bob.try_subscribe("chat:a", Some(seen)).unwrap();
    assert!(subscribed.recovered);
    alice.publish("chat:a", "live");
    let mut expected: Vec<_> = (0..5).map(|number| format!("missed {number}")).collect();
    expected.push("live".to_owned());
    assert_eq!(bob.texts(6), expected);
    let history = bob.try_history("chat:a", None, 3).unwrap();
    assert_eq!(history.messages.iter().map(|message| message.offset()).collect::<Vec<_>>(), [5, 6, 7]);
    nodes.finish();
}

#[test]
fn both_links_to_redis_are_cut_then_nothing_that_was_answered_is_missing() {
    let nodes = Nodes::start(2);
    let (mut alice, mut bob) = (nodes.sign_in(0, "alice"), nodes.sign_in(1, "bob"));
    alice.subscribe("chat:a");
    bob.subscribe("chat:a");
    let mut published = Vec::new();
    for round in 0..30_u64 {
        if round % 10 == 5 {
            nodes.redis.kill_clients(ClientKind::Pubsub);
        }
        if round % 10 == 8 {
            nodes.redis.kill_clients(ClientKind::Normal);
        }
        publish_until_answered(&mut alice, "chat:a", round);
        published.push(format!("{round}"));
    }
    assert_eq!(bob.texts(30), published);
    nodes.finish();
}

/// Publishes with one id until the gateway has answered for it.
fn publish_until_answered(client: &mut Client, topic: &str, number: u64) {
    let payload = number.to_string();
    wait_until(format!("message {number} is answered"), || {
        let publish = PublishRequest {
            topic,
            payload: payload.as_bytes(),
            client_message_id: ClientMessageId { high: 1, low: number + 1 },
            ..Default::default()
        };
        match client.try_publish(publish) {
            Ok(_) => true,
            Err(refusal) => {
                assert!(refusal.retry_after_ms > 0, "a temporary error: {refusal:?}");
                false
            }
        }
    });
}

#[test]
fn redis_is_away_then_sockets_stay_the_node_says_so_and_publishes_go_on_after_it() {
    let mut nodes = Nodes::start(2);
    let (mut alice, mut bob) = (nodes.sign_in(0, "alice"), nodes.sign_in(1, "bob"));
    let mut carol = nodes.sign_in(0, "carol");
    alice.subscribe("chat:a");
    carol.subscribe("chat:a");
    alice.publish("@bob", "before");
    // Killed at once, Redis would be gone before the other node has heard of it.
    let seen = bob.message().stamp.position;
    nodes.redis.kill();
    wait_until("the nodes are not ready", || !nodes.is_ready(0) && !nodes.is_ready(1));
    let refused = alice.try_publish(PublishRequest { topic: "@bob", payload: b"x", ..Default::default() });
    assert!(refused.is_err_and(|refusal| refusal.code == 402 && refusal.retry_after_ms > 0));
    let typing = PublishRequest { topic: "chat:a", payload: b"typing", ephemeral: true, ..Default::default() };
    alice.try_publish(typing).unwrap();
    assert_eq!(carol.message().payload, b"typing", "what is in no log goes on within the node");
    alice.ping();
    nodes.redis.restart();
    wait_until("the nodes are ready", || nodes.is_ready(0) && nodes.is_ready(1));
    // Its logs go on in new epochs: clients come back, and are told that nothing is lost.
    bob.expect_close(CloseReason::InsufficientState.code());
    let mut bob = nodes.gateways[1].sign_in_with(&Login::user("bob").resume(seen));
    assert!(bob.connected().inbox_recovered);
    let mut alice = nodes.sign_in(0, "alice");
    publish_until_answered(&mut alice, "@bob", 1);
    assert_eq!(bob.texts(1), ["1"]);
    nodes.finish();
}

#[test]
fn node_is_stopped_then_its_number_is_free_at_once() {
    let nodes = Nodes::start(1);
    let Nodes { redis, mut gateways, change } = nodes;
    assert!(gateways.remove(0).shutdown(&AtomicBool::new(false)));
    let nodes = Nodes { redis, gateways, change };
    let number = nodes.redis.connect().unwrap().command(&["EXISTS", "rg:{nodes}:number:1"]);
    assert_eq!(number.unwrap(), Value::Integer(0));
    nodes.gateway(1).finish();
}

/// What `/readyz` says against the node.
fn obstacles(nodes: &Nodes, node: usize) -> String {
    http(nodes.gateways[node].admin(), "GET", "/readyz").body
}

/// Alice's messages are refused for this reason; everything else goes on.
fn is_refused_and_the_rest_goes_on(nodes: &Nodes, alice: &mut Client, carol: &mut Client, reason: &str) {
    let publish = PublishRequest { topic: "@bob", payload: b"x", ..Default::default() };
    let refused = alice.try_publish(publish).expect_err("it cannot be stored");
    assert!(refused.code == 402 && refused.retry_after_ms > 0 && refused.message.contains(reason), "{refused:?}");
    wait_until("the node says why it is not ready", || obstacles(nodes, 0).contains(reason));
    let metrics = http(nodes.gateways[0].admin(), "GET", "/metrics");
    let label = if reason.contains("disk") { "disk" } else { "memory" };
    assert_eq!(metrics.sample(&format!("ringgate_redis_refuses{{reason=\"{label}\"}}")), 1.0);
    let typing = PublishRequest { topic: "chat:a", payload: b"typing", ephemeral: true, ..Default::default() };
    alice.try_publish(typing).unwrap();
    assert_eq!(carol.message().payload, b"typing", "from one node to another");
    alice.ping();
}

#[test]
fn redis_has_no_memory_or_disk_left_then_messages_are_refused_with_the_reason_and_sessions_go_on() {
    let nodes = Nodes::start(2);
    let (mut alice, mut carol) = (nodes.sign_in(0, "alice"), nodes.sign_in(1, "carol"));
    alice.subscribe("chat:a");
    carol.subscribe("chat:a");
    nodes.redis.config_set("maxmemory", "1");
    is_refused_and_the_rest_goes_on(&nodes, &mut alice, &mut carol, "no memory left");
    // Also somebody new may come.
    nodes.sign_in(1, "dave").ping();
    nodes.redis.config_set("maxmemory", "0");
    wait_until("the nodes are ready", || nodes.is_ready(0) && nodes.is_ready(1));
    alice.publish("@bob", "after");
    // What is to be written is to replace a folder.
    nodes.redis.config_set("save", "3600 1");
    let in_the_way = nodes.redis.folder().join("dump.rdb");
    let _ = std::fs::remove_file(&in_the_way);
    std::fs::create_dir(&in_the_way).unwrap();
    std::fs::write(in_the_way.join("full"), "").unwrap();
    let save = |wanted: &str| {
        nodes.redis.command(&["BGSAVE"]);
        wait_until(format!("the last save is {wanted}"), || {
            nodes.redis.info("persistence").get("rdb_last_bgsave_status").is_some_and(|status| status == wanted)
        });
    };
    save("err");
    is_refused_and_the_rest_goes_on(&nodes, &mut alice, &mut carol, "cannot write to its disk");
    std::fs::remove_dir_all(&in_the_way).unwrap();
    save("ok");
    wait_until("the nodes are ready", || nodes.is_ready(0) && nodes.is_ready(1));
    alice.publish("@bob", "after that");
    nodes.finish();
}

#[test]
fn sign_in_comes_while_redis_is_away_then_the_client_is_to_come_back_soon() {
    let mut nodes = Nodes::start(1);
    nodes.redis.kill();
    wait_until("the node is not ready", || !nodes.is_ready(0));
    let goodbye = nodes.gateways[0].client().try_sign_in(&Login::user("alice")).unwrap_err();
    assert_eq!(goodbye.code, CloseReason::Busy.code());
    assert!(goodbye.reconnect && (500..2000).contains(&goodbye.after_ms), "{goodbye:?}");
    nodes.redis.restart();
    wait_until("the node is ready", || nodes.is_ready(0));
    nodes.sign_in(0, "alice").ping();
    nodes.finish();
}

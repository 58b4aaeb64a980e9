//! How Redis is reached: TLS, a user, Sentinels.

use std::sync::atomic::Ordering;

use ringgate_core::shard::Record;
use ringgate_redis::{Options, Password, Server, Servers, Tls, connect};
use ringgate_test_servers::{self as servers, PRIMARY_NAME, Sentinels, User};

use crate::node::{Node, device, members_of, options, settings, state_of};

#[test]
fn server_wants_tls_and_a_user_then_the_node_signs_in() {
    let user = User { name: "ringgate".to_owned(), password: "s3cret".to_owned() };
    let redis =
        servers::Server::start(&servers::Options { tls: true, users: vec![user], ..servers::Options::default() });
    let authorities = std::fs::read(redis.authority_file()).expect("its authority");
    let server = Server { host: "localhost".to_owned(), port: redis.tls_address().port() };
    let right = Options {
        servers: Servers::Standalone(server),
        user: Some("ringgate".to_owned()),
        password: Some(Password("s3cret".to_owned())),
        tls: Some(Tls::new(Some(&authorities)).expect("an authority")),
        database: 3,
        ..Options::default()
    };
    let node = Node::with(right.clone(), settings(), 1);
    node.loaded("chat:x");
    let position = node.store(node.record("chat:x", "secret"));
    assert_eq!((node.loaded("chat:x").position, position.offset), (position, 1));
    redis.kill_clients(servers::ClientKind::Normal);
    assert_eq!(node.store(node.record("chat:x", "again")).offset, 2);
    let wrong = Options { password: Some(Password("other".to_owned())), ..right.clone() };
    let error = connect(&wrong, 2).expect_err("a wrong password").to_string();
    assert!(error.contains("WRONGPASS") && !error.contains("other"), "{error}");
    let strange = Options { tls: Tls::new(None).ok(), ..right.clone() };
    if strange.tls.is_some() {
        let error = connect(&strange, 2).expect_err("an authority that is not trusted").to_string();
        assert!(error.contains("certificate"), "{error}");
    }
    let plain = Options { tls: None, ..right };
    connect(&plain, 2).expect_err("no TLS");
    Tls::new(Some(b"no certificate")).expect_err("no authority");
}

#[test]
fn master_fails_over_then_the_node_goes_on_with_the_new_one_in_a_new_epoch() {
    let sentinels = Sentinels::start(&servers::Options::default());
    let hosts = sentinels.addresses().into_iter();
    let hosts = hosts.map(|address| Server { host: address.ip().to_string(), port: address.port() }).collect();
    let by_name = Servers::Sentinel { sentinels: hosts, master: PRIMARY_NAME.to_owned(), password: None };
    let by_sentinels = Options { servers: by_name.clone(), ..Options::default() };
    let (a, b) = (Node::with(by_sentinels.clone(), settings(), 1), Node::with(by_sentinels, settings(), 2));
    b.loaded("chat:x");
    a.store_some("chat:x", 10);
    (0..10).for_each(|_| drop(b.arrived("chat:x")));
    let before = a.loaded("chat:x").position;
    for server in &sentinels.servers[1..] {
        servers::wait_until("the replica has all", || {
            let keys = server.command(&["KEYS", "*:s:chat:x"]);
            let key = keys.list().first().and_then(servers::Value::text);
            key.is_some_and(|key| server.command(&["XLEN", &key]).integer() == Some(10))
        });
    }
    sentinels.failover();
    let after = loop {
        let record = Record { position: before, ..a.record("chat:x", "after") };
        if let Ok(ringgate_core::shard::Stored::Now(position)) = a.stored(a.append(record))
            && position.epoch != before.epoch
        {
            break position;
        }
    };
    assert!(after.epoch > before.epoch && after.offset > 10, "{before:?} {after:?}");
    servers::wait_until("the other node hears of the new master's messages", || {
        let last = a.store(a.record("chat:x", "heard"));
        assert!(last.epoch == after.epoch && last.offset > after.offset);
        b.status.up.load(Ordering::Relaxed) && b.loaded("chat:x").position.epoch == after.epoch
    });
    let last = a.store(a.record("chat:x", "last"));
    servers::wait_until("it arrives", || b.arrived("chat:x").1.offset == last.offset);
    let nobody = Servers::Sentinel { sentinels: vec![], master: "m".to_owned(), password: None };
    connect(&Options { servers: nobody, ..Options::default() }, 3).expect_err("no sentinel");
    let Servers::Sentinel { sentinels: hosts, .. } = by_name else { return };
    let unknown = Servers::Sentinel { sentinels: hosts, master: "unknown".to_owned(), password: None };
    let error =
        connect(&Options { servers: unknown, ..Options::default() }, 3).expect_err("no such master").to_string();
    assert!(error.contains("knows no master called \"unknown\""), "{error}");
}

/// As docs/redis.md says.
const RIGHTS: &str = "~rg:* &rg* +@connection +@scripting +@stream +@hash +@string +@sortedset +@keyspace +@pubsub +time +info +wait +memory|usage +client|kill";

#[test]
fn user_has_the_rights_that_the_documentation_names_then_the_node_does_all_its_work() {
    let text = include_str!("../../../../docs/redis.md");
    assert!(text.contains(&RIGHTS.replace("rg", "PREFIX")), "docs/redis.md");
    let redis = servers::Server::start(&servers::Options::default());
    let mut words = vec!["ACL", "SETUSER", "gateway", "reset", "on", ">s3cret"];
    words.extend(RIGHTS.split(' '));
    redis.command(&words);
    let options =
        Options { user: Some("gateway".to_owned()), password: Some(Password("s3cret".to_owned())), ..options(&redis) };
    let (a, b) = (Node::with(options.clone(), settings(), 1), Node::with(options, settings(), 2));
    let fence = a.claim("bob", "phone");
    let epoch = a.loaded("@bob").position.epoch;
    b.loaded("@bob");
    a.cursor("@bob", epoch, state_of(vec![device("phone", 0, fence)]));
    a.store_some("@bob", 2);
    assert_eq!(b.arrived("@bob").1.offset, 1);
    a.cursor("@bob", epoch, state_of(vec![device("phone", 2, fence)]));
    a.release("bob", "phone", fence, None);
    assert_eq!(a.loaded("@bob").state.floor, 2);
    assert_eq!(members_of(&b, "chat:x"), 0);
    // With the tenth the bytes of the inbox are looked at.
    a.store_some("@many", 10);
    redis.kill_clients(servers::ClientKind::Normal);
    assert_eq!(a.store(a.plain("@bob", "after")).offset, 3);
    let log = redis.command(&["ACL", "LOG"]);
    // CONFIG is asked for where it may be.
    let refused: Vec<String> = log.list().iter().filter_map(|entry| entry.list().get(7)?.text()).collect();
    assert!(refused.iter().all(|what| what.starts_with("config")), "{refused:?}");
}

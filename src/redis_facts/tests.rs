//! Against real servers.

use super::*;
use crate::config::{Password, RedisTls};
use ringgate_test_servers::{Append, Cluster, Memory, Options, PRIMARY_NAME, Program, Sentinels, Server, User};
use std::net::SocketAddr;

fn host_port(address: SocketAddr) -> HostPort {
    HostPort { host: address.ip().to_string(), port: address.port() }
}

fn at(address: SocketAddr) -> RedisConfig {
    RedisConfig { command_timeout_ms: 30_000, connect_timeout_ms: 30_000, ..RedisConfig::at(vec![host_port(address)]) }
}

fn appending(append: Append) -> Options {
    Options { append, ..Options::default() }
}

fn gathered(config: &RedisConfig) -> Facts {
    let facts = Facts::gather(config);
    assert!(facts.failures.is_empty() && !facts.servers.is_empty(), "{facts:?}");
    facts
}

#[test]
fn server_answers_then_its_settings_are_known() {
    let (server, _replicas) = Server::start_with_replicas(&appending(Append::Always), 1);
    server.config_set("stream-node-max-bytes", "512");
    server.config_set("maxmemory", "104857600");
    ringgate_test_servers::wait_until("the replica is online", || {
        server.info("replication").get("slave0").is_some_and(|replica| replica.contains("state=online"))
    });
    let facts = gathered(&at(server.address()));
    let [found] = &facts.servers[..] else { panic!("{facts:?}") };
    assert!(found.latency.least_us > 0 && found.latency.least_us <= found.latency.median_us, "{found:?}");
    assert!(found.product.starts_with("Redis 7.") && found.version >= OLDEST, "{found:?}");
    assert_eq!((found.mode.as_str(), found.role.as_str()), ("standalone", "master"));
    assert_eq!((found.appends, found.fsync.clone()), (true, Ok("always".to_owned())));
    assert_eq!((found.memory_bytes_max, found.policy.as_str()), (104_857_600, "noeviction"));
    let limit = BufferLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 };
    assert_eq!(found.pubsub_buffer, Ok(limit));
    assert_eq!((found.stream_node_bytes_max.clone(), found.replicas), (Ok(512), 1));
}

#[test]
fn server_may_forget_then_it_is_refused_with_its_setting_unless_that_is_allowed() {
    let keeps = Server::start(&appending(Append::EverySecond));
    assert_eq!(refuse(&gathered(&at(keeps.address())), &at(keeps.address())), None);
    let forgets = Server::start(&Options::default());
    let memory = Some(Memory { bytes_max: 100 << 20, policy: "allkeys-lru" });
    let evicts = Server::start(&Options { memory, ..appending(Append::Always) });
    for (server, setting) in [(&forgets, "appendonly no"), (&evicts, "maxmemory-policy allkeys-lru")] {
        let config = at(server.address());
        let facts = gathered(&config);
        let text = refuse(&facts, &config).unwrap();
        assert!(text.starts_with(&format!("{} has `{setting}`", server.address())), "{text}");
        assert!(text.contains("redis.allow_volatile = true"), "{text}");
        assert_eq!(refuse(&facts, &RedisConfig { allow_volatile: true, ..config }), None);
    }
    // What the server says when it is asked again.
    forgets.config_set("appendonly", "yes");
    let config = at(forgets.address());
    assert_eq!(refuse(&gathered(&config), &config), None);
}

#[test]
fn version_is_too_old_then_refused_also_where_volatile_is_allowed() {
    let server = Server::start(&appending(Append::Always));
    let config = RedisConfig { allow_volatile: true, ..at(server.address()) };
    let mut facts = gathered(&config);
    facts.servers[0].version = (6, 2);
    facts.servers[0].product = "Redis 6.2.14".to_owned();
    let text = refuse(&facts, &config).unwrap();
    assert!(text.ends_with("is Redis 6.2.14; ringgate needs Redis 7.0 or newer, or Valkey 8 or newer"), "{text}");
}

#[test]
fn every_command_is_synced_then_durable_and_else_not() {
    for (program, append, wanted) in [
        (Program::Redis, Append::Off, Durability::Memory),
        (Program::Redis, Append::EverySecond, Durability::Memory),
        (Program::Redis, Append::Always, Durability::Durable),
        (Program::Valkey, Append::Always, Durability::Durable),
    ] {
        let server = Server::start(&Options { program, append, ..Options::default() });
        let facts = gathered(&at(server.address()));
        assert_eq!(durability(&facts), wanted, "{program:?} {append:?}");
        assert_eq!(facts.servers[0].product.starts_with("Valkey 9."), program == Program::Valkey);
    }
    assert_eq!(durability(&Facts::default()), Durability::Memory);
}

#[test]
fn user_may_not_see_a_setting_then_the_reason_stands_in_its_place() {
    let user = |name: &str| User { name: name.to_owned(), password: "p".to_owned() };
    let users = vec![user("edge"), user("narrow")];
    let server = Server::start(&Options { users, ..appending(Append::Always) });
    server.command(&["ACL", "SETUSER", "narrow", "-config"]);
    let password = Password::new("p".to_owned().into());
    let config = RedisConfig { user: Some("edge".to_owned()), password: Some(password), ..at(server.address()) };
    assert_eq!(durability(&gathered(&config)), Durability::Durable);
    let narrow = RedisConfig { user: Some("narrow".to_owned()), ..config.clone() };
    let facts = gathered(&narrow);
    let reason = facts.servers[0].fsync.clone().unwrap_err();
    assert!(reason.contains("permissions"), "{reason}");
    assert_eq!((durability(&facts), facts.servers[0].appends), (Durability::Memory, true));
    for (config, wanted) in [
        (RedisConfig { password: Some(Password::new("q".to_owned().into())), ..config.clone() }, "failed"),
        (RedisConfig { user: None, password: None, ..config }, "uthentication required"),
    ] {
        let facts = Facts::gather(&config);
        let [failure] = &facts.failures[..] else { panic!("{facts:?}") };
        assert!(failure.reason.contains(wanted) && facts.servers.is_empty(), "{failure:?}");
    }
}

#[test]
fn user_has_the_rights_that_the_page_names_then_everything_is_seen() {
    let page = include_str!("../../docs/redis.md");
    let rights = page.split("rights `").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
    let users = vec![User { name: "edge".to_owned(), password: "p".to_owned() }];
    let cluster = Cluster::start(&Options { users, ..appending(Append::Always) }, false);
    for node in &cluster.nodes {
        let words: Vec<_> = ["ACL", "SETUSER", "edge", "resetkeys", "resetchannels", "nocommands"].into();
        node.command(&words.into_iter().chain(rights.split(' ')).collect::<Vec<_>>());
    }
    let password = Some(Password::new("p".to_owned().into()));
    let config = RedisConfig { user: Some("edge".to_owned()), password, ..at(cluster.nodes[0].address()) };
    let facts = gathered(&RedisConfig { mode: RedisMode::Cluster, ..config });
    assert_eq!((facts.servers.len(), durability(&facts)), (3, Durability::Durable));
    let is_seen = |server: &ServerFacts| server.pubsub_buffer.is_ok() && server.stream_node_bytes_max.is_ok();
    assert!(facts.servers.iter().all(is_seen), "{facts:?}");
}

#[test]
fn server_speaks_tls_then_its_authority_decides() {
    let server = Server::start(&Options { tls: true, ..appending(Append::Always) });
    let other = Server::start(&Options { tls: true, ..Options::default() });
    let with = |file| RedisTls { authorities: Some(std::fs::read(file).unwrap()) };
    let config = RedisConfig { tls: Some(with(server.authority_file())), ..at(server.tls_address()) };
    gathered(&config);
    let facts = Facts::gather(&RedisConfig { tls: Some(with(other.authority_file())), ..config });
    assert!(facts.failures[0].reason.contains("certificate"), "{facts:?}");
}

#[test]
fn server_does_not_answer_then_a_failure_within_the_timeout() {
    let server = Server::start(&Options::default());
    server.pause();
    let config = RedisConfig { connect_timeout_ms: 100, command_timeout_ms: 100, ..at(server.address()) };
    let facts = Facts::gather(&config);
    let wanted =
        Failure { address: host_port(server.address()), was_guide: false, reason: "no answer in time".to_owned() };
    assert_eq!((facts.failures, facts.servers), (vec![wanted], Vec::new()));
    server.resume();
    let address = server.address();
    drop(server);
    let facts = Facts::gather(&at(address));
    assert!(facts.failures[0].reason.contains("refused"), "{facts:?}");
    assert_eq!((refuse(&facts, &at(address)), durability(&facts)), (None, Durability::Memory));
}

#[test]
fn sentinels_are_asked_then_their_primary_is_looked_at() {
    let mut sentinels = Sentinels::start(&appending(Append::Always));
    let addresses: Vec<_> = sentinels.addresses().into_iter().map(host_port).collect();
    let named = |master: &str| RedisConfig {
        addresses: addresses.clone(),
        mode: RedisMode::Sentinel { master: master.to_owned() },
        ..at(sentinels.servers[0].address())
    };
    let config = named(PRIMARY_NAME);
    let facts = gathered(&config);
    assert_eq!(facts.servers[0].address, host_port(sentinels.servers[0].address()));
    assert_eq!((facts.servers[0].replicas, durability(&facts)), (2, Durability::Durable));
    let unknown = Facts::gather(&named("nobody"));
    assert!(unknown.failures.len() == 3 && unknown.servers.is_empty(), "{unknown:?}");
    assert!(unknown.failures[0].reason.contains("no primary named \"nobody\""), "{unknown:?}");
    // One that is asked directly is no server, and a replica takes no writes.
    let sentinel = at(sentinels.sentinels[0].address());
    assert!(refuse(&Facts::gather(&sentinel), &sentinel).unwrap().contains("is a Sentinel"));
    let replica = at(sentinels.servers[1].address());
    assert!(refuse(&gathered(&replica), &replica).unwrap().contains("is a replica"));
    // Another Sentinel is asked when the first one is gone.
    sentinels.sentinels[0].kill();
    let facts = Facts::gather(&config);
    assert_eq!((facts.servers.len(), facts.failures.len(), durability(&facts)), (1, 1, Durability::Durable));
    assert!(facts.failures[0].was_guide);
}

#[test]
fn node_of_a_cluster_is_asked_then_every_master_is_looked_at() {
    let mut cluster = Cluster::start(&appending(Append::Always), false);
    let addresses: Vec<_> = cluster.addresses().into_iter().map(host_port).collect();
    let one = at(cluster.nodes[0].address());
    let config = RedisConfig { mode: RedisMode::Cluster, ..one.clone() };
    let facts = gathered(&config);
    let looked_at: Vec<_> = facts.servers.iter().map(|server| server.address.clone()).collect();
    assert_eq!(looked_at, addresses);
    assert_eq!(facts.cluster, Some(ClusterFacts { state: "ok".to_owned(), slots_ok: 16_384 }));
    assert_eq!((refuse(&facts, &config), durability(&facts)), (None, Durability::Durable));
    // One of them decides for all.
    cluster.nodes[1].config_set("appendfsync", "everysec");
    assert_eq!(durability(&gathered(&config)), Durability::Memory);
    cluster.nodes[2].config_set("appendonly", "no");
    let text = refuse(&gathered(&config), &config).unwrap();
    assert!(text.starts_with(&format!("{} has `appendonly no`", addresses[2])), "{text}");
    let text = refuse(&gathered(&one), &one).unwrap();
    assert!(text.contains("is a node of a Cluster; write redis.mode = \"cluster\""), "{text}");
    // A master that is gone is known by its slots, and is a failure.
    cluster.nodes[2].kill();
    let facts = Facts::gather(&config);
    assert_eq!((facts.servers.len(), facts.failures.len(), durability(&facts)), (2, 1, Durability::Memory));
    assert_eq!((&facts.failures[0].address, facts.failures[0].was_guide), (&addresses[2], false));
}

#[test]
fn server_alone_is_asked_for_a_cluster_then_it_says_that_it_is_none() {
    let server = Server::start(&appending(Append::Always));
    let config = RedisConfig { mode: RedisMode::Cluster, ..at(server.address()) };
    let facts = Facts::gather(&config);
    assert!(facts.failures[0].reason.contains("cluster support disabled") && facts.failures[0].was_guide, "{facts:?}");
}

#[test]
fn answer_is_cut_or_strange_then_it_is_read_without_panic() {
    assert_eq!(version_of("7.0.15"), Some((7, 0)));
    for text in ["", "7", "x.y", "99999999999.0"] {
        assert_eq!(version_of(text), None, "{text}");
    }
    for text in ["", "pubsub", "pubsub 1 2", "normal 0 0 0", "pubsub a b c"] {
        assert!(pubsub_limit(text).is_err(), "{text}");
    }
    let info = "role:master\r\nslave0:ip=1,state=online\r\nslave1:ip=2,state=wait_bgsave\r\nslave_x:state=online\r\n";
    assert_eq!((field(info, "role"), field(info, "rol"), online_replicas(info)), (Some("master"), None, 1));
}

#[test]
fn replica_may_forget_then_a_node_with_sentinels_is_refused_and_one_without_is_not() {
    let (server, replicas) = Server::start_with_replicas(&appending(Append::EverySecond), 1);
    ringgate_test_servers::wait_until("the replica is online", || {
        server.info("replication").get("slave0").is_some_and(|replica| replica.contains("state=online"))
    });
    let config = at(server.address());
    let sentinel = RedisConfig { mode: RedisMode::Sentinel { master: "m".to_owned() }, ..config.clone() };
    let facts = gathered(&config);
    let address = host_port(replicas[0].address());
    let keeps = Ok((true, "noeviction".to_owned()));
    assert_eq!(facts.servers[0].replica_facts, [ReplicaFacts { address: address.clone(), keeps }]);
    assert_eq!(refuse(&facts, &sentinel), None);
    replicas[0].config_set("appendonly", "no");
    let facts = gathered(&config);
    let text = refuse(&facts, &sentinel).unwrap();
    assert!(text.starts_with(&format!("{address}, a replica of")) && text.contains("appendonly no"), "{text}");
    assert_eq!(
        (refuse(&facts, &config), refuse(&facts, &RedisConfig { allow_volatile: true, ..sentinel })),
        (None, None)
    );
}

#[test]
fn sentinel_wants_a_password_then_it_is_given() {
    let sentinels = Sentinels::start(&appending(Append::EverySecond));
    let addresses: Vec<_> = sentinels.addresses().into_iter().map(host_port).collect();
    for sentinel in &sentinels.sentinels {
        sentinel.command(&["ACL", "SETUSER", "default", "resetpass", ">a word"]);
    }
    let mode = RedisMode::Sentinel { master: PRIMARY_NAME.to_owned() };
    let config = RedisConfig { addresses, mode, ..at(sentinels.servers[0].address()) };
    let without = Facts::gather(&config);
    assert!(without.servers.is_empty() && !without.failures.is_empty(), "{without:?}");
    let sentinel_password = Some(Password::new("a word".to_owned().into()));
    assert_eq!(gathered(&RedisConfig { sentinel_password, ..config }).servers.len(), 1);
}

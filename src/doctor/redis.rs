//! The Redis that links nodes, where the configuration names one: reached, and set up so that it forgets nothing.

use super::report::{Check, Finding, bytes, count};
use crate::config::{RedisConfig, RedisMode};
use crate::redis_facts::{BufferLimit, Facts, Failure, OLDEST, ReplicaFacts, ServerFacts, wrong_mode};

const GROUP: &str = "redis";

/// A publish that is stored waits for one round trip at least; more than this is seen by people who type.
const MEDIAN_US_MAX: u64 = 5000;
/// What may wait for the subscriptions of one node: a second or more of all that a busy one follows.
const PUBSUB_BYTES_MIN: BufferLimit = BufferLimit { hard_bytes: 256 << 20, soft_bytes: 64 << 20, soft_seconds: 60 };
/// A stream with a few messages takes a sixth of the memory that it takes with the default of 4096.
const STREAM_NODE_BYTES_MAX: u64 = 512;
/// Slots of a Cluster.
const SLOTS: u64 = 16_384;

pub(super) fn check(facts: &Facts, config: &RedisConfig) -> Vec<Finding> {
    let mut findings: Vec<_> = facts.failures.iter().map(|failure| unreached(failure, facts)).collect();
    if let Some(cluster) = &facts.cluster {
        let check = Check::new(
            GROUP,
            "cluster",
            format!("state ok, {} slots", count(SLOTS)),
            "Topics whose slot has no master that answers cannot be written to.",
        );
        let found = format!("state {}, {} slots", cluster.state, count(cluster.slots_ok));
        findings.push(match cluster.state == "ok" && cluster.slots_ok == SLOTS {
            true => check.ok(found),
            false => check.problem(found, "redis-cli --cluster fix, or bring the missing masters back"),
        });
    }
    for server in &facts.servers {
        findings.extend([
            latency(server),
            version(server),
            mode(server, config),
            append(server, config),
            policy(server, config),
            pubsub_buffer(server),
            stream_nodes(server),
            replicas(server, config),
        ]);
        findings.extend((config.mode == RedisMode::Cluster).then(|| full_coverage(server)));
        findings.extend(server.replica_facts.iter().map(|facts| replica(server, facts, config)));
    }
    findings
}

fn of(server: &ServerFacts, what: &str, wanted: impl Into<String>, why: &str) -> Check {
    Check::new(GROUP, format!("{} {what}", server.address), wanted, why)
}

/// The order that changes a setting while the server runs, and what keeps it.
fn set(server: &ServerFacts, key: &str, value: &str) -> String {
    let (host, port) = (&server.address.host, server.address.port);
    format!("redis-cli -h {host} -p {port} CONFIG SET {key} {value}, and the same in its redis.conf")
}

fn unreached(failure: &Failure, facts: &Facts) -> Finding {
    let check = Check::new(
        GROUP,
        failure.address.to_string(),
        "an answer",
        "Without Redis nothing is stored, and nodes do not hear of each other.",
    );
    let fix = "redis.address, redis.tls, redis.user and its password have to be those of the server; redis-cli -h HOST -p PORT PING tries it";
    match failure.was_guide && !facts.servers.is_empty() {
        true => check.warning(&failure.reason, fix),
        false => check.problem(&failure.reason, fix),
    }
}

fn latency(server: &ServerFacts) -> Finding {
    let check = of(
        server,
        "round trip",
        format!("a median of at most {} us", count(MEDIAN_US_MAX)),
        "A publish that is stored is answered after one round trip at least. Measured with 50 PINGs.",
    );
    let latency = server.latency;
    let found = format!("least {} us, median {} us", count(latency.least_us), count(latency.median_us));
    match latency.median_us <= MEDIAN_US_MAX {
        true => check.ok(found),
        false => check.warning(found, "a Redis in the same data centre, and one that is not busy with something else"),
    }
}

fn version(server: &ServerFacts) -> Finding {
    let check = of(
        server,
        "version",
        "Redis 7.0 or newer, or Valkey 8 or newer",
        "Older ones have neither ids of the form that logs need nor sharded channels.",
    );
    match server.version >= OLDEST {
        true => check.ok(&server.product),
        false => check.problem(&server.product, "install Redis 7.0 or newer, or Valkey 8 or newer"),
    }
}

fn mode(server: &ServerFacts, config: &RedisConfig) -> Finding {
    let wanted = match config.mode {
        RedisMode::Standalone | RedisMode::Sentinel { .. } => "a primary, in no Cluster",
        RedisMode::Cluster => "a master of a Cluster",
    };
    let check = of(server, "mode", wanted, "Commands that are sent to another kind of server are refused.");
    let found = format!("{}, {}", server.mode, server.role);
    match wrong_mode(server, config) {
        None => check.ok(found),
        Some(text) => check.problem(found, format!("it {text}")),
    }
}

/// What may lose messages is a problem, unless the configuration takes it on purpose.
fn volatile(check: Check, found: String, fix: String, config: &RedisConfig) -> Finding {
    match config.allow_volatile {
        true => check.warning(format!("{found}; redis.allow_volatile takes it"), fix),
        false => check.problem(found, format!("{fix}; or redis.allow_volatile = true")),
    }
}

fn append(server: &ServerFacts, config: &RedisConfig) -> Finding {
    let check = of(
        server,
        "appendonly, appendfsync",
        "yes, everysec; always for messages that survive the loss of the host's power",
        "Without it a server that is killed forgets what it has acknowledged. Only with always is Published.durability 2.",
    );
    match (server.appends, server.fsync.as_deref()) {
        (false, _) => volatile(check, "no".to_owned(), set(server, "appendonly", "yes"), config),
        (true, Ok("no")) => check.warning("yes, no", set(server, "appendfsync", "everysec")),
        (true, Ok(fsync)) => check.ok(format!("yes, {fsync}")),
        (true, Err(reason)) => check.unknown(format!("yes, and appendfsync is not told: {reason}")),
    }
}

fn policy(server: &ServerFacts, config: &RedisConfig) -> Finding {
    let check = of(
        server,
        "maxmemory-policy",
        "noeviction",
        "Any other policy drops messages, cursors and devices when memory is short.",
    );
    let bound = match server.memory_bytes_max {
        0 => "no maxmemory".to_owned(),
        bound => format!("maxmemory {}", bytes(bound)),
    };
    let found = format!("{}, {bound}", server.policy);
    match server.policy == "noeviction" {
        true => check.ok(found),
        false => volatile(check, found, set(server, "maxmemory-policy", "noeviction"), config),
    }
}

fn pubsub_buffer(server: &ServerFacts) -> Finding {
    let least = PUBSUB_BYTES_MIN;
    let shown = |limit: BufferLimit| match (limit.hard_bytes, limit.soft_bytes) {
        (0, 0) => "no limit".to_owned(),
        (hard, soft) => format!("{}, or {} for {} s", bytes(hard), bytes(soft), limit.soft_seconds),
    };
    let check = of(
        server,
        "client-output-buffer-limit of pubsub",
        format!("at least {}", shown(least)),
        "Redis ends the subscriptions of a node that has not taken so much, and the node has to read every log that it follows again.",
    );
    let is_enough = |found: u64, least: u64| found == 0 || found >= least;
    match &server.pubsub_buffer {
        Err(reason) => check.unknown(reason),
        Ok(limit) if is_enough(limit.hard_bytes, least.hard_bytes) && is_enough(limit.soft_bytes, least.soft_bytes) => {
            check.ok(shown(*limit))
        }
        Ok(limit) => {
            check.warning(shown(*limit), set(server, "client-output-buffer-limit", "\"pubsub 256mb 64mb 60\""))
        }
    }
}

fn stream_nodes(server: &ServerFacts) -> Finding {
    let check = of(
        server,
        "stream-node-max-bytes",
        format!("at most {STREAM_NODE_BYTES_MAX}"),
        "Each user with messages has a stream: one with a single message of 144 B takes 764 B with 512, and 4 348 B with 4096.",
    );
    match &server.stream_node_bytes_max {
        Err(reason) => check.unknown(reason),
        Ok(found @ 1..=STREAM_NODE_BYTES_MAX) => check.ok(count(*found)),
        Ok(found) => {
            let found = if *found == 0 { "no limit".to_owned() } else { count(*found) };
            check.warning(found, set(server, "stream-node-max-bytes", "512"))
        }
    }
}

fn replicas(server: &ServerFacts, config: &RedisConfig) -> Finding {
    // Whoever has set up a failover wants one to fail over to.
    let advised = u32::from(config.mode != RedisMode::Standalone);
    let check = of(
        server,
        "replicas",
        format!("at least {}", config.replicas_min.max(advised)),
        "redis.replicas_min of them must have a message before it is answered; without any, the loss of this server is a loss of messages.",
    );
    let found = count(server.replicas.into());
    let fix = "start a replica, or look why it is not online: INFO replication";
    match server.replicas {
        replicas if replicas < config.replicas_min => {
            check.problem(found, format!("{fix}; or lower redis.replicas_min"))
        }
        replicas if replicas < advised => check.warning(found, fix),
        _ => check.ok(found),
    }
}

fn full_coverage(server: &ServerFacts) -> Finding {
    let check = of(
        server,
        "cluster-require-full-coverage",
        "no",
        "With yes, a master that is lost makes all others refuse commands, too, until a replica has taken over.",
    );
    match server.full_coverage.as_deref() {
        Err(reason) => check.unknown(reason),
        Ok("no") => check.ok("no"),
        Ok(found) => check.warning(found, set(server, "cluster-require-full-coverage", "no")),
    }
}

fn replica(server: &ServerFacts, facts: &ReplicaFacts, config: &RedisConfig) -> Finding {
    let check = of(
        server,
        &format!("replica {}", facts.address),
        "appendonly yes, maxmemory-policy noeviction",
        "If it takes the place of this server, it has to keep what was acknowledged.",
    );
    let (appends, policy) = match &facts.keeps {
        Err(reason) => return check.unknown(reason),
        Ok((true, policy)) if policy == "noeviction" => return check.ok("yes, noeviction"),
        Ok((appends, policy)) => (appends, policy),
    };
    let (host, port) = (&facts.address.host, facts.address.port);
    let found = format!("{}, {policy}", if *appends { "yes" } else { "no" });
    let fix = format!(
        "redis-cli -h {host} -p {port} CONFIG SET appendonly yes maxmemory-policy noeviction, and the same in its redis.conf"
    );
    // Without Sentinels nothing but a person makes it the primary.
    match config.mode {
        RedisMode::Sentinel { .. } => volatile(check, found, fix, config),
        RedisMode::Standalone | RedisMode::Cluster => check.warning(found, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::config::HostPort;
    use crate::redis_facts::{ClusterFacts, Latency};

    fn address() -> HostPort {
        HostPort { host: "redis".to_owned(), port: 6379 }
    }

    fn good() -> ServerFacts {
        ServerFacts {
            address: address(),
            latency: Latency { least_us: 80, median_us: 5000 },
            product: "Redis 7.0.15".to_owned(),
            version: (7, 0),
            mode: "standalone".to_owned(),
            role: "master".to_owned(),
            appends: true,
            fsync: Ok("everysec".to_owned()),
            memory_bytes_max: 3 << 30,
            policy: "noeviction".to_owned(),
            pubsub_buffer: Ok(PUBSUB_BYTES_MIN),
            stream_node_bytes_max: Ok(512),
            replicas: 0,
            full_coverage: Ok("yes".to_owned()),
            replica_facts: Vec::new(),
        }
    }

    fn config() -> RedisConfig {
        RedisConfig::at(vec![address()])
    }

    /// The only finding that is not in order.
    fn finding(server: ServerFacts, config: &RedisConfig) -> Finding {
        let facts = Facts { servers: vec![server], ..Facts::default() };
        let mut findings = check(&facts, config);
        findings.retain(|finding| finding.state != State::Ok);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }

    #[test]
    fn server_is_as_it_should_be_then_every_check_is_good() {
        let facts = Facts { servers: vec![good()], ..Facts::default() };
        let findings = check(&facts, &config());
        assert_eq!(findings.iter().map(|finding| finding.state).collect::<Vec<_>>(), [State::Ok; 8]);
        assert_eq!(findings[0].found, "least 80 us, median 5 000 us");
        assert_eq!(findings[4].found, "noeviction, maxmemory 3 GiB");
        assert_eq!(findings[5].found, "256 MiB, or 64 MiB for 60 s");
        assert!(findings.iter().all(|finding| finding.check.starts_with("redis:6379 ")), "{findings:?}");
    }

    #[test]
    fn one_thing_is_wrong_then_it_is_found_with_what_helps() {
        let set = "redis-cli -h redis -p 6379 CONFIG SET ";
        let default_limit = BufferLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 };
        let slow = Latency { least_us: 80, median_us: 5001 };
        for (server, state, found, fix) in [
            (
                ServerFacts { latency: slow, ..good() },
                State::Warning,
                "least 80 us, median 5 001 us",
                "same data centre",
            ),
            (
                ServerFacts { version: (6, 2), product: "Redis 6.2".to_owned(), ..good() },
                State::Problem,
                "Redis 6.2",
                "install Redis 7.0",
            ),
            (
                ServerFacts { mode: "cluster".to_owned(), ..good() },
                State::Problem,
                "cluster, master",
                "redis.mode = \"cluster\"",
            ),
            (
                ServerFacts { role: "slave".to_owned(), ..good() },
                State::Problem,
                "standalone, slave",
                "the address of its primary",
            ),
            (ServerFacts { appends: false, ..good() }, State::Problem, "no", "appendonly yes"),
            (ServerFacts { fsync: Ok("no".to_owned()), ..good() }, State::Warning, "yes, no", "appendfsync everysec"),
            (
                ServerFacts { policy: "volatile-ttl".to_owned(), memory_bytes_max: 0, ..good() },
                State::Problem,
                "volatile-ttl, no maxmemory",
                "maxmemory-policy noeviction",
            ),
            (
                ServerFacts { pubsub_buffer: Ok(default_limit), ..good() },
                State::Warning,
                "32 MiB, or 8 MiB for 60 s",
                "client-output-buffer-limit \"pubsub 256mb 64mb 60\"",
            ),
            (
                ServerFacts { stream_node_bytes_max: Ok(4096), ..good() },
                State::Warning,
                "4 096",
                "stream-node-max-bytes 512",
            ),
            (
                ServerFacts { stream_node_bytes_max: Ok(0), ..good() },
                State::Warning,
                "no limit",
                "stream-node-max-bytes 512",
            ),
        ] {
            let finding = finding(server, &config());
            assert_eq!((finding.state, finding.found.as_str()), (state, found));
            assert!(finding.fix.contains(fix), "{finding:?}");
            assert!(!finding.fix.contains("CONFIG SET") || finding.fix.starts_with(set), "{finding:?}");
        }
        // No limit at all is enough, and a limit that is not told is not called good.
        let unbounded = BufferLimit { hard_bytes: 0, soft_bytes: 0, soft_seconds: 0 };
        let facts = Facts { servers: vec![ServerFacts { pubsub_buffer: Ok(unbounded), ..good() }], ..Facts::default() };
        assert_eq!(check(&facts, &config())[5].found, "no limit");
        for server in [
            ServerFacts { fsync: Err("NOPERM".to_owned()), ..good() },
            ServerFacts { pubsub_buffer: Err("NOPERM".to_owned()), ..good() },
            ServerFacts { stream_node_bytes_max: Err("NOPERM".to_owned()), ..good() },
        ] {
            let finding = finding(server, &config());
            assert!(finding.state == State::Unknown && finding.found.contains("NOPERM"), "{finding:?}");
        }
    }

    #[test]
    fn volatile_is_allowed_then_a_warning_instead_of_a_problem() {
        let allowed = RedisConfig { allow_volatile: true, ..config() };
        for server in
            [ServerFacts { appends: false, ..good() }, ServerFacts { policy: "allkeys-lru".to_owned(), ..good() }]
        {
            let strict = finding(server.clone(), &config());
            assert!(
                strict.state == State::Problem && strict.fix.ends_with("or redis.allow_volatile = true"),
                "{strict:?}"
            );
            let finding = finding(server, &allowed);
            assert!(
                finding.state == State::Warning && finding.found.contains("redis.allow_volatile takes it"),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn replicas_are_fewer_than_wanted_then_a_problem_and_fewer_than_advised_a_warning() {
        let with = |replicas_min, mode| RedisConfig { replicas_min, mode, ..config() };
        let problem = finding(ServerFacts { replicas: 1, ..good() }, &with(2, RedisMode::Standalone));
        assert_eq!(
            (problem.state, problem.found.as_str(), problem.wanted.as_str()),
            (State::Problem, "1", "at least 2")
        );
        let sentinel = RedisMode::Sentinel { master: "m".to_owned() };
        assert_eq!(finding(good(), &with(0, sentinel)).state, State::Warning);
        let facts = Facts { servers: vec![ServerFacts { replicas: 2, ..good() }], ..Facts::default() };
        assert!(check(&facts, &with(2, RedisMode::Standalone)).iter().all(|finding| finding.state == State::Ok));
    }

    #[test]
    fn replica_may_forget_then_a_problem_with_sentinels_and_a_warning_without() {
        let replica = |keeps: Result<(bool, &str), &str>| {
            let keeps = keeps.map(|(appends, policy)| (appends, policy.to_owned())).map_err(str::to_owned);
            let address = HostPort { host: "replica".to_owned(), port: 6380 };
            ServerFacts { replicas: 1, replica_facts: vec![ReplicaFacts { address, keeps }], ..good() }
        };
        let sentinel = RedisConfig { mode: RedisMode::Sentinel { master: "m".to_owned() }, ..config() };
        for (keeps, found) in [((false, "noeviction"), "no, noeviction"), ((true, "allkeys-lru"), "yes, allkeys-lru")] {
            let [watched, alone] = [&sentinel, &config()].map(|config| finding(replica(Ok(keeps)), config));
            assert_eq!((watched.state, watched.found.as_str()), (State::Problem, found));
            assert_eq!((alone.state, alone.found.as_str()), (State::Warning, found));
            assert!(watched.fix.starts_with("redis-cli -h replica -p 6380 CONFIG SET"), "{watched:?}");
        }
        let unknown = finding(replica(Err("no answer in time")), &sentinel);
        assert_eq!((unknown.state, unknown.found.as_str()), (State::Unknown, "no answer in time"));
        let facts = Facts { servers: vec![replica(Ok((true, "noeviction")))], ..Facts::default() };
        assert!(check(&facts, &sentinel).iter().all(|finding| finding.state == State::Ok));
    }

    #[test]
    fn server_is_not_reached_then_a_problem_unless_it_was_a_guide_and_another_one_knew() {
        let failure = |was_guide| Failure { address: address(), was_guide, reason: "no answer in time".to_owned() };
        for (was_guide, servers, state) in [
            (false, vec![good()], State::Problem),
            (true, vec![good()], State::Warning),
            (true, Vec::new(), State::Problem),
        ] {
            let facts = Facts { failures: vec![failure(was_guide)], servers, ..Facts::default() };
            let finding = check(&facts, &config()).remove(0);
            assert_eq!(
                (finding.check.as_str(), finding.state, finding.found.as_str()),
                ("redis:6379", state, "no answer in time")
            );
            assert!(finding.fix.contains("redis.address"), "{finding:?}");
        }
    }

    #[test]
    fn masters_of_a_cluster_stop_with_one_that_is_lost_then_a_warning() {
        let config = RedisConfig { mode: RedisMode::Cluster, ..config() };
        let of = |full_coverage: Result<&str, &str>| {
            let full_coverage = full_coverage.map(str::to_owned).map_err(str::to_owned);
            let server = ServerFacts { mode: "cluster".to_owned(), replicas: 1, full_coverage, ..good() };
            check(&Facts { servers: vec![server], ..Facts::default() }, &config).pop().unwrap()
        };
        assert_eq!(of(Ok("no")).state, State::Ok);
        let found = of(Ok("yes"));
        assert!(found.state == State::Warning && found.fix.ends_with("in its redis.conf"), "{found:?}");
        assert_eq!(of(Err("NOPERM")).state, State::Unknown);
    }

    #[test]
    fn cluster_has_slots_without_master_then_a_problem() {
        for (state, slots_ok, wanted) in
            [("ok", SLOTS, State::Ok), ("ok", 10_923, State::Problem), ("fail", SLOTS, State::Problem)]
        {
            let cluster = Some(ClusterFacts { state: state.to_owned(), slots_ok });
            let finding = check(&Facts { cluster, ..Facts::default() }, &config()).remove(0);
            assert_eq!((finding.check.as_str(), finding.state), ("cluster", wanted), "{finding:?}");
        }
    }
}

//! What goes wrong in a round: one of these, for a time that the seed chooses, and then it is over.

use std::time::{Duration, Instant};

use ringgate_sim::Random;
use ringgate_test_servers::{Append, ClientKind, Server, wait_until};

use crate::namespace::Wire;
use crate::proxy::Way;
use crate::world::{Layout, World};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// kill -9 of Redis, which starts again with its append-only file.
    RedisKilled,
    /// The same without a file: everything is gone.
    RedisForgets,
    /// SIGTERM of Redis, which starts again with its append-only file.
    RedisRestarted,
    /// The primary is killed while its replicas lag, and Sentinels make one of them the primary: what was answered last is gone.
    FailedOver,
    /// CLIENT KILL of the connections with subscriptions.
    SubscriptionsKilled,
    /// CLIENT KILL of the connections for commands.
    CommandsKilled,
    /// SIGSTOP of Redis.
    RedisPaused,
    /// SIGSTOP of a gateway for longer than its lease.
    GatewayPaused,
    /// kill -9 of a gateway, which starts again under its number.
    GatewayKilled,
    /// SCRIPT FLUSH.
    ScriptsFlushed,
    /// Redis answers writes with OOM.
    MemoryFull,
    /// Redis answers writes with MISCONF: it cannot save its data.
    SaveFailed,
    /// A gateway cannot reach Redis: its connections are ended.
    NodeCutOff,
    /// Packets between a gateway and Redis are dropped without a word, for longer than its lease. Its clients still reach it.
    NodePartitioned,
    /// What a gateway and Redis send each other arrives when the fault is over.
    NodeHeld,
    /// Each portion of bytes between Redis and the gateways takes longer.
    SlowLinks,
    /// The wire between a gateway and Redis carries less than there is to say, and drops the rest.
    NarrowLink,
}

impl Fault {
    pub(crate) const ALL: [Fault; 17] = [
        // Those that last longest are first, so that they do not end a run alone.
        Fault::GatewayPaused,
        Fault::NodePartitioned,
        Fault::GatewayKilled,
        Fault::FailedOver,
        Fault::NodeHeld,
        Fault::RedisPaused,
        Fault::NodeCutOff,
        Fault::SlowLinks,
        Fault::NarrowLink,
        Fault::RedisKilled,
        Fault::RedisForgets,
        Fault::RedisRestarted,
        Fault::SubscriptionsKilled,
        Fault::CommandsKilled,
        Fault::ScriptsFlushed,
        Fault::MemoryFull,
        Fault::SaveFailed,
    ];

    /// What has to stand between gateways and Redis.
    pub(crate) fn layout(self) -> Layout {
        match self {
            Fault::FailedOver => Layout::Sentinels,
            Fault::NodePartitioned | Fault::NarrowLink => Layout::Wires,
            _ => Layout::Proxies,
        }
    }

    /// What Redis writes down in such a round.
    pub(crate) fn append(self, random: &mut Random) -> Append {
        match self {
            Fault::RedisForgets => Append::Off,
            _ if random.one_in(2) => Append::Always,
            _ => Append::EverySecond,
        }
    }

    /// Whether Redis may lose what it has answered: with `everysec` it writes up to two seconds late while its disk is slow.
    pub(crate) fn may_lose(self, append: Append) -> bool {
        let may_be_late = self == Fault::RedisKilled && append == Append::EverySecond;
        may_be_late || matches!(self, Fault::RedisForgets | Fault::FailedOver)
    }

    /// Does it, and mends it. Returns when it was mended; after a failover, that is when the primary was killed.
    pub(crate) fn happen(self, world: &mut World, random: &mut Random, is_short: bool) -> Instant {
        let node = random.below(world.nodes.len());
        // Shorter and longer than leases, which last 15 s, and than the time that Redis has for an answer, 2 s.
        let mut seconds = |short: u64, longest: usize| if is_short { short } else { 1 + random.below(longest) as u64 };
        match self {
            Fault::RedisKilled | Fault::RedisForgets => {
                let away = seconds(1, 8);
                world.redis().kill();
                pass(away * 1000);
                world.redis().restart();
            }
            Fault::RedisRestarted => {
                let away = seconds(1, 8);
                world.redis().terminate();
                pass(away * 1000);
                world.redis().restart();
            }
            Fault::FailedOver => {
                let lag = seconds(2, 8);
                return fail_over(world, lag, is_short);
            }
            Fault::SubscriptionsKilled | Fault::CommandsKilled => {
                let kind = if self == Fault::SubscriptionsKilled { ClientKind::Pubsub } else { ClientKind::Normal };
                for _ in 0..3 + random.below(12) {
                    world.redis().kill_clients(kind);
                    pass(random.below(400) as u64);
                }
            }
            Fault::RedisPaused => {
                let away = if is_short || random.one_in(2) { 5 } else { 20 };
                world.redis().pause();
                pass(away * 1000);
                world.redis().resume();
            }
            Fault::GatewayPaused => {
                let away = 20 + if is_short { 0 } else { random.below(10) as u64 };
                world.pause(node);
                pass(away * 1000);
                world.resume(node);
            }
            Fault::GatewayKilled => {
                let away = seconds(0, 20) - u64::from(!is_short);
                world.kill(node);
                pass(away * 1000);
                world.start_again(node);
            }
            Fault::ScriptsFlushed => {
                for _ in 0..3 + random.below(12) {
                    world.redis().command(&["SCRIPT", "FLUSH"]);
                    pass(random.below(400) as u64);
                }
            }
            Fault::MemoryFull => {
                let away = seconds(3, 20);
                world.redis().config_set("maxmemory", "1mb");
                pass(away * 1000);
                assert!(refused(world, "memory") > 0.0, "Redis refuses what it has no memory for");
                world.redis().config_set("maxmemory", "0");
            }
            Fault::SaveFailed => {
                let away = seconds(3, 20);
                let dump = world.redis().folder().join("dump.rdb");
                // A folder in its place: the new file cannot take the name, whoever the server runs as.
                std::fs::create_dir(&dump).unwrap();
                world.redis().config_set("save", "3600 1000000");
                save(world.redis(), "err");
                pass(away * 1000);
                assert!(refused(world, "disk") > 0.0, "Redis refuses what it cannot save");
                std::fs::remove_dir(&dump).unwrap();
                save(world.redis(), "ok");
            }
            Fault::NodeCutOff | Fault::NodeHeld => {
                let away = seconds(5, 25);
                let way = if self == Fault::NodeCutOff { Way::Cut } else { Way::Held };
                world.nodes[node].proxy().set(way);
                pass(away * 1000);
                world.nodes[node].proxy().set(Way::Open);
            }
            Fault::SlowLinks => {
                let away = seconds(5, 15);
                let delay = Duration::from_millis(20 + random.below(400) as u64);
                let is_one = random.one_in(2);
                let nodes = || world.nodes.iter().enumerate().filter(|(at, _)| !is_one || *at == node);
                nodes().for_each(|(_, node)| node.proxy().set(Way::Slow(delay)));
                pass(away * 1000);
                nodes().for_each(|(_, node)| node.proxy().set(Way::Open));
            }
            Fault::NodePartitioned => {
                // A lease lasts 15 s.
                let away = 17 + if is_short { 0 } else { random.below(10) as u64 };
                world.nodes[node].namespace().set(Wire::Dropped);
                pass(away * 1000);
                assert!(
                    !world.is_ready(),
                    "a gateway whose packets to Redis are dropped does not say that it is ready"
                );
                world.nodes[node].namespace().set(Wire::Open);
            }
            Fault::NarrowLink => {
                let away = seconds(5, 20);
                let kilobits = if is_short { 128 } else { 64 << random.below(3) };
                world.nodes[node].namespace().set(Wire::Slow(kilobits));
                pass(away * 1000);
                world.nodes[node].namespace().set(Wire::Open);
            }
        }
        Instant::now()
    }
}

/// Lets the replicas lag by so many seconds, and then kills the primary. In long rounds that one comes back, as a replica.
fn fail_over(world: &mut World, lag: u64, is_short: bool) -> Instant {
    let sentinels = world.sentinels();
    let old = sentinels.primary().expect("a primary");
    let replicas: Vec<_> = (0..sentinels.servers.len()).filter(|server| *server != old).collect();
    replicas.iter().for_each(|replica| sentinels.servers[*replica].pause());
    // What the primary sends from here on would wait in the replicas' sockets, and not be late.
    sentinels.servers[old].kill_clients(ClientKind::Replica);
    pass(lag * 1000);
    sentinels.servers[old].kill();
    let killed = Instant::now();
    replicas.iter().for_each(|replica| sentinels.servers[*replica].resume());
    sentinels.wait_for_failover(old);
    if !is_short {
        sentinels.servers[old].restart();
    }
    killed
}

/// What Redis has refused for this reason, as all gateways count it.
fn refused(world: &World, reason: &str) -> f64 {
    let name = format!("ringgate_redis_refused_total{{reason=\"{reason}\"}}");
    (0..world.nodes.len()).map(|node| world.sample(node, &name)).sum()
}

/// Saves in the background, until that has ended so.
fn save(redis: &Server, result: &str) {
    redis.command(&["BGSAVE", "SCHEDULE"]);
    wait_until(format_args!("a save in the background ends with {result}"), || {
        redis.info("persistence").get("rdb_last_bgsave_status").is_some_and(|status| status == result)
    });
}

/// The fault lasts so long, or the traffic between two of them.
pub(crate) fn pass(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

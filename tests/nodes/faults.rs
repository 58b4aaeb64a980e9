//! What goes wrong in a round: one of these, for a time that the seed chooses, and then it is over.

use std::time::Duration;

use ringgate_sim::Random;
use ringgate_test_servers::{Append, ClientKind};

use crate::proxy::Way;
use crate::world::World;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// kill -9 of Redis, which starts again with its append-only file.
    RedisKilled,
    /// The same without a file: everything is gone.
    RedisForgets,
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
    /// A gateway cannot reach Redis: its connections are ended.
    NodeCutOff,
    /// What a gateway and Redis send each other arrives when the fault is over.
    NodeHeld,
    /// Each portion of bytes between Redis and the gateways takes longer.
    SlowLinks,
}

impl Fault {
    pub(crate) const ALL: [Fault; 12] = [
        // Those that last longest are first, so that they do not end a run alone.
        Fault::GatewayPaused,
        Fault::GatewayKilled,
        Fault::NodeHeld,
        Fault::RedisPaused,
        Fault::NodeCutOff,
        Fault::SlowLinks,
        Fault::RedisKilled,
        Fault::RedisForgets,
        Fault::SubscriptionsKilled,
        Fault::CommandsKilled,
        Fault::ScriptsFlushed,
        Fault::MemoryFull,
    ];

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
        self == Fault::RedisForgets || self == Fault::RedisKilled && append == Append::EverySecond
    }

    /// Does it, and mends it.
    pub(crate) fn happen(self, world: &mut World, random: &mut Random, is_short: bool) {
        let node = random.below(world.nodes.len());
        // Shorter and longer than leases, which last 15 s, and than the time that Redis has for an answer, 2 s.
        let mut seconds = |short: u64, longest: usize| if is_short { short } else { 1 + random.below(longest) as u64 };
        match self {
            Fault::RedisKilled | Fault::RedisForgets => {
                let away = seconds(1, 8);
                world.redis.kill();
                pass(away * 1000);
                world.redis.restart();
            }
            Fault::SubscriptionsKilled | Fault::CommandsKilled => {
                let kind = if self == Fault::SubscriptionsKilled { ClientKind::Pubsub } else { ClientKind::Normal };
                for _ in 0..3 + random.below(12) {
                    world.redis.kill_clients(kind);
                    pass(random.below(400) as u64);
                }
            }
            Fault::RedisPaused => {
                let away = seconds(5, 20).max(5);
                world.redis.pause();
                pass(away * 1000);
                world.redis.resume();
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
                    world.redis.command(&["SCRIPT", "FLUSH"]);
                    pass(random.below(400) as u64);
                }
            }
            Fault::MemoryFull => {
                let away = seconds(3, 20);
                world.redis.config_set("maxmemory", "1mb");
                pass(away * 1000);
                world.redis.config_set("maxmemory", "0");
            }
            Fault::NodeCutOff | Fault::NodeHeld => {
                let away = seconds(5, 25);
                let way = if self == Fault::NodeCutOff { Way::Cut } else { Way::Held };
                world.nodes[node].proxy.set(way);
                pass(away * 1000);
                world.nodes[node].proxy.set(Way::Open);
            }
            Fault::SlowLinks => {
                let away = seconds(5, 15);
                let delay = Duration::from_millis(20 + random.below(400) as u64);
                let is_one = random.one_in(2);
                let nodes = || world.nodes.iter().enumerate().filter(|(at, _)| !is_one || *at == node);
                nodes().for_each(|(_, node)| node.proxy.set(Way::Slow(delay)));
                pass(away * 1000);
                nodes().for_each(|(_, node)| node.proxy.set(Way::Open));
            }
        }
    }
}

/// The fault lasts so long, or the traffic between two of them.
pub(crate) fn pass(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

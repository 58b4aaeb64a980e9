//! The engine that nodes share: reached before anything else is made, for it gives what makes this node one of them, and started with
//! the shards.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use super::start::{EngineOf, Identity};
use crate::config::{self, Password, RedisConfig, RedisMode};
use crate::redis_facts::{Facts, durability, refuse};
use crate::worker::{Asks, EngineEnd, Mail};
use ringgate_core::id::{Durability, ShardId};
use ringgate_core::limits::Settings;
use ringgate_core::mesh::Mailbox;
use ringgate_core::shard::{Asked, Event};
use ringgate_redis::{Options, Server, Servers, Status, Tls, WhenAway};

/// A Redis that has answered.
pub(super) struct Found {
    options: Options,
    identity: ringgate_redis::Identity,
    durability: Durability,
    status: Arc<Status>,
}

/// The engine's thread.
pub(super) struct Engine {
    thread: ringgate_redis::Engine,
}

impl Found {
    /// Reaches the Redis of the configuration, and takes this node's number there. One that may forget what it has stored is refused,
    /// unless the configuration takes it.
    pub(super) fn reach(redis: &RedisConfig, settings: &Settings) -> Result<Found, StartError> {
        let options = options(redis).map_err(|error| StartError(format!("[redis]: {error}")))?;
        let facts = Facts::gather(redis);
        if let Some(text) = refuse(&facts, redis) {
            return Err(StartError(text));
        }
        let identity = ringgate_redis::connect(&options, settings.node_number);
        let identity = identity.map_err(|error| StartError(format!("[redis]: {error}")))?;
        Ok(Found { options, identity, durability: durability(&facts), status: Arc::default() })
    }

    /// What makes this node one of those that share the engine.
    pub(super) fn identity(&self) -> Identity {
        Identity { seed: self.identity.seed, run: self.identity.run }
    }

    /// How safe a message is that this Redis has stored.
    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    /// What the engine will say of itself.
    pub(super) fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Starts the engine, which tells shards through this end of the mesh.
    pub(super) fn start(self, settings: Arc<Settings>, mailbox: Mailbox<Mail>) -> Result<Engine, StartError> {
        let thread = ringgate_redis::start(self.options, self.identity, settings, ToShards { mailbox }, self.status);
        let thread = thread.map_err(|error| StartError(format!("the thread of the engine: {error}")))?;
        Ok(Engine { thread })
    }
}

impl Engine {
    /// Makes the way of each shard to it.
    pub(super) fn ends(&self) -> EngineOf {
        let sender = self.thread.sender();
        Box::new(move |shard: ShardId| EngineEnd::new(shard, Box::new(Way(sender.clone()))))
    }

    /// Ends it once it has done what it was asked for.
    pub(super) fn stop(self) {
        self.thread.stop();
    }
}

struct Way(ringgate_redis::Sender);

impl Asks for Way {
    fn ask(&self, asked: Asked) -> Result<(), Asked> {
        self.0.ask(asked)
    }

    fn wake(&self) {
        self.0.wake();
    }
}

/// The engine's end of the mesh.
struct ToShards {
    mailbox: Mailbox<Mail>,
}

impl ringgate_redis::Homes for ToShards {
    fn tell(&mut self, shard: ShardId, event: Event<'static>) -> Result<(), Event<'static>> {
        let told = self.mailbox.push(shard.0.into(), Mail::Engine(Box::new(event)), true);
        match told {
            Err(Mail::Engine(event)) => Err(*event),
            Ok(()) | Err(Mail::Letter(_) | Mail::Control(_)) => Ok(()),
        }
    }

    fn wake(&mut self) {
        self.mailbox.ring();
    }
}

fn options(redis: &RedisConfig) -> Result<Options, String> {
    let servers = || {
        redis
            .addresses
            .iter()
            .map(|address| Server { host: address.host.clone(), port: address.port })
            .collect::<Vec<_>>()
    };
    let shown = |password: &Option<Password>| {
        password.as_ref().map(|password| ringgate_redis::Password(password.reveal().to_owned()))
    };
    let defaults = Options::default();
    let servers = match &redis.mode {
        RedisMode::Sentinel { master } => {
            let password = shown(&redis.sentinel_password);
            Servers::Sentinel { sentinels: servers(), master: master.clone(), password }
        }
        RedisMode::Standalone => servers().into_iter().next().map_or(defaults.servers.clone(), Servers::Standalone),
        RedisMode::Cluster => Servers::Cluster(servers()),
    };
    let authorities = redis.tls.as_ref().map(|tls| Tls::new(tls.authorities.as_deref()));
    Ok(Options {
        servers,
        user: redis.user.clone(),
        password: shown(&redis.password),
        database: redis.database,
        prefix: redis.prefix.clone(),
        connect_timeout: Duration::from_millis(redis.connect_timeout_ms),
        command_timeout: Duration::from_millis(redis.command_timeout_ms),
        when_away: match redis.when_away {
            config::WhenAway::Refuse => WhenAway::Refuse,
            config::WhenAway::Wait => WhenAway::Wait(Duration::from_millis(redis.wait_ms_max)),
        },
        tls: authorities.transpose()?,
        replicas_min: redis.replicas_min,
        ..defaults
    })
}

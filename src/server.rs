//! The process: checks the machine, starts shards, the admin and the health listener, waits for signals, drains.
//!
//! Everything that can be refused is refused before a client could connect: descriptors, addresses, certificates,
//! the ring. Shards are reached through the mesh alone.
//!
//! | file | what |
//! |---|---|
//! | `start` | the phases of a start, but for the listeners |
//! | `engine` | the engine that nodes share |
//! | `bind` | the listeners |

mod bind;
mod engine;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::admin::Admin;
use crate::config::{Config, ListenerConfig};
use crate::readiness::{Readiness, State};
use crate::watch::{Limits, Watch};
use crate::worker::{Control, Mail, Reload};
use ringgate_auth::Keys;
use ringgate_core::mesh::Mailbox;
use ringgate_core::metrics::{ReloadOutcome, ShardMetrics};
use ringgate_core::transport::Transport;

use bind::bind_all;
use engine::{Engine, Found};
use start::{
    Common, Identity, Plan, check_machine, set_certificate_end, start_admin, start_health, start_threads, start_watch,
};

/// A gateway that runs.
pub struct Server {
    addresses: Vec<ListenerConfig>,
    websocket_path: String,
    admin: Option<Admin>,
    health: Option<Admin>,
    readiness: Arc<Readiness>,
    metrics: Arc<[Arc<ShardMetrics>]>,
    control: Mailbox<Mail>,
    threads: Vec<JoinHandle<()>>,
    engine: Option<Engine>,
    watch: Option<Watch>,
    shutdown_timeout: Duration,
}

/// How long a shard may take until it goes on with what was exchanged: many turns.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a gateway did not start. The text names what was tried and what would help.
#[derive(Debug)]
pub struct StartError(pub String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl Server {
    /// Starts everything. On return clients can connect.
    pub fn start(config: Config) -> Result<Server, StartError> {
        Server::start_with(config, || {})
    }

    /// As [`Self::start`]; `at_rest` is called on a shard's thread when a busy stretch is over: programs whose allocator keeps
    /// what was freed give it back there.
    pub fn start_with(mut config: Config, at_rest: fn()) -> Result<Server, StartError> {
        check_machine(&config.runtime)?;
        let found = config.redis.as_ref().map(|redis| Found::reach(redis, &config.settings)).transpose()?;
        let count = config.runtime.shard_count();
        let (addresses, sockets) = bind_all(&config.listeners, count)?;
        let metrics: Arc<[Arc<ShardMetrics>]> = (0..count).map(|_| Arc::default()).collect();
        set_certificate_end(&metrics, config.tls_ends);
        let readiness = Arc::new(Readiness::default());
        let status = found.as_ref().map(Found::status);
        let admin = start_admin(&config, &metrics, status.clone(), &readiness)?;
        let health = start_health(config.health, &readiness)?;
        let limits = Limits {
            slots: config.runtime.connections_per_shard_max.into(),
            connections: config.settings.client.connections_max as u64,
        };
        let shutdown_timeout = Duration::from_millis(config.settings.shutdown_timeout_ms);
        let websocket_path = config.websocket.path.clone();
        let plan = Plan::new(&config.runtime)?;
        let mailboxes = plan.mailboxes(config.runtime.mailbox_capacity)?;
        let identity = found.as_ref().map_or_else(Identity::random, Found::identity);
        if let Some(found) = &found {
            config.settings.engine_durability = found.durability();
        }
        let mut common = Common::new(config, identity, at_rest);
        let engine = found.map(|found| found.start(common.settings(), mailboxes.engine)).transpose()?;
        if let Some(engine) = &engine {
            common.set_engine(engine.ends());
        }
        let threads = start_threads(plan.threads(common.shards(mailboxes.shards, sockets, &metrics)))?;
        readiness.set(State::Ready);
        let watch = start_watch(&metrics, limits, status, &readiness)?;
        Ok(Server {
            addresses,
            websocket_path,
            admin,
            health,
            readiness,
            metrics,
            control: mailboxes.control,
            threads,
            engine,
            watch: Some(watch),
            shutdown_timeout,
        })
    }

    /// Where it listens, with the ports that were chosen.
    pub fn addresses(&self) -> &[ListenerConfig] {
        &self.addresses
    }

    /// Where its listeners are, as clients write it: `tcp://ADDRESS`, or `ws://ADDRESS/PATH` for a WebSocket.
    pub fn urls(&self) -> Vec<String> {
        let url = |address, transport: Transport| {
            let path = if transport.is_websocket() { &*self.websocket_path } else { "" };
            format!("{}://{address}{path}", transport.label())
        };
        let of = |listener: &ListenerConfig| {
            let address = listener.address;
            listener.front.transports().map(move |transport| url(address, transport)).collect::<Vec<_>>()
        };
        self.addresses.iter().flat_map(of).collect()
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Where the health listener is, if there is one.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().map(Admin::address)
    }

    /// How the node is, from now on.
    pub fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    /// The figures of each shard.
    pub fn metrics(&self) -> &[Arc<ShardMetrics>] {
        &self.metrics
    }

    /// Exchanges token keys and, if there is one, the certificate, which ends at `tls_ends` (Unix seconds), in every shard.
    /// On return all of them use these for connections accepted and tokens looked at from now on; sessions that are signed in
    /// stay. Waits at most ten seconds, and no longer once `is_stopping` says so. The error names the shards that could not
    /// be told, which go on with the old ones, or says that one has not answered yet, which will still do so.
    pub fn reload(
        &mut self,
        keys: Keys,
        tls: Option<Arc<rustls::ServerConfig>>,
        tls_ends: Option<u64>,
        is_stopping: impl Fn() -> bool,
    ) -> Result<(), String> {
        let reload = Arc::new(Reload { tls, authenticator: Arc::new(keys) });
        let deadline = Instant::now() + RELOAD_TIMEOUT;
        let given_up = || match is_stopping() {
            true => Some("before the signal to stop".to_owned()),
            false => (Instant::now() >= deadline).then(|| format!("within {} s", RELOAD_TIMEOUT.as_secs())),
        };
        set_certificate_end(&self.metrics, tls_ends);
        let untold = self.tell_all(|| Control::Reload(reload.clone()), || given_up().is_some());
        while untold.is_empty() && Arc::strong_count(&reload) > 1 {
            if let Some(when) = given_up() {
                return Err(format!("not every shard has taken it {when}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if untold.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = untold.iter().map(usize::to_string).collect();
        Err(format!(
            "shard {}: no room in the mailbox {}; the old keys and certificate stay in force there until the next SIGHUP",
            names.join(" and shard "),
            given_up().unwrap_or_default()
        ))
    }

    /// Counts a configuration that was read again, for metrics.
    pub fn count_reload(&self, good: bool) {
        if let Some(first) = self.metrics.first() {
            let outcome = if good { ReloadOutcome::Taken } else { ReloadOutcome::Refused };
            first.config_reloads[outcome].increment();
        }
    }

    /// Puts something into every shard's mailbox. One that is full now has room soon, if its shard moves; the others do not
    /// wait for it. Returns the shards that had no room until `is_over`.
    fn tell_all(&mut self, control: impl Fn() -> Control, is_over: impl Fn() -> bool) -> Vec<usize> {
        let mut untold: Vec<usize> = (0..self.metrics.len()).collect();
        loop {
            untold.retain(|shard| self.control.push(*shard, Mail::Control(control()), true).is_err());
            self.control.ring();
            if untold.is_empty() || is_over() {
                return untold;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Drains: not ready, no accepts, Goodbye to everyone, flush; waits for the shards, at most `shutdown.timeout`,
    /// or until `at_once` is set. True when every client had gone.
    pub fn shutdown(mut self, at_once: &AtomicBool) -> bool {
        self.readiness.set(State::Draining);
        // Shards that have drained make no turns.
        self.watch = None;
        let deadline = Instant::now() + self.shutdown_timeout;
        let is_over = || at_once.load(Ordering::Relaxed) || Instant::now() >= deadline;
        let drained = self.tell_all(|| Control::Drain, is_over).is_empty() && self.wait_for_threads(is_over);
        let good = drained && self.threads.drain(..).all(|thread| thread.join().is_ok());
        match self.engine.take() {
            Some(engine) if good => engine.stop(),
            // Its lease ends by itself.
            Some(engine) => std::mem::forget(engine),
            None => {}
        }
        good
    }

    /// False if it is over before all shards have ended.
    fn wait_for_threads(&self, is_over: impl Fn() -> bool) -> bool {
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if is_over() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

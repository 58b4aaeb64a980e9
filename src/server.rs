//! The process: checks the machine, starts shards and the admin listener, waits for signals, drains.
//!
//! Everything that can be refused is refused before a client could connect: descriptors, addresses, certificates,
//! the ring. Shards are reached through the mesh alone.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::admin::Admin;
use crate::config::fit::check_host;
use crate::config::{Config, ListenerConfig};
use crate::cores::{self, Topology};
use crate::readiness::{Readiness, State};
use crate::thread::ThreadOptions;
use crate::watch::Watch;
use crate::worker::{Control, Mail, Reload, WorkerOptions};
use ringgate_auth::Keys;
use ringgate_core::id::{Now, ShardId};
use ringgate_core::limits::MAILBOX_BYTES_MAX;
use ringgate_core::mesh::{Capacity, Mailbox, Wake, mailboxes};
use ringgate_core::metrics::{ReloadOutcome, ShardMetrics};
use ringgate_core::session::Admission;
use ringgate_core::shard::ShardOptions;
use ringgate_core::transport::Transport;
use ringgate_net::kernel;
use ringgate_net::{Bell, Descriptors, NetOptions, Outcome, RingError};

/// A gateway that runs.
pub struct Server {
    addresses: Vec<ListenerConfig>,
    admin: Option<Admin>,
    readiness: Arc<Readiness>,
    metrics: Arc<[Arc<ShardMetrics>]>,
    control: Mailbox<Mail>,
    threads: Vec<JoinHandle<()>>,
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

/// The control plane's own mailbox end receives nothing and never sleeps.
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

impl Server {
    /// Starts everything. On return clients can connect.
    pub fn start(config: Config) -> Result<Server, StartError> {
        Server::start_with(config, || {})
    }

    /// The same; `at_rest` is called on a shard's thread when a busy stretch is over: programs whose allocator keeps
    /// what was freed give it back there.
    pub fn start_with(config: Config, at_rest: fn()) -> Result<Server, StartError> {
        let Config { settings, runtime, listeners, tls, tls_ends, keys, claims, admin, admin_hosts, .. } = config;
        if let Some((key, text)) = check_host(&runtime).into_iter().next() {
            return Err(StartError(format!("{key}: {text}")));
        }
        check_kernel()?;
        check_ring(runtime.descriptors)?;
        let count = runtime.shard_count();
        let (addresses, mut sockets) = bind_all(&listeners, count)?;
        let settings = Arc::new(settings);
        let metrics: Arc<[Arc<ShardMetrics>]> = (0..count).map(|_| Arc::default()).collect();
        if let (Some(first), Some(ends)) = (metrics.first(), tls_ends) {
            first.tls_cert_ends.set(ends);
        }
        let readiness = Arc::new(Readiness::default());
        let admin =
            admin.map(|address| Admin::start(address, admin_hosts, metrics.clone(), readiness.clone())).transpose();
        let admin = admin.map_err(|error| match error.raw_os_error() {
            Some(_) => StartError(kernel::explain("the admin listener", &error)),
            None => StartError(error.to_string()),
        })?;
        let cores = match runtime.pin_cores {
            true => cores::plan(&Topology::of_this_process(), &runtime.cores, count).map_err(StartError)?,
            false => Vec::new(),
        };
        let (mut threads, of_shards) = threads_for(count, &cores).map_err(|error| StartError(error.to_string()))?;
        let bell_of = |thread: &usize| threads[*thread].bell.clone() as Arc<dyn Wake>;
        let mut wakers: Vec<Arc<dyn Wake>> = of_shards.iter().map(bell_of).collect();
        wakers.push(Arc::new(NoWake));
        let capacity = Capacity { letters: runtime.mailbox_capacity, bytes: MAILBOX_BYTES_MAX, weight_of: Mail::bytes };
        let mut mailboxes = mailboxes(wakers, capacity);
        let Some(control) = mailboxes.pop() else { return Err(StartError("no mailbox".to_owned())) };
        let started = Instant::now();
        let authenticator = Arc::new(Keys::new(keys, claims));
        let admission = Arc::new(Mutex::new(Admission::new(&settings.client, Now::default())));
        let seed = random_seed();
        let (ready, readies) = mpsc::channel();
        for (index, mailbox) in mailboxes.into_iter().enumerate() {
            let options = WorkerOptions {
                shard: ShardOptions {
                    id: ShardId(index as u16),
                    shards: count as u16,
                    settings: settings.clone(),
                    metrics: metrics[index].clone(),
                    seed,
                    run: seed,
                },
                net: NetOptions {
                    slots: runtime.connections_per_shard_max,
                    descriptors: runtime.descriptors,
                    recv_buffers: runtime.recv_buffers,
                    recv_buffer_bytes: runtime.recv_buffer_bytes,
                    accepts_in_flight: runtime.accepts_in_flight,
                    ..NetOptions::default()
                },
                listeners: std::mem::take(&mut sockets[index]),
                tls: tls.clone(),
                mailbox,
                authenticator: authenticator.clone(),
                admission: admission.clone(),
                started,
                at_rest,
            };
            threads[of_shards[index]].shards.push(options);
        }
        let mut running = Vec::with_capacity(threads.len());
        for (index, options) in threads.into_iter().enumerate() {
            let ready = ready.clone();
            let thread = std::thread::Builder::new()
                .name(format!("shards-{index}"))
                .spawn(move || {
                    crate::thread::run(options, |result| {
                        // The receiver waits for every thread.
                        let _ = ready.send(result);
                    });
                })
                .map_err(|error| StartError(kernel::explain(&format!("thread {index} of shards"), &error)))?;
            running.push(thread);
        }
        drop(ready);
        for _ in &running {
            let result = readies.recv().map_err(|_| StartError("a thread of shards ended".to_owned()))?;
            result.map_err(|error| StartError(error.to_string()))?;
        }
        readiness.set(State::Ready);
        let watch = Watch::start(metrics.clone(), readiness.clone());
        let watch = watch.map_err(|error| StartError(kernel::explain("the thread that watches shards", &error)))?;
        Ok(Server {
            addresses,
            admin,
            readiness,
            metrics,
            control,
            threads: running,
            watch: Some(watch),
            shutdown_timeout: Duration::from_millis(settings.shutdown_timeout_ms),
        })
    }

    /// Where it listens, with the ports that were chosen.
    pub fn addresses(&self) -> &[ListenerConfig] {
        &self.addresses
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
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
        if let (Some(first), Some(ends)) = (self.metrics.first(), tls_ends) {
            first.tls_cert_ends.set(ends);
        }
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
        if !self.tell_all(|| Control::Drain, is_over).is_empty() {
            return false;
        }
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if is_over() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.threads.drain(..).all(|thread| thread.join().is_ok())
    }
}

/// One thread for each core that shards are to run on, its shards still missing, and the thread of each shard. Without
/// a plan there are as many threads as the process may use cores, and shards are dealt out in turn.
fn threads_for(shards: usize, cores: &[usize]) -> Result<(Vec<ThreadOptions>, Vec<usize>), RingError> {
    let mut distinct: Vec<Option<usize>> = Vec::new();
    for core in cores {
        if !distinct.contains(&Some(*core)) {
            distinct.push(Some(*core));
        }
    }
    if distinct.is_empty() {
        distinct = vec![None; std::thread::available_parallelism().map_or(1, |count| count.get()).min(shards)];
    }
    let thread_of = |shard: usize| match cores.get(shard) {
        Some(core) => distinct.iter().position(|other| *other == Some(*core)).unwrap_or(0),
        None => shard % distinct.len(),
    };
    let of_shards = (0..shards).map(thread_of).collect();
    let thread = |core: &Option<usize>| {
        let core = core.map(|id| core_affinity::CoreId { id });
        Ok(ThreadOptions { shards: Vec::new(), bell: Arc::new(Bell::new()?), core })
    };
    Ok((distinct.iter().map(thread).collect::<Result<_, _>>()?, of_shards))
}

/// Binds every address once per shard. The first socket of an address fixes a port that was left open.
#[expect(clippy::type_complexity, reason = "one list of listeners for each shard")]
fn bind_all(
    listeners: &[ListenerConfig],
    shards: usize,
) -> Result<(Vec<ListenerConfig>, Vec<Vec<(std::net::TcpListener, Transport)>>), StartError> {
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for listener in listeners {
        let refused = |error: std::io::Error| {
            let what = format!("cannot listen on {}", listener.address);
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another process listens there; stop it or choose another port",
                std::io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
                std::io::ErrorKind::AddrNotAvailable => "this host has no such address",
                _ => return StartError(kernel::explain(&what, &error)),
            };
            StartError(format!("{what}: {error} ({hint})"))
        };
        let mut address = listener.address;
        if address.port() != 0 {
            ringgate_net::is_taken(address, listener.ipv6_only).map_err(refused)?;
        }
        for sockets in &mut sockets {
            let socket = ringgate_net::bind(address, listener.ipv6_only).map_err(refused)?;
            address = socket.local_addr().map_err(refused)?;
            sockets.push((socket, listener.transport));
        }
        addresses.push(ListenerConfig { address, ..*listener });
    }
    Ok((addresses, sockets))
}

fn check_kernel() -> Result<(), StartError> {
    let release = kernel::release();
    if kernel::version_of(&release).is_some_and(|version| version < kernel::OLDEST) {
        return Err(StartError(format!("this kernel is {release}; ringgate needs Linux 6.1 or newer")));
    }
    Ok(())
}

/// Does on a small ring all that shards will do: accepts, receives, sends, closes. Where a kernel or a seccomp profile
/// refuses a part of it, the gateway does not start, instead of listening and serving nobody.
fn check_ring(descriptors: Descriptors) -> Result<(), StartError> {
    let needed = ringgate_net::probe().into_iter().filter(|probe| !probe.direct || descriptors == Descriptors::Direct);
    for probe in needed {
        match probe.outcome {
            Outcome::Works(_) => {}
            Outcome::Fails(text) => {
                return Err(StartError(format!("io_uring does not work here: {}: {text}", probe.name)));
            }
            // No loopback, or no descriptor: that says nothing about the ring, and what it hides shows in the metrics.
            Outcome::Untried(text) => tracing::warn!(probe = probe.name, "a part of io_uring was not tried: {text}"),
        }
    }
    Ok(())
}

/// Keys the hashes of topics and devices; not a secret that anything else rests on.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

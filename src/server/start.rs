//! The phases of a start, in order: look at the machine, start the admin and health listeners, plan which thread has which shard, make what
//! all shards share, start the threads and wait until each is ready, watch them.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::StartError;
use crate::admin::{self, Admin};
use crate::config::fit::check_host;
use crate::config::{Config, Runtime};
use crate::cores::{self, Topology};
use crate::host::Host;
use crate::host::memory::memory_bytes;
use crate::readiness::Readiness;
use crate::thread::ThreadOptions;
use crate::watch::{Limits, Watch};
use crate::worker::{EngineEnd, Mail, WorkerOptions};
use ringgate_auth::Keys;
use ringgate_core::id::{Now, ShardId};
use ringgate_core::limits::{MAILBOX_BYTES_MAX, Settings};
use ringgate_core::mesh::{Capacity, Mailbox, Wake, mailboxes};
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::session::{Admission, Authenticator};
use ringgate_core::shard::ShardOptions;
use ringgate_net::kernel;
use ringgate_net::ws::Rules;
use ringgate_net::{Bell, Descriptors, Front, NetOptions, Outcome, RingError};
use ringgate_redis::Status;

/// The control plane's own mailbox end receives nothing and never sleeps.
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// Refuses what this host, its kernel or its limits do not allow.
pub(super) fn check_machine(runtime: &Runtime) -> Result<(), StartError> {
    if let Some((key, text)) = check_host(runtime).into_iter().next() {
        return Err(StartError(format!("{key}: {text}")));
    }
    check_kernel()?;
    check_ring(runtime.descriptors)
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

/// The certificate's end is a figure of the node, which the first shard's cells hold.
pub(super) fn set_certificate_end(metrics: &[Arc<ShardMetrics>], tls_ends: Option<u64>) {
    if let (Some(first), Some(ends)) = (metrics.first(), tls_ends) {
        first.tls_cert_ends.set(ends);
    }
}

pub(super) fn start_admin(
    config: &Config,
    metrics: &Arc<[Arc<ShardMetrics>]>,
    redis: Option<Arc<Status>>,
    readiness: &Arc<Readiness>,
) -> Result<Option<Admin>, StartError> {
    let Some(address) = config.admin else { return Ok(None) };
    let limits = admin::Limits {
        slots: config.runtime.connections_per_shard_max.into(),
        connections: config.settings.client.connections_max as u64,
        inbox_unknown_bytes: config.settings.inbox.unknown_bytes_per_shard_max as u64,
        quiet_topics: config.settings.quiet_topics_max as u64,
        memory_bytes: memory_bytes(&Host::new("/")).unwrap_or(0),
    };
    let hosts = config.admin_hosts.clone();
    let admin = Admin::start(address, hosts, metrics.clone(), limits, redis, readiness.clone());
    admin.map(Some).map_err(|error| refused("the admin listener", &error))
}

pub(super) fn start_health(
    address: Option<SocketAddr>,
    readiness: &Arc<Readiness>,
) -> Result<Option<Admin>, StartError> {
    let Some(address) = address else { return Ok(None) };
    Admin::start_health(address, readiness.clone()).map(Some).map_err(|error| refused("the health listener", &error))
}

/// A call that failed is explained; other errors explain themselves.
fn refused(what: &str, error: &std::io::Error) -> StartError {
    match error.raw_os_error() {
        Some(_) => StartError(kernel::explain(what, error)),
        None => StartError(error.to_string()),
    }
}

/// The ends of the mesh.
pub(super) struct Mailboxes {
    pub(super) shards: Vec<Mailbox<Mail>>,
    pub(super) control: Mailbox<Mail>,
    pub(super) engine: Mailbox<Mail>,
}

/// Which thread has which shard.
pub(super) struct Plan {
    /// Their shards are still missing.
    threads: Vec<ThreadOptions>,
    /// The thread of each shard.
    of_shards: Vec<usize>,
}

impl Plan {
    pub(super) fn new(runtime: &Runtime) -> Result<Plan, StartError> {
        let count = runtime.shard_count();
        let cores = match runtime.pin_cores {
            true => cores::plan(&Topology::of_this_process(), &runtime.cores, count).map_err(StartError)?,
            false => Vec::new(),
        };
        Plan::on_cores(count, &cores).map_err(|error| StartError(error.to_string()))
    }

    /// One thread for each of the cores. Without a plan there are as many threads as the process may use cores, and shards are
    /// dealt out in turn.
    fn on_cores(shards: usize, cores: &[usize]) -> Result<Plan, RingError> {
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
        Ok(Plan { threads: distinct.iter().map(thread).collect::<Result<_, _>>()?, of_shards })
    }

    /// The mailbox of each shard, which wakes its thread, and those through which the control plane and the engine tell shards
    /// something.
    pub(super) fn mailboxes(&self, letters: usize) -> Result<Mailboxes, StartError> {
        let bell_of = |thread: &usize| self.threads[*thread].bell.clone() as Arc<dyn Wake>;
        let mut wakers: Vec<Arc<dyn Wake>> = self.of_shards.iter().map(bell_of).collect();
        wakers.extend([Arc::new(NoWake) as Arc<dyn Wake>, Arc::new(NoWake)]);
        let mut mailboxes = mailboxes(wakers, Capacity { letters, bytes: MAILBOX_BYTES_MAX, weight_of: Mail::bytes });
        match (mailboxes.pop(), mailboxes.pop()) {
            (Some(engine), Some(control)) => Ok(Mailboxes { shards: mailboxes, control, engine }),
            _ => Err(StartError("no mailbox".to_owned())),
        }
    }

    /// The threads with their shards.
    pub(super) fn threads(mut self, shards: impl Iterator<Item = WorkerOptions>) -> Vec<ThreadOptions> {
        for (shard, thread) in shards.zip(self.of_shards) {
            self.threads[thread].shards.push(shard);
        }
        self.threads
    }
}

/// Makes the way of a shard to the engine.
pub(super) type EngineOf = Box<dyn Fn(ShardId) -> EngineEnd>;

/// What all shards share: settings, token keys, certificate, admission.
pub(super) struct Common {
    settings: Arc<Settings>,
    net: NetOptions,
    tls: Option<Arc<rustls::ServerConfig>>,
    websocket: Rules,
    authenticator: Arc<dyn Authenticator>,
    admission: Arc<Mutex<Admission>>,
    identity: Identity,
    engine: Option<EngineOf>,
    started: Instant,
    at_rest: fn(),
}

impl Common {
    pub(super) fn new(config: Config, identity: Identity, at_rest: fn()) -> Common {
        let Config { settings, runtime, tls, websocket, keys, claims, .. } = config;
        Common {
            net: NetOptions {
                slots: runtime.connections_per_shard_max,
                spare_slots: runtime.spare_slots(),
                descriptors: runtime.descriptors,
                recv_buffers: runtime.recv_buffers,
                recv_buffer_bytes: runtime.recv_buffer_bytes,
                accepts_in_flight: runtime.accepts_in_flight,
                proxy_header_timeout: Duration::from_millis(settings.client.handshake_timeout_ms),
                ..NetOptions::default()
            },
            tls,
            websocket,
            authenticator: Arc::new(Keys::new(keys, claims)),
            admission: Arc::new(Mutex::new(Admission::new(&settings.client, Now::default()))),
            identity,
            engine: None,
            settings: Arc::new(settings),
            started: Instant::now(),
            at_rest,
        }
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.clone()
    }

    /// Messages are kept by this engine.
    pub(super) fn set_engine(&mut self, engine: EngineOf) {
        self.engine = Some(engine);
    }

    /// What each shard is made of; all three have one entry for each shard.
    pub(super) fn shards(
        self,
        mailboxes: Vec<Mailbox<Mail>>,
        sockets: Vec<Vec<(TcpListener, Front)>>,
        metrics: &[Arc<ShardMetrics>],
    ) -> impl Iterator<Item = WorkerOptions> {
        let shards = metrics.len() as u16;
        mailboxes.into_iter().zip(sockets).zip(metrics).zip(0..).map(move |(((mailbox, listeners), metrics), index)| {
            WorkerOptions {
                shard: ShardOptions {
                    id: ShardId(index),
                    shards,
                    settings: self.settings.clone(),
                    metrics: metrics.clone(),
                    seed: self.identity.seed,
                    run: self.identity.run,
                },
                net: self.net.clone(),
                listeners,
                tls: self.tls.clone(),
                websocket: self.websocket.clone(),
                mailbox,
                engine: self.engine.as_ref().map(|engine| engine(ShardId(index))),
                authenticator: self.authenticator.clone(),
                admission: self.admission.clone(),
                started: self.started,
                at_rest: self.at_rest,
            }
        })
    }
}

/// Starts every thread. On return the kernel has taken the accepts of every shard.
pub(super) fn start_threads(threads: Vec<ThreadOptions>) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut running = Vec::with_capacity(threads.len());
    let (ready, readies) = mpsc::channel();
    for (index, options) in threads.into_iter().enumerate() {
        let ready = ready.clone();
        let run = move || {
            crate::thread::run(options, |result| {
                // The receiver waits for every thread.
                let _ = ready.send(result);
            });
        };
        let thread = std::thread::Builder::new().name(format!("shards-{index}")).spawn(run);
        let refused = |error| StartError(kernel::explain(&format!("thread {index} of shards"), &error));
        running.push(thread.map_err(refused)?);
    }
    drop(ready);
    for _ in &running {
        let result = readies.recv().map_err(|_| StartError("a thread of shards ended".to_owned()))?;
        result.map_err(|error| StartError(error.to_string()))?;
    }
    Ok(running)
}

pub(super) fn start_watch(
    metrics: &Arc<[Arc<ShardMetrics>]>,
    limits: Limits,
    engine: Option<Arc<Status>>,
    readiness: &Arc<Readiness>,
) -> Result<Watch, StartError> {
    let watch = Watch::start(metrics.clone(), limits, engine, readiness.clone());
    watch.map_err(|error| StartError(kernel::explain("the thread that watches shards", &error)))
}

/// What makes the hashes and sessions of this node its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// Keys the hashes of topics and devices; not a secret that anything else rests on. Nodes that share an engine have the same.
    pub(super) seed: u64,
    /// Of this life of the process alone.
    pub(super) run: u64,
}

impl Identity {
    /// Of a node that keeps messages in memory.
    pub(super) fn random() -> Identity {
        use std::hash::{BuildHasher, Hasher};
        let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
        Identity { seed: random(), run: random() }
    }
}

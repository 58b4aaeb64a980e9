//! One shard at work: turns the core's events and effects into work of the ring and the mesh. It moves bytes; what is done
//! about them the core decides.
//!
//! A turn: completions, letters, tokens, time; then what follows from them: closes, sends, letters out, one doorbell
//! per thread that sleeps, one entry into the kernel. Each part is bounded. Every turn looks at completions and reads
//! mail, also while much waits: a send whose completion is not looked at makes its reader look slow. What would make too much
//! wait is refused by the core before it is taken in. Turns are made by the shard's thread, see [`crate::thread`].
//!
//! | file | what |
//! |---|---|
//! | `driver` | the core as the sockets see it; connections that are turned away |
//! | `mail` | letters between shards, those that wait for a full mailbox, and what the control plane asks |
//! | `engine` | what the shard asks of the engine that keeps its messages |
//! | `tokens` | which tokens are verified in a turn |
//! | `rest` | the end of a busy stretch |
//! | `log` | a line when a session begins, and when a connection ends |

mod driver;
mod engine;
mod log;
mod mail;
mod rest;
mod tokens;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringgate_core::id::Now;
use ringgate_core::mesh::Mailbox;
use ringgate_core::metrics::Cell;
use ringgate_core::session::{Admission, Authenticator};
use ringgate_core::shard::{Effect, Event, ShardOptions};
use ringgate_net::ws::Rules;
use ringgate_net::{Bell, Front, Net, NetOptions, RingError};
use rustls::ServerConfig;

use driver::{Core, farewells};
pub use engine::{Asks, EngineEnd};
use log::ConnectionLog;
use mail::Backlog;
pub use mail::{Control, Mail, Reload};
use rest::Rest;
use tokens::Verifier;

/// What a shard is made of.
pub struct WorkerOptions {
    /// The core.
    pub shard: ShardOptions,
    /// The sockets.
    pub net: NetOptions,
    /// Its listeners, one for each address of the node.
    pub listeners: Vec<(TcpListener, Front)>,
    /// What those of WebSocket ask of their connections.
    pub websocket: Rules,
    /// Certificate, if any listener is TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// Its end of the mesh.
    pub mailbox: Mailbox<Mail>,
    /// Its way to the engine that keeps messages; none where they are in memory.
    pub engine: Option<EngineEnd>,
    /// Verifies tokens.
    pub authenticator: Arc<dyn Authenticator>,
    /// Which clients may connect; shared by all shards.
    pub admission: Arc<Mutex<Admission>>,
    /// Zero of the node's monotonic clock.
    pub started: Instant,
    /// Called on the shard's thread when a busy stretch is over and the shard has let go of what it kept for it: time to
    /// give memory back to the system.
    pub at_rest: fn(),
}

/// Letters handled in one turn.
const LETTERS_PER_TURN: usize = 2048;
/// Longest sleep with connections: one tick of the wheel.
const SLEEP: Duration = Duration::from_millis(ringgate_core::wheel::TICK_MS);
/// Longest sleep without.
const SLEEP_IDLE: Duration = Duration::from_millis(500);
/// A gap between two turns that means that the process was stopped: sockets are read before anyone is expired.
const STOPPED: Duration = Duration::from_secs(1);
/// For at most this long.
const CATCH_UP: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Worker {
    net: Net,
    core: Core,
    mailbox: Mailbox<Mail>,
    backlog: Backlog,
    engine: Option<EngineEnd>,
    verifier: Verifier,
    started: Instant,
    turned: Instant,
    /// The last turn left something to do.
    more: bool,
    /// When the next turn is due although nothing has happened.
    due: Instant,
    /// While set, the process has just been continued and nobody is expired.
    reading_up: Option<Instant>,
    draining: bool,
    rest: Rest,
    at_rest: fn(),
    log: ConnectionLog,
}

impl Worker {
    /// A shard that rings `bell` when it has something to do while its thread sleeps.
    pub(crate) fn new(options: WorkerOptions, bell: &Bell) -> Result<Self, RingError> {
        let mut net = Net::new(options.net, options.shard.metrics.clone(), bell)?;
        if let Some(tls) = options.tls {
            net.set_server_tls(tls);
        }
        net.set_farewells(farewells(options.shard.id));
        net.receive_stepwise();
        for (listener, front) in options.listeners {
            net.listen_as(listener, &front, &options.websocket);
        }
        let log = ConnectionLog::new(options.shard.id, Instant::now());
        Ok(Worker {
            net,
            backlog: Backlog::new(options.shard.shards.into()),
            core: Core::new(options.shard, options.admission, options.websocket.trusted_proxies),
            mailbox: options.mailbox,
            engine: options.engine,
            verifier: Verifier::new(options.authenticator),
            started: options.started,
            turned: Instant::now(),
            more: true,
            due: Instant::now(),
            reading_up: None,
            draining: false,
            rest: Rest::new(Instant::now()),
            at_rest: options.at_rest,
            log,
        })
    }

    /// The calling thread is this shard's, and it is the first of the thread's shards: CPU time is counted by thread.
    pub(crate) fn set_thread(&self) {
        self.core.metrics.thread.set(rustix::thread::gettid().as_raw_nonzero().get() as u64);
    }

    /// Whether it has drained and is not needed any more.
    pub(crate) fn is_done(&self) -> bool {
        let is_idle = self.core.shard.connections() == 0 && self.core.shard.awaits_engine() == 0;
        let has_asked = self.engine.as_ref().is_none_or(EngineEnd::is_empty);
        self.draining && is_idle && has_asked && self.net.sockets() == 0 && self.backlog.letters() == 0
    }

    /// Whether a turn would find something to do.
    pub(crate) fn has_work(&mut self, now: Instant) -> bool {
        now >= self.due || self.must_go_on()
    }

    /// As [`Self::has_work`], but for what is due at a time.
    fn must_go_on(&mut self) -> bool {
        self.more || !self.verifier.is_empty() || !self.mailbox.is_empty() || self.net.has_work()
    }

    /// One turn. What it has for the kernel is to be submitted: by [`Self::submit`], or on the way to sleep.
    pub(crate) fn turn(&mut self) {
        self.core.metrics.turns.increment();
        let began = Instant::now();
        if began - self.turned > STOPPED {
            self.reading_up = Some(began);
            // What has come meanwhile is only posted by an entry into the kernel; a sleep that was interrupted has made none.
            self.net.submit();
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.core.now = Now { mono_us: (began - self.started).as_micros() as u64, unix_ms: unix.as_millis() as u64 };
        let mut busy = self.backlog.letters() > 0;
        let read = self.net.poll(&mut self.core);
        busy |= read;
        self.reading_up = self.reading_up.filter(|since| read && began - *since <= CATCH_UP);
        busy |= self.read_mail();
        busy |= self.verifier.turn(&mut self.core, self.backlog.letters());
        busy |= match self.reading_up {
            None => self.core.shard.advance(self.core.now),
            Some(_) => self.core.shard.work_off(self.core.now),
        };
        busy |= self.apply_effects();
        self.backlog.send(&mut self.mailbox, &mut self.core);
        for (peer, failure) in self.core.refused.drain(..) {
            self.log.refused(peer, failure);
        }
        if let Some(engine) = &mut self.engine {
            engine.send(&self.core.metrics);
        }
        self.log.turn(began);
        if self.core.shard.passes_log_mark() {
            let (bytes, limit) = (self.core.metrics.log_bytes.read(), self.core.metrics.log_bytes_limit.read());
            tracing::warn!(shard = self.core.id.0, bytes, limit, "logs are nearly full; see log.size_per_shard_max");
        }
        self.more = self.backlog.letters() > 0 || self.reading_up.is_some() || self.core.shard.has_work();
        self.turned = Instant::now();
        let worked = if busy { self.turned - began } else { Duration::ZERO };
        if busy {
            self.core.metrics.busy_ns.add(worked.as_nanos() as u64);
            self.core.metrics.turn_duration.record_us(worked.as_micros() as u64);
        }
        let accepted = self.core.metrics.connections_accepted.iter().map(Cell::read).sum();
        if self.rest.after_turn(self.turned, worked, accepted) {
            self.release_spares();
        }
        self.due = self.turned + self.rhythm();
    }

    /// Hands the kernel what the last turn has for it.
    pub(crate) fn submit(&mut self) {
        self.net.submit();
    }

    /// Sleeps until there is something to do: for a shard that has its thread for itself, see [`Self::live_alone`]. A
    /// turn's submission and the wait are one system call.
    pub(crate) fn sleep(&mut self) {
        if self.must_go_on() || !self.mailbox.try_sleep() {
            return self.submit();
        }
        self.net.wait(self.due.saturating_duration_since(Instant::now()));
        self.mailbox.wake_up();
    }

    /// The thread has no other shards: its bell ends [`Self::sleep`].
    pub(crate) fn live_alone(&mut self, bell: Arc<Bell>) {
        self.net.listen_to(bell);
    }

    /// Gives back what only the busy stretch needed.
    fn release_spares(&mut self) {
        self.core.release_spares();
        self.net.release_spares();
        self.verifier.release_spares();
        self.backlog.release_spares();
        (self.at_rest)();
    }

    fn read_mail(&mut self) -> bool {
        for handled in 0..LETTERS_PER_TURN {
            let Some(mail) = self.mailbox.pop() else { return handled > 0 };
            match mail {
                Mail::Letter(letter) => self.core.shard.handle(Event::Mail(letter), self.core.now),
                Mail::Engine(event) => self.core.shard.handle(*event, self.core.now),
                Mail::Control(Control::Drain) => {
                    self.draining = true;
                    self.net.stop_accepting();
                    self.core.shard.handle(Event::Drain, self.core.now);
                }
                Mail::Control(Control::Reload(reload)) => {
                    self.verifier.replace(reload.authenticator.clone());
                    if let Some(tls) = &reload.tls {
                        self.net.set_server_tls(tls.clone());
                    }
                }
            }
        }
        true
    }

    fn apply_effects(&mut self) -> bool {
        let mut any = false;
        while let Some(effect) = self.core.shard.poll_effect() {
            any = true;
            match effect {
                Effect::Post(posted) => self.backlog.push(posted),
                Effect::Verify { connection, refresh, token } => {
                    let token = if refresh.is_none() { self.core.token(connection, token) } else { token };
                    self.verifier.push((connection, refresh, token));
                }
                Effect::Writable { connection } => self.net.flush(connection, &mut self.core),
                Effect::Close { connection, reason, flush, record } => {
                    let cause = self.core.causes.remove(&connection);
                    let has_spoken = self.net.has_heard(connection);
                    self.log.closed(connection, reason, &record, has_spoken, cause.as_deref());
                    self.net.explain(connection, reason);
                    self.net.close(connection, flush, &mut self.core);
                }
                Effect::SignedIn { connection, record } => {
                    self.net.trust(connection);
                    self.log.signed_in(connection, &record);
                }
                effect @ (Effect::Append { .. }
                | Effect::Load { .. }
                | Effect::Read { .. }
                | Effect::Cursor { .. }
                | Effect::Unload { .. }
                | Effect::Claim { .. }
                | Effect::Release { .. }
                | Effect::Relay { .. }
                | Effect::Disconnect { .. }
                | Effect::Members { .. }
                | Effect::Presence { .. }) => {
                    if let Some(engine) = &mut self.engine {
                        engine.push(effect);
                    }
                }
                Effect::Abort { connection } => self.net.abort(connection),
                Effect::Hold { connection, hold } => self.net.hold(connection, hold),
            }
        }
        any
    }

    /// Submits everything and says whether the thread may sleep, as far as this shard is concerned.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        if self.must_go_on() || !self.net.prepare_sleep() {
            return false;
        }
        if self.mailbox.try_sleep() {
            return true;
        }
        self.net.wake_up();
        false
    }

    /// To be called after [`Self::prepare_sleep`] has said yes and the thread has slept, or could not.
    pub(crate) fn wake_up(&mut self) {
        self.mailbox.wake_up();
        self.net.wake_up();
    }

    /// When the next turn is due although nothing has happened.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// From one such turn to the next.
    fn rhythm(&self) -> Duration {
        let sleep = if self.core.shard.has_timers() { SLEEP } else { SLEEP_IDLE };
        match self.net.accept_again_at() {
            Some(at) => sleep.min(at.saturating_duration_since(self.turned)),
            None => sleep,
        }
    }
}

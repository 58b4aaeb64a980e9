//! One shard at work: turns the core's events and effects into work of the ring and the mesh. It moves bytes; it
//! decides nothing.
//!
//! A turn: completions, letters, tokens, time; then what follows from them: closes, sends, letters out, one doorbell
//! per thread that sleeps, one entry into the kernel. Each part is bounded. Every turn looks at completions and reads
//! mail, whatever waits: a send whose completion is not looked at makes its reader look slow. What would make too much
//! wait is refused by the core before it is taken in. Turns are made by the shard's thread, see [`crate::thread`].

mod log;
mod queue;

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;

use log::ConnectionLog;
use queue::Unverified;
use ringgate_core::close::CloseReason;
use ringgate_core::id::{Address, ConnectionKey, Now, ShardId};
use ringgate_core::limits::{BUSY_AFTER_MS, BUSY_SPREAD_MS, Settings};
use ringgate_core::mesh::Mailbox;
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::outbox::Chunk;
use ringgate_core::session::{Admission, Authenticator};
use ringgate_core::shard::{Effect, Event, Letter, Shard, ShardOptions};
use ringgate_core::transport::{Handshake, Transport};
use ringgate_core::wire::Encoder;
use ringgate_net::tls::TlsError;
use ringgate_net::{Bell, Driver, Net, NetOptions, RingError};

/// What travels through the mesh.
#[derive(Debug)]
pub enum Mail {
    /// From shard to shard.
    Letter(Letter),
    /// From the control plane.
    Control(Control),
}

// What is measured of the mesh in bench/ is as large.
const _: () = assert!(size_of::<Mail>() == size_of::<Letter>());

impl Mail {
    /// Bytes of the messages in it.
    pub fn bytes(&self) -> usize {
        match self {
            Mail::Letter(letter) => letter.bytes(),
            Mail::Control(_) => 0,
        }
    }
}

/// What the control plane asks of a shard.
#[derive(Debug)]
pub enum Control {
    /// Stop accepting, tell every client to go, and end when all are gone.
    Drain,
    /// Use these from now on. A shard that has dropped its reference uses them.
    Reload(Arc<Reload>),
}

/// What can be exchanged while a gateway runs. Sessions that are signed in stay.
pub struct Reload {
    /// For connections accepted from now on. None keeps the present certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// For tokens looked at from now on.
    pub authenticator: Arc<dyn Authenticator>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

/// What a shard is made of.
pub struct WorkerOptions {
    /// The core.
    pub shard: ShardOptions,
    /// The sockets.
    pub net: NetOptions,
    /// Its listeners, one for each address of the node.
    pub listeners: Vec<(TcpListener, Transport)>,
    /// Certificate, if any listener is TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// Its end of the mesh.
    pub mailbox: Mailbox<Mail>,
    /// Verifies tokens.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who may connect, for all shards.
    pub admission: Arc<Mutex<Admission>>,
    /// Zero of the node's monotonic clock.
    pub started: Instant,
    /// Called on the shard's thread when a busy stretch is over and the shard has let go of what it kept for it: time to
    /// give memory back to the system.
    pub at_rest: fn(),
}

/// Delays that refused clients are told.
const FAREWELLS: u32 = 16;
/// Letters handled in one turn.
const LETTERS_PER_TURN: usize = 2048;
/// Cost of token verifications in one turn, in units of about 2 us.
const VERIFY_COST_PER_TURN: u32 = 128;
/// Tokens of each kind that are looked at in one turn, whether somebody waits for them still.
const STALE_LOOKS_PER_TURN: usize = 128;
/// Letters that may wait for full mailboxes while tokens are verified.
const WAITING_MAX: usize = 4096;
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
    /// Letters for shards whose mailbox is full, in order.
    backlog: Vec<VecDeque<Letter>>,
    waiting: usize,
    authenticator: Arc<dyn Authenticator>,
    unverified: Unverified,
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
    log: ConnectionLog,
}

/// Notices the end of a busy stretch: a ramp of connections, a storm. What such a stretch leaves in the allocator
/// stays there for good otherwise.
struct Rest {
    at_rest: fn(),
    window_began: Instant,
    worked: Duration,
    /// Connections accepted before the window.
    accepted: u64,
    was_busy: bool,
}

/// How long is looked at.
const REST_WINDOW: Duration = Duration::from_millis(500);
/// More work than this in a window, or more new connections, is a busy stretch.
const REST_BUSY: Duration = Duration::from_millis(125);
const REST_ACCEPTED: u64 = 50;

impl Rest {
    fn new(at_rest: fn(), now: Instant) -> Self {
        Rest { at_rest, window_began: now, worked: Duration::ZERO, accepted: 0, was_busy: true }
    }

    /// True when a busy stretch has just ended.
    fn after_turn(&mut self, now: Instant, worked: Duration, accepted: u64) -> bool {
        self.worked += worked;
        if now - self.window_began < REST_WINDOW {
            return false;
        }
        let new = accepted - core::mem::replace(&mut self.accepted, accepted);
        let busy = core::mem::take(&mut self.worked) > REST_BUSY || new > REST_ACCEPTED;
        self.window_began = now;
        core::mem::replace(&mut self.was_busy, busy) && !busy
    }
}

/// The core, as the sockets see it.
struct Core {
    shard: Shard,
    now: Now,
    id: ShardId,
    settings: Arc<Settings>,
    metrics: Arc<ShardMetrics>,
    admission: Arc<Mutex<Admission>>,
    peers: ringgate_core::slots::Slots<std::net::IpAddr>,
    limited: bool,
    /// Why TLS failed, of connections whose close was not logged yet.
    causes: HashMap<ConnectionKey, String>,
}

/// What clients are told in turn for whom there is no room. They do not come back all at once: each may try again at another
/// time, and shards do not begin with the same one.
fn farewells(id: ShardId) -> Vec<Vec<u8>> {
    let after_ms = |step: u32| BUSY_AFTER_MS + step % FAREWELLS * BUSY_SPREAD_MS / FAREWELLS;
    let farewell = |number: u32| {
        let mut frame = Vec::new();
        // Seven and 16 have no factor in common: all steps come, and those next to each other differ much.
        let after_ms = after_ms(u32::from(id.0) + number * 7);
        Encoder::default().goodbye(&mut frame, CloseReason::Busy, CloseReason::Busy.label(), after_ms);
        frame
    };
    (0..FAREWELLS).map(farewell).collect()
}

impl Worker {
    /// A shard that rings `bell` when it has something to do while its thread sleeps.
    pub(crate) fn new(options: WorkerOptions, bell: &Bell) -> Result<Self, RingError> {
        let metrics = options.shard.metrics.clone();
        let mut net = Net::new(options.net, metrics.clone(), bell)?;
        if let Some(tls) = options.tls {
            net.set_server_tls(tls);
        }
        net.set_farewells(farewells(options.shard.id));
        net.receive_stepwise();
        for (listener, transport) in options.listeners {
            net.listen(listener, transport);
        }
        let shards = usize::from(options.shard.shards);
        let settings = options.shard.settings.clone();
        let client = &settings.client;
        let log = ConnectionLog::new(options.shard.id, Instant::now());
        Ok(Worker {
            net,
            core: Core {
                id: options.shard.id,
                limited: client.connections_max != 0
                    || client.connections_per_address_max != 0
                    || client.accept_rate != 0,
                shard: Shard::new(options.shard),
                now: Now::default(),
                settings,
                metrics,
                admission: options.admission,
                peers: ringgate_core::slots::Slots::default(),
                causes: HashMap::new(),
            },
            mailbox: options.mailbox,
            backlog: (0..shards).map(|_| VecDeque::new()).collect(),
            waiting: 0,
            authenticator: options.authenticator,
            unverified: Unverified::default(),
            started: options.started,
            turned: Instant::now(),
            more: true,
            due: Instant::now(),
            reading_up: None,
            draining: false,
            rest: Rest::new(options.at_rest, Instant::now()),
            log,
        })
    }

    /// Whether it has drained and is not needed any more.
    pub(crate) fn is_done(&self) -> bool {
        self.draining && self.core.shard.connections() == 0 && self.net.sockets() == 0 && self.waiting == 0
    }

    /// Whether a turn would find something to do.
    pub(crate) fn has_work(&mut self, now: Instant) -> bool {
        now >= self.due || self.must_go_on()
    }

    /// The same, whatever the time is.
    fn must_go_on(&mut self) -> bool {
        self.more || !self.unverified.is_empty() || !self.mailbox.is_empty() || self.net.has_work()
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
        let mut busy = self.waiting > 0;
        let read = self.net.poll(&mut self.core);
        busy |= read;
        self.reading_up = self.reading_up.filter(|since| read && began - *since <= CATCH_UP);
        busy |= self.read_mail();
        busy |= self.verify_tokens();
        busy |= match self.reading_up {
            None => self.core.shard.advance(self.core.now),
            Some(_) => self.core.shard.work_off(self.core.now),
        };
        busy |= self.apply_effects();
        self.send_mail();
        self.log.turn(began);
        if self.core.shard.passes_log_mark() {
            let (bytes, limit) = (self.core.metrics.log_bytes.read(), self.core.metrics.log_bytes_limit.read());
            tracing::warn!(shard = self.core.id.0, bytes, limit, "logs are nearly full; see log.size_per_shard");
        }
        self.more = self.waiting > 0 || self.reading_up.is_some() || self.core.shard.has_work();
        self.turned = Instant::now();
        let worked = if busy { self.turned - began } else { Duration::ZERO };
        self.core.metrics.busy_ns.add(worked.as_nanos() as u64);
        let accepted = self.core.metrics.connections_accepted.iter().map(ringgate_core::metrics::Cell::read).sum();
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
        self.core.shard.release_spares();
        self.net.release_spares();
        self.unverified.release_spares();
        self.core.causes.shrink_to_fit();
        for backlog in &mut self.backlog {
            backlog.shrink_to_fit();
        }
        (self.rest.at_rest)();
    }

    fn read_mail(&mut self) -> bool {
        for handled in 0..LETTERS_PER_TURN {
            let Some(mail) = self.mailbox.pop() else { return handled > 0 };
            match mail {
                Mail::Letter(letter) => self.core.shard.handle(Event::Mail(letter), self.core.now),
                Mail::Control(Control::Drain) => {
                    self.draining = true;
                    self.net.stop_accepting();
                    self.core.shard.handle(Event::Drain, self.core.now);
                }
                Mail::Control(Control::Reload(reload)) => {
                    self.authenticator = reload.authenticator.clone();
                    if let Some(tls) = &reload.tls {
                        self.net.set_server_tls(tls.clone());
                    }
                }
            }
        }
        true
    }

    /// Verifies as many tokens as fit into a turn: a reconnect storm must not stall those who are signed in.
    fn verify_tokens(&mut self) -> bool {
        // Nobody waits for these, and while nothing is verified nothing else takes them out.
        let shard = &self.core.shard;
        self.unverified.drop_stale(STALE_LOOKS_PER_TURN, |(connection, refresh, _)| {
            shard.awaits_verification(*connection, refresh.is_some())
        });
        if self.waiting > WAITING_MAX {
            // A sign-in posts letters for its inbox and all of its rooms: it waits until there is room for them.
            return false;
        }
        self.unverified.begin(VERIFY_COST_PER_TURN);
        while let Some((connection, refresh, token)) = self.unverified.pop() {
            if !self.core.shard.awaits_verification(connection, refresh.is_some()) {
                // Closed while it waited: in a storm, most of the queue may be.
                self.unverified.spend(1, refresh.is_some());
                continue;
            }
            self.unverified.spend(1 + self.authenticator.cost(&token), refresh.is_some());
            let began = Instant::now();
            let result = self.authenticator.verify(&token, self.core.now.unix_ms / 1000);
            self.core.metrics.auth_duration.record_us(began.elapsed().as_micros() as u64);
            if let Err(error) = &result {
                let connection = Address { shard: self.core.id, connection };
                tracing::debug!(%connection, cause = error.label(), refresh = refresh.is_some(), "token refused");
            }
            self.core.shard.handle(Event::Verified { connection, refresh, result }, self.core.now);
        }
        self.unverified.spent() > 0
    }

    fn apply_effects(&mut self) -> bool {
        let mut any = false;
        while let Some(effect) = self.core.shard.poll_effect() {
            any = true;
            match effect {
                Effect::Post(posted) => {
                    self.waiting += 1;
                    if let Some(backlog) = self.backlog.get_mut(usize::from(posted.to.0)) {
                        backlog.push_back(posted.letter);
                    }
                }
                Effect::Verify { connection, refresh, token } => {
                    self.unverified.push((connection, refresh, token));
                }
                Effect::Writable { connection } => self.net.flush(connection, &mut self.core),
                Effect::Close { connection, reason, flush, record } => {
                    let cause = self.core.causes.remove(&connection);
                    let has_spoken = self.net.has_heard(connection);
                    self.log.closed(connection, reason, &record, has_spoken, cause.as_deref());
                    self.net.close(connection, flush, &mut self.core);
                }
                Effect::SignedIn { connection, record } => {
                    self.net.trust(connection);
                    self.log.signed_in(connection, &record);
                }
                Effect::Abort { connection } => self.net.abort(connection),
                Effect::Hold { connection, hold } => self.net.hold(connection, hold),
            }
        }
        any
    }

    /// Moves letters into mailboxes as far as there is room, and wakes shards that sleep.
    fn send_mail(&mut self) {
        if self.waiting == 0 {
            return;
        }
        for (to, backlog) in self.backlog.iter_mut().enumerate().filter(|(_, backlog)| !backlog.is_empty()) {
            while let Some(letter) = backlog.pop_front() {
                let urgent = letter.is_urgent();
                match self.mailbox.push(to, Mail::Letter(letter), urgent) {
                    Ok(()) => self.waiting -= 1,
                    Err(Mail::Letter(letter)) => {
                        backlog.push_front(letter);
                        self.core.metrics.mesh_full.increment();
                        break;
                    }
                    Err(Mail::Control(_)) => break,
                }
            }
            self.core.shard.set_waiting(ShardId(to as u16), backlog.len(), backlog.iter().map(Letter::bytes).sum());
        }
        self.core.metrics.mesh_doorbells.add(self.mailbox.ring() as u64);
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

impl Driver for Core {
    fn opened(&mut self, key: ConnectionKey, peer: SocketAddr, transport: Transport) -> bool {
        let peer = peer.ip().to_canonical();
        if self.limited {
            let admitted =
                self.admission.lock().is_ok_and(|mut admission| admission.admit(&self.settings.client, peer, self.now));
            if !admitted {
                self.metrics.connections_refused.increment();
                return false;
            }
            self.peers.insert_at(key, peer);
        }
        self.shard.handle(Event::Opened { connection: key, peer, transport }, self.now);
        true
    }

    fn secured(&mut self, key: ConnectionKey, _: Handshake) {
        self.shard.handle(Event::Secured { connection: key }, self.now);
    }

    fn expect(&mut self, key: ConnectionKey) {
        self.shard.expect(key);
    }

    fn received(&mut self, key: ConnectionKey, bytes: &[u8]) {
        self.shard.handle(Event::Received { connection: key, bytes }, self.now);
    }

    fn takes_more(&mut self, key: ConnectionKey) -> bool {
        self.shard.takes_more(key)
    }

    fn carried(&mut self, key: ConnectionKey, overhead_bytes: usize) {
        self.shard.carried(key, overhead_bytes, self.now);
    }

    fn tls_failed(&mut self, key: ConnectionKey, error: &TlsError) {
        self.causes.insert(key, error.to_string());
    }

    fn ended(&mut self, key: ConnectionKey, reason: CloseReason) {
        self.shard.handle(Event::Ended { connection: key, reason }, self.now);
    }

    fn freed(&mut self, key: ConnectionKey) {
        self.causes.remove(&key);
        self.shard.handle(Event::Freed { connection: key }, self.now);
        if let Some(peer) = self.peers.remove_at(key)
            && let Ok(mut admission) = self.admission.lock()
        {
            admission.release(peer);
        }
    }

    fn pull(&mut self, key: ConnectionKey) -> Option<Chunk> {
        self.shard.pull(key, self.now)
    }

    fn progressed(&mut self, key: ConnectionKey) {
        self.shard.progressed(key, self.now);
    }

    fn recycle(&mut self, _key: ConnectionKey, buffer: Vec<u8>) {
        self.shard.recycle(buffer);
    }
}

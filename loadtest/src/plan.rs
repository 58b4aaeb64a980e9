//! What all driver threads share: how many connections are wanted, which traffic flows, and the live counts.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use ringgate::auth::{Signer, TokenSpec};
use ringgate::net::Target;
use ringgate::session::Transport;

use crate::fleet::latencies;

/// Who sends what to whom, and when.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// The run, which is part of the clients' names.
    pub(crate) run: u64,
    /// Nanoseconds since the run's zero.
    pub(crate) start_ns: u64,
    /// How long.
    pub(crate) duration: Duration,
    /// When each message is sent.
    pub(crate) pace: Pace,
    /// Bytes of each payload.
    pub(crate) payload_bytes: usize,
    /// The room, or none for one-to-one.
    pub(crate) room: Option<String>,
    /// Clients that take part.
    pub(crate) clients: u32,
    /// In a room: how many of them publish.
    pub(crate) publishers: u32,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// On a schedule that is fixed in advance, whatever the gateway does: so many messages per second, all senders
    /// together.
    Open(f64),
    /// Each sender has so many messages under way, and sends the next when one is answered.
    Closed(u32),
}

impl Traffic {
    /// When message `index` of an open loop is to be sent; none past the last.
    pub(crate) fn planned_ns(&self, index: u64) -> Option<u64> {
        match self.pace {
            Pace::Open(rate) if index < (rate * self.duration.as_secs_f64()) as u64 => {
                Some(self.start_ns + (index as f64 * 1e9 / rate) as u64)
            }
            _ => None,
        }
    }

    /// How many messages there will be, where that is known in advance.
    pub(crate) fn messages(&self) -> Option<u64> {
        match self.pace {
            Pace::Open(rate) => Some((rate * self.duration.as_secs_f64()) as u64),
            Pace::Closed(_) => None,
        }
    }

    /// A closed loop begins nothing new after this.
    pub(crate) fn end_ns(&self) -> u64 {
        self.start_ns + self.duration.as_nanos() as u64
    }

    /// How many clients send.
    pub(crate) fn senders(&self) -> u32 {
        if self.room.is_some() { self.publishers } else { self.clients / 2 }
    }

    /// Who sends message `index`.
    pub(crate) fn sender(&self, index: u64) -> u32 {
        let sender = (index % u64::from(self.senders().max(1))) as u32;
        match &self.room {
            // Publishers are spread over all members, and so over all shards.
            Some(_) => sender * (self.clients / self.publishers.max(1)).max(1),
            None => sender,
        }
    }

    /// Where a sender's messages go.
    pub(crate) fn topic(&self, sender: u32) -> String {
        match &self.room {
            Some(room) => room.clone(),
            None => format!("@{}", user(self.run, sender + self.clients / 2)),
        }
    }

    /// Members of the room.
    pub(crate) fn members(&self) -> std::ops::Range<u32> {
        0..self.clients
    }

    /// Deliveries that one message causes.
    pub(crate) fn recipients(&self) -> u64 {
        if self.room.is_some() { self.clients.into() } else { 1 }
    }
}

/// The user id of a client: another one in each run, so that runs side by side do not take over each other's sessions.
fn user(run: u64, number: u32) -> String {
    format!("u{:x}-{number}", run & 0xff_ffff)
}

/// Where tokens come from.
pub(crate) enum Tokens {
    /// Signed for each client.
    Signer(Box<Signer>),
    /// One for all: every client is another device of one user.
    Fixed(String),
}

/// See the module.
pub(crate) struct Shared {
    /// Tells this run's messages from others'.
    pub(crate) run: u64,
    /// Slots of each thread's ring.
    pub(crate) slots_per_thread: u32,
    /// Milliseconds between Pings.
    pub(crate) ping_interval_ms: u64,
    /// Source addresses, if they are given.
    pub(crate) sources: Option<Vec<IpAddr>>,
    threads: usize,
    targets: [Target; 2],
    tokens: Tokens,
    zero: Instant,
    stop: AtomicBool,
    wanted: [AtomicUsize; 2],
    plain_max: u32,
    traffic: Mutex<Option<Arc<Traffic>>>,
    version: AtomicUsize,
    interval: Mutex<Histogram<u64>>,
    counts: Counts,
}

/// Live counts of all threads.
#[derive(Default, Debug)]
pub(crate) struct Counts {
    /// Signed in now.
    pub(crate) connections: AtomicUsize,
    /// Connections that ended or were not made.
    pub(crate) closed: AtomicUsize,
    /// Publishes sent.
    pub(crate) sent: AtomicU64,
    /// Publishes answered with Published.
    pub(crate) accepted: AtomicU64,
    /// Different messages that arrived.
    pub(crate) delivered: AtomicU64,
    /// Rooms joined.
    pub(crate) subscribed: AtomicU64,
    /// Pings sent.
    pub(crate) pings: AtomicU64,
    /// Pongs received.
    pub(crate) pongs: AtomicU64,
    /// Anything that went wrong.
    pub(crate) errors: AtomicU64,
}

impl Shared {
    /// A plan without connections. `plain_max` is the most plain connections that will ever be wanted: TLS clients
    /// are numbered after them.
    pub(crate) fn new(
        threads: usize,
        slots_per_thread: u32,
        targets: [Target; 2],
        tokens: Tokens,
        plain_max: u32,
        ping_interval: Duration,
        sources: Option<Vec<IpAddr>>,
    ) -> Shared {
        let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        Shared {
            run,
            slots_per_thread,
            ping_interval_ms: (ping_interval.as_millis() as u64).max(1),
            sources,
            threads,
            targets,
            tokens,
            zero: Instant::now(),
            stop: AtomicBool::new(false),
            wanted: Default::default(),
            plain_max,
            traffic: Mutex::new(None),
            version: AtomicUsize::new(0),
            interval: Mutex::new(latencies()),
            counts: Counts::default(),
        }
    }

    /// Live counts.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Wants this many connections from now on.
    pub(crate) fn want(&self, transport: Transport, connections: usize) {
        self.wanted[transport as usize].store(connections, Ordering::Relaxed);
    }

    /// Starts traffic.
    pub(crate) fn start_traffic(&self, traffic: Traffic) {
        if let Ok(mut place) = self.traffic.lock() {
            *place = Some(Arc::new(traffic));
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Ends the run.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Latencies since the last call.
    pub(crate) fn take_interval(&self) -> Histogram<u64> {
        self.interval.lock().map_or_else(|_| latencies(), |mut interval| std::mem::replace(&mut interval, latencies()))
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.zero.elapsed().as_millis() as u64
    }

    pub(crate) fn target(&self, transport: Transport) -> &Target {
        &self.targets[transport as usize]
    }

    /// How many of the wanted connections are this thread's.
    pub(crate) fn share(&self, transport: Transport, thread: usize) -> usize {
        let wanted = self.wanted[transport as usize].load(Ordering::Relaxed);
        (wanted + self.threads - 1 - thread) / self.threads
    }

    /// Number of a thread's client.
    pub(crate) fn number(&self, transport: Transport, thread: usize, index: usize) -> u32 {
        let number = (index * self.threads + thread) as u32;
        if transport == Transport::Tls { self.plain_max + number } else { number }
    }

    pub(crate) fn thread_of(&self, number: u32) -> usize {
        let index = if number >= self.plain_max { number - self.plain_max } else { number };
        index as usize % self.threads
    }

    pub(crate) fn token(&self, number: u32) -> Result<String, String> {
        match &self.tokens {
            Tokens::Fixed(token) => Ok(token.clone()),
            Tokens::Signer(signer) => signer.sign(&TokenSpec {
                user: user(self.run, number),
                issued_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
                ttl_seconds: 24 * 3600,
                ..TokenSpec::default()
            }),
        }
    }

    pub(crate) fn traffic_version(&self) -> usize {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn traffic(&self) -> Option<Arc<Traffic>> {
        self.traffic.lock().ok().and_then(|traffic| traffic.clone())
    }

    pub(crate) fn add_interval(&self, interval: &Histogram<u64>) {
        if let Ok(mut all) = self.interval.lock() {
            let _ = all.add(interval);
        }
    }

    pub(crate) fn signed_in(&self) {
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, was_ready: bool) {
        if was_ready {
            self.counts.connections.fetch_sub(1, Ordering::Relaxed);
        }
        self.counts.closed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_sent(&self) {
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_accepted(&self) {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_delivered(&self) {
        self.counts.delivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_subscribed(&self) {
        self.counts.subscribed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_ping(&self) {
        self.counts.pings.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_pong(&self) {
        self.counts.pongs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_error(&self) {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
    }
}

//! What all driver threads share: how many connections are wanted, what they are told to do, and the live counts.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringgate::auth::{Signer, TokenSpec};
use ringgate::net::Target;
use ringgate::session::Transport;

use crate::record::Record;
use crate::traffic::Traffic;

/// Something for the clients to do. Every thread carries out every order, for its own clients, in order.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send.
    Traffic(Traffic),
    /// Close these clients' connections and stay away.
    Leave(Range<u32>),
    /// Connect those who are away.
    Return(Range<u32>),
    /// Stop reading.
    Hold(Range<u32>),
    /// Read on.
    Release(Range<u32>),
    /// So many of these clients per second leave and come back at once.
    Churn {
        /// Which.
        clients: Range<u32>,
        /// Per second.
        rate: f64,
        /// Until then, in nanoseconds since the run's zero.
        until_ns: u64,
    },
    /// Forget all traffic and churn.
    Stop,
}

/// Where tokens come from.
pub(crate) enum Tokens {
    /// Signed for each client.
    Signer(Box<Signer>),
    /// One for all: every client is another device of one user.
    Fixed(String),
}

/// What a run is made of.
pub(crate) struct Plan {
    /// Rings of clients.
    pub(crate) rings: usize,
    /// Slots of each.
    pub(crate) slots_per_ring: u32,
    /// Where to: plain, TLS.
    pub(crate) targets: [Target; 2],
    /// Where tokens come from.
    pub(crate) tokens: Tokens,
    /// Most plain connections that will ever be wanted: TLS clients are numbered after them.
    pub(crate) plain_max: u32,
    /// Between two Pings of a client.
    pub(crate) ping_interval: Duration,
    /// Source addresses, if they are given.
    pub(crate) sources: Sources,
    /// Connects begun per second, all threads together; none for as fast as it goes.
    pub(crate) ramp_rate: Option<f64>,
    /// Connects begun at once under that rate.
    pub(crate) ramp_burst: u32,
    /// Clients that lose their connection come back, as the protocol asks.
    pub(crate) reconnect: bool,
}

impl Plan {
    /// Driver threads: one for each core that this process may use, if there are rings enough.
    pub(crate) fn threads(&self) -> usize {
        self.rings.min(std::thread::available_parallelism().map_or(1, |count| count.get()))
    }
}

/// Addresses that clients connect from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Vec<(IpAddr, u32)>);

impl std::str::FromStr for Sources {
    type Err = String;

    /// `10.0.0.1,10.0.0.2` or `127.0.0.0/8`, or a mixture.
    fn from_str(text: &str) -> Result<Self, String> {
        let source = |part: &str| {
            let wanted = || format!("\"{part}\" is neither an address nor a network such as 127.0.0.0/8");
            let (address, bits) = part.split_once('/').map_or((part, None), |(address, bits)| (address, Some(bits)));
            let address: IpAddr = address.trim().parse().map_err(|_| wanted())?;
            let host_bits = match (address, bits) {
                (_, None) => 0,
                (IpAddr::V4(_), Some(bits)) => {
                    32u32.checked_sub(bits.parse().map_err(|_| wanted())?).ok_or_else(wanted)?
                }
                (IpAddr::V6(_), Some(bits)) => {
                    128u32.checked_sub(bits.parse().map_err(|_| wanted())?).ok_or_else(wanted)?
                }
            };
            // The network's own and its broadcast address are left out.
            Ok((address, if host_bits == 0 { 1 } else { (1u32 << host_bits.min(24)).saturating_sub(2).max(1) }))
        };
        text.split(',').map(source).collect::<Result<_, String>>().map(Sources)
    }
}

impl Sources {
    /// The address of a lane, wrapping around; none if no source was given.
    pub(crate) fn lane(&self, lane: usize) -> Option<IpAddr> {
        let total: usize = self.0.iter().map(|(_, count)| *count as usize).sum();
        let mut lane = lane.checked_rem(total)?;
        for (address, count) in &self.0 {
            if lane < *count as usize {
                let step = if *count == 1 { 0 } else { lane as u32 + 1 };
                return Some(match address {
                    IpAddr::V4(address) => IpAddr::V4((u32::from(*address) + step).into()),
                    IpAddr::V6(address) => IpAddr::V6((u128::from(*address) + u128::from(step)).into()),
                });
            }
            lane -= *count as usize;
        }
        None
    }
}

/// See the module.
pub(crate) struct Shared {
    /// Tells this run's messages from others'.
    pub(crate) run: u64,
    /// What it is made of.
    pub(crate) plan: Plan,
    zero: Instant,
    stop: AtomicBool,
    wanted: [AtomicUsize; 2],
    orders: Mutex<Vec<Arc<Order>>>,
    version: AtomicUsize,
    record: Mutex<Record>,
    /// How often everything recorded was asked for, and how often threads have handed it over since.
    collections: AtomicUsize,
    handed_over: AtomicUsize,
    counts: Counts,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Live counts of all threads.
        #[derive(Default, Debug)]
        pub(crate) struct Counts { $($(#[$doc])* pub(crate) $name: AtomicU64,)* }

        /// [`Counts`] at one moment.
        #[derive(Clone, Copy, Default, Debug)]
        pub(crate) struct Tally { $($(#[$doc])* pub(crate) $name: u64,)* }

        impl Counts {
            /// All of them now.
            pub(crate) fn read(&self) -> Tally {
                Tally { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Signed in now.
    connections,
    /// Connects that are under way.
    connecting,
    /// Connections that ended unasked, or were not made.
    closed,
    /// Signed in again after such an end, or after having been away.
    reconnects,
    /// Publishes sent.
    sent,
    /// Planned publishes whose sender was away at the time.
    skipped,
    /// Publishes answered with Published.
    accepted,
    /// Publishes answered with Error.
    refused,
    /// Publishes whose connection ended before the answer.
    undecided,
    /// Deliveries that the accepted publishes are to cause.
    owed,
    /// Different messages that arrived.
    delivered,
    /// Rooms joined.
    subscribed,
    /// Pings sent.
    pings,
    /// Of those, the ones that keep a connection alive and are in no schedule.
    heartbeats,
    /// Pongs received.
    pongs,
    /// Anything that went wrong.
    errors,
}

impl Tally {
    /// Every publish has its answer, or lost its connection.
    pub(crate) fn is_answered(&self) -> bool {
        self.accepted + self.refused + self.undecided >= self.sent
    }

    /// The same, and everything accepted has arrived.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_answered() && self.delivered >= self.owed
    }
}

impl Shared {
    /// A run without connections.
    pub(crate) fn new(plan: Plan) -> Shared {
        Shared {
            run: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64,
            plan,
            zero: Instant::now(),
            stop: AtomicBool::new(false),
            wanted: Default::default(),
            orders: Mutex::default(),
            version: AtomicUsize::new(0),
            record: Mutex::default(),
            collections: AtomicUsize::new(0),
            handed_over: AtomicUsize::new(0),
            counts: Counts::default(),
        }
    }

    /// Live counts.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Wants this many connections from now on.
    pub(crate) fn want(&self, transport: Transport, connections: usize) {
        self.wanted[transport as usize].store(connections, Relaxed);
    }

    /// Tells all clients to do something.
    pub(crate) fn order(&self, order: Order) {
        if let Ok(mut orders) = self.orders.lock() {
            orders.push(Arc::new(order));
            self.version.store(orders.len(), std::sync::atomic::Ordering::Release);
        }
    }

    /// Orders from number `from` on.
    pub(crate) fn orders(&self, from: usize) -> Vec<Arc<Order>> {
        if self.version.load(std::sync::atomic::Ordering::Acquire) == from {
            return Vec::new();
        }
        self.orders.lock().map(|orders| orders[from..].to_vec()).unwrap_or_default()
    }

    /// Ends the run.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether it has ended.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Asks every thread for what it has recorded. Done when [`Self::is_collected`] says so.
    pub(crate) fn collect(&self) {
        self.handed_over.store(0, Relaxed);
        self.collections.fetch_add(1, std::sync::atomic::Ordering::Release);
    }

    /// Whether every thread has handed over what it had.
    pub(crate) fn is_collected(&self) -> bool {
        self.handed_over.load(std::sync::atomic::Ordering::Acquire) >= self.plan.threads()
    }

    /// How often [`Self::collect`] was called.
    pub(crate) fn collections(&self) -> usize {
        self.collections.load(std::sync::atomic::Ordering::Acquire)
    }

    /// A thread has handed over what was asked for.
    pub(crate) fn hand_over(&self) {
        self.handed_over.fetch_add(1, std::sync::atomic::Ordering::Release);
    }

    /// What was recorded since the last call.
    pub(crate) fn take_record(&self) -> Record {
        self.record.lock().map(|mut record| std::mem::take(&mut *record)).unwrap_or_default()
    }

    /// Adds what a thread has recorded.
    pub(crate) fn add_record(&self, record: &Record) {
        if let Ok(mut all) = self.record.lock() {
            all.add(record);
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.zero.elapsed().as_micros() as u64
    }

    /// How many of the wanted connections are this ring's.
    pub(crate) fn share(&self, transport: Transport, ring: usize) -> usize {
        let wanted = self.wanted[transport as usize].load(Relaxed);
        (wanted + self.plan.rings - 1 - ring) / self.plan.rings
    }

    /// Number of a ring's client.
    pub(crate) fn number(&self, transport: Transport, ring: usize, index: usize) -> u32 {
        let number = (index * self.plan.rings + ring) as u32;
        if transport == Transport::Tls { self.plan.plain_max + number } else { number }
    }

    /// Transport, ring and index of a client.
    pub(crate) fn place(&self, number: u32) -> (Transport, usize, usize) {
        let (transport, number) = match number.checked_sub(self.plan.plain_max) {
            Some(number) => (Transport::Tls, number as usize),
            None => (Transport::Plain, number as usize),
        };
        (transport, number % self.plan.rings, number / self.plan.rings)
    }

    /// The user id of a client: another one in each run, so that runs side by side do not take over each other's
    /// sessions.
    pub(crate) fn user(&self, number: u32) -> String {
        format!("u{:x}-{number}", self.run & 0xff_ffff)
    }

    /// A token for a client.
    pub(crate) fn token(&self, number: u32) -> Result<String, String> {
        match &self.plan.tokens {
            Tokens::Fixed(token) => Ok(token.clone()),
            Tokens::Signer(signer) => signer.sign(&TokenSpec {
                user: self.user(number),
                issued_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
                ttl_seconds: 24 * 3600,
                ..TokenSpec::default()
            }),
        }
    }
}

/// Adds one to a live count.
pub(crate) fn bump(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_lists_and_networks() {
        let lanes = |text: &str, count: usize| -> Vec<String> {
            let sources: Sources = text.parse().unwrap();
            (0..count).map(|lane| sources.lane(lane).unwrap().to_string()).collect()
        };
        assert_eq!(lanes("127.0.0.5,127.0.0.9", 3), ["127.0.0.5", "127.0.0.9", "127.0.0.5"]);
        assert_eq!(lanes("127.0.0.0/8", 3), ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        assert_eq!(lanes("127.1.0.0/30,::1", 3), ["127.1.0.1", "127.1.0.2", "::1"]);
        assert_eq!(Sources::default().lane(3), None);
        for bad in ["", "localhost", "127.0.0.0/33", "::/129", "1.2.3.4/x"] {
            assert!(bad.parse::<Sources>().unwrap_err().contains("127.0.0.0/8"), "{bad}");
        }
    }
}

//! What all driver threads share: how many connections are wanted, what they are told to do, and the live counts.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringgate_core::transport::Transport;

use crate::assignment::Plan;
use crate::gateway::Process;
use crate::mate::Mate;
use crate::record::Record;
use crate::tokens::Listed;
use crate::traffic::Traffic;

/// Something for the clients to do. Every thread carries out every order, for its own clients, in order.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Order {
    /// Send.
    Traffic(Traffic),
    /// Close these clients' connections and stay away. What they have sent is answered first.
    Leave(Range<u32>),
    /// Connect those who are away.
    Return(Range<u32>),
    /// Stop reading.
    Hold(Range<u32>),
    /// Read on.
    Release(Range<u32>),
    /// So many of these clients per second leave, once what they have sent is answered, and come back at once. Times are
    /// nanoseconds since the run's zero.
    Churn { clients: Range<u32>, rate: f64, from_ns: u64, until_ns: u64 },
    /// Forget all traffic and churn.
    Stop,
    /// Send one more heartbeat on each connection, and none after it: at the end those that are alive answer.
    Rest,
}

impl Order {
    /// How many of the clients of a [`Order::Churn`] of this rate were to leave within so many nanoseconds.
    pub(crate) fn churned(rate: f64, ns: u64) -> u64 {
        (ns as f64 * rate / 1e9) as u64
    }
}

/// Tells a run from others, and when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Its id.
    pub(crate) run: u64,
    /// What its times are counted from. It may lie ahead: it is 0 until then.
    pub(crate) zero: Instant,
}

impl Origin {
    /// The run's id as payloads have it.
    pub(crate) fn stamped(self) -> u32 {
        self.run as u32
    }

    /// A new run that begins after so long.
    pub(crate) fn after(lead: Duration) -> Origin {
        let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        Origin { run, zero: Instant::now() + lead }
    }
}

/// From the first wish for connections to the first connect: every thread has noticed by then.
const RAMP_LEAD: Duration = Duration::from_millis(10);

/// A gateway that has signed in nobody new for so long takes no more. One that was busy for a moment may have left
/// connects to the kernel, which tries them again 1, 3 and 7 s after their beginning.
pub(crate) const REFUSED_AFTER: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Shared {
    /// Tells this run's messages from others', and when it began.
    pub(crate) origin: Origin,
    /// What it is made of.
    pub(crate) plan: Plan,
    /// Workers that drive the clients; none when this process does.
    pub(crate) team: Vec<Mate>,
    /// The users of `--tokens`, in the order of the clients; none without that file.
    listed: Option<Arc<Listed>>,
    /// What all user ids of this run begin with, where no file names them.
    prefix: String,
    stop: AtomicBool,
    wanted: [AtomicUsize; 2],
    /// When the ramp began, in microseconds since the run's zero; `u64::MAX` before it has.
    ramp_began_us: AtomicU64,
    orders: Mutex<Vec<Arc<Order>>>,
    version: AtomicUsize,
    record: Mutex<Record>,
    /// The longest payload that the gateway takes, in bytes; 0 until it has said so.
    message_bytes_max: AtomicU32,
    /// Why the last attempt failed, of a client that tries again: that is no error, until nobody gets in.
    failed_attempt: Mutex<Option<String>>,
    /// How often everything recorded was asked for.
    collections: AtomicUsize,
    /// The last of these rounds, and how many threads have handed over what was recorded before it.
    handed_over: Mutex<(usize, usize)>,
    counts: Counts,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Live counts of all threads.
        #[derive(Default, Debug)]
        pub(crate) struct Counts { $($(#[$doc])* pub(crate) $name: AtomicU64,)* }

        /// [`Counts`] at one moment.
        #[derive(Clone, Copy, Default, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub(crate) struct Tally { $($(#[$doc])* pub(crate) $name: u64,)* }

        impl Counts {
            /// All of them now.
            pub(crate) fn read(&self) -> Tally {
                Tally { $($name: self.$name.load(Relaxed),)* }
            }

            /// Adds what somebody else's counts have changed by; some of them fall, too.
            pub(crate) fn add_change(&self, before: Tally, now: Tally) {
                $(self.$name.fetch_add(now.$name.wrapping_sub(before.$name), Relaxed);)*
            }
        }
    };
}

counts! {
    /// Signed in now.
    connections,
    /// Connects that are under way.
    connecting,
    /// Connections made: over TCP only, neither secured nor signed in yet. It never falls.
    reached,
    /// Clients that wait for their turn to come back.
    waiting,
    /// Clients that the load has told to stay away.
    kept_away,
    /// Connections that ended unasked, or were not made.
    closed,
    /// Signed in again after such an end, or after having been away.
    reconnects,
    /// TLS handshakes that ended well, by kind.
    tls_full,
    /// See `tls_full`.
    tls_resumed,
    /// Publishes sent.
    sent,
    /// Messages and Pings of a schedule that were sent; and Pings that wait for the Pong of the one before.
    scheduled,
    /// Messages and Pings of a schedule that were not sent because their sender was not connected, though the load had not taken
    /// it away.
    skipped,
    /// Messages and Pings of a schedule that were not sent because the load had taken their sender away.
    skipped_by_churn,
    /// Clients that were to leave and come back, and were not back from the last time.
    churns_skipped,
    /// Streams that a ring has not come to the end of.
    streams,
    /// Publishes answered with Published.
    accepted,
    /// Publishes answered with Error.
    refused,
    /// Publishes whose connection ended before the answer.
    undecided,
    /// Deliveries that the accepted publishes are to cause.
    owed,
    /// Deliveries that refused and undecided publishes may cause, or not.
    possible,
    /// Different messages that arrived.
    delivered,
    /// Rooms joined.
    subscribed,
    /// Rooms that the gateway let nobody into.
    turned_away,
    /// Pings sent.
    pings,
    /// Of those, the ones that keep a connection alive and are in no schedule.
    heartbeats,
    /// Clients that are still to be asked, at the end, whether their connection is alive.
    last_pings,
    /// Heartbeats whose Pong may still come.
    heartbeats_under_way,
    /// Heartbeats whose Pong did not come in time.
    heartbeats_lost,
    /// Pongs received.
    pongs,
    /// Pings of a schedule or a closed loop whose Pong may still come.
    pings_under_way,
    /// Pings of a schedule or a closed loop whose connection ended before the Pong.
    pings_lost,
    /// Pings of a schedule that are due and not sent yet: they wait for the Pong of the one before.
    pings_waiting,
    /// Microseconds for which driver threads were kept from running, on average.
    stalled_us,
    /// Anything that went wrong.
    errors,
}

impl Tally {
    /// Everything planned was sent or given up, and every publish has its answer, or lost its connection.
    pub(crate) fn is_answered(&self) -> bool {
        self.streams == 0 && self.accepted + self.refused + self.undecided >= self.sent
    }

    /// As [`Self::is_answered`]; and at least as much has arrived as was accepted, and so have Pongs.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_answered() && self.delivered >= self.owed && self.pings_under_way + self.pings_waiting == 0
    }

    /// Whether some of what has arrived may be of publishes that were not accepted, so that something accepted may be missing
    /// though [`Self::is_settled`].
    pub(crate) fn is_unsure(&self) -> bool {
        self.delivered < self.owed + self.possible
    }
}

impl Shared {
    /// A run without connections.
    pub(crate) fn new(plan: Plan, origin: Origin, team: Vec<Mate>) -> Shared {
        Shared {
            prefix: format!("u{:x}-", origin.run & 0xff_ffff),
            origin,
            plan,
            team,
            listed: None,
            stop: AtomicBool::new(false),
            wanted: Default::default(),
            ramp_began_us: AtomicU64::new(u64::MAX),
            orders: Mutex::default(),
            version: AtomicUsize::new(0),
            record: Mutex::default(),
            message_bytes_max: AtomicU32::new(0),
            failed_attempt: Mutex::default(),
            collections: AtomicUsize::new(0),
            handed_over: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// Has clients whose users a file names.
    pub(crate) fn naming(self, listed: Option<Arc<Listed>>) -> Shared {
        Shared { listed, ..self }
    }

    /// How many hand over what was recorded: driver threads, or workers.
    pub(crate) fn hands(&self) -> usize {
        if self.team.is_empty() { self.plan.threads } else { self.team.len() }
    }

    /// Every process that drives clients: its CPU time so far and its driver threads.
    pub(crate) fn drivers(&self) -> Vec<(Duration, usize)> {
        if self.team.is_empty() {
            return vec![(Process::own().cpu(), self.plan.threads)];
        }
        self.team.iter().map(Mate::load).collect()
    }

    /// Live counts.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Wants this many connections from now on: plain, TLS.
    pub(crate) fn want(&self, connections: [usize; 2]) {
        let began_us = self.now_us() + RAMP_LEAD.as_micros() as u64;
        let _ = self.ramp_began_us.compare_exchange(u64::MAX, began_us, Relaxed, Relaxed);
        for (wanted, connections) in self.wanted.iter().zip(connections) {
            wanted.store(connections, Relaxed);
        }
    }

    /// When the ramp plans connect number `index` of a ring, in microseconds since the run's zero; none without a rate.
    pub(crate) fn ramp_us(&self, ring: usize, index: u64) -> Option<u64> {
        Some(self.plan.ramp_us(ring, index)?.saturating_add(self.ramp_began_us.load(Relaxed)))
    }

    /// How many are wanted: plain, TLS.
    pub(crate) fn wanted(&self) -> [usize; 2] {
        [self.wanted[0].load(Relaxed), self.wanted[1].load(Relaxed)]
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

    /// Asks every thread, or worker, for what it has recorded. Done when [`Self::is_collected`] says so.
    pub(crate) fn collect(&self) {
        if let Ok(mut handed_over) = self.handed_over.lock() {
            *handed_over = (handed_over.0 + 1, 0);
            self.collections.store(handed_over.0, std::sync::atomic::Ordering::Release);
        }
    }

    /// Whether each of them has handed over what it had.
    pub(crate) fn is_collected(&self) -> bool {
        self.handed_over.lock().is_ok_and(|handed_over| handed_over.1 >= self.hands())
    }

    /// How often [`Self::collect`] was called: the number of the last round.
    pub(crate) fn collections(&self) -> usize {
        self.collections.load(std::sync::atomic::Ordering::Acquire)
    }

    /// A thread, or worker, has handed over what was asked for in this round. One that answers an earlier round says nothing
    /// about the last.
    pub(crate) fn hand_over(&self, round: usize) {
        if let Ok(mut handed_over) = self.handed_over.lock()
            && handed_over.0 == round
        {
            handed_over.1 += 1;
        }
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

    /// Nanoseconds since the run's zero.
    pub(crate) fn now_ns(&self) -> u64 {
        Instant::now().saturating_duration_since(self.origin.zero).as_nanos() as u64
    }

    /// Microseconds since the run's zero.
    pub(crate) fn now_us(&self) -> u64 {
        self.now_ns() / 1000
    }

    /// An attempt to sign in has failed, and the client tries again.
    pub(crate) fn note_failed_attempt(&self, why: String) {
        if let Ok(mut last) = self.failed_attempt.lock() {
            *last = Some(why);
        }
    }

    /// Why the last one has; none where none has, or where workers have the clients.
    pub(crate) fn failed_attempt(&self) -> Option<String> {
        self.failed_attempt.lock().ok()?.clone()
    }

    /// The gateway has said what the longest payload is that it takes, in bytes.
    pub(crate) fn limit_payloads(&self, bytes_max: u32) {
        if bytes_max > 0 {
            self.message_bytes_max.store(bytes_max, Relaxed);
        }
    }

    /// What it has said; 0 if nothing yet.
    pub(crate) fn message_bytes_max(&self) -> u32 {
        self.message_bytes_max.load(Relaxed)
    }

    /// How many of the wanted connections are this ring's.
    pub(crate) fn share(&self, transport: Transport, ring: usize) -> usize {
        self.plan.share(self.wanted()[transport as usize], ring)
    }

    /// The user id of a client. Where no file names it: another one in each run, so that runs side by side do not take over
    /// each other's sessions.
    pub(crate) fn user(&self, number: u32) -> String {
        if let Some(entry) = self.listed.as_ref().and_then(|listed| listed.entry(number)) {
            return entry.user.to_string();
        }
        format!("{}{number}", self.prefix)
    }

    /// Whether this is the user id of a client; asked for every message, so it makes no text.
    pub(crate) fn is_user(&self, user: &str, number: u32) -> bool {
        match &self.listed {
            Some(listed) => listed.entry(number).is_some_and(|entry| *entry.user == *user),
            None => user.strip_prefix(&*self.prefix).is_some_and(|rest| rest.parse() == Ok(number)),
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
    fn an_earlier_round_is_answered_late_then_the_last_one_is_not_complete() {
        let plan = crate::assignment::tests::plan([1, 0], crate::assignment::Part::ALONE);
        let shared = Shared::new(plan, Origin::after(Duration::ZERO), Vec::new());
        shared.collect();
        let first = shared.collections();
        shared.collect();
        shared.hand_over(first);
        assert!(!shared.is_collected());
        shared.hand_over(shared.collections());
        assert!(shared.is_collected());
    }

    #[test]
    fn changes_of_counts_add_up_also_when_they_fall() {
        let counts = Counts::default();
        let tally = |connections, sent| Tally { connections, sent, ..Tally::default() };
        counts.add_change(Tally::default(), tally(5, 1));
        counts.add_change(tally(5, 1), tally(2, 9));
        assert_eq!(counts.read(), tally(2, 9));
    }
}

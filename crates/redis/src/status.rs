//! What the engine's thread says of itself: read by `/readyz` and the metrics, written by the thread alone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

macro_rules! status {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the engine's thread says of itself. Counts begin at 0 with the process.
        #[derive(Debug, Default)]
        pub struct Status {
            /// Commands are answered, and the newest probe has come back lately, of all masters.
            pub up: AtomicBool,
            /// Some master answers commands, and the newest probe of it has come back lately: true while [`Self::up`] is, and in a Cluster
            /// also while others are away.
            pub serves: AtomicBool,
            /// Another run has this node's number: it must not go on.
            pub number_lost: AtomicBool,
            away: Mutex<String>,
            /// Why Redis stores nothing for now, see [`Status::refuses`].
            pub(crate) refuses: AtomicU8,
            $($(#[$doc])* pub $name: AtomicU64,)*
        }
    };
}

/// Why Redis answers and stores no messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refuses {
    /// It has no memory left (OOM).
    Memory = 1,
    /// It cannot write to its disk (MISCONF).
    Disk = 2,
    /// It has too few replicas (NOREPLICAS).
    Replicas = 3,
}

impl Refuses {
    /// All of them, for metrics.
    pub const ALL: [Refuses; 3] = [Refuses::Memory, Refuses::Disk, Refuses::Replicas];

    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            Refuses::Memory => "memory",
            Refuses::Disk => "disk",
            Refuses::Replicas => "replicas",
        }
    }
}

impl Status {
    /// Why Redis stores no messages, although it answers; none while it does. It is said to store again when it has done so for
    /// three seconds.
    pub fn refuses(&self) -> Option<Refuses> {
        let refuses = self.refuses.load(Ordering::Acquire);
        Refuses::ALL.into_iter().find(|other| *other as u8 == refuses)
    }
}

status! {
    /// From a probe's command to its answer, in microseconds: the newest one, of the slowest master.
    round_trip_us,
    /// From a probe's command until it came over pub/sub, in microseconds: the newest one, of the slowest master.
    probe_us,
    /// Since a probe has last come over pub/sub, in milliseconds: of the master that is silent for longest.
    probe_age_ms,
    /// Commands that wait to be sent.
    buffered,
    /// Events that wait for a shard's mailbox.
    events_waiting,
    /// Hints that were dropped because a shard's mailbox was full for long: their topics are loaded once more.
    dropped,
    /// News and entries that could not be read: of another version, or damaged.
    damaged,
    /// Commands that were sent, those after a retry counted again.
    commands,
    /// Connections for commands that were made after the first.
    reconnects,
    /// Topics that were subscribed to again.
    resubscriptions,
    /// Reads that a home has asked for.
    reads,
    /// Messages of other nodes that arrived.
    arrived,
    /// Topics with interest on this node.
    interest,
    /// Messages that Redis has stored.
    stored,
    /// Messages that it had stored before.
    repeated,
    /// Messages that were refused because Redis was away.
    refused_away,
    /// Messages that were refused because Redis has no memory left (OOM).
    refused_memory,
    /// Messages that were refused because Redis cannot write to its disk (MISCONF).
    refused_disk,
    /// Messages that were refused because Redis has too few replicas (NOREPLICAS), or of which too few had a message in time.
    refused_replicas,
    /// Messages and questions that Redis refused for another reason.
    refused_other,
    /// Messages of which it was not found out in time whether they were stored.
    undecided,
    /// Releases, cursors and relayed messages that were given up.
    given_up,
}

impl Status {
    /// What of Redis is away, for people: masters by their addresses, and how many of the partitions. Empty while nothing is.
    pub fn away(&self) -> String {
        self.away.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(crate) fn set_away(&self, text: String) {
        *self.away.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = text;
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

pub(crate) fn set(cell: &AtomicU64, value: u64) {
    cell.store(value, Ordering::Relaxed);
}

//! Counters, gauges and histograms of one shard: plain cells that the shard alone writes and the admin thread reads.
//!
//! A single writer makes every update a load and a store without a bus lock. Names and units of the exported
//! families are in `admin`; this file only counts.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::close::{AuthError, CloseReason, ErrorCode};

/// A number that one thread changes and any thread reads.
#[derive(Default, Debug)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; for counters, and for gauges going up.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Subtracts; for gauges.
    #[inline]
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// Replaces the value; for gauges that are known whole.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of [`Histogram`] buckets, in microseconds.
pub const HISTOGRAM_BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// Durations in fixed buckets; the last is everything above the last bound.
#[derive(Default, Debug)]
pub struct Histogram {
    buckets: [Cell; HISTOGRAM_BOUNDS_US.len() + 1],
    sum_us: Cell,
}

impl Histogram {
    /// Counts one duration in microseconds.
    pub fn record_us(&self, us: u64) {
        let bucket = HISTOGRAM_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(cell) = self.buckets.get(bucket) {
            cell.increment();
        }
        self.sum_us.add(us);
    }

    /// Counts per bucket (not cumulative), and the sum in microseconds.
    pub fn read(&self) -> ([u64; HISTOGRAM_BOUNDS_US.len() + 1], u64) {
        (core::array::from_fn(|index| self.buckets.get(index).map_or(0, Cell::read)), self.sum_us.read())
    }
}

/// Why a delivery that was owed to a session did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The connection ended with the message in its outbox, or while it lagged behind.
    Closed,
    /// Ephemeral traffic to a full outbox.
    Slow,
    /// The log no longer reached back when a lagging subscriber was to catch up.
    Unrecoverable,
}

impl DropReason {
    /// Every value, for arrays of counters.
    pub const ALL: &'static [DropReason] = &[DropReason::Closed, DropReason::Slow, DropReason::Unrecoverable];

    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            DropReason::Closed => "closed",
            DropReason::Slow => "slow",
            DropReason::Unrecoverable => "unrecoverable",
        }
    }
}

/// Why a message left an inbox log without having been acknowledged by every known device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpireReason {
    /// Older than the inbox's age limit, or than its own ttl.
    Age,
    /// The inbox held as many messages as allowed.
    Count,
    /// Its messages took as many bytes as allowed.
    Size,
    /// Only a device that was forgotten had not read it.
    Device,
    /// Users who have never signed in took too much together.
    Unknown,
}

impl ExpireReason {
    /// Every value, for arrays of counters.
    pub const ALL: &'static [ExpireReason] =
        &[ExpireReason::Age, ExpireReason::Count, ExpireReason::Size, ExpireReason::Device, ExpireReason::Unknown];

    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            ExpireReason::Age => "age",
            ExpireReason::Count => "count",
            ExpireReason::Size => "size",
            ExpireReason::Device => "device",
            ExpireReason::Unknown => "unknown",
        }
    }
}

/// Why a topic was forgotten of which only the position was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgetReason {
    /// Nobody came back in time.
    Age,
    /// There were too many such topics.
    Bound,
}

impl ForgetReason {
    /// Every value, for arrays of counters.
    pub const ALL: &'static [ForgetReason] = &[ForgetReason::Age, ForgetReason::Bound];

    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            ForgetReason::Age => "age",
            ForgetReason::Bound => "bound",
        }
    }
}

/// All figures of one shard.
///
/// Two equations hold at every moment between two events of a shard, and `Shard::invariants` checks them:
/// `deliveries_owed == deliveries_sent + sum(deliveries_dropped) + deliveries_queued + deliveries_deferred` and
/// `inbox_stored == inbox_acked + sum(inbox_expired) + inbox_pending`.
#[derive(Default, Debug)]
pub struct ShardMetrics {
    /// Gauge: connections, signed in or not: plain, TLS.
    pub connections_active: [Cell; 2],
    /// Gauge: signed-in sessions.
    pub sessions_active: Cell,
    /// Accepted connections: plain, TLS.
    pub connections_accepted: [Cell; 2],
    /// Connections refused at accept (limits), never signed in.
    pub connections_refused: Cell,
    /// Closes by `CloseReason::index`, plain and TLS.
    pub closes: [[Cell; CloseReason::ALL.len()]; 2],
    /// Error replies by `ErrorCode::index`.
    pub errors: [Cell; ErrorCode::ALL.len()],
    /// Accepted tokens.
    pub auth_succeeded: Cell,
    /// Refused tokens by `AuthError::ALL`.
    pub auth_failed: [Cell; AuthError::ALL.len()],
    /// Time of one verification.
    pub auth_duration: Histogram,
    /// Frames from clients.
    pub frames_received: Cell,
    /// Frames to clients.
    pub frames_sent: Cell,
    /// Bytes from clients, after TLS.
    pub bytes_received: Cell,
    /// Bytes to clients, before TLS.
    pub bytes_sent: Cell,
    /// Publish requests that were accepted.
    pub messages_published: Cell,
    /// Publishes answered from the dedup window.
    pub dedup_hits: Cell,
    /// Client message ids forgotten because too many came.
    pub dedup_evicted: Cell,
    /// Message x session that is to be delivered.
    pub deliveries_owed: Cell,
    /// Handed to the socket.
    pub deliveries_sent: Cell,
    /// Not delivered, by `DropReason`.
    pub deliveries_dropped: [Cell; DropReason::ALL.len()],
    /// Gauge: in outboxes.
    pub deliveries_queued: Cell,
    /// Gauge: not queued because the subscriber lags; it will catch up from the log.
    pub deliveries_deferred: Cell,
    /// Messages put into inbox logs.
    pub inbox_stored: Cell,
    /// Of those, stored while no device of the user was connected.
    pub inbox_stored_offline: Cell,
    /// Inbox messages acknowledged by every known device.
    pub inbox_acked: Cell,
    /// Inbox messages that left the log otherwise, by `ExpireReason`.
    pub inbox_expired: [Cell; ExpireReason::ALL.len()],
    /// Gauge: inbox messages in logs.
    pub inbox_pending: Cell,
    /// Ack frames.
    pub acks: Cell,
    /// Times that unacknowledged messages were sent again.
    pub retries: Cell,
    /// Messages read from a log for a resuming or lagging subscriber.
    pub messages_replayed: Cell,
    /// Subscribes and Connects with a position: gap brought, gap lost.
    pub recoveries: [Cell; 2],
    /// Outboxes that hit their bound: lagging (will catch up), dropped, closed.
    pub slow_consumers: [Cell; 3],
    /// Gauge: bytes in outboxes.
    pub outbox_bytes: Cell,
    /// From Publish on this shard to the message entering the socket, both on this node.
    pub delivery_duration: Histogram,
    /// From a gateway's Ping to the client's Pong.
    pub ping_pong_duration: Histogram,
    /// Gauge: rooms whose home is here.
    pub rooms: Cell,
    /// Gauge: users whose home is here.
    pub users: Cell,
    /// Gauge: bytes of the heap that logs take.
    pub log_bytes: Cell,
    /// Gauge: what they may take.
    pub log_bytes_limit: Cell,
    /// Gauge: of `log_bytes`, what users take who have never signed in.
    pub inbox_unknown_bytes: Cell,
    /// Gauge: topics of which only the position is kept.
    pub quiet_topics: Cell,
    /// Topics of which not even the position is kept any more, by `ForgetReason`.
    pub topics_forgotten: [Cell; ForgetReason::ALL.len()],
    /// Mesh messages sent.
    pub mesh_sent: Cell,
    /// Pushes that found a mailbox full; nothing is lost, the producer waits.
    pub mesh_full: Cell,
    /// Times that a room's broadcasts waited because most of its members did not keep up.
    pub rooms_rested: Cell,
    /// Join and leave events that were left out because the ways to the members were full.
    pub announcements_dropped: Cell,
    /// Copies for a sender's own devices that were not kept, because memory or the way to the inbox was full.
    pub inbox_copies_dropped: Cell,
    /// Doorbells rung.
    pub mesh_doorbells: Cell,
    /// io_uring_enter calls.
    pub ring_enters: Cell,
    /// Submission entries.
    pub ring_submissions: Cell,
    /// Completion entries.
    pub ring_completions: Cell,
    /// Times the kernel found the completion queue full.
    pub ring_cq_overflows: Cell,
    /// Receives that found no provided buffer.
    pub ring_no_buffers: Cell,
    /// Ends of connections that a look found before the kernel announced them, if it ever did.
    pub ring_missed_ends: Cell,
    /// Multishot receives that ended and were armed again.
    pub ring_rearms: Cell,
    /// Accepts that found no descriptor or slot.
    pub accept_exhausted: Cell,
    /// Gauge: slots in use.
    pub ring_slots_used: Cell,
    /// Turns made, busy or not: two a second at least, while the thread moves.
    pub turns: Cell,
    /// Nanoseconds in which the shard had work.
    pub busy_ns: Cell,
    /// TLS handshakes that ended well: full, resumed.
    pub tls_handshakes: [Cell; 2],
    /// Those after which a connection became compact.
    pub tls_compacted: Cell,
    /// On the first shard only, for the node, and written by the control plane: when the certificate ends, in Unix seconds; 0
    /// without one.
    pub tls_cert_ends: Cell,
    /// How often the configuration was read again: taken, refused. In the first shard's cells only.
    pub config_reloads: [Cell; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_counts_up_and_down_and_is_set_whole() {
        let cell = Cell::default();
        cell.add(5);
        cell.increment();
        cell.subtract(2);
        assert_eq!(cell.read(), 4);
        cell.set(9);
        assert_eq!(cell.read(), 9);
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_reaches_it() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 100, 30_000_000, 30_000_001] {
            histogram.record_us(us);
        }
        let (buckets, sum_us) = histogram.read();
        let mut wanted = [0; HISTOGRAM_BOUNDS_US.len() + 1];
        (wanted[0], wanted[1], wanted[15], wanted[16]) = (2, 2, 1, 1);
        assert_eq!((buckets, sum_us), (wanted, 60_000_202));
    }

    #[test]
    fn reasons_have_the_labels_that_dashboards_know() {
        assert_eq!(
            DropReason::ALL.iter().map(|reason| reason.label()).collect::<Vec<_>>(),
            ["closed", "slow", "unrecoverable"]
        );
        assert_eq!(
            ExpireReason::ALL.iter().map(|reason| reason.label()).collect::<Vec<_>>(),
            ["age", "count", "size", "device", "unknown"]
        );
    }
}

//! Counters, gauges and histograms of one shard: plain cells that the shard alone writes and the admin thread reads.
//!
//! A single writer makes every update a load and a store without a bus lock. Names and units of the exported
//! families are in `admin`; this file only counts.

use core::marker::PhantomData;
use core::ops::Index;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::close::{AuthError, CloseReason, ErrorCode};
use crate::transport::{Handshake, Transport};

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

/// What a figure is counted by: each value has a cell of its own, and is a label of the exported family.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Self::index`].
    const ALL: &'static [Self];
    /// Index into [`Self::ALL`].
    fn index(self) -> usize;
    /// The label's value.
    fn label(self) -> &'static str;
}

/// One `C` for each of the `N` values of `E`, indexed by the value.
#[derive(Debug)]
pub struct By<E, C, const N: usize> {
    cells: [C; N],
    by: PhantomData<E>,
}

/// One cell for each of the `N` values of `E`.
pub type Cells<E, const N: usize> = By<E, Cell, N>;

impl<E: Label, C: Default, const N: usize> Default for By<E, C, N> {
    fn default() -> Self {
        const { assert!(N == E::ALL.len(), "a cell for each value") };
        By { cells: core::array::from_fn(|_| C::default()), by: PhantomData }
    }
}

impl<E: Label, C, const N: usize> Index<E> for By<E, C, N> {
    type Output = C;

    #[inline]
    fn index(&self, value: E) -> &C {
        &self.cells[value.index()]
    }
}

impl<E, C, const N: usize> By<E, C, N> {
    /// Every cell, in the order of [`Label::ALL`].
    pub fn iter(&self) -> core::slice::Iter<'_, C> {
        self.cells.iter()
    }
}

impl<'a, E, C, const N: usize> IntoIterator for &'a By<E, C, N> {
    type Item = &'a C;
    type IntoIter = core::slice::Iter<'a, C>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<E, const N: usize> Cells<E, N> {
    /// What all cells hold together, modulo 2^64.
    pub fn sum(&self) -> u64 {
        self.iter().fold(0, |sum, cell| sum.wrapping_add(cell.read()))
    }
}

impl Label for CloseReason {
    const ALL: &'static [Self] = CloseReason::ALL;

    fn index(self) -> usize {
        CloseReason::index(self)
    }

    fn label(self) -> &'static str {
        CloseReason::label(self)
    }
}

impl Label for ErrorCode {
    const ALL: &'static [Self] = ErrorCode::ALL;

    fn index(self) -> usize {
        ErrorCode::index(self)
    }

    fn label(self) -> &'static str {
        ErrorCode::label(self)
    }
}

/// Enums whose values are numbered from 0 on.
macro_rules! labels {
    ($($name:ident: $all:expr;)*) => {$(
        impl Label for $name {
            const ALL: &'static [Self] = $all;

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            fn label(self) -> &'static str {
                $name::label(self)
            }
        }
    )*};
}

labels! {
    Transport: &Transport::ALL;
    Handshake: &Handshake::ALL;
    AuthError: AuthError::ALL;
    DropReason: DropReason::ALL;
    ExpireReason: ExpireReason::ALL;
    ForgetReason: ForgetReason::ALL;
    Recovery: Recovery::ALL;
    SlowAction: SlowAction::ALL;
    Refusal: Refusal::ALL;
    ReloadOutcome: ReloadOutcome::ALL;
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

/// What became of a position with which a client came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Everything after it was brought.
    Whole,
    /// Something after it is gone.
    Lost,
}

impl Recovery {
    /// Every value, for arrays of counters.
    pub const ALL: &'static [Recovery] = &[Recovery::Whole, Recovery::Lost];

    /// As the client is told.
    pub fn of(recovered: bool) -> Self {
        if recovered { Recovery::Whole } else { Recovery::Lost }
    }

    /// Metric label: whether it was recovered.
    pub fn label(self) -> &'static str {
        match self {
            Recovery::Whole => "true",
            Recovery::Lost => "false",
        }
    }
}

/// What was done about an outbox that was at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowAction {
    /// The session lags, and will catch up from the log.
    Lag,
    /// The message was dropped.
    Drop,
    /// The connection was closed.
    Close,
}

impl SlowAction {
    /// Every value, for arrays of counters.
    pub const ALL: &'static [SlowAction] = &[SlowAction::Lag, SlowAction::Drop, SlowAction::Close];

    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            SlowAction::Lag => "lag",
            SlowAction::Drop => "drop",
            SlowAction::Close => "close",
        }
    }
}

/// Why a connection was refused at accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The shard has a connection in every slot.
    Full,
    /// The node has as many connections as it may.
    Node,
    /// The address has as many connections as it may.
    Address,
    /// Too many connections came in this second.
    Rate,
    /// It came without the header of the PROXY protocol that its listener needs, or from a network that may not write one.
    Proxy,
}

impl Refusal {
    /// Every value, for arrays of counters.
    pub const ALL: &'static [Refusal] =
        &[Refusal::Full, Refusal::Node, Refusal::Address, Refusal::Rate, Refusal::Proxy];

    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::Full => "full",
            Refusal::Node => "node",
            Refusal::Address => "address",
            Refusal::Rate => "rate",
            Refusal::Proxy => "proxy",
        }
    }
}

/// What became of a configuration that was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// It is in force.
    Taken,
    /// It was refused, or not every shard has taken it.
    Refused,
}

impl ReloadOutcome {
    /// Every value, for arrays of counters.
    pub const ALL: &'static [ReloadOutcome] = &[ReloadOutcome::Taken, ReloadOutcome::Refused];

    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            ReloadOutcome::Taken => "ok",
            ReloadOutcome::Refused => "failed",
        }
    }
}

/// All figures of one shard.
///
/// Two equations hold at every moment between two events of a shard, and `Shard::invariants` checks them:
/// `deliveries_owed == deliveries_sent + sum(deliveries_dropped) + deliveries_queued + deliveries_deferred` and
/// `inbox_stored + inbox_loaded == inbox_acked + sum(inbox_expired) + inbox_pending + inbox_unloaded`.
#[derive(Default, Debug)]
pub struct ShardMetrics {
    /// Gauge: connections, signed in or not.
    pub connections_active: Cells<Transport, { Transport::ALL.len() }>,
    /// Gauge: signed-in sessions.
    pub sessions_active: Cell,
    /// Accepted connections.
    pub connections_accepted: Cells<Transport, { Transport::ALL.len() }>,
    /// Connections refused at accept.
    pub connections_refused: Cells<Refusal, { Refusal::ALL.len() }>,
    /// Connections that ended.
    pub closes: By<Transport, Cells<CloseReason, { CloseReason::ALL.len() }>, { Transport::ALL.len() }>,
    /// Requests that were refused.
    pub errors: Cells<ErrorCode, { ErrorCode::ALL.len() }>,
    /// Accepted tokens.
    pub auth_succeeded: Cell,
    /// Refused tokens.
    pub auth_failed: Cells<AuthError, { AuthError::ALL.len() }>,
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
    /// Not delivered.
    pub deliveries_dropped: Cells<DropReason, { DropReason::ALL.len() }>,
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
    /// Inbox messages that left the log otherwise, by why.
    pub inbox_expired: Cells<ExpireReason, { ExpireReason::ALL.len() }>,
    /// Gauge: unread messages of the inboxes in memory; the messages may be in the engine alone.
    pub inbox_pending: Cell,
    /// Messages of inboxes that an engine has loaded.
    pub inbox_loaded: Cell,
    /// Messages of inboxes that an engine keeps and that are not in memory any more.
    pub inbox_unloaded: Cell,
    /// Ack frames.
    pub acks: Cell,
    /// Times that unacknowledged messages were sent again.
    pub retries: Cell,
    /// Messages read from a log for a resuming or lagging subscriber.
    pub messages_replayed: Cell,
    /// Subscribes and Connects with a position.
    pub recoveries: Cells<Recovery, { Recovery::ALL.len() }>,
    /// Outboxes that hit their bound.
    pub slow_consumers: Cells<SlowAction, { SlowAction::ALL.len() }>,
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
    /// Topics of which not even the position is kept any more.
    pub topics_forgotten: Cells<ForgetReason, { ForgetReason::ALL.len() }>,
    /// Mesh messages sent.
    pub mesh_sent: Cell,
    /// Pushes that found a mailbox full; nothing is lost, the producer waits.
    pub mesh_full: Cell,
    /// Times that a room's broadcasts waited because most of its members did not keep up.
    pub rooms_rested: Cell,
    /// Join and leave events that were left out because the ways to the members were full.
    pub announcements_dropped: Cell,
    /// Messages in no log that another node has relayed, and that were left out because the ways to their recipients were full.
    pub relayed_dropped: Cell,
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
    /// Of one turn that had work, without what the kernel does when it is entered.
    pub turn_duration: Histogram,
    /// The shard's thread, as the kernel numbers it; 0 for all but the first shard of a thread.
    pub thread: Cell,
    /// TLS handshakes that ended well.
    pub tls_handshakes: Cells<Handshake, 2>,
    /// Those after which a connection became compact.
    pub tls_compacted: Cell,
    /// On the first shard only, for the node, and written by the control plane: when the certificate ends, in Unix seconds; 0
    /// without one.
    pub tls_cert_ends: Cell,
    /// How often the configuration was read again, in the first shard's cells only.
    pub config_reloads: Cells<ReloadOutcome, 2>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_is_changed_then_it_counts_up_and_down_or_is_set() {
        let cell = Cell::default();
        cell.add(5);
        cell.increment();
        cell.subtract(2);
        assert_eq!(cell.read(), 4);
        cell.set(9);
        assert_eq!(cell.read(), 9);
    }

    #[test]
    fn duration_is_recorded_then_it_is_in_the_first_bucket_that_reaches_it() {
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
    fn value_of_each_enum_then_its_index_is_its_place_among_all() {
        fn check<E: Label + PartialEq + core::fmt::Debug>() {
            for (place, value) in E::ALL.iter().enumerate() {
                assert_eq!(value.index(), place, "{value:?}");
            }
        }
        check::<Transport>();
        check::<Handshake>();
        check::<CloseReason>();
        check::<ErrorCode>();
        check::<AuthError>();
        check::<DropReason>();
        check::<ExpireReason>();
        check::<ForgetReason>();
        check::<Recovery>();
        check::<SlowAction>();
        check::<Refusal>();
        check::<ReloadOutcome>();
    }

    #[test]
    fn cells_by_a_value_then_each_has_its_own() {
        let cells = Cells::<DropReason, 3>::default();
        cells[DropReason::Slow].add(2);
        cells[DropReason::Closed].increment();
        assert_eq!(cells.iter().map(Cell::read).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(cells.sum(), 3);
    }

    #[test]
    fn reason_is_exported_then_its_label_is_the_one_that_dashboards_use() {
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

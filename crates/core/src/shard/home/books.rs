//! What the metrics count of topics: bytes that their messages take, and what became of the messages of inboxes.

use crate::metrics::{ExpireReason, ShardMetrics};
use crate::topics::{Inbox, Room, Trimmed};

/// What a topic's messages take of the heap, as the metrics count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct Books {
    pub(super) bytes: usize,
    /// Of these, what users take who have never signed in.
    pub(super) unknown: usize,
}

impl Books {
    pub(super) fn of_inbox(inbox: &Inbox) -> Self {
        let bytes = inbox.heap_bytes();
        Books { bytes, unknown: if inbox.is_unknown() { bytes } else { 0 } }
    }

    pub(super) fn of_room(room: &Room) -> Self {
        Books { bytes: room.heap_bytes(), unknown: 0 }
    }

    pub(super) fn add(&mut self, other: Books) {
        self.bytes += other.bytes;
        self.unknown += other.unknown;
    }

    /// Replaces these figures of a topic by others.
    pub(super) fn rewrite(self, after: Books, metrics: &ShardMetrics) {
        if self.bytes != after.bytes {
            metrics.log_bytes.add(after.bytes as u64);
            metrics.log_bytes.subtract(self.bytes as u64);
        }
        if self.unknown != after.unknown {
            metrics.inbox_unknown_bytes.add(after.unknown as u64);
            metrics.inbox_unknown_bytes.subtract(self.unknown as u64);
        }
    }
}

/// Messages left an inbox.
pub(super) fn book_trimmed(metrics: &ShardMetrics, trimmed: Trimmed) {
    let Trimmed { age, count, size } = trimmed;
    metrics.inbox_expired[ExpireReason::Age].add(age);
    metrics.inbox_expired[ExpireReason::Count].add(count);
    metrics.inbox_expired[ExpireReason::Size].add(size);
    metrics.inbox_pending.subtract(age + count + size);
}

/// Messages left an inbox because every device had acknowledged them.
pub(super) fn book_acked(metrics: &ShardMetrics, acked: u64) {
    metrics.inbox_acked.add(acked);
    metrics.inbox_pending.subtract(acked);
}

/// Messages left an inbox because only devices that are forgotten now had not read them.
pub(super) fn book_forgotten(metrics: &ShardMetrics, expired: u64) {
    metrics.inbox_expired[ExpireReason::Device].add(expired);
    metrics.inbox_pending.subtract(expired);
}

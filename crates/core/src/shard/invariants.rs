//! What holds between any two events of a shard. Nothing here changes anything.

use super::Shard;
use crate::id::ShardId;

impl Shard {
    /// Left minus right of the two equations of [`ShardMetrics`](crate::metrics::ShardMetrics); both are 0 between events.
    pub fn conservation(&self) -> (i64, i64) {
        let metrics = &self.metrics;
        let deliveries = metrics.deliveries_owed.read() as i64
            - (metrics.deliveries_sent.read()
                + metrics.deliveries_dropped.sum()
                + metrics.deliveries_queued.read()
                + metrics.deliveries_deferred.read()) as i64;
        let came = metrics.inbox_stored.read() + metrics.inbox_loaded.read();
        let left = metrics.inbox_acked.read() + metrics.inbox_expired.sum() + metrics.inbox_unloaded.read();
        let inbox = came as i64 - (left + metrics.inbox_pending.read()) as i64;
        (deliveries, inbox)
    }

    /// Broadcasts posted and not worked off, and requests posted and not answered: both 0 when nothing is in flight. For
    /// tests.
    pub fn under_way(&self) -> (u64, usize) {
        let owed = (0..self.shards).map(|shard| self.ways.owed(ShardId(shard)).deliveries).sum();
        (owed, self.asked)
    }

    /// Panics when any structure of the shard is broken; for tests.
    pub fn invariants(&self) {
        assert_eq!(self.conservation(), (0, 0), "conservation on shard {}", self.id.0);
        self.wheel.invariants();
        self.homes.invariants();
        let (mut queued, mut bytes, mut deferred) = (0, 0, 0);
        for (key, connection) in self.connections.iter() {
            connection.outbox.invariants();
            assert!(
                connection.writable || connection.outbox.is_empty(),
                "the shell does not know of the outbox of {key:?}"
            );
            queued += connection.outbox.frames() as u64;
            bytes += connection.outbox.bytes() as u64;
            if let Some(since_ms) = connection.outbox.stalled_since_ms().filter(|_| !connection.is_closing()) {
                let deadline_ms = since_ms + self.settings.client.write_timeout_ms;
                let watched = self.stalls.filled.contains(&key) || self.stalls.sent.contains(&key);
                assert!(watched || self.wheel.expires_by(key.slot, deadline_ms), "{key:?} has no write deadline");
            }
            assert!(
                connection.outbox.data_bytes() <= self.outbox_limits.bytes_max + self.settings.body_bytes_max(),
                "outbox of {key:?} over its bound"
            );
            deferred += connection.session.as_ref().map_or(0, |session| u64::from(session.inbox.behind));
        }
        deferred += self.rooms.invariants(&self.connections);
        assert_eq!(queued, self.metrics.deliveries_queued.read(), "queued deliveries");
        assert_eq!(bytes, self.metrics.outbox_bytes.read(), "outbox bytes");
        assert_eq!(deferred, self.metrics.deliveries_deferred.read(), "deferred deliveries");
    }
}

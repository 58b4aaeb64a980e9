//! Requests of a session that homes or the verification of a token will answer: how many are in flight, and which of them
//! others have to wait for.

use hashbrown::hash_map::Entry;

use crate::id::ConnectionKey;
use crate::shard::Shard;

/// What the requests in flight that others may have to wait for weigh, when the next request has to: two with large answers,
/// or a Refresh, whose rights the next request is judged by.
pub(super) const WEIGHT_MAX: u8 = 2;
pub(in crate::shard) const WEIGHT_OF_LARGE: u8 = 1;
/// More than all other requests that may be in flight beside it weigh together: [`Shard::is_refreshing`] tells it by that.
pub(super) const WEIGHT_OF_REFRESH: u8 = 2 * WEIGHT_MAX;

impl Shard {
    /// A request of this session has its answer.
    pub(in crate::shard) fn answered(&mut self, key: ConnectionKey) {
        if let Some(session) = self.session_mut(key) {
            session.in_flight = session.in_flight.saturating_sub(1);
        }
    }

    /// A request is in flight that later ones of its connection may have to wait for; see `receive`.
    pub(super) fn begin_heavy(&mut self, key: ConnectionKey, weight: u8) {
        *self.heavy_in_flight.entry(key).or_default() += weight;
    }

    /// Whether the session waits for the answer to a Refresh.
    pub(super) fn is_refreshing(&self, key: ConnectionKey) -> bool {
        self.heavy_in_flight.get(&key).is_some_and(|weight| *weight >= WEIGHT_OF_REFRESH)
    }

    /// Such a request has its answer.
    pub(in crate::shard) fn answered_heavy(&mut self, key: ConnectionKey, weight: u8) {
        self.answered(key);
        if let Entry::Occupied(mut in_flight) = self.heavy_in_flight.entry(key) {
            *in_flight.get_mut() -= weight;
            if *in_flight.get() == 0 {
                in_flight.remove();
            }
        }
        self.wake_parked(key);
    }
}

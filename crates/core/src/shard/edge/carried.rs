//! Overhead of TLS records: headers, padding, tags and empty records count against `bytes_rate` as the bytes of frames do.
//!
//! It belongs to no request. So excess is first answered with one `Error` 111; excess more than [`GRACE_MS`] later closes the
//! connection.

use crate::close::CloseReason;
use crate::id::{ConnectionKey, Now};
use crate::shard::Shard;

/// For this long after the warning, more excess has no effect.
const GRACE_MS: u32 = 1000;

impl Shard {
    /// The records in which bytes of this connection came took so many more.
    pub fn carried(&mut self, key: ConnectionKey, overhead_bytes: usize, now: Now) {
        let limits = &self.settings.client;
        let (rate, burst) = (limits.bytes_rate, limits.bytes_burst);
        let connection = self.connections.get_mut(key).filter(|connection| !connection.is_closing());
        let Some(connection) = connection else { return };
        let bytes = u32::try_from(overhead_bytes).unwrap_or(u32::MAX);
        if connection.bytes.take(bytes, rate, burst, now.mono_ms()) {
            return;
        }
        let since_warning = (now.mono_ms() as u32).wrapping_sub(connection.warned_ms);
        if !connection.is_ready() {
            self.close(key, CloseReason::TooManyRequests, "TLS records over the rate of bytes", now);
        } else if connection.warned_ms == 0 || since_warning > GRACE_MS {
            self.warn_about_rate(key, 0, None, now);
        }
        self.read_own_mail(now);
        self.give_credit_back();
    }
}

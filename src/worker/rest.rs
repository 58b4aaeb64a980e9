//! The end of a busy stretch, such as a ramp of connections or a storm: time to give memory back. What such a stretch leaves
//! in the allocator stays there for good otherwise.

use std::time::{Duration, Instant};

/// Notices it.
pub(super) struct Rest {
    window_began: Instant,
    worked: Duration,
    /// Connections accepted before the window.
    accepted: u64,
    was_busy: bool,
}

/// How long is looked at.
const REST_WINDOW: Duration = Duration::from_millis(500);
/// More work than this in a window, or more new connections, is a busy stretch.
const REST_BUSY: Duration = Duration::from_millis(125);
const REST_ACCEPTED: u64 = 50;

impl Rest {
    pub(super) fn new(now: Instant) -> Self {
        Rest { window_began: now, worked: Duration::ZERO, accepted: 0, was_busy: true }
    }

    /// True when a busy stretch has just ended.
    pub(super) fn after_turn(&mut self, now: Instant, worked: Duration, accepted: u64) -> bool {
        self.worked += worked;
        if now - self.window_began < REST_WINDOW {
            return false;
        }
        let new = accepted - core::mem::replace(&mut self.accepted, accepted);
        let busy = core::mem::take(&mut self.worked) > REST_BUSY || new > REST_ACCEPTED;
        self.window_began = now;
        core::mem::replace(&mut self.was_busy, busy) && !busy
    }
}

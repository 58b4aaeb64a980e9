//! What a thread sleeps on: an eventfd, signalled by the thread's rings for completions and by other threads for letters.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::RingError;
use ringgate_core::mesh::Wake;

/// See the module.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A bell that nobody has rung.
    pub fn new() -> Result<Self, RingError> {
        // Blocking: the ring of a runtime would not wait for a read of another.
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC);
        eventfd.map(Bell).map_err(|error| RingError::of("eventfd", &error.into()))
    }

    /// Sleeps until it rings, at most this long; for threads without a runtime.
    pub fn wait(&self, timeout: Duration) {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        // Interrupted is awake, too.
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0) {
            let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wake for Bell {
    fn wake(&self) {
        // Fails only when the counter is at its maximum, and then the sleeper is awake.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

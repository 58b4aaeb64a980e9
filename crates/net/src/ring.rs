//! The ring: creation with errors that say what to do, submission that never loses an entry, entering the kernel.
#![allow(unsafe_code, reason = "submission entries point at memory that the kernel uses later")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};

use super::Bell;
use crate::kernel;
use ringgate_core::metrics::ShardMetrics;

/// Why there is no ring. Its text names the call and the likely cause.
#[derive(Debug)]
pub struct RingError(String);

impl std::fmt::Display for RingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RingError {}

impl RingError {
    /// The call, the error, and what would help where that is known.
    pub fn of(call: &str, error: &io::Error) -> Self {
        RingError(kernel::explain(call, error))
    }
}

/// One io_uring that rings a bell for completions while its thread sleeps.
pub(super) struct Ring {
    ring: IoUring,
    /// Entries pushed since the last enter.
    unsubmitted: u32,
}

impl Ring {
    /// A ring for the calling thread alone.
    pub(super) fn new(submission_entries: u32, completion_entries: u32, bell: &Bell) -> Result<Self, RingError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completion_entries)
            .build(submission_entries)
            .map_err(|error| RingError::of("io_uring_setup", &error))?;
        ring.submitter()
            .register_eventfd(bell.as_fd().as_raw_fd())
            .map_err(|error| RingError::of("io_uring_register(EVENTFD)", &error))?;
        let mut ring = Ring { ring, unsubmitted: 0 };
        ring.ring_the_bell(false);
        ring.try_out()?;
        Ok(ring)
    }

    /// Has an operation that does nothing made: a ring that was set up may still not be entered, where a seccomp profile
    /// allows the one and not the other.
    fn try_out(&mut self) -> Result<(), RingError> {
        // SAFETY: the entry points at no memory.
        let pushed = unsafe { self.ring.submission().push(&opcode::Nop::new().build()) };
        pushed.map_err(|_| RingError("io_uring: the submission queue has no place".to_owned()))?;
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(RingError::of("io_uring_enter", &error)),
            }
        }
        let completion = self.ring.completion().next();
        completion.map(|_| ()).ok_or_else(|| RingError("io_uring_enter: nothing was completed".to_owned()))
    }

    /// Whether one receive is to take several provided buffers at once.
    pub(super) fn receives_bundles(&self) -> bool {
        self.ring.params().is_feature_recvsend_bundle() && kernel::is_at_least(kernel::RECEIVE_BUNDLES)
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Reserves `slots` direct descriptors.
    pub(super) fn register_slots(&self, slots: u32) -> Result<(), RingError> {
        self.ring.submitter().register_files_sparse(slots).map_err(|error| {
            let call = format!("io_uring_register(FILES2, {slots} direct descriptors)");
            match error.raw_os_error() {
                Some(libc::EMFILE) => RingError(format!(
                    "{call}: {error}; a table may not be larger than the limit of open files: raise it (ulimit -n, \
                     LimitNOFILE=) or lower runtime.connections_per_shard_max"
                )),
                _ => RingError::of(&call, &error),
            }
        })
    }

    /// Puts an ordinary descriptor into a slot of the table.
    pub(super) fn install(&self, slot: u32, fd: RawFd) -> io::Result<()> {
        self.ring.submitter().register_files_update(slot, &[fd]).map(|_| ())
    }

    /// Queues an entry. Its memory must stay where it is until the completion; callers keep it in `Net`.
    pub(super) fn push(&mut self, entry: &squeue::Entry, metrics: &ShardMetrics) {
        metrics.ring_submissions.increment();
        // SAFETY: every entry built in `net` points into memory that `Net` owns until the completion has come.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.enter(metrics);
        }
        self.unsubmitted += 1;
    }

    /// Hands queued entries to the kernel and lets it post completions, without waiting.
    pub(super) fn enter(&mut self, metrics: &ShardMetrics) {
        metrics.ring_enters.increment();
        let flags = EnterFlags::GETEVENTS;
        // SAFETY: no pointer is passed.
        let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(self.unsubmitted, 0, flags.bits(), None) };
        match entered {
            Ok(taken) => self.unsubmitted = self.unsubmitted.saturating_sub(taken as u32),
            // The entries stay queued and the next turn submits them.
            Err(error) => must_pass(&error),
        }
    }

    /// The same, waiting for a completion, at most this long.
    pub(super) fn enter_and_wait(&mut self, timeout: Duration, metrics: &ShardMetrics) {
        metrics.ring_enters.increment();
        let timespec = types::Timespec::from(timeout);
        let args = types::SubmitArgs::new().timespec(&timespec);
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(taken) => self.unsubmitted = self.unsubmitted.saturating_sub(taken as u32),
            Err(error) => {
                must_pass(&error);
                // A timeout says nothing about how many were taken: the queue itself does.
                self.unsubmitted = self.ring.submission().len() as u32;
            }
        }
    }

    /// Copies up to `entries.capacity()` completions out.
    pub(super) fn completions(&mut self, entries: &mut Vec<cqueue::Entry>, metrics: &ShardMetrics) {
        entries.clear();
        let room = entries.capacity();
        entries.extend(self.ring.completion().take(room));
        metrics.ring_completions.add(entries.len() as u64);
        if self.ring.submission().cq_overflow() {
            metrics.ring_cq_overflows.increment();
            self.enter(metrics);
        }
    }

    /// Enters the kernel if there is a reason to: entries to submit, or completions that it holds back until then.
    pub(super) fn enter_if_needed(&mut self, metrics: &ShardMetrics) {
        if self.unsubmitted > 0 || self.ring.submission().taskrun() {
            self.enter(metrics);
        }
    }

    /// Whether completions are posted, or would be by [`Self::enter`].
    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// Has completions ring the bell from now on. False when some are there already, and nobody may sleep.
    pub(super) fn fall_asleep(&mut self, metrics: &ShardMetrics) -> bool {
        self.enter_if_needed(metrics);
        if !self.ring.completion().is_empty() {
            return false;
        }
        self.ring_the_bell(true);
        if cfg!(target_arch = "x86_64") {
            // The kernel first says that it has work, then looks whether the bell is wanted, with a locked
            // instruction between the two. We do the opposite, with this fence between.
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        } else {
            // Elsewhere the kernel promises no order between the two; being in the kernel once more does.
            self.enter(metrics);
        }
        if self.has_completions() {
            self.ring_the_bell(false);
            return false;
        }
        true
    }

    /// Whether completions are to ring the bell: only while the thread sleeps, or is about to.
    pub(super) fn ring_the_bell(&mut self, ring: bool) {
        let completion = self.ring.completion();
        if ring { completion.enable_eventfd() } else { completion.disable_eventfd() }
    }
}

/// Panics where a ring that worked cannot be entered any more: its shard would serve nobody and look alive.
fn must_pass(error: &io::Error) {
    // The time is up, a signal came, completions must be read first, or memory is short for a moment.
    let passes = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN, libc::ENOMEM];
    let passes = error.raw_os_error().is_some_and(|code| passes.contains(&code));
    assert!(passes, "{}", kernel::explain("io_uring_enter", error));
}

//! How many sockets, buffers and descriptors a [`crate::Net`] has.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kernel;

/// Where sockets live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// In the ring's own table: cheaper, and not limited per process. Leaks on kernels before 6.13.
    Direct,
    /// In the process's table.
    Ordinary,
}

impl Descriptors {
    /// Direct where the kernel keeps nothing of them alive that is closed.
    pub fn for_this_kernel() -> Self {
        if kernel::is_at_least(kernel::DIRECT_DESCRIPTORS) { Descriptors::Direct } else { Descriptors::Ordinary }
    }

    /// The limit of open files that so many tables of so many slots need: it bounds each table by itself, or all
    /// descriptors of the process.
    pub fn limit_wanted(self, tables: usize, slots: u32) -> u64 {
        match self {
            Descriptors::Direct => slots.into(),
            Descriptors::Ordinary => u64::from(slots) * tables as u64 + OWN_DESCRIPTORS,
        }
    }
}

/// Descriptors that are not sockets of clients: rings, bells, listeners, files.
const OWN_DESCRIPTORS: u64 = 64;

/// Makes the hard limit of open files the soft one, too, and says what it is now; `u64::MAX` is none.
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    raised.map_or(current, |()| maximum).unwrap_or(u64::MAX)
}

/// Sizes of a [`Net`](crate::Net).
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Most sockets at once.
    pub slots: u32,
    /// Slots beyond these, for accepts in flight and connections that are refused because `slots` are in use. Without any, such
    /// connections wait in the backlog.
    pub spare_slots: u32,
    /// Where they live.
    pub descriptors: Descriptors,
    /// Receive buffers, a power of two up to 32768.
    pub recv_buffers: u16,
    /// Bytes of each.
    pub recv_buffer_bytes: usize,
    /// Accepts in flight per listener.
    pub accepts_in_flight: usize,
    /// From accept to a whole header of the PROXY protocol, where one is needed.
    pub proxy_header_timeout: Duration,
    /// Submission queue entries.
    pub submission_entries: u32,
    /// Completion queue entries.
    pub completion_entries: u32,
}

impl Default for NetOptions {
    fn default() -> Self {
        NetOptions {
            slots: 16_384,
            spare_slots: 0,
            descriptors: Descriptors::for_this_kernel(),
            recv_buffers: 1024,
            recv_buffer_bytes: 4096,
            accepts_in_flight: 32,
            proxy_header_timeout: Duration::from_secs(5),
            submission_entries: 1024,
            completion_entries: 8192,
        }
    }
}

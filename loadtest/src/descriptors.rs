//! The limit of open files: made as high as it may be, and compared with what the clients of this process need.

use ringgate::net::Descriptors;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::assignment::Plan;

/// Descriptors that are not clients' sockets: rings, bells, files that are read and written.
const OWN_DESCRIPTORS: u64 = 64;

/// Whether the clients of a plan can be connected. The error says what would help.
pub(crate) fn check(plan: &Plan) -> Result<(), String> {
    let table = u64::from(plan.slots_per_ring);
    let wanted = match Descriptors::for_this_kernel() {
        // The limit bounds the table of each ring.
        Descriptors::Direct => table,
        Descriptors::Ordinary => table * plan.rings as u64 + OWN_DESCRIPTORS,
    };
    match raise_limit() {
        Some(limit) if limit < wanted => Err(format!(
            "the limit of open files is {limit}, and these connections need {wanted}: raise it (ulimit -n {wanted}, or \
             LimitNOFILE={wanted} for systemd), use fewer connections, or share them among several workers"
        )),
        _ => Ok(()),
    }
}

/// Makes the hard limit the soft one, too; none if there is no limit.
fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

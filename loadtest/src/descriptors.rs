//! The limit of open files: made as high as it may be, and compared with what the clients of this process need.

use ringgate_net::{Descriptors, raise_descriptor_limit};

use crate::assignment::Plan;

/// Whether the clients of a plan can be connected. The error says what would help.
pub(crate) fn check(plan: &Plan) -> Result<(), String> {
    let wanted = Descriptors::for_this_kernel().limit_wanted(plan.rings, plan.slots_per_ring);
    let limit = raise_descriptor_limit();
    if limit < wanted {
        return Err(format!(
            "the limit of open files is {limit}, and these connections need {wanted}: raise it (ulimit -n {wanted}, or \
             LimitNOFILE={wanted} for systemd), use fewer connections, or share them among several workers"
        ));
    }
    Ok(())
}

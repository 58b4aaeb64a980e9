//! Whether this host can give what a configuration asks of it: open files, cores, memory.

use ringgate_net::{Descriptors, raise_descriptor_limit};

use super::Runtime;
use crate::cores::{self, Topology};
use crate::host::Host;
use crate::host::memory::memory_bytes;

/// Checks the table sizes against RLIMIT_NOFILE, after raising the soft limit to the hard one.
pub fn check_descriptors(runtime: &Runtime) -> Result<(), String> {
    let limit = raise_descriptor_limit();
    let (wanted, what) = descriptors_wanted(runtime);
    if wanted > limit {
        return Err(format!(
            "{wanted} {what} are more than the limit of open files, {limit}; raise that (ulimit -n {wanted}, or \
             LimitNOFILE={wanted} for systemd) or lower runtime.connections_per_shard_max"
        ));
    }
    Ok(())
}

/// What of `[runtime]` this host cannot give: keys, and what is wrong. A gateway with such a configuration would not start.
pub fn check_host(runtime: &Runtime) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if let Err(text) = check_descriptors(runtime) {
        problems.push(("runtime.connections_per_shard_max", text));
    }
    if runtime.pin_cores
        && let Err(text) = cores::plan(&Topology::of_this_process(), &runtime.cores, runtime.shard_count())
    {
        let text = text.strip_prefix("runtime.cores ").unwrap_or(&text).to_owned();
        problems.push(("runtime.cores", text));
    }
    let bytes = buffer_bytes(runtime);
    if let Some(memory) = memory_bytes(&Host::new("/")).ok().filter(|memory| bytes > *memory) {
        let text = format!(
            "the receive buffers of {} shards, {} of {} bytes for each, are {bytes} bytes, more than the {memory} bytes of \
             memory that this process may use; lower runtime.recv_buffers or runtime.recv_buffer_size",
            runtime.shard_count(),
            runtime.recv_buffers,
            runtime.recv_buffer_bytes
        );
        problems.push(("runtime.recv_buffers", text));
    }
    problems
}

/// Bytes of the receive buffers of all shards.
fn buffer_bytes(runtime: &Runtime) -> u64 {
    runtime.shard_count() as u64 * u64::from(runtime.recv_buffers) * runtime.recv_buffer_bytes as u64
}

/// The limit of open files that these table sizes need, and what it counts.
pub fn descriptors_wanted(runtime: &Runtime) -> (u64, &'static str) {
    let what = match runtime.descriptors {
        Descriptors::Direct => "slots in one table",
        Descriptors::Ordinary => "descriptors for all shards",
    };
    let slots = runtime.connections_per_shard_max.saturating_add(runtime.spare_slots());
    (runtime.descriptors.limit_wanted(runtime.shard_count(), slots), what)
}

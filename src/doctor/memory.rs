//! Whether the memory suffices, and how the kernel deals with it.

use super::report::{Check, Finding, bytes, count};
use super::target::Target;
use crate::cores::{Topology, distinct, parse_list, show_list};
use crate::host::Host;
use crate::host::memory::{meminfo, memory_bytes};

/// User memory of an idle, signed-in connection over TCP. Source: `tests/memory.rs` and `bench/run`; less than 400 B.
const USER_BYTES_PLAIN: u64 = 400;
/// Over TLS, with rustls' state. Source: `bench/run`; about 4.3 KB.
const USER_BYTES_TLS: u64 = 4400;
/// Over TLS with `tls.memory = "compact"`. Source: `loadtest/memory --tls --tls-memory compact`; 734 B.
const USER_BYTES_TLS_COMPACT: u64 = 800;
/// Kernel memory of a connection's server side with its armed receive. Source: 4.3 to 6 KiB for both ends of a loopback
/// connection on Linux 6.18, half of that here.
const KERNEL_BYTES: u64 = 3 * 1024;
/// Pages are that large on x86-64, and nearly everywhere else.
pub(super) const PAGE_BYTES: u64 = 4096;

const GROUP: &str = "memory";

pub(super) fn check(host: &Host, target: &Target, topology: &Result<Topology, String>) -> Vec<Finding> {
    vec![needed(host, target), huge_pages(host), nodes(host, target, topology)]
}

fn needed(host: &Host, target: &Target) -> Finding {
    let user = match (target.tls, target.compact) {
        (false, _) => USER_BYTES_PLAIN,
        (true, false) => USER_BYTES_TLS,
        (true, true) => USER_BYTES_TLS_COMPACT,
    };
    let runtime = &target.runtime;
    let buffers = target.shards() * u64::from(runtime.recv_buffers) * runtime.recv_buffer_bytes as u64;
    let connections = target.connections.saturating_mul(user + KERNEL_BYTES).saturating_add(buffers);
    let logs = target.shards() * target.log_bytes_per_shard;
    let check = Check::new(
        GROUP,
        "memory",
        format!("{} for idle connections, up to {} more for logs", bytes(connections), bytes(logs)),
        &format!(
            "{} of user and {} of kernel memory for each of {} connections, and the receive buffers; the kernel kills a \
             process that needs more than there is.",
            bytes(user),
            bytes(KERNEL_BYTES),
            count(target.connections)
        ),
    );
    let total = match memory_bytes(host) {
        Ok(total) => total,
        Err(reason) => return check.unknown(reason),
    };
    let available = match meminfo(host, "MemAvailable") {
        Ok(available) => available.min(total),
        Err(reason) => return check.unknown(reason),
    };
    let found = format!("{}, {} of them free", bytes(total), bytes(available));
    if connections > total {
        let fit = total.saturating_sub(buffers) / (user + KERNEL_BYTES);
        check.problem(found, format!("more memory, or --connections {fit} at most on each of several hosts"))
    } else if connections + logs > available {
        check.warning(found, "end what else runs here, or lower log.size_per_shard_max")
    } else {
        check.ok(found)
    }
}

fn huge_pages(host: &Host) -> Finding {
    let why = "With \"always\" the kernel turns small gaps into pages of 2 MiB, which grows the process, and stalls it \
               while it looks for them.";
    let check = Check::new(GROUP, "transparent huge pages", "madvise or never", why);
    let path = "sys/kernel/mm/transparent_hugepage/enabled";
    match host.chosen(path) {
        Err(reason) => check.unknown(reason),
        Ok(chosen) if chosen == "always" => check.warning(chosen, format!("echo madvise > /{path}")),
        Ok(chosen) => check.ok(chosen),
    }
}

fn nodes(host: &Host, target: &Target, topology: &Result<Topology, String>) -> Finding {
    let why =
        "A shard on another node than the network card reaches packets and their memory through the other socket.";
    let check = Check::new(GROUP, "NUMA nodes", "1, or one gateway a node", why);
    let nodes = match host.numbered("sys/devices/system/node", "node").len() {
        0 => return check.unknown("/sys/devices/system/node has no nodes to see"),
        1 => return check.ok("1"),
        several => several,
    };
    let (cores, memory) = (nodes_of_shards(target, topology), nodes_of_memory(host));
    if let ([core], [memory]) = (cores.as_slice(), memory.as_slice())
        && core == memory
    {
        return check.ok(format!("{nodes}, this process on node {core} only"));
    }
    let show = |nodes: &[usize]| if nodes.is_empty() { "unknown".to_owned() } else { show_list(nodes) };
    check.warning(
        format!("{nodes}; shards on {}, memory on {}", show(&cores), show(&memory)),
        "numactl --cpunodebind=N --membind=N ringgate serve ..., N being the node of the network card",
    )
}

/// Nodes of the cores that shards have, or may wander over; none where that is not told of all of them.
fn nodes_of_shards(target: &Target, topology: &Result<Topology, String>) -> Vec<usize> {
    let Ok(topology) = topology else { return Vec::new() };
    let cpus = match target.runtime.pin_cores {
        true => target.plan(topology).unwrap_or_default(),
        false => topology.cpus.iter().map(|cpu| cpu.id).collect(),
    };
    let node_of = |id: &usize| topology.cpus.iter().find(|cpu| cpu.id == *id).and_then(|cpu| cpu.node);
    distinct(cpus.iter().map(node_of).collect::<Option<Vec<usize>>>().unwrap_or_default())
}

/// Nodes that this process may take memory from: those of its policy, which numactl sets and the maps name, or those of
/// its cpuset.
fn nodes_of_memory(host: &Host) -> Vec<usize> {
    let maps = host.read("proc/self/numa_maps").unwrap_or_default();
    let policy = maps.split_whitespace().nth(1).unwrap_or_default();
    let bound = policy.split_once(':').filter(|(mode, _)| mode.starts_with("bind")).map(|(_, nodes)| nodes.to_owned());
    let nodes = bound.or_else(|| host.field("proc/self/status", "Mems_allowed_list").ok());
    nodes.map_or(Vec::new(), |nodes| parse_list(&nodes))
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::cores::{Cores, Cpu};
    use crate::host::tests::FakeHost;

    const MEMORY: (&str, &str) = ("proc/meminfo", "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:  8000000 kB\n");

    fn run(files: &[(&str, &str)], connections: u64, tls: bool) -> Vec<Finding> {
        let mut target = Target::new(Some(connections), tls, Some(2), None);
        target.log_bytes_per_shard = 1 << 30;
        check(&FakeHost::new(files).host, &target, &Err("gone".to_owned()))
    }

    #[test]
    fn memory_is_compared_with_the_target_then_it_fits_or_does_not() {
        let state = |connections, tls| run(&[MEMORY], connections, tls)[0].state;
        // 3 472 bytes each, and logs of 2 GiB.
        assert_eq!(state(1_000_000, false), State::Ok);
        assert_eq!(state(2_000_000, false), State::Warning);
        assert_eq!(state(2_500_000, false), State::Problem);
        // 7 472 bytes each.
        assert_eq!(state(1_000_000, true), State::Warning);
        let mut compact = Target::new(Some(1_000_000), true, Some(2), None);
        compact.compact = true;
        compact.log_bytes_per_shard = 1 << 30;
        // 3 872 bytes each.
        assert_eq!(check(&FakeHost::new(&[MEMORY]).host, &compact, &Err("gone".to_owned()))[0].state, State::Ok);
        let problem = &run(&[MEMORY], 100_000_000, false)[0];
        let fit = ((8u64 << 30) - 2 * 1024 * 4096) / 3472;
        assert!(problem.fix.contains(&format!("--connections {fit} ")), "{problem:?}");
    }

    /// Two nodes of two cores each, the network card on the second.
    fn on_two_nodes(files: &[(&str, &str)], cores: Cores, shards: usize) -> Finding {
        let fake = FakeHost::new(&[
            ("sys/devices/system/node/node0/cpulist", "0-1\n"),
            ("sys/devices/system/node/node1/cpulist", "2-3\n"),
        ]);
        for (path, text) in files {
            fake.set(path, text);
        }
        let cpus = (0..4).map(|id| Cpu { id, core: id, node: Some(id / 2) }).collect();
        let mut target = Target::new(Some(1000), false, Some(shards), None);
        target.runtime.cores = cores;
        nodes(&fake.host, &target, &Ok(Topology { cpus, nic_nodes: vec![1] }))
    }

    #[test]
    fn shards_and_memory_are_on_one_node_or_two_then_good_or_a_finding() {
        let both = ("proc/self/status", "Mems_allowed_list:\t0-1\n");
        let second = ("proc/self/status", "Mems_allowed_list:\t1\n");
        let bound = ("proc/self/numa_maps", "55d0c0000000 bind:1 file=/x\n55d0c0001000 bind:1\n");
        let preferred = ("proc/self/numa_maps", "55d0c0000000 prefer:1 file=/x\n");
        // The card's node first: two shards are on it.
        for files in [&[second][..], &[both, bound]] {
            let finding = on_two_nodes(files, Cores::Auto, 2);
            assert_eq!((finding.state, finding.found.as_str()), (State::Ok, "2, this process on node 1 only"));
        }
        for (files, cores, shards, found) in [
            (&[both][..], Cores::Auto, 2, "2; shards on 1, memory on 0-1"),
            (&[both, preferred], Cores::Auto, 2, "2; shards on 1, memory on 0-1"),
            (&[second], Cores::Auto, 4, "2; shards on 0-1, memory on 1"),
            (&[second], Cores::List(vec![0, 1]), 2, "2; shards on 0, memory on 1"),
            (&[], Cores::Auto, 2, "2; shards on 1, memory on unknown"),
        ] {
            let finding = on_two_nodes(files, cores, shards);
            assert_eq!((finding.state, finding.found.as_str()), (State::Warning, found));
        }
    }

    #[test]
    fn huge_pages_or_several_nodes_then_a_finding() {
        let path = "sys/kernel/mm/transparent_hugepage/enabled";
        let one = ("sys/devices/system/node/node0/cpulist", "0-3\n");
        let good = run(&[MEMORY, (path, "always [madvise] never\n"), one], 1000, false);
        assert_eq!((good[1].state, good[2].state), (State::Ok, State::Ok));
        let two = ("sys/devices/system/node/node1/cpulist", "4-7\n");
        let bad = run(&[MEMORY, (path, "[always] madvise never\n"), one, two], 1000, false);
        assert_eq!((bad[1].state, bad[2].state), (State::Warning, State::Warning));
        assert_eq!(bad[1].fix, format!("echo madvise > /{path}"));
    }

    #[test]
    fn host_tells_nothing_then_unknown() {
        let findings = run(&[], 1000, false);
        assert!(findings.iter().all(|finding| finding.state == State::Unknown), "{findings:?}");
    }
}

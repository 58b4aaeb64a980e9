//! Which core each shard is pinned to.
//!
//! Two hyperthreads share the units of one physical core, so two shards on siblings slow each other down while another
//! core idles: one sibling of each physical core comes first. Memory and interrupts of the network card are near the
//! cores of its NUMA node: among equals, those come first. The plan itself is a pure function of a [`Topology`], which
//! is read from /sys and /proc under any root.

use std::path::Path;

/// `runtime.cores`: which cores shards may have, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// As [`plan`] orders them.
    #[default]
    Auto,
    /// Exactly these, in this order.
    List(Vec<usize>),
}

/// One hardware thread that this process may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// As the kernel numbers it.
    pub id: usize,
    /// The lowest number among the siblings of its physical core, which stands for the core.
    pub core: usize,
    /// Its NUMA node, when the machine tells.
    pub node: Option<usize>,
}

/// What a plan is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Ascending.
    pub cpus: Vec<Cpu>,
    /// NUMA nodes that a network card which is up belongs to.
    pub nic_nodes: Vec<usize>,
}

impl Topology {
    /// What the machine under `root` tells about the cores that this process may use.
    pub fn read(root: &Path) -> Result<Topology, String> {
        let read = |path: &str| {
            std::fs::read_to_string(root.join(path))
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("/{path}: {error}"))
        };
        let status = read("proc/self/status")?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let mut ids = parse_list(allowed.ok_or("/proc/self/status has no line Cpus_allowed_list")?);
        if let Ok(online) = read("sys/devices/system/cpu/online") {
            let online = parse_list(&online);
            ids.retain(|id| online.contains(id));
        }
        let nodes: Vec<(usize, Vec<usize>)> = numbered(&root.join("sys/devices/system/node"), "node")
            .into_iter()
            .filter_map(|node| {
                read(&format!("sys/devices/system/node/node{node}/cpulist")).ok().map(|list| (node, parse_list(&list)))
            })
            .collect();
        let cpus = ids
            .into_iter()
            .map(|id| {
                let siblings = read(&format!("sys/devices/system/cpu/cpu{id}/topology/thread_siblings_list"));
                let core = siblings.ok().and_then(|list| parse_list(&list).first().copied()).unwrap_or(id);
                let node = nodes.iter().find(|(_, cpus)| cpus.contains(&id)).map(|(node, _)| *node);
                Cpu { id, core, node }
            })
            .collect();
        Ok(Topology { cpus, nic_nodes: nic_nodes(root) })
    }

    /// That of this process; where /proc is missing, its cores without their kinship.
    pub fn of_this_process() -> Topology {
        Topology::read(Path::new("/")).unwrap_or_else(|_| {
            let ids = core_affinity::get_core_ids().unwrap_or_default();
            let cpus = ids.iter().map(|core| Cpu { id: core.id, core: core.id, node: None }).collect();
            Topology { cpus, nic_nodes: Vec::new() }
        })
    }
}

/// The core of each shard. More shards than cores share them in turn.
pub fn plan(topology: &Topology, cores: &Cores, shards: usize) -> Result<Vec<usize>, String> {
    let order = match cores {
        Cores::Auto => automatic(topology),
        Cores::List(list) => {
            if let Some(absent) = list.iter().find(|id| topology.cpus.iter().all(|cpu| cpu.id != **id)) {
                let ids: Vec<usize> = topology.cpus.iter().map(|cpu| cpu.id).collect();
                return Err(format!(
                    "runtime.cores names core {absent}, which this process may not use or which is offline; it may \
                     use {}",
                    show_list(&ids)
                ));
            }
            list.clone()
        }
    };
    Ok(order.iter().copied().cycle().take(if order.is_empty() { 0 } else { shards }).collect())
}

fn automatic(topology: &Topology) -> Vec<usize> {
    let rank = |cpu: &Cpu| topology.cpus.iter().filter(|other| other.core == cpu.core && other.id < cpu.id).count();
    let is_far = |cpu: &Cpu| !cpu.node.is_some_and(|node| topology.nic_nodes.contains(&node));
    let mut cpus = topology.cpus.clone();
    cpus.sort_by_key(|cpu| (rank(cpu), is_far(cpu), cpu.node, cpu.id));
    cpus.iter().map(|cpu| cpu.id).collect()
}

/// NUMA nodes of network cards that are up; a device without a node says -1 or nothing.
fn nic_nodes(root: &Path) -> Vec<usize> {
    let Ok(entries) = std::fs::read_dir(root.join("sys/class/net")) else { return Vec::new() };
    distinct(entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let state = std::fs::read_to_string(path.join("operstate")).unwrap_or_default();
        let node = std::fs::read_to_string(path.join("device/numa_node")).ok()?;
        if state.trim() == "down" { None } else { node.trim().parse().ok() }
    }))
}

/// The numbers N of the entries `{prefix}N` of a folder, ascending.
pub(crate) fn numbered(folder: &Path, prefix: &str) -> Vec<usize> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut numbers: Vec<usize> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// The numbers in ascending order, each once.
pub(crate) fn distinct(numbers: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut numbers: Vec<usize> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The numbers of a list as the kernel writes it: "0-3,8".
pub(crate) fn parse_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// The reverse of [`parse_list`], for ascending numbers.
pub(crate) fn show_list(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let show = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cores of two threads each, numbered as Intel does: siblings are `cores` apart.
    fn machine(cores: usize, nodes: usize, nic_nodes: &[usize]) -> Topology {
        let cpu = |id: usize| Cpu { id, core: id % cores, node: Some(id % cores / (cores / nodes)) };
        Topology { cpus: (0..2 * cores).map(cpu).collect(), nic_nodes: nic_nodes.to_vec() }
    }

    #[test]
    fn cores_have_siblings_then_one_of_each_core_comes_first() {
        assert_eq!(plan(&machine(4, 1, &[]), &Cores::Auto, 4), Ok(vec![0, 1, 2, 3]));
        assert_eq!(plan(&machine(4, 1, &[]), &Cores::Auto, 6), Ok(vec![0, 1, 2, 3, 4, 5]));
        // Neighbours are siblings.
        let cpu = |id: usize| Cpu { id, core: id / 2 * 2, node: None };
        let neighbours = Topology { cpus: (0..8).map(cpu).collect(), nic_nodes: Vec::new() };
        assert_eq!(plan(&neighbours, &Cores::Auto, 8), Ok(vec![0, 2, 4, 6, 1, 3, 5, 7]));
    }

    #[test]
    fn network_card_has_a_node_then_its_cores_come_first() {
        assert_eq!(plan(&machine(4, 2, &[1]), &Cores::Auto, 8), Ok(vec![2, 3, 0, 1, 6, 7, 4, 5]));
        assert_eq!(plan(&machine(4, 2, &[0, 1]), &Cores::Auto, 4), Ok(vec![0, 1, 2, 3]));
    }

    #[test]
    fn first_thread_of_a_core_is_forbidden_then_the_second_stands_for_it() {
        let mut topology = machine(2, 1, &[]);
        topology.cpus.remove(0);
        assert_eq!(plan(&topology, &Cores::Auto, 3), Ok(vec![1, 2, 3]));
    }

    #[test]
    fn more_shards_than_cores_then_they_share_them_in_turn() {
        assert_eq!(plan(&machine(1, 1, &[]), &Cores::Auto, 5), Ok(vec![0, 1, 0, 1, 0]));
        assert_eq!(plan(&Topology::default(), &Cores::Auto, 2), Ok(vec![]));
    }

    #[test]
    fn cores_are_listed_then_the_list_is_taken_as_it_is_or_refused() {
        assert_eq!(plan(&machine(4, 1, &[]), &Cores::List(vec![7, 2]), 3), Ok(vec![7, 2, 7]));
        let refused = plan(&machine(4, 1, &[]), &Cores::List(vec![1, 9]), 2).unwrap_err();
        assert!(refused.contains("core 9") && refused.contains("may use 0-7"), "{refused}");
    }

    #[test]
    fn list_of_the_kernel_then_its_ranges_are_read() {
        for (text, numbers) in [("0-3,8", vec![0, 1, 2, 3, 8]), ("5\n", vec![5]), ("", vec![]), ("x,1-y,2", vec![2])] {
            assert_eq!(parse_list(text), numbers, "{text:?}");
        }
        assert_eq!(show_list(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!(show_list(&[]), "");
    }

    #[test]
    fn files_describe_a_machine_then_its_topology_is_read() {
        let root = std::env::temp_dir().join(format!("ringgate-cores-{}", std::process::id()));
        for (path, text) in [
            ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-5\n"),
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,2\n"),
            ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,3\n"),
            ("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "0,2\n"),
            ("sys/devices/system/node/node0/cpulist", "0,2\n"),
            ("sys/devices/system/node/node1/cpulist", "1,3\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/device/numa_node", "1\n"),
            ("sys/class/net/eth1/operstate", "down\n"),
            ("sys/class/net/eth1/device/numa_node", "0\n"),
        ] {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let topology = Topology::read(&root).unwrap();
        let cpu = |id, core, node| Cpu { id, core, node: Some(node) };
        // What core 3 is a sibling of is not told: it counts as a core of its own.
        assert_eq!(topology.cpus, [cpu(0, 0, 0), cpu(1, 1, 1), cpu(2, 0, 0), cpu(3, 3, 1)]);
        assert_eq!(topology.nic_nodes, [1]);
        assert_eq!(plan(&topology, &Cores::Auto, 4), Ok(vec![1, 3, 0, 2]));
        std::fs::remove_dir_all(&root).unwrap();
        assert!(Topology::read(&root).unwrap_err().starts_with("/proc/self/status: "));
    }
}

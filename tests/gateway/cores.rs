//! Shards run where the plan says, as the kernel sees it.

use ringgate::cores::{Cores, Topology, plan};

use crate::support::{LISTENERS, Process};

const KEY: &str = "[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";

/// A gateway in a process of its own, with these settings.
fn gateway_with(runtime: &str) -> Process {
    Process::gateway(&format!(
        "{LISTENERS}{KEY}[admin]\nenabled = false\n[runtime]\nconnections_per_shard_max = 64\n{runtime}"
    ))
}

/// The cores that each thread of shards of a gateway with these settings may run on, in their order.
fn cores_of_threads(runtime: &str) -> Vec<String> {
    let gateway = gateway_with(runtime);
    let mut threads = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap() {
        // Threads that the kernel keeps for a ring come and go; those of shards stay.
        let Ok(status) = std::fs::read_to_string(thread.unwrap().path().join("status")) else { continue };
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            value.trim().to_owned()
        };
        if let Some(thread) = field("Name:").strip_prefix("shards-") {
            threads.push((thread.parse::<usize>().unwrap(), field("Cpus_allowed_list:")));
        }
    }
    threads.sort_unstable();
    threads.into_iter().map(|(_, cores)| cores).collect()
}

fn planned(cores: &Cores, shards: usize) -> Vec<String> {
    let mut planned = plan(&Topology::of_this_process(), cores, shards).unwrap();
    // The shards of a core share a thread.
    let mut seen = std::collections::HashSet::new();
    planned.retain(|core| seen.insert(*core));
    planned.iter().map(usize::to_string).collect()
}

#[test]
fn pin_cores_is_on_then_threads_are_on_the_planned_cores() {
    assert_eq!(cores_of_threads("shards = 3"), planned(&Cores::Auto, 3));
}

#[test]
fn cores_are_listed_then_they_decide_cores_and_shards() {
    let mut list: Vec<usize> = Topology::of_this_process().cpus.iter().map(|cpu| cpu.id).collect();
    list.reverse();
    list.truncate(4);
    assert_eq!(cores_of_threads(&format!("cores = {list:?}")), planned(&Cores::List(list.clone()), list.len()));
}

#[test]
fn pin_cores_is_off_then_threads_may_run_anywhere() {
    let mine = std::fs::read_to_string("/proc/self/status").unwrap();
    let mine = mine.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    let threads = std::thread::available_parallelism().unwrap().get().min(2);
    assert_eq!(cores_of_threads("shards = 2\npin_cores = false\ncores = [0]"), vec![mine; threads]);
}

#[test]
fn huge_pages_is_set_or_not_then_the_kernel_was_told_so() {
    for (runtime, enabled) in [("", "0"), ("huge_pages = true\n", "1")] {
        let gateway = gateway_with(runtime);
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
        let found = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).unwrap().trim().to_owned();
        assert_eq!(found, enabled, "{runtime:?}");
    }
}

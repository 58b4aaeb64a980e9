//! Cores: which shard gets which, how fast they run, how time is told.

use std::fmt::Write;

use super::isolated::Isolated;
use super::nic::all_interrupts;
use super::report::{Check, Finding};
use super::target::Target;
use crate::cores::{Topology, distinct, show_list};
use crate::host::Host;

const GROUP: &str = "cores";

pub(super) fn check(host: &Host, target: &Target, topology: &Result<Topology, String>) -> Vec<Finding> {
    vec![pinning(target, topology), governor(host), clock(host)]
}

fn pinning(target: &Target, topology: &Result<Topology, String>) -> Finding {
    let check = Check::new(
        GROUP,
        "shards to cores",
        "a core for each shard",
        "A shard that shares its core, or wanders, waits for others and leaves its cache behind.",
    );
    let topology = match topology {
        Ok(topology) => topology,
        Err(reason) => return check.unknown(reason),
    };
    let cpus = match target.plan(topology) {
        Ok(cpus) => cpus,
        Err(reason) => {
            return check.problem(
                reason,
                "runtime.cores = \"auto\", or start it with these cores: taskset -c LIST, CPUAffinity= for systemd",
            );
        }
    };
    let different = distinct(cpus.iter().copied());
    let shards = if cpus.len() == 1 { "shard" } else { "shards" };
    let found = format!("{} {shards} on cores {}", cpus.len(), show_list(&different));
    if !target.runtime.pin_cores {
        check.warning("not pinned", "runtime.pin_cores = true")
    } else if different.len() < cpus.len() {
        check.warning(found, format!("runtime.shards = {}, unless tables are limited to less", different.len()))
    } else {
        check.ok(found)
    }
}

fn governor(host: &Host) -> Finding {
    let check = Check::new(
        GROUP,
        "frequency governor",
        "performance",
        "Others let a core slow down between two bursts, and the first messages of each wait for it.",
    );
    let folder = "sys/devices/system/cpu/cpufreq";
    let mut governors: Vec<String> = host
        .numbered(folder, "policy")
        .into_iter()
        .filter_map(|policy| host.read(&format!("{folder}/policy{policy}/scaling_governor")).ok())
        .collect();
    governors.sort();
    governors.dedup();
    match governors.as_slice() {
        [] => check.unknown(format!("/{folder} has no policies: the hypervisor or the firmware decides")),
        [one] if one == "performance" => check.ok("performance"),
        others => check.warning(others.join(", "), "cpupower frequency-set -g performance"),
    }
}

fn clock(host: &Host) -> Finding {
    const SLOW: [&str; 4] = ["acpi_pm", "hpet", "jiffies", "xen"];
    let why = "Every turn reads the clock; these need a system call for that.";
    let check = Check::new(GROUP, "clock source", format!("none of {}", SLOW.join(", ")), why);
    let folder = "sys/devices/system/clocksource/clocksource0";
    match host.read(&format!("{folder}/current_clocksource")) {
        Err(reason) => check.unknown(reason),
        Ok(source) if SLOW.contains(&source.as_str()) => {
            let available = host.read(&format!("{folder}/available_clocksource")).unwrap_or_default();
            let better = available.split_whitespace().find(|other| !SLOW.contains(other));
            let fix = match better {
                Some(better) => format!("echo {better} > /{folder}/current_clocksource"),
                None => "clocksource=tsc on the kernel's command line, if the machine has a steady one".to_owned(),
            };
            check.warning(source, fix)
        }
        Ok(source) => check.ok(source),
    }
}

/// The plan for people: which shards are on each core, whether that is isolated, which queues' interrupts land there, and what
/// stays idle beside it.
pub(super) fn show_plan(host: &Host, target: &Target, topology: &Topology) -> String {
    let Ok(cpus) = target.plan(topology) else { return String::new() };
    let interrupts = all_interrupts(host);
    let isolated = Isolated::read(host).ok();
    let mut out = String::from("\nplan\n");
    let mut shown = Vec::new();
    for &cpu in &cpus {
        if shown.contains(&cpu) {
            continue;
        }
        shown.push(cpu);
        let shards: Vec<usize> = (0..cpus.len()).filter(|shard| cpus.get(*shard) == Some(&cpu)).collect();
        let shards = format!("{} {}", if shards.len() == 1 { "shard" } else { "shards" }, show_list(&shards));
        let node = topology.cpus.iter().find(|other| other.id == cpu).and_then(|cpu| cpu.node);
        let notes = [
            node.map(|node| format!("node {node}")),
            isolated.as_ref().and_then(|isolated| isolated.of(cpu)).map(str::to_owned),
        ];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        let here = interrupts.iter().filter(|interrupt| interrupt.cpus.first() == Some(&cpu));
        let here: Vec<String> = here.map(|interrupt| format!("IRQ {} {}", interrupt.number, interrupt.name)).collect();
        let here = if here.is_empty() { String::new() } else { format!(", with {}", here.join(", ")) };
        // Writing into a String cannot fail.
        let _ = writeln!(out, "  {shards} -> cpu {cpu}{notes}{here}");
    }
    let core_of = |id: usize| topology.cpus.iter().find(|cpu| cpu.id == id).map(|cpu| cpu.core);
    let idle: Vec<usize> = topology.cpus.iter().map(|cpu| cpu.id).filter(|id| !cpus.contains(id)).collect();
    let (siblings, free): (Vec<usize>, Vec<usize>) =
        idle.iter().partition(|id| cpus.iter().any(|cpu| core_of(*cpu) == core_of(**id)));
    let unused = isolated.map_or(Vec::new(), |isolated| isolated.scheduler);
    let unused: Vec<usize> = unused.into_iter().filter(|cpu| !cpus.contains(cpu)).collect();
    for (what, ids) in [
        ("siblings of shards' cores left idle", siblings),
        ("cores left idle", free),
        ("isolated cores without a shard", unused),
    ] {
        if !ids.is_empty() {
            let _ = writeln!(out, "  {what}: {}", show_list(&ids));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::cores::{Cores, Cpu};
    use crate::host::tests::FakeHost;

    fn topology() -> Topology {
        Topology { cpus: (0..8).map(|id| Cpu { id, core: id % 4, node: Some(0) }).collect(), nic_nodes: Vec::new() }
    }

    fn target(shards: usize) -> Target {
        Target::new(Some(1000), false, Some(shards), None)
    }

    fn states(fake: &FakeHost, target: &Target) -> Vec<State> {
        check(&fake.host, target, &Ok(topology())).iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn core_for_each_shard_then_good() {
        let fake = FakeHost::new(&[
            ("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "performance\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
        ]);
        assert_eq!(states(&fake, &target(8)), [State::Ok; 3]);
    }

    #[test]
    fn clock_or_governor_is_slow_then_a_finding() {
        let fake = FakeHost::new(&[
            ("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpufreq/policy1/scaling_governor", "powersave\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
            ("sys/devices/system/clocksource/clocksource0/available_clocksource", "hpet tsc acpi_pm\n"),
        ]);
        let mut target = target(9);
        assert_eq!(states(&fake, &target), [State::Warning; 3]);
        let findings = check(&fake.host, &target, &Ok(topology()));
        assert_eq!(findings[1].found, "performance, powersave");
        assert!(findings[2].fix.starts_with("echo tsc > /sys/"), "{findings:?}");
        target.runtime.cores = Cores::List(vec![1, 64]);
        assert_eq!(states(&fake, &target)[0], State::Problem);
        target.runtime.cores = Cores::Auto;
        target.runtime.pin_cores = false;
        assert_eq!(states(&fake, &target)[0], State::Warning);
    }

    #[test]
    fn host_tells_nothing_then_unknown() {
        let findings = check(&FakeHost::new(&[]).host, &target(2), &Err("gone".to_owned()));
        assert!(findings.iter().all(|finding| finding.state == State::Unknown), "{findings:?}");
    }

    #[test]
    fn plan_is_shown_then_shards_siblings_and_interrupts_are_named() {
        let fake = FakeHost::new(&[
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/device/msi_irqs/38", "\n"),
            ("proc/interrupts", " CPU0 CPU1\n 38: 1 0 PCI-MSIX 1-edge eth0-rx-0\n"),
            ("proc/irq/38/smp_affinity_list", "1\n"),
        ]);
        assert_eq!(
            show_plan(&fake.host, &target(2), &topology()),
            "\nplan\n  shard 0 -> cpu 0 (node 0)\n  shard 1 -> cpu 1 (node 0), with IRQ 38 eth0-rx-0\n  \
             siblings of shards' cores left idle: 4-5\n  cores left idle: 2-3,6-7\n"
        );
    }

    #[test]
    fn plan_has_isolated_cores_then_they_are_shown_and_each_interrupt_once() {
        let fake = FakeHost::new(&[
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/device/msi_irqs/38", "\n"),
            ("proc/interrupts", " CPU0\n 38: 1 PCI-MSIX 1-edge eth0-rx-0\n"),
            ("proc/irq/38/smp_affinity_list", "1\n"),
            ("sys/devices/system/cpu/isolated", "1,9\n"),
            ("sys/devices/system/cpu/nohz_full", "0-1\n"),
        ]);
        let mut target = target(5);
        target.runtime.cores = Cores::List(vec![0, 1]);
        assert_eq!(
            show_plan(&fake.host, &target, &topology()),
            "\nplan\n  shards 0,2,4 -> cpu 0 (node 0, no tick)\n  shards 1,3 -> cpu 1 (node 0, isolated, no tick), with \
             IRQ 38 eth0-rx-0\n  siblings of shards' cores left idle: 4-5\n  cores left idle: 2-3,6-7\n  isolated cores \
             without a shard: 9\n"
        );
    }
}

//! Interrupts of all devices: which cores they land on, and whether they disturb a shard there.
//!
//! What the kernel manages itself (most NVMe queues, one a core) is nobody's to move, so it is never called wrong.

use std::cmp::Reverse;

use super::irq::{Interrupt, all, cores_of};
use super::nic;
use super::report::{Check, Finding};
use super::target::Target;
use crate::cores::{Topology, distinct, parse_list, show_list};
use crate::host::Host;

/// How many are named before the rest is only counted.
const NAMED_MAX: usize = 4;
/// What has fired less often than that since the machine started disturbs nobody: most devices do so when they are set up.
const FIRED_MIN: u64 = 1000;

/// Whether devices other than the network cards' queues interrupt the shards' cores.
pub(super) fn check(host: &Host, target: &Target, topology: &Result<Topology, String>) -> Finding {
    let check = Check::new(
        "cores",
        "interrupts of other devices",
        "none on the shards' cores, where other cores are left",
        "A shard waits while its core works off an interrupt. Those of network cards are the gateway's own work; disks and \
         the like are better served by cores without shards.",
    );
    let topology = match topology {
        Ok(topology) => topology,
        Err(reason) => return check.unknown(reason),
    };
    if !target.runtime.pin_cores {
        return check.unknown("shards are not pinned, and have no cores of their own");
    }
    let Ok(shards) = target.plan(topology) else {
        return check.unknown("there is no plan of the shards' cores");
    };
    let (movable, managed) = match on_cores(host, &shards) {
        Ok(found) => found,
        Err(reason) => return check.unknown(reason),
    };
    let mut elsewhere = match host.read("sys/devices/system/cpu/online") {
        Ok(online) => parse_list(&online),
        Err(_) => topology.cpus.iter().map(|cpu| cpu.id).collect(),
    };
    elsewhere.retain(|cpu| !shards.contains(cpu));
    match (movable.as_slice(), managed.as_slice()) {
        ([], []) => check.ok("none there"),
        ([], managed) => check.ok(format!("only what the kernel places itself: {}", show(managed))),
        (movable, _) if elsewhere.is_empty() => {
            check.ok(format!("{} there, and no other core is left: {}", movable.len(), show(movable)))
        }
        (movable, _) => {
            let numbers: Vec<String> = movable.iter().map(|interrupt| interrupt.number.to_string()).collect();
            let cores = distinct(shards.iter().copied());
            check.warning(
                format!("{} there: {}", movable.len(), show(movable)),
                format!(
                    "tuning/apply --only irq --cores {}, or for N in {}; do echo {} > /proc/irq/$N/smp_affinity_list; \
                     done (older kernels refuse with an error what they place themselves)",
                    show_list(&cores),
                    numbers.join(" "),
                    show_list(&elsewhere)
                ),
            )
        }
    }
}

/// What fires and lands on one of these cores, the busiest first: what may be moved, and what the kernel manages.
fn on_cores(host: &Host, cores: &[usize]) -> Result<(Vec<Interrupt>, Vec<Interrupt>), String> {
    let queues = nic::all_interrupts(host);
    let (mut movable, mut managed) = (Vec::new(), Vec::new());
    let mut interrupts = all(host)?;
    interrupts.sort_by_key(|interrupt| Reverse(interrupt.fired));
    for interrupt in interrupts {
        if interrupt.fired < FIRED_MIN || queues.iter().any(|queue| queue.number == interrupt.number) {
            continue;
        }
        if cores_of(host, interrupt.number)?.iter().any(|cpu| cores.contains(cpu)) {
            // Nobody may write the affinity of a managed interrupt; newer kernels show that by the mode of the file.
            let file = format!("proc/irq/{}/smp_affinity_list", interrupt.number);
            if host.is_read_only(&file) { managed.push(interrupt) } else { movable.push(interrupt) }
        }
    }
    Ok((movable, managed))
}

fn show(interrupts: &[Interrupt]) -> String {
    let named = interrupts.iter().take(NAMED_MAX);
    let mut parts: Vec<String> =
        named.map(|interrupt| format!("IRQ {} {}", interrupt.number, interrupt.name)).collect();
    if interrupts.len() > NAMED_MAX {
        parts.push(format!("{} more", interrupts.len() - NAMED_MAX));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::cores::Cpu;
    use crate::host::tests::FakeHost;

    /// Four cores; a disk with a queue that may be moved (38) and one that may not (39), a network card's queue (40), and
    /// something that hardly ever fires (41).
    fn host() -> FakeHost {
        let fake = FakeHost::new(&[
            (
                "proc/interrupts",
                "      CPU0 CPU1 CPU2 CPU3\n 38: 0 2000 0 0 PCI-MSIX 1-edge nvme0q0\n 39: 0 7000 0 0 PCI-MSIX 2-edge \
                 nvme0q1\n 40: 8000 0 0 0 PCI-MSIX 1-edge eth0-rx-0\n 41: 0 999 0 0 IO-APIC 4-edge ttyS0\nNMI: 1 1 Non-maskable interrupts\n",
            ),
            ("proc/irq/38/smp_affinity_list", "0-3\n"),
            ("proc/irq/38/effective_affinity_list", "1\n"),
            ("proc/irq/39/smp_affinity_list", "1\n"),
            ("proc/irq/40/smp_affinity_list", "0\n"),
            ("proc/irq/41/smp_affinity_list", "0-3\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/device/msi_irqs/40", "\n"),
            ("sys/devices/system/cpu/online", "0-3\n"),
        ]);
        fake.make_read_only("proc/irq/39/smp_affinity_list");
        fake
    }

    fn run(fake: &FakeHost, shards: usize) -> Finding {
        let cpus = (0..4).map(|id| Cpu { id, core: id, node: None }).collect();
        let target = Target::new(Some(1000), false, Some(shards), None);
        check(&fake.host, &target, &Ok(Topology { cpus, nic_nodes: Vec::new() }))
    }

    #[test]
    fn movable_interrupt_on_a_shards_core_then_it_is_named_with_the_command() {
        let finding = run(&host(), 2);
        assert_eq!((finding.state, finding.found.as_str()), (State::Warning, "1 there: IRQ 38 nvme0q0"));
        assert!(finding.fix.starts_with("tuning/apply --only irq --cores 0-1, or for N in 38; do echo 2-3 > "));
    }

    #[test]
    fn no_other_interrupts_on_the_cores_then_good() {
        let fake = host();
        for state in ["up\n", "down\n"] {
            fake.set("sys/class/net/eth0/operstate", state);
            let finding = run(&fake, 1);
            assert_eq!((finding.state, finding.found.as_str()), (State::Ok, "none there"), "card {state}");
        }
        fake.set("proc/irq/38/effective_affinity_list", "3\n");
        let finding = run(&fake, 2);
        assert_eq!(finding.state, State::Ok);
        assert_eq!(finding.found, "only what the kernel places itself: IRQ 39 nvme0q1");
    }

    #[test]
    fn every_core_is_a_shards_then_nothing_is_proposed() {
        let finding = run(&host(), 4);
        assert_eq!(finding.state, State::Ok);
        assert_eq!(finding.found, "1 there, and no other core is left: IRQ 38 nvme0q0");
    }

    #[test]
    fn moved_interrupt_has_not_fired_yet_then_its_new_core_counts() {
        let fake = host();
        let cores = |allowed: &str, effective: &str| {
            fake.set("proc/irq/38/smp_affinity_list", allowed);
            fake.set("proc/irq/38/effective_affinity_list", effective);
            cores_of(&fake.host, 38)
        };
        assert_eq!(cores("0-3\n", "1\n"), Ok(vec![1]));
        assert_eq!(cores("0\n", "1\n"), Ok(vec![0]));
        assert_eq!(cores("2-3\n", "1\n"), Ok(vec![2, 3]));
        assert_eq!(cores("0-3\n", "\n"), Ok(vec![0, 1, 2, 3]));
    }

    #[test]
    fn interrupts_cannot_be_read_then_unknown() {
        let fake = host();
        std::fs::remove_file(fake.host.root().join("proc/irq/38/smp_affinity_list")).unwrap();
        std::fs::remove_file(fake.host.root().join("proc/irq/38/effective_affinity_list")).unwrap();
        let finding = run(&fake, 2);
        assert_eq!(finding.state, State::Unknown);
        assert!(finding.found.contains("/proc/irq/38/smp_affinity_list cannot be read"), "{finding:?}");
    }

    #[test]
    fn many_interrupts_then_the_busiest_are_named_and_the_rest_counted() {
        let fake = host();
        let lines = (50..56).map(|number| format!(" {number}: {number}00 0 0 0 PCI-MSIX 1-edge x{number}\n"));
        fake.set("proc/interrupts", &("  CPU0 CPU1 CPU2 CPU3\n".to_owned() + &lines.collect::<String>()));
        for number in 50..56 {
            fake.set(&format!("proc/irq/{number}/smp_affinity_list"), "0\n");
        }
        let finding = run(&fake, 1);
        assert_eq!(finding.found, "6 there: IRQ 55 x55, IRQ 54 x54, IRQ 53 x53, IRQ 52 x52, 2 more");
    }

    #[test]
    fn line_has_more_numbers_than_cores_then_only_those_of_cores_count() {
        let fake = FakeHost::new(&[("proc/interrupts", "  CPU0 CPU1\n 3: 1 2 4 5-edge x, timer\nLOC: 1 1 Local\n")]);
        assert_eq!(all(&fake.host), Ok(vec![Interrupt { number: 3, name: "timer".to_owned(), fired: 3 }]));
    }
}

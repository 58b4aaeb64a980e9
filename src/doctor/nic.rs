//! Network cards: their queues, and the cores that their interrupts land on.

use std::collections::{HashMap, HashSet};

use super::irq::{self, Interrupt};
use super::report::{Check, Finding};
use crate::cores::{distinct, show_list};
use crate::host::Host;

const GROUP: &str = "network cards";
const NET: &str = "sys/class/net";

/// An interrupt of a queue of a network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueInterrupt {
    pub(super) number: usize,
    /// As /proc/interrupts calls it.
    pub(super) name: String,
    /// Where it lands.
    pub(super) cpus: Vec<usize>,
}

pub(super) fn check(host: &Host, cpus: &[usize], shards: u64) -> Vec<Finding> {
    let mut cards = cards(host);
    cards.retain(|card| has_carrier(host, card));
    if cards.is_empty() {
        let why = "Packets should be received on as many cores as there are shards.";
        let reason = "no device with hardware behind it under /sys/class/net; a container sees only its own";
        let wanted = "as many as shards";
        return vec![Check::new(GROUP, "queues", wanted, why).unknown(reason)];
    }
    cards
        .iter()
        .flat_map(|card| {
            [
                queues(host, card, cpus, shards),
                landing(host, card, (shards as usize).min(cpus.len())),
                transmit(host, card, cpus),
            ]
        })
        .collect()
}

/// Every interrupt of every card's queues, also of a card that is down: tuning/apply deals those out, too.
pub(super) fn all_interrupts(host: &Host) -> Vec<QueueInterrupt> {
    cards(host).iter().flat_map(|card| card_interrupts(host, card).unwrap_or_default()).collect()
}

/// Devices with hardware, or what a hypervisor offers as such, behind them.
fn cards(host: &Host) -> Vec<String> {
    let names = host.names(NET).unwrap_or_default();
    names.into_iter().filter(|name| host.exists(&format!("{NET}/{name}/device"))).collect()
}

fn has_carrier(host: &Host, card: &str) -> bool {
    host.read(&format!("{NET}/{card}/operstate")).is_ok_and(|state| state != "down")
}

fn queues(host: &Host, card: &str, cpus: &[usize], shards: u64) -> Finding {
    let wanted = shards.min(cpus.len() as u64).max(1);
    let check = Check::new(
        GROUP,
        format!("{card}: receive queues"),
        format!("{wanted}, or RPS on"),
        "One queue is worked off by one core; RPS has that core deal packets out to others.",
    );
    let folder = format!("{NET}/{card}/queues");
    let queues = host.numbered(&folder, "rx-");
    if queues.is_empty() {
        return check.unknown(format!("/{folder} has no rx-N"));
    }
    let spread: Result<Vec<bool>, String> = queues
        .iter()
        .map(|queue| host.read(&format!("{folder}/rx-{queue}/rps_cpus")).map(|mask| !is_empty_mask(&mask)))
        .collect();
    let found = queues.len().to_string();
    match spread {
        _ if queues.len() as u64 >= wanted => check.ok(found),
        Err(reason) => check.unknown(format!("{found} queues; {reason}")),
        Ok(spread) if spread.iter().all(|on| *on) => check.ok(format!("{found}, RPS on")),
        Ok(_) => {
            let mask = show_mask(cpus);
            let by_hand = format!("for N in /{folder}/rx-*; do echo {mask} > $N/rps_cpus; done");
            check.warning(
                format!("{found}, RPS off"),
                format!("ethtool -L {card} combined {wanted}; where the card has no more: {by_hand}"),
            )
        }
    }
}

/// `cpus` is the number of cores that shards have.
fn landing(host: &Host, card: &str, cpus: usize) -> Finding {
    let check = Check::new(
        GROUP,
        format!("{card}: interrupts"),
        "spread over the cores",
        "Interrupts that land on one core make that core's shard the slowest.",
    );
    let interrupts = match card_interrupts(host, card) {
        Ok(interrupts) => interrupts,
        Err(reason) => return check.unknown(reason),
    };
    let landed = distinct(interrupts.iter().filter_map(|interrupt| interrupt.cpus.first().copied()));
    let found = format!("{} on cores {}", interrupts.len(), show_list(&landed));
    // With too few cores for all, what receives and what sends of a queue may share one, and some core may get neither.
    let are_apart = interrupts.len() > cpus || landed.len() == interrupts.len();
    match are_apart && kinds_are_spread(&interrupts, cpus) {
        true => check.ok(found),
        false => check.warning(found, "end irqbalance, then tuning/apply --only irq"),
    }
}

/// Whether all that receives, and all that sends, is on as many cores as it can be: where a queue has two interrupts, all
/// cores may be busy while every second one does all of the receiving.
fn kinds_are_spread(interrupts: &[QueueInterrupt], cpus: usize) -> bool {
    // "eth0-rx-3" is of the kind "eth0-rx-", "mlx5_comp3@pci:0000:3b:00.0" of the kind "mlx5_comp".
    let kind = |interrupt: &QueueInterrupt| {
        let name = interrupt.name.split('@').next().unwrap_or_default();
        name.trim_end_matches(|digit: char| digit.is_ascii_digit()).to_owned()
    };
    let mut cores_of: HashMap<String, (usize, HashSet<usize>)> = HashMap::new();
    for interrupt in interrupts {
        let (number, cores) = cores_of.entry(kind(interrupt)).or_default();
        *number += 1;
        cores.extend(interrupt.cpus.first());
    }
    cores_of.values().all(|(number, cores)| cores.len() >= (*number).min(cpus))
}

fn transmit(host: &Host, card: &str, cpus: &[usize]) -> Finding {
    let folder = format!("{NET}/{card}/queues");
    let queues = host.numbered(&folder, "tx-");
    let check = Check::new(
        GROUP,
        format!("{card}: transmit queues (XPS)"),
        if queues.len() == 1 { "nothing else, with one queue" } else { "each with cores of its own" },
        "Cores that share a transmit queue wait for its lock.",
    );
    let masks: Result<Vec<String>, String> =
        queues.iter().map(|queue| host.read(&format!("{folder}/tx-{queue}/xps_cpus"))).collect();
    match (queues.len(), masks) {
        (0, _) => check.unknown(format!("/{folder} has no tx-N")),
        (1, _) => check.ok("1, shared by all cores"),
        (_, Err(reason)) => check.unknown(reason),
        (number, Ok(masks)) if masks.iter().all(|mask| !is_empty_mask(mask)) => check.ok(format!("{number}, XPS on")),
        (number, Ok(_)) => {
            let mask = show_mask(cpus.get(..1).unwrap_or_default());
            let fix = format!("for each queue N a core: echo {mask} > /{folder}/tx-N/xps_cpus");
            check.warning(format!("{number}, XPS off"), fix)
        }
    }
}

/// The interrupts of a card's queues, and not those that only tell of configuration changes and the like.
fn card_interrupts(host: &Host, card: &str) -> Result<Vec<QueueInterrupt>, String> {
    const OTHERS: [&str; 6] = ["config", "event", "async", "control", "misc", "mgmnt"];
    let all = irq::all(host)?;
    let device = format!("{NET}/{card}/device");
    // A virtio device hangs below the PCI device that has the interrupts.
    let numbers =
        host.names(&format!("{device}/msi_irqs")).or_else(|_| host.names(&format!("{device}/../msi_irqs")))?;
    let mut numbers: Vec<usize> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    for number in numbers {
        let Some(Interrupt { name, .. }) = all.iter().find(|interrupt| interrupt.number == number) else { continue };
        if OTHERS.iter().any(|other| name.contains(other)) {
            continue;
        }
        found.push(QueueInterrupt { number, name: name.clone(), cpus: irq::cores_of(host, number)? });
    }
    if found.is_empty() {
        return Err(format!("/proc/interrupts names no interrupt of {card}"));
    }
    Ok(found)
}

/// "00000000,00000000" names no core.
fn is_empty_mask(mask: &str) -> bool {
    mask.chars().all(|digit| matches!(digit, '0' | ','))
}

/// Cores as the kernel reads them from a mask: words of 32 bits, the highest first.
fn show_mask(cpus: &[usize]) -> String {
    let words = cpus.iter().max().map_or(0, |most| most / 32) + 1;
    let word =
        |index: usize| cpus.iter().filter(|cpu| **cpu / 32 == index).fold(0u32, |mask, cpu| mask | 1 << (cpu % 32));
    let highest = format!("{:x}", word(words - 1));
    let rest = (0..words - 1).rev().map(|index| format!(",{:08x}", word(index)));
    std::iter::once(highest).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::host::tests::FakeHost;

    const INTERRUPTS: &str = "           CPU0       CPU1\n 37:  0  1  PCI-MSIX  0-edge  virtio2-config\n \
                              38:  0  9  PCI-MSIX  1-edge  virtio2-input.0\n 39:  7  0  PCI-MSIX  2-edge  virtio2-output.0\n";

    /// Two interrupts of queues, on these cores.
    fn card(cores: [&str; 2], more: &[(&str, &str)]) -> FakeHost {
        let fake = FakeHost::new(&[
            ("sys/class/net/lo/operstate", "unknown\n"),
            ("sys/class/net/eth9/operstate", "down\n"),
            ("sys/class/net/eth9/device/vendor", "\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/device/vendor", "\n"),
            ("sys/class/net/eth0/msi_irqs/37", "\n"),
            ("sys/class/net/eth0/msi_irqs/38", "\n"),
            ("sys/class/net/eth0/msi_irqs/39", "\n"),
            ("proc/interrupts", INTERRUPTS),
            ("proc/irq/38/effective_affinity_list", cores[0]),
            ("proc/irq/38/smp_affinity_list", "0-1\n"),
            ("proc/irq/39/smp_affinity_list", cores[1]),
        ]);
        for (path, text) in more {
            fake.set(&format!("sys/class/net/eth0/queues/{path}"), text);
        }
        fake
    }

    fn states(fake: &FakeHost) -> Vec<State> {
        check(&fake.host, &[0, 1], 2).iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn card_has_queues_for_every_core_then_good() {
        let fake = card(
            ["1\n", "0\n"],
            &[("rx-0/rps_cpus", "0\n"), ("rx-1/rps_cpus", "0\n"), ("tx-0/xps_cpus", "1\n"), ("tx-1/xps_cpus", "2\n")],
        );
        assert_eq!(states(&fake), [State::Ok; 3]);
        let interrupts = all_interrupts(&fake.host);
        let interrupt = |number, name: &str, cpu| QueueInterrupt { number, name: name.to_owned(), cpus: vec![cpu] };
        assert_eq!(interrupts, [interrupt(38, "virtio2-input.0", 1), interrupt(39, "virtio2-output.0", 0)]);
    }

    #[test]
    fn one_queue_with_rps_then_good() {
        let fake = card(["1", "0"], &[("rx-0/rps_cpus", "3\n"), ("tx-0/x", "")]);
        assert_eq!(states(&fake), [State::Ok; 3]);
        let transmit = check(&fake.host, &[0, 1], 2).remove(2);
        assert_eq!(transmit.found, "1, shared by all cores");
        assert_eq!(transmit.wanted, "nothing else, with one queue");
    }

    #[test]
    fn every_interrupt_is_on_one_core_then_a_finding() {
        let fake = card(["1", "1"], &[("rx-0/rps_cpus", "0\n"), ("tx-0/xps_cpus", "0\n"), ("tx-1/xps_cpus", "0\n")]);
        assert_eq!(states(&fake), [State::Warning; 3]);
        let findings = check(&fake.host, &[0, 1], 2);
        assert!(findings[0].fix.contains("ethtool -L eth0 combined 2"), "{findings:?}");
        assert!(
            findings[0].fix.ends_with("for N in /sys/class/net/eth0/queues/rx-*; do echo 3 > $N/rps_cpus; done"),
            "{findings:?}"
        );
        assert_eq!(findings[1].found, "2 on cores 1");
        // Where one core is all that shards have, that is where they belong.
        assert_eq!(check(&fake.host, &[0, 1], 1)[1].state, State::Ok);
    }

    #[test]
    fn all_receive_queues_are_on_one_core_then_a_finding() {
        let named = |names: [&str; 4], cores: [usize; 4]| {
            let interrupt =
                |(name, core): (&str, usize)| QueueInterrupt { number: core, name: name.to_owned(), cpus: vec![core] };
            kinds_are_spread(&names.into_iter().zip(cores).map(interrupt).collect::<Vec<_>>(), 2)
        };
        let pairs = ["virtio2-input.0", "virtio2-output.0", "virtio2-input.1", "virtio2-output.1"];
        assert!(named(pairs, [0, 0, 1, 1]) && !named(pairs, [0, 1, 0, 1]));
        let numbered = ["x0@pci:1", "x1@pci:1", "x2@pci:1", "x3@pci:1"];
        assert!(named(numbered, [0, 1, 0, 1]) && !named(numbered, [1, 1, 1, 1]));
    }

    /// A card with two interrupts a queue, dealt out by tuning/apply.
    #[test]
    fn interrupts_are_as_apply_places_them_then_good() {
        for (pairs, cores) in [(1, 2), (2, 4), (2, 3), (3, 4), (4, 6), (3, 2)] {
            let table = (0..2 * pairs).map(|index| {
                let kind = ["input", "output"][index % 2];
                format!(" {}: 0 PCI-MSIX 1-edge virtio2-{kind}.{}\n", 40 + index, index / 2)
            });
            let fake = FakeHost::new(&[
                ("sys/class/net/eth0/operstate", "up\n"),
                ("sys/class/net/eth0/device/vendor", "\n"),
                ("sys/devices/system/cpu/online", &format!("0-{}\n", cores - 1)),
                ("proc/interrupts", &("  CPU0\n".to_owned() + &table.collect::<String>())),
            ]);
            for number in 40..40 + 2 * pairs {
                fake.set(&format!("sys/class/net/eth0/device/msi_irqs/{number}"), "msix\n");
                fake.set(&format!("proc/irq/{number}/smp_affinity_list"), "0\n");
                // None of them fires in this test, so the kernel leaves that as it is.
                fake.set(&format!("proc/irq/{number}/effective_affinity_list"), "0\n");
            }
            let cpus: Vec<usize> = (0..cores).collect();
            let landing = || check(&fake.host, &cpus, cores as u64).remove(1);
            assert_eq!(landing().state, State::Warning, "{pairs} pairs, {cores} cores");
            let apply = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/apply");
            let mut command = std::process::Command::new(apply);
            let output = command.args(["--only", "irq", "--root"]).arg(fake.host.root()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            assert_eq!(landing().state, State::Ok, "{pairs} pairs, {cores} cores: {}", landing().found);
        }
    }

    #[test]
    fn card_tells_nothing_then_unknown() {
        assert_eq!(states(&FakeHost::new(&[])), [State::Unknown]);
        let bare =
            FakeHost::new(&[("sys/class/net/eth0/operstate", "up\n"), ("sys/class/net/eth0/device/vendor", "\n")]);
        assert_eq!(states(&bare), [State::Unknown; 3]);
    }

    #[test]
    fn mask_of_cores_then_its_cores_are_read() {
        assert_eq!(show_mask(&[0, 1]), "3");
        assert_eq!(show_mask(&[33, 0]), "2,00000001");
        assert_eq!(show_mask(&[]), "0");
        assert!(is_empty_mask("00000000,00000000") && !is_empty_mask("00000000,00000001"));
    }
}

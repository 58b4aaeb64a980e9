//! The interrupts of this host, and the cores that they land on.

use crate::cores::parse_list;
use crate::host::Host;

/// A numbered line of /proc/interrupts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interrupt {
    pub(super) number: usize,
    /// As /proc/interrupts calls it.
    pub(super) name: String,
    /// Since the machine started, on all cores.
    pub(super) fired: u64,
}

/// The interrupts that have a number; those without belong to the cores themselves.
pub(super) fn all(host: &Host) -> Result<Vec<Interrupt>, String> {
    let table = host.read("proc/interrupts")?;
    let mut lines = table.lines();
    let cores = lines.next().unwrap_or_default().split_whitespace().count();
    let interrupt = |line: &str| {
        let mut words = line.split_whitespace();
        let number = words.next()?.strip_suffix(':')?.parse().ok()?;
        let name = words.clone().last()?.to_owned();
        let fired = words.take(cores).map_while(|word| word.parse::<u64>().ok()).sum();
        Some(Interrupt { number, name, fired })
    };
    Ok(lines.filter_map(interrupt).collect())
}

/// The cores that an interrupt lands on: the effective ones where the kernel tells, otherwise those that are allowed. One
/// that was given other cores moves when it fires next, and until then the effective ones are where it does not belong.
pub(super) fn cores_of(host: &Host, number: usize) -> Result<Vec<usize>, String> {
    let cores = |file: &str| host.read(&format!("proc/irq/{number}/{file}")).map(|list| parse_list(&list));
    let effective = cores("effective_affinity_list").unwrap_or_default();
    match cores("smp_affinity_list") {
        Ok(allowed) if effective.is_empty() || effective.iter().any(|cpu| !allowed.contains(cpu)) => Ok(allowed),
        Err(reason) if effective.is_empty() => Err(reason),
        _ => Ok(effective),
    }
}

//! Cores that the kernel keeps free of other work, and whether shards have them.

use super::report::{Check, Finding};
use super::target::Target;
use crate::cores::{Cores, Topology, distinct, parse_list, show_list};
use crate::host::Host;

/// Cores that the kernel keeps free of other work.
pub(super) struct Isolated {
    /// From the scheduler, by isolcpus= or an isolated cpuset.
    pub(super) scheduler: Vec<usize>,
    /// From the tick, by nohz_full=.
    pub(super) tick: Vec<usize>,
}

impl Isolated {
    pub(super) fn read(host: &Host) -> Result<Isolated, String> {
        let folder = "sys/devices/system/cpu";
        let scheduler = parse_list(&host.read(&format!("{folder}/isolated"))?);
        // Many kernels are built without it, and those that have it may say "(null)" where it is not used.
        let tick = host.read(&format!("{folder}/nohz_full")).map_or(Vec::new(), |list| parse_list(&list));
        Ok(Isolated { scheduler, tick })
    }

    pub(super) fn of(&self, cpu: usize) -> Option<&'static str> {
        match (self.scheduler.contains(&cpu), self.tick.contains(&cpu)) {
            (true, true) => Some("isolated, no tick"),
            (true, false) => Some("isolated"),
            (false, true) => Some("no tick"),
            (false, false) => None,
        }
    }
}

/// Whether isolated cores go to waste.
pub(super) fn check(host: &Host, target: &Target, topology: &Result<Topology, String>) -> Finding {
    let check = Check::new(
        "cores",
        "isolated cores",
        "none, or shards on them",
        "The scheduler puts nobody on an isolated core who does not ask for it. Processes start without them, and \
         runtime.cores = \"auto\" takes only what the process may use, so they stay idle unless the process is given them.",
    );
    let isolated = match Isolated::read(host) {
        Ok(isolated) => isolated,
        Err(reason) => return check.unknown(reason),
    };
    if isolated.scheduler.is_empty() {
        return match isolated.tick.as_slice() {
            [] => check.ok("none"),
            tick => check.ok(format!("none; no tick on {}", show_list(tick))),
        };
    }
    let topology = match topology {
        Ok(topology) => topology,
        Err(reason) => return check.unknown(reason),
    };
    let Ok(shards) = target.plan(topology) else {
        return check.unknown("there is no plan of the shards' cores");
    };
    let (inside, outside): (Vec<usize>, Vec<usize>) = shards.iter().partition(|cpu| isolated.scheduler.contains(cpu));
    let found = format!("{}, {} of {} shards on them", show_list(&isolated.scheduler), inside.len(), shards.len());
    let idle: Vec<usize> = isolated.scheduler.iter().copied().filter(|cpu| !inside.contains(cpu)).collect();
    if outside.is_empty() || idle.is_empty() {
        return check.ok(found);
    }
    // With the others left out, shards would share cores, or, where nobody says how many, be fewer.
    if isolated.scheduler.len() < shards.len() {
        return check.ok(format!("{found}: too few for all"));
    }
    // Threads of the gateway that are no shards need a core that the scheduler may put them on.
    let other = topology.cpus.iter().map(|cpu| cpu.id).find(|cpu| !isolated.scheduler.contains(cpu));
    let given = show_list(&distinct(other.into_iter().chain(isolated.scheduler.iter().copied())));
    let list: Vec<String> = isolated.scheduler.iter().map(usize::to_string).collect();
    let forbidden = idle.iter().any(|cpu| topology.cpus.iter().all(|allowed| allowed.id != *cpu));
    let cores = format!("runtime.cores = [{}]", list.join(", "));
    let fix = match forbidden {
        true => format!("{cores}, and taskset -c {given} ringgate serve ... (CPUAffinity={given} for systemd)"),
        false => cores,
    };
    match target.runtime.cores {
        Cores::Auto if inside.is_empty() => check.warning(format!("{found}: \"auto\" leaves them unused"), fix),
        _ => check.warning(found, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::cores::Cpu;
    use crate::host::tests::FakeHost;

    fn topology() -> Topology {
        Topology { cpus: (0..8).map(|id| Cpu { id, core: id, node: None }).collect(), nic_nodes: Vec::new() }
    }

    fn target(shards: usize) -> Target {
        Target::new(Some(1000), false, Some(shards), None)
    }

    fn isolated(list: &str, topology: &Topology, target: &Target) -> Finding {
        let fake = FakeHost::new(&[("sys/devices/system/cpu/isolated", list)]);
        check(&fake.host, target, &Ok(topology.clone()))
    }

    #[test]
    fn auto_leaves_isolated_cores_unused_then_a_finding() {
        // Booted with isolcpus=6-7, processes start with the others.
        let mut without = topology();
        without.cpus.truncate(6);
        let finding = isolated("6-7\n", &without, &target(2));
        assert_eq!(finding.state, State::Warning);
        assert_eq!(finding.found, "6-7, 0 of 2 shards on them: \"auto\" leaves them unused");
        assert!(finding.fix.starts_with("runtime.cores = [6, 7], and taskset -c 0,6-7 ringgate serve"), "{finding:?}");
        // Given them, but with others before them in the plan.
        let finding = isolated("6-7\n", &topology(), &target(2));
        assert_eq!((finding.state, finding.fix.as_str()), (State::Warning, "runtime.cores = [6, 7]"));
    }

    #[test]
    fn shards_are_on_the_isolated_cores_or_only_some_then_good_or_a_warning() {
        let mut target = target(2);
        assert_eq!(isolated("", &topology(), &target).found, "none");
        target.runtime.cores = Cores::List(vec![6, 7]);
        let finding = isolated("6-7\n", &topology(), &target);
        assert_eq!((finding.state, finding.found.as_str()), (State::Ok, "6-7, 2 of 2 shards on them"));
        target.runtime.cores = Cores::List(vec![5, 6]);
        let finding = isolated("6-7\n", &topology(), &target);
        assert_eq!((finding.state, finding.found.as_str()), (State::Warning, "6-7, 1 of 2 shards on them"));
    }

    #[test]
    fn fewer_isolated_cores_than_shards_then_they_are_left_to_others() {
        let mut without = topology();
        without.cpus.truncate(7);
        let finding = isolated("7\n", &without, &target(7));
        assert_eq!((finding.state, finding.found.as_str()), (State::Ok, "7, 0 of 7 shards on them: too few for all"));
        assert_eq!(isolated("6-7\n", &topology(), &target(3)).state, State::Ok);
    }

    #[test]
    fn core_has_no_tick_then_it_is_not_isolated_for_that() {
        let fake =
            FakeHost::new(&[("sys/devices/system/cpu/isolated", "\n"), ("sys/devices/system/cpu/nohz_full", "3\n")]);
        let run = || check(&fake.host, &target(2), &Ok(topology())).found;
        assert_eq!(run(), "none; no tick on 3");
        // What a kernel says that has the setting and does not use it.
        fake.set("sys/devices/system/cpu/nohz_full", "(null)\n");
        assert_eq!(run(), "none");
    }
}

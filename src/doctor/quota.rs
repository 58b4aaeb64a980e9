//! CPU quotas: how much time of its cores the control groups around this process leave it.

use super::report::{Check, Finding};
use super::target::Target;
use crate::cores::{Topology, distinct};
use crate::host::Host;
use crate::host::groups;

/// Time that a group may use in each period, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quota {
    quota_us: u64,
    period_us: u64,
}

impl Quota {
    /// Hundredths of cores.
    fn hundredths(self) -> u64 {
        self.quota_us.saturating_mul(100) / self.period_us.max(1)
    }
}

/// Whether shards that all have work would be stopped.
pub(super) fn check(host: &Host, target: &Target, topology: &Result<Topology, String>) -> Finding {
    let cores = topology.as_ref().ok().and_then(|topology| target.plan(topology).ok());
    let threads = match cores.filter(|_| target.runtime.pin_cores) {
        Some(cores) => distinct(cores).len() as u64,
        None => target.shards(),
    };
    let cores = if threads == 1 { "1 core".to_owned() } else { format!("{threads} cores") };
    let check = Check::new(
        "cores",
        "CPU quota",
        format!("none, or at least {cores} for the shards"),
        "A control group that has used its quota stands still until the next period begins, whatever core a shard is pinned \
         to: everybody's messages wait that long.",
    );
    let quota = match smallest(host) {
        Ok(Some(quota)) => quota,
        Ok(None) => return check.ok("none"),
        Err(reason) => return check.unknown(reason),
    };
    let (whole, part) = (quota.hundredths() / 100, quota.hundredths() % 100);
    let Quota { quota_us, period_us } = quota;
    let found = format!("{whole}.{part:02} cores ({quota_us} us of CPU time in each {period_us} us)");
    if quota.hundredths() < threads * 100 {
        let fit = whole.max(1);
        let fewer = if fit < threads { format!("runtime.shards = {fit}, or ") } else { String::new() };
        let fix = format!(
            "{fewer}a quota of {cores} or none: CPUQuota={}% or CPUQuota= for systemd, --cpus {threads} for docker, \
             limits.cpu for Kubernetes",
            threads * 100
        );
        check.warning(found, fix)
    } else {
        check.ok(found)
    }
}

/// The tightest quota of this process's group and of those around it. A group without a file has none of its own.
fn smallest(host: &Host) -> Result<Option<Quota>, String> {
    let mut smallest: Option<Quota> = None;
    for group in groups::of_this_process(host, "cpu")? {
        let folder = &group.folder;
        let quota = if group.unified {
            match host.read(&format!("{folder}/cpu.max")) {
                Ok(text) => of_version_2(&text).ok_or_else(|| format!("/{folder}/cpu.max holds {text:?}"))?,
                Err(_) => None,
            }
        } else {
            let quota = host.number::<i64>(&format!("{folder}/cpu.cfs_quota_us")).ok();
            let period = host.number::<u64>(&format!("{folder}/cpu.cfs_period_us")).ok();
            // -1 for none.
            let quota = quota.and_then(|quota| u64::try_from(quota).ok());
            quota.zip(period).map(|(quota_us, period_us)| Quota { quota_us, period_us })
        };
        smallest = match (smallest, quota) {
            (Some(one), Some(other)) if other.hundredths() < one.hundredths() => Some(other),
            (one, other) => one.or(other),
        };
    }
    Ok(smallest)
}

/// `max 100000`, or a number instead of `max`. None where it is something else.
fn of_version_2(text: &str) -> Option<Option<Quota>> {
    let (quota, period) = text.split_once(' ')?;
    let period_us = period.parse().ok()?;
    match quota {
        "max" => Some(None),
        quota => Some(Some(Quota { quota_us: quota.parse().ok()?, period_us })),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::cores::{Cores, Cpu};
    use crate::host::tests::FakeHost;

    fn run(files: &[(&str, &str)], shards: usize) -> Finding {
        let cpus = (0..4).map(|id| Cpu { id, core: id, node: None }).collect();
        let target = Target::new(Some(1000), false, Some(shards), None);
        check(&FakeHost::new(files).host, &target, &Ok(Topology { cpus, nic_nodes: Vec::new() }))
    }

    const GROUP: (&str, &str) = ("proc/self/cgroup", "0::/system.slice/gate.service\n");
    const INNER: &str = "sys/fs/cgroup/system.slice/gate.service/cpu.max";
    const OUTER: &str = "sys/fs/cgroup/system.slice/cpu.max";

    #[test]
    fn quota_is_smaller_than_the_shards_cores_then_it_is_named_with_what_to_do() {
        let finding = run(&[GROUP, (INNER, "250000 100000\n")], 4);
        assert_eq!(finding.state, State::Warning);
        assert_eq!(finding.found, "2.50 cores (250000 us of CPU time in each 100000 us)");
        assert_eq!(finding.wanted, "none, or at least 4 cores for the shards");
        assert!(
            finding.fix.starts_with("runtime.shards = 2, or a quota of 4 cores or none: CPUQuota=400% "),
            "{finding:?}"
        );
        // Less than one core: no number of shards fits.
        let finding = run(&[GROUP, (INNER, "50000 100000\n")], 1);
        assert_eq!((finding.state, finding.found.starts_with("0.50 cores ")), (State::Warning, true));
        assert!(finding.fix.starts_with("a quota of 1 core or none: CPUQuota=100% "), "{finding:?}");
    }

    #[test]
    fn quota_covers_the_shards_or_there_is_none_then_it_is_good() {
        for (files, shards, found) in [
            (&[GROUP, (INNER, "250000 100000\n")][..], 2, "2.50 cores (250000 us of CPU time in each 100000 us)"),
            (&[GROUP, (INNER, "max 100000\n"), (OUTER, "max 100000\n")], 4, "none"),
            // The root of the tree has no file.
            (&[("proc/self/cgroup", "0::/\n")], 4, "none"),
            (
                &[
                    ("proc/self/cgroup", "4:cpu,cpuacct:/x\n"),
                    ("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n"),
                    ("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"),
                ],
                4,
                "none",
            ),
        ] {
            let finding = run(files, shards);
            assert_eq!((finding.state, finding.found.as_str()), (State::Ok, found), "{files:?}");
        }
    }

    #[test]
    fn group_around_it_has_less_then_that_counts() {
        let finding = run(&[GROUP, (INNER, "400000 100000\n"), (OUTER, "30000 20000\n")], 4);
        assert_eq!(finding.found, "1.50 cores (30000 us of CPU time in each 20000 us)");
        let finding = run(&[GROUP, (INNER, "max 100000\n"), (OUTER, "100000 100000\n")], 4);
        assert_eq!((finding.state, finding.found.starts_with("1.00 cores ")), (State::Warning, true));
    }

    #[test]
    fn control_groups_are_version_1_then_both_files_are_read_in_a_folder_of_either_name() {
        for mount in ["cpu", "cpu,cpuacct"] {
            let (quota, period) = (
                format!("sys/fs/cgroup/{mount}/x/cpu.cfs_quota_us"),
                format!("sys/fs/cgroup/{mount}/x/cpu.cfs_period_us"),
            );
            let groups = ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,cpuacct:/x\n0::/\n");
            let finding = run(&[groups, (&quota, "100000\n"), (&period, "50000\n")], 3);
            assert_eq!(
                (finding.state, finding.found.starts_with("2.00 cores ")),
                (State::Warning, true),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn several_shards_share_a_core_then_the_core_is_counted_once() {
        let fake = FakeHost::new(&[GROUP, (INNER, "200000 100000\n")]);
        let cpus = (0..4).map(|id| Cpu { id, core: id, node: None }).collect();
        let topology = Ok(Topology { cpus, nic_nodes: Vec::new() });
        let mut target = Target::new(Some(1000), false, Some(8), None);
        target.runtime.cores = Cores::List(vec![0, 1]);
        assert_eq!(check(&fake.host, &target, &topology).state, State::Ok);
        target.runtime.pin_cores = false;
        assert_eq!(check(&fake.host, &target, &topology).state, State::Warning);
    }

    #[test]
    fn quota_cannot_be_read_then_it_is_unknown() {
        assert_eq!(run(&[], 2).state, State::Unknown);
        let finding = run(&[GROUP, (INNER, "lots\n")], 2);
        assert_eq!(
            (finding.state, finding.found.contains("cpu.max holds \"lots\"")),
            (State::Unknown, true),
            "{finding:?}"
        );
    }
}

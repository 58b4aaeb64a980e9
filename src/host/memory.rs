//! The memory that this process may use.

use super::{Host, groups};

/// What this process may use: the machine's memory, or less in a control group.
pub(crate) fn memory_bytes(host: &Host) -> Result<u64, String> {
    let total = meminfo(host, "MemTotal")?;
    Ok(group_limit(host).map_or(total, |limit| total.min(limit)))
}

/// A line of /proc/meminfo, in bytes.
pub(crate) fn meminfo(host: &Host, name: &str) -> Result<u64, String> {
    let text = host.field("proc/meminfo", name)?;
    let kibibytes: Option<u64> = text.strip_suffix("kB").and_then(|number| number.trim().parse().ok());
    kibibytes.map(|number| number * 1024).ok_or_else(|| format!("/proc/meminfo says {name}: {text:?}"))
}

/// The smallest limit of this process's control group and of those around it. A group without a file has no limit of its own.
fn group_limit(host: &Host) -> Option<u64> {
    let limit = |group: groups::Group| {
        let file = if group.unified { "memory.max" } else { "memory.limit_in_bytes" };
        host.number::<u64>(&format!("{}/{file}", group.folder)).ok()
    };
    groups::of_this_process(host, "memory").ok()?.into_iter().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::super::tests::FakeHost;
    use super::*;

    const MEMORY: (&str, &str) = ("proc/meminfo", "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:  8000000 kB\n");

    #[test]
    fn control_group_allows_less_than_the_machine_has_then_that_counts() {
        let fake =
            FakeHost::new(&[MEMORY, ("proc/self/cgroup", "0::/a/b\n"), ("sys/fs/cgroup/a/b/memory.max", "max\n")]);
        assert_eq!(memory_bytes(&fake.host), Ok(8 << 30));
        fake.set("sys/fs/cgroup/a/b/memory.max", "1048576\n");
        assert_eq!(memory_bytes(&fake.host), Ok(1 << 20));
        fake.set("proc/self/cgroup", "9:name=systemd:/\n4:memory,cpu:/x\n0::/\n");
        fake.set("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2097152\n");
        assert_eq!(memory_bytes(&fake.host), Ok(2 << 20));
    }

    #[test]
    fn group_around_the_own_allows_less_then_that_counts() {
        let fake = FakeHost::new(&[
            MEMORY,
            ("proc/self/cgroup", "0::/system.slice/gate.service\n"),
            ("sys/fs/cgroup/system.slice/gate.service/memory.max", "3221225472\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
        ]);
        assert_eq!(memory_bytes(&fake.host), Ok(1 << 30));
        fake.set("sys/fs/cgroup/system.slice/gate.service/memory.max", "max\n");
        assert_eq!(memory_bytes(&fake.host), Ok(1 << 30));
        fake.set("sys/fs/cgroup/system.slice/memory.max", "max\n");
        assert_eq!(memory_bytes(&fake.host), Ok(8 << 30));
        // The root of a container's own view; and version 1, whose path may be that of the host.
        fake.set("sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(memory_bytes(&fake.host), Ok(512 << 20));
        fake.set("proc/self/cgroup", "4:memory:/docker/x\n");
        fake.set("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
        assert_eq!(memory_bytes(&fake.host), Ok(256 << 20));
    }
}

//! How many descriptors, files and locked pages the process and the system allow.

use super::report::{Check, Finding, State, bytes, count};
use super::target::Target;
use crate::config::Runtime;
use crate::config::fit::descriptors_wanted;
use crate::host::Host;
use ringgate_core::limits::SHARDS_MAX;
use ringgate_net::Descriptors;

/// Files that the rest of the system has open.
const OTHER_FILES: u64 = 10_000;
/// What the rings of a shard count against RLIMIT_MEMLOCK, beside 16 bytes for each receive buffer. Found on 6.18 as
/// an ordinary user: a shard with 1024 buffers does not start with 128 KiB and does with 256 KiB.
const LOCKED_BYTES_PER_SHARD: u64 = 240 * 1024;
/// CAP_IPC_LOCK: locked memory is not counted.
const CAP_IPC_LOCK: u32 = 14;

const GROUP: &str = "limits";

pub(super) fn check(host: &Host, target: &Target) -> Vec<Finding> {
    let (descriptors, what) = descriptors_wanted(&target.runtime);
    let tuned = Tuned::to_hold(target, descriptors);
    vec![
        open_files(host, target, descriptors, what, &tuned),
        most_open_files(host, descriptors, &tuned),
        files_of_the_system(host, target),
        locked_memory(host, target),
    ]
}

/// What tuning/apply is to be asked for, and the limit of open files that it writes then.
struct Tuned {
    connections: u64,
    limit: u64,
}

impl Tuned {
    /// A configuration may have larger tables than the target takes; then as much as they need.
    fn to_hold(target: &Target, descriptors: u64) -> Tuned {
        let tuned = |connections| Tuned { connections, limit: tuned_limit(connections, target.shards()) };
        let for_the_target = tuned(target.connections);
        if for_the_target.limit >= descriptors { for_the_target } else { tuned(descriptors) }
    }
}

/// As open_files in tuning/settings.bash: enough for descriptors of both kinds, for tables that leave room for an uneven
/// deal, and for those of a gateway that nobody has configured.
fn tuned_limit(connections: u64, shards: u64) -> u64 {
    let uneven = connections + connections / 8 + 100 * shards;
    let unconfigured = u64::from(Runtime::default().connections_per_shard_max) * shards;
    uneven.max(unconfigured) + OTHER_FILES
}

/// With less than these descriptors the gateway does not start; between them and what tuning/apply writes it does.
fn weight(found: &Result<u64, String>, descriptors: u64) -> State {
    match found {
        Ok(found) if *found >= descriptors => State::Warning,
        _ => State::Problem,
    }
}

fn open_files(host: &Host, target: &Target, descriptors: u64, what: &str, tuned: &Tuned) -> Finding {
    let wanted = tuned.limit;
    let check = Check::new(
        GROUP,
        "open files (hard limit)",
        format!("at least {}: {} {what}, and room", count(wanted), count(descriptors)),
        "RLIMIT_NOFILE bounds the descriptors of the process and the size of each ring's own table; the gateway raises \
         its soft limit to the hard one by itself.",
    );
    let limit = host.limit("Max open files").map(|limit| limit.hard);
    let too_low = limit.as_ref().ok().filter(|limit| **limit < descriptors);
    let within = too_low.and_then(|limit| smaller_tables(target, *limit));
    let fix = format!(
        "tuning/apply --connections {} --shards {} (LimitNOFILE={wanted} for systemd), or as root: ulimit -Hn {wanted}{}",
        tuned.connections,
        target.shards(),
        within.map_or(String::new(), |within| format!("; or within this limit {within}"))
    );
    let weight = weight(&limit, descriptors);
    check.at_least(limit, wanted, weight, fix)
}

/// The settings that hold the target in more tables, each within the limit. The limit bounds each ring's table and not
/// their sum, and shards that share a core share its thread; ordinary descriptors are all in one table.
fn smaller_tables(target: &Target, limit: u64) -> Option<String> {
    if target.runtime.descriptors == Descriptors::Ordinary {
        return None;
    }
    let fits = |shards: &u64| target.table_of(*shards) + u64::from(target.runtime.spare_slots()) <= limit;
    let shards = (target.shards()..=SHARDS_MAX as u64).find(fits)?;
    Some(format!("runtime.shards = {shards}, runtime.connections_per_shard_max = {}", target.table_of(shards)))
}

fn most_open_files(host: &Host, descriptors: u64, tuned: &Tuned) -> Finding {
    let wanted = tuned.limit.next_multiple_of(1 << 20);
    let why = "The limit of open files cannot be raised beyond it.";
    let check = Check::new(GROUP, "fs.nr_open", format!("at least {}", count(wanted)), why);
    let found = host.number("proc/sys/fs/nr_open");
    let weight = weight(&found, descriptors);
    check.at_least(found, wanted, weight, format!("sysctl -w fs.nr_open={wanted}"))
}

fn files_of_the_system(host: &Host, target: &Target) -> Finding {
    let wanted = target.connections + OTHER_FILES;
    let why = "Every socket is a file of the kernel, also where it has no ordinary descriptor.";
    let check = Check::new(GROUP, "fs.file-max", format!("at least {}", count(wanted)), why);
    let found = host.number("proc/sys/fs/file-max");
    check.at_least(found, wanted, State::Problem, format!("sysctl -w fs.file-max={wanted}"))
}

fn locked_memory(host: &Host, target: &Target) -> Finding {
    let per_shard = LOCKED_BYTES_PER_SHARD + 16 * u64::from(target.runtime.recv_buffers);
    let wanted = target.shards() * per_shard;
    let check = Check::new(
        GROUP,
        "locked memory",
        format!("at least {}: {} a shard", bytes(wanted), bytes(per_shard)),
        "Rings and buffer rings of a process without CAP_IPC_LOCK count against RLIMIT_MEMLOCK, summed over its user.",
    );
    let fix = format!("LimitMEMLOCK={wanted} for systemd, or as root: ulimit -l {}", wanted.div_ceil(1024));
    let limit = host.limit("Max locked memory").map(|limit| limit.hard);
    match (host.has_capability(CAP_IPC_LOCK), limit) {
        (Ok(true), _) => check.ok("not counted: this user has CAP_IPC_LOCK"),
        (Err(reason), _) | (_, Err(reason)) => check.unknown(reason),
        (_, Ok(u64::MAX)) => check.ok("no limit"),
        (_, Ok(limit)) if limit >= wanted => check.ok(bytes(limit)),
        (_, Ok(limit)) => check.problem(bytes(limit), fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::FakeHost;

    const GOOD: &[(&str, &str)] = &[
        ("proc/self/limits", "Max open files   1024  1200000  files\nMax locked memory  8388608  8388608  bytes\n"),
        ("proc/self/status", "CapEff:\t0000000000000000\n"),
        ("proc/sys/fs/nr_open", "1073741816\n"),
        ("proc/sys/fs/file-max", "9223372036854775807\n"),
    ];

    fn target(descriptors: Descriptors) -> Target {
        let mut target = Target::new(Some(1_000_000), false, Some(4), None);
        target.runtime.descriptors = descriptors;
        target
    }

    fn states(fake: &FakeHost) -> Vec<State> {
        check(&fake.host, &target(Descriptors::Direct)).iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn host_has_room_then_good() {
        assert_eq!(states(&FakeHost::new(GOOD)), [State::Ok; 4]);
    }

    #[test]
    fn host_has_no_room_then_each_limit_is_named() {
        let fake = FakeHost::new(&[
            ("proc/self/limits", "Max open files   1024  4096  files\nMax locked memory  65536  65536  bytes\n"),
            ("proc/self/status", "CapEff:\t0000000000000000\n"),
            ("proc/sys/fs/nr_open", "4096\n"),
            ("proc/sys/fs/file-max", "5000\n"),
        ]);
        assert_eq!(states(&fake), [State::Problem; 4]);
        let findings = check(&fake.host, &target(Descriptors::Direct));
        assert_eq!(findings[0].found, "4 096");
        assert!(findings[0].fix.contains("ulimit -Hn 1135400"), "{:?}", findings[0]);
        assert_eq!(findings[1].fix, "sysctl -w fs.nr_open=2097152");
        assert_eq!(findings[2].fix, "sysctl -w fs.file-max=1010000");
        assert!(findings[3].fix.contains("LimitMEMLOCK=1048576"), "{:?}", findings[3]);
        // All in one table of the process.
        let ordinary = check(&fake.host, &target(Descriptors::Ordinary));
        assert!(ordinary[0].wanted.starts_with("at least 1 135 400: 1 010 320 descriptors"), "{:?}", ordinary[0]);
    }

    #[test]
    fn limit_holds_the_target_and_is_below_what_tuning_writes_then_no_problem() {
        let fake = FakeHost::new(GOOD);
        fake.set("proc/self/limits", "Max open files   1024  252564  files\n");
        fake.set("proc/sys/fs/nr_open", "1048576\n");
        let findings = check(&fake.host, &target(Descriptors::Direct));
        assert_eq!([findings[0].state, findings[1].state], [State::Warning; 2]);
        assert_eq!(findings[0].wanted, "at least 1 135 400: 252 564 slots in one table, and room");
        assert!(!findings[0].fix.contains("runtime.shards"), "{:?}", findings[0]);
        fake.set("proc/self/limits", "Max open files   1024  252563  files\n");
        assert_eq!(states(&fake)[0], State::Problem);
    }

    /// For every target and table size: the command that is named writes the figure that is named, which is enough for
    /// them and for tables that nobody has configured.
    #[test]
    fn limit_is_named_then_tuning_writes_that_limit() {
        let fake =
            FakeHost::new(&[("proc/self/limits", "Max open files   10  10  files\n"), ("proc/sys/fs/nr_open", "10\n")]);
        let tables = [16_384, 1_000_000];
        for (connections, shards) in [(1000, 1), (1000, 64), (100_000, 256), (1_000_000, 2), (4_000_000, 32)] {
            for (descriptors, table) in [Descriptors::Direct, Descriptors::Ordinary].into_iter().zip(tables) {
                let mut target = Target::new(Some(connections), false, Some(shards), None);
                target.runtime.descriptors = descriptors;
                target.runtime.connections_per_shard_max = target.runtime.connections_per_shard_max.max(table);
                let findings = check(&fake.host, &target);
                let (command, figure) = findings[0].fix.split_once(" (LimitNOFILE=").unwrap();
                let figure = figure.split_once(' ').unwrap().0;
                assert!(figure.parse::<u64>().unwrap() >= descriptors_wanted(&target.runtime).0, "{findings:?}");
                let options = command.strip_prefix("tuning/apply ").unwrap();
                let plan = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/plan");
                let mut plan = std::process::Command::new(plan);
                let output = plan.args(options.split(' ')).arg("--root").arg(fake.host.root()).output().unwrap();
                let plan = String::from_utf8(output.stdout).unwrap();
                assert!(plan.contains(&format!("LimitNOFILE={figure}\n")), "{command}\n{plan}");
                let most = findings[1].fix.strip_prefix("sysctl -w fs.nr_open=").unwrap();
                assert!(plan.contains(&format!("fs.nr_open: 10 -> {most} (")), "{most}\n{plan}");
            }
        }
    }

    #[test]
    fn table_is_above_the_limit_then_more_and_smaller_tables_are_proposed() {
        let run = |limit: u64, descriptors| {
            let limits = format!("Max open files   1024  {limit}  files\n");
            let fake = FakeHost::new(&[("proc/self/limits", &limits)]);
            check(&fake.host, &target(descriptors)).swap_remove(0).fix
        };
        // 1 000 000 / 52 = 19 231, and five times the root of it (138); with 64 spare slots.
        let fix = run(20_000, Descriptors::Direct);
        assert!(
            fix.ends_with("; or within this limit runtime.shards = 52, runtime.connections_per_shard_max = 19921"),
            "{fix}"
        );
        // 256 shards are too few, or do not help.
        assert!(!run(4096, Descriptors::Direct).contains("runtime.shards"));
        assert!(!run(20_000, Descriptors::Ordinary).contains("runtime.shards"));
    }

    #[test]
    fn process_is_privileged_then_locked_memory_is_not_counted() {
        let fake = FakeHost::new(&[("proc/self/status", "CapEff:\t0000000000004000\n")]);
        assert_eq!(states(&fake)[3], State::Ok);
    }

    #[test]
    fn host_tells_nothing_then_unknown() {
        assert_eq!(states(&FakeHost::new(&[])), [State::Unknown; 4]);
    }
}

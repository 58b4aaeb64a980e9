//! The kernel, whether it allows io_uring, and whether io_uring does what `net` needs.

use super::report::{Check, Finding};
use super::target::Target;
use crate::host::Host;
use ringgate_net::kernel;
use ringgate_net::{Descriptors, Outcome, Probe};

/// CAP_SYS_ADMIN: may use io_uring where kernel.io_uring_disabled is 1.
const CAP_SYS_ADMIN: u32 = 21;

const GROUP: &str = "io_uring";

pub(super) fn check(host: &Host, target: &Target, probes: &[Probe]) -> Vec<Finding> {
    let setup_works = probes.first().is_some_and(|probe| matches!(probe.outcome, Outcome::Works(_)));
    let mut findings = vec![kernel(host, target), switch(host), filter(host, setup_works)];
    findings.extend(probes.iter().map(|probe| probed(probe, target)));
    findings
}

fn kernel(host: &Host, target: &Target) -> Finding {
    let check = Check::new(
        GROUP,
        "kernel",
        "6.1, better 6.13 or newer",
        "Before 6.1 io_uring lacks what the gateway needs; before 6.13 direct descriptors leak, so that sockets take \
         ordinary ones, which are limited per process. From 6.17 on long messages are received with less work.",
    );
    let release = match host.read("proc/sys/kernel/osrelease") {
        Ok(release) => release,
        Err(reason) => return check.unknown(reason),
    };
    match kernel::version_of(&release) {
        None => check.unknown(format!("{release:?} is not a version")),
        Some(version) if version < kernel::OLDEST => check.problem(release, "install Linux 6.1 or newer"),
        Some(version) if version < kernel::DIRECT_DESCRIPTORS => match target.runtime.descriptors {
            Descriptors::Ordinary => check.warning(release, "install Linux 6.13 or newer"),
            Descriptors::Direct => check.warning(release, "runtime.descriptors = \"auto\""),
        },
        Some(_) => check.ok(release),
    }
}

fn switch(host: &Host) -> Finding {
    let check = Check::new(
        GROUP,
        "kernel.io_uring_disabled",
        "0",
        "1 allows it to the group kernel.io_uring_group and to CAP_SYS_ADMIN, 2 to nobody.",
    );
    let fix = "sysctl -w kernel.io_uring_disabled=0";
    let value = match host.number::<u32>("proc/sys/kernel/io_uring_disabled") {
        Ok(value) => value,
        Err(reason) => return check.unknown(reason),
    };
    match value {
        0 => check.ok("0"),
        1 => match is_allowed_by_group(host) {
            Ok(Some(by)) => check.ok(format!("1, allowed by {by}")),
            Ok(None) => check.problem("1, and this user is not in the group", fix),
            Err(reason) => check.unknown(reason),
        },
        other => check.problem(other.to_string(), fix),
    }
}

fn is_allowed_by_group(host: &Host) -> Result<Option<String>, String> {
    if host.has_capability(CAP_SYS_ADMIN)? {
        return Ok(Some("CAP_SYS_ADMIN".to_owned()));
    }
    let group = host.read("proc/sys/kernel/io_uring_group")?;
    let mine = [host.field("proc/self/status", "Gid")?, host.field("proc/self/status", "Groups")?];
    let is_member = mine.iter().any(|groups| groups.split_whitespace().any(|one| one == group));
    Ok(is_member.then(|| format!("group {group}")))
}

fn filter(host: &Host, setup_works: bool) -> Finding {
    let check = Check::new(
        GROUP,
        "seccomp",
        "no filter, or one that lets io_uring through",
        "Container runtimes forbid io_uring by default.",
    );
    match host.field("proc/self/status", "Seccomp").as_deref() {
        Err(reason) => check.unknown(reason.as_str()),
        Ok("0") => check.ok("no filter"),
        Ok(_) if setup_works => check.ok("a filter that lets io_uring through"),
        Ok(mode) => check.problem(
            format!("mode {mode}, and io_uring does not work"),
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's profile, for instance \
             docker run --security-opt seccomp=profile.json",
        ),
    }
}

fn probed(probe: &Probe, target: &Target) -> Finding {
    let check = Check::new(GROUP, probe.name, "supported", probe.why);
    match &probe.outcome {
        Outcome::Works(seen) => check.ok(seen),
        Outcome::Untried(reason) => check.unknown(reason),
        Outcome::Fails(what) if probe.direct && target.runtime.descriptors == Descriptors::Ordinary => {
            check.warning(what, "none is needed with runtime.descriptors = \"ordinary\"")
        }
        Outcome::Fails(what) if probe.direct => check.problem(what, "runtime.descriptors = \"ordinary\""),
        Outcome::Fails(what) => check.problem(what, "see what it says; Linux 6.1 or newer has it all"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::host::tests::FakeHost;

    fn probes(outcome: &Outcome) -> Vec<Probe> {
        [("ring setup", false), ("direct accept", true)]
            .map(|(name, direct)| Probe { name, why: "", direct, outcome: outcome.clone() })
            .to_vec()
    }

    fn status(capabilities: &str, seccomp: &str) -> String {
        format!("Gid:\t7\t7\t7\t7\nGroups:\t7 9 \nCapEff:\t{capabilities}\nSeccomp:\t{seccomp}\n")
    }

    fn run(release: &str, disabled: &str, status: &str, outcome: &Outcome) -> Vec<State> {
        let fake = FakeHost::new(&[
            ("proc/sys/kernel/osrelease", release),
            ("proc/sys/kernel/io_uring_disabled", disabled),
            ("proc/sys/kernel/io_uring_group", "9\n"),
            ("proc/self/status", status),
        ]);
        let mut target = Target::new(Some(1000), false, Some(1), None);
        target.runtime.descriptors = Descriptors::Direct;
        check(&fake.host, &target, &probes(outcome)).iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn every_operation_works_then_good() {
        let works = Outcome::Works("yes".to_owned());
        assert_eq!(run("6.18.1-x\n", "0\n", &status("0", "0"), &works), [State::Ok; 5]);
        // A filter that lets it through; a group that this user is in; the right to everything.
        assert_eq!(run("6.13\n", "1\n", &status("0", "2"), &works), [State::Ok; 5]);
        let admin = status("0000000000200000", "0").replace(" 9 ", "");
        assert_eq!(run("7.0-rc1\n", "1\n", &admin, &works), [State::Ok; 5]);
    }

    #[test]
    fn io_uring_is_forbidden_then_a_finding() {
        let fails = Outcome::Fails("io_uring_setup: Operation not permitted".to_owned());
        assert_eq!(run("5.15.0-100\n", "2\n", &status("0", "2"), &fails), [State::Problem; 5]);
        let stranger = status("0", "0").replace(" 9 ", "");
        assert_eq!(run("6.6.0\n", "1\n", &stranger, &fails)[..2], [State::Warning, State::Problem]);
    }

    #[test]
    fn operation_was_not_tried_then_unknown() {
        let fake = FakeHost::new(&[]);
        let target = Target::new(Some(1000), false, Some(1), None);
        let findings = check(&fake.host, &target, &probes(&Outcome::Untried("no loopback".to_owned())));
        assert!(findings.iter().all(|finding| finding.state == State::Unknown), "{findings:?}");
    }
}

//! `ringgate doctor`: whether this host can hold a given number of connections, and the Redis of the configuration its messages; and what
//! to change where they cannot.
//!
//! Checks read files of the host through `host::Host`, which tests point at a folder, and try the ring and the configured Redis for real.
//! They change nothing. What cannot be found out is called unknown, with the reason, and never good.

mod cpu;
mod interrupts;
mod irq;
mod isolated;
mod limits;
mod memory;
mod network;
mod nic;
mod quota;
mod redis;
mod report;
mod ring;
mod target;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::{PathBufValueParser, TypedValueParser};

use crate::config::Config;
use crate::cores::{Topology, distinct, plan};
use crate::host::Host;
use crate::redis_facts::Facts;
use report::{Finding, State, count};
use ringgate_net::Probe;
use target::Target;

/// What the host is asked to hold.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Options {
    /// Connections to hold; what the configuration has room for if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    connections: Option<u64>,
    /// They speak TLS, which takes more memory.
    #[arg(long)]
    tls: bool,
    /// Number of shards; that of the configuration if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: Option<u16>,
    /// Configuration file to look at, too, and the Redis that it names.
    // Read with the other options: a file that cannot be looked at ends the program as any wrong option does, and is not
    // taken for a problem of the host.
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(|file: PathBuf| load(&file)))]
    config: Option<Arc<Config>>,
    /// Say why for everything, also for what is in order.
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    /// Print an array of objects: group, check, state, found, wanted, why, fix.
    #[arg(long)]
    json: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  nothing is in the way
  1  something is
  2  it could not be asked: a wrong option, or a configuration file that is missing or invalid";

fn load(file: &Path) -> Result<Arc<Config>, String> {
    Config::load_for_doctor(file).map(Arc::new).map_err(|problems| problems.to_string())
}

/// What there is to say, and whether the target is out of reach.
pub struct Report {
    /// A table, or JSON.
    pub text: String,
    /// At least one check has found a problem.
    pub has_problems: bool,
}

/// Looks at this host. Fails only where JSON cannot be made of what was found.
pub fn run(options: &Options) -> Result<Report, String> {
    let config = options.config.as_deref();
    let target = Target::new(options.connections, options.tls, options.shards.map(usize::from), config);
    let host = Host::new("/");
    let topology = Topology::read(host.root());
    let mut findings = examine(&host, &target, &topology, &ringgate_net::probe());
    if let Some(config) = config.and_then(|config| config.redis.as_ref()) {
        findings.extend(redis::check(&Facts::gather(config), config));
    }
    let has_problems = findings.iter().any(|finding| finding.state == State::Problem);
    let text = if options.json {
        serde_json::to_string_pretty(&findings).map_err(|error| error.to_string())?
    } else {
        let coloured = report::is_coloured(std::io::stdout().is_terminal(), |name| std::env::var_os(name));
        let plan = topology.as_ref().map_or(String::new(), |topology| cpu::show_plan(&host, &target, topology));
        format!(
            "{}\n{}{plan}\n{}",
            headline(&target),
            report::table(&findings, coloured, options.explain),
            report::summary(&findings)
        )
    };
    Ok(Report { text, has_problems })
}

fn headline(target: &Target) -> String {
    let transport = if target.tls { "TLS" } else { "plain" };
    let shards = if target.shards() == 1 { "1 shard".to_owned() } else { format!("{} shards", target.shards()) };
    format!("ringgate doctor: {} {transport} connections on {shards}", count(target.connections))
}

fn examine(host: &Host, target: &Target, topology: &Result<Topology, String>, probes: &[Probe]) -> Vec<Finding> {
    let cpus = topology.as_ref().ok().and_then(|topology| {
        let shards = topology.cpus.len();
        plan(topology, &target.runtime.cores, shards).ok()
    });
    // A list that is shorter than the machine has cores names some of them again.
    let cpus = distinct(cpus.unwrap_or_default());
    let mut findings = target.check();
    findings.extend(ring::check(host, target, probes));
    findings.extend(limits::check(host, target));
    findings.extend(memory::check(host, target, topology));
    findings.extend(network::check(host, target));
    findings.extend(nic::check(host, &cpus, target.shards()));
    findings.extend(cpu::check(host, target, topology));
    findings.push(quota::check(host, target, topology));
    findings.push(isolated::check(host, target, topology));
    findings.push(interrupts::check(host, target, topology));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cores::{Cores, Cpu};
    use crate::host::tests::FakeHost;

    #[test]
    fn host_has_no_files_then_unknown_and_never_good() {
        let fake = FakeHost::new(&[]);
        let target = Target::new(Some(1000), false, Some(2), None);
        let findings = examine(&fake.host, &target, &Topology::read(fake.host.root()), &[]);
        let mut of_the_host = findings.iter().filter(|finding| finding.group != "target");
        assert!(of_the_host.all(|finding| finding.state == State::Unknown), "{findings:#?}");
        let is_said =
            |finding: &Finding| [&finding.found, &finding.wanted, &finding.why].iter().all(|text| !text.is_empty());
        assert!(findings.iter().all(is_said), "{findings:#?}");
    }

    #[test]
    fn cores_are_listed_then_the_card_is_compared_with_the_list() {
        let fake = FakeHost::new(&[
            ("sys/class/net/eth0/operstate", "up\n"),
            ("proc/interrupts", "  CPU0\n 40: 0 x eth0-0\n 41: 0 x eth0-1\n 42: 0 x eth0-2\n"),
        ]);
        for (number, core) in [(40, "0\n"), (41, "1\n"), (42, "0\n")] {
            fake.set(&format!("sys/class/net/eth0/device/msi_irqs/{number}"), "msix\n");
            fake.set(&format!("proc/irq/{number}/smp_affinity_list"), core);
        }
        for queue in ["rx-0", "rx-1"] {
            fake.set(&format!("sys/class/net/eth0/queues/{queue}/rps_cpus"), "0\n");
        }
        let cpus = (0..8).map(|id| Cpu { id, core: id, node: None }).collect();
        let mut target = Target::new(Some(1000), false, Some(4), None);
        target.runtime.cores = Cores::List(vec![0, 1]);
        let findings = examine(&fake.host, &target, &Ok(Topology { cpus, nic_nodes: Vec::new() }), &[]);
        for check in ["eth0: receive queues", "eth0: interrupts"] {
            let finding = findings.iter().find(|finding| finding.check == check).unwrap();
            assert_eq!(finding.state, State::Ok, "{finding:?}");
        }
    }
}

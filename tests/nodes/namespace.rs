//! Network namespaces: one for the whole test, in which it may do as it likes with addresses and packets, and one for each gateway
//! whose packets are dropped or slowed down.
//!
//! A gateway's namespace has two wires: `clients`, which is never touched, and `redis`. Everything goes with the processes in it.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::wait_until;

/// Set in the test that runs in a namespace of its own.
const INSIDE: &str = "RINGGATE_INSIDE_NAMESPACE";

/// Whether this process is in the namespace that [`run_inside`] has made.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs a test of this program once more, in a namespace of its own, and passes on what it says. Root makes a namespace as it is;
/// others become root in one of users first.
///
/// # Panics
/// When the test fails, or there can be no namespace.
pub(crate) fn run_inside(test: &str) {
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(INSIDE, "1").env("PATH", path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("unshare (Debian: util-linux): {error}"));
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        eprintln!("{line}");
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "the test in a network namespace: {status}; what it said stands above");
}

/// Of a gateway; ends with this value.
pub(crate) struct Namespace {
    /// Holds the namespace until its standard input ends, at the latest with this process.
    holder: Child,
    number: u16,
}

/// What becomes of the packets between a gateway and Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// They pass.
    Open,
    /// They are dropped, in both directions and without a word (nftables).
    Dropped,
    /// They pass at so many kilobits a second in each direction; what waits longer than 400 ms is dropped (tc tbf).
    Slow(u32),
}

impl Namespace {
    /// A new one, with both wires up.
    pub(crate) fn new() -> Namespace {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = command.spawn().unwrap_or_else(|error| panic!("unshare (Debian: util-linux): {error}"));
        let namespace = Namespace { holder, number };
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let (own, held) = (of("self"), namespace.holder.id().to_string());
        wait_until("a new network namespace", || of(&held).is_some_and(|held| Some(held) != own));
        for (name, outer, [here, there]) in [
            ("clients", format!("c{number}"), [namespace.address(1), namespace.address(2)]),
            ("redis", namespace.outer(), [namespace.address(5), namespace.address(6)]),
        ] {
            let outer = outer.as_str();
            run("ip", &["link", "add", outer, "type", "veth", "peer", "name", name, "netns", &held]);
            run("ip", &["address", "add", &format!("{here}/30"), "dev", outer]);
            run("ip", &["link", "set", outer, "up"]);
            namespace.run("ip", &["address", "add", &format!("{there}/30"), "dev", name]);
            namespace.run("ip", &["link", "set", name, "up"]);
        }
        namespace
    }

    /// Where clients find what listens in it.
    pub(crate) fn clients(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// Where it finds Redis, which listens on every address of the outer namespace.
    pub(crate) fn redis(&self) -> Ipv4Addr {
        self.address(5)
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(10, 64 + high, low, host)
    }

    /// The outer end of the wire to Redis.
    fn outer(&self) -> String {
        format!("r{}", self.number)
    }

    /// A command that runs in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = self.command(program);
        command.args(arguments);
        finish(command, "");
    }

    /// From now on.
    pub(crate) fn set(&self, wire: Wire) {
        // Neither is an error where there is none.
        self.filter("add table inet wire\ndelete table inet wire\n");
        let outer = self.outer();
        match wire {
            Wire::Dropped => self.filter(
                "table inet wire {\n\
                 chain in { type filter hook input priority 0; iifname \"redis\" drop; }\n\
                 chain out { type filter hook output priority 0; oifname \"redis\" drop; }\n}\n",
            ),
            Wire::Slow(kilobits) => {
                let rate = format!("{kilobits}kbit");
                let limited = |device| {
                    let limit = ["root", "tbf", "rate", &rate, "burst", "4kb", "latency", "400ms"];
                    [&["qdisc", "replace", "dev", device], &limit[..]].concat()
                };
                self.run("tc", &limited("redis"));
                run("tc", &limited(&outer));
            }
            Wire::Open => {
                // What a wire has without a limit.
                self.run("tc", &["qdisc", "replace", "dev", "redis", "root", "pfifo"]);
                run("tc", &["qdisc", "replace", "dev", &outer, "root", "pfifo"]);
            }
        }
    }

    /// Gives rules to nftables.
    fn filter(&self, rules: &str) {
        let mut command = self.command("nft");
        command.args(["-f", "-"]);
        finish(command, rules);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// In the namespace of this process.
fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command, "");
}

/// Runs a command with this on its standard input; it must end well.
fn finish(mut command: Command, input: &str) {
    command.env("PATH", path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {said}; tests/run installs iproute2 and nftables");
}

/// With the folders that have ip, tc and nft, which are not on everybody's.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

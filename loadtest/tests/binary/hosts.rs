//! A controller and its workers on hosts of their own: network namespaces that are cabled to one switch.
//!
//! The first host has the switch, the gateway and the controller; each test is run there, in a process of its own. The
//! namespaces have no names: they are held by processes, and are gone with them, however a test ends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringgate_core::transport::Transport;
use serde_json::Value;

use crate::support::{Folder, Gateway, PROGRAM, Process, assert_clean, count};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Set where a test runs on the first host already.
const ON_FIRST: &str = "RINGGATE_TEST_ON_FIRST_HOST";
/// A run ends so soon after a word is missing: silence of 5 s, records that do not come (1 s), the goodbyes of the other
/// clients (10 s at most), and some room for a machine that has more to do.
const LOSS_MAX: Duration = Duration::from_secs(30);

/// A host beside the first.
struct Host {
    address: Ipv4Addr,
    /// The other end of its cable.
    port: String,
    /// Is in the host's namespace, and does nothing until its standard input ends: at the latest with this process.
    holder: Child,
}

impl Host {
    /// A host with a cable to the switch.
    fn new(number: u8) -> Host {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo here && exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        let (address, port) = (Ipv4Addr::new(10, 0, 0, number), format!("port{number}"));
        let host = Host { address, port, holder };
        ip(&format!("link add {} type veth peer name eth0 netns {}", host.port, host.holder.id()));
        ip(&format!("link set {} master switch up", host.port));
        host.ip("link set lo up");
        host.ip("link set eth0 up");
        host.add_address(address);
        host
    }

    fn add_address(&self, address: Ipv4Addr) {
        self.ip(&format!("address add {address}/24 dev eth0"));
    }

    /// A worker on this host.
    fn worker(&self, controller: &str, options: &[&str]) -> Process {
        Process::start(self.command(PROGRAM), &[&["worker", controller, "--dev"], options].concat())
    }

    /// Pulls the cable: nobody is told, and what is sent goes nowhere.
    fn vanish(&self) {
        ip(&format!("link set {} down", self.port));
    }

    fn ip(&self, arguments: &str) {
        run(self.command("ip").args(arguments.split(' ')));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", program]);
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs a test in a process of its own on the first host, which has the switch.
fn on_first_host(test: &str, body: fn()) {
    if std::env::var_os(ON_FIRST).is_some() {
        ip("link set lo up");
        ip("link add switch type bridge");
        ip(&format!("address add {FIRST}/24 dev switch"));
        ip("link set switch up");
        return body();
    }
    // Root makes a namespace as it is; others become root in one of users first.
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new("unshare");
    command.args(if is_root { &["--net"][..] } else { &["--net", "--user", "--map-root-user"] });
    command.arg(std::env::current_exe().unwrap()).args(["--exact", &format!("hosts::{test}"), "--nocapture"]);
    let output = run(command.env(ON_FIRST, "1"));
    assert!(output.contains("1 passed"), "{output}");
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

/// Runs a command to its good end; its standard output.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
    stdout
}

/// The load of all tests here. The partner of every client is on the other worker.
const LOAD: [&str; 5] = ["p2p", "--connections", "42", "--rate", "200"];

/// Two hosts with a worker each, and the controller that they have come to, in this order.
fn crew(load: &[&str], options: [&[&str]; 2], hosts: &[Host; 2]) -> (Process, [Process; 2]) {
    let (mut controller, address) = Process::controller(FIRST.into(), "2", &[&LOAD, load].concat());
    let first = hosts[0].worker(&address, options[0]);
    controller.wait_for_line(", 1 there");
    let second = hosts[1].worker(&address, options[1]);
    (controller, [first, second])
}

fn result_of(folder: &Folder) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.path("result.json")).unwrap()).unwrap()
}

#[test]
fn a_run_spans_three_hosts() {
    on_first_host("a_run_spans_three_hosts", || {
        let gateway = Gateway::start_at(FIRST.into());
        let (folder, hosts) = (Folder::new("hosts"), [2, 3].map(Host::new));
        let (url, json) = (gateway.url(Transport::Plain), folder.path("result.json"));
        let load = ["--url", &url, "--duration", "2s", "--json", &json];
        let (controller, workers) = crew(&load, [&[], &[]], &hosts);
        let (code, stdout, stderr) = controller.end();
        assert_eq!(code, Some(0), "{stderr}");
        for worker in workers {
            let (code, _, stderr) = worker.end();
            assert_eq!(code, Some(0), "{stderr}");
        }
        let result = result_of(&folder);
        assert_clean(0, &result);
        assert_eq!((count(&result, "published"), count(&result, "delivered")), (400, 400));
        assert_eq!(result["latencies_us"]["deliver"]["planned"]["count"], 400);
        assert_eq!(result["latencies_us"]["connect"]["planned"]["count"], 42);
        let stated = result["workers"].as_array().unwrap();
        assert_eq!(stated.len(), 2);
        for (worker, host) in stated.iter().zip(&hosts) {
            let address: SocketAddr = worker["address"].as_str().unwrap().parse().unwrap();
            assert_eq!((address.ip(), count(worker, "connections")), (host.address.into(), 21));
            // The hosts have one clock.
            let (offset, error) = (worker["clock_offset_ns"].as_i64().unwrap(), count(worker, "clock_error_ns"));
            assert!(error > 0 && offset.unsigned_abs() <= error, "{worker}");
            let line = stdout.lines().find(|line| line.contains(&address.to_string()));
            assert!(line.is_some_and(|line| line.contains(" us, give or take ")), "{stdout}");
        }
    });
}

#[test]
fn a_host_that_vanishes_fails_the_run_by_name() {
    on_first_host("a_host_that_vanishes_fails_the_run_by_name", || {
        let gateway = Gateway::start_at(FIRST.into());
        let (folder, hosts) = (Folder::new("hosts-lost"), [2, 3].map(Host::new));
        let source = Ipv4Addr::new(10, 0, 0, 20);
        hosts[0].add_address(source);
        let (url, json) = (gateway.url(Transport::Plain), folder.path("result.json"));
        let load = ["--url", &url, "--duration", "1h", "--json", &json];
        let (mut controller, [first, second]) = crew(&load, [&["--source", &source.to_string()], &[]], &hosts);
        controller.wait_for_line("steady");
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(clients_by_address(port), BTreeMap::from([(source, 21), (hosts[1].address, 21)]));

        hosts[0].vanish();
        let (code, _, stderr) = controller.end_within(LOSS_MAX);
        assert_eq!(code, Some(1), "{stderr}");
        let result = result_of(&folder);
        let named = |error: &String| {
            error.starts_with("worker 1 of 2 (10.0.0.2:")
                && error.ends_with(") was lost: nothing was heard of it for 5 s")
        };
        assert!(result["errors_by_kind"].as_object().unwrap().keys().any(named), "{}", result["errors_by_kind"]);
        assert_eq!(result["clean"], false);
        let (code, _, stderr) = second.end();
        assert_eq!(code, Some(0), "the other was told to stop: {stderr}");
        let (code, _, stderr) = first.end();
        assert!(code == Some(1) && stderr.contains("the controller at 10.0.0.1:"), "{stderr}");
        assert!(stderr.contains(" is gone: "), "{stderr}");
    });
}

#[test]
fn a_host_that_vanishes_before_the_run_is_named() {
    on_first_host("a_host_that_vanishes_before_the_run_is_named", || {
        let hosts = [2, 3].map(Host::new);
        let load = [&LOAD[..], &["--url", "tcp://10.0.0.1:7400"]].concat();
        let (mut controller, address) = Process::controller(FIRST.into(), "2", &load);
        let first = hosts[0].worker(&address, &[]);
        controller.wait_for_line(", 1 there");
        hosts[0].vanish();
        let second = hosts[1].worker(&address, &[]);
        controller.wait_for_line(", 2 there");
        let (code, _, stderr) = controller.end_within(LOSS_MAX);
        assert_ne!(code, Some(0));
        assert!(stderr.contains("worker 1 of 2 (10.0.0.2:"), "{stderr}");
        assert!(stderr.contains(") was lost: nothing was heard of it for 5 s"), "{stderr}");
        for worker in [first, second] {
            let (code, _, stderr) = worker.end();
            assert!(code == Some(2) && stderr.contains(" is gone: "), "{stderr}");
        }
    });
}

/// A gateway that could take more is not what ends such a ramp.
#[test]
fn a_ramp_until_refused_that_runs_out_of_ports_says_so() {
    on_first_host("a_ramp_until_refused_that_runs_out_of_ports_says_so", || {
        let gateway = Gateway::start_at(FIRST.into());
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40009").unwrap();
        let (code, result) =
            gateway.drive("connect", &["--connections", "50", "--until-refused", "--ramp-rate", "200"]);
        assert_eq!(code, 1, "{result:#}");
        assert_eq!(result["until_refused"], serde_json::json!({"signed_in": 10, "refusals": {}}));
        let errors = result["errors_by_kind"].to_string();
        assert!(errors.contains("this load tester could not connect to 10.0.0.1:"), "{errors}");
        assert!(errors.contains("Cannot assign requested address; more --source addresses"), "{errors}");
    });
}

#[test]
fn first_address_of_the_name_never_answers_then_clients_connect_to_the_next_in_time() {
    on_first_host("first_address_of_the_name_never_answers_then_clients_connect_to_the_next_in_time", || {
        // The system prefers 127.0.0.1, which is that of the interface.
        let (at, silent) = (Ipv4Addr::new(127, 0, 0, 9), Ipv4Addr::LOCALHOST);
        let (gateway, folder) = (Gateway::start_at(at.into()), Folder::new("silent-address"));
        let (url, hosts) = (gateway.url(Transport::Plain), folder.path("hosts"));
        std::fs::write(&hosts, format!("{silent} gateway.test\n{at} gateway.test\n")).unwrap();
        // A listener whose queue is full does not answer: the kernel drops what comes.
        std::fs::write("/proc/sys/net/core/somaxconn", "1").unwrap();
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        let _listener = TcpListener::bind((silent, port)).unwrap();
        let waiting = || TcpStream::connect_timeout(&(silent, port).into(), Duration::from_millis(500)).ok();
        let _queue: Vec<_> = std::iter::from_fn(waiting).collect();
        let url = url.replace(&at.to_string(), "gateway.test");
        let run = |url: &str, more: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\"", &hosts, PROGRAM]);
            command.args([
                "connect",
                "--url",
                url,
                "--dev",
                "--connections",
                "3",
                "--connect-timeout",
                "1s",
                "--quiet",
            ]);
            let output = command.args(more).stdin(Stdio::null()).output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (code, said) = run(&url, &["--json", "-", "--allow", "driver"]);
        let result: Value = serde_json::from_str(&said).unwrap();
        assert_clean(code.unwrap(), &result);
        // From the plan on: what the silent address took is a part of it.
        let slowest = &result["latencies_us"]["connect"]["planned"]["max"];
        assert!(slowest.as_u64().is_some_and(|slowest| slowest >= 1_000_000), "{result:#}");
        let (code, said) = run(&format!("tcp://{silent}:{port}"), &[]);
        let wanted = format!("connect to {silent}:{port}: Connection timed out; is there such a host, and no firewall");
        assert!(code == Some(2) && said.contains(&wanted), "{said}");
    });
}

/// How many connections to a port of this host there are from each address.
fn clients_by_address(port: u16) -> BTreeMap<Ipv4Addr, usize> {
    // proc(5): the fields are a number, the own address, the other's and the state; 01 is ESTABLISHED.
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (own_port, mut clients) = (format!(":{port:04X}"), BTreeMap::new());
    for line in table.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        if fields[1].ends_with(&own_port) && fields[3] == "01" {
            let address = u32::from_str_radix(fields[2].split(':').next().unwrap(), 16).unwrap();
            *clients.entry(Ipv4Addr::from(address.to_ne_bytes())).or_default() += 1;
        }
    }
    clients
}

//! A real gateway in this process, and the load tester's binary beside it.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ringgate::config::{Config, server_config};
use ringgate::server::Server;
use ringgate_core::transport::Transport;
use serde_json::Value;

/// The load tester's binary.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ringgate-loadtest");
/// For tests that are not about this load tester's own speed.
pub(crate) const ON_A_BUSY_MACHINE: [&str; 2] = ["--allow", "driver"];
/// Where there is but one host.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) struct Gateway {
    server: Option<Server>,
    certificate: String,
}

impl Gateway {
    pub(crate) fn start() -> Gateway {
        Gateway::start_at(LOOPBACK)
    }

    /// One whose clients come to this address.
    pub(crate) fn start_at(address: IpAddr) -> Gateway {
        Gateway::start_with(address, None)
    }

    /// One with this certificate and its key, both PEM.
    pub(crate) fn start_with(address: IpAddr, own: Option<(String, String)>) -> Gateway {
        let (mut config, mut certificate) = Config::dev(Some(2)).unwrap();
        for listener in &mut config.listeners {
            listener.address = (address, 0).into();
        }
        if let Some((own, key)) = own {
            config.tls = Some(Arc::new(server_config(own.as_bytes(), key.as_bytes()).unwrap()));
            certificate = own;
        }
        config.admin = Some((address, 0).into());
        config.runtime.pin_cores = false;
        config.runtime.connections_per_shard_max = 1024;
        Gateway { server: Some(Server::start(config).unwrap()), certificate }
    }

    pub(crate) fn url(&self, transport: Transport) -> String {
        let scheme = if transport == Transport::Tls { "tls" } else { "tcp" };
        format!("{scheme}://{}", self.address(transport))
    }

    pub(crate) fn address(&self, transport: Transport) -> SocketAddr {
        let listeners = self.server.as_ref().unwrap().addresses();
        listeners.iter().find(|listener| listener.front.transport == transport).unwrap().address
    }

    /// Its certificate, which is that of its issuer, too; PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The sum of a counter, all shards and labels together.
    pub(crate) fn counter(&self, name: &str) -> f64 {
        let text = ureq::get(self.metrics_url()).call().unwrap().body_mut().read_to_string().unwrap();
        let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        text.lines().filter(is_it).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Where its metrics are.
    pub(crate) fn metrics_url(&self) -> String {
        let address = self.server.as_ref().unwrap().admin_address().unwrap();
        format!("http://{address}/metrics")
    }

    /// Runs a scenario with `--json -` and returns its exit code and result. That this machine is busy fails no run.
    pub(crate) fn drive(&self, scenario: &str, arguments: &[&str]) -> (i32, Value) {
        self.drive_over(Transport::Plain, scenario, arguments)
    }

    pub(crate) fn drive_over(&self, transport: Transport, scenario: &str, arguments: &[&str]) -> (i32, Value) {
        let url = self.url(transport);
        let mut all = vec![scenario, "--url", &url, "--dev", "--json", "-", "--quiet"];
        all.extend(ON_A_BUSY_MACHINE);
        all.extend(arguments);
        let output = loadtest(&all);
        let result = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), result)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown(&AtomicBool::new(false));
        }
    }
}

/// A process of the load tester; killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// What it has said on standard error so far.
    said: String,
    stderr: BufReader<ChildStderr>,
}

impl Process {
    /// Runs the load tester by a command that lacks its arguments only.
    pub(crate) fn start(mut program: Command, arguments: &[&str]) -> Process {
        let command = program.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Process { child, said: String::new(), stderr }
    }

    /// A controller that waits for workers on a free port, and the address.
    pub(crate) fn controller(listen: IpAddr, workers: &str, load: &[&str]) -> (Process, String) {
        let listen = SocketAddr::from((listen, 0)).to_string();
        let arguments = [&["controller", "--listen", &listen, "--workers", workers], load].concat();
        let mut process = Process::start(program(), &arguments);
        let line = process.wait_for_line("waiting for");
        let address = line.split(" on ").nth(1).unwrap().split(',').next().unwrap().to_owned();
        (process, address)
    }

    pub(crate) fn worker(address: &str) -> Process {
        Process::start(program(), &["worker", address, "--dev"])
    }

    /// Reads standard error until a line that contains this.
    pub(crate) fn wait_for_line(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            let count = self.stderr.read_line(&mut line).unwrap();
            assert!(count > 0, "no \"{part}\" in: {}", self.said);
            self.said += &line;
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end: exit code, standard output, standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String, String) {
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap().code(), stdout, std::mem::take(&mut self.said))
    }

    /// Waits for the end like `end`, and fails after `longest`. The output until then has to fit into a pipe.
    pub(crate) fn end_within(mut self, longest: Duration) -> (Option<i32>, String, String) {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < longest, "it goes on after {longest:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    Command::new(PROGRAM)
}

/// Runs the load tester to its end. That this machine is busy fails no run, unless the arguments say what may.
pub(crate) fn loadtest(arguments: &[&str]) -> Output {
    program().env("RINGGATE_LOADTEST_ALLOW", "driver").args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn count(result: &Value, key: &str) -> u64 {
    result[key].as_u64().unwrap_or_else(|| panic!("{key} in {result}"))
}

/// Everything that was sent is accounted for, and nothing went wrong.
pub(crate) fn assert_clean(code: i32, result: &Value) {
    assert_eq!((code, &result["clean"]), (0, &Value::Bool(true)), "{result:#}");
    for key in ["lost", "duplicated", "reordered", "corrupted", "errors", "undecided"] {
        assert_eq!(count(result, key), 0, "{key}");
    }
}

/// A folder for one test; removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("ringgate-loadtest-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! The gateway that is measured: started as a process of its own, and looked at through /proc.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A gateway process that was started here; stopped when dropped.
pub(crate) struct Gateway {
    child: Child,
    /// tcp://HOST:PORT
    pub(crate) tcp: String,
    /// tls://HOST:PORT
    pub(crate) tls: String,
    /// http://HOST:PORT
    pub(crate) admin: String,
}

impl Gateway {
    /// Starts `ringgate serve --dev` and waits until it is ready. Its certificate goes to `ca`.
    pub(crate) fn start(shards: Option<usize>, compact_tls: bool, ca: &std::path::Path) -> Result<Gateway, String> {
        let mut command = Command::new(find_program()?);
        command.args(["serve", "--dev", "--log-level", "warn", "--dev-ca"]).arg(ca);
        if compact_tls {
            command.arg("--compact-tls");
        }
        if let Some(shards) = shards {
            command.args(["--shards", &shards.to_string()]);
        }
        Gateway::launch(command)
    }

    /// Starts `ringgate serve` with this configuration and waits until it is ready.
    pub(crate) fn configured(config: &std::path::Path) -> Result<Gateway, String> {
        let mut command = Command::new(find_program()?);
        command.args(["serve", "--config"]).arg(config);
        Gateway::launch(command)
    }

    /// As [`Self::configured`], with this program, its log in a file, and out of reach of a Ctrl-C that is meant for its starter.
    pub(crate) fn configured_apart(
        program: &std::path::Path,
        config: &std::path::Path,
        log: std::fs::File,
    ) -> Result<Gateway, String> {
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(config).process_group(0).stderr(log);
        Gateway::launch(command)
    }

    fn launch(mut command: Command) -> Result<Gateway, String> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", command.get_program().display()))?;
        let Some(stdout) = child.stdout.take() else { return Err("the gateway has no output".to_owned()) };
        let mut gateway = Gateway { child, tcp: String::new(), tls: String::new(), admin: String::new() };
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = lines.recv_timeout(left).map_err(|_| "the gateway did not get ready".to_owned())?;
            if line.starts_with("tcp://") {
                gateway.tcp = line;
            } else if line.starts_with("tls://") {
                gateway.tls = line;
            } else if let Some(admin) = line.strip_prefix("admin ") {
                gateway.admin = admin.to_owned();
            } else if line.starts_with("ready") {
                return Ok(gateway);
            }
        }
    }

    /// What /proc says about it.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Whether the process is gone.
    pub(crate) fn has_ended(&self) -> bool {
        // Of a process that has ended and was not waited for, an entry is left that says so.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    }

    /// Asks it to drain, and waits. False when it had to be killed.
    pub(crate) fn stop(mut self) -> bool {
        self.process().terminate();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Does nothing to a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Beside this program; cargo builds both into the same folder. Built if it is not there yet.
pub(crate) fn find_program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = own.with_file_name("ringgate");
    let release = own.parent().is_some_and(|folder| folder.ends_with("release"));
    if let (Some(cargo), Some(manifest)) = (std::env::var_os("CARGO"), option_env!("CARGO_MANIFEST_DIR")) {
        // Run by cargo: an old gateway beside a new load tester would only confuse.
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "ringgate", "--bin", "ringgate"]).current_dir(manifest);
        if release {
            build.arg("--release");
        }
        if !build.status().is_ok_and(|status| status.success()) {
            return Err("the gateway could not be built".to_owned());
        }
    }
    if beside.exists() { Ok(beside) } else { Err(format!("{} is missing; build it first", beside.display())) }
}

/// A process on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub u32);

impl Process {
    /// This process.
    pub(crate) fn own() -> Process {
        Process(std::process::id())
    }

    /// Bytes of anonymous memory: what the program itself uses.
    pub(crate) fn user_bytes(self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    /// Bytes that are in memory, files that are mapped among them.
    pub(crate) fn resident_bytes(self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0));
        let nanos = tasks.into_iter().flatten().flatten().map(|task| {
            let schedstat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            schedstat.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }

    #[allow(unsafe_code, reason = "kill has no safe wrapper in std")]
    fn terminate(self) {
        // SAFETY: no pointers; the process is a child of ours that was not waited for.
        unsafe { libc::kill(self.0 as i32, libc::SIGTERM) };
    }
}

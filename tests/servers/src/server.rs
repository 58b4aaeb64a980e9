//! One server: start, kill, restart, pause, ask.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::port::Port;
use crate::process::Process;
use crate::resp::{Client, Value};
use crate::{DEADLINE, tls, wait_until};

/// Which program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Program {
    /// `redis-server` of the search path.
    #[default]
    Redis,
    /// Valkey 9, as `tests/servers/install` brings it; without TLS.
    Valkey,
}

/// What of its data a server writes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Append {
    /// Nothing: `appendonly no`.
    #[default]
    Off,
    /// `appendfsync everysec`.
    EverySecond,
    /// `appendfsync always`.
    Always,
}

/// `maxmemory` and what happens beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub bytes_max: u64,
    /// For instance `noeviction` or `allkeys-lru`.
    pub policy: &'static str,
}

/// A user of the server's access control list, who may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `default` is the one of clients that give a password alone.
    pub name: String,
    /// In plain text.
    pub password: String,
}

/// How a server is started. The default is Redis without persistence, without a bound of memory and open to everybody.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Redis or Valkey.
    pub program: Program,
    /// Persistence.
    pub append: Append,
    /// Bound of memory, if any.
    pub memory: Option<Memory>,
    /// Who may sign in; with an empty list everybody may, without a password.
    pub users: Vec<User>,
    /// Also listens with TLS, on a port of its own.
    pub tls: bool,
    /// Further lines of the configuration.
    pub lines: Vec<String>,
}

/// Whose connections [`Server::kill_clients`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Those that send commands.
    Normal,
    /// Those with subscriptions.
    Pubsub,
    /// Those of replicas.
    Replica,
}

/// What kind of server it is.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Alone, or the first primary.
    Primary,
    /// Of the server at this port.
    Replica(u16),
    /// Of a Cluster; a port for the other nodes goes with it.
    Node,
    /// Watches others; these are all of its lines.
    Sentinel(Vec<String>),
}

/// A server, running or not; its process and its files go when it is dropped. The files stay where a test panics.
#[derive(Debug)]
pub struct Server {
    options: Options,
    role: Role,
    folder: PathBuf,
    port: Port,
    tls_port: Option<Port>,
    bus_port: Option<Port>,
    process: Option<Process>,
}

/// The tests' own user, where there are users.
const CONTROL: (&str, &str) = ("test-control", "test-control-password");

impl Server {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When the program is missing, or the server does not come up.
    pub fn start(options: &Options) -> Server {
        Server::start_as(options, Role::Primary)
    }

    /// A server and this many replicas of it, all of them connected.
    pub fn start_with_replicas(options: &Options, replicas: usize) -> (Server, Vec<Server>) {
        let primary = Server::start(options);
        let replicas = (0..replicas).map(|_| primary.start_replica()).collect();
        (primary, replicas)
    }

    /// A replica of this server, with its options; returned when it has its data.
    pub fn start_replica(&self) -> Server {
        let replica = Server::start_as(&self.options, Role::Replica(self.port.number));
        replica.wait_for_primary_link();
        replica
    }

    pub(crate) fn wait_for_primary_link(&self) {
        wait_until(format_args!("{} follows its primary", self.address()), || {
            self.info("replication").get("master_link_status").is_some_and(|status| status == "up")
        });
    }

    pub(crate) fn start_as(options: &Options, role: Role) -> Server {
        let folder = new_folder();
        if options.tls {
            assert!(options.program == Program::Redis, "the Valkey of the tests is built without TLS");
            tls::write_files(&folder).unwrap_or_else(|error| panic!("certificates: {error}"));
        }
        let mut server = Server {
            port: Port::free(),
            tls_port: options.tls.then(Port::free),
            bus_port: matches!(role, Role::Node).then(Port::free),
            options: options.clone(),
            role,
            folder,
            process: None,
        };
        server.write_files();
        server.restart();
        server
    }

    fn write_files(&self) {
        let write = |name: &str, lines: &[String]| {
            let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            std::fs::write(self.folder.join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
        };
        write("server.conf", &self.lines());
        if !self.options.users.is_empty() {
            let rules = |name: &str, password: &str| format!("user {name} on >{password} ~* &* +@all");
            let mut lines = vec![rules(CONTROL.0, CONTROL.1)];
            lines.extend(self.options.users.iter().map(|user| rules(&user.name, &user.password)));
            if self.options.users.iter().all(|user| user.name != "default") {
                lines.push("user default off".to_owned());
            }
            write("users.acl", &lines);
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("port {}", self.port.number),
            "bind 127.0.0.1".to_owned(),
            "protected-mode no".to_owned(),
            format!("dir {}", self.folder.display()),
            "logfile server.log".to_owned(),
            "daemonize no".to_owned(),
        ];
        if let Role::Sentinel(more) = &self.role {
            lines.extend(more.iter().cloned());
            return lines;
        }
        lines.extend(["save \"\"", "enable-debug-command local", "repl-diskless-sync-delay 0"].map(str::to_owned));
        match self.options.append {
            Append::Off => lines.push("appendonly no".to_owned()),
            Append::EverySecond => lines.extend(["appendonly yes", "appendfsync everysec"].map(str::to_owned)),
            Append::Always => lines.extend(["appendonly yes", "appendfsync always"].map(str::to_owned)),
        }
        if let Some(memory) = self.options.memory {
            lines.push(format!("maxmemory {}", memory.bytes_max));
            lines.push(format!("maxmemory-policy {}", memory.policy));
        }
        if !self.options.users.is_empty() {
            lines.push(format!("aclfile {}", self.folder.join("users.acl").display()));
            lines.push(format!("masteruser {}", CONTROL.0));
            lines.push(format!("masterauth {}", CONTROL.1));
        }
        if let Some(port) = &self.tls_port {
            lines.push(format!("tls-port {}", port.number));
            lines.push("tls-auth-clients no".to_owned());
            for (key, file) in
                [("tls-cert-file", "server.pem"), ("tls-key-file", "server.key"), ("tls-ca-cert-file", "ca.pem")]
            {
                lines.push(format!("{key} {}", self.folder.join(file).display()));
            }
        }
        if let Role::Replica(primary) = self.role {
            lines.push(format!("replicaof 127.0.0.1 {primary}"));
        }
        if let Some(port) = &self.bus_port {
            lines.extend(["cluster-enabled yes", "cluster-config-file nodes.conf"].map(str::to_owned));
            lines.push("cluster-node-timeout 2000".to_owned());
            lines.push(format!("cluster-port {}", port.number));
        }
        lines.extend(self.options.lines.iter().cloned());
        lines
    }

    // Its life.

    /// Kills it if it runs, and starts it on the same port and folder; returns when it answers.
    pub fn restart(&mut self) {
        self.kill();
        let program = program(self.options.program);
        let mut command = Command::new(&program);
        command.arg(self.folder.join("server.conf")).current_dir(&self.folder);
        if matches!(self.role, Role::Sentinel(_)) {
            command.arg("--sentinel");
        }
        let errors = std::fs::File::create(self.folder.join("errors.log")).expect("a file");
        command.stdin(Stdio::null()).stdout(errors.try_clone().expect("a file")).stderr(errors);
        let process = Process::start(command);
        let mut process = process.unwrap_or_else(|error| panic!("{}: {error}; {}", program.display(), REMEDY));
        wait_until(Unanswered(&self.folder), || {
            assert!(!process.has_ended(), "{}", Unanswered(&self.folder));
            // While it loads its data it answers with LOADING.
            self.try_command(&["PING"]).is_ok_and(|answer| answer == Value::Simple("PONG".to_owned()))
        });
        self.process = Some(process);
    }

    /// As kill -9, and waits for its end.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits for its end: the server writes down what it still has to.
    pub fn terminate(&mut self) {
        if let Some(process) = self.process.take() {
            process.terminate();
        }
    }

    /// SIGSTOP: connections stay, and nothing is answered.
    pub fn pause(&self) {
        self.process().pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process().resume();
    }

    /// Started, and not killed since. A server that is paused runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Of the process, as the kernel numbers it.
    pub fn process_id(&self) -> u32 {
        self.process().id()
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("{} does not run; call restart()", self.address()))
    }

    // Where it is.

    /// Without TLS.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number).into()
    }

    /// With TLS.
    ///
    /// # Panics
    /// Without [`Options::tls`].
    pub fn tls_address(&self) -> SocketAddr {
        let port = self.tls_port.as_ref().expect("Options::tls");
        (Ipv4Addr::LOCALHOST, port.number).into()
    }

    pub(crate) fn bus_port(&self) -> u16 {
        self.bus_port.as_ref().expect("a node of a Cluster").number
    }

    /// The certificate that clients with TLS trust, as PEM.
    pub fn authority_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Its files: data, configuration, `server.log`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    // Questions and orders.

    /// A connection that is signed in and may do everything.
    ///
    /// # Errors
    /// When it cannot be reached, gives no answer within [`DEADLINE`], or refuses.
    pub fn connect(&self) -> io::Result<Client> {
        self.connect_within(DEADLINE)
    }

    fn connect_within(&self, timeout: Duration) -> io::Result<Client> {
        let mut client = Client::connect(self.address(), timeout)?;
        if let Some((user, password)) = self.control_user()
            && let Value::Error(error) = client.command(&["AUTH", user, password])?
        {
            return Err(io::Error::other(error));
        }
        Ok(client)
    }

    /// Who may do everything, where there are users.
    pub(crate) fn control_user(&self) -> Option<(&'static str, &'static str)> {
        (!self.options.users.is_empty()).then_some(CONTROL)
    }

    /// The answer to a command.
    ///
    /// # Panics
    /// When the server cannot be reached, or answers with an error.
    pub fn command(&self, words: &[&str]) -> Value {
        match self.ask(words, DEADLINE) {
            Ok(value) => value,
            Err(error) => panic!("{} at {}: {error}", words.join(" "), self.address()),
        }
    }

    /// As [`Self::command`].
    ///
    /// # Errors
    /// What the server answered, or why it could not be asked; after two seconds that it did not answer.
    pub fn try_command(&self, words: &[&str]) -> io::Result<Value> {
        self.ask(words, Duration::from_secs(2))
    }

    fn ask(&self, words: &[&str], timeout: Duration) -> io::Result<Value> {
        let mut client = self.connect_within(timeout)?;
        match client.command(words)? {
            Value::Error(error) => Err(io::Error::other(error)),
            value => Ok(value),
        }
    }

    /// Changes a setting of the running server.
    pub fn config_set(&self, key: &str, value: &str) {
        self.command(&["CONFIG", "SET", key, value]);
    }

    /// The fields of a section of INFO; none while the server cannot be asked.
    pub fn info(&self, section: &str) -> BTreeMap<String, String> {
        let answer = self.try_command(&["INFO", section]).ok();
        let text = answer.and_then(|answer| answer.text()).unwrap_or_default();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// How often a command was executed since the server started, also within scripts; in small letters, like `xadd` or
    /// `client|kill`. Counting costs the server nothing, unlike MONITOR.
    ///
    /// # Panics
    /// When the server cannot be asked.
    pub fn calls(&self, command: &str) -> u64 {
        let answer = self.command(&["INFO", "commandstats"]).text().expect("text");
        let start = format!("cmdstat_{command}:calls=");
        let calls = answer.lines().find_map(|line| line.strip_prefix(&start)?.split_once(','));
        calls.map_or(0, |(calls, _)| calls.parse().expect("a number"))
    }

    /// Ends all connections of a kind but that of the order, and returns how many there were.
    pub fn kill_clients(&self, kind: ClientKind) -> u64 {
        let kind = match kind {
            ClientKind::Normal => "normal",
            ClientKind::Pubsub => "pubsub",
            ClientKind::Replica => "replica",
        };
        let killed = self.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).integer();
        u64::try_from(killed.expect("a number")).expect("a count")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the files of the server at {} are in {}", self.address(), self.folder.display());
        } else {
            // What cannot be removed goes with the target folder.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

const REMEDY: &str = "tests/servers/install brings the servers that tests need";

/// Where a program is.
fn program(program: Program) -> PathBuf {
    match program {
        Program::Redis => "redis-server".into(),
        Program::Valkey => {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/valkey-server");
            assert!(path.exists(), "{} is not there; {REMEDY}", path.display());
            path
        }
    }
}

/// A new folder beside the test's program.
fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let program = std::env::current_exe().expect("a program");
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{number}", std::process::id());
    let folder = program.parent().expect("a folder").join("test-servers").join(name);
    // Left by an earlier process of this id that was killed.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// Shown with the end of what the server has logged.
struct Unanswered<'a>(&'a Path);

impl std::fmt::Display for Unanswered<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a server answers; its last lines in {}:", self.0.display())?;
        for name in ["errors.log", "server.log"] {
            let text = std::fs::read_to_string(self.0.join(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(10)) {
                write!(f, "\n{line}")?;
            }
        }
        Ok(())
    }
}

//! Configuration: a TOML file -> validated settings, frozen at start.
//!
//! Nothing is bound and no thread is started before the whole file was understood. Every problem names file, line,
//! key, what is wrong and what would be right, and all problems are reported at once.

pub mod fit;
mod raw;
mod redis;
mod reload;
mod validate;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

pub use self::redis::{HostPort, Password, RedisConfig, RedisMode, RedisTls, WhenAway};
pub use reload::Running;
pub use ringgate_auth::certificate::{CertificateError, certificate_from_files, dev_certificate, server_config};
pub use ringgate_core::units::{parse_duration_ms, parse_size};
pub use validate::log_filter;

use zeroize::Zeroizing;

use crate::cores::Cores;
use ringgate_auth::{Claims, Key};
use ringgate_core::limits::Settings;
use ringgate_core::transport::Transport;
use ringgate_net::ws::{OriginPattern, Rules};
use ringgate_net::{Descriptors, Front};

/// TCP port of a development gateway, and of the documentation.
pub const DEFAULT_PORT: u16 = 7400;
/// TLS port of a development gateway.
pub const DEFAULT_TLS_PORT: u16 = 7443;
/// WebSocket port of a development gateway.
pub const DEFAULT_WS_PORT: u16 = 7488;
/// Admin port of a development gateway.
pub const DEFAULT_ADMIN_PORT: u16 = 7480;

/// Everything that the process is told; see `default.toml` for what each value means.
pub struct Config {
    /// What the core is told.
    pub settings: Settings,
    /// How many shards, how large, where.
    pub runtime: Runtime,
    /// Addresses, in the order of the file.
    pub listeners: Vec<ListenerConfig>,
    /// Certificate and key, if any listener is TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// When the server's certificate ends, the first of the chain, in Unix seconds.
    pub tls_ends: Option<u64>,
    /// Names that the certificate must be for.
    pub tls_names: Vec<String>,
    /// What listeners of WebSocket ask of their connections.
    pub websocket: Rules,
    /// Token keys.
    pub keys: Vec<Key>,
    /// What tokens must say.
    pub claims: Claims,
    /// Admin listener, if any.
    pub admin: Option<SocketAddr>,
    /// Host names that the admin listener answers to besides `localhost` and addresses, in lower case.
    pub admin_hosts: Vec<String>,
    /// Listener of `/healthz` and `/readyz` alone, if any.
    pub health: Option<SocketAddr>,
    /// The Redis that links nodes, where that keeps messages (`settings.engine`).
    pub redis: Option<RedisConfig>,
    /// Logging.
    pub logging: Logging,
    /// What is allowed and probably not meant: for the log, and for people.
    pub warnings: Vec<Problem>,
    values: reload::Values,
}

/// How the process uses the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Shards; none for one per core, or per listed core.
    pub shards: Option<usize>,
    /// Pin shards to cores.
    pub pin_cores: bool,
    /// Which cores, and in which order.
    pub cores: Cores,
    /// Let memory be in huge pages where the kernel gives them.
    pub huge_pages: bool,
    /// Other processes of the same user may look into this one's memory, and the kernel may dump it.
    pub dumpable: bool,
    /// Where sockets live.
    pub descriptors: Descriptors,
    /// Slots of each shard's table.
    pub connections_per_shard_max: u32,
    /// Receive buffers of each shard.
    pub recv_buffers: u16,
    /// Bytes of each buffer.
    pub recv_buffer_bytes: usize,
    /// Per listener and shard.
    pub accepts_in_flight: usize,
    /// Letters.
    pub mailbox_capacity: usize,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where.
    pub address: SocketAddr,
    /// What is spoken there.
    pub front: Front,
    /// `[::]` leaves IPv4 alone; of no meaning for other addresses.
    pub ipv6_only: bool,
}

impl ListenerConfig {
    /// For this transport alone.
    pub fn new(address: SocketAddr, transport: Transport) -> Self {
        ListenerConfig { address, front: Front::new(transport), ipv6_only: false }
    }
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// What [`log_filter`] reads.
    pub level: String,
    /// JSON, one object a line; else text for people.
    pub json: bool,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, if the problem has one.
    pub line: Option<usize>,
    /// Dotted key.
    pub key: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct Problems {
    /// The file.
    pub file: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&problem.in_file(&self.file))?;
        }
        Ok(())
    }
}

impl Problem {
    /// As one line: `file:line: key: text`.
    pub fn in_file(&self, file: &str) -> String {
        let line = self.line.map_or_else(String::new, |line| format!(":{line}"));
        let key = if self.key.is_empty() { String::new() } else { format!(": {}", self.key) };
        format!("{file}{line}{key}: {}", self.text)
    }
}

impl std::error::Error for Problems {}

/// The commented default, as `ringgate config` prints it.
pub fn default_text() -> &'static str {
    include_str!("default.toml")
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime {
            shards: None,
            pin_cores: true,
            cores: Cores::Auto,
            huge_pages: false,
            dumpable: false,
            descriptors: Descriptors::for_this_kernel(),
            connections_per_shard_max: 16_384,
            recv_buffers: 1024,
            recv_buffer_bytes: 4096,
            accepts_in_flight: 32,
            mailbox_capacity: 8192,
        }
    }
}

impl Runtime {
    /// Slots of each shard's table beyond `connections_per_shard_max`: for accepts in flight, and for connections that are refused
    /// because the shard is full, until they are closed.
    pub fn spare_slots(&self) -> u32 {
        (2 * self.accepts_in_flight).max(16) as u32
    }

    /// The number of shards on this machine.
    pub fn shard_count(&self) -> usize {
        self.shards.unwrap_or_else(|| match &self.cores {
            Cores::Auto => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            Cores::List(list) => list.len(),
        })
    }
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Config, Problems> {
        let (text, file) = read(path)?;
        Config::parse(&text, &file)
    }

    /// As [`Self::load`], for `ringgate doctor`, which looks itself whether this host can hold that many connections.
    pub fn load_for_doctor(path: &Path) -> Result<Config, Problems> {
        let (text, file) = read(path)?;
        Config::understand(&text, &file, |_| Vec::new())
    }

    /// As [`Self::load`], from memory; `file` is for messages.
    pub fn parse(text: &str, file: &str) -> Result<Config, Problems> {
        Config::understand(text, file, fit::check_host)
    }

    fn understand(text: &str, file: &str, fits: validate::Fits) -> Result<Config, Problems> {
        let raw = toml::from_str::<raw::File>(text).map_err(|mut error| {
            let line = error.span().map(|span| ringgate_core::units::line_of(text, span.start));
            // Where there is no text to show, the key is shown: no other way leads to it.
            error.set_input(None);
            let shown = error.to_string();
            let key = shown.rsplit_once("\nin `").and_then(|(_, key)| key.split_once('`'));
            let key = key.map_or_else(String::new, |(key, _)| key.to_owned());
            let text = renamed(&key, error.message()).unwrap_or_else(|| error.message().trim().to_owned());
            let problem = Problem { line, key, text };
            Problems { file: file.to_owned(), problems: vec![problem] }
        })?;
        validate::validate(&raw, text, file, fits).map_err(|problems| Problems { file: file.to_owned(), problems })
    }

    /// As `tls.memory = "compact"` in the file.
    pub fn make_tls_compact(&mut self) {
        if let Some(tls) = &mut self.tls {
            ringgate_net::tls::make_compact(Arc::make_mut(tls));
        }
    }

    /// For `--dev`: loopback, the development key, a certificate made now, default ports if free and else others.
    /// Returns the certificate in PEM form, too, for clients.
    pub fn dev(shards: Option<usize>) -> Result<(Config, String), String> {
        let (certificate, key) = dev_certificate()?;
        let tls = server_config(certificate.as_bytes(), key.as_bytes())?;
        let listener = |port, transport| ListenerConfig::new(free_port(port), transport);
        let listeners = vec![
            listener(DEFAULT_PORT, Transport::Plain),
            listener(DEFAULT_TLS_PORT, Transport::Tls),
            listener(DEFAULT_WS_PORT, Transport::Ws),
        ];
        // Pages under development are served from this host, on a port of their own.
        let origins = ["http://localhost:*", "http://127.0.0.1:*", "https://localhost:*", "https://127.0.0.1:*"];
        let origins = origins.map(|origin| OriginPattern::parse(origin).map_err(|error| error.to_string()));
        let origins = origins.into_iter().collect::<Result<_, _>>()?;
        let settings = Settings::default();
        let config = Config {
            websocket: Rules { origins, ..validate::rules(&settings) },
            settings,
            // Everybody knows the keys anyway, and developers use gdb and perf.
            runtime: Runtime { shards, dumpable: true, ..Runtime::default() },
            listeners,
            tls: Some(Arc::new(tls)),
            tls_ends: ringgate_auth::certificate::ends(certificate.as_bytes()),
            tls_names: Vec::new(),
            keys: vec![Key::dev()],
            claims: Claims { require_exp: true, leeway_seconds: 5, ..Claims::default() },
            admin: Some(free_port(DEFAULT_ADMIN_PORT)),
            admin_hosts: Vec::new(),
            health: None,
            redis: None,
            logging: Logging { level: "info".to_owned(), json: false },
            warnings: Vec::new(),
            values: reload::Values::default(),
        };
        Ok((config, certificate))
    }
}

/// This port of loopback if it is free, else one that the system chooses.
pub(crate) fn free_port(port: u16) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    if ringgate_net::is_taken(address, false).is_ok() { address } else { SocketAddr::from(([127, 0, 0, 1], 0)) }
}

/// What is said instead of "unknown field" where the key had that name in earlier versions. `key` is dotted, with the old name
/// at its end or without it.
fn renamed(key: &str, message: &str) -> Option<String> {
    let old = message.trim().strip_prefix("unknown field `")?.split_once('`')?.0;
    let section = key.strip_suffix(old).unwrap_or(key).trim_end_matches('.');
    let is_it = |(known, _): &&(&str, &str)| known.split_once('.') == Some((section, old));
    let (_, new) = raw::RENAMED.iter().find(is_it)?;
    Some(format!("`{old}` is called `{new}` now: write {section}.{new}"))
}

/// The text of a file, which may hold secrets, and its name for messages.
fn read(path: &Path) -> Result<(Zeroizing<String>, String), Problems> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((Zeroizing::new(text), file)),
        Err(error) => {
            let text = format!("cannot be read: {error}");
            Err(Problems { file, problems: vec![Problem { line: None, key: String::new(), text }] })
        }
    }
}

#[cfg(test)]
mod tests;

//! What the configured Redis says of itself, and what follows from it: whether it may keep messages, and how safe they are there.
//!
//! Blocking, with timeouts for each connection and each answer; for the start and for `ringgate doctor`, not for a shard's thread. Looked
//! at are the servers that take writes: the server itself, the primary that Sentinels name, or every master of the Cluster. What a server does not
//! let the gateway's user see is a reason, never taken for good.

use std::time::{Duration, Instant};

use redis::{Client, RedisError, TlsCertificates, Value};
use redis::{Cmd, Connection, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo};

use crate::config::{HostPort, RedisConfig, RedisMode};
use ringgate_core::id::Durability;

/// The oldest Redis with ids of the form `<epoch>-*` in XADD, and with sharded channels.
pub const OLDEST: (u32, u32) = (7, 0);
/// PINGs of which [`Latency`] is made.
const PINGS: usize = 50;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Those that take writes and answered.
    pub servers: Vec<ServerFacts>,
    /// Those that did not answer as they should.
    pub failures: Vec<Failure>,
    /// How the Cluster stands, where it is one.
    pub cluster: Option<ClusterFacts>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Where it is.
    pub address: HostPort,
    /// Round trips.
    pub latency: Latency,
    /// For people: `Redis 7.0.15`.
    pub product: String,
    /// Of Redis, also where it is a Valkey that says with which Redis it is compatible: major and minor.
    pub version: (u32, u32),
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// `master` or `slave`.
    pub role: String,
    /// `appendonly`.
    pub appends: bool,
    /// `appendfsync`, or why it is not known.
    pub fsync: Result<String, String>,
    /// `maxmemory` in bytes; 0 for no bound.
    pub memory_bytes_max: u64,
    /// `maxmemory-policy`.
    pub policy: String,
    /// `client-output-buffer-limit` of subscribers, or why it is not known.
    pub pubsub_buffer: Result<BufferLimit, String>,
    /// `stream-node-max-bytes`, or why it is not known.
    pub stream_node_bytes_max: Result<u64, String>,
    /// Replicas that are connected and up to date.
    pub replicas: u32,
    /// `cluster-require-full-coverage`, or why it is not known; it says nothing outside a Cluster.
    pub full_coverage: Result<String, String>,
    /// What each replica says of itself; one of them may take this server's place.
    pub replica_facts: Vec<ReplicaFacts>,
}

/// A replica, as far as it decides whether messages survive that it takes the place of its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFacts {
    /// As its primary calls it.
    pub address: HostPort,
    /// `appendonly` and `maxmemory-policy`, or why they are not known.
    pub keeps: Result<(bool, String), String>,
}

/// Microseconds of 50 round trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// The shortest.
    pub least_us: u64,
    /// The one in the middle.
    pub median_us: u64,
}

/// Bytes that may wait for one client; 0 for no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimit {
    /// At once.
    pub hard_bytes: u64,
    /// For [`Self::soft_seconds`].
    pub soft_bytes: u64,
    /// See [`Self::soft_bytes`].
    pub soft_seconds: u64,
}

/// A server that did not answer as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub address: HostPort,
    /// It was only asked where the others are, and another one was asked then: a Sentinel, or a node of the Cluster.
    pub was_guide: bool,
    /// What happened.
    pub reason: String,
}

/// A Cluster, as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFacts {
    /// `ok`, or `fail`.
    pub state: String,
    /// Of 16 384, those with a master that answers.
    pub slots_ok: u64,
}

impl Facts {
    /// Asks all servers, one after the other. Each may take `connect_timeout_ms` and `command_timeout_ms` for each question.
    pub fn gather(config: &RedisConfig) -> Facts {
        let mut facts = Facts::default();
        for address in facts.writers(config) {
            match look(&address, config) {
                Ok(server) => facts.servers.push(server),
                Err(error) => facts.failures.push(Failure { address, was_guide: false, reason: reason(&error) }),
            }
        }
        facts
    }

    /// Where the servers are that take writes. Guides are asked in turn, until one knows.
    fn writers(&mut self, config: &RedisConfig) -> Vec<HostPort> {
        if config.mode == RedisMode::Standalone {
            return config.addresses.clone();
        }
        for guide in &config.addresses {
            let told = match &config.mode {
                RedisMode::Sentinel { master } => primary(guide, master, config).map(|primary| vec![primary]),
                RedisMode::Standalone | RedisMode::Cluster => masters(guide, config).map(|(masters, cluster)| {
                    self.cluster = Some(cluster);
                    masters
                }),
            };
            match told {
                Ok(addresses) => return addresses,
                Err(reason) => self.failures.push(Failure { address: guide.clone(), was_guide: true, reason }),
            }
        }
        Vec::new()
    }
}

/// Why the gateway must not keep messages in this Redis: the server, its setting, and what would be right. `None` where it may; a server
/// that did not answer is not judged.
pub fn refuse(facts: &Facts, config: &RedisConfig) -> Option<String> {
    facts.servers.iter().find_map(|server| {
        let address = &server.address;
        if server.version < OLDEST {
            return Some(format!("{address} is {}; ringgate needs Redis 7.0 or newer, or Valkey 8 or newer", server.product));
        }
        if let Some(text) = wrong_mode(server, config) {
            return Some(format!("{address} {text}"));
        }
        if config.allow_volatile {
            return None;
        }
        let way_out = "or take that into account with redis.allow_volatile = true";
        if !server.appends {
            return Some(format!(
                "{address} has `appendonly no`, and forgets what it has acknowledged when it is killed; set `appendonly yes` there, {way_out}"
            ));
        }
        // Sentinels make one of them the primary.
        let is_watched = matches!(config.mode, RedisMode::Sentinel { .. });
        for ReplicaFacts { address, keeps } in server.replica_facts.iter().filter(|_| is_watched) {
            let setting = match keeps {
                Ok((false, _)) => "appendonly no",
                Ok((true, policy)) if policy != "noeviction" => "another maxmemory-policy than noeviction",
                Ok((true, _)) | Err(_) => continue,
            };
            return Some(format!(
                "{address}, a replica of {} that Sentinels may make the primary, has {setting}, and forgets messages then; set \
                 `appendonly yes` and `maxmemory-policy noeviction` there, {way_out}",
                server.address
            ));
        }
        if server.policy != "noeviction" {
            return Some(format!(
                "{address} has `maxmemory-policy {}`, and drops messages when memory is short; set `maxmemory-policy noeviction` \
                 there, {way_out}",
                server.policy
            ));
        }
        None
    })
}

/// What the server is and the configuration does not say.
pub fn wrong_mode(server: &ServerFacts, config: &RedisConfig) -> Option<String> {
    let wanted = match config.mode {
        RedisMode::Standalone | RedisMode::Sentinel { .. } => "standalone",
        RedisMode::Cluster => "cluster",
    };
    if server.mode != wanted {
        return Some(match server.mode.as_str() {
            "cluster" => "is a node of a Cluster; write redis.mode = \"cluster\"".to_owned(),
            "sentinel" => "is a Sentinel; write redis.mode = \"sentinel\" and redis.sentinel_master".to_owned(),
            _ => "is no node of a Cluster; write redis.mode = \"standalone\", or the address of one".to_owned(),
        });
    }
    (server.role != "master")
        .then(|| "is a replica, which takes no writes; write the address of its primary".to_owned())
}

/// How safe a message is that this Redis has acknowledged: on stable storage only where every server writes each command down first.
pub fn durability(facts: &Facts) -> Durability {
    let syncs = |server: &ServerFacts| server.appends && server.fsync.as_deref() == Ok("always");
    let is_whole = !facts.servers.is_empty() && facts.failures.iter().all(|failure| failure.was_guide);
    if is_whole && facts.servers.iter().all(syncs) { Durability::Durable } else { Durability::Memory }
}

/// Who is connected to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Server,
    Sentinel,
}

fn connect(address: &HostPort, config: &RedisConfig, peer: Peer) -> Result<Connection, RedisError> {
    let (host, port) = (address.host.clone(), address.port);
    let at = match config.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    };
    let mut user = RedisConnectionInfo::default().set_skip_set_lib_name();
    let password = match peer {
        Peer::Server => {
            user = user.set_db(config.database.into());
            if let Some(name) = &config.user {
                user = user.set_username(name);
            }
            &config.password
        }
        Peer::Sentinel => &config.sentinel_password,
    };
    if let Some(password) = password {
        user = user.set_password(password.reveal());
    }
    let info: ConnectionInfo = at.into_connection_info()?.set_redis_settings(user);
    let client = match &config.tls {
        None => Client::open(info)?,
        Some(tls) => {
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: tls.authorities.clone() })?
        }
    };
    let connection = client.get_connection_with_timeout(Duration::from_millis(config.connect_timeout_ms))?;
    let timeout = Some(Duration::from_millis(config.command_timeout_ms));
    connection.set_read_timeout(timeout)?;
    connection.set_write_timeout(timeout)?;
    Ok(connection)
}

fn command<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> Result<T, RedisError> {
    let mut command = Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query(connection)
}

fn look(address: &HostPort, config: &RedisConfig) -> Result<ServerFacts, RedisError> {
    let mut connection = connect(address, config, Peer::Server)?;
    let latency = latency(&mut connection)?;
    // Sections one by one: what stands in the default answer is not the same in all versions.
    let mut info = String::new();
    for section in ["server", "memory", "persistence", "replication"] {
        info.push_str(&command::<String>(&mut connection, &["INFO", section])?);
    }
    let number = |key: &str| field(&info, key).and_then(|text| text.parse::<u64>().ok());
    let version = field(&info, "redis_version").unwrap_or_default();
    let product = match field(&info, "valkey_version") {
        Some(valkey) => format!("Valkey {valkey}"),
        None => format!("Redis {version}"),
    };
    let mut setting = |key: &str| setting(&mut connection, key);
    Ok(ServerFacts {
        address: address.clone(),
        latency,
        product,
        version: version_of(version).unwrap_or((0, 0)),
        mode: field(&info, "server_mode").or(field(&info, "redis_mode")).unwrap_or("standalone").to_owned(),
        role: field(&info, "role").unwrap_or("master").to_owned(),
        appends: field(&info, "aof_enabled") == Some("1"),
        fsync: setting("appendfsync"),
        memory_bytes_max: number("maxmemory").unwrap_or(0),
        policy: field(&info, "maxmemory_policy").unwrap_or("unknown").to_owned(),
        pubsub_buffer: setting("client-output-buffer-limit").and_then(|text| pubsub_limit(&text)),
        stream_node_bytes_max: setting("stream-node-max-bytes")
            .and_then(|text| text.parse().map_err(|_| format!("\"{text}\" is not a number"))),
        full_coverage: setting("cluster-require-full-coverage"),
        replicas: online_replicas(&info),
        replica_facts: replicas_in(&info).map(|replica| look_at_replica(replica, config)).collect(),
    })
}

fn look_at_replica(address: HostPort, config: &RedisConfig) -> ReplicaFacts {
    let ask = || -> Result<(bool, String), RedisError> {
        let mut connection = connect(&address, config, Peer::Server)?;
        let mut info = String::new();
        for section in ["memory", "persistence"] {
            info.push_str(&command::<String>(&mut connection, &["INFO", section])?);
        }
        let policy = field(&info, "maxmemory_policy").unwrap_or("unknown").to_owned();
        Ok((field(&info, "aof_enabled") == Some("1"), policy))
    };
    let keeps = ask().map_err(|error| reason(&error));
    ReplicaFacts { address, keeps }
}

fn latency(connection: &mut Connection) -> Result<Latency, RedisError> {
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let start = Instant::now();
        command::<()>(connection, &["PING"])?;
        times.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or(0);
    Ok(Latency { least_us: at(0), median_us: at(PINGS / 2) })
}

/// A setting of the server, or why it does not tell: managed services forbid CONFIG, and a user may have no right to it.
fn setting(connection: &mut Connection, key: &str) -> Result<String, String> {
    let answer: Vec<String> = command(connection, &["CONFIG", "GET", key]).map_err(|error| reason(&error))?;
    answer.into_iter().nth(1).ok_or_else(|| format!("it has no setting {key}"))
}

/// The primary that a Sentinel knows by this name.
fn primary(sentinel: &HostPort, master: &str, config: &RedisConfig) -> Result<HostPort, String> {
    let mut connection = connect(sentinel, config, Peer::Sentinel).map_err(|error| reason(&error))?;
    let answer: Option<Vec<String>> =
        command(&mut connection, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master]).map_err(|error| reason(&error))?;
    let unknown = || format!("this Sentinel knows no primary named \"{master}\" (redis.sentinel_master)");
    let [host, port] = answer.ok_or_else(unknown)?.try_into().map_err(|_| unknown())?;
    let port = port.parse().map_err(|_| format!("this Sentinel says that the primary's port is \"{port}\""))?;
    Ok(HostPort { host, port })
}

/// The masters of the Cluster, by the order of their slots, and how it stands, as one of its nodes sees it.
fn masters(node: &HostPort, config: &RedisConfig) -> Result<(Vec<HostPort>, ClusterFacts), String> {
    let mut connection = connect(node, config, Peer::Server).map_err(|error| reason(&error))?;
    let info: String = command(&mut connection, &["CLUSTER", "INFO"]).map_err(|error| reason(&error))?;
    let slots: Vec<Vec<Value>> = command(&mut connection, &["CLUSTER", "SLOTS"]).map_err(|error| reason(&error))?;
    let cluster = ClusterFacts {
        state: field(&info, "cluster_state").unwrap_or("unknown").to_owned(),
        slots_ok: field(&info, "cluster_slots_ok").and_then(|text| text.parse().ok()).unwrap_or(0),
    };
    let mut masters: Vec<HostPort> = Vec::new();
    for range in slots {
        // First and last slot, the master, its replicas.
        let Some(Value::Array(master)) = range.into_iter().nth(2) else { continue };
        let mut master = master.into_iter();
        let host = master.next().and_then(|host| redis::from_redis_value::<Option<String>>(host).ok()).flatten();
        let port = master.next().and_then(|port| redis::from_redis_value::<u16>(port).ok());
        let Some(port) = port else { continue };
        // A node that does not know its own name means the one by which it was asked.
        let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| node.host.clone());
        let master = HostPort { host, port };
        if !masters.contains(&master) {
            masters.push(master);
        }
    }
    if masters.is_empty() { Err("this node knows no master of any slot".to_owned()) } else { Ok((masters, cluster)) }
}

/// The value behind `key:` in an answer of INFO.
fn field<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.split_once(':').filter(|(name, _)| *name == key)).map(|(_, value)| value.trim())
}

fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Of `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`, the last three.
fn pubsub_limit(text: &str) -> Result<BufferLimit, String> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    let mut number = || words.next().and_then(|word| word.parse().ok());
    let limit = number().zip(number()).zip(number());
    let limit =
        limit.map(|((hard_bytes, soft_bytes), soft_seconds)| BufferLimit { hard_bytes, soft_bytes, soft_seconds });
    limit.ok_or_else(|| format!("\"{text}\" says nothing of pubsub"))
}

/// Lines of replicas: `slave0:ip=127.0.0.1,port=6380,state=online,offset=14,lag=0`, without what stands before the colon.
fn replica_lines(info: &str) -> impl Iterator<Item = &str> {
    let is_replica = |name: &str| {
        name.strip_prefix("slave")
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let lines = info.lines().filter_map(|line| line.split_once(':'));
    lines.filter(move |(name, _)| is_replica(name)).map(|(_, value)| value.trim())
}

/// How many replicas are online.
fn online_replicas(info: &str) -> u32 {
    let online = replica_lines(info).filter(|line| line.contains("state=online"));
    u32::try_from(online.count()).unwrap_or(u32::MAX)
}

/// Where the replicas are.
fn replicas_in(info: &str) -> impl Iterator<Item = HostPort> {
    replica_lines(info).filter_map(|line| {
        let value = |key: &str| line.split(',').find_map(|part| part.split_once('=').filter(|(name, _)| *name == key));
        let (host, port) = (value("ip")?.1.to_owned(), value("port")?.1.parse().ok()?);
        Some(HostPort { host, port })
    })
}

/// What a library's error says to people.
fn reason(error: &RedisError) -> String {
    if error.is_timeout() { "no answer in time".to_owned() } else { error.to_string() }
}

#[cfg(test)]
mod tests;

//! What a connection for commands learns before it is used: what server it reaches, its clock and its scripts.

use std::io;
use std::time::Instant;

use crate::keys::Keys;
use crate::options::{Options, Server, Servers};
use crate::resp::Answer;
use crate::scripts::{Hashes, Script};
use crate::wire::{Questions, Wire, master, refused, slots};

/// A connection that may be used.
pub(crate) struct Ready {
    pub(crate) wire: Wire,
    pub(crate) server: Server,
    pub(crate) client: ClientName,
    pub(crate) hashes: Hashes,
    pub(crate) facts: Facts,
    /// The server's clock in Unix milliseconds, and when it was told.
    pub(crate) clock: (Instant, u64),
    /// Nothing of the connection before is done by Redis any more.
    pub(crate) is_alone: bool,
}

/// A connection, as Redis calls it: the server's run, and a number that is new for each connection of that run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientName {
    run: String,
    number: u64,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// As `INFO` says: of Redis, or of the Redis that a Valkey is compatible with.
    pub version: String,
    /// Whether it is a Cluster's node.
    pub is_cluster: bool,
    /// Whether it writes what it stores to an append-only file.
    pub appendonly: bool,
    /// `always`, `everysec` or `no`; none if the user may not ask.
    pub appendfsync: Option<String>,
    /// `noeviction`, for one; none if the user may not ask.
    pub maxmemory_policy: Option<String>,
    pub(crate) replication_id: String,
    run: String,
    role: String,
}

impl Facts {
    /// Whether an answer means that the message is on stable storage.
    pub fn is_durable(&self) -> bool {
        self.appendonly && self.appendfsync.as_deref() == Some("always")
    }

    fn is_new_enough(&self) -> bool {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        major.is_some_and(|major| major >= 7)
    }
}

/// Where what belongs to no topic is: the one master, or that of its slot.
pub(crate) async fn nodes_master(options: &Options, keys: &Keys) -> io::Result<Server> {
    let Servers::Cluster(nodes) = &options.servers else { return master(options).await };
    let slot = keys.slot_of(keys.nodes_partition());
    let slots = slots(options, nodes).await?;
    slots.master(slot).cloned().ok_or_else(|| io::Error::other(format!("no master of the Cluster has slot {slot}")))
}

/// Connects to a master for commands. `before` is the connection that it replaces, whose commands must not be done any more.
pub(crate) async fn ready(options: &Options, server: &Server, before: Option<&ClientName>) -> io::Result<Ready> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("Redis at {server}: {error}"));
    let mut wire = Wire::to(server, options).await.map_err(named)?;
    let (facts, clock_ms) = facts(&mut wire, options).await.map_err(named)?;
    let clock = (Instant::now(), clock_ms);
    if !facts.is_new_enough() {
        let text = format!("it has version {}, and 7.0 or newer is needed", facts.version);
        return Err(named(io::Error::other(text)));
    }
    match (facts.is_cluster, matches!(options.servers, Servers::Cluster(_))) {
        (true, false) => {
            return Err(named(io::Error::other("it is a node of a Cluster, and a server that stands alone is needed")));
        }
        (false, true) => return Err(named(io::Error::other("it is no node of a Cluster, and one is needed"))),
        (true, true) | (false, false) => {}
    }
    if facts.role != "master" {
        return Err(named(io::Error::other(format!("it is a {}, and a master is needed", facts.role))));
    }
    let is_alone = match before {
        // Another run of the server has nothing of it, and may have given its number to somebody else.
        Some(before) if before.run == facts.run => {
            let mut questions = Questions::default();
            questions.put(&[b"CLIENT", b"KILL", b"ID", before.number.to_string().as_bytes()]);
            let answers = wire.ask(questions, options.connect_timeout).await.map_err(named)?;
            answers.iter().try_for_each(refused).is_ok()
        }
        _ => true,
    };
    let mut questions = Questions::default();
    Script::ALL.iter().for_each(|script| questions.put(&[b"SCRIPT", b"LOAD", script.source().as_bytes()]));
    let answers = wire.ask(questions, options.connect_timeout).await.map_err(named)?;
    answers.iter().try_for_each(refused).map_err(named)?;
    let hashes = Hashes(answers.iter().filter_map(Answer::bytes).map(<[u8]>::to_vec).collect());
    let client = ClientName { run: facts.run.clone(), number: wire.client };
    Ok(Ready { wire, server: server.clone(), client, hashes, facts, clock, is_alone })
}

/// What the server says of itself, and its clock in Unix milliseconds.
async fn facts(wire: &mut Wire, options: &Options) -> io::Result<(Facts, u64)> {
    let mut questions = Questions::default();
    questions.put(&[b"TIME"]);
    questions.put(&[b"INFO"]);
    questions.put(&[b"CONFIG", b"GET", b"appendfsync"]);
    questions.put(&[b"CONFIG", b"GET", b"maxmemory-policy"]);
    let answers = wire.ask(questions, options.connect_timeout).await?;
    let mut answers = answers.into_iter();
    let (time, info) = (answers.next(), answers.next());
    [&time, &info].into_iter().flatten().try_for_each(refused)?;
    let mut config = || answers.next().as_ref().and_then(Answer::array)?.get(1)?.text().map(str::to_owned);
    let (appendfsync, maxmemory_policy) = (config(), config());
    let info = info.as_ref().and_then(Answer::text).unwrap_or_default();
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let facts = Facts {
        version: field("redis_version"),
        is_cluster: field("cluster_enabled") == "1",
        appendonly: field("aof_enabled") == "1",
        appendfsync,
        maxmemory_policy,
        replication_id: field("master_replid"),
        run: field("run_id"),
        role: field("role"),
    };
    let time = time.as_ref().and_then(Answer::array).unwrap_or_default();
    let part = |at: usize| time.get(at).and_then(Answer::number).unwrap_or(0);
    Ok((facts, part(0) * 1000 + part(1) / 1000))
}

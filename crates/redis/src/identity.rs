//! The identity of a node among those that share a Redis: the seed that all of them have, the run and the number that are its own.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::keys::Keys;
use crate::options::Options;
use crate::resp::{Answer, Value};
use crate::scripts::Script;
use crate::setup::{Facts, Ready, nodes_master, ready};
use crate::wire::{Questions, refused};

/// How long a node is taken to be alive after it was last heard of.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How often a node renews its lease, and reads those of the others.
pub(crate) const LEASE_EVERY: Duration = Duration::from_secs(5);
/// How long it is known when a lease ended.
pub(crate) const LEASES_KNOWN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Version of what stands in Redis.
const FORMAT: u32 = 1;

/// The identity of a node among those that share a Redis.
#[derive(Clone, Debug)]
pub struct Identity {
    /// All nodes have the same seed. It keys the hashes that choose a topic's home shard and that name client message ids.
    pub seed: u64,
    /// Of this start of the node, never given before.
    pub run: u64,
    /// The node's number, 0 to 1023, which no other node that lives has.
    pub number: u16,
    /// What Redis says of itself; of a Cluster, the master that has what belongs to no topic.
    pub facts: Facts,
    /// When Redis was asked, and its clock then in Unix milliseconds.
    pub(crate) clock: (Instant, u64),
}

/// Why a node cannot share a Redis.
#[derive(Debug)]
pub enum StartError {
    /// The options are wrong: says which, and what would be right.
    Options(String),
    /// Redis cannot be reached, is too old, or refuses what it is asked for: says which server and what it answered.
    Redis(io::Error),
    /// What stands in Redis under this prefix is of another version, or has another number of partitions.
    Format {
        /// As it stands there: version and partitions.
        found: String,
        /// As this node would write it.
        wanted: String,
    },
    /// Another node that lives has the number.
    NumberTaken(u16),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Options(text) => f.write_str(text),
            StartError::Redis(error) => error.fmt(f),
            StartError::Format { found, wanted } => write!(
                f,
                "what stands in Redis has format and partitions {found:?}, and this node has {wanted:?}: \
                 choose the same number of partitions, or another prefix"
            ),
            StartError::NumberTaken(number) => {
                write!(f, "node number {number} is taken by another node that is alive: each node needs its own")
            }
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::Redis(error)
    }
}

/// Reaches Redis and makes this process known there under its node number. Blocks; where the number belongs to a run whose lease has
/// not ended, as after a crash, it waits for that, 16 s at most.
pub fn connect(options: &Options, number: u16) -> Result<Identity, StartError> {
    if let Some(fault) = options.fault() {
        return Err(StartError::Options(fault));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = random()?;
    runtime.block_on(async {
        let keys = Keys::new(&options.prefix, options.database, options.partitions);
        let mut ready = ready(options, &nodes_master(options, &keys).await?, None).await?;
        let wanted = format(keys.partitions());
        let mut questions = Questions::default();
        questions.put(&[b"SET", keys.format().as_bytes(), wanted.as_bytes(), b"NX"]);
        questions.put(&[b"GET", keys.format().as_bytes()]);
        questions.put(&[b"SET", keys.seed().as_bytes(), random()?.to_string().as_bytes(), b"NX"]);
        questions.put(&[b"GET", keys.seed().as_bytes()]);
        let answers = ready.wire.ask(questions, options.command_timeout).await?;
        answers.iter().try_for_each(refused)?;
        let found = answers.get(1).and_then(Answer::text).unwrap_or_default();
        if found != wanted {
            return Err(StartError::Format { found: found.to_owned(), wanted });
        }
        let seed = answers.get(3).and_then(Answer::number).ok_or_else(|| {
            io::Error::other(format!("{} is not a number: nodes keep their common seed there", keys.seed()))
        })?;
        let until = Instant::now() + LEASE + Duration::from_secs(1);
        while !has_number(&mut ready, options, &keys, run, number).await? {
            if Instant::now() >= until {
                return Err(StartError::NumberTaken(number));
            }
            tracing::info!(number, "the node number belongs to a run that may be alive: waiting for its lease to end");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(Identity { seed, run, number, facts: ready.facts, clock: ready.clock })
    })
}

/// What stands in Redis, as all nodes have to agree on it.
pub(crate) fn format(partitions: usize) -> String {
    format!("{FORMAT} {partitions}")
}

async fn has_number(ready: &mut Ready, options: &Options, keys: &Keys, run: u64, number: u16) -> io::Result<bool> {
    let answer = lease(ready, options, keys, (run, number), LEASE).await?;
    Ok(answer.array().and_then(<[Value]>::first) == Some(&Value::Int(1)))
}

/// Ends the lease of a node that stops, so that its number is free at once.
pub(crate) async fn end_lease(mut ready: Ready, options: &Options, keys: &Keys, identity: &Identity) -> io::Result<()> {
    lease(&mut ready, options, keys, (identity.run, identity.number), Duration::ZERO).await.map(drop)
}

async fn lease(
    ready: &mut Ready,
    options: &Options,
    keys: &Keys,
    (run, number): (u64, u16),
    lease: Duration,
) -> io::Result<Value> {
    let mut questions = Questions::default();
    let hash = ready.hashes.of(Script::Lease).to_vec();
    let names = [keys.leases(), keys.number(number), format!("{run:016x}")];
    let times = [lease, LEASES_KNOWN].map(|time| time.as_millis().to_string());
    let [leases, number, run] = names.each_ref().map(String::as_bytes);
    let [lease, known] = times.each_ref().map(String::as_bytes);
    questions.put(&[b"EVALSHA", &hash, b"2", leases, number, run, lease, known]);
    let mut answers = ready.wire.ask(questions, options.command_timeout).await?;
    let answer = answers.pop().unwrap_or(Value::Nil);
    refused(&answer)?;
    Ok(answer)
}

/// From the kernel; never 0.
fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes).max(1))
}

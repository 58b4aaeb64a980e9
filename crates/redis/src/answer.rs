//! What Redis has answered, as the core's values. No I/O.

use std::sync::Arc;

use bytes::Bytes;
use ringgate_core::id::Position;
use ringgate_core::keyed::Keyed;
use ringgate_core::shard::{Fence, Present, ReadMessages, ReadRange, ReadResult, Stored, Unclaimed};
use ringgate_core::topics::{DeviceState, LoadedTopic, TopicState};

use crate::record;
use crate::resp::{Answer, ServerError, ServerErrorKind, Value};

/// Why Redis has refused a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The script is not loaded any more.
    NoScript,
    /// Another master has the slot: it is asked again there.
    Moved,
    /// The slot is on its way to another master, or has none for now: it is asked again a little later. What is at both places while a slot
    /// moves could be asked of one of them (`ASK`); but a message with a client message id needs a key that is new, and is refused by both.
    Later,
    /// It cannot do anything for now, or is not the master any more: the connection is given up, and the command is asked again.
    Away,
    /// Its memory is full.
    Memory,
    /// It cannot write to its disk.
    Disk,
    /// It has fewer replicas than `min-replicas-to-write`.
    Replicas,
    /// Anything else.
    Other,
}

const NOT_LOCAL: &str = "access a non local key in a cluster node";

impl Refusal {
    pub(crate) fn of(error: &ServerError) -> Refusal {
        use ServerErrorKind as Kind;
        match (error.kind(), error.code()) {
            (Some(Kind::NoScript), _) => Refusal::NoScript,
            (Some(Kind::Moved), _) => Refusal::Moved,
            (Some(Kind::Ask | Kind::TryAgain | Kind::ClusterDown), _) => Refusal::Later,
            // Of a key within a script, while its slot moves.
            (Some(Kind::ResponseError), _) if error.details().is_some_and(|text| text.contains(NOT_LOCAL)) => {
                Refusal::Later
            }
            (Some(Kind::BusyLoading | Kind::ReadOnly | Kind::MasterDown), _)
            | (None, "BUSY" | "NOAUTH" | "UNKILLABLE") => Refusal::Away,
            (None, "OOM") => Refusal::Memory,
            (None, "MISCONF") => Refusal::Disk,
            (None, "NOREPLICAS") => Refusal::Replicas,
            _ => Refusal::Other,
        }
    }
}

/// The answer to an append.
pub(crate) fn stored(value: &Value) -> Option<Stored> {
    let (letter, rest) = value.text()?.split_at_checked(1)?;
    match letter {
        "N" => record::position(rest.as_bytes()).map(Stored::Now),
        "B" => record::answered(rest).map(Stored::Before),
        _ => None,
    }
}

/// The claim of a device: run and shard of the node that has its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) run: u64,
    /// Until a state is told, a device is away since then at the latest.
    pub(crate) since_ms: u64,
}

/// A topic as it stands in Redis, and who holds its devices.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) topic: LoadedTopic,
    /// In the order of the devices.
    pub(crate) holders: Vec<Option<Holder>>,
}

pub(crate) fn loaded(value: &Value) -> Option<Loaded> {
    let values = value.array()?;
    let number = |at: usize| values.get(at).and_then(Answer::number);
    let mut loaded = Loaded::default();
    let state = TopicState {
        floor: number(2)?,
        lost: number(3)?,
        known: number(5)? != 0,
        forgotten_at: number(6),
        devices: Vec::new(),
        forgotten: Vec::new(),
    };
    let position = Position { epoch: number(0)?, offset: number(1)? };
    loaded.topic = LoadedTopic { position, state, due_unix_ms: number(4), before: before(values.get(7)?.text()?)? };
    for device in values.get(8..)?.chunks_exact(2) {
        let [name, fields] = device else { return None };
        let (state, holder) = device_of(name.text()?, fields.text()?)?;
        loaded.topic.state.devices.push(state);
        loaded.holders.push(holder);
    }
    Some(loaded)
}

/// Epochs before, and up to where their messages are in this one.
fn before(text: &str) -> Option<Vec<Position>> {
    let position = |word: &str| {
        let (epoch, offset) = word.split_once('-')?;
        Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
    };
    text.split_ascii_whitespace().map(position).collect()
}

fn device_of(name: &str, fields: &str) -> Option<(DeviceState, Option<Holder>)> {
    let fields: Vec<&str> = fields.split(' ').collect();
    let [fence, cursor, away, skipped, run, _shard, _session] = fields[..] else { return None };
    let fence: u64 = fence.parse().ok()?;
    let holder = u64::from_str_radix(run, 16).ok().map(|run| Holder { run, since_ms: fence / 1000 });
    let (away_since_ms, skipped_from) = (away.parse().ok(), skipped.parse().ok());
    let state = DeviceState { name: Arc::from(name), cursor: cursor.parse().ok()?, away_since_ms, skipped_from, fence };
    Some((state, holder))
}

/// The answer to a claim.
pub(crate) fn claimed(value: &Value) -> Result<Fence, Unclaimed> {
    match value.text() {
        Some("L") => Err(Unclaimed::TooMany),
        _ => value.number().ok_or(Unclaimed::Unavailable),
    }
}

/// The members of a room, and runs that have told of members and were not counted.
pub(crate) fn present(value: &Value) -> Option<(Present, Vec<u64>)> {
    let [count, gone, members @ ..] = value.array()? else { return None };
    let members = members.iter().map(|member| record::member_of(member.text()?)).collect::<Option<_>>()?;
    let gone = gone.text()?.split_ascii_whitespace().filter_map(|run| u64::from_str_radix(run, 16).ok()).collect();
    Some((Present { count: u32::try_from(count.number()?).unwrap_or(u32::MAX), members }, gone))
}

/// Messages that were read, and the topic's epoch; messages that cannot be read are counted. All times are those of the clock of Redis.
pub(crate) fn read(value: &Value, wanted: &ReadMessages, hash: &Keyed, unix_ms: u64) -> Option<(u64, ReadResult, u64)> {
    let values = value.array()?;
    let number = |at: usize| values.get(at).and_then(Answer::number);
    let (epoch, last, lost, first) = (number(0)?, number(1)?, number(3)?, number(4)?);
    let mut result = ReadResult { lost, ..ReadResult::default() };
    let mut damaged = 0;
    // Of what Redis has answered: the offsets considered.
    let mut considered = Vec::new();
    let mut found = Vec::new();
    for entry in values.get(5..)?.chunks_exact(2) {
        let [offset, message] = entry else { return None };
        let offset = offset.number()?;
        considered.push(offset);
        match record::stored(offset, Bytes::copy_from_slice(message.bytes()?), hash) {
            Some(message) if message.expires_unix_ms > unix_ms => found.push(message),
            Some(message) if message.own_ttl => {}
            Some(message) => result.lost = result.lost.max(message.offset),
            None => {
                damaged += 1;
                result.lost = result.lost.max(offset);
            }
        }
    }
    let mut bytes = 0;
    let mut fits = |length: usize, count: usize| {
        bytes += length;
        count < wanted.messages_max.max(1) && (bytes <= wanted.bytes_max || count == 0)
    };
    match wanted.range {
        ReadRange::After(after) => {
            let end = considered.last().copied().unwrap_or(last).max(after);
            for message in found {
                if !fits(message.frame.len(), result.messages.len()) {
                    result.more = true;
                    break;
                }
                result.messages.push(message);
            }
            let end = if result.more { result.messages.last().map_or(after, |last| last.offset) } else { end };
            (result.upto, result.more) = (end, end < last);
        }
        ReadRange::Before(_) => {
            let mut oldest = considered.first().copied();
            for message in found.into_iter().rev() {
                if !fits(message.frame.len(), result.messages.len()) {
                    oldest = result.messages.last().map(|last| last.offset);
                    break;
                }
                result.messages.push(message);
            }
            result.messages.reverse();
            result.more = oldest.is_some_and(|oldest| oldest > first);
            result.upto = result.messages.last().map_or(0, |last| last.offset);
        }
    }
    Some((epoch, result, damaged))
}

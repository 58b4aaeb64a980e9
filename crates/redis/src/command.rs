//! What is asked of Redis: one command for each effect, in the order of its link.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ringgate_core::id::{Durability, ShardId};
use ringgate_core::limits::Settings;
use ringgate_core::shard::{ClaimId, DeviceLeft, Fence, MemberChange, Origin, ReadId, ReadMessages, ReadRange, Record};
use ringgate_core::topics::{DeviceState, Ticket, TopicState};
use ringgate_core::wire::Draft;

use crate::keys::Keys;
use crate::record::{answer_tail, member, news_head};
use crate::resp;
use crate::scripts::{Hashes, Script};

/// How long a room lives in Redis that vanishes with its members, unless a node that has it in memory says that it goes on.
pub(crate) const VANISHING_MS: u64 = 120_000;
/// How long a topic is known in Redis that was asked for and has neither messages nor devices.
pub(crate) const UNUSED_MS: u64 = 3600 * 1000;
/// How long members of a room are known in Redis, unless their node says that they are still there.
pub(crate) const MEMBERS_MS: u64 = 3600 * 1000;
/// How long messages to a user who has never signed in are kept, at most.
pub(crate) const UNKNOWN_MS: u64 = 24 * 3600 * 1000;
/// Members that are told in one command, so that others need not wait for it for long.
pub(crate) const MEMBERS_AT_ONCE: usize = 1024;
/// Most messages of one answer; the home asks for more.
pub(crate) const PAGE_MESSAGES: usize = 128;
/// Bytes of the payloads of one answer, if each is as long as it may be.
const PAGE_BYTES: usize = resp::ANSWER_BYTES_MAX / 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Command {
    /// The shard that gets the answer.
    pub(crate) shard: ShardId,
    pub(crate) what: What,
    /// When it is given up if it was not sent.
    pub(crate) deadline: Instant,
    /// It was sent over a connection that was lost before its answer.
    pub(crate) is_undecided: bool,
}

#[derive(Debug)]
pub(crate) enum What {
    Append {
        ticket: Ticket,
        record: Box<Record>,
        message: Bytes,
    },
    /// Whether the message of an append without a client message id is there.
    Find {
        ticket: Ticket,
        topic: Arc<str>,
        message: Bytes,
    },
    Load {
        topic: Arc<str>,
    },
    Read {
        read: ReadId,
        messages: Box<ReadMessages>,
    },
    Cursor {
        topic: Arc<str>,
        epoch: u64,
        state: Box<TopicState>,
    },
    Claim {
        claim: ClaimId,
        user: Arc<str>,
        device: Arc<str>,
        session: Origin,
    },
    Release {
        user: Arc<str>,
        device: Arc<str>,
        fence: Fence,
        left: Option<Box<DeviceLeft>>,
    },
    Relay {
        topic: Arc<str>,
        payload: Bytes,
    },
    Members {
        topic: Arc<str>,
        count: u32,
        changes: Vec<MemberChange>,
        anew: bool,
    },
    Presence {
        read: ReadId,
        topic: Arc<str>,
        limit: u32,
    },
    /// The topic is in use: it lives on.
    Touch {
        topic: Arc<str>,
    },
    /// How many replicas have all that was stored before, after this time in milliseconds at most.
    Replicas {
        least: u32,
        wait_ms: u64,
    },
    /// Members of nodes that have ended are to leave a room.
    Tidy {
        topic: Arc<str>,
        runs: Vec<u64>,
    },
    Lease {
        number: u64,
    },
    /// The least epoch of a partition, before anything else is asked of its master.
    Generation {
        partition: usize,
    },
    /// As it stands there, where the master cannot write.
    Standing {
        partition: usize,
    },
    /// Whether anything can be stored by the master of a partition.
    Trial {
        partition: usize,
    },
    Probe {
        number: u64,
        at: Instant,
        partition: usize,
    },
    /// What Redis knows of the connection for news, when so many of its answers had come.
    Hears {
        client: u64,
        answers: u64,
    },
    LoadScript(Script),
}

/// What commands are written with.
pub(crate) struct Context<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) settings: &'a Settings,
    pub(crate) hashes: &'a Hashes,
    /// Of the command's partition.
    pub(crate) least_epoch: u64,
    /// Of the server.
    pub(crate) replication_id: &'a str,
    pub(crate) run: u64,
    pub(crate) seed: u64,
    pub(crate) number: u16,
    pub(crate) durability: Durability,
    /// Runs of nodes that are alive.
    pub(crate) alive: &'a str,
    /// The newest of the command's topic that is known, or of its partition from another server; 0 if none is.
    pub(crate) epoch: u64,
    /// Until when a claim may be carried out, in Unix milliseconds of Redis.
    pub(crate) claim_until_ms: u64,
}

impl What {
    /// The partition whose order it belongs to; none if it is about a connection, and not about what is kept.
    pub(crate) fn partition(&self, keys: &Keys) -> Option<usize> {
        Some(match self {
            What::Append { record, .. } => keys.partition_of(&record.topic),
            What::Read { messages, .. } => keys.partition_of(&messages.topic),
            What::Find { topic, .. }
            | What::Load { topic }
            | What::Cursor { topic, .. }
            | What::Relay { topic, .. }
            | What::Members { topic, .. }
            | What::Presence { topic, .. }
            | What::Tidy { topic, .. }
            | What::Touch { topic } => keys.partition_of(topic),
            What::Claim { user, .. } | What::Release { user, .. } => keys.partition_of(&format!("@{user}")),
            What::Lease { .. } => keys.nodes_partition(),
            What::Generation { partition } | What::Standing { partition } => *partition,
            What::Replicas { .. }
            | What::Trial { .. }
            | What::Probe { .. }
            | What::Hears { .. }
            | What::LoadScript(_) => return None,
        })
    }
}

impl Command {
    /// Puts it behind what is in the buffer, and says how many answers it has.
    pub(crate) fn put(&self, context: &Context<'_>, out: &mut Vec<u8>) -> usize {
        let Context { keys, settings, hashes, .. } = context;
        let run = format!("{:016x}", context.run);
        let shard = self.shard.0.to_string();
        let least = context.least_epoch.to_string();
        let ttl = |topic: &str| ttl_ms(topic, settings).to_string();
        let mut script = |script: Script, names: &[&[u8]], arguments: &[&[u8]]| {
            let count = names.len().to_string();
            let head: [&[u8]; 3] = [b"EVALSHA", hashes.of(script), count.as_bytes()];
            resp::put(out, &[&head[..], names, arguments].concat());
        };
        match &self.what {
            What::Append { record, message, .. } => {
                let topic: &str = &record.topic;
                let (stream, state) = (keys.stream(topic), keys.state(topic));
                let claim = keys.dedup(topic, record.key.as_ref());
                let names = [stream.as_bytes(), state.as_bytes(), claim.as_slice()];
                let window = if record.key.is_some() { settings.dedup_window_ms.max(1) } else { 0 };
                let stamp = Draft::stamp_of(&record.frame).unwrap_or_default();
                let numbers = [context.epoch, messages_max(topic, settings) as u64, window];
                let [epoch, most, window] = numbers.map(|number| number.to_string());
                let (ttl, channel) = (ttl(topic), keys.channel(topic));
                let (head, tail) = (news_head(b'S', context.run), answer_tail(stamp, context.durability));
                let texts = [&epoch, &least, &most, &ttl].map(|text| text.as_bytes());
                let rest: [&[u8]; 6] =
                    [b"SPUBLISH", channel.as_bytes(), &head, message, window.as_bytes(), tail.as_bytes()];
                let inbox = inbox_bounds(topic, settings).map(|bounds| bounds.map(|bound| bound.to_string()));
                let inbox: Vec<&[u8]> = inbox.iter().flatten().map(String::as_bytes).collect();
                script(Script::Append, &names, &[&texts[..], &rest, &inbox].concat());
            }
            What::Find { topic, message, .. } => {
                script(Script::Find, &[keys.stream(topic).as_bytes()], &[message]);
            }
            What::Load { topic } => {
                let (stream, state) = (keys.stream(topic), keys.state(topic));
                let (ttl, channel) = (ttl(topic), keys.channel(topic));
                let head = news_head(b'C', context.run);
                let unused = ttl_ms(topic, settings).min(UNUSED_MS).to_string();
                let texts = [&least, &ttl, &unused].map(|text| text.as_bytes());
                let known = context.epoch.to_string();
                let arguments = [&texts[..], &[b"SPUBLISH", channel.as_bytes(), &head, known.as_bytes()]].concat();
                script(Script::Load, &[stream.as_bytes(), state.as_bytes()], &arguments);
            }
            What::Read { messages, .. } => {
                let (stream, state) = (keys.stream(&messages.topic), keys.state(&messages.topic));
                let (side, bound) = match messages.range {
                    ReadRange::After(after) => (b"A", after.to_string()),
                    ReadRange::Before(before) => (b"B", before.to_string()),
                };
                let fits = PAGE_BYTES / settings.client.message_bytes_max.max(1);
                let most = messages.messages_max.min(fits).clamp(1, PAGE_MESSAGES).to_string();
                script(
                    Script::Read,
                    &[stream.as_bytes(), state.as_bytes()],
                    &[side, bound.as_bytes(), most.as_bytes()],
                );
            }
            What::Cursor { topic, epoch, state } => {
                let names = [keys.stream(topic), keys.state(topic)];
                let [stream_name, state_name] = names.each_ref().map(String::as_bytes);
                // Redis says itself what follows for the devices that are forgotten.
                let TopicState { floor, lost, known, forgotten_at: _, devices, forgotten } = &**state;
                let mut arguments: Vec<Vec<u8>> = [
                    epoch.to_string(),
                    floor.to_string(),
                    lost.to_string(),
                    u8::from(*known).to_string(),
                    ttl(topic),
                    context.alive.to_owned(),
                    run,
                    shard,
                    "SPUBLISH".to_owned(),
                    keys.channel(topic),
                ]
                .map(String::into_bytes)
                .into();
                arguments.push(news_head(b'C', context.run).to_vec());
                arguments.push(devices.len().to_string().into_bytes());
                for DeviceState { name, cursor, away_since_ms, skipped_from, fence } in devices {
                    let (away, skipped) = (optional(*away_since_ms), optional(*skipped_from));
                    let texts = [name.to_string(), fence.to_string(), cursor.to_string(), away, skipped];
                    arguments.extend(texts.map(String::into_bytes));
                }
                arguments.extend(forgotten.iter().map(|name| name.as_bytes().to_vec()));
                let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
                script(Script::Cursor, &[stream_name, state_name], &arguments);
            }
            What::Claim { user, device, session, .. } => {
                let topic = format!("@{user}");
                let (state, nodes) = (keys.state(&topic), keys.node_channels(keys.partition_of(&topic)));
                let (ttl, session) = (ttl(&topic), session.session.to_string());
                let (until, most) =
                    (context.claim_until_ms.to_string(), settings.client.sessions_per_user_max.to_string());
                let texts = [user, device, &*run, &shard, &session, &ttl, &nodes, &until, &most, context.alive];
                let texts = texts.map(str::as_bytes);
                script(Script::Claim, &[state.as_bytes()], &texts);
            }
            What::Release { user, device, fence, left } => {
                let topic = format!("@{user}");
                let (stream, state) = (keys.stream(&topic), keys.state(&topic));
                let mut arguments = vec![device.to_string(), fence.to_string(), ttl(&topic), context.alive.to_owned()];
                if let Some(left) = left {
                    let DeviceLeft { epoch, state } = &**left;
                    let (away, skipped) = (optional(state.away_since_ms), optional(state.skipped_from));
                    arguments.extend([epoch.to_string(), state.cursor.to_string(), away, skipped]);
                }
                let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
                script(Script::Release, &[stream.as_bytes(), state.as_bytes()], &arguments);
            }
            What::Members { topic, count, changes, anew } => {
                let (nodes, [before, behind]) = (keys.room_nodes(topic), keys.room_members(topic));
                let members = [&before, &*run, &behind].concat();
                let (count, ttl, anew) = (count.to_string(), MEMBERS_MS.to_string(), u8::from(*anew).to_string());
                let mut arguments = vec![run.clone(), count, ttl, anew];
                for MemberChange { session, member: name } in changes {
                    let name = name.as_ref().map(|(user, device)| member(user, device)).unwrap_or_default();
                    arguments.extend([session.to_string(), name]);
                }
                let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
                script(Script::Members, &[nodes.as_bytes(), members.as_bytes()], &arguments);
            }
            What::Presence { topic, limit, .. } => {
                let (nodes, [before, behind]) = (keys.room_nodes(topic), keys.room_members(topic));
                let limit = limit.to_string();
                let arguments = [&limit, context.alive, &before, &behind].map(str::as_bytes);
                script(Script::Presence, &[nodes.as_bytes()], &arguments);
            }
            What::Relay { topic, payload } => resp::put(out, &[b"SPUBLISH", keys.channel(topic).as_bytes(), payload]),
            What::Touch { topic } => {
                let mut expires = vec![(keys.stream(topic), ttl(topic)), (keys.state(topic), ttl(topic))];
                if !topic.starts_with('@') {
                    let (nodes, [before, behind]) = (keys.room_nodes(topic), keys.room_members(topic));
                    let members = [&before, &*run, &behind].concat();
                    expires.extend([nodes, members].map(|key| (key, MEMBERS_MS.to_string())));
                }
                for (key, ttl) in &expires {
                    resp::put(out, &[b"PEXPIRE", key.as_bytes(), ttl.as_bytes()]);
                }
                return expires.len();
            }
            What::Replicas { least, wait_ms } => {
                resp::put(out, &[b"WAIT", least.to_string().as_bytes(), wait_ms.to_string().as_bytes()]);
            }
            What::Lease { .. } => {
                let times = [crate::identity::LEASE, crate::identity::LEASES_KNOWN];
                let [lease, known] = times.map(|time| time.as_millis().to_string());
                let (leases, number) = (keys.leases(), keys.number(context.number));
                // A Redis that was emptied while nodes live gets from them what a node that starts has to find.
                let (format, seed) = (crate::identity::format(keys.partitions()), context.seed.to_string());
                resp::put(out, &[b"SET", keys.format().as_bytes(), format.as_bytes(), b"NX"]);
                resp::put(out, &[b"SET", keys.seed().as_bytes(), seed.as_bytes(), b"NX"]);
                let names = [leases.as_bytes(), number.as_bytes()];
                let arguments = [run.as_bytes(), lease.as_bytes(), known.as_bytes()];
                resp::put(out, &[&[b"EVALSHA", hashes.of(Script::Lease), b"2"], &names[..], &arguments].concat());
                return 3;
            }
            What::Generation { partition } => {
                script(
                    Script::Generation,
                    &[keys.generation(*partition).as_bytes()],
                    &[context.replication_id.as_bytes(), context.epoch.to_string().as_bytes()],
                );
            }
            What::Standing { partition } => {
                resp::put(out, &[b"HMGET", keys.generation(*partition).as_bytes(), b"g", b"e"]);
            }
            What::Tidy { topic, runs } => {
                let (nodes, [before, behind]) = (keys.room_nodes(topic), keys.room_members(topic));
                for run in runs {
                    let run = format!("{run:016x}");
                    resp::put(out, &[b"HDEL", nodes.as_bytes(), run.as_bytes()]);
                    resp::put(out, &[b"DEL", [&before, &*run, &behind].concat().as_bytes()]);
                }
                return 2 * runs.len();
            }
            What::Trial { partition } => {
                resp::put(out, &[b"SET", keys.trial(*partition).as_bytes(), run.as_bytes(), b"PX", b"1000"])
            }
            What::Probe { number, partition, .. } => {
                let (channel, payload) = (keys.node_channel(*partition, context.run), format!("P{number}"));
                let names = [keys.generation(*partition)];
                script(
                    Script::Probe,
                    &names.each_ref().map(String::as_bytes),
                    &[channel.as_bytes(), payload.as_bytes()],
                );
            }
            What::Hears { client, .. } => {
                resp::put(out, &[b"CLIENT", b"LIST", b"ID", client.to_string().as_bytes()]);
            }
            What::LoadScript(script) => resp::put(out, &[b"SCRIPT", b"LOAD", script.source().as_bytes()]),
        }
        1
    }
}

fn optional(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// Messages of a topic that Redis keeps, about.
fn messages_max(topic: &str, settings: &Settings) -> usize {
    if topic.starts_with('@') {
        return settings.inbox.messages_max.max(1);
    }
    settings.namespace_of(topic).map_or(1, |(_, namespace)| namespace.history_size.max(1))
}

/// Of an inbox: most messages and ttl in milliseconds while its user has never signed in, and most bytes, about.
fn inbox_bounds(topic: &str, settings: &Settings) -> Option<[u64; 3]> {
    let inbox = &settings.inbox;
    let unknown = inbox.messages_max.min(inbox.unknown_messages_max).max(1) as u64;
    topic.starts_with('@').then(|| [unknown, ttl_ms(topic, settings).min(UNKNOWN_MS), inbox.bytes_max.max(1) as u64])
}

/// Whether a room lives only while somebody is in it.
pub(crate) fn vanishes(topic: &str, settings: &Settings) -> bool {
    !topic.starts_with('@') && settings.namespace_of(topic).is_some_and(|(_, namespace)| namespace.vanish_when_empty)
}

/// How long Redis keeps a topic after it was last used.
pub(crate) fn ttl_ms(topic: &str, settings: &Settings) -> u64 {
    let inbox = &settings.inbox;
    let ttl_ms = if topic.starts_with('@') {
        settings.topic_ttl_ms.max(inbox.ttl_ms).max(inbox.device_ttl_ms)
    } else if vanishes(topic, settings) {
        VANISHING_MS
    } else {
        settings.namespace_of(topic).map_or(0, |(_, namespace)| namespace.history_ttl_ms).max(settings.topic_ttl_ms)
    };
    ttl_ms.max(1000)
}

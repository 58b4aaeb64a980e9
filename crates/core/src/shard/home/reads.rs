//! Messages that are older than a topic's tail: read from the engine, and joined with what is in memory.
//!
//! The answer to CatchUp is followed by live messages, so where it ends is decided when it is posted, not when the engine was
//! asked: what was committed meanwhile is appended from the tail, or the answer says that there is more. History is an answer of
//! its own: it shows the topic as it stood when it was asked for.

use hashbrown::HashMap;

use super::Topic;
use crate::id::{Address, Now, Position, ShardId};
use crate::keyed::{Keyed, keyed};
use crate::limits::Engine;
use crate::shard::letter::HistoryResult;
use crate::shard::{
    EngineUnavailable, Origin, ReadId, ReadMessages, ReadRange, ReadResult, Shard, Source, StoredMessage, ToEdge,
};
use crate::topics::{Gap, Requests};
use crate::wire::Draft;

/// Reads that are not answered yet.
#[derive(Debug)]
pub(in crate::shard) struct Reads {
    pending: HashMap<ReadId, Pending, Keyed>,
    /// How many of them are for a topic, which stays in memory until then.
    by_topic: HashMap<Topic, u32, Keyed>,
    requests: Requests<ReadId>,
    next: ReadId,
}

#[derive(Debug)]
struct Pending {
    topic: Topic,
    asker: Asker,
    messages: ReadMessages,
    failures: u32,
    with_engine: bool,
}

/// What the messages are read for.
#[derive(Debug)]
pub(super) enum Asker {
    /// `lost`: messages behind the session's position had left already when it asked.
    CatchUp {
        source: Source,
        from: Address,
        lost: bool,
    },
    History {
        to: ShardId,
        since: Option<Position>,
        result: Box<HistoryResult>,
    },
    /// The home itself: messages that were stored elsewhere and did not arrive.
    Home,
    /// The session ended while the engine had the read.
    Nobody,
}

/// Messages and bytes that one answer to CatchUp carries.
pub(super) const CATCH_UP_MESSAGES: usize = 128;
pub(super) const CATCH_UP_BYTES: usize = 256 * 1024;
/// Reads that the engine has at once.
const READS_WITH_ENGINE_MAX: usize = 64;
/// Reads of a shard with which no History may be added. Sessions that catch up have one for each topic at most.
const READS_MAX: usize = 64 * 1024;
/// Requests of sessions that have ended, which may stand in line beside as many that are wanted.
const UNWANTED_MAX: usize = 64;

impl Reads {
    pub(super) fn new(seed: u64) -> Self {
        Reads {
            pending: HashMap::with_hasher(keyed(seed)),
            by_topic: HashMap::with_hasher(keyed(seed)),
            requests: Requests::new(READS_WITH_ENGINE_MAX),
            next: 1,
        }
    }

    pub(in crate::shard) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn has(&self, topic: Topic) -> bool {
        !self.by_topic.is_empty() && self.by_topic.contains_key(&topic)
    }

    fn push(&mut self, topic: Topic, asker: Asker, messages: ReadMessages) {
        let read = self.next;
        self.next += 1;
        *self.by_topic.entry(topic).or_default() += 1;
        self.pending.insert(read, Pending { topic, asker, messages, failures: 0, with_engine: false });
        self.requests.push(read);
    }

    /// The next that is to be given to the engine.
    pub(super) fn next_read(&mut self) -> Option<(ReadId, Box<ReadMessages>)> {
        loop {
            let read = self.requests.take_next()?;
            if let Some(pending) = self.pending.get_mut(&read) {
                pending.with_engine = true;
                return Some((read, Box::new(pending.messages.clone())));
            }
            // Its session has ended.
            self.requests.answered();
        }
    }

    pub(super) fn end_pauses(&mut self, now_ms: u64) {
        self.requests.end_pauses(now_ms);
    }

    fn take(&mut self, read: ReadId) -> Option<Pending> {
        let pending = self.remove(read)?;
        self.requests.answered();
        self.forget_unwanted();
        Some(pending)
    }

    fn remove(&mut self, read: ReadId) -> Option<Pending> {
        let pending = self.pending.remove(&read)?;
        if let Some(count) = self.by_topic.get_mut(&pending.topic) {
            *count -= 1;
            if *count == 0 {
                self.by_topic.remove(&pending.topic);
            }
        }
        Some(pending)
    }

    /// A session has ended, or left the topic: it needs no answer, and what the engine does not have yet need not be read.
    pub(super) fn forget(&mut self, topic: Topic, session: Address) {
        if !self.has(topic) {
            return;
        }
        let is_its = |pending: &Pending| {
            pending.topic == topic && matches!(pending.asker, Asker::CatchUp { from, .. } if from == session)
        };
        let its: Vec<ReadId> =
            self.pending.iter().filter(|(_, pending)| is_its(pending)).map(|(read, _)| *read).collect();
        for read in its {
            match self.pending.get_mut(&read).filter(|pending| pending.with_engine) {
                Some(pending) => pending.asker = Asker::Nobody,
                None => drop(self.remove(read)),
            }
        }
        self.forget_unwanted();
    }

    /// What stands in line is at most twice what is wanted, and a few more.
    fn forget_unwanted(&mut self) {
        let Reads { pending, requests, .. } = self;
        if requests.waiting() > 2 * pending.len() + UNWANTED_MAX {
            requests.retain(|read| pending.contains_key(read));
        }
    }

    /// The engine could not read, or does not have yet what it has told of: it is asked again after a pause.
    fn put_back(&mut self, read: ReadId, mut pending: Pending, now_ms: u64) {
        pending.failures += 1;
        pending.with_engine = false;
        self.requests.pause(read, pending.failures, now_ms);
        *self.by_topic.entry(pending.topic).or_default() += 1;
        self.pending.insert(read, pending);
    }

    pub(super) fn invariants(&self) {
        let counted: usize = self.by_topic.values().map(|count| *count as usize).sum();
        assert_eq!(counted, self.pending.len(), "reads by topic");
        assert!(self.requests.waiting() <= 2 * self.pending.len() + UNWANTED_MAX, "reads that nobody wants");
    }
}

impl Shard {
    /// Has the engine read what follows an offset.
    pub(super) fn read_after(&mut self, topic: Topic, asker: Asker, after: u64) {
        let Some((name, position)) = self.homes.name_of(topic).zip(self.homes.log_position(topic)) else { return };
        let (epoch, range) = (position.epoch, ReadRange::After(after));
        let messages =
            ReadMessages { topic: name, epoch, range, messages_max: CATCH_UP_MESSAGES, bytes_max: CATCH_UP_BYTES };
        self.homes.reads.push(topic, asker, messages);
        self.ask_engine();
    }

    /// Has the engine read what a client asks for with History.
    pub(super) fn read_for_history(&mut self, topic: Topic, asker: Asker, messages: ReadMessages) {
        if let Asker::History { to, result, .. } = &asker
            && self.homes.reads.len() >= READS_MAX
        {
            return self.post_to_edge(*to, ToEdge::LookupFailed { to: result.to, request: result.request });
        }
        self.homes.reads.push(topic, asker, messages);
        self.ask_engine();
    }

    /// The engine has read messages, or could not.
    pub(in crate::shard) fn on_read(
        &mut self,
        read: ReadId,
        result: Result<Box<ReadResult>, EngineUnavailable>,
        now: Now,
    ) {
        let Some(pending) = self.homes.reads.take(read) else { return };
        let epoch = self.homes.log_position(pending.topic).map(|position| position.epoch);
        // The offsets of an epoch that is over mean nothing any more.
        let mut result = if epoch == Some(pending.messages.epoch) { result } else { Err(EngineUnavailable) };
        if let (Ok(result), Engine::Shared) = (&mut result, self.settings.engine) {
            restamp(&mut result.messages, pending.messages.epoch);
        }
        match (result, pending) {
            (Err(EngineUnavailable), Pending { topic, asker: Asker::CatchUp { .. } | Asker::Home, messages, .. })
                if epoch != Some(messages.epoch) =>
            {
                self.homes.behind.remove(&topic);
            }
            (Ok(result), Pending { topic, asker: Asker::CatchUp { source, from, lost }, messages, .. }) => {
                let ReadRange::After(after) = messages.range else { return };
                let lost_upto = result.lost;
                let lost = lost || after < lost_upto;
                let mut gap = self.read_and_tail(topic, self.excluded(source, from), *result, now);
                gap.lost = (gap.lost || lost) && !self.homes.has_acknowledged_lost(topic, from, lost_upto);
                let (to, gap) = (from.connection, Box::new(gap));
                self.post_to_edge(from.shard, ToEdge::CaughtUp { to, topic: source, gap });
            }
            (Ok(result), Pending { topic, asker: Asker::History { to, since, result: answer }, messages, .. }) => {
                let (floor, lost) = self.homes.log(topic).map_or((0, 0), |log| (log.floor(), log.lost()));
                let result = ReadResult { lost: result.lost.max(lost), ..*result };
                let answer = history_of(result, messages.range, floor, since, answer, now);
                self.post_to_edge(to, ToEdge::HistoryResult(answer));
            }
            (Err(EngineUnavailable), Pending { asker: Asker::History { to, result, .. }, .. }) => {
                let (connection, request) = (result.to, result.request);
                self.post_to_edge(to, ToEdge::LookupFailed { to: connection, request });
            }
            (Ok(result), pending @ Pending { asker: Asker::Home, .. }) => {
                if !self.on_gap_read(pending.topic, *result, now) {
                    self.end_hold(pending.topic, false, now);
                    self.homes.reads.put_back(read, pending, now.mono_ms());
                }
            }
            (_, Pending { asker: Asker::Nobody, .. }) => {}
            (Err(EngineUnavailable), pending @ Pending { asker: Asker::Home, .. }) => {
                self.end_hold(pending.topic, false, now);
                self.homes.reads.put_back(read, pending, now.mono_ms());
            }
            // The session waits: live messages that come meanwhile are behind what it is missing.
            (Err(EngineUnavailable), pending @ Pending { asker: Asker::CatchUp { .. }, .. }) => {
                self.homes.reads.put_back(read, pending, now.mono_ms());
            }
        }
        self.ask_engine();
    }

    /// What the engine has read, and behind it what the tail holds now.
    fn read_and_tail(&self, topic: Topic, without: Option<Address>, result: ReadResult, now: Now) -> Gap {
        let origin = without.map(|address| self.origin_of(address));
        let ReadResult { messages, upto, more, .. } = result;
        // What is stored but not committed here yet is brought live.
        let last = self.homes.log(topic).map_or(upto, |log| log.position().offset);
        let upto = upto.min(last);
        let is_brought = |message: &StoredMessage| {
            message.offset <= last
                && message.expires_unix_ms > now.unix_ms
                && (origin.is_none() || message.origin != origin)
        };
        let frames: Vec<_> =
            messages.into_iter().filter(is_brought).map(|message| (message.offset, message.frame)).collect();
        let mut gap = Gap { frames, upto, more, lost: false };
        let Some(log) = self.homes.log(topic) else { return gap };
        if log.read_after(upto).is_some() {
            gap.more = true;
            return gap;
        }
        let bytes: usize = gap.frames.iter().map(|(_, frame)| frame.len()).sum();
        let messages_max = CATCH_UP_MESSAGES.saturating_sub(gap.frames.len());
        if messages_max == 0 || bytes >= CATCH_UP_BYTES {
            gap.more = upto < log.position().offset;
            return gap;
        }
        let tail = log.after(upto, messages_max, CATCH_UP_BYTES - bytes, without, now.mono_ms());
        gap.frames.extend(tail.frames);
        // Messages between may have left the log since they were asked for.
        (gap.upto, gap.more, gap.lost) = (tail.upto, tail.more, tail.lost);
        gap
    }

    /// How an engine names a session of this life of the node.
    pub(super) fn origin_of(&self, session: Address) -> Origin {
        Origin { run: self.homes.run(), session: session.to_u64() }
    }
}

/// Writes their places into messages that an engine has given them.
fn restamp(messages: &mut Vec<StoredMessage>, epoch: u64) {
    messages.retain_mut(|message| {
        let restamped = Draft::restamp(&message.frame, Position { epoch, offset: message.offset });
        restamped.map(|frame| message.frame = frame).is_some()
    });
}

/// The answer to History, with the messages that were read. The engine may not have heard yet that those up to `floor` have left
/// the log.
fn history_of(
    read: ReadResult,
    range: ReadRange,
    floor: u64,
    since: Option<Position>,
    mut answer: Box<HistoryResult>,
    now: Now,
) -> Box<HistoryResult> {
    let ReadResult { messages, upto, more, lost } = read;
    let is_kept = |message: &StoredMessage| message.offset > floor && message.expires_unix_ms > now.unix_ms;
    answer.more = more
        && match range {
            ReadRange::After(_) => true,
            ReadRange::Before(_) => messages.first().is_none_or(|oldest| oldest.offset > floor + 1),
        };
    answer.frames = messages.into_iter().filter(is_kept).map(|message| message.frame).collect();
    answer.position.offset = answer.position.offset.max(upto);
    answer.recovered &= since.is_none_or(|since| since.offset >= lost);
    answer
}

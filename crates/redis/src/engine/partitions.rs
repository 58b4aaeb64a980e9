//! What is asked of Redis, by partition: a queue for each, so that the order of a topic survives the loss of a connection and a change of
//! the master that has its slot.
//!
//! Phases: closed (nothing is sent: its master is away, not known, or has refused) - settling (its least epoch is asked for, and messages
//! without a client message id that may have been stored are looked for) - open. A partition settles only when nothing of it is under way
//! any more, with whatever master. What came back unanswered or refused goes before what waits. A message that was refused for now, while
//! a later one of its topic was stored, is refused for good: it would come too late.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use ringgate_core::id::ShardId;
use ringgate_core::shard::{EngineUnavailable, Event, Unclaimed, Unstored};

use super::{MasterId, Work};
use crate::command::{Command, What};
use crate::options::WhenAway;
use crate::outbound::Homes;
use crate::status::add;

/// While a partition is away for longer, what cannot wait is answered at once.
const PATIENCE: Duration = Duration::from_millis(500);
/// Until a partition is tried again whose slot is on its way to another master, or has none for now: doubled from the first to the last.
const HOLD_FIRST: Duration = Duration::from_millis(20);
const HOLD_MAX: Duration = Duration::from_millis(320);
/// How long it may take to find out whether a message was stored whose answer was lost, beyond its deadline. A publisher
/// that has given it a client message id may repeat it, and gets the answer then.
const UNDECIDED_MAX: Duration = Duration::from_secs(30);
const UNDECIDED_WITH_ID_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Phase {
    Closed { due: Instant },
    Settling,
    Open,
}

#[derive(Debug)]
struct Partition {
    /// None if no master is known to have its slot.
    master: Option<MasterId>,
    phase: Phase,
    queue: VecDeque<Command>,
    /// They come before the queue, once nothing is under way.
    back: Vec<Command>,
    /// Sent, and neither answered nor lost.
    under_way: usize,
    /// Answers that are missing until it is open.
    settling: usize,
    least_epoch: u64,
    /// The replication id of the server that it last settled with.
    settled_with: String,
    away_since: Option<Instant>,
    /// It was open and has refused: being open again is no proof that it answers.
    is_doubted: bool,
    holds: u32,
    is_listed: bool,
}

impl Partition {
    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Nothing waits, and nothing is under way.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.back.is_empty() && self.under_way == 0
    }
}

/// Whether this is the append of a shard with this ticket.
fn is_append(command: &Command, shard: ShardId, number: u64) -> bool {
    command.shard == shard && matches!(command.what, What::Append { ticket, .. } if ticket == number)
}

pub(super) struct Partitions {
    all: Vec<Partition>,
    closed: BTreeSet<usize>,
    /// The newest epoch of any topic that this node has heard of.
    newest_epoch: u64,
    /// Commands that wait, up to those that have come back since the last tick.
    waiting: usize,
}

impl Partitions {
    pub(super) fn new(now: Instant, count: usize) -> Self {
        let closed = |_| Partition {
            master: None,
            phase: Phase::Closed { due: now },
            queue: VecDeque::new(),
            back: Vec::new(),
            under_way: 0,
            settling: 0,
            least_epoch: 0,
            settled_with: String::new(),
            away_since: Some(now),
            is_doubted: false,
            holds: 0,
            is_listed: false,
        };
        Partitions { all: (0..count).map(closed).collect(), closed: (0..count).collect(), newest_epoch: 0, waiting: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn master(&self, partition: usize) -> Option<MasterId> {
        self.all.get(partition)?.master
    }

    pub(super) fn set_master(&mut self, partition: usize, master: Option<MasterId>) {
        if let Some(partition) = self.all.get_mut(partition) {
            partition.master = master;
        }
    }

    /// Those of a master.
    pub(super) fn of(&self, id: MasterId) -> impl Iterator<Item = usize> {
        self.all.iter().enumerate().filter(move |(_, partition)| partition.master == Some(id)).map(|(at, _)| at)
    }

    pub(super) fn is_open(&self, partition: usize) -> bool {
        self.all.get(partition).is_some_and(Partition::is_open)
    }

    pub(super) fn least_epoch(&self, partition: usize) -> u64 {
        self.all.get(partition).map_or(0, |partition| partition.least_epoch)
    }

    /// An epoch of a topic was told.
    pub(super) fn hear(&mut self, epoch: u64) {
        self.newest_epoch = self.newest_epoch.max(epoch);
    }

    /// What the epochs of a partition have to be above that settles with another server than before; else 0.
    pub(super) fn heard(&self, partition: usize, replication_id: &str) -> u64 {
        let is_known = |partition: &Partition| partition.settled_with == replication_id;
        if self.all.get(partition).is_some_and(is_known) { 0 } else { self.newest_epoch }
    }

    /// Commands that wait, about.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn count_waiting(&mut self) {
        self.waiting = self.all.iter().map(|partition| partition.queue.len() + partition.back.len()).sum();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.all.iter().all(Partition::is_idle)
    }

    /// Whether it has been away for so long that what cannot wait is answered at once. One that is open after it has refused takes one
    /// command at a time, by which it proves itself.
    pub(super) fn refuses(&self, partition: usize, now: Instant) -> bool {
        let Some(partition) = self.all.get(partition) else { return true };
        let is_away = partition.away_since.is_some_and(|since| now.duration_since(since) > PATIENCE);
        is_away && !(partition.is_open() && partition.is_idle())
    }

    /// The next command for its master, and whether more wait.
    pub(super) fn next(&mut self, partition: usize, id: MasterId) -> Option<(Command, bool)> {
        let partition = self.all.get_mut(partition)?;
        partition.is_listed = false;
        if !partition.is_open() || partition.master != Some(id) {
            return None;
        }
        let command = partition.queue.pop_front()?;
        self.waiting = self.waiting.saturating_sub(1);
        partition.is_listed = !partition.queue.is_empty();
        Some((command, partition.is_listed))
    }

    pub(super) fn sent(&mut self, partition: usize) {
        if let Some(partition) = self.all.get_mut(partition) {
            partition.under_way += 1;
        }
    }

    /// Answered, refused, or lost with its connection.
    pub(super) fn answered(&mut self, partition: usize) {
        if let Some(partition) = self.all.get_mut(partition) {
            partition.under_way = partition.under_way.saturating_sub(1);
        }
    }

    /// Its master does what it is asked for.
    pub(super) fn is_well(&mut self, partition: usize) {
        if let Some(partition) = self.all.get_mut(partition)
            && partition.is_open()
        {
            (partition.away_since, partition.is_doubted, partition.holds) = (None, false, 0);
        }
    }

    /// Appends of a topic that are to be asked again although a later one of it was stored.
    pub(super) fn overtaken(&mut self, partition: usize, topic: &str) -> Vec<Command> {
        let Some(partition) = self.all.get_mut(partition) else { return Vec::new() };
        let is_overtaken =
            |command: &mut Command| matches!(&command.what, What::Append { record, .. } if *record.topic == *topic);
        if partition.back.is_empty() { Vec::new() } else { partition.back.extract_if(.., is_overtaken).collect() }
    }

    /// What replicas may not have yet came before everything else that has come back.
    pub(super) fn put_stored_back(&mut self, stored: Vec<(usize, Command)>) {
        for (partition, mut command) in stored.into_iter().rev() {
            command.is_undecided = true;
            if let Some(partition) = self.all.get_mut(partition) {
                partition.back.insert(0, command);
            }
        }
    }

    fn close(&mut self, at: usize, due: Instant, now: Instant) {
        let Some(partition) = self.all.get_mut(at) else { return };
        (partition.phase, partition.settling) = (Phase::Closed { due }, 0);
        partition.away_since.get_or_insert(now);
        self.closed.insert(at);
    }

    /// An append that was found to be stored, or is given up: it needs not be asked again.
    pub(super) fn take_append(&mut self, partition: usize, shard: ShardId, number: u64) -> Option<Command> {
        let is_it = |command: &Command| is_append(command, shard, number);
        let partition = self.all.get_mut(partition)?;
        if let Some(at) = partition.queue.iter().position(is_it) {
            return partition.queue.remove(at);
        }
        let at = partition.back.iter().position(is_it)?;
        Some(partition.back.remove(at))
    }

    /// It may be asked again: Redis has not done it, and never will over the connection that was lost.
    pub(super) fn mark_decided(&mut self, partition: usize, shard: ShardId, number: u64) {
        let Some(partition) = self.all.get_mut(partition) else { return };
        for command in &mut partition.queue {
            if is_append(command, shard, number) {
                command.is_undecided = false;
            }
        }
    }
}

impl<H: Homes> Work<H> {
    pub(super) fn partition_of(&self, topic: &str) -> usize {
        self.keys.partition_of(topic)
    }

    /// Whether commands about the topic are sent.
    pub(super) fn is_open(&self, topic: &str) -> bool {
        self.partitions.is_open(self.partition_of(topic))
    }

    /// Whether what is about the topic is answered at once, as Redis is away.
    pub(super) fn refuses(&self, topic: &str) -> bool {
        self.partitions.refuses(self.partition_of(topic), self.now)
    }

    pub(super) fn command(&self, shard: ShardId, what: What) -> Command {
        let limit = match (&what, self.options.when_away) {
            (What::Append { .. }, WhenAway::Wait(limit)) => limit,
            _ => self.options.command_timeout,
        };
        Command { shard, what, deadline: self.now + limit, is_undecided: false }
    }

    pub(super) fn push(&mut self, shard: ShardId, what: What) {
        let command = self.command(shard, what);
        let Some(at) = command.what.partition(&self.keys) else {
            debug_assert!(false, "it is about a connection");
            return;
        };
        if let Some(partition) = self.partitions.all.get_mut(at) {
            partition.queue.push_back(command);
            self.partitions.waiting += 1;
        }
        self.list(at);
    }

    fn list(&mut self, at: usize) {
        let Some(partition) = self.partitions.all.get_mut(at) else { return };
        if partition.is_open()
            && !partition.is_listed
            && !partition.queue.is_empty()
            && let Some(link) = partition.master.and_then(|id| self.masters.link_mut(id))
        {
            partition.is_listed = true;
            link.list(at);
        }
    }

    /// Settles those whose master can be asked.
    pub(super) fn open_partitions(&mut self) {
        if self.partitions.closed.is_empty() {
            return;
        }
        let closed: Vec<usize> = self.partitions.closed.iter().copied().collect();
        for at in closed {
            let Some(partition) = self.partitions.all.get(at) else { continue };
            let Phase::Closed { due } = partition.phase else { continue };
            if self.now >= due
                && partition.under_way == 0
                && let Some(id) = partition.master
                && self.masters.is_usable(id)
            {
                self.settle(at, id);
            }
        }
    }

    fn settle(&mut self, at: usize, id: MasterId) {
        let Some(partition) = self.partitions.all.get_mut(at) else { return };
        self.partitions.closed.remove(&at);
        for command in std::mem::take(&mut partition.back).into_iter().rev() {
            partition.queue.push_front(command);
        }
        partition.phase = Phase::Settling;
        let mut finds = Vec::new();
        for command in &partition.queue {
            if let What::Append { ticket, record, message } = &command.what
                && command.is_undecided
                && record.key.is_none()
            {
                let what = What::Find { ticket: *ticket, topic: record.topic.clone(), message: message.clone() };
                let find = Command { shard: command.shard, what, deadline: command.deadline, is_undecided: false };
                finds.push((Some(at), find));
            }
        }
        if at == self.keys.nodes_partition() {
            // Lists of nodes that were asked for and lost are asked for anew.
            (self.leases_answered, self.lease_due) = (self.leases_asked, self.now);
        } else {
            let generation = self.command(ShardId(0), What::Generation { partition: at });
            finds.insert(0, (Some(at), generation));
        }
        if let Some(partition) = self.partitions.all.get_mut(at) {
            partition.settling = finds.len();
        }
        if finds.is_empty() {
            return self.open(at);
        }
        self.send(id, finds);
    }

    fn open(&mut self, at: usize) {
        let Some(partition) = self.partitions.all.get_mut(at) else { return };
        partition.phase = Phase::Open;
        if !partition.is_doubted {
            (partition.away_since, partition.holds) = (None, 0);
        }
        self.list(at);
    }

    /// One of the answers has come that the partition settles with.
    pub(super) fn settled_one(&mut self, at: usize) {
        let Some(partition) = self.partitions.all.get_mut(at) else { return };
        if !matches!(partition.phase, Phase::Settling) {
            return;
        }
        partition.settling = partition.settling.saturating_sub(1);
        if partition.settling == 0 {
            self.open(at);
        }
    }

    pub(super) fn on_generation(&mut self, at: usize, least_epoch: u64) {
        let id = self.partitions.master(at).and_then(|id| self.masters.link(id));
        let replication_id = id.map(|link| link.facts.replication_id.clone()).unwrap_or_default();
        if let Some(partition) = self.partitions.all.get_mut(at) {
            partition.least_epoch = least_epoch;
            partition.settled_with = replication_id;
        }
        self.settled_one(at);
    }

    /// Nothing is sent until it has settled again, now at the earliest.
    pub(super) fn close_partition(&mut self, at: usize) {
        self.partitions.close(at, self.now, self.now);
    }

    pub(super) fn close_partitions_of(&mut self, id: MasterId) {
        let of: Vec<usize> = self.partitions.of(id).collect();
        of.into_iter().for_each(|at| self.close_partition(at));
    }

    /// Its slot is on its way to another master, or cannot be used for now: it is tried again in a while.
    pub(super) fn hold_partition(&mut self, at: usize) {
        let Some(partition) = self.partitions.all.get_mut(at) else { return };
        partition.is_doubted |= partition.is_open();
        // Of all that was under way, one refusal counts.
        if !matches!(partition.phase, Phase::Closed { .. }) {
            let hold = (HOLD_FIRST * (1 << partition.holds.min(10))).min(HOLD_MAX);
            partition.holds += 1;
            self.partitions.close(at, self.now + hold, self.now);
        }
    }

    /// It was refused for now, or its answer was lost with its connection.
    pub(super) fn ask_again(&mut self, at: usize, mut command: Command, was_lost: bool) {
        match &command.what {
            What::Append { .. } => command.is_undecided |= was_lost,
            What::Relay { .. } if was_lost => return add(&self.status.given_up, 1),
            What::Load { .. }
            | What::Members { .. }
            | What::Presence { .. }
            | What::Read { .. }
            | What::Cursor { .. }
            | What::Claim { .. }
            | What::Release { .. }
            | What::Relay { .. } => {}
            // Asked anew when the partition settles, or at their time.
            What::Find { .. }
            | What::Generation { .. }
            | What::Standing { .. }
            | What::Touch { .. }
            | What::Tidy { .. }
            | What::Trial { .. }
            | What::Replicas { .. }
            | What::Lease { .. }
            | What::Probe { .. }
            | What::Hears { .. }
            | What::LoadScript(_) => return,
        }
        if let Some(partition) = self.partitions.all.get_mut(at) {
            partition.back.push(command);
        }
    }

    /// What has waited too long for a partition that is away is answered.
    pub(super) fn give_up_late(&mut self) {
        let (mut late, now) = (Vec::new(), self.now);
        for partition in &mut self.partitions.all {
            // Also while it is open: its master may be so slow that what waits is not sent in time.
            let mut keeps = |command: &mut Command| {
                let grace = match &command.what {
                    What::Append { record, .. } if command.is_undecided && record.key.is_some() => {
                        UNDECIDED_WITH_ID_MAX
                    }
                    What::Append { .. } if command.is_undecided => UNDECIDED_MAX,
                    _ => Duration::ZERO,
                };
                let keeps = match command.what {
                    // They are not asked for by a client who waits.
                    What::Cursor { .. } | What::Release { .. } => true,
                    _ => now < command.deadline + grace,
                };
                if !keeps {
                    let what = std::mem::replace(&mut command.what, What::Lease { number: 0 });
                    late.push((command.shard, what, command.is_undecided));
                }
                keeps
            };
            partition.back.retain_mut(&mut keeps);
            partition.queue.retain_mut(keeps);
        }
        for (shard, what, is_undecided) in late {
            if is_undecided {
                add(&self.status.undecided, 1);
            }
            self.fail(shard, what, if is_undecided { Unstored::Unknown } else { Unstored::Away });
        }
    }

    /// Redis was away for too long, or has refused it: `why` is for a message.
    pub(super) fn fail(&mut self, shard: ShardId, what: What, why: Unstored) {
        let event = match what {
            What::Append { ticket, record, .. } => {
                if why == Unstored::Away {
                    add(&self.status.refused_away, 1);
                }
                self.settle_append(&record.topic);
                Event::Stored { ticket, result: Err(why) }
            }
            What::Load { topic } => Event::Loaded { topic, result: Err(EngineUnavailable) },
            What::Read { read, .. } => Event::Read { read, result: Err(EngineUnavailable) },
            What::Claim { claim, .. } => Event::Claimed { claim, result: Err(Unclaimed::Unavailable) },
            What::Presence { read, .. } => Event::Present { read, result: Err(EngineUnavailable) },
            What::Members { topic, .. } => {
                self.unknown_members.insert((topic, shard));
                return;
            }
            What::Cursor { .. } | What::Release { .. } | What::Relay { .. } => return add(&self.status.given_up, 1),
            What::Lease { number } => {
                self.leases_answered = self.leases_answered.max(number);
                return;
            }
            What::Find { .. }
            | What::Touch { .. }
            | What::Tidy { .. }
            | What::Trial { .. }
            | What::Standing { .. }
            | What::Replicas { .. }
            | What::Generation { .. }
            | What::Probe { .. }
            | What::Hears { .. }
            | What::LoadScript(_) => {
                return;
            }
        };
        self.out.tell(shard, event);
    }

    /// An append of the topic is answered.
    pub(super) fn settle_append(&mut self, topic: &str) {
        if let Some(owed) = self.owed.get_mut(topic) {
            *owed -= 1;
            if *owed == 0 {
                self.owed.remove(topic);
            }
        }
    }
}

impl Command {
    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let body = match &self.what {
            What::Append { message, .. } | What::Find { message, .. } => message.len(),
            What::Relay { payload, .. } => payload.len(),
            _ => 0,
        };
        body + 256
    }
}

//! Mailboxes as the worker has them: one for each receiving shard, bounded. What a full one refuses waits with its sender
//! and keeps its order. [`World`](crate::World) has none: a driver that wants them moves letters from `World::mail` into these.

use std::collections::{BTreeMap, VecDeque};

use ringgate_core::shard::{Letter, ToEdge, ToHome};

use crate::world::Sent;

/// Every kind of letter, as [`kind`] calls it.
const KINDS: [&str; 23] = [
    "Attach",
    "Detach",
    "Publish",
    "Copy",
    "Ack",
    "CatchUp",
    "Subscribe",
    "Unsubscribe",
    "Presence",
    "History",
    "Credit",
    "Attached",
    "Refused",
    "Published",
    "Failed",
    "Deliver",
    "CaughtUp",
    "Subscribed",
    "PresenceResult",
    "HistoryResult",
    "Fanout",
    "NotSubscribed",
    "LookupFailed",
];

fn kind(letter: &Letter) -> &'static str {
    match letter {
        Letter::ToHome(letter) => match letter {
            ToHome::Attach(_) => "Attach",
            ToHome::Detach { .. } => "Detach",
            ToHome::Publish(_) => "Publish",
            ToHome::Copy(_) => "Copy",
            ToHome::Ack { .. } => "Ack",
            ToHome::CatchUp { .. } => "CatchUp",
            ToHome::Subscribe(_) => "Subscribe",
            ToHome::Unsubscribe { .. } => "Unsubscribe",
            ToHome::Presence { .. } => "Presence",
            ToHome::History(_) => "History",
            ToHome::Credit { .. } => "Credit",
        },
        Letter::ToEdge(letter) => match letter {
            ToEdge::Attached { .. } => "Attached",
            ToEdge::Refused { .. } => "Refused",
            ToEdge::Unavailable { .. } => "Unavailable",
            ToEdge::Published(_) => "Published",
            ToEdge::Failed { .. } => "Failed",
            ToEdge::Deliver { .. } => "Deliver",
            ToEdge::CaughtUp { .. } => "CaughtUp",
            ToEdge::Subscribed(_) => "Subscribed",
            ToEdge::PresenceResult(_) => "PresenceResult",
            ToEdge::HistoryResult(_) => "HistoryResult",
            ToEdge::Fanout { .. } => "Fanout",
            ToEdge::NotSubscribed { .. } => "NotSubscribed",
            ToEdge::LookupFailed { .. } => "LookupFailed",
            ToEdge::StartOver { .. } => "StartOver",
        },
    }
}

/// See the module.
pub struct Mailboxes {
    letters_max: usize,
    mailboxes: Vec<VecDeque<Letter>>,
    /// By sender, then by receiver.
    backlogs: Vec<Vec<VecDeque<Letter>>>,
    /// How often a letter of each kind found its mailbox full. Every kind is there.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Mailboxes {
    /// Empty mailboxes that take so many letters each.
    pub fn new(shards: usize, letters_max: usize) -> Mailboxes {
        let row = || (0..shards).map(|_| VecDeque::new()).collect::<Vec<_>>();
        Mailboxes {
            letters_max,
            mailboxes: row(),
            backlogs: (0..shards).map(|_| row()).collect(),
            refused: KINDS.map(|kind| (kind, 0)).into(),
        }
    }

    /// Takes a letter that [`Self::send`] is to move.
    pub fn post(&mut self, sent: Sent) {
        self.backlogs[sent.from][sent.to].push_back(sent.letter);
    }

    /// Moves a shard's letters into mailboxes as far as there is room; returns how many letters and bytes wait for each shard.
    pub fn send(&mut self, from: usize) -> Vec<(usize, usize)> {
        for (to, backlog) in self.backlogs[from].iter_mut().enumerate() {
            while let Some(letter) = backlog.pop_front() {
                if self.mailboxes[to].len() >= self.letters_max {
                    *self.refused.entry(kind(&letter)).or_default() += 1;
                    backlog.push_front(letter);
                    break;
                }
                self.mailboxes[to].push_back(letter);
            }
        }
        let waiting = |backlog: &VecDeque<Letter>| (backlog.len(), backlog.iter().map(Letter::bytes).sum());
        self.backlogs[from].iter().map(waiting).collect()
    }

    /// The node was killed: no letter is under way any more.
    pub fn clear(&mut self) {
        self.mailboxes.iter_mut().chain(self.backlogs.iter_mut().flatten()).for_each(VecDeque::clear);
    }

    /// The oldest letter of a mailbox.
    pub fn take(&mut self, to: usize) -> Option<Letter> {
        self.mailboxes[to].pop_front()
    }

    /// Every letter that is under way.
    pub fn letters(&self) -> impl Iterator<Item = &Letter> {
        self.mailboxes.iter().chain(self.backlogs.iter().flatten()).flatten()
    }
}

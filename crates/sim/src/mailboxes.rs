//! Mailboxes as the worker has them: one for each receiving shard, bounded. What a full one refuses waits with its sender
//! and keeps its order. [`World`](crate::World) has none: a driver that wants them moves letters from `World::mail` into these.

use std::collections::VecDeque;

use ringgate_core::shard::Letter;

use crate::world::Sent;

/// See the module.
pub struct Mailboxes {
    letters_max: usize,
    mailboxes: Vec<VecDeque<Letter>>,
    /// By sender, then by receiver.
    backlogs: Vec<Vec<VecDeque<Letter>>>,
    /// How often a letter found its mailbox full.
    pub refused: u64,
}

impl Mailboxes {
    /// Empty mailboxes that take so many letters each.
    pub fn new(shards: usize, letters_max: usize) -> Mailboxes {
        let row = || (0..shards).map(|_| VecDeque::new()).collect::<Vec<_>>();
        Mailboxes { letters_max, mailboxes: row(), backlogs: (0..shards).map(|_| row()).collect(), refused: 0 }
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
                    self.refused += 1;
                    backlog.push_front(letter);
                    break;
                }
                self.mailboxes[to].push_back(letter);
            }
        }
        let waiting = |backlog: &VecDeque<Letter>| (backlog.len(), backlog.iter().map(Letter::bytes).sum());
        self.backlogs[from].iter().map(waiting).collect()
    }

    /// The oldest letter of a mailbox.
    pub fn take(&mut self, to: usize) -> Option<Letter> {
        self.mailboxes[to].pop_front()
    }

    /// The node has ended: nothing is under way any more.
    pub fn clear(&mut self) {
        self.mailboxes.iter_mut().chain(self.backlogs.iter_mut().flatten()).for_each(VecDeque::clear);
    }

    /// Every letter that is under way.
    pub fn letters(&self) -> impl Iterator<Item = &Letter> {
        self.mailboxes.iter().chain(self.backlogs.iter().flatten()).flatten()
    }
}

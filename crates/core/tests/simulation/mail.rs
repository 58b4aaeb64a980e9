//! Mailboxes as the worker has them: one for each receiving shard, bounded. What a full one refuses waits with its sender
//! and keeps its order.

use std::collections::VecDeque;

use ringgate_core::shard::Letter;

pub(crate) struct Mail {
    letters_max: usize,
    mailboxes: Vec<VecDeque<Letter>>,
    /// By sender, then by receiver.
    backlogs: Vec<Vec<VecDeque<Letter>>>,
    /// How often a letter found its mailbox full.
    pub(crate) refused: u64,
}

impl Mail {
    pub(crate) fn new(shards: usize, letters_max: usize) -> Mail {
        let row = || (0..shards).map(|_| VecDeque::new()).collect::<Vec<_>>();
        Mail { letters_max, mailboxes: row(), backlogs: (0..shards).map(|_| row()).collect(), refused: 0 }
    }

    pub(crate) fn post(&mut self, from: usize, to: usize, letter: Letter) {
        self.backlogs[from][to].push_back(letter);
    }

    /// Moves a shard's letters into mailboxes as far as there is room; returns how many letters and bytes wait for each shard.
    pub(crate) fn send(&mut self, from: usize) -> Vec<(usize, usize)> {
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

    pub(crate) fn take(&mut self, to: usize) -> Option<Letter> {
        self.mailboxes[to].pop_front()
    }

    /// Every letter that is under way.
    pub(crate) fn letters(&self) -> impl Iterator<Item = &Letter> {
        self.mailboxes.iter().chain(self.backlogs.iter().flatten()).flatten()
    }
}

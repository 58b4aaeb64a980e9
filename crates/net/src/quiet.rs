//! Looks once at every socket that has fallen quiet after data that was not answered.
//!
//! A kernel may not announce the end of a connection that comes right behind data: both wake an armed receive before it
//! runs, it takes the data, and counts both as done (liburing issue 1549; seen on 6.18 with a reset behind data). The
//! socket would stay open until a deadline of the core. A send that is made after the data was taken hears of it: whoever
//! is answered within the turn, as every Ping is, needs no look. At the others one peek, half a second to a second after
//! the last data (later where very many are to be looked at), finds what was missed. A busy socket is passed over, an idle
//! one is looked at once, and memory is one key for each socket that was heard within the last second.

use std::time::{Duration, Instant};

use ringgate_core::id::ConnectionKey;

/// From one generation of heard sockets to the next.
const GENERATION: Duration = Duration::from_millis(500);

/// What is known of a socket here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// Nothing has ever come.
    New,
    /// Nothing has come since it was looked at, or sent to.
    Checked,
    /// It was heard in this turn.
    Fresh,
    /// And then sent to.
    Answered,
    /// It is listed, and nothing has come since.
    Listed,
    /// It is listed, and more has come since.
    Heard,
    /// It is being looked at.
    Peeking,
    /// A peek is in flight; data arrived meanwhile.
    PeekingHeard,
}

impl Quiet {
    /// Something is sent to it. What was under way before says nothing about what came later.
    pub(super) fn answered(&mut self) {
        if *self == Quiet::Fresh {
            *self = Quiet::Answered;
        }
    }

    /// Whether a peek is in the kernel.
    pub(super) fn is_peeking(self) -> bool {
        matches!(self, Quiet::Peeking | Quiet::PeekingHeard)
    }
}

/// Sockets that were heard, by generation.
pub(super) struct QuietList {
    /// Those of this turn.
    fresh: Vec<ConnectionKey>,
    heard: Vec<ConnectionKey>,
    /// Those of the generation before, to be looked at now.
    due: Vec<ConnectionKey>,
    turned: Instant,
}

impl QuietList {
    pub(super) fn new() -> Self {
        QuietList { fresh: Vec::new(), heard: Vec::new(), due: Vec::new(), turned: Instant::now() }
    }

    /// Data has come.
    pub(super) fn heard(&mut self, key: ConnectionKey, quiet: &mut Quiet) {
        *quiet = match *quiet {
            Quiet::New | Quiet::Checked => {
                self.fresh.push(key);
                Quiet::Fresh
            }
            Quiet::Fresh | Quiet::Answered => Quiet::Fresh,
            Quiet::Listed | Quiet::Heard => Quiet::Heard,
            Quiet::Peeking | Quiet::PeekingHeard => Quiet::PeekingHeard,
        };
    }

    /// A socket that was heard in the turn that is over; each is to be settled before the next turn hears others.
    pub(super) fn next_fresh(&mut self) -> Option<ConnectionKey> {
        self.fresh.pop()
    }

    /// It is to be looked at unless it was answered.
    pub(super) fn settle(&mut self, key: ConnectionKey, quiet: &mut Quiet) {
        match *quiet {
            Quiet::Answered => *quiet = Quiet::Checked,
            Quiet::Fresh => self.list(key, quiet),
            _ => {}
        }
    }

    fn list(&mut self, key: ConnectionKey, quiet: &mut Quiet) {
        if self.heard.is_empty() {
            // The first of a generation; after a calm time, `turned` may be long ago.
            self.turned = Instant::now();
        }
        self.heard.push(key);
        *quiet = Quiet::Listed;
    }

    /// The next socket whose turn it is.
    pub(super) fn next(&mut self) -> Option<ConnectionKey> {
        if self.due.is_empty() && !self.heard.is_empty() && self.turned.elapsed() >= GENERATION {
            self.turned = Instant::now();
            core::mem::swap(&mut self.due, &mut self.heard);
        }
        self.due.pop()
    }

    /// It is the socket's turn: whether to peek at it. One that was heard again waits for another.
    pub(super) fn must_peek(&mut self, key: ConnectionKey, quiet: &mut Quiet) -> bool {
        match *quiet {
            Quiet::Listed => {
                *quiet = Quiet::Peeking;
                true
            }
            Quiet::Heard => {
                self.heard.push(key);
                *quiet = Quiet::Listed;
                false
            }
            Quiet::New | Quiet::Checked | Quiet::Fresh | Quiet::Answered | Quiet::Peeking | Quiet::PeekingHeard => {
                false
            }
        }
    }

    /// The peek is back.
    pub(super) fn peeked(&mut self, key: ConnectionKey, quiet: &mut Quiet) {
        let again = *quiet == Quiet::PeekingHeard;
        *quiet = Quiet::Checked;
        if again {
            self.list(key, quiet);
        }
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub(super) fn release_spares(&mut self) {
        self.fresh.shrink_to_fit();
        self.heard.shrink_to_fit();
        self.due.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(list: &mut QuietList) {
        list.turned -= GENERATION;
    }

    fn settle(list: &mut QuietList, quiet: &mut Quiet) {
        while let Some(key) = list.next_fresh() {
            list.settle(key, quiet);
        }
    }

    #[test]
    fn who_falls_quiet_is_looked_at_once() {
        let (mut list, mut quiet) = (QuietList::new(), Quiet::Checked);
        let key = ConnectionKey { slot: 3, generation: 1 };
        list.heard(key, &mut quiet);
        settle(&mut list, &mut quiet);
        assert_eq!(list.next(), None, "it was heard just now");
        list.heard(key, &mut quiet);
        turn(&mut list);
        assert_eq!(list.next(), Some(key));
        assert!(!list.must_peek(key, &mut quiet), "it was heard again since it was listed");
        assert_eq!(list.next(), None);
        turn(&mut list);
        assert_eq!(list.next(), Some(key));
        assert!(list.must_peek(key, &mut quiet) && quiet.is_peeking());
        list.peeked(key, &mut quiet);
        turn(&mut list);
        assert_eq!((list.next(), quiet), (None, Quiet::Checked), "once is enough");
    }

    #[test]
    fn who_is_answered_is_not_looked_at() {
        let (mut list, mut quiet) = (QuietList::new(), Quiet::Checked);
        let key = ConnectionKey { slot: 3, generation: 1 };
        list.heard(key, &mut quiet);
        quiet.answered();
        settle(&mut list, &mut quiet);
        turn(&mut list);
        assert_eq!((list.next(), quiet), (None, Quiet::Checked));
        list.heard(key, &mut quiet);
        quiet.answered();
        list.heard(key, &mut quiet);
        settle(&mut list, &mut quiet);
        turn(&mut list);
        assert_eq!((list.next(), quiet), (Some(key), Quiet::Listed), "more came after the answer");
    }

    #[test]
    fn who_is_heard_during_the_look_is_looked_at_again() {
        let (mut list, mut quiet) = (QuietList::new(), Quiet::Listed);
        let key = ConnectionKey { slot: 3, generation: 1 };
        assert!(list.must_peek(key, &mut quiet));
        list.heard(key, &mut quiet);
        assert!(quiet.is_peeking());
        list.peeked(key, &mut quiet);
        turn(&mut list);
        assert_eq!((list.next(), quiet), (Some(key), Quiet::Listed));
    }
}

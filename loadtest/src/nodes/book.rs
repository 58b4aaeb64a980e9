//! What each person has written and read, and what follows from it: lost, doubled, out of order.

use std::collections::{BTreeMap, BTreeSet};

/// Where a message was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The inbox of the next person.
    Inbox,
    /// The room that everybody is in.
    Room,
}

impl Place {
    pub(super) const ALL: [Place; 2] = [Place::Inbox, Place::Room];
}

/// One person's side. Messages to each place are numbered from 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// Messages that were answered with Published, by place.
    pub(super) written: [u32; 2],
    /// Messages that have no answer yet.
    pub(super) unanswered: u32,
    /// Numbers in the order in which they came, by place and writer.
    pub(super) read: BTreeMap<(Place, usize), Vec<u32>>,
}

/// The books of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Messages that were answered with Published, by place.
    pub(super) written: [u64; 2],
    pub(super) unanswered: u64,
    /// Deliveries that these messages owe: one for an inbox, one for each person in the room.
    pub(super) owed: u64,
    /// Deliveries that came, each counted once.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// Messages that came behind a later one of the same writer to the same place.
    pub(super) reordered: u64,
    /// Messages that came to somebody they were not for.
    pub(super) misdelivered: u64,
}

impl Verdict {
    /// Every message was answered, and came to each of its readers once and in order.
    pub(super) fn is_clean(&self) -> bool {
        self.delivered == self.owed
            && self.unanswered + self.lost + self.doubled + self.reordered + self.misdelivered == 0
    }
}

/// Holds the books of all people, in their order, against each other.
pub(super) fn judge(books: &[Book]) -> Verdict {
    let mut verdict = Verdict::default();
    for book in books {
        for place in Place::ALL {
            verdict.written[place as usize] += u64::from(book.written[place as usize]);
        }
        verdict.unanswered += u64::from(book.unanswered);
    }
    for (reader, book) in books.iter().enumerate() {
        for (writer, theirs) in books.iter().enumerate() {
            for place in Place::ALL {
                let came = book.read.get(&(place, writer)).map_or(&[][..], Vec::as_slice);
                if place == Place::Inbox && (writer + 1) % books.len() != reader {
                    verdict.misdelivered += came.len() as u64;
                    continue;
                }
                let distinct: BTreeSet<u32> = came.iter().copied().collect();
                // One that was stored and whose answer never came is unanswered, and nobody's loss.
                let answered = theirs.written[place as usize];
                let delivered = distinct.range(..answered).count() as u64;
                verdict.owed += u64::from(answered);
                verdict.delivered += delivered;
                verdict.lost += u64::from(answered) - delivered;
                verdict.doubled += (came.len() - distinct.len()) as u64;
                verdict.reordered += came.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three people who have written two messages to the next one and one to the room, all of which came.
    fn books() -> Vec<Book> {
        let book = |reader: usize| {
            let mut read: BTreeMap<_, _> = (0..3).map(|writer| ((Place::Room, writer), vec![0])).collect();
            read.insert((Place::Inbox, (reader + 2) % 3), vec![0, 1]);
            Book { written: [2, 1], unanswered: 0, read }
        };
        (0..3).map(book).collect()
    }

    #[test]
    fn everything_came_once_and_in_order_then_the_verdict_is_clean() {
        let verdict = judge(&books());
        let expected = Verdict { written: [6, 3], owed: 15, delivered: 15, ..Verdict::default() };
        assert_eq!(verdict, expected);
        assert!(verdict.is_clean());
    }

    #[test]
    fn something_goes_wrong_then_exactly_that_is_counted() {
        type Change = fn(&mut [Book]);
        let cases: [(Change, [u64; 5]); 6] = [
            (|books| drop(books[1].read.remove(&(Place::Room, 2))), [1, 0, 0, 0, 0]),
            (|books| books[0].read.entry((Place::Inbox, 2)).or_default().push(1), [0, 1, 0, 0, 0]),
            (|books| books[0].read.entry((Place::Inbox, 2)).or_default().reverse(), [0, 0, 1, 0, 0]),
            (|books| books[0].read.entry((Place::Inbox, 1)).or_default().push(0), [0, 0, 0, 1, 0]),
            (|books| books[2].unanswered = 1, [0, 0, 0, 0, 1]),
            // Neither answered nor lost: it came all the same.
            (|books| (books[2].unanswered, books[2].written) = (1, [1, 1]), [0, 0, 0, 0, 1]),
        ];
        for (number, (change, expected)) in cases.into_iter().enumerate() {
            let mut books = books();
            change(&mut books);
            let verdict = judge(&books);
            let Verdict { lost, doubled, reordered, misdelivered, unanswered, .. } = verdict;
            assert_eq!([lost, doubled, reordered, misdelivered, unanswered], expected, "case {number}");
            assert!(!verdict.is_clean(), "case {number}");
        }
    }
}

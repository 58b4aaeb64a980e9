//! What was sent, how it was answered, and what of it arrived at whom: kept by each ring for its own clients, and put
//! together when a run is over. Nothing is netted: a message that arrived twice does not make up for one that is lost.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::sequences::{Arrival, Range, Ranges, Sequences};
use super::stamp::{Sender, Stamp};

/// The clients of one ring, as senders and as receivers.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sent: HashMap<Sender, Sent, FxBuildHasher>,
    /// By receiver and sender.
    heard: HashMap<(u32, Sender), Sequences, FxBuildHasher>,
    /// What the receivers saw at once.
    pub(crate) found: Found,
}

/// What became of the messages of one sender, as far as it knows.
#[derive(Debug, Default)]
struct Sent {
    /// The last sequence.
    last: u32,
    /// Deliveries that each of them is to cause.
    recipients: u32,
    answered: Sequences,
    refused: Ranges,
    undecided: Ranges,
}

/// What was seen at once when messages and answers came, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Found {
    /// Different messages that arrived where they were to.
    pub(crate) arrived: u64,
    /// Arrived again.
    pub(crate) duplicated: u64,
    /// Arrived after a later one of the same sender.
    pub(crate) reordered: u64,
    /// Not what was sent: a byte was changed, cut or added.
    pub(crate) corrupted: u64,
    /// Arrived at a client or in a room that it was not sent to, or in the name of another topic or sender.
    pub(crate) misdelivered: u64,
    /// Answers to publishes that were answered already.
    pub(crate) answered_twice: u64,
}

impl Found {
    fn add(&mut self, other: Found) {
        self.arrived += other.arrived;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.misdelivered += other.misdelivered;
        self.answered_twice += other.answered_twice;
    }
}

/// What an answer is to the publishes of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The first one.
    First,
    /// There was one already.
    Again,
    /// Nothing like that was sent.
    Unasked,
}

impl Ledger {
    /// The sequence of a sender's next message, which is to cause so many deliveries.
    pub(crate) fn send(&mut self, sender: Sender, recipients: u32) -> u32 {
        let sent = self.sent.entry(sender).or_default();
        sent.recipients = recipients;
        sent.last += 1;
        sent.last
    }

    /// The last sequence of a sender; 0 if it has sent nothing.
    pub(crate) fn last(&self, sender: Sender) -> u32 {
        self.sent.get(&sender).map_or(0, |sent| sent.last)
    }

    /// A publish was answered, with Published or with Error.
    pub(crate) fn answer(&mut self, sender: Sender, sequence: u32, accepted: bool) -> Answer {
        let sent = self.sent.get_mut(&sender).filter(|sent| (1..=sent.last).contains(&sequence));
        let Some(sent) = sent else { return Answer::Unasked };
        if sent.answered.insert(sequence) == Arrival::Again {
            self.found.answered_twice += 1;
            return Answer::Again;
        }
        if !accepted {
            sent.refused.add((sequence, sequence));
        }
        Answer::First
    }

    /// A sender's connection has ended: nobody will ever answer what is not answered yet.
    pub(crate) fn abandon(&mut self, sender: Sender) {
        if let Some(sent) = self.sent.get_mut(&sender) {
            let undecided = sent.answered.fill(sent.last);
            sent.undecided.extend(&undecided);
        }
    }

    /// A message has arrived where it was to. True if it is the first time.
    pub(crate) fn arrived(&mut self, receiver: u32, stamp: Stamp) -> bool {
        let arrival = self.heard.entry((receiver, stamp.sender)).or_default().insert(stamp.sequence);
        match arrival {
            Arrival::Again => self.found.duplicated += 1,
            Arrival::Next => self.found.arrived += 1,
            Arrival::Late => {
                self.found.arrived += 1;
                self.found.reordered += 1;
            }
        }
        arrival != Arrival::Again
    }

    /// What the ring's clients know, as it is sent on.
    pub(crate) fn books(self) -> Books {
        let account = |(sender, mut sent): (Sender, Sent)| {
            let unanswered = sent.answered.fill(sent.last);
            let Sent { last, recipients, refused, undecided, .. } = sent;
            Account { sender, last, recipients, refused, undecided, unanswered }
        };
        let accounts = self.sent.into_iter().map(account).collect();
        // Most receivers of a sender have heard everything.
        let mut hearings: HashMap<(Sender, u32, u32, Vec<Range>), u32> = HashMap::new();
        for ((_, sender), sequences) in self.heard {
            let (last, missing) = (sequences.last(), sequences.missing());
            *hearings.entry((sender, last, missing, sequences.holes().to_vec())).or_default() += 1;
        }
        let hearing = |((sender, last, missing, holes), receivers)| Hearing { sender, receivers, last, missing, holes };
        Books { found: self.found, accounts, hearings: hearings.into_iter().map(hearing).collect() }
    }
}

/// What a sender says of its messages.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "AccountRow", from = "AccountRow")]
pub(crate) struct Account {
    sender: Sender,
    last: u32,
    recipients: u32,
    refused: Ranges,
    undecided: Ranges,
    unanswered: Ranges,
}

/// A row of numbers: there may be a million of them on one wire.
type AccountRow = (Sender, u32, u32, [(u64, Vec<Range>); 3]);

impl From<Account> for AccountRow {
    fn from(account: Account) -> AccountRow {
        let ranges = [account.refused, account.undecided, account.unanswered];
        (account.sender, account.last, account.recipients, ranges.map(|some| (some.count(), some.kept().to_vec())))
    }
}

impl From<AccountRow> for Account {
    fn from((sender, last, recipients, ranges): AccountRow) -> Account {
        let [refused, undecided, unanswered] = ranges.map(|(count, kept)| Ranges::of(kept, count));
        Account { sender, last, recipients, refused, undecided, unanswered }
    }
}

/// What some receivers say of the messages of one sender.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "HearingRow", from = "HearingRow")]
pub(crate) struct Hearing {
    sender: Sender,
    receivers: u32,
    last: u32,
    missing: u32,
    holes: Vec<Range>,
}

type HearingRow = (Sender, u32, u32, u32, Vec<Range>);

impl From<Hearing> for HearingRow {
    fn from(Hearing { sender, receivers, last, missing, holes }: Hearing) -> HearingRow {
        (sender, receivers, last, missing, holes)
    }
}

impl From<HearingRow> for Hearing {
    fn from((sender, receivers, last, missing, holes): HearingRow) -> Hearing {
        Hearing { sender, receivers, last, missing, holes }
    }
}

/// What senders and receivers say, of one ring or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Books {
    pub(crate) found: Found,
    accounts: Vec<Account>,
    hearings: Vec<Hearing>,
}

/// What became of all messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balance {
    /// Deliveries of accepted messages.
    pub(crate) delivered: u64,
    /// Of accepted messages: that did not come.
    pub(crate) lost: u64,
    /// Of messages whose publish had no answer.
    pub(crate) delivered_undecided: u64,
    /// Of messages whose publish was refused.
    pub(crate) delivered_refused: u64,
    /// Publishes whose connection ended before the answer.
    pub(crate) undecided: u64,
    /// Publishes without an answer on a connection that lived.
    pub(crate) unanswered: u64,
}

impl Books {
    /// Adds those of other clients.
    pub(crate) fn add(&mut self, other: Books) {
        self.found.add(other.found);
        self.accounts.extend(other.accounts);
        self.hearings.extend(other.hearings);
    }

    /// The same books in pieces of so many rows.
    pub(crate) fn split(mut self, rows: usize) -> Vec<Books> {
        let mut pieces = vec![Books { found: core::mem::take(&mut self.found), ..Books::default() }];
        for accounts in self.accounts.chunks(rows) {
            pieces.push(Books { accounts: accounts.to_vec(), ..Books::default() });
        }
        for hearings in self.hearings.chunks(rows) {
            pieces.push(Books { hearings: hearings.to_vec(), ..Books::default() });
        }
        pieces
    }

    /// Holds what was sent against what arrived. Where the books of some clients are missing, their deliveries are too.
    pub(crate) fn balance(&self) -> Balance {
        let mut by_sender: HashMap<Sender, Vec<&Hearing>, FxBuildHasher> = HashMap::default();
        for hearing in &self.hearings {
            by_sender.entry(hearing.sender).or_default().push(hearing);
        }
        let mut balance = Balance::default();
        for account in &self.accounts {
            account.balance(by_sender.get(&account.sender).map_or(&[], Vec::as_slice), &mut balance);
        }
        balance
    }
}

impl Account {
    fn balance(&self, hearings: &[&Hearing], balance: &mut Balance) {
        let open = |come: &dyn Fn(&Ranges) -> u64| come(&self.undecided) + come(&self.unanswered);
        let accepted = u64::from(self.last) - self.refused.count() - open(&Ranges::count);
        let mut heard = 0;
        for hearing in hearings {
            let receivers = u64::from(hearing.receivers);
            let come = |ranges: &Ranges| ranges.come(hearing.last, &hearing.holes);
            let (undecided, refused) = (open(&come), come(&self.refused));
            let all = u64::from(hearing.last - hearing.missing);
            let delivered = all.saturating_sub(undecided + refused);
            balance.delivered += receivers * delivered;
            balance.delivered_undecided += receivers * undecided;
            balance.delivered_refused += receivers * refused;
            balance.lost += receivers * accepted.saturating_sub(delivered);
            heard += receivers;
        }
        balance.lost += u64::from(self.recipients).saturating_sub(heard) * accepted;
        balance.undecided += self.undecided.count();
        balance.unanswered += self.unanswered.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Recipient, When};

    const SENDER: u32 = 2;

    fn sender() -> Sender {
        Sender::new(SENDER, 1)
    }

    fn stamp(sequence: u32) -> Stamp {
        Stamp { run: 1, to: Recipient::client(9), sender: sender(), sequence, when: When::default() }
    }

    /// A sender that has sent so much to so many, and had all of it accepted.
    fn accepted(messages: u32, recipients: u32) -> Ledger {
        let mut ledger = Ledger::default();
        for sequence in 1..=messages {
            assert_eq!(ledger.send(sender(), recipients), sequence);
            assert_eq!(ledger.answer(sender(), sequence, true), Answer::First);
        }
        ledger
    }

    fn balance(ledgers: impl IntoIterator<Item = Ledger>) -> (Found, Balance) {
        let mut books = Books::default();
        ledgers.into_iter().for_each(|ledger| books.add(ledger.books()));
        (books.found, books.balance())
    }

    #[test]
    fn duplicates_and_reordering_are_told_apart() {
        let mut ledger = accepted(5, 1);
        for sequence in [1, 2, 4, 3, 3, 5, 1] {
            ledger.arrived(9, stamp(sequence));
        }
        let (found, balance) = balance([ledger]);
        assert_eq!((found.arrived, found.duplicated, found.reordered), (5, 2, 1));
        assert_eq!(balance, Balance { delivered: 5, ..Balance::default() });
    }

    #[test]
    fn a_duplicate_does_not_make_up_for_a_loss() {
        let mut ledger = accepted(4, 1);
        for sequence in [1, 2, 2, 4] {
            ledger.arrived(9, stamp(sequence));
        }
        let (found, balance) = balance([ledger]);
        assert_eq!((found.duplicated, balance.delivered, balance.lost), (1, 3, 1));
    }

    #[test]
    fn a_delivery_of_an_undecided_publish_does_not_make_up_for_a_loss() {
        let mut ledger = accepted(3, 1);
        ledger.send(sender(), 1);
        ledger.send(sender(), 1);
        ledger.abandon(sender());
        // The fifth was undecided, too, and never came.
        for sequence in [1, 3, 4] {
            ledger.arrived(9, stamp(sequence));
        }
        let (_, balance) = balance([ledger]);
        let expected = Balance { delivered: 2, lost: 1, delivered_undecided: 1, undecided: 2, ..Balance::default() };
        assert_eq!(balance, expected);
    }

    #[test]
    fn a_refused_publish_that_arrives_is_counted_apart_and_one_that_does_not_is_not_lost() {
        let mut ledger = Ledger::default();
        for sequence in 1..=4 {
            ledger.send(sender(), 1);
            ledger.answer(sender(), sequence, sequence % 2 == 1);
        }
        for sequence in [1, 2, 3] {
            ledger.arrived(9, stamp(sequence));
        }
        let (_, balance) = balance([ledger]);
        assert_eq!(balance, Balance { delivered: 2, delivered_refused: 1, ..Balance::default() });
    }

    #[test]
    fn answers_that_come_twice_or_unasked_are_seen() {
        let mut ledger = accepted(2, 1);
        assert_eq!(ledger.answer(sender(), 2, true), Answer::Again);
        assert_eq!(ledger.answer(sender(), 3, true), Answer::Unasked);
        assert_eq!(ledger.answer(sender(), 0, true), Answer::Unasked);
        assert_eq!(ledger.answer(Sender::new(SENDER, 2), 1, true), Answer::Unasked);
        assert_eq!(ledger.found.answered_twice, 1);
        ledger.send(sender(), 1);
        let (_, balance) = balance([ledger]);
        assert_eq!(balance.unanswered, 1);
    }

    #[test]
    fn receivers_of_a_room_that_heard_nothing_or_a_part_miss_the_rest() {
        let rings = [accepted(10, 5), Ledger::default()];
        let mut rings = rings;
        for sequence in 1..=10 {
            rings[1].arrived(1, stamp(sequence));
            rings[1].arrived(2, stamp(sequence));
            if sequence < 8 {
                rings[0].arrived(3, stamp(sequence));
            }
            if sequence != 5 {
                rings[0].arrived(4, stamp(sequence));
            }
        }
        // The fifth member never heard of it.
        let (_, balance) = balance(rings);
        assert_eq!((balance.delivered, balance.lost), (10 + 10 + 7 + 9, 3 + 1 + 10));
    }

    #[test]
    fn streams_of_one_client_count_on_their_own() {
        let mut ledger = Ledger::default();
        let streams = [Sender::new(SENDER, 1), Sender::new(SENDER, 2)];
        for sequence in 1..=3 {
            for sender in streams {
                assert_eq!(ledger.send(sender, 1), sequence);
                ledger.answer(sender, sequence, true);
                assert!(ledger.arrived(9, Stamp { sender, ..stamp(sequence) }));
            }
        }
        let (found, balance) = balance([ledger]);
        assert_eq!((found.duplicated, balance.lost, balance.delivered), (0, 0, 6));
    }

    #[test]
    fn books_in_pieces_and_in_text_say_nothing_else() {
        let mut ledger = accepted(20, 2);
        for sequence in (1..=20).filter(|sequence| sequence % 7 != 0) {
            ledger.arrived(9, stamp(sequence));
        }
        ledger.send(sender(), 2);
        ledger.abandon(sender());
        for client in 10..30 {
            ledger.send(Sender::new(client, 3), 1);
            ledger.answer(Sender::new(client, 3), 1, false);
        }
        let books = ledger.books();
        let mut again = Books::default();
        for piece in books.clone().split(4) {
            let text = serde_json::to_string(&piece).unwrap();
            again.add(serde_json::from_str(&text).unwrap());
        }
        assert_eq!(again, books);
        assert_eq!((again.balance().lost, again.balance().undecided), (2 + 20, 1));
    }
}

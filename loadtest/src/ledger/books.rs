//! What was sent, how it was answered, and what of it arrived at whom: kept by each ring for its own clients, and put
//! together when a run is over. Nothing is netted: a message that arrived twice does not make up for one that is lost.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::sequences::{Arrival, Range, Ranges, Sequences, above};
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
    /// Answers with the request number of another publish than the one that their client message id names.
    pub(crate) answered_wrong: u64,
}

impl Found {
    fn add(&mut self, other: Found) {
        self.arrived += other.arrived;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.misdelivered += other.misdelivered;
        self.answered_twice += other.answered_twice;
        self.answered_wrong += other.answered_wrong;
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

    /// How many messages of a sender have no answer, and may still get one.
    pub(crate) fn under_way(&self, sender: Sender) -> u32 {
        self.sent.get(&sender).map_or(0, |sent| sent.last - sent.answered.come())
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

    /// A sender's connection has ended: what is not answered yet never will be. How many publishes that were.
    pub(crate) fn abandon(&mut self, sender: Sender) -> u32 {
        let Some(sent) = self.sent.get_mut(&sender) else { return 0 };
        let undecided = sent.answered.fill(sent.last);
        sent.undecided.extend(&undecided);
        undecided.count() as u32
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
        let mut hearings: HashMap<(Sender, Sequences), u32> = HashMap::new();
        for ((_, sender), sequences) in self.heard {
            *hearings.entry((sender, sequences)).or_default() += 1;
        }
        let hearing = |((sender, sequences), receivers): ((Sender, Sequences), u32)| Hearing {
            sender,
            receivers,
            last: sequences.last(),
            missing: sequences.missing(),
            forgotten_to: sequences.forgotten_to(),
            holes: sequences.holes().to_vec(),
        };
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
type AccountRow = (Sender, u32, u32, [(u64, u32, Vec<Range>); 3]);

impl From<Account> for AccountRow {
    fn from(account: Account) -> AccountRow {
        let ranges = [account.refused, account.undecided, account.unanswered];
        let row = |some: Ranges| (some.count(), some.forgotten_to(), some.kept().to_vec());
        (account.sender, account.last, account.recipients, ranges.map(row))
    }
}

impl From<AccountRow> for Account {
    fn from((sender, last, recipients, ranges): AccountRow) -> Account {
        let of = |(count, forgotten_to, kept)| Ranges::of(kept, count, forgotten_to);
        let [refused, undecided, unanswered] = ranges.map(of);
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
    forgotten_to: u32,
    holes: Vec<Range>,
}

type HearingRow = (Sender, u32, u32, u32, u32, Vec<Range>);

impl From<Hearing> for HearingRow {
    fn from(Hearing { sender, receivers, last, missing, forgotten_to, holes }: Hearing) -> HearingRow {
        (sender, receivers, last, missing, forgotten_to, holes)
    }
}

impl From<HearingRow> for Hearing {
    fn from((sender, receivers, last, missing, forgotten_to, holes): HearingRow) -> Hearing {
        Hearing { sender, receivers, last, missing, forgotten_to, holes }
    }
}

/// Bytes of a number on the wire, with what stands around it, at most.
const NUMBER_BYTES: usize = 12;

/// Bytes of a row of some numbers and ranges on the wire, at most.
fn row_bytes(numbers: usize, ranges: usize) -> usize {
    (numbers + 2 * ranges) * NUMBER_BYTES
}

/// Takes rows off the front, so many that they have at most `bytes_max` bytes, one at least; none if there are none.
fn take_piece<T>(rows: &mut std::vec::IntoIter<T>, bytes_max: usize, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let (mut sum, mut piece) = (0, Vec::new());
    while let Some(next) = rows.as_slice().first() {
        sum += bytes(next);
        if sum > bytes_max && !piece.is_empty() {
            break;
        }
        piece.extend(rows.next());
    }
    piece
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
    /// Deliveries of which it is not remembered whether their publish was accepted: at most so many more are lost, and of refused
    /// and undecided publishes so many more did come. 0 unless very many were refused or undecided.
    pub(crate) uncertain: u64,
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

    /// These books in pieces, each of at most so many bytes on the wire, or of one row.
    pub(crate) fn split(mut self, bytes_max: usize) -> Vec<Books> {
        let mut pieces = vec![Books { found: core::mem::take(&mut self.found), ..Books::default() }];
        let (mut accounts, mut hearings) = (self.accounts.into_iter(), self.hearings.into_iter());
        let ranges_of = |account: &Account| {
            [&account.refused, &account.undecided, &account.unanswered].iter().map(|some| some.kept().len()).sum()
        };
        while !accounts.as_slice().is_empty() {
            let accounts = take_piece(&mut accounts, bytes_max, |account| row_bytes(9, ranges_of(account)));
            pieces.push(Books { accounts, ..Books::default() });
        }
        while !hearings.as_slice().is_empty() {
            let hearings = take_piece(&mut hearings, bytes_max, |hearing| row_bytes(5, hearing.holes.len()));
            pieces.push(Books { hearings, ..Books::default() });
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
        let heard: u64 = hearings.iter().map(|hearing| u64::from(hearing.receivers)).sum();
        let open = self.undecided.count() + self.unanswered.count();
        let accepted = u64::from(self.last) - self.refused.count() - open;
        for hearing in hearings {
            let receivers = u64::from(hearing.receivers);
            let one = self.heard(hearing, accepted);
            balance.delivered += receivers * one.delivered;
            balance.delivered_undecided += receivers * one.delivered_undecided;
            balance.delivered_refused += receivers * one.delivered_refused;
            balance.lost += receivers * one.lost;
            balance.uncertain += receivers * one.uncertain;
        }
        balance.lost += u64::from(self.recipients).saturating_sub(heard) * accepted;
        balance.undecided += self.undecided.count();
        balance.unanswered += self.unanswered.count();
    }

    /// What one receiver has got. Up to where ranges are forgotten only counts can be held against each other: what is missing
    /// there is taken for refused and undecided messages, as far as there are so many. So what is called lost is lost, and what
    /// is said of refused and undecided messages is true of so many at least.
    fn heard(&self, hearing: &Hearing, accepted: u64) -> Balance {
        let Account { refused, undecided, unanswered, .. } = self;
        let forgotten = [refused, undecided, unanswered].map(Ranges::forgotten_to);
        let forgotten_to = forgotten.into_iter().fold(hearing.forgotten_to, u32::max);
        let bound = forgotten_to.min(hearing.last);
        let come = |ranges: &Ranges| ranges.come(bound, hearing.last, &hearing.holes);
        let (open, refused_come) = (come(undecided) + come(unanswered), come(refused));
        let missing_above = above(bound, &hearing.holes);
        let come_above = u64::from(hearing.last - bound) - missing_above;
        let missing = u64::from(hearing.missing) - missing_above;
        let not_above = |ranges: &Ranges| ranges.count() - above(forgotten_to, ranges.kept());
        let open_below = not_above(undecided) + not_above(unanswered);
        let not_accepted = open_below + not_above(refused);
        // Some of them may lie behind the last that came.
        let not_accepted_min = not_accepted.saturating_sub((forgotten_to - bound).into());
        let come_anyway = not_accepted_min.saturating_sub(missing);
        let refused_anyway = come_anyway.saturating_sub(open_below);
        let come_below = u64::from(bound) - missing;
        let delivered = (come_below + come_above).saturating_sub(come_anyway + open + refused_come);
        Balance {
            delivered,
            lost: accepted.saturating_sub(delivered),
            uncertain: come_below.min(not_accepted) - come_anyway,
            delivered_refused: refused_come + refused_anyway,
            delivered_undecided: open + come_anyway - refused_anyway,
            ..Balance::default()
        }
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

    /// Every second publish is refused, 300 accepted messages do not come, and 300 refused ones do, so far apart that most of it
    /// is forgotten.
    #[test]
    fn more_ranges_than_are_kept_then_figures_are_lower_bounds_and_say_by_how_much() {
        let (mut sender_ledger, mut receiver) = (Ledger::default(), Ledger::default());
        for sequence in 1..=8_000_u32 {
            sender_ledger.send(sender(), 1);
            let accepted = sequence % 2 == 1;
            sender_ledger.answer(sender(), sequence, accepted);
            let odd_one = sequence % 26 < 2 && (26..=7_801).contains(&sequence);
            if accepted != odd_one {
                receiver.arrived(9, stamp(sequence));
            }
        }
        let (_, balance) = balance([sender_ledger, receiver]);
        let (lost, refused) = (300, 300);
        assert!(balance.lost > 0 && balance.lost <= lost, "{balance:?}");
        assert!(balance.delivered_refused > 0 && balance.delivered_refused <= refused, "{balance:?}");
        assert!(balance.lost + balance.uncertain >= lost, "{balance:?}");
        assert_eq!(balance.delivered + balance.delivered_refused, 4_000 - lost + refused, "{balance:?}");
    }

    #[test]
    fn very_many_are_lost_and_none_refused_then_the_figure_is_exact() {
        let (mut sender_ledger, mut receiver) = (accepted(9_000, 1), Ledger::default());
        (1..=9_000).filter(|sequence| sequence % 3 != 0).for_each(|sequence| {
            receiver.arrived(9, stamp(sequence));
        });
        sender_ledger.send(sender(), 1);
        let (_, balance) = balance([sender_ledger, receiver]);
        let expected = Balance { delivered: 6_000, lost: 3_000, unanswered: 1, ..Balance::default() };
        assert_eq!(balance, expected);
    }

    #[test]
    fn random_books_beyond_what_is_kept_never_say_more_than_is_true() {
        let mut random = fastrand::Rng::with_seed(20);
        for round in 0..40 {
            let (mut sender_ledger, mut receiver) = (Ledger::default(), Ledger::default());
            let (messages, refuse, lose) = (random.u32(1..9_000), random.u32(1..400), random.u32(1..400));
            let stops_at = if random.bool() { messages } else { random.u32(0..=messages) };
            let (mut lost, mut delivered, mut delivered_refused) = (0, 0, 0);
            for sequence in 1..=messages {
                sender_ledger.send(sender(), 1);
                let accepted = random.u32(0..1000) >= refuse;
                sender_ledger.answer(sender(), sequence, accepted);
                let comes = sequence <= stops_at && random.u32(0..1000) >= lose;
                if comes {
                    receiver.arrived(9, stamp(sequence));
                }
                *match (accepted, comes) {
                    (true, true) => &mut delivered,
                    (true, false) => &mut lost,
                    (false, true) => &mut delivered_refused,
                    (false, false) => continue,
                } += 1;
            }
            let (_, balance) = balance([sender_ledger, receiver]);
            assert!(balance.lost <= lost && lost <= balance.lost + balance.uncertain, "{round}: {lost}, {balance:?}");
            assert!(balance.delivered_refused <= delivered_refused, "{round}: {delivered_refused}, {balance:?}");
            assert_eq!(balance.delivered + balance.delivered_refused, delivered + delivered_refused, "{round}");
            let is_exact = balance.uncertain == 0;
            assert!(!is_exact || (balance.lost, balance.delivered) == (lost, delivered), "{round}: {balance:?}");
        }
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
        for piece in books.clone().split(40) {
            let text = serde_json::to_string(&piece).unwrap();
            again.add(serde_json::from_str(&text).unwrap());
        }
        assert_eq!(again, books);
        assert_eq!((again.balance().lost, again.balance().undecided), (2 + 20, 1));
    }

    #[test]
    fn rows_have_very_many_ranges_then_a_piece_has_no_more_bytes_than_it_may() {
        const BYTES_MAX: usize = 100_000;
        let mut ledger = Ledger::default();
        for client in 4_000_000_000..4_000_000_020 {
            let sender = Sender::new(client, 255);
            (1..=3_000).for_each(|sequence| {
                ledger.send(sender, u32::MAX);
                ledger.answer(sender, sequence, sequence % 3 == 0);
                if sequence % 2 == 0 {
                    ledger.arrived(client, Stamp { sender, sequence, ..stamp(sequence) });
                }
            });
        }
        let books = ledger.books();
        let mut again = Books::default();
        for piece in books.clone().split(BYTES_MAX) {
            let text = serde_json::to_string(&piece).unwrap();
            assert!(text.len() < BYTES_MAX + 1_000, "{}", text.len());
            again.add(serde_json::from_str(&text).unwrap());
        }
        assert_eq!(again, books);
    }
}

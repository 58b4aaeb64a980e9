//! What passed a proxy: every message, its answer and its arrivals, and what was done to them. What a report must say
//! follows from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ringgate_core::id::{ClientMessageId, Position};

/// No test has clients that wait for a Pong for a shorter time.
const MISSED_AFTER: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Book {
    publishes: HashMap<(u64, u64), Publish>,
    /// The message that has this payload: they all differ.
    by_payload: HashMap<Vec<u8>, (u64, u64)>,
    members: HashMap<String, BTreeSet<String>>,
    /// The connection on which each user was signed in last.
    connections: BTreeMap<String, usize>,
    /// How often anybody was signed in.
    pub(crate) sign_ins: u64,
    /// Pongs since anybody was signed in last.
    pub(crate) pongs_since: u64,
    /// Where in its inbox each user's messages were.
    inboxes: HashMap<String, BTreeSet<(u64, u64)>>,
    /// Acks of what did not come from the user's own inbox.
    pub(crate) wrong_acks: u64,
    /// Connections that ended although their client had not left.
    pub(crate) cut: BTreeSet<usize>,
    /// It was killed.
    pub(crate) gateway_is_gone: bool,
    /// It is, as soon as a client leaves.
    pub(super) goes_when_a_client_leaves: bool,
    /// Connections that were not made because the gateway was gone.
    pub(crate) turned_away: u64,
    /// How often each fault was done, in the order in which they were given.
    pub(crate) injected: Vec<u64>,
    /// Publishes answered with Error.
    pub(crate) refused: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupted: u64,
    pub(crate) misdelivered: u64,
    pub(crate) answered_twice: u64,
    pub(crate) answered_wrong: u64,
    /// Of all Pings some are sent only to keep a connection alive.
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    /// Pings whose client left so soon that it cannot have missed their Pong.
    pub(crate) pings_left: u64,
    /// From a Publish to each of its arrivals, and from a Ping to its Pong.
    pub(crate) waits: Vec<Duration>,
}

#[derive(Debug)]
struct Publish {
    connection: usize,
    topic: String,
    at: Instant,
    answer: Option<Answer>,
    /// How often at which user.
    arrivals: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Published,
    Error,
}

fn key(id: ClientMessageId) -> (u64, u64) {
    (id.high, id.low)
}

impl Book {
    /// An empty one, where so many faults are planned.
    pub(super) fn of(faults: usize) -> Book {
        Book { injected: vec![0; faults], ..Book::default() }
    }

    pub(super) fn signed_in(&mut self, user: &str, connection: usize) {
        self.connections.insert(user.to_owned(), connection);
        self.sign_ins += 1;
        self.pongs_since = 0;
    }

    /// A client has left, whose Pings without a Pong came so long ago.
    pub(super) fn left(&mut self, pings: impl Iterator<Item = Duration>) {
        self.pings_left += pings.filter(|ago| *ago < MISSED_AFTER).count() as u64;
        self.gateway_is_gone |= self.goes_when_a_client_leaves;
    }

    /// A Pong passes, so long after its Ping.
    pub(super) fn pong(&mut self, wait: Duration) {
        self.pongs += 1;
        self.pongs_since += 1;
        self.waits.push(wait);
    }

    /// Users whose connection was cut and who have not come back; when the gateway is gone, all of them. Those that the load
    /// tester itself has left are not known here.
    fn away(&self) -> u64 {
        let is_away = |connection: &&usize| self.gateway_is_gone || self.cut.contains(*connection);
        self.connections.values().filter(is_away).count() as u64
    }

    pub(super) fn joined(&mut self, user: &str, room: &str) {
        self.members.entry(room.to_owned()).or_default().insert(user.to_owned());
    }

    pub(super) fn publish(&mut self, connection: usize, id: ClientMessageId, topic: &str, payload: &[u8]) {
        let publish = Publish {
            connection,
            topic: topic.to_owned(),
            at: Instant::now(),
            answer: None,
            arrivals: BTreeMap::new(),
        };
        assert!(self.publishes.insert(key(id), publish).is_none(), "each message has an id of its own");
        assert!(self.by_payload.insert(payload.to_vec(), key(id)).is_none(), "no two payloads are the same");
    }

    pub(super) fn answered(&mut self, id: ClientMessageId, answer: Answer) {
        self.refused += u64::from(answer == Answer::Error);
        self.publishes.get_mut(&key(id)).expect("an answer to what was published").answer = Some(answer);
    }

    /// A message comes to one of those that it was sent to, at this moment.
    pub(super) fn arrived(&mut self, user: &str, payload: &[u8], at: Instant) {
        let publish = self.by_payload.get(payload).and_then(|id| self.publishes.get_mut(id));
        let publish = publish.expect("what comes was published");
        *publish.arrivals.entry(user.to_owned()).or_default() += 1;
        self.waits.push(at.saturating_duration_since(publish.at));
    }

    /// A message of the user's own inbox comes, whatever is done to it.
    pub(super) fn in_inbox(&mut self, user: &str, at: Position) {
        self.inboxes.entry(user.to_owned()).or_default().insert((at.epoch, at.offset));
    }

    pub(super) fn acknowledged(&mut self, user: &str, at: Position) {
        let came = self.inboxes.get(user).is_some_and(|inbox| inbox.contains(&(at.epoch, at.offset)));
        self.wrong_acks += u64::from(!came);
    }

    /// Users that a message under this topic is for.
    pub(super) fn recipients(&self, topic: &str) -> BTreeSet<String> {
        match topic.strip_prefix('@') {
            Some(user) => BTreeSet::from([user.to_owned()]),
            None => self.members.get(topic).cloned().unwrap_or_default(),
        }
    }

    /// Rooms that somebody has joined.
    pub(super) fn rooms(&self) -> impl Iterator<Item = &String> {
        self.members.keys()
    }

    /// Messages that were published.
    pub(crate) fn published(&self) -> u64 {
        self.publishes.len() as u64
    }

    /// What a report must say, by the names that it uses.
    pub(crate) fn figures(&self) -> BTreeMap<&'static str, u64> {
        let mut figures = BTreeMap::from([
            ("published", self.published()),
            ("pings", self.pings),
            ("pongs", self.pongs),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
            ("misdelivered", self.misdelivered),
            ("answered_twice", self.answered_twice),
            ("answered_wrong", self.answered_wrong),
            ("away", self.away()),
            ("pings_unanswered", self.pings - self.pongs),
        ]);
        let counted = ["accepted", "undecided", "unanswered", "delivered", "lost", "duplicated"];
        for name in counted.into_iter().chain(["delivered_undecided", "delivered_refused"]) {
            figures.insert(name, 0);
        }
        let mut add = |name, count: u64| *figures.entry(name).or_default() += count;
        for publish in self.publishes.values() {
            let recipients = self.recipients(&publish.topic).len() as u64;
            let reached = publish.arrivals.len() as u64;
            add("duplicated", publish.arrivals.values().map(|count| count - 1).sum());
            match publish.answer {
                Some(Answer::Published) => {
                    add("accepted", 1);
                    add("delivered", reached);
                    add("lost", recipients - reached);
                }
                Some(Answer::Error) => add("delivered_refused", reached),
                None => {
                    let is_cut = self.cut.contains(&publish.connection);
                    add(if is_cut { "undecided" } else { "unanswered" }, 1);
                    add("delivered_undecided", reached);
                }
            }
        }
        figures
    }
}

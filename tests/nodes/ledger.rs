//! What all clients of a round were told, and whether it fits together.
//!
//! What is wrong at the moment at which it is seen is kept as a complaint; [`Ledger::missing`] and [`Ledger::complaints`] judge the
//! round. Where nothing may be lost, a new epoch goes on with the offsets of the one before, so that a message has one offset for
//! good. Where Redis may lose, an epoch has offsets of its own, and a client must have been told of each loss.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use ringgate_core::id::Position;

/// A message: the number of the device that published it, and which one it is of that device's, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) device: u64,
    pub(crate) count: u64,
}

/// A user's inbox, or the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Inbox(usize),
    Room,
}

/// See the module.
pub(crate) struct Ledger {
    /// Redis may forget what it has stored.
    loses: bool,
    began: Instant,
    places: HashMap<(Topic, u64, u64), Id>,
    sent: HashMap<Id, Sent>,
    devices: Vec<Seen>,
    complaints: Vec<String>,
}

struct Sent {
    topic: Topic,
    /// For the first time.
    at: Instant,
    answered: Option<Position>,
    /// By epoch, or only one where nothing may be lost.
    places: HashMap<u64, u64>,
}

/// What one device was told.
struct Seen {
    name: String,
    user: usize,
    got: HashMap<Id, Position>,
    told_inbox: Vec<Instant>,
    told_room: Vec<Instant>,
    trace: Vec<(Instant, String)>,
}

impl Ledger {
    /// Devices by name and user.
    pub(crate) fn new(loses: bool, devices: Vec<(String, usize)>) -> Ledger {
        let seen = |(name, user)| Seen {
            name,
            user,
            got: HashMap::new(),
            told_inbox: Vec::new(),
            told_room: Vec::new(),
            trace: Vec::new(),
        };
        Ledger {
            loses,
            began: Instant::now(),
            places: HashMap::new(),
            sent: HashMap::new(),
            devices: devices.into_iter().map(seen).collect(),
            complaints: Vec::new(),
        }
    }

    /// A line for the trace of a device, shown with its complaints.
    pub(crate) fn note(&mut self, device: usize, line: impl fmt::Display) {
        self.devices[device].trace.push((Instant::now(), line.to_string()));
    }

    pub(crate) fn complain(&mut self, device: usize, text: impl fmt::Display) {
        let text = format!("{} {}: {text}", self.since_start(Instant::now()), self.devices[device].name);
        self.note(device, format!("COMPLAINT {text}"));
        self.complaints.push(text);
    }

    fn since_start(&self, at: Instant) -> String {
        format!("{:.3}", at.duration_since(self.began).as_secs_f64())
    }

    // What happens.

    /// A device publishes this for the first time.
    pub(crate) fn sent(&mut self, id: Id, topic: Topic) {
        let sent = Sent { topic, at: Instant::now(), answered: None, places: HashMap::new() };
        assert!(self.sent.insert(id, sent).is_none(), "an id is used once");
    }

    pub(crate) fn published(&mut self, device: usize, id: Id, position: Position) {
        self.stands(device, id, position);
        if let Some(sent) = self.sent.get_mut(&id) {
            sent.answered = Some(position);
        }
    }

    /// A message that the device had not received before, by the rule of positions.
    pub(crate) fn received(&mut self, device: usize, topic: Topic, id: Id, position: Position) {
        match self.sent.get(&id) {
            Some(sent) if sent.topic == topic => {}
            Some(sent) => {
                let sent = sent.topic;
                self.complain(device, format!("{id:?} was published to {sent:?} and came in {topic:?}"));
            }
            None => return self.complain(device, format!("{id:?} was never published")),
        }
        self.stands(device, id, position);
        if let Some(before) = self.devices[device].got.insert(id, position)
            && (!self.loses || before.epoch == position.epoch)
        {
            self.complain(device, format!("DUPLICATE: {id:?} came at {before:?}, and again at {position:?}"));
        }
    }

    /// One message at each place, and one place for each message.
    fn stands(&mut self, device: usize, id: Id, position: Position) {
        let Some(sent) = self.sent.get_mut(&id) else { return };
        let (topic, epoch) = (sent.topic, if self.loses { position.epoch } else { 0 });
        let offset = *sent.places.entry(epoch).or_insert(position.offset);
        let known = *self.places.entry((topic, epoch, position.offset)).or_insert(id);
        if known != id {
            self.complain(device, format!("REORDERED: {known:?} and {id:?} are at {position:?} of {topic:?}"));
        }
        if offset != position.offset {
            self.complain(device, format!("DUPLICATE: {id:?} of {topic:?} is at {offset} and at {position:?}"));
        }
    }

    /// The device was told that messages are missing.
    pub(crate) fn told(&mut self, device: usize, is_room: bool, what: impl fmt::Display) {
        let seen = &mut self.devices[device];
        let told = if is_room { &mut seen.told_room } else { &mut seen.told_inbox };
        told.push(Instant::now());
        if !self.loses {
            self.complain(device, format!("told of a loss although nothing can have been lost: {what}"));
        }
    }

    // The judgement.

    /// Messages that were answered and that a device has neither received nor was told of a loss since they were sent.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (id, sent) in &self.sent {
            let Some(position) = sent.answered else { continue };
            for seen in &self.devices {
                let told = match sent.topic {
                    Topic::Room => &seen.told_room,
                    Topic::Inbox(user) if user == seen.user => &seen.told_inbox,
                    Topic::Inbox(_) => continue,
                };
                if !seen.got.contains_key(id) && !told.iter().any(|told| *told > sent.at) {
                    let at = self.since_start(sent.at);
                    let Seen { name, .. } = seen;
                    missing
                        .push(format!("LOST: {name} misses {id:?} of {:?} at {position:?}, sent at {at}", sent.topic));
                }
            }
        }
        missing.sort();
        missing
    }

    /// Messages that were answered and that some device never received: it was told of a loss.
    pub(crate) fn lost(&self) -> usize {
        let reaches = |id: &Id, topic: Topic| {
            let mut owed = self.devices.iter().filter(|seen| topic == Topic::Room || topic == Topic::Inbox(seen.user));
            owed.all(|seen| seen.got.contains_key(id))
        };
        self.sent.iter().filter(|(id, sent)| sent.answered.is_some() && !reaches(id, sent.topic)).count()
    }

    /// Messages that were sent, answered or not.
    pub(crate) fn sent_count(&self) -> usize {
        self.sent.len()
    }

    /// Messages that were answered.
    pub(crate) fn answered(&self) -> usize {
        self.sent.values().filter(|sent| sent.answered.is_some()).count()
    }

    pub(crate) fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// What has happened to each device, the newest lines.
    pub(crate) fn trace(&self, lines: usize) -> String {
        let mut text = String::new();
        for seen in &self.devices {
            text += &format!("-- {}\n", seen.name);
            for (at, line) in seen.trace.iter().skip(seen.trace.len().saturating_sub(lines)) {
                text += &format!("{:>9} {line}\n", self.since_start(*at));
            }
        }
        text
    }
}

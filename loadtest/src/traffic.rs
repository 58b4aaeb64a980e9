//! The schedule of a load, senders, recipients and times: fixed in advance, so that a slow gateway cannot slow the schedule down.
//!
//! Every driver thread walks the same schedule and sends what is its own clients' part.

use std::time::Duration;

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Pace {
    /// Open loop: whatever the gateway does, at so many per second, all senders together.
    Open {
        /// At the beginning.
        from: f64,
        /// At the end; on the way it changes evenly.
        to: f64,
        /// Random times and senders, as of many independent users, repeatable; none for even spacing, in turn.
        seed: Option<u64>,
    },
    /// Closed loop: each sender has so many under way, and sends the next when one is answered.
    Closed {
        /// Under way at once.
        window: u32,
        /// Waited on average after an answer; where it is not zero, `window` is 1.
        think: Duration,
    },
}

impl Pace {
    /// Even spacing.
    pub(crate) fn constant(rate: f64) -> Pace {
        Pace::Open { from: rate, to: rate, seed: None }
    }
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Kind {
    /// The first half of the clients writes to the second half, each to one partner.
    Pairs,
    /// Publishers write to rooms. Clients fill one room after the other.
    Rooms {
        /// The first room is this name, others have a number behind it.
        name: String,
        /// How many.
        rooms: u32,
        /// Clients that publish, in each room.
        publishers: u32,
    },
    /// Clients send Ping and wait for Pong.
    Pings,
}

impl Kind {
    /// A note where some of so many clients are left over, and neither send nor receive; none if all have a part.
    pub(crate) fn note(&self, clients: u32) -> Option<String> {
        match self {
            Kind::Pairs if clients % 2 == 1 => Some(format!(
                "{clients} clients make {} pairs: one client has no partner, and neither sends nor receives messages",
                clients / 2
            )),
            Kind::Rooms { rooms, .. } => {
                let members = clients.checked_div(*rooms)?;
                let left = clients - members * rooms;
                let are = if left == 1 { "1 client is" } else { &format!("{left} clients are") };
                (left > 0).then(|| {
                    format!(
                        "{clients} clients make {rooms} rooms of {members}: {are} in no room, without messages; {} or {} \
                         clients fill all rooms",
                        members * rooms,
                        (members + 1).saturating_mul(*rooms)
                    )
                })
            }
            Kind::Pairs | Kind::Pings => None,
        }
    }
}

/// A stream of messages of a range of clients.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Traffic {
    /// Number of the stream, 1..=255, the same in all phases: sequences are counted, and latencies kept, by it.
    pub(crate) stream: u8,
    /// What is sent.
    pub(crate) kind: Kind,
    /// First client that takes part.
    pub(crate) first: u32,
    /// How many take part.
    pub(crate) clients: u32,
    /// Nanoseconds since the run's zero.
    pub(crate) start_ns: u64,
    /// How long.
    pub(crate) duration: Duration,
    /// When.
    pub(crate) pace: Pace,
    /// Bytes of each payload.
    pub(crate) payload_bytes: usize,
}

/// A position in the schedule of a [`Traffic`].
#[derive(Debug)]
pub(crate) struct Schedule {
    index: u64,
    /// How many messages are due before the next one: whole numbers where the spacing is even.
    before: f64,
    random: fastrand::Rng,
}

impl Schedule {
    /// The beginning.
    pub(crate) fn of(traffic: &Traffic) -> Schedule {
        let seed = traffic.pace.seed();
        let mut random = fastrand::Rng::with_seed(seed.unwrap_or(0));
        let before = if seed.is_some() { exponential(&mut random) } else { 0.0 };
        Schedule { index: 0, before, random }
    }

    /// When the next message is due; none when the traffic is over, or has no schedule.
    pub(crate) fn peek_ns(&self, traffic: &Traffic) -> Option<u64> {
        let Pace::Open { from, to, .. } = traffic.pace else { return None };
        // The rate r(t) = from + (to - from) t / T has sent r's integral by t; solved for t without dividing by a
        // slope that may be zero.
        let slope = (to - from) / traffic.duration.as_secs_f64();
        let root = from.mul_add(from, 2.0 * slope * self.before).sqrt();
        let seconds = if self.before == 0.0 { 0.0 } else { 2.0 * self.before / (from + root) };
        // Of a falling rate the root may not exist: its last message was the one before.
        let at_ns = traffic.start_ns as f64 + seconds * 1e9;
        (at_ns < traffic.end_ns() as f64 && (from > 0.0 || to > 0.0)).then_some(at_ns as u64)
    }

    /// Takes the next message out and returns its number.
    pub(crate) fn take(&mut self, traffic: &Traffic) -> u64 {
        let index = self.index;
        self.index += 1;
        self.before = match traffic.pace.seed() {
            Some(_) => self.before + exponential(&mut self.random),
            None => self.index as f64,
        };
        index
    }
}

/// Exponentially distributed, 1 on average.
pub(crate) fn exponential(random: &mut fastrand::Rng) -> f64 {
    // 1 - [0, 1) is never 0, so the logarithm is finite.
    -(1.0 - random.f64()).ln()
}

impl Pace {
    fn seed(self) -> Option<u64> {
        if let Pace::Open { seed, .. } = self { seed } else { None }
    }
}

/// How many messages the schedules of all streams hold up to a moment, whether anybody has sent them or not.
#[derive(Default)]
pub(crate) struct Planned {
    streams: Vec<(Traffic, Schedule)>,
    /// There were streams in a closed loop, too, which have no schedule.
    pub(crate) closed_loops: bool,
    /// Messages due so far.
    pub(crate) total: u64,
}

impl Planned {
    /// A stream begins.
    pub(crate) fn add(&mut self, traffic: &Traffic) {
        self.streams.push((traffic.clone(), Schedule::of(traffic)));
        self.closed_loops |= matches!(traffic.pace, Pace::Closed { .. });
    }

    /// Nothing is planned any more beyond this moment.
    pub(crate) fn stop(&mut self, now_ns: u64) {
        self.advance(now_ns);
        self.streams.clear();
    }

    /// Messages due since the last call.
    pub(crate) fn advance(&mut self, now_ns: u64) -> u64 {
        let mut due = 0;
        self.streams.retain_mut(|(traffic, schedule)| {
            while schedule.peek_ns(traffic).is_some_and(|at| at <= now_ns) {
                schedule.take(traffic);
                due += 1;
            }
            schedule.peek_ns(traffic).is_some()
        });
        self.total += due;
        due
    }
}

impl Traffic {
    /// Nothing is begun after this.
    pub(crate) fn end_ns(&self) -> u64 {
        self.start_ns + self.duration.as_nanos() as u64
    }

    /// How many messages the schedule holds, where there is one.
    #[cfg(test)]
    pub(crate) fn planned(&self) -> Option<u64> {
        if matches!(self.pace, Pace::Closed { .. }) {
            return None;
        }
        let mut schedule = Schedule::of(self);
        while schedule.peek_ns(self).is_some() {
            schedule.take(self);
        }
        Some(schedule.index)
    }

    fn members(&self) -> u32 {
        match &self.kind {
            Kind::Rooms { rooms, .. } => self.clients / (*rooms).max(1),
            Kind::Pairs | Kind::Pings => 1,
        }
    }

    /// How many clients send.
    pub(crate) fn senders(&self) -> u32 {
        match &self.kind {
            Kind::Pairs => self.clients / 2,
            Kind::Rooms { rooms, publishers, .. } => rooms * (*publishers).min(self.members()),
            Kind::Pings => self.clients,
        }
    }

    /// The sender of message `index`.
    pub(crate) fn sender(&self, index: u64) -> u32 {
        let index = match self.pace.seed() {
            Some(seed) => fastrand::Rng::with_seed(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..),
            None => index,
        };
        let turn = (index % u64::from(self.senders().max(1))) as u32;
        self.first
            + match &self.kind {
                Kind::Pairs | Kind::Pings => turn,
                Kind::Rooms { rooms, .. } => (turn % rooms) * self.members() + (turn / rooms) * self.spacing(),
            }
    }

    /// Whether the client takes part.
    pub(crate) fn has(&self, client: u32) -> bool {
        (self.first..self.first + self.clients).contains(&client)
    }

    /// Whether the client sends.
    pub(crate) fn has_sender(&self, client: u32) -> bool {
        self.has(client)
            && match &self.kind {
                Kind::Pairs => client - self.first < self.senders(),
                Kind::Pings => true,
                Kind::Rooms { rooms, publishers, .. } => {
                    let place = client - self.first;
                    let (room, member) = (place / self.members().max(1), place % self.members().max(1));
                    room < *rooms && member % self.spacing() == 0 && member / self.spacing() < *publishers
                }
            }
    }

    /// Members between two publishers of a room, who so are spread over the gateway's shards.
    fn spacing(&self) -> u32 {
        match &self.kind {
            Kind::Rooms { publishers, .. } => (self.members() / (*publishers).max(1)).max(1),
            Kind::Pairs | Kind::Pings => 1,
        }
    }

    /// The partner that a sender writes to.
    pub(crate) fn partner(&self, sender: u32) -> Option<u32> {
        (self.kind == Kind::Pairs).then(|| sender + self.clients / 2)
    }

    /// The room that a client is in.
    pub(crate) fn room(&self, client: u32) -> Option<String> {
        match &self.kind {
            Kind::Rooms { name, rooms: 1, .. } => Some(name.clone()),
            Kind::Rooms { name, rooms, .. } => {
                let room = (client - self.first) / self.members().max(1);
                (room < *rooms).then(|| format!("{name}-{room}"))
            }
            Kind::Pairs | Kind::Pings => None,
        }
    }

    /// Whether a room of this stream is one of another's, too.
    pub(crate) fn shares_rooms(&self, other: &Traffic) -> bool {
        let (Kind::Rooms { name, rooms, .. }, Kind::Rooms { name: others, rooms: count, .. }) =
            (&self.kind, &other.kind)
        else {
            return false;
        };
        let has = |name: &str, rooms: u32, room: &str| {
            let number = room.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            rooms > 1 && number.and_then(|number| number.parse::<u32>().ok()).is_some_and(|number| number < rooms)
        };
        (name == others && (*rooms == 1) == (*count == 1))
            || (*count == 1 && has(name, *rooms, others))
            || (*rooms == 1 && has(others, *count, name))
    }

    /// Clients that join a room.
    pub(crate) fn joining(&self) -> u64 {
        match &self.kind {
            Kind::Rooms { rooms, .. } => u64::from(self.members()) * u64::from(*rooms),
            Kind::Pairs | Kind::Pings => 0,
        }
    }

    /// Deliveries that one message causes.
    pub(crate) fn recipients(&self) -> u64 {
        match &self.kind {
            Kind::Pairs => 1,
            Kind::Rooms { .. } => u64::from(self.members()),
            Kind::Pings => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(kind: Kind, clients: u32, pace: Pace) -> Traffic {
        Traffic {
            stream: 1,
            kind,
            first: 100,
            clients,
            start_ns: 5,
            duration: Duration::from_secs(2),
            pace,
            payload_bytes: 64,
        }
    }

    #[test]
    fn schedules_are_fixed_in_advance() {
        let steady = traffic(Kind::Pairs, 10, Pace::constant(50.0));
        assert_eq!(steady.planned(), Some(100));
        let mut schedule = Schedule::of(&steady);
        assert_eq!(schedule.peek_ns(&steady), Some(5));
        assert_eq!(schedule.take(&steady), 0);
        assert_eq!(schedule.peek_ns(&steady), Some(20_000_005));
        let poisson = |seed| Pace::Open { from: 1000.0, to: 1000.0, seed: Some(seed) };
        let random = traffic(Kind::Pairs, 10, poisson(7));
        let planned = random.planned().unwrap();
        assert!((1700..2300).contains(&planned), "{planned} of 2000 on average");
        assert_eq!(random.planned(), Some(planned), "the same seed, the same times");
        assert_ne!(traffic(Kind::Pairs, 10, poisson(8)).planned(), Some(planned));
        assert_eq!(traffic(Kind::Pairs, 10, Pace::Closed { window: 1, think: Duration::ZERO }).planned(), None);
    }

    #[test]
    fn rates_may_change_on_the_way() {
        let times = |from: f64, to: f64| {
            let ramp = traffic(Kind::Pairs, 10, Pace::Open { from, to, seed: None });
            let mut schedule = Schedule::of(&ramp);
            let mut times = Vec::new();
            while let Some(at_ns) = schedule.peek_ns(&ramp) {
                times.push(at_ns - 5);
                schedule.take(&ramp);
            }
            times
        };
        // 0 to 100 a second within 2 s: 100 messages, a quarter of them in the first half of the time.
        let up = times(0.0, 100.0);
        assert_eq!(up.len(), 100);
        assert_eq!(up.iter().filter(|at| **at < 1_000_000_000).count(), 25);
        let down = times(100.0, 0.0);
        assert!((100..=101).contains(&down.len()), "{}", down.len());
        assert_eq!(down.iter().filter(|at| **at < 1_000_000_000).count(), 75);
        assert!(down.is_sorted() && up.is_sorted());
        assert_eq!(times(0.0, 0.0), [0u64; 0]);
    }

    #[test]
    fn random_senders_are_all_of_them() {
        let random = traffic(Kind::Pairs, 20, Pace::Open { from: 1000.0, to: 1000.0, seed: Some(3) });
        let senders: std::collections::BTreeSet<_> = (0..200).map(|index| random.sender(index)).collect();
        assert_eq!(senders, (100..110).collect());
    }

    #[test]
    fn what_was_planned_is_known_without_sending() {
        let mut planned = Planned::default();
        planned.add(&traffic(Kind::Pairs, 10, Pace::constant(50.0)));
        planned.add(&traffic(Kind::Pings, 10, Pace::Closed { window: 3, think: Duration::ZERO }));
        assert_eq!(planned.advance(4), 0);
        assert_eq!(planned.advance(1_000_000_000), 50);
        assert_eq!(planned.advance(9_000_000_000), 50);
        assert!(planned.streams.is_empty());
        assert_eq!(planned.total, 100);
    }

    #[test]
    fn a_run_that_is_ended_early_then_what_was_due_later_was_not_planned() {
        let mut planned = Planned::default();
        planned.add(&traffic(Kind::Pairs, 10, Pace::constant(50.0)));
        planned.stop(1_000_000_000);
        assert_eq!((planned.total, planned.advance(9_000_000_000)), (50, 0));
    }

    #[test]
    fn clients_have_no_part_in_pairs_or_rooms_then_a_note_says_how_many() {
        let rooms = |rooms| Kind::Rooms { name: "chat:load".into(), rooms, publishers: 2 };
        let of = |kind: Kind, clients| kind.note(clients).unwrap_or_default();
        assert!(of(Kind::Pairs, 5).starts_with("5 clients make 2 pairs: one client has no partner"));
        assert!(of(rooms(3), 10).starts_with("10 clients make 3 rooms of 3: 1 client is in no room"));
        assert!(
            of(rooms(3), 11).contains("2 clients are in no room, without messages; 9 or 12 clients fill all rooms")
        );
        for (kind, clients) in [(Kind::Pairs, 4), (rooms(3), 9), (rooms(1), 7), (Kind::Pings, 7)] {
            assert_eq!(kind.note(clients), None, "{kind:?}");
        }
    }

    #[test]
    fn pairs_and_rooms_share_clients_out() {
        let pairs = traffic(Kind::Pairs, 10, Pace::constant(1.0));
        assert_eq!((pairs.sender(0), pairs.sender(4), pairs.sender(5)), (100, 104, 100));
        assert_eq!((pairs.partner(104), pairs.recipients()), (Some(109), 1));
        let rooms = Kind::Rooms { name: "chat:load".into(), rooms: 3, publishers: 2 };
        let rooms = traffic(rooms, 31, Pace::constant(1.0));
        assert_eq!((rooms.recipients(), rooms.joining(), rooms.senders()), (10, 30, 6));
        let senders: Vec<_> = (0..7).map(|index| rooms.sender(index)).collect();
        assert_eq!(senders, [100, 110, 120, 105, 115, 125, 100]);
        let all: Vec<_> = (90..140).filter(|client| rooms.has_sender(*client)).collect();
        assert_eq!(all, [100, 105, 110, 115, 120, 125]);
        assert!(pairs.has_sender(104) && !pairs.has_sender(105) && !pairs.has_sender(99));
        assert_eq!(rooms.room(115), Some("chat:load-1".into()));
        assert_eq!(rooms.room(130), None, "left over");
    }
}

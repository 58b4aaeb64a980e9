//! A client as docs/protocol.md wants it: what it keeps across connections, what it may expect of each request (`ask`), and
//! what it checks of every frame (`receive`).

mod ask;
mod receive;

use std::collections::{BTreeMap, BTreeSet};

use ringgate_core::id::{Now, Position};
use ringgate_sim::Client;

use self::ask::{Request, Waiting};
use crate::ledger::{Ledger, mono_of_unix};
use crate::tokens::{Rights, Verb};

/// A device of a user. The user and the device outlive connections.
pub(crate) struct Device {
    pub(crate) user: String,
    pub(crate) name: String,
    /// While connected.
    pub(crate) connection: Option<Client>,
    /// Counts connections of the world.
    pub(crate) serial: u64,
    pub(crate) ready: bool,
    pub(crate) stalled: bool,
    /// Does not acknowledge for a while.
    pub(crate) forgetful: bool,
    /// When it last read all that there was, or connected.
    pub(crate) read_ms: u64,
    /// When the gateway last received something from it, or it connected.
    pub(crate) heard_ms: u64,
    incoming: Vec<u8>,
    /// Not yet taken by the gateway.
    pub(crate) outgoing: Vec<u8>,
    rights: Rights,
    /// What earlier tokens of this connection allowed: a room that one of them took away is told of behind its messages.
    rights_before: Vec<Rights>,
    pub(crate) expires_at: u64,
    /// The latest that the wall clock had shown when it was last set; milliseconds.
    pub(crate) latest_unix_ms: u64,
    /// The inbox as far as it was received.
    pub(crate) inbox: Position,
    /// Where the inbox stood when this device was first connected, or was last told that it has lost messages.
    first: Option<Position>,
    first_ms: u64,
    /// Nothing is known about where the inbox begins: the device is new, or was told that its position is lost.
    fresh: bool,
    /// When Connect was sent, and what it said.
    connected_ms: u64,
    resumed: Option<Position>,
    /// The inbox offset that came last on this connection.
    brought: u64,
    /// The inbox position in Connected.
    announced: u64,
    /// Every logged inbox message ever received: (epoch, offset) -> number.
    received: BTreeMap<(u64, u64), u64>,
    /// Ephemeral messages of this connection.
    ephemeral: BTreeSet<u64>,
    pub(crate) rooms: BTreeMap<String, Room>,
    /// Rooms as last left, for `since`.
    pub(crate) left_at: BTreeMap<String, Position>,
    /// Rooms left on this connection.
    left_here: BTreeSet<String>,
    waiting: BTreeMap<u32, Waiting>,
    /// Publishes whose answer was lost with a connection, or that were refused for now.
    pub(crate) unanswered: Vec<u64>,
    /// Places of this connection's messages, by topic and request.
    order: BTreeMap<(String, u32), Position>,
    last_request: u32,
    pub(crate) goodbye: Option<u16>,
    /// The last answer to History.
    pub(crate) page: Option<Page>,
    /// The last answer to Presence for each room.
    pub(crate) presence: BTreeMap<String, Vec<(String, String)>>,
}

/// An answer to History, as far as the next question depends on it.
pub(crate) struct Page {
    pub(crate) newest: Position,
    pub(crate) offsets: Vec<u64>,
    pub(crate) more: bool,
}

/// A room of this connection.
pub(crate) struct Room {
    pub(crate) position: Position,
    /// Brought up to here because `since` was given in a request sent at `asked_ms`.
    recovered_to: u64,
    asked_ms: u64,
    /// It wanted what there still is, and was told that something is missing; messages that leave the log before the first one
    /// comes are missing, too.
    may_have_hole: bool,
    /// The last event seen of others: whether they joined.
    pub(crate) events: BTreeMap<(String, String), bool>,
}

impl Device {
    pub(crate) fn new(user: &str, name: &str) -> Self {
        Device {
            user: user.into(),
            name: name.into(),
            connection: None,
            serial: 0,
            ready: false,
            stalled: false,
            forgetful: false,
            read_ms: 0,
            heard_ms: 0,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            rights: Rights::default(),
            rights_before: Vec::new(),
            expires_at: 0,
            latest_unix_ms: 0,
            inbox: Position::default(),
            first: None,
            first_ms: 0,
            fresh: true,
            connected_ms: 0,
            resumed: None,
            brought: 0,
            announced: 0,
            received: BTreeMap::new(),
            ephemeral: BTreeSet::new(),
            rooms: BTreeMap::new(),
            left_at: BTreeMap::new(),
            left_here: BTreeSet::new(),
            waiting: BTreeMap::new(),
            unanswered: Vec::new(),
            order: BTreeMap::new(),
            last_request: 0,
            goodbye: None,
            page: None,
            presence: BTreeMap::new(),
        }
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self, ledger: &Ledger) {
        self.connection = None;
        self.ready = false;
        self.stalled = false;
        self.incoming.clear();
        self.outgoing.clear();
        for (name, room) in std::mem::take(&mut self.rooms) {
            self.left_at.insert(name, room.position);
        }
        self.left_here.clear();
        self.ephemeral.clear();
        self.order.clear();
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            if let Request::Publish { number, .. } = waiting.request {
                self.repeat_later(number, ledger);
            }
        }
    }

    /// The node has lost everything, this connection included. The device does not know it.
    pub(crate) fn restarted(&mut self, ledger: &Ledger) {
        if self.connection.is_some() {
            self.lost(ledger);
        }
        self.first = None;
        self.presence.clear();
    }

    /// A Publish without an answer is repeated, if the gateway can know it again.
    fn repeat_later(&mut self, number: u64, ledger: &Ledger) {
        if ledger.message(number).id != 0 {
            self.unanswered.push(number);
        }
    }

    /// Everything has calmed down: nothing may be missing; copies of own messages may not, if none can have been left out.
    pub(crate) fn finish(&self, ledger: &mut Ledger, copies: bool, now: Now) {
        let now_ms = now.mono_ms();
        let Device { user, name, .. } = self;
        assert!(self.ready, "{user} {name} could not come back: {:?}", self.goodbye);
        assert!(self.waiting.is_empty(), "{user} {name} was never answered: {:?}", self.waiting);
        assert!(self.unanswered.is_empty(), "{user} {name} could not repeat {:?}", self.unanswered);
        let end_ms = self.expires_at * 1000;
        let is_over = now.unix_ms >= end_ms + 2_000 && now_ms >= mono_of_unix(end_ms) + 2_000;
        assert!(self.expires_at == 0 || !is_over, "{user} {name} has expired");
        let first = self.first.expect("it was connected");
        ledger.completeness(user, name, first, &self.received);
        if copies {
            let had: BTreeSet<u64> = self.received.values().copied().collect();
            let missing = ledger.to_be_copied(user, name, self.first_ms).find(|number| !had.contains(number));
            assert_eq!(missing, None, "{user} {name} had no copy of a message since {}", self.first_ms);
        }
        for (room, joined) in &self.rooms {
            // As if one more message had come.
            let Position { epoch, offset } = joined.position;
            let to = Position { epoch, offset: ledger.newest(room, epoch) + 1 };
            self.gap_in_room(room, offset + 1, to, ledger, now_ms);
            let stays = may_join(room, &self.rights, ledger);
            assert!(stays, "{user} {name} is still in {room}");
        }
    }
}

fn may_join(room: &str, rights: &Rights, ledger: &Ledger) -> bool {
    let open = ledger.namespace(room).map(|namespace| namespace.subscribe_all);
    open.is_some_and(|open| open || rights.allow(Verb::Subscribe, room))
}

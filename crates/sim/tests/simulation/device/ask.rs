//! What a device asks for, and which answers are right.

use std::collections::BTreeMap;

use ringgate_core::id::{Position, Recover};
use ringgate_core::wire::RoomCursor;

use super::{Device, may_join};
use crate::ledger::Ledger;
use crate::tokens::{Rights, Token, Verb, Verdict};

#[derive(Debug)]
pub(super) enum Request {
    /// The rooms of a Connect; how many answers are missing, and whether one was temporary.
    Rooms {
        rooms: BTreeMap<String, (Option<Position>, Recover)>,
        answers: usize,
        temporary: bool,
        asked_ms: u64,
        /// The rights of its token.
        rights: Rights,
    },
    /// `behind` is the request of a Subscribe on which it depends.
    Publish {
        number: u64,
        behind: Option<u32>,
    },
    Subscribe {
        room: String,
        since: Option<Position>,
        recover: Recover,
        asked_ms: u64,
        refused_behind: bool,
    },
    Unsubscribe {
        room: String,
        behind: Option<u32>,
    },
    Presence {
        room: String,
        limit: u32,
    },
    History {
        topic: String,
        since: Option<Position>,
        before: Option<Position>,
        limit: u32,
        asked_ms: u64,
    },
    Refresh {
        rights: Rights,
        expires_at: u64,
    },
}

/// A request without an answer, and which answers are right.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) expected: Expected,
}

#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) result: bool,
    /// Final errors.
    pub(super) errors: Vec<u16>,
    /// As many requests as allowed may be waiting already.
    pub(super) crowded: bool,
}

impl Expected {
    fn result() -> Expected {
        Expected { result: true, ..Expected::default() }
    }

    fn error(code: u16) -> Expected {
        Expected { errors: vec![code], ..Expected::default() }
    }

    fn or(mut self, code: u16) -> Expected {
        self.errors.push(code);
        self
    }
}

/// Where a device stands with a room when everything that it has sent is done.
enum Standing {
    In,
    Out,
    /// By this request.
    Joining(u32),
    Leaving,
    /// Something under way may change it.
    Unsure,
}

impl Device {
    /// Connect is about to be sent on a new connection, `self.connection`.
    pub(crate) fn connecting(
        &mut self,
        serial: u64,
        token: &Token,
        inbox: Option<Position>,
        rooms: Vec<(String, Option<Position>, Recover)>,
        ledger: &mut Ledger,
        now_ms: u64,
    ) -> u32 {
        self.serial = serial;
        self.goodbye = None;
        self.read_ms = now_ms;
        self.heard_ms = now_ms;
        self.latest_unix_ms = 0;
        self.rights = token.rights.clone();
        self.rights_before.clear();
        self.expires_at = token.expires_at;
        self.connected_ms = now_ms;
        self.resumed = inbox;
        if let Some(inbox) = inbox {
            ledger.resumes(&self.user, &self.name, inbox.offset);
        }
        self.last_request += 1;
        let answers = rooms.len();
        if answers > 0 {
            let rooms = rooms.into_iter().map(|(room, since, recover)| (room, (since, recover))).collect();
            let rights = token.rights.clone();
            let request = Request::Rooms { rooms, answers, temporary: false, asked_ms: now_ms, rights };
            let expected = Expected { result: true, errors: vec![102, 103], crowded: false };
            self.waiting.insert(self.last_request, Waiting { request, expected });
        }
        self.last_request
    }

    fn ask(&mut self, request: Request, mut expected: Expected, ledger: &Ledger) -> u32 {
        let waiting: usize = self
            .waiting
            .values()
            .map(|waiting| match &waiting.request {
                Request::Rooms { answers, .. } => *answers,
                _ => 1,
            })
            .sum();
        expected.crowded = waiting >= ledger.settings.client.requests_in_flight_max;
        self.last_request += 1;
        self.waiting.insert(self.last_request, Waiting { request, expected });
        self.last_request
    }

    pub(crate) fn ask_publish(&mut self, number: u64, ledger: &mut Ledger) -> u32 {
        let is_stored = ledger.is_stored(number) && ledger.message(number).id != 0;
        let mut expected = self.may_publish(&ledger.message(number).topic.clone(), ledger);
        let behind = self.joining(&ledger.message(number).topic, ledger);
        if ledger.was_sent(number) {
            // An earlier attempt may be stored.
            expected.result = true;
        }
        if is_stored {
            expected.errors.clear();
        }
        ledger.send(number, &self.name, self.serial);
        self.ask(Request::Publish { number, behind }, expected, ledger)
    }

    fn may_publish(&self, topic: &str, ledger: &Ledger) -> Expected {
        if topic.starts_with('@') {
            return self.by_right(Verb::Publish, topic, ledger.settings.inbox.publish_all, Expected::result());
        }
        let Some(namespace) = ledger.namespace(topic) else { return Expected::error(102) };
        let as_member = if namespace.publish_without_subscribe {
            Expected::result()
        } else {
            match self.standing(topic, ledger) {
                Standing::In => Expected::result(),
                Standing::Out | Standing::Leaving => Expected::error(401),
                Standing::Joining(_) | Standing::Unsure => Expected::result().or(401),
            }
        };
        self.by_right(Verb::Publish, topic, namespace.publish_all, as_member)
    }

    pub(crate) fn ask_to_join(&mut self, cursor: RoomCursor<'_>, ledger: &Ledger, now_ms: u64) -> u32 {
        let RoomCursor { room, since, recover } = cursor;
        let expected = match ledger.namespace(room) {
            None => Expected::error(102),
            Some(namespace) => {
                let as_member = match self.standing(room, ledger) {
                    Standing::In => Expected::error(105),
                    Standing::Out | Standing::Leaving => Expected::result(),
                    // The one before may fail.
                    Standing::Joining(_) | Standing::Unsure => Expected::result().or(105),
                };
                self.by_right(Verb::Subscribe, room, namespace.subscribe_all, as_member)
            }
        };
        let request = Request::Subscribe { room: room.into(), since, recover, asked_ms: now_ms, refused_behind: false };
        self.ask(request, expected, ledger)
    }

    pub(crate) fn ask_to_leave(&mut self, room: &str, ledger: &Ledger) -> u32 {
        let expected = match self.standing(room, ledger) {
            Standing::In => Expected::result(),
            Standing::Out | Standing::Leaving => Expected::error(401),
            Standing::Joining(_) | Standing::Unsure => Expected::result().or(401),
        };
        let behind = self.joining(room, ledger);
        self.ask(Request::Unsubscribe { room: room.into(), behind }, expected, ledger)
    }

    pub(crate) fn ask_presence(&mut self, room: &str, limit: u32, ledger: &Ledger) -> u32 {
        let offered = |ledger: &Ledger| ledger.namespace(room).is_some_and(|namespace| namespace.presence);
        let expected = self.may_look_around(Verb::Presence, room, offered(ledger), ledger);
        self.ask(Request::Presence { room: room.into(), limit }, expected, ledger)
    }

    pub(crate) fn ask_history(
        &mut self,
        topic: &str,
        since: Option<Position>,
        before: Option<Position>,
        limit: u32,
        ledger: &Ledger,
        now_ms: u64,
    ) -> u32 {
        let expected = match topic.strip_prefix('@') {
            Some(user) if user == self.user => Expected::result(),
            Some(_) => Expected::error(103),
            None => {
                let offered = ledger.namespace(topic).is_some_and(|namespace| namespace.history_size > 0);
                self.may_look_around(Verb::History, topic, offered, ledger)
            }
        };
        self.ask(Request::History { topic: topic.into(), since, before, limit, asked_ms: now_ms }, expected, ledger)
    }

    /// Presence and History: open to members, too.
    fn may_look_around(&self, verb: Verb, room: &str, offered: bool, ledger: &Ledger) -> Expected {
        let Some(namespace) = ledger.namespace(room) else { return Expected::error(102) };
        let answer = if offered { Expected::result() } else { Expected::error(108) };
        match self.standing(room, ledger) {
            Standing::In => answer,
            Standing::Out => self.by_right(verb, room, namespace.subscribe_all, answer),
            _ if namespace.subscribe_all => answer,
            _ => answer.or(103),
        }
    }

    pub(crate) fn ask_refresh(&mut self, token: &Token, ledger: &Ledger) -> u32 {
        let expected = match token.verdict {
            Verdict::Good => Expected::result(),
            Verdict::Expired => Expected::error(109),
            Verdict::Invalid | Verdict::OtherUser | Verdict::OtherDevice => Expected::error(400),
        };
        let request = Request::Refresh { rights: token.rights.clone(), expires_at: token.expires_at };
        self.ask(request, expected, ledger)
    }

    /// What is right when the session needs a right first: the token that holds gives it, or the namespace gives it to all.
    fn by_right(&self, verb: Verb, topic: &str, open: bool, with_right: Expected) -> Expected {
        let now = open || self.rights.allow(verb, topic);
        let later = self.refreshing().map(|rights| open || rights.allow(verb, topic));
        match (now, later) {
            (true, None | Some(true)) => with_right,
            (false, None | Some(false)) => Expected::error(103),
            _ => with_right.or(103),
        }
    }

    /// The rights of a Refresh that waits for its answer.
    fn refreshing(&self) -> Option<&Rights> {
        self.waiting.values().find_map(|waiting| match &waiting.request {
            Request::Refresh { rights, .. } => Some(rights),
            _ => None,
        })
    }

    /// Whether the room was closed to this connection at some time, or may be by now.
    pub(super) fn some_token_lacks(&self, room: &str, ledger: &Ledger) -> bool {
        let tokens = self.rights_before.iter().chain([&self.rights]).chain(self.refreshing());
        tokens.into_iter().any(|rights| !may_join(room, rights, ledger))
    }

    pub(crate) fn is_refreshing(&self) -> bool {
        self.refreshing().is_some()
    }

    fn standing(&self, room: &str, ledger: &Ledger) -> Standing {
        let mut standing = if self.rooms.contains_key(room) { Standing::In } else { Standing::Out };
        for (request, waiting) in &self.waiting {
            match &waiting.request {
                Request::Subscribe { room: name, .. } if name == room => {
                    standing = match standing {
                        Standing::Unsure => Standing::Unsure,
                        _ => Standing::Joining(*request),
                    };
                }
                Request::Rooms { rooms, .. } if rooms.contains_key(room) => standing = Standing::Joining(*request),
                Request::Unsubscribe { room: name, .. } if name == room => {
                    standing = match standing {
                        Standing::Out => Standing::Out,
                        Standing::In | Standing::Leaving | Standing::Joining(_) => Standing::Leaving,
                        Standing::Unsure => Standing::Unsure,
                    };
                }
                _ => {}
            }
        }
        let stays = !self.some_token_lacks(room, ledger);
        match standing {
            Standing::Out => Standing::Out,
            _ if !stays => Standing::Unsure,
            standing => standing,
        }
    }

    /// The request that is about to join this room.
    fn joining(&self, room: &str, ledger: &Ledger) -> Option<u32> {
        match self.standing(room, ledger) {
            Standing::Joining(request) => Some(request),
            _ => None,
        }
    }
}

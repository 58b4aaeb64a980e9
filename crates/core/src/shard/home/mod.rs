//! A topic's side of a shard: the topics whose home it is. Sessions are reached by letters only (`shard::mail`).
//!
//! | file | what |
//! |---|---|
//! | `topics`, `books` | the tables of inboxes and rooms, what happens to one of them, and what the metrics count of it |
//! | `publish` | Publish: sequenced, committed, delivered |
//! | `appends`, `reads` | messages on their way into an engine, and out of it |
//! | `claims` | devices whose sessions may be on any node |
//! | `follow` | messages that get their place from an engine that several nodes share |
//! | `backed`, `loading` | topics that an engine keeps: what of them is in memory, and letters that wait until a topic is loaded |
//! | `members` | members of rooms, where several nodes share an engine |
//! | `inbox` | devices that connect to an inbox |
//! | `room` | members that join and leave, and broadcasts to the shards where they are |
//! | `catch_up`, `lookup` | what a session is missing; Presence and History |

mod appends;
mod backed;
mod books;
mod catch_up;
mod claims;
mod follow;
mod inbox;
mod loading;
mod lookup;
mod members;
mod publish;
mod reads;
mod room;
mod topics;

use super::{Shard, ToHome};
use crate::id::{InboxKey, Now, RoomKey};
use crate::limits::Engine;
pub(super) use topics::Homes;

/// A topic at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Inbox(InboxKey),
    Room(RoomKey),
}

impl Topic {
    pub(super) fn is_inbox(self) -> bool {
        matches!(self, Topic::Inbox(_))
    }
}

impl Shard {
    pub(super) fn on_letter_to_home(&mut self, letter: ToHome, now: Now) {
        let letter = match self.settings.engine {
            Engine::Memory => letter,
            Engine::Store | Engine::Shared => match self.wait_for_topic(letter, now) {
                Some(letter) => letter,
                None => return,
            },
        };
        self.handle_letter_to_home(letter, now);
    }

    /// What a letter asks for, of a topic that is known well enough.
    fn handle_letter_to_home(&mut self, letter: ToHome, now: Now) {
        match letter {
            ToHome::Attach(attach) => self.on_attach(*attach, now),
            ToHome::Detach { inbox, from } => self.on_detach(inbox, from, now),
            ToHome::Publish(publish) => {
                if let Some(key) = publish.dedup_key {
                    self.homes.dedup.prefetch(key);
                }
                self.on_publish_at_home(*publish, now);
            }
            ToHome::Copy(copy) => self.on_copy(*copy, now),
            ToHome::Ack { inbox, from, offset } => self.homes.acknowledge(inbox, from, offset, now),
            ToHome::CatchUp { topic, from, since } => self.on_catch_up(topic, from, since, now),
            ToHome::Subscribe(subscribe) => self.on_subscribe_at_home(*subscribe, now),
            ToHome::Unsubscribe { room, from, taken_over } => self.on_unsubscribe_at_home(room, from, taken_over, now),
            ToHome::Presence { room, from, request, limit } => self.on_presence_at_home(room, from, request, limit),
            ToHome::History(history) => self.on_history_at_home(*history, now),
            ToHome::Credit { from, credit } => self.on_credit(from, &credit),
        }
    }
}

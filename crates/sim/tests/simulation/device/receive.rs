//! What a device gets, and what it checks of each frame.

use std::collections::BTreeMap;

use ringgate_core::id::{Now, Position, Recover, Stamp};
use ringgate_core::limits::Engine;
use ringgate_core::wire::{Encoder, Kind, Published, ServerFrame, Split, schema, split};

use super::ask::{Request, Waiting};
use super::{Device, Page, Room, may_join};
use crate::ledger::{Gap, Ledger, Listing, Recovery};
use crate::promises;

impl Device {
    /// Bytes have come; every frame is checked.
    pub(crate) fn receive(&mut self, bytes: &[u8], ledger: &mut Ledger, now: Now) {
        self.incoming.extend_from_slice(bytes);
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = incoming.as_slice();
        while let Split::Frame(raw, later) = split(rest, 1 << 24).expect("a gateway's header is good") {
            let frame = ServerFrame::parse(raw).expect("a gateway's frame is good");
            self.on_frame(&frame, ledger, now);
            rest = later;
        }
        self.incoming = rest.to_vec();
    }

    fn on_frame(&mut self, frame: &ServerFrame<'_>, ledger: &mut Ledger, now: Now) {
        let now_ms = now.mono_ms();
        assert!(self.goodbye.is_none(), "a frame after Goodbye");
        let opens = matches!(frame, ServerFrame::Connected(_) | ServerFrame::Goodbye(_));
        assert!(self.ready || opens, "a frame before Connected: {frame:?}");
        match frame {
            ServerFrame::Connected(connected) => self.on_connected(connected, ledger, now_ms),
            ServerFrame::Message(message) => self.on_message(message, ledger, now_ms),
            ServerFrame::Published(published) => self.on_published(published, ledger),
            ServerFrame::Subscribed(subscribed) => self.on_subscribed(subscribed, ledger, now_ms),
            ServerFrame::Unsubscribed(unsubscribed) => self.on_unsubscribed(unsubscribed, ledger),
            ServerFrame::PresenceResult(result) => self.on_presence(result),
            ServerFrame::HistoryResult(result) => self.on_history(result, ledger, now_ms),
            ServerFrame::Refreshed(refreshed) => {
                let Request::Refresh { rights, expires_at } = self.answered(refreshed.request()) else {
                    panic!("Refreshed answers something else");
                };
                assert_eq!(refreshed.expires_at(), expires_at);
                self.rights_before.push(std::mem::replace(&mut self.rights, rights));
                self.expires_at = expires_at;
            }
            ServerFrame::Joined(joined) => self.on_event(joined.room(), joined.user(), joined.device(), true, ledger),
            ServerFrame::Left(left) => self.on_event(left.room(), left.user(), left.device(), false, ledger),
            ServerFrame::Ping => Encoder::empty(&mut self.outgoing, Kind::ClientPong),
            ServerFrame::Pong => {}
            ServerFrame::Error(error) => self.on_error(error, ledger, now),
            ServerFrame::Goodbye(goodbye) => self.on_goodbye(goodbye.code(), ledger, now),
        }
    }

    /// Takes out the request that is answered with its result, which must be right.
    fn answered(&mut self, request: u32) -> Request {
        let Some(waiting) = self.waiting.remove(&request) else {
            panic!("{} {}: an answer to request {request}, which does not wait for one", self.user, self.name);
        };
        assert!(waiting.expected.result, "this was to be refused: {waiting:?}");
        waiting.request
    }

    fn on_connected(&mut self, connected: &schema::Connected<'_>, ledger: &mut Ledger, now_ms: u64) {
        assert!(!self.ready, "Connected twice");
        assert_eq!(connected.user(), Some(self.user.as_str()));
        assert_eq!(connected.expires_at(), self.expires_at);
        self.ready = true;
        let newest = Position::from(connected.inbox().expect("Connected says where the inbox is"));
        let recovered = connected.inbox_recovered();
        let topic = format!("@{}", self.user);
        let acked_max = ledger.acked_max(&topic);
        if self.first.is_some_and(|first| first.epoch != newest.epoch) && ledger.forgets_devices() {
            // Nobody knew the inbox any more, and nothing was left in it.
            self.first = None;
        }
        if let Some(since) = self.resumed {
            ledger.recovery(Recovery { topic, since, newest, recovered, at_ms: now_ms, acked_max });
        } else if let Some(first) = self.first.filter(|_| recovered && promises::LOSSES_ARE_TOLD_UNTIL_HEARD) {
            // Its cursor is at most where it has received to, or where it was told to begin.
            let since = Position { offset: self.inbox.offset.max(first.offset), ..first };
            ledger.recovery(Recovery { topic, since, newest, recovered, at_ms: now_ms, acked_max });
        }
        if !recovered || newest.epoch != self.inbox.epoch {
            self.inbox = Position { epoch: newest.epoch, offset: 0 };
        }
        self.fresh = self.inbox.offset == 0;
        self.announced = newest.offset;
        self.brought = 0;
        if self.first.is_none() {
            ledger.acked(&self.user, &self.name, 0);
        }
        if self.first.is_none() || !recovered {
            (self.first, self.first_ms) = (Some(newest), now_ms);
        }
    }

    fn on_message(&mut self, message: &schema::Message<'_>, ledger: &mut Ledger, now_ms: u64) {
        let stamp = Stamp::from(message.stamp().expect("a Message has a stamp"));
        let topic = message.topic().expect("a topic");
        let number = read(message, ledger);
        if stamp.position.offset == 0 {
            assert!(self.ephemeral.insert(number), "ephemeral message {number} came twice");
        }
        if message.sent_to().is_some() {
            let is_own = ledger.message(number).connections == [self.serial];
            assert!(!is_own, "a copy of message {number} came to the session that sent it");
            ledger.counts.copies += 1;
        }
        if let Some(user) = topic.strip_prefix('@') {
            assert_eq!(user, self.user, "somebody else's inbox");
            if stamp.position.offset != 0 {
                self.on_inbox(stamp.position, number, ledger, now_ms);
            }
        } else {
            self.on_room(topic, stamp.position, number, ledger, now_ms);
        }
    }

    /// In order, and again only what was not acknowledged.
    fn on_inbox(&mut self, position: Position, number: u64, ledger: &mut Ledger, now_ms: u64) {
        let Device { user, name, .. } = self;
        assert_eq!(position.epoch, self.inbox.epoch, "an epoch that was not announced");
        if let Some(since) =
            self.resumed.filter(|since| since.epoch == position.epoch && self.inbox.offset >= since.offset)
        {
            assert!(position.offset > since.offset, "{user} {name}: {position:?} was acknowledged by Connect");
        }
        assert!(
            position.offset > self.announced || !ledger.is_dead(number, self.connected_ms),
            "{user} {name}: message {number} had expired before Connect"
        );
        let fresh = std::mem::take(&mut self.fresh);
        let skipped = if fresh { position.offset } else { self.inbox.offset + 1 }..position.offset;
        // An older connection of the device, whose sign-in came late, may have said that it has them.
        for from in skipped.filter(|offset| !self.received.contains_key(&(position.epoch, *offset))) {
            ledger.gap(Gap {
                topic: format!("@{user}"),
                epoch: position.epoch,
                from,
                to: from + 1,
                at_ms: now_ms,
                connection: self.serial,
                device: name.clone(),
            });
        }
        self.inbox.offset = self.inbox.offset.max(position.offset);
        self.brought = position.offset;
        self.received.insert((position.epoch, position.offset), number);
        if !self.forgetful {
            self.acknowledge(ledger);
        }
    }

    /// Acknowledges all that was received.
    pub(crate) fn acknowledge(&mut self, ledger: &mut Ledger) {
        let offset = match promises::ACKS_AHEAD_COUNT {
            true => self.inbox.offset,
            false => self.inbox.offset.min(self.brought),
        };
        if offset > 0 {
            ledger.acked(&self.user, &self.name, offset);
            Encoder::ack(&mut self.outgoing, Position { offset, ..self.inbox });
        }
    }

    /// In order and not again.
    fn on_room(&mut self, name: &str, position: Position, number: u64, ledger: &mut Ledger, now_ms: u64) {
        let Some(room) = self.rooms.get_mut(name) else {
            assert!(self.left_here.contains(name), "a message of {name}, which was not joined");
            return;
        };
        let echo = ledger.namespace(name).is_none_or(|namespace| namespace.echo);
        let is_own = ledger.message(number).connections == [self.serial];
        assert!(echo || !is_own, "{name}: message {number} came to its publisher");
        if position.offset == 0 {
            return;
        }
        let last = room.position;
        assert_eq!(position.epoch, last.epoch, "{name} of {} {}", self.user, self.name);
        assert!(position.offset > last.offset, "{name} of {} {}: {position:?} again", self.user, self.name);
        assert!(
            position.offset > room.recovered_to || !ledger.is_dead(number, room.asked_ms),
            "{name}: message {number} had expired before it was asked for"
        );
        room.position = position;
        if !std::mem::take(&mut room.may_have_hole) {
            self.gap_in_room(name, last.offset + 1, position, ledger, now_ms);
        }
    }

    pub(super) fn gap_in_room(&self, room: &str, from: u64, to: Position, ledger: &mut Ledger, now_ms: u64) {
        if from < to.offset {
            ledger.gap(Gap {
                topic: room.to_owned(),
                epoch: to.epoch,
                from,
                to: to.offset,
                at_ms: now_ms,
                connection: self.serial,
                device: format!("{} {}", self.user, self.name),
            });
        }
    }

    fn on_published(&mut self, published: &Published, ledger: &mut Ledger) {
        // Another device may have sent it meanwhile, with the right to.
        if let Some(waiting) = self.waiting.get_mut(&published.request) {
            waiting.expected.result |= published.duplicate;
        }
        let Request::Publish { number, .. } = self.answered(published.request) else {
            panic!("Published answers something else");
        };
        let sent = ledger.message(number);
        assert_eq!(published.client_message_id.low, sent.id);
        assert_eq!(published.durability, u8::from(!sent.ephemeral));
        let (topic, position) = (sent.topic.clone(), published.stamp.position);
        ledger.on_published(number, published.stamp, published.duplicate);
        if published.duplicate || position.offset == 0 {
            return;
        }
        let here = (topic.clone(), published.request);
        let before = self.order.range(..&here).next_back().map(|((name, _), place)| (name, *place, position));
        let after = self.order.range(&here..).next().map(|((name, _), place)| (name, position, *place));
        for (_, first, second) in before.into_iter().chain(after).filter(|(name, _, _)| **name == topic) {
            assert!(
                first.epoch != second.epoch || first.offset < second.offset,
                "{topic}: not in the order of sending"
            );
        }
        self.order.insert(here, position);
    }

    fn on_subscribed(&mut self, subscribed: &schema::Subscribed<'_>, ledger: &mut Ledger, now_ms: u64) {
        let name = subscribed.room().expect("a room").to_owned();
        let request = subscribed.request();
        let (since, recover, asked_ms) = match self.waiting.get_mut(&request).map(|waiting| &mut waiting.request) {
            Some(Request::Rooms { rooms, answers, asked_ms, rights, .. }) => {
                let (since, recover) = rooms.remove(&name).expect("a room of Connect");
                *answers -= 1;
                let (asked_ms, answers) = (*asked_ms, *answers);
                assert!(may_join(&name, rights, ledger), "{name} was to be refused");
                if answers == 0 {
                    self.rooms_answered(request, ledger);
                }
                (since, recover, asked_ms)
            }
            _ => {
                let Request::Subscribe { room, since, recover, asked_ms, refused_behind } = self.answered(request)
                else {
                    panic!("Subscribed answers something else");
                };
                assert_eq!(room, name);
                assert!(!refused_behind, "{name}: a request behind the Subscribe was refused with 401");
                (since, recover, asked_ms)
            }
        };
        let newest = Position::from(subscribed.position().expect("a position"));
        let start = Position::from(subscribed.start().expect("a position"));
        let recovered = subscribed.recovered();
        match since {
            Some(since) => {
                let topic = name.clone();
                ledger.recovery(Recovery { topic, since, newest, recovered, at_ms: now_ms, acked_max: 0 });
                match recover {
                    _ if recovered => assert_eq!(start, since, "{name}: what follows the position that was given"),
                    Recover::Exact => assert_eq!(start, newest, "{name}: live traffic only"),
                    Recover::Best => assert!(start.epoch == newest.epoch && start.offset <= newest.offset, "{start:?}"),
                }
            }
            None => assert!(recovered && start == newest, "{name}: nothing was to be recovered"),
        }
        let recovered_to = if start == newest { 0 } else { newest.offset };
        let may_have_hole = recover == Recover::Best && !recovered;
        let room = Room { position: start, recovered_to, asked_ms, may_have_hole, events: BTreeMap::new() };
        assert!(self.rooms.insert(name, room).is_none(), "Subscribed twice");
    }

    /// All rooms of a Connect have been answered; those that are left were refused.
    fn rooms_answered(&mut self, request: u32, ledger: &Ledger) {
        let Some(Waiting { request: Request::Rooms { rooms, temporary, rights, .. }, .. }) =
            self.waiting.remove(&request)
        else {
            panic!("the rooms of Connect");
        };
        for name in rooms.keys().filter(|_| !temporary) {
            assert!(!may_join(name, &rights, ledger), "{name} was to be joined by Connect");
        }
    }

    fn on_unsubscribed(&mut self, unsubscribed: &schema::Unsubscribed<'_>, ledger: &mut Ledger) {
        let name = unsubscribed.room().expect("a room").to_owned();
        if unsubscribed.request() == 0 {
            assert_eq!(unsubscribed.code(), 103, "why {name} is taken away");
            ledger.counts.taken_away += 1;
            assert!(self.some_token_lacks(&name, ledger), "{name} was taken away without a reason");
        } else {
            let Request::Unsubscribe { room, .. } = self.answered(unsubscribed.request()) else {
                panic!("Unsubscribed answers something else");
            };
            assert_eq!((room.as_str(), unsubscribed.code()), (name.as_str(), 0));
        }
        let room = self.rooms.remove(&name).expect("only a room that was joined can be left");
        self.left_at.insert(name.clone(), room.position);
        self.left_here.insert(name);
    }

    fn on_presence(&mut self, result: &schema::PresenceResult<'_>) {
        let Request::Presence { room, limit } = self.answered(result.request()) else {
            panic!("PresenceResult answers something else");
        };
        assert_eq!(result.room(), Some(room.as_str()));
        let members: Vec<(String, String)> = result
            .members()
            .into_iter()
            .flatten()
            .map(|member| (member.user().unwrap().to_owned(), member.device().unwrap().to_owned()))
            .collect();
        assert_eq!(members.len() as u32, result.count().min(limit), "members of {room}");
        self.presence.insert(room, members);
    }

    fn on_history(&mut self, result: &schema::HistoryResult<'_>, ledger: &mut Ledger, now_ms: u64) {
        let Request::History { topic, since, before, limit, asked_ms } = self.answered(result.request()) else {
            panic!("HistoryResult answers something else");
        };
        assert_eq!(result.topic(), Some(topic.as_str()));
        let newest = Position::from(result.position().expect("a position"));
        let mut messages = Vec::new();
        for message in result.messages().into_iter().flatten() {
            let place = Position::from(message.stamp().expect("a stamp").position());
            assert_eq!((message.topic(), place.epoch), (Some(topic.as_str()), newest.epoch));
            assert!(place.offset <= newest.offset, "{topic}: {place:?} is newer than the newest");
            messages.push((place.offset, read(&message, ledger)));
        }
        assert!(messages.is_sorted_by(|before, after| before.0 < after.0), "{topic}: not in order: {messages:?}");
        assert!(messages.len() <= limit as usize, "{topic}: more than {limit}");
        let offsets = messages.iter().map(|(offset, _)| *offset).collect();
        self.page = Some(Page { newest, offsets, more: result.more() });
        ledger.listing(Listing {
            acked_max: ledger.acked_max(&topic),
            topic,
            since,
            before,
            limit,
            asked_ms,
            answered_ms: now_ms,
            newest,
            messages,
            more: result.more(),
            recovered: result.recovered(),
        });
    }

    fn on_event(
        &mut self,
        room: Option<&str>,
        user: Option<&str>,
        device: Option<&str>,
        joined: bool,
        ledger: &Ledger,
    ) {
        let (name, user, device) = (room.expect("a room"), user.expect("a user"), device.expect("a device"));
        assert!(ledger.namespace(name).is_some_and(|namespace| namespace.join_leave), "{name} announces nothing");
        match self.rooms.get_mut(name) {
            Some(room) => room.events.insert((user.to_owned(), device.to_owned()), joined),
            None => {
                assert!(self.left_here.contains(name), "an event of {name}, which was not joined");
                None
            }
        };
    }

    fn on_error(&mut self, error: &schema::Error<'_>, ledger: &mut Ledger, now: Now) {
        let (request, code) = (error.request(), error.code());
        let latest_unix_ms = self.latest_unix_ms.max(now.unix_ms);
        assert_eq!(error.temporary(), matches!(code, 100 | 111 | 402 | 403 | 410), "Error {code}");
        let Some(waiting) = self.waiting.get_mut(&request) else {
            panic!("{} {}: Error {code} for request {request}, which does not wait", self.user, self.name);
        };
        let right = match code {
            402 => ledger.settings.engine == Engine::Store && matches!(waiting.request, Request::Publish { .. }),
            403 => waiting.expected.crowded,
            100 | 410 => true,
            109 => match &waiting.request {
                Request::Refresh { expires_at, .. } if *expires_at != 0 && latest_unix_ms >= expires_at * 1000 => true,
                _ => waiting.expected.errors.contains(&code),
            },
            _ => waiting.expected.errors.contains(&code),
        };
        assert!(right, "{} {}: Error {code} for {waiting:?}", self.user, self.name);
        ledger.counts.temporary += u64::from(matches!(code, 100 | 402 | 410));
        ledger.counts.denied += u64::from(code == 103);
        if let Request::Rooms { answers, temporary, .. } = &mut waiting.request {
            *answers -= 1;
            *temporary |= error.temporary();
            if *answers == 0 {
                self.rooms_answered(request, ledger);
            }
            return;
        }
        let behind = match self.waiting.remove(&request).expect("it waits").request {
            Request::Publish { number, .. } if error.temporary() => {
                self.repeat_later(number, ledger);
                None
            }
            Request::Publish { behind, .. } | Request::Unsubscribe { behind, .. } if code == 401 => behind,
            _ => None,
        };
        if let Some(behind) = behind.and_then(|behind| self.waiting.get_mut(&behind))
            && let Request::Subscribe { refused_behind, .. } = &mut behind.request
        {
            *refused_behind = true;
        }
    }

    /// Whether the wall clock has shown that time since the device connected: it may have been set back meanwhile.
    fn was_past(&self, unix_ms: u64, now: Now) -> bool {
        self.latest_unix_ms.max(now.unix_ms) >= unix_ms
    }

    fn on_goodbye(&mut self, code: u16, ledger: &Ledger, now: Now) {
        let client = &ledger.settings.client;
        let now_ms = now.mono_ms();
        let right = match code {
            // Its inbox could not be loaded.
            3016 if ledger.settings.engine == Engine::Store && !self.ready => true,
            // The token of its Refresh waited while time jumped.
            3016 if self.is_refreshing() => true,
            // Its sign-in waited for a shard that did not read its mail.
            3016 if self.ready => {
                self.is_refreshing() && self.was_past(self.expires_at * 1000 + client.connect_timeout_ms, now)
            }
            3016 => now_ms - self.connected_ms >= client.connect_timeout_ms,
            3005 => self.expires_at != 0 && self.was_past(self.expires_at * 1000, now),
            3008 => now_ms - self.read_ms >= client.write_timeout_ms,
            3012 => now_ms - self.heard_ms >= client.silence_ms_max(client.ping_interval_ms),
            // The world checks where a log could be too short for this.
            3010 => true,
            // Two connections of one device may reach its inbox in another order than they were opened.
            4500 => self.serial > 1,
            _ => false,
        };
        assert!(right, "{} {}: Goodbye {code}", self.user, self.name);
        self.goodbye = Some(code);
    }
}

/// Tells the ledger of a message, and returns its number.
fn read(message: &schema::Message<'_>, ledger: &mut Ledger) -> u64 {
    let stamp = Stamp::from(message.stamp().expect("a Message has a stamp"));
    let topic = message.topic().expect("a topic");
    let sender = message.sender().expect("a sender");
    let payload = message.payload().expect("a payload").bytes();
    match message.sent_to() {
        Some(sent_to) => ledger.on_copy(topic, sent_to, stamp, payload),
        None => ledger.on_message(topic, stamp, sender, payload, message.trace()),
    }
}

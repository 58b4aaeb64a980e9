//! What clients do.

use ringgate_core::id::{ClientMessageId, Position};
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use ringgate_core::wire::{Encoder, Kind, RoomCursor};

use super::{ROOMS, Schedule, recover};
use crate::ledger::Ledger;

impl Schedule {
    pub(crate) fn connect(&mut self, index: usize) {
        // A device that is connected already takes itself over; its old socket lives on until it is closed.
        let shard = self.random.below(self.world.shards.len());
        self.connections += 1;
        let client = self.world.open(shard);
        self.distribute();
        if let Some(old) = self.devices[index].connection {
            self.devices[index].lost(&self.ledger);
            if self.random.one_in(2) {
                self.end(old);
            }
        }
        let (unix_ms, now_ms) = (self.world.now.unix_ms, self.now_ms());
        let device = &mut self.devices[index];
        let resumes = self.random.below(3) > 0;
        let inbox = (resumes && device.inbox.epoch != 0).then_some(device.inbox);
        let mut rooms = Vec::new();
        if self.random.one_in(3) {
            for room in ROOMS {
                if self.random.one_in(2) {
                    continue;
                }
                let since = device.left_at.get(room).copied().filter(|_| self.random.below(3) > 0);
                rooms.push((room.to_owned(), since, recover(&mut self.random)));
            }
        }
        let token = self.tokens.good(&mut self.random, &device.user, &device.name, unix_ms, self.calm);
        device.connection = Some(client);
        let request = device.connecting(self.connections, &token, inbox, rooms.clone(), &mut self.ledger, now_ms);
        // Where a test gives the gateway a large window, it wants it whole.
        let window_max = self.ledger.settings.inbox.in_flight_max as usize;
        let receive_window = if window_max < 100 { self.random.below(12) as u32 } else { 0 };
        let rooms: Vec<_> =
            rooms.iter().map(|(room, since, recover)| RoomCursor { room, since: *since, recover: *recover }).collect();
        let connect = ConnectRequest {
            request,
            token: &token.text,
            device: &device.name,
            inbox,
            rooms: &rooms,
            receive_window,
            ..Default::default()
        };
        let mut bytes = Vec::new();
        self.world.encoder.connect(&mut bytes, &connect);
        self.send(index, &bytes);
    }

    /// Whether a device may send a request now: right behind Connect, too.
    pub(super) fn may_ask(&self, index: usize) -> bool {
        self.devices[index].connection.is_some()
    }

    pub(crate) fn send(&mut self, index: usize, bytes: &[u8]) {
        self.devices[index].outgoing.extend_from_slice(bytes);
        self.flush(index);
    }

    /// Delivers to the gateway what a device has sent, in random pieces, unless nothing is to be received from it.
    pub(super) fn flush(&mut self, index: usize) {
        let Some(client) = self.devices[index].connection else { return };
        // What the socket had received already comes all the same.
        if self.world.held.contains(&client) && !self.random.one_in(4) {
            return;
        }
        let bytes = std::mem::take(&mut self.devices[index].outgoing);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && self.devices[index].connection == Some(client) {
            let take = if self.random.one_in(2) { rest.len() } else { 1 + self.random.below(rest.len()) };
            let (piece, later) = rest.split_at(take);
            self.receive(client, piece);
            // A connection that is being closed is not listened to; its client may not have read that yet.
            if !self.world.closing.iter().any(|closing| closing.client == client) {
                self.devices[index].heard_ms = self.now_ms();
            }
            rest = later;
        }
    }

    pub(crate) fn publish(&mut self, index: usize, topic: &str, ephemeral: bool) {
        let user = self.devices[index].user.clone();
        let with_id = !self.random.one_in(8);
        // A copy lives as long as its original, from when it is stored: the ledger does not know when that was.
        let is_copied = topic.starts_with('@') && self.world.settings.inbox.copy_to_own_devices;
        let ttl_seconds =
            if self.ledger.ttls && !is_copied && self.random.one_in(4) { 1 + self.random.below(3) as u32 } else { 0 };
        let number = self.ledger.write(&user, topic, with_id, ephemeral, ttl_seconds);
        self.publish_number(index, number);
    }

    fn publish_number(&mut self, index: usize, number: u64) {
        let request = self.devices[index].ask_publish(number, &mut self.ledger);
        let sent = self.ledger.message(number);
        let id = ClientMessageId { high: if sent.id == 0 { 0 } else { 7 }, low: sent.id };
        let trace = Ledger::trace(number);
        let mut bytes = Vec::new();
        self.world.encoder.publish(
            &mut bytes,
            &PublishRequest {
                request,
                topic: &sent.topic,
                client_message_id: id,
                payload: &Ledger::payload(number),
                ephemeral: sent.ephemeral,
                ttl_seconds: sent.ttl_seconds,
                trace: trace.as_deref(),
            },
        );
        self.send(index, &bytes);
    }

    pub(super) fn join_or_leave(&mut self, index: usize, room: &str) {
        let now_ms = self.now_ms();
        let device = &mut self.devices[index];
        let mut bytes = Vec::new();
        let leaves = device.rooms.contains_key(room) != self.random.one_in(12);
        if leaves {
            let request = device.ask_to_leave(room, &self.ledger);
            self.world.encoder.unsubscribe(&mut bytes, request, room);
        } else {
            let since = device.left_at.get(room).copied().filter(|_| self.random.below(5) > 0);
            let cursor = RoomCursor { room, since, recover: recover(&mut self.random) };
            let request = device.ask_to_join(cursor, &self.ledger, now_ms);
            self.world.encoder.subscribe(&mut bytes, request, cursor);
        }
        self.send(index, &bytes);
    }

    pub(super) fn history(&mut self, index: usize) {
        let device = &self.devices[index];
        let (topic, known) = match self.random.below(10) {
            0 => (format!("@{}", self.devices[self.random.below(self.devices.len())].user), None),
            1..=3 => (format!("@{}", device.user), Some(device.inbox).filter(|inbox| inbox.epoch != 0)),
            _ => {
                let room = ROOMS[self.random.below(ROOMS.len())];
                let joined = device.rooms.get(room).map(|room| room.position);
                (room.to_owned(), joined.or(device.left_at.get(room).copied()))
            }
        };
        let back = self.random.below(30) as u64;
        let place = known
            .filter(|_| self.random.below(4) > 0)
            .map(|known| Position { offset: known.offset.saturating_sub(back), ..known });
        let limit = self.random.below(12) as u32;
        let (since, before) = if self.random.one_in(3) { (None, place) } else { (place, None) };
        self.ask_history(index, &topic, since, before, limit);
    }

    pub(super) fn ask_history(
        &mut self,
        index: usize,
        topic: &str,
        since: Option<Position>,
        before: Option<Position>,
        limit: u32,
    ) {
        let request =
            self.devices[index].ask_history(topic, since, before, limit, &self.ledger, self.world.now.mono_ms());
        let mut bytes = Vec::new();
        self.world.encoder.history(&mut bytes, &HistoryRequest { request, topic, since, before, limit });
        self.send(index, &bytes);
    }

    pub(super) fn ask_presence(&mut self, index: usize, room: &str, limit: u32) {
        let request = self.devices[index].ask_presence(room, limit, &self.ledger);
        let mut bytes = Vec::new();
        self.world.encoder.presence(&mut bytes, request, room, limit);
        self.send(index, &bytes);
    }

    pub(super) fn refresh(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if device.is_refreshing() {
            return;
        }
        let token = self.tokens.for_refresh(&mut self.random, &device.user, &device.name, self.world.now.unix_ms);
        let request = device.ask_refresh(&token, &self.ledger);
        let mut bytes = Vec::new();
        self.world.encoder.refresh(&mut bytes, request, &token.text);
        self.send(index, &bytes);
    }

    /// The next publish whose answer was lost is sent again.
    pub(super) fn repeat(&mut self, index: usize) {
        if self.may_ask(index)
            && let Some(number) = self.devices[index].unanswered.pop()
        {
            self.publish_number(index, number);
        }
    }

    /// A device that has forgotten that it was answered.
    pub(super) fn repeat_needlessly(&mut self, index: usize) {
        let pick = self.random.below(1000);
        if let Some(number) = self.ledger.stored_of(&self.devices[index].user, pick) {
            self.publish_number(index, number);
        }
    }

    pub(super) fn cut(&mut self, index: usize) {
        let Some(client) = self.devices[index].connection else { return };
        if self.random.one_in(4) && self.devices[index].ready {
            let mut bytes = Vec::new();
            Encoder::empty(&mut bytes, Kind::Disconnect);
            self.send(index, &bytes);
        } else {
            self.end(client);
        }
    }
}

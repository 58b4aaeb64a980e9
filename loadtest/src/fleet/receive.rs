//! What arrives at clients, and what becomes of their connections.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::id::{ConnectionKey, Position, Stamp as WireStamp};
use ringgate_core::outbox::Chunk;
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::ConnectRequest;
use ringgate_core::wire::{Encoder, Kind, RawFrame, ServerFrame, Split, schema, split};
use ringgate_net::Driver;
use ringgate_net::tls::{Handshake, TlsError};

use super::attempt::{Attempt, is_own, name_of, not_made};
use super::client::{Cause, End, Line, Ping, Pings, State};
use super::orders::{publish_of, request_of};
use super::{Fleet, Place};
use crate::ledger::{Answer, Recipient, Sender, Stamp, When};
use crate::plan::bump;
use crate::record::{Measure, Series};

const BODY_BYTES_MAX: usize = 64 << 20;
/// The close code of a token whose time is over.
const EXPIRED: u16 = CloseReason::Expired as u16;

impl Fleet {
    /// Says who it is, on a connection that has just been made, with TLS or without.
    fn sign_in(&mut self, key: ConnectionKey) {
        let Some(place) = self.lines.get(key).map(|line| line.place) else { return };
        let Some(client) = self.client_mut(place) else { return };
        let (number, seen) = (client.number, client.seen);
        match self.access.token(number, self.shared.user(number)) {
            Ok((token, device)) => {
                let connect = ConnectRequest {
                    token: &token,
                    device: &device,
                    client: concat!("ringgate-loadtest/", env!("CARGO_PKG_VERSION")),
                    inbox: (seen.epoch != 0).then_some(seen),
                    ..ConnectRequest::default()
                };
                let Fleet { lines, encoder, .. } = self;
                if let Some(line) = lines.get_mut(key) {
                    encoder.connect(&mut line.out, &connect);
                }
                self.mark(key);
            }
            Err(error) => self.error(error),
        }
    }

    fn on_frame(&mut self, key: ConnectionKey, frame: RawFrame<'_>) {
        let parsed = match ServerFrame::parse(frame) {
            Ok(parsed) => parsed,
            Err(error) => return self.error(format!("frame: {}", error.label())),
        };
        let now_us = self.shared.now_us();
        let Some(line) = self.lines.get_mut(key) else { return };
        let place = line.place;
        match parsed {
            ServerFrame::Message(message) => self.on_message(key, place, &message, now_us),
            ServerFrame::Published(published) => self.on_published(key, place, &published, now_us),
            ServerFrame::Pong => self.on_pong(key, place, now_us),
            ServerFrame::Ping => {
                Encoder::empty(&mut line.out, Kind::ClientPong);
                self.mark(key);
            }
            ServerFrame::Connected(connected) => {
                self.shared.limit_payloads(connected.message_bytes_max());
                self.on_connected(key, place, now_us);
            }
            ServerFrame::Subscribed(subscribed) => self.on_subscribed(place, &subscribed),
            ServerFrame::Error(error) => {
                // Publishes have requests; everything else asks with 0.
                if error.request() != 0 {
                    self.on_refused(key, place, &error);
                } else if error.code() != ErrorCode::TooManyRequests.code() {
                    // Of what is asked for without a number, only joining a room can be refused otherwise.
                    bump(&self.shared.counts().turned_away);
                }
                *self.record.borrow_mut().troubles.refused.entry(error.code()).or_default() += 1;
                let text = format!("refused: {} ({})", error.message().unwrap_or_default(), error.code());
                self.error(text);
            }
            ServerFrame::Goodbye(goodbye) => {
                let after = goodbye.reconnect().then_some(goodbye.after_ms());
                line.end = End::Goodbye(goodbye.code(), after);
            }
            // Clients of a load ask for none of these, and events of members are only traffic.
            ServerFrame::Unsubscribed(_)
            | ServerFrame::PresenceResult(_)
            | ServerFrame::HistoryResult(_)
            | ServerFrame::Refreshed(_)
            | ServerFrame::Joined(_)
            | ServerFrame::Left(_) => {}
        }
    }

    fn on_subscribed(&mut self, place: Place, subscribed: &schema::Subscribed<'_>) {
        let start = subscribed.start().map(Position::from).unwrap_or_default();
        let Some(client) = self.client_mut(place) else { return };
        if client.room.as_deref() != subscribed.room() || !core::mem::take(&mut client.subscribing) {
            return self.error("a Subscribed that was not asked for".to_owned());
        }
        client.seen_in_room = start;
        bump(&self.shared.counts().subscribed);
    }

    fn on_refused(&mut self, key: ConnectionKey, place: Place, error: &schema::Error<'_>) {
        let number = self.client_mut(place).map_or(0, |client| client.number);
        let (sender, sequence) = publish_of(error.request(), number, |sender| self.ledger.last(sender));
        if !self.on_answer(key, sender, sequence, false) {
            return;
        }
        let (counts, stream) = (self.shared.counts(), sender.stream());
        bump(&counts.refused);
        counts.possible.fetch_add(self.recipients[usize::from(stream)].into(), Relaxed);
        self.send_next(place, stream, Some(Duration::from_millis(error.retry_after_ms().into())));
    }

    /// Books the answer to a publish. True if it is the first one.
    fn on_answer(&mut self, key: ConnectionKey, sender: Sender, sequence: u32, accepted: bool) -> bool {
        match self.ledger.answer(sender, sequence, accepted) {
            Answer::First => {
                if let Some(line) = self.lines.get_mut(key) {
                    line.unanswered = line.unanswered.saturating_sub(1);
                }
                self.leave_if_answered(key);
                return true;
            }
            // Counted in the ledger.
            Answer::Again => {}
            Answer::Unasked => self.error("an answer to a publish that was not sent".to_owned()),
        }
        false
    }

    fn on_published(
        &mut self,
        key: ConnectionKey,
        place: Place,
        published: &ringgate_core::wire::Published,
        now_us: u64,
    ) {
        let id = published.client_message_id;
        let sender = Sender::from_bits((id.low >> 32) as u32);
        let Some(number) = self.client_mut(place).map(|client| client.number) else { return };
        if sender.client() != number {
            return self.error("an answer to a publish that was not sent".to_owned());
        }
        if published.request != request_of(sender, id.low as u32) {
            self.ledger.found.answered_wrong += 1;
        }
        if !self.on_answer(key, sender, id.low as u32, true) {
            return;
        }
        let when = When(id.high);
        let series = Series::Stream(sender.stream());
        self.record.borrow_mut().record(Measure::Publish, series, when.planned_us(), when.sent_us(), now_us);
        let counts = self.shared.counts();
        counts.owed.fetch_add(self.recipients[usize::from(sender.stream())].into(), Relaxed);
        bump(&counts.accepted);
        if published.duplicate {
            self.error("an unexpected duplicate answer".to_owned());
        }
        self.send_next(place, sender.stream(), None);
    }

    fn on_pong(&mut self, key: ConnectionKey, place: Place, now_us: u64) {
        bump(&self.shared.counts().pongs);
        let Some(line) = self.lines.get_mut(key) else { return };
        let Some(ping) = line.pings.answered() else {
            return self.error("a Pong without a Ping".to_owned());
        };
        let Ping { when, .. } = ping;
        let waiting = line.pings.next();
        self.record.borrow_mut().record(Measure::Ping, ping.series(), when.planned_us(), when.sent_us(), now_us);
        let interval_ms = self.shared.plan.assignment.ping_interval.as_millis() as u64;
        if !self.resting {
            self.beats.insert(key.slot, when.sent_us() / 1000 + interval_ms.max(1));
        }
        if let Some(waiting) = waiting {
            let when = When::new(waiting.when.planned_us() * 1000, now_us * 1000);
            self.shared.counts().pings_waiting.fetch_sub(1, Relaxed);
            self.send_ping(key, Ping { when, ..waiting });
        }
        if ping.is_heartbeat() {
            self.shared.counts().heartbeats_under_way.fetch_sub(1, Relaxed);
            return;
        }
        self.shared.counts().pings_under_way.fetch_sub(1, Relaxed);
        self.leave_if_answered(key);
        if ping.cause == Cause::Loop {
            self.send_next(place, ping.series, None);
        }
    }

    fn on_message(&mut self, key: ConnectionKey, place: Place, message: &schema::Message<'_>, now_us: u64) {
        let Some(client) = self.clients[place.transport as usize].get_mut(place.index) else { return };
        let number = client.number;
        let at = message.stamp().map(WireStamp::from).unwrap_or_default().position;
        let topic = message.topic().unwrap_or_default();
        let inbox = topic.strip_prefix('@');
        // Whom a message of this topic is for, if it is for this client at all.
        let to = match inbox {
            Some(user) => self.shared.is_user(user, number).then(|| Recipient::client(number)),
            None => (client.room.as_deref() == Some(topic)).then_some(client.room_in_stamps),
        };
        let before = if inbox.is_some() { client.seen } else { client.seen_in_room };
        // A place in somebody else's inbox, or in another room, says nothing about this client's.
        if at.offset != 0 && to.is_some() && inbox.is_none() {
            client.seen_in_room = at;
        } else if at.offset != 0 && to.is_some() {
            if at.epoch != client.seen.epoch || at.offset > client.seen.offset {
                client.seen = at;
            }
            if let Some(line) = self.lines.get_mut(key) {
                line.acknowledge = true;
            }
            self.mark(key);
        }
        let payload = message.payload().map(|payload| payload.bytes()).unwrap_or_default();
        let Some(stamp) = Stamp::parse(payload) else {
            self.ledger.found.corrupted += 1;
            return;
        };
        if stamp.run != self.shared.origin.stamped() && to.is_some() {
            // Left over from an earlier run.
            return;
        }
        let from = message.sender().unwrap_or_default();
        if to != Some(stamp.to) || !self.shared.is_user(from, stamp.sender.client()) {
            self.ledger.found.misdelivered += 1;
            return;
        }
        if self.ledger.arrived(number, stamp) {
            if at.offset != 0 && at == before {
                self.error("two messages with one position".to_owned());
            }
            bump(&self.shared.counts().delivered);
            let (series, when) = (Series::Stream(stamp.sender.stream()), stamp.when);
            self.record.borrow_mut().record(Measure::Deliver, series, when.planned_us(), when.sent_us(), now_us);
        }
    }

    fn on_connected(&mut self, key: ConnectionKey, place: Place, now_us: u64) {
        let interval_ms = (self.shared.plan.assignment.ping_interval.as_millis() as u64).max(1);
        let Some(client) = self.client_mut(place) else { return };
        if client.state != State::Connecting {
            return self.error("a second Connected on one connection".to_owned());
        }
        client.state = State::Ready(key);
        client.connections = client.connections.wrapping_add(1);
        client.ready_ms = (now_us / 1000) as u32;
        client.churned_us = None;
        client.taken = false;
        let kept_away = client.kept_away;
        let (number, when) = (client.number, client.connect);
        self.attempts.remove(&key.slot);
        let Some(client) = self.client_mut(place) else { return };
        if core::mem::replace(&mut client.returns, true) {
            bump(&self.shared.counts().reconnects);
            self.record.borrow_mut().first_back.record(when.sent_us(), now_us);
        }
        self.made_or_given_up();
        let series = Series::Population(self.shared.plan.assignment.population(number));
        self.record.borrow_mut().record(Measure::Connect, series, when.planned_us(), when.sent_us(), now_us);
        let beat = u64::from(number.wrapping_mul(2_654_435_761)) % interval_ms;
        self.beats.insert(key.slot, now_us / 1000 + beat);
        bump(&self.shared.counts().connections);
        if kept_away {
            return self.leave(place, End::Leave);
        }
        self.subscribe(key, place);
        self.join_loops(number);
    }

    /// How long a client waits before its next attempt: at random, within a ceiling that doubles with every one.
    pub(super) fn back_off(&self, place: Place) -> Duration {
        let client = self.clients[place.transport as usize].get(place.index);
        let ceiling = client.map_or(Duration::ZERO, |client| client.wait_max());
        Duration::from_millis(fastrand::u64(0..=ceiling.as_millis() as u64))
    }

    /// What a client has sent and nobody has answered stays undecided.
    fn abandon(&mut self, place: Place) {
        let Some(number) = self.client_mut(place).map(|client| client.number) else { return };
        for stream in 1..=self.streams {
            let publishes = u64::from(self.ledger.abandon(Sender::new(number, stream)));
            let possible = publishes * u64::from(self.recipients[usize::from(stream)]);
            self.shared.counts().possible.fetch_add(possible, Relaxed);
        }
    }

    /// What becomes of a client's Pings when its connection is over.
    fn abandon_pings(&mut self, end: End, pings: &Pings) {
        let counts = self.shared.counts();
        match pings.under_way() {
            Some(ping) if ping.is_heartbeat() => {
                counts.heartbeats_under_way.fetch_sub(1, Relaxed);
                if end == End::NoPong {
                    bump(&counts.heartbeats_lost);
                }
            }
            Some(_) => {
                counts.pings_under_way.fetch_sub(1, Relaxed);
                bump(&counts.pings_lost);
            }
            None => {}
        }
        for ping in pings.waiting() {
            counts.pings_waiting.fetch_sub(1, Relaxed);
            if ping.cause == Cause::Schedule {
                // It was due, and is never sent now.
                counts.scheduled.fetch_sub(1, Relaxed);
                bump(if end.is_wanted() { &counts.skipped_by_churn } else { &counts.skipped });
            }
        }
    }

    /// A connection is over: books it, and has the client come back if it is to.
    fn on_over(&mut self, Line { place, end, unanswered, pings, last_ping, .. }: Line, attempt: Option<Attempt>) {
        let counts = self.shared.counts();
        if last_ping {
            counts.last_pings.fetch_sub(1, Relaxed);
        }
        if !self.shared.stopped() {
            counts.undecided.fetch_add(u64::from(unanswered), Relaxed);
            self.abandon_pings(end, &pings);
            if unanswered > 0 {
                self.abandon(place);
            }
        }
        let (reconnect, now_ms) = (self.shared.plan.assignment.reconnect, self.shared.now_us() / 1000);
        let Some(client) = self.client_mut(place) else { return };
        let was_ready = matches!(client.state, State::Ready(_));
        client.state = State::Away;
        let was_planned_us = client.connect.planned_us();
        client.refused = if matches!(end, End::Refused(..)) { client.refused.saturating_add(1) } else { 0 };
        let refused = usize::from(client.refused);
        if was_ready {
            client.left(now_ms, end.is_wanted());
            client.taken = end.is_wanted();
            client.taken_us = now_ms * 1000;
        }
        let attempts = client.attempts;
        if was_ready {
            self.shared.counts().connections.fetch_sub(1, Relaxed);
        } else {
            self.made_or_given_up();
        }
        let code = match end {
            _ if self.shared.stopped() => return,
            End::Leave => return,
            // Not yet a failure: the host has other addresses.
            End::Refused(..) if refused < self.access.lookup(place.transport).addresses().len() => {
                if let Some(client) = self.client_mut(place) {
                    client.attempts = client.attempts.saturating_sub(1);
                    client.churned_us.get_or_insert(was_planned_us);
                }
                return self.return_at(place, Duration::ZERO);
            }
            End::Return { planned_us } => {
                if let Some(client) = self.client_mut(place) {
                    client.churned_us = Some(planned_us);
                }
                return self.return_at(place, Duration::ZERO);
            }
            End::Goodbye(code, _) => code,
            End::Unexpected(_) | End::Refused(..) | End::TimedOut | End::NoPong => 0,
        };
        if let Some(client) = self.client_mut(place) {
            // All addresses were tried: the next attempt begins anew. It is no longer the load that keeps the client away.
            client.refused = 0;
            client.taken = false;
        }
        *self.record.borrow_mut().troubles.closed.entry(code).or_default() += 1;
        bump(&self.shared.counts().closed);
        let backoff = self.back_off(place);
        match end {
            // Whose token somebody else has signed cannot get another.
            End::Goodbye(code, Some(after_ms)) if reconnect && (code != EXPIRED || self.access.listed().is_none()) => {
                let after = Duration::from_millis(after_ms.into());
                self.return_at(place, if attempts > 0 { after.max(backoff) } else { after });
            }
            End::Unexpected(_) | End::Refused(..) | End::TimedOut | End::NoPong if reconnect => {
                if !was_ready {
                    self.shared.note_failed_attempt(self.why_not(place, end, attempt).0);
                }
                self.return_at(place, backoff);
            }
            // Counted among the Pings and heartbeats.
            End::NoPong => {}
            End::Goodbye(code, _) => self.error(format!("goodbye: {}", name_of(code))),
            _ if was_ready => self.error("a connection was lost without a Goodbye".to_owned()),
            _ => match self.why_not(place, end, attempt) {
                (text, true) => self.own_error(text),
                (text, false) => self.error(text),
            },
        }
    }

    /// Why a client was not signed in, and whether it was this load tester, or its host, that could not do it.
    fn why_not(&self, place: Place, end: End, attempt: Option<Attempt>) -> (String, bool) {
        let is_tls = place.transport == Transport::Tls;
        let text = match (end, attempt) {
            (End::Refused(address, error), _) => {
                let text = not_made(address, error, &self.access.lookup(place.transport).addresses());
                return (text, is_own(error));
            }
            (End::TimedOut, Some(attempt)) => attempt.timed_out(self.shared.plan.assignment.connect_timeout, is_tls),
            (_, Some(attempt)) => attempt.closed(is_tls),
            (_, None) => "a connection was closed before it was signed in".to_owned(),
        };
        (text, false)
    }
}

impl Driver for Fleet {
    fn opened(&mut self, key: ConnectionKey, address: SocketAddr, transport: Transport, _: bool) -> bool {
        self.access.lookup(transport).worked(address);
        bump(&self.shared.counts().reached);
        if let Some(attempt) = self.attempts.get_mut(&key.slot) {
            attempt.connected();
        }
        if transport == Transport::Plain {
            self.sign_in(key);
        }
        true
    }

    fn secured(&mut self, key: ConnectionKey, handshake: Handshake) {
        let counts = self.shared.counts();
        bump(match handshake {
            Handshake::Full => &counts.tls_full,
            Handshake::Resumed => &counts.tls_resumed,
        });
        if let Some(attempt) = self.attempts.get_mut(&key.slot) {
            attempt.secured();
        }
        self.sign_in(key);
    }

    fn tls_failed(&mut self, key: ConnectionKey, error: &TlsError) {
        if let Some(attempt) = self.attempts.get_mut(&key.slot) {
            attempt.tls_failed(error, &self.shared.plan.assignment.tls.host);
        }
    }

    fn received(&mut self, key: ConnectionKey, bytes: &[u8]) {
        if !self.attempts.is_empty()
            && let Some(attempt) = self.attempts.get_mut(&key.slot)
        {
            attempt.received(bytes);
        }
        let Some(line) = self.lines.get_mut(key) else { return };
        let mut tail = core::mem::take(&mut line.tail);
        let owned = !tail.is_empty();
        if owned {
            tail.extend_from_slice(bytes);
        }
        let mut rest = if owned { tail.as_slice() } else { bytes };
        loop {
            match split(rest, BODY_BYTES_MAX) {
                Ok(Split::Frame(frame, later)) => {
                    self.on_frame(key, frame);
                    rest = later;
                }
                Ok(Split::Incomplete(_)) => break,
                Err(error) => {
                    self.leaving.push(key);
                    if !self.attempts.contains_key(&key.slot) {
                        self.error(format!("header: {}", error.label()));
                    }
                    // Before that it is probably no gateway, which is said when the connection is over.
                    return;
                }
            }
        }
        let rest = rest.to_vec();
        if let Some(line) = self.lines.get_mut(key) {
            line.tail = rest;
        }
    }

    fn refused(&mut self, key: ConnectionKey, address: SocketAddr, error: i32) {
        if let Some(line) = self.lines.get_mut(key) {
            line.end = End::Refused(address, error);
        }
    }

    fn ended(&mut self, key: ConnectionKey, reason: CloseReason) {
        if let Some(line) = self.lines.get_mut(key)
            && line.end == End::Unexpected(None)
        {
            line.end = End::Unexpected(Some(reason));
        }
        self.leaving.push(key);
    }

    fn freed(&mut self, key: ConnectionKey) {
        self.beats.cancel(key.slot);
        let attempt = self.attempts.remove(&key.slot);
        if let Some(line) = self.lines.remove_at(key) {
            self.on_over(line, attempt);
        }
    }

    fn pull(&mut self, key: ConnectionKey) -> Option<Chunk> {
        let line = self.lines.get_mut(key)?;
        (!line.out.is_empty()).then(|| Chunk::Control(core::mem::take(&mut line.out)))
    }

    fn recycle(&mut self, key: ConnectionKey, mut buffer: Vec<u8>) {
        if let Some(line) = self.lines.get_mut(key)
            && line.out.capacity() == 0
            && buffer.capacity() <= 512
        {
            buffer.clear();
            line.out = buffer;
        }
    }
}

//! What clients are told to do: traffic on its schedule, leaving and coming back, churn, not reading.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ringgate_core::id::{ClientMessageId, ConnectionKey};
use ringgate_core::wire::encode::PublishRequest;
use ringgate_net::Net;

use super::client::{Cause, Client, End, Ping, State};
use super::{CONNECTS_PER_TURN, Fleet, LONGEST, Place};
use crate::assignment::TRANSPORTS;
use crate::ledger::{Recipient, Sender, Stamp, When};
use crate::plan::{Order, bump};
use crate::traffic::{Kind, Pace, Schedule, Traffic, exponential};

/// Messages of one stream sent between two looks at the ring.
const SENDS_PER_TURN: usize = 1024;
/// How long after the end of a stream a thread that is late still sends what was planned before: a run ends near its
/// duration, and says what was never sent.
const LATE_NS: u64 = 1_000_000_000;

/// A client that churns is away because the load wants it for so long at most, in microseconds.
const RETURN_US_MAX: u64 = 2_000_000;
/// A client in a closed loop whose message was refused for good waits for so long before its next one.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// The number of a publish's request: no two that a client has under way are equal. The stream, then the end of the sequence.
pub(super) fn request_of(sender: Sender, sequence: u32) -> u32 {
    u32::from(sender.stream()) << 24 | (sequence & 0xff_ffff)
}

/// The sender and sequence of a request of this client, whose last sequences `last` knows.
pub(super) fn publish_of(request: u32, client: u32, last: impl Fn(Sender) -> u32) -> (Sender, u32) {
    let sender = Sender::new(client, (request >> 24) as u8);
    let last = last(sender);
    (sender, last.wrapping_sub(last.wrapping_sub(request) & 0xff_ffff))
}

/// A stream that is under way.
pub(super) struct Active {
    traffic: Arc<Traffic>,
    schedule: Schedule,
    /// A closed loop has been started.
    looping: bool,
    /// Its senders that think before they send again, or wait because they were refused. A sender is here as often as it was
    /// refused.
    pauses: BinaryHeap<Reverse<Pause>>,
}

/// A sender in a closed loop that waits: until when, in microseconds since the run's zero, its place, and on which of its
/// connections: when that is over, it has begun anew.
type Pause = (u64, u32, u16);

/// Clients that come and go.
pub(super) struct Churning {
    clients: Range<u32>,
    rate: f64,
    until_ns: u64,
    began_ns: u64,
    done: u64,
}

impl Churning {
    /// When the next of them is planned to leave.
    fn next_ns(&self) -> u64 {
        self.began_ns.saturating_add(((self.done + 1) as f64 * 1e9 / self.rate) as u64)
    }
}

impl Active {
    /// It is a closed loop that goes on.
    fn is_looping(&self, now_ns: u64) -> bool {
        self.looping && now_ns < self.traffic.end_ns()
    }
}

impl Fleet {
    pub(super) fn read_orders(&mut self) {
        for order in self.shared.orders(self.orders_read) {
            self.orders_read += 1;
            match &*order {
                Order::Traffic(traffic) => {
                    let traffic = Arc::new(traffic.clone());
                    self.join_rooms(&traffic);
                    self.recipients[usize::from(traffic.stream)] = traffic.recipients() as u32;
                    self.streams = self.streams.max(traffic.stream);
                    let schedule = Schedule::of(&traffic);
                    bump(&self.shared.counts().streams);
                    self.active.push(Active { traffic, schedule, looping: false, pauses: BinaryHeap::new() });
                }
                Order::Leave(clients) => self.each(clients, |fleet, place| fleet.keep_away(place, true)),
                Order::Return(clients) => self.each(clients, |fleet, place| fleet.keep_away(place, false)),
                Order::Hold(clients) => self.each(clients, |fleet, place| fleet.hold(place, true)),
                Order::Release(clients) => self.each(clients, |fleet, place| fleet.hold(place, false)),
                Order::Churn { clients, rate, from_ns, until_ns } => self.churns.push(Churning {
                    clients: clients.clone(),
                    rate: *rate,
                    until_ns: *until_ns,
                    began_ns: *from_ns,
                    done: 0,
                }),
                Order::Stop => {
                    self.shared.counts().streams.fetch_sub(self.active.len() as u64, Relaxed);
                    self.active.clear();
                    self.churns.clear();
                }
                Order::Rest => self.rest(),
            }
        }
    }

    fn each(&mut self, clients: &Range<u32>, mut action: impl FnMut(&mut Fleet, Place)) {
        for number in clients.clone() {
            if let Some(place) = self.own(number) {
                action(self, place);
            }
        }
    }

    /// Has a client leave and stay away, or come back from that.
    fn keep_away(&mut self, place: Place, away: bool) {
        let Some(client) = self.client_mut(place) else { return };
        if core::mem::replace(&mut client.kept_away, away) == away {
            return;
        }
        let kept_away = &self.shared.counts().kept_away;
        if away {
            bump(kept_away);
            self.leave(place, End::Leave);
        } else {
            kept_away.fetch_sub(1, Relaxed);
            self.return_at(place, Duration::ZERO);
        }
    }

    /// Ends a client's connection, once what it has sent is answered.
    pub(super) fn leave(&mut self, place: Place, end: End) {
        let settle = self.shared.plan.assignment.settle;
        let now_ms = self.shared.now_us() / 1000;
        let Some((key, line)) = self.line_of(place) else { return };
        line.end = end;
        if line.is_answered() {
            self.leaving.push(key);
        } else {
            self.departing.push_back((now_ms + settle.as_millis() as u64, key));
        }
    }

    /// Something that a client has sent was answered: it may have waited for that to leave.
    pub(super) fn leave_if_answered(&mut self, key: ConnectionKey) {
        if self.lines.get(key).is_some_and(|line| line.end.is_wanted() && line.is_answered()) {
            self.leaving.push(key);
        }
    }

    /// Ends the connections of those that have waited too long for answers.
    pub(super) fn depart(&mut self) {
        if self.departing.is_empty() {
            return;
        }
        let now_ms = self.shared.now_us() / 1000;
        while let Some((_, key)) = self.departing.pop_front_if(|(until_ms, _)| *until_ms <= now_ms) {
            if self.lines.get(key).is_some() {
                self.leaving.push(key);
            }
        }
    }

    fn hold(&mut self, place: Place, hold: bool) {
        if let Some((key, line)) = self.line_of(place) {
            line.held = hold;
            self.holding.push((key, hold));
        }
    }

    /// Has a client that is away come back after a while.
    pub(super) fn return_at(&mut self, place: Place, after: Duration) {
        let now_ms = self.shared.now_us() / 1000;
        let is_free = |client: &&mut Client| client.state == State::Away && !client.kept_away;
        let Some(client) = self.client_mut(place).filter(is_free) else { return };
        client.state = State::Waiting;
        bump(&self.shared.counts().waiting);
        if after.is_zero() {
            // The wheel would round that up to its next tick.
            return self.returning.push_back(place);
        }
        self.returns.insert(place.to_entry(), now_ms + after.as_millis() as u64);
    }

    /// Clients whose wait is over queue up for their connect.
    pub(super) fn come_back(&mut self) {
        let now_ms = self.shared.now_us() / 1000;
        let mut due = Vec::new();
        while self.returns.advance(now_ms, 4096, &mut due) {}
        self.returning.extend(due.into_iter().map(Place::from_entry));
    }

    pub(super) fn reconnect_some(&mut self, net: &mut Net) -> bool {
        let mut any = false;
        for _ in 0..CONNECTS_PER_TURN {
            if self.connecting >= self.connecting_max {
                break;
            }
            let Some(place) = self.returning.pop_front() else { break };
            any = true;
            self.shared.counts().waiting.fetch_sub(1, Relaxed);
            let now_us = self.shared.now_us();
            let Some(client) = self.client_mut(place) else { continue };
            client.state = State::Away;
            if client.kept_away {
                continue;
            }
            // A client that churns was to be back at a planned time; any other comes back now.
            let planned_us = client.churned_us.unwrap_or(now_us);
            self.connect(net, place, planned_us);
        }
        any
    }

    /// Takes the next of the churning clients down; returns how long nobody is due.
    pub(super) fn churn(&mut self) -> Duration {
        let now_ns = self.shared.now_ns();
        let mut churns = core::mem::take(&mut self.churns);
        churns.retain_mut(|churn| {
            let count = churn.clients.end.saturating_sub(churn.clients.start).max(1);
            let due = Order::churned(churn.rate, now_ns.min(churn.until_ns).saturating_sub(churn.began_ns));
            while churn.done < due {
                let number = churn.clients.start + (churn.done % u64::from(count)) as u32;
                let planned_us = churn.next_ns() / 1000;
                churn.done += 1;
                let Some(place) = self.own(number) else { continue };
                // Nobody leaves twice.
                if self.line_of(place).is_some_and(|(_, line)| line.end == End::Unexpected(None)) {
                    self.record_lag((now_ns / 1000).saturating_sub(planned_us));
                    self.leave(place, End::Return { planned_us });
                } else {
                    // It is not back yet from the last time.
                    bump(&self.shared.counts().churns_skipped);
                }
            }
            now_ns < churn.until_ns
        });
        let wait = churns.iter().map(|churn| Duration::from_nanos(churn.next_ns().saturating_sub(now_ns))).min();
        self.churns = churns;
        wait.unwrap_or(LONGEST).min(LONGEST)
    }

    /// Sends what is due and returns how long nothing is.
    pub(super) fn send_on_schedule(&mut self) -> Duration {
        let now_ns = self.shared.now_ns();
        let mut active = core::mem::take(&mut self.active);
        let mut wait = LONGEST;
        for stream in &mut active {
            wait = wait.min(self.advance(stream, now_ns));
        }
        // A thread that is late still sends for a moment what was planned before the end.
        let before = active.len();
        active.retain(|Active { traffic, schedule, .. }| {
            now_ns < traffic.end_ns() || (now_ns < traffic.end_ns() + LATE_NS && schedule.peek_ns(traffic).is_some())
        });
        self.shared.counts().streams.fetch_sub((before - active.len()) as u64, Relaxed);
        // Orders that came meanwhile are read by the same thread: nothing was added.
        self.active = active;
        wait
    }

    fn advance(&mut self, stream: &mut Active, now_ns: u64) -> Duration {
        let traffic = stream.traffic.clone();
        if now_ns < traffic.start_ns {
            return Duration::from_nanos(traffic.start_ns - now_ns).min(LONGEST);
        }
        // A stream of no duration only has its rooms joined.
        if let Pace::Closed { window, think } = traffic.pace
            && now_ns < traffic.end_ns()
            && !core::mem::replace(&mut stream.looping, true)
        {
            for index in 0..u64::from(traffic.senders()) {
                self.begin_loop(stream, traffic.sender(index), window, think);
            }
        }
        if now_ns >= traffic.end_ns() + LATE_NS {
            return LONGEST;
        }
        for _ in 0..SENDS_PER_TURN {
            let Some(planned_ns) = stream.schedule.peek_ns(&traffic) else { return LONGEST };
            if planned_ns > now_ns {
                return Duration::from_nanos(planned_ns - now_ns).min(LONGEST);
            }
            let index = stream.schedule.take(&traffic);
            self.send_as_planned(&traffic, traffic.sender(index), planned_ns);
        }
        Duration::ZERO
    }

    /// The first messages of a sender in a closed loop: as many as are not under way from the phase before.
    fn begin_loop(&mut self, stream: &mut Active, sender: u32, window: u32, think: Duration) {
        let traffic = stream.traffic.clone();
        let Some(place) = self.own(sender) else { return };
        let Some((_, line)) = self.line_of(place) else { return };
        let under_way = match traffic.kind {
            Kind::Pings => u32::from(line.pings.has_of(traffic.stream)),
            Kind::Pairs | Kind::Rooms { .. } => self.ledger.under_way(Sender::new(sender, traffic.stream)),
        };
        for _ in under_way..window {
            if think.is_zero() {
                self.send(&traffic, sender, self.shared.now_ns(), Cause::Loop);
            } else {
                self.think(stream, place, think);
            }
        }
    }

    /// A client has come (back) while its closed loops go on.
    pub(super) fn join_loops(&mut self, number: u32) {
        let now_ns = self.shared.now_ns();
        let mut active = core::mem::take(&mut self.active);
        for stream in &mut active {
            if let Pace::Closed { window, think } = stream.traffic.pace
                && stream.is_looping(now_ns)
                && stream.traffic.has_sender(number)
            {
                self.begin_loop(stream, number, window, think);
            }
        }
        self.active = active;
    }

    /// A closed loop goes on when what a client sent in it is answered, and, if that was a refusal, not before so long.
    pub(super) fn send_next(&mut self, place: Place, stream: u8, refused: Option<Duration>) {
        let now_ns = self.shared.now_ns();
        let is_it = |active: &Active| active.traffic.stream == stream && active.is_looping(now_ns);
        let Some(at) = self.active.iter().position(is_it) else { return };
        let Some(number) = self.client_mut(place).map(|client| client.number) else { return };
        let traffic = self.active[at].traffic.clone();
        let Pace::Closed { think, .. } = traffic.pace else { return };
        if !traffic.has_sender(number) || self.line_of(place).is_none_or(|(_, line)| line.end.is_wanted()) {
            return;
        }
        match refused {
            Some(after) => {
                let until_us = now_ns / 1000 + after.max(AFTER_REFUSAL).as_micros() as u64;
                let connections = self.connections_of(place);
                self.active[at].pauses.push(Reverse((until_us, place.to_entry(), connections)));
            }
            None if think.is_zero() => self.send(&traffic, number, now_ns, Cause::Loop),
            None => {
                let mut active = core::mem::take(&mut self.active);
                self.think(&mut active[at], place, think);
                self.active = active;
            }
        }
    }

    fn think(&mut self, stream: &mut Active, place: Place, mean: Duration) {
        let wait_us = mean.as_secs_f64() * 1e6 * exponential(&mut self.random);
        let until_us = self.shared.now_us() + wait_us as u64;
        stream.pauses.push(Reverse((until_us, place.to_entry(), self.connections_of(place))));
    }

    fn connections_of(&self, place: Place) -> u16 {
        self.clients[place.transport as usize].get(place.index).map_or(0, |client| client.connections)
    }

    /// Sends for those whose pause is over; returns how long there is nobody else.
    pub(super) fn speak(&mut self) -> Duration {
        let (mut wait, mut sent) = (LONGEST, 0);
        let mut active = core::mem::take(&mut self.active);
        for stream in &mut active {
            while let Some(Reverse((until_us, entry, connections))) = stream.pauses.peek().copied() {
                let now_us = self.shared.now_us();
                if until_us > now_us || sent == SENDS_PER_TURN {
                    wait = wait.min(Duration::from_micros(until_us.saturating_sub(now_us)));
                    break;
                }
                sent += 1;
                stream.pauses.pop();
                let place = Place::from_entry(entry);
                let Some(number) = self.client_mut(place).map(|client| client.number) else { continue };
                let is_there = self.line_of(place).is_some_and(|(_, line)| !line.end.is_wanted());
                if is_there && self.connections_of(place) == connections && stream.is_looping(now_us * 1000) {
                    self.send(&stream.traffic, number, until_us * 1000, Cause::Loop);
                }
            }
        }
        self.active = active;
        wait
    }

    /// A message or Ping that a schedule holds, if its sender is one of this ring's clients.
    fn send_as_planned(&mut self, traffic: &Traffic, sender: u32, planned_ns: u64) {
        let Some(place) = self.own(sender) else { return };
        let departs = self.line_of(place).map(|(_, line)| line.end.is_wanted());
        let now_us = self.shared.now_us();
        // A client that is to come back at once and is not back for so long is kept away by something else.
        let is_late = |client: &Client| !client.kept_away && now_us.saturating_sub(client.taken_us) > RETURN_US_MAX;
        let taken = self.client_mut(place).is_some_and(|client| client.taken && !is_late(client));
        let counts = self.shared.counts();
        match departs {
            Some(false) => {
                bump(&counts.scheduled);
                self.send(traffic, sender, planned_ns, Cause::Schedule);
            }
            Some(true) => bump(&counts.skipped_by_churn),
            None => bump(if taken { &counts.skipped_by_churn } else { &counts.skipped }),
        }
    }

    fn send(&mut self, traffic: &Traffic, sender: u32, planned_ns: u64, cause: Cause) {
        let Some(place) = self.own(sender) else { return };
        let Some((key, _)) = self.line_of(place) else { return };
        let now_ns = self.shared.now_ns();
        let when = When::new(planned_ns, now_ns);
        self.record_lag(now_ns.saturating_sub(planned_ns) / 1000);
        if traffic.kind == Kind::Pings {
            return self.ping(key, Ping { when, cause, series: traffic.stream });
        }
        let (topic, to) = match traffic.partner(sender) {
            Some(partner) => (format!("@{}", self.shared.user(partner)), Recipient::client(partner)),
            None => {
                let room = traffic.room(sender).unwrap_or_default();
                let to = Recipient::room(&room);
                (room, to)
            }
        };
        self.publish(key, Sender::new(sender, traffic.stream), traffic.payload_bytes, (&topic, to), when);
    }

    fn publish(
        &mut self,
        key: ConnectionKey,
        sender: Sender,
        payload_bytes: usize,
        (topic, to): (&str, Recipient),
        when: When,
    ) {
        let Fleet { lines, encoder, shared, ledger, recipients, .. } = self;
        let Some(line) = lines.get_mut(key) else { return };
        let sequence = ledger.send(sender, recipients[usize::from(sender.stream())]);
        line.unanswered += 1;
        let stamp = Stamp { run: shared.origin.stamped(), to, sender, sequence, when };
        let publish = PublishRequest {
            request: request_of(sender, sequence),
            topic,
            // The time is in the id, so that the answer brings it back.
            client_message_id: ClientMessageId {
                high: when.0,
                low: u64::from(sender.to_bits()) << 32 | u64::from(sequence),
            },
            payload: &stamp.payload(payload_bytes),
            ..PublishRequest::default()
        };
        encoder.publish(&mut line.out, &publish);
        bump(&shared.counts().sent);
        self.mark(key);
    }

    fn join_rooms(&mut self, traffic: &Traffic) {
        for transport in TRANSPORTS {
            for index in 0..self.clients[transport as usize].len() {
                let place = Place { transport, index };
                let Some(client) = self.client_mut(place) else { continue };
                let Some(room) = traffic.has(client.number).then(|| traffic.room(client.number)).flatten() else {
                    continue;
                };
                if client.room.as_deref() == Some(&*room) {
                    continue;
                }
                client.room_in_stamps = Recipient::room(&room);
                client.room = Some(room.into());
                client.seen_in_room = ringgate_core::id::Position::default();
                let State::Ready(key) = client.state else { continue };
                self.subscribe(key, place);
            }
        }
    }

    /// Joins the client's room, if it has one.
    pub(super) fn subscribe(&mut self, key: ConnectionKey, place: Place) {
        let Fleet { clients, lines, encoder, .. } = self;
        let Some(client) = clients[place.transport as usize].get_mut(place.index) else { return };
        let (Some(room), Some(line)) = (client.room.as_deref(), lines.get_mut(key)) else { return };
        client.subscribing = true;
        let since = (client.seen_in_room.epoch != 0).then_some(client.seen_in_room);
        encoder.subscribe(&mut line.out, 0, (room, since).into());
        self.mark(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_leads_back_to_its_publish_also_when_its_number_wraps() {
        let sender = Sender::new(77, 200);
        for (last, sequence) in
            [(1, 1), (9, 3), (0x100_0000, 0x100_0000), (0x100_0005, 0xff_fff0), (0x300_0001, 0x2ff_ffff)]
        {
            assert_eq!(publish_of(request_of(sender, sequence), 77, |_| last), (sender, sequence));
        }
    }
}

//! One driver thread: a ring full of clients that sign in, heartbeat, send on schedule and count what arrives.
//!
//! The same `net` and `wire` code as the gateway. Latency is measured from the planned send time, so a driver or a
//! gateway that falls behind shows in the figures instead of hiding in a late start.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringgate::close::CloseReason;
use ringgate::id::{ClientMessageId, ConnectionKey, Position, Stamp as WireStamp};
use ringgate::net::{Driver, Net, NetOptions, Target};
use ringgate::outbox::Chunk;
use ringgate::session::Transport;
use ringgate::slots::Slots;
use ringgate::wheel::Wheel;
use ringgate::wire::encode::{ConnectRequest, PublishRequest};
use ringgate::wire::{Encoder, Kind, RawFrame, ServerFrame, Split, split};

use crate::ledger::{Ledger, Stamp};
use crate::plan::{Pace, Shared, Traffic};

/// Connects that are under way at once, per thread: more would overflow the gateway's accept queue.
const CONNECTING_MAX: usize = 256;
/// Connects begun between two looks at the ring.
const CONNECTS_PER_TURN: usize = 32;
/// Connections from one source address. There are about 28 000 ports, but beyond half of them the kernel searches longer
/// and longer for a free one: a connect costs a hundred times as much then.
const PORTS_PER_SOURCE: usize = 12_000;
const BODY_BYTES_MAX: usize = 64 << 20;

/// What a thread hands over at the end.
pub(crate) struct Outcome {
    /// What arrived.
    pub(crate) ledger: Ledger,
    /// Nanoseconds from the planned send time to arrival.
    pub(crate) latency: Histogram<u64>,
    /// What went wrong, by kind.
    pub(crate) errors: std::collections::BTreeMap<String, u64>,
}

struct Client {
    number: u32,
    ready: bool,
    out: Vec<u8>,
    tail: Vec<u8>,
    /// Last message of the inbox.
    seen: Position,
    /// To be acknowledged before the next flush.
    unacknowledged: bool,
    awaiting_pong: bool,
    sequence: u32,
    /// Which traffic `sequence` belongs to.
    traffic: usize,
    dirty: bool,
}

/// The clients of one thread.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    thread: usize,
    clients: Slots<Client>,
    by_number: Vec<Option<ConnectionKey>>,
    dirty: Vec<ConnectionKey>,
    leaving: Vec<ConnectionKey>,
    wheel: Wheel,
    encoder: Encoder,
    outcome: Outcome,
    interval: Histogram<u64>,
    published_interval: Instant,
    /// Connects begun of this thread's share: plain, TLS.
    begun: [usize; 2],
    connecting: usize,
    traffic: Option<Arc<Traffic>>,
    traffic_version: usize,
    /// Index into the schedule.
    next_message: u64,
    /// The closed loop has been started.
    looping: bool,
}

/// A latency histogram: 1 us to 60 s, three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!("constant bounds are good"))
}

/// Runs a thread's clients until the plan says stop.
pub(crate) fn run(shared: Arc<Shared>, thread: usize) -> Result<Outcome, String> {
    let options = NetOptions {
        slots: shared.slots_per_thread,
        recv_buffers: 1024,
        recv_buffer_bytes: 4096,
        accepts_in_flight: 1,
        ..NetOptions::default()
    };
    let mut net = Net::new(options, Arc::default()).map_err(|error| error.to_string())?;
    let mut fleet = Fleet {
        thread,
        clients: Slots::default(),
        by_number: Vec::new(),
        dirty: Vec::new(),
        leaving: Vec::new(),
        wheel: Wheel::default(),
        encoder: Encoder::default(),
        outcome: Outcome { ledger: Ledger::default(), latency: latencies(), errors: Default::default() },
        interval: latencies(),
        published_interval: Instant::now(),
        begun: [0; 2],
        connecting: 0,
        traffic: None,
        traffic_version: 0,
        next_message: 0,
        looping: false,
        shared,
    };
    while !fleet.shared.stopped() {
        let connected = fleet.begin_connects(&mut net);
        let busy = net.poll(&mut fleet);
        fleet.heartbeat();
        let wait = fleet.send_on_schedule();
        fleet.flush(&mut net);
        fleet.publish_interval(false);
        if !busy && !connected && !wait.is_zero() {
            net.wait(wait);
        } else {
            net.submit();
        }
    }
    fleet.publish_interval(true);
    fleet.say_goodbye(&mut net);
    Ok(fleet.outcome)
}

impl Fleet {
    /// Begins a few of this thread's share of the wanted connections.
    fn begin_connects(&mut self, net: &mut Net) -> bool {
        let mut any = false;
        for transport in Transport::ALL {
            let kind = transport as usize;
            let wanted = self.shared.share(transport, self.thread);
            for _ in 0..CONNECTS_PER_TURN {
                if self.begun[kind] >= wanted || self.connecting >= CONNECTING_MAX {
                    break;
                }
                let number = self.shared.number(transport, self.thread, self.begun[kind]);
                self.begun[kind] += 1;
                let target = self.shared.target(transport);
                match net.connect(self.source(number, target), target) {
                    Ok(key) => {
                        any = true;
                        self.connecting += 1;
                        self.clients.insert_at(key, Client::new(number));
                    }
                    Err(error) => {
                        self.shared.closed(false);
                        self.error(format!("connect: {error}"));
                    }
                }
            }
        }
        any
    }

    /// Loopback has 16 million addresses, and about 28 000 ports for each.
    fn source(&self, number: u32, target: &Target) -> Option<IpAddr> {
        if let Some(sources) = self.shared.sources.as_ref().filter(|sources| !sources.is_empty()) {
            return sources.get(number as usize / PORTS_PER_SOURCE % sources.len()).copied();
        }
        let lane = number as usize / PORTS_PER_SOURCE;
        let is_v4_loopback = target.address.is_ipv4() && target.address.ip().is_loopback();
        (lane > 0 && is_v4_loopback).then(|| IpAddr::from([127, 0, (lane >> 8) as u8, lane as u8 + 1]))
    }

    fn error(&mut self, kind: String) {
        self.shared.count_error();
        *self.outcome.errors.entry(kind).or_default() += 1;
    }

    fn mark(&mut self, key: ConnectionKey) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.dirty
        {
            client.dirty = true;
            self.dirty.push(key);
        }
    }

    fn flush(&mut self, net: &mut Net) {
        let mut dirty = core::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(client) = self.clients.get_mut(key) {
                client.dirty = false;
                if core::mem::take(&mut client.unacknowledged) {
                    Encoder::ack(&mut client.out, client.seen);
                }
            }
            net.flush(key, self);
        }
        self.dirty.append(&mut dirty);
        while let Some(key) = self.leaving.pop() {
            net.close(key, false, self);
        }
    }

    /// Pings whoever is due. Beats are spread over the interval by the number of the client.
    fn heartbeat(&mut self) {
        let now_ms = self.shared.now_ms();
        let mut due = Vec::new();
        while self.wheel.advance(now_ms, 4096, &mut due) {}
        for slot in due {
            let Some(key) = self.clients.key_of(slot) else { continue };
            let Some(client) = self.clients.get_mut(key).filter(|client| client.ready) else { continue };
            if client.awaiting_pong {
                self.leaving.push(key);
                self.error("no pong".to_owned());
                continue;
            }
            client.awaiting_pong = true;
            Encoder::empty(&mut client.out, Kind::Ping);
            self.wheel.insert(slot, now_ms + self.shared.ping_interval_ms);
            self.shared.count_ping();
            self.mark(key);
        }
    }

    /// Sends what is due and returns how long nothing is.
    fn send_on_schedule(&mut self) -> Duration {
        const LONGEST: Duration = Duration::from_millis(5);
        let version = self.shared.traffic_version();
        if version != self.traffic_version {
            self.traffic_version = version;
            self.traffic = self.shared.traffic();
            self.next_message = 0;
            self.looping = false;
            self.join_rooms();
        }
        let Some(traffic) = self.traffic.clone() else { return LONGEST };
        let now_ns = self.shared.now_ns();
        if let Pace::Closed(window) = traffic.pace
            && !self.looping
        {
            if now_ns < traffic.start_ns {
                return Duration::from_nanos(traffic.start_ns - now_ns).min(LONGEST);
            }
            self.looping = true;
            for index in 0..u64::from(traffic.senders()) * u64::from(window) {
                self.publish_own(&traffic, index, now_ns);
            }
        }
        loop {
            let Some(planned_ns) = traffic.planned_ns(self.next_message) else { return LONGEST };
            if planned_ns > now_ns {
                return Duration::from_nanos(planned_ns - now_ns).min(LONGEST);
            }
            let index = self.next_message;
            self.next_message += 1;
            self.publish_own(&traffic, index, planned_ns);
        }
    }

    /// Publishes message `index` if its sender is this thread's.
    fn publish_own(&mut self, traffic: &Traffic, index: u64, planned_ns: u64) {
        let sender = traffic.sender(index);
        if self.shared.thread_of(sender) == self.thread {
            self.publish(sender, &traffic.topic(sender), planned_ns, traffic.payload_bytes);
        }
    }

    /// A closed loop goes on when a message is answered.
    fn publish_next(&mut self, sender: u32) {
        let Some(traffic) = self.traffic.clone().filter(|traffic| matches!(traffic.pace, Pace::Closed(_))) else {
            return;
        };
        let now_ns = self.shared.now_ns();
        if now_ns < traffic.end_ns() {
            self.publish(sender, &traffic.topic(sender), now_ns, traffic.payload_bytes);
        }
    }

    fn publish(&mut self, sender: u32, topic: &str, planned_ns: u64, payload_bytes: usize) {
        let key = self.by_number.get(sender as usize).copied().flatten();
        let Some((key, client)) = key.and_then(|key| Some((key, self.clients.get_mut(key)?))) else {
            return self.error("a sender is not connected".to_owned());
        };
        // Each traffic counts anew, under a name of its own.
        if core::mem::replace(&mut client.traffic, self.traffic_version) != self.traffic_version {
            client.sequence = 0;
        }
        client.sequence += 1;
        let run = self.shared.run;
        let sender = sender | (self.traffic_version as u32) << 24;
        let stamp = Stamp { run, sender, sequence: client.sequence, planned_ns };
        let publish = PublishRequest {
            request: client.sequence,
            topic,
            client_message_id: ClientMessageId { high: run, low: u64::from(sender) << 32 | u64::from(client.sequence) },
            payload: &stamp.payload(payload_bytes),
            ..PublishRequest::default()
        };
        self.encoder.publish(&mut client.out, &publish);
        self.shared.count_sent();
        self.mark(key);
    }

    fn join_rooms(&mut self) {
        let Some(traffic) = self.traffic.clone() else { return };
        let Some(room) = &traffic.room else { return };
        for number in traffic.members() {
            let Some(key) = self.by_number.get(number as usize).copied().flatten() else { continue };
            let Some(client) = self.clients.get_mut(key) else { continue };
            self.encoder.subscribe(&mut client.out, 0, room, None);
            self.mark(key);
        }
    }

    fn publish_interval(&mut self, last: bool) {
        if last || self.published_interval.elapsed() > Duration::from_millis(250) {
            self.published_interval = Instant::now();
            if !self.interval.is_empty() {
                self.shared.add_interval(&self.interval);
                let _ = self.outcome.latency.add(&self.interval);
                self.interval.reset();
            }
        }
    }

    /// Leaves in order, so that the gateway does not count resets; bounded.
    fn say_goodbye(&mut self, net: &mut Net) {
        let keys: Vec<_> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            net.close(key, true, self);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while net.sockets() > 0 && Instant::now() < deadline {
            if !net.poll(self) {
                net.wait(Duration::from_millis(5));
            }
        }
    }

    fn on_frame(&mut self, key: ConnectionKey, frame: RawFrame<'_>) {
        let parsed = match ServerFrame::parse(frame) {
            Ok(parsed) => parsed,
            Err(error) => return self.error(format!("frame: {}", error.label())),
        };
        let Some(client) = self.clients.get_mut(key) else { return };
        match parsed {
            ServerFrame::Message(message) => {
                let number = client.number;
                let stamp = message.stamp().map(WireStamp::from).unwrap_or_default();
                if message.topic().is_some_and(|topic| topic.starts_with('@')) {
                    client.unacknowledged = true;
                    let repeated =
                        stamp.position.epoch == client.seen.epoch && stamp.position.offset <= client.seen.offset;
                    if !repeated {
                        client.seen = stamp.position;
                    }
                    self.mark(key);
                }
                let payload = message.payload().map(|payload| payload.bytes()).unwrap_or_default();
                match Stamp::parse(payload) {
                    Some(ours) if ours.run == self.shared.run => {
                        if self.outcome.ledger.arrived(number, ours) {
                            self.shared.count_delivered();
                            let latency_ns = self.shared.now_ns().saturating_sub(ours.planned_ns);
                            self.interval.saturating_record(latency_ns.max(1_000));
                        }
                    }
                    // Left over from an earlier run.
                    Some(_) => {}
                    None => self.outcome.ledger.corrupted += 1,
                }
            }
            ServerFrame::Published(published) => {
                self.shared.count_accepted();
                let sender = client.number;
                if published.duplicate {
                    self.error("an unexpected duplicate answer".to_owned());
                }
                self.publish_next(sender);
            }
            ServerFrame::Pong => {
                client.awaiting_pong = false;
                self.shared.count_pong();
            }
            ServerFrame::Ping => {
                Encoder::empty(&mut client.out, Kind::ClientPong);
                self.mark(key);
            }
            ServerFrame::Connected(_) => {
                client.ready = true;
                let number = client.number;
                if self.by_number.len() <= number as usize {
                    self.by_number.resize(number as usize + 1, None);
                }
                self.by_number[number as usize] = Some(key);
                self.connecting -= 1;
                let beat = u64::from(number.wrapping_mul(2_654_435_761)) % self.shared.ping_interval_ms;
                self.wheel.insert(key.slot, self.shared.now_ms() + beat);
                self.shared.signed_in();
            }
            ServerFrame::Subscribed(_) => self.shared.count_subscribed(),
            ServerFrame::Error(error) => {
                let text = format!("refused: {} ({})", error.message().unwrap_or_default(), error.code());
                self.error(text);
            }
            ServerFrame::Goodbye(goodbye) => {
                let text = format!("goodbye: {} ({})", goodbye.reason().unwrap_or_default(), goodbye.code());
                self.error(text);
            }
            _ => {}
        }
    }
}

impl Client {
    fn new(number: u32) -> Self {
        Client {
            number,
            ready: false,
            out: Vec::new(),
            tail: Vec::new(),
            seen: Position::default(),
            unacknowledged: false,
            awaiting_pong: false,
            sequence: 0,
            traffic: 0,
            dirty: false,
        }
    }
}

impl Driver for Fleet {
    fn opened(&mut self, key: ConnectionKey, _: SocketAddr, transport: Transport) -> bool {
        if transport == Transport::Plain {
            self.secured(key);
        }
        true
    }

    fn secured(&mut self, key: ConnectionKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match self.shared.token(client.number) {
            Ok(token) => {
                let connect = ConnectRequest {
                    token: &token,
                    device: "load",
                    client: concat!("ringgate-loadtest/", env!("CARGO_PKG_VERSION")),
                    ..ConnectRequest::default()
                };
                self.encoder.connect(&mut client.out, &connect);
                self.mark(key);
            }
            Err(error) => self.error(error),
        }
    }

    fn received(&mut self, key: ConnectionKey, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let mut tail = core::mem::take(&mut client.tail);
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
                    return self.error(format!("header: {}", error.label()));
                }
            }
        }
        let rest = rest.to_vec();
        if let Some(client) = self.clients.get_mut(key) {
            client.tail = rest;
        }
    }

    fn ended(&mut self, key: ConnectionKey, reason: CloseReason) {
        self.leaving.push(key);
        if !self.shared.stopped() {
            self.error(format!("closed by the gateway: {}", reason.label()));
        }
    }

    fn freed(&mut self, key: ConnectionKey) {
        self.wheel.cancel(key.slot);
        if let Some(client) = self.clients.remove_at(key) {
            if !client.ready {
                self.connecting -= 1;
                self.error("a connection was not made".to_owned());
            }
            if let Some(place) = self.by_number.get_mut(client.number as usize) {
                *place = None;
            }
            self.shared.closed(client.ready);
        }
    }

    fn pull(&mut self, key: ConnectionKey) -> Option<Chunk> {
        let client = self.clients.get_mut(key)?;
        (!client.out.is_empty()).then(|| Chunk::Control(core::mem::take(&mut client.out)))
    }

    fn recycle(&mut self, key: ConnectionKey, mut buffer: Vec<u8>) {
        if let Some(client) = self.clients.get_mut(key)
            && client.out.capacity() == 0
            && buffer.capacity() <= 512
        {
            buffer.clear();
            client.out = buffer;
        }
    }
}

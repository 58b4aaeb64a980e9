//! The clients of one ring: they sign in, heartbeat, send on schedule and count what arrives.
//!
//! The same `net` and `wire` code as the gateway. Latency is measured from the planned send time, so a driver or a
//! gateway that falls behind shows in the figures instead of hiding in a late start.
//!
//! | file | what |
//! |---|---|
//! | `attempt` | a connect until its client is signed in, and what people are told when it fails |
//! | `client` | what a client keeps, with and without a connection |
//! | `orders` | traffic, leaving, coming back, churn |
//! | `receive` | what arrives |
//! | `thread` | rings that share a thread |

mod attempt;
mod client;
mod orders;
mod receive;
mod thread;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ringgate_core::id::ConnectionKey;
use ringgate_core::slots::Slots;
use ringgate_core::transport::Transport;
use ringgate_core::wheel::Wheel;
use ringgate_core::wire::{Encoder, Kind};
use ringgate_net::{Net, Target};

use crate::access::Access;
use crate::assignment::{Assignment, Plan, TRANSPORTS};
use crate::ledger::{Books, Ledger, When};
use crate::plan::{Shared, bump};
use crate::record::Record;
use attempt::Attempt;
use client::{Cause, Client, End, Line, Ping, State};
use orders::Active;
pub(crate) use thread::spawn;

/// Connects that are under way at once, all processes and rings together: more would only wait in the gateway's accept queues.
const CONNECTING_MAX: usize = 1024;
/// The most of one ring.
const CONNECTING_MAX_EACH: usize = 256;
/// Connects begun between two looks at the ring.
const CONNECTS_PER_TURN: usize = 32;
/// Connections from one source address. There are about 28 000 ports, but beyond half of them the kernel searches longer
/// and longer for a free one: a connect costs a hundred times as much then.
const PORTS_PER_SOURCE: usize = 12_000;
/// Longest sleep: orders are looked for this often.
const LONGEST: Duration = Duration::from_millis(5);

/// A thread that does not come to its heartbeats for so long has been kept from running, and judges nobody by that time.
const STALL: Duration = Duration::from_millis(100);

/// Connections of a ring that are asked each millisecond, at the end, whether they are alive.
const LAST_PINGS_PER_MS: u64 = 100;

/// After that long it has sent and read whatever had been waiting.
const CAUGHT_UP_MS: u64 = 1000;

/// See the module.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    access: Arc<Access>,
    ring: usize,
    /// Plain, TLS; by index within the ring.
    clients: [Vec<Client>; 2],
    lines: Slots<Line>,
    /// What is known of connects whose clients are not signed in yet, by slot.
    attempts: HashMap<u32, Attempt>,
    dirty: Vec<ConnectionKey>,
    leaving: Vec<ConnectionKey>,
    /// Connections that end once what their clients have sent is answered, and when they end at the latest, in milliseconds since
    /// the run's zero.
    departing: VecDeque<(u64, ConnectionKey)>,
    holding: Vec<(ConnectionKey, bool)>,
    /// Heartbeats, and before them the end of a connect's time, by slot.
    beats: Wheel,
    /// No heartbeat is sent any more.
    resting: bool,
    /// When they were last looked at, in microseconds since the run's zero.
    beaten_us: u64,
    /// No Pong is missed before, in milliseconds.
    missing_from_ms: u64,
    /// Clients that come back, by place; then they queue here.
    returns: Wheel,
    returning: VecDeque<Place>,
    encoder: Encoder,
    /// What arrived.
    ledger: Ledger,
    /// Its thread's.
    record: Rc<RefCell<Record>>,
    connecting: usize,
    /// Connects that the ramp's rate allows by now have been begun up to this number.
    ramped: u64,
    connecting_max: usize,
    /// When the ramp last had to wait because so many were under way, in microseconds since the run's zero.
    held_back_us: u64,
    random: fastrand::Rng,
    active: Vec<Active>,
    /// Recipients of a message, by stream.
    recipients: [u32; 256],
    /// The highest stream so far: they are numbered from 1.
    streams: u8,
    churns: Vec<orders::Churning>,
    orders_read: usize,
}

/// A client's place in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    transport: Transport,
    index: usize,
}

impl Place {
    fn to_entry(self) -> u32 {
        (self.index as u32) << 1 | self.transport as u32
    }

    fn from_entry(entry: u32) -> Place {
        let transport = if entry & 1 == 0 { Transport::Plain } else { Transport::Tls };
        Place { transport, index: (entry >> 1) as usize }
    }
}

impl Fleet {
    /// The clients of ring number `ring`, none of them there yet. `record` is their thread's.
    fn new(shared: Arc<Shared>, access: Arc<Access>, ring: usize, record: Rc<RefCell<Record>>) -> Fleet {
        let Plan { rings, part, .. } = shared.plan;
        Fleet {
            access,
            ring,
            clients: Default::default(),
            lines: Slots::default(),
            attempts: HashMap::new(),
            dirty: Vec::new(),
            leaving: Vec::new(),
            departing: VecDeque::new(),
            holding: Vec::new(),
            beats: Wheel::default(),
            resting: false,
            beaten_us: 0,
            missing_from_ms: 0,
            returns: Wheel::default(),
            returning: VecDeque::new(),
            encoder: Encoder::default(),
            ledger: Ledger::default(),
            record,
            connecting: 0,
            ramped: 0,
            connecting_max: (CONNECTING_MAX / (rings * part.of)).clamp(4, CONNECTING_MAX_EACH),
            held_back_us: 0,
            random: fastrand::Rng::with_seed(shared.origin.run ^ (ring * part.of + part.worker) as u64),
            active: Vec::new(),
            recipients: [0; 256],
            streams: 0,
            churns: Vec::new(),
            orders_read: 0,
            shared,
        }
    }

    /// Does what there is to do. How long there is nothing else then, unless a completion comes; zero for no time.
    fn turn(&mut self, net: &mut Net) -> Duration {
        self.read_orders();
        let ramp = self.begin_connects(net);
        let busy = net.poll(self);
        self.come_back();
        self.depart();
        let wait = self.speak().min(ramp).min(self.churn()).min(self.send_on_schedule());
        self.flush(net);
        if busy { Duration::ZERO } else { wait }
    }

    /// Begins a few connections: clients that are wanted and never were there, and those that come back. Returns how
    /// long there are no others to begin.
    fn begin_connects(&mut self, net: &mut Net) -> Duration {
        let (mut any, mut wait) = (false, LONGEST);
        for transport in TRANSPORTS {
            let wanted = self.shared.share(transport, self.ring);
            for _ in 0..CONNECTS_PER_TURN {
                let index = self.clients[transport as usize].len();
                if index >= wanted {
                    break;
                }
                if self.connecting >= self.connecting_max {
                    self.held_back_us = self.shared.now_us();
                    break;
                }
                let planned_us = match self.next_of_ramp() {
                    Ok(planned_us) => planned_us,
                    Err(early) => {
                        wait = wait.min(early);
                        break;
                    }
                };
                let number = self.shared.plan.number(transport, self.ring, index);
                self.clients[transport as usize].push(Client::new(number));
                any = true;
                self.connect(net, Place { transport, index }, planned_us);
            }
        }
        if any | self.reconnect_some(net) { Duration::ZERO } else { wait }
    }

    /// When the ramp planned the connect that is next; how early it is for it, otherwise.
    fn next_of_ramp(&mut self) -> Result<u64, Duration> {
        let now_us = self.shared.now_us();
        let Some(planned_us) = self.shared.ramp_us(self.ring, self.ramped) else { return Ok(now_us) };
        if planned_us > now_us {
            return Err(Duration::from_micros(planned_us - now_us));
        }
        self.ramped += 1;
        // While the gateway keeps too many waiting, it is not this side that is late.
        let lag = now_us - planned_us.max(self.held_back_us).min(now_us);
        self.record_lag(lag);
        Ok(planned_us)
    }

    /// This side came to something planned so many microseconds late.
    fn record_lag(&self, lag_us: u64) {
        self.record.borrow_mut().lag.saturating_record(lag_us.max(1));
    }

    fn connect(&mut self, net: &mut Net, place: Place, planned_us: u64) {
        let now_us = self.shared.now_us();
        let Some(client) = self.clients[place.transport as usize].get_mut(place.index) else { return };
        client.connect = When::new(planned_us * 1000, now_us * 1000);
        client.attempt();
        let number = client.number;
        let target = self.access.target(place.transport, number, client.returns, client.refused);
        let no_address = || std::io::Error::other("the gateway's name has no address");
        let connecting = target.ok_or_else(no_address);
        let begun =
            connecting.and_then(|target| Ok((net.connect(self.source(number, &target), &target)?, target.address)));
        match begun {
            Ok((key, address)) => {
                self.attempts.insert(key.slot, Attempt::to(address));
                let timeout_ms = self.shared.plan.assignment.connect_timeout.as_millis() as u64;
                self.beats.insert(key.slot, now_us / 1000 + timeout_ms);
                self.connecting += 1;
                bump(&self.shared.counts().connecting);
                if let Some(client) = self.client_mut(place) {
                    client.state = State::Connecting;
                }
                self.lines.insert_at(key, Line::of(place));
            }
            Err(error) => {
                if let Some(client) = self.client_mut(place) {
                    client.state = State::Away;
                    client.taken = false;
                }
                if self.shared.plan.assignment.reconnect {
                    // The table may be full of connections that are still being closed, or ports be short for a moment.
                    return self.return_at(place, self.back_off(place));
                }
                bump(&self.shared.counts().closed);
                let hint = match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE) => {
                        "; more files must be allowed to be open (ulimit -n, fs.file-max)"
                    }
                    // Ports are only looked for later: this is the address.
                    Some(libc::EADDRNOTAVAIL) => "; is each --source an address of this host?",
                    _ => "",
                };
                self.own_error(format!("this load tester could not connect: {}{hint}", without_number(&error)));
            }
        }
    }

    /// A connect has come to its end, good or bad.
    fn made_or_given_up(&mut self) {
        self.connecting -= 1;
        self.shared.counts().connecting.fetch_sub(1, Relaxed);
    }

    /// Loopback has 16 million addresses, each good for some thousand connections.
    fn source(&self, number: u32, target: &Target) -> Option<IpAddr> {
        // Its number among this process's clients: each has sources of its own.
        let own = number as usize / self.shared.plan.part.of;
        if let Some(source) = self.access.sources.of(own, PORTS_PER_SOURCE) {
            return Some(source);
        }
        let lane = number as usize / PORTS_PER_SOURCE;
        let is_v4_loopback = target.address.is_ipv4() && target.address.ip().is_loopback();
        (lane > 0 && is_v4_loopback).then(|| IpAddr::from([127, 0, (lane >> 8) as u8, lane as u8 + 1]))
    }

    /// What this ring's clients know of all messages. They have none any more.
    fn take_books(&mut self) -> Books {
        core::mem::take(&mut self.ledger).books()
    }

    fn client_mut(&mut self, place: Place) -> Option<&mut Client> {
        self.clients[place.transport as usize].get_mut(place.index)
    }

    /// The place of a client, if it is this thread's.
    fn own(&self, number: u32) -> Option<Place> {
        let (transport, ring, index) = self.shared.plan.place(number)?;
        (ring == self.ring).then_some(Place { transport, index })
    }

    fn line_of(&mut self, place: Place) -> Option<(ConnectionKey, &mut Line)> {
        let State::Ready(key) = self.clients[place.transport as usize].get(place.index)?.state else { return None };
        Some((key, self.lines.get_mut(key)?))
    }

    fn error(&mut self, kind: String) {
        bump(&self.shared.counts().errors);
        self.record.borrow_mut().troubles.error(kind);
    }

    /// Something that this load tester, or its host, could not do.
    fn own_error(&mut self, kind: String) {
        bump(&self.shared.counts().errors);
        *self.record.borrow_mut().troubles.own.entry(kind).or_default() += 1;
    }

    fn mark(&mut self, key: ConnectionKey) {
        if let Some(line) = self.lines.get_mut(key)
            && !line.dirty
        {
            line.dirty = true;
            self.dirty.push(key);
        }
    }

    fn flush(&mut self, net: &mut Net) {
        let mut dirty = core::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(line) = self.lines.get_mut(key) {
                line.dirty = false;
                if core::mem::take(&mut line.acknowledge)
                    && let Some(client) = self.clients[line.place.transport as usize].get(line.place.index)
                {
                    Encoder::ack(&mut line.out, client.seen);
                }
            }
            net.flush(key, self);
        }
        self.dirty.append(&mut dirty);
        while let Some(key) = self.leaving.pop() {
            if let Some(attempt) = self.attempts.get_mut(&key.slot) {
                attempt.leaving(net.held_back(key));
            }
            net.close(key, false, self);
        }
        while let Some((key, hold)) = self.holding.pop() {
            net.hold(key, hold);
        }
    }

    /// Sends the heartbeats that are due. Beats are spread over the interval by the number of the client.
    fn heartbeat(&mut self) {
        let now_us = self.shared.now_us();
        let interval_ms = (self.shared.plan.assignment.ping_interval.as_millis() as u64).max(1);
        let since_us = now_us.saturating_sub(core::mem::replace(&mut self.beaten_us, now_us));
        if since_us > STALL.as_micros() as u64 {
            // Pings may have been waiting here to be sent, and Pongs to be read.
            self.missing_from_ms = now_us / 1000 + interval_ms.min(CAUGHT_UP_MS);
        }
        let mut due = Vec::new();
        while self.beats.advance(now_us / 1000, 4096, &mut due) {}
        for slot in due {
            let Some(key) = self.lines.key_of(slot) else { continue };
            let Some(line) = self.lines.get_mut(key) else { continue };
            if let Some(attempt) = self.attempts.get(&slot) {
                if now_us / 1000 < self.missing_from_ms {
                    // Its answer may have been waiting here to be read.
                    self.beats.insert(slot, self.missing_from_ms);
                    continue;
                }
                line.end = match attempt.calling() {
                    // The host may have other addresses.
                    Some(address) => End::Refused(address, libc::ETIMEDOUT),
                    None => End::TimedOut,
                };
                self.leaving.push(key);
                continue;
            }
            if line.held {
                self.beats.insert(slot, now_us / 1000 + interval_ms);
                continue;
            }
            if let Some(ping) = line.pings.under_way() {
                let timeout_ms = pong_timeout_ms(&self.shared.plan.assignment);
                let until_ms = (ping.when.sent_us() / 1000 + timeout_ms).max(self.missing_from_ms);
                if self.resting {
                    // At the end a Pong that is missing is counted, and the connection left as it is.
                } else if now_us / 1000 < until_ms {
                    self.beats.insert(slot, until_ms);
                } else {
                    line.end = End::NoPong;
                    self.leaving.push(key);
                }
                continue;
            }
            if self.resting && !core::mem::take(&mut line.last_ping) {
                continue;
            }
            if self.resting {
                self.shared.counts().last_pings.fetch_sub(1, Relaxed);
            } else {
                self.beats.insert(slot, now_us / 1000 + interval_ms);
            }
            let place = line.place;
            let number = self.client_mut(place).map_or(0, |client| client.number);
            let series = self.shared.plan.assignment.population(number);
            self.ping(key, Ping { when: When::new(now_us * 1000, now_us * 1000), cause: Cause::Heartbeat, series });
        }
    }

    fn ping(&mut self, key: ConnectionKey, ping: Ping) {
        if !self.send_ping(key, ping) && !ping.is_heartbeat() {
            bump(&self.shared.counts().pings_waiting);
        }
    }

    /// Sends a Ping, or has it wait for the Pong of the one before. True if it is sent.
    fn send_ping(&mut self, key: ConnectionKey, ping: Ping) -> bool {
        let Some(line) = self.lines.get_mut(key) else { return false };
        if !line.pings.push(ping) {
            return false;
        }
        Encoder::empty(&mut line.out, Kind::Ping);
        let counts = self.shared.counts();
        bump(&counts.pings);
        if ping.is_heartbeat() {
            bump(&counts.heartbeats);
            bump(&counts.heartbeats_under_way);
        } else {
            bump(&counts.pings_under_way);
        }
        // Its Pong is missed in time, whenever the next heartbeat is.
        self.beats
            .insert_if_earlier(key.slot, ping.when.sent_us() / 1000 + pong_timeout_ms(&self.shared.plan.assignment));
        self.mark(key);
        true
    }

    /// The run comes to its end: each connection is asked once more whether it is alive, and sends no heartbeat after that. One
    /// whose Pong is under way is being asked already; one that does not read cannot be.
    fn rest(&mut self) {
        if core::mem::replace(&mut self.resting, true) {
            return;
        }
        let now_ms = self.shared.now_us() / 1000;
        let key_of = |client: &Client| match client.state {
            State::Ready(key) => Some((key, client.number)),
            State::Away | State::Waiting | State::Connecting => None,
        };
        let ready: Vec<_> = self.clients.iter().flatten().filter_map(key_of).collect();
        // Not all at once: a million Pings in one moment would be a load of their own.
        let spread_ms = (ready.len() as u64 / LAST_PINGS_PER_MS).max(1);
        for (key, number) in ready {
            let Some(line) = self.lines.get_mut(key) else { continue };
            if line.held || line.pings.under_way().is_some() {
                continue;
            }
            line.last_ping = true;
            bump(&self.shared.counts().last_pings);
            let turn_ms = u64::from(number.wrapping_mul(2_654_435_761)) % spread_ms;
            self.beats.insert(key.slot, now_ms + turn_ms);
        }
    }

    /// Leaves in order, so that the gateway does not count resets. Nobody waits for an end of those that it has never
    /// answered.
    fn say_goodbye(&mut self, net: &mut Net) {
        let lines: Vec<_> = self.lines.iter().map(|(key, line)| (key, line.place)).collect();
        for (key, place) in lines {
            let is_ready = self.client_mut(place).is_some_and(|client| matches!(client.state, State::Ready(_)));
            net.close(key, is_ready, self);
        }
    }
}

/// How long a Pong may take before its connection is taken for dead.
fn pong_timeout_ms(assignment: &Assignment) -> u64 {
    assignment.settle.min(assignment.ping_interval).as_millis() as u64
}

/// An error without the number in brackets that std adds.
fn without_number(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

//! The thread that has all connections of a proxy: it reads, does what was planned, books it and writes.

use std::collections::{BTreeSet, HashMap};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use ringgate_core::close::ErrorCode;
use ringgate_core::id::{ClientMessageId, Durability, Stamp};
use ringgate_core::limits::HEADER_BYTES;
use ringgate_core::wire::frames::Subscribe;
use ringgate_core::wire::{ClientFrame, Draft, Encoder, Kind, Published, RawFrame, ServerFrame, encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use twox_hash::XxHash3_64;

use super::book::{Answer, Book};
use super::fault::{Fault, Points, Subject};
use super::link::{Link, Side};
use super::{Place, Tls};

/// Longest sleep: whether it is to end is looked at this often.
const LONGEST: Duration = Duration::from_millis(20);

/// The parts of a Message.
struct Parts {
    topic: String,
    sender: String,
    payload: Vec<u8>,
    stamp: Stamp,
}

impl Parts {
    fn of(body: &[u8]) -> Parts {
        let frame = ServerFrame::parse(RawFrame { kind: Kind::Message, body }).unwrap();
        let ServerFrame::Message(message) = frame else { panic!("it is a Message") };
        Parts {
            topic: message.topic().unwrap().to_owned(),
            sender: message.sender().unwrap().to_owned(),
            payload: message.payload().unwrap().bytes().to_vec(),
            stamp: message.stamp().unwrap().into(),
        }
    }

    /// Makes it a message of another run: the id of the run stands behind the hash, and the hash is over all that follows it
    /// (loadtest/src/ledger/stamp.rs).
    fn of_another_run(&mut self) {
        self.payload[8] ^= 1;
        let hash = XxHash3_64::oneshot(&self.payload[8..]);
        self.payload[..8].copy_from_slice(&hash.to_le_bytes());
    }

    fn frame(&self) -> Vec<u8> {
        Draft::new(&self.topic, &self.sender, &self.payload, None).stamp(self.stamp).to_vec()
    }
}

/// Kind of frames, their client, and of messages also sender and topic: see [`Points`].
type Flow = (Subject, String, String, String);

/// See the module.
pub(super) struct Pump {
    gateway: Place,
    tls: Option<Tls>,
    listener: TcpListener,
    plan: Vec<(Fault, Points)>,
    links: Vec<Link>,
    /// Frames of each flow so far.
    frames: HashMap<Flow, u64>,
    /// Messages that let the next one of their flow pass.
    swapped: HashMap<Flow, Vec<u8>>,
    /// Messages that come again: when, on which connection, and what the book needs.
    repeated: Vec<(Instant, usize, Parts)>,
    /// Each user's publishes in order, with their requests.
    requests: HashMap<String, Vec<(ClientMessageId, u32)>>,
    stalled_until: Option<Instant>,
    /// For good.
    frozen: bool,
}

impl Pump {
    pub(super) fn new(gateway: Place, tls: Option<Tls>, listener: TcpListener, plan: &[(Fault, Points)]) -> Pump {
        Pump {
            gateway,
            tls,
            listener,
            plan: plan.to_vec(),
            links: Vec::new(),
            frames: HashMap::new(),
            swapped: HashMap::new(),
            repeated: Vec::new(),
            requests: HashMap::new(),
            stalled_until: None,
            frozen: false,
        }
    }

    pub(super) fn run(mut self, shared: &(Mutex<Book>, Condvar), stop: &AtomicBool) {
        let mut number = 0;
        while !stop.load(Relaxed) {
            let ready = self.wait();
            let (book, changed) = shared;
            let mut book = book.lock().unwrap();
            while let Ok((client, _)) = self.listener.accept() {
                let address = if self.tls.is_some() { self.gateway.tls } else { self.gateway.plain };
                match TcpStream::connect(address) {
                    Ok(gateway) if !book.gateway_is_gone => {
                        let client = Side::new(client, self.tls.as_ref().map(Tls::server));
                        let gateway = Side::new(gateway, self.tls.as_ref().map(Tls::client));
                        self.links.push(Link::new(number, client, gateway));
                        number += 1;
                    }
                    _ => book.turned_away += 1,
                }
            }
            for (at, is_client) in ready {
                if is_client { self.on_client(at, &mut book) } else { self.on_gateway(at, &mut book) }
            }
            if book.gateway_is_gone {
                for link in self.links.iter_mut().filter(|link| !link.leaving && !link.client.ending) {
                    link.cut(&mut book);
                }
            }
            self.repeat(&mut book);
            self.write();
            self.links.retain(|link| !link.is_over());
            changed.notify_all();
        }
    }

    /// Sleeps until there is something to do: which links have something to read, and whether from their client.
    fn wait(&self) -> Vec<(usize, bool)> {
        let now = Instant::now();
        let dues = self.links.iter().flat_map(|link| [link.client.due(), link.gateway.due()]).flatten();
        let dues = dues.chain(self.repeated.iter().map(|(due, ..)| *due));
        let due = dues.min().map(|due| due.max(self.stalled_until.unwrap_or(due)));
        let due = due.filter(|_| !self.frozen);
        let timeout = due.map_or(LONGEST, |due| due.saturating_duration_since(now)).min(LONGEST);
        let mut who = Vec::new();
        let mut polled = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for (at, link) in self.links.iter().enumerate() {
            for (side, is_client) in [(&link.client, true), (&link.gateway, false)] {
                if !side.read_over {
                    who.push((at, is_client));
                    polled.push(PollFd::new(&side.stream, PollFlags::IN));
                }
            }
        }
        if poll(&mut polled, Some(&Timespec::try_from(timeout).unwrap())).is_err() {
            // A signal.
            return Vec::new();
        }
        let ready = polled[1..].iter().map(|fd| !fd.revents().is_empty());
        who.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|(who, _)| who).collect()
    }

    /// Sends again what is to come again now, on connections that are still there.
    fn repeat(&mut self, book: &mut Book) {
        let now = Instant::now();
        for (due, number, parts) in std::mem::take(&mut self.repeated) {
            if due > now {
                self.repeated.push((due, number, parts));
            } else if let Some(at) = self.links.iter().position(|link| link.number == number && link.is_open()) {
                book.arrived(&self.links[at].user, &parts.payload, now);
                self.pass(at, parts.frame());
            }
        }
    }

    fn write(&mut self) {
        let now = Instant::now();
        let stands = self.frozen || self.stalled_until.is_some_and(|until| until > now);
        for link in self.links.iter_mut().filter(|link| !stands || link.client.read_over) {
            link.client.drain(now);
            link.gateway.drain(now);
        }
    }

    /// Counts a frame of a flow. Which of the planned faults is done to it, and its place in the flow.
    fn fault_at(&mut self, flow: &Flow, book: &mut Book) -> (Option<Fault>, u64) {
        let frames = self.frames.entry(flow.clone()).or_default();
        let index = std::mem::replace(frames, *frames + 1);
        let due = |(fault, points): &(Fault, Points)| fault.subject() == flow.0 && points.has(index);
        let Some(at) = self.plan.iter().position(due) else { return (None, index) };
        book.injected[at] += 1;
        (Some(self.plan[at].0), index)
    }

    fn stall(&mut self, time: Duration) {
        self.stalled_until.get_or_insert(Instant::now() + time);
    }

    /// When what is written now goes out.
    fn now(&self) -> Instant {
        let now = Instant::now();
        self.stalled_until.map_or(now, |until| until.max(now))
    }

    fn on_client(&mut self, at: usize, book: &mut Book) {
        self.links[at].client.fill();
        while let Some((kind, frame)) = self.links[at].client.take() {
            let body = &frame[HEADER_BYTES..];
            let number = self.links[at].number;
            let user = self.links[at].user.clone();
            match ClientFrame::parse(RawFrame { kind, body }).unwrap() {
                ClientFrame::Publish(publish) => {
                    let (id, request) = (publish.client_message_id, publish.request);
                    book.publish(number, id, publish.topic, publish.payload);
                    self.requests.entry(user.clone()).or_default().push((id, request));
                    match self.fault_at(&flow_of(Subject::Publish, &user), book).0 {
                        // It is read by nobody.
                        Some(Fault::CutAtPublish) => self.links[at].cut(book),
                        Some(Fault::StallAtPublish(time)) => self.stall(time),
                        Some(Fault::RefusePublish(retry_after)) => {
                            book.answered(id, Answer::Error);
                            self.refuse(at, request, ErrorCode::StorageFull, retry_after);
                            continue;
                        }
                        _ => {}
                    }
                }
                ClientFrame::Ping => {
                    self.links[at].pings.push_back(Instant::now());
                    book.pings += 1;
                    let fault = self.fault_at(&flow_of(Subject::Ping, &user), book).0;
                    match fault {
                        Some(Fault::StallAtPing(time)) => self.stall(time),
                        Some(Fault::FreezeAtPing) => {
                            // What the book has as passed passes.
                            self.write();
                            self.frozen = true;
                        }
                        _ => {}
                    }
                }
                ClientFrame::Ack(position) => book.acknowledged(&user, position),
                ClientFrame::Subscribe(Subscribe { room, .. }) => book.joined(&user, room),
                ClientFrame::Disconnect => self.links[at].leaving = true,
                _ => {}
            }
            if !self.frozen {
                let now = self.now();
                self.links[at].gateway.push(now, frame);
            }
        }
        let link = &mut self.links[at];
        if link.client.read_over {
            if !link.client.ending {
                book.left(link.pings.iter().map(Instant::elapsed));
            }
            link.leaving = true;
            link.gateway.ending = true;
            // It need not wait for the end of a gateway that may be frozen.
            link.client.ending = true;
            link.client.outgoing.clear();
        }
    }

    fn on_gateway(&mut self, at: usize, book: &mut Book) {
        self.links[at].gateway.fill();
        while let Some((kind, frame)) = self.links[at].gateway.take() {
            if !self.links[at].is_open() || self.frozen {
                // Nobody reads it any more.
                continue;
            }
            let body = &frame[HEADER_BYTES..];
            match ServerFrame::parse(RawFrame { kind, body }).unwrap() {
                ServerFrame::Message(_) => self.message(at, Parts::of(body), frame, book),
                ServerFrame::Published(published) => self.published(at, &published, frame, book),
                ServerFrame::Pong => self.pong(at, frame, book),
                ServerFrame::Connected(connected) => {
                    let user = connected.user().unwrap();
                    book.signed_in(user, self.links[at].number);
                    self.links[at].user = user.to_owned();
                    self.pass(at, frame);
                }
                _ => self.pass(at, frame),
            }
        }
        let link = &mut self.links[at];
        if link.gateway.read_over {
            if !link.leaving && !link.client.ending {
                book.cut.insert(link.number);
            }
            link.client.ending = true;
            link.gateway.outgoing.clear();
            link.gateway.ending = true;
        }
    }

    fn pass(&mut self, at: usize, frame: Vec<u8>) {
        let now = self.now();
        self.links[at].client.push(now, frame);
    }

    fn message(&mut self, at: usize, mut parts: Parts, frame: Vec<u8>, book: &mut Book) {
        let user = self.links[at].user.clone();
        let flow = (Subject::Message, user.clone(), parts.sender.clone(), parts.topic.clone());
        let (fault, index) = self.fault_at(&flow, book);
        if parts.topic.starts_with('@') {
            book.in_inbox(&user, parts.stamp.position);
        }
        let now = self.now();
        let mut due = now;
        let changed = |parts: &mut Parts, byte: usize| parts.payload[byte] ^= 1 << (index % 8);
        match fault {
            Some(Fault::Lose) => return,
            Some(Fault::Double) => {
                book.arrived(&user, &parts.payload, now);
                self.pass(at, frame.clone());
            }
            Some(Fault::DoubleLate(time)) => {
                let again = Parts::of(&frame[HEADER_BYTES..]);
                self.repeated.push((now + time, self.links[at].number, again));
            }
            Some(Fault::Foreign | Fault::ForeignElsewhere) => {
                let mut foreign = Parts::of(&frame[HEADER_BYTES..]);
                foreign.of_another_run();
                if fault == Some(Fault::ForeignElsewhere) {
                    foreign.topic = self.topic_besides(&foreign.topic, &user, book);
                    book.misdelivered += 1;
                }
                self.pass(at, foreign.frame());
            }
            Some(Fault::Swap) => {
                // It is on its way, behind the next.
                book.arrived(&user, &parts.payload, now);
                book.reordered += 1;
                self.swapped.insert(flow, frame);
                return;
            }
            Some(Fault::FlipInStamp | Fault::FlipInFill | Fault::Shorten) => {
                match fault {
                    Some(Fault::FlipInStamp) => changed(&mut parts, index as usize * 7 % 32),
                    Some(Fault::FlipInFill) => {
                        let last = parts.payload.len() - 1;
                        changed(&mut parts, last - index as usize % 16);
                    }
                    _ => parts.payload.truncate(parts.payload.len() / 2),
                }
                book.corrupted += 1;
                return self.pass(at, parts.frame());
            }
            Some(Fault::Misdirect | Fault::Leak) => {
                let recipients = book.recipients(&parts.topic);
                let others = (0..self.links.len()).filter(|other| !recipients.contains(&self.links[*other].user));
                let others: Vec<_> = others.filter(|other| !self.links[*other].client.ending).collect();
                book.misdelivered += 1;
                self.pass(others[book.misdelivered as usize % others.len()], frame.clone());
                if fault == Some(Fault::Misdirect) {
                    return;
                }
            }
            Some(Fault::OtherTopic) => {
                parts.topic = self.topic_besides(&parts.topic, &user, book);
                book.misdelivered += 1;
                return self.pass(at, parts.frame());
            }
            Some(Fault::OtherSender) => {
                parts.sender = self.user_besides(&parts.sender);
                book.misdelivered += 1;
                return self.pass(at, parts.frame());
            }
            Some(Fault::DelayMessage(time)) => due = now + time,
            _ => {}
        }
        book.arrived(&user, &parts.payload, due);
        self.links[at].client.push(due, frame);
        if let Some(earlier) = self.swapped.remove(&flow) {
            self.pass(at, earlier);
        }
        if fault == Some(Fault::CutAfterMessage) {
            self.links[at].cut(book);
        }
    }

    fn user_besides(&self, user: &str) -> String {
        let users: BTreeSet<_> = self.links.iter().map(|link| &link.user).filter(|other| !other.is_empty()).collect();
        users.into_iter().find(|other| *other != user).unwrap().clone()
    }

    /// Another user's inbox in place of this user's, or another room in place of a room.
    fn topic_besides(&self, topic: &str, user: &str, book: &Book) -> String {
        match topic.starts_with('@') {
            true => format!("@{}", self.user_besides(user)),
            false => book.rooms().find(|room| **room != topic).unwrap().clone(),
        }
    }

    /// Answers a request with a temporary Error.
    fn refuse(&mut self, at: usize, request: u32, code: ErrorCode, retry_after: Duration) {
        let retry_after_ms = retry_after.as_millis() as u32;
        let fields = encode::Error { request, code, message: code.label(), retry_after_ms, room: None };
        let mut error = Vec::new();
        Encoder::default().error(&mut error, &fields);
        self.pass(at, error);
    }

    fn published(&mut self, at: usize, published: &Published, frame: Vec<u8>, book: &mut Book) {
        let user = self.links[at].user.clone();
        let id = published.client_message_id;
        match self.fault_at(&flow_of(Subject::Published, &user), book).0 {
            Some(Fault::LoseAnswer) => {}
            Some(Fault::CutAtAnswer) => self.links[at].cut(book),
            Some(Fault::Refuse) => {
                book.answered(id, Answer::Error);
                self.refuse(at, published.request, ErrorCode::Overloaded, Duration::ZERO);
            }
            Some(Fault::OtherRequest) => {
                let requests = &self.requests[&user];
                let place = requests.iter().position(|(other, _)| *other == id).unwrap();
                let request = requests[place - 1].1;
                book.answered(id, Answer::Published);
                book.answered_wrong += 1;
                let mut other = Vec::new();
                let Published { stamp, duplicate, .. } = *published;
                Encoder::published(&mut other, request, id, stamp, Durability::Memory, duplicate);
                self.pass(at, other);
            }
            fault => {
                if fault == Some(Fault::DoubleAnswer) {
                    book.answered_twice += 1;
                    self.pass(at, frame.clone());
                }
                let mut due = self.now();
                if let Some(Fault::DelayAnswer(time)) = fault {
                    due += time;
                }
                book.answered(id, Answer::Published);
                self.links[at].client.push(due, frame);
            }
        }
    }

    fn pong(&mut self, at: usize, frame: Vec<u8>, book: &mut Book) {
        let user = self.links[at].user.clone();
        let asked = self.links[at].pings.pop_front().expect("a Pong answers a Ping");
        let fault = self.fault_at(&flow_of(Subject::Pong, &user), book).0;
        let mut due = self.now();
        match fault {
            Some(Fault::LosePong) => return,
            Some(Fault::CutAtPong) => return self.links[at].cut(book),
            Some(Fault::DelayPong(time)) => due += time,
            _ => {}
        }
        book.pong(due.saturating_duration_since(asked));
        self.links[at].client.push(due, frame);
    }
}

fn flow_of(subject: Subject, user: &str) -> Flow {
    (subject, user.to_owned(), String::new(), String::new())
}

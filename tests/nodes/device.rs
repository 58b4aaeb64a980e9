//! A client that keeps to the protocol: a thread that publishes, reads and acknowledges, wanders between gateways, comes back when it is
//! sent away, resumes from its positions, and repeats what was not answered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringgate_core::close::CloseReason;
use ringgate_core::id::{ClientMessageId, Position, Recover};
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};
use ringgate_core::wire::{Encoder, Kind, RoomCursor, ServerFrame};
use ringgate_net::dial::Stream;
use ringgate_sim::Random;

use crate::TRAFFIC;
use crate::ledger::{Id, Ledger, Topic};
use crate::support::{Connected, Frame, Message, Refusal, Subscribed};
use crate::world::{Addresses, PING_INTERVAL, token};

pub(crate) const USERS: usize = 4;
const DEVICES_PER_USER: usize = 2;
pub(crate) const DEVICES: usize = USERS * DEVICES_PER_USER;
pub(crate) const ROOM: &str = "chat:everybody";
/// Of each device.
const UNANSWERED_MAX: usize = 4;
const UNANSWERED_MAX_IN_HASTE: usize = 64;
/// Until Connected has come; docs/protocol.md gives clients 15 s.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const PONG_TIMEOUT: Duration = Duration::from_secs(2);
/// Of a device, on average, where nothing more is asked for.
const PUBLISH_EVERY_MS: u64 = 50;
/// Of the back-off, which may be as long as 20 s: so the gateways are measured, not the patience of clients.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The requests of Connect and of a Subscribe; those of publishes follow.
const CONNECT: u32 = 1;
const SUBSCRIBE: u32 = 2;

/// What all clients of a round do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// They sign in.
    Joining,
    /// They publish and wander.
    Publishing,
    /// They stay where they are, until everything is answered and received.
    Draining,
    /// They end.
    Over,
}

/// What the clients of a round share.
pub(crate) struct Shared {
    pub(crate) ledger: Mutex<Ledger>,
    loses: bool,
    addresses: Addresses,
    /// Of a device, on average, in milliseconds.
    publish_every_ms: usize,
    unanswered_max: usize,
    stage: AtomicU8,
    states: Mutex<Vec<State>>,
}

/// How a client stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    /// Signed in, and in the room.
    pub(crate) is_joined: bool,
    /// When the oldest message that is not answered was sent for the first time.
    pub(crate) unanswered_since: Option<Instant>,
    /// When the newest message that was answered was sent for the first time.
    pub(crate) answered: Option<Instant>,
    /// Sessions that it left behind without closing them, which have not ended.
    pub(crate) left_behind: usize,
}

impl Shared {
    /// Clients publish at least so many messages within the round's [`TRAFFIC`].
    pub(crate) fn new(loses: bool, addresses: Addresses, messages: u64) -> Shared {
        let each = DEVICES as u64 * TRAFFIC.as_millis() as u64;
        let publish_every_ms = (each / messages.max(1)).clamp(1, PUBLISH_EVERY_MS) as usize;
        let is_in_haste = publish_every_ms < PUBLISH_EVERY_MS as usize;
        let devices = (0..DEVICES).map(|number| (name(number), number / DEVICES_PER_USER)).collect();
        Shared {
            ledger: Mutex::new(Ledger::new(loses, devices)),
            loses,
            addresses,
            publish_every_ms,
            unanswered_max: if is_in_haste { UNANSWERED_MAX_IN_HASTE } else { UNANSWERED_MAX },
            stage: AtomicU8::new(Stage::Joining as u8),
            states: Mutex::new(vec![State::default(); DEVICES]),
        }
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::SeqCst);
    }

    fn is(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::SeqCst) == stage as u8
    }

    pub(crate) fn states(&self) -> Vec<State> {
        self.states.lock().unwrap().clone()
    }
}

fn name(number: usize) -> String {
    format!("{}/{}", user(number / DEVICES_PER_USER), number % DEVICES_PER_USER)
}

fn user(number: usize) -> String {
    format!("user{number}")
}

/// User and name of a device, as gateways list them.
pub(crate) fn member(number: usize) -> (String, String) {
    (user(number / DEVICES_PER_USER), number.to_string())
}

/// See the module.
pub(crate) struct Device {
    number: usize,
    shared: Arc<Shared>,
    random: Random,
    token: String,
    /// Everything up to here was received.
    inbox: Option<Position>,
    room: Option<Position>,
    has_connected: bool,
    unanswered: VecDeque<Unanswered>,
    count: u64,
    publish_at: Instant,
    /// Attempts since a connection was good.
    attempts: u32,
    left_behind: Vec<Stream>,
    state: State,
}

struct Unanswered {
    id: Id,
    topic: Topic,
    first_sent: Instant,
    /// Over the connection that there is.
    request: Option<u32>,
    again_at: Instant,
}

/// A connection.
struct Session {
    stream: Stream,
    began: Instant,
    signed_in: Option<Instant>,
    is_in_room: bool,
    /// Messages up to its position are not to come again.
    gave_inbox: bool,
    subscribe_at: Option<Instant>,
    requests: u32,
    wrote: Instant,
    read: Instant,
    pinged: Option<Instant>,
    unacknowledged: usize,
    acknowledged: Instant,
    leaves_at: Instant,
    /// What was stored over this connection, by topic and request.
    stored: HashMap<Topic, BTreeMap<u32, Position>>,
}

/// Why a connection is over.
enum End {
    /// It is lost, or was not made.
    Lost(String),
    /// The gateway said when to come back.
    Goodbye(u16, Duration),
    /// The client goes elsewhere at once.
    Left,
}

impl Device {
    pub(crate) fn new(number: usize, shared: Arc<Shared>, seed: u64) -> Device {
        Device {
            number,
            shared,
            random: Random::new(seed ^ (number as u64 + 1) << 32),
            token: token(&user(number / DEVICES_PER_USER)),
            inbox: None,
            room: None,
            has_connected: false,
            unanswered: VecDeque::new(),
            count: 0,
            publish_at: Instant::now(),
            attempts: 0,
            left_behind: Vec::new(),
            state: State::default(),
        }
    }

    pub(crate) fn run(mut self) {
        while !self.shared.is(Stage::Over) {
            let nodes = self.shared.addresses.lock().unwrap().len();
            let node = self.random.below(nodes);
            let address = self.shared.addresses.lock().unwrap()[node];
            self.attempts += 1;
            let end = match Stream::connect_to_any(&[address], None) {
                Ok(stream) => self.session(stream, node),
                Err(error) => End::Lost(error),
            };
            (self.state.is_joined, self.state.left_behind) = (false, self.left_behind.len());
            self.show();
            let wait = match &end {
                End::Left => {
                    self.attempts = 0;
                    Duration::ZERO
                }
                End::Goodbye(_, after) if self.attempts <= 1 => *after,
                End::Goodbye(_, after) => (*after).max(self.backoff()),
                End::Lost(_) => self.backoff(),
            };
            match end {
                End::Left => self.note(format!("leaves node {}", node + 1)),
                End::Goodbye(code, _) => self.note(format!("goodbye {code} from node {}, waits {wait:?}", node + 1)),
                End::Lost(why) => self.note(format!("lost node {}: {why}; waits {wait:?}", node + 1)),
            }
            let until = Instant::now() + wait;
            while Instant::now() < until && !self.shared.is(Stage::Over) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Full jitter.
    fn backoff(&mut self) -> Duration {
        let longest = (Duration::from_millis(500) * (1 << self.attempts.min(6))).min(BACKOFF_MAX);
        Duration::from_millis(self.random.below(longest.as_millis() as usize) as u64)
    }

    fn note(&self, line: impl std::fmt::Display) {
        self.shared.ledger.lock().unwrap().note(self.number, line);
    }

    fn complain(&self, text: impl std::fmt::Display) {
        self.shared.ledger.lock().unwrap().complain(self.number, text);
    }

    fn show(&mut self) {
        self.state.unanswered_since = self.unanswered.iter().map(|message| message.first_sent).min();
        self.shared.states.lock().unwrap()[self.number] = self.state;
    }

    fn session(&mut self, stream: Stream, node: usize) -> End {
        let now = Instant::now();
        stream.tcp().set_write_timeout(Some(CONNECT_PATIENCE)).unwrap();
        let mut session = Session {
            stream,
            began: now,
            signed_in: None,
            is_in_room: false,
            // The gateway has the cursor, too, unless Redis has lost it: then a client without a position cannot be told.
            gave_inbox: self.inbox.is_some() && (self.shared.loses || !self.random.one_in(4)),
            subscribe_at: None,
            requests: SUBSCRIBE,
            wrote: now,
            read: now,
            pinged: None,
            unacknowledged: 0,
            acknowledged: now,
            leaves_at: now + Duration::from_millis(500 + self.random.below(8000) as u64),
            stored: HashMap::new(),
        };
        self.unanswered.iter_mut().for_each(|message| message.request = None);
        let inbox = self.inbox.filter(|_| session.gave_inbox);
        self.note(format!("connects to node {}: inbox {inbox:?}, room {:?}", node + 1, self.room));
        let rooms = [RoomCursor { room: ROOM, since: self.room, recover: Recover::Exact }];
        let device = self.number.to_string();
        let connect = ConnectRequest {
            request: CONNECT,
            token: &self.token,
            device: &device,
            inbox,
            rooms: &rooms,
            ..Default::default()
        };
        if let Err(error) = session.send(|encoder, out| encoder.connect(out, &connect)) {
            return End::Lost(error);
        }
        let end = loop {
            match self.turn(&mut session) {
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        if matches!(end, End::Left) && !self.shared.is(Stage::Over) {
            match self.random.below(3) {
                // The next session of this device ends it.
                0 => self.left_behind.push(session.stream),
                // Fails when the gateway has closed it.
                1 => drop(session.send(|_, out| Encoder::empty(out, Kind::Disconnect))),
                _ => {}
            }
        }
        end
    }

    /// Sends what is due, waits a moment, and takes what has come.
    fn turn(&mut self, session: &mut Session) -> Result<(), End> {
        let now = Instant::now();
        if self.shared.is(Stage::Over) {
            return Err(End::Left);
        }
        let Some(signed_in) = session.signed_in else {
            if now > session.began + CONNECT_PATIENCE {
                return Err(End::Lost("no Connected".to_owned()));
            }
            return self.read(session);
        };
        // An attempt that a client has given up is closed: a gateway that was stopped cannot tell how old it is.
        if self.shared.is(Stage::Publishing) && now >= session.leaves_at {
            return Err(End::Left);
        }
        if now > signed_in + Duration::from_secs(5) {
            self.attempts = 0;
        }
        self.beat(session, now)?;
        self.look_behind();
        if session.subscribe_at.is_some_and(|at| now >= at) {
            session.subscribe_at = None;
            let room = RoomCursor { room: ROOM, since: self.room, recover: Recover::Exact };
            session.send(|encoder, out| encoder.subscribe(out, SUBSCRIBE, room)).map_err(End::Lost)?;
        }
        if session.is_in_room {
            self.publish(session, now)?;
        }
        let is_due = session.unacknowledged >= 16 || now > session.acknowledged + Duration::from_millis(100);
        if let Some(position) = self.inbox.filter(|_| session.unacknowledged > 0 && is_due) {
            (session.unacknowledged, session.acknowledged) = (0, now);
            session.send(|_, out| Encoder::ack(out, position)).map_err(End::Lost)?;
        }
        self.state.is_joined = session.is_in_room;
        self.show();
        self.read(session)
    }

    /// Heartbeats of the protocol.
    fn beat(&mut self, session: &mut Session, now: Instant) -> Result<(), End> {
        match session.pinged {
            Some(at) if session.read > at => session.pinged = None,
            Some(at) if now > at + PONG_TIMEOUT => return Err(End::Lost("no Pong".to_owned())),
            Some(_) => {}
            None if now > session.wrote + PING_INTERVAL || now > session.read + PING_INTERVAL => {
                session.pinged = Some(now);
                session.send(|_, out| Encoder::empty(out, Kind::Ping)).map_err(End::Lost)?;
            }
            None => {}
        }
        Ok(())
    }

    /// Sessions that were left behind end, since another has the device.
    fn look_behind(&mut self) {
        let mut ends = Vec::new();
        self.left_behind.retain_mut(|stream| {
            let is_open = matches!(stream.fill(Duration::from_millis(1)), Ok(true));
            // Messages that it is still brought are for the new session to acknowledge.
            while let Ok(Some(raw)) = stream.next_frame() {
                if let Frame::Goodbye(goodbye) = ServerFrame::parse(raw).expect("a good frame").into() {
                    ends.push(goodbye);
                }
            }
            is_open
        });
        for goodbye in ends {
            let expected = [CloseReason::TakenOver, CloseReason::InsufficientState, CloseReason::NoPong];
            self.note(format!("left behind: {goodbye:?}"));
            if !expected.iter().any(|reason| reason.code() == goodbye.code) {
                self.complain(format!("a session that was taken over: {goodbye:?}"));
            }
        }
        self.state.left_behind = self.left_behind.len();
    }

    fn publish(&mut self, session: &mut Session, now: Instant) -> Result<(), End> {
        let may_publish = self.shared.is(Stage::Publishing) && self.unanswered.len() < self.shared.unanswered_max;
        if may_publish && now >= self.publish_at {
            let half = self.shared.publish_every_ms * 1000 / 2;
            self.publish_at = now + Duration::from_micros((half + self.random.below(2 * half)) as u64);
            self.count += 1;
            let topic = if self.random.one_in(3) { Topic::Room } else { Topic::Inbox(self.random.below(USERS)) };
            let id = Id { device: self.number as u64 + 1, count: self.count };
            self.shared.ledger.lock().unwrap().sent(id, topic);
            self.unanswered.push_back(Unanswered { id, topic, first_sent: now, request: None, again_at: now });
        }
        for message in &mut self.unanswered {
            if message.request.is_some() || message.again_at > now {
                continue;
            }
            session.requests += 1;
            message.request = Some(session.requests);
            let topic = match message.topic {
                Topic::Inbox(number) => format!("@{}", user(number)),
                Topic::Room => ROOM.to_owned(),
            };
            let Id { device, count } = message.id;
            let mut payload = [device.to_le_bytes(), count.to_le_bytes()].concat();
            payload.resize(16 + (count % 8) as usize * 30, b'.');
            let request = PublishRequest {
                request: session.requests,
                topic: &topic,
                client_message_id: ClientMessageId { high: device, low: count },
                payload: &payload,
                ..Default::default()
            };
            session.send(|encoder, out| encoder.publish(out, &request)).map_err(End::Lost)?;
        }
        Ok(())
    }

    // What comes.

    fn read(&mut self, session: &mut Session) -> Result<(), End> {
        match session.stream.fill(Duration::from_millis(10)) {
            Ok(true) => {}
            Ok(false) => return Err(End::Lost("end of the stream".to_owned())),
            Err(error) => return Err(End::Lost(error.to_string())),
        }
        loop {
            let frame: Frame = match session.stream.next_frame() {
                Ok(Some(raw)) => ServerFrame::parse(raw).expect("a good frame").into(),
                Ok(None) => return Ok(()),
                Err(error) => panic!("{error}"),
            };
            session.read = Instant::now();
            self.on_frame(session, frame)?;
        }
    }

    fn on_frame(&mut self, session: &mut Session, frame: Frame) -> Result<(), End> {
        match frame {
            Frame::Connected(connected) => self.on_connected(session, &connected),
            Frame::Subscribed(subscribed) => self.on_subscribed(session, &subscribed),
            Frame::Message(message) => self.on_message(session, &message),
            Frame::Published(published) => {
                let at = self.unanswered.iter().position(|message| message.request == Some(published.request));
                let Some(Unanswered { id, topic, first_sent, .. }) = at.and_then(|at| self.unanswered.remove(at))
                else {
                    self.complain(format!("an answer to nothing: {published:?}"));
                    return Ok(());
                };
                self.state.answered = self.state.answered.max(Some(first_sent));
                self.shared.ledger.lock().unwrap().published(self.number, id, published.stamp.position);
                if !published.duplicate {
                    self.look_at_order(session, topic, published.request, published.stamp.position);
                }
            }
            Frame::Refused(refusal) => self.on_refused(session, &refusal),
            Frame::Ping => session.send(|_, out| Encoder::empty(out, Kind::ClientPong)).map_err(End::Lost)?,
            Frame::Pong => {}
            Frame::Goodbye(goodbye) => {
                if !goodbye.reconnect {
                    self.complain(format!("sent away for good: {goodbye:?}"));
                }
                return Err(End::Goodbye(goodbye.code, Duration::from_millis(goodbye.after_ms.into())));
            }
            other => self.complain(format!("nobody asked for {other:?}")),
        }
        Ok(())
    }

    fn on_connected(&mut self, session: &mut Session, connected: &Connected) {
        session.signed_in = Some(Instant::now());
        let Connected { inbox, inbox_recovered, .. } = *connected;
        self.note(format!("connected to {}: inbox {inbox:?}, recovered {inbox_recovered}", connected.node));
        if !inbox_recovered {
            let what = format!("inbox, from {:?} to {inbox:?}", self.inbox);
            self.shared.ledger.lock().unwrap().told(self.number, false, what);
            self.inbox = None;
        } else if !std::mem::replace(&mut self.has_connected, true) {
            self.inbox = Some(inbox);
        }
        if let Some(last) = &mut self.inbox {
            // Where nothing is lost, a new epoch goes on where the one before ended.
            last.epoch = inbox.epoch;
        }
    }

    fn on_subscribed(&mut self, session: &mut Session, subscribed: &Subscribed) {
        session.is_in_room = true;
        let Subscribed { recovered, start, position, .. } = *subscribed;
        self.note(format!("in the room: start {start:?}, now {position:?}, recovered {recovered}"));
        if let Some(since) = self.room {
            if !recovered {
                let what = format!("room, from {since:?} to {position:?}");
                self.shared.ledger.lock().unwrap().told(self.number, true, what);
            } else if since.offset != start.offset {
                self.complain(format!("HOLE: the room goes on after {start:?}, and {since:?} was given"));
            }
        }
        self.room = Some(start);
    }

    fn on_message(&mut self, session: &mut Session, message: &Message) {
        let numbers = message.payload.first_chunk::<16>().map(|bytes| {
            let (device, count) = bytes.split_at(8);
            [device, count].map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
        });
        let Some([device, count]) = numbers else { return self.complain(format!("a damaged message: {message:?}")) };
        let (id, position, is_room) = (Id { device, count }, message.stamp.position, message.topic == ROOM);
        let topic = if is_room { Topic::Room } else { Topic::Inbox(self.number / DEVICES_PER_USER) };
        let last = if is_room { &mut self.room } else { &mut self.inbox };
        let before = *last;
        if before.is_some_and(|last| last.epoch == position.epoch && position.offset <= last.offset) {
            // It is acknowledged once more.
            session.unacknowledged += usize::from(!is_room);
            if is_room || session.gave_inbox {
                self.complain(format!("DUPLICATE: {id:?} of {topic:?} at {position:?} comes after {before:?}"));
            }
            return;
        }
        *last = Some(position);
        session.unacknowledged += usize::from(!is_room);
        if let Some(before) = before {
            if before.epoch != position.epoch {
                self.note(format!("{topic:?} goes on from {before:?} to {position:?}"));
            }
            if position.offset != before.offset + 1 {
                self.complain(format!("HOLE: {id:?} of {topic:?} at {position:?} comes after {before:?}"));
            }
        }
        self.shared.ledger.lock().unwrap().received(self.number, topic, id, position);
    }

    fn on_refused(&mut self, session: &mut Session, refusal: &Refusal) {
        let again_at = Instant::now() + Duration::from_millis(u64::from(refusal.retry_after_ms.max(10)));
        self.note(format!("refused: {refusal:?}"));
        if !refusal.temporary {
            self.complain(format!("refused for good: {refusal:?}"));
        }
        if [CONNECT, SUBSCRIBE].contains(&refusal.request) {
            session.subscribe_at = Some(again_at);
        } else if let Some(message) = self.unanswered.iter_mut().find(|m| m.request == Some(refusal.request)) {
            (message.request, message.again_at) = (None, again_at);
        } else {
            self.complain(format!("an answer to nothing: {refusal:?}"));
        }
    }

    /// What was sent earlier over a connection stands earlier in its topic.
    fn look_at_order(&self, session: &mut Session, topic: Topic, request: u32, position: Position) {
        let stored = session.stored.entry(topic).or_default();
        let before = stored.range(..request).next_back().map(|(_, at)| *at);
        let after = stored.range(request + 1..).next().map(|(_, at)| *at);
        stored.insert(request, position);
        let is_wrong =
            |earlier: Position, later: Position| earlier.epoch == later.epoch && earlier.offset > later.offset;
        if before.is_some_and(|before| is_wrong(before, position))
            || after.is_some_and(|after| is_wrong(position, after))
        {
            self.complain(format!("REORDERED: request {request} is at {position:?}, between {before:?} and {after:?}"));
        }
    }
}

impl Session {
    fn send(&mut self, build: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Result<(), String> {
        let mut out = Vec::new();
        build(&mut Encoder::default(), &mut out);
        self.wrote = Instant::now();
        self.stream.send(&out).map_err(|error| error.to_string())
    }
}

//! One person of the demo: a client in a thread that knows several gateways, comes back by itself and resumes.
//!
//! It does what docs/protocol.md asks of clients under "Reconnecting": it waits for as long as `Goodbye` says, or for a random
//! back-off; goes to another address; gives the positions that it has; repeats what was not answered under the same id; and leaves
//! out what it knows by its offset. One publish is under way at a time, so that the order of what it writes is its own.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringgate_core::id::{ClientMessageId, Position, Stamp};
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};
use ringgate_core::wire::schema::Message;
use ringgate_core::wire::{Encoder, Kind, ServerFrame};
use ringgate_net::dial::Stream;

use super::book::{Book, Place};

/// The room that everybody is in.
pub(super) const ROOM: &str = "chat:demo";

/// Between two messages to the neighbour's inbox, and to the room.
const EVERY: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(2_500)];
/// Between two looks at the clock while the socket is quiet.
const TICK: Duration = Duration::from_millis(20);
/// A gateway that does not answer for so long is taken for dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const BACK_OFF: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(20);
/// A connection that has lasted so long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// Of the request that signs in; publishes have others.
const SIGN_IN: u32 = 1;

/// What all people share with the one who tells the story.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) writing: AtomicBool,
    pub(super) over: AtomicBool,
    pub(super) seats: Vec<Seat>,
    /// Messages answered with Published, by place.
    pub(super) written: [AtomicU64; 2],
    /// Publishes without an answer.
    pub(super) unanswered: AtomicU64,
    /// Messages that came, without those that were known by their offset.
    pub(super) read: AtomicU64,
    /// Of these, those that were published before the reader had come back.
    pub(super) brought: AtomicU64,
    /// Publishes that were made again after a reconnect.
    pub(super) repeated: AtomicU64,
    /// Connections that began with a Goodbye of the one before.
    pub(super) sent_away: AtomicU64,
    /// What nobody should have seen, in words.
    pub(super) troubles: Mutex<Vec<String>>,
}

/// Where one person is.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Index of the node, and 1; 0 while the person is nowhere.
    pub(super) node: AtomicUsize,
    /// Sign-ins so far.
    pub(super) sessions: AtomicU32,
}

impl Board {
    pub(super) fn new(people: usize) -> Board {
        Board { seats: (0..people).map(|_| Seat::default()).collect(), ..Board::default() }
    }

    fn trouble(&self, text: String) {
        self.troubles.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(text);
    }
}

pub(super) struct Person {
    number: usize,
    token: String,
    nodes: Arc<Vec<SocketAddr>>,
    board: Arc<Board>,
    book: Book,
    /// Index of the node that is tried next, or that it is on.
    node: usize,
    inbox: Option<Position>,
    room: Option<Position>,
    pending: Option<Pending>,
    /// When the next message to each place is due.
    due: [Instant; 2],
    next_request: u32,
}

/// A publish without an answer.
struct Pending {
    place: Place,
    number: u32,
    request: u32,
    /// When it is sent, or given up.
    at: Instant,
    is_sent: bool,
}

/// How a connection has ended.
enum End {
    /// The demo is over.
    Over,
    /// The gateway said so: come back after this.
    Goodbye(Duration),
    /// End of the stream, an error, or no answer.
    Lost,
}

/// One connection.
struct Line {
    stream: Stream,
    encoder: Encoder,
    out: Vec<u8>,
    /// Missing of Connected and Subscribed.
    awaited: u8,
    /// The clock of the gateway when the person signed in.
    signed_in_ms: u64,
}

/// The name of a person.
pub(super) fn user(number: usize) -> String {
    format!("user{number:02}")
}

fn number_of(user: &str) -> Option<usize> {
    user.strip_prefix("user")?.parse().ok()
}

impl Person {
    pub(super) fn new(number: usize, token: String, nodes: Arc<Vec<SocketAddr>>, board: Arc<Board>) -> Person {
        let now = Instant::now();
        Person {
            number,
            token,
            node: number % nodes.len(),
            nodes,
            board,
            book: Book::default(),
            inbox: None,
            room: None,
            pending: None,
            due: EVERY.map(|every| now + every.mul_f64(fastrand::f64())),
            next_request: SIGN_IN,
        }
    }

    /// Comes, and comes back, until the demo is over.
    pub(super) fn run(mut self) -> Book {
        let mut attempts = 0u32;
        loop {
            attempts += 1;
            let end = match self.sign_in() {
                Ok(line) => {
                    let began = Instant::now();
                    let end = self.talk(line);
                    if began.elapsed() >= GOOD_AFTER {
                        attempts = 0;
                    }
                    end
                }
                Err(end) => end,
            };
            self.seat().node.store(0, Relaxed);
            let back_off = (BACK_OFF * 2u32.saturating_pow(attempts.min(8))).min(BACK_OFF_MAX).mul_f64(fastrand::f64());
            let wait = match end {
                End::Over => break,
                End::Goodbye(after) if attempts == 0 => after,
                End::Goodbye(after) => after.max(back_off),
                End::Lost => back_off,
            };
            self.rest(wait);
            // One of the others.
            let others = self.nodes.len().saturating_sub(1).max(1);
            self.node = (self.node + 1 + fastrand::usize(..others)) % self.nodes.len();
        }
        self.book.unanswered = u32::from(self.pending.is_some());
        self.book
    }

    fn seat(&self) -> &Seat {
        &self.board.seats[self.number]
    }

    fn rest(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.board.over.load(Relaxed) {
            std::thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Connects, signs in and joins the room, from where this person was.
    fn sign_in(&mut self) -> Result<Line, End> {
        if self.board.over.load(Relaxed) {
            return Err(End::Over);
        }
        let address = self.nodes[self.node];
        let stream = Stream::connect_to_any(&[address], None).map_err(|_| End::Lost)?;
        let mut line = Line { stream, encoder: Encoder::default(), out: Vec::new(), awaited: 2, signed_in_ms: 0 };
        let connect = ConnectRequest {
            request: SIGN_IN,
            token: &self.token,
            device: "phone",
            client: concat!("ringgate-demo/", env!("CARGO_PKG_VERSION")),
            inbox: self.inbox,
            rooms: &[(ROOM, self.room).into()],
            ..ConnectRequest::default()
        };
        line.encoder.connect(&mut line.out, &connect);
        let deadline = Instant::now() + ANSWER_WITHIN;
        while line.awaited > 0 {
            self.exchange(&mut line)?;
            if Instant::now() > deadline {
                return Err(End::Lost);
            }
        }
        self.seat().sessions.fetch_add(1, Relaxed);
        self.seat().node.store(self.node + 1, Relaxed);
        if let Some(pending) = &mut self.pending {
            // Its answer may have been lost with the connection.
            (pending.is_sent, pending.at) = (false, Instant::now());
            self.board.repeated.fetch_add(1, Relaxed);
        }
        Ok(line)
    }

    /// Writes and reads until the connection ends.
    fn talk(&mut self, mut line: Line) -> End {
        loop {
            if self.board.over.load(Relaxed) {
                Encoder::empty(&mut line.out, Kind::Disconnect);
                // The gateway sees the end in any case.
                let _ = line.stream.send(&line.out);
                return End::Over;
            }
            if let Err(end) = self.write(&mut line).and_then(|()| self.exchange(&mut line)) {
                return end;
            }
        }
    }

    /// Puts down what is due to be published.
    fn write(&mut self, line: &mut Line) -> Result<(), End> {
        let now = Instant::now();
        if self.pending.is_none() && self.board.writing.load(Relaxed) {
            let place = Place::ALL.into_iter().find(|place| self.due[*place as usize] <= now);
            if let Some(place) = place {
                self.due[place as usize] = now + EVERY[place as usize];
                let number = self.book.written[place as usize];
                self.pending = Some(Pending { place, number, request: 0, at: now, is_sent: false });
                self.board.unanswered.fetch_add(1, Relaxed);
            }
        }
        let people = self.board.seats.len();
        match &mut self.pending {
            Some(pending) if pending.is_sent && pending.at <= now => return Err(End::Lost),
            Some(pending) if !pending.is_sent && pending.at <= now => {
                self.next_request += 1;
                (pending.request, pending.at, pending.is_sent) = (self.next_request, now + ANSWER_WITHIN, true);
                let topic = match pending.place {
                    Place::Inbox => format!("@{}", user((self.number + 1) % people)),
                    Place::Room => ROOM.to_owned(),
                };
                let payload = pending.number.to_string();
                let id = u64::from(pending.number) << 1 | pending.place as u64;
                let publish = PublishRequest {
                    request: pending.request,
                    topic: &topic,
                    client_message_id: ClientMessageId { high: self.number as u64 + 1, low: id + 1 },
                    payload: payload.as_bytes(),
                    ..PublishRequest::default()
                };
                line.encoder.publish(&mut line.out, &publish);
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends what was put down, and takes in what has come.
    fn exchange(&mut self, line: &mut Line) -> Result<(), End> {
        if !line.out.is_empty() {
            // What the gateway has said about the end may be there to be read.
            let _ = line.stream.send(&line.out);
            line.out.clear();
        }
        let is_open = line.stream.fill(TICK).map_err(|_| End::Lost)?;
        let inbox = self.inbox;
        let Line { stream, out, awaited, signed_in_ms, .. } = line;
        while let Some(raw) = stream.next_frame().map_err(|error| self.lost(&error))? {
            match ServerFrame::parse(raw).map_err(|error| self.lost(error.label()))? {
                ServerFrame::Connected(connected) => {
                    *awaited -= 1;
                    *signed_in_ms = connected.server_time_ms();
                    if self.inbox.is_some() && !connected.inbox_recovered() {
                        self.trouble("could not bring what was missed in the inbox");
                    }
                }
                ServerFrame::Subscribed(subscribed) => {
                    *awaited = awaited.saturating_sub(1);
                    match self.room {
                        Some(_) if !subscribed.recovered() => {
                            self.trouble("could not bring what was missed in the room")
                        }
                        Some(_) => {}
                        None => self.room = subscribed.start().map(Position::from),
                    }
                }
                ServerFrame::Message(message) => self.read(&message, *signed_in_ms),
                ServerFrame::Published(published) => {
                    if let Some(pending) = self.pending.take_if(|pending| pending.request == published.request) {
                        let place = pending.place as usize;
                        self.book.written[place] += 1;
                        self.board.written[place].fetch_add(1, Relaxed);
                        self.board.unanswered.fetch_sub(1, Relaxed);
                    }
                }
                ServerFrame::Error(error) if error.request() == SIGN_IN => {
                    // The room: everything that is missed meanwhile is brought when it takes this person in.
                    return Err(End::Goodbye(Duration::from_millis(error.retry_after_ms().into())));
                }
                ServerFrame::Error(error) => {
                    if !error.temporary() {
                        self.trouble(&format!("refused a message: {}", error.message().unwrap_or_default()));
                    }
                    let pending = self.pending.as_mut().filter(|pending| pending.request == error.request());
                    if let Some(pending) = pending {
                        let wait = Duration::from_millis(error.retry_after_ms().max(100).into());
                        (pending.is_sent, pending.at) = (false, Instant::now() + wait);
                    }
                }
                ServerFrame::Ping => Encoder::empty(out, Kind::ClientPong),
                ServerFrame::Goodbye(goodbye) => {
                    if !goodbye.reconnect() {
                        self.trouble(&format!("sent it away for good: {}", goodbye.reason().unwrap_or_default()));
                    }
                    self.board.sent_away.fetch_add(1, Relaxed);
                    return Err(End::Goodbye(Duration::from_millis(goodbye.after_ms().into())));
                }
                // It asks for none of these, and who comes and goes is not counted.
                ServerFrame::Pong
                | ServerFrame::Unsubscribed(_)
                | ServerFrame::PresenceResult(_)
                | ServerFrame::HistoryResult(_)
                | ServerFrame::Refreshed(_)
                | ServerFrame::Joined(_)
                | ServerFrame::Left(_) => {}
            }
        }
        if let Some(position) = self.inbox.filter(|_| self.inbox != inbox) {
            Encoder::ack(out, position);
        }
        if is_open { Ok(()) } else { Err(End::Lost) }
    }

    fn read(&mut self, message: &Message<'_>, signed_in_ms: u64) {
        let stamp = message.stamp().map(Stamp::from).unwrap_or_default();
        let is_inbox = message.topic().is_some_and(|topic| topic.starts_with('@'));
        let (place, known) = if is_inbox { (Place::Inbox, &mut self.inbox) } else { (Place::Room, &mut self.room) };
        let at = stamp.position;
        if known.is_some_and(|known| known.epoch == at.epoch && at.offset <= known.offset) {
            return;
        }
        *known = Some(at);
        let payload = message.payload().map(|payload| payload.bytes()).unwrap_or_default();
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        let writer = message.sender().and_then(number_of);
        let (Some(number), Some(writer)) = (number, writer) else {
            self.trouble("sent a message that nobody has written");
            return;
        };
        self.book.read.entry((place, writer)).or_default().push(number);
        self.board.read.fetch_add(1, Relaxed);
        if stamp.timestamp_ms < signed_in_ms && self.seat().sessions.load(Relaxed) > 0 {
            self.board.brought.fetch_add(1, Relaxed);
        }
    }

    fn lost(&self, error: &str) -> End {
        self.trouble(error);
        End::Lost
    }

    fn trouble(&self, text: &str) {
        self.board.trouble(format!("{}: node {} {text}", user(self.number), self.node + 1));
    }
}

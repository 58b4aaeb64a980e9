//! One signed-in client on every shard that takes no part in the load and pings: what others do must not delay it. After
//! the load the same clients write to each other, which shows when the gateway is itself again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgate_core::id::{ClientMessageId, Stamp};
use ringgate_core::wire::encode::PublishRequest;
use ringgate_core::wire::{Encoder, Kind, RawFrame, ServerFrame};

use super::line::{Ended, Line};
use super::tally::Tally;

/// What was seen; shared with the thread.
#[derive(Default)]
pub(super) struct Seen {
    /// Longest wait for a Pong, also one that has not come yet, in microseconds.
    pub(super) pong_us: AtomicU64,
    /// Longest time that this thread was kept from looking, in microseconds: a Pong may look that much later than it was.
    pub(super) late_us: AtomicU64,
    /// Write to each other.
    probing: AtomicBool,
    /// When the first round began in which everything was quick, in microseconds since probing began, plus one; 0 before.
    recovered_us: AtomicU64,
}

/// The thread and what it has seen.
pub(super) struct Bystanders {
    pub(super) seen: Arc<Seen>,
    thread: JoinHandle<()>,
}

/// Pings of an idle client.
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// A message and a Pong that take less are as they should be.
const QUICK: Duration = Duration::from_millis(100);
/// Connections tried until every shard has one: the kernel deals them out by a hash.
const ATTEMPTS_PER_SHARD: usize = 64;
const NAP: Duration = Duration::from_millis(1);

impl Bystanders {
    /// `token` makes a token for a user. All of them are signed in when this returns.
    pub(super) fn start(
        gateway: SocketAddr,
        shards: usize,
        token: impl Fn(&str) -> Result<String, String>,
        tally: Arc<Tally>,
    ) -> Result<Bystanders, String> {
        // Nobody is sent what it writes itself, so there are two on a single shard.
        let mut found: Vec<Option<Bystander>> = (0..shards.max(2)).map(|_| None).collect();
        for attempt in 0..shards * ATTEMPTS_PER_SHARD {
            if found.iter().all(Option::is_some) {
                break;
            }
            let user = format!("bystander{attempt:04}");
            let line = Line::sign_in(gateway, &token(&user)?, &[])?;
            let shard = line.shard();
            let index = if shards == 1 { shard + attempt } else { shard };
            let place = found.get_mut(index).ok_or_else(|| format!("a session says that it is on shard {shard}"))?;
            if place.is_none() {
                *place =
                    Some(Bystander { line, user, asked: None, pinged: Instant::now(), sent: None, refused: false });
            }
        }
        let found: Vec<_> = found.into_iter().flatten().collect();
        if found.len() < shards.max(2) {
            return Err(format!("only {} of {shards} shards accepted a bystander", found.len()));
        }
        let seen = Arc::<Seen>::default();
        let mut standing = Standing { all: found, seen: seen.clone(), tally, messages: 0 };
        let thread = std::thread::Builder::new().name("bystanders".to_owned()).spawn(move || standing.run());
        Ok(Bystanders { seen, thread: thread.map_err(|error| format!("a thread: {error}"))? })
    }

    /// Forgets what was seen so far.
    pub(super) fn forget(&self) {
        self.seen.pong_us.store(0, Relaxed);
        self.seen.late_us.store(0, Relaxed);
    }

    /// From now on they write to each other until that is quick.
    pub(super) fn probe(&self) {
        self.seen.recovered_us.store(0, Relaxed);
        self.seen.probing.store(true, Relaxed);
    }

    /// When it was, since [`Self::probe`].
    pub(super) fn recovered(&self) -> Option<Duration> {
        let us = self.seen.recovered_us.load(Relaxed);
        us.checked_sub(1).map(Duration::from_micros)
    }

    /// After the tally was stopped.
    pub(super) fn join(self) {
        let _ = self.thread.join();
    }
}

struct Bystander {
    line: Line,
    user: String,
    /// When the Ping that waits for its Pong was sent.
    asked: Option<Instant>,
    /// When the last Ping was sent.
    pinged: Instant,
    /// Number of the message of this round, until it has arrived or was refused.
    sent: Option<u64>,
    /// The message of this round was refused.
    refused: bool,
}

struct Standing {
    all: Vec<Bystander>,
    seen: Arc<Seen>,
    tally: Arc<Tally>,
    messages: u64,
}

/// A round: everybody writes to the next and pings.
struct Round {
    began: Instant,
}

impl Standing {
    fn run(&mut self) {
        let (mut looked, mut probing_since, mut round) = (Instant::now(), None, None::<Round>);
        while !self.tally.stopped() {
            let now = Instant::now();
            self.seen.late_us.fetch_max((now - looked).as_micros() as u64, Relaxed);
            looked = now;
            if self.seen.probing.load(Relaxed) {
                let since = *probing_since.get_or_insert(now);
                round = self.probe(since, round, now);
            } else {
                (probing_since, round) = (None, None);
            }
            for index in 0..self.all.len() {
                self.ping(index, round.is_some(), now);
                self.exchange(index);
            }
            std::thread::sleep(NAP);
        }
    }

    /// Looks whether the round has ended and was quick, and begins the next.
    fn probe(&mut self, since: Instant, round: Option<Round>, now: Instant) -> Option<Round> {
        if let Some(round) = round {
            if self.all.iter().any(|one| one.sent.is_some() || one.asked.is_some()) {
                return Some(round);
            }
            // It has ended at the latest when this thread sees that. A gateway that still refuses is not quick.
            if now - round.began < QUICK && !self.all.iter().any(|one| one.refused) {
                let us = (round.began - since).as_micros() as u64;
                self.seen.recovered_us.store(us + 1, Relaxed);
                self.seen.probing.store(false, Relaxed);
                return None;
            }
        } else if self.all.iter().any(|one| one.asked.is_some()) {
            // A Ping of the load is still unanswered: nothing is quick yet.
            return None;
        }
        for index in 0..self.all.len() {
            self.messages += 1;
            let to = format!("@{}", self.all.get((index + 1) % self.all.len()).map_or("", |next| &next.user));
            let Some(one) = self.all.get_mut(index) else { continue };
            let request = PublishRequest {
                request: 1,
                topic: &to,
                client_message_id: ClientMessageId { high: index as u64 + 1, low: self.messages },
                payload: b"how are you?",
                ..PublishRequest::default()
            };
            Encoder::default().publish(&mut one.line.out, &request);
            (one.sent, one.refused) = (Some(self.messages), false);
            Encoder::empty(&mut one.line.out, Kind::Ping);
            (one.asked, one.pinged) = (Some(now), now);
        }
        Some(Round { began: now })
    }

    fn ping(&mut self, index: usize, probing: bool, now: Instant) {
        let Some(one) = self.all.get_mut(index) else { return };
        if let Some(asked) = one.asked {
            self.seen.pong_us.fetch_max((now - asked).as_micros() as u64, Relaxed);
        } else if !probing && now - one.pinged >= PING_INTERVAL {
            Encoder::empty(&mut one.line.out, Kind::Ping);
            (one.asked, one.pinged) = (Some(now), now);
        }
    }

    fn exchange(&mut self, index: usize) {
        let Some(one) = self.all.get_mut(index) else { return };
        let (mut ponged, mut position, mut arrived, mut refused) = (false, None, 0, false);
        let ended = one.line.exchange(
            |kind| kind == Kind::Message,
            |kind, body| match kind {
                Kind::Pong => ponged = true,
                Kind::Error => refused = true,
                Kind::Message => {
                    arrived += 1;
                    if let Ok(ServerFrame::Message(message)) = ServerFrame::parse(RawFrame { kind, body }) {
                        position = message.stamp().map(|stamp| Stamp::from(stamp).position);
                    }
                }
                _ => {}
            },
        );
        if ponged && let Some(asked) = one.asked.take() {
            self.seen.pong_us.fetch_max(asked.elapsed().as_micros() as u64, Relaxed);
        }
        if refused {
            (one.sent, one.refused) = (None, true);
        }
        if let Some(position) = position {
            Encoder::ack(&mut one.line.out, position);
        }
        let count = self.all.len();
        if arrived > 0
            && let Some(sender) = self.all.get_mut((index + count - 1) % count)
        {
            sender.sent = None;
        }
        if let Err(Ended(code)) = ended {
            self.tally.close(code);
            self.tally.fault(format!("the bystander of shard {index} was closed with code {code}"));
            self.tally.stop();
        }
    }
}

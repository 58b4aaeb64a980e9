//! Clients that keep to the rules beside those that do not: two on every shard, one plain, one over TLS. Each writes to the
//! next one and to a room of all, and pings. Everything comes whole, once, in order, and in time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgate_core::wire::Kind;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_net::dial::{Stream, Trust, Url};

use super::remote::Remote;
use crate::support::{Client, Frame, Login, wait_until};

const ROOM: &str = "calm:lobby";
const PAUSE: Duration = Duration::from_millis(5);
/// What the protocol lets a client take for a dead connection, by default.
const PONG_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module. They go on in a thread of their own until [`Innocents::finish`].
pub(super) struct Innocents {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    /// Held for a round.
    turn: Arc<Mutex<()>>,
    thread: JoinHandle<Duration>,
}

struct Innocent {
    client: Client,
    name: String,
    /// Offsets of the room and of the inbox that came last.
    room: u64,
    inbox: u64,
}

impl Innocents {
    /// Signs them in, two to a shard.
    pub(super) fn start(remote: &Remote) -> Innocents {
        let mut everybody = Vec::new();
        for transport in ["plain", "tls"] {
            let mut of_shard: BTreeMap<usize, Client> = BTreeMap::new();
            // A client that came to a shard that has one stays connected: the next would often come there, too.
            let mut spare = Vec::new();
            while of_shard.len() < remote.shards {
                let before = remote.figures();
                let (tls, address) = if transport == "tls" { (true, remote.tls) } else { (false, remote.plain) };
                let url = Url { host: "127.0.0.1".into(), port: address.port(), others: Vec::new(), tls };
                let client = Client::over(Stream::connect(&url, Trust::Anybody).unwrap());
                let mut shard = None;
                wait_until("the connection is accepted", || {
                    let now = remote.figures();
                    let grown = |number: &usize| {
                        let name = format!("accepted_{number}");
                        now[&name] > before[&name]
                    };
                    shard = (0..remote.shards).find(grown);
                    shard.is_some()
                });
                match of_shard.entry(shard.unwrap()) {
                    std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(client)),
                    std::collections::btree_map::Entry::Occupied(_) => spare.push(client),
                }
                assert!(spare.len() < 60, "no connection came to some shard");
            }
            for (shard, mut client) in of_shard {
                let name = format!("innocent-{transport}-{shard}");
                client.sign_in(&Login::user(&name));
                client.subscribe(ROOM);
                everybody.push(Innocent { client, name, room: 0, inbox: 0 });
            }
            drop(spare);
            let connections = everybody.len() as i64;
            wait_until("the spare ones are gone", || remote.figure("connections") == connections);
        }
        let (stop, rounds, turn) = (Arc::default(), Arc::default(), Arc::new(Mutex::new(())));
        let (stopped, counted, turns): (Arc<AtomicBool>, Arc<AtomicU64>, _) =
            (Arc::clone(&stop), Arc::clone(&rounds), Arc::clone(&turn));
        let thread = std::thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let number = counted.load(Ordering::Relaxed);
                let held = turns.lock().unwrap();
                slowest = slowest.max(round(&mut everybody, number));
                drop(held);
                counted.store(number + 1, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
            slowest
        });
        let innocents = Innocents { stop, rounds, turn, thread };
        innocents.go_on();
        innocents
    }

    /// Waits until they have done some more rounds, from now on.
    pub(super) fn go_on(&self) {
        let wanted = self.rounds.load(Ordering::Relaxed) + 6;
        wait_until("innocent clients go on", || {
            assert!(!self.thread.is_finished(), "innocent clients were disturbed");
            self.rounds.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Between two rounds, until the guard is dropped: what they have sent has come, and is acknowledged.
    pub(super) fn rest(&self) -> MutexGuard<'_, ()> {
        assert!(!self.thread.is_finished(), "innocent clients were disturbed");
        self.turn.lock().expect("innocent clients were not disturbed")
    }

    /// Stops them; returns the longest that one waited for a Pong.
    pub(super) fn finish(self) -> Duration {
        self.go_on();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("innocent clients were not disturbed")
    }
}

/// Each pings, writes to the next one and to the room, then reads what all have written. Returns the longest wait for a Pong.
fn round(everybody: &mut [Innocent], number: u64) -> Duration {
    let names: Vec<String> = everybody.iter().map(|innocent| innocent.name.clone()).collect();
    // All texts are of one length.
    let text = |to: &str, name: &str| format!("{name:>20} to {to:>20}, {number:>10}");
    let next = |at: usize| names[(at + 1) % names.len()].as_str();
    for (at, Innocent { client, name, .. }) in everybody.iter_mut().enumerate() {
        for topic in [format!("@{}", next(at)), ROOM.to_owned()] {
            let payload = text(&topic, name);
            client.send_publish(PublishRequest { topic: &topic, payload: payload.as_bytes(), ..Default::default() });
        }
    }
    let mut slowest = Duration::ZERO;
    for (at, Innocent { client, name, room, inbox }) in everybody.iter_mut().enumerate() {
        let pinged = Instant::now();
        client.send_empty(Kind::Ping);
        client.take_pong();
        slowest = slowest.max(pinged.elapsed());
        assert!(slowest <= PONG_TIMEOUT, "{name}: a Pong after {slowest:?}");
        for _ in 0..2 {
            client.take("Published", |frame| match frame {
                Frame::Published(published) => Some(published.request),
                Frame::Refused(refusal) => panic!("{name} was refused: {refusal:?}"),
                Frame::Goodbye(goodbye) => panic!("{name} was closed: {goodbye:?}"),
                _ => None,
            });
        }
        let from = names[(at + names.len() - 1) % names.len()].as_str();
        let (own, mut wanted) = (format!("@{name}"), Vec::new());
        wanted.extend(names.iter().map(|from| text(ROOM, from)));
        let mut said = Vec::new();
        for _ in 0..=names.len() {
            let message = client.message();
            let place = message.stamp.position;
            if message.topic == own {
                assert_eq!(message.text(), text(&own, from));
                assert_eq!(place.offset, *inbox + 1, "{name}: offsets of the inbox");
                *inbox = place.offset;
                client.ack(place);
            } else {
                assert!(*room == 0 || place.offset == *room + 1, "{name}: {} after {room} in the room", place.offset);
                *room = place.offset;
                said.push(message.text());
            }
        }
        // Whose message came first is chance.
        said.sort();
        wanted.sort();
        assert_eq!(said, wanted, "{name}: what was said in the room");
        assert!(client.kept().is_empty(), "{name} got what nobody asked for: {:?}", client.kept());
    }
    slowest
}

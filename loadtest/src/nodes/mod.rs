//! `cargo demo --nodes 3`: several gateways on one Redis, one of which is killed and one drained while people chat.
//!
//! | file | what |
//! |---|---|
//! | `redis` | a Redis server of the demo's own |
//! | `person` | a client that knows all nodes, comes back by itself and resumes |
//! | `book` | what was written and read, and the verdict |

mod book;
mod person;
mod redis;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringgate_auth::{Signer, TokenSpec};

use crate::gateway::{Gateway, find_program};
use crate::{Outcome, console, interrupt};
use book::{Book, Verdict, judge};
use person::{Board, Person, ROOM, user};
use redis::{Redis, free_port};

/// So many come to each node at first.
const PEOPLE_PER_NODE: usize = 10;
/// The chat before and after something happens.
const CHAT: Duration = Duration::from_millis(2_500);
/// How long anything may take before the demo gives up: to come, to come back, to arrive.
const PATIENCE: Duration = Duration::from_secs(15);
/// After the last message has come: a second copy would be right behind.
const AFTERMATH: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(5);
const ATTEMPTS: usize = 5;

/// Tells the story with so many nodes, and judges it.
pub(crate) fn run(nodes: usize) -> Result<Outcome, String> {
    interrupt::listen()?;
    let folder = Folder::new()?;
    let mut story = match Story::begin(nodes, &folder.0) {
        Err(_) if interrupt::asked() => return ended_early(),
        begun => begun?,
    };
    let told = story.tell();
    let (board, books) = story.end();
    match told {
        Err(_) if interrupt::asked() => return ended_early(),
        told => told?,
    }
    conclude(&judge(&books), &board)
}

fn ended_early() -> Result<Outcome, String> {
    console::note("ended early, as it was asked to; its gateways, its Redis and its files are gone");
    Ok(Outcome::Failed)
}

/// The text of the error is not shown: [`run`] looks at [`interrupt::asked`] first.
fn check_interrupt() -> Result<(), String> {
    if interrupt::asked() { Err("interrupted".to_owned()) } else { Ok(()) }
}

struct Story {
    began: Instant,
    program: PathBuf,
    /// What a node's file says, but for its name, number and address.
    config: String,
    folder: PathBuf,
    nodes: Vec<Option<Gateway>>,
    addresses: Arc<Vec<SocketAddr>>,
    /// The number that the next node gets.
    next_number: usize,
    board: Arc<Board>,
    people: Vec<JoinHandle<Book>>,
    /// Dropped behind the gateways.
    _redis: Redis,
}

impl Story {
    /// Starts Redis, the nodes and the people.
    fn begin(count: usize, folder: &Path) -> Result<Story, String> {
        // Before anything else: without it there is nothing to show.
        let redis = Redis::start(folder)?;
        let began = Instant::now();
        let program = find_program()?;
        console::print(&format!(
            "Redis {} on {}, which writes every message down (appendonly yes)",
            redis.version, redis.address
        ))?;
        let secret = format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
        let mut story = Story {
            began,
            program,
            config: config(&secret, redis.address),
            folder: folder.to_owned(),
            nodes: Vec::new(),
            addresses: Arc::default(),
            next_number: 1,
            board: Arc::new(Board::new(count * PEOPLE_PER_NODE)),
            people: Vec::new(),
            _redis: redis,
        };
        let mut addresses = Vec::new();
        for node in 0..count {
            let (gateway, address) = story.start_anywhere(node)?;
            console::print(&format!(
                "node {} on tcp://{address}, a gateway of its own: process {}",
                node + 1,
                gateway.process().0
            ))?;
            story.nodes.push(Some(gateway));
            addresses.push(address);
        }
        story.addresses = Arc::new(addresses);
        story.invite(&secret)?;
        Ok(story)
    }

    fn start_anywhere(&mut self, node: usize) -> Result<(Gateway, SocketAddr), String> {
        let mut failure = String::new();
        // Another program may take a port between the look at it and the start.
        for _ in 0..ATTEMPTS {
            check_interrupt()?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            match self.start(node, address) {
                Ok(gateway) => return Ok((gateway, address)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn start(&mut self, node: usize, address: SocketAddr) -> Result<Gateway, String> {
        let file = self.folder.join(format!("node{}.toml", node + 1));
        let text = format!(
            "[node]\nname = \"node{}\"\nnumber = {}\n[[listeners]]\naddress = \"{address}\"\n{}",
            node + 1,
            self.next_number,
            self.config
        );
        self.next_number += 1;
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        let log = file.with_extension("log");
        let output = std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        Gateway::configured_apart(&self.program, &file, output).map_err(|error| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            format!("node {}: {error}: {}", node + 1, said.lines().last().unwrap_or("it said nothing"))
        })
    }

    /// Lets everybody come, each to the next node.
    fn invite(&mut self, secret: &str) -> Result<(), String> {
        let signer = Signer::from_key(secret.as_bytes(), None, None)?;
        let issued_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for number in 0..self.board.seats.len() {
            let spec = TokenSpec { user: user(number), issued_at, ttl_seconds: 3600, ..TokenSpec::default() };
            let person = Person::new(number, signer.sign(&spec)?, self.addresses.clone(), self.board.clone());
            let thread = std::thread::Builder::new().name(user(number)).spawn(move || person.run());
            self.people.push(thread.map_err(|error| format!("a thread for a client: {error}"))?);
        }
        self.wait("everybody to sign in", |board| board.seats.iter().all(|seat| seat.node.load(Relaxed) > 0))?;
        console::print(&format!(
            "{} people know these addresses and have come: {}.\n\
             Each writes to the next one's inbox, wherever that one is, and to the room {ROOM}, where all of them are.\n\n",
            self.people.len(),
            self.seating()
        ))
    }

    fn tell(&mut self) -> Result<(), String> {
        self.board.writing.store(true, Relaxed);
        self.chat(CHAT)?;
        self.kill(1)?;
        self.chat(CHAT)?;
        self.start_again(1)?;
        self.chat(CHAT / 2)?;
        self.drain(self.nodes.len() - 1)?;
        self.chat(CHAT)?;
        self.board.writing.store(false, Relaxed);
        let people = self.people.len() as u64;
        self.wait("everything to arrive", |board| {
            let [inbox, room] = [0, 1].map(|place| board.written[place].load(Relaxed));
            board.unanswered.load(Relaxed) == 0 && board.read.load(Relaxed) >= inbox + room * people
        })
        // What is missing then is counted as lost.
        .or_else(|_| check_interrupt())?;
        self.pause(AFTERMATH)?;
        self.say("everybody has stopped writing, and what was under way has arrived")
    }

    fn chat(&self, length: Duration) -> Result<(), String> {
        let counts = || {
            let board = &self.board;
            (board.written.iter().map(|count| count.load(Relaxed)).sum::<u64>(), board.read.load(Relaxed))
        };
        let before = counts();
        self.pause(length)?;
        let after = counts();
        self.say(&format!(
            "people chat: {} messages were stored, {} deliveries made",
            after.0 - before.0,
            after.1 - before.1
        ))
    }

    fn kill(&mut self, node: usize) -> Result<(), String> {
        let there = self.people_on(node);
        let sessions = self.sessions();
        let began = Instant::now();
        // Killed with SIGKILL, and waited for.
        drop(self.nodes[node].take());
        self.say(&format!(
            "node {} is killed (kill -9), and with it the connections of {} people",
            node + 1,
            there.len()
        ))?;
        self.await_return(&there, &sessions, began, "back-offs of up to a second")
    }

    fn start_again(&mut self, node: usize) -> Result<(), String> {
        let (began, address) = (Instant::now(), self.addresses[node]);
        let number = self.next_number;
        let gateway = self.start(node, address)?;
        self.nodes[node] = Some(gateway);
        self.say(&format!(
            "node {} runs again after {} ms, as number {number}: the lease of its old number has not run out yet",
            node + 1,
            began.elapsed().as_millis()
        ))
    }

    fn drain(&mut self, node: usize) -> Result<(), String> {
        let there = self.people_on(node);
        let (sessions, away) = (self.sessions(), self.board.sent_away.load(Relaxed));
        let began = Instant::now();
        self.say(&format!(
            "node {} is asked to end (SIGTERM), as for an update: it tells its {} people when to come back elsewhere",
            node + 1,
            there.len()
        ))?;
        let in_order = self.nodes[node].take().is_none_or(Gateway::stop);
        if !in_order {
            return Err(format!("node {} did not end in order", node + 1));
        }
        self.await_return(&there, &sessions, began, "what the Goodbyes had told them to wait")?;
        let told = self.board.sent_away.load(Relaxed) - away;
        self.say(&format!("node {} has ended in order; {told} of {} people had a Goodbye", node + 1, there.len()))
    }

    /// Waits until these people have signed in again.
    fn await_return(&self, people: &[usize], sessions: &[u32], began: Instant, wait: &str) -> Result<(), String> {
        let brought = self.board.brought.load(Relaxed);
        let repeated = self.board.repeated.load(Relaxed);
        self.wait("everybody to come back", |board| {
            people.iter().all(|person| {
                let seat = &board.seats[*person];
                seat.node.load(Relaxed) > 0 && seat.sessions.load(Relaxed) > sessions[*person]
            })
        })?;
        let took = began.elapsed().as_millis();
        // What the last of them had missed follows its sign-in.
        self.pause(AFTERMATH)?;
        self.say(&format!(
            "all {} are back, the last one after {took} ms, {wait} included: {}",
            people.len(),
            self.seating()
        ))?;
        self.say(&format!(
            "{} messages that had come meanwhile were brought to them; {} that had no answer were sent again",
            self.board.brought.load(Relaxed) - brought,
            self.board.repeated.load(Relaxed) - repeated
        ))
    }

    fn people_on(&self, node: usize) -> Vec<usize> {
        let seats = self.board.seats.iter().enumerate();
        seats.filter(|(_, seat)| seat.node.load(Relaxed) == node + 1).map(|(person, _)| person).collect()
    }

    fn sessions(&self) -> Vec<u32> {
        self.board.seats.iter().map(|seat| seat.sessions.load(Relaxed)).collect()
    }

    /// How many are where.
    fn seating(&self) -> String {
        let on = |node| format!("{} on node {}", self.people_on(node).len(), node + 1);
        (0..self.nodes.len()).filter(|node| self.nodes[*node].is_some()).map(on).collect::<Vec<_>>().join(", ")
    }

    fn pause(&self, length: Duration) -> Result<(), String> {
        let until = Instant::now() + length;
        while Instant::now() < until {
            check_interrupt()?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits for a condition. The error says what has not happened.
    fn wait(&self, what: &str, condition: impl Fn(&Board) -> bool) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        while !condition(&self.board) {
            check_interrupt()?;
            if Instant::now() > until {
                return Err(format!("waited {} s for {what}: {}", PATIENCE.as_secs(), self.seating()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn say(&self, text: &str) -> Result<(), String> {
        console::print(&format!("{:5.1} s  {text}", self.began.elapsed().as_secs_f64()))
    }

    /// Lets everybody go, and returns what they have seen.
    fn end(self) -> (Arc<Board>, Vec<Book>) {
        self.board.over.store(true, Relaxed);
        let books = self.people.into_iter().map(|person| person.join().unwrap_or_default()).collect();
        (self.board, books)
    }
}

/// A node's configuration, but for its name, number and address.
fn config(secret: &str, redis: SocketAddr) -> String {
    format!(
        "[runtime]\nshards = 1\npin_cores = false\nconnections_per_shard_max = 1024\n\
         [[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n\
         [[namespaces]]\nname = \"chat\"\nhistory_size = 10000\n\
         [log]\nengine = \"redis\"\n[redis]\naddress = \"{redis}\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n[logging]\nlevel = \"error\"\n"
    )
}

fn conclude(verdict: &Verdict, board: &Board) -> Result<Outcome, String> {
    let Verdict { written: [inbox, room], owed, delivered, lost, doubled, reordered, .. } = *verdict;
    let troubles = board.troubles.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    console::print(&format!(
        "\nAnswered with Published: {} messages, {inbox} to inboxes and {room} to the room.\n\
         Of the {owed} deliveries that these owe, {delivered} were made.\n\
         Lost: {lost}. Doubled: {doubled}. Out of order: {reordered}.",
        inbox + room
    ))?;
    for (count, what) in [(verdict.unanswered, "without an answer"), (verdict.misdelivered, "brought to somebody else")]
    {
        if count > 0 {
            console::print(&format!("Messages {what}: {count}."))?;
        }
    }
    troubles.iter().try_for_each(|trouble| console::print(trouble))?;
    if verdict.is_clean() && troubles.is_empty() {
        console::print("Nothing is missing. docs/redis.md says how to set this up for real.")?;
        return Ok(Outcome::Good);
    }
    Ok(Outcome::Failed)
}

/// Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, String> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("ringgate-demo-{:016x}", fastrand::u64(..)));
        // The key of the tokens lies there.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

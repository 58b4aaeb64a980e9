//! A schedule: shards, mailboxes and engines that go on at random, and the clients.
//!
//! | file | what |
//! |---|---|
//! | `clients` | what clients do |
//! | `machinery` | what the shell does: letters, tokens, sockets, the engine, time |
//! | `end` | everything calms down, and nothing may be missing |

mod clients;
mod end;
mod machinery;

use ringgate_core::id::Recover;
use ringgate_core::limits::{self, Namespace, Settings};
use ringgate_sim::{Engine, Mailboxes, Random, Storage, Tokens as Verifying, World};

use crate::device::Device;
use crate::ledger::{JUMP_MS, Ledger};
use crate::promises;
use crate::tokens::Tokens;

const ROOMS: [&str; 7] =
    ["chat:one", "chat:two", "quiet:three", "guarded:four", "guarded:five", "loose:six", "nowhere:seven"];

pub(crate) struct Schedule {
    pub(crate) world: World,
    pub(crate) random: Random,
    pub(crate) mailboxes: Mailboxes,
    engines: Vec<Engine>,
    /// Until when a shard does not read its mail, in monotonic milliseconds.
    jammed: Vec<u64>,
    connections: u64,
    pub(crate) devices: Vec<Device>,
    pub(crate) ledger: Ledger,
    tokens: Tokens,
    /// Logs are so short that they lose messages.
    trims: bool,
    /// The wall clock is set at times.
    jumps: bool,
    /// How many letters a shard is told to wait for each one that does: full ways are then explored, too.
    weight: usize,
    /// The node is killed at times.
    restarts: bool,
    /// Tokens that are given out do not end any more.
    calm: bool,
    pub(crate) engines_did: EngineCounts,
}

/// What engines did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EngineCounts {
    /// Messages that were stored.
    pub(crate) stored: u64,
    pub(crate) failures: u64,
    /// Topics loaded, and times that messages were read.
    pub(crate) read: u64,
    /// Nodes that ended and were started again.
    pub(crate) restarts: u64,
    /// Messages of inboxes that left memory.
    pub(crate) unloaded: u64,
}

impl EngineCounts {
    pub(crate) fn add(&mut self, other: EngineCounts) {
        let EngineCounts { stored, failures, read, restarts, unloaded } = other;
        self.stored += stored;
        self.failures += failures;
        self.read += read;
        self.restarts += restarts;
        self.unloaded += unloaded;
    }
}

fn settings(random: &mut Random) -> Settings {
    let mut settings = Settings::default();
    settings.client.outbox_bytes_max = 1500 + random.below(8000);
    settings.client.outbox_messages_max = 4 + random.below(40);
    settings.client.message_bytes_max = 1200;
    settings.client.messages_rate = 0;
    settings.client.bytes_rate = 0;
    settings.client.write_timeout_ms = 20_000;
    settings.client.requests_in_flight_max = 4 + random.below(60);
    settings.inbox.in_flight_max = 1 + random.below(20) as u64;
    settings.inbox.ack_wait_ms = 2_000;
    settings.inbox.ack_wait_ms_max = 8_000;
    settings.inbox.publish_all = !random.one_in(4);
    settings.namespaces = vec![
        Namespace {
            history_size: 10_000,
            join_leave: random.one_in(2),
            echo: !random.one_in(3),
            ..Namespace::named("chat")
        },
        Namespace { history_size: 10_000, vanish_when_empty: true, ..Namespace::named("quiet") },
        Namespace { history_size: 10_000, subscribe_all: false, publish_all: false, ..Namespace::named("guarded") },
        Namespace { history_size: 0, presence: false, publish_without_subscribe: true, ..Namespace::named("loose") },
    ];
    settings
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Schedule {
        Schedule::with(seed, |_| {})
    }

    /// A schedule with settings that do not depend on the seed.
    pub(crate) fn with(seed: u64, change: impl FnOnce(&mut Settings)) -> Schedule {
        let mut random = Random::new(seed);
        let mut settings = settings(&mut random);
        let trims = random.one_in(5);
        if trims {
            // Logs that lose: what is gone must be announced, not hidden.
            for namespace in settings.namespaces.iter_mut().filter(|namespace| namespace.history_size > 0) {
                namespace.history_size = 1 + random.below(12);
            }
            if random.one_in(2) {
                settings.inbox.messages_max = 1 + random.below(30);
            }
        }
        if promises::LOSSES_ARE_TOLD_UNTIL_HEARD && seed % 3 == 1 {
            // Devices are forgotten for each other, and must be told what they lost.
            settings.inbox.devices_max = 1;
        }
        if seed % 3 == 2 {
            settings.engine = limits::Engine::Store;
        }
        // What an engine with a disk does with these is not known to the ledger.
        let is_memory = settings.engine == limits::Engine::Memory;
        settings.inbox.copy_to_own_devices = is_memory && random.one_in(3);
        // Repetitions are known within a schedule, however old.
        settings.dedup_window_ms = JUMP_MS / 4;
        let ages = is_memory && !trims && random.one_in(3);
        for namespace in &mut settings.namespaces {
            // Logs grow old, and rooms in which nobody is are forgotten.
            namespace.history_ttl_ms = if ages { 500 + random.below(4_000) as u64 } else { JUMP_MS };
        }
        if ages {
            settings.topic_ttl_ms = 500 + random.below(2_000) as u64;
            settings.inbox.ttl_ms = 4_000 + random.below(10_000) as u64;
            if random.one_in(2) {
                settings.inbox.device_ttl_ms = 1_000 + random.below(10_000) as u64;
            }
        }
        let weight = if random.one_in(4) { 400 } else { 1 };
        let (jumps, restarts) = (is_memory && random.one_in(2), is_memory && random.one_in(3));
        change(&mut settings);
        let count = 1 + random.below(4);
        let mut world = World::seeded(count, settings, seed);
        world.storage = Storage::WhenAsked;
        world.tokens = Verifying::WhenAsked;
        let mut devices = Vec::new();
        let users = 2 + random.below(6);
        for user in 0..users {
            for device in 0..1 + random.below(2) {
                devices.push(Device::new(&format!("user{user}"), &format!("device{device}")));
            }
        }
        Schedule {
            ledger: Ledger::new(world.settings.clone(), random.one_in(2), ages),
            world,
            mailboxes: Mailboxes::new(count, 1 + random.below(24)),
            engines: (0..count).map(|_| Engine::default()).collect(),
            jammed: vec![0; count],
            connections: 0,
            devices,
            tokens: Tokens::new(users),
            trims,
            jumps,
            weight,
            restarts,
            calm: false,
            engines_did: EngineCounts::default(),
            random,
        }
    }

    pub(crate) fn step(&mut self) {
        let index = self.random.below(self.devices.len());
        let room = ROOMS[self.random.below(ROOMS.len())];
        let may_ask = self.may_ask(index);
        match self.random.below(24) {
            0 => self.connect(index),
            1 if self.devices[index].connection.is_none() => self.connect(index),
            1 if self.random.one_in(4) => self.cut(index),
            2..=4 if may_ask => self.join_or_leave(index, room),
            5..=7 if may_ask => {
                let to = self.random.below(self.devices.len());
                let topic = format!("@{}", self.devices[to].user);
                let ephemeral = self.random.one_in(8);
                self.publish(index, &topic, ephemeral);
            }
            8..=9 if may_ask => {
                let joined: Vec<String> = self.devices[index].rooms.keys().cloned().collect();
                let joined = joined.get(self.random.below(joined.len())).filter(|_| !self.random.one_in(4));
                let room = joined.map_or(room, |joined| joined);
                let ephemeral = self.random.one_in(8);
                self.publish(index, room, ephemeral);
            }
            10 => self.repeat(index),
            11 if may_ask => self.repeat_needlessly(index),
            12 if self.devices[index].connection.is_some() => {
                self.devices[index].stalled = self.random.one_in(2);
            }
            13 => self.devices[index].forgetful = self.random.one_in(3),
            14 => {
                let ms = if self.random.one_in(20) { 9_000 } else { self.random.below(400) as u64 };
                self.world.pass(ms);
            }
            22 => match self.random.below(12) {
                0 => self.stand_still(),
                1 if self.jumps => self.jump(),
                2 if self.restarts => self.restart_from_nothing(),
                _ => {}
            },
            15 | 16 if may_ask => self.history(index),
            17 if may_ask => {
                let limit = self.random.below(5) as u32;
                self.ask_presence(index, room, limit);
            }
            18 if may_ask => self.refresh(index),
            19 => {
                let shard = self.random.below(self.world.shards.len());
                self.jammed[shard] = self.now_ms() + self.random.below(1500) as u64;
            }
            // Long enough for topics that nobody uses to leave memory.
            20 if self.is_stored() && self.random.one_in(10) => self.world.pass(31_000),
            21 if self.is_stored() && self.random.one_in(15) => self.restart(),
            _ => {}
        }
        self.shuffle(4);
    }

    fn is_stored(&self) -> bool {
        self.world.settings.engine != limits::Engine::Memory
    }

    /// The node ends without a word, and is started again with what its engine has stored.
    fn restart(&mut self) {
        self.engines_did.restarts += 1;
        self.engines_did.unloaded += self.world.sum(|metrics| &metrics.inbox_unloaded);
        self.world.pass(100 + self.random.below(3_000) as u64);
        self.mailboxes.clear();
        self.engines.iter_mut().for_each(Engine::crash);
        self.jammed.fill(0);
        self.world.restart();
        self.ledger.on_restart();
        for device in &mut self.devices {
            device.lost(&self.ledger);
        }
        self.distribute();
    }

    pub(crate) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            self.world.check();
        }
        self.calm_down();
    }
}

/// What a subscriber wishes to be brought when the log does not reach back.
fn recover(random: &mut Random) -> Recover {
    if random.one_in(3) { Recover::Best } else { Recover::Exact }
}

//! The engine of ringgate that nodes share: logs, devices and news in Redis.
//!
//! It does what `ringgate_core::shard::Effect` asks an engine for and answers with the events of `ringgate_core::shard::Event`, on a
//! thread of its own, for all shards of a node. Redis puts the messages of a topic in order; every node with interest in the topic hears
//! of each over pub/sub, which is a hint: the stream is the truth. Redis 7.0 or newer, or a Valkey that says it is like that.
//!
//! [`connect`] first, before shards are made: it gives the seed that all nodes share. Then [`start`].

// Values and bytes
mod answer;
mod keys;
mod options;
mod record;
mod resp;
mod scripts;
mod slots;
mod status;

// What is known
mod command;
mod epochs;
mod nodes;
mod outbound;

// Connections
mod identity;
mod setup;
mod wire;

// The thread
mod engine;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::TrySendError;
use ringgate_core::limits::Settings;
use ringgate_core::shard::Asked;

pub use identity::{Identity, StartError, connect};
pub use options::{Options, Password, Server, Servers, Tls, WhenAway};
pub use outbound::Homes;
pub use setup::Facts;
pub use status::{Refuses, Status};

use engine::Bell;

/// What shards have asked for that waits for the engine's thread; shards that find it full ask again.
const ASKED_MAX: usize = 16 * 1024;

/// Where shards ask; one for each, or clones of one.
#[derive(Clone, Debug)]
pub struct Sender {
    asked: crossbeam_channel::Sender<Asked>,
    bell: Arc<Bell>,
}

impl Sender {
    /// Asks, or gives back what was asked if 16 384 wait already or the engine has stopped. What one shard asks for is done in its
    /// order; [`Self::wake`] follows.
    pub fn ask(&self, asked: Asked) -> Result<(), Asked> {
        self.asked.try_send(asked).map_err(|error| match error {
            TrySendError::Full(asked) | TrySendError::Disconnected(asked) => asked,
        })
    }

    /// Wakes the engine's thread: once after a number of [`Self::ask`].
    pub fn wake(&self) {
        self.bell.asked.notify_one();
    }
}

/// The engine's thread.
#[derive(Debug)]
pub struct Engine {
    sender: Sender,
    thread: Option<JoinHandle<()>>,
}

/// Starts the engine's thread. `settings` are those of the shards. Fails if there can be no thread.
pub fn start(
    options: Options,
    identity: Identity,
    settings: Arc<Settings>,
    homes: impl Homes,
    status: Arc<Status>,
) -> io::Result<Engine> {
    let (asks, asked) = crossbeam_channel::bounded(ASKED_MAX);
    let bell = Arc::new(Bell::default());
    let rung = bell.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("redis".to_owned()).spawn(move || {
        runtime.block_on(engine::run(options, identity, settings, homes, status, asked, rung));
    })?;
    Ok(Engine { sender: Sender { asked: asks, bell }, thread: Some(thread) })
}

impl Engine {
    /// Where shards ask.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Stops the thread once what was taken has been answered, in about 4 s at most, and waits for it.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.sender.bell.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, that was said where it did.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end();
    }
}

//! Whether the node takes clients: set by the server and by the watch, said by the admin listener.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use ringgate_core::limits::SHARDS_MAX;

/// How the node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not listening yet.
    Starting = 0,
    /// Accepting clients.
    Ready = 1,
    /// Sending clients away.
    Draining = 2,
}

/// The state, shared between the server and the admin listener.
#[derive(Debug, Default)]
pub struct Readiness {
    state: AtomicU8,
    /// Shards that stand still.
    pub still: StillShards,
}

impl Readiness {
    /// Changes the state.
    pub fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// The state now.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Draining,
        }
    }
}

/// Which shards stand still; written by the thread that watches, read by the admin listener.
#[derive(Debug, Default)]
pub struct StillShards([AtomicU64; SHARDS_MAX / 64]);

impl StillShards {
    /// A shard stands still, or goes on.
    pub(crate) fn set(&self, shard: usize, still: bool) {
        let Some(word) = self.0.get(shard / 64) else { return };
        match still {
            true => word.fetch_or(1 << (shard % 64), Ordering::Release),
            false => word.fetch_and(!(1 << (shard % 64)), Ordering::Release),
        };
    }

    /// Names the shards that stand still; none while all move.
    pub fn describe(&self) -> Option<String> {
        let words = self.0.iter().enumerate().map(|(index, word)| (index * 64, word.load(Ordering::Acquire)));
        let shards = words.flat_map(|(first, word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| (first + bit).to_string())
        });
        match shards.collect::<Vec<_>>().as_slice() {
            [] => None,
            [shard] => Some(format!("shard {shard} stands still\n")),
            shards => Some(format!("shards {} stand still\n", shards.join(", "))),
        }
    }
}

//! Shards that stand still: a thread of its own looks whether their turns go on.
//!
//! A shard makes two turns a second at least, however idle it is, and counts them. The thread counts its own looks
//! instead of asking the clock: while the whole process is stopped it does not look either, so a stopped and continued process
//! does not report its shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::readiness::Readiness;
use ringgate_core::metrics::{Cell, ShardMetrics};

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks in a row that see no turn, after which a shard stands still: five seconds.
const LOOKS_MAX: u32 = 20;

/// The thread; ends when dropped.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches shards that make turns already. The error is that of the thread.
    pub(crate) fn start(metrics: Arc<[Arc<ShardMetrics>]>, readiness: Arc<Readiness>) -> std::io::Result<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let mut looks = Looks::new(metrics.len());
            while !stopped.load(Ordering::Acquire) {
                std::thread::park_timeout(LOOK_EVERY);
                for (shard, turns) in metrics.iter().map(|metrics| &metrics.turns).map(Cell::read).enumerate() {
                    match looks.look(shard, turns) {
                        Some(true) => tracing::error!(shard, turns, "a shard stands still; the node is not ready"),
                        Some(false) => tracing::warn!(shard, turns, "a shard that stood still moves again"),
                        None => continue,
                    }
                    readiness.still.set(shard, looks.is_still(shard));
                }
            }
        })?;
        Ok(Watch { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// What was seen of each shard: its turns, and in how many looks they did not grow.
struct Looks(Vec<(u64, u32)>);

impl Looks {
    fn new(shards: usize) -> Looks {
        Looks(vec![(0, 0); shards])
    }

    /// Whether a shard that made so many turns stands still, if that has changed with this look.
    fn look(&mut self, shard: usize, turns: u64) -> Option<bool> {
        let was_still = self.is_still(shard);
        let (seen, looks) = self.0.get_mut(shard)?;
        *looks = if *seen == turns { looks.saturating_add(1) } else { 0 };
        *seen = turns;
        let is_still = self.is_still(shard);
        (is_still != was_still).then_some(is_still)
    }

    fn is_still(&self, shard: usize) -> bool {
        self.0.get(shard).is_some_and(|(_, looks)| *looks >= LOOKS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::StillShards;

    #[test]
    fn turns_do_not_grow_for_five_seconds_then_the_shard_stands_still_until_they_do() {
        let mut looks = Looks::new(2);
        for turn in 1..=LOOKS_MAX {
            assert_eq!((looks.look(0, 7), looks.look(1, turn.into())), (None, None), "look {turn}");
        }
        assert_eq!(looks.look(0, 7), Some(true));
        assert_eq!((looks.look(0, 7), looks.is_still(0), looks.is_still(1)), (None, true, false));
        assert_eq!((looks.look(0, 8), looks.is_still(0)), (Some(false), false));
        assert_eq!(LOOK_EVERY * LOOKS_MAX, Duration::from_secs(5));
    }

    #[test]
    fn shards_stand_still_then_each_is_named() {
        let still = StillShards::default();
        assert_eq!(still.describe(), None);
        still.set(3, true);
        assert_eq!(still.describe().as_deref(), Some("shard 3 stands still\n"));
        still.set(255, true);
        still.set(64, true);
        assert_eq!(still.describe().as_deref(), Some("shards 3, 64, 255 stand still\n"));
        [3, 64, 255].iter().for_each(|shard| still.set(*shard, false));
        assert_eq!(still.describe(), None);
    }
}

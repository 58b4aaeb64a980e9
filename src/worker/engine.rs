//! What a shard asks of the engine that keeps its messages: a bounded channel to the engine's thread, and what waits while it is full.
//! The engine answers through the shard's mailbox.

use std::collections::VecDeque;

use ringgate_core::id::ShardId;
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::shard::{Asked, Effect};

/// A bounded way to an engine's thread.
pub trait Asks: Send {
    /// Hands it over, or gives it back while there is no room.
    fn ask(&self, asked: Asked) -> Result<(), Asked>;

    /// Wakes the thread.
    fn wake(&self);
}

/// See the module.
pub struct EngineEnd {
    shard: ShardId,
    way: Box<dyn Asks>,
    /// In order.
    waiting: VecDeque<Effect>,
}

/// While so much waits, what is answered by nobody is left out: messages in no log, and states of topics, whose loss causes
/// repetitions alone. The core bounds what else it asks for.
const WAITING_MAX: usize = 16 * 1024;

impl EngineEnd {
    /// The end of one shard.
    pub fn new(shard: ShardId, way: Box<dyn Asks>) -> Self {
        EngineEnd { shard, way, waiting: VecDeque::new() }
    }

    /// Whether the engine has everything that it was asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.waiting.push_back(effect);
    }

    /// Hands over what has come together in a turn, as far as there is room, and wakes the engine once.
    pub(super) fn send(&mut self, metrics: &ShardMetrics) {
        if self.waiting.is_empty() {
            return;
        }
        while let Some(effect) = self.waiting.pop_front() {
            if let Err(Asked { effect, .. }) = self.way.ask(Asked { shard: self.shard, effect }) {
                self.waiting.push_front(effect);
                break;
            }
        }
        if self.waiting.len() > WAITING_MAX {
            let before = self.waiting.len();
            self.waiting.retain(|effect| !matches!(effect, Effect::Relay { .. } | Effect::Cursor { .. }));
            metrics.relayed_dropped.add((before - self.waiting.len()) as u64);
        }
        self.way.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ringgate_core::shard::Origin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Way {
        asks: crossbeam_channel::Sender<Asked>,
        woken: Arc<AtomicUsize>,
    }

    impl Asks for Way {
        fn ask(&self, asked: Asked) -> Result<(), Asked> {
            self.asks.try_send(asked).map_err(crossbeam_channel::TrySendError::into_inner)
        }

        fn wake(&self) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unload(topic: &str) -> Effect {
        Effect::Unload { topic: topic.into() }
    }

    fn topic_of(asked: Asked) -> String {
        match asked.effect {
            Effect::Unload { topic } | Effect::Relay { topic, .. } => topic.to_string(),
            effect => panic!("{effect:?}"),
        }
    }

    #[test]
    fn engine_has_no_room_then_the_rest_waits_in_its_order_and_the_engine_is_woken_once_a_turn() {
        let (asks, asked) = crossbeam_channel::bounded(2);
        let (woken, metrics) = (Arc::new(AtomicUsize::new(0)), ShardMetrics::default());
        let mut end = EngineEnd::new(ShardId(3), Box::new(Way { asks, woken: woken.clone() }));
        ["a", "b", "c"].map(unload).into_iter().for_each(|effect| end.push(effect));
        end.send(&metrics);
        assert_eq!((end.is_empty(), woken.load(Ordering::Relaxed)), (false, 1));
        let mut got: Vec<_> = asked.try_iter().map(topic_of).collect();
        end.send(&metrics);
        got.extend(asked.try_iter().map(topic_of));
        assert_eq!((got.as_slice(), end.is_empty()), (&["a", "b", "c"].map(String::from)[..], true));
    }

    #[test]
    fn engine_takes_nothing_for_long_then_what_nobody_answers_is_left_out_and_the_rest_stays() {
        let (asks, asked) = crossbeam_channel::bounded(1);
        let metrics = ShardMetrics::default();
        let mut end = EngineEnd::new(ShardId(0), Box::new(Way { asks, woken: Arc::default() }));
        end.push(unload("first"));
        end.push(unload("second"));
        for _ in 0..WAITING_MAX {
            let origin = Origin { run: 1, session: 0 };
            end.push(Effect::Relay { topic: "chat:a".into(), frame: Bytes::new(), origin });
        }
        end.send(&metrics);
        assert_eq!(metrics.relayed_dropped.read(), WAITING_MAX as u64);
        let mut got: Vec<_> = asked.try_iter().map(topic_of).collect();
        end.send(&metrics);
        got.extend(asked.try_iter().map(topic_of));
        assert_eq!(got, ["first", "second"]);
    }
}

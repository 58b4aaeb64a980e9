//! The bounded send queue of a connection: a control lane that goes first, and a lane of messages.
//!
//! Subscribed and Unsubscribed travel in the lane of messages, although they are replies: overtaking the room's
//! messages, they would make them look like those of another membership.
//!
//! An empty outbox owns nothing. Control frames (replies, Pong, Goodbye) are bytes back to back; messages are shared
//! by reference count with every other recipient and with the log. Nothing is ever written to a socket here: the
//! shell pulls. Invariant: `data_bytes` is the sum of the lengths of the queued messages.

use std::collections::VecDeque;

use bytes::Bytes;

/// A message on its way to one connection.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The whole frame.
    pub frame: Bytes,
    /// When it was published, or that it is not timed.
    pub arrival: Arrival,
}

/// From when the way of a [`Delivery`] is timed, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival(u64);

// One for each member of a room that has not read a message yet.
const _: () = assert!(size_of::<Delivery>() == size_of::<Bytes>() + 8);

impl Arrival {
    /// A message out of a log, or an event: how long it took says nothing.
    pub const UNTIMED: Arrival = Arrival(0);
    /// No message, but a reply that keeps its place among them.
    pub const REPLY: Arrival = Arrival(u64::MAX);

    /// A message that was published at these monotonic microseconds.
    pub fn at(us: u64) -> Self {
        Arrival(us.clamp(1, u64::MAX - 1))
    }

    /// Whether it is a reply, which no figure of messages counts.
    #[inline]
    pub fn is_reply(self) -> bool {
        self == Self::REPLY
    }

    /// Microseconds from the Publish until then; none if it is not timed.
    pub fn elapsed_us(self, now_us: u64) -> Option<u64> {
        (self != Self::UNTIMED && self != Self::REPLY).then(|| now_us.saturating_sub(self.0))
    }
}

/// What [`Outbox::pull`] hands to the shell.
#[derive(Debug)]
pub enum Chunk {
    /// Whole control frames, back to back.
    Control(Vec<u8>),
    /// One message.
    Data(Delivery),
}

impl Chunk {
    /// What goes over the wire.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Control(control) => control,
            Chunk::Data(delivery) => &delivery.frame,
        }
    }
}

/// Bounds of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Bytes in the lane of messages.
    pub bytes_max: usize,
    /// Messages in it.
    pub frames_max: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    queues: Option<Box<Queues>>,
}

/// The memory of an outbox that is not empty; shards keep spare ones.
#[derive(Debug, Default)]
pub struct Queues {
    control: Vec<u8>,
    data: VecDeque<Delivery>,
    data_bytes: usize,
    /// How many of `data` are replies.
    replies: usize,
    /// When the peer last took something, or the first entry came: monotonic ms.
    progress_ms: u64,
}

/// Spare queues, so that the first frame of an idle connection allocates nothing.
#[derive(Debug, Default)]
pub struct Spares {
    #[expect(clippy::vec_box, reason = "what an outbox holds is a box: eight bytes while it is empty")]
    queues: Vec<Box<Queues>>,
    control: Vec<Vec<u8>>,
}

/// As many as one turn of a busy shard fills.
const SPARES_MAX: usize = 1024;
/// Capacity that a spare may keep.
const SPARE_CONTROL_BYTES_MAX: usize = 1024;
const SPARE_FRAMES_MAX: usize = 32;
/// A reply, or a few.
const CONTROL_BYTES_FIRST: usize = 128;
impl Spares {
    /// Takes the memory of a sent control chunk.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.control.len() < SPARES_MAX && (1..=SPARE_CONTROL_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.control.push(buffer);
        }
    }
}

impl Outbox {
    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queues.is_none()
    }

    /// Bytes waiting in both lanes.
    pub fn bytes(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.data_bytes + queues.control.len())
    }

    /// Bytes of messages waiting.
    pub fn data_bytes(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.data_bytes)
    }

    /// Messages waiting; replies among them do not count.
    pub fn frames(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.data.len() - queues.replies)
    }

    /// Monotonic ms since when nothing has left; none when nothing waits.
    pub fn stalled_since_ms(&self) -> Option<u64> {
        self.queues.as_ref().map(|queues| queues.progress_ms)
    }

    /// The peer has taken something.
    pub fn progressed(&mut self, now_ms: u64) {
        if let Some(queues) = &mut self.queues {
            queues.progress_ms = now_ms;
        }
    }

    fn queues(&mut self, spares: &mut Spares, now_ms: u64) -> &mut Queues {
        self.queues.get_or_insert_with(|| {
            let mut queues = spares.queues.pop().unwrap_or_default();
            queues.progress_ms = now_ms;
            queues
        })
    }

    /// The control lane, to append whole frames to.
    pub fn control(&mut self, spares: &mut Spares, now_ms: u64) -> &mut Vec<u8> {
        let queues = self.queues(spares, now_ms);
        if queues.control.capacity() == 0 {
            queues.control = spares.control.pop().unwrap_or_else(|| Vec::with_capacity(CONTROL_BYTES_FIRST));
        }
        &mut queues.control
    }

    /// Bytes of control frames waiting.
    pub fn control_bytes(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.control.len())
    }

    /// Replies waiting among the messages.
    pub fn replies(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.replies)
    }

    /// Whether another message of this length fits. An empty lane takes any.
    #[inline]
    pub fn has_room(&self, bytes: usize, limits: OutboxLimits) -> bool {
        self.queues.as_ref().is_none_or(|queues| {
            queues.data.is_empty()
                || (queues.data_bytes + bytes <= limits.bytes_max && queues.data.len() < limits.frames_max)
        })
    }

    /// Whether so many messages or bytes of them wait.
    #[inline]
    pub fn holds(&self, frames: usize, bytes: usize) -> bool {
        self.queues.as_ref().is_some_and(|queues| queues.data.len() >= frames || queues.data_bytes >= bytes)
    }

    /// Whether at least half of the bounds is free again: time to bring what a lagging topic is missing.
    pub fn is_drained(&self, limits: OutboxLimits) -> bool {
        self.data_bytes() <= limits.bytes_max / 2 && self.frames() <= limits.frames_max / 2
    }

    /// Appends a message; the caller has asked [`Self::has_room`].
    #[inline]
    pub fn push(&mut self, delivery: Delivery, spares: &mut Spares, now_ms: u64) {
        let queues = self.queues(spares, now_ms);
        queues.data_bytes += delivery.frame.len();
        queues.replies += usize::from(delivery.arrival.is_reply());
        queues.data.push_back(delivery);
    }

    /// The next thing to send: all control frames first, then one message at a time.
    pub fn pull(&mut self, spares: &mut Spares, now_ms: u64) -> Option<Chunk> {
        let queues = self.queues.as_mut()?;
        queues.progress_ms = now_ms;
        let chunk = if queues.control.is_empty() {
            let delivery = queues.data.pop_front()?;
            queues.data_bytes -= delivery.frame.len();
            queues.replies -= usize::from(delivery.arrival.is_reply());
            Chunk::Data(delivery)
        } else {
            Chunk::Control(core::mem::take(&mut queues.control))
        };
        if queues.control.is_empty() && queues.data.is_empty() {
            self.release(spares);
        }
        Some(chunk)
    }

    /// Drops all messages and returns how many, and their bytes; control frames stay.
    pub fn drop_data(&mut self, spares: &mut Spares) -> (u64, usize) {
        let Some(queues) = self.queues.as_mut() else { return (0, 0) };
        let dropped = ((queues.data.len() - queues.replies) as u64, queues.data_bytes);
        queues.data.clear();
        queues.data_bytes = 0;
        queues.replies = 0;
        if queues.control.is_empty() {
            self.release(spares);
        }
        dropped
    }

    fn release(&mut self, spares: &mut Spares) {
        let Some(mut queues) = self.queues.take() else { return };
        queues.data.clear();
        queues.data_bytes = 0;
        queues.replies = 0;
        spares.recycle(core::mem::take(&mut queues.control));
        if spares.queues.len() < SPARES_MAX && queues.data.capacity() <= SPARE_FRAMES_MAX {
            spares.queues.push(queues);
        }
    }

    /// Panics when the structure is broken; for tests.
    pub fn invariants(&self) {
        if let Some(queues) = &self.queues {
            assert_eq!(queues.data.iter().map(|delivery| delivery.frame.len()).sum::<usize>(), queues.data_bytes);
            assert!(!queues.data.is_empty() || !queues.control.is_empty(), "an empty outbox owns queues");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(bytes: usize) -> Delivery {
        Delivery { frame: Bytes::from(vec![0; bytes]), arrival: Arrival::UNTIMED }
    }

    #[test]
    fn arrival_is_timed_then_it_is_neither_a_reply_nor_untimed() {
        for us in [0, 1, 500, u64::MAX] {
            let arrival = Arrival::at(us);
            assert!(!arrival.is_reply() && arrival != Arrival::UNTIMED, "{us}");
        }
        assert_eq!(Arrival::at(500).elapsed_us(700), Some(200));
        assert_eq!(Arrival::at(500).elapsed_us(400), Some(0));
        assert_eq!((Arrival::UNTIMED.elapsed_us(700), Arrival::REPLY.elapsed_us(700)), (None, None));
        assert!(Arrival::REPLY.is_reply());
    }

    #[test]
    fn control_frames_wait_then_they_go_first_and_an_empty_outbox_owns_nothing() {
        let mut spares = Spares::default();
        let mut outbox = Outbox::default();
        outbox.push(delivery(10), &mut spares, 5);
        outbox.control(&mut spares, 6).extend_from_slice(b"pong");
        assert_eq!(outbox.stalled_since_ms(), Some(5));
        outbox.invariants();
        assert!(matches!(outbox.pull(&mut spares, 7), Some(Chunk::Control(bytes)) if bytes == b"pong"));
        assert_eq!(outbox.stalled_since_ms(), Some(7));
        assert!(matches!(outbox.pull(&mut spares, 7), Some(Chunk::Data(d)) if d.frame.len() == 10));
        assert!(outbox.is_empty());
        assert!(outbox.pull(&mut spares, 7).is_none());
        assert_eq!(spares.queues.len(), 1);
    }

    #[test]
    fn outbox_is_at_a_bound_then_it_has_no_room_but_an_empty_one_always_has() {
        let limits = OutboxLimits { bytes_max: 100, frames_max: 3 };
        let mut spares = Spares::default();
        let mut outbox = Outbox::default();
        assert!(outbox.has_room(1000, limits));
        outbox.push(delivery(60), &mut spares, 0);
        assert!(!outbox.has_room(41, limits));
        assert!(outbox.has_room(40, limits));
        outbox.push(delivery(1), &mut spares, 0);
        outbox.push(delivery(1), &mut spares, 0);
        assert!(!outbox.has_room(1, limits));
        assert_eq!(outbox.drop_data(&mut spares), (3, 62));
        assert!(outbox.is_empty());
    }

    fn reply(bytes: usize) -> Delivery {
        Delivery { arrival: Arrival::REPLY, ..delivery(bytes) }
    }

    #[test]
    fn bytes_or_messages_reach_their_bound_then_there_is_no_room() {
        let limits = OutboxLimits { bytes_max: 10, frames_max: 3 };
        let mut spares = Spares::default();
        let mut outbox = Outbox::default();
        outbox.push(delivery(6), &mut spares, 0);
        assert_eq!((outbox.has_room(4, limits), outbox.has_room(5, limits)), (true, false));
        // Nothing of its own would still fit into a lane that is full to the byte, up to the number of messages.
        outbox.push(delivery(4), &mut spares, 0);
        assert_eq!((outbox.has_room(0, limits), outbox.has_room(1, limits)), (true, false));
        outbox.push(reply(0), &mut spares, 0);
        assert!(!outbox.has_room(0, limits), "replies take a place, too");
        // Only control frames wait: the lane of messages is empty and takes any one of them.
        outbox.drop_data(&mut spares);
        outbox.control(&mut spares, 0).extend_from_slice(&[0; 20]);
        assert!(outbox.has_room(1000, limits));
    }

    #[test]
    fn exact_number_of_frames_or_bytes_is_there_then_the_outbox_holds_it() {
        let mut spares = Spares::default();
        let mut outbox = Outbox::default();
        assert!(!outbox.holds(0, 0), "an empty one holds nothing, not even none");
        outbox.push(delivery(30), &mut spares, 0);
        outbox.push(reply(20), &mut spares, 0);
        for (frames, bytes, holds) in
            [(2, 1000, true), (3, 50, true), (3, 51, false), (2, 50, true), (1000, 1000, false)]
        {
            assert_eq!(outbox.holds(frames, bytes), holds, "{frames} frames or {bytes} bytes");
        }
        assert_eq!((outbox.frames(), outbox.replies(), outbox.bytes(), outbox.data_bytes()), (1, 1, 50, 50));
    }

    #[test]
    fn half_of_both_bounds_is_free_then_the_outbox_is_drained() {
        let limits = OutboxLimits { bytes_max: 100, frames_max: 4 };
        let mut spares = Spares::default();
        let mut outbox = Outbox::default();
        assert!(outbox.is_drained(limits));
        outbox.push(delivery(25), &mut spares, 0);
        outbox.push(delivery(25), &mut spares, 0);
        assert!(outbox.is_drained(limits), "two of four messages, 50 of 100 bytes");
        outbox.push(reply(0), &mut spares, 0);
        assert!(outbox.is_drained(limits), "replies are no messages");
        outbox.push(delivery(0), &mut spares, 0);
        assert!(!outbox.is_drained(limits), "a third message");
        outbox.drop_data(&mut spares);
        outbox.push(delivery(51), &mut spares, 0);
        assert!(!outbox.is_drained(limits), "a byte more than half");
    }

    #[test]
    fn control_buffers_are_recycled_then_the_spare_ones_are_few_and_small() {
        let mut spares = Spares::default();
        // Nothing is gained by keeping a buffer without memory; a large one would keep it for good.
        spares.recycle(Vec::new());
        spares.recycle(Vec::with_capacity(SPARE_CONTROL_BYTES_MAX + 1));
        assert_eq!(spares.control.len(), 0);
        spares.recycle(vec![7]);
        spares.recycle(Vec::with_capacity(SPARE_CONTROL_BYTES_MAX));
        assert_eq!(spares.control.iter().map(Vec::capacity).collect::<Vec<_>>(), [1, SPARE_CONTROL_BYTES_MAX]);
        assert!(spares.control.iter().all(Vec::is_empty), "what was sent is not sent again");
        for _ in 0..SPARES_MAX {
            spares.recycle(Vec::with_capacity(1));
        }
        assert_eq!(spares.control.len(), SPARES_MAX);
        // The last one kept is the first one used, and it is used.
        spares.control.truncate(2);
        let mut outbox = Outbox::default();
        assert_eq!(outbox.control(&mut spares, 0).capacity(), SPARE_CONTROL_BYTES_MAX);
        assert_eq!(spares.control.len(), 1);
        spares.control.clear();
        assert_eq!(Outbox::default().control(&mut spares, 0).capacity(), CONTROL_BYTES_FIRST);
    }

    #[test]
    fn queues_are_released_then_the_spare_ones_are_few_and_small() {
        let mut spares = Spares::default();
        let emptied = |spares: &mut Spares, frames: usize| {
            let mut outbox = Outbox::default();
            outbox.queues(spares, 0).data = VecDeque::with_capacity(frames);
            outbox.push(delivery(1), spares, 0);
            assert!(outbox.pull(spares, 0).is_some() && outbox.is_empty());
        };
        emptied(&mut spares, SPARE_FRAMES_MAX + 1);
        assert_eq!(spares.queues.len(), 0);
        emptied(&mut spares, SPARE_FRAMES_MAX);
        assert_eq!(spares.queues.len(), 1);
        // It is taken again with nothing of its past in it.
        let mut outbox = Outbox::default();
        outbox.push(reply(3), &mut spares, 9);
        assert_eq!(spares.queues.len(), 0);
        assert_eq!((outbox.data_bytes(), outbox.replies(), outbox.stalled_since_ms()), (3, 1, Some(9)));
        let mut full: Vec<_> = (0..=SPARES_MAX).map(|_| Outbox::default()).collect();
        for outbox in &mut full {
            outbox.push(delivery(1), &mut spares, 0);
        }
        for outbox in &mut full {
            outbox.drop_data(&mut spares);
        }
        assert_eq!(spares.queues.len(), SPARES_MAX);
    }

    #[test]
    fn message_is_pulled_then_it_is_subtracted_from_every_count() {
        let mut spares = Spares::default();
        let mut outbox = Outbox::default();
        outbox.push(reply(5), &mut spares, 0);
        outbox.push(delivery(7), &mut spares, 0);
        outbox.control(&mut spares, 0).extend_from_slice(b"pong");
        assert_eq!((outbox.bytes(), outbox.control_bytes()), (16, 4));
        assert_eq!(outbox.pull(&mut spares, 1).map(|chunk| chunk.bytes().len()), Some(4));
        assert_eq!((outbox.bytes(), outbox.control_bytes(), outbox.replies()), (12, 0, 1));
        assert_eq!(outbox.pull(&mut spares, 2).map(|chunk| chunk.bytes().len()), Some(5));
        assert_eq!((outbox.data_bytes(), outbox.replies(), outbox.frames()), (7, 0, 1));
        outbox.progressed(3);
        assert_eq!(outbox.stalled_since_ms(), Some(3));
        outbox.invariants();
    }
}

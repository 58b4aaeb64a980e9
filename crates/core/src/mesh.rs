//! Mailboxes between shards: bounded, lock-free, with a doorbell that rings only for a sleeper.
//!
//! Every shard has one mailbox that all others push into, bounded by letters and by the bytes of heavy letters. A full
//! mailbox refuses and hands the letter back: the producer keeps it, in order, and the core refuses new work for that
//! shard while many wait. Nothing is lost and nobody blocks. Only letters to a shard that has ended, because it has
//! drained, are dropped.
//!
//! The doorbell protocol is the one that loom checks in `tests/mesh_loom.rs`: push; fence; ring only if the receiver
//! said that it sleeps. Receiver: say so; fence; look again; sleep.

use std::sync::Arc;

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, TrySendError};

/// Wakes a parked shard. The shell implements it with an eventfd; tests with a counter.
pub trait Wake: Send + Sync {
    /// Called at most once per time that the receiver fell asleep.
    fn wake(&self);
}

/// Whether a shard sleeps. See the module for the protocol.
#[derive(Debug, Default)]
pub struct Doorbell {
    sleeping: AtomicBool,
}

impl Doorbell {
    /// A doorbell of a shard that is awake.
    pub fn new() -> Self {
        Doorbell { sleeping: AtomicBool::new(false) }
    }

    /// Producer, after its push: whether it is the one who must wake the receiver.
    #[inline]
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel)
    }

    /// Receiver, before it looks into its mailbox for the last time: from now on it wants to be woken.
    #[inline]
    pub fn fall_asleep(&self) {
        // A swap, although nobody looks at what was there: it stands behind every producer's swap before it in an
        // order that loom can see, too. A sleep costs a system call; this is nothing beside it.
        self.sleeping.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Receiver, once it is awake again for whatever reason.
    #[inline]
    pub fn wake_up(&self) {
        self.sleeping.store(false, Ordering::Release);
    }
}

/// One shard's end of the mesh.
pub struct Mailbox<T> {
    receiver: Receiver<T>,
    peers: Vec<Peer<T>>,
    me: usize,
    /// Threads that this [`Self::ring`] has woken already: one wake is enough for all shards of a thread.
    awakened: Vec<bool>,
    weight_of: fn(&T) -> usize,
    heavy_bytes_max: usize,
}

/// A letter below this weighs nothing: the number of letters bounds such letters well enough, and a counter that two
/// cores write for each of them would cost as much as the push.
const HEAVY_BYTES: usize = 1024;

struct Peer<T> {
    sender: Sender<T>,
    /// Bytes of the heavy letters in its mailbox.
    heavy_bytes: Arc<AtomicUsize>,
    bell: Arc<Bell>,
    /// Which of `awakened` is this shard's thread.
    thread: usize,
    /// Pushed to since the last [`Mailbox::ring`].
    rung: bool,
}

struct Bell {
    doorbell: Doorbell,
    wake: Arc<dyn Wake>,
}

/// How much one mailbox takes.
pub struct Capacity<T> {
    /// Letters.
    pub letters: usize,
    /// Bytes of letters of 1 KiB and more; a single letter may be larger.
    pub bytes: usize,
    /// The bytes of a letter.
    pub weight_of: fn(&T) -> usize,
}

impl<T> Capacity<T> {
    /// A mailbox that counts letters only.
    pub fn letters(letters: usize) -> Self {
        Capacity { letters, bytes: usize::MAX, weight_of: |_| 0 }
    }
}

/// Makes the mailboxes of a node, one for each waker. Shards whose waker is the same sleep and wake together.
pub fn mailboxes<T>(wakers: Vec<Arc<dyn Wake>>, capacity: Capacity<T>) -> Vec<Mailbox<T>> {
    let first_of = |wake: &Arc<dyn Wake>| wakers.iter().position(|other| Arc::ptr_eq(other, wake)).unwrap_or(0);
    let threads: Vec<usize> = wakers.iter().map(first_of).collect();
    let bells = wakers.iter().map(|wake| Arc::new(Bell { doorbell: Doorbell::new(), wake: wake.clone() }));
    let bells: Vec<Arc<Bell>> = bells.collect();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        bells.iter().map(|_| crossbeam_channel::bounded(capacity.letters)).unzip();
    let heavy_bytes: Vec<Arc<AtomicUsize>> = bells.iter().map(|_| Arc::new(AtomicUsize::new(0))).collect();
    receivers
        .into_iter()
        .enumerate()
        .map(|(me, receiver)| Mailbox {
            receiver,
            me,
            peers: senders
                .iter()
                .zip(&heavy_bytes)
                .zip(bells.iter().zip(&threads))
                .map(|((sender, heavy_bytes), (bell, thread))| Peer {
                    sender: sender.clone(),
                    heavy_bytes: heavy_bytes.clone(),
                    bell: bell.clone(),
                    thread: *thread,
                    rung: false,
                })
                .collect(),
            awakened: vec![false; bells.len()],
            weight_of: capacity.weight_of,
            heavy_bytes_max: capacity.bytes,
        })
        .collect()
}

impl<T> Mailbox<T> {
    /// Puts a letter into another shard's mailbox, or hands it back when that is full. The receiver is woken by
    /// [`Self::ring`], once for everything that was pushed in a turn; a letter that is not `urgent` alone does not
    /// wake anybody, and is read at the receiver's next turn. A shard that has ended, which only a drain makes it do,
    /// needs no letters: what is for it is dropped.
    pub fn push(&mut self, to: usize, letter: T, urgent: bool) -> Result<(), T> {
        let Some(peer) = self.peers.get_mut(to) else { return Err(letter) };
        let weight = heavy((self.weight_of)(&letter));
        if weight > 0 {
            let before = peer.heavy_bytes.fetch_add(weight, Ordering::Relaxed);
            if before > 0 && before.saturating_add(weight) > self.heavy_bytes_max {
                peer.heavy_bytes.fetch_sub(weight, Ordering::Relaxed);
                peer.rung = true;
                return Err(letter);
            }
        }
        match peer.sender.try_send(letter) {
            Ok(()) => {
                peer.rung |= urgent;
                Ok(())
            }
            // Its receivers went with the shard; kept, it would keep this shard from ending, too.
            Err(TrySendError::Disconnected(_)) => {
                if weight > 0 {
                    peer.heavy_bytes.fetch_sub(weight, Ordering::Relaxed);
                }
                Ok(())
            }
            Err(TrySendError::Full(letter)) => {
                if weight > 0 {
                    peer.heavy_bytes.fetch_sub(weight, Ordering::Relaxed);
                }
                // A full mailbox with a sleeping owner would stay full.
                peer.rung = true;
                Err(letter)
            }
        }
    }

    /// Wakes every thread with a shard that was pushed to since the last call and sleeps. Returns how many were woken.
    pub fn ring(&mut self) -> usize {
        // First all doorbells, then the threads: one that is woken at once may read everything and sleep again, and a
        // doorbell of another of its shards that is silenced only then would keep it asleep.
        let mut woken = 0;
        for peer in &mut self.peers {
            if core::mem::take(&mut peer.rung) && peer.bell.doorbell.must_wake() {
                let awakened = self.awakened.get_mut(peer.thread);
                woken += usize::from(awakened.is_some_and(|awakened| !core::mem::replace(awakened, true)));
            }
        }
        if woken > 0 {
            for peer in &self.peers {
                if let Some(awakened) = self.awakened.get_mut(peer.thread)
                    && core::mem::take(awakened)
                {
                    peer.bell.wake.wake();
                }
            }
        }
        woken
    }

    /// The next letter for this shard.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let letter = self.receiver.try_recv().ok()?;
        let weight = heavy((self.weight_of)(&letter));
        if weight > 0
            && let Some(own) = self.peers.get(self.me)
        {
            own.heavy_bytes.fetch_sub(weight, Ordering::Relaxed);
        }
        Some(letter)
    }

    /// Announces sleep. False when a letter is there and the shard must not sleep.
    pub fn try_sleep(&self) -> bool {
        let Some(own) = self.peers.get(self.me) else { return true };
        own.bell.doorbell.fall_asleep();
        if self.receiver.is_empty() {
            return true;
        }
        own.bell.doorbell.wake_up();
        false
    }

    /// To be called after every sleep.
    pub fn wake_up(&self) {
        if let Some(own) = self.peers.get(self.me) {
            own.bell.doorbell.wake_up();
        }
    }

    /// Letters waiting for this shard.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether no letter waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

impl<T> Drop for Mailbox<T> {
    /// Letters that are left in it weigh nothing any more: what is for a shard that has ended must not wait for room.
    fn drop(&mut self) {
        if let Some(own) = self.peers.get(self.me) {
            own.heavy_bytes.store(0, Ordering::Relaxed);
        }
    }
}

/// What a letter of so many bytes counts for.
fn heavy(bytes: usize) -> usize {
    if bytes < HEAVY_BYTES { 0 } else { bytes }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Count(Arc<AtomicUsize>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn pair() -> (Mailbox<u32>, Mailbox<u32>, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let wakers: Vec<Arc<dyn Wake>> = vec![Arc::new(Count(Arc::default())), Arc::new(Count(woken.clone()))];
        let mut mailboxes = mailboxes(wakers, Capacity::letters(2));
        let second = mailboxes.pop().unwrap();
        (mailboxes.pop().unwrap(), second, woken)
    }

    #[test]
    fn a_full_mailbox_hands_the_letter_back() {
        let (mut a, mut b, _) = pair();
        assert_eq!(a.push(1, 1, true), Ok(()));
        assert_eq!(a.push(1, 2, true), Ok(()));
        assert_eq!(a.push(1, 3, true), Err(3));
        assert_eq!(b.pop(), Some(1));
        assert_eq!(a.push(1, 3, true), Ok(()));
        assert_eq!((b.pop(), b.pop(), b.pop()), (Some(2), Some(3), None));
    }

    #[test]
    fn heavy_letters_fill_a_mailbox_by_their_bytes() {
        let wakers: Vec<Arc<dyn Wake>> = (0..2).map(|_| Arc::new(Count(Arc::default())) as Arc<dyn Wake>).collect();
        let capacity = Capacity { letters: 100, bytes: 10_000, weight_of: |letter: &usize| *letter };
        let mut mailboxes = mailboxes(wakers, capacity);
        let (mut b, mut a) = (mailboxes.pop().unwrap(), mailboxes.pop().unwrap());
        assert_eq!(a.push(1, 50_000, true), Ok(()), "one letter always fits");
        assert_eq!(a.push(1, 2_000, true), Err(2_000));
        assert_eq!(a.push(1, 1_000, true), Ok(()), "light letters are bounded by their number alone");
        assert_eq!((b.pop(), b.pop()), (Some(50_000), Some(1_000)));
        for _ in 0..5 {
            assert_eq!(a.push(1, 2_000, true), Ok(()));
        }
        assert_eq!(a.push(1, 2_000, true), Err(2_000));
        assert_eq!(b.pop(), Some(2_000));
        assert_eq!(a.push(1, 2_000, true), Ok(()));
    }

    #[test]
    fn letters_for_a_shard_that_has_ended_are_dropped() {
        let (mut a, b, woken) = pair();
        drop(b);
        for letter in 0..5 {
            assert_eq!(a.push(1, letter, true), Ok(()));
        }
        assert_eq!((a.ring(), woken.load(Ordering::SeqCst)), (0, 0));
    }

    #[test]
    fn heavy_letters_for_a_shard_that_has_ended_are_dropped() {
        let wakers: Vec<Arc<dyn Wake>> = (0..2).map(|_| Arc::new(Count(Arc::default())) as Arc<dyn Wake>).collect();
        let mut mailboxes =
            mailboxes(wakers, Capacity { letters: 100, bytes: 10_000, weight_of: |letter: &usize| *letter });
        let (b, mut a) = (mailboxes.pop().unwrap(), mailboxes.pop().unwrap());
        assert_eq!((a.push(1, 9_000, true), a.push(1, 9_000, true)), (Ok(()), Err(9_000)));
        drop(b);
        for _ in 0..5 {
            assert_eq!(a.push(1, 9_000, true), Ok(()));
        }
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let (mut a, mut b, woken) = pair();
        a.push(1, 1, true).unwrap();
        assert_eq!(a.ring(), 0, "nobody sleeps");
        assert!(!b.try_sleep(), "there is a letter");
        b.pop();
        assert!(b.try_sleep());
        a.push(1, 2, true).unwrap();
        assert_eq!(a.ring(), 1);
        assert_eq!(a.ring(), 0);
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        b.wake_up();
        a.push(1, 3, true).unwrap();
        assert_eq!(a.ring(), 0, "awake again");
        b.pop();
        b.pop();
        assert!(b.try_sleep());
        a.push(1, 4, false).unwrap();
        assert_eq!(a.ring(), 0, "nothing urgent");
        a.push(1, 5, false).unwrap();
        assert_eq!(a.push(1, 6, false), Err(6));
        assert_eq!(a.ring(), 1, "a full mailbox is urgent");
    }

    #[test]
    fn shards_of_one_thread_are_woken_once() {
        let woken = Arc::new(AtomicUsize::new(0));
        let thread: Arc<dyn Wake> = Arc::new(Count(woken.clone()));
        let wakers = vec![Arc::new(Count(Arc::default())) as Arc<dyn Wake>, thread.clone(), thread];
        let mut mailboxes = mailboxes(wakers, Capacity::letters(4));
        let (mut c, mut b) = (mailboxes.pop().unwrap(), mailboxes.pop().unwrap());
        let mut a = mailboxes.pop().unwrap();
        for _ in 0..2 {
            assert!(b.try_sleep() && c.try_sleep());
            a.push(1, 1, true).unwrap();
            a.push(2, 2, true).unwrap();
            assert_eq!(a.ring(), 1);
            b.wake_up();
            c.wake_up();
            assert_eq!((b.pop(), c.pop()), (Some(1), Some(2)));
        }
        assert_eq!(woken.load(Ordering::SeqCst), 2);
    }

    /// A thread that reads everything and sleeps again before its waker has gone on.
    #[derive(Default)]
    struct Quick {
        bells: std::sync::Mutex<Vec<Arc<Bell>>>,
        woken: AtomicUsize,
    }

    impl Wake for Quick {
        fn wake(&self) {
            self.woken.fetch_add(1, Ordering::SeqCst);
            self.bells.lock().unwrap().iter().for_each(|bell| bell.doorbell.fall_asleep());
        }
    }

    #[test]
    fn a_thread_that_sleeps_again_at_once_is_woken_for_each_of_its_shards() {
        let thread = Arc::new(Quick::default());
        let wakers = vec![Arc::new(Count(Arc::default())) as Arc<dyn Wake>, thread.clone(), thread.clone()];
        let mut mailboxes = mailboxes(wakers, Capacity::letters(4));
        let mut a = mailboxes.remove(0);
        *thread.bells.lock().unwrap() = a.peers[1..].iter().map(|peer| peer.bell.clone()).collect();
        thread.wake();
        for round in 2..5 {
            a.push(1, 1, true).unwrap();
            a.push(2, 2, true).unwrap();
            assert_eq!(a.ring(), 1);
            assert_eq!(thread.woken.load(Ordering::SeqCst), round);
            assert!(mailboxes.iter_mut().all(|mailbox| mailbox.pop().is_some()));
        }
        for to in [1, 2] {
            a.push(to, 3, true).unwrap();
            assert_eq!(a.ring(), 1, "shard {to} sleeps and nobody wakes it");
        }
    }
}

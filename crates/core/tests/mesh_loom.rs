//! The doorbell of the mesh under loom: the interleavings of two producers and a receiver, with the memory model's
//! reorderings. The [`Doorbell`] is the real one of `src/mesh.rs`, on loom's atomics. Threads are preempted up to
//! three times (twice with more letters), which takes seconds; `LOOM_MAX_PREEMPTIONS=4` takes minutes.
//!
//! crossbeam's channel knows nothing of loom, so the mailbox is a model: one atomic cell for each letter, written
//! with release and read with acquire order. That promises less than crossbeam's queue, whose indices are
//! sequentially consistent; a lock would promise more, and would hide a missing fence. The eventfd is a model, too: a
//! counter with a condition variable. A receiver that sleeps when every producer has come to its end sleeps for ever,
//! and then a letter is left; the mutants show that the check can fail.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --package ringgate-core --release --test mesh_loom`.
#![cfg(loom)]

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use ringgate_core::mesh::Doorbell;

const PRODUCERS: usize = 2;
const EMPTY: usize = 0;
const FULL: usize = 1;

/// What the receiver and its producers share.
struct Shared<D> {
    /// Producer `p` writes its letters into `cells[p]`, one after the other.
    cells: Vec<Vec<AtomicUsize>>,
    doorbell: D,
    eventfd: Eventfd,
    slept: AtomicUsize,
    woken: AtomicUsize,
}

/// What can sleep and be woken: the real doorbell, or one without its fences.
trait Bell: Send + Sync + 'static {
    fn new() -> Self;
    fn must_wake(&self) -> bool;
    fn fall_asleep(&self);
    fn wake_up(&self);
}

/// A receiver, right or with one step of its protocol changed.
#[derive(Clone, Copy, PartialEq)]
enum Receiver {
    Right,
    /// Says that it sleeps, and does not look again.
    WithoutLookingAgain,
    /// Looks first and says so afterwards.
    LooksBeforeItSaysSo,
}

#[test]
fn no_letter_is_left_unread_while_the_receiver_sleeps() {
    explore::<Doorbell>(1, 3, Receiver::Right);
}

#[test]
fn one_ring_is_enough_for_all_letters_of_a_turn() {
    explore::<Doorbell>(2, 2, Receiver::Right);
}

/// The kernel signals the same eventfd for completions: a receiver that wakes for another reason loses no letter.
#[test]
fn a_receiver_that_wakes_by_itself_misses_nothing() {
    model(3, || {
        let shared = Shared::<Doorbell>::new(1, 1, 2);
        let (kernel, producer) = (shared.clone(), shared.clone());
        let threads = [
            thread::spawn(move || {
                kernel.eventfd.signal();
                kernel.eventfd.end();
            }),
            thread::spawn(move || producer.produce(0)),
        ];
        shared.receive(1, Receiver::Right);
        shared.check(threads);
    });
}

/// A letter pushed into a full mailbox is handed back, and rings all the same: its owner would sleep on otherwise,
/// and the mailbox stay full. Here it holds one letter that did not ring, such as an Ack.
#[test]
fn a_full_mailbox_wakes_its_owner() {
    model(3, || {
        let shared = Shared::<Doorbell>::new(1, 1, 1);
        let producer = shared.clone();
        let threads = [thread::spawn(move || {
            producer.cells[0][0].store(FULL, Ordering::Release);
            // The second letter finds no room.
            producer.ring();
            producer.eventfd.end();
        })];
        shared.receive(1, Receiver::Right);
        shared.check(threads);
    });
}

#[test]
#[should_panic(expected = "asleep for ever beside a letter")]
fn a_receiver_that_does_not_look_again_is_caught() {
    explore::<Doorbell>(1, 3, Receiver::WithoutLookingAgain);
}

#[test]
#[should_panic(expected = "asleep for ever beside a letter")]
fn a_receiver_that_looks_before_it_says_so_is_caught() {
    explore::<Doorbell>(1, 3, Receiver::LooksBeforeItSaysSo);
}

/// A producer may read an old "awake" while the receiver reads an old "no letter".
#[test]
#[should_panic(expected = "asleep for ever beside a letter")]
fn a_doorbell_without_fences_is_caught() {
    explore::<Fenceless>(1, 3, Receiver::Right);
}

/// Two producers may both wake the receiver that sleeps once.
#[test]
#[should_panic(expected = "woken 2 times, asleep once")]
fn a_doorbell_that_everybody_rings_is_caught() {
    explore::<Eager>(1, 3, Receiver::Right);
}

/// Explores with a bound on preemptions, or with that of the environment.
fn model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(run);
}

fn explore<D: Bell>(letters: usize, preemptions: usize, receiver: Receiver) {
    model(preemptions, move || {
        let shared = Shared::<D>::new(PRODUCERS, letters, PRODUCERS);
        let threads: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let shared = shared.clone();
                thread::spawn(move || shared.produce(producer))
            })
            .collect();
        shared.receive(PRODUCERS * letters, receiver);
        shared.check(threads);
    });
}

impl<D: Bell> Shared<D> {
    fn new(producers: usize, letters: usize, threads: usize) -> Arc<Self> {
        Arc::new(Shared {
            cells: (0..producers).map(|_| (0..letters).map(|_| AtomicUsize::new(EMPTY)).collect()).collect(),
            doorbell: D::new(),
            eventfd: Eventfd { state: Mutex::new((0, threads)), changed: Condvar::new() },
            slept: AtomicUsize::new(0),
            woken: AtomicUsize::new(0),
        })
    }

    /// A turn of a producer: pushes, then one ring for all.
    fn produce(&self, producer: usize) {
        for cell in &self.cells[producer] {
            cell.store(FULL, Ordering::Release);
        }
        self.ring();
        self.eventfd.end();
    }

    fn ring(&self) {
        if self.doorbell.must_wake() {
            self.woken.fetch_add(1, Ordering::Relaxed);
            self.eventfd.signal();
        }
    }

    /// Reads until `letters` have come, asleep whenever there are none.
    fn receive(&self, mut letters: usize, receiver: Receiver) {
        loop {
            letters -= self.read();
            if letters == 0 {
                return;
            }
            if self.try_sleep(receiver) {
                // Every letter is pushed by the time that nobody can signal any more, and not all have been read.
                assert!(self.eventfd.wait(), "asleep for ever beside a letter");
                self.doorbell.wake_up();
            }
        }
    }

    /// Takes what is there, in order, and returns how much that was.
    fn read(&self) -> usize {
        let mut read = 0;
        for cell in self.cells.iter().flatten() {
            if cell.load(Ordering::Acquire) == FULL {
                cell.store(EMPTY, Ordering::Relaxed);
                read += 1;
            }
        }
        read
    }

    fn is_empty(&self) -> bool {
        self.cells.iter().flatten().all(|cell| cell.load(Ordering::Acquire) == EMPTY)
    }

    /// `Mailbox::try_sleep`, and its mutants.
    fn try_sleep(&self, receiver: Receiver) -> bool {
        self.slept.fetch_add(1, Ordering::Relaxed);
        if receiver == Receiver::LooksBeforeItSaysSo {
            let empty = self.is_empty();
            self.doorbell.fall_asleep();
            return empty;
        }
        self.doorbell.fall_asleep();
        if receiver == Receiver::WithoutLookingAgain || self.is_empty() {
            return true;
        }
        self.doorbell.wake_up();
        false
    }

    fn check(&self, threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(self.is_empty());
        let (slept, woken) = (self.slept.load(Ordering::Relaxed), self.woken.load(Ordering::Relaxed));
        assert!(slept != 1 || woken <= 1, "woken {woken} times, asleep once");
        assert!(woken <= slept, "woken {woken} times, asleep {slept} times");
    }
}

/// Signals, and threads that may still signal.
struct Eventfd {
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Eventfd {
    fn signal(&self) {
        self.state.lock().unwrap().0 += 1;
        self.changed.notify_one();
    }

    /// The calling thread signals no more.
    fn end(&self) {
        self.state.lock().unwrap().1 -= 1;
        self.changed.notify_one();
    }

    /// Waits for a signal and takes all there are. False when none will ever come.
    fn wait(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        while state.0 == 0 && state.1 > 0 {
            state = self.changed.wait(state).unwrap();
        }
        core::mem::take(&mut state.0) > 0
    }
}

impl Bell for Doorbell {
    fn new() -> Self {
        Doorbell::new()
    }

    fn must_wake(&self) -> bool {
        self.must_wake()
    }

    fn fall_asleep(&self) {
        self.fall_asleep();
    }

    fn wake_up(&self) {
        self.wake_up();
    }
}

/// [`Doorbell`] without its two fences.
struct Fenceless(AtomicBool);

impl Bell for Fenceless {
    fn new() -> Self {
        Fenceless(AtomicBool::new(false))
    }

    fn must_wake(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }

    fn fall_asleep(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_up(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// [`Doorbell`] without the swap that lets one producer win.
struct Eager(AtomicBool);

impl Bell for Eager {
    fn new() -> Self {
        Eager(AtomicBool::new(false))
    }

    fn must_wake(&self) -> bool {
        loom::sync::atomic::fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }

    fn fall_asleep(&self) {
        self.0.store(true, Ordering::Relaxed);
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    fn wake_up(&self) {
        self.0.store(false, Ordering::Release);
    }
}

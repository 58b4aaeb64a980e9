//! A driver thread and its rings. One ring holds as many clients as files may be open; the rings of a thread sleep and
//! wake together, so that very many clients do not need very many threads.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgate_net::{Bell, Net, NetOptions};

use super::{Fleet, LONGEST};
use crate::access::Access;
use crate::ledger::{Books, Ended};
use crate::plan::Shared;
use crate::record::Record;

/// How often a thread hands over what it has recorded.
const RECORDS_EVERY: Duration = Duration::from_millis(250);
/// Connections are closed at the end as long as one more is within this time.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);
/// A thread that was kept from running for less than this is not called stalled.
const STALL_MIN: Duration = Duration::from_millis(100);
/// Receive buffers of a process, of [`RECV_BUFFER_BYTES`] each, and the fewest of a ring.
const RECV_BUFFERS: usize = 8192;
const RECV_BUFFERS_MIN: usize = 64;
const RECV_BUFFER_BYTES: usize = 4096;

/// A ring and its clients.
struct Ring {
    net: Net,
    fleet: Fleet,
    /// When there is something to do although nothing has happened.
    due: Instant,
}

/// Starts the driver threads of this process. Each ends, with what its clients know of all messages, when the run is stopped.
pub(crate) fn spawn(shared: &Arc<Shared>, access: &Arc<Access>) -> Vec<JoinHandle<Ended>> {
    let thread = |thread: usize| {
        let (shared, access) = (shared.clone(), access.clone());
        std::thread::spawn(move || match run(&shared, &access, thread) {
            Ok(books) => Ended::InOrder(Box::new(books)),
            Err(error) => Ended::Lost(error),
        })
    };
    (0..shared.plan.threads).map(thread).collect()
}

/// Runs the clients of thread `thread`'s rings until the run is stopped; what they know of all messages.
fn run(shared: &Arc<Shared>, access: &Arc<Access>, thread: usize) -> Result<Books, String> {
    let bell = Bell::new().map_err(|error| error.to_string())?;
    let mut recorder = Recorder::new(shared.clone());
    let plan = &shared.plan;
    let options = NetOptions {
        slots: plan.slots_per_ring,
        recv_buffers: (RECV_BUFFERS / plan.rings).clamp(RECV_BUFFERS_MIN, 1024).next_power_of_two() as u16,
        recv_buffer_bytes: RECV_BUFFER_BYTES,
        accepts_in_flight: 1,
        ..NetOptions::default()
    };
    let ring = |number: usize| {
        let net = Net::new(options.clone(), Arc::default(), &bell).map_err(|error| error.to_string())?;
        let fleet = Fleet::new(shared.clone(), access.clone(), number, recorder.record.clone());
        Ok(Ring { net, fleet, due: Instant::now() })
    };
    let mut rings = (thread..plan.rings).step_by(plan.threads).map(ring).collect::<Result<Vec<_>, String>>()?;
    let mut beat = Instant::now();
    let (mut came, mut wait) = (Instant::now(), Duration::ZERO);
    while !shared.stopped() {
        // Beyond the sleep that it asked for, a thread that is free to run is back at once.
        let last = core::mem::replace(&mut came, Instant::now());
        recorder.awake((came - last).saturating_sub(wait));
        let collections = shared.collections();
        wait = turn(&mut rings, &mut beat);
        recorder.hand_over(collections, false);
        if !wait.is_zero() {
            sleep(&mut rings, &bell, wait);
        }
    }
    say_goodbye(&mut rings, &bell);
    recorder.hand_over(shared.collections(), true);
    let mut books = Books::default();
    rings.iter_mut().for_each(|ring| books.add(ring.fleet.take_books()));
    Ok(books)
}

/// A turn of every ring that has something to do. How long none of them has, then. Heartbeats of all rings are sent
/// together, once per [`LONGEST`]: a million clients would wake this thread for each single one otherwise.
fn turn(rings: &mut [Ring], beat: &mut Instant) -> Duration {
    let now = Instant::now();
    let beats = now >= *beat;
    if beats {
        *beat = now + LONGEST;
    }
    let mut wait = LONGEST;
    let alone = rings.len() == 1;
    for ring in rings {
        if beats {
            ring.fleet.heartbeat();
        }
        if beats || ring.due <= now || ring.net.has_work() {
            let idle = ring.fleet.turn(&mut ring.net);
            ring.due = now + idle;
            if !alone || idle.is_zero() {
                // Another ring may keep this thread awake for long; one that is alone submits on its way to sleep.
                ring.net.submit();
            }
        }
        wait = wait.min(ring.due.saturating_duration_since(now));
    }
    wait
}

/// Sleeps until a completion comes, at most this long.
fn sleep(rings: &mut [Ring], bell: &Bell, wait: Duration) {
    if let [ring] = rings {
        // One system call instead of three.
        return ring.net.wait(wait);
    }
    let ready = rings.iter_mut().position(|ring| !ring.net.prepare_sleep()).unwrap_or(rings.len());
    if ready == rings.len() {
        bell.wait(wait);
    }
    for ring in &mut rings[..ready] {
        ring.net.wake_up();
    }
}

/// All clients leave in order. Bounded, and not waited for where nothing leaves any more: a gateway that stands still answers no
/// end of a connection.
fn say_goodbye(rings: &mut [Ring], bell: &Bell) {
    for ring in rings.iter_mut() {
        ring.fleet.say_goodbye(&mut ring.net);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let open = |rings: &[Ring]| rings.iter().map(|ring| ring.net.sockets()).sum::<usize>();
    let (mut left, mut since) = (open(rings), Instant::now());
    while left > 0 && Instant::now() < deadline && since.elapsed() < LEAVE_PATIENCE {
        let now = open(rings);
        if core::mem::replace(&mut left, now) != now {
            since = Instant::now();
        }
        let mut busy = false;
        for ring in rings.iter_mut() {
            busy |= ring.net.poll(&mut ring.fleet);
            ring.net.submit();
        }
        if !busy {
            sleep(rings, bell, LONGEST);
        }
    }
}

/// What a thread's clients record, and its way to the report.
struct Recorder {
    shared: Arc<Shared>,
    record: Rc<RefCell<Record>>,
    recorded: Instant,
    /// CPU time of this thread when it was last looked at.
    cpu: Duration,
    /// Collections that this thread has answered.
    collected: usize,
}

impl Recorder {
    fn new(shared: Arc<Shared>) -> Recorder {
        Recorder { shared, record: Rc::default(), recorded: Instant::now(), cpu: own_cpu(), collected: 0 }
    }

    /// A turn, and the sleep behind it, took so much longer than that sleep was to be. What the thread did not work of that
    /// time, it was kept from running. It may be called less than it was, by what the thread worked since its CPU time was last
    /// looked at.
    fn awake(&mut self, beyond: Duration) {
        if beyond < STALL_MIN {
            return;
        }
        let cpu = own_cpu();
        let stall = beyond.saturating_sub(cpu.saturating_sub(core::mem::replace(&mut self.cpu, cpu)));
        if stall >= STALL_MIN {
            let stall_us = stall.as_micros() as u64;
            let mut record = self.record.borrow_mut();
            record.stall_us = record.stall_us.max(stall_us);
            let drivers = self.shared.plan.threads * self.shared.plan.part.of;
            self.shared.counts().stalled_us.fetch_add(stall_us / drivers as u64, Relaxed);
        }
    }

    /// Hands over what was recorded, if it is time or it was asked for: `collections` times by the beginning of the turn
    /// that was just made, so that whatever was due when they asked is done.
    fn hand_over(&mut self, collections: usize, last: bool) {
        let asked = core::mem::replace(&mut self.collected, collections) != collections;
        if last || asked || self.recorded.elapsed() > RECORDS_EVERY {
            self.recorded = Instant::now();
            self.cpu = own_cpu();
            let mut record = self.record.borrow_mut();
            self.shared.add_record(&record);
            record.reset();
            if asked {
                self.shared.hand_over(collections);
            }
        }
    }
}

/// CPU time of this thread so far; zero where the kernel does not say.
fn own_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or_default())
}

//! A core's thread: one monoio runtime with one task, which makes the turns of all shards of that core.
//!
//! Usually that is one shard, and between turns without work the thread sleeps in its ring, where the doorbell is one more
//! completion: submitting and sleeping are one system call. With more shards than cores, which a limit of open files
//! below the number of connections makes necessary, the shards of a core share its thread: what has happened to any of
//! them is worked off in one go, and a core is woken once for all. Such a thread sleeps in monoio, on one eventfd, which
//! all of its rings signal and which is the doorbell of its shards.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crate::worker::{Worker, WorkerOptions};
use ringgate_net::{Bell, RingError};

/// What a thread is made of.
pub struct ThreadOptions {
    /// Its shards, at least one.
    pub shards: Vec<WorkerOptions>,
    /// Rung by its shards' rings, and by the mesh for any of its shards.
    pub bell: Arc<Bell>,
    /// The core to be pinned to, if any.
    pub core: Option<core_affinity::CoreId>,
}

/// Runs shards until they have drained. Blocks the calling thread, which becomes theirs. `ready` is called once: when the
/// kernel has taken the accepts of every listener of every shard, or with what was in the way.
pub fn run(options: ThreadOptions, ready: impl FnOnce(Result<(), RingError>)) {
    if let Some(core) = options.core {
        core_affinity::set_for_current(core);
    }
    let bell = options.bell;
    let workers = options.shards.into_iter().map(|shard| Worker::new(shard, &bell));
    let mut workers = match workers.collect::<Result<Vec<_>, _>>() {
        Ok(workers) => workers,
        Err(error) => return ready(Err(error)),
    };
    if let Some(first) = workers.first() {
        first.set_thread();
    }
    if let [worker] = workers.as_mut_slice() {
        worker.live_alone(bell.clone());
    }
    let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().with_entries(64).build();
    let (mut runtime, bell) = match (runtime, bell.as_fd().try_clone_to_owned()) {
        (Ok(runtime), Ok(bell)) => (runtime, bell),
        (Err(error), _) | (_, Err(error)) => return ready(Err(RingError::of("a thread's runtime", &error))),
    };
    for worker in &mut workers {
        worker.turn();
        worker.submit();
    }
    ready(Ok(()));
    runtime.block_on(drive(&mut workers, bell));
}

/// The thread's one task.
async fn drive(workers: &mut Vec<Worker>, bell: OwnedFd) {
    if let [worker] = workers.as_mut_slice() {
        return drive_alone(worker);
    }
    let Ok(bell) = monoio::fs::File::from_std(std::fs::File::from(bell)) else { return };
    // The read stays in flight over many turns: a read that is dropped could take a ring of the bell with it.
    let mut rung = std::pin::pin!(bell.read_at(vec![0u8; 8], 0));
    while !workers.is_empty() {
        turn(workers);
        if !prepare_sleep(workers) {
            continue;
        }
        let Some(due) = workers.iter().map(Worker::due).min() else { return };
        monoio::select! {
            _ = &mut rung => rung.set(bell.read_at(vec![0u8; 8], 0)),
            () = monoio::time::sleep(due.saturating_duration_since(Instant::now())) => {}
        }
        for worker in workers.iter_mut() {
            worker.wake_up();
        }
    }
}

/// The thread has one shard and may block in its ring: no other shard waits for it.
fn drive_alone(worker: &mut Worker) {
    loop {
        worker.turn();
        if worker.is_done() {
            return;
        }
        worker.sleep();
    }
}

/// A turn of every shard that has something to do.
fn turn(workers: &mut Vec<Worker>) {
    let now = Instant::now();
    let mut done = false;
    for worker in workers.iter_mut() {
        if worker.has_work(now) {
            worker.turn();
            worker.submit();
            done |= worker.is_done();
        }
    }
    if done {
        workers.retain(|worker| !worker.is_done());
    }
}

/// Whether the thread may sleep; if one shard may not, all stay awake.
fn prepare_sleep(workers: &mut [Worker]) -> bool {
    for index in 0..workers.len() {
        if !workers[index].prepare_sleep() {
            for worker in &mut workers[..index] {
                worker.wake_up();
            }
            return false;
        }
    }
    true
}

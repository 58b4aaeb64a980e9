//! The controller waits for its workers: it takes in those of its own version, and refuses others with a
//! reason, also later, while the run goes on.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::relay::{lost, relay};
use super::wire::{BEATS_EVERY, FromWorker, ToWorker, VERSION, Wire};
use crate::assignment::Plan;
use crate::clock::{Clock, Probe, wall_ns};
use crate::console::note;
use crate::interrupt;
use crate::ledger::Ended;
use crate::mate::Mate;
use crate::plan::{Origin, Shared};

/// How long a new connection may take to say Hello, and a worker to answer with its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions for the time.
const PROBES: usize = 16;

/// A place where workers are waited for.
#[derive(Debug)]
pub(crate) struct Muster {
    listener: TcpListener,
    address: SocketAddr,
    workers: usize,
}

/// Workers that have connected so far.
struct Door {
    present: Vec<Peer>,
    /// No further worker is taken in.
    closed: bool,
    workers: usize,
}

/// A worker before the run.
struct Peer {
    address: SocketAddr,
    wire: Wire,
}

/// Workers that are ready for a run.
pub(crate) struct Crew {
    mates: Vec<Mate>,
    wires: Vec<Wire>,
}

impl Muster {
    /// Opens the port for so many workers. The error names it.
    pub(crate) fn bind(listen: &str, workers: usize) -> Result<Muster, String> {
        let bound = TcpListener::bind(listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) =
            bound.map_err(|error| format!("--listen {listen}: {error}; HOST:PORT of this machine is wanted"))?;
        Ok(Muster { listener, address, workers })
    }

    /// Waits until all are there, and asks them for the time. Says on standard error whom it waits for.
    pub(crate) fn gather(self) -> Result<Crew, String> {
        interrupt::listen()?;
        let Muster { listener, address, workers } = self;
        let door = Arc::new(Mutex::new(Door { present: Vec::new(), closed: false, workers }));
        let opened = door.clone();
        let accept = move || listener.incoming().flatten().for_each(|stream| receive_newcomer(stream, &opened));
        // It goes on refusing as long as the process lives.
        let started = std::thread::Builder::new().name("door".to_owned()).spawn(accept);
        started.map_err(|error| format!("the thread for new workers: {error}"))?;
        let peers = wait_for_all(&door, address)?;
        synchronise(peers)
    }
}

fn wait_for_all(door: &Mutex<Door>, address: SocketAddr) -> Result<Vec<Peer>, String> {
    let (mut said, mut beaten) = (None, Instant::now());
    loop {
        if interrupt::asked() {
            return Err("ended while it waited for workers".to_owned());
        }
        if let Ok(mut door) = door.lock() {
            let beat = beaten.elapsed() >= BEATS_EVERY;
            if beat {
                beaten = Instant::now();
            }
            door.present.retain_mut(|peer| peer.is_there(beat));
            if said != Some(door.present.len()) {
                said = Some(door.present.len());
                note(&format!("waiting for {} workers on {address}, {} there", door.workers, door.present.len()));
            }
            if door.present.len() == door.workers {
                door.closed = true;
                return Ok(std::mem::take(&mut door.present));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Talks to a new connection on a thread of its own, so that a silent one does not delay others.
fn receive_newcomer(stream: TcpStream, door: &Arc<Mutex<Door>>) {
    let door = door.clone();
    // Without a thread the newcomer's connection just ends.
    let _ = std::thread::Builder::new().name("newcomer".to_owned()).spawn(move || {
        let Ok(address) = stream.peer_addr() else { return };
        if let Err(reason) = welcome(stream, address, &door) {
            note(&format!("{address} was refused: {reason}"));
        }
    });
}

fn welcome(stream: TcpStream, address: SocketAddr, door: &Mutex<Door>) -> Result<(), String> {
    let mut wire = Wire::new(stream)?;
    let refused = match wire.receive(ANSWER_TIMEOUT) {
        Ok(Some(FromWorker::Hello(version))) if version == VERSION => {
            wire.trust();
            let Ok(mut door) = door.lock() else { return Ok(()) };
            if !door.closed && door.present.len() < door.workers {
                wire.send(&ToWorker::Hello(VERSION.to_owned()))?;
                door.present.push(Peer { address, wire });
                return Ok(());
            }
            format!("this run has its {} workers already", door.workers)
        }
        Ok(Some(FromWorker::Hello(version))) => {
            format!("this controller is \"{VERSION}\", the worker is \"{version}\"; both must be the same")
        }
        Ok(Some(_)) => "a worker says its version first".to_owned(),
        Ok(None) => format!("it said nothing for {} s", ANSWER_TIMEOUT.as_secs()),
        Err(error) => error,
    };
    // The other end may be gone already.
    let _ = wire.send(&ToWorker::Refused(refused.clone()));
    Err(refused)
}

impl Peer {
    /// Whether it still waits for the run. It has nothing to say meanwhile.
    fn is_there(&mut self, beat: bool) -> bool {
        matches!(self.wire.receive::<FromWorker>(Duration::ZERO), Ok(None))
            && (!beat || self.wire.send(&ToWorker::Beat).is_ok())
    }

    fn clock(&mut self) -> Result<Clock, String> {
        let mut probes = Vec::with_capacity(PROBES);
        for _ in 0..PROBES {
            // In this order: what passes between the two is a part of the round trip then, and of the error's bound.
            let asked = Instant::now();
            let asked_ns = wall_ns();
            self.wire.send(&ToWorker::Probe)?;
            match self.wire.receive(ANSWER_TIMEOUT)? {
                Some(FromWorker::Time(answer_ns)) => {
                    probes.push(Probe { asked_ns, round_trip_ns: asked.elapsed().as_nanos() as u64, answer_ns });
                }
                Some(FromWorker::Failed(error)) => return Err(error),
                Some(_) => return Err("it did not say what time it is".to_owned()),
                None => return Err(format!("nothing was heard of it for {} s", ANSWER_TIMEOUT.as_secs())),
            }
        }
        Clock::estimate(&probes).ok_or_else(|| "its clock is unknown".to_owned())
    }
}

/// Asks all at once for the time.
fn synchronise(mut peers: Vec<Peer>) -> Result<Crew, String> {
    let clocks: Vec<Result<Clock, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = peers.iter_mut().map(|peer| scope.spawn(|| peer.clock())).collect();
        let clock = |thread: ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|_| Err("?".to_owned()));
        threads.into_iter().map(clock).collect()
    });
    let of = peers.len();
    let mut crew = Crew { mates: Vec::new(), wires: Vec::new() };
    for (worker, (peer, clock)) in peers.into_iter().zip(clocks).enumerate() {
        let clock = clock.map_err(|error| lost(worker, of, peer.address, &error))?;
        crew.mates.push(Mate::new(peer.address, clock));
        crew.wires.push(peer.wire);
    }
    Ok(crew)
}

impl Crew {
    /// Begins a run: what is shared of it, and a thread for each worker, which ends when the worker does.
    pub(crate) fn start(self, plan: Plan, origin: Origin) -> (Arc<Shared>, Vec<JoinHandle<Ended>>) {
        let shared = Arc::new(Shared::new(plan, origin, self.mates));
        let relay = |(worker, wire)| {
            let shared = shared.clone();
            std::thread::spawn(move || relay(&shared, worker, wire))
        };
        let threads = self.wires.into_iter().enumerate().map(relay).collect();
        (shared, threads)
    }
}

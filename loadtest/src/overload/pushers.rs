//! The clients that push: first only as much as the gateway carries out, to find its capacity, then as much as they are
//! told, whether it is carried out or not.
//!
//! What is asked for on schedule ends as one of three: written into a socket, withheld because the gateway takes no more
//! from that client or owes it as many answers as it may, or not offered because this thread did not come to it. Only the
//! last is the driver's fault.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgate_core::id::ClientMessageId;
use ringgate_core::limits::ClientLimits;
use ringgate_core::wire::Kind;

use super::line::{Ended, Line};
use super::tally::Tally;
use super::workload::{Template, Unit};

/// What the pushers do now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// Nothing; what is not written yet is given up.
    Rest,
    /// So many requests under way, all pushers together.
    Window(u64),
    /// Requests a second, all pushers together.
    Rate(f64),
}

/// What they have done since they came.
#[derive(Default)]
pub(super) struct Pushed {
    /// Requests whose frame was written into a socket.
    pub(super) written: AtomicU64,
    /// Requests that were not made because the client's socket took no more, or because too many waited for an answer.
    pub(super) withheld: AtomicU64,
    alive: AtomicUsize,
}

/// A thread with all pushers.
pub(super) struct Pushers {
    pub(super) pushed: Arc<Pushed>,
    paces: std::sync::mpsc::Sender<Pace>,
    thread: JoinHandle<()>,
}

/// A pusher keeps this many bytes that its socket does not take; more is withheld.
const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// Requests made in one round; the clock is looked at in between.
const ROUND_MAX: u64 = 20_000;
/// Without any progress for so long, requests of a window are taken for lost.
const PATIENCE: Duration = Duration::from_millis(300);
const NAP: Duration = Duration::from_micros(200);

impl Pushers {
    /// Signs in one client for each token; all of them are there when this returns.
    pub(super) fn start(
        gateway: SocketAddr,
        tokens: &[String],
        room: Option<&str>,
        templates: Vec<Template>,
        unit: Unit,
        tally: Arc<Tally>,
    ) -> Result<Pushers, String> {
        let rooms: Vec<&str> = room.into_iter().collect();
        let pusher = |token: &String| Ok(Some(Pusher { line: Line::sign_in(gateway, token, &rooms)?, in_flight: 0 }));
        let pushers = tokens.iter().map(pusher).collect::<Result<Vec<_>, String>>()?;
        let frame_bytes = templates.first().map_or(1, Template::len);
        if templates.iter().any(|template| template.len() != frame_bytes) {
            return Err("frames of one load are not of one length".to_owned());
        }
        let pushed = Arc::new(Pushed { alive: AtomicUsize::new(pushers.len()), ..Pushed::default() });
        let (paces, orders) = std::sync::mpsc::channel();
        let mut pushing = Pushing {
            pushers,
            in_flight_max: ClientLimits::default().requests_in_flight_max,
            templates,
            frame_bytes,
            unit,
            tally,
            pushed: pushed.clone(),
            made: 0,
            next: 0,
            written_bytes: 0,
        };
        let run = move || pushing.run(&orders);
        let thread = std::thread::Builder::new().name("pushers".to_owned()).spawn(run);
        Ok(Pushers { pushed, paces, thread: thread.map_err(|error| format!("a thread: {error}"))? })
    }

    /// From now on.
    pub(super) fn set(&self, pace: Pace) {
        // A thread that has ended has said why in the tally.
        let _ = self.paces.send(pace);
    }

    /// Pushers that are still connected.
    pub(super) fn alive(&self) -> usize {
        self.pushed.alive.load(Relaxed)
    }

    /// After the tally was stopped.
    pub(super) fn join(self) {
        let _ = self.thread.join();
    }
}

/// A client, and how many of its requests wait for an answer.
struct Pusher {
    line: Line,
    in_flight: usize,
}

struct Pushing {
    pushers: Vec<Option<Pusher>>,
    in_flight_max: usize,
    templates: Vec<Template>,
    frame_bytes: usize,
    unit: Unit,
    tally: Arc<Tally>,
    pushed: Arc<Pushed>,
    /// Frames made: the next message id and the next template.
    made: u64,
    /// The pusher whose turn it is.
    next: usize,
    written_bytes: u64,
}

impl Pushing {
    fn run(&mut self, orders: &std::sync::mpsc::Receiver<Pace>) {
        let (mut pace, mut began, mut asked) = (Pace::Rest, Instant::now(), 0u64);
        let (mut base, mut progress) = (0u64, (0u64, Instant::now()));
        while !self.tally.stopped() {
            while let Ok(order) = orders.try_recv() {
                (pace, began, asked) = (order, Instant::now(), 0);
                base = self.made.saturating_sub(self.done());
                progress = (self.done(), Instant::now());
                if pace == Pace::Rest {
                    for pusher in self.pushers.iter_mut().flatten() {
                        let given_up = pusher.line.give_up(self.frame_bytes);
                        pusher.in_flight = pusher.in_flight.saturating_sub(given_up);
                    }
                }
            }
            let wanted = match pace {
                Pace::Rest => 0,
                Pace::Window(window) => {
                    let done = self.done();
                    if done > progress.0 {
                        progress = (done, Instant::now());
                    } else if progress.1.elapsed() > PATIENCE {
                        base = self.made.saturating_sub(done);
                        progress.1 = Instant::now();
                    }
                    window.saturating_sub(self.made.saturating_sub(done + base))
                }
                Pace::Rate(rate) => (began.elapsed().as_secs_f64() * rate) as u64 - asked,
            };
            let round = wanted.min(ROUND_MAX);
            let withheld = self.make(round);
            if let Pace::Rate(_) = pace {
                asked += round;
                self.pushed.withheld.fetch_add(withheld, Relaxed);
            }
            self.exchange();
            if wanted <= ROUND_MAX {
                std::thread::sleep(NAP);
            }
        }
    }

    /// Requests that are over, one way or the other.
    fn done(&self) -> u64 {
        let carried_out = match self.unit {
            Unit::Deliveries(each) => self.tally.deliveries.load(Relaxed) / each.max(1) as u64,
            Unit::Answers | Unit::SignIns => self.tally.answers.load(Relaxed),
        };
        carried_out + self.tally.refused.load(Relaxed)
    }

    /// Makes so many requests, dealt out to the pushers in turn. Returns how many were withheld.
    fn make(&mut self, count: u64) -> u64 {
        let mut withheld = 0;
        let Pushing { pushers, in_flight_max, templates, made, next, .. } = self;
        for _ in 0..count {
            *next = (*next + 1) % pushers.len().max(1);
            match pushers.get_mut(*next) {
                Some(Some(Pusher { line, in_flight }))
                    if line.waiting() < QUEUE_BYTES_MAX && *in_flight < *in_flight_max =>
                {
                    let Some(template) = templates.get((*made % templates.len() as u64) as usize) else { return count };
                    *made += 1;
                    *in_flight += 1;
                    template.append(&mut line.out, ClientMessageId { high: *next as u64 + 1, low: *made });
                }
                _ => withheld += 1,
            }
        }
        withheld
    }

    fn exchange(&mut self) {
        let Pushing { pushers, frame_bytes, tally, pushed, written_bytes, .. } = self;
        for place in pushers.iter_mut() {
            let Some(Pusher { line, in_flight }) = place else { continue };
            let (before, mut answers, mut refused) = (line.waiting(), 0, 0);
            let ended = line.exchange(
                |kind| kind == Kind::Error,
                |kind, body| match kind {
                    Kind::Published | Kind::HistoryResult | Kind::PresenceResult => answers += 1,
                    Kind::Error => {
                        refused += 1;
                        tally.refuse(body);
                    }
                    _ => {}
                },
            );
            *in_flight = in_flight.saturating_sub(answers + refused);
            tally.answers.fetch_add(answers as u64, Relaxed);
            *written_bytes += before.saturating_sub(line.waiting()) as u64;
            if let Err(Ended(code)) = ended {
                *place = None;
                pushed.alive.fetch_sub(1, Relaxed);
                tally.close(code);
            }
        }
        pushed.written.store(*written_bytes / *frame_bytes as u64, Relaxed);
    }
}

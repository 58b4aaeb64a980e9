//! A worker: drives its part of the clients of a run that a controller elsewhere directs.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::packed::Packed;
use super::wire::{FromWorker, LINE_BYTES_MAX, Start, ToWorker, VERSION, Wire};
use crate::Outcome;
use crate::access::{Access, Credentials};
use crate::clock::wall_ns;
use crate::console::note;
use crate::descriptors;
use crate::fleet;
use crate::gateway::Process;
use crate::interrupt;
use crate::ledger::{Books, Ended};
use crate::plan::{Origin, Shared};

/// Options of `worker`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Where the controller listens.
    #[arg(value_name = "HOST:PORT")]
    controller: String,
    #[command(flatten)]
    credentials: Credentials,
}

/// How long connects to a controller that does not listen yet are repeated.
const PATIENCE: Duration = Duration::from_secs(60);
const TRIES_EVERY: Duration = Duration::from_millis(200);
/// One attempt to connect, where nothing answers at all.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// A controller that says nothing for so long is gone: it beats every second.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often counts and records are sent.
const STATUS_EVERY: Duration = Duration::from_millis(100);
const RECORDS_EVERY: Duration = Duration::from_millis(250);
/// How often something to send is looked for.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of what clients know that are sent in one line.
const BOOKS_BYTES_MAX: usize = LINE_BYTES_MAX / 4;

/// Why a worker ends before its run does.
enum Failure {
    /// The controller is gone.
    Gone(String),
    /// Its own reason, which the controller is told.
    Own(String),
}

/// Drives clients until the controller says that the run is over. Good if all went in order, whatever was found.
pub(crate) fn run(options: &Options) -> Result<Outcome, String> {
    options.credentials.check()?;
    interrupt::listen()?;
    let at = &options.controller;
    let mut wire = connect(at)?;
    greet(&mut wire, at)?;
    note(&format!("connected to the controller at {at}, waiting for the others"));
    let (start, access) = prepare(&mut wire, &options.credentials).map_err(|failure| failure.tell(&mut wire, at))?;
    let worker = format!("worker {} of {}", start.part.worker + 1, start.part.of);
    note(&format!("{worker}: the run begins"));
    match drive(&mut wire, start, access) {
        Ok(arrived) => {
            note(&format!("{worker}: the run is over, {arrived} messages arrived here"));
            Ok(Outcome::Good)
        }
        Err(failure) => {
            note(&format!("{worker}: ended before the run was over: {}", failure.tell(&mut wire, at)));
            Ok(Outcome::Failed)
        }
    }
}

impl Failure {
    /// In words. The controller is told, unless it is gone.
    fn tell(self, wire: &mut Wire, at: &str) -> String {
        match self {
            Failure::Gone(error) => format!("the controller at {at} is gone: {error}"),
            Failure::Own(error) => {
                // If it is gone, too, it need not know.
                let _ = wire.send(&FromWorker::Failed(error.clone()));
                error
            }
        }
    }
}

/// Tries for a while, so that either may be started first. A name is looked up for each attempt.
fn connect(at: &str) -> Result<Wire, String> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = false;
    loop {
        let addresses = at
            .to_socket_addrs()
            .map_err(|error| format!("\"{at}\" is not where a controller can be: {error}; write HOST:PORT"))?;
        let mut last = "it has no address".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, TRY_TIMEOUT) {
                Ok(stream) => return Wire::new(stream),
                Err(error) => last = error.to_string(),
            }
        }
        if interrupt::asked() {
            return Err(format!("ended while there was no controller at {at}"));
        }
        if Instant::now() > deadline {
            return Err(format!("no controller at {at} within {} s: {last}", PATIENCE.as_secs()));
        }
        if !std::mem::replace(&mut said, true) {
            note(&format!("no controller at {at} yet ({last}); trying for {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(TRIES_EVERY);
    }
}

fn greet(wire: &mut Wire, at: &str) -> Result<(), String> {
    let answer = wire.send(&FromWorker::Hello(VERSION.to_owned())).and_then(|()| wire.receive(SILENCE_MAX));
    match answer {
        Ok(Some(ToWorker::Hello(version))) if version == VERSION => {
            wire.trust();
            Ok(())
        }
        Ok(Some(ToWorker::Refused(reason))) => Err(format!("the controller at {at} refused this worker: {reason}")),
        Ok(Some(_)) => Err(format!("{at} is not a controller of \"{VERSION}\"")),
        Ok(None) => Err(format!("{at} is not a controller: it said nothing for {} s", SILENCE_MAX.as_secs())),
        Err(error) => Err(format!("{at} is not a controller: {error}")),
    }
}

/// What it takes to begin, once the controller says so.
fn prepare(wire: &mut Wire, credentials: &Credentials) -> Result<(Start, Access), Failure> {
    let start = wait_for_start(wire)?;
    let access = credentials.access(&start.assignment).map_err(Failure::Own)?;
    descriptors::check(&start.assignment.clone().plan(start.part)).map_err(Failure::Own)?;
    Ok((start, access))
}

fn wait_for_start(wire: &mut Wire) -> Result<Start, Failure> {
    let mut heard = Instant::now();
    loop {
        match next(wire, &mut heard)? {
            Some(ToWorker::Start(start)) => return Ok(*start),
            Some(ToWorker::Probe) => wire.send(&FromWorker::Time(wall_ns())).map_err(Failure::Gone)?,
            // Beats; everything else is for later.
            _ => {}
        }
    }
}

/// The controller's next message, if there is one; an error when there is a reason to end.
fn next(wire: &mut Wire, heard: &mut Instant) -> Result<Option<ToWorker>, Failure> {
    if interrupt::asked() {
        return Err(Failure::Own("it was ended early, by SIGINT or SIGTERM".to_owned()));
    }
    let message = wire.receive(PAUSE).map_err(Failure::Gone)?;
    if message.is_some() {
        *heard = Instant::now();
    } else if heard.elapsed() > SILENCE_MAX {
        return Err(Failure::Gone(format!("nothing was heard of it for {} s", SILENCE_MAX.as_secs())));
    }
    Ok(message)
}

/// A worker during a run.
struct Duty<'a> {
    wire: &'a mut Wire,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Ended>>,
    /// Records were asked for, in this round of the controller's, and are not here yet.
    collecting: Option<usize>,
}

/// Drives the clients until the run is over; how many messages had arrived at them.
fn drive(wire: &mut Wire, start: Start, access: Access) -> Result<u64, Failure> {
    let origin = Origin { run: start.run, zero: instant_of(start.zero_ns) };
    let shared = Shared::new(start.assignment.plan(start.part), origin, Vec::new()).naming(access.listed());
    let shared = Arc::new(shared);
    let threads = fleet::spawn(&shared, &Arc::new(access));
    let mut duty = Duty { wire, shared, threads, collecting: None };
    let result = duty.serve();
    // Connections are closed in order also after an error.
    duty.shared.stop();
    let books = duty.join();
    result?;
    duty.report(true).map_err(Failure::Gone)?;
    let books = books.map_err(Failure::Own)?;
    let arrived = books.found.arrived;
    for piece in books.split(BOOKS_BYTES_MAX) {
        duty.wire.send(&FromWorker::Books(Box::new(piece))).map_err(Failure::Gone)?;
    }
    duty.wire.send(&FromWorker::End).map_err(Failure::Gone)?;
    Ok(arrived)
}

/// The moment at which this process's wall clock shows so much.
fn instant_of(wall: u64) -> Instant {
    let (now, now_ns) = (Instant::now(), wall_ns());
    let ahead = Duration::from_nanos(wall.saturating_sub(now_ns));
    let ago = Duration::from_nanos(now_ns.saturating_sub(wall));
    (now + ahead).checked_sub(ago).unwrap_or(now)
}

impl Duty<'_> {
    /// Does what the controller says until all threads have ended.
    fn serve(&mut self) -> Result<(), Failure> {
        let mut heard = Instant::now();
        let (mut reported, mut recorded) = (None, Instant::now());
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if !self.shared.stopped() && self.threads.iter().any(JoinHandle::is_finished) {
                // Its reason is said when all are joined.
                return Ok(());
            }
            let collected = self.collecting.take_if(|_| self.shared.is_collected());
            let record = collected.is_some() || recorded.elapsed() >= RECORDS_EVERY;
            if record || reported.is_none_or(|at: Instant| at.elapsed() >= STATUS_EVERY) {
                self.report(record).map_err(Failure::Gone)?;
                reported = Some(Instant::now());
            }
            if record {
                recorded = Instant::now();
            }
            if let Some(round) = collected {
                self.wire.send(&FromWorker::Collected(round)).map_err(Failure::Gone)?;
            }
            if let Some(message) = next(self.wire, &mut heard)? {
                self.obey(message);
            }
        }
        Ok(())
    }

    fn obey(&mut self, message: ToWorker) {
        match message {
            ToWorker::Want(connections) => self.shared.want(connections),
            ToWorker::Order(order) => self.shared.order(order),
            ToWorker::Collect(round) => {
                self.collecting = Some(round);
                self.shared.collect();
            }
            ToWorker::Stop => self.shared.stop(),
            // Beats need no answer; the others do not come during a run.
            ToWorker::Beat | ToWorker::Probe | ToWorker::Hello(_) | ToWorker::Refused(_) | ToWorker::Start(_) => {}
        }
    }

    /// Sends counts, and what was recorded if that is wanted and there is something.
    fn report(&mut self, record: bool) -> Result<(), String> {
        let (tally, threads) = (self.shared.counts().read(), self.shared.plan.threads);
        let cpu_ns = Process::own().cpu().as_nanos() as u64;
        let message_bytes_max = self.shared.message_bytes_max();
        self.wire.send(&FromWorker::Status { tally: Box::new(tally), cpu_ns, threads, message_bytes_max })?;
        let record = if record { self.shared.take_record() } else { return Ok(()) };
        if record.is_empty() { Ok(()) } else { self.wire.send(&FromWorker::Record(Box::new(Packed::of(&record)))) }
    }

    fn join(&mut self) -> Result<Books, String> {
        let mut books = Books::default();
        for ended in self.threads.drain(..).map(Ended::join) {
            match ended {
                Ended::InOrder(own) => books.add(*own),
                Ended::Lost(error) => return Err(error),
            }
        }
        Ok(books)
    }
}

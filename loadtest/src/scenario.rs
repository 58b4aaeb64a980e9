//! Scenarios: one kind of load each, against a gateway that runs already.

use std::time::Duration;

use ringgate_core::units::parse_duration_ms;
use serde_json::{Map, Value};

use crate::Outcome;
use crate::crew::Muster;
use crate::number;
use crate::options::{Given, Link, Output};
use crate::plan::{Order, Tally};
use crate::record::{Measure, Names};
use crate::report::{RAMP, Report};
use crate::run::Run;
use crate::traffic::{Kind, Pace, Traffic};

/// Which load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Ramp only.
    Connect,
    /// Ramp and hold.
    Idle,
    /// Pings on a schedule.
    Ping,
    /// Pairs.
    P2p,
    /// Rooms.
    Room,
    /// Messages to users who are away.
    Offline,
    /// Clients that come and go.
    Churn,
    /// All clients come back at once.
    Storm,
    /// Readers that stop reading.
    Slow,
}

/// Options of all scenarios.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    pub(crate) link: Link,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Clients.
    #[arg(long, default_value_t = 1000, value_name = "N", allow_negative_numbers = true, value_parser = number::count_u32(1..=crate::CONNECTIONS_MAX))]
    pub(crate) connections: u32,
    /// Messages (p2p, room, offline, slow), Pings (ping) or reconnects (churn) per second, all clients together; 1000 if
    /// not given.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number::rate)]
    pub(crate) rate: Option<f64>,
    /// Send at random times, as many independent clients would, instead of evenly; the seed makes it repeatable.
    #[arg(long, value_name = "SEED", num_args = 0..=1, default_missing_value = "1", allow_negative_numbers = true, value_parser = number::seed)]
    poisson: Option<u64>,
    /// Instead of a rate: each sender has N messages under way and waits for answers. Finds out what the gateway can
    /// do; its latencies say nothing about a given load.
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "poisson"], allow_negative_numbers = true, value_parser = number::count_u32(1..=1000))]
    pub(crate) closed_loop: Option<u32>,
    /// How long to hold the connections, or to send.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration_ms)]
    pub(crate) duration: u64,
    /// Send for this long first, without counting its latencies.
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = parse_duration_ms)]
    warm_up: u64,
    /// Bytes of each payload; 32 at least.
    #[arg(long, default_value_t = 100, value_name = "N", allow_negative_numbers = true, value_parser = number::count_u32(32..=16_777_216))]
    payload_bytes: u32,
    /// Rooms, each with an equal share of the clients (room, slow).
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true, value_parser = number::count_u32(1..=1_000_000))]
    rooms: u32,
    /// Publishers in each room.
    #[arg(long, default_value_t = 4, value_name = "N", allow_negative_numbers = true, value_parser = number::count_u32(1..=u32::MAX))]
    publishers: u32,
    /// Name of the room; with several rooms, a number is added to it.
    #[arg(long, default_value = "chat:load", value_name = "NAME")]
    room_name: String,
    /// Readers that stop reading, in percent (slow).
    #[arg(long, default_value_t = 10, value_name = "PERCENT", allow_negative_numbers = true, value_parser = number::count_u32(1..=99))]
    slow_share: u32,
    /// Go on connecting until the gateway refuses, or signs in no further client for 10 s, and report how many it took (connect).
    #[arg(long)]
    until_refused: bool,
}

/// Options that not every scenario uses: name, why others have no use for it, scenarios that use it. Where an option would
/// have no effect it is refused: to ignore it would mislead.
const USES: [(&str, &str, &[Scenario]); 11] = {
    use Scenario::{Churn, Connect, Idle, Offline, P2p, Ping, Room, Slow, Storm};
    [
        ("rate", "; how fast clients connect is --ramp-rate", &[Ping, P2p, Room, Offline, Churn, Slow]),
        ("poisson", ": it sends nothing at a rate", &[Ping, P2p, Room, Offline, Slow]),
        ("closed-loop", "", &[Ping, P2p, Room, Slow]),
        ("duration", ": it ends when all clients are connected", &[Idle, Ping, P2p, Room, Offline, Churn, Storm, Slow]),
        ("warm-up", "", &[Ping, P2p, Room]),
        ("payload-bytes", ": it sends no messages", &[P2p, Room, Offline, Slow]),
        ("rooms", ": it has no rooms", &[Room, Slow]),
        ("publishers", ": it has no rooms", &[Room, Slow]),
        ("room-name", ": it has no rooms", &[Room, Slow]),
        ("slow-share", ": all its clients read", &[Slow]),
        ("until-refused", ": it holds a number of connections that is given", &[Connect]),
    ]
};

/// Which scenarios have an option.
fn have(scenarios: &[Scenario]) -> String {
    let names: Vec<String> = scenarios.iter().map(|scenario| scenario.name()).collect();
    match names.split_last() {
        Some((last, [])) => format!("{last} has it"),
        Some((last, others)) => format!("{} and {last} have it", others.join(", ")),
        None => "no load has it".to_owned(),
    }
}

/// Longest connect with --until-refused: longer than [`crate::plan::REFUSED_AFTER`], which ends the ramp.
const PATIENCE_UNTIL_REFUSED: Duration = Duration::from_secs(60);

/// Runs a scenario and writes all results.
pub(crate) fn run(options: &Options, scenario: Scenario, muster: Option<Muster>) -> Result<Outcome, String> {
    options.output.conclude(&measure(options, scenario, muster)?)
}

/// Runs a scenario, alone or with the workers of a muster.
pub(crate) fn measure(options: &Options, scenario: Scenario, muster: Option<Muster>) -> Result<Report, String> {
    options.check(scenario)?;
    let connections = options.connections as usize;
    let connections = if options.link.url.tls { [0, connections] } else { [connections, 0] };
    let load = options.load(scenario, connections);
    let mut assignment = options.link.assignment(connections, None);
    assignment.reconnect |= matches!(scenario, Scenario::Storm | Scenario::Slow);
    assignment.addressed = matches!(scenario, Scenario::P2p | Scenario::Offline);
    if options.until_refused {
        // That the gateway takes no more is seen from a pause of all sign-ins, so that a single connect may wait longer.
        assignment.connect_timeout = assignment.connect_timeout.max(PATIENCE_UNTIL_REFUSED);
    }
    let drivers = options.link.drivers(&assignment, muster)?;
    let notes: Vec<String> =
        options.kind(scenario).and_then(|kind| kind.note(options.connections)).into_iter().collect();
    options.output.announce(&notes);
    let mut run = options.output.start(assignment, drivers, &scenario.name())?;
    run.main_measure(scenario.measure());
    run.name(scenario.names());
    if options.until_refused {
        let taken = run.connect_until_refused(connections);
        return Ok(options.output.finish(run, load, taken));
    }
    let result = options.link.ramp(&mut run, connections);
    let payload = if scenario.has_payload() { options.payload_bytes as usize } else { 0 };
    if let Some(refused) = result.is_ok().then(|| run.check_payload(payload).err()).flatten() {
        run.finish();
        return Err(format!("--payload-bytes: {refused}"));
    }
    let result = result.and_then(|()| match run.interrupted() {
        true => Ok(()),
        false => Drive { run: &mut run, options }.drive(scenario).and_then(|()| run.rest()),
    });
    Ok(Report { notes, ..options.output.finish(run, load, result) })
}

impl Scenario {
    /// The measure of a latency that is given without one, as in `p99`.
    fn measure(self) -> Measure {
        match self {
            Scenario::Connect | Scenario::Churn | Scenario::Storm => Measure::Connect,
            Scenario::Idle | Scenario::Ping => Measure::Ping,
            Scenario::P2p | Scenario::Room | Scenario::Offline | Scenario::Slow => Measure::Deliver,
        }
    }

    /// Names of its population and stream.
    fn names(self) -> Names {
        let stream_of_pings = match self {
            Scenario::Connect | Scenario::Idle | Scenario::Churn | Scenario::Storm => None,
            Scenario::Ping => Some(true),
            Scenario::P2p | Scenario::Room | Scenario::Offline | Scenario::Slow => Some(false),
        };
        Names::single(&self.name(), stream_of_pings)
    }

    /// Its phases, the ramp first.
    fn phases(self, warm_up: bool) -> &'static [&'static str] {
        match self {
            Scenario::Connect => &[RAMP],
            Scenario::Idle => &[RAMP, "idle"],
            Scenario::Ping | Scenario::P2p | Scenario::Room if warm_up => &[RAMP, "warm-up", "steady"],
            Scenario::Ping | Scenario::P2p | Scenario::Room => &[RAMP, "steady"],
            Scenario::Offline => &[RAMP, "leave", "away", "return"],
            Scenario::Churn => &[RAMP, "churn"],
            Scenario::Storm => &[RAMP, "leave", "storm", "after"],
            Scenario::Slow => &[RAMP, "before", "slow", "reading on"],
        }
    }

    fn has_payload(self) -> bool {
        self.measure() == Measure::Deliver
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl Options {
    /// Checks the options for this scenario, before any client connects.
    fn check(&self, scenario: Scenario) -> Result<(), String> {
        use Scenario::{Offline, P2p, Room, Slow};
        let name = scenario.name();
        if let Some((option, why, scenarios)) =
            USES.iter().find(|(option, _, scenarios)| self.given.has(option) && !scenarios.contains(&scenario))
        {
            return Err(format!("{name} has no --{option}{why}; {}", have(scenarios)));
        }
        self.link.check(self.link.url.tls)?;
        if self.duration == 0 && !matches!(scenario, Scenario::Connect | Scenario::Storm) {
            return Err("--duration 0s: must be above 0".to_owned());
        }
        if scenario == Scenario::Ping && self.closed_loop.is_some_and(|window| window > 1) {
            return Err("ping has --closed-loop 1 only: a Pong does not say which Ping it answers, so one is under way at a time".to_owned());
        }
        if self.until_refused && self.link.reconnect {
            return Err("--until-refused is for connect without --reconnect".to_owned());
        }
        if matches!(scenario, P2p | Offline) && self.connections < 2 {
            return Err(format!("{name} needs --connections 2 at least: its clients are pairs"));
        }
        if matches!(scenario, Room | Slow) && self.rooms > self.connections {
            return Err(format!("--rooms {} are more than --connections {}", self.rooms, self.connections));
        }
        if matches!(scenario, Room | Slow) && !ringgate_core::wire::is_name(&self.room_name) {
            return Err(format!(
                "--room-name \"{}\" is not a name: no spaces and no control characters",
                self.room_name
            ));
        }
        let phases = scenario.phases(self.warm_up > 0).iter().map(|phase| (*phase).to_owned()).collect();
        self.output.check_thresholds(&scenario.name(), &scenario.names(), phases)?;
        self.output.check()
    }

    /// The options that define the load, for reports and `compare`.
    fn load(&self, scenario: Scenario, connections: [usize; 2]) -> Map<String, Value> {
        use Scenario::{Connect, Idle, Offline, P2p, Ping, Room, Slow, Storm};
        let mut load = self.link.load(connections);
        let mut add = |name: &str, value: Value| drop(load.insert(name.to_owned(), value));
        add("scenario", scenario.name().into());
        match (self.closed_loop, scenario) {
            (_, Connect) => add("until_refused", self.until_refused.into()),
            (_, Idle | Storm) => {}
            (Some(window), _) => add("closed_loop", window.into()),
            (None, _) => add("rate", self.rate().into()),
        }
        if let Some(seed) = self.poisson {
            add("poisson", seed.into());
        }
        if scenario != Connect {
            add("duration_ms", self.duration.into());
        }
        if matches!(scenario, Ping | P2p | Room) {
            add("warm_up_ms", self.warm_up.into());
        }
        if matches!(scenario, P2p | Room | Offline | Slow) {
            add("payload_bytes", self.payload_bytes.into());
        }
        if matches!(scenario, Room | Slow) {
            add("rooms", self.rooms.into());
            add("publishers", self.publishers.into());
        }
        if scenario == Slow {
            add("slow_share", self.slow_share.into());
        }
        load
    }

    /// How messages are addressed; none where no messages are sent.
    fn kind(&self, scenario: Scenario) -> Option<Kind> {
        let members = self.connections.checked_div(self.rooms).unwrap_or(0);
        match scenario {
            Scenario::P2p | Scenario::Offline => Some(Kind::Pairs),
            Scenario::Room | Scenario::Slow => Some(Kind::Rooms {
                name: self.room_name.clone(),
                rooms: self.rooms,
                publishers: self.publishers.min(members),
            }),
            Scenario::Connect | Scenario::Idle | Scenario::Ping | Scenario::Churn | Scenario::Storm => None,
        }
    }

    /// Per second.
    pub(crate) fn rate(&self) -> f64 {
        self.rate.unwrap_or(1000.0)
    }
}

/// A scenario on a run whose clients are connected.
struct Drive<'a> {
    run: &'a mut Run,
    options: &'a Options,
}

impl Drive<'_> {
    fn duration(&self) -> Duration {
        Duration::from_millis(self.options.duration)
    }

    fn traffic(&self, kind: Kind) -> Traffic {
        let options = self.options;
        let pace = match (options.closed_loop, options.poisson) {
            (Some(window), _) => Pace::Closed { window, think: Duration::ZERO },
            (None, seed) => Pace::Open { from: options.rate(), to: options.rate(), seed },
        };
        Traffic {
            stream: 1,
            kind,
            first: 0,
            clients: options.connections,
            start_ns: 0,
            duration: self.duration(),
            pace,
            payload_bytes: options.payload_bytes as usize,
        }
    }

    fn rooms(&self) -> Kind {
        let (rooms, connections) = (self.options.rooms, self.options.connections);
        let publishers = self.options.publishers.min(connections / rooms);
        Kind::Rooms { name: self.options.room_name.clone(), rooms, publishers }
    }

    fn drive(&mut self, scenario: Scenario) -> Result<(), String> {
        match scenario {
            Scenario::Connect => Ok(()),
            Scenario::Idle => self.idle(),
            Scenario::Ping => self.send(Kind::Pings),
            Scenario::P2p => self.send(Kind::Pairs),
            Scenario::Room => self.send(self.rooms()),
            Scenario::Offline => self.offline(),
            Scenario::Churn => self.churn(),
            Scenario::Storm => self.storm(),
            Scenario::Slow => self.slow(),
        }
    }

    fn idle(&mut self) -> Result<(), String> {
        self.run.phase("idle");
        self.run.hold(self.duration())
    }

    fn send(&mut self, kind: Kind) -> Result<(), String> {
        let traffic = self.traffic(kind);
        if self.options.warm_up > 0 {
            self.run.warm_up("warm-up");
            self.run.join(&traffic)?;
            self.run.flow(Traffic { duration: Duration::from_millis(self.options.warm_up), ..traffic.clone() })?;
            self.run.phase("steady");
        } else {
            self.run.phase("steady");
            self.run.join(&traffic)?;
        }
        self.run.flow(traffic)
    }

    /// Receivers leave, are written to, come back, and get the gap.
    fn offline(&mut self) -> Result<(), String> {
        let (half, all) = (self.options.connections / 2, self.options.connections);
        self.run.phase("leave");
        self.run.order(Order::Leave(half..2 * half));
        let left = u64::from(all - half);
        self.run.wait_for("leaving", Duration::from_secs(60), |tally| tally.connections <= left)?;
        self.run.phase("away");
        let traffic = self.traffic(Kind::Pairs);
        let lead = self.run.lead();
        self.run.begin(traffic, lead);
        self.run.hold(self.duration() + lead)?;
        self.run.settle(Tally::is_answered)?;
        self.run.phase("return");
        self.run.order(Order::Return(half..2 * half));
        // A receiver without a connection gets nothing more.
        let timeout = Duration::from_secs(60 + u64::from(half) / 500);
        let reconnect = self.options.link.reconnect;
        self.run.wait_for_return(timeout, |tally| {
            let closed = if reconnect { 0 } else { tally.closed };
            tally.connections + closed >= u64::from(all)
        })?;
        self.run.settle(Tally::is_settled)
    }

    fn churn(&mut self) -> Result<(), String> {
        self.run.phase("churn");
        let before = self.run.tally();
        let lead = self.run.lead();
        let from_ns = self.run.now_ns() + lead.as_nanos() as u64;
        let until_ns = from_ns + self.duration().as_nanos() as u64;
        let (clients, rate) = (0..self.options.connections, self.options.rate());
        self.run.order(Order::Churn { clients, rate, from_ns, until_ns });
        self.run.hold(lead + self.duration())?;
        let (all, planned) = (u64::from(self.options.connections), Order::churned(rate, until_ns - from_ns));
        // One that has just been told to leave still counts as connected; one that could not come back is missed at the end.
        self.run.wait_for_return(Duration::from_secs(60), |tally| {
            let done = tally.reconnects - before.reconnects + tally.churns_skipped - before.churns_skipped;
            let on_their_way = tally.connecting + tally.waiting > 0;
            (tally.connections >= all && done >= planned) || (tally.connections < all && !on_their_way)
        })
    }

    fn storm(&mut self) -> Result<(), String> {
        let all = self.options.connections;
        self.run.phase("leave");
        self.run.order(Order::Leave(0..all));
        self.run.wait_for("leaving", Duration::from_secs(120), |tally| tally.connections == 0)?;
        self.run.phase("storm");
        self.run.order(Order::Return(0..all));
        let timeout = Duration::from_secs(60 + u64::from(all) / 500);
        self.run.wait_for_return(timeout, |tally| tally.connections >= u64::from(all))?;
        self.run.phase("after");
        let before = self.run.tally().closed;
        self.run.hold(self.duration())?;
        // Clients try again until they are back; what ends after that is no part of the storm.
        let lost = self.run.tally().closed - before;
        if lost == 0 || self.options.link.reconnect {
            return Ok(());
        }
        self.run.rest()?;
        Err(format!("{lost} connections were lost, or not made again, after all clients were back"))
    }

    /// A share of a room's members stops reading while messages flow, then reads on.
    fn slow(&mut self) -> Result<(), String> {
        let all = self.options.connections;
        let slow = (all * self.options.slow_share / 100).max(1);
        let traffic = self.traffic(self.rooms());
        self.run.phase("before");
        self.run.join(&traffic)?;
        self.run.flow(Traffic { duration: self.duration() / 4, ..traffic.clone() })?;
        self.run.phase("slow");
        // The last clients: publishers are among the first of each room.
        self.run.order(Order::Hold(all - slow..all));
        let lead = self.run.lead();
        self.run.begin(traffic, lead);
        self.run.hold(self.duration() + lead)?;
        self.run.settle(Tally::is_answered)?;
        self.run.phase("reading on");
        self.run.order(Order::Release(all - slow..all));
        self.run.settle(Tally::is_settled)
    }
}

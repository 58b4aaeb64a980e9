//! What is driven: one kind of load against a gateway that runs somewhere.

use std::time::Duration;

use ringgate::auth::Signer;
use ringgate::client::{Trust, Url, client_tls};
use ringgate::net::Target;

use crate::gateway::Process;
use crate::hdr_log::HdrLog;
use crate::metrics::Scraper;
use crate::options::Options;
use crate::plan::{Order, Plan, Tally, Tokens};
use crate::report::Report;
use crate::run::Run;
use crate::traffic::{Kind, Pace, Traffic};
use crate::view::{Scene, View};
use crate::watch::Outlets;

/// Which load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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
    /// Everybody comes back at once.
    Storm,
    /// Readers that stop reading.
    Slow,
}

/// Runs a scenario, reports, and writes what was asked for.
pub(crate) fn run(options: &Options, scenario: Scenario) -> Result<Report, String> {
    crate::check_writable(&[options.json.as_deref(), options.html.as_deref()])?;
    let report = measure(options, scenario)?;
    crate::write_report(&report, options.json.as_deref(), options.html.as_deref())?;
    Ok(report)
}

/// Runs a scenario.
pub(crate) fn measure(options: &Options, scenario: Scenario) -> Result<Report, String> {
    let hdr_log = options.hdr_log.as_deref().map(HdrLog::create).transpose()?;
    let plan = plan(options, scenario)?;
    let Url { host, port, .. } = &options.url;
    let title = format!("{} {host}:{port}", format!("{scenario:?}").to_lowercase());
    let outlets = Outlets {
        process: options.pid.map(Process),
        scraper: options.metrics_url.clone().map(Scraper::start).transpose()?,
        hdr_log,
        // Last, so that what cannot be had is not said on a screen that vanishes.
        view: View::new(options.quiet, options.plain, Scene::new(title)),
    };
    let mut run = Run::start(plan, outlets)?;
    let result = ramp(&mut run, options).and_then(|()| Drive { run: &mut run, options }.drive(scenario));
    let mut report = run.finish()?;
    report.command = std::env::args().collect::<Vec<_>>().join(" ");
    if let Err(error) = result {
        *report.errors.entry(error).or_default() += 1;
    }
    if options.until_refused {
        // A refusal is what was looked for.
        report.errors.clear();
    }
    report.verdicts = options.fail_if.iter().map(|threshold| threshold.judge(&report)).collect();
    Ok(report)
}

fn plan(options: &Options, scenario: Scenario) -> Result<Plan, String> {
    let trust = match &options.ca {
        Some(path) => Trust::File(path),
        None if options.url.tls && !options.dev => return Err("tls:// needs --ca FILE".to_owned()),
        None => Trust::Anybody,
    };
    let tls = if options.url.tls {
        let mut config = client_tls(trust)?;
        if options.no_resumption {
            let mut own = (*config).clone();
            own.resumption = rustls::client::Resumption::disabled();
            config = own.into();
        }
        Some((config, options.url.server_name()?))
    } else {
        None
    };
    let target = Target { address: options.url.resolve()?, tls };
    let tokens = match (&options.key, &options.token) {
        (Some(path), _) => Tokens::Signer(Box::new(Signer::from_key_file(path, None, options.kid.as_deref())?)),
        (None, Some(token)) => Tokens::Fixed(token.clone()),
        (None, None) => Tokens::Signer(Box::new(Signer::dev())),
    };
    let connections = options.connections as usize;
    let threads = crate::threads_for(connections);
    Ok(Plan {
        threads,
        slots_per_thread: crate::slots_for(connections, threads),
        targets: [target.clone(), target],
        tokens,
        // Clients are all of one kind; which of the two targets is used says the URL.
        plain_max: if options.url.tls { 0 } else { options.connections },
        ping_interval: Duration::from_millis(options.ping_interval.max(100)),
        sources: options.source.clone(),
        ramp_rate: options.ramp_rate,
        reconnect: options.reconnect || matches!(scenario, Scenario::Storm | Scenario::Slow),
    })
}

fn ramp(run: &mut Run, options: &Options) -> Result<(), String> {
    let connections = options.connections as usize;
    let (plain, tls) = if options.url.tls { (0, connections) } else { (connections, 0) };
    let by_rate = options.ramp_rate.map_or(connections as u64 / 500, |rate| (connections as f64 / rate) as u64);
    run.connect(plain, tls, Duration::from_secs(60 + by_rate))
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
            (Some(window), _) => Pace::Closed(window),
            (None, Some(seed)) => Pace::Poisson(options.rate, seed),
            (None, None) => Pace::Constant(options.rate),
        };
        Traffic {
            id: 0,
            kind,
            first: 0,
            clients: options.connections,
            start_ns: 0,
            duration: self.duration(),
            pace,
            payload_bytes: options.payload_bytes as usize,
        }
    }

    fn rooms(&self) -> Result<Kind, String> {
        let (rooms, connections) = (self.options.rooms, self.options.connections);
        if rooms > connections {
            return Err(format!("--rooms {rooms} are more than --connections {connections}"));
        }
        let publishers = self.options.publishers.min(connections / rooms);
        Ok(Kind::Rooms { name: self.options.room_name.clone(), rooms, publishers })
    }

    fn drive(&mut self, scenario: Scenario) -> Result<(), String> {
        if matches!(scenario, Scenario::P2p | Scenario::Offline) && self.options.connections < 2 {
            return Err("pairs need at least two connections".to_owned());
        }
        match scenario {
            Scenario::Connect => Ok(()),
            Scenario::Idle => self.idle(),
            Scenario::Ping => self.send(Kind::Pings),
            Scenario::P2p => self.send(Kind::Pairs),
            Scenario::Room => {
                let rooms = self.rooms()?;
                self.send(rooms)
            }
            Scenario::Offline => self.offline(),
            Scenario::Churn => self.churn(),
            Scenario::Storm => self.storm(),
            Scenario::Slow => self.slow(),
        }
    }

    fn idle(&mut self) -> Result<(), String> {
        self.run.phase("idle");
        self.run.hold(self.duration())?;
        let (alive, wanted) = (self.run.tally().connections, u64::from(self.options.connections));
        if alive < wanted && !self.options.reconnect {
            return Err(format!("{} connections were lost", wanted - alive));
        }
        Ok(())
    }

    fn send(&mut self, kind: Kind) -> Result<(), String> {
        let traffic = self.traffic(kind);
        if self.options.warm_up > 0 {
            self.run.phase("warm-up");
            self.run.traffic(Traffic { duration: Duration::from_millis(self.options.warm_up), ..traffic.clone() })?;
        }
        self.run.phase("steady");
        self.run.traffic(traffic)
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
        self.run.begin(traffic, Duration::from_millis(50));
        self.run.hold(self.duration() + Duration::from_millis(50))?;
        self.run.settle(Tally::is_answered)?;
        self.run.phase("return");
        self.run.order(Order::Return(half..2 * half));
        let timeout = Duration::from_secs(60 + u64::from(half) / 500);
        self.run.wait_for("the gap", timeout, |tally| tally.connections >= u64::from(all) && tally.is_settled())
    }

    fn churn(&mut self) -> Result<(), String> {
        self.run.phase("churn");
        let before = self.run.tally().reconnects;
        let until_ns = self.run.now_ns() + self.duration().as_nanos() as u64;
        self.run.order(Order::Churn { clients: 0..self.options.connections, rate: self.options.rate, until_ns });
        self.run.hold(self.duration())?;
        let all = u64::from(self.options.connections);
        self.run.wait_for("coming back", Duration::from_secs(60), |tally| {
            tally.connections >= all && tally.reconnects > before
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
        self.run.wait_for("coming back", timeout, |tally| tally.connections >= u64::from(all))?;
        self.run.phase("after");
        self.run.hold(self.duration())
    }

    /// A share of a room's members stops reading while messages flow, then reads on.
    fn slow(&mut self) -> Result<(), String> {
        let all = self.options.connections;
        let slow = (all * self.options.slow_share / 100).max(1);
        let rooms = self.rooms()?;
        let traffic = self.traffic(rooms);
        self.run.phase("before");
        self.run.traffic(Traffic { duration: self.duration() / 4, ..traffic.clone() })?;
        self.run.phase("slow");
        // The last clients: publishers are among the first of each room.
        self.run.order(Order::Hold(all - slow..all));
        self.run.begin(traffic, Duration::from_millis(50));
        self.run.hold(self.duration() + Duration::from_millis(50))?;
        self.run.settle(Tally::is_answered)?;
        self.run.phase("reading on");
        self.run.order(Order::Release(all - slow..all));
        self.run.settle(Tally::is_settled)
    }
}

//! One kind of load against a gateway that runs somewhere: `connect`, `idle`, `p2p`, `room`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringgate::auth::Signer;
use ringgate::client::{Trust, Url, client_tls};
use ringgate::config::parse_duration_ms;
use ringgate::net::Target;

use crate::gateway::Process;
use crate::plan::{Pace, Shared, Tokens, Traffic};
use crate::run::{Report, Run};

/// What to drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ramp only.
    Connect,
    /// Ramp and hold.
    Idle,
    /// Pairs.
    PeerToPeer,
    /// One room of all.
    Room,
}

/// Options of all scenarios.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("tokens").required(true).args(["dev", "key", "token"])))]
pub(crate) struct Options {
    /// Where the gateway is: tcp://HOST:PORT or tls://HOST:PORT.
    #[arg(long)]
    url: Url,
    /// Clients.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    connections: u32,
    /// Messages per second, all clients together (p2p, room).
    #[arg(long, default_value_t = 1000.0, value_name = "N", value_parser = positive)]
    rate: f64,
    /// Instead of a rate: each sender has N messages under way and waits for answers. Finds out what the gateway can
    /// do; its latencies say nothing about a given load.
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=1000))]
    closed_loop: Option<u32>,
    /// Process id of the gateway, if it runs on this machine: its CPU time per delivery is reported, too.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// How long to hold or to send.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration_ms)]
    duration: u64,
    /// Bytes of each payload; 32 at least.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(32..=16_777_216))]
    payload_bytes: u32,
    /// Publishers in the room.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    publishers: u32,
    /// Name of the room.
    #[arg(long, default_value = "chat:load", value_name = "NAME")]
    room_name: String,
    /// Between two Pings of a client.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_duration_ms)]
    ping_interval: u64,
    /// Sign tokens with the development key of `serve --dev`.
    #[arg(long)]
    dev: bool,
    /// Sign tokens with this secret or private key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// `kid` of the tokens signed with --key.
    #[arg(long, requires = "key")]
    kid: Option<String>,
    /// Use this token for all clients.
    #[arg(long)]
    token: Option<String>,
    /// Certificates to trust; with --dev any is trusted.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Source addresses, each good for about 12 000 connections.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    source: Vec<IpAddr>,
    /// Write the result there as JSON; `-` is standard output, and nothing else goes there then.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

/// Runs a scenario and reports.
pub(crate) fn run(options: &Options, kind: Kind) -> Result<Report, String> {
    let trust = match &options.ca {
        Some(path) => Trust::File(path),
        None if options.url.tls && !options.dev => return Err("tls:// needs --ca FILE".to_owned()),
        None => Trust::Anybody,
    };
    let tls = if options.url.tls { Some((client_tls(trust)?, options.url.server_name()?)) } else { None };
    let target = Target { address: options.url.resolve()?, tls };
    let tokens = match (&options.key, &options.token) {
        (Some(path), _) => Tokens::Signer(Box::new(Signer::from_key_file(path, None, options.kid.as_deref())?)),
        (None, Some(token)) => Tokens::Fixed(token.clone()),
        (None, None) => Tokens::Signer(Box::new(Signer::dev())),
    };
    let connections = options.connections as usize;
    let threads = crate::threads_for(connections);
    let slots = crate::slots_for(connections, threads);
    let ping_interval = Duration::from_millis(options.ping_interval.max(100));
    let sources = (!options.source.is_empty()).then(|| options.source.clone());
    // Clients are all of one kind; which of the two targets is used says the URL.
    let plain_max = if options.url.tls { 0 } else { options.connections };
    let shared = Shared::new(threads, slots, [target.clone(), target], tokens, plain_max, ping_interval, sources);
    let mut run = Run::start(shared, threads, false, options.pid.map(Process));
    let began = Instant::now();
    let (plain, tls) = if options.url.tls { (0, connections) } else { (connections, 0) };
    let ramp = run.connect(plain, tls, Duration::from_secs(60 + connections as u64 / 1000));
    let connects_per_second = connections as f64 / began.elapsed().as_secs_f64();
    let result = ramp.and_then(|()| drive(&mut run, options, kind));
    let mut report = run.finish()?;
    if let Err(error) = result {
        report.errors.insert(error, 1);
    }
    report.connections = [plain, tls];
    report.connects_per_second = Some(connects_per_second);
    crate::write_report(&report, options.json.as_deref())?;
    Ok(report)
}

fn drive(run: &mut Run, options: &Options, kind: Kind) -> Result<(), String> {
    let duration = Duration::from_millis(options.duration);
    let traffic = Traffic {
        run: run.shared().run,
        start_ns: 0,
        duration,
        pace: options.closed_loop.map_or(Pace::Open(options.rate), Pace::Closed),
        payload_bytes: options.payload_bytes as usize,
        room: (kind == Kind::Room).then(|| options.room_name.clone()),
        clients: options.connections,
        publishers: options.publishers.min(options.connections),
    };
    match kind {
        Kind::Connect => Ok(()),
        Kind::Idle => {
            run.hold(duration, "idle")?;
            let alive = run.shared().counts().connections.load(std::sync::atomic::Ordering::Relaxed);
            let wanted = options.connections as usize;
            if alive < wanted { Err(format!("{} connections were lost", wanted - alive)) } else { Ok(()) }
        }
        Kind::PeerToPeer if options.connections < 2 => Err("p2p needs at least two connections".to_owned()),
        Kind::PeerToPeer => run.traffic(traffic, "one-to-one"),
        Kind::Room => run.traffic(traffic, "room"),
    }
}

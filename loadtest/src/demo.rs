//! `cargo demo`: a gateway process and thousands of real connections, in under a minute.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::access::Credentials;
use crate::assignment::Assignment;
use crate::gateway::{Gateway, Process};
use crate::nodes;
use crate::number;
use crate::record::{Names, StreamName};
use crate::report::Report;
use crate::run::{Drivers, Run};
use crate::traffic::{Kind, Pace, Traffic};
use crate::view::{Scene, View};
use crate::watch::Outlets;
use crate::{Outcome, Results};

/// Options of the demo.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Connections in all.
    #[arg(long, default_value_t = 5000, value_name = "N", allow_negative_numbers = true, value_parser = number::count_u32(4..=60_000))]
    connections: u32,
    /// How many of them use TLS.
    #[arg(long, default_value_t = 1000, value_name = "N", allow_negative_numbers = true, value_parser = number::count_u32(0..=60_000))]
    tls_connections: u32,
    /// Let the gateway keep little of each TLS connection, as `tls.memory = "compact"` does.
    #[arg(long)]
    compact_tls: bool,
    /// Seconds of traffic.
    #[arg(long, default_value_t = 16, value_name = "N", allow_negative_numbers = true, value_parser = number::count(2..=3600))]
    seconds: u64,
    /// Write the result there as JSON; `-` is standard output, and nothing else goes there then.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the result there as a page of HTML with charts: one file, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Show progress as lines instead of a screen.
    #[arg(long)]
    plain: bool,
    /// Shards of the gateway; one per core if not given.
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
    /// Instead of one gateway: so many on one Redis, of which one is killed and one drained while people chat. Needs redis-server.
    #[arg(
        long,
        value_name = "N",
        value_parser = number::count_u32(3..=9),
        conflicts_with_all = ["connections", "tls_connections", "compact_tls", "seconds", "json", "html", "plain", "shards"]
    )]
    nodes: Option<u32>,
}

const PING_INTERVAL: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MESSAGES_PER_SECOND: f64 = 4_000.0;
const BROADCASTS_PER_SECOND: f64 = 8.0;
const PAYLOAD_BYTES: usize = 100;
const ROOM_MEMBERS: u32 = 1_000;
/// Long enough for every connection to have sent a heartbeat and for the allocator to be at rest.
const SETTLE: Duration = Duration::from_millis(4_500);

/// Runs the demo and reports.
pub(crate) fn run(options: &Options) -> Result<Outcome, String> {
    if let Some(nodes) = options.nodes {
        return nodes::run(nodes as usize);
    }
    if options.tls_connections > options.connections {
        return Err(format!(
            "--tls-connections {} is more than --connections {}",
            options.tls_connections, options.connections
        ));
    }
    let results = Results { json: options.json.as_deref(), html: options.html.as_deref(), ..Results::default() };
    results.check()?;
    let folder = std::env::temp_dir().join(format!("ringgate-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let report = measure(options, &folder.join("ca.pem"));
    let _ = std::fs::remove_dir_all(&folder);
    crate::conclude(&report?, results)
}

fn measure(options: &Options, ca: &std::path::Path) -> Result<Report, String> {
    let gateway = Gateway::start(options.shards, options.compact_tls, ca)?;
    let process = gateway.process();
    crate::console::note(&format!("gateway (process {}) on {} and {}", process.0, gateway.tcp, gateway.tls));
    let plain = (options.connections - options.tls_connections) as usize;
    let tls = options.tls_connections as usize;
    let assignment = Assignment {
        plain: gateway.tcp.parse()?,
        tls: gateway.tls.parse()?,
        connections: [plain, tls],
        populations: Vec::new(),
        ping_interval: PING_INTERVAL,
        settle: Duration::from_secs(10),
        ramp_rate: None,
        ramp_burst: 1,
        reconnect: false,
        no_resumption: false,
        connect_timeout: CONNECT_TIMEOUT,
        addressed: true,
    };
    let drivers = Drivers::Own(Credentials::dev(ca).access(&assignment)?);
    let mut run = Run::start(
        assignment,
        drivers,
        Outlets {
            view: View::new(false, options.plain, Scene::new("demo".to_owned())),
            processes: vec![process],
            ..Outlets::default()
        },
    )?;
    run.name(Names {
        populations: vec!["demo".to_owned()],
        streams: ["one-to-one", "room"].map(|name| StreamName { name: name.to_owned(), pings: false }).into(),
    });
    let mut idle_bytes = [None, None];
    let result = phases(options, &mut run, process, &mut idle_bytes).and_then(|()| run.rest());
    let mut report = run.finish();
    report.failure = result.err();
    report.command = crate::console::command_line();
    report.load = Map::from_iter([
        ("scenario".to_owned(), Value::from("demo")),
        ("connections".to_owned(), options.connections.into()),
        ("tls_connections".to_owned(), options.tls_connections.into()),
        ("compact_tls".to_owned(), options.compact_tls.into()),
        ("shards".to_owned(), options.shards.into()),
        ("seconds".to_owned(), options.seconds.into()),
    ]);
    report.idle_bytes = idle_bytes;
    if !gateway.stop() {
        report.errors.insert("the gateway did not stop in order".to_owned(), 1);
    }
    Ok(report)
}

/// Everybody comes, is quiet for a moment, and then sends. Bytes per idle connection are those over TCP and over TLS.
fn phases(options: &Options, run: &mut Run, process: Process, idle_bytes: &mut [Option<f64>; 2]) -> Result<(), String> {
    let (timeout, tls) = (Duration::from_secs(60), options.tls_connections as usize);
    let plain = options.connections as usize - tls;
    // Memory: what the connections beyond a first part have added.
    let first = plain / 4;
    run.connect(first, 0, timeout, false)?;
    run.phase("idle");
    run.hold(SETTLE)?;
    let with_first = process.user_bytes();
    run.phase("connect");
    run.connect(plain, 0, timeout, false)?;
    run.phase("idle");
    run.hold(SETTLE)?;
    let with_plain = process.user_bytes();
    run.phase("connect TLS");
    run.connect(plain, tls, timeout, false)?;
    run.phase("idle");
    run.hold(SETTLE)?;
    let with_tls = process.user_bytes();
    let per = |bytes: u64, before: u64, connections: usize| {
        (connections >= 100).then(|| (bytes as f64 - before as f64) / connections as f64)
    };
    *idle_bytes = [per(with_plain, with_first, plain - first), per(with_tls, with_plain, tls)];

    let traffic = Traffic {
        stream: 1,
        kind: Kind::Pairs,
        first: 0,
        clients: options.connections,
        start_ns: 0,
        duration: Duration::from_secs(options.seconds) / 2,
        pace: Pace::constant(MESSAGES_PER_SECOND.min(f64::from(options.connections) * 2.0)),
        payload_bytes: PAYLOAD_BYTES,
    };
    run.phase("one-to-one");
    run.flow(traffic.clone())?;
    run.phase("room");
    let broadcasts = Traffic {
        stream: 2,
        kind: Kind::Rooms { name: "chat:demo".to_owned(), rooms: 1, publishers: 4 },
        pace: Pace::constant(BROADCASTS_PER_SECOND),
        clients: ROOM_MEMBERS.min(options.connections),
        ..traffic
    };
    run.join(&broadcasts)?;
    run.flow(broadcasts)
}

//! What every scenario can be told on the command line.

use std::path::PathBuf;

use ringgate::client::Url;
use ringgate::config::parse_duration_ms;

use crate::metrics::MetricsUrl;
use crate::plan::Sources;
use crate::threshold::Threshold;

/// Options of all scenarios.
#[derive(clap::Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("tokens").required(true).args(["dev", "key", "token"])))]
pub(crate) struct Options {
    /// Where the gateway is: tcp://HOST:PORT or tls://HOST:PORT.
    #[arg(long)]
    pub(crate) url: Url,
    /// Clients.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    pub(crate) connections: u32,
    /// Messages (p2p, room, offline, slow), Pings (ping) or reconnects (churn) per second, all clients together.
    #[arg(long, default_value_t = 1000.0, value_name = "N", value_parser = positive)]
    pub(crate) rate: f64,
    /// Send at random times, as many independent clients would, instead of evenly; the seed makes it repeatable.
    #[arg(long, value_name = "SEED", num_args = 0..=1, default_missing_value = "1")]
    pub(crate) poisson: Option<u64>,
    /// Instead of a rate: each sender has N messages under way and waits for answers. Finds out what the gateway can
    /// do; its latencies say nothing about a given load.
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "poisson"], value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) closed_loop: Option<u32>,
    /// How long to hold or to send.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration_ms)]
    pub(crate) duration: u64,
    /// Send for this long first, without counting its latencies.
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = parse_duration_ms)]
    pub(crate) warm_up: u64,
    /// Bytes of each payload; 32 at least.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(32..=16_777_216))]
    pub(crate) payload_bytes: u32,
    /// Rooms, which share the clients among them (room, slow).
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rooms: u32,
    /// Publishers in each room.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publishers: u32,
    /// Name of the room; several get numbers behind it.
    #[arg(long, default_value = "chat:load", value_name = "NAME")]
    pub(crate) room_name: String,
    /// Readers that stop reading, in percent (slow).
    #[arg(long, default_value_t = 10, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) slow_share: u32,
    /// Connects begun per second; as fast as it goes if not given.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) ramp_rate: Option<f64>,
    /// Go on connecting until the gateway refuses, and report how many it took (connect).
    #[arg(long)]
    pub(crate) until_refused: bool,
    /// Clients that lose their connection come back, as the protocol asks, instead of counting as errors.
    #[arg(long)]
    pub(crate) reconnect: bool,
    /// Between two Pings of a client.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_duration_ms)]
    pub(crate) ping_interval: u64,
    /// Sign tokens with the development key of `serve --dev`.
    #[arg(long)]
    pub(crate) dev: bool,
    /// Sign tokens with this secret or private key.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// `kid` of the tokens signed with --key.
    #[arg(long, requires = "key")]
    pub(crate) kid: Option<String>,
    /// Use this token for all clients.
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Certificates to trust; with --dev any is trusted.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Make every TLS handshake a full one.
    #[arg(long)]
    pub(crate) no_resumption: bool,
    /// Addresses to connect from, each good for about 12 000 connections: a list, or a network such as 127.0.0.0/8.
    #[arg(long, value_name = "ADDRESSES", default_value = "", hide_default_value = true, value_parser = sources)]
    pub(crate) source: Sources,
    /// Process id of the gateway, if it runs on this machine: its CPU time and memory are reported, too.
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// Where the gateway's metrics are, http://HOST:PORT/metrics: asked once a second, and reported with the rest.
    #[arg(long, value_name = "URL")]
    pub(crate) metrics_url: Option<MetricsUrl>,
    /// Fail (exit code 1) under this condition: 'p99>20ms', 'connect.p99.9>1s', 'lost>0', 'rate<5000'; may be repeated.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<Threshold>,
    /// Write every interval's latencies there, in the log format of HdrHistogram.
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr_log: Option<PathBuf>,
    /// Write the result there as JSON; `-` is standard output, and nothing else goes there then.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the result there as a page of HTML with charts: one file, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Show progress as lines instead of a screen; so it is anyway where there is no terminal, or TERM is dumb.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Print no progress.
    #[arg(long)]
    pub(crate) quiet: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn sources(text: &str) -> Result<Sources, String> {
    if text.is_empty() { Ok(Sources::default()) } else { text.parse() }
}

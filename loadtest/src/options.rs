//! Options that several commands share, and what becomes of them.

use std::path::PathBuf;
use std::time::Duration;

use ringgate::auth::Signer;
use ringgate::client::{Trust, Url, client_tls};
use ringgate::config::parse_duration_ms;
use ringgate::net::Target;

use crate::gateway::Process;
use crate::hdr_log::HdrLog;
use crate::metrics::{MetricsUrl, Scraper};
use crate::plan::{Plan, Sources, Tokens};
use crate::report::Report;
use crate::run::Run;
use crate::threshold::Threshold;
use crate::view::{Scene, View};
use crate::watch::Outlets;

/// Where the gateway is, and who its clients are.
#[derive(clap::Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("tokens").required(true).args(["dev", "key", "token"])))]
pub(crate) struct Link {
    /// Where the gateway is: tcp://HOST:PORT or tls://HOST:PORT.
    #[arg(long)]
    pub(crate) url: Url,
    /// Connects begun per second; as fast as it goes if not given.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) ramp_rate: Option<f64>,
    /// Begin so many of them at once, then pause for as long as the rate asks.
    #[arg(long, default_value_t = 1, value_name = "N", requires = "ramp_rate", value_parser = clap::value_parser!(u32).range(1..))]
    ramp_burst: u32,
    /// Clients that lose their connection come back, as the protocol asks, instead of counting as errors.
    #[arg(long)]
    pub(crate) reconnect: bool,
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
    /// Make every TLS handshake a full one.
    #[arg(long)]
    no_resumption: bool,
    /// Addresses to connect from, each good for about 12 000 connections: a list, or a network such as 127.0.0.0/8.
    #[arg(long, value_name = "ADDRESSES", default_value = "", hide_default_value = true, value_parser = sources)]
    source: Sources,
}

/// What is looked at, judged and written down.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Output {
    /// Process id of the gateway, if it runs on this machine: its CPU time and memory are reported, too.
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// Where the gateway's metrics are, http://HOST:PORT/metrics: asked once a second, and reported with the rest.
    #[arg(long, value_name = "URL")]
    metrics_url: Option<MetricsUrl>,
    /// Fail (exit code 1) under this condition: 'p99>20ms', 'connect.p99.9>1s', 'lost>0', 'rate<5000'; may be repeated.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<Threshold>,
    /// Write every interval's latencies there, in the log format of HdrHistogram.
    #[arg(long, value_name = "FILE")]
    hdr_log: Option<PathBuf>,
    /// Write the result there as JSON; `-` is standard output, and nothing else goes there then.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the result there as a page of HTML with charts: one file, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Show progress as lines instead of a screen; so it is anyway where there is no terminal, or TERM is dumb.
    #[arg(long)]
    plain: bool,
    /// Print no progress.
    #[arg(long)]
    pub(crate) quiet: bool,
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn sources(text: &str) -> Result<Sources, String> {
    if text.is_empty() { Ok(Sources::default()) } else { text.parse() }
}

impl Link {
    /// A run of so many connections: plain, TLS. `others` is where those go that `--url` does not say.
    pub(crate) fn plan(&self, connections: [usize; 2], other: Option<&Url>) -> Result<Plan, String> {
        let own = self.target(&self.url)?;
        let other = other.map(|url| self.target(url)).transpose()?.unwrap_or_else(|| own.clone());
        let targets = if self.url.tls { [other, own] } else { [own, other] };
        let tokens = match (&self.key, &self.token) {
            (Some(path), _) => Tokens::Signer(Box::new(Signer::from_key_file(path, None, self.kid.as_deref())?)),
            (None, Some(token)) => Tokens::Fixed(token.clone()),
            (None, None) => Tokens::Signer(Box::new(Signer::dev())),
        };
        let all = connections[0] + connections[1];
        let rings = crate::rings_for(all);
        Ok(Plan {
            rings,
            slots_per_ring: crate::slots_for(all, rings),
            targets,
            tokens,
            plain_max: connections[0] as u32,
            ping_interval: Duration::from_millis(self.ping_interval.max(100)),
            sources: self.source.clone(),
            ramp_rate: self.ramp_rate,
            ramp_burst: self.ramp_burst,
            reconnect: self.reconnect,
        })
    }

    fn target(&self, url: &Url) -> Result<Target, String> {
        let address = url.resolve()?;
        if !url.tls {
            return Ok(Target { address, tls: None });
        }
        let trust = match &self.ca {
            Some(path) => Trust::File(path),
            None if !self.dev => return Err("tls:// needs --ca FILE".to_owned()),
            None => Trust::Anybody,
        };
        let mut config = client_tls(trust)?;
        if self.no_resumption {
            let mut own = (*config).clone();
            own.resumption = rustls::client::Resumption::disabled();
            config = own.into();
        }
        Ok(Target { address, tls: Some((config, url.server_name()?)) })
    }

    /// Connects everybody; how long that may take depends on how many they are.
    pub(crate) fn ramp(&self, run: &mut Run, [plain, tls]: [usize; 2]) -> Result<(), String> {
        let connections = plain + tls;
        let by_rate = self.ramp_rate.map_or(connections as u64 / 500, |rate| (connections as f64 / rate) as u64);
        run.connect(plain, tls, Duration::from_secs(60 + by_rate))
    }
}

impl Output {
    /// Starts a run that is looked at as these options ask, and called `title` where it is shown.
    pub(crate) fn start(&self, plan: Plan, title: &str) -> Result<Run, String> {
        crate::check_writable(&[self.json.as_deref(), self.html.as_deref()])?;
        let outlets = Outlets {
            process: self.pid.map(Process),
            scraper: self.metrics_url.clone().map(Scraper::start).transpose()?,
            hdr_log: self.hdr_log.as_deref().map(HdrLog::create).transpose()?,
            // Last, so that what cannot be had is not said on a screen that vanishes.
            view: View::new(self.quiet, self.plain, Scene::new(title.to_owned())),
        };
        Run::start(plan, outlets)
    }

    /// Ends a run and judges it. What the run's `result` complains about is one of its errors.
    pub(crate) fn finish(&self, run: Run, result: Result<(), String>) -> Result<Report, String> {
        let mut report = run.finish()?;
        report.command = std::env::args().collect::<Vec<_>>().join(" ");
        if let Err(error) = result {
            *report.errors.entry(error).or_default() += 1;
        }
        report.verdicts = self.fail_if.iter().map(|threshold| threshold.judge(&report)).collect();
        Ok(report)
    }

    /// Writes what was asked for.
    pub(crate) fn write(&self, report: &Report) -> Result<(), String> {
        crate::write_report(report, self.json.as_deref(), self.html.as_deref())
    }
}

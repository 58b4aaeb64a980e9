//! A run: driver threads, phases, live line; and the report that all scenarios end in.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringgate::session::Transport;

use crate::fleet::{self, Outcome, latencies};
use crate::gateway::Process;
use crate::plan::{Shared, Traffic};

/// Driver threads at work.
pub(crate) struct Run {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<Outcome, String>>>,
    wanted: usize,
    quiet: bool,
    last_delivered: u64,
    last_line: Instant,
    p99_us: u64,
    started: Instant,
    /// Deliveries that the traffic so far should have caused.
    expected: u64,
    /// The gateway, if it runs on this machine and its figures are wanted.
    server: Option<Process>,
    /// What it used while traffic flowed, and for how many deliveries.
    server_cpu: Duration,
    server_deliveries: u64,
    /// What this process used meanwhile, and how long that was.
    driver_cpu: Duration,
    traffic_time: Duration,
}

/// Everything that is known at the end.
#[derive(Default)]
pub(crate) struct Report {
    /// Connections signed in at most: plain, TLS.
    pub(crate) connections: [usize; 2],
    /// Publishes accepted.
    pub(crate) published: u64,
    /// Different deliveries.
    pub(crate) delivered: u64,
    /// Accepted and not delivered.
    pub(crate) lost: u64,
    /// Delivered again.
    pub(crate) duplicated: u64,
    /// Delivered after a later one.
    pub(crate) reordered: u64,
    /// Damaged payloads.
    pub(crate) corrupted: u64,
    /// Pings and Pongs.
    pub(crate) heartbeats: (u64, u64),
    /// Anything else that went wrong, by kind.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Nanoseconds from the planned send time.
    pub(crate) latency: Option<Histogram<u64>>,
    /// Gateway's user memory per idle connection: plain, TLS.
    pub(crate) idle_bytes: [Option<f64>; 2],
    /// Gateway's CPU per delivery.
    pub(crate) cpu_us_per_delivery: Option<f64>,
    /// Share of the driver threads' time in which they worked, while traffic flowed.
    pub(crate) driver_busy: Option<f64>,
    /// Connections per second of the ramp.
    pub(crate) connects_per_second: Option<f64>,
}

impl Run {
    /// Starts the threads.
    pub(crate) fn start(shared: Shared, threads: usize, quiet: bool, server: Option<Process>) -> Run {
        let shared = Arc::new(shared);
        let threads = (0..threads)
            .map(|thread| {
                let shared = shared.clone();
                std::thread::spawn(move || fleet::run(shared, thread))
            })
            .collect();
        Run {
            shared,
            threads,
            wanted: 0,
            quiet,
            last_delivered: 0,
            last_line: Instant::now(),
            p99_us: 0,
            started: Instant::now(),
            expected: 0,
            server,
            server_cpu: Duration::ZERO,
            server_deliveries: 0,
            driver_cpu: Duration::ZERO,
            traffic_time: Duration::ZERO,
        }
    }

    /// What the threads share.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Wants so many connections and waits until they are signed in.
    pub(crate) fn connect(&mut self, plain: usize, tls: usize, timeout: Duration) -> Result<(), String> {
        self.shared.want(Transport::Plain, plain);
        self.shared.want(Transport::Tls, tls);
        self.wanted = plain + tls;
        let deadline = Instant::now() + timeout;
        while self.shared.counts().connections.load(Relaxed) < self.wanted {
            self.pause("connecting")?;
            if self.shared.counts().closed.load(Relaxed) > 0 {
                return Err("connections were refused or lost".to_owned());
            }
            if Instant::now() > deadline {
                return Err(format!("not all connections were made within {} s", timeout.as_secs()));
            }
        }
        Ok(())
    }

    /// Lets time pass.
    pub(crate) fn hold(&mut self, duration: Duration, what: &str) -> Result<(), String> {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.pause(what)?;
        }
        Ok(())
    }

    /// Lets members join a room, publishes for a while and waits for what is still under way.
    pub(crate) fn traffic(&mut self, mut traffic: Traffic, what: &str) -> Result<(), String> {
        let counts_before = self.shared.counts().accepted.load(Relaxed);
        let lead = if traffic.room.is_some() { Duration::from_millis(1500) } else { Duration::from_millis(100) };
        traffic.start_ns = self.shared.now_ns() + lead.as_nanos() as u64;
        let (members, recipients, duration) = (traffic.room.is_some(), traffic.recipients(), traffic.duration);
        let messages = traffic.messages();
        let joined_before = self.shared.counts().subscribed.load(Relaxed);
        self.shared.start_traffic(traffic);
        self.hold(lead, what)?;
        if members && self.shared.counts().subscribed.load(Relaxed) - joined_before < recipients {
            return Err("not all members had joined the room when it was to begin".to_owned());
        }
        let server = self.server.map(|process| (process, process.cpu()));
        let (driver_before, began) = (Process::own().cpu(), Instant::now());
        let delivered_before = self.shared.counts().delivered.load(Relaxed);
        self.hold(duration, what)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let counts = self.shared.counts();
            let (sent, accepted) = (counts.sent.load(Relaxed), counts.accepted.load(Relaxed));
            let expected = self.expected + (accepted - counts_before) * recipients;
            let delivered = counts.delivered.load(Relaxed);
            let all_sent = messages.is_none_or(|messages| accepted - counts_before == messages);
            if (all_sent && accepted == sent && delivered >= expected) || Instant::now() > deadline {
                self.expected = expected;
                self.driver_cpu += Process::own().cpu() - driver_before;
                self.traffic_time += began.elapsed();
                if let Some((process, before)) = server {
                    self.server_cpu += process.cpu() - before;
                    self.server_deliveries += delivered - delivered_before;
                }
                return Ok(());
            }
            self.pause(what)?;
        }
    }

    fn pause(&mut self, what: &str) -> Result<(), String> {
        std::thread::sleep(Duration::from_millis(10));
        if self.threads.iter().any(JoinHandle::is_finished) {
            return Err("a driver thread has ended".to_owned());
        }
        if self.last_line.elapsed() >= Duration::from_millis(500) {
            self.live_line(what);
        }
        Ok(())
    }

    /// One line that is written over on a terminal, and appended once in a while elsewhere.
    fn live_line(&mut self, what: &str) {
        let elapsed = self.last_line.elapsed().as_secs_f64();
        let counts = self.shared.counts();
        let delivered = counts.delivered.load(Relaxed);
        let rate = (delivered - self.last_delivered) as f64 / elapsed;
        let interval = self.shared.take_interval();
        if !interval.is_empty() {
            self.p99_us = interval.value_at_quantile(0.99) / 1000;
        }
        self.last_delivered = delivered;
        self.last_line = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        if self.quiet {
            return;
        }
        let line = format!(
            "{:>5.1} s  {what:<12} {:>6} of {} connections  {rate:>8.0} messages/s  p99 {:>7} us  errors {}",
            self.started.elapsed().as_secs_f64(),
            counts.connections.load(Relaxed),
            self.wanted,
            self.p99_us,
            counts.errors.load(Relaxed),
        );
        let end = if terminal { "\r" } else { "\n" };
        let _ = write!(std::io::stderr(), "{line}{end}");
    }

    /// Ends the threads and adds everything up.
    pub(crate) fn finish(mut self) -> Result<Report, String> {
        let counts = self.shared.counts();
        let mut report = Report {
            published: counts.accepted.load(Relaxed),
            heartbeats: (counts.pings.load(Relaxed), counts.pongs.load(Relaxed)),
            ..Report::default()
        };
        let unanswered = counts.sent.load(Relaxed) - report.published;
        self.shared.stop();
        let mut latency = latencies();
        let driver_threads = self.threads.len();
        for thread in self.threads.drain(..) {
            let outcome = thread.join().map_err(|_| "a driver thread panicked".to_owned())??;
            report.delivered += outcome.ledger.delivered;
            report.duplicated += outcome.ledger.duplicated;
            report.reordered += outcome.ledger.reordered;
            report.corrupted += outcome.ledger.corrupted;
            let _ = latency.add(&outcome.latency);
            for (kind, count) in outcome.errors {
                *report.errors.entry(kind).or_default() += count;
            }
        }
        if unanswered > 0 {
            report.errors.insert("publishes without an answer".to_owned(), unanswered);
        }
        report.lost = self.expected.saturating_sub(report.delivered);
        let available = self.traffic_time.as_secs_f64() * driver_threads as f64;
        report.driver_busy = (available > 0.0).then(|| self.driver_cpu.as_secs_f64() / available);
        report.cpu_us_per_delivery =
            (self.server_deliveries > 0).then(|| self.server_cpu.as_secs_f64() * 1e6 / self.server_deliveries as f64);
        report.latency = Some(latency);
        if !self.quiet && std::io::stderr().is_terminal() {
            eprintln!();
        }
        Ok(report)
    }
}

impl Report {
    /// Whether nothing was lost, duplicated, reordered, damaged or refused.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupted == 0 && self.errors.is_empty()
    }

    fn quantiles_us(&self) -> Option<[f64; 4]> {
        let latency = self.latency.as_ref().filter(|latency| !latency.is_empty())?;
        let quantile = |q: f64| latency.value_at_quantile(q) as f64 / 1000.0;
        Some([quantile(0.5), quantile(0.99), quantile(0.999), latency.max() as f64 / 1000.0])
    }

    /// The table that a person reads.
    pub(crate) fn table(&self) -> String {
        let mut lines = Vec::new();
        let mut row = |name: &str, value: String| lines.push(format!("  {name:<34} {value:>14}"));
        row("connections, TCP", self.connections[0].to_string());
        row("connections, TLS", self.connections[1].to_string());
        if let Some(rate) = self.connects_per_second {
            row("connections signed in per second", format!("{rate:.0}"));
        }
        row("heartbeats sent / answered", format!("{} / {}", self.heartbeats.0, self.heartbeats.1));
        row("messages published", self.published.to_string());
        row("deliveries", self.delivered.to_string());
        row("lost", self.lost.to_string());
        row("duplicated", self.duplicated.to_string());
        row("reordered", self.reordered.to_string());
        row("errors", self.errors.values().sum::<u64>().to_string());
        if let Some([p50, p99, p999, max]) = self.quantiles_us() {
            row("latency p50", format!("{p50:.0} us"));
            row("latency p99", format!("{p99:.0} us"));
            row("latency p99.9", format!("{p999:.0} us"));
            row("latency max", format!("{max:.0} us"));
        }
        if let Some(cpu) = self.cpu_us_per_delivery {
            row("gateway CPU per delivery", format!("{cpu:.2} us"));
        }
        if let Some(busy) = self.driver_busy {
            row("this load tester was busy", format!("{:.0} %", busy * 100.0));
        }
        for (name, bytes) in ["TCP", "TLS"].iter().zip(self.idle_bytes) {
            if let Some(bytes) = bytes {
                row(&format!("gateway memory per idle {name}"), format!("{bytes:.0} B"));
            }
        }
        for (kind, count) in &self.errors {
            lines.push(format!("  ! {count} x {kind}"));
        }
        lines.join("\n")
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let [p50, p99, p999, max] = self.quantiles_us().unwrap_or_default();
        serde_json::json!({
            "connections": self.connections[0] + self.connections[1],
            "tls_connections": self.connections[1],
            "connects_per_second": self.connects_per_second,
            "pings": self.heartbeats.0,
            "pongs": self.heartbeats.1,
            "published": self.published,
            "delivered": self.delivered,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "reordered": self.reordered,
            "corrupted": self.corrupted,
            "errors": self.errors.values().sum::<u64>(),
            "errors_by_kind": self.errors,
            "latency_us": {"p50": p50, "p99": p99, "p999": p999, "max": max},
            "idle_bytes_per_connection": {"plain": self.idle_bytes[0], "tls": self.idle_bytes[1]},
            "cpu_us_per_delivery": self.cpu_us_per_delivery,
            "driver_busy": self.driver_busy,
            "clean": self.is_clean(),
        })
    }
}

//! The object that programs read. Times are microseconds, unless a name says otherwise.

use std::borrow::Cow;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::{Phase, Report};
use crate::record::{Latency, Measure, Quantiles, Record, Series};
use crate::threshold::Verdict;

/// Number of what the object looks like: it grows when a key goes away or means something else, and not when one is added.
pub(crate) const SCHEMA: u32 = 2;

impl Report {
    /// See the module.
    pub(crate) fn json(&self) -> Value {
        let parts = [self.circumstances(), self.counts(), self.times(), self.machines(), self.judgement()];
        let fields = |part| if let Value::Object(fields) = part { fields } else { Map::new() };
        parts.into_iter().flat_map(fields).collect()
    }

    fn circumstances(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "command": self.command,
            "load": self.load,
            "gateways": self.gateways,
            "host": self.host,
            "began": self.began.map(|began| humantime::format_rfc3339_seconds(began).to_string()),
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "aborted": self.aborted,
            "notes": self.notes,
            "failure": self.failure,
        })
    }

    fn counts(&self) -> Value {
        let until_refused =
            self.refusals.as_ref().map(|refusals| json!({"signed_in": self.tally.connections, "refusals": refusals}));
        json!({
            "connections": self.connections[0] + self.connections[1],
            "tls_connections": self.connections[1],
            "tls_handshakes": handshakes([self.tally.tls_full, self.tally.tls_resumed]),
            "until_refused": until_refused,
            "pings": self.tally.pings,
            "pongs": self.tally.pongs,
            "published": self.tally.sent,
            "accepted": self.tally.accepted,
            "planned": self.planned,
            "sent": self.sent(),
            "sent_share": self.sent_share(),
            "never_sent": self.never_sent(),
            "skipped": self.skipped(),
            "skipped_by_churn": self.tally.skipped_by_churn,
            "undecided": self.balance.undecided,
            "unanswered": self.balance.unanswered,
            "answered_twice": self.found.answered_twice,
            "answered_wrong": self.found.answered_wrong,
            "pings_unanswered": self.pings_unanswered(),
            "heartbeats_unanswered": self.heartbeats_unanswered(),
            "away": self.away(),
            "delivered": self.balance.delivered,
            "delivered_undecided": self.balance.delivered_undecided,
            "delivered_refused": self.balance.delivered_refused,
            "lost": self.balance.lost,
            "uncertain": self.balance.uncertain,
            "duplicated": self.found.duplicated,
            "reordered": self.found.reordered,
            "corrupted": self.found.corrupted,
            "misdelivered": self.found.misdelivered,
            "late": self.late(),
            "reconnects": self.tally.reconnects,
            "errors": self.errors.values().sum::<u64>(),
            "errors_by_kind": self.errors,
            "refused_by_code": self.refused,
            "closed_by_code": self.closed,
        })
    }

    fn times(&self) -> Value {
        let main = Quantiles::from(&self.record.of(self.main()).planned);
        json!({
            "connects_per_second": self.connects_per_second(),
            "latency_us": {"p50": main.p50, "p90": main.p90, "p95": main.p95, "p99": main.p99, "p999": main.p999, "max": main.max},
            "latencies_us": latencies(&self.record, |_| true),
            "latencies_by_name_us": self.by_name(&self.record),
            "first_1000_back_us": self.first_back(),
            "send_lag_us": Quantiles::from(&self.record.lag),
            "stall_us": self.record.stall_us,
            "stalled_us": self.tally.stalled_us,
            "phases": self.phases.iter().map(|phase| self.phase(phase)).collect::<Vec<_>>(),
            "timeline": self.timeline,
        })
    }

    fn machines(&self) -> Value {
        json!({
            "driver_busy": self.driver_busy(),
            "driver_limit": self.driver_limit().map(|limit| limit.what),
            "idle_bytes_per_connection": {"plain": self.idle_bytes[0], "tls": self.idle_bytes[1]},
            "cpu_us_per_delivery": self.cpu_us_per_delivery(),
            "driver_cpu_us_per_delivery": self.driver_cpu_us_per_delivery(),
            "enters_per_delivery": self.enters_per_delivery(),
            "workers": self.workers,
            "metrics": self.metrics,
        })
    }

    fn judgement(&self) -> Value {
        json!({
            "thresholds": self.verdicts,
            "thresholds_failed": self.failed().map(Verdict::to_string).collect::<Vec<_>>(),
            "clean": self.is_clean(),
        })
    }
}

impl Report {
    fn phase(&self, phase: &Phase) -> Value {
        json!({
            "name": phase.name,
            "seconds": phase.seconds,
            "sending_seconds": phase.sending_seconds,
            "connected": phase.connected,
            "tls_handshakes": handshakes(phase.handshakes),
            "sent": phase.sent,
            "accepted": phase.accepted,
            "delivered": phase.delivered,
            "pongs": phase.pongs,
            "reconnects": phase.reconnects,
            "errors": phase.errors,
            "driver_busy": phase.driver_busy,
            "driver_cpu_seconds": phase.driver_cpu_seconds,
            "gateway_cpu_seconds": phase.server_cpu_seconds,
            "latency_us": latencies(&phase.record, |_| true),
            "latency_by_name_us": self.by_name(&phase.record),
        })
    }

    /// The latencies of each stream and population; those that have none are left out.
    fn by_name(&self, record: &Record) -> Map<String, Value> {
        let latencies = |name: &str| {
            let series: Vec<Series> = self.names.of(name).collect();
            latencies(record, |other| series.contains(&other))
        };
        let all = self.names.all().into_iter().map(|name| (name.to_owned(), latencies(name)));
        all.filter(|(_, latencies)| !latencies.is_empty()).map(|(name, all)| (name, Value::Object(all))).collect()
    }
}

fn handshakes([full, resumed]: [u64; 2]) -> Value {
    json!({"full": full, "resumed": resumed})
}

/// By the name of what was timed; what was not is left out.
fn latencies(record: &Record, wanted: impl Fn(Series) -> bool) -> Map<String, Value> {
    let measured = Measure::ALL.into_iter().filter_map(|measure| {
        let latency = record.of_those(measure, &wanted);
        (!latency.planned.is_empty()).then_some((measure, latency))
    });
    let latency = |(measure, latency): (Measure, Cow<'_, Latency>)| {
        let value = json!({
            "planned": Quantiles::from(&latency.planned),
            "sent": Quantiles::from(&latency.sent),
            "curve": curve(&latency.planned),
        });
        (measure.label().to_owned(), value)
    };
    measured.map(latency).collect()
}

/// The percentile curve: share of values, and the value that so many are at most.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    const SHARES: [f64; 17] = [
        0.0, 0.1, 0.25, 0.5, 0.625, 0.75, 0.8125, 0.875, 0.9, 0.9375, 0.96875, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0,
    ];
    SHARES.iter().map(|share| (*share, histogram.value_at_quantile(*share))).collect()
}

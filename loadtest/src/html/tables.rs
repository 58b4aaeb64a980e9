//! Which tables a report has.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::ValueEnum;
use ringgate_core::close::{CloseReason, ErrorCode};
use serde_json::{Map, Value};

use super::grouped;
use crate::finding::Finding;
use crate::metrics::{Figures, Series};
use crate::record::{Quantiles, human_us};
use crate::report::Report;
use crate::xml::escape;

/// Thresholds with their verdict; nothing when there are none.
pub(super) fn thresholds(report: &Report) -> String {
    if report.verdicts.is_empty() {
        return String::new();
    }
    let rows = report.verdicts.iter().map(|verdict| {
        let (class, word) = if verdict.met { ("good", "met") } else { ("bad", "not met") };
        vec![
            format!("<code>{}</code>", escape(&verdict.condition)),
            escape(&verdict.found),
            format!("<span class=\"{class}\">{word}</span>"),
        ]
    });
    "<h2>Thresholds</h2>\n".to_owned()
        + &table("The run fails when one of these conditions is true.", &["fails if", "found", "threshold"], rows)
}

/// Gateway, host and settings: what another run must have in common with this one to be compared.
pub(super) fn tested(report: &Report) -> String {
    let mut rows =
        vec![("gateway".to_owned(), report.gateways.join(", ")), ("load tester".to_owned(), report.host.text())];
    rows.extend(settings_of(&report.load));
    if !report.allowed.is_empty() {
        let names = report.allowed.iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        rows.push(("allowed to go wrong".to_owned(), names.join(", ")));
    }
    let rows = rows.into_iter().map(|(name, value)| vec![escape(&name), escape(&value)]);
    let mut out = "<h2>What was tested</h2>\n".to_owned()
        + &table("Settings as they were in effect, those that were not given among them.", &["setting", "value"], rows);
    if let Some(text) = report.load.get(MIXTURE).and_then(Value::as_str) {
        // Lines stay lines.
        let text: Vec<String> = text.lines().map(escape).collect();
        let begin = super::scrollable("The file of the mixed load");
        out += &format!("<h3>The file</h3>\n{begin}<pre id=\"mixture\">{}</pre></div>\n", text.join("\n"));
    }
    out
}

/// The settings of a search for a capacity.
pub(super) fn settings(load: &Map<String, Value>) -> String {
    let rows = settings_of(load).map(|(name, value)| vec![escape(&name), escape(&value)]);
    "<h2>What was tested</h2>\n".to_owned() + &table("Settings as they were in effect.", &["setting", "value"], rows)
}

fn settings_of(load: &Map<String, Value>) -> impl Iterator<Item = (String, String)> {
    load.iter().filter(|(name, _)| *name != MIXTURE).map(|(name, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        (name.replace('_', " "), value)
    })
}

/// The runs of a search for a capacity, by their rate.
pub(super) fn trials(finding: &Finding) -> String {
    let heads = ["per second", "p50", "p95", "p99", "max", "tester busy", "thresholds", "the limit was", "meaning"];
    let rows = finding.sorted().into_iter().map(|trial| {
        let Quantiles { p50, p95, p99, max, .. } = trial.latency_us;
        let mut row = vec![grouped(trial.rate.round())];
        row.extend([p50, p95, p99, max].map(human_us));
        row.push(trial.driver_busy.map_or("-".to_owned(), |busy| format!("{:.0} %", busy * 100.0)));
        let (class, word) = if trial.met { ("good", "met") } else { ("bad", "missed") };
        row.push(format!("<span class=\"{class}\">{word}</span>"));
        row.push(trial.limit.map_or("-", |limit| limit.text()).to_owned());
        row.push(escape(&trial.why));
        row
    });
    table("The rate that was found was tried twice.", &heads, rows)
}

/// The file of a mixed load, by its key in [`Report::load`].
const MIXTURE: &str = "mixture";

/// What became of every message, where there were any, and of connections and Pings. Names are those of the JSON.
pub(super) fn ledger(report: &Report) -> String {
    let (tally, found, balance) = (&report.tally, &report.found, &report.balance);
    let lost = format!("accepted, but not arrived within {} s: must be 0", report.settle.as_secs_f64());
    let messages = [
        ("published", tally.sent, "messages that clients sent"),
        ("accepted", tally.accepted, "of those, answered by the gateway with its promise to deliver"),
        ("undecided", balance.undecided, "messages whose connection ended before the answer came"),
        ("unanswered", balance.unanswered, "messages without an answer on a connection that lives: must be 0"),
        ("answered_twice", found.answered_twice, "answers to messages that had their answer: must be 0"),
        ("answered_wrong", found.answered_wrong, "answers with the request number of another message: must be 0"),
        ("delivered", balance.delivered, "accepted messages that arrived, counted once at each recipient"),
        ("delivered_undecided", balance.delivered_undecided, "arrived although their publish had no answer"),
        ("delivered_refused", balance.delivered_refused, "arrived although their publish was refused: must be 0"),
        ("lost", balance.lost, lost.as_str()),
        (
            "uncertain",
            balance.uncertain,
            "deliveries that may be lost or of a refused message: more than is remembered",
        ),
        ("duplicated", found.duplicated, "arrived again at the same recipient: must be 0"),
        ("reordered", found.reordered, "arrived after a later one of the same sender: must be 0"),
        ("corrupted", found.corrupted, "arrived damaged: must be 0"),
        ("misdelivered", found.misdelivered, "arrived at a wrong recipient, or with a wrong sender: must be 0"),
        ("late", report.late(), "arrived more than 1 s after their planned time"),
    ];
    let planned = [
        ("planned", report.planned, "messages and Pings that the schedules held"),
        ("sent", report.sent(), "messages and Pings that were sent, without heartbeats"),
        ("never_sent", report.never_sent(), "planned, but this load tester came too late to send them"),
        ("skipped", report.skipped(), "planned for clients that were not connected at the time"),
        ("skipped_by_churn", tally.skipped_by_churn, "planned for clients that the load had come and go"),
    ];
    let others = [
        ("refused", report.refused.values().sum(), "requests that the gateway answered with an error"),
        ("pings", tally.pings, "Pings that clients sent, to keep their connections alive or as a load"),
        ("pongs", tally.pongs, "Pongs that came back"),
        ("pings_unanswered", report.pings_unanswered(), "Pings of the load whose Pong did not come"),
        (
            "heartbeats_unanswered",
            report.heartbeats_unanswered(),
            "Pings that keep a connection alive whose Pong did not come",
        ),
        ("away", report.away(), "clients that were not connected at the end: must be 0"),
        ("closed", report.closed.values().sum(), "connections that ended unasked, or were not made"),
        ("reconnects", tally.reconnects, "clients that signed in again"),
        ("tls-full", tally.tls_full, "TLS handshakes with certificate and signature"),
        ("tls-resumed", tally.tls_resumed, "TLS handshakes that resumed an earlier session"),
    ];
    let (title, caption, messages) = match report.has_messages() {
        true => {
            let caption = "Every message is followed from its sender to each recipient.";
            ("What became of the messages", caption, &messages[..])
        }
        false => ("What was counted", "Clients sent no messages to each other.", &[][..]),
    };
    let planned = if report.planned > 0 { &planned[..] } else { &[] };
    let rows = planned.iter().chain(messages).chain(&others).map(|(name, count, meaning)| {
        let class = if meaning.ends_with("must be 0") && *count > 0 { " class=\"bad\"" } else { "" };
        vec![
            name.replace('_', " "),
            format!("<span{class} id=\"ledger-{name}\">{}</span>", grouped(*count as f64)),
            escape(meaning),
        ]
    });
    format!("<h2>{title}</h2>\n") + &table(caption, &["figure", "count", "meaning"], rows)
}

/// Errors by kind, each counted once; refusals and closes by code. A sentence when there are none.
pub(super) fn troubles(report: &Report) -> String {
    let head = "<h3>Errors</h3>\n";
    let mut out = if report.errors.is_empty() {
        format!("{head}<p>There were none.</p>\n")
    } else {
        let rows = report.errors.iter().map(|(kind, count)| {
            vec![escape(kind), format!("<span class=\"error-count\">{}</span>", grouped(*count as f64))]
        });
        let total: u64 = report.errors.values().sum();
        let total = format!("<span id=\"errors-total\">{}</span>", grouped(total as f64));
        let rows = rows.chain(std::iter::once(vec!["all of them".to_owned(), total]));
        format!("{head}{}", table("Each is counted once.", &["kind", "count"], rows))
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut coded = |what: &str, codes: &BTreeMap<u16, u64>, name: fn(u16) -> &'static str| {
        for (code, count) in codes {
            let text = if *code == 0 { "-".to_owned() } else { code.to_string() };
            rows.push(vec![what.to_owned(), text, grouped(*count as f64), name(*code).to_owned()]);
        }
    };
    coded("connection closed", &report.closed, close_name);
    coded("request refused", &report.refused, error_name);
    if !rows.is_empty() {
        let caption = match report.reconnects {
            true => {
                "Requests refused are among the errors above; connections that ended are not, since their clients come back."
            }
            false => {
                "Events of the errors above, by the code that the gateway gave. Codes are those of docs/protocol.md."
            }
        };
        out += "<h3>Closes and refusals, by code</h3>\n";
        out += &table(caption, &["what", "code", "count", "meaning"], rows.into_iter());
    }
    out
}

fn close_name(code: u16) -> &'static str {
    match (code, CloseReason::from_code(code)) {
        (0, _) => "without a code",
        (_, Some(reason)) => reason.label(),
        (_, None) => "unknown",
    }
}

fn error_name(code: u16) -> &'static str {
    ErrorCode::from_code(code).map_or("unknown", ErrorCode::label)
}

/// What each phase did.
pub(super) fn phases(report: &Report) -> String {
    let heads =
        ["phase", "seconds", "signed in", "published", "accepted", "delivered", "Pongs", "errors", "tester busy"];
    let rows = report.phases.iter().map(|phase| {
        let counts = [phase.connected, phase.sent, phase.accepted, phase.delivered, phase.pongs, phase.errors]
            .map(|count| grouped(count as f64));
        let mut row = vec![escape(&phase.name), format!("{:.1}", phase.seconds)];
        row.extend(counts);
        row.push(format!("{:.0} %", phase.driver_busy * 100.0));
        row
    });
    "<h2>Phases</h2>\n".to_owned() + &table("A run goes through these one after the other.", &heads, rows)
}

/// How long what happened in each phase took.
pub(super) fn latencies(report: &Report) -> String {
    let heads =
        ["phase", "latency", "count", "p50", "p90", "p95", "p99", "p99.9", "max", "p99 uncorrected", "max uncorrected"];
    let mut rows = Vec::new();
    for phase in &report.phases {
        for (index, timed) in report.timed_briefly(&phase.record).into_iter().enumerate() {
            let (planned, sent) = (Quantiles::from(&timed.latency.planned), Quantiles::from(&timed.latency.sent));
            let Quantiles { p50, p90, p95, p99, p999, max, .. } = planned;
            // The name of the phase stands in its first row; for those who hear the table, in each.
            let name = escape(&phase.name);
            let name = if index == 0 { name } else { format!("<span class=\"repeated\">{name}</span>") };
            let mut row = vec![name, escape(&timed.label()), grouped(planned.count as f64)];
            row.extend([p50, p90, p95, p99, p999, max, sent.p99, sent.max].map(human_us));
            rows.push(row);
        }
    }
    let caption = "From the planned time, and uncorrected: from the time of sending.";
    "<h3>Latencies by phase</h3>\n".to_owned() + &table(caption, &heads, rows.into_iter())
}

/// The processes that drove the clients; nothing where it was one only.
pub(super) fn workers(report: &Report) -> String {
    if report.workers.is_empty() {
        return String::new();
    }
    let rows = report.workers.iter().enumerate().map(|(index, worker)| {
        vec![
            (index + 1).to_string(),
            escape(&worker.address.to_string()),
            grouped(worker.connections as f64),
            format!("{:.0} %", worker.driver_busy * 100.0),
            escape(&worker.clock_text()),
        ]
    });
    let caption = "Each had a part of the clients. Times are corrected by what its clock was ahead.";
    "<h2>Workers</h2>\n".to_owned() + &table(caption, &["worker", "address", "clients", "busy", "clock ahead by"], rows)
}

/// What the gateway says about itself; nothing when it was not asked.
pub(super) fn metrics(report: &Report) -> String {
    let Some(metrics) = &report.metrics else { return String::new() };
    let mut out = format!(
        "<h2>What the gateway says about itself</h2>\n<p>From <code>{}</code>, {} times in {:.0} seconds, before the first \
         connection to after the last. What stayed at 0 is left out; figures of shards are added up.</p>\n",
        escape(&metrics.url),
        grouped(metrics.scrapes as f64),
        metrics.seconds
    );
    for (kind, count) in &metrics.failed {
        out += &format!("<p class=\"bad\">{} x a scrape failed: {}</p>\n", grouped(*count as f64), escape(kind));
    }
    for (kind, caption) in KINDS {
        let is_kind = |series: &&Series| std::mem::discriminant(&series.figures) == std::mem::discriminant(&kind);
        let series: Vec<&Series> = metrics.summary().filter(is_kind).collect();
        let Some(first) = series.first() else { continue };
        let figures: Vec<_> = first.figures_text().into_iter().map(|(what, _)| what).collect();
        let heads: Vec<&str> = ["metric", "labels"].into_iter().chain(figures).chain(["meaning"]).collect();
        let rows = series.into_iter().map(|series| {
            let name = format!("<code>{}</code>", escape(&series.name));
            let figures = series.figures_text().into_iter().map(|(_, figure)| escape(&figure));
            [name, escape(&series.labels_text())].into_iter().chain(figures).chain([escape(&series.help)]).collect()
        });
        out += &table(caption, &heads, rows);
    }
    out
}

const KINDS: [(Figures, &str); 3] = [
    (Figures::Counter { total: 0.0, per_second: 0.0, per_second_max: 0.0 }, "Counters: what was added during the run."),
    (Figures::Gauge { min: 0.0, mean: 0.0, max: 0.0 }, "Gauges: how it stood, once a second."),
    (
        Figures::Histogram { count: 0.0, mean: None, p50: None, p99: None },
        "Histograms: what was added during the run; percentiles are what buckets say of them.",
    ),
];

/// Cells are HTML already.
pub(super) fn table(caption: &str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let begin = super::scrollable(&format!("Table: {}", caption.trim_end_matches('.')));
    let mut out = format!("{begin}<table><caption>{}</caption><thead><tr>", escape(caption));
    // Words stand left, figures right.
    let class = |head: &str| if TEXTS.contains(&head) { " class=\"text\"" } else { "" };
    for head in heads {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(head), escape(head));
    }
    out += "</tr></thead><tbody>\n";
    for row in rows {
        out += "<tr>";
        for (index, (cell, head)) in row.iter().zip(heads).enumerate() {
            let _ = if index == 0 {
                write!(out, "<th scope=\"row\">{cell}</th>")
            } else {
                write!(out, "<td{}>{cell}</td>", class(head))
            };
        }
        out += "</tr>\n";
    }
    out += "</tbody></table></div>\n";
    out
}

/// Columns of words.
const TEXTS: [&str; 7] = ["meaning", "the limit was", "found", "threshold", "latency", "labels", "value"];

//! Which tables a report has.

use std::collections::BTreeMap;
use std::fmt::Write;

use ringgate::close::{CloseReason, ErrorCode};

use super::{escape, grouped};
use crate::metrics::{Figures, Series};
use crate::record::{Measure, Quantiles, human_us};
use crate::report::Report;

/// Why a run was not clean, in a few words each.
pub(super) fn reasons(report: &Report) -> Vec<String> {
    let errors = report.errors.values().sum();
    let counted = report.faults().chain((errors > 0).then_some(("errors", errors)));
    let counted = counted.map(|(what, count)| format!("{} {what}", grouped(count as f64)));
    let mut reasons: Vec<String> = report.failure.iter().cloned().chain(counted).collect();
    reasons.extend(report.failed().map(|verdict| format!("threshold {verdict}")));
    reasons
}

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

/// What became of every message, where there were any, and of connections and Pings.
pub(super) fn ledger(report: &Report) -> String {
    let tally = &report.tally;
    let messages = [
        ("sent", tally.sent, "messages that clients published"),
        ("accepted", tally.accepted, "of those, answered by the gateway with its promise to deliver"),
        ("undecided", report.balance.undecided, "messages whose connection ended before the answer came"),
        ("delivered", report.balance.delivered, "messages that arrived, counted once at each recipient"),
        ("lost", report.balance.lost, "accepted, but not arrived: must be 0"),
        ("duplicated", report.found.duplicated, "arrived again at the same recipient: must be 0"),
        ("reordered", report.found.reordered, "arrived after a later one of the same sender: must be 0"),
        ("corrupted", report.found.corrupted, "arrived damaged: must be 0"),
        ("misdelivered", report.found.misdelivered, "arrived at somebody else, or in another name: must be 0"),
        ("late", report.late(), "arrived more than 1 s after their planned time"),
    ];
    let others = [
        ("refused", report.refused.values().sum(), "requests that the gateway answered with an error"),
        ("skipped", tally.skipped, "planned for clients that were away at the time"),
        ("pings", tally.pings, "Pings that clients sent, to keep their connections alive or as a load"),
        ("pongs", tally.pongs, "Pongs that came back"),
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
    let must_be_zero = ["lost", "duplicated", "reordered", "corrupted"];
    let rows = messages.iter().chain(&others).map(|(name, count, meaning)| {
        let class = if must_be_zero.contains(name) && *count > 0 { " class=\"bad\"" } else { "" };
        vec![
            (*name).to_owned(),
            format!("<span{class} id=\"ledger-{name}\">{}</span>", grouped(*count as f64)),
            (*meaning).to_owned(),
        ]
    });
    format!("<h2>{title}</h2>\n") + &table(caption, &["", "count", "meaning"], rows)
}

/// Errors by kind, refusals and closes by code; a sentence when there are none.
pub(super) fn troubles(report: &Report) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut coded = |what: &str, codes: &BTreeMap<u16, u64>, name: fn(u16) -> &'static str| {
        for (code, count) in codes {
            let code = if *code == 0 { "-".to_owned() } else { code.to_string() };
            rows.push(vec![
                what.to_owned(),
                code.clone(),
                grouped(*count as f64),
                name(code.parse().unwrap_or(0)).to_owned(),
            ]);
        }
    };
    coded("connection closed", &report.closed, close_name);
    coded("request refused", &report.refused, error_name);
    for (kind, count) in &report.errors {
        rows.push(vec!["error".to_owned(), "-".to_owned(), grouped(*count as f64), escape(kind)]);
    }
    let head = "<h3>Errors and closes, by code</h3>\n";
    if rows.is_empty() {
        return format!("{head}<p>There were none.</p>\n");
    }
    format!(
        "{head}{}",
        table("Codes are those of docs/protocol.md.", &["what", "code", "count", "meaning"], rows.into_iter())
    )
}

fn close_name(code: u16) -> &'static str {
    match (code, CloseReason::from_code(code)) {
        (0, _) => "without a word",
        (_, Some(reason)) => reason.label(),
        (_, None) => "unknown",
    }
}

fn error_name(code: u16) -> &'static str {
    ErrorCode::from_code(code).map_or("unknown", ErrorCode::label)
}

/// What each phase did, and how long it took.
pub(super) fn phases(report: &Report) -> String {
    let heads = [
        "phase",
        "seconds",
        "sent",
        "delivered",
        "errors",
        "tester busy",
        "latency",
        "count",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "p99 uncorrected",
    ];
    let mut rows = Vec::new();
    for phase in &report.phases {
        let own = [
            escape(&phase.name),
            format!("{:.1}", phase.seconds),
            grouped(phase.sent as f64),
            grouped(phase.delivered as f64),
            grouped(phase.errors as f64),
            format!("{:.0} %", phase.driver_busy * 100.0),
        ];
        let measured: Vec<Measure> = Measure::ALL.into_iter().filter(|m| phase.record.has(*m)).collect();
        if measured.is_empty() {
            rows.push(
                own.iter().cloned().chain(std::iter::repeat_n("-".to_owned(), heads.len() - own.len())).collect(),
            );
        }
        for (index, measure) in measured.into_iter().enumerate() {
            let latency = phase.record.of(measure);
            let (planned, sent) = (Quantiles::from(&latency.planned), Quantiles::from(&latency.sent));
            // The phase's own figures stand in its first row only.
            let own = own.iter().map(|cell| if index == 0 { cell.clone() } else { String::new() });
            let times = [planned.p50, planned.p90, planned.p99, planned.p999, planned.max, sent.p99].map(human_us);
            rows.push(own.chain([measure.label().to_owned(), grouped(planned.count as f64)]).chain(times).collect());
        }
    }
    "<h2>Phases</h2>\n".to_owned() + &table("A run goes through these one after the other.", &heads, rows.into_iter())
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
    let mut out = format!("<div class=\"wide\"><table><caption>{}</caption><thead><tr>", escape(caption));
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
const TEXTS: [&str; 5] = ["meaning", "found", "threshold", "latency", "labels"];

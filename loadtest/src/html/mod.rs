//! The report as one page of HTML: everything inline, no script, nothing loaded from elsewhere.
//!
//! Well-formed as XML, too, so that programs can read it. Made from a finished [`Report`] and nothing else.
//!
//! | file | what |
//! |---|---|
//! | `scale`, `chart` | a drawing of any lines |
//! | `charts`, `tables` | what of a report is drawn, and what is listed |

mod chart;
mod charts;
mod scale;
mod tables;

use std::path::Path;

use crate::finding::Finding;
use crate::record::{Quantiles, human_us};
use crate::report::Report;
use crate::xml::escape;

/// Writes the page. The error names the file.
pub(crate) fn write(report: &Report, path: &Path) -> Result<(), String> {
    std::fs::write(path, page(report)).map_err(|error| format!("--html {}: {error}", path.display()))
}

/// Writes the page of a search for a capacity. The error names the file.
pub(crate) fn write_capacity(finding: &Finding, path: &Path) -> Result<(), String> {
    std::fs::write(path, capacity_page(finding)).map_err(|error| format!("--html {}: {error}", path.display()))
}

/// The page of a search for a capacity.
pub(crate) fn capacity_page(finding: &Finding) -> String {
    let class = if finding.found.is_some() { "good" } else { "bad" };
    let mut out = begin(if finding.found.is_some() { "capacity found" } else { "no capacity found" });
    out += &format!(
        "<header>\n<h1>Capacity of a ringgate gateway</h1>\n<p class=\"{class}\">{}</p>\n</header>\n<main>\n",
        escape(&finding.answer)
    );
    out += &tables::settings(&finding.load);
    out += "<h2>Runs</h2>\n";
    charts::by_rate(finding).iter().for_each(|chart| out += &chart.figure());
    out += &tables::trials(finding);
    out + "</main>\n</body></html>\n"
}

fn begin(title: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>Load test: {title}</title>\n<style>\n{}</style></head><body>\n",
        include_str!("style.css")
    )
}

/// The page.
fn page(report: &Report) -> String {
    let mut out = begin(if report.is_clean() { "passed" } else { "failed" });
    out += &head(report);
    out += "<main>\n";
    out += &tiles(report);
    out += &tables::tested(report);
    out += &tables::thresholds(report);
    out += &tables::ledger(report);
    out += &tables::troubles(report);
    out += "<h2>Over time</h2>\n";
    charts::over_time(report).iter().for_each(|chart| out += &chart.figure());
    out += "<h2>How latencies are spread</h2>\n";
    charts::percentiles(report).iter().for_each(|chart| out += &chart.figure());
    out += &tables::phases(report);
    out += &tables::latencies(report);
    out += &tables::workers(report);
    out += &tables::metrics(report);
    out += GLOSSARY;
    out += "</main>\n</body></html>\n";
    out
}

fn head(report: &Report) -> String {
    let mut out = String::from("<header>\n");
    if let Some(limit) = report.driver_limit() {
        out += &format!(
            "<p class=\"warning\" role=\"alert\">Careful: {}; {}. What would help: {}.</p>\n",
            escape(&limit.what),
            escape(limit.so),
            escape(limit.advice)
        );
    }
    if let Some(said) = report.interruption() {
        out += &format!("<p class=\"warning\" role=\"alert\">This run was {}.</p>\n", escape(&said));
    }
    for note in &report.notes {
        out += &format!("<p class=\"warning\" role=\"note\">Note: {}.</p>\n", escape(note));
    }
    let verdict = match report.is_clean() {
        true => "<span class=\"good\">passed</span>".to_owned(),
        false => "<span class=\"bad\">failed</span>".to_owned(),
    };
    out += &format!("<h1>Load test of a ringgate gateway: {verdict}</h1>\n");
    let reasons = report.reasons();
    if !reasons.is_empty() {
        out += &format!("<p class=\"bad\">{}</p>\n", escape(&reasons.join("; ")));
    }
    let began = report.began.map(|began| format!("{}, ", humantime::format_rfc3339_seconds(began)));
    out += &format!(
        "<p class=\"faint\">{}{:.1} seconds, ringgate-loadtest {}<br/><code>{}</code></p>\n</header>\n",
        began.unwrap_or_default(),
        report.seconds,
        env!("CARGO_PKG_VERSION"),
        escape(&report.command)
    );
    out
}

/// The figures that most readers look for.
fn tiles(report: &Report) -> String {
    let main = report.main();
    let latency = Quantiles::from(&report.record.of(main).planned);
    let mut tiles = Vec::new();
    if let Some(share) = report.sent_share() {
        tiles.push(("sent of what was planned".to_owned(), crate::report::percent(share)));
    }
    tiles.push(("connections".to_owned(), grouped(report.connections.iter().sum::<usize>() as f64)));
    if latency.count > 0 {
        for (name, value) in [("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99), ("max", latency.max)] {
            tiles.push((format!("{} latency, {name}", main.label()), human_us(value)));
        }
    }
    if let Some(rate) = report.figure("rate").filter(|rate| *rate > 0.0) {
        tiles.push(("messages accepted per second".to_owned(), grouped(rate.round())));
    }
    if let Some(rate) = report.connects_per_second() {
        tiles.push(("signed in per second".to_owned(), grouped(rate.round())));
    }
    if let Some(back) = report.first_back() {
        tiles.push((format!("p99 of the first {} back", grouped(back.count as f64)), human_us(back.p99)));
    }
    if report.has_messages() {
        tiles.push(("messages lost".to_owned(), grouped(report.balance.lost as f64)));
    }
    if let Some(cpu) = report.cpu_us_per_delivery() {
        tiles.push(("gateway CPU per delivery".to_owned(), format!("{cpu:.2} us")));
    }
    if let Some(enters) = report.enters_per_delivery() {
        tiles.push(("io_uring_enter per delivery".to_owned(), format!("{enters:.3}")));
    }
    if let Some(phase) = report.busiest_phase() {
        let name = format!("this load tester was busy in its busiest phase, {}", phase.name);
        tiles.push((name, format!("{:.0} %", phase.driver_busy * 100.0)));
    }
    let tile =
        |(name, value): &(String, String)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value));
    format!("<dl class=\"tiles\">\n{}</dl>\n", tiles.iter().map(tile).collect::<String>())
}

const GLOSSARY: &str = "<h2>Words</h2>\n<dl>\n\
    <dt>p50, p99, p99.9</dt><dd>Half, 99 of 100, 999 of 1000 took at most this long.</dd>\n\
    <dt>corrected</dt><dd>Measured from the moment at which the schedule wanted to send: what a user would have waited. \
    When the gateway or the load tester stalls, everything that was due meanwhile counts as late.</dd>\n\
    <dt>uncorrected</dt><dd>Measured from the moment of sending. Hides stalls; shown because most tools show it.</dd>\n\
    <dt>connect, ping, publish, deliver</dt><dd>From the decision to connect to being signed in; from Ping to Pong; from \
    sending a message to the gateway's answer; from sending a message to its arrival at a recipient.</dd>\n\
    <dt>us, ms</dt><dd>Microseconds, milliseconds.</dd>\n</dl>\n";

/// The beginning of a `div` whose content may be too wide: it can be scrolled with the keyboard, and has a name.
fn scrollable(label: &str) -> String {
    format!("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">", escape(label))
}

/// A number with its thousands apart, and with as many decimals as matter.
fn grouped(value: f64) -> String {
    let decimals = match value.abs() {
        value if value.fract() == 0.0 || value >= 1_000.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 0.1 => 2,
        _ => 4,
    };
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    if value < 0.0 {
        out.push('-');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            // A narrow space that does not break.
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        out.push('.');
        out += fraction;
    }
    out
}

#[cfg(test)]
mod tests;

//! The table that a person reads.

use super::Report;
use crate::metrics::Metrics;
use crate::plan::REFUSED_AFTER;
use crate::record::{Measure, Quantiles, human_us};

impl Report {
    /// The table that a person reads; only the reason where no client was signed in, as every figure would be 0.
    pub(crate) fn table(&self) -> String {
        let wanted = self.connections.iter().sum::<usize>();
        if wanted > 0 && !self.phases.iter().any(|phase| phase.record.has(Measure::Connect)) {
            return self.why_not_signed_in(wanted);
        }
        let mut lines = vec![format!("  {}", self.verdict())];
        lines.extend(self.notes.iter().map(|note| format!("  note: {note}")));
        if let Some(limit) = self.driver_limit() {
            // A `!` stands before what fails the run, and before nothing else.
            let mark = if self.driver_fails() { "!" } else { "note:" };
            lines.push(format!("  {mark} {}; {}", limit.what, limit.so));
        }
        lines.extend(self.interruption().map(|said| format!("  ! {said}")));
        // Values end in one column; a long one takes the room that its name leaves.
        let mut row = |name: &str, value: String| {
            let width = 50_usize.saturating_sub(value.chars().count());
            lines.push(format!("  {name:<width$} {value}"));
        };
        if let Some(share) = self.sent_share() {
            row("sent of what was planned", percent(share));
        }
        row("connections, TCP / TLS", format!("{} / {}", self.connections[0], self.connections[1]));
        let signed_in = self.tally.connections;
        if signed_in < wanted as u64 {
            row("signed in at the end", format!("{signed_in} of {wanted}"));
        }
        if let Some(rate) = self.connects_per_second() {
            row("signed in per second", format!("{rate:.0}"));
        }
        if self.connections[1] > 0 {
            row("TLS handshakes, full / resumed", format!("{} / {}", self.tally.tls_full, self.tally.tls_resumed));
        }
        row("Pings sent / answered", format!("{} / {}", self.tally.pings, self.tally.pongs));
        if self.has_messages() {
            row("messages published / accepted", format!("{} / {}", self.tally.sent, self.tally.accepted));
            row("deliveries", self.balance.delivered.to_string());
            row(&format!("lost (not arrived within {} s)", self.settle.as_secs_f64()), self.balance.lost.to_string());
            if self.balance.uncertain > 0 {
                row("uncertain: lost, or refused and not sent on", self.balance.uncertain.to_string());
            }
            row("duplicated", self.found.duplicated.to_string());
            row("reordered", self.found.reordered.to_string());
            row("corrupted", self.found.corrupted.to_string());
            row("misdelivered", self.found.misdelivered.to_string());
            row("late (after more than 1 s)", self.late().to_string());
        }
        if self.balance.delivered_undecided > 0 {
            row("deliveries without Published", self.balance.delivered_undecided.to_string());
        }
        if self.tally.skipped_by_churn > 0 {
            row("skipped (sender came and went)", self.tally.skipped_by_churn.to_string());
        }
        if self.tally.reconnects > 0 {
            row("reconnects", self.tally.reconnects.to_string());
        }
        if let Some(back) = self.first_back() {
            row(&format!("p99 of the first {} back", back.count), human_us(back.p99));
        }
        row("errors", self.errors.values().sum::<u64>().to_string());
        if let Some(cpu) = self.cpu_us_per_delivery() {
            row("gateway CPU per delivery", format!("{cpu:.2} us"));
        }
        if let Some(enters) = self.enters_per_delivery() {
            row("io_uring_enter per delivery", format!("{enters:.3}"));
        }
        if let Some(cpu) = self.driver_cpu_us_per_delivery() {
            row("this load tester's CPU per delivery", format!("{cpu:.2} us"));
        }
        if let Some(phase) = self.busiest_phase() {
            row("this load tester was busy", format!("at most {:.0} %, in {}", phase.driver_busy * 100.0, phase.name));
        }
        for (name, bytes) in ["TCP", "TLS"].iter().zip(self.idle_bytes) {
            if let Some(bytes) = bytes {
                row(&format!("gateway memory per idle {name}"), format!("{bytes:.0} B"));
            }
        }
        lines.push(String::new());
        let all = self.phases.iter().flat_map(|phase| {
            let timed = self.timed_briefly(&phase.record);
            timed.into_iter().map(|timed| (phase.name.as_str(), timed.label(), timed.latency))
        });
        let all: Vec<_> = all.collect();
        let width = all.iter().map(|(_, label, _)| label.chars().count()).max().unwrap_or(0).max(9);
        lines.push(format!(
            "  {:<12} {:<width$} {:>9} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>12}",
            "phase", "latency", "count", "p50", "p90", "p95", "p99", "p99.9", "max", "p99, uncorr."
        ));
        for (phase, label, latency) in all {
            let (planned, sent) = (Quantiles::from(&latency.planned), Quantiles::from(&latency.sent));
            let mut line = format!("  {phase:<12} {label:<width$} {:>9}", planned.count);
            for us in [planned.p50, planned.p90, planned.p95, planned.p99, planned.p999, planned.max] {
                line += &format!(" {:>10}", human_us(us));
            }
            lines.push(format!("{line} {:>12}", human_us(sent.p99)));
        }
        if !self.workers.is_empty() {
            lines.push(String::new());
            lines.push(format!("  {:<8} {:<24} {:>8} {:>6}  clock", "worker", "address", "clients", "busy"));
        }
        for (index, worker) in self.workers.iter().enumerate() {
            lines.push(format!(
                "  {:<8} {:<24} {:>8} {:>4.0} %  {}",
                index + 1,
                worker.address,
                worker.connections,
                worker.driver_busy * 100.0,
                worker.clock_text()
            ));
        }
        lines.extend(self.metrics.iter().flat_map(Metrics::lines));
        if let Some(refusals) = &self.refusals {
            lines.extend(refusals.iter().map(|(kind, count)| format!("  then: {count} x {kind}")));
            if refusals.is_empty() && signed_in < wanted as u64 && self.errors.is_empty() && !self.interrupted {
                lines.push(format!("  then: no further client was signed in for {} s", REFUSED_AFTER.as_secs()));
            }
        }
        if self.untimed() > 0 {
            lines.push(format!(
                "  note: percentiles leave out {} messages and Pings that were not sent, answered or delivered",
                self.untimed()
            ));
        }
        lines.extend(self.closes());
        if let Some(failure) = &self.failure {
            lines.push(format!("  ! {failure}"));
        }
        lines.extend(self.faults().map(|(what, count)| format!("  ! {count} {what}")));
        lines.extend(self.excused().map(|(what, count)| format!("  note: {count} {what} (allowed)")));
        for (kind, count) in &self.errors {
            lines.push(format!("  ! {count} x {kind}"));
        }
        for verdict in &self.verdicts {
            let word = if verdict.met { "  passed, not" } else { "  ! failed:" };
            lines.push(format!("{word} {verdict}"));
        }
        lines.join("\n")
    }

    /// Why none of so many clients was signed in.
    fn why_not_signed_in(&self, wanted: usize) -> String {
        let reasons = self.errors.iter().chain(self.refusals.iter().flatten());
        let mut lines: Vec<String> = reasons.map(|(kind, count)| format!("  ! {count} x {kind}")).collect();
        lines.extend(self.closes());
        lines.extend(self.failure.iter().map(|failure| format!("  ! {failure}")));
        lines.extend(self.interruption().map(|said| format!("  ! {said}")));
        let judged = if self.verdicts.is_empty() { "" } else { ", and no threshold was judged" };
        lines.push(format!("  none of {wanted} clients was signed in, so that there are no figures{judged}"));
        lines.join("\n")
    }

    /// What connections were closed with, where clients that come back may have been closed without an error.
    fn closes(&self) -> Vec<String> {
        if !self.reconnects {
            // Each of them is among the errors, or what ended the ramp, with its reason.
            return Vec::new();
        }
        let mark = if self.is_clean() { "note:" } else { "!" };
        let said = |(code, count): (&u16, &u64)| match code {
            0 => format!("  {mark} {count} x closed without a code, or not made"),
            _ => format!("  {mark} {count} x closed with code {code}"),
        };
        self.closed.iter().map(said).collect()
    }
}

/// A share for people, rounded down: all is said of all only.
pub(crate) fn percent(share: f64) -> String {
    let hundredths = (share * 1e4).floor() / 100.0;
    if (hundredths * 10.0).fract() == 0.0 { format!("{hundredths:.1} %") } else { format!("{hundredths:.2} %") }
}

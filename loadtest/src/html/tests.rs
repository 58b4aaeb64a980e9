//! The page as a whole, without a gateway.

use super::*;
use crate::record::{Measure, Series};
use crate::report::Phase;
use crate::threshold::Verdict;
use crate::timeline::Point;

fn parse(page: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}"))
}

fn report() -> Report {
    let mut report =
        Report { seconds: 3.0, command: "ringgate-loadtest p2p --room-name '<&>'".into(), ..Report::default() };
    for second in 1..=3u64 {
        for value in 1..=1000 {
            report.record.record(Measure::Deliver, Series::Stream(1), 0, 0, value * second);
        }
        let latency = Quantiles { count: 1000, p50: 500, p99: 990, p999: 999, max: 1000, ..Quantiles::default() };
        let point = Point {
            at: second as f64,
            seconds: 1.0,
            connections: 10,
            sent: 1000,
            delivered: 1000,
            latency,
            ..Point::default()
        };
        report.timeline.push(point);
    }
    report.balance.delivered = 3000;
    report.errors.insert("\u{1b}[31m<script>".into(), 2);
    report.closed.insert(3008, 1);
    report.closed.insert(0, 4);
    report.verdicts.push(Verdict { condition: "p99>1ms".into(), found: "p99 was 2.97 ms".into(), met: false });
    report.phases.push(Phase {
        sending_seconds: 1.0,
        name: "a < b".into(),
        seconds: 3.0,
        connected: 10,
        handshakes: [0, 0],
        sent: 3000,
        accepted: 3000,
        delivered: 3000,
        pongs: 0,
        errors: 2,
        reconnects: 0,
        driver_busy: 0.5,
        driver_cpu_seconds: 3.0,
        server_cpu_seconds: None,
        record: report.record.clone(),
    });
    report
}

#[test]
fn run_has_failed_then_the_page_is_well_formed_and_says_why() {
    let page = page(&report());
    let document = parse(&page);
    assert!(!page.contains("<script") && !page.contains('\u{1b}'), "text from outside is escaped");
    let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
    assert_eq!(count("h1"), 1);
    let figures: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name("figure"))
        .filter_map(|node| node.attribute("id"))
        .collect();
    assert_eq!(
        figures,
        ["latency", "throughput", "connections", "percentiles-deliver"],
        "what is all zero is not drawn"
    );
    assert!(page.contains("2 errors; threshold p99&gt;1ms (p99 was 2.97 ms)"));
    assert!(page.contains("id=\"errors-total\">2<"));
    assert!(page.contains("<td>3008</td><td>1</td><td class=\"text\">slow</td>") && page.contains("without a code"));
    assert!(page.contains("<dt>this load tester was busy in its busiest phase, a &lt; b</dt><dd>50 %</dd>"));
    assert!(!page.contains("Careful"));
}

#[test]
fn driver_was_the_limit_then_the_page_begins_with_that() {
    let mut report = report();
    report.phases[0].driver_busy = 0.97;
    let page = page(&report);
    let body = &page[page.find("<body>").unwrap()..];
    assert!(body.find("busy for 97 %").unwrap() < body.find("<h1>").unwrap());
}

#[test]
fn report_is_empty_then_the_page_is_well_formed() {
    let page = page(&Report::default());
    parse(&page);
    assert!(page.contains("There were none.") && page.contains(">passed<"));
}

#[test]
fn text_or_number_is_shown_then_it_is_escaped_or_grouped() {
    assert_eq!(escape("<a href='x'>&\"\u{7}\n"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd} ");
    let texts: Vec<_> =
        [0.0, 12.0, 1_234_567.0, 999.5, 12.34, 0.126, 0.004, -1_000.0].into_iter().map(grouped).collect();
    let wanted = ["0", "12", "1\u{202f}234\u{202f}567", "999.5", "12.3", "0.13", "0.004", "-1\u{202f}000"];
    assert_eq!(texts, wanted);
}

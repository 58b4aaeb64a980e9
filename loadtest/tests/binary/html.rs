//! `--html`: one file that needs nothing else and holds the same figures as the JSON.

use ringgate_core::transport::Transport;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

use crate::support::{Folder, Gateway, loadtest};

#[test]
fn a_page_holds_what_the_object_holds() {
    let gateway = Gateway::start();
    let folder = Folder::new("html");
    let page = folder.path("report.html");
    let arguments =
        ["--connections", "20", "--rate", "100", "--duration", "2s", "--fail-if", "lost>0", "--html", &page];
    let (code, result) = gateway.drive("p2p", &arguments);
    assert_eq!(code, 0, "{result:#}");
    let text = std::fs::read_to_string(&page).unwrap();
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&text, options).unwrap();

    assert_needs_nothing_else(&document, &text);
    let ledger = |name: &str| text_of(&document, &format!("ledger-{name}"));
    for key in LEDGER {
        assert_eq!(ledger(key), result[key].to_string(), "{key}");
    }
    assert_says_what_was_tested(&document, &result);
    let latency = document.descendants().find(|node| node.attribute("id") == Some("latency")).unwrap();
    let rows = latency.descendants().filter(|node| node.has_tag_name("tr")).count() - 1;
    assert_eq!(rows, result["timeline"].as_array().unwrap().len());
    let drawn = document.descendants().filter(|node| node.has_tag_name("svg"));
    for svg in drawn {
        let has = |name: &str| svg.children().any(|node| node.has_tag_name(name) && node.text().is_some());
        assert!(has("title") && has("desc"), "a drawing can be read aloud");
    }
    for id in ["latency", "throughput", "connections", "cpu", "percentiles-deliver", "percentiles-publish"] {
        assert!(document.descendants().any(|node| node.attribute("id") == Some(id)), "{id}");
    }
    assert!(text.contains("<code>lost&gt;0</code>"));
}

/// What explains the chart of rates is true of the load.
#[test]
fn a_load_without_a_plan_is_not_measured_by_one() {
    let gateway = Gateway::start();
    let folder = Folder::new("reading");
    let mixture = |rate: &str| {
        format!(
            "[[populations]]\nname = 'people'\nconnections = 4\n[[streams]]\npopulation = 'people'\nkind = 'pings'\n\
             think_time = '20ms'\n{rate}[[phases]]\nname = 'steady'\nduration = '1s'\n"
        )
    };
    let messages = "[[streams]]\npopulation = 'people'\nkind = 'pairs'\nrate = 20\n";
    for (rate, wanted) in
        [("", "Nothing was planned: clients send their next Ping"), (messages, "lies above what was planned")]
    {
        let (file, page) = (folder.path("mixed.toml"), folder.path("report.html"));
        std::fs::write(&file, mixture(rate)).unwrap();
        let (code, result) = gateway.drive("mixed", &[&file, "--html", &page]);
        assert_eq!(code, 0, "{result:#}");
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.contains(wanted) && !text.contains("should lie on what was planned"), "{wanted}");
    }
    let page = folder.path("storm.html");
    let (code, result) = gateway.drive("storm", &["--connections", "8", "--duration", "0s", "--html", &page]);
    assert_eq!(code, 0, "{result:#}");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("<dt>p99 of the first 8 back</dt>") && text.contains("<th scope=\"col\">p90</th>"));
}

#[test]
fn what_becomes_of_messages_is_said_where_there_are_any() {
    let gateway = Gateway::start();
    let folder = Folder::new("no-messages");
    let url = gateway.url(Transport::Plain);
    let said = |scenario: &str, options: &[&str]| {
        let page = folder.path(&format!("{scenario}.html"));
        let arguments =
            [&[scenario, "--url", &url, "--dev", "--connections", "4", "--quiet", "--html", &page], options].concat();
        let output = loadtest(&arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{scenario}: {text}");
        (text, std::fs::read_to_string(&page).unwrap())
    };
    let rows =
        ["messages published / accepted", "deliveries", "lost", "duplicated", "reordered", "corrupted", "late (after"];
    let cells = &LEDGER[..14];
    let short = &["--duration", "200ms"][..];
    let at_a_rate = &["--duration", "500ms", "--rate", "20"][..];
    let none = [("connect", &[][..]), ("idle", short), ("ping", at_a_rate), ("churn", at_a_rate), ("storm", short)];
    for (scenario, options) in none {
        let (text, page) = said(scenario, options);
        assert!(!rows.iter().any(|row| text.contains(&format!("\n  {row}"))), "{scenario}: {text}");
        assert!(!cells.iter().any(|cell| page.contains(&format!("ledger-{cell}\""))), "{scenario}");
        assert!(page.contains("ledger-pongs\"") && !page.contains("messages lost"), "{scenario}");
    }
    let (text, page) = said("p2p", at_a_rate);
    assert!(rows.iter().all(|row| text.contains(&format!("\n  {row}"))), "{text}");
    assert!(cells.iter().all(|cell| page.contains(&format!("ledger-{cell}\""))));
}

/// Figures of the ledger, as they are called in the JSON, those of messages first.
const LEDGER: [&str; 21] = [
    "published",
    "accepted",
    "undecided",
    "unanswered",
    "answered_twice",
    "delivered",
    "delivered_undecided",
    "delivered_refused",
    "lost",
    "duplicated",
    "reordered",
    "corrupted",
    "misdelivered",
    "late",
    "planned",
    "sent",
    "never_sent",
    "skipped",
    "skipped_by_churn",
    "pings",
    "pings_unanswered",
];

/// Scenario, settings and both ends; and everything within landmarks, with tables that the keyboard can scroll.
fn assert_says_what_was_tested(document: &Document<'_>, result: &Value) {
    let row = |name: &str| {
        let heads = document.descendants().filter(|node| node.has_tag_name("th") && node.text() == Some(name));
        let cell = heads.filter_map(|head| head.next_sibling_element()).next();
        cell.unwrap_or_else(|| panic!("no row {name}")).text().unwrap_or_default().to_owned()
    };
    assert_eq!(row("scenario"), "p2p");
    assert_eq!(
        (row("connections"), row("duration ms"), row("payload bytes")),
        ("20".into(), "2000".into(), "100".into())
    );
    assert_eq!(row("gateway"), result["gateways"][0].as_str().unwrap());
    let host = &result["host"];
    assert!(row("load tester").starts_with(host["name"].as_str().unwrap()) && row("load tester").contains("cores"));
    let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
    assert_eq!((count("main"), count("header")), (1, 1));
    let mut labels = std::collections::BTreeSet::new();
    for table in document.descendants().filter(|node| node.has_tag_name("table")) {
        let around = table.parent_element().unwrap();
        assert_eq!((around.attribute("role"), around.attribute("tabindex")), (Some("region"), Some("0")));
        let label = around.attribute("aria-label").unwrap();
        assert!(labels.insert(label), "{label} twice");
        assert!(around.ancestors().any(|node| node.has_tag_name("main")));
    }
}

#[test]
fn the_file_of_a_mixed_load_is_on_its_page() {
    let gateway = Gateway::start();
    let folder = Folder::new("html-mixed");
    let (file, page) = (folder.path("mixed.toml"), folder.path("report.html"));
    let text = "# five < ten & more\n[[populations]]\nname = 'people'\nconnections = 4\n\n\
        [[streams]]\npopulation = 'people'\nkind = 'pairs'\nrate = 20\n\n[[phases]]\nname = 'steady'\nduration = '1s'\n";
    std::fs::write(&file, text).unwrap();
    let (code, result) = gateway.drive("mixed", &[&file, "--html", &page]);
    assert_eq!(code, 0, "{result:#}");
    let page = std::fs::read_to_string(&page).unwrap();
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&page, options).unwrap();
    assert_eq!(text_of(&document, "mixture"), text.trim_end());
}

/// Each error stands once on the page, in the table and in the object, and their sum is the total that is shown.
#[test]
fn errors_are_counted_once() {
    let gateway = Gateway::start();
    let folder = Folder::new("html-errors");
    let (url, page, json) = (gateway.url(Transport::Plain), folder.path("report.html"), folder.path("report.json"));
    // A topic that nobody may publish to: every publish is refused.
    let room = ["--room-name", "nowhere:room", "--connections", "4", "--rate", "20", "--duration", "1s"];
    let output =
        loadtest(&[&["room", "--url", &url, "--dev", "--quiet", "--html", &page, "--json", &json], &room[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let result: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let total = result["errors"].as_u64().unwrap();
    let by_kind = result["errors_by_kind"].as_object().unwrap().values();
    assert!(total > 0 && by_kind.filter_map(Value::as_u64).sum::<u64>() == total, "{result:#}");
    let page = std::fs::read_to_string(&page).unwrap();
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&page, options).unwrap();
    let number = |node: Node<'_, '_>| node.text().unwrap().replace('\u{202f}', "").parse::<u64>().unwrap();
    let rows = document.descendants().filter(|node| node.attribute("class") == Some("error-count"));
    assert_eq!(rows.map(number).sum::<u64>(), total);
    assert_eq!(text_of(&document, "errors-total"), total.to_string());
    let lines = text.lines().filter_map(|line| line.strip_prefix("  ! ")?.split_once(" x ")?.0.parse::<u64>().ok());
    assert_eq!(lines.sum::<u64>(), total, "{text}");
}

fn text_of(document: &Document<'_>, id: &str) -> String {
    let node = document.descendants().find(|node| node.attribute("id") == Some(id));
    let text = node.unwrap_or_else(|| panic!("{id} is missing")).text();
    text.unwrap_or_default().replace('\u{202f}', "")
}

fn assert_needs_nothing_else(document: &Document<'_>, text: &str) {
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        assert!(!["script", "link", "img", "iframe", "object", "embed"].contains(&name), "{name}");
        for attribute in node.attributes() {
            assert!(!["src", "href", "srcset", "data"].contains(&attribute.name()), "{attribute:?}");
        }
    }
    assert!(!text.contains("url(") && !text.contains("@import"), "the style sheet fetches nothing");
}

#[test]
fn a_page_that_cannot_be_written_is_refused_before_the_run() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    let output = loadtest(&["idle", "--url", &url, "--dev", "--duration", "1h", "--html", "/nowhere/report.html"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/report.html cannot be written"));
}

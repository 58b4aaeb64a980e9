//! `--html`: one file that needs nothing else and holds the same figures as the JSON.

use ringgate_core::session::Transport;
use roxmltree::{Document, Node, ParsingOptions};

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
    for (name, key) in [("sent", "published"), ("accepted", "accepted"), ("delivered", "delivered"), ("lost", "lost")] {
        assert_eq!(ledger(name), result[key].to_string(), "{name}");
    }
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
    let cells = ["sent", "accepted", "delivered", "lost", "duplicated", "reordered", "corrupted", "late"];
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

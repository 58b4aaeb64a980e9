//! docs/loadtest-report.md describes every key of real reports, and none that there is not.

use std::collections::BTreeSet;

use ringgate_core::transport::Transport;
use serde_json::Value;

use crate::support::{Folder, Gateway, LOOPBACK, Process};

/// Keys below which stand names of the run, not of the form: the name that the page has for them.
const NAMED: [(&str, &str); 11] = [
    ("errors_by_kind", "KIND"),
    ("refused_by_code", "CODE"),
    ("closed_by_code", "CODE"),
    ("until_refused.refusals", "KIND"),
    ("latencies_us", "MEASURE"),
    ("latencies_by_name_us", "NAME"),
    ("latencies_by_name_us.NAME", "MEASURE"),
    ("phases[].latency_us", "MEASURE"),
    ("phases[].latency_by_name_us", "NAME"),
    ("phases[].latency_by_name_us.NAME", "MEASURE"),
    ("metrics.failed", "KIND"),
];
/// Objects that the page describes as a whole: what is in them depends on the load, or on the gateway.
const WHOLE: [&str; 3] = ["load", "metrics.series[].labels", "metrics.series[]"];

fn keys(at: &str, value: &Value, found: &mut BTreeSet<String>) {
    if WHOLE.contains(&at) {
        return;
    }
    match value {
        // Described once.
        Value::Object(fields) if fields.contains_key("p999") && fields.contains_key("mean") => {
            found.extend(fields.keys().map(|key| format!("FIGURES.{key}")));
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                let named = NAMED.iter().find(|(parent, _)| *parent == at).map(|(_, name)| *name);
                let key = named.unwrap_or(key);
                let path = if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
                found.insert(path.clone());
                keys(&path, value, found);
            }
        }
        // Pairs of a curve are no keys.
        Value::Array(values) if values.iter().any(Value::is_object) => {
            values.iter().for_each(|value| keys(&format!("{at}[]"), value, found));
        }
        _ => {}
    }
}

#[test]
fn every_key_of_a_report_is_described_and_no_other() {
    let gateway = Gateway::start();
    let folder = Folder::new("keys");
    let (file, metrics) = (folder.path("mixed.toml"), gateway.metrics_url());
    let mixture = "[[populations]]\nname = 'people'\nconnections = 10\nchurn = 5\n\
        [[streams]]\npopulation = 'people'\nkind = 'pairs'\nrate = 50\n\
        [[phases]]\nname = 'steady'\nduration = '2s'\n";
    std::fs::write(&file, mixture).unwrap();
    let mut found = BTreeSet::new();
    let (_, result) = gateway.drive("mixed", &[&file, "--metrics-url", &metrics, "--fail-if", "max>=0.001us"]);
    keys("", &result, &mut found);
    let (_, result) = gateway.drive("connect", &["--connections", "4", "--until-refused"]);
    keys("", &result, &mut found);
    let url = gateway.url(Transport::Plain);
    let load = ["connect", "--url", &url, "--connections", "4", "--json", "-", "--quiet"];
    let (controller, address) = Process::controller(LOOPBACK, "1", &load);
    let _worker = Process::worker(&address);
    let (_, result, said) = controller.end();
    keys("", &serde_json::from_str(&result).unwrap_or_else(|error| panic!("{error}: {said}")), &mut found);

    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadtest-report.md")).unwrap();
    let described: BTreeSet<String> = page
        .split_once("## JSON")
        .unwrap()
        .1
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|key| key.starts_with("FIGURES.") || key.starts_with(|first: char| first.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect();
    // What is the same below several keys is described once, below a word in capitals.
    let latencies = |key: &str| {
        let key = key.replace("phases[].latency_us.", "latencies_us.");
        let key = key.replace("phases[].latency_by_name_us.NAME", "latencies_us");
        key.replace("latencies_by_name_us.NAME", "latencies_us")
    };
    let found: BTreeSet<String> = found.iter().map(|key| latencies(key)).collect();
    // Nothing of this kind has happened in these runs, so the objects were empty.
    let empty = [
        "errors_by_kind.KIND",
        "refused_by_code.CODE",
        "closed_by_code.CODE",
        "until_refused.refusals.KIND",
        "metrics.failed.KIND",
    ];
    let missing: Vec<_> = found.difference(&described).collect();
    let extra: Vec<_> = described.difference(&found).filter(|key| !empty.contains(&key.as_str())).collect();
    assert!(missing.is_empty(), "docs/loadtest-report.md does not describe {missing:#?}");
    assert!(extra.is_empty(), "docs/loadtest-report.md describes what no report has: {extra:#?}");
}

//! What runs are judged by: figures by their names, and conditions that end a run early.

use std::time::{Duration, Instant};

use ringgate_core::transport::Transport;

use crate::support::{Folder, Gateway, count, loadtest};

const MIXTURE: &str = "[[populations]]\nname = 'people'\nconnections = 10\n\
    [[populations]]\nname = 'members'\nconnections = 6\n\
    [[streams]]\nname = 'chat'\npopulation = 'people'\nkind = 'pairs'\nrate = 100\n\
    [[streams]]\nname = 'probes'\npopulation = 'people'\nkind = 'pings'\nrate = 30\n\
    [[streams]]\npopulation = 'members'\nkind = 'rooms'\nrate = 20\npublishers = 2\n\
    [[phases]]\nname = 'first'\nduration = '1s'\n[[phases]]\nname = 'second'\nduration = '1s'\nload = 2.0\n";

#[test]
fn threshold_names_a_stream_or_population_then_that_is_judged() {
    let gateway = Gateway::start();
    let folder = Folder::new("judged");
    let file = folder.path("mixed.toml");
    std::fs::write(&file, MIXTURE).unwrap();
    let conditions = [
        ("chat.deliver.p95>1us", false),
        ("chat.deliver.p99.95>50s", true),
        ("phase(first).members.deliver.max>1us", false),
        ("phase(second).probes.ping.p75>50s", true),
        ("phase(second).rate<1", true),
        ("members.connect.mean>1us", false),
    ];
    let mut arguments = vec![file.as_str()];
    conditions.iter().for_each(|(condition, _)| arguments.extend(["--fail-if", condition]));
    let (code, result) = gateway.drive("mixed", &arguments);
    assert_eq!((code, count(&result, "lost")), (1, 0), "{result:#}");
    let met: Vec<bool> =
        result["thresholds"].as_array().unwrap().iter().map(|verdict| verdict["met"] == true).collect();
    assert_eq!(met, conditions.map(|(_, met)| met), "{}", result["thresholds"]);
    // 100 a second, then 200; 20 to six members, then 40.
    let named = |name: &str, measure: &str| {
        let of_phases = result["phases"].as_array().unwrap().iter();
        let of_phases =
            of_phases.filter_map(|phase| phase["latency_by_name_us"][name][measure]["planned"]["count"].as_u64());
        let whole = result["latencies_by_name_us"][name][measure]["planned"]["count"].as_u64().unwrap_or(0);
        assert_eq!(of_phases.sum::<u64>(), whole, "{name} {measure}");
        whole
    };
    assert_eq!((named("chat", "deliver"), named("chat", "publish"), named("members", "deliver")), (300, 300, 360));
    assert_eq!((named("probes", "ping"), named("people", "connect"), named("members", "connect")), (90, 10, 6));
    assert_eq!(result["latencies_us"]["deliver"]["planned"]["count"], 660, "the whole is the sum");
}

#[test]
fn threshold_names_what_the_load_has_not_then_it_is_refused_before_the_run() {
    let gateway = Gateway::start();
    let folder = Folder::new("judged-names");
    let (url, file) = (gateway.url(Transport::Plain), folder.path("mixed.toml"));
    std::fs::write(&file, MIXTURE.replace("'1s'", "'1h'")).unwrap();
    for (option, condition, says) in [
        ("--fail-if", "chta.deliver.p95>1s", "no stream or population \"chta\"; it has chat, probes, members, people"),
        ("--fail-if", "people.deliver.p95>1s", "\"people\" has no deliver; it has connect, ping"),
        ("--fail-if", "phase(third).p95>1s", "no phase \"third\"; it has connect, first, second"),
        ("--abort-if", "chta.deliver.p95>1s", "no stream or population \"chta\""),
        ("--abort-if", "lost>0", "lost is known when the run is over"),
    ] {
        let output = loadtest(&["mixed", &file, "--url", &url, "--dev", "--quiet", option, condition]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says) && said.contains(condition), "{said}");
    }
}

#[test]
fn figure_is_unknown_then_the_nearest_is_proposed_and_all_are_listed_in_short_lines() {
    let said = |condition: &str| {
        let output = loadtest(&["p2p", "--url", "tcp://127.0.0.1:1", "--dev", "--fail-if", condition]);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let near = said("pong.p99>10ms");
    assert!(near.contains("there is no figure \"pong.p99\"; did you mean ping.p99?\nthere are:\n"), "{near}");
    assert!(said("p(95)<500").contains("did you mean p95?"));
    let far = said("throughput<10");
    assert!(!far.contains("did you mean") && far.contains("\n  what arrived: delivered, late, lost, "), "{far}");
    assert!(far.lines().all(|line| line.chars().count() <= 130), "{far}");
}

#[test]
fn limit_of_a_threshold_has_a_suffix_then_it_is_multiplied() {
    let gateway = Gateway::start();
    let run = |condition: &str| {
        let options = ["--connections", "2", "--rate", "50", "--duration", "1s", "--fail-if", condition];
        gateway.drive("p2p", &options)
    };
    let (code, result) = run("published<0.051k");
    assert_eq!((code, &result["thresholds"][0]["met"]), (1, &false.into()), "{result:#}");
    assert_eq!(run("published>10k").0, 0);
    assert_eq!(run("rate<0.001k/s").0, 0);
}

#[test]
fn promise_of_a_gateway_is_to_be_allowed_then_the_kinds_that_can_be_are_named() {
    for kind in ["lost", "duplicated", "corrupted", "misdelivered", "errors"] {
        let output = loadtest(&["p2p", "--url", "tcp://127.0.0.1:1", "--dev", "--allow", kind]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let wanted = "what can be allowed is skipped, undecided, never-sent, pings-unanswered, away, driver";
        assert!(said.contains(wanted) && said.contains("what the gateway promises cannot be"), "{said}");
        assert!(said.contains(&format!("'{kind}'")) && said.contains("--allow"), "{said}");
    }
    // Also as the figure is written.
    let gateway = Gateway::start();
    let options = ["--connections", "2", "--rate", "5", "--duration", "1s", "--allow", "never_sent,skipped"];
    assert_eq!(gateway.drive("p2p", &options).0, 0);
    let help = String::from_utf8(loadtest(&["p2p", "--help"]).stdout).unwrap();
    assert!(help.contains("pings-unanswered"), "{help}");
}

#[test]
fn junit_and_csv_are_written_then_they_agree_with_the_json() {
    let gateway = Gateway::start();
    let folder = Folder::new("junit");
    let (junit, csv) = (folder.path("junit.xml"), folder.path("latencies.csv"));
    let options = ["--connections", "4", "--rate", "50", "--duration", "1s", "--junit", &junit, "--csv", &csv];
    let (code, result) =
        gateway.drive("p2p", &[&options[..], &["--fail-if", "p95>50s", "--fail-if", "max>=1us"]].concat());
    assert_eq!(code, 1, "{result:#}");
    let text = std::fs::read_to_string(&junit).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap();
    let cases = document.descendants().filter(|node| node.has_tag_name("testcase"));
    let failed = cases.filter(|case| case.children().any(|node| node.has_tag_name("failure")));
    assert_eq!(failed.map(|case| case.attribute("name").unwrap()).collect::<Vec<_>>(), ["not max>=1us"], "{text}");
    let text = std::fs::read_to_string(&csv).unwrap();
    let row = text.lines().find(|line| line.starts_with("steady,p2p,deliver,")).unwrap();
    let cells: Vec<&str> = row.split(',').collect();
    let head: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    assert_eq!((cells.len(), cells[3]), (head.len(), "50"), "{text}");
    let planned = &result["latencies_us"]["deliver"]["planned"];
    let column = |name: &str| cells[head.iter().position(|head| *head == name).unwrap()];
    for (name, key) in [("p50_us", "p50"), ("p95_us", "p95"), ("p999_us", "p999"), ("max_us", "max")] {
        assert_eq!(column(name), planned[key].to_string(), "{name}");
    }
}

#[test]
fn abort_condition_holds_then_the_run_ends_early() {
    let gateway = Gateway::start();
    let folder = Folder::new("abort");
    let (url, json) = (gateway.url(Transport::Plain), folder.path("result.json"));
    let run = |condition: &str, more: &[&str]| {
        let link = ["p2p", "--url", &url, "--dev", "--quiet", "--connections", "10", "--rate", "200", "--json", &json];
        let output = loadtest(&[&link[..], &["--abort-if", condition], more].concat());
        let result: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), result)
    };
    let began = Instant::now();
    let (code, said, result) = run("p2p.deliver.p50>1us", &["--duration", "1h"]);
    assert!(began.elapsed() < Duration::from_secs(120));
    assert_eq!(code, Some(1), "{said}");
    let aborted = result["aborted"].as_str().unwrap();
    assert!(
        aborted.starts_with("p2p.deliver.p50>1us (p2p.deliver.p50 was ") && aborted.contains("last 5 s"),
        "{aborted}"
    );
    assert!(said.contains(&format!("  ! ended early by --abort-if: {aborted}")), "{said}");
    assert_eq!((&result["interrupted"], count(&result, "lost")), (&serde_json::Value::Bool(true), 0));
    let (code, said, result) = run("p2p.deliver.p50>50s", &["--duration", "1s"]);
    assert_eq!((code, &result["aborted"]), (Some(0), &serde_json::Value::Null), "{said}");
}

#[test]
fn capacity_is_searched_then_json_and_html_say_what_the_limit_was() {
    let gateway = Gateway::start();
    let folder = Folder::new("capacity");
    let (url, json, page) = (gateway.url(Transport::Plain), folder.path("capacity.json"), folder.path("capacity.html"));
    let search = |scenario: &str, condition: &str, rate_max: &str| {
        let link =
            ["capacity", scenario, "--url", &url, "--dev", "--connections", "4", "--duration", "300ms", "--rate", "20"];
        let more = ["--rate-max", rate_max, "--precision", "99", "--allow", "driver", "--fail-if", condition];
        let output = loadtest(&[&link[..], &more, &["--quiet", "--json", &json, "--html", &page]].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let result: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        (output.status.code(), said, result)
    };
    let (code, said, result) = search("p2p", "p99>50s", "40");
    assert_eq!((code, &result["capacity_per_second"], &result["limit"]), (Some(0), &40.0.into(), &().into()), "{said}");
    assert!(said.contains("capacity: at least 40 per second, confirmed by a second run; --rate-max ended"), "{said}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("at least 40 per second"));
    let (code, said, result) = search("ping", "max>=1us", "40");
    assert_eq!((code, &result["capacity_per_second"]), (Some(1), &().into()), "{said}");
    assert!(said.contains("no rate down to ") && said.contains("the limit was "), "{said}");
    let trials = result["trials"].as_array().unwrap();
    assert!(trials.iter().all(|trial| trial["met"] == false && trial["limit"].is_string()), "{result:#}");
}

//! The scenarios: what is driven, and what is counted.

use ringgate_core::transport::Transport;
use serde_json::Value;

use crate::support::{Folder, Gateway, PROGRAM, Process, assert_clean, count, loadtest};

#[test]
fn pairs_keep_their_schedule_and_lose_nothing() {
    let gateway = Gateway::start();
    let arguments = ["--connections", "40", "--rate", "200", "--duration", "2s", "--fail-if", "lost>0"];
    let (code, result) = gateway.drive("p2p", &arguments);
    assert_clean(code, &result);
    assert_eq!((count(&result, "published"), count(&result, "delivered")), (400, 400));
    assert_eq!(result["latencies_us"]["deliver"]["planned"]["count"], 400);
    assert_eq!(result["latencies_us"]["publish"]["planned"]["count"], 400);
    let phases: Vec<_> =
        result["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(phases, ["connect", "steady"]);
    assert!(!result["timeline"].as_array().unwrap().is_empty());
}

#[test]
fn a_closed_loop_over_tls() {
    let gateway = Gateway::start();
    let (code, result) = gateway.drive_over(
        Transport::Tls,
        "p2p",
        &["--connections", "400", "--closed-loop", "1", "--duration", "2s", "--no-resumption"],
    );
    assert_clean(code, &result);
    assert!(count(&result, "published") >= 20);
    assert_eq!(count(&result, "published"), count(&result, "delivered"));
    assert_eq!(count(&result, "tls_connections"), 400);
}

#[test]
fn full_and_resumed_handshakes_are_told_apart() {
    let gateway = Gateway::start();
    let folder = Folder::new("handshakes");
    let (page, metrics) = (folder.path("report.html"), gateway.metrics_url());
    let arguments =
        ["--connections", "20", "--rate", "40", "--duration", "1s", "--html", &page, "--metrics-url", &metrics];
    let (code, result) = gateway.drive_over(Transport::Tls, "churn", &arguments);
    assert_clean(code, &result);
    let kinds = |of: &Value| (count(of, "full"), count(of, "resumed"));
    let (full, resumed) = kinds(&result["tls_handshakes"]);
    // Newcomers have no ticket, and everybody who comes back has one.
    assert_eq!((full, resumed), (20, count(&result, "reconnects")));
    assert!(resumed > 0);
    let phases = result["phases"].as_array().unwrap().iter().map(|phase| kinds(&phase["tls_handshakes"]));
    assert_eq!(phases.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1)), (full, resumed));
    let series = result["metrics"]["series"].as_array().unwrap();
    for (kind, wanted) in [("full", full), ("resumed", resumed)] {
        let is_it = |series: &&Value| series["name"] == "ringgate_tls_handshakes" && series["labels"]["kind"] == kind;
        assert_eq!(series.iter().find(is_it).unwrap()["total"], wanted as f64, "the gateway's {kind}");
        let page = std::fs::read_to_string(&page).unwrap();
        assert!(page.contains(&format!("id=\"ledger-tls-{kind}\">{wanted}<")), "{kind}");
    }

    let url = gateway.url(Transport::Tls);
    let json = folder.path("result.json");
    let output = loadtest(&[
        "storm",
        "--url",
        &url,
        "--dev",
        "--connections",
        "20",
        "--duration",
        "0s",
        "--no-resumption",
        "--quiet",
        "--json",
        &json,
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = text.lines().find(|line| line.contains("TLS handshakes, full / resumed")).unwrap();
    assert!(output.status.success() && row.ends_with(" 40 / 0"), "{text}");
    let result: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(kinds(&result["tls_handshakes"]), (40, 0));
}

#[test]
fn rooms_count_every_member() {
    let gateway = Gateway::start();
    let (code, result) = gateway.drive(
        "room",
        &["--connections", "60", "--rooms", "3", "--publishers", "2", "--rate", "30", "--duration", "1s"],
    );
    assert_clean(code, &result);
    assert_eq!((count(&result, "published"), count(&result, "delivered")), (30, 30 * 20));
}

#[test]
fn a_closed_loop_in_rooms_begins_when_everybody_has_joined() {
    let gateway = Gateway::start();
    // Everybody publishes: one alone would soon be refused for its rate.
    let arguments = ["--connections", "20", "--publishers", "20", "--closed-loop", "2", "--duration", "500ms"];
    let (code, result) = gateway.drive("room", &arguments);
    assert_clean(code, &result);
    assert!(count(&result, "published") > 0);
    assert_eq!(count(&result, "published"), count(&result, "accepted"));
    assert_eq!(count(&result, "delivered"), count(&result, "accepted") * 20);
}

#[test]
fn who_was_away_gets_the_gap() {
    let gateway = Gateway::start();
    let (code, result) = gateway.drive("offline", &["--connections", "20", "--rate", "100", "--duration", "1s"]);
    assert_clean(code, &result);
    assert_eq!((count(&result, "delivered"), count(&result, "reconnects")), (100, 10));
}

#[test]
fn churn_and_storms_bring_everybody_back() {
    let gateway = Gateway::start();
    let (code, result) = gateway.drive("churn", &["--connections", "30", "--rate", "60", "--duration", "1s"]);
    assert_clean(code, &result);
    assert!(count(&result, "reconnects") > 0);
    let (code, result) = gateway.drive("storm", &["--connections", "100", "--duration", "0s"]);
    assert_clean(code, &result);
    assert_eq!(count(&result, "reconnects"), 100);
    let back = &result["first_1000_back_us"];
    assert_eq!(count(back, "count"), 100);
    assert!(0 < count(back, "p50") && count(back, "p50") <= count(back, "p99"), "{back}");
    let (code, result) = gateway.drive("ping", &["--connections", "10", "--rate", "100", "--duration", "1s"]);
    assert_clean(code, &result);
    assert!(result["latencies_us"]["ping"]["planned"]["count"].as_u64().unwrap() > 0);
    assert_eq!(result["first_1000_back_us"], Value::Null);
}

/// A heartbeat that falls due while another Ping is under way says nothing about the gateway.
#[test]
fn pings_are_sent_when_they_are_planned_also_while_others_wait() {
    let gateway = Gateway::start();
    let (code, result) = gateway.drive("ping", &["--connections", "2", "--rate", "4000", "--duration", "1s"]);
    assert_clean(code, &result);
    // A client's first heartbeat may come in between, and each is asked once more at the end.
    assert!((4000..=4004).contains(&result["latencies_us"]["ping"]["planned"]["count"].as_u64().unwrap()), "{result}");
}

#[test]
fn what_churn_plans_is_done_or_counted_as_skipped() {
    let gateway = Gateway::start();
    // A connect, a sign-in and a close in 100 us.
    let more_than_it_can = ["--connections", "1", "--rate", "10k", "--duration", "500ms"];
    let (code, result) = gateway.drive("churn", &more_than_it_can);
    assert_eq!((code, &result["clean"]), (1, &false.into()), "{result}");
    assert_eq!(count(&result, "reconnects") + count(&result, "skipped"), 5000, "{result}");
    assert!(count(&result, "reconnects") > 0);
    let (code, result) = gateway.drive("churn", &[&more_than_it_can[..], &["--allow", "skipped"]].concat());
    assert_clean(code, &result);
    assert!(count(&result, "skipped") > 0);
}

#[test]
fn a_ramp_until_refused_says_how_many_were_taken() {
    let gateway = Gateway::start();
    // Two shards of 1 024; connects are not dealt out evenly.
    let (code, result) =
        gateway.drive("connect", &["--connections", "2500", "--until-refused", "--fail-if", "errors>0"]);
    assert_eq!(code, 0, "{result}");
    let taken = count(&result["until_refused"], "signed_in");
    assert!((1024..=2048).contains(&taken), "{taken}");
    let (code, result) = gateway.drive("connect", &["--connections", "5", "--until-refused"]);
    assert_clean(code, &result);
    assert_eq!(count(&result["until_refused"], "signed_in"), 5);
}

/// What the load tester cannot do is no refusal of the gateway.
#[test]
fn a_ramp_until_refused_does_not_blame_the_gateway_for_the_load_tester() {
    let gateway = Gateway::start();
    // An address that is nobody's (RFC 5737).
    let arguments = ["--connections", "5", "--until-refused", "--source", "192.0.2.1"];
    let (code, result) = gateway.drive("connect", &arguments);
    assert_eq!(code, 2, "{result:#}");
    assert_eq!(result["until_refused"], serde_json::json!({"signed_in": 0, "refusals": {}}));
    let kinds: Vec<_> = result["errors_by_kind"].as_object().unwrap().keys().collect();
    let reason = "Cannot assign requested address; is each --source an address of this host?";
    assert_eq!(kinds, [&format!("this load tester could not connect: {reason}")]);
}

#[test]
fn connections_that_cannot_be_made_say_why() {
    let gateway = Gateway::start();
    let (tcp, tls) = (gateway.url(Transport::Plain), gateway.url(Transport::Tls));
    for (url, reason) in [
        ("tcp://127.0.0.1:1".to_owned(), "Connection refused; is the gateway running there?"),
        (tcp.replace("tcp://", "tls://"), "try tcp://"),
        (tls.replace("tls://", "tcp://"), "speaks TLS: try tls://"),
    ] {
        for until_refused in [&[][..], &["--until-refused"]] {
            let mut arguments = vec!["connect", "--url", &url, "--dev", "--connections", "3", "--quiet"];
            arguments.extend(until_refused);
            let output = loadtest(&arguments);
            let text = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(reason), "{url}: {text}");
        }
    }
}

#[test]
fn a_ramp_that_is_ended_early_says_how_far_it_came() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    let arguments = ["p2p", "--url", &url, "--dev", "--connections", "1000", "--ramp-rate", "5", "--plain"];
    let mut run = Process::start(std::process::Command::new(PROGRAM), &arguments);
    run.wait_for_line("connections");
    run.signal("-INT");
    let (code, text, _) = run.end();
    assert_eq!(code, Some(1));
    let line =
        text.lines().find(|line| line.contains("while clients were connecting: ")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.ends_with(" of 1000 were signed in") && !text.contains("steady"), "{text}");
}

/// What a run failed by is said beside its errors, and is none of them.
#[test]
fn errors_are_counted_and_not_the_lines_about_them() {
    let output =
        loadtest(&["idle", "--url", "tcp://127.0.0.1:1", "--dev", "--connections", "3", "--quiet", "--json", "-"]);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let closed = count(&result["closed_by_code"], "0");
    assert!(closed > 0, "{result:#}");
    let kinds = result["errors_by_kind"].as_object().unwrap();
    assert!(kinds.len() == 1 && kinds.keys().all(|kind| kind.starts_with("connect to 127.0.0.1:1: ")), "{kinds:?}");
    assert_eq!(count(&result, "errors"), closed);
    assert_eq!(
        (&result["failure"], &result["clean"]),
        (&Value::from("connections were refused or lost"), &Value::Bool(false))
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("\n  ! connections were refused or lost\n"));
}

#[test]
fn heartbeats_and_pings_do_not_get_in_each_others_way() {
    let gateway = Gateway::start();
    // So many that no machine brings one of them to the frames a second that a connection may send.
    let arguments = ["--connections", "400", "--closed-loop", "1", "--duration", "3s", "--ping-interval", "2s"];
    let (code, result) = gateway.drive("ping", &arguments);
    assert_clean(code, &result);
}

#[test]
fn a_room_is_joined_once_and_warmed_up() {
    let gateway = Gateway::start();
    let arguments = ["--connections", "20", "--rooms", "2", "--rate", "50", "--duration", "1s", "--warm-up", "500ms"];
    let (code, result) = gateway.drive("room", &arguments);
    assert_clean(code, &result);
    assert_eq!(count(&result, "delivered"), 75 * 10);
    assert_eq!(count(&result["latencies_us"]["deliver"]["planned"], "count"), 50 * 10);
}

#[test]
fn rooms_that_nobody_may_join_are_not_waited_for() {
    let gateway = Gateway::start();
    let (code, result) = gateway.drive("room", &["--connections", "5", "--room-name", "nosuch:room"]);
    assert_eq!(code, 1, "{result:#}");
    assert_eq!(result["failure"], "joining the rooms: 5 of 5 were refused");
}

#[test]
fn slow_readers_catch_up() {
    let gateway = Gateway::start();
    let arguments =
        ["--connections", "20", "--rate", "60", "--duration", "1s", "--payload-bytes", "2000", "--publishers", "1"];
    let (code, result) = gateway.drive("slow", &arguments);
    assert_clean(code, &result);
    assert_eq!(count(&result, "delivered"), count(&result, "accepted") * 20);
}

#[test]
fn thresholds_decide_the_exit_code() {
    let gateway = Gateway::start();
    let arguments = ["--connections", "4", "--rate", "20", "--duration", "1s", "--fail-if", "p99>1us"];
    let (code, result) = gateway.drive("p2p", &arguments);
    assert_eq!(code, 1);
    assert!(result["thresholds_failed"][0].as_str().unwrap().starts_with("p99>1us"));
    assert_eq!(count(&result, "lost"), 0);
}

#[test]
fn two_results_are_compared_and_intervals_logged() {
    let gateway = Gateway::start();
    let folder = Folder::new("compare");
    let path = |name: &str| folder.path(name);
    let url = gateway.url(Transport::Plain);
    for name in ["a.json", "b.json"] {
        let output = loadtest(&[
            "p2p",
            "--url",
            &url,
            "--dev",
            "--connections",
            "4",
            "--rate",
            "20",
            "--duration",
            "1s",
            "--quiet",
            "--json",
            &path(name),
            "--hdr-log",
            &path("log.hlog"),
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("deliveries"));
    }
    let compare = |before: &str, after: &str| {
        let output = loadtest(&["compare", "--tolerance", "100000", &path(before), &path(after)]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = compare("a.json", "b.json");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("  the same load: p2p\n"), "{text}");
    let figures = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("  {name} ")))
            .unwrap_or_else(|| panic!("{name}: {text}"));
        line[32..62].split_whitespace().map(|figure| figure.parse::<f64>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(figures("corrupted"), [0.0, 0.0]);
    for name in ["connect p99, us", "publish p99.9, us", "deliver p99, us", "tester CPU per delivery, us"] {
        assert!(figures(name).iter().all(|figure| *figure > 0.0) && figures(name).len() == 2, "{name}: {text}");
    }
    let (whole, steady) = text.split_once("  phase steady\n").unwrap();
    assert!(
        whole.contains("  phase connect\n")
            && steady.contains("delivered per second")
            && steady.contains("deliver p50, us")
    );

    // A run that came to nothing is not taken for a quiet one.
    let mut broken: Value = serde_json::from_str(&std::fs::read_to_string(path("a.json")).unwrap()).unwrap();
    broken["failure"] = "the gateway fell over".into();
    for phase in broken["phases"].as_array_mut().unwrap() {
        phase["delivered"] = 0.into();
    }
    std::fs::write(path("broken.json"), broken.to_string()).unwrap();
    let (code, text) = compare("a.json", "broken.json");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("  worse: it did not get to its end"), "{text}");
    let output = loadtest(&["compare", &path("a.json"), &path("broken.json")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("broken.json: the gateway fell over"), "{text}");
    let fallen = text.lines().find(|line| line.starts_with("  delivered per second ")).unwrap();
    assert!(fallen.ends_with("-100 % worse"), "{fallen}");

    let other = ["--connections", "6", "--rate", "20", "--duration", "1s", "--payload-bytes", "50"];
    let (code, result) = gateway.drive_over(Transport::Tls, "p2p", &other);
    assert_clean(code, &result);
    std::fs::write(path("other.json"), result.to_string()).unwrap();
    let (code, text) = compare("a.json", "other.json");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("not judged: the loads differ"), "{text}");
    assert!(text.starts_with("  ! different loads"), "{text}");
    let differing: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("  !   ")).collect();
    let wanted = [
        "connections: 4 before, 6 after",
        "payload bytes: 100 before, 50 after",
        "resumption: - before, true after",
        "tls connections: 0 before, 6 after",
    ];
    assert_eq!(differing, wanted);

    // Several runs a side; what must be 0 is worse if one run has it.
    let mut lossy: Value = serde_json::from_str(&std::fs::read_to_string(path("a.json")).unwrap()).unwrap();
    lossy["lost"] = 1.into();
    std::fs::write(path("lossy.json"), lossy.to_string()).unwrap();
    let list = |names: [&str; 3]| names.map(&path).join(",");
    let (before, good) = (list(["a.json", "b.json", "a.json"]), list(["a.json", "b.json", "b.json"]));
    for (after, wanted) in [(good, Some(0)), (list(["a.json", "b.json", "lossy.json"]), Some(1))] {
        let output = loadtest(&["compare", "--tolerance", "100000%", "--before", &before, "--after", &after]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), wanted, "{text}");
        assert!(
            text.contains("..") && (wanted == Some(0) || text.contains("  worse: lost 0 [0..0] to 0 [0..1]")),
            "{text}"
        );
    }
    assert_eq!(loadtest(&["compare", "--before", &before]).status.code(), Some(2));
    let log = std::fs::read_to_string(path("log.hlog")).unwrap();
    assert!(log.contains("#[StartTime:") && log.contains("Tag=deliver,") && log.contains("HISTFA"), "{log}");
}

#[test]
fn mistakes_are_named_before_anything_starts() {
    let refused = |arguments: &[&str]| {
        let output = loadtest(arguments);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let url = ["p2p", "--url", "tcp://127.0.0.1:1", "--dev"];
    assert!(refused(&[&url[..], &["--fail-if", "q98>1ms"]].concat()).contains("there is no figure \"q98\""));
    assert!(refused(&[&url[..], &["--source", "nowhere"]].concat()).contains("127.0.0.0/8"));
    assert!(refused(&["p2p", "--url", "http://x", "--dev"]).contains("tcp://HOST:PORT"));
    assert!(refused(&["capacity", "p2p", "--url", "tcp://127.0.0.1:1", "--dev"]).contains("--fail-if"));
    let capacity =
        ["capacity", "p2p", "--url", "tcp://127.0.0.1:1", "--dev", "--fail-if", "lost>0", "--junit", "x.xml"];
    assert!(refused(&capacity).contains("--junit and --csv are for a single run"));
    assert!(refused(&[&url[..], &["--connections", "2", "--quiet"]].concat()).is_empty());
    assert!(refused(&[&url[..], &["--pid", "4194305"]].concat()).contains("no such process"));
    let one_is_gone = format!("{},4194305", std::process::id());
    assert!(refused(&[&url[..], &["--pid", &one_is_gone]].concat()).contains("--pid 4194305: no such process"));
    assert!(refused(&[&url[..], &["--connections", "1"]].concat()).contains("--connections 2 at least"));
    assert!(refused(&[&url[..], &["--until-refused"]].concat()).contains("p2p has no --until-refused"));
    let of = |scenario: &str, option: &[&str]| {
        refused(&[&[scenario, "--url", "tcp://127.0.0.1:1", "--dev"], option].concat())
    };
    assert!(of("connect", &["--rate", "500"]).contains("--ramp-rate"));
    assert!(of("churn", &["--poisson"]).contains("churn has no --poisson"));
    assert!(of("storm", &["--closed-loop", "2"]).contains("storm has no --closed-loop"));
    assert!(of("room", &["--rooms", "2000"]).contains("more than --connections 1000"));
    assert!(of("room", &["--room-name", "bad name"]).contains("--room-name"));
}

#[test]
fn a_mixture_runs_through_its_phases() {
    let gateway = Gateway::start();
    let folder = std::env::temp_dir().join(format!("ringgate-mixed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("mixed.toml");
    let mixture = "seed = 5
fail_if = ['lost>0']
[[populations]]
name = 'people'
connections = 40
[[populations]]
name = 'members'
connections = 20
tls = true
churn = 5.0
[[streams]]
population = 'people'
kind = 'pairs'
rate = 100.0
[[streams]]
population = 'people'
kind = 'pings'
think_time = '300ms'
[[streams]]
population = 'members'
kind = 'rooms'
rooms = 2
publishers = 2
rate = 10.0
[[phases]]
name = 'warm-up'
duration = '500ms'
measured = false
[[phases]]
name = 'ramp'
duration = '1s'
load = [1.0, 3.0]
[[phases]]
name = 'drain'
duration = '200ms'
load = 0.0
";
    std::fs::write(&file, mixture).unwrap();
    let (path, tls) = (file.to_str().unwrap(), gateway.url(Transport::Tls));
    let (code, result) = gateway.drive("mixed", &[path, "--other-url", &tls]);
    // Members that happen to be away do not send.
    let skipped = count(&result, "skipped");
    assert_eq!((code, &result["clean"]), (0, &Value::Bool(true)), "{result:#}");
    assert_eq!(count(&result, "published") + skipped, 50 + 5 + 200 + 20);
    assert_eq!((count(&result, "connections"), count(&result, "tls_connections")), (60, 20));
    assert!(count(&result, "reconnects") >= 5 && count(&result, "pings") > 100, "{result:#}");
    let phases = result["phases"].as_array().unwrap();
    let sent = |name: &str| count(phases.iter().find(|phase| phase["name"] == name).unwrap(), "sent");
    assert!(sent("warm-up") <= 55 && sent("ramp") <= 220, "{phases:#?}");
    assert_eq!(sent("drain"), 0);
    let pairs_of_ramp = count(&result["latencies_us"]["deliver"]["planned"], "count");
    assert!(pairs_of_ramp < count(&result, "delivered"), "the warm-up is not measured");

    // What is wrong with a file is said before any connection is made.
    std::fs::write(&file, mixture.replace("kind = 'pings'", "kind = 'songs'")).unwrap();
    let refused = loadtest(&["mixed", path, "--url", &gateway.url(Transport::Plain), "--dev"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("songs") && text.contains("mixed.toml"), "{text}");
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn streams_have_phases_of_their_own_then_each_sends_in_these_alone() {
    let gateway = Gateway::start();
    let folder = Folder::new("mixed-phases");
    let file = folder.path("mixed.toml");
    let population = |name: &str| format!("[[populations]]\nname = '{name}'\nconnections = 10\n");
    let stream = |name: &str, phases: &str| {
        format!("[[streams]]\npopulation = '{name}'\nkind = 'pairs'\nrate = 100\nphases = {phases}\n")
    };
    let phase = |name: &str| format!("[[phases]]\nname = '{name}'\nduration = '500ms'\n");
    let text = [
        population("a") + &population("b"),
        stream("a", "['first', 'both']") + &stream("b", "['both']"),
        phase("quiet") + &phase("first") + &phase("both"),
    ];
    std::fs::write(&file, text.concat()).unwrap();
    let pid = std::process::id().to_string();
    let (code, result) = gateway.drive("mixed", &[&file, "--pid", &pid]);
    assert_clean(code, &result);
    let delivered = |phase: &str, name: &str| {
        let phase = result["phases"].as_array().unwrap().iter().find(|each| each["name"] == phase).unwrap();
        phase["latency_by_name_us"][name]["deliver"]["planned"]["count"].as_u64().unwrap_or(0)
    };
    let all = ["quiet", "first", "both"].map(|phase| [delivered(phase, "a"), delivered(phase, "b")]);
    assert_eq!(all[0], [0, 0], "{all:?}");
    assert!(all[1][0] > 0 && all[1][1] == 0, "{all:?}");
    assert!(all[2][0] > 0 && all[2][1] > 0, "{all:?}");
    assert_eq!(count(&result, "delivered"), 150);
}

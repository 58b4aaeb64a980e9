//! `--metrics-url`: what the gateway says about itself, in the same report.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use ringgate_core::transport::Transport;
use serde_json::Value;

use crate::support::{Folder, Gateway, PROGRAM, Process, assert_clean, count, loadtest};

/// The figures of a series without labels, or with these.
fn series<'a>(result: &'a Value, name: &str, labels: &[(&str, &str)]) -> &'a Value {
    let wanted: Value = labels.iter().map(|(name, value)| (name.to_string(), Value::from(*value))).collect();
    let all = result["metrics"]["series"].as_array().unwrap();
    let found = all.iter().find(|series| series["name"] == name && series["labels"] == wanted);
    found.unwrap_or_else(|| panic!("{name} {wanted} in {:#}", result["metrics"]))
}

#[test]
fn the_load_tester_says_how_it_stands_while_it_runs() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    let load = ["p2p", "--url", &url, "--dev", "--connections", "4", "--rate", "100", "--duration", "10m", "--quiet"];
    let mut command = Command::new(PROGRAM);
    command.args(load);
    let mut process = Process::start(command, &["--metrics-listen", "127.0.0.1:0"]);
    let line = process.wait_for_line("metrics of this load tester: ");
    let address = line.trim().rsplit_once("http://").unwrap().1.strip_suffix("/metrics").unwrap().to_owned();
    let ask = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = ask();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("# EOF\n"), "{answer}");
        let figure = |name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            line.unwrap_or(0.0)
        };
        let latency = "ringgate_loadtest_latency_seconds{measure=\"deliver\",name=\"p2p\",quantile=\"0.99\"}";
        if figure("ringgate_loadtest_delivered_total") > 0.0 && figure(latency) > 0.0 {
            assert_eq!(figure("ringgate_loadtest_connections"), 4.0);
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
    process.signal("-INT");
    assert_eq!(process.end().0, Some(1));
}

#[test]
fn the_gateway_counts_what_the_load_tester_counts() {
    let gateway = Gateway::start();
    let folder = Folder::new("metrics");
    let page = folder.path("report.html");
    let url = gateway.metrics_url();
    let arguments =
        ["--connections", "20", "--rate", "100", "--duration", "2s", "--metrics-url", &url, "--html", &page];
    let (code, result) = gateway.drive("p2p", &arguments);
    assert_clean(code, &result);
    let metrics = &result["metrics"];
    assert!(metrics["scrapes"].as_u64().unwrap() >= 2, "{metrics}");
    assert_eq!(metrics["failed"], serde_json::json!({}));
    for (name, key) in [("messages_received", "published"), ("messages_sent", "delivered")] {
        let total = series(&result, &format!("ringgate_{name}"), &[])["total"].as_f64().unwrap();
        assert_eq!(total, count(&result, key) as f64, "{name}");
    }
    let accepted = series(&result, "ringgate_connections_accepted", &[("transport", "tcp")]);
    assert_eq!((&accepted["kind"], &accepted["total"]), (&Value::from("counter"), &Value::from(20.0)));
    let delivery = series(&result, "ringgate_delivery_duration_seconds", &[]);
    assert_eq!(delivery["count"], 200.0);
    assert!(delivery["mean"].as_f64().unwrap() > 0.0 && delivery["p99"].as_f64() >= delivery["p50"].as_f64());
    // One series for each shard, and their sum.
    let enters = |labels: &[(&str, &str)]| series(&result, "ringgate_uring_enters", labels)["total"].as_f64().unwrap();
    assert_eq!(enters(&[]), enters(&[("shard", "0")]) + enters(&[("shard", "1")]));
    assert_eq!(result["enters_per_delivery"], enters(&[]) / 200.0);
    assert_eq!(
        series(&result, "ringgate_sessions_active", &[])["min"],
        0.0,
        "the first scrape is before any connection"
    );
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("<code>ringgate_uring_enters</code>") && text.contains("Memory of the gateway over time"));
}

#[test]
fn what_is_not_there_is_refused_before_the_run() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    let refused = |metrics_url: &str| {
        let output = loadtest(&["idle", "--url", &url, "--dev", "--duration", "1h", "--metrics-url", metrics_url]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused("https://127.0.0.1:1/metrics").contains("http://HOST:PORT/metrics"));
    let metrics = gateway.metrics_url();
    assert!(refused(&metrics.replace("/metrics", "/elsewhere")).contains("status 404"));
    assert!(refused(&metrics.replace("/metrics", "/healthz")).contains("line 1: "));
    assert!(refused("http://127.0.0.1:1/metrics").contains("refused"));
}

#[test]
fn a_scrape_that_fails_is_counted_and_named() {
    let gateway = Gateway::start();
    let url = serve_once_well();
    let (code, result) = gateway.drive("idle", &["--connections", "4", "--duration", "1500ms", "--metrics-url", &url]);
    assert_clean(code, &result);
    let failed = result["metrics"]["failed"].as_object().unwrap();
    assert_eq!(result["metrics"]["scrapes"], 1);
    assert!(failed["answered with status 503"].as_u64() >= Some(1), "{failed:?}");
}

/// Answers the first scrape with metrics, and refuses all that follow.
fn serve_once_well() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let statuses = std::iter::once("200 OK").chain(std::iter::repeat("503 Service Unavailable"));
        for (stream, status) in listener.incoming().zip(statuses) {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            let body = "# TYPE up gauge\nup 1\n# EOF\n";
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all((head + body).as_bytes()).unwrap();
        }
    });
    url
}

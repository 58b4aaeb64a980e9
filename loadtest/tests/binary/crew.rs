//! A controller and its workers: one run of several processes, and what becomes of it when one of them is lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;
use std::time::{Duration, Instant};

use ringgate_core::transport::Transport;
use serde_json::Value;

use crate::support::{Folder, Gateway, LOOPBACK, Process, assert_clean, count, loadtest};

/// A run of two workers in good order: its result, when all have ended.
fn run_of_two(load: &[&str]) -> Value {
    let (controller, address) = Process::controller(LOOPBACK, "2", load);
    let workers = [Process::worker(&address), Process::worker(&address)];
    let (code, stdout, stderr) = controller.end();
    let result = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert_clean(code.unwrap(), &result);
    let arrived = workers.map(|worker| {
        let (code, _, stderr) = worker.end();
        assert_eq!(code, Some(0), "{stderr}");
        let last = stderr.lines().last().unwrap();
        let arrived =
            last.split_once(": the run is over, ").and_then(|(_, said)| said.strip_suffix(" messages arrived here"));
        arrived.unwrap_or_else(|| panic!("{stderr}")).parse::<u64>().unwrap()
    });
    assert_eq!(arrived.iter().sum::<u64>(), count(&result, "delivered"));
    result
}

fn assert_shared(result: &Value, clients: &[u64]) {
    let workers = result["workers"].as_array().unwrap();
    assert_eq!(workers.iter().map(|worker| count(worker, "connections")).collect::<Vec<_>>(), clients);
    for worker in workers {
        // Both run on one clock.
        let (offset, error) = (worker["clock_offset_ns"].as_i64().unwrap(), count(worker, "clock_error_ns"));
        assert!(error > 0 && offset.unsigned_abs() <= error, "{worker}");
        // The system counts in steps of 10 ms, and a worker of few clients may need less.
        assert!((0.0..=1.5).contains(&worker["driver_busy"].as_f64().unwrap()), "{worker}");
    }
}

#[test]
fn pairs_cross_the_workers() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    // 21 pairs: the partner of every client is another worker's.
    let load = ["p2p", "--url", &url, "--connections", "42", "--rate", "200", "--duration", "2s", "--json", "-"];
    let result = run_of_two(&load);
    assert_eq!((count(&result, "published"), count(&result, "delivered")), (400, 400));
    assert_eq!(result["latencies_us"]["deliver"]["planned"]["count"], 400);
    assert_eq!(result["latencies_us"]["connect"]["planned"]["count"], 42);
    assert_shared(&result, &[21, 21]);
}

#[test]
fn a_mixture_crosses_the_workers() {
    let gateway = Gateway::start();
    let folder = Folder::new("crew-mixed");
    let file = folder.path("mixed.toml");
    let mixture = "seed = 5
[[populations]]
name = 'people'
connections = 31
[[populations]]
name = 'members'
connections = 20
tls = true
[[streams]]
population = 'people'
kind = 'pairs'
rate = 100.0
poisson = true
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
";
    std::fs::write(&file, mixture).unwrap();
    let (plain, tls) = (gateway.url(Transport::Plain), gateway.url(Transport::Tls));
    let page = folder.path("report.html");
    let result =
        run_of_two(&["mixed", &file, "--url", &plain, "--other-url", &tls, "--json", "-", "--html", &page, "--quiet"]);
    assert_shared(&result, &[26, 25]);
    let rooms = 5 + 20;
    let pairs = count(&result, "published") - rooms;
    assert!((150..350).contains(&pairs), "{pairs} of 250 on average");
    assert_eq!(count(&result, "delivered"), pairs + rooms * 10);
    assert!(std::fs::read_to_string(&page).unwrap().contains("<h2>Workers</h2>"));
}

/// A run of an hour whose workers have both begun.
fn long_run(gateway: &Gateway, folder: &Folder) -> (Process, [Process; 2]) {
    let (url, json) = (gateway.url(Transport::Plain), folder.path("result.json"));
    let load = ["p2p", "--url", &url, "--connections", "20", "--rate", "100", "--duration", "1h", "--json", &json];
    let (mut controller, address) = Process::controller(LOOPBACK, "2", &load);
    let mut workers = [Process::worker(&address), Process::worker(&address)];
    for worker in &mut workers {
        worker.wait_for_line("the run begins");
    }
    controller.wait_for_line("steady");
    (controller, workers)
}

fn result_of(folder: &Folder) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.path("result.json")).unwrap()).unwrap()
}

#[test]
fn a_lost_worker_fails_the_run_at_once() {
    let gateway = Gateway::start();
    let folder = Folder::new("crew-lost");
    let (controller, [first, second]) = long_run(&gateway, &folder);
    let killed = Instant::now();
    first.signal("-KILL");
    let (code, stdout, _) = controller.end();
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
    assert_eq!(code, Some(1));
    assert!(stdout.contains("deliveries"), "{stdout}");
    let result = result_of(&folder);
    let errors: Vec<_> = result["errors_by_kind"].as_object().unwrap().keys().collect();
    let named = |error: &&&String| error.starts_with("worker ") && error.contains(" of 2 (127.0.0.1:");
    let lost = errors.iter().find(named).unwrap_or_else(|| panic!("{errors:?}"));
    assert!(lost.contains(") was lost: its connection ended"), "{lost}");
    assert_eq!(result["clean"], false);
    let (code, _, stderr) = second.end();
    assert_eq!(code, Some(0), "the other was told to stop: {stderr}");
}

#[test]
fn a_worker_that_is_asked_to_end_says_so() {
    let gateway = Gateway::start();
    let folder = Folder::new("crew-asked");
    let (controller, [first, second]) = long_run(&gateway, &folder);
    second.signal("-INT");
    assert_eq!(controller.end().0, Some(1));
    let errors = result_of(&folder)["errors_by_kind"].to_string();
    assert!(errors.contains(") was lost: it was ended early, by SIGINT or SIGTERM"), "{errors}");
    assert_eq!((first.end().0, second.end().0), (Some(0), Some(1)));
}

#[test]
fn a_controller_that_is_asked_to_end_reports() {
    let gateway = Gateway::start();
    let folder = Folder::new("crew-interrupted");
    let (controller, workers) = long_run(&gateway, &folder);
    controller.signal("-INT");
    assert_eq!(controller.end().0, Some(1));
    let result = result_of(&folder);
    assert_eq!((&result["interrupted"], count(&result, "lost")), (&Value::Bool(true), 0));
    assert_eq!(count(&result, "errors"), 0, "{}", result["errors_by_kind"]);
    for worker in workers {
        assert_eq!(worker.end().0, Some(0));
    }
}

#[test]
fn workers_end_when_their_controller_is_gone() {
    let gateway = Gateway::start();
    let folder = Folder::new("crew-gone");
    let (controller, workers) = long_run(&gateway, &folder);
    controller.signal("-KILL");
    for worker in workers {
        let (code, _, stderr) = worker.end();
        assert_eq!(code, Some(1));
        assert!(stderr.contains("the controller at 127.0.0.1:") && stderr.contains("is gone: "), "{stderr}");
    }
}

#[test]
fn strangers_are_refused_and_disturb_nobody() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    let load = ["p2p", "--url", &url, "--connections", "8", "--rate", "50", "--duration", "1h", "--json", "-"];
    let (mut controller, address) = Process::controller(LOOPBACK, "2", &load);
    let ask = |line: &str| {
        let mut stranger = TcpStream::connect(&address).unwrap();
        stranger.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stranger.read_to_string(&mut answer).unwrap();
        answer
    };
    // One says nothing all the time.
    let _silent = TcpStream::connect(&address).unwrap();
    let answer = ask("{\"Hello\":\"ringgate-loadtest 0.0.0, crew 0\"}\n");
    assert!(answer.contains("Refused") && answer.contains("both must be the same"), "{answer}");
    assert!(ask("GET / HTTP/1.1\n").contains("no message"));
    assert!(ask(&"x".repeat(4097)).contains("more than 4096 bytes"));
    // A worker that has left again does not count.
    let left = Process::worker(&address);
    controller.wait_for_line("1 there");
    drop(left);
    controller.wait_for_line("0 there");
    let mut workers = [Process::worker(&address), Process::worker(&address)];
    for worker in &mut workers {
        worker.wait_for_line("the run begins");
    }
    controller.wait_for_line("steady");
    let (code, _, stderr) = Process::worker(&address).end();
    assert!(code == Some(2) && stderr.contains("refused this worker: this run has its 2 workers already"), "{stderr}");
    controller.signal("-INT");
    let (_, stdout, stderr) = controller.end();
    let result: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert_eq!((count(&result, "lost"), count(&result, "errors")), (0, 0), "{}", result["errors_by_kind"]);
    // The silent one is among them, too, if all this has taken that long.
    let refused = stderr.lines().filter(|line| line.contains(" was refused: ") && !line.contains("said nothing"));
    assert_eq!(refused.count(), 4, "{stderr}");
}

#[test]
fn mistakes_of_controllers_and_workers_are_named() {
    let refused = |arguments: &[&str]| {
        let Output { status, stderr, .. } = loadtest(arguments);
        assert!(!status.success());
        String::from_utf8_lossy(&stderr).into_owned()
    };
    let load = ["idle", "--url", "tcp://127.0.0.1:1"];
    let controller = |listen: &str, more: &[&str]| {
        refused(&[&["controller", "--listen", listen, "--workers", "1"], &load[..], more].concat())
    };
    assert!(controller("nowhere", &[]).contains("--listen nowhere: "));
    assert!(controller("127.0.0.1:0", &["--dev"]).contains("give --dev to each `worker`"));
    assert!(controller("127.0.0.1:0", &["--json", "/nowhere/x"]).contains("/nowhere/x cannot be written"));
    assert!(refused(&["worker", "nowhere", "--dev"]).contains("write HOST:PORT"));
    assert!(refused(&["worker", "127.0.0.1:1"]).contains("--dev, --key FILE, --tokens FILE or --token"));
    assert!(refused(&load).contains("--dev, --key FILE, --tokens FILE or --token"));
    // A gateway is no controller.
    let gateway = Gateway::start();
    let address = gateway.url(Transport::Plain).replace("tcp://", "");
    assert!(refused(&["worker", &address, "--dev"]).contains("is not a controller"));
}

//! The load tester itself, or one of its workers, is stopped for a time: the run fails unless that is allowed.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::load::Load;
use super::run::{Run, Verdict, judged, on_one_gateway, signal};
use crate::proxy::{Place, Proxy};

/// How long the load tester is stopped.
const STOPPED: Duration = Duration::from_secs(3);

/// Stops a process in the middle of a load, and has it go on.
fn stop(proxy: &Proxy, load: Load, process: u32) {
    proxy.wait_until(|book| load.is_under_way(book));
    signal(process, Signal::STOP);
    std::thread::sleep(STOPPED);
    signal(process, Signal::CONT);
}

/// Thresholds that a load tester which was stopped does not meet: the last one because latency counts from the planned time.
const PAUSED: &[&str] = &["--fail-if", "lag.max>2.5s", "--fail-if", "stall>2.9s", "--fail-if", "p99>2s"];

#[test]
fn the_load_tester_is_stopped_until_after_the_end_then_the_rest_is_never_sent() {
    const VERDICTS: [Verdict; 3] = [(&[], 1), (&["driver"], 1), (&["driver", "never-sent"], 0)];
    on_one_gateway(&judged(&Load::ONLINE, &VERDICTS), |(load, (allow, code)), address| {
        let run = Run { allow, ..Run::of(load, &[]) };
        let outcome = run.run(address, |proxy, process| stop(proxy, load, process));
        let mut expected = outcome.expected();
        let never_sent = outcome.planned - expected["sent"];
        assert!(never_sent > 0, "{}: all of it was sent, after the end", outcome.what);
        expected.insert("never_sent", never_sent);
        let mut differences = outcome.differences(expected, &[("lost", 0), ("undecided", 0), ("skipped", 0)]);
        if outcome.code != code {
            differences.push(format!("[{}] the exit code is {}, not {code}", outcome.what, outcome.code));
        }
        differences
    });
}

/// Runs it twice, each time with one that drives clients stopped in the middle: that fails a run unless it is allowed.
fn stopped_in_the_middle(run: &Run<'_>, address: Place) -> Vec<String> {
    let stopped = |run: &Run<'_>| run.run(address, |proxy, process| stop(proxy, run.load, process));
    let (allowed, mut failed) = std::thread::scope(|scope| {
        let allowed = scope.spawn(|| stopped(&Run { allow: &["driver"], ..*run }));
        let failed = stopped(&Run { options: PAUSED, allow: &[], ..*run });
        (allowed.join().unwrap(), failed)
    });
    let right = [("lost", 0), ("undecided", 0), ("skipped", 0), ("never_sent", 0)];
    let mut differences = allowed.differences(allowed.expected(), &right);
    let missed = failed.result["thresholds_failed"].as_array().map_or(0, Vec::len);
    let limit = failed.result["driver_limit"].as_str().is_some();
    assert_eq!((failed.code, missed, limit), (1, PAUSED.len() / 2, true), "{}: {}", failed.what, failed.result);
    // Of that alone it has failed.
    (failed.code, failed.result["clean"]) = (0, Value::Bool(true));
    differences.extend(failed.differences(failed.expected(), &right));
    differences
}

#[test]
fn the_load_tester_or_a_worker_is_stopped_in_the_middle_then_the_run_fails_unless_that_is_allowed() {
    on_one_gateway(&[(Load::P2p, false), (Load::Ping, false), (Load::P2p, true)], |(load, crew), address| {
        let settle = if crew { "2s" } else { "1s" };
        stopped_in_the_middle(&Run { seconds: 5, crew, settle, ..Run::of(load, &[]) }, address)
    });
}

/// Each pause is too short to fail a run by itself.
#[test]
fn the_load_tester_is_stopped_again_and_again_then_the_run_fails_unless_that_is_allowed() {
    const VERDICTS: [Verdict; 2] = [(&[], 1), (&["driver"], 0)];
    on_one_gateway(&judged(&[Load::P2p], &VERDICTS), |(load, (allow, code)), address| {
        let run = Run { seconds: 8, settle: "5s", allow, ..Run::of(load, &[]) };
        let mut outcome = run.run(address, |proxy, process| {
            proxy.wait_until(|book| load.is_under_way(book));
            for _ in 0..5 {
                signal(process, Signal::STOP);
                std::thread::sleep(Duration::from_millis(900));
                signal(process, Signal::CONT);
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        assert_eq!(outcome.code, code, "{}: {}", outcome.what, outcome.result);
        assert!(outcome.result["driver_limit"].as_str().is_some(), "{}: {}", outcome.what, outcome.result);
        // Of that alone it has failed.
        (outcome.code, outcome.result["clean"]) = (0, Value::Bool(true));
        outcome.differences(outcome.expected(), &[("lost", 0), ("undecided", 0), ("skipped", 0), ("never_sent", 0)])
    });
}

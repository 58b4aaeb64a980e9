//! Everything comes, but late: latencies say so, and nothing else does.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::load::Load;
use super::own_gateway::OwnGateway;
use super::run::{Outcome, Run, on_one_gateway, with_each};
use crate::proxy::{Fault, Points};

#[test]
fn messages_are_late_then_latencies_say_how_much() {
    const TIME: Duration = Duration::from_millis(300);
    on_one_gateway(&[Load::P2p, Load::Room, Load::Mixed], |load, address| {
        let plan = [(Fault::DelayMessage(TIME), Points::ALL)];
        let run = Run { options: &["--fail-if", "p50>250ms"], ..Run::of(load, &plan) };
        let mut outcome = run.run(address, |_, _| {});
        let missed = outcome.result["thresholds_failed"].as_array().map_or(0, Vec::len);
        assert_eq!((missed, outcome.code), (1, 1), "{load:?}: p50 is over 250 ms: {}", outcome.result);
        (outcome.code, outcome.result["clean"]) = (0, Value::Bool(true));
        let mut differences = outcome.differences(outcome.expected(), &[("lost", 0), ("pings_unanswered", 0)]);
        let latency = &outcome.result["latencies_us"]["deliver"]["planned"];
        let fastest = outcome.result["latencies_us"]["deliver"]["curve"][0][1].as_u64().unwrap();
        // Three digits are kept.
        let within = (299_000..).contains(&fastest) && (299_000..600_000).contains(&latency["p50"].as_u64().unwrap());
        if !within {
            differences.push(format!("{load:?}: all are 300 ms late, and {fastest} is the fastest of {latency}"));
        }
        differences
    });
}

/// Each client sends a Ping every 50 ms; each Pong comes so much later.
fn pongs_late_by(time: Duration) {
    on_one_gateway(&[Load::Ping], |load, address| {
        let plan = [(Fault::DelayPong(time), Points::ALL)];
        let outcome = Run::of(load, &plan).run(address, |_, _| {});
        let mut differences = outcome.differences(outcome.expected(), &[("pings_unanswered", 0)]);
        let latency = &outcome.result["latencies_us"]["ping"]["planned"];
        let p50 = Duration::from_micros(latency["p50"].as_u64().unwrap());
        if p50 < time * 99 / 100 || p50 > time * 2 {
            differences.push(format!("all are {time:?} late: {latency}"));
        }
        differences
    });
}

#[test]
fn pongs_are_late_then_latencies_say_how_much() {
    pongs_late_by(Duration::from_millis(30));
}

#[test]
fn pongs_come_after_the_next_ping_is_due_then_it_waits_and_its_latency_says_so() {
    let time = Duration::from_millis(150);
    on_one_gateway(&[Load::Ping], |load, address| {
        let plan = [(Fault::DelayPong(time), Points::ALL)];
        let outcome = Run::of(load, &plan).run(address, |_, _| {});
        let latency = &outcome.result["latencies_us"]["ping"];
        let p50 = |start: &str| Duration::from_micros(latency[start]["p50"].as_u64().unwrap());
        let mut differences = Vec::new();
        if p50("sent") < time * 99 / 100 || p50("sent") > time * 2 || p50("planned") < p50("sent") * 2 {
            differences.push(format!("each is {time:?} late, and a Ping is due every 50 ms: {latency}"));
        }
        // What had to wait until the end was never sent, and each client may have had one under way then.
        let figure = |name: &str| outcome.result[name].as_u64().unwrap();
        if figure("skipped") == 0 || figure("pings_unanswered") > figure("connections") || figure("errors") > 0 {
            differences.push(format!("{}", outcome.result));
        }
        differences
    });
}

/// Whether what waited for more than a second is what the report calls late, and nothing is wrong.
fn late_and_right(outcome: &Outcome, at_least: Duration) -> Vec<String> {
    let mut differences = outcome.differences(outcome.expected(), &[("lost", 0), ("undecided", 0), ("skipped", 0)]);
    let slowest = Duration::from_micros(outcome.slowest_us());
    // Messages to users who are away wait for them, too.
    let most = if outcome.load == Load::Offline { Duration::MAX } else { at_least * 2 };
    // It began, at worst, right after a message had passed.
    if slowest + Duration::from_millis(100) < at_least || slowest > most {
        differences
            .push(format!("[{}] nothing passed for {at_least:?}, and the slowest took {slowest:?}", outcome.what));
    }
    // On its way to the proxy a message may have waited, too, but on a busy machine for a part of a second only.
    let waited = |time: Duration| outcome.book.waits.iter().filter(|wait| **wait >= time).count() as u64;
    let late = outcome.figure("late").unwrap();
    let (fewest, most) = (waited(Duration::from_secs(1)), waited(Duration::from_millis(500)));
    if outcome.book.pongs == 0 && !(fewest..=most).contains(&late) {
        differences.push(format!("[{}] {fewest} to {most} were late, and {late} are said to", outcome.what));
    }
    differences
}

#[test]
fn nothing_passes_for_a_time_then_latencies_say_so_and_nothing_is_lost() {
    const TIME: Duration = Duration::from_millis(1500);
    on_one_gateway(&Load::ALL, |load, address| {
        let fault = if load == Load::Ping { Fault::StallAtPing(TIME) } else { Fault::StallAtPublish(TIME) };
        let plan = [(fault, Points::once(4))];
        let outcome = Run { settle: "5s", ..Run::of(load, &plan) }.run(address, |_, _| {});
        late_and_right(&outcome, TIME)
    });
}

#[test]
fn a_gateway_is_frozen_then_latencies_say_so_and_nothing_is_lost() {
    const TIME: Duration = Duration::from_millis(1500);
    with_each(&Load::ALL, |load| {
        let gateway = OwnGateway::start();
        let run = Run { settle: "5s", ..Run::of(load, &[]) };
        let outcome = run.run(gateway.address, |proxy, _| {
            proxy.wait_until(|book| load.is_under_way(book));
            gateway.signal(Signal::STOP);
            std::thread::sleep(TIME);
            gateway.signal(Signal::CONT);
        });
        late_and_right(&outcome, TIME)
    });
}

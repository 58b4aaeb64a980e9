//! Pings that only keep connections alive: those that get no Pong fail the run.

use std::time::Duration;

use rustix::process::Signal;

use super::load::Load;
use super::own_gateway::OwnGateway;
use super::run::{Outcome, Run, on_one_gateway};
use crate::proxy::{Fault, Points};

const RECONNECT: &[&str] = &["--reconnect"];

/// Whether the report says of every client that its heartbeat was not answered, of those that had the time to notice it that they
/// are not connected, and nothing else.
fn all_unanswered(outcome: &Outcome) -> Vec<String> {
    let clients = outcome.load.clients();
    let away = outcome.figure("away").unwrap();
    assert!(outcome.code == 1 && (1..=clients).contains(&away), "{}: {}", outcome.what, outcome.result);
    let mut expected = outcome.expected();
    expected.insert("away", away);
    outcome.differences(expected, &[("heartbeats_unanswered", clients), ("pings_unanswered", 0)])
}

/// Whether the report says, for a load with messages, that every client's heartbeat was not answered, and counts each Publish
/// without an answer, as `undecided` or as `unanswered`: only their sum is known, as their connections may have ended or live.
fn all_without_an_answer(outcome: &Outcome) -> Vec<String> {
    let figures = outcome.book.figures();
    let [heartbeats, away, undecided, unanswered] =
        ["heartbeats_unanswered", "away", "undecided", "unanswered"].map(|name| outcome.figure(name).unwrap());
    let clients = outcome.load.clients();
    let right = [clients, away.clamp(1, clients), figures["undecided"] + figures["unanswered"]];
    let found = [heartbeats, away, undecided + unanswered];
    assert!(right[2] > 0, "{}", outcome.what);
    match (found == right, outcome.code) {
        (true, 1) => Vec::new(),
        (_, code) => vec![format!("[{}] {found:?}, not {right:?}, exit code {code}", outcome.what)],
    }
}

#[test]
fn a_gateway_is_frozen_for_good_then_heartbeats_are_unanswered_and_clients_away() {
    // The first client sends a heartbeat whenever it comes, and the next one a second later.
    let cases = [
        (Load::Idle, 1, &[][..], false),
        (Load::Idle, 1, RECONNECT, true),
        (Load::Storm, 2, &[], false),
        (Load::P2p, 1, &[], false),
        (Load::Room, 1, &[], true),
    ];
    on_one_gateway(&cases, |(load, at, options, tls), address| {
        let plan = [(Fault::FreezeAtPing, Points::once(at))];
        let run = Run { seconds: 4, ping_interval: "1s", options, tls, ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        assert!(outcome.book.injected[0] > 0, "{}", outcome.what);
        if load.rate() > 0 { all_without_an_answer(&outcome) } else { all_unanswered(&outcome) }
    });
}

#[test]
fn idle_connections_are_dead_before_their_next_heartbeat_then_each_is_noticed_at_the_end() {
    let gateway = OwnGateway::start();
    let run = Run { seconds: 2, ..Run::of(Load::Idle, &[]) };
    let outcome = run.run(gateway.address, |proxy, _| {
        proxy.wait_until(|book| book.sign_ins >= run.load.clients() && book.pongs > 0);
        gateway.signal(Signal::STOP);
    });
    let right = (Some(run.load.clients()), Some(0), 1);
    let found = (outcome.figure("heartbeats_unanswered"), outcome.figure("away"), outcome.code);
    assert_eq!(found, right, "{}", outcome.result);
}

#[test]
fn pongs_never_come_then_heartbeats_are_unanswered_and_clients_away() {
    let cases = [
        (Points::ALL, "1s", false, false),
        (Points::each_tenth(1), "500ms", false, false),
        (Points::ALL, "1s", true, false),
        (Points::ALL, "1s", false, true),
    ];
    on_one_gateway(&cases, |(points, ping_interval, tls, crew), address| {
        let plan = [(Fault::LosePong, points)];
        let run = Run { seconds: 3, ping_interval, tls, crew, ..Run::of(Load::Idle, &plan) };
        all_unanswered(&run.run(address, |_, _| {}))
    });
}

#[test]
fn pongs_never_come_and_clients_come_back_or_the_run_ends_then_heartbeats_are_unanswered() {
    let cases = [
        (Load::Idle, "1s", "1s", 2, RECONNECT),
        (Load::Storm, "1s", "1s", 2, RECONNECT),
        // When this ends, some of its 10 clients have sent their first heartbeat, and may still get a Pong.
        (Load::Idle, "5s", "2s", 1, &[]),
    ];
    on_one_gateway(&cases, |(load, ping_interval, settle, seconds, options), address| {
        let plan = [(Fault::LosePong, Points::ALL)];
        let run = Run { seconds, ping_interval, settle, options, ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        let (unanswered, most) = (outcome.figure("heartbeats_unanswered"), outcome.book.pings);
        // What was sent while the run was ending may not be counted any more.
        let right = most.saturating_sub(load.clients()).max(1)..=most;
        match (unanswered.is_some_and(|count| right.contains(&count)), outcome.code) {
            (true, 1) => Vec::new(),
            (_, code) => vec![format!("[{}] {unanswered:?} of {right:?}, exit code {code}", outcome.what)],
        }
    });
}

#[test]
fn pongs_that_are_under_way_at_the_end_come_then_nothing_is_wrong() {
    on_one_gateway(&[Load::Idle, Load::Storm], |load, address| {
        let plan = [(Fault::DelayPong(Duration::from_millis(300)), Points::ALL)];
        let run = Run { ping_interval: "1s", settle: "2s", ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        assert!(outcome.book.injected[0] > 0, "{}", outcome.what);
        let wrong = ["heartbeats_unanswered", "pings_unanswered", "away", "errors"];
        let wrong: Vec<_> = wrong.into_iter().filter(|name| outcome.figure(name) != Some(0)).collect();
        match (wrong.is_empty(), outcome.code) {
            (true, 0) => Vec::new(),
            (_, code) => vec![format!("[{}] {wrong:?}, exit code {code}: {}", outcome.what, outcome.result)],
        }
    });
}

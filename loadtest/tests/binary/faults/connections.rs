//! Connections end, come back or not, or nobody answers on them: what was not sent, not answered and not delivered is told apart.

use rustix::process::Signal;
use serde_json::Value;

use super::load::Load;
use super::own_gateway::OwnGateway;
use super::run::{
    Run, Verdict, half_over_tls, judged, on_one_gateway, signal, skipped_the_rest, skipped_the_rest_with_away,
    with_each,
};
use crate::proxy::{Fault, Points};

/// A run that is cut off from its gateway for a time fails unless this is allowed.
const CUT_OFF: [Verdict; 2] = [(&["driver"], 1), (&["driver", "undecided", "skipped", "pings-unanswered"], 0)];

const RECONNECT: &[&str] = &["--reconnect"];

#[test]
fn connections_end_then_what_they_had_to_send_is_undecided_or_skipped() {
    on_one_gateway(&half_over_tls(&Load::WITH_MESSAGES), |(load, tls), address| {
        let plan = [(Fault::CutAtPublish, Points::once(5))];
        let run = Run { tls, ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        assert!(outcome.book.injected[0] == run.injections() && outcome.code == 1, "{}", outcome.what);
        skipped_the_rest(&outcome, &[("unanswered", 0), ("duplicated", 0), ("delivered_undecided", 0)])
    });
}

#[test]
fn connections_end_and_come_back_then_what_was_not_sent_fails_the_run_unless_allowed() {
    on_one_gateway(&judged(&Load::WITH_MESSAGES, &CUT_OFF), |(load, (allow, code)), address| {
        let plan = [(Fault::CutAtPublish, Points::once(5))];
        let run = Run { seconds: 2, options: RECONNECT, allow, ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        assert!(outcome.book.injected[0] == run.injections(), "{}", outcome.what);
        let mut differences = skipped_the_rest(&outcome, &[("lost", 0), ("unanswered", 0), ("duplicated", 0)]);
        let closed = outcome.result["closed_by_code"]["0"].as_u64();
        if outcome.code != code || closed != Some(run.injections()) {
            differences.push(format!("[{}] {} and {closed:?} closed", outcome.what, outcome.code));
        }
        differences
    });
}

#[test]
fn as_many_messages_are_lost_as_publishes_are_undecided_then_both_are_reported() {
    on_one_gateway(&half_over_tls(&Load::WITH_MESSAGES), |(load, tls), address| {
        let plan = [(Fault::CutAtAnswer, Points::once(5)), (Fault::Lose, Points::once(12))];
        let allow = &["driver", "undecided", "skipped", "pings-unanswered"];
        let run = Run { seconds: 2, options: RECONNECT, allow, tls, ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        let [cut, lost] = outcome.book.injected[..] else { panic!("two faults") };
        assert!(cut == run.injections() && lost > 0 && outcome.code == 1, "{}", outcome.what);
        skipped_the_rest(&outcome, &[("lost", lost), ("unanswered", 0)])
    });
}

#[test]
fn connections_end_instead_of_a_pong_then_pings_are_unanswered() {
    on_one_gateway(&judged(&Load::WITH_PINGS, &CUT_OFF), |(load, (allow, code)), address| {
        let plan = [(Fault::CutAtPong, Points::once(3))];
        let run = Run { seconds: 2, options: RECONNECT, allow, ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        let unanswered = outcome.book.figures()["pings_unanswered"];
        assert!(outcome.book.injected[0] == run.injections() && unanswered >= run.injections(), "{}", outcome.what);
        let mut differences = skipped_the_rest(&outcome, &[("lost", 0), ("unanswered", 0)]);
        if outcome.code != code {
            differences.push(format!("[{}] the exit code is {}, not {code}", outcome.what, outcome.code));
        }
        differences
    });
}

#[test]
fn receivers_lose_their_connections_and_come_back_then_nothing_is_lost() {
    on_one_gateway(&[Load::P2p, Load::Offline], |load, address| {
        let plan = [(Fault::CutAfterMessage, Points::once(5))];
        let run = Run { options: RECONNECT, ..Run::of(load, &plan) };
        let outcome = run.run(address, |_, _| {});
        assert!(outcome.book.injected[0] == run.injections(), "{}", outcome.what);
        let right = [("lost", 0), ("duplicated", 0), ("skipped", 0), ("undecided", 0)];
        let mut differences = outcome.differences(outcome.expected(), &right);
        if outcome.result["closed_by_code"]["0"].as_u64() != Some(run.injections()) {
            differences.push(format!("[{}] closed are {}", outcome.what, outcome.result["closed_by_code"]));
        }
        differences
    });
}

/// Kills the gateway in the middle of each of these loads, with these options, where this is allowed.
fn killed(cases: &[(&[Load], &[&str], &[&str])]) {
    let of_case = |(loads, options, allow): &(&[Load], _, _)| {
        let (options, allow) = (*options, *allow);
        half_over_tls(loads).into_iter().map(move |(load, tls)| (load, tls, options, allow))
    };
    let cases: Vec<(Load, bool, &[&str], &[&str])> = cases.iter().flat_map(of_case).collect();
    with_each(&cases, |(load, tls, options, allow)| {
        let gateway = OwnGateway::start();
        let is_idle = load.rate() == 0;
        let ping_interval = if is_idle { "500ms" } else { "10m" };
        let run = Run { seconds: 2, options, allow, ping_interval, tls, ..Run::of(load, &[]) };
        let outcome = run.run(gateway.address, |proxy, _| {
            proxy.wait_until(|book| load.is_under_way(book));
            gateway.signal(Signal::KILL);
            proxy.gateway_is_gone();
        });
        assert!(outcome.book.cut.len() >= 5, "{}: {:?}", outcome.what, outcome.book.cut);
        let expected = outcome.expected();
        let not_sent = outcome.planned - expected["sent"];
        assert!(not_sent > 0 || is_idle, "{}: all of it was sent before", outcome.what);
        let right = [("skipped", not_sent), ("unanswered", 0), ("duplicated", 0), ("away", load.clients())];
        let mut differences = skipped_the_rest(&outcome, &right);
        if outcome.said.contains("clients not connected at the end (allowed)") != allow.contains(&"away") {
            differences.push(format!("[{}] it said: {}", outcome.what, outcome.said));
        }
        // The load itself has those return who were away.
        let returns = outcome.book.turned_away > 0;
        if returns != outcome.reconnects() && load != Load::Offline {
            differences.push(format!("[{}] {} tried to come back", outcome.what, outcome.book.turned_away));
        }
        differences
    });
}

#[test]
fn a_gateway_is_killed_then_clients_that_are_away_and_what_was_not_sent_fail_the_run() {
    const ALL: [Load; 6] = [Load::P2p, Load::Room, Load::Mixed, Load::Ping, Load::Idle, Load::Storm];
    killed(&[(&ALL, &[], &["driver"]), (&ALL, RECONNECT, &["driver"]), (&[Load::Offline], &[], &["driver"])]);
}

#[test]
fn a_gateway_is_killed_and_what_follows_is_allowed_then_only_what_was_lost_and_not_allowed_fails_the_run() {
    const ALLOWED: &[&str] = &["driver", "skipped", "undecided", "pings-unanswered", "away"];
    let but_away = ALLOWED.split_last().unwrap().1;
    killed(&[(&Load::ONLINE, RECONNECT, ALLOWED), (&Load::ONLINE, RECONNECT, but_away)]);
}

/// The load has taken the receivers away, and did not want them back yet.
#[test]
fn a_run_is_ended_while_receivers_are_away_then_they_do_not_count_as_such() {
    on_one_gateway(&[Load::Offline], |load, address| {
        let outcome = Run { seconds: 10, ..Run::of(load, &[]) }.run(address, |proxy, process| {
            proxy.wait_until(|book| load.is_under_way(book));
            signal(process, Signal::INT);
        });
        match (&outcome.result["interrupted"], outcome.figure("away"), outcome.code) {
            (Value::Bool(true), Some(0), 1) => Vec::new(),
            (_, away, code) => vec![format!("away {away:?}, exit code {code}: {}", outcome.result)],
        }
    });
}

#[test]
fn a_gateway_is_frozen_until_after_the_end_then_all_without_an_answer_is_unanswered() {
    with_each(&[Load::P2p, Load::Room, Load::Ping], |load| {
        let gateway = OwnGateway::start();
        let run = Run { seconds: 2, ..Run::of(load, &[]) };
        let outcome = run.run(gateway.address, |proxy, _| {
            proxy.wait_until(|book| load.is_under_way(book));
            gateway.signal(Signal::STOP);
        });
        let figures = outcome.book.figures();
        // A client that waits too long for a Pong takes its connection for dead.
        let (name, away) = if load == Load::Ping { ("pings_unanswered", load.clients()) } else { ("unanswered", 0) };
        assert!(figures[name] > 0 && outcome.code == 1, "{}", outcome.what);
        skipped_the_rest_with_away(&outcome, away, &[("undecided", 0), ("duplicated", 0)])
    });
}

//! Clients come and go because the load has them do so: nothing is lost by that, and who cannot come back is missed.

use std::time::Duration;

use ringgate_core::transport::Transport;
use rustix::process::Signal;
use serde_json::Value;

use super::load::Load;
use super::own_gateway::OwnGateway;
use super::run::{Outcome, Run, on_one_gateway, with_each};
use crate::proxy::{Fault, Points};
use crate::support::{Folder, Gateway, assert_clean, count};

/// What must be 0 where nothing was wrong.
const FAULTS: [&str; 14] = [
    "lost",
    "duplicated",
    "reordered",
    "corrupted",
    "misdelivered",
    "undecided",
    "unanswered",
    "answered_twice",
    "answered_wrong",
    "delivered_undecided",
    "pings_unanswered",
    "heartbeats_unanswered",
    "away",
    "errors",
];

/// What was wrong with a run, if anything was.
fn wrong(what: &str, code: i32, result: &Value) -> Vec<String> {
    let wrong: Vec<_> = FAULTS.into_iter().filter(|name| result[name] != 0).collect();
    if wrong.is_empty() && code == 0 {
        return Vec::new();
    }
    let wrong: Vec<_> = wrong.into_iter().map(|name| format!("{name} is {}", result[name])).collect();
    let (skipped, failure, errors) = (&result["skipped"], &result["failure"], &result["errors_by_kind"]);
    vec![format!("[{what}] {wrong:?}, exit code {code}, skipped {skipped}, failure {failure}, errors {errors}")]
}

/// Answers, messages and Pongs take so long that some are under way whenever a client leaves.
#[test]
fn clients_leave_while_much_is_under_way_then_nothing_is_undecided_or_lost() {
    const PLAN: &[(Fault, Points)] = &[
        (Fault::DelayAnswer(Duration::from_millis(100)), Points::ALL),
        (Fault::DelayMessage(Duration::from_millis(50)), Points::ALL),
        (Fault::DelayPong(Duration::from_millis(50)), Points::ALL),
    ];
    let cases = [(Load::MixedChurn, false), (Load::MixedChurn, false), (Load::MixedChurn, true), (Load::Churn, false)];
    on_one_gateway(&cases, |(load, tls), address| {
        let run = Run { seconds: 2, settle: "5s", tls, ..Run::of(load, PLAN) };
        let outcome = run.run(address, |_, _| {});
        let reconnects = outcome.figure("reconnects").unwrap();
        assert!(reconnects >= 20, "{}: {reconnects} came back", outcome.what);
        wrong(&outcome.what, outcome.code, &outcome.result)
    });
}

#[test]
fn clients_leave_at_a_high_rate_of_messages_then_nothing_is_undecided_or_lost() {
    let gateway = Gateway::start();
    let folder = Folder::new("faults-churn");
    with_each(&[1, 2, 3], |run| {
        let file = folder.path(&format!("{run}.toml"));
        let text = format!(
            "seed = {run}\n\
             [[populations]]\nname = 'all'\nconnections = 20\nchurn = 20.0\n\
             [[streams]]\npopulation = 'all'\nkind = 'pairs'\nrate = 600.0\npoisson = true\n\
             [[streams]]\npopulation = 'all'\nkind = 'rooms'\nrate = 60.0\nrooms = 2\npublishers = 2\nroom = 'chat:churn-{run}'\n\
             [[streams]]\npopulation = 'all'\nkind = 'pings'\nrate = 200.0\n\
             [[phases]]\nname = 'steady'\nduration = '2s'\n"
        );
        std::fs::write(&file, text).unwrap();
        let (code, result) = gateway.drive("mixed", &[&file]);
        assert!(count(&result, "reconnects") >= 30 && count(&result, "published") > 1000, "{result}");
        wrong(&format!("run {run}"), code, &result)
    });
    let arguments = ["--connections", "30", "--rate", "60", "--duration", "1s"];
    for transport in [Transport::Plain, Transport::Tls] {
        let (code, result) = gateway.drive_over(transport, "churn", &arguments);
        assert_clean(code, &result);
        assert_eq!(count(&result, "skipped") + count(&result, "away"), 0, "{result:#}");
    }
}

/// Kills the gateway while a client is on its way back.
fn killed(load: Load, options: &[&str]) -> Outcome {
    let gateway = OwnGateway::start();
    let run = Run { seconds: 2, options, ..Run::of(load, &[]) };
    run.run(gateway.address, |proxy, _| {
        proxy.wait_until(|book| load.is_under_way(book));
        proxy.gateway_goes_when_a_client_leaves();
        gateway.signal(Signal::KILL);
    })
}

#[test]
fn a_gateway_is_killed_then_clients_that_churn_are_away_and_what_they_had_to_do_is_skipped() {
    let cases = [(Load::Churn, &[][..]), (Load::MixedChurn, &[]), (Load::MixedChurn, &["--reconnect"])];
    with_each(&cases, |(load, options)| {
        let outcome = killed(load, options);
        let figure = |name: &str| outcome.figure(name).unwrap_or(0);
        let mut wrong = Vec::new();
        let mut check = |right: bool, what: &str| {
            if !right {
                let figures = ["away", "sent", "skipped", "skipped_by_churn", "never_sent", "failure", "seconds"];
                let figures = figures.map(|name| format!("{name} {}", outcome.result[name])).join(", ");
                wrong.push(format!("[{}] not so: {what}; exit code {}, {figures}", outcome.what, outcome.code));
            }
        };
        check(outcome.code == 1, "the exit code is 1");
        check(outcome.figure("away") == Some(load.clients()), "all are away");
        check(figure("skipped") > 0, "something is skipped");
        // Until its first attempt has failed, a client is on its way back.
        let not_sent = outcome.planned - figure("sent");
        check(figure("skipped_by_churn") * 20 <= not_sent, "the load's own churn is not why most was not sent");
        check(
            figure("skipped") + figure("skipped_by_churn") + figure("never_sent") >= not_sent,
            "all that was not sent is said",
        );
        check(outcome.result["seconds"].as_f64() < Some(30.0), "nobody waits for clients that cannot come back");
        wrong
    });
}

//! Clients that wait for an answer before they go on: they go on, also after a refusal, and each in all of its streams.

use std::time::Duration;

use serde_json::Value;

use super::load::Load;
use super::run::{Run, on_one_gateway};
use crate::proxy::{Fault, Points};
use crate::support::{Folder, Gateway, assert_clean};

#[test]
fn publishes_are_refused_for_the_moment_then_their_clients_go_on_sending() {
    let cases = [Points::each_tenth(3), Points::ALL];
    let cases = cases.map(|points| [Duration::ZERO, Duration::from_millis(50)].map(|after| (points, after)));
    on_one_gateway(&[cases[0][0], cases[0][1], cases[1][1]], |(points, retry_after), address| {
        // A client that were answered at once would send more than a connection may.
        let plan =
            [(Fault::RefusePublish(retry_after), points), (Fault::DelayAnswer(Duration::from_millis(50)), Points::ALL)];
        let outcome = Run { seconds: 2, ..Run::of(Load::ClosedLoop, &plan) }.run(address, |_, _| {});
        let (refused, published) = (outcome.book.injected[0], outcome.book.published());
        let window = Load::CLOSED_LOOP_WINDOW * Load::ClosedLoop.clients() / 2;
        let mut differences =
            outcome.differences(outcome.expected(), &[("lost", 0), ("unanswered", 0), ("undecided", 0)]);
        // One refusal for each place in the window is enough to stop a client that does not go on.
        if refused <= window || published < 10 * window {
            differences.push(format!("[{}] {published} published, {refused} refused: {window} at once", outcome.what));
        }
        if outcome.result["refused_by_code"]["402"].as_u64() != Some(refused) {
            differences.push(format!("[{}] not {refused}: {}", outcome.what, outcome.result["refused_by_code"]));
        }
        differences
    });
}

#[test]
fn streams_with_think_times_share_a_population_then_all_of_them_are_sent() {
    const TEXT: &str = "
        [[populations]]
        name = 'all'
        connections = 12
        [[streams]]
        name = 'letters'
        population = 'all'
        kind = 'pairs'
        think_time = '100ms'
        [[streams]]
        name = 'notes'
        population = 'all'
        kind = 'pairs'
        think_time = '100ms'
        [[streams]]
        name = 'talk'
        population = 'all'
        kind = 'rooms'
        publishers = 6
        room = 'chat:think'
        think_time = '200ms'
        [[streams]]
        name = 'beats'
        population = 'all'
        kind = 'pings'
        think_time = '100ms'
        [[phases]]
        name = 'steady'
        duration = '2s'
        ";
    let gateway = Gateway::start();
    let folder = Folder::new("faults-think");
    let file = folder.path("think.toml");
    std::fs::write(&file, TEXT).unwrap();
    let (code, result) = gateway.drive("mixed", &[&file]);
    assert_clean(code, &result);
    let sent = |name: &str, measure: &str| {
        let count: &Value = &result["latencies_by_name_us"][name][measure]["planned"]["count"];
        count.as_u64().unwrap_or(0)
    };
    // 6 senders that think for 100 ms send 120 within 2 s on average, and the half of that once in a million runs.
    for (name, measure, least) in
        [("letters", "publish", 50), ("notes", "publish", 50), ("talk", "publish", 20), ("beats", "ping", 100)]
    {
        assert!(
            sent(name, measure) >= least,
            "{name}: {} were sent: {:#}",
            sent(name, measure),
            result["latencies_by_name_us"]
        );
    }
}

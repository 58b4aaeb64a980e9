//! Rounds of faults over several gateways on one real Redis, with a ledger.
//!
//! In each round two or four gateway processes serve clients that keep to the protocol and never stop publishing, to inboxes and to a
//! room with members everywhere. Something fails and is mended; traffic goes on until everything is answered. Then no message that was
//! answered may be missing, come twice or in another order, or be lost without a word, and every publish must have its answer.
//!
//! The rounds run in a network namespace of their own. These variables change what they do:
//!
//! | variable | what |
//! |---|---|
//! | `RINGGATE_ROUNDS=100` | so many rounds; those beyond the first of each fault last longer |
//! | `RINGGATE_ROUND=7` | this one alone; a failure names its round |
//! | `RINGGATE_MESSAGES=1000000` | all rounds together send at least so many messages |
//! | `RINGGATE_TABLE=FILE` | the times until everything works again are written there, too |

#[path = "../support/mod.rs"]
mod support;

mod device;
mod faults;
mod ledger;
mod namespace;
mod proxy;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device::{DEVICES, Device, ROOM, Shared, Stage, State};
use faults::{Fault, pass};
use proxy::Way;
use ringgate_core::close::CloseReason;
use ringgate_sim::Random;
use ringgate_test_servers::Append;
use world::{Layout, World, wait_at_most};

/// Until everything works again, and until everything is answered and received then.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// Most of a round is waiting.
const ROUNDS_AT_ONCE: usize = 3;
/// Within which a round sends what it is to send.
const TRAFFIC: Duration = Duration::from_secs(20);

/// What became of a round.
struct Row {
    fault: Fault,
    /// From the end of the fault until every gateway says that it is ready.
    ready: Duration,
    /// The same until every client has also had an answer to what it published after that end, and to all before.
    whole: Duration,
    answered: usize,
    /// Messages whose loss clients were told of.
    lost: usize,
}

#[test]
fn something_fails_under_traffic_over_several_nodes_then_nothing_is_lost_repeated_or_reordered() {
    if !namespace::is_inside() {
        let this = "something_fails_under_traffic_over_several_nodes_then_nothing_is_lost_repeated_or_reordered";
        return namespace::run_inside(this);
    }
    let rounds = match number_in("RINGGATE_ROUND") {
        Some(round) => round..round + 1,
        None => 0..number_in("RINGGATE_ROUNDS").unwrap_or(Fault::ALL.len() as u64),
    };
    let messages = number_in("RINGGATE_MESSAGES").unwrap_or(0).div_ceil(rounds.end - rounds.start);
    let next = AtomicU64::new(rounds.start);
    let (rows, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..ROUNDS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= rounds.end {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| round(number, messages))) {
                        Ok(row) => rows.lock().unwrap().push(row),
                        Err(_) => {
                            eprintln!("round {number} failed: RINGGATE_ROUND={number} cargo test --test nodes");
                            failed.lock().unwrap().push(number);
                        }
                    }
                }
            });
        }
    });
    let table = table(&rows.into_inner().unwrap());
    eprintln!("{table}");
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "rounds {failed:?} failed: RINGGATE_ROUND={} cargo test --test nodes", failed[0]);
    if let Some(file) = std::env::var_os("RINGGATE_TABLE") {
        std::fs::write(&file, page(&table))
            .unwrap_or_else(|error| panic!("RINGGATE_TABLE: {}: {error}", file.display()));
    }
}

/// The number in a variable of the environment, if it is set.
fn number_in(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} must be a whole number")))
}

#[test]
fn claim_of_a_device_is_held_back_and_the_client_went_elsewhere_then_its_newer_session_stays() {
    let world = World::start(2, Append::EverySecond, Layout::Proxies);
    // From then on node 1 knows the time of Redis: it has asked for that before.
    let knows = || world.sample(0, "ringgate_redis_round_trip_seconds") > 0.0 && world.sign_in(0, "bob").is_ok();
    assert!(wait_at_most(WHOLE_MAX, knows), "node 1 has asked Redis");
    world.nodes[0].proxy().set(Way::Held);
    let first = world.sign_in(0, "alice").map(|_| ()).expect_err("node 1 cannot ask Redis");
    assert_eq!(first.code, CloseReason::Busy.code());
    let mut newer = world.sign_in(1, "alice").expect("node 2 can ask Redis");
    // What node 1 has asked for is late by more than its patience when it arrives.
    pass(2000);
    world.nodes[0].proxy().set(Way::Open);
    assert!(wait_at_most(WHOLE_MAX, || world.is_ready()), "node 1 reaches Redis again");
    newer.publish("@alice", "still here");
    assert_eq!(newer.texts(1), ["still here"]);
}

/// The seed is the round's number. At least so many messages are sent in it.
fn round(number: u64, messages: u64) -> Row {
    let mut random = Random::new(number);
    let fault = Fault::ALL[number as usize % Fault::ALL.len()];
    let is_short = number < Fault::ALL.len() as u64;
    let nodes = if random.one_in(2) { 2 } else { 4 };
    let append = fault.append(&mut random);
    let loses = fault.may_lose(append);
    eprintln!("round {number}: {fault:?}, {nodes} nodes, {append:?}");
    let mut world = World::start(nodes, append, fault.layout());
    let shared = Arc::new(Shared::new(loses, world.addresses.clone(), messages));
    let threads: Vec<_> = (0..DEVICES)
        .map(|device| {
            let device = Device::new(device, shared.clone(), random.bits());
            std::thread::spawn(move || device.run())
        })
        .collect();
    let all = |test: &dyn Fn(&State) -> bool| shared.states().iter().all(test);
    let joined = wait_at_most(WHOLE_MAX, || all(&|state| state.is_joined));
    judge(joined, "clients sign in", &shared, &world);
    shared.set_stage(Stage::Publishing);
    pass(1000 + random.below(1000) as u64);

    let mended = fault.happen(&mut world, &mut random, is_short);
    let (mut whole, mut ready) = ([false; DEVICES], None);
    let is_whole = wait_at_most(WHOLE_MAX, || {
        for (whole, state) in whole.iter_mut().zip(shared.states()) {
            let is_late = state.unanswered_since.is_some_and(|since| since < mended);
            *whole |= !is_late && state.answered.is_some_and(|sent| sent > mended);
        }
        ready = ready.or_else(|| world.is_ready().then(|| mended.elapsed()));
        ready.is_some() && whole.iter().all(|whole| *whole)
    });
    let (ready, whole) = (ready.unwrap_or_default(), mended.elapsed());
    judge(is_whole, "every gateway is ready and every client publishes", &shared, &world);
    // What is late shows in what follows.
    pass(300);
    let has_sent = || shared.ledger.lock().unwrap().sent_count() as u64 >= messages;
    let is_enough = wait_at_most(WHOLE_MAX + TRAFFIC, has_sent);
    judge(is_enough, &format!("clients publish {messages} messages"), &shared, &world);
    shared.set_stage(Stage::Draining);
    let quiet = |state: &State| state.is_joined && state.unanswered_since.is_none() && state.left_behind == 0;
    let is_quiet = wait_at_most(WHOLE_MAX, || all(&quiet) && shared.ledger.lock().unwrap().missing().is_empty());
    judge(is_quiet, "everything is answered and received", &shared, &world);
    let members: Vec<_> = (0..DEVICES).map(device::member).collect();
    let mut told = None;
    let is_listed = wait_at_most(WHOLE_MAX, || {
        told = world.members(ROOM);
        told.as_ref().is_some_and(|lists| lists.iter().all(|list| *list == members))
    });
    judge(is_listed, &format!("every gateway lists all members, and not {told:?}"), &shared, &world);
    shared.set_stage(Stage::Over);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    judge(true, "clients have ended", &shared, &world);
    let ledger = shared.ledger.lock().unwrap();
    assert!(ledger.answered() > DEVICES * 10, "{} messages were published", ledger.answered());
    let row = Row { fault, ready, whole, answered: ledger.answered(), lost: ledger.lost() };
    let Row { answered, lost, .. } = row;
    eprintln!(
        "round {number}: ready after {ready:.1?}, whole after {whole:.1?}, {answered} messages, {lost} lost and told"
    );
    row
}

/// Fails with all that is known when something did not happen, or the ledger has complaints.
fn judge(has_happened: bool, what: &str, shared: &Shared, world: &World) {
    let ledger = shared.ledger.lock().unwrap();
    if has_happened && ledger.complaints().is_empty() {
        return;
    }
    shared.set_stage(Stage::Over);
    let mut problems = ledger.complaints().to_vec();
    if !has_happened {
        problems.push(format!("never happened: {what}; clients: {:?}", shared.states()));
        problems.extend(ledger.missing());
    }
    let left = problems.len().saturating_sub(20);
    problems.truncate(20);
    let (trace, logs) = (ledger.trace(40), world.logs(30));
    // A poisoned ledger would make each client panic, too.
    drop(ledger);
    panic!("{}\n({left} more)\n{trace}\n{logs}", problems.join("\n"));
}

/// Times until everything works again.
fn table(rows: &[Row]) -> String {
    let mut faults: BTreeMap<Fault, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| faults.entry(row.fault).or_default().push(row));
    let mut lines = vec![
        "| fault | rounds | ready after: median, worst | whole after: median, worst | messages answered | lost, and told |"
            .to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for (fault, rows) in faults {
        let sum = |figure: fn(&Row) -> usize| rows.iter().map(|row| figure(row)).sum::<usize>();
        let (ready, whole) = (median_and_worst(&rows, |row| row.ready), median_and_worst(&rows, |row| row.whole));
        let (answered, lost) = (sum(|row| row.answered), sum(|row| row.lost));
        lines.push(format!("| {fault:?} | {} | {ready} | {whole} | {answered} | {lost} |", rows.len()));
    }
    let (answered, lost) = rows.iter().fold((0, 0), |(answered, lost), row| (answered + row.answered, lost + row.lost));
    lines.push(format!("| all | {} | | | {answered} | {lost} |", rows.len()));
    lines.join("\n")
}

/// The table with what it means and where it comes from.
fn page(table: &str) -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    let variables = ["RINGGATE_ROUNDS", "RINGGATE_MESSAGES"];
    let set = variables.iter().filter_map(|name| Some(format!("{name}={} ", std::env::var(name).ok()?)));
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let kernel = said("uname", &["-r"]).unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default();
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "with debug assertions" } else { "release" };
    format!(
        "# Faults of linked nodes, and the time until they are whole\n\n\
         Written by `{}cargo test --test nodes` ({profile}); {cores} cores, Linux {kernel}, commit {commit}. `tests/nodes/faults.rs` says what \
         each fault is. Three rounds run at once, with two or four gateways each, {DEVICES} clients that wander between them, one room with \
         members everywhere, and inboxes.\n\n\
         Ready: every gateway answers `/readyz` with 200. Whole: besides, every client has had the answer to all that it published during the \
         fault, and to something that it published after it. Both count from the end of the fault; of `FailedOver`, from the death of the \
         primary, so that the Sentinels' time is a part of it. In no round a message that was answered was lost without a word to those who \
         missed it, delivered twice, or out of order; lost and told are those that Redis itself had lost.\n\n{table}\n",
        set.collect::<String>()
    )
}

fn median_and_worst(rows: &[&Row], time: fn(&Row) -> Duration) -> String {
    let mut times: Vec<_> = rows.iter().map(|row| time(row).as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    format!("{:.1} s, {:.1} s", times[times.len() / 2], times[times.len() - 1])
}

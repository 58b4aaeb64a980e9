//! Reports that are made by hand.

use super::*;
use crate::record::{Series, StreamName};

pub(crate) fn phase(name: &str, driver_busy: f64) -> Phase {
    Phase {
        name: name.to_owned(),
        seconds: 1.0,
        sending_seconds: 1.0,
        connected: 0,
        handshakes: [0, 0],
        sent: 1,
        accepted: 1,
        delivered: 1,
        pongs: 0,
        errors: 0,
        reconnects: 0,
        driver_busy,
        driver_cpu_seconds: driver_busy,
        server_cpu_seconds: None,
        record: Record::default(),
    }
}

#[test]
fn a_driver_that_was_kept_waiting_is_not_called_too_slow() {
    let report = |busy: f64, lag_us: u64| {
        let mut report = Report { phases: vec![phase("steady", busy)], ..Report::default() };
        report.phases[0].record.lag.record_n(lag_us, 100).unwrap();
        report
    };
    let said = |busy, lag_us| report(busy, lag_us).driver_limit().map(|limit| (limit.what, limit.so));
    assert_eq!(said(0.84, 90), None);
    let (what, so) = said(0.97, 9_000).unwrap();
    assert!(what.contains("busy for 97 %") && so.contains("latencies and rates are its own"), "{what}: {so}");
    let (what, so) = said(0.7, 9_000).unwrap();
    assert!(what.contains("p99 9.01 ms behind") && !what.contains("wait") && so.contains("its own"), "{what}: {so}");
    let (what, so) = said(0.12, 9_000).unwrap();
    assert!(what.contains("p99 9.01 ms behind its schedule") && what.contains("though busy for 12 %"), "{what}");
    assert!(so.contains("contain that wait") && report(0.12, 9_000).table().contains(so), "{so}");
}

#[test]
fn a_ramp_says_nothing_about_the_figures_of_what_follows() {
    let mut ramp = phase("connect TLS", 0.99);
    ramp.record.lag.record(9_000).unwrap();
    // The first clients sent heartbeats meanwhile.
    ramp.record.record(Measure::Ping, Series::Population(0), 1, 1, 2);
    ramp.sent = 0;
    let steady = phase("steady", 0.02);
    let mut report = Report { phases: vec![ramp, steady], measure: Some(Measure::Deliver), ..Report::default() };
    assert!(report.driver_limit().is_none());
    assert_eq!(report.driver_busy(), Some(0.02));
    // A run that is about connects is about its ramp.
    report.measure = Some(Measure::Connect);
    report.phases[0].record.record(Measure::Connect, Series::Population(0), 1, 1, 2);
    assert!(report.driver_limit().unwrap().what.contains("busy for 99 %"));
}

#[test]
fn the_busiest_phase_is_named() {
    let report = Report { phases: vec![phase("steady", 0.49), phase("after", 0.2)], ..Report::default() };
    let table = report.table();
    let row = table.lines().find(|line| line.contains("this load tester was busy")).unwrap();
    assert_eq!(row, format!("  this load tester was busy{:>26}", "at most 49 %, in steady"));
    assert_eq!(report.driver_busy(), Some(0.49));
}

#[test]
fn a_rate_is_that_of_the_phases_with_messages() {
    let idle = || {
        let mut idle = Phase { sent: 0, accepted: 0, delivered: 0, ..phase("idle", 0.1) };
        idle.record.record(Measure::Ping, Series::Population(0), 0, 0, 100);
        idle
    };
    let mut report = Report { phases: vec![idle()], ..Report::default() };
    assert_eq!(report.figure("rate"), None, "Pings are no messages");
    report.phases.push(phase("steady", 0.1));
    assert_eq!(report.figure("rate"), Some(1.0));
}

#[test]
fn an_end_while_clients_connect_says_how_many_there_were() {
    let mut report =
        Report { interrupted: true, connections: [10, 0], phases: vec![phase("connect", 0.1)], ..Report::default() };
    report.tally.connections = 4;
    assert_eq!(report.interruption().unwrap(), "ended early, while clients were connecting: 4 of 10 were signed in");
    report.phases.push(phase("steady", 0.1));
    assert_eq!(report.interruption().unwrap(), "ended early");
}

#[test]
fn latencies_are_told_apart_by_name_in_the_whole_and_in_each_phase() {
    let stream = |name: &str, pings| StreamName { name: name.to_owned(), pings };
    let names =
        Names { populations: vec!["people".to_owned()], streams: vec![stream("chat", false), stream("people", true)] };
    let mut report = Report { names, ..Report::default() };
    report.record.record(Measure::Deliver, Series::Stream(1), 0, 0, 500);
    report.record.record(Measure::Ping, Series::Stream(2), 0, 0, 90);
    report.record.record(Measure::Ping, Series::Population(0), 0, 0, 40);
    report.phases.push(Phase { record: report.record.clone(), ..phase("steady", 0.1) });
    let json = report.json();
    for by_name in [&json["latencies_by_name_us"], &json["phases"][0]["latency_by_name_us"]] {
        assert_eq!(by_name["chat"]["deliver"]["planned"]["max"], 500);
        assert!(by_name["chat"]["ping"].is_null());
        let pings = &by_name["people"]["ping"]["planned"];
        assert_eq!((&pings["count"], &pings["max"]), (&2.into(), &90.into()), "{pings}");
    }
}

#[test]
fn a_lag_is_said_where_it_shows_in_what_was_measured() {
    let report = |lag_us: u64, measured_us: u64| {
        let mut report = Report { phases: vec![phase("steady", 0.2)], ..Report::default() };
        report.phases[0].record.lag.record_n(lag_us, 100).unwrap();
        report.record.record(Measure::Deliver, Series::Stream(1), 0, 0, measured_us);
        report
    };
    for (lag_us, measured_us, said) in [(90, 200, false), (300, 900, true), (300, 9_000, false), (5_000, 9_000, true)] {
        let report = report(lag_us, measured_us);
        assert_eq!(report.driver_limit().is_some(), said, "{lag_us} of {measured_us}");
        assert!(!report.driver_fails(), "it is in the figures, and said");
    }
}

#[test]
fn a_driver_that_was_saturated_or_kept_from_running_fails_the_run_unless_allowed() {
    let saturated = Report { phases: vec![phase("steady", 0.9)], ..Report::default() };
    let mut paused = Report { phases: vec![phase("steady", 0.1)], ..Report::default() };
    paused.record.stall_us = 3_000_000;
    for mut report in [saturated, paused] {
        assert!(report.driver_fails() && !report.is_clean());
        report.allowed = vec![Allowance::NeverSent, Allowance::Skipped];
        assert!(!report.is_clean());
        report.allowed.push(Allowance::Driver);
        assert!(report.is_clean() && report.driver_limit().is_some(), "it is still said");
    }
    let mut short = Report { seconds: 60.0, ..Report::default() };
    (short.record.stall_us, short.tally.stalled_us) = (900_000, 1_800_000);
    assert!(short.is_clean());
    let again_and_again = Report { seconds: 8.0, tally: short.tally, ..Report::default() };
    assert!(again_and_again.driver_fails());
}

#[test]
fn schedule_was_kept_so_badly_that_the_latency_is_its_own_then_the_run_fails() {
    let late = |lag_us: u64, measured_us: u64| {
        let mut record = Record::default();
        record.lag.record_n(lag_us, 100).unwrap();
        record.record(Measure::Deliver, Series::Stream(1), 0, 0, measured_us);
        let phase = Phase { record: record.clone(), ..phase("steady", 0.1) };
        Report { phases: vec![phase], record, ..Report::default() }
    };
    assert!(late(888_000, 891_000).driver_fails());
    let note = late(888_000, 20_000_000);
    assert!(note.is_clean() && note.driver_limit().is_none());
    let note = late(20_000, 21_000);
    assert!(note.is_clean() && note.driver_limit().is_some());
}

#[test]
fn each_thing_that_goes_wrong_fails_a_run_on_its_own() {
    type Change = fn(&mut Report);
    let never: [(&str, Change); 14] = [
        ("lost", |report| report.balance.lost = 1),
        ("uncertain", |report| report.balance.uncertain = 1),
        ("duplicated", |report| report.found.duplicated = 1),
        ("reordered", |report| report.found.reordered = 1),
        ("corrupted", |report| report.found.corrupted = 1),
        ("misdelivered", |report| report.found.misdelivered = 1),
        ("answered_twice", |report| report.found.answered_twice = 1),
        ("answered_wrong", |report| report.found.answered_wrong = 1),
        ("delivered_refused", |report| report.balance.delivered_refused = 1),
        ("unanswered", |report| report.balance.unanswered = 1),
        ("errors", |report| report.errors = BTreeMap::from([("no Pong".to_owned(), 1)])),
        ("", |report| report.failure = Some("it ended".to_owned())),
        ("", |report| report.interrupted = true),
        ("", |report| {
            let condition = "lost<1".parse::<Threshold>().unwrap();
            report.verdicts = vec![report.judge(&condition)];
        }),
    ];
    let every = <Allowance as clap::ValueEnum>::value_variants();
    for (figure, change) in never {
        let mut report = Report { allowed: every.to_vec(), ..Report::default() };
        assert!(report.is_clean());
        change(&mut report);
        assert!(!report.is_clean(), "{figure}");
        assert!(figure.is_empty() || report.figure(figure) == Some(1.0), "{figure}");
    }
}

#[test]
fn what_may_be_allowed_fails_a_run_unless_it_is() {
    type Change = fn(&mut Report);
    let cases: [(Allowance, &str, Change); 9] = [
        (Allowance::Skipped, "skipped", |report| report.tally.skipped = 1),
        (Allowance::Skipped, "skipped", |report| report.tally.churns_skipped = 1),
        (Allowance::Undecided, "undecided", |report| report.balance.undecided = 1),
        (Allowance::NeverSent, "never_sent", |report| report.planned = 1),
        (Allowance::PingsUnanswered, "pings_unanswered", |report| report.tally.pings_under_way = 1),
        (Allowance::PingsUnanswered, "pings_unanswered", |report| report.tally.pings_lost = 1),
        (Allowance::PingsUnanswered, "heartbeats_unanswered", |report| report.tally.heartbeats_under_way = 1),
        (Allowance::PingsUnanswered, "heartbeats_unanswered", |report| report.tally.heartbeats_lost = 1),
        (Allowance::Away, "away", |report| report.connections = [1, 0]),
    ];
    for (allowance, figure, change) in cases {
        let mut report = Report::default();
        change(&mut report);
        assert!(!report.is_clean(), "{figure}");
        assert_eq!((report.figure(figure), report.faults().count()), (Some(1.0), 1));
        report.allowed = vec![Allowance::Driver];
        assert!(!report.is_clean(), "{figure} is not what was allowed");
        report.allowed = vec![allowance];
        assert!(report.is_clean(), "{figure}");
        assert_eq!(report.figure(figure), Some(1.0), "it is counted all the same");
    }
}

#[test]
fn what_churn_kept_from_being_sent_is_neither_skipped_nor_never_sent() {
    let tally = Tally { scheduled: 6, skipped_by_churn: 4, ..Tally::default() };
    let report = Report { planned: 10, tally, ..Report::default() };
    assert!(report.is_clean());
    assert_eq!((report.sent_share(), report.never_sent()), (Some(0.6), 0));
}

#[test]
fn deliveries_without_an_answer_do_not_fail_a_run() {
    let mut report = Report::default();
    report.balance.delivered_undecided = 3;
    assert!(report.is_clean() && report.table().contains("deliveries without Published"), "{}", report.table());
}

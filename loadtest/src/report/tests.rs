//! What is said of a run, without one.

use super::*;
use crate::record::Series;

fn phase(name: &str, driver_busy: f64) -> Phase {
    Phase {
        name: name.to_owned(),
        seconds: 1.0,
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
        report.phases[0].record.lag.record(lag_us).unwrap();
        report
    };
    let said = |busy, lag_us| report(busy, lag_us).driver_limit().map(|limit| (limit.what, limit.so));
    assert_eq!(said(0.84, 900), None);
    let (what, so) = said(0.97, 9_000).unwrap();
    assert!(what.contains("busy for 97 %") && so.contains("latencies and rates are its own"), "{what}: {so}");
    let (what, so) = said(0.7, 9_000).unwrap();
    assert!(what.contains("p99 9.01 ms behind") && !what.contains("wait") && so.contains("its own"), "{what}: {so}");
    let (what, so) = said(0.12, 9_000).unwrap();
    assert!(what.contains("p99 9.01 ms behind its schedule, though busy for 12 %"), "{what}");
    assert!(so.contains("contain that wait") && report(0.12, 9_000).table().contains(so), "{so}");
}

#[test]
fn a_ramp_says_nothing_about_the_figures_of_what_follows() {
    let mut ramp = phase("connect TLS", 0.99);
    ramp.record.lag.record(9_000).unwrap();
    // Who came first kept its connection alive meanwhile.
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
    let names = Names { populations: vec!["people".to_owned()], streams: vec!["chat".to_owned(), "people".to_owned()] };
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

//! Drawings of one scene on terminals of several sizes. After a change that was meant: run the tests with
//! RINGGATE_SNAPSHOTS=write, and look at what has changed.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;
use crate::metrics::Live;
use crate::plan::Tally;
use crate::record::{Measure, Quantiles, Record, Series};
use crate::view::scene::Look;

fn standings() -> Vec<Standing> {
    let standing = |condition: &str, value| Standing::new(&condition.parse().unwrap(), value);
    vec![standing("lost>0", None), standing("p99>20ms", Some(2_000.0)), standing("chat.deliver.p95>1ms", Some(1_500.0))]
}

#[test]
fn messages_are_in_flight_then_their_count_and_the_thresholds_are_shown() {
    let large = text(100, 30);
    for part in [
        "per second; in flight: 12 unanswered, 18 undelivered",
        " missed  chat.deliver.p95>1ms (chat.deliver.p95 was 1.50 ms)",
        " met     p99>20ms (p99 was 2.00 ms)",
        " open    lost>0",
    ] {
        assert!(large.contains(part), "{part}:\n{large}");
    }
    let small = text(60, 14);
    for part in
        ["p50 300 us  p99 2.00 ms  p99.9 3.00 ms  max 4.00 ms", "30 in flight", "thresholds: 1 missed, 1 met, 1 open"]
    {
        assert!(small.contains(part), "{part}:\n{small}");
    }
}

fn scene(now: Instant) -> Scene {
    let mut scene = Scene::new("p2p localhost:7400".to_owned());
    (scene.began, scene.cores) = (now - Duration::from_secs(30), 4);
    for second in 1..=30u64 {
        let mut record = Record::default();
        record.record(Measure::Deliver, Series::Stream(1), 0, 0, 1);
        if second == 20 {
            record.troubles.errors.insert("a connection was lost without a word".to_owned(), 3);
            record.troubles.closed.insert(3008, 2);
            record.troubles.closed.insert(0, 3);
            record.troubles.refused.insert(111, 1);
        }
        let spike = if second == 15 { 50 } else { 1 };
        let latency = Quantiles {
            count: 9,
            p50: 300,
            p99: 2_000 * spike,
            p999: 3_000 * spike,
            max: 4_000 * spike,
            ..Default::default()
        };
        let point = Point {
            at: second as f64,
            seconds: 1.0,
            planned: 1_000,
            sent: 990 + second,
            accepted: 980 + second,
            delivered: 500 + 20 * second,
            latency,
            driver_cores: 0.5,
            gateway_cores: Some(1.25),
            gateway_bytes: Some(48 << 20),
            ..Point::default()
        };
        let tally = Tally {
            connections: 995,
            connecting: 2,
            closed: 5,
            reconnects: 3,
            sent: 30,
            accepted: 18,
            owed: 18,
            errors: 6,
            ..Tally::default()
        };
        let live = Live { queued: Some(12.0), queued_bytes: Some(3_456.0), ..Live::default() };
        let until = Some(now + Duration::from_millis(8_500));
        scene.add(Look {
            phase: "steady",
            until,
            point: &point,
            tally,
            wanted: 1_000,
            record: &record,
            measure: Measure::Deliver,
            live,
            standings: standings(),
        });
    }
    scene
}

fn terminal(width: u16, height: u16, scene: &Scene, palette: Palette, now: Instant) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, scene, palette, now)).unwrap();
    terminal
}

fn text(width: u16, height: u16) -> String {
    let now = Instant::now();
    let terminal = terminal(width, height, &scene(now), Palette::plain(), now);
    let cells = terminal.backend().buffer().content();
    let row = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
    cells.chunks(width.into()).map(|cells| row(cells).trim_end().to_owned() + "\n").collect()
}

#[test]
fn scene_is_drawn_then_it_equals_the_snapshot() {
    for (width, height) in [(100, 30), (60, 14)] {
        let path = format!("{}/src/view/draw/{width}x{height}.txt", env!("CARGO_MANIFEST_DIR"));
        let drawn = text(width, height);
        if std::env::var("RINGGATE_SNAPSHOTS").is_ok_and(|value| value == "write") {
            std::fs::write(&path, &drawn).unwrap();
        }
        let wanted = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(drawn == wanted, "{path} differs from what is drawn now:\n{drawn}");
    }
}

#[test]
fn terminal_becomes_tiny_then_two_lines_are_shown() {
    assert_eq!(text(50, 2), "30 s  steady, 9 s left\n995/1000 conn, p99 2.00 ms, 6 errors\n");
    assert_eq!(text(8, 1), "30 s  st\n");
    assert_eq!(text(59, 40).lines().filter(|line| !line.is_empty()).count(), 2);
    assert_eq!(text(1, 1), "3\n");
}

#[test]
fn run_has_no_figures_yet_then_it_is_drawn() {
    let now = Instant::now();
    let mut scene = Scene::new("idle".to_owned());
    scene.ending = true;
    for (width, height) in [(200, 60), (60, 14), (61, 20)] {
        let terminal = terminal(width, height, &scene, Palette::plain(), now);
        let text: String = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        assert!(text.contains("ending: what is under way") && text.contains("0 of 0"), "{text}");
    }
}

#[test]
fn colours_are_unwanted_then_nothing_is_coloured() {
    let now = Instant::now();
    let coloured = |palette| {
        let terminal = terminal(100, 30, &scene(now), palette, now);
        terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(!coloured(Palette::plain()));
    assert!(coloured(Palette { colours: true }));
}

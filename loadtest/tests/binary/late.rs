//! A run that is asked for more than anybody can do: no table leaves out what came late.

use serde_json::Value;

use crate::support::{Gateway, count};

#[test]
fn what_came_late_is_in_the_phases_and_on_the_timeline() {
    let gateway = Gateway::start();
    let options = ["--connections", "20", "--rate", "10000000", "--duration", "1s", "--settle", "100ms"];
    let (code, result) = gateway.drive("p2p", &options);
    assert_eq!(code, 1, "this driver was the limit");
    let whole = result["latencies_us"]["deliver"]["planned"]["count"].as_u64().unwrap();
    assert!(whole > 0);
    let phases = result["phases"].as_array().unwrap();
    let of_phases = |figure: fn(&Value) -> u64| phases.iter().map(figure).sum::<u64>();
    let timed = of_phases(|phase| phase["latency_us"]["deliver"]["planned"]["count"].as_u64().unwrap_or(0));
    assert_eq!(timed, whole, "latencies of the phases");
    assert_eq!(of_phases(|phase| count(phase, "sent")), count(&result, "published"));
    let timeline = result["timeline"].as_array().unwrap().iter();
    let drawn = timeline.map(|point| point["latency"]["count"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(drawn, whole, "latencies over time");
    let delivered =
        count(&result, "delivered") + count(&result, "delivered_undecided") + count(&result, "delivered_refused");
    assert_eq!(whole, delivered, "each delivery has its latency");
    assert_eq!(of_phases(|phase| count(phase, "delivered")), delivered);
}

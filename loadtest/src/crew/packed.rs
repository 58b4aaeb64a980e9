//! Records on their way from a worker to the controller: histograms as base64 of HdrHistogram's own V2 form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

use crate::record::{FirstBack, Measure, Record, Series, Troubles, histogram};

/// A [`Record`] in text; empty histograms are empty strings.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Packed {
    /// What has something, in the order of `Measure::ALL`: whose it is, from the planned and from the sent time.
    latencies: [Vec<(Series, String, String)>; 4],
    lag: String,
    stall_us: u64,
    first_back: FirstBack,
    troubles: Troubles,
}

impl Packed {
    /// Packs a record.
    pub(super) fn of(record: &Record) -> Packed {
        Packed {
            latencies: Measure::ALL.map(|measure| {
                let series = record.series(measure);
                series.map(|(series, latency)| (series, pack(&latency.planned), pack(&latency.sent))).collect()
            }),
            lag: pack(&record.lag),
            stall_us: record.stall_us,
            first_back: record.first_back.clone(),
            troubles: record.troubles.clone(),
        }
    }

    /// The record again. The error says what is wrong with it.
    pub(super) fn unpack(self) -> Result<Record, String> {
        let Packed { latencies, lag, stall_us, first_back, troubles } = self;
        let mut record = Record::default();
        (record.lag, record.stall_us) = (unpack(&lag)?, stall_us);
        (record.first_back, record.troubles) = (first_back, troubles);
        for (measure, all) in Measure::ALL.into_iter().zip(&latencies) {
            for (series, planned, sent) in all {
                let latency = record.latency_mut(measure, *series);
                (latency.planned, latency.sent) = (unpack(planned)?, unpack(sent)?);
            }
        }
        Ok(record)
    }
}

fn pack(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    if !histogram.is_empty() {
        let written = V2Serializer::new().serialize(histogram, &mut bytes);
        written.unwrap_or_else(|_| unreachable!("memory takes it, and the bounds are those of every histogram here"));
    }
    STANDARD.encode(bytes)
}

fn unpack(text: &str) -> Result<Histogram<u64>, String> {
    let mut out = histogram();
    if text.is_empty() {
        return Ok(out);
    }
    let bytes = STANDARD.decode(text).map_err(|error| format!("a histogram: {error}"))?;
    let received: Histogram<u64> =
        Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| format!("a histogram: {error}"))?;
    let bounds = |histogram: &Histogram<u64>| (histogram.low(), histogram.high(), histogram.sigfig());
    if bounds(&received) != bounds(&out) {
        return Err(format!("a histogram of other bounds: {:?}", bounds(&received)));
    }
    out.add(&received).map_err(|error| format!("a histogram: {error}"))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_packed_and_unpacked_then_it_is_equal() {
        let mut record = Record::default();
        for us in [1, 700, 60_000_000] {
            record.record(Measure::Deliver, Series::Stream(2), 0, 0, us);
        }
        record.record(Measure::Ping, Series::Population(1), 0, 0, 7);
        record.record(Measure::Ping, Series::Stream(1), 0, 4, 9);
        record.lag.record(9).unwrap();
        record.stall_us = 70;
        record.first_back.record(5, 700);
        record.troubles.closed.insert(3008, 2);
        record.troubles.errors.insert("no pong".to_owned(), 1);
        let text = serde_json::to_string(&Packed::of(&record)).unwrap();
        let unpacked = serde_json::from_str::<Packed>(&text).unwrap().unpack().unwrap();
        for measure in Measure::ALL {
            let all = |record: &Record| -> Vec<_> {
                let series = record.series(measure);
                series.map(|(series, latency)| (series, latency.planned.clone(), latency.sent.clone())).collect()
            };
            assert_eq!(all(&unpacked), all(&record));
        }
        assert_eq!((unpacked.lag, unpacked.stall_us, unpacked.first_back), (record.lag, 70, record.first_back));
        assert_eq!(unpacked.troubles, record.troubles);
    }

    #[test]
    fn text_is_no_histogram_then_it_is_refused() {
        let mut other = Histogram::<u64>::new_with_bounds(1, 1000, 2).unwrap();
        other.record(5).unwrap();
        assert!(unpack(&pack(&other)).unwrap_err().contains("other bounds"));
        assert!(unpack("AAAA").unwrap_err().contains("a histogram"));
        assert!(unpack("#").unwrap_err().contains("a histogram"));
    }
}

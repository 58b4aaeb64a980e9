//! The families of the link to Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use ringgate_redis::{Refuses, Status};

#[derive(Debug)]
pub(super) struct Redis(pub(super) Arc<Status>);

impl Collector for Redis {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = &self.0;
        let number = |cell: &AtomicU64| i64::try_from(cell.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let up = i64::from(status.up.load(Ordering::Relaxed));
        let gauges = [
            (
                "redis_up",
                "1 while every master of Redis answers commands and the node hears its own probes over pub/sub",
                up,
            ),
            ("redis_commands_waiting", "Commands that wait to be sent", number(&status.buffered)),
            (
                "redis_events_waiting",
                "Answers and news that wait for a shard's mailbox",
                number(&status.events_waiting),
            ),
            ("redis_topics", "Topics of which this node hears news", number(&status.interest)),
        ];
        for (name, help, value) in gauges {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let seconds = [
            (
                "redis_round_trip",
                "From the newest probe's command to its answer, of the slowest master",
                &status.round_trip_us,
                1e-6,
            ),
            (
                "redis_pubsub_lag",
                "From the newest probe's command until it came over pub/sub, of the slowest master",
                &status.probe_us,
                1e-6,
            ),
            ("redis_probe_age", "Since a probe has last come over pub/sub", &status.probe_age_ms, 1e-3),
        ];
        for (name, help, cell, unit) in seconds {
            let value = cell.load(Ordering::Relaxed) as f64 * unit;
            let encoder = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)?;
        }
        let counters = [
            ("redis_commands", "Commands sent", &status.commands),
            ("redis_reconnects", "Connections for commands that were made after the first", &status.reconnects),
            ("redis_resubscriptions", "Topics that were subscribed to again", &status.resubscriptions),
            ("redis_reads", "Reads of messages, for sessions that catch up and for gaps in the news", &status.reads),
            ("redis_messages_arrived", "Messages that Redis told this node of", &status.arrived),
            ("redis_messages_stored", "Messages of this node that Redis has stored", &status.stored),
            ("redis_messages_repeated", "Messages of this node that had been stored before", &status.repeated),
            (
                "redis_news_dropped",
                "News dropped because a mailbox was full for long; their topics were loaded anew",
                &status.dropped,
            ),
            ("redis_damaged", "News and messages in Redis that could not be read", &status.damaged),
            (
                "redis_undecided",
                "Messages of which it was not found out in time whether they were stored",
                &status.undecided,
            ),
            ("redis_given_up", "Cursors, releases and relayed messages that were given up", &status.given_up),
        ];
        for (name, help, cell) in counters {
            let counter = ConstCounter::new(cell.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let help = "1 while Redis answers and stores no messages, by reason";
        let mut refuses = encoder.encode_descriptor("redis_refuses", help, None, MetricType::Gauge)?;
        for why in Refuses::ALL {
            let gauge = ConstGauge::new(i64::from(status.refuses() == Some(why)));
            gauge.encode(refuses.encode_family(&[("reason", why.label())])?)?;
        }
        let refused = [
            ("away", &status.refused_away),
            ("memory", &status.refused_memory),
            ("disk", &status.refused_disk),
            ("replicas", &status.refused_replicas),
            ("other", &status.refused_other),
        ];
        let help = "Messages and questions that Redis did not take, and why";
        let mut encoder = encoder.encode_descriptor("redis_refused", help, None, MetricType::Counter)?;
        for (reason, cell) in refused {
            let counter = ConstCounter::new(cell.load(Ordering::Relaxed));
            counter.encode(encoder.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

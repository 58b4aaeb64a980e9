//! The exported families: what the shards count, summed or by shard, under the prefix `ringgate_`.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::process::{Process, thread_cpu_seconds};
use super::redis::Redis;
use ringgate_core::close::{AuthError, CloseReason};
use ringgate_core::metrics::{Cell, Cells, HISTOGRAM_BOUNDS_US, Histogram, Label, ShardMetrics};
use ringgate_core::transport::Transport;
use ringgate_redis::Status;

/// What bounds figures, 0 where there is no bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Connections of each shard.
    pub slots: u64,
    /// Connections of the node.
    pub connections: u64,
    /// Bytes of each shard's logs for users who have never signed in.
    pub inbox_unknown_bytes: u64,
    /// Topics of each shard of which only the position is kept.
    pub quiet_topics: u64,
    /// Bytes of memory that the process may use.
    pub memory_bytes: u64,
}

/// All families as OpenMetrics text.
pub(super) fn render(
    shards: &[Arc<ShardMetrics>],
    limits: Limits,
    redis: Option<&Arc<Status>>,
    uptime: Duration,
) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    registry.sub_registry_with_prefix("ringgate").register_collector(Box::new(Families {
        shards: shards.to_vec(),
        limits,
        uptime,
    }));
    if let Some(redis) = redis {
        registry.sub_registry_with_prefix("ringgate").register_collector(Box::new(Redis(redis.clone())));
    }
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        Err(error) => format!("# {error}\n"),
    }
}

#[derive(Debug)]
struct Families {
    shards: Vec<Arc<ShardMetrics>>,
    limits: Limits,
    uptime: Duration,
}

type Encoded = Result<(), std::fmt::Error>;

/// Writes families one after the other.
struct Out<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
    shards: &'a [Arc<ShardMetrics>],
}

impl Out<'_, '_> {
    fn sum(&self, cell: impl Fn(&ShardMetrics) -> &Cell) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.wrapping_add(cell(shard).read()))
    }

    /// A sample for each value that the cells are indexed by.
    fn by<E: Label, const N: usize>(
        &self,
        key: &'static str,
        cells: impl Fn(&ShardMetrics) -> &Cells<E, N>,
    ) -> Vec<(Labels, u64)> {
        let sample = |value: &E| (label(key, value.label()), self.sum(|shard| &cells(shard)[*value]));
        E::ALL.iter().map(sample).collect()
    }

    fn counter(&mut self, name: &str, help: &str, cell: impl Fn(&ShardMetrics) -> &Cell) -> Encoded {
        let value = self.sum(cell);
        let metric = ConstCounter::new(value);
        metric.encode(self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, cell: impl Fn(&ShardMetrics) -> &Cell) -> Encoded {
        let value = self.sum(cell) as i64;
        self.gauge_value(name, help, None, value)
    }

    fn gauge_value(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: i64) -> Encoded {
        let metric = ConstGauge::new(value);
        metric.encode(self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
    }

    /// Seconds of each shard that has a value.
    fn seconds_by_shard(&mut self, name: &str, help: &str, seconds: impl Fn(&ShardMetrics) -> Option<f64>) -> Encoded {
        let mut encoder = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (index, shard) in self.shards.iter().enumerate() {
            if let Some(seconds) = seconds(shard) {
                let labels = label("shard", &index.to_string());
                ConstCounter::new(seconds).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// What all shards together may have of something that each may have so much of.
    fn limit(&mut self, name: &str, help: &str, of_each: u64) -> Encoded {
        let all = of_each.saturating_mul(self.shards.len() as u64);
        self.gauge_value(name, help, None, i64::try_from(all).unwrap_or(i64::MAX))
    }

    /// One family with a sample for each set of labels.
    fn family(&mut self, name: &str, help: &str, kind: MetricType, samples: &[(Labels, u64)]) -> Encoded {
        let mut encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            let sample = encoder.encode_family(labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(*value).encode(sample)?,
                _ => ConstGauge::new(*value as i64).encode(sample)?,
            }
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, pick: impl Fn(&ShardMetrics) -> &Histogram) -> Encoded {
        let mut buckets = [0; HISTOGRAM_BOUNDS_US.len() + 1];
        let mut sum_us = 0;
        for shard in self.shards {
            let (counts, sum) = pick(shard).read();
            for (total, count) in buckets.iter_mut().zip(counts) {
                *total += count;
            }
            sum_us += sum;
        }
        let bounds = HISTOGRAM_BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(buckets).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut encoder: MetricEncoder<'_> =
            self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        encoder.encode_histogram::<prometheus_client::encoding::NoLabelSet>(sum_us as f64 / 1e6, count, &buckets, None)
    }

    fn by_shard(&mut self, name: &str, help: &str, kind: MetricType, cell: impl Fn(&ShardMetrics) -> &Cell) -> Encoded {
        let samples: Vec<_> = self
            .shards
            .iter()
            .enumerate()
            .map(|(index, shard)| (vec![("shard", index.to_string())], cell(shard).read()))
            .collect();
        self.family(name, help, kind, &samples)
    }
}

type Labels = Vec<(&'static str, String)>;

fn label(key: &'static str, value: &str) -> Labels {
    vec![(key, value_of(value))]
}

/// A label's value has no blanks: those who write queries by hand would have to quote them in shells.
fn value_of(text: &str) -> String {
    text.replace(' ', "_")
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let mut out = Out { encoder: &mut encoder, shards: &self.shards };
        self.connections(&mut out)?;
        self.messages(&mut out)?;
        self.machine(&mut out)?;
        self.build(&mut out)
    }
}

impl Families {
    fn connections(&self, out: &mut Out<'_, '_>) -> Encoded {
        let samples = out.by("transport", |s| &s.connections_active);
        out.family("connections_active", "Connections that are open", MetricType::Gauge, &samples)?;
        let help = "Connections that the node may have, client.connections_max; 0 for no limit but that of slots";
        out.gauge_value("connections_limit", help, None, self.limits.connections as i64)?;
        let samples = out.by("transport", |s| &s.connections_accepted);
        out.family("connections_accepted", "Connections accepted", MetricType::Counter, &samples)?;
        let samples = out.by("reason", |s| &s.connections_refused);
        out.family("connections_refused", "Connections refused at accept, by reason", MetricType::Counter, &samples)?;
        let mut samples = Vec::new();
        for transport in Transport::ALL {
            for reason in CloseReason::ALL {
                let value = out.sum(|shard| &shard.closes[transport][*reason]);
                let labels = vec![("transport", transport.label().to_owned()), ("reason", value_of(reason.label()))];
                samples.push((labels, value));
            }
        }
        out.family("connection_closes", "Connections closed, by reason", MetricType::Counter, &samples)?;
        out.gauge("sessions_active", "Sessions signed in", |s| &s.sessions_active)?;
        let succeeded = out.sum(|shard| &shard.auth_succeeded);
        let mut samples = vec![(vec![("status", "ok".to_owned()), ("failure", String::new())], succeeded)];
        for error in AuthError::ALL {
            let value = out.sum(|shard| &shard.auth_failed[*error]);
            samples.push((vec![("status", "failed".to_owned()), ("failure", error.label().to_owned())], value));
        }
        out.family("auth", "Tokens verified", MetricType::Counter, &samples)?;
        out.histogram("auth_duration", "Time of one token verification", |s| &s.auth_duration)?;
        let samples = out.by("kind", |s| &s.tls_handshakes);
        out.family("tls_handshakes", "TLS handshakes completed, by kind", MetricType::Counter, &samples)?;
        out.counter("tls_compacted", "TLS handshakes after which little memory was kept", |s| &s.tls_compacted)?;
        out.histogram("ping_pong_duration", "From a gateway's Ping to Pong", |s| &s.ping_pong_duration)
    }

    fn messages(&self, out: &mut Out<'_, '_>) -> Encoded {
        out.counter("frames_received", "Frames from clients", |s| &s.frames_received)?;
        out.counter("frames_sent", "Frames to clients", |s| &s.frames_sent)?;
        out.counter("received_bytes", "Bytes from clients, without TLS", |s| &s.bytes_received)?;
        out.counter("sent_bytes", "Bytes to clients, without TLS", |s| &s.bytes_sent)?;
        out.counter("messages_received", "Publishes accepted", |s| &s.messages_published)?;
        out.counter("messages_sent", "Deliveries handed to sockets", |s| &s.deliveries_sent)?;
        out.counter("deliveries_owed", "Message x session that was to be delivered", |s| &s.deliveries_owed)?;
        let samples = out.by("reason", |s| &s.deliveries_dropped);
        out.family("messages_dropped", "Deliveries given up, by reason", MetricType::Counter, &samples)?;
        out.gauge("deliveries_queued", "Deliveries in outboxes", |s| &s.deliveries_queued)?;
        out.gauge("deliveries_deferred", "Deliveries that wait in a log for a lagging session", |s| {
            &s.deliveries_deferred
        })?;
        let samples = out.by("code", |s| &s.errors);
        out.family("error_replies", "Requests refused, by code", MetricType::Counter, &samples)?;
        out.counter("dedup_hits", "Publishes answered from the dedup window", |s| &s.dedup_hits)?;
        out.counter("dedup_evicted", "Client message ids forgotten because too many came", |s| &s.dedup_evicted)?;
        out.counter("acks", "Ack frames", |s| &s.acks)?;
        out.counter("retries", "Times that unacknowledged messages were sent again", |s| &s.retries)?;
        out.counter("inbox_stored", "Messages put into inboxes", |s| &s.inbox_stored)?;
        out.counter("offline_stored", "Of those, while no device was connected", |s| &s.inbox_stored_offline)?;
        out.counter("inbox_acked", "Inbox messages acknowledged by every device", |s| &s.inbox_acked)?;
        let samples = out.by("reason", |s| &s.inbox_expired);
        out.family("inbox_expired", "Inbox messages that left unacknowledged", MetricType::Counter, &samples)?;
        out.gauge("inbox_pending", "Messages in inboxes", |s| &s.inbox_pending)?;
        out.counter("offline_replayed", "Messages brought from a log", |s| &s.messages_replayed)?;
        let samples = out.by("recovered", |s| &s.recoveries);
        out.family("recoveries", "Resumes with a position", MetricType::Counter, &samples)?;
        let samples = out.by("action", |s| &s.slow_consumers);
        out.family("slow_consumers", "Times that an outbox was at its bound", MetricType::Counter, &samples)?;
        out.gauge("outbound_queue_bytes", "Bytes in outboxes", |s| &s.outbox_bytes)?;
        out.histogram("delivery_duration", "From Publish to the recipient's socket", |s| &s.delivery_duration)?;
        out.gauge("rooms", "Rooms", |s| &s.rooms)?;
        out.gauge("users", "Users known", |s| &s.users)?;
        out.gauge("log_bytes", "Bytes that logs take", |s| &s.log_bytes)?;
        out.gauge("log_bytes_limit", "Bytes that logs may take", |s| &s.log_bytes_limit)?;
        let help = "Bytes in logs for users who have never signed in";
        out.gauge("inbox_unknown_bytes", help, |s| &s.inbox_unknown_bytes)?;
        let help = "Bytes that they may take";
        out.limit("inbox_unknown_bytes_limit", help, self.limits.inbox_unknown_bytes)?;
        out.gauge("quiet_topics", "Topics of which only the position is kept", |s| &s.quiet_topics)?;
        out.limit("quiet_topics_limit", "How many there may be", self.limits.quiet_topics)?;
        let samples = out.by("reason", |s| &s.topics_forgotten);
        out.family(
            "topics_forgotten",
            "Quiet topics whose position is not kept any more",
            MetricType::Counter,
            &samples,
        )?;
        let mut samples = Vec::new();
        let deliveries = self.shards.iter().fold(0u64, |error, s| {
            let ended = s.deliveries_sent.read().wrapping_add(s.deliveries_dropped.sum());
            let open = s.deliveries_queued.read().wrapping_add(s.deliveries_deferred.read());
            error.wrapping_add(s.deliveries_owed.read().wrapping_sub(ended.wrapping_add(open)))
        });
        let inbox = self.shards.iter().fold(0u64, |error, s| {
            let came = s.inbox_stored.read().wrapping_add(s.inbox_loaded.read());
            let ended = s.inbox_acked.read().wrapping_add(s.inbox_expired.sum());
            let open = s.inbox_pending.read().wrapping_add(s.inbox_unloaded.read());
            error.wrapping_add(came.wrapping_sub(ended.wrapping_add(open)))
        });
        samples.push((label("ledger", "deliveries"), deliveries));
        samples.push((label("ledger", "inbox"), inbox));
        let help = "Owed less delivered, dropped, queued; 0 but for moments in which shards are being read";
        out.family("conservation_error", help, MetricType::Gauge, &samples)
    }

    fn machine(&self, out: &mut Out<'_, '_>) -> Encoded {
        let counter = MetricType::Counter;
        out.by_shard("mesh_letters", "Letters to other shards", counter, |s| &s.mesh_sent)?;
        out.counter(
            "rooms_rested",
            "Times that a room's messages waited for a moment because most of its members on a shard did not keep up",
            |s| &s.rooms_rested,
        )?;
        out.counter(
            "inbox_copies_dropped",
            "Copies for a sender's own devices that were not kept, because memory or the way to the inbox was full",
            |s| &s.inbox_copies_dropped,
        )?;
        out.counter(
            "announcements_dropped",
            "Join and leave events left out because the ways to the room's members were full",
            |s| &s.announcements_dropped,
        )?;
        out.counter(
            "relayed_dropped",
            "Messages of other nodes that are in no log, left out because the ways to their recipients were full",
            |s| &s.relayed_dropped,
        )?;
        out.by_shard("mesh_full", "Pushes that found a mailbox full", counter, |s| &s.mesh_full)?;
        out.by_shard("mesh_doorbells", "Shards woken", counter, |s| &s.mesh_doorbells)?;
        out.by_shard("uring_enters", "io_uring_enter calls", counter, |s| &s.ring_enters)?;
        out.by_shard("uring_sqes", "Submission entries", counter, |s| &s.ring_submissions)?;
        out.by_shard("uring_cqes", "Completion entries", counter, |s| &s.ring_completions)?;
        out.by_shard("uring_cq_overflow", "Times the completion queue was full", counter, |s| &s.ring_cq_overflows)?;
        out.by_shard("uring_no_buffers", "Receives without a buffer", counter, |s| &s.ring_no_buffers)?;
        let help = "Ends of connections that a look found before the kernel announced them";
        out.by_shard("uring_missed_ends", help, counter, |s| &s.ring_missed_ends)?;
        out.by_shard("uring_rearms", "Multishot receives armed again", counter, |s| &s.ring_rearms)?;
        out.by_shard("accept_exhausted", "Accepts that failed for want of descriptors or memory", counter, |s| {
            &s.accept_exhausted
        })?;
        out.by_shard("uring_slots_used", "Slots in use", MetricType::Gauge, |s| &s.ring_slots_used)?;
        let help = "Slots for connections, runtime.connections_per_shard_max";
        let slots: Vec<_> =
            (0..out.shards.len()).map(|shard| (label("shard", &shard.to_string()), self.limits.slots)).collect();
        out.family("uring_slots_limit", help, MetricType::Gauge, &slots)?;
        out.by_shard("shard_turns", "Turns made; a shard whose turns do not grow stands still", counter, |s| &s.turns)?;
        let help = "Time in which a shard had work, without what the kernel does when the shard enters it";
        out.seconds_by_shard("shard_busy", help, |s| Some(s.busy_ns.read() as f64 / 1e9))?;
        let help =
            "CPU time of a shard's thread, the kernel's part included, by the first shard where several share one";
        out.seconds_by_shard("shard_cpu", help, |s| thread_cpu_seconds(s.thread.read()))?;
        out.histogram("shard_turn_duration", "Duration of a turn that had work", |s| &s.turn_duration)
    }

    fn build(&self, out: &mut Out<'_, '_>) -> Encoded {
        let help = "Memory that the process may use: the machine's, or less in a control group; 0 if not known";
        out.gauge_value("memory_limit_bytes", help, None, i64::try_from(self.limits.memory_bytes).unwrap_or(i64::MAX))?;
        out.gauge_value("uptime", "Since the start", Some(&Unit::Seconds), self.uptime.as_secs() as i64)?;
        let ends = out.sum(|s| &s.tls_cert_ends);
        if ends != 0 {
            let help = "When the certificate of the server ends, the first of its chain";
            out.gauge_value("tls_cert_expiry_timestamp", help, Some(&Unit::Seconds), ends as i64)?;
        }
        let samples = out.by("result", |s| &s.config_reloads);
        out.family("config_reloads", "Configurations read again at a SIGHUP", MetricType::Counter, &samples)?;
        let labels =
            vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("commit", crate::version::COMMIT.to_owned())];
        let samples = crate::logs::COUNTS.read().map(|(outcome, lines)| (label("outcome", outcome), lines));
        out.family(
            "log_lines",
            "Lines of the log, and lines on standard output that failed",
            MetricType::Counter,
            &samples,
        )?;
        out.family("build_info", "Always 1", MetricType::Gauge, &[(labels, 1)])
    }
}

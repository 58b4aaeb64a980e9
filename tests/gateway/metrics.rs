//! Every family that is exported moves when what it counts happens. The families are read from `/metrics` itself, so that one
//! which is added and never counted does not go unnoticed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::thread;

use ringgate::config::Config;
use ringgate_core::limits::Namespace;
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_core::wire::{Encoder, Kind};
use ringgate_net::dial::Stream;
use ringgate_net::shrink_buffers;

use crate::support::{Answer, Client, Frame, Gateway, Login, http, wait_until};

/// Families that need not move here, and why.
const STILL: &[(&str, &str)] = &[
    (
        "ringgate_relayed_dropped_total",
        "only where nodes share a Redis that does not keep up; worker::engine has a test",
    ),
    ("ringgate_build_info", "always 1; what it is for is in its labels, which tests/gateway/admin.rs looks at"),
    ("ringgate_conservation_error", "0 unless the gateway has lost count"),
    (
        "ringgate_inbox_copies_dropped_total",
        "needs a home that is overloaded or out of memory; crates/sim/tests/core/wishes.rs",
    ),
    ("ringgate_connections_limit", "a setting"),
    ("ringgate_inbox_unknown_bytes_limit", "a setting"),
    ("ringgate_log_bytes_limit", "a setting"),
    ("ringgate_memory_limit_bytes", "a setting of the host"),
    ("ringgate_quiet_topics_limit", "a setting"),
    ("ringgate_uring_slots_limit", "a setting"),
    ("process_start_time_seconds", "a time that has passed"),
    ("ringgate_tls_cert_expiry_timestamp_seconds", "a date of the certificate; tests/gateway/reload.rs"),
    ("ringgate_config_reloads_total", "only programs are told to; tests/gateway/reload.rs"),
    ("ringgate_accept_exhausted_total", "needs a process without descriptors; tests/hostile/descriptors.rs"),
    (
        "ringgate_announcements_dropped_total",
        "needs a way between shards that is full; crates/sim/tests/core/overload.rs",
    ),
    ("ringgate_rooms_rested_total", "needs most members of a room to be far behind; crates/sim/tests/core/overload.rs"),
    ("ringgate_uring_cq_overflow_total", "the kernel's queue is never full where a turn takes it empty"),
    ("ringgate_uring_missed_ends_total", "needs a race in the kernel; tests/hostile/ends.rs"),
    ("ringgate_uring_rearms_total", "the kernel may end a receive that has brought bytes, and may not"),
    ("process_max_fds", "a setting of the host"),
    ("process_open_fds", "other tests of this process open and close them, too"),
    ("process_threads", "other tests have threads, too"),
    ("process_resident_memory_bytes", "the kernel may count as much as before"),
    ("process_anonymous_memory_bytes", "the kernel may count as much as before"),
];

/// Samples of each family.
type Families = BTreeMap<String, BTreeSet<String>>;

fn families(answer: &Answer) -> Families {
    let mut families = Families::new();
    let mut name = String::new();
    for line in answer.body.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(kind) => {
                name = kind.split(' ').next().unwrap().to_owned();
                assert!(families.insert(name.clone(), BTreeSet::new()).is_none(), "{name} comes twice");
            }
            None if line.starts_with('#') => {}
            None => {
                let samples = families.get_mut(&name).expect("a sample belongs to the family before it");
                assert!(line.starts_with(&name), "{line} of {name}");
                assert!(samples.insert(line.to_owned()), "{line} comes twice");
            }
        }
    }
    families
}

/// What has moved so far, of all gateways.
#[derive(Default)]
struct Seen {
    all: BTreeSet<String>,
    moved: BTreeSet<String>,
}

/// The figures of one gateway, from its start on.
struct Watch<'a> {
    gateway: &'a Gateway,
    seen: &'a mut Seen,
    before: Families,
}

impl<'a> Watch<'a> {
    fn new(gateway: &'a Gateway, seen: &'a mut Seen) -> Watch<'a> {
        let before = families(&http(gateway.admin(), "GET", "/metrics"));
        seen.all.extend(before.keys().cloned());
        Watch { gateway, seen, before }
    }

    /// Reads the figures and returns them.
    fn look(&mut self) -> Answer {
        let answer = http(self.gateway.admin(), "GET", "/metrics");
        let now = families(&answer);
        assert!(now.keys().eq(self.before.keys()), "families come and go");
        for (name, samples) in &now {
            if self.before.get(name) != Some(samples) {
                self.seen.moved.insert(name.clone());
            }
        }
        self.before = now;
        answer
    }

    /// Reads them until this sample is above 0.
    fn wait_for(&mut self, sample: &str) {
        wait_until(sample, || self.look().sample(&format!("ringgate_{sample}")) > 0.0);
    }

    /// Reads them until this sample has this value.
    fn wait_for_value(&mut self, sample: &str, value: f64) {
        wait_until(format_args!("{sample} = {value}"), || self.look().sample(&format!("ringgate_{sample}")) == value);
    }
}

#[test]
fn what_a_family_counts_happens_then_it_moves() {
    let mut seen = Seen::default();
    for scenario in [
        messages,
        pings,
        repetition,
        slow_readers,
        bounds_of_logs,
        refused_connections,
        full_table,
        few_buffers,
        tiny_mailboxes,
        log_lines,
    ] {
        scenario(&mut seen);
    }
    let still: BTreeSet<String> = STILL.iter().map(|(name, _)| (*name).to_owned()).collect();
    let never: Vec<_> = seen.all.difference(&seen.moved).filter(|name| !still.contains(*name)).collect();
    assert!(never.is_empty(), "exported, and never counted: {never:?}");
    let gone: Vec<_> = still.difference(&seen.all).collect();
    assert!(gone.is_empty(), "named here, and not exported: {gone:?}");
}

/// Sign-ins, messages, rooms, resuming, refusals, over plain TCP and over TLS that becomes compact.
fn messages(seen: &mut Seen) {
    let gateway = Gateway::with(|config| {
        config.make_tls_compact();
        config.settings.namespaces = vec![
            Namespace { history_size: 10, ..Namespace::named("chat") },
            Namespace { history_size: 0, ..Namespace::named("quiet") },
        ];
    });
    let mut watch = Watch::new(&gateway, seen);
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.tls_client();
    bob.sign_in(&Login::user("bob"));
    assert_eq!(gateway.refused_sign_in(&Login::token("garbage")), 3500);
    watch.wait_for_value("sessions_active", 2.0);
    alice.publish_with_id("@bob", 1, "once");
    alice.publish_with_id("@bob", 1, "once");
    let position = bob.message().stamp.position;
    bob.ack(position);
    watch.wait_for_value("inbox_acked_total", 1.0);
    watch.wait_for_value("dedup_hits_total", 1.0);
    alice.publish("@nobody", "waits");
    watch.wait_for("inbox_pending");
    watch.wait_for("inbox_unknown_bytes");
    bob.send_empty(Kind::Disconnect);
    bob.expect_end();
    watch.wait_for_value("sessions_active", 1.0);
    alice.publish("@bob", "while away");
    watch.wait_for("offline_stored_total");
    gateway.sign_in_with(&Login::user("bob").resume(position)).message();
    watch.wait_for_value("recoveries_total{recovered=\"true\"}", 1.0);
    watch.wait_for("offline_replayed_total");
    alice.subscribe("chat:a");
    watch.wait_for_value("rooms", 1.0);
    assert_eq!(alice.try_subscribe("chat:a", None).unwrap_err().code, 105);
    watch.wait_for_value("error_replies_total{code=\"already_subscribed\"}", 1.0);
    alice.subscribe("quiet:a");
    alice.publish("quiet:a", "x");
    alice.try_unsubscribe("quiet:a").unwrap();
    watch.wait_for("quiet_topics");
    // Several users, so that some letter goes from shard to shard, and some shard has to be woken for it.
    for number in 0..16 {
        alice.publish(&format!("@user{number}"), "x");
    }
    watch.wait_for("uptime_seconds");
    let metrics = watch.look();
    for (sample, value) in [
        ("connections_accepted_total{transport=\"tls\"}", 1.0),
        ("tls_handshakes_total{kind=\"full\"}", 1.0),
        ("tls_compacted_total", 1.0),
        ("auth_total{status=\"ok\",failure=\"\"}", 3.0),
        ("messages_dropped_total{reason=\"slow\"}", 0.0),
        ("ping_pong_duration_seconds_count", 0.0),
    ] {
        assert_eq!(metrics.sample(&format!("ringgate_{sample}")), value, "{sample}");
    }
    // Bob's first session has had one message, and his second another.
    assert_eq!(
        metrics.sample("ringgate_delivery_duration_seconds_count"),
        metrics.sample("ringgate_messages_sent_total") - 1.0
    );
    gateway.finish();
}

/// A client that is silent, is asked, and answers.
fn pings(seen: &mut Seen) {
    let gateway = Gateway::with(|config| {
        let client = &mut config.settings.client;
        (client.ping_interval_ms, client.pong_timeout_ms, client.missed_pings_max) = (200, 60_000, 1000);
    });
    let mut watch = Watch::new(&gateway, seen);
    let mut alice = gateway.sign_in("alice");
    for round in 1..=2 {
        alice.take("Ping", |frame| matches!(frame, Frame::Ping).then_some(()));
        // What it says besides is no answer.
        alice.ping();
        assert_eq!(
            gateway.shards().iter().map(|m| m.ping_pong_duration.read().0.iter().sum::<u64>()).sum::<u64>(),
            round - 1
        );
        alice.send_empty(Kind::ClientPong);
        watch.wait_for_value("ping_pong_duration_seconds_count", round as f64);
    }
    // A Pong that nobody asked for is not counted.
    alice.send_empty(Kind::ClientPong);
    alice.ping();
    assert_eq!(watch.look().sample("ringgate_ping_pong_duration_seconds_count"), 2.0);
    gateway.finish();
}

/// A message that is not acknowledged comes again.
fn repetition(seen: &mut Seen) {
    let gateway = Gateway::with(|config| {
        (config.settings.inbox.ack_wait_ms, config.settings.inbox.ack_wait_ms_max) = (100, 100);
    });
    let mut watch = Watch::new(&gateway, seen);
    let mut alice = gateway.sign_in("alice");
    let _bob = gateway.sign_in("bob");
    alice.publish("@bob", "again");
    watch.wait_for("retries_total");
    gateway.finish();
}

/// Clients that do not read: what is queued, deferred and dropped.
fn slow_readers(seen: &mut Seen) {
    let gateway = Gateway::with(|config| {
        let client = &mut config.settings.client;
        (client.messages_rate, client.bytes_rate) = (0, 0);
        (client.message_bytes_max, client.outbox_bytes_max) = (16 * 1024, 64 * 1024);
        client.write_timeout_ms = 600_000;
        config.settings.inbox.in_flight_max = 1_000_000;
    });
    let mut watch = Watch::new(&gateway, seen);
    let socket = TcpStream::from(socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap());
    shrink_buffers(&socket, 4096).unwrap();
    socket2::SockRef::from(&socket).connect(&gateway.tcp().into()).unwrap();
    let mut bob = gateway.client_over(Stream::over(socket, None).unwrap());
    bob.sign_in(&Login::user("bob"));
    let mut alice = gateway.sign_in("alice");
    wait_until("bob lags behind", || {
        alice.publish("@bob", [7; 8 * 1024]);
        gateway.sum(|m| &m.deliveries_deferred) > 0
    });
    for sample in
        ["deliveries_deferred", "deliveries_queued", "outbound_queue_bytes", "slow_consumers_total{action=\"lag\"}"]
    {
        watch.wait_for(sample);
    }
    // What is still owed to him is given up with his connection.
    drop(bob);
    watch.wait_for("messages_dropped_total{reason=\"closed\"}");
    gateway.finish();
}

/// Logs, dedup and quiet rooms that are at their bounds.
fn bounds_of_logs(seen: &mut Seen) {
    let gateway = Gateway::with(|config| {
        config.settings.inbox.messages_max = 1;
        config.settings.dedup_entries_max = 2;
        config.settings.quiet_topics_max = 1;
        config.settings.namespaces = vec![Namespace { history_size: 0, ..Namespace::named("quiet") }];
    });
    let mut watch = Watch::new(&gateway, seen);
    let mut alice = gateway.sign_in("alice");
    drop(gateway.sign_in("bob"));
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    for id in 1..=16 {
        alice.publish_with_id("@bob", id, "x");
        let room = format!("quiet:{id}");
        alice.subscribe(&room);
        alice.publish(&room, "x");
        alice.try_unsubscribe(&room).unwrap();
    }
    for sample in
        ["inbox_expired_total{reason=\"count\"}", "dedup_evicted_total", "topics_forgotten_total{reason=\"bound\"}"]
    {
        watch.wait_for(sample);
    }
    gateway.finish();
}

/// More connections than are allowed.
fn refused_connections(seen: &mut Seen) {
    let gateway = Gateway::with(|config| config.settings.client.connections_max = 1);
    let mut watch = Watch::new(&gateway, seen);
    let _alice = gateway.sign_in("alice");
    assert!(!gateway.client().is_admitted(&Login::user("bob")));
    watch.wait_for_value("connections_refused_total{reason=\"node\"}", 1.0);
    gateway.finish();
}

/// More connections than the table has slots.
fn full_table(seen: &mut Seen) {
    let gateway = Gateway::with(|config: &mut Config| {
        config.listeners.retain(|listener| listener.front.transport == Transport::Plain);
        config.runtime.shards = Some(1);
        (config.runtime.connections_per_shard_max, config.runtime.accepts_in_flight) = (8, 2);
    });
    let mut watch = Watch::new(&gateway, seen);
    let sockets: Vec<_> = (0..12).map(|_| gateway.raw()).collect();
    watch.wait_for_value("connections_refused_total{reason=\"full\"}", 4.0);
    assert!(watch.look().sample("ringgate_uring_slots_used{shard=\"0\"}") > 0.0);
    drop(sockets);
    gateway.finish();
}

/// More that comes than there are buffers for.
fn few_buffers(seen: &mut Seen) {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(1);
        (config.runtime.recv_buffers, config.runtime.recv_buffer_bytes) = (1, 2048);
        (config.settings.client.messages_rate, config.settings.client.bytes_rate) = (0, 0);
    });
    let mut watch = Watch::new(&gateway, seen);
    let mut clients: Vec<Client> = (0..16).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    let (mut burst, mut encoder) = (Vec::new(), Encoder::default());
    for request in 1..=40 {
        let payload = [request as u8; 500];
        let publish = PublishRequest { request, topic: "@nobody", payload: &payload, ..PublishRequest::default() };
        encoder.publish(&mut burst, &publish);
    }
    wait_until("a receive found no buffer", || {
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| {
                    client.send_bytes(&burst);
                    for request in 1..=40 {
                        // Refused or not: it was received.
                        let _ = client.published(request);
                    }
                });
            }
        });
        watch.look().sample("ringgate_uring_no_buffers_total{shard=\"0\"}") > 0.0
    });
    gateway.finish();
}

/// Shards that have more to tell each other than their mailboxes hold.
fn tiny_mailboxes(seen: &mut Seen) {
    let gateway = Gateway::with(|config| {
        config.runtime.mailbox_capacity = 1;
        (config.settings.client.messages_rate, config.settings.client.bytes_rate) = (0, 0);
    });
    let mut watch = Watch::new(&gateway, seen);
    let mut clients: Vec<Client> = (0..8).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    wait_until("a mailbox was full", || {
        for client in &mut clients {
            client.send(|encoder, out| {
                for request in 1..=40 {
                    let topic = format!("@user{}", request % 8);
                    encoder.publish(
                        out,
                        &PublishRequest { request, topic: &topic, payload: b"x", ..PublishRequest::default() },
                    );
                }
            });
        }
        for client in &mut clients {
            for request in 1..=40 {
                // Refused or not: it has been at the inbox's home.
                let _ = client.published(request);
            }
        }
        gateway.sum(|m| &m.mesh_full) > 0
    });
    watch.look();
    gateway.finish();
}

/// The log of this process, which only programs have.
fn log_lines(seen: &mut Seen) {
    use std::io::Write;
    use tracing_subscriber::fmt::MakeWriter;
    let gateway = Gateway::start();
    let mut watch = Watch::new(&gateway, seen);
    let (lines, guard) = ringgate::logs::start(std::io::sink(), false, &ringgate::logs::COUNTS).unwrap();
    lines.make_writer().write_all(b"a line\n").unwrap();
    drop(guard);
    watch.wait_for("log_lines_total{outcome=\"written\"}");
    gateway.finish();
}

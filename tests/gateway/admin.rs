//! The admin listener: health, readiness, and figures that agree with what was done.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringgate_core::wire::Kind;
use ringgate_core::wire::encode::PublishRequest;

use crate::support::{Gateway, LISTENERS, Login, Process, http, unix_seconds, wait_until};

const READY: &str = "{\"ready\":true,\"reasons\":[]}\n";

#[test]
fn pages_are_asked_for_then_health_readiness_or_404() {
    let gateway = Gateway::start();
    for (method, path, status, body) in [
        ("GET", "/healthz", 200, "{\"healthy\":true,\"reasons\":[]}\n"),
        ("GET", "/readyz", 200, READY),
        ("GET", "/readyz?verbose", 200, READY),
        ("HEAD", "/healthz", 200, ""),
        ("GET", "/", 404, "there are /healthz, /readyz and /metrics\n"),
        ("GET", "/metrics/", 404, "there are /healthz, /readyz and /metrics\n"),
        ("POST", "/metrics", 405, "only GET\n"),
        ("DELETE", "/healthz", 405, "only GET\n"),
    ] {
        let answer = http(gateway.admin(), method, path);
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{method} {path}");
    }
    gateway.finish();
}

#[test]
fn health_listener_has_1000_idle_connections_then_it_answers_within_100_ms_and_has_two_pages() {
    let gateway = Gateway::with(|config| {
        config.admin = None;
        config.health = Some("127.0.0.1:0".parse().unwrap());
    });
    let health = gateway.server().health_address().unwrap();
    assert_eq!(gateway.server().admin_address(), None);
    let idle: Vec<_> = (0..1000).map(|_| TcpStream::connect(health).unwrap()).collect();
    // On a busy machine this thread may have to wait for a core, in which case another try counts.
    wait_until("an answer within 100 ms", || {
        let asked = Instant::now();
        assert_eq!(http(health, "GET", "/readyz").body, READY);
        asked.elapsed() < Duration::from_millis(100)
    });
    drop(idle);
    for (path, status) in [("/healthz", 200), ("/metrics", 404), ("/", 404)] {
        let answer = http(health, "GET", path);
        assert_eq!(answer.status, status, "{path}");
        assert!(status == 200 || answer.body == "there are /healthz and /readyz\n", "{path}: {}", answer.body);
    }
    // A load balancer may name any host.
    let mut socket = TcpStream::connect(health).unwrap();
    socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: gateway.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(READY), "{answer}");
    gateway.finish();
}

#[test]
fn openmetrics_is_accepted_or_not_then_metrics_come_in_that_format() {
    let gateway = Gateway::start();
    let ask = |accept: &str| {
        let mut socket = TcpStream::connect(gateway.admin()).unwrap();
        write!(socket, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    // As Prometheus asks.
    let open =
        ask("Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1\r\n");
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"), "{open}");
    assert!(open.contains("\n# TYPE ringgate_acks counter\nringgate_acks_total 0\n"), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    for accept in ["", "Accept: */*\r\n", "Accept: text/plain\r\n"] {
        let text = ask(accept);
        assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
        assert!(text.contains("\n# TYPE ringgate_acks_total counter\nringgate_acks_total 0\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
        // No value of a label has blanks.
        for line in text.lines().filter(|line| line.starts_with("ringgate_")) {
            assert_eq!(line.split(' ').count(), 2, "{line}");
        }
    }
    gateway.finish();
}

#[test]
fn shards_have_worked_then_their_cpu_time_turns_and_limits_are_said() {
    let gateway = Gateway::with(|config| config.settings.client.connections_max = 7);
    let mut alice = gateway.sign_in("alice");
    wait_until("a shard has used CPU time", || {
        alice.ping();
        let metrics = http(gateway.admin(), "GET", "/metrics");
        let of_shard =
            |name: &str, shard: usize| metrics.sample(&format!("ringgate_shard_{name}{{shard=\"{shard}\"}}"));
        (0..2).any(|shard| of_shard("busy_seconds_total", shard) > 0.0 && of_shard("cpu_seconds_total", shard) > 0.0)
    });
    let metrics = http(gateway.admin(), "GET", "/metrics");
    assert!(metrics.sample("ringgate_shard_turn_duration_seconds_count") > 0.0);
    assert!(
        metrics.sample("ringgate_shard_turn_duration_seconds_sum")
            <= metrics.family("ringgate_shard_busy_seconds_total")
    );
    let threads = metrics.family("ringgate_shard_cpu_seconds_total");
    assert!(threads <= metrics.sample("process_cpu_seconds_total") + 1.0, "{threads}");
    for (sample, value) in [
        ("connections_limit", 7.0),
        ("uring_slots_limit{shard=\"1\"}", 512.0),
        ("inbox_unknown_bytes_limit", 2.0 * 64.0 * 1024.0 * 1024.0),
        ("quiet_topics_limit", 2.0 * 262_144.0),
    ] {
        assert_eq!(metrics.sample(&format!("ringgate_{sample}")), value, "{sample}");
    }
    assert!(metrics.sample("ringgate_memory_limit_bytes") > metrics.sample("process_resident_memory_bytes"));
    let started = metrics.sample("process_start_time_seconds");
    let now = unix_seconds() as f64;
    assert!(started <= now + 1.0 && started > now - 86_400.0, "{started} at {now}");
    gateway.finish();
}

#[test]
fn node_has_connections_max_then_it_is_not_ready_until_some_have_left() {
    let gateway = Gateway::with(|config| config.settings.client.connections_max = 2);
    let ready = || http(gateway.admin(), "GET", "/readyz");
    let clients = [gateway.sign_in("alice"), gateway.sign_in("bob")];
    wait_until("the node is full", || ready().status == 503);
    assert_eq!(
        ready().body,
        "{\"ready\":false,\"reasons\":[{\"reason\":\"full\",\"text\":\"as many connections as client.connections_max allows\"}]}\n"
    );
    assert_eq!(http(gateway.admin(), "GET", "/healthz").status, 200);
    drop(clients);
    wait_until("the node has room", || ready().body == READY);
    gateway.finish();
}

#[test]
fn logs_of_a_shard_are_full_then_it_is_named_until_messages_are_acknowledged() {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(1);
        config.settings.log_bytes_per_shard_max = 64 * 1024;
        (config.settings.client.messages_rate, config.settings.client.bytes_rate) = (0, 0);
    });
    let ready = || http(gateway.admin(), "GET", "/readyz");
    let mut bob = gateway.sign_in("bob");
    // One user's messages may take four times what is free: it takes several to fill the logs.
    let mut writers: Vec<_> = (0..8).map(|number| gateway.sign_in(&format!("writer{number}"))).collect();
    let mut stored = 0;
    wait_until("logs are full", || {
        for writer in &mut writers {
            let publish = PublishRequest { topic: "@bob", payload: &[7; 1000], ..PublishRequest::default() };
            stored += usize::from(writer.try_publish(publish).is_ok());
        }
        ready().status == 503
    });
    assert_eq!(
        ready().body,
        "{\"ready\":false,\"reasons\":[{\"reason\":\"logs\",\"shards\":[0],\"text\":\"logs take nearly all that \
         log.size_per_shard_max allows\"}]}\n"
    );
    let last = bob.messages(stored).pop().unwrap().stamp.position;
    bob.ack(last);
    wait_until("logs have room", || ready().body == READY);
    gateway.finish();
}

#[test]
fn clients_say_nothing_or_no_http_then_others_are_answered() {
    let gateway = Gateway::start();
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(gateway.admin()).unwrap()).collect();
    let mut other = TcpStream::connect(gateway.admin()).unwrap();
    other.write_all(&[0xff; 100]).unwrap();
    assert_eq!(http(gateway.admin(), "GET", "/healthz").status, 200);
    drop(silent);
    gateway.finish();
}

#[test]
fn sixty_four_connections_stand_still_then_health_is_answered_all_the_same() {
    let gateway = Gateway::start();
    // More than there are places, some of which have begun a request.
    let idle: Vec<_> = (0..80)
        .map(|number| {
            let mut socket = TcpStream::connect(gateway.admin()).unwrap();
            if number % 2 == 0 {
                socket.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
            }
            socket
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(http(gateway.admin(), "GET", "/healthz").status, 200);
    }
    drop(idle);
    gateway.finish();
}

#[test]
fn host_is_not_known_then_only_those_of_the_configuration_are_answered() {
    let gateway = Gateway::with(|config| config.admin_hosts = vec!["gate.example.org".to_owned()]);
    for (host, status) in [("gate.example.org", 200), ("localhost", 200), ("evil.example", 421)] {
        let mut socket = TcpStream::connect(gateway.admin()).unwrap();
        write!(socket, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
    gateway.finish();
}

#[test]
fn on_every_address_of_the_host_then_a_warning_says_so() {
    let text = |admin: &str| {
        format!(
            "{LISTENERS}[admin]\naddress = \"{admin}\"\n[[token.keys]]\nalgorithm = \"HS256\"\n\
             secret = \"0123456789abcdef0123456789abcdef\"\n"
        )
    };
    for address in ["0.0.0.0:0", "[::]:0"] {
        let gateway = Process::gateway(&text(address));
        let line = gateway.error_line("a warning", |line| line.contains("WARN"));
        assert!(line.contains("the admin listener is on every address of this host"), "{line}");
        assert!(line.contains("set admin.address"), "{line}");
    }
    let gateway = Process::gateway(&text("127.0.0.1:0"));
    gateway.signal(libc::SIGTERM);
    gateway.error_line("its last line", |line| line.contains("stopped"));
    assert!(!gateway.errors().iter().any(|line| line.contains("admin listener")), "{:?}", gateway.errors());
}

#[test]
fn clients_have_talked_then_metrics_count_it() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.tls_client();
    bob.sign_in(&Login::user("bob"));
    assert_eq!(gateway.refused_sign_in(&Login::token("garbage")), 3500);
    for number in 0..3 {
        alice.publish("@bob", number.to_string());
    }
    let last = bob.messages(3)[2].stamp.position;
    bob.ack(last);
    alice.subscribe("chat:a");
    alice.publish("chat:a", "x");
    alice.message();
    assert_eq!(alice.try_subscribe("chat:a", None).unwrap_err().code, 105);
    gateway.wait_for("acknowledged", 3, |m| &m.inbox_acked);
    bob.send_empty(Kind::Disconnect);
    bob.expect_end();
    drop(bob);
    wait_until("one connection is left", || gateway.connections() == 1);
    gateway.wait_for("slots", 1, |m| &m.ring_slots_used);
    let metrics = http(gateway.admin(), "GET", "/metrics");
    assert_eq!(metrics.status, 200);
    for (sample, value) in [
        ("connections_accepted_total{transport=\"tcp\"}", 2.0),
        ("connections_accepted_total{transport=\"tls\"}", 1.0),
        ("connections_active{transport=\"tcp\"}", 1.0),
        ("connections_active{transport=\"tls\"}", 0.0),
        ("sessions_active", 1.0),
        ("connection_closes_total{transport=\"tcp\",reason=\"invalid_token\"}", 1.0),
        ("connection_closes_total{transport=\"tls\",reason=\"connection_closed\"}", 1.0),
        ("auth_total{status=\"ok\",failure=\"\"}", 2.0),
        ("auth_total{status=\"failed\",failure=\"malformed\"}", 1.0),
        ("auth_duration_seconds_count", 3.0),
        ("tls_handshakes_total{kind=\"full\"}", 1.0),
        ("tls_handshakes_total{kind=\"resumed\"}", 0.0),
        ("tls_compacted_total", 0.0),
        ("messages_received_total", 4.0),
        ("messages_sent_total", 4.0),
        ("inbox_stored_total", 3.0),
        ("inbox_acked_total", 3.0),
        ("inbox_pending", 0.0),
        ("acks_total", 1.0),
        ("error_replies_total{code=\"already_subscribed\"}", 1.0),
        ("delivery_duration_seconds_count", 4.0),
        ("rooms", 1.0),
        ("users", 2.0),
        ("conservation_error{ledger=\"deliveries\"}", 0.0),
        ("conservation_error{ledger=\"inbox\"}", 0.0),
    ] {
        assert_eq!(metrics.sample(&format!("ringgate_{sample}")), value, "{sample}");
    }
    // What was counted under one label was counted under no other.
    for (family, sum) in [
        ("connections_accepted_total", 3.0),
        ("connection_closes_total", 2.0),
        ("connections_refused_total", 0.0),
        ("auth_total", 3.0),
        ("tls_handshakes_total", 1.0),
        ("error_replies_total", 1.0),
        ("messages_dropped_total", 0.0),
        ("inbox_expired_total", 0.0),
    ] {
        assert_eq!(metrics.family(&format!("ringgate_{family}")), sum, "{family}");
    }
    let slots: f64 =
        (0..2).map(|shard| metrics.sample(&format!("ringgate_uring_slots_used{{shard=\"{shard}\"}}"))).sum();
    assert_eq!(slots, 1.0);
    // The process too, by the names that every Prometheus client library uses.
    for sample in ["process_cpu_seconds_total", "process_threads", "process_open_fds", "process_max_fds"] {
        assert!(metrics.sample(sample) > 0.0, "{sample}");
    }
    assert!(metrics.sample("process_resident_memory_bytes") > metrics.sample("process_anonymous_memory_bytes"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(metrics.body.contains(&format!("ringgate_build_info{{version=\"{version}\",commit=\"")));
    // Every sample belongs to a family whose type was said before.
    let families: Vec<_> = metrics.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    for line in metrics.body.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let known = families.iter().any(|family| {
            let (family, kind) = family.split_once(' ').unwrap();
            match kind {
                "histogram" => ["bucket", "sum", "count"].iter().any(|part| name == format!("{family}_{part}")),
                _ => name == family,
            }
        });
        assert!(known, "{line}");
    }
    gateway.finish();
}

//! What an idle, signed-in connection costs in the core, and whether what is said of logs is true: live heap bytes, counted
//! by the allocator.
//!
//! The process adds the socket's slot in `net` (32 bytes) and what the allocator rounds up; bench/results/connections.md has the
//! figures measured from outside.

#[path = "support/counting.rs"]
mod counting;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use counting::live;
use ringgate_core::id::{ConnectionKey, Now, ShardId};
use ringgate_core::limits::Settings;
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::session::Grant;
use ringgate_core::shard::{Effect, Event, Shard, ShardOptions};
use ringgate_core::transport::Transport;
use ringgate_core::wire::Encoder;
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};

/// Figures of a process are of one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn shard(metrics: &Arc<ShardMetrics>, settings: Settings) -> Shard {
    Shard::new(ShardOptions {
        id: ShardId(0),
        shards: 1,
        settings: Arc::new(settings),
        metrics: metrics.clone(),
        seed: 1,
    })
}

/// Signs clients in and lets each heartbeat once.
fn sign_in(shard: &mut Shard, slots: std::ops::Range<u32>, now: Now) {
    let mut encoder = Encoder::default();
    for slot in slots {
        let connection = ConnectionKey { slot, generation: 1 };
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        shard.handle(Event::Opened { connection, peer, transport: Transport::Plain }, now);
        let user = format!("u123456-{slot}");
        let mut bytes = Vec::new();
        encoder.connect(&mut bytes, &ConnectRequest { token: &user, device: "phone", ..Default::default() });
        shard.handle(Event::Received { connection, bytes: &bytes }, now);
        while let Some(effect) = shard.poll_effect() {
            if let Effect::Verify { connection, refresh, token } = effect {
                let result = Ok(Grant { user: token.into(), expires_at: 2_000_000_000, rooms: None, device: None });
                shard.handle(Event::Verified { connection, refresh, result }, now);
            }
        }
        while let Some(chunk) = shard.pull(connection, now) {
            if let ringgate_core::outbox::Chunk::Control(buffer) = chunk {
                shard.recycle(buffer);
            }
        }
        shard.advance(now);
    }
}

#[test]
fn connection_is_idle_then_it_owns_little() {
    const FIRST: u32 = 1_000;
    const ALL: u32 = 15_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut shard = shard(&Arc::default(), Settings::default());
    let now = Now { mono_us: 1_000_000, unix_ms: 1_800_000_000_000 };
    sign_in(&mut shard, 0..FIRST, now);
    let before = live();
    sign_in(&mut shard, FIRST..ALL, now);
    let each = (live() - before) as f64 / f64::from(ALL - FIRST);
    println!("{each:.0} bytes for each idle connection in the core");
    assert!(each <= 330.0, "{each:.0} bytes for each idle connection");
    shard.invariants();
}

/// What `log_bytes` says of messages of 100 bytes, so many to each of so many users who are away, beside what was allocated.
fn accounted_and_allocated(users: u32, messages: u32) -> (f64, f64) {
    let now = Now { mono_us: 1_000_000, unix_ms: 1_800_000_000_000 };
    let metrics = Arc::<ShardMetrics>::default();
    let mut settings = Settings::default();
    settings.client.messages_rate = 0;
    settings.client.bytes_rate = 0;
    settings.inbox.unknown_bytes_per_shard_max = usize::MAX;
    let mut shard = shard(&metrics, settings);
    sign_in(&mut shard, 0..1, now);
    let connection = ConnectionKey { slot: 0, generation: 1 };
    let mut encoder = Encoder::default();
    let before = live();
    for user in 0..users {
        let topic = format!("@u123456-{user:06}");
        for _ in 0..messages {
            let mut bytes = Vec::new();
            encoder.publish(&mut bytes, &PublishRequest { topic: &topic, payload: &[7; 100], ..Default::default() });
            shard.handle(Event::Received { connection, bytes: &bytes }, now);
            while shard.poll_effect().is_some() {}
            while let Some(chunk) = shard.pull(connection, now) {
                if let ringgate_core::outbox::Chunk::Control(buffer) = chunk {
                    shard.recycle(buffer);
                }
            }
        }
    }
    shard.release_spares();
    let allocated = (live() - before) as f64;
    assert_eq!(metrics.inbox_pending.read(), u64::from(users * messages));
    shard.invariants();
    (metrics.log_bytes.read() as f64, allocated)
}

#[test]
fn messages_wait_for_absent_users_then_log_bytes_is_what_they_take() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (users, messages) in [(20_000, 1), (20_000, 2), (5_000, 10), (500, 100)] {
        let (accounted, allocated) = accounted_and_allocated(users, messages);
        let each = |bytes: f64| bytes / f64::from(users * messages);
        println!("{messages} to each: {:.0} bytes accounted, {:.0} allocated", each(accounted), each(allocated));
        let off = (accounted - allocated).abs() / allocated;
        assert!(off <= 0.1, "{messages} to each: {:.0} accounted, {:.0} allocated", each(accounted), each(allocated));
    }
}

/// What a client of TLS can have the gateway keep without an answer to anything: seen from the allocator, so that whatever
/// rustls keeps counts, too.
mod tls {
    use std::sync::{Arc, Mutex, PoisonError};

    use ringgate_auth::certificate::{dev_certificate, server_config};
    use ringgate_net::tls::compact::traffic::{CONTENT_BYTES_MAX, HANDSHAKE, Secret, Suite, TrafficKeys};
    use ringgate_net::tls::{Tls, UNFINISHED_BYTES_MAX, make_compact};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::ALONE;
    use super::counting::live;

    #[derive(Debug, Default)]
    struct Written(Mutex<Vec<u8>>);

    impl rustls::KeyLog for Written {
        fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
            if label == "CLIENT_TRAFFIC_SECRET_0" {
                *self.0.lock().unwrap() = secret.to_vec();
            }
        }
    }

    #[test]
    fn message_is_announced_and_sent_in_padded_records_then_memory_stays_within_a_record_and_a_bit() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for compact in [false, true] {
            let (certificate, key) = dev_certificate().unwrap();
            let mut config = server_config(certificate.as_bytes(), key.as_bytes()).unwrap();
            if compact {
                make_compact(&mut config);
            }
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let mut client = client.with_root_certificates(roots).with_no_client_auth();
            let written = Arc::new(Written::default());
            client.key_log = written.clone();
            let mut client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
            let mut server = Tls::accept(Arc::new(config)).unwrap();
            while client.is_handshaking() || client.wants_write() {
                let mut flight = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut flight).unwrap();
                }
                server.receive(&mut flight, |_| panic!("no data")).unwrap();
                let answer = server.take_outgoing();
                let mut answer = &answer[..];
                while !answer.is_empty() {
                    client.read_tls(&mut answer).unwrap();
                    client.process_new_packets().unwrap();
                }
            }
            let suite = Suite::of(client.negotiated_cipher_suite().unwrap().suite()).unwrap();
            let secret = Secret::new(&written.0.lock().unwrap()).unwrap();
            let mut keys = TrafficKeys::new(suite, &secret, 0).unwrap();
            let trailer = [&[HANDSHAKE][..], &vec![0; CONTENT_BYTES_MAX - 1]].concat();
            let mut record = Vec::with_capacity(2 * CONTENT_BYTES_MAX);
            let before = live();
            let (mut most, mut refused) = (0, false);
            // A certificate of 65 535 bytes would need 1.4 GB of records.
            for byte in [11, 0, 255, 255].into_iter().chain(std::iter::repeat_n(7, 500)) {
                record.clear();
                keys.seal(&keys.context().unwrap(), &[byte], &trailer, &mut record).unwrap();
                refused |= server.receive(&mut record, |_| panic!("no data")).is_err();
                most = most.max(live() - before);
            }
            assert!(refused, "compact: {compact}");
            assert!(most <= UNFINISHED_BYTES_MAX as isize + 4096, "{most} bytes, compact: {compact}");
        }
    }
}

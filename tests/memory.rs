//! What an idle, signed-in connection costs in the core, and whether what is said of logs is true: live heap bytes, counted
//! by the allocator.
//!
//! The process adds the socket's slot in `net` (32 bytes) and what the allocator rounds up; bench/results/connections.md has the
//! figures measured from outside.

#[path = "support/counting.rs"]
mod counting;

use std::sync::{Mutex, PoisonError};

use counting::live;
use ringgate_core::limits::Settings;
use ringgate_core::session::Grant;
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};
use ringgate_sim::{Client, Reading, Tokens, World};

/// Figures of a process are of one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// One shard whose clients read at once, and whose tokens name their users.
fn world(settings: Settings) -> World {
    let mut world = World::new(1, settings);
    world.reading = Reading::AtOnce;
    world.tokens =
        Tokens::AtOnce(|token| Ok(Grant { user: token.into(), expires_at: 2_000_000_000, rooms: None, device: None }));
    world
}

/// Signs a user of this number in and lets the client heartbeat once.
fn sign_in(world: &mut World, user: u32) -> Client {
    let client = world.open(0);
    let token = format!("u123456-{user}");
    let request = ConnectRequest { token: &token, device: "phone", ..Default::default() };
    world.send(client, |encoder, out| encoder.connect(out, &request));
    world.turn(0);
    client
}

#[test]
fn connection_is_idle_then_it_owns_little() {
    const FIRST: u32 = 1_000;
    const ALL: u32 = 15_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = world(Settings::default());
    for user in 0..FIRST {
        sign_in(&mut world, user);
    }
    let before = live();
    for user in FIRST..ALL {
        sign_in(&mut world, user);
    }
    let each = (live() - before) as f64 / f64::from(ALL - FIRST);
    println!("{each:.0} bytes for each idle connection in the core");
    assert!(each <= 330.0, "{each:.0} bytes for each idle connection");
    world.check();
}

/// What `log_bytes` says of messages of 100 bytes, so many to each of so many users who are away, beside what was allocated.
fn accounted_and_allocated(users: u32, messages: u32) -> (f64, f64) {
    let mut settings = ringgate_sim::settings();
    settings.inbox.unknown_bytes_per_shard_max = usize::MAX;
    let mut world = world(settings);
    let publisher = sign_in(&mut world, 0);
    let before = live();
    for user in 0..users {
        let topic = format!("@u123456-{user:06}");
        for _ in 0..messages {
            let request = PublishRequest { topic: &topic, payload: &[7; 100], ..Default::default() };
            world.send(publisher, |encoder, out| encoder.publish(out, &request));
        }
    }
    world.shards[0].release_spares();
    let allocated = (live() - before) as f64;
    assert_eq!(world.sum(|metrics| &metrics.inbox_pending), u64::from(users * messages));
    world.check();
    (world.sum(|metrics| &metrics.log_bytes) as f64, allocated)
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

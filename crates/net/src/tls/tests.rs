//! Both modes against rustls' own client, in memory: handshakes in any pieces, and what comes behind them.

use std::io::{Read, Write};

use rustls::{CipherSuite, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::compact::traffic;
use super::*;
use ringgate_auth::certificate::{dev_certificate, server_config};

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

struct Ends {
    certificate: String,
    server: Arc<ServerConfig>,
}

fn ends(compact: bool) -> Ends {
    let (certificate, key) = dev_certificate().unwrap();
    let mut server = server_config(certificate.as_bytes(), key.as_bytes()).unwrap();
    if compact {
        make_compact(&mut server);
    }
    Ends { certificate, server: Arc::new(server) }
}

impl Ends {
    fn server(&self) -> Tls {
        Tls::accept(self.server.clone()).unwrap()
    }

    /// A client's settings with one suite alone, and its version with it.
    fn client(&self, suite: CipherSuite) -> Arc<ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|known| known.suite() == suite);
        let version = provider.cipher_suites[0].version();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]).unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap()
}

/// Everything that the client has to send.
fn flight(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// The client takes everything that waits in the server; returns what it could read.
fn hear(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        let state = client.process_new_packets().unwrap();
        let start = plaintext.len();
        plaintext.resize(start + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut plaintext[start..]).unwrap();
    }
    plaintext
}

/// Gives the server bytes; returns what it read in them.
fn give(server: &mut Tls, bytes: &[u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    server.receive(&mut bytes.to_vec(), |more| plaintext.extend_from_slice(more)).unwrap();
    plaintext
}

fn say(server: &mut Tls, plaintext: &[u8]) -> Vec<u8> {
    let mut out = server.take_outgoing();
    server.encrypt(plaintext, &mut out).unwrap();
    out
}

/// A handshake whose last flight has more behind it: data, a key update, and data with new keys.
fn last_flight(ends: &Ends, config: &Arc<ClientConfig>) -> (Tls, ClientConnection, Vec<u8>) {
    let (mut server, mut client) = (ends.server(), client(config));
    assert_eq!(give(&mut server, &flight(&mut client)), b"");
    assert!(!server.is_established());
    hear(&mut client, &server.take_outgoing());
    client.writer().write_all(b"early, ").unwrap();
    if client.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
        client.refresh_traffic_keys().unwrap();
    }
    client.writer().write_all(b"late").unwrap();
    let bytes = flight(&mut client);
    (server, client, bytes)
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_read_in_any_pieces() {
    for compact in [false, true] {
        let ends = ends(compact);
        let config = ends.client(CipherSuite::TLS13_AES_128_GCM_SHA256);
        let length = last_flight(&ends, &config).2.len();
        for cut in 0..=length {
            let (mut server, mut client, bytes) = last_flight(&ends, &config);
            let cut = cut.min(bytes.len());
            let mut heard = give(&mut server, &bytes[..cut]);
            assert!(server.is_established() || heard.is_empty());
            heard.extend(give(&mut server, &bytes[cut..]));
            assert_eq!(heard, b"early, late", "cut at {cut}");
            assert_eq!(server.is_compact(), compact);
            assert_eq!(hear(&mut client, &say(&mut server, b"answer")), b"answer");
        }
        let (mut server, _, bytes) = last_flight(&ends, &config);
        let heard: Vec<u8> = bytes.iter().flat_map(|byte| give(&mut server, &[*byte])).collect();
        assert_eq!(heard, b"early, late", "byte by byte");
        let (mut server, _, bytes) = last_flight(&ends, &config);
        assert!(bytes.iter().all(|byte| server.hold_back(&[*byte]).is_ok()));
        assert_eq!(give(&mut server, &[]), b"early, late", "held back");
    }
}

/// rustls keeps places in the parts of a message that it has seen; they have to stay where they were.
#[test]
fn a_handshake_message_may_be_in_many_records_and_pieces() {
    for compact in [false, true] {
        let ends = ends(compact);
        let config = ends.client(SUITES[0]);
        for part in [1, 2, 7, 100] {
            for piece in [1, 3, 6, 7, 8, 1000] {
                let (mut server, mut client) = (ends.server(), client(&config));
                let hello = flight(&mut client);
                let records =
                    hello[5..].chunks(part).flat_map(|part| [&[22, 3, 1, 0, part.len() as u8], part].concat());
                for piece in records.collect::<Vec<_>>().chunks(piece) {
                    assert_eq!(give(&mut server, piece), b"");
                }
                hear(&mut client, &server.take_outgoing());
                client.writer().write_all(b"data").unwrap();
                let heard =
                    flight(&mut client).chunks(piece).flat_map(|piece| give(&mut server, piece)).collect::<Vec<_>>();
                assert_eq!(heard, b"data", "parts of {part}, pieces of {piece}");
                assert_eq!(server.is_compact(), compact);
                assert_eq!(hear(&mut client, &say(&mut server, b"answer")), b"answer");
            }
        }
    }
}

#[test]
fn a_long_client_hello_may_come_in_any_pieces() {
    for compact in [false, true] {
        let ends = ends(compact);
        let mut config = (*ends.client(SUITES[0])).clone();
        config.alpn_protocols = (0..200).map(|number| vec![number; 200]).collect();
        let config = Arc::new(config);
        for piece in [700, 4096, 16_388, 16_389, 16_390, 16_394, 32_778, 40_000, 100_000] {
            let (mut server, mut client) = (ends.server(), client(&config));
            let hello = flight(&mut client);
            assert!(hello.len() > 2 * 16_384);
            for (number, piece) in hello.chunks(piece).enumerate() {
                let result = server.receive(&mut piece.to_vec(), |_| panic!("no data"));
                assert!(result.is_ok(), "piece {number} of {}: {result:?}", piece.len());
            }
            hear(&mut client, &server.take_outgoing());
            client.writer().write_all(b"data").unwrap();
            assert_eq!(give(&mut server, &flight(&mut client)), b"data");
        }
    }
}

#[test]
fn every_suite_resumes_updates_keys_and_ends() {
    for compact in [false, true] {
        let ends = ends(compact);
        for suite in SUITES {
            let config = ends.client(suite);
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let (mut server, mut client, mut bytes) = last_flight(&ends, &config);
                let mut early = Vec::new();
                let progress = server.receive(&mut bytes, |more| early.extend_from_slice(more)).unwrap();
                assert_eq!(early, b"early, late");
                let resumed = kind == HandshakeKind::Resumed;
                assert_eq!(progress.established, Some(if resumed { Handshake::Resumed } else { Handshake::Full }));
                assert_eq!(server.is_compact(), compact);
                // The ticket comes with this answer.
                assert_eq!(hear(&mut client, &say(&mut server, &[1; 40_000])), [1; 40_000]);
                assert_eq!(client.handshake_kind(), Some(kind));
                for round in 0..5 {
                    client.refresh_traffic_keys().unwrap();
                    client.writer().write_all(&[round]).unwrap();
                    assert_eq!(give(&mut server, &flight(&mut client)), [round]);
                    assert_eq!(hear(&mut client, &say(&mut server, &[round])), [round]);
                }
                client.send_close_notify();
                let progress = server.receive(&mut flight(&mut client), |_| panic!("no data")).unwrap();
                assert_eq!((progress.established, progress.closed), (None, true));
                let mut goodbye = Vec::new();
                server.close_notify(&mut goodbye);
                assert_eq!(hear(&mut client, &goodbye), b"");
                assert_eq!(client.reader().read(&mut [0]).unwrap(), 0, "the stream ends in order");
            }
        }
    }
}

/// rustls' client asks for SHA-384 first.
#[test]
fn the_cheaper_hash_is_chosen_where_the_client_has_it() {
    let ends = ends(false);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ends.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    assert_ne!(provider.cipher_suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    for (version, suite) in [
        (&rustls::version::TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
        (&rustls::version::TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ] {
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
        let config = Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth());
        let (mut server, mut client) = (ends.server(), client(&config));
        give(&mut server, &flight(&mut client));
        hear(&mut client, &server.take_outgoing());
        assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), suite);
    }
}

#[test]
fn an_older_version_stays_with_rustls() {
    let ends = ends(true);
    let config = ends.client(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (mut server, mut client) = (ends.server(), client(&config));
        while client.is_handshaking() {
            give(&mut server, &flight(&mut client));
            hear(&mut client, &server.take_outgoing());
        }
        client.writer().write_all(b"one").unwrap();
        assert_eq!(give(&mut server, &flight(&mut client)), b"one");
        assert_eq!(hear(&mut client, &say(&mut server, b"two")), b"two");
        assert_eq!(client.handshake_kind(), Some(kind));
        assert!(server.is_established() && !server.is_compact());
    }
}

/// The secrets of handshakes that one thread makes by turns do not get mixed up.
#[test]
fn handshakes_of_one_thread_do_not_meet() {
    let ends = ends(true);
    let mut all: Vec<_> =
        SUITES.iter().cycle().take(12).map(|suite| last_flight(&ends, &ends.client(*suite))).collect();
    all.reverse();
    // One gives up between its two flights.
    all.remove(5);
    for (server, client, bytes) in &mut all {
        assert_eq!(give(server, bytes), b"early, late");
        assert!(server.is_compact());
        assert_eq!(hear(client, &say(server, b"answer")), b"answer");
    }
}

#[test]
fn a_refusal_is_told_to_the_client() {
    for compact in [false, true] {
        let ends = ends(compact);
        let (mut server, mut client, bytes) = last_flight(&ends, &ends.client(SUITES[0]));
        give(&mut server, &bytes);
        hear(&mut client, &server.take_outgoing());
        client.writer().write_all(b"transfer 100").unwrap();
        let mut record = flight(&mut client);
        *record.last_mut().unwrap() ^= 1;
        assert!(server.receive(&mut record, |_| panic!("no data")).is_err());
        let alert = server.take_outgoing();
        client.read_tls(&mut &alert[..]).unwrap();
        let heard = client.process_new_packets();
        let bad_record_mac = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(heard.err(), Some(bad_record_mac), "compact: {compact}");
    }
}

/// What a client of rustls has agreed on, so that a test may seal what rustls would not.
#[derive(Debug, Default)]
struct Secrets(std::sync::Mutex<Vec<u8>>);

impl rustls::KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().unwrap() = secret.to_vec();
        }
    }
}

/// rustls keeps places in the bytes of a handshake message that is not whole; it panics if it is not shown them again.
#[test]
fn half_a_handshake_message_harms_nobody() {
    for compact in [false, true] {
        let ends = ends(compact);
        for then in ["data", "a longer message", "the other half", "nothing"] {
            let secrets = Arc::new(Secrets::default());
            let mut config = (*ends.client(SUITES[0])).clone();
            config.key_log = secrets.clone();
            let (mut server, mut client) = (ends.server(), client(&Arc::new(config)));
            while client.is_handshaking() {
                give(&mut server, &flight(&mut client));
                hear(&mut client, &server.take_outgoing());
            }
            give(&mut server, &flight(&mut client));
            let secret = traffic::Secret::new(&secrets.0.lock().unwrap()).unwrap();
            let mut keys = traffic::TrafficKeys::new(traffic::Suite::Aes128GcmSha256, &secret, 0).unwrap();
            let mut seal = |content: &[u8], content_type: u8| {
                let mut record = Vec::new();
                keys.seal(&keys.context().unwrap(), content, &[content_type], &mut record).unwrap();
                record
            };
            let half = seal(&[24, 0, 0, 1], traffic::HANDSHAKE);
            assert_eq!(give(&mut server, &half), b"");
            // A record that is not whole behind it, as well.
            let mut next = match then {
                "data" => seal(b"x", traffic::APPLICATION_DATA),
                "a longer message" => seal(&[0, 24, 0, 0], traffic::HANDSHAKE),
                _ => seal(&[0], traffic::HANDSHAKE),
            };
            assert_eq!(give(&mut server, &next[..7]), b"");
            assert_eq!(hear(&mut client, &say(&mut server, b"one")), b"one");
            let taken = server.receive(&mut next[7..], |_| panic!("no data"));
            assert_eq!(taken.is_ok(), matches!(then, "the other half" | "nothing"), "{then}");
            let out = server.take_outgoing();
            if taken.is_err() {
                assert!(server.encrypt(b"more", &mut Vec::new()).is_err());
                assert!(server.receive(&mut seal(b"more", traffic::APPLICATION_DATA), |_| panic!("no data")).is_err());
                server.close_notify(&mut Vec::new());
            }
            if taken.is_ok() {
                assert_eq!(hear(&mut client, &say(&mut server, b"two")), b"two");
            } else {
                client.read_tls(&mut &out[..]).unwrap();
                let unexpected = rustls::Error::AlertReceived(rustls::AlertDescription::UnexpectedMessage);
                // rustls has no alert for data between the two.
                let expected = (compact || then != "data").then_some(unexpected);
                assert_eq!(client.process_new_packets().err(), expected, "{then}, compact: {compact}");
            }
        }
        // The same before there are keys.
        let hello = flight(&mut client(&ends.client(SUITES[0])));
        let fragment = [&[22, 3, 1, 0, 20], &hello[5..25]].concat();
        for then in [&[23, 3, 3, 0, 1, 0][..], b"GET / HTTP/1.1\r\n", &[22, 3, 1, 0, 0], &[21, 3, 1, 0, 2, 1, 0]] {
            for at_once in [false, true] {
                let mut server = ends.server();
                let result = if at_once {
                    server.receive(&mut [&fragment, then].concat(), |_| panic!("no data"))
                } else {
                    assert_eq!(give(&mut server, &fragment), b"");
                    server.receive(&mut then.to_vec(), |_| panic!("no data"))
                };
                assert!(result.is_err(), "{then:?}");
                server.take_outgoing();
            }
        }
    }
}

#[test]
fn handshakes_that_go_wrong_end_alike() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0, 4, 2, 0, 0, 0], &[23, 3, 3, 0, 17], &[0; 64]] {
        let [ordinary, compact] = [false, true].map(|compact| {
            let mut server = ends(compact).server();
            let result = server.receive(&mut garbage.to_vec(), |_| panic!("no data"));
            (result.map_err(|error| error.to_string()), server.take_outgoing())
        });
        assert_eq!(ordinary, compact, "{garbage:?}");
    }
}

/// A server behind a handshake of TLS 1.3, and what the client's records are sealed with.
fn sealing(ends: &Ends) -> (Tls, ClientConnection, traffic::TrafficKeys) {
    let secrets = Arc::new(Secrets::default());
    let mut config = (*ends.client(SUITES[0])).clone();
    config.key_log = secrets.clone();
    let (mut server, mut client) = (ends.server(), client(&Arc::new(config)));
    while client.is_handshaking() {
        give(&mut server, &flight(&mut client));
        hear(&mut client, &server.take_outgoing());
    }
    give(&mut server, &flight(&mut client));
    hear(&mut client, &server.take_outgoing());
    let secret = traffic::Secret::new(&secrets.0.lock().unwrap()).unwrap();
    (server, client, traffic::TrafficKeys::new(traffic::Suite::Aes128GcmSha256, &secret, 0).unwrap())
}

fn seal(keys: &mut traffic::TrafficKeys, content: &[u8], content_type: u8, padding: usize) -> Vec<u8> {
    let mut record = Vec::new();
    let trailer = [&[content_type][..], &vec![0; padding]].concat();
    keys.seal(&keys.context().unwrap(), content, &trailer, &mut record).unwrap();
    record
}

#[test]
fn unfinished_message_in_padded_records_then_refused_and_nothing_is_kept() {
    const PADDING: usize = traffic::CONTENT_BYTES_MAX - 1;
    for compact in [false, true] {
        let ends = ends(compact);
        let (mut server, _, mut keys) = sealing(&ends);
        // The beginning of a key update: compact takes no other message.
        let mut records = [24, 0, 0, 1].map(|byte| seal(&mut keys, &[byte], traffic::HANDSHAKE, PADDING)).into_iter();
        let result = records.try_for_each(|mut record| {
            let result = server.receive(&mut record, |_| panic!("no data"));
            assert!(server.buffered_bytes() <= UNFINISHED_BYTES_MAX);
            result.map(|_| ())
        });
        // Compact keeps how far the message is, and none of its records.
        assert_eq!(result.is_ok(), compact, "{result:?}");
        if let Err(error) = result {
            assert_eq!(
                error.to_string(),
                format!("an unfinished handshake message takes more than {UNFINISHED_BYTES_MAX} bytes")
            );
            assert_eq!(server.buffered_bytes(), 0);
            assert!(server.encrypt(b"more", &mut Vec::new()).is_err());
        }
    }
}

#[test]
fn hello_in_records_of_one_byte_then_refused_at_the_bound() {
    for compact in [false, true] {
        // A ClientHello of 65 000 bytes that is announced and never ends; each byte has a record of its own.
        let hello = [1, 0, 253, 232].into_iter().chain(std::iter::repeat_n(3, 65_000));
        let mut sent_bytes = 0;
        let mut server = ends(compact).server();
        let mut refused = None;
        for byte in hello {
            let record = [22, 3, 1, 0, 1, byte];
            sent_bytes += record.len();
            let held = server.hold_back(&record).and_then(|()| server.receive(&mut [], |_| panic!("no data")));
            assert!(server.buffered_bytes() <= HANDSHAKE_BYTES_MAX);
            if let Err(error) = held {
                refused = Some(error.to_string());
                break;
            }
        }
        let says = format!("an unfinished handshake message takes more than {HANDSHAKE_BYTES_MAX} bytes");
        assert_eq!(refused, Some(says), "compact: {compact}");
        assert!((HANDSHAKE_BYTES_MAX..=HANDSHAKE_BYTES_MAX + 6).contains(&sent_bytes), "{sent_bytes}");
    }
}

#[test]
fn records_carry_less_than_they_take_then_the_rest_is_counted() {
    for compact in [false, true] {
        let (mut server, _, mut keys) = sealing(&ends(compact));
        let records = [
            (seal(&mut keys, b"hello", traffic::APPLICATION_DATA, 0), 5),
            (seal(&mut keys, b"", traffic::APPLICATION_DATA, 0), 0),
            (seal(&mut keys, b"x", traffic::APPLICATION_DATA, 1000), 1),
            (seal(&mut keys, &[24, 0, 0, 1, 0], traffic::HANDSHAKE, 7), 0),
        ];
        for (mut record, carried) in records {
            let bytes = record.len();
            // A record counts when it is whole.
            let (first, second) = record.split_at_mut(bytes / 2);
            let first = server.receive(first, |_| panic!("not yet")).unwrap();
            let mut heard = 0;
            let second = server.receive(second, |part| heard += part.len()).unwrap();
            assert_eq!((heard, first.overhead_bytes, second.overhead_bytes), (carried, 0, bytes - carried));
        }
    }
}

#[test]
fn server_answers_without_tls_then_the_client_is_told_its_first_bytes() {
    let config = ends(false).client(SUITES[0]);
    let answer = format!("HTTP/1.1 400 Bad Request\r\n\r\n{}", "x".repeat(100));
    let first = &answer.as_bytes()[..FIRST_BYTES_MAX];
    let mut tls = Tls::connect(config.clone(), "localhost".try_into().unwrap()).unwrap();
    tls.hold_back(answer.as_bytes()).unwrap();
    assert_eq!(tls.held_back(), answer.as_bytes());
    let error = tls.receive(&mut [], |_| {}).unwrap_err();
    assert!(matches!(&error, TlsError::NotTls(bytes) if bytes == first), "{error}");
    assert!(
        error.to_string().starts_with("the server answered without TLS: \"HTTP/1.1 400 Bad Request\\r\\n"),
        "{error}"
    );
    assert_eq!(tls.held_back(), first, "kept for those who were not told");

    // A record that is none of a handshake is rustls' to judge.
    let mut tls = Tls::connect(config, "localhost".try_into().unwrap()).unwrap();
    tls.hold_back(&[22, 3, 3, 0, 4, 9, 9, 9, 9]).unwrap();
    assert!(matches!(tls.receive(&mut [], |_| {}), Err(TlsError::Rustls(_))));

    // A server learns nothing: what a stranger says is no text for the log.
    let mut server = ends(false).server();
    server.hold_back(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(server.receive(&mut [], |_| {}), Err(TlsError::Rustls(_))));
}

//! TLS that no library would speak: before, inside and behind the handshake.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use ringgate_core::limits::CONNECT_BODY_BYTES_MAX;
use ringgate_core::wire::{Encoder, Kind};
use ringgate_net::dial::{Trust, client_tls};
use ringgate_net::tls::compact::traffic::{ALERT, APPLICATION_DATA, CONTENT_BYTES_MAX, HANDSHAKE};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::scene::{By, End, Scene, ends};
use super::{Case, case};
use crate::sealing::Sealing;
use crate::support::connect_frame;
use ringgate_sim::Random;

const CHANGE_CIPHER_SPEC: u8 = 20;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_AND_ANSWER: [u8; 5] = [24, 0, 0, 1, 1];

fn config() -> Arc<ClientConfig> {
    client_tls(Trust::Anybody).unwrap()
}

/// A record that nothing protects.
fn bare(content_type: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u16;
    [&[content_type, 3, 3][..], &length.to_be_bytes(), content].concat()
}

/// Sends this, and sees the connection end without the client having ended it; what comes is at most an alert.
fn is_refused(socket: &TcpStream, bytes: &[u8]) {
    // Fails when the gateway had enough before the end.
    let _ = (&*socket).write_all(bytes);
    ends(socket);
}

/// Sends this behind a handshake, then behind a sign-in, and sees the connection end each time.
fn refused_behind(scene: &Scene<'_>, records: impl Fn(&mut Sealing) -> Vec<u8>) {
    for signed_in in [false, true] {
        let mut client = scene.sealing();
        if signed_in {
            sign_in(scene, &mut client);
        }
        let records = records(&mut client);
        is_refused(&client.socket, &records);
    }
}

/// Signs in, and reads something of the answer.
fn sign_in(scene: &Scene<'_>, client: &mut Sealing) {
    let connect = client.data(&connect_frame(&scene.user));
    client.socket.write_all(&connect).unwrap();
    assert!(client.socket.read(&mut [0; 16]).unwrap() > 0);
}

/// Is the connection alive? It answers a Ping with a record.
fn answers(client: &mut Sealing) {
    let mut ping = Vec::new();
    Encoder::empty(&mut ping, Kind::Ping);
    // What came before is read first; then somebody answers.
    client.socket.set_nonblocking(true).unwrap();
    while client.socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    client.socket.set_nonblocking(false).unwrap();
    let ping = client.data(&ping);
    client.socket.write_all(&ping).unwrap();
    assert!(client.socket.read(&mut [0; 16]).unwrap() > 0, "the connection has ended");
}

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        case("random_bytes_before_hello", |scene| {
            for seed in 0..16 {
                let mut random = Random::new(seed);
                let socket = scene.socket();
                let bytes: Vec<u8> = (0..600).map(|_| random.bits() as u8).collect();
                let _ = (&socket).write_all(&bytes);
                let _ = socket.shutdown(Shutdown::Write);
                ends(&socket);
            }
        }),
        case("connect_without_tls", |scene| is_refused(&scene.socket(), &connect_frame(&scene.user))),
        case("nothing_before_hello", |scene| {
            for end in End::ALL {
                end.of(&scene.socket(), true);
            }
        }),
        case("alerts_before_hello", |scene| {
            is_refused(&scene.socket(), &bare(ALERT, &[2, 40]));
            let socket = scene.socket();
            let _ = (&socket).write_all(&bare(ALERT, &[1, 90]).repeat(1000));
            let _ = socket.shutdown(Shutdown::Write);
            ends(&socket);
        }),
        case("application_data_before_hello", |scene| is_refused(&scene.socket(), &bare(APPLICATION_DATA, &[7; 100]))),
        case("change_cipher_spec_before_hello", |scene| {
            is_refused(&scene.socket(), &bare(CHANGE_CIPHER_SPEC, &[1]).repeat(100));
        }),
        case("an_empty_record_before_hello", |scene| is_refused(&scene.socket(), &bare(HANDSHAKE, &[]).repeat(100))),
        case("a_record_longer_than_any_before_hello", |scene| {
            is_refused(&scene.socket(), &[&[HANDSHAKE, 3, 1, 0xff, 0xff][..], &[1; 30_000]].concat());
        }),
        case("a_hello_of_16_mib_is_announced", |scene| {
            let mut bytes = Vec::new();
            for _ in 0..8 {
                let first: &[u8] = if bytes.is_empty() { &[1, 0xff, 0xff, 0xff] } else { &[] };
                bytes.extend(bare(HANDSHAKE, &[first, &[0; 16_000]].concat()));
            }
            is_refused(&scene.socket(), &bytes);
        }),
        case("a_hello_byte_by_byte_in_records", |scene| {
            let mut secured = scene.secured(&config());
            let hello = secured.records(&[]);
            for byte in &hello[5..] {
                secured.socket.write_all(&bare(HANDSHAKE, &[*byte])).unwrap();
            }
            secured.shake_hands();
        }),
        case("half_a_hello", |scene| {
            for end in End::ALL {
                for part in [1, 4, 5, 6, 50, 200] {
                    let mut secured = scene.secured(&config());
                    let hello = secured.records(&[]);
                    secured.socket.write_all(&hello[..part.min(hello.len() - 1)]).unwrap();
                    end.of(&secured.socket, true);
                }
            }
        }),
        case("a_hello_and_no_more", |scene| {
            for end in End::ALL {
                let mut secured = scene.secured(&config());
                let hello = secured.records(&[]);
                secured.socket.write_all(&hello).unwrap();
                // Its answer is on the way.
                assert!(secured.socket.read(&mut [0; 5]).unwrap() > 0);
                end.of(&secured.socket, true);
            }
        }),
        case("two_hellos", |scene| {
            let mut secured = scene.secured(&config());
            let hello = secured.records(&[]);
            is_refused(&secured.socket, &hello.repeat(2));
        }),
        case("a_hello_with_any_byte_changed", |scene| {
            let hello = scene.secured(&config()).records(&[]);
            for at in (0..hello.len()).step_by(7) {
                let mut changed = hello.clone();
                changed[at] ^= 0x55;
                let socket = scene.socket();
                let _ = (&socket).write_all(&changed);
                // Some are good enough for an answer.
                let _ = socket.shutdown(Shutdown::Write);
                ends(&socket);
            }
        }),
        case("garbage_behind_hello", |scene| {
            for content_type in [ALERT, HANDSHAKE, APPLICATION_DATA, 24, 99] {
                let mut secured = scene.secured(&config());
                let hello = secured.records(&[]);
                is_refused(&secured.socket, &[hello, bare(content_type, &[9; 100])].concat());
            }
        }),
        case("change_cipher_specs_behind_hello", |scene| {
            let mut secured = scene.secured(&config());
            let hello = secured.records(&[]);
            is_refused(&secured.socket, &[hello, bare(CHANGE_CIPHER_SPEC, &[1]).repeat(2000)].concat());
        }),
        case("an_alert_behind_hello", |scene| {
            let mut secured = scene.secured(&config());
            let hello = secured.records(&[]);
            is_refused(&secured.socket, &[hello, bare(ALERT, &[2, 42])].concat());
        }),
        case("handshakes_and_nothing_else", |scene| {
            for end in End::ALL {
                for _ in 0..4 {
                    let mut secured = scene.secured(&config());
                    secured.shake_hands();
                    end.of(&secured.socket, true);
                }
            }
        }),
        case("a_session_resumed_with_garbage", |scene| {
            let config = config();
            let mut first = scene.secured(&config);
            first.shake_hands();
            let connect = first.records(&connect_frame(&scene.user));
            first.socket.write_all(&connect).unwrap();
            // The tickets come before the answer.
            while first.tls.process_new_packets().unwrap().plaintext_bytes_to_read() == 0 {
                assert!(first.tls.read_tls(&mut first.socket).unwrap() > 0);
            }
            let resumed = |change: fn(&mut Vec<u8>)| {
                let mut secured = scene.secured(&config);
                let mut hello = secured.records(&[]);
                change(&mut hello);
                let _ = secured.socket.write_all(&hello);
                let _ = secured.socket.shutdown(Shutdown::Write);
                ends(&secured.socket);
            };
            // The binder is last; the ticket before it.
            resumed(|hello| *hello.last_mut().unwrap() ^= 1);
            resumed(|hello| {
                let at = hello.len() - 100;
                hello[at] ^= 1;
            });
            resumed(|hello| hello.truncate(hello.len() - 1));
        }),
        case("a_session_resumed_many_times", |scene| {
            let config = config();
            for _ in 0..12 {
                let mut secured = scene.secured(&config);
                secured.shake_hands();
                let connect = secured.records(&connect_frame(&scene.user));
                secured.socket.write_all(&connect).unwrap();
                while secured.tls.process_new_packets().unwrap().plaintext_bytes_to_read() == 0 {
                    assert!(secured.tls.read_tls(&mut secured.socket).unwrap() > 0);
                }
            }
        }),
        case("a_client_of_tls_1_2", |scene| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider);
            let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(scene.remote.certificate.as_bytes()).unwrap()).unwrap();
            let config = builder.with_root_certificates(roots).with_no_client_auth();
            let config = Arc::new(config);
            for (round, end) in End::ALL.into_iter().enumerate() {
                let mut secured = scene.secured(&config);
                secured.shake_hands();
                let records = secured.records(&connect_frame(&scene.user));
                secured.socket.write_all(&records).unwrap();
                assert!(secured.socket.read(&mut [0; 16]).unwrap() > 0, "an answer");
                match round {
                    // An unencrypted ClientHello: a renegotiation by somebody without keys.
                    0 => is_refused(&secured.socket, &scene.secured(&config).records(&[])),
                    1 => is_refused(&secured.socket, &bare(HANDSHAKE, &[0, 0, 0, 0])),
                    _ => is_refused(&secured.socket, &bare(ALERT, &[1, 100])),
                }
                end.of(&secured.socket, true);
            }
        }),
        case("renegotiation", |scene| {
            refused_behind(scene, |client| {
                let hello = scene.secured(&config()).records(&[]);
                client.record(&hello[5..], HANDSHAKE, 0)
            });
        }),
        case("hello_request", |scene| {
            refused_behind(scene, |client| client.record(&[0, 0, 0, 0], HANDSHAKE, 0));
        }),
        case("a_certificate_that_nobody_asked_for", |scene| {
            refused_behind(scene, |client| client.record(&[11, 0, 0, 4, 0, 0, 0, 0], HANDSHAKE, 0));
        }),
        case("empty_handshake_records", |scene| {
            // RFC 8446 forbids them; rustls overlooks them, compact connections end.
            let mut client = scene.sealing();
            sign_in(scene, &mut client);
            let records: Vec<u8> = (0..500).flat_map(|_| client.record(&[], HANDSHAKE, 0)).collect();
            let _ = client.socket.write_all(&records);
            let _ = client.socket.shutdown(Shutdown::Write);
            ends(&client.socket);
        }),
        case("a_record_of_no_type", |scene| refused_behind(scene, |client| client.record(&[], 0, 100))),
        case("a_record_of_an_unknown_type", |scene| refused_behind(scene, |client| client.record(&[1], 99, 0))),
        case("an_alert_without_protection", |scene| refused_behind(scene, |_| bare(ALERT, &[2, 40]))),
        case("a_record_longer_than_any", |scene| {
            refused_behind(scene, |_| [&[APPLICATION_DATA, 3, 3, 0x48, 1][..], &[1; 20_000]].concat());
        }),
        case("a_record_too_short_for_its_tag", |scene| refused_behind(scene, |_| bare(APPLICATION_DATA, &[1; 15]))),
        case("a_record_that_does_not_decrypt", |scene| refused_behind(scene, |_| bare(APPLICATION_DATA, &[1; 600]))),
        case("a_fatal_alert", |scene| {
            refused_behind(scene, |client| client.record(&[2, 80], ALERT, 0));
        }),
        case("an_alert_of_three_bytes", |scene| {
            refused_behind(scene, |client| client.record(&[1, 0, 0], ALERT, 0));
        }),
        case("an_unfinished_handshake_message_in_padded_records", |scene| {
            for signed_in in [false, true] {
                let mut client = scene.sealing();
                if signed_in {
                    sign_in(scene, &mut client);
                }
                for byte in [11, 0, 255, 255].into_iter().chain(std::iter::repeat_n(7, 200)) {
                    let record = client.record(&[byte], HANDSHAKE, CONTENT_BYTES_MAX - 1);
                    if client.socket.write_all(&record).is_err() {
                        break;
                    }
                }
                ends(&client.socket);
            }
        }),
        case("an_unfinished_handshake_message", |scene| {
            for end in End::ALL {
                let mut client = scene.sealing();
                let record = client.record(&KEY_UPDATE[..3], HANDSHAKE, 3000);
                client.socket.write_all(&record).unwrap();
                end.of(&client.socket, true);
            }
        }),
        case("data_inside_a_handshake_message", |scene| {
            let mut client = scene.sealing();
            let records = [client.record(&KEY_UPDATE[..3], HANDSHAKE, 0), client.data(&connect_frame(&scene.user))];
            is_refused(&client.socket, &records.concat());
        }),
        case("key_updates_one_by_one", |scene| {
            let mut client = scene.sealing();
            sign_in(scene, &mut client);
            for _ in 0..30 {
                let record = client.record(&KEY_UPDATE, HANDSHAKE, 0);
                client.keys.update().unwrap();
                client.socket.write_all(&record).unwrap();
            }
            answers(&mut client);
        }),
        case("a_flood_of_key_updates_to_be_answered_and_nothing_is_read", |scene| {
            let mut client = scene.sealing();
            sign_in(scene, &mut client);
            ringgate_net::shrink_buffers(&client.socket, 4096).unwrap();
            let mut records = Vec::new();
            for _ in 0..2000 {
                records.extend(client.record(&KEY_UPDATE_AND_ANSWER, HANDSHAKE, 0));
                client.keys.update().unwrap();
            }
            // Taken or refused, it ends with its connection.
            let _ = client.socket.write_all(&records);
        }),
        case("two_key_updates_in_one_record", |scene| {
            let mut client = scene.sealing();
            let record = client.record(&KEY_UPDATE.repeat(2), HANDSHAKE, 0);
            is_refused(&client.socket, &record);
        }),
        case("a_key_update_of_a_wrong_value", |scene| {
            let mut client = scene.sealing();
            let record = client.record(&[24, 0, 0, 1, 2], HANDSHAKE, 0);
            is_refused(&client.socket, &record);
        }),
        case("empty_records", |scene| {
            for end in End::ALL {
                let mut client = scene.sealing();
                sign_in(scene, &mut client);
                let records: Vec<u8> = (0..500).flat_map(|_| client.data(&[])).collect();
                let _ = client.socket.write_all(&records);
                end.of(&client.socket, true);
            }
        }),
        case("empty_padded_records_before_connect", |scene| {
            let mut client = scene.sealing();
            for _ in 0..100 {
                let record = client.record(&[], APPLICATION_DATA, CONTENT_BYTES_MAX);
                if client.socket.write_all(&record).is_err() {
                    break;
                }
            }
        }),
        case("connect_in_records_of_one_byte", |scene| {
            let mut client = scene.sealing();
            for byte in connect_frame(&scene.user) {
                let record = client.data(&[byte]);
                client.socket.write_all(&record).unwrap();
            }
            assert!(client.socket.read(&mut [0; 16]).unwrap() > 0, "an answer");
            answers(&mut client);
        }),
        case("a_frame_in_padded_records_of_one_byte", |scene| {
            let mut client = scene.sealing();
            sign_in(scene, &mut client);
            let mut ping = Vec::new();
            Encoder::empty(&mut ping, Kind::Ping);
            for byte in ping.repeat(4) {
                let record = client.record(&[byte], APPLICATION_DATA, CONTENT_BYTES_MAX - 1);
                client.socket.write_all(&record).unwrap();
            }
            answers(&mut client);
        }),
        case("connect_is_announced_in_padded_records", |scene| {
            let mut client = scene.sealing();
            let header = [&(CONNECT_BODY_BYTES_MAX as u32).to_le_bytes()[..], &[1, 0, 0, 0]].concat();
            for byte in header.into_iter().chain([7; 40]) {
                let record = client.record(&[byte], APPLICATION_DATA, CONTENT_BYTES_MAX - 1);
                client.socket.write_all(&record).unwrap();
            }
        }),
        case("half_a_record", |scene| {
            for end in End::ALL {
                for part in [1, 4, 5, 6, 20] {
                    let mut client = scene.sealing();
                    sign_in(scene, &mut client);
                    let record = client.data(&[0, 0, 0, 0, 2, 0, 0, 0]);
                    client.socket.write_all(&record[..part]).unwrap();
                    end.of(&client.socket, true);
                }
            }
        }),
        case("close_notify_in_the_middle_of_a_frame", |scene| {
            for signed_in in [false, true] {
                for part in [1, 7, 8, 9, 60] {
                    let mut client = scene.sealing();
                    if signed_in {
                        sign_in(scene, &mut client);
                    }
                    let frame = [&[100, 0, 0, 0, if signed_in { 3 } else { 1 }, 0, 0, 0][..], &[7; 100]].concat();
                    let records = [client.data(&frame[..part]), client.record(&[1, 0], ALERT, 0)].concat();
                    client.socket.write_all(&records).unwrap();
                    ends(&client.socket);
                }
            }
        }),
        case("frames_behind_close_notify", |scene| {
            let mut client = scene.sealing();
            let records = [client.record(&[1, 0], ALERT, 0), client.data(&connect_frame(&scene.user))].concat();
            is_refused(&client.socket, &records);
        }),
        case("close_notify_twice", |scene| {
            let mut client = scene.sealing();
            let records = [client.record(&[1, 0], ALERT, 0), client.record(&[1, 0], ALERT, 0)].concat();
            is_refused(&client.socket, &records);
        }),
        case("a_replayed_record", |scene| {
            let mut client = scene.sealing();
            let record = client.data(&[0, 0, 0, 0, 10, 0, 0, 0]);
            let mut other = scene.sealing();
            sign_in(scene, &mut other);
            is_refused(&other.socket, &record);
        }),
        case("a_record_out_of_order", |scene| {
            let mut client = scene.sealing();
            let (first, second) = (client.data(&[0, 0, 0, 0]), client.data(&[10, 0, 0, 0]));
            is_refused(&client.socket, &[second, first].concat());
        }),
    ];
    cases.into_iter().map(|case| case.on(|by| by != By::Plain)).collect()
}

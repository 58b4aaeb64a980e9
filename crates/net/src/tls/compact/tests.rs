//! The record layer against a peer that is made of the same keys and may say anything.

use proptest::prelude::*;

use super::traffic::{CIPHERTEXT_BYTES_MAX, Secret, Suite};
use super::*;

const CCS: u8 = 20;

/// The client: seals whatever a test wants, opens what the server says.
struct Peer {
    read: TrafficKeys,
    write: TrafficKeys,
}

fn secret(suite: Suite, byte: u8) -> Secret {
    Secret::new(&vec![byte; suite.secret_bytes()]).unwrap()
}

fn pair(suite: Suite) -> (Compact, Peer) {
    let keys = |byte| TrafficKeys::new(suite, &secret(suite, byte), 0).unwrap();
    (Compact::new(keys(1), keys(2), Vec::new()), Peer { read: keys(2), write: keys(1) })
}

fn each_suite(test: impl Fn(Compact, Peer)) {
    for suite in Suite::ALL {
        let (server, peer) = pair(suite);
        test(server, peer);
    }
}

impl Peer {
    fn say(&mut self, content: &[u8], content_type: u8) -> Vec<u8> {
        self.say_padded(content, &[content_type])
    }

    fn say_padded(&mut self, content: &[u8], trailer: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        self.write.seal(&self.write.context().unwrap(), content, trailer, &mut record).unwrap();
        record
    }

    fn data(&mut self, content: &[u8]) -> Vec<u8> {
        self.say(content, APPLICATION_DATA)
    }

    /// With new keys behind it.
    fn key_update(&mut self, request: u8) -> Vec<u8> {
        let record = self.say(&[24, 0, 0, 1, request], HANDSHAKE);
        self.write.update().unwrap();
        record
    }

    /// What the server's records hold, its key updates followed.
    fn hear(&mut self, mut bytes: &mut [u8]) -> Vec<(u8, Vec<u8>)> {
        let mut heard = Vec::new();
        while !bytes.is_empty() {
            let length = record_bytes(bytes).unwrap().unwrap();
            let (record, rest) = bytes.split_at_mut(length);
            bytes = rest;
            let (content_type, content) = self.read.open(&self.read.context().unwrap(), record).unwrap();
            heard.push((content_type, content.to_vec()));
            if content_type == HANDSHAKE {
                assert_eq!(heard.last().unwrap().1, [24, 0, 0, 1, 0], "an answer requests nothing");
                self.read.update().unwrap();
            }
        }
        heard
    }
}

fn receive(server: &mut Compact, bytes: &[u8]) -> Result<(Vec<u8>, bool), RecordError> {
    let mut plaintext = Vec::new();
    let closed = server.receive(&mut bytes.to_vec(), |more| plaintext.extend_from_slice(more))?;
    Ok((plaintext, closed))
}

fn encrypt(server: &mut Compact, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    server.encrypt(plaintext, &mut out).unwrap();
    out
}

/// These bytes end the connection with this error and its alert, and nothing is taken after it.
fn assert_refused(server: &mut Compact, peer: &mut Peer, bytes: &[u8], error: RecordError) {
    let mut plaintext = Vec::new();
    let result = server.receive(&mut bytes.to_vec(), |more| plaintext.extend_from_slice(more));
    assert_eq!((result, plaintext), (Err(error), Vec::new()), "{bytes:?}");
    assert_eq!(server.has_outgoing(), error.alert().is_some());
    let alert = peer.hear(&mut server.take_outgoing());
    let expected = error.alert().map(|description| (ALERT, vec![FATAL, description]));
    assert_eq!(alert, Vec::from_iter(expected), "{error}");
    assert_eq!(receive(server, &peer.data(b"more")), Err(RecordError::Failed));
    assert_eq!(server.encrypt(b"more", &mut Vec::new()), Err(RecordError::Failed));
    let mut goodbye = Vec::new();
    server.close_notify(&mut goodbye);
    assert!(goodbye.is_empty() && !server.has_outgoing());
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// RFC 8448, 3: the secrets, and the first record of application data and the alert that the client sends.
#[test]
fn the_records_of_rfc_8448() {
    let client = hex("9e 40 64 6c e7 9a 7f 9d c0 5a f8 88 9b ce 65 52 87 5a fa 0b 06 df 00 87 f7 92 eb b7 c1 75 04 a5");
    let server = hex("a1 1a f9 f0 55 31 f8 56 ad 47 11 6b 45 a9 50 32 82 04 b4 f4 4b fb 6b 3a 4b 4f 1f 3f cb 63 16 43");
    let keys = |secret: &[u8], sequence| {
        TrafficKeys::new(Suite::Aes128GcmSha256, &Secret::new(secret).unwrap(), sequence).unwrap()
    };
    // The server has sent a ticket.
    let mut compact = Compact::new(keys(&client, 0), keys(&server, 1), Vec::new());
    let data =
        hex("17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b \
        98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 \
        15 e4");
    let counting: Vec<u8> = (0..50).collect();
    assert_eq!(receive(&mut compact, &data), Ok((counting.clone(), false)));
    let alert = hex("17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3");
    assert_eq!(receive(&mut compact, &alert), Ok((Vec::new(), true)));
    let answer =
        hex("17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc 32 25 d0 5f 82 aa 1b 36 \
        e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2 ab f3 32 54 0d d0 32 e1 67 \
        c2 95 5d");
    assert_eq!(encrypt(&mut compact, &counting), answer);
}

#[test]
fn data_of_every_size_goes_both_ways() {
    each_suite(|mut server, mut peer| {
        for length in [1, 2, 100, 16_383, 16_384, 16_385, 50_000, 0] {
            let data = vec![length as u8; length];
            let records: Vec<u8> = data.chunks(CONTENT_BYTES_MAX).flat_map(|chunk| peer.data(chunk)).collect();
            assert_eq!(receive(&mut server, &records), Ok((data.clone(), false)));
            let mut answer = encrypt(&mut server, &data);
            let heard = peer.hear(&mut answer);
            assert_eq!(heard.iter().flat_map(|(_, content)| content.clone()).collect::<Vec<_>>(), data);
            assert!(heard.iter().all(|(kind, content)| *kind == APPLICATION_DATA && !content.is_empty()));
        }
    });
}

#[test]
fn records_may_come_in_any_pieces() {
    let (_, mut peer) = pair(Suite::Aes128GcmSha256);
    let stream = [peer.data(b"one"), peer.key_update(0), peer.data(b"two"), peer.data(b"three")].concat();
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let (mut server, _) = pair(Suite::Aes128GcmSha256);
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            let heard: Vec<u8> = pieces.iter().flat_map(|piece| receive(&mut server, piece).unwrap().0).collect();
            assert_eq!(heard, b"onetwothree", "in pieces at {first} and {second}");
            assert_eq!(server.incoming.capacity(), 0, "nothing is kept");
        }
    }
    let (mut server, _) = pair(Suite::Aes128GcmSha256);
    let heard: Vec<u8> = stream.iter().flat_map(|byte| receive(&mut server, &[*byte]).unwrap().0).collect();
    assert_eq!(heard, b"onetwothree");
}

#[test]
fn a_record_with_any_bit_changed_is_refused() {
    for suite in Suite::ALL {
        let record = pair(suite).1.data(b"transfer 100");
        for bit in 0..record.len() * 8 {
            let (mut server, mut peer) = pair(suite);
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let length = usize::from(u16::from_be_bytes([changed[3], changed[4]]));
            let error = match bit / 8 {
                0 => RecordError::Unprotected(changed[0]),
                3 | 4 if length > CIPHERTEXT_BYTES_MAX => RecordError::RecordOverflow,
                3 | 4 if length > record.len() - HEADER_BYTES => {
                    // It goes on waiting for the rest, and finds out then.
                    assert_eq!(receive(&mut server, &changed), Ok((Vec::new(), false)));
                    changed = vec![0; length + HEADER_BYTES - changed.len()];
                    RecordError::BadRecordMac
                }
                _ => RecordError::BadRecordMac,
            };
            assert_refused(&mut server, &mut peer, &changed, error);
        }
    }
}

#[test]
fn records_are_taken_once_and_in_order() {
    each_suite(|mut server, mut peer| {
        let [first, second] = [b"1", b"2"].map(|data| peer.data(data));
        assert_eq!(receive(&mut server, &[first, second.clone()].concat()), Ok((b"12".to_vec(), false)));
        assert_refused(&mut server, &mut peer, &second, RecordError::BadRecordMac);
    });
    each_suite(|mut server, mut peer| {
        let [first, _, third] = [b"1", b"2", b"3"].map(|data| peer.data(data));
        assert_eq!(receive(&mut server, &first), Ok((b"1".to_vec(), false)));
        assert_refused(&mut server, &mut peer, &third, RecordError::BadRecordMac);
    });
}

#[test]
fn every_rule_has_its_alert() {
    type Make = fn(&mut Peer) -> Vec<u8>;
    let plain = |content_type: u8, content: &[u8]| [&[content_type, 3, 3, 0, content.len() as u8], content].concat();
    let cases: &[(Make, RecordError, Option<u8>)] = &[
        (|peer| peer.say(&[1], CCS), RecordError::UnexpectedContent(CCS), Some(10)),
        (|peer| peer.say(&[1], 24), RecordError::UnexpectedContent(24), Some(10)),
        (|peer| peer.say(&[], HANDSHAKE), RecordError::UnexpectedContent(HANDSHAKE), Some(10)),
        (|peer| peer.say(&[], ALERT), RecordError::UnexpectedContent(ALERT), Some(10)),
        (|peer| peer.say(&[], 0), RecordError::NoContentType, Some(10)),
        (|peer| peer.say_padded(&[0; 100], &[0]), RecordError::NoContentType, Some(10)),
        (|peer| peer.say(&[2], ALERT), RecordError::WrongLength, Some(50)),
        (|peer| peer.say(&[1, 0, 0], ALERT), RecordError::WrongLength, Some(50)),
        (|peer| peer.say(&[1, 0, 1, 0], ALERT), RecordError::WrongLength, Some(50)),
        (|peer| peer.say(&[2, 40], ALERT), RecordError::PeerAlert(40), None),
        (|peer| peer.say(&[1, 40], ALERT), RecordError::PeerAlert(40), None),
        (|peer| peer.say(&[1, 0, 0, 0], HANDSHAKE), RecordError::UnexpectedHandshake(1), Some(10)),
        (|peer| peer.say(&[11], HANDSHAKE), RecordError::UnexpectedHandshake(11), Some(10)),
        (|peer| peer.say(&[24, 0, 0, 0], HANDSHAKE), RecordError::WrongLength, Some(50)),
        (|peer| peer.say(&[24, 0, 0, 2, 0, 0], HANDSHAKE), RecordError::WrongLength, Some(50)),
        (|peer| peer.say(&[24, 1, 0, 1, 0], HANDSHAKE), RecordError::WrongLength, Some(50)),
        (|peer| peer.say(&[24, 0, 0, 1, 2], HANDSHAKE), RecordError::IllegalKeyUpdate(2), Some(47)),
        (|peer| peer.say(&[24, 0, 0, 1, 255], HANDSHAKE), RecordError::IllegalKeyUpdate(255), Some(47)),
        (|peer| peer.say(&[24, 0, 0, 1, 0, 24], HANDSHAKE), RecordError::Interleaved, Some(10)),
        (|peer| peer.say(&[24, 0, 0, 1, 1, 24, 0, 0, 1, 0], HANDSHAKE), RecordError::Interleaved, Some(10)),
    ];
    for (make, error, alert) in cases {
        each_suite(|mut server, mut peer| {
            let record = make(&mut peer);
            assert_refused(&mut server, &mut peer, &record, *error);
        });
        assert_eq!(error.alert(), *alert);
        assert!(!error.to_string().is_empty());
    }
    let plain_cases = [
        (plain(CCS, &[1]), RecordError::Unprotected(CCS)),
        (plain(ALERT, &[2, 40]), RecordError::Unprotected(ALERT)),
        (plain(HANDSHAKE, &[24, 0, 0, 1, 0]), RecordError::Unprotected(HANDSHAKE)),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), RecordError::Unprotected(b'G')),
        (plain(APPLICATION_DATA, &[]), RecordError::BadRecordMac),
        (plain(APPLICATION_DATA, &[0; 16]), RecordError::BadRecordMac),
        (plain(APPLICATION_DATA, &[0; 17]), RecordError::BadRecordMac),
        (vec![APPLICATION_DATA, 3, 3, 0x41, 1], RecordError::RecordOverflow),
        (vec![APPLICATION_DATA, 3, 3, 0xff, 0xff], RecordError::RecordOverflow),
    ];
    for (bytes, error) in plain_cases {
        let (mut server, mut peer) = pair(Suite::Chacha20Poly1305Sha256);
        assert_refused(&mut server, &mut peer, &bytes, error);
    }
}

/// Any description but two is an error, whatever its level (RFC 8446, 6).
#[test]
fn alerts_end_the_connection() {
    for description in 0..=255 {
        for level in [FATAL, WARNING, 0, 77] {
            let (mut server, mut peer) = pair(Suite::Aes128GcmSha256);
            let record = peer.say(&[level, description], ALERT);
            match description {
                CLOSE_NOTIFY => assert_eq!(receive(&mut server, &record), Ok((Vec::new(), true))),
                USER_CANCELED => assert_eq!(receive(&mut server, &record), Ok((Vec::new(), false))),
                _ => assert_refused(&mut server, &mut peer, &record, RecordError::PeerAlert(description)),
            }
        }
    }
}

#[test]
fn what_follows_close_notify_is_ignored_and_answers_still_go() {
    each_suite(|mut server, mut peer| {
        let bytes = [peer.data(b"last"), peer.say(&[1, 0], ALERT), peer.data(b"late"), b"garbage".to_vec()].concat();
        assert_eq!(receive(&mut server, &bytes), Ok((b"last".to_vec(), true)));
        assert_eq!(receive(&mut server, b"more garbage"), Ok((Vec::new(), true)));
        let mut out = encrypt(&mut server, b"answer");
        server.close_notify(&mut out);
        server.close_notify(&mut out);
        let goodbye = (ALERT, vec![WARNING, CLOSE_NOTIFY]);
        assert_eq!(peer.hear(&mut out), [(APPLICATION_DATA, b"answer".to_vec()), goodbye]);
    });
}

#[test]
fn padding_is_taken_off() {
    each_suite(|mut server, mut peer| {
        for (content, padding) in [(0, 1), (5, 1), (5, 16_379), (0, 16_384), (16_384, 0), (16_383, 1)] {
            let (content, trailer) = (vec![7; content], [vec![APPLICATION_DATA], vec![0; padding]].concat());
            let record = peer.say_padded(&content, &trailer);
            assert_eq!(receive(&mut server, &record), Ok((content, false)));
        }
    });
}

/// The sealing side has no way to make this record; it is put together here.
#[test]
fn a_record_of_too_much_content_is_refused() {
    for (length, error) in [
        (1 << 14, None),
        ((1 << 14) + 1, Some(RecordError::RecordOverflow)),
        ((1 << 14) + 239, Some(RecordError::RecordOverflow)),
    ] {
        let (mut server, mut peer) = pair(Suite::Aes128GcmSha256);
        let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_128_GCM, peer.write.key_bytes()).unwrap();
        let mut body = vec![9; length];
        body.push(APPLICATION_DATA);
        let sealed = (body.len() + 16).to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, sealed[6], sealed[7]];
        let nonce = peer.write.next_nonce().unwrap();
        let aad = aws_lc_rs::aead::Aad::from(header);
        aws_lc_rs::aead::LessSafeKey::new(key).seal_in_place_append_tag(nonce, aad, &mut body).unwrap();
        let record = [&header[..], &body].concat();
        match error {
            Some(error) => assert_refused(&mut server, &mut peer, &record, error),
            None => assert_eq!(receive(&mut server, &record).map(|(data, _)| data.len()), Ok(length)),
        }
    }
}

#[test]
fn key_updates_change_the_keys_of_one_direction() {
    each_suite(|mut server, mut peer| {
        assert_eq!(receive(&mut server, &peer.key_update(0)), Ok((Vec::new(), false)));
        assert!(!server.has_outgoing(), "nothing was requested");
        assert_eq!(receive(&mut server, &peer.data(b"new keys")), Ok((b"new keys".to_vec(), false)));
        assert_eq!(peer.hear(&mut encrypt(&mut server, b"old keys")), [(APPLICATION_DATA, b"old keys".to_vec())]);
        assert_eq!((server.read.sequence(), server.write.sequence()), (1, 1));
    });
    // With the old keys nothing opens any more.
    each_suite(|mut server, mut peer| {
        let update = peer.say(&[24, 0, 0, 1, 0], HANDSHAKE);
        let old = peer.data(b"old keys");
        assert_eq!(receive(&mut server, &update), Ok((Vec::new(), false)));
        assert_refused(&mut server, &mut peer, &old, RecordError::BadRecordMac);
    });
}

#[test]
fn one_answer_for_any_number_of_requested_key_updates() {
    each_suite(|mut server, mut peer| {
        let updates = [peer.key_update(1), peer.key_update(0), peer.key_update(1), peer.data(b"x")].concat();
        assert_eq!(receive(&mut server, &updates), Ok((b"x".to_vec(), false)));
        assert!(server.has_outgoing());
        let answer = (HANDSHAKE, vec![24, 0, 0, 1, 0]);
        // It goes first, and what follows has the new keys.
        assert_eq!(peer.hear(&mut encrypt(&mut server, b"y")), [answer.clone(), (APPLICATION_DATA, b"y".to_vec())]);
        assert!(!server.has_outgoing());
        assert_eq!(receive(&mut server, &peer.key_update(1)), Ok((Vec::new(), false)));
        assert_eq!(peer.hear(&mut server.take_outgoing()), [answer], "or alone");
        assert_eq!(peer.hear(&mut encrypt(&mut server, b"z")), [(APPLICATION_DATA, b"z".to_vec())]);
    });
}

#[test]
fn a_key_update_may_be_fragmented_but_nothing_comes_between() {
    const UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
    for parts in 0..16u8 {
        // Bit n: a new record begins behind byte n.
        let mut records = vec![Vec::new()];
        for (index, byte) in UPDATE.into_iter().enumerate() {
            records.last_mut().unwrap().push(byte);
            if parts >> index & 1 == 1 {
                records.push(Vec::new());
            }
        }
        each_suite(|mut server, mut peer| {
            let bytes: Vec<u8> = records.iter().flat_map(|record| peer.say(record, HANDSHAKE)).collect();
            peer.write.update().unwrap();
            let bytes = [bytes, peer.data(b"new keys")].concat();
            assert_eq!(receive(&mut server, &bytes), Ok((b"new keys".to_vec(), false)));
        });
        let Some((first, _)) = records.split_first().filter(|(_, rest)| !rest.is_empty()) else { continue };
        for (content, content_type) in [(&b"data"[..], APPLICATION_DATA), (b"", APPLICATION_DATA), (&[1, 0], ALERT)] {
            each_suite(|mut server, mut peer| {
                let part = peer.say(first, HANDSHAKE);
                assert_eq!(receive(&mut server, &part), Ok((Vec::new(), false)));
                let between = peer.say(content, content_type);
                assert_refused(&mut server, &mut peer, &between, RecordError::Interleaved);
            });
        }
    }
}

#[test]
fn quiet_records_are_bounded_until_data_comes() {
    type Make = fn(&mut Peer) -> Vec<u8>;
    let quiet: [Make; 4] =
        [|peer| peer.data(b""), |peer| peer.key_update(0), |peer| peer.key_update(1), |peer| peer.say(&[1, 90], ALERT)];
    for make in quiet {
        each_suite(|mut server, mut peer| {
            for _ in 0..2 {
                for _ in 0..QUIET_RECORDS_MAX {
                    assert_eq!(receive(&mut server, &make(&mut peer)), Ok((Vec::new(), false)));
                }
                assert_eq!(receive(&mut server, &peer.data(b"x")), Ok((b"x".to_vec(), false)));
            }
            peer.hear(&mut server.take_outgoing());
            for _ in 0..QUIET_RECORDS_MAX {
                receive(&mut server, &make(&mut peer)).unwrap();
            }
            peer.hear(&mut server.take_outgoing());
            let record = make(&mut peer);
            assert_refused(&mut server, &mut peer, &record, RecordError::TooManyQuietRecords);
        });
    }
}

#[test]
fn keys_are_changed_before_they_have_sealed_too_much() {
    each_suite(|mut server, mut peer| {
        server.write.set_sequence(RECORDS_PER_KEY_MAX - 2);
        peer.read.set_sequence(RECORDS_PER_KEY_MAX - 2);
        let mut out = encrypt(&mut server, &vec![7; 4 * CONTENT_BYTES_MAX]);
        let heard: Vec<u8> = peer.hear(&mut out).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(heard, [APPLICATION_DATA, APPLICATION_DATA, HANDSHAKE, APPLICATION_DATA, APPLICATION_DATA]);
        assert_eq!(server.write.sequence(), 2);
    });
}

#[test]
fn sequence_numbers_do_not_wrap() {
    each_suite(|mut server, mut peer| {
        for keys in [&mut server.read, &mut peer.write] {
            keys.set_sequence(u64::MAX - 1);
        }
        assert_eq!(receive(&mut server, &peer.data(b"x")), Ok((b"x".to_vec(), false)));
        assert_eq!(receive(&mut server, &pair(Suite::Aes128GcmSha256).1.data(b"x")), Err(RecordError::Internal));
    });
}

#[test]
fn what_the_handshake_left_goes_first() {
    let keys = |byte| TrafficKeys::new(Suite::Aes128GcmSha256, &secret(Suite::Aes128GcmSha256, byte), 0).unwrap();
    let mut server = Compact::new(keys(1), keys(2), b"ticket".to_vec());
    assert!(server.has_outgoing());
    let mut out = encrypt(&mut server, b"x");
    assert_eq!(&out[..6], b"ticket");
    let mut peer = Peer { read: keys(2), write: keys(1) };
    assert_eq!(peer.hear(&mut out[6..]), [(APPLICATION_DATA, b"x".to_vec())]);
    assert!(!server.has_outgoing());
}

#[test]
fn secrets_have_the_length_of_their_hash() {
    for suite in Suite::ALL {
        for length in [0, 1, suite.secret_bytes() - 1, suite.secret_bytes() + 1, 64] {
            let keys = Secret::new(&vec![1; length]).and_then(|secret| TrafficKeys::new(suite, &secret, 0));
            assert!(keys.is_none(), "{suite:?} with {length} bytes");
        }
    }
}

/// What a peer may do.
#[derive(Clone, Debug)]
enum Act {
    Data(Vec<u8>, u8),
    KeyUpdate(bool),
    Cancel,
    ServerWrites(Vec<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (prop::collection::vec(any::<u8>(), 0..400), any::<u8>()).prop_map(|(data, padding)| Act::Data(data, padding)),
        1 => any::<bool>().prop_map(Act::KeyUpdate),
        1 => Just(Act::Cancel),
        2 => prop::collection::vec(any::<u8>(), 0..40_000).prop_map(Act::ServerWrites),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever two honest sides do, in whatever pieces it arrives, both hear what the other has said.
    #[test]
    fn honest_peers_understand_each_other(
        suite in 0..3usize,
        acts in prop::collection::vec(act(), 0..30),
        cuts in prop::collection::vec(1..600usize, 1..20),
    ) {
        let (mut server, mut peer) = pair(Suite::ALL[suite]);
        let (mut said, mut heard) = (Vec::new(), Vec::new());
        let mut cuts = cuts.into_iter().cycle();
        for act in acts {
            let records = match act {
                Act::Data(data, padding) => {
                    said.extend_from_slice(&data);
                    peer.say_padded(&data, &[vec![APPLICATION_DATA], vec![0; padding.into()]].concat())
                }
                Act::KeyUpdate(request) => peer.key_update(request.into()),
                Act::Cancel => peer.say(&[1, 90], ALERT),
                Act::ServerWrites(data) => {
                    let mut out = encrypt(&mut server, &data);
                    let contents = peer.hear(&mut out).into_iter().filter(|(kind, _)| *kind == APPLICATION_DATA);
                    prop_assert_eq!(contents.flat_map(|(_, content)| content).collect::<Vec<_>>(), data);
                    continue;
                }
            };
            let mut rest = &records[..];
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                heard.extend(receive(&mut server, piece).unwrap().0);
                rest = later;
            }
        }
        prop_assert_eq!(said, heard);
    }

    /// Bytes that nobody sealed never become plaintext.
    #[test]
    fn foreign_bytes_are_refused(suite in 0..3usize, bytes in prop::collection::vec(any::<u8>(), 0..2000), header in any::<bool>()) {
        let (mut server, _) = pair(Suite::ALL[suite]);
        let mut bytes = bytes;
        if header && bytes.len() > HEADER_BYTES {
            let length = (bytes.len() - HEADER_BYTES) as u16;
            bytes[..3].copy_from_slice(&[APPLICATION_DATA, 3, 3]);
            bytes[3..5].copy_from_slice(&length.to_be_bytes());
        }
        match receive(&mut server, &bytes) {
            Ok((plaintext, closed)) => prop_assert!(plaintext.is_empty() && !closed),
            Err(error) => prop_assert!(error != RecordError::Internal),
        }
    }
}

//! Each rule of RFC 6455, sections 5 and 7, that concerns frames: kept, broken, and at its bounds.

use super::*;

/// What a decoder has handed on, with the pieces of each message put together.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Message(Message, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

const BYTES_MAX: u32 = 100_000;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Reads a stream cut at every `step` bytes.
fn read_in_steps(peer: Peer, stream: &[u8], step: usize) -> (Vec<Seen>, Result<(), Violation>, Decoder) {
    let mut decoder = Decoder::new(peer, BYTES_MAX);
    let (mut seen, mut begun) = (Vec::new(), Vec::new());
    for part in stream.chunks(step) {
        let result = decoder.read::<Std>(&mut part.to_vec(), |item| match item {
            Item::Data { message, ends, bytes } => {
                begun.extend_from_slice(bytes);
                if ends {
                    seen.push(Seen::Message(message, core::mem::take(&mut begun)));
                }
            }
            Item::Ping(bytes) => seen.push(Seen::Ping(bytes.to_vec())),
            Item::Pong(bytes) => seen.push(Seen::Pong(bytes.to_vec())),
            Item::Close(close) => seen.push(Seen::Close(close.code, close.reason.to_owned())),
        });
        if result.is_err() {
            return (seen, result, decoder);
        }
    }
    (seen, Ok(()), decoder)
}

/// As [`read_in_steps`], at once and byte by byte, which have to agree.
fn read(peer: Peer, stream: &[u8]) -> (Vec<Seen>, Result<(), Violation>) {
    let (seen, result, decoder) = read_in_steps(peer, stream, stream.len().max(1));
    for step in [1, 2, 3, 7] {
        let (other, other_result, other_decoder) = read_in_steps(peer, stream, step);
        assert_eq!((&other, other_result), (&seen, result), "in steps of {step}");
        assert_eq!(other_decoder.is_over(), decoder.is_over());
    }
    assert!(result.is_ok() || decoder.is_over());
    (seen, result)
}

fn violation(stream: &[u8]) -> Violation {
    let (seen, result) = read(Peer::Client, stream);
    assert_eq!(seen, [], "nothing goes before it");
    result.expect_err("a rule is broken")
}

/// A frame of a client.
fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_client_frame(fin, opcode, payload, KEY, &mut out);
    out
}

fn message(message: Message, bytes: &[u8]) -> Seen {
    Seen::Message(message, bytes.to_vec())
}

#[test]
fn examples_of_rfc_6455_5_7_then_read_as_written_there() {
    let hello_masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read(Peer::Client, &hello_masked), (vec![message(Message::Text, b"Hello")], Ok(())));
    assert_eq!(frame(true, Opcode::Text, b"Hello"), hello_masked);
    let hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(read(Peer::Server, &hello), (vec![message(Message::Text, b"Hello")], Ok(())));
    let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(read(Peer::Server, &fragmented), (vec![message(Message::Text, b"Hello")], Ok(())));
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(read(Peer::Server, &ping), (vec![Seen::Ping(b"Hello".to_vec())], Ok(())));
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read(Peer::Client, &pong), (vec![Seen::Pong(b"Hello".to_vec())], Ok(())));
    for (length, header) in [(256, &[0x82, 0x7e, 0x01, 0x00][..]), (65_536, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0])] {
        assert_eq!(*FrameHeader::new(true, Opcode::Binary, length), *header);
        let stream = [header, &vec![7; length]].concat();
        assert_eq!(read(Peer::Server, &stream), (vec![message(Message::Binary, &vec![7; length])], Ok(())));
    }
}

#[test]
fn header_is_encoded_then_its_length_takes_the_fewest_bytes() {
    for (length, bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
        let header = FrameHeader::new(true, Opcode::Binary, length);
        assert_eq!(header.len(), bytes, "{length}");
        let masked = FrameHeader::masked(false, Opcode::Binary, length, KEY);
        assert_eq!((masked.len(), masked.ends_with(&KEY)), (bytes + 4, true), "{length}");
        assert_eq!((header[0], masked[0]), (0x82, 0x02), "the FIN bit");
        assert_eq!(header[1] | 0x80, masked[1], "the bit that says that it is masked");
    }
}

#[test]
fn payload_is_masked_twice_then_it_is_as_it_was() {
    let payload: Vec<u8> = (0..=255).collect();
    for length in [0, 1, 3, 4, 7, 8, 9, 31, 256] {
        for offset in 0..8 {
            let mut bytes = payload[..length].to_vec();
            mask(&mut bytes, KEY, offset);
            for (index, byte) in bytes.iter().enumerate() {
                assert_eq!(*byte, payload[index] ^ KEY[(index + offset) % 4], "byte {index} of {length} at {offset}");
            }
            mask(&mut bytes, KEY, offset);
            assert_eq!(bytes, payload[..length]);
        }
    }
}

#[test]
fn reserved_bit_is_set_then_violation() {
    for (first, bits) in [(0xc1, 0b100), (0xa1, 0b010), (0x91, 0b001), (0xf1, 0b111)] {
        assert_eq!(violation(&[first, 0x80, 0, 0, 0, 0]), Violation::ReservedBits(bits));
        // As soon as the first byte is there.
        assert_eq!(violation(&[first]), Violation::ReservedBits(bits));
    }
}

#[test]
fn opcode_is_reserved_then_violation() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(violation(&[0x80 | opcode]), Violation::ReservedOpcode(opcode));
        assert_eq!(violation(&[opcode, 0x80, 0, 0, 0, 0]), Violation::ReservedOpcode(opcode), "a fragment");
    }
}

#[test]
fn clients_frame_is_not_masked_then_violation() {
    assert_eq!(violation(&[0x82, 0x01, 7]), Violation::NotMasked);
    assert_eq!(violation(&[0x88, 0x00]), Violation::NotMasked, "a Close, too");
}

#[test]
fn servers_frame_is_masked_then_violation() {
    assert_eq!(read(Peer::Server, &frame(true, Opcode::Binary, b"x")), (vec![], Err(Violation::Masked)));
}

#[test]
fn length_is_not_minimal_then_violation() {
    for length in [0u16, 1, 125] {
        let stream = [&[0x82, 0xfe][..], &length.to_be_bytes(), &KEY].concat();
        assert_eq!(violation(&stream), Violation::LengthNotMinimal(length.into()));
    }
    for length in [0u64, 125, 126, 65_535] {
        let stream = [&[0x82, 0xff][..], &length.to_be_bytes(), &KEY].concat();
        assert_eq!(violation(&stream), Violation::LengthNotMinimal(length));
    }
    let stream = [&[0x82, 0x7e, 0, 125][..], &[7; 125]].concat();
    assert_eq!(read(Peer::Server, &stream).1, Err(Violation::LengthNotMinimal(125)), "of a server, too");
}

#[test]
fn length_has_its_highest_bit_then_violation() {
    for length in [1u64 << 63, u64::MAX] {
        let stream = [&[0x82, 0xff][..], &length.to_be_bytes(), &KEY].concat();
        assert_eq!(violation(&stream), Violation::LengthTooLarge);
    }
}

#[test]
fn control_frame_is_a_fragment_then_violation() {
    for opcode in [Opcode::Close, Opcode::Ping, Opcode::Pong] {
        let mut stream = frame(true, opcode, b"");
        stream[0] &= 0x7f;
        assert_eq!(violation(&stream), Violation::FragmentedControl);
    }
}

#[test]
fn control_frame_has_125_bytes_then_it_is_read_and_one_more_is_a_violation() {
    let (seen, result) = read(Peer::Client, &frame(true, Opcode::Ping, &[7; 125]));
    assert_eq!((seen, result), (vec![Seen::Ping(vec![7; 125])], Ok(())));
    for opcode in [0x88, 0x89, 0x8a] {
        let stream = [&[opcode, 0xfe][..], &126u16.to_be_bytes(), &KEY].concat();
        assert_eq!(violation(&stream), Violation::ControlTooLong(126));
        let stream = [&[opcode, 0xff][..], &65_536u64.to_be_bytes(), &KEY].concat();
        assert_eq!(violation(&stream), Violation::ControlTooLong(65_536));
    }
}

#[test]
fn nothing_is_to_be_continued_then_violation() {
    assert_eq!(violation(&frame(true, Opcode::Continuation, b"x")), Violation::NothingToContinue);
    assert_eq!(violation(&frame(false, Opcode::Continuation, b"")), Violation::NothingToContinue);
    let stream = [frame(true, Opcode::Binary, b"whole"), frame(true, Opcode::Continuation, b"x")].concat();
    let (seen, result) = read(Peer::Client, &stream);
    assert_eq!((seen, result), (vec![message(Message::Binary, b"whole")], Err(Violation::NothingToContinue)));
}

#[test]
fn message_begins_within_another_then_violation() {
    for opcode in [Opcode::Text, Opcode::Binary] {
        let stream = [frame(false, Opcode::Text, b"a"), frame(true, opcode, b"b")].concat();
        assert_eq!(violation(&stream), Violation::MessageNotFinished);
    }
}

#[test]
fn message_comes_in_fragments_with_control_frames_between_then_both_are_read_in_order() {
    let stream = [
        frame(false, Opcode::Text, b"a"),
        frame(true, Opcode::Ping, b"1"),
        frame(false, Opcode::Continuation, b""),
        frame(true, Opcode::Pong, b""),
        frame(false, Opcode::Continuation, b"b"),
        frame(true, Opcode::Continuation, b""),
        frame(true, Opcode::Binary, b""),
    ]
    .concat();
    let seen = vec![
        Seen::Ping(b"1".to_vec()),
        Seen::Pong(vec![]),
        message(Message::Text, b"ab"),
        message(Message::Binary, b""),
    ];
    assert_eq!(read(Peer::Client, &stream), (seen, Ok(())));
}

#[test]
fn fragments_are_empty_then_128_are_taken_and_one_more_is_a_violation() {
    let fragments = |empty: usize| {
        let empty = frame(false, Opcode::Continuation, b"").repeat(empty);
        [frame(false, Opcode::Binary, b"x"), empty, frame(true, Opcode::Continuation, b"")].concat()
    };
    let most = fragments(EMPTY_FRAGMENTS_MAX.into());
    // Each message has as many.
    let seen = vec![message(Message::Binary, b"x"); 2];
    assert_eq!(read(Peer::Client, &[most.clone(), most].concat()), (seen, Ok(())));
    assert_eq!(violation(&fragments(usize::from(EMPTY_FRAGMENTS_MAX) + 1)), Violation::TooManyEmptyFragments);
}

#[test]
fn message_is_as_long_as_allowed_then_it_is_read_and_one_more_byte_is_a_violation() {
    let most = vec![7; BYTES_MAX as usize];
    let whole = frame(true, Opcode::Binary, &most);
    let (first, second) = most.split_at(40_000);
    let parts = [frame(false, Opcode::Binary, first), frame(true, Opcode::Continuation, second)].concat();
    for stream in [whole, parts] {
        let (seen, result, _) = read_in_steps(Peer::Client, &stream, 4096);
        assert_eq!((seen, result), (vec![message(Message::Binary, &most)], Ok(())));
    }
    let too_long = Violation::MessageTooLong(BYTES_MAX);
    // The header alone tells, before any byte of it has come.
    let header = FrameHeader::masked(true, Opcode::Binary, BYTES_MAX as usize + 1, KEY);
    assert_eq!(violation(&header), too_long);
    let huge = [&[0x82, 0xff][..], &(u64::MAX >> 1).to_be_bytes(), &KEY].concat();
    assert_eq!(violation(&huge), too_long);
    let continued = FrameHeader::masked(true, Opcode::Continuation, BYTES_MAX as usize - 1, KEY);
    assert_eq!(violation(&[frame(false, Opcode::Binary, b"ab"), continued.to_vec()].concat()), too_long);
}

#[test]
fn text_is_utf8_then_it_is_read_wherever_it_is_cut() {
    let text = "κόσμε, 你好, 🦀 and \u{10ffff}\u{0}";
    for cut in 0..=text.len() {
        let (first, second) = text.as_bytes().split_at(cut);
        let stream = [frame(false, Opcode::Text, first), frame(true, Opcode::Continuation, second)].concat();
        let (seen, result, _) = read_in_steps(Peer::Client, &stream, 5);
        assert_eq!((seen, result), (vec![message(Message::Text, text.as_bytes())], Ok(())), "cut at {cut}");
    }
}

#[test]
fn text_is_not_utf8_then_violation_at_its_first_impossible_byte() {
    let cases: [(&[u8], usize); 8] = [
        (b"\xff", 1),
        (b"abc\x80", 4),
        // An overlong form, a surrogate, beyond the last character: the second byte tells.
        (b"\xc0\xaf", 1),
        (b"\xe0\x80\x80", 2),
        (b"\xed\xa0\x80", 2),
        (b"\xf4\x90\x80\x80", 2),
        (b"\xf0\x9f\xa6\x41", 4),
        (b"ab\xce\xce", 4),
    ];
    for (text, tells) in cases {
        let stream = frame(true, Opcode::Text, &[text, b"more"].concat());
        assert_eq!(violation(&stream), Violation::TextNotUtf8, "{text:?}");
        // Nothing behind that byte is needed.
        let (header, payload) = stream.split_at(6);
        let (before, at) = (&payload[..tells - 1], &payload[tells - 1..tells]);
        assert_eq!(read(Peer::Client, &[header, before].concat()).1, Ok(()), "{text:?}");
        assert_eq!(violation(&[header, before, at].concat()), Violation::TextNotUtf8, "{text:?}");
    }
    assert_eq!(violation(&frame(true, Opcode::Text, b"\xf0\x9f\xa6")), Violation::TextNotUtf8, "its end is missing");
    let cut = [frame(false, Opcode::Text, b"\xf0\x9f"), frame(true, Opcode::Continuation, b"")].concat();
    assert_eq!(violation(&cut), Violation::TextNotUtf8);
    // A message that was not finished has no part in the next one; bytes need not be UTF-8.
    let stream = [frame(true, Opcode::Binary, b"\xf0\x9f"), frame(true, Opcode::Text, b"x")].concat();
    assert_eq!(read(Peer::Client, &stream).1, Ok(()));
}

#[test]
fn close_comes_then_it_is_the_last_item() {
    let mut body = Vec::new();
    append_close(code::GOING_AWAY, "tab closed", &mut body);
    let stream = [frame(true, Opcode::Close, &body), frame(true, Opcode::Ping, b"late"), vec![0xff; 9]].concat();
    let close = Seen::Close(Some(1001), "tab closed".to_owned());
    assert_eq!(read(Peer::Client, &stream), (vec![close], Ok(())));
    // Within the fragments of a message, which then never ends.
    let stream = [frame(false, Opcode::Text, b"a"), frame(true, Opcode::Close, b"")].concat();
    assert_eq!(read(Peer::Client, &stream), (vec![Seen::Close(None, String::new())], Ok(())));
}

#[test]
fn close_code_may_be_sent_then_it_is_read_and_every_other_is_a_violation() {
    let mut allowed = 0;
    for code in 0..=u16::MAX {
        let body = code.to_be_bytes();
        let result = read_in_steps(Peer::Client, &frame(true, Opcode::Close, &body), 99).1;
        if matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999) {
            assert_eq!(result, Ok(()), "{code}");
            allowed += 1;
        } else {
            assert_eq!(result, Err(Violation::CloseCode(code)));
        }
    }
    assert_eq!(allowed, 4 + 7 + 2000);
}

#[test]
fn close_body_is_not_well_formed_then_violation() {
    assert_eq!(violation(&frame(true, Opcode::Close, &[3])), Violation::CloseBodyOfOneByte);
    let reason = [&1000u16.to_be_bytes()[..], b"\xff"].concat();
    assert_eq!(violation(&frame(true, Opcode::Close, &reason)), Violation::CloseReasonNotUtf8);
    let cut = [&1000u16.to_be_bytes()[..], b"\xf0\x9f"].concat();
    assert_eq!(violation(&frame(true, Opcode::Close, &cut)), Violation::CloseReasonNotUtf8);
}

#[test]
fn close_is_encoded_then_the_reason_has_123_bytes_at_most_and_whole_characters() {
    let body = |code, reason: &str| {
        let mut out = Vec::new();
        append_close(code, reason, &mut out);
        out
    };
    assert_eq!(body(1000, ""), [0x03, 0xe8]);
    assert_eq!(body(4500, "taken over"), [&4500u16.to_be_bytes()[..], b"taken over"].concat());
    assert_eq!(body(1013, &"x".repeat(200)).len(), CONTROL_BYTES_MAX);
    // The 123rd byte is in the middle of a character.
    assert_eq!(body(1000, &"é".repeat(100)).len(), CONTROL_BYTES_MAX - 1);
    assert_eq!(body(1005, "ignored"), [], "no status is no body");
    for reserved in [0, 1004, 1006, 1015, 2999, 5000] {
        assert_eq!(body(reserved, ""), 1011u16.to_be_bytes(), "{reserved}");
    }
}

#[test]
fn rule_is_broken_then_nothing_is_read_any_more() {
    let mut decoder = Decoder::new(Peer::Client, BYTES_MAX);
    assert_eq!(decoder.read::<Std>(&mut [0x83], |_| panic!("no item")), Err(Violation::ReservedOpcode(3)));
    let mut ping = frame(true, Opcode::Ping, b"x");
    assert_eq!(decoder.read::<Std>(&mut ping, |_| panic!("no item")), Ok(()));
    assert!(decoder.is_over());
}

#[test]
fn violations_are_told_then_with_the_codes_of_rfc_6455_7_4_1_and_sentences_that_fit() {
    let cases = [
        (Violation::ReservedBits(7), 1002),
        (Violation::ReservedOpcode(15), 1002),
        (Violation::NotMasked, 1002),
        (Violation::Masked, 1002),
        (Violation::LengthNotMinimal(65_535), 1002),
        (Violation::LengthTooLarge, 1002),
        (Violation::FragmentedControl, 1002),
        (Violation::ControlTooLong(u64::MAX), 1002),
        (Violation::NothingToContinue, 1002),
        (Violation::MessageNotFinished, 1002),
        (Violation::TooManyEmptyFragments, 1008),
        (Violation::MessageTooLong(u32::MAX), 1009),
        (Violation::TextNotUtf8, 1007),
        (Violation::CloseBodyOfOneByte, 1002),
        (Violation::CloseCode(65_535), 1002),
        (Violation::CloseReasonNotUtf8, 1007),
    ];
    let mut sentences = std::collections::BTreeSet::new();
    for (violation, code) in cases {
        assert_eq!(violation.close_code(), code, "{violation}");
        assert!(may_be_sent(code));
        let sentence = violation.to_string();
        assert!((10..=REASON_BYTES_MAX).contains(&sentence.len()), "{sentence}: {} bytes", sentence.len());
        assert!(sentences.insert(sentence), "{violation} has a sentence of its own");
    }
}

#[test]
fn peer_begins_and_does_not_end_then_few_bytes_are_kept() {
    // A control frame is kept as a whole; what a message has brought is handed on at once.
    let mut ping = frame(true, Opcode::Ping, &[7; 125]);
    ping.pop();
    let (seen, result, decoder) = read_in_steps(Peer::Client, &ping, 3);
    assert_eq!((seen, result, decoder.is_over()), (vec![], Ok(()), false));
    let mut binary = frame(true, Opcode::Binary, &[7; 1000]);
    binary.truncate(500);
    let mut decoder = Decoder::new(Peer::Client, BYTES_MAX);
    let mut handed_on = 0;
    let result = decoder.read::<Std>(&mut binary, |item| match item {
        Item::Data { message: Message::Binary, ends: false, bytes } => handed_on += bytes.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!((result, handed_on), (Ok(()), 500 - 8));
}

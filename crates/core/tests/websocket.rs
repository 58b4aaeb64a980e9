//! The WebSocket decoder beside `tungstenite`: streams of frames, whole or damaged and cut anywhere, mean the same to both.
//!
//! Known differences. Ours refuses lengths that are not in their shortest form (RFC 6455, 5.2, a must), and ends at the first byte
//! that breaks a rule, where tungstenite waits for the end of the frame or of the text. A close code that may not be sent is an error
//! here; tungstenite reports a Close with 1002 in its place.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use ringgate_core::wire::ws::{
    Decoder, FrameHeader, Item, Message, Opcode, Peer, Std, Violation, append_client_frame, append_close,
};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

const BYTES_MAX: u32 = 3000;

/// What a reader has made of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// A Close has come.
    Closed,
    /// The stream breaks a rule.
    Refused,
    /// The stream ends before either.
    Open,
}

fn ours(peer: Peer, stream: &[u8], cuts: &[usize]) -> (Vec<Seen>, Result<(), Violation>, End) {
    let mut decoder = Decoder::new(peer, BYTES_MAX);
    let (mut seen, mut begun) = (Vec::new(), Vec::new());
    for mut part in cut(stream, cuts) {
        let result = decoder.read::<Std>(&mut part, |item| match item {
            Item::Data { message, ends, bytes } => {
                begun.extend_from_slice(bytes);
                if ends {
                    let whole = std::mem::take(&mut begun);
                    seen.push(if message == Message::Text { Seen::Text(whole) } else { Seen::Binary(whole) });
                }
            }
            Item::Ping(bytes) => seen.push(Seen::Ping(bytes.to_vec())),
            Item::Pong(bytes) => seen.push(Seen::Pong(bytes.to_vec())),
            Item::Close(close) => seen.push(Seen::Close(close.code.map(|code| (code, close.reason.to_owned())))),
        });
        if result.is_err() {
            return (seen, result, End::Refused);
        }
    }
    (seen, Ok(()), if decoder.is_over() { End::Closed } else { End::Open })
}

fn theirs(role: Role, stream: &[u8], cuts: &[usize]) -> (Vec<Seen>, End) {
    let config =
        WebSocketConfig::default().max_message_size(Some(BYTES_MAX as usize)).max_frame_size(Some(BYTES_MAX as usize));
    let parts = Parts(cut(stream, cuts).into());
    let mut socket = WebSocket::from_raw_socket(parts, role, Some(config));
    let mut seen = Vec::new();
    loop {
        use tungstenite::error::ProtocolError;
        use tungstenite::{Error, Message};
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => seen.push(Seen::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => seen.push(Seen::Pong(bytes.to_vec())),
            Ok(Message::Close(close)) => {
                let close = close.map(|close| (u16::from(close.code), close.reason.to_string()));
                if close.as_ref().is_some_and(|(_, reason)| reason == "Protocol violation") {
                    return (seen, End::Refused);
                }
                seen.push(Seen::Close(close));
                return (seen, End::Closed);
            }
            Ok(Message::Frame(frame)) => panic!("{frame:?}"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return (seen, End::Open),
            Err(Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(_)) => return (seen, End::Refused),
            Err(other) => panic!("{other}"),
        }
    }
}

/// A stream in parts of these lengths, over and over.
fn cut(stream: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let (mut rest, mut parts) = (stream, Vec::new());
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, behind) = rest.split_at((*length).min(rest.len()));
        parts.push(part.to_vec());
        rest = behind;
    }
    parts
}

/// A socket that brings one part for each read, then its end, and takes what is written.
struct Parts(VecDeque<Vec<u8>>);

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(part) = self.0.front_mut() else { return Ok(0) };
        let length = part.len().min(buffer.len());
        buffer[..length].copy_from_slice(&part[..length]);
        part.drain(..length);
        if part.is_empty() {
            self.0.pop_front();
        }
        Ok(length)
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Frames as (opcode, FIN, payload), in an order that is right.
type Frames = Vec<(Opcode, bool, Vec<u8>)>;

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 120..130), 1 => vec(any::<u8>(), 0..1500)]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<char>(), 0..30).prop_map(|text| text.into_iter().collect::<String>().into_bytes()),
        // Nearly always not UTF-8.
        1 => vec(any::<u8>(), 1..8),
    ]
}

fn control() -> impl Strategy<Value = (Opcode, bool, Vec<u8>)> {
    let opcode = prop_oneof![Just(Opcode::Ping), Just(Opcode::Pong)];
    (opcode, vec(any::<u8>(), 0..=125)).prop_map(|(opcode, payload)| (opcode, true, payload))
}

/// A message in fragments, with control frames between them.
fn message() -> impl Strategy<Value = Frames> {
    let whole = prop_oneof![
        payload().prop_map(|payload| (Opcode::Binary, payload)),
        text().prop_map(|text| (Opcode::Text, text)),
    ];
    let between = vec(control(), 0..2);
    (whole, vec((any::<prop::sample::Index>(), between), 0..4)).prop_map(|((opcode, payload), cuts)| {
        let (mut rest, mut frames, mut opcode) = (&payload[..], Frames::new(), opcode);
        for (at, between) in cuts {
            let (part, behind) = rest.split_at(at.index(rest.len() + 1));
            frames.push((opcode, false, part.to_vec()));
            frames.extend(between);
            (rest, opcode) = (behind, Opcode::Continuation);
        }
        frames.push((opcode, true, rest.to_vec()));
        frames
    })
}

fn close() -> impl Strategy<Value = Frames> {
    let code = prop_oneof![3 => 999u16..1016, 1 => 2990u16..5010, 1 => any::<u16>()];
    let body = prop_oneof![
        (code, vec(any::<char>(), 0..20)).prop_map(|(code, reason)| {
            let reason: String = reason.into_iter().collect();
            let mut body = Vec::new();
            // The body of a code that may be sent, so that the reason is cut where it has to be; then the code itself.
            append_close(1000, &reason, &mut body);
            body[..2].copy_from_slice(&code.to_be_bytes());
            body
        }),
        vec(any::<u8>(), 0..5),
    ];
    body.prop_map(|body| vec![(Opcode::Close, true, body)])
}

fn encode(peer: Peer, frames: &Frames, key: [u8; 4]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (opcode, fin, payload) in frames {
        match peer {
            Peer::Client => append_client_frame(*fin, *opcode, payload, key, &mut stream),
            Peer::Server => {
                stream.extend_from_slice(&FrameHeader::new(*fin, *opcode, payload.len()));
                stream.extend_from_slice(payload);
            }
        }
    }
    stream
}

fn agree(peer: Peer, stream: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    let role = if peer == Peer::Client { Role::Server } else { Role::Client };
    let (our_items, our_result, our_end) = ours(peer, stream, cuts);
    let (their_items, their_end) = theirs(role, stream, cuts);
    if matches!(our_result, Err(Violation::LengthNotMinimal(_))) {
        prop_assert_eq!(&our_items[..], &their_items[..our_items.len()]);
        return Ok(());
    }
    prop_assert_eq!(&our_items, &their_items, "{:?}", our_result);
    let agreed = our_end == their_end || (our_end == End::Refused && their_end == End::Open);
    prop_assert!(agreed, "{our_end:?} with {our_result:?} against {their_end:?}");
    Ok(())
}

fn cases(many: u32) -> ProptestConfig {
    ProptestConfig { cases: many, failure_persistence: None, ..ProptestConfig::default() }
}

fn frames() -> impl Strategy<Value = Frames> {
    let frames = prop_oneof![6 => message(), 2 => control().prop_map(|frame| vec![frame]), 1 => close()];
    vec(frames, 1..6).prop_map(|all| all.concat())
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![Just(Peer::Client), Just(Peer::Server)]
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn frames_are_in_order_then_both_decoders_see_them_however_they_are_cut(
        peer in peer(), frames in frames(), key in any::<[u8; 4]>(), cuts in vec(1usize..200, 1..5)
    ) {
        let stream = encode(peer, &frames, key);
        agree(peer, &stream, &cuts)?;
        agree(peer, &stream, &[1])?;
    }

    #[test]
    fn frames_are_in_no_order_then_both_decoders_agree(
        peer in peer(), frames in frames().prop_shuffle(), key in any::<[u8; 4]>(), cuts in vec(1usize..50, 1..5)
    ) {
        agree(peer, &encode(peer, &frames, key), &cuts)?;
    }

    #[test]
    fn stream_is_damaged_then_both_decoders_agree(
        peer in peer(),
        frames in frames(),
        key in any::<[u8; 4]>(),
        cuts in vec(1usize..200, 1..5),
        damage in vec((any::<prop::sample::Index>(), 0u8..8), 1..4),
        missing in 0usize..4,
    ) {
        let mut stream = encode(peer, &frames, key);
        for (at, bit) in damage {
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
        }
        stream.truncate(stream.len() - missing.min(stream.len()));
        agree(peer, &stream, &cuts)?;
    }

    #[test]
    fn stream_is_noise_then_both_decoders_agree(
        peer in peer(), stream in vec(any::<u8>(), 1..200), cuts in vec(1usize..20, 1..5)
    ) {
        agree(peer, &stream, &cuts)?;
    }
}

//! What the fuzz targets of the core do with their input. Ordinary tests call the same functions: `tests/fuzz_corpus.rs`
//! replays the corpus, `tests/vectors` feeds them mutations of the golden vectors.

use ringgate_core::close::CloseReason;
use ringgate_core::limits::{CONNECT_ROOMS_MAX, NAME_BYTES_MAX, Namespace, Settings, TOKEN_BYTES_MAX, TRACE_BYTES_MAX};
use ringgate_core::transport::Transport;
use ringgate_core::wire::frames::{Connect, History, Presence, Publish, Refresh, Subscribe, Unsubscribe};
use ringgate_core::wire::{
    ClientFrame, Kind, OutOfBounds, ServerFrame, Split, WireError, append_header, is_name, split,
};

use crate::byte_clients::ByteClients;

/// Reads a stream as a gateway reads it and as a client does: nothing panics, and what is read is within bounds.
pub fn frame(bytes: &[u8]) {
    let body_bytes_max = Settings::default().body_bytes_max();
    let mut rest = bytes;
    loop {
        match split(rest, body_bytes_max) {
            Ok(Split::Frame(raw, later)) => {
                assert_eq!(8 + raw.body.len() + later.len(), rest.len());
                match ClientFrame::parse(raw) {
                    Ok(frame) => check_client_frame(&frame, raw.body.len()),
                    Err(error) => assert!(error != WireError::TooBig && !error.label().is_empty()),
                }
                if let Ok(frame) = ServerFrame::parse(raw) {
                    touch_server_frame(&frame);
                }
                rest = later;
            }
            Ok(Split::Incomplete(wanted)) => {
                assert!(wanted > rest.len() && wanted <= 8 + body_bytes_max);
                return;
            }
            Err(error) => {
                use WireError::{BodyLength, ReservedBits, TooBig, UnknownKind};
                let ours = [TooBig, UnknownKind, ReservedBits, BodyLength];
                assert!(ours.contains(&error) && rest.len() >= 8);
                return;
            }
        }
    }
}

/// What `docs/protocol.md` promises of every frame that is accepted.
pub fn check_client_frame(frame: &ClientFrame<'_>, body_bytes: usize) {
    let name_of = |name: &str| assert!(is_name(name) && name.len() <= NAME_BYTES_MAX);
    let topic_of = |topic: &str| name_of(topic.strip_prefix('@').unwrap_or(topic));
    let token_of = |token: &str| assert!((1..=TOKEN_BYTES_MAX).contains(&token.len()));
    match *frame {
        ClientFrame::Connect(Connect { token, device, client, rooms, .. }) => {
            token_of(token);
            name_of(device);
            assert!(client.len() <= NAME_BYTES_MAX && !client.chars().any(char::is_control));
            assert!(rooms.iter().count() <= CONNECT_ROOMS_MAX);
            rooms.iter().for_each(|cursor| name_of(cursor.room));
        }
        ClientFrame::Publish(Publish { topic, payload, trace, .. }) => {
            topic_of(topic);
            assert!(payload.len() < body_bytes);
            let trace = trace.unwrap_or_default();
            assert!(trace.len() <= TRACE_BYTES_MAX && trace.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        ClientFrame::Subscribe(Subscribe { room, .. })
        | ClientFrame::Unsubscribe(Unsubscribe { room, .. })
        | ClientFrame::Presence(Presence { room, .. }) => name_of(room),
        ClientFrame::History(History { topic, .. }) => topic_of(topic),
        ClientFrame::Refresh(Refresh { token, .. }) => token_of(token),
        ClientFrame::OutOfBounds(OutOfBounds { problem, .. }) => assert!(problem.contains(": ")),
        ClientFrame::Ack(_) => assert_eq!(body_bytes, 16),
        ClientFrame::Ping | ClientFrame::Pong | ClientFrame::Disconnect => assert_eq!(body_bytes, 0),
    }
}

/// Reads every field that a client could look at: formatting a table reads all of it.
fn touch_server_frame(frame: &ServerFrame<'_>) {
    assert!(!format!("{frame:?}").is_empty());
}

const CLIENTS: usize = 4;

/// Plays the input as a schedule: what four clients send to a node of two shards, when they read, when letters
/// arrive, how time passes. The node's invariants hold after every step, and nothing is left at the end.
pub fn shard(bytes: &[u8]) {
    let mut world = ByteClients::new(2, CLIENTS, settings());
    let mut input = Input(bytes);
    while let Some(byte) = input.byte() {
        let client = usize::from(byte) % CLIENTS;
        match byte / CLIENTS as u8 % 16 {
            0 => drop(world.open(client, Transport::Plain)),
            1 => drop(world.open(client, Transport::Tls)),
            2 => world.secure(client),
            3 => world.sign_in(client, ["a", "b", "c", "a"][client]),
            // Bytes as they stand, then bodies under a good header: the latter get further.
            4 => world.send(client, input.bytes()),
            5..=8 => {
                let kind = Kind::ALL[usize::from(input.byte().unwrap_or_default()) % Kind::ALL.len()];
                let body = input.bytes();
                let mut frame = Vec::new();
                append_header(&mut frame, kind, body.len());
                frame.extend_from_slice(body);
                world.send(client, &frame);
            }
            9 => world.read(client, 1 + usize::from(input.byte().unwrap_or_default())),
            10 => world.end(client, CloseReason::ConnectionClosed),
            11 => {
                let ms = u64::from(input.byte().unwrap_or_default());
                world.pass(ms * ms);
            }
            12 => drop(world.deliver()),
            13 => drop(world.verify() || world.close()),
            14 => world.settle(),
            _ => {
                if input.byte() == Some(255) {
                    world.drain();
                }
            }
        }
        world.check();
    }
    world.end_all();
}

/// Small bounds, so that short inputs reach them.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.client.outbox_bytes_max = 2048;
    settings.client.outbox_messages_max = 8;
    settings.client.message_bytes_max = 1024;
    settings.client.rooms_max = 3;
    settings.client.requests_in_flight_max = 4;
    settings.client.messages_burst = 200;
    settings.client.messages_rate = 100;
    settings.inbox.in_flight_max = 4;
    settings.inbox.messages_max = 16;
    settings.namespaces = vec![
        Namespace { history_size: 4, join_leave: true, ..Namespace::named("chat") },
        Namespace { history_size: 0, publish_without_subscribe: true, echo: false, ..Namespace::named("c") },
    ];
    settings
}

/// The rest of an input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A length in one byte, 255 for two more, and as many bytes as there still are.
    fn bytes(&mut self) -> &'a [u8] {
        let length = match self.byte().unwrap_or_default() {
            255 => usize::from(u16::from_le_bytes([self.byte().unwrap_or_default(), self.byte().unwrap_or_default()])),
            short => usize::from(short),
        };
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

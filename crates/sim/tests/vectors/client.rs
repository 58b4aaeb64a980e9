//! Frames of a client: what the gateway reads, and what our own client writes.

use ringgate_core::id::{ClientMessageId, Position, Recover};
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use ringgate_core::wire::frames::{History, Presence, Refresh, Subscribe, Unsubscribe};
use ringgate_core::wire::{ClientFrame, Encoder, Kind, OutOfBounds, RoomCursor, Split, schema, split};
use serde_json::{Value, json};

use crate::index::{Vector, vectors};

#[test]
fn are_read_as_the_index_says() {
    for vector in vectors("client_") {
        let Vector { file, bytes, .. } = &vector;
        assert_eq!(shown(bytes), wanted(&vector), "{file}");
    }
}

#[test]
fn are_written_so_that_they_read_the_same() {
    for vector in vectors("client_") {
        let bytes = encode(&vector);
        assert_eq!(shown(&bytes), wanted(&vector), "{}", vector.file);
    }
}

/// What a gateway sees in a frame, in the form of the index.
fn shown(bytes: &[u8]) -> Value {
    let Ok(Split::Frame(raw, [])) = split(bytes, 1 << 17) else { panic!("not one whole frame") };
    match ClientFrame::parse(raw).expect("a frame of a client") {
        ClientFrame::Connect(connect) => json!({
            "request": connect.request,
            "version": connect.version,
            "token": connect.token,
            "device": connect.device,
            "client": connect.client,
            "inbox": connect.inbox.map(shown_position),
            "rooms": connect.rooms.iter().map(|cursor| {
                json!({
                    "room": cursor.room,
                    "since": cursor.since.map(shown_position),
                    "recover": shown_recover(cursor.recover),
                })
            }).collect::<Vec<_>>(),
            "ping_interval_ms": connect.ping_interval_ms,
            "receive_window": connect.receive_window,
        }),
        ClientFrame::Publish(publish) => json!({
            "request": publish.request,
            "topic": publish.topic,
            "client_message_id": {
                "high": publish.client_message_id.high.to_string(),
                "low": publish.client_message_id.low.to_string(),
            },
            "payload": hex(publish.payload),
            "ephemeral": publish.ephemeral,
            "ttl_seconds": publish.ttl_seconds,
            "trace": publish.trace,
        }),
        ClientFrame::Ack(position) => shown_position(position),
        ClientFrame::Subscribe(Subscribe { request, room, since, recover }) => {
            let recover = shown_recover(recover);
            json!({"request": request, "room": room, "since": since.map(shown_position), "recover": recover})
        }
        ClientFrame::Unsubscribe(Unsubscribe { request, room }) => json!({"request": request, "room": room}),
        ClientFrame::Presence(Presence { request, room, limit }) => {
            json!({"request": request, "room": room, "limit": limit})
        }
        ClientFrame::History(History { request, topic, since, before, limit }) => {
            let (since, before) = (since.map(shown_position), before.map(shown_position));
            json!({"request": request, "topic": topic, "since": since, "before": before, "limit": limit})
        }
        ClientFrame::Refresh(Refresh { request, token }) => json!({"request": request, "token": token}),
        ClientFrame::Ping | ClientFrame::Pong | ClientFrame::Disconnect => json!({}),
        ClientFrame::OutOfBounds(OutOfBounds { problem, .. }) => panic!("{problem}"),
    }
}

/// The index's fields, with what the gateway takes an absent one for.
fn wanted(vector: &Vector) -> Value {
    let mut fields = vector.fields().clone();
    let defaults = match vector.kind() {
        Some(Kind::Connect) => json!({"device": "default", "client": "", "rooms": []}),
        Some(Kind::Publish) => json!({"client_message_id": {"high": "0", "low": "0"}, "payload": ""}),
        _ => json!({}),
    };
    for (key, default) in defaults.as_object().into_iter().flatten() {
        if fields[key].is_null() {
            fields[key] = default.clone();
        }
    }
    fields
}

/// Our encoder's bytes for the vector's fields.
fn encode(vector: &Vector) -> Vec<u8> {
    let fields = vector.fields();
    let text = |key: &str| fields[key].as_str().unwrap_or_default();
    let request = number(&fields["request"]) as u32;
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    match vector.kind().expect("a kind") {
        kind @ (Kind::Ping | Kind::ClientPong | Kind::Disconnect) => Encoder::empty(&mut out, kind),
        Kind::Connect => {
            let rooms: Vec<_> = fields["rooms"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|cursor| RoomCursor {
                    room: cursor["room"].as_str().expect("a room"),
                    since: position(&cursor["since"]),
                    recover: recover(&cursor["recover"]),
                })
                .collect();
            let fields = ConnectRequest {
                request,
                version: number(&fields["version"]) as u16,
                token: text("token"),
                device: text("device"),
                client: text("client"),
                inbox: position(&fields["inbox"]),
                rooms: &rooms,
                ping_interval_ms: number(&fields["ping_interval_ms"]) as u32,
                receive_window: number(&fields["receive_window"]) as u32,
            };
            encoder.connect(&mut out, &fields);
        }
        Kind::Publish => {
            let id = &fields["client_message_id"];
            let payload = bytes_of_hex(text("payload"));
            let fields = PublishRequest {
                request,
                topic: text("topic"),
                client_message_id: ClientMessageId { high: number(&id["high"]), low: number(&id["low"]) },
                payload: &payload,
                ephemeral: fields["ephemeral"].as_bool().expect("a flag"),
                ttl_seconds: number(&fields["ttl_seconds"]) as u32,
                trace: fields["trace"].as_str(),
            };
            encoder.publish(&mut out, &fields);
        }
        Kind::Ack => Encoder::ack(&mut out, position(fields).expect("a position")),
        Kind::Subscribe => {
            let (since, recover) = (position(&fields["since"]), recover(&fields["recover"]));
            encoder.subscribe(&mut out, request, RoomCursor { room: text("room"), since, recover });
        }
        Kind::Unsubscribe => encoder.unsubscribe(&mut out, request, text("room")),
        Kind::Presence => encoder.presence(&mut out, request, text("room"), number(&fields["limit"]) as u32),
        Kind::History => {
            let fields = HistoryRequest {
                request,
                topic: text("topic"),
                since: position(&fields["since"]),
                before: position(&fields["before"]),
                limit: number(&fields["limit"]) as u32,
            };
            encoder.history(&mut out, &fields);
        }
        Kind::Refresh => encoder.refresh(&mut out, request, text("token")),
        kind => panic!("{kind:?} is no frame of a client"),
    }
    out
}

fn shown_recover(recover: Recover) -> u8 {
    schema::Recover::from(recover).0
}

fn recover(value: &Value) -> Recover {
    if number(value) == 1 { Recover::Best } else { Recover::Exact }
}

pub(crate) fn shown_position(position: Position) -> Value {
    json!({"epoch": position.epoch.to_string(), "offset": position.offset.to_string()})
}

pub(crate) fn position(value: &Value) -> Option<Position> {
    value.is_object().then(|| Position { epoch: number(&value["epoch"]), offset: number(&value["offset"]) })
}

/// A number, or one that is written as text since it has 64 bits; 0 when absent.
pub(crate) fn number(value: &Value) -> u64 {
    match value {
        Value::Number(number) => number.as_u64().expect("not negative"),
        Value::String(text) => text.parse().expect("digits"),
        _ => 0,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn bytes_of_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

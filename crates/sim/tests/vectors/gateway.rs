//! Frames of a gateway: what our clients read, and what the gateway writes.

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::id::{ClientMessageId, Durability, Position, Stamp};
use ringgate_core::wire::encode::{self, Connected, PROTOCOL_VERSION};
use ringgate_core::wire::{Draft, Encoder, Kind, ServerFrame, Split, schema, split};
use serde_json::{Value, json};

use crate::client::{bytes_of_hex, hex, number, position, shown_position};
use crate::index::{Vector, vectors};

#[test]
fn are_read_as_the_index_says() {
    for vector in vectors("gateway_") {
        assert_eq!(shown(&vector.bytes), *vector.fields(), "{}", vector.file);
    }
}

#[test]
fn are_written_so_that_they_read_the_same() {
    let mut unspeakable = Vec::new();
    for vector in vectors("gateway_") {
        match encode(&vector) {
            Some(bytes) => assert_eq!(shown(&bytes), wanted(&vector), "{}", vector.file),
            None => unspeakable.push(vector.file),
        }
    }
    // Codes that this gateway does not have, and so never sends.
    assert_eq!(unspeakable, ["gateway_error_maximal.bin", "gateway_goodbye_maximal.bin"]);
}

/// What a client sees in a frame, in the form of the index.
fn shown(bytes: &[u8]) -> Value {
    let Ok(Split::Frame(raw, [])) = split(bytes, 1 << 17) else { panic!("not one whole frame") };
    match ServerFrame::parse(raw).expect("a frame of a gateway") {
        ServerFrame::Ping | ServerFrame::Pong => json!({}),
        ServerFrame::Connected(table) => json!({
            "request": table.request(),
            "version": table.version(),
            "session": table.session().to_string(),
            "node": table.node(),
            "user": table.user(),
            "ping_interval_ms": table.ping_interval_ms(),
            "pong_timeout_ms": table.pong_timeout_ms(),
            "message_bytes_max": table.message_bytes_max(),
            "rooms_max": table.rooms_max(),
            "requests_in_flight_max": table.requests_in_flight_max(),
            "expires_at": table.expires_at().to_string(),
            "inbox_recovered": table.inbox_recovered(),
            "inbox": shown_place(table.inbox()),
            "server_time_ms": table.server_time_ms().to_string(),
            "expires_in_ms": table.expires_in_ms().to_string(),
            "dedup_window_ms": table.dedup_window_ms(),
            "frames_rate": table.frames_rate(),
            "frames_burst": table.frames_burst(),
            "bytes_rate": table.bytes_rate(),
            "bytes_burst": table.bytes_burst(),
            "receive_window": table.receive_window(),
        }),
        ServerFrame::Published(published) => json!({
            "client_message_id": {
                "high": published.client_message_id.high.to_string(),
                "low": published.client_message_id.low.to_string(),
            },
            "stamp": shown_stamp(published.stamp),
            "request": published.request,
            "durability": published.durability,
            "duplicate": published.duplicate,
        }),
        ServerFrame::Error(table) => json!({
            "request": table.request(),
            "code": table.code(),
            "message": table.message(),
            "temporary": table.temporary(),
            "retry_after_ms": table.retry_after_ms(),
            "room": table.room(),
        }),
        ServerFrame::Message(table) => shown_message(table),
        ServerFrame::Subscribed(table) => json!({
            "request": table.request(),
            "room": table.room(),
            "recovered": table.recovered(),
            "position": shown_place(table.position()),
            "start": shown_place(table.start()),
        }),
        ServerFrame::Unsubscribed(table) => {
            json!({"request": table.request(), "room": table.room(), "code": table.code()})
        }
        ServerFrame::PresenceResult(table) => json!({
            "request": table.request(),
            "room": table.room(),
            "count": table.count(),
            "members": table.members().map(|members| {
                members.iter().map(|member| json!({"user": member.user(), "device": member.device()}))
                    .collect::<Vec<_>>()
            }),
        }),
        ServerFrame::HistoryResult(table) => json!({
            "request": table.request(),
            "topic": table.topic(),
            "position": shown_place(table.position()),
            "messages": table.messages().map(|messages| messages.iter().map(shown_message).collect::<Vec<_>>()),
            "more": table.more(),
            "recovered": table.recovered(),
        }),
        ServerFrame::Refreshed(table) => {
            json!({
                "request": table.request(),
                "expires_at": table.expires_at().to_string(),
                "expires_in_ms": table.expires_in_ms().to_string(),
            })
        }
        ServerFrame::Joined(table) => json!({"room": table.room(), "user": table.user(), "device": table.device()}),
        ServerFrame::Left(table) => json!({"room": table.room(), "user": table.user(), "device": table.device()}),
        ServerFrame::Goodbye(table) => json!({
            "code": table.code(),
            "reason": table.reason(),
            "reconnect": table.reconnect(),
            "after_ms": table.after_ms(),
        }),
    }
}

fn shown_message(table: schema::Message<'_>) -> Value {
    json!({
        "topic": table.topic(),
        "stamp": table.stamp().map(|stamp| shown_stamp(Stamp::from(stamp))),
        "sender": table.sender(),
        "payload": table.payload().map(|payload| hex(payload.bytes())),
        "trace": table.trace(),
        "sent_to": table.sent_to(),
    })
}

fn shown_place(position: Option<&schema::Position>) -> Value {
    position.map_or(Value::Null, |position| shown_position(Position::from(position)))
}

fn shown_stamp(stamp: Stamp) -> Value {
    json!({
        "position": shown_position(stamp.position),
        "message_id": stamp.message_id.to_string(),
        "timestamp_ms": stamp.timestamp_ms.to_string(),
    })
}

/// The index's fields, with what the gateway writes where nothing would do as well; it speaks its own version.
fn wanted(vector: &Vector) -> Value {
    let mut fields = vector.fields().clone();
    let zero = json!({"epoch": "0", "offset": "0"});
    for (key, value) in fields.as_object_mut().into_iter().flatten() {
        match key.as_str() {
            "version" => *value = json!(PROTOCOL_VERSION),
            "trace" | "sent_to" => {}
            "room" if vector.kind() == Some(Kind::Error) => {}
            "inbox" | "position" | "start" if value.is_null() => *value = zero.clone(),
            "members" | "messages" if value.is_null() => *value = json!([]),
            _ if value.is_null() => *value = json!(""),
            _ => {}
        }
    }
    fields
}

/// The gateway's bytes for the vector's fields; none for codes that it does not have.
fn encode(vector: &Vector) -> Option<Vec<u8>> {
    let fields = vector.fields();
    let text = |key: &str| fields[key].as_str().unwrap_or_default();
    let flag = |key: &str| fields[key].as_bool().expect("a flag");
    let number_of = |key: &str| number(&fields[key]);
    let place = |key: &str| position(&fields[key]).unwrap_or_default();
    let request = number_of("request") as u32;
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    match vector.kind().expect("a kind") {
        kind @ (Kind::Ping | Kind::Pong) => Encoder::empty(&mut out, kind),
        Kind::Connected => {
            let fields = Connected {
                request,
                session: number_of("session"),
                node: text("node"),
                user: text("user"),
                ping_interval_ms: number_of("ping_interval_ms") as u32,
                pong_timeout_ms: number_of("pong_timeout_ms") as u32,
                message_bytes_max: number_of("message_bytes_max") as u32,
                rooms_max: number_of("rooms_max") as u16,
                requests_in_flight_max: number_of("requests_in_flight_max") as u16,
                expires_at: number_of("expires_at"),
                inbox_recovered: flag("inbox_recovered"),
                inbox: place("inbox"),
                server_time_ms: number_of("server_time_ms"),
                expires_in_ms: number_of("expires_in_ms"),
                dedup_window_ms: number_of("dedup_window_ms") as u32,
                frames_rate: number_of("frames_rate") as u32,
                frames_burst: number_of("frames_burst") as u32,
                bytes_rate: number_of("bytes_rate") as u32,
                bytes_burst: number_of("bytes_burst") as u32,
                receive_window: number_of("receive_window") as u32,
            };
            encoder.connected(&mut out, &fields);
        }
        Kind::Published => {
            let id = &fields["client_message_id"];
            let id = ClientMessageId { high: number(&id["high"]), low: number(&id["low"]) };
            let levels = [Durability::Ephemeral, Durability::Memory, Durability::Durable];
            let durability = levels[number_of("durability") as usize];
            Encoder::published(&mut out, request, id, stamp(&fields["stamp"]), durability, flag("duplicate"));
        }
        Kind::Error => {
            let code = ErrorCode::from_code(number_of("code") as u16)?;
            assert_eq!(code.is_temporary(), flag("temporary"));
            let (message, retry_after_ms) = (text("message"), number_of("retry_after_ms") as u32);
            let room = fields["room"].as_str();
            encoder.error(&mut out, &encode::Error { request, code, message, retry_after_ms, room });
        }
        Kind::Message => out = message(fields),
        Kind::Subscribed => {
            let (recovered, position, start) = (flag("recovered"), place("position"), place("start"));
            let fields = encode::Subscribed { request, room: text("room"), recovered, position, start };
            encoder.subscribed(&mut out, &fields);
        }
        Kind::Unsubscribed => encoder.unsubscribed(&mut out, request, text("room"), number_of("code") as u16),
        Kind::PresenceResult => {
            let members = fields["members"].as_array().into_iter().flatten();
            let members = members
                .map(|member| (member["user"].as_str().expect("a user"), member["device"].as_str().expect("a device")));
            encoder.presence_result(&mut out, request, text("room"), number_of("count") as u32, members);
        }
        Kind::HistoryResult => {
            let messages = fields["messages"].as_array().into_iter().flatten();
            let frames: Vec<_> = messages.map(|fields| message(fields).into()).collect();
            let (more, recovered) = (flag("more"), flag("recovered"));
            let (topic, position, frames) = (text("topic"), place("position"), &*frames);
            let fields = encode::HistoryResult { request, topic, position, frames, more, recovered };
            encoder.history_result(&mut out, &fields);
        }
        Kind::Refreshed => encoder.refreshed(&mut out, request, number_of("expires_at"), number_of("expires_in_ms")),
        kind @ (Kind::Joined | Kind::Left) => {
            encoder.member_event(&mut out, kind == Kind::Joined, text("room"), text("user"), text("device"));
        }
        Kind::Goodbye => {
            let reason = CloseReason::from_code(number_of("code") as u16)?;
            assert_eq!(reason.may_reconnect(), flag("reconnect"));
            encoder.goodbye(&mut out, reason, text("reason"), number_of("after_ms") as u32);
        }
        kind => panic!("{kind:?} is no frame of a gateway"),
    }
    Some(out)
}

fn message(fields: &Value) -> Vec<u8> {
    let payload = bytes_of_hex(fields["payload"].as_str().unwrap_or_default());
    let text = |key: &str| fields[key].as_str().unwrap_or_default();
    let trace = fields["trace"].as_str();
    let stamp = stamp(&fields["stamp"]);
    let Some(sent_to) = fields["sent_to"].as_str() else {
        return Draft::new(text("topic"), text("sender"), &payload, trace).stamp(stamp).to_vec();
    };
    // A copy for the sender's own inbox.
    let original = Draft::new(sent_to, text("sender"), &payload, trace).stamp(stamp);
    let copy = Encoder::default().copy_for_sender(&original).expect("a Message");
    assert_eq!((copy.topic(), copy.sender()), (text("topic"), text("sender").as_bytes()));
    copy.stamp(stamp).to_vec()
}

fn stamp(value: &Value) -> Stamp {
    Stamp {
        position: position(&value["position"]).expect("a position"),
        message_id: number(&value["message_id"]),
        timestamp_ms: number(&value["timestamp_ms"]),
    }
}

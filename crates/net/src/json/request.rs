//! A text of a client becomes the frame that means the same.
//!
//! Bounds of names, limits and rights are not looked at here: the shard answers for them as it does for any frame. What cannot be put
//! into a frame ends the connection, as a frame does that is no FlatBuffer.

use std::fmt;

use ringgate_core::id::{ClientMessageId, Position, Recover};
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PROTOCOL_VERSION, PublishRequest};
use ringgate_core::wire::{Encoder, Kind, RoomCursor};
use serde::Deserialize;

use super::number::{Id, Place};
use super::payload::{Base64, Text};

/// What stands for the token where the request for the WebSocket has brought it.
const TOKEN_OF_REQUEST: &str = "-";

/// Why a text is no request. The sentence says what is wrong and where, and repeats nothing that the client sent but names of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// The fields of every request; which of them are looked at depends on `type`. Unknown ones are ignored, as in a FlatBuffer.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    request: Option<u32>,
    version: Option<u16>,
    #[serde(borrow)]
    token: Option<Text<'a>>,
    #[serde(borrow)]
    device: Option<Text<'a>>,
    #[serde(borrow)]
    client: Option<Text<'a>>,
    inbox: Option<Place>,
    #[serde(borrow)]
    rooms: Option<Vec<Room<'a>>>,
    ping_interval_ms: Option<u32>,
    receive_window: Option<u32>,
    #[serde(borrow)]
    topic: Option<Text<'a>>,
    #[serde(borrow)]
    room: Option<Text<'a>>,
    client_message_id: Option<Id>,
    #[serde(borrow)]
    payload: Option<Text<'a>>,
    payload_base64: Option<Base64<Vec<u8>>>,
    ephemeral: Option<bool>,
    ttl_seconds: Option<u32>,
    #[serde(borrow)]
    trace: Option<Text<'a>>,
    position: Option<Place>,
    since: Option<Place>,
    before: Option<Place>,
    recover: Option<HowToRecover>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
struct Room<'a> {
    #[serde(borrow)]
    room: Text<'a>,
    since: Option<Place>,
    recover: Option<HowToRecover>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum HowToRecover {
    #[default]
    Exact,
    Best,
}

impl From<HowToRecover> for Recover {
    fn from(how: HowToRecover) -> Recover {
        match how {
            HowToRecover::Exact => Recover::Exact,
            HowToRecover::Best => Recover::Best,
        }
    }
}

/// Every `type` of a request, for the error that names them.
const TYPES: &str = "connect, ping, pong, publish, ack, subscribe, unsubscribe, presence, history, refresh, disconnect";

/// Appends the frame that a text means: UTF-8, or an error.
///
/// # Errors
///
/// It is no object of JSON, a field is of another type than `docs/json.md` says, or `type` is missing or unknown.
pub fn append_frame(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let fields: Fields<'_> = serde_json::from_slice(text).map_err(|error| explain(text, &error))?;
    let mut encoder = Encoder::default();
    let request = fields.request.unwrap_or(0);
    let since = fields.since.map(Position::from);
    let recover = fields.recover.unwrap_or_default().into();
    let room = fields.room.as_deref().unwrap_or_default();
    match &*fields.kind {
        "connect" => connect(&fields, request, &mut encoder, out),
        "ping" => Encoder::empty(out, Kind::Ping),
        "pong" => Encoder::empty(out, Kind::ClientPong),
        "disconnect" => Encoder::empty(out, Kind::Disconnect),
        "publish" => publish(&fields, request, &mut encoder, out)?,
        "ack" => {
            let position = fields.position.ok_or_else(|| Malformed("position: is missing".to_owned()))?;
            Encoder::ack(out, position.into());
        }
        "subscribe" => encoder.subscribe(out, request, RoomCursor { room, since, recover }),
        "unsubscribe" => encoder.unsubscribe(out, request, room),
        "presence" => encoder.presence(out, request, room, fields.limit.unwrap_or(0)),
        "history" => {
            let topic = fields.topic.as_deref().unwrap_or_default();
            let (before, limit) = (fields.before.map(Position::from), fields.limit.unwrap_or(0));
            encoder.history(out, &HistoryRequest { request, topic, since, before, limit });
        }
        "refresh" => encoder.refresh(out, request, fields.token.as_deref().unwrap_or_default()),
        "" => return Err(Malformed(format!("type: is missing; there are {TYPES}"))),
        _ => return Err(Malformed(format!("type: is unknown; there are {TYPES}"))),
    }
    Ok(())
}

fn connect(fields: &Fields<'_>, request: u32, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let rooms: Vec<_> = fields.rooms.iter().flatten().map(cursor).collect();
    encoder.connect(
        out,
        &ConnectRequest {
            request,
            // The encoder takes 0 for the version that is spoken; the gateway refuses it, as it does any other.
            version: fields.version.map_or(PROTOCOL_VERSION, |version| if version == 0 { u16::MAX } else { version }),
            token: fields.token.as_deref().unwrap_or(TOKEN_OF_REQUEST),
            device: fields.device.as_deref().unwrap_or_default(),
            client: fields.client.as_deref().unwrap_or_default(),
            inbox: fields.inbox.map(Position::from),
            rooms: &rooms,
            ping_interval_ms: fields.ping_interval_ms.unwrap_or(0),
            receive_window: fields.receive_window.unwrap_or(0),
        },
    );
}

fn cursor<'a>(room: &'a Room<'_>) -> RoomCursor<'a> {
    RoomCursor {
        room: &room.room,
        since: room.since.map(Position::from),
        recover: room.recover.unwrap_or_default().into(),
    }
}

fn publish(fields: &Fields<'_>, request: u32, encoder: &mut Encoder, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let payload = match (&fields.payload, &fields.payload_base64) {
        (Some(_), Some(_)) => return Err(Malformed("payload: must not stand beside payload_base64".to_owned())),
        (Some(text), None) => text.as_bytes(),
        (None, Some(bytes)) => &bytes.0,
        (None, None) => &[],
    };
    encoder.publish(
        out,
        &PublishRequest {
            request,
            topic: fields.topic.as_deref().unwrap_or_default(),
            client_message_id: fields.client_message_id.map_or_else(ClientMessageId::default, |id| id.0),
            payload,
            ephemeral: fields.ephemeral.unwrap_or(false),
            ttl_seconds: fields.ttl_seconds.unwrap_or(0),
            trace: fields.trace.as_deref(),
        },
    );
    Ok(())
}

/// Names the field that cannot be read: the text is read once more for that, which only happens once for a connection.
fn explain(text: &[u8], error: &serde_json::Error) -> Malformed {
    if !error.is_data() {
        return Malformed(format!("this is no JSON: {error}"));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, Fields<'_>>(&mut reader) {
        Err(error) if error.path().iter().len() == 0 => {
            Malformed(format!("the text {}", without_values(error.inner())))
        }
        Err(error) => Malformed(format!("{}: {}", error.path(), without_values(error.inner()))),
        Ok(_) => Malformed(format!("this is no request: {error}")),
    }
}

/// What `serde` says of a value that does not fit, without the value: that may be a secret.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    if text.starts_with("missing field") || text.starts_with("duplicate field") {
        return text.to_owned();
    }
    let wanted = text.split_once(", expected ").map(|(_, wanted)| wanted);
    wanted.map_or_else(|| "cannot be read".to_owned(), |wanted| format!("has to be {wanted}"))
}

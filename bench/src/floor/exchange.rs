//! What the floor answers: frames made in advance, with the payload copied in.
//!
//! The first Publish of a client is parsed to learn its partner (or room) and where the payload lies; every later one
//! is recognised by its header alone.

use std::collections::HashMap;
use std::rc::Rc;

use base64::Engine as _;
use ringgate_core::id::{ClientMessageId, Durability, Position, Stamp};
use ringgate_core::limits::HEADER_BYTES;
use ringgate_core::wire::encode::{self, Connected};
use ringgate_core::wire::frames::Subscribe;
use ringgate_core::wire::{ClientFrame, Draft, Encoder, Kind, Publish, Split, schema, split};

/// What waits to be sent to a client.
#[derive(Default)]
pub(super) struct Outgoing {
    /// One frame that others are sent, too.
    pub(super) shared: Option<Rc<Vec<u8>>>,
    /// Frames back to back, after the shared one.
    pub(super) bytes: Vec<u8>,
}

#[derive(Default)]
struct Client {
    tail: Vec<u8>,
    user: String,
    route: Option<Route>,
    dirty: bool,
    outgoing: Outgoing,
}

/// Where a client's messages go, and the frame that they become.
struct Route {
    /// A partner, or none for the room.
    partner: Option<usize>,
    message: Vec<u8>,
    payload_from: usize,
    payload_to: usize,
    payload_bytes: usize,
    /// Where a publish has its client message id and its request number.
    id_from: usize,
    request_from: usize,
    offset_at: usize,
    offset: u64,
    frame_bytes: usize,
}

/// All clients of the floor.
pub(super) struct Exchange {
    clients: Vec<Client>,
    users: HashMap<String, usize>,
    members: Vec<usize>,
    /// Clients with something to be sent.
    pub(super) dirty: Vec<usize>,
    encoder: Encoder,
    published: Vec<u8>,
}

const BODY_BYTES_MAX: usize = 1 << 20;

impl Exchange {
    pub(super) fn new() -> Self {
        let mut published = Vec::new();
        let stamp = Stamp { position: Position { epoch: 1, offset: 1 }, message_id: 1, timestamp_ms: 1 };
        Encoder::published(&mut published, 1, ClientMessageId::default(), stamp, Durability::Memory, false);
        Exchange {
            clients: Vec::new(),
            users: HashMap::new(),
            members: Vec::new(),
            dirty: Vec::new(),
            encoder: Encoder::default(),
            published,
        }
    }

    /// A connection took this place.
    pub(super) fn opened(&mut self, index: usize) {
        if self.clients.len() <= index {
            self.clients.resize_with(index + 1, Client::default);
        }
        self.clients[index] = Client::default();
    }

    /// It is gone.
    pub(super) fn closed(&mut self, index: usize) {
        self.members.retain(|member| *member != index);
        let client = std::mem::take(&mut self.clients[index]);
        self.users.remove(&client.user);
    }

    /// What is to be sent to a client now.
    pub(super) fn take(&mut self, index: usize) -> Outgoing {
        self.clients[index].dirty = false;
        std::mem::take(&mut self.clients[index].outgoing)
    }

    /// Gives a used buffer back to a client that has none.
    pub(super) fn recycle(&mut self, index: usize, mut buffer: Vec<u8>) {
        let bytes = &mut self.clients[index].outgoing.bytes;
        if bytes.capacity() == 0 {
            buffer.clear();
            *bytes = buffer;
        }
    }

    /// Bytes of a client.
    pub(super) fn received(&mut self, index: usize, bytes: &[u8]) {
        let mut tail = std::mem::take(&mut self.clients[index].tail);
        let mut rest = if tail.is_empty() {
            bytes
        } else {
            tail.extend_from_slice(bytes);
            &tail
        };
        while let Ok(Split::Frame(frame, later)) = split(rest, BODY_BYTES_MAX) {
            let whole = &rest[..rest.len() - later.len()];
            match frame.kind {
                Kind::Publish if self.clients[index].route.as_ref().is_some_and(|r| r.frame_bytes == whole.len()) => {
                    self.publish(index, whole);
                }
                Kind::Ping => self.answer(index, |_, out| Encoder::empty(out, Kind::Pong)),
                Kind::Ack | Kind::ClientPong => {}
                _ => match ClientFrame::parse(frame) {
                    Ok(ClientFrame::Connect(connect)) => self.connect(index, connect.token),
                    Ok(ClientFrame::Subscribe(Subscribe { request, room, .. })) => {
                        self.members.push(index);
                        let position = Position { epoch: 1, offset: 0 };
                        let room = room.to_owned();
                        let subscribed =
                            encode::Subscribed { request, room: &room, recovered: true, position, start: position };
                        self.answer(index, |encoder, out| encoder.subscribed(out, &subscribed));
                    }
                    Ok(ClientFrame::Publish(publish)) => {
                        self.learn(index, whole, &publish);
                        self.publish(index, whole);
                    }
                    _ => {}
                },
            }
            rest = later;
        }
        self.clients[index].tail = rest.to_vec();
    }

    fn answer(&mut self, index: usize, build: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        build(&mut self.encoder, &mut self.clients[index].outgoing.bytes);
        self.mark(index);
    }

    /// A client has something to be sent.
    pub(super) fn mark(&mut self, index: usize) {
        if !std::mem::replace(&mut self.clients[index].dirty, true) {
            self.dirty.push(index);
        }
    }

    fn connect(&mut self, index: usize, token: &str) {
        let user = user_of(token);
        self.users.insert(user.clone(), index);
        self.clients[index].user.clone_from(&user);
        self.answer(index, |encoder, out| {
            encoder.connected(
                out,
                &Connected {
                    request: 0,
                    session: index as u64,
                    node: "floor",
                    user: &user,
                    ping_interval_ms: 30_000,
                    pong_timeout_ms: 5_000,
                    message_bytes_max: 65_536,
                    rooms_max: 128,
                    requests_in_flight_max: 1024,
                    expires_at: 0,
                    inbox_recovered: true,
                    inbox: Position { epoch: 1, offset: 0 },
                    server_time_ms: 0,
                    expires_in_ms: 0,
                    dedup_window_ms: 300_000,
                    frames_rate: 0,
                    frames_burst: 0,
                    bytes_rate: 0,
                    bytes_burst: 0,
                    receive_window: 1024,
                },
            );
        });
    }

    fn learn(&mut self, index: usize, frame: &[u8], publish: &Publish<'_>) {
        let Publish { topic, payload, client_message_id, .. } = *publish;
        let partner = topic.strip_prefix('@').map(|user| self.users.get(user).copied().unwrap_or(index));
        let offset = 0x5a5a_1234_8765_a5a5_u64;
        let stamp = Stamp { position: Position { epoch: 1, offset }, message_id: 1, timestamp_ms: 1 };
        let draft = Draft::new(topic, &self.clients[index].user, payload, None);
        let message = draft.stamp(stamp).to_vec();
        let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what).unwrap_or(0);
        self.clients[index].route = Some(Route {
            partner,
            payload_from: find(frame, payload),
            payload_to: find(&message, payload),
            payload_bytes: payload.len(),
            id_from: find(frame, &id_bytes(client_message_id)),
            request_from: field_from(frame, schema::Publish::VT_REQUEST),
            offset_at: find(&message, &offset.to_le_bytes()),
            offset: 0,
            frame_bytes: frame.len(),
            message,
        });
    }

    fn publish(&mut self, index: usize, publish: &[u8]) {
        let Some(route) = self.clients[index].route.as_mut() else { return };
        let payload = &publish[route.payload_from..route.payload_from + route.payload_bytes];
        route.message[route.payload_to..route.payload_to + route.payload_bytes].copy_from_slice(payload);
        route.offset += 1;
        route.message[route.offset_at..route.offset_at + 8].copy_from_slice(&route.offset.to_le_bytes());
        let message = std::mem::take(&mut route.message);
        let (partner, id_from, request_from) = (route.partner, route.id_from, route.request_from);
        let message = match partner {
            Some(partner) => {
                self.clients[partner].outgoing.bytes.extend_from_slice(&message);
                self.mark(partner);
                message
            }
            None => self.broadcast(message),
        };
        if let Some(route) = self.clients[index].route.as_mut() {
            route.message = message;
        }
        let Exchange { clients, published, .. } = self;
        published[PUBLISHED_ID].copy_from_slice(&publish[id_from..id_from + PUBLISHED_ID.len()]);
        published[PUBLISHED_REQUEST].copy_from_slice(&publish[request_from..request_from + PUBLISHED_REQUEST.len()]);
        clients[index].outgoing.bytes.extend_from_slice(published);
        self.mark(index);
    }

    fn broadcast(&mut self, message: Vec<u8>) -> Vec<u8> {
        let shared = Rc::new(message.clone());
        for position in 0..self.members.len() {
            let member = self.members[position];
            let outgoing = &mut self.clients[member].outgoing;
            if outgoing.shared.is_none() && outgoing.bytes.is_empty() {
                outgoing.shared = Some(shared.clone());
            } else {
                outgoing.bytes.extend_from_slice(&shared);
            }
            self.mark(member);
        }
        message
    }
}

/// Where a Published has the client message id that it answers: behind the header.
const PUBLISHED_ID: std::ops::Range<usize> = HEADER_BYTES..HEADER_BYTES + 16;

/// Where a Published has the number of the request that it answers: behind id and stamp.
const PUBLISHED_REQUEST: std::ops::Range<usize> = HEADER_BYTES + 48..HEADER_BYTES + 52;

/// Where a frame has a field of its table, which must be there.
fn field_from(frame: &[u8], field: u16) -> usize {
    let u32_at = |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let table = HEADER_BYTES + u32_at(HEADER_BYTES) as usize;
    let vtable = table.wrapping_sub(u32_at(table) as i32 as usize);
    let entry = vtable + usize::from(field);
    table + usize::from(u16::from_le_bytes([frame[entry], frame[entry + 1]]))
}

/// As frames have it.
fn id_bytes(id: ClientMessageId) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.high.to_le_bytes());
    bytes[8..].copy_from_slice(&id.low.to_le_bytes());
    bytes
}

/// `sub` of a token that nobody has verified.
fn user_of(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap_or_default();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap_or_default();
    claims["sub"].as_str().unwrap_or("nobody").to_owned()
}

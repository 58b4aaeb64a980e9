//! What a run of the matrix asks of the gateway: who reads, who is away, what the pushing clients send, and what counts
//! as done.

use ringgate_core::id::ClientMessageId;
use ringgate_core::wire::Encoder;
use ringgate_core::wire::encode::{HistoryRequest, PublishRequest};

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Workload {
    /// Broadcasts to one room with very many members.
    BigRoom,
    /// Broadcasts to many rooms with ten members each.
    ManyRooms,
    /// Messages to the inboxes of users who read and acknowledge.
    OneToOne,
    /// Messages to the inboxes of users who have signed in once and are away.
    Offline,
    /// Requests for the newest messages of a room.
    History,
    /// Requests for the members of a room.
    Presence,
    /// Clients that connect, sign in and leave.
    SignIn,
    /// Five clients with default limits that each publish 900 messages a second to a room of 3 000.
    DefaultLimits,
}

impl Workload {
    /// Of the matrix, in its order.
    pub(super) const ALL: [Workload; 8] = [
        Workload::BigRoom,
        Workload::ManyRooms,
        Workload::OneToOne,
        Workload::Offline,
        Workload::History,
        Workload::Presence,
        Workload::SignIn,
        Workload::DefaultLimits,
    ];

    /// In tables and JSON, as on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Workload::BigRoom => "big-room",
            Workload::ManyRooms => "many-rooms",
            Workload::OneToOne => "one-to-one",
            Workload::Offline => "offline",
            Workload::History => "history",
            Workload::Presence => "presence",
            Workload::SignIn => "sign-in",
            Workload::DefaultLimits => "default-limits",
        }
    }

    /// Clients that read what is pushed.
    pub(super) fn readers(self) -> usize {
        match self {
            Workload::BigRoom | Workload::ManyRooms => 1_000,
            Workload::OneToOne | Workload::Presence => 200,
            Workload::DefaultLimits => 3_000,
            Workload::Offline | Workload::History | Workload::SignIn => 0,
        }
    }

    /// Users who sign in once before the load and leave.
    pub(super) fn absent(self) -> usize {
        if self == Workload::Offline { 1_000 } else { 0 }
    }

    /// Clients that push.
    pub(super) fn pushers(self) -> usize {
        match self {
            Workload::SignIn => 0,
            Workload::DefaultLimits => 5,
            _ => 16,
        }
    }

    /// Requests a second that all pushers together send whatever the capacity is, if that is given.
    pub(super) fn fixed_rate(self) -> Option<f64> {
        (self == Workload::DefaultLimits).then_some(5.0 * 900.0)
    }

    /// The room of a reader.
    pub(super) fn room_of(self, reader: usize) -> Option<String> {
        match self {
            Workload::DefaultLimits | Workload::Presence => Some(room(0)),
            Workload::BigRoom => Some(live_room(0)),
            Workload::ManyRooms => Some(live_room(reader / MEMBERS_OF_SMALL_ROOMS)),
            _ => None,
        }
    }

    /// The room that a pusher has to be in. Its namespace sends publishers nothing back.
    pub(super) fn room_of_pushers(self) -> Option<String> {
        matches!(self, Workload::History | Workload::Presence | Workload::DefaultLimits).then(|| room(0))
    }

    /// Readers acknowledge.
    pub(super) fn acknowledges(self) -> bool {
        self == Workload::OneToOne
    }

    /// What one request that is carried out brings: deliveries for messages to those who read, else its answer.
    pub(super) fn unit(self) -> Unit {
        match self {
            Workload::BigRoom => Unit::Deliveries(self.readers()),
            // Pushers are members, too, and get what the others publish.
            Workload::DefaultLimits => Unit::Deliveries(self.readers()),
            Workload::ManyRooms => Unit::Deliveries(MEMBERS_OF_SMALL_ROOMS),
            Workload::OneToOne => Unit::Deliveries(1),
            Workload::Offline | Workload::History | Workload::Presence => Unit::Answers,
            Workload::SignIn => Unit::SignIns,
        }
    }

    /// Requests that are under way at once when the search for the capacity begins: few enough to queue nowhere for long.
    pub(super) fn window(self) -> u64 {
        match self {
            Workload::BigRoom => 16,
            Workload::DefaultLimits => 8,
            Workload::ManyRooms => 2048,
            Workload::OneToOne | Workload::Offline => 512,
            Workload::History | Workload::Presence | Workload::SignIn => 64,
        }
    }

    /// Keys of the gateway's configuration. But for one workload no rate limit may stand in the way: the gateway is to be
    /// loaded, not the limit. How many requests may wait for an answer stays as it is, and pushers keep to it.
    pub(super) fn config(self) -> String {
        if self == Workload::DefaultLimits {
            return String::new();
        }
        format!(
            "[client]\nmessages_rate = 0\nbytes_rate = 0\n\
             message_size_max = \"16KiB\"\noutbox_size_max = {QUEUE_BYTES_MAX}\n\
             [inbox]\nmessages_max = {INBOX_MESSAGES_MAX}\n[log]\nsize_per_shard_max = {LOG_BYTES_MAX}\n\
             [[namespaces]]\nname = \"chat\"\npublish_without_subscribe = true\necho = false\n\
             [[namespaces]]\nname = \"live\"\ndurability = \"ephemeral\"\npublish_without_subscribe = true\necho = false\n"
        )
    }

    /// The most bytes that the gateway may add to what it holds when everybody has come and nothing is sent.
    pub(super) fn growth_max(self, shards: usize) -> u64 {
        let clients = (self.readers() + self.pushers()) as u64;
        let queues = match self {
            // Messages of a broadcast are shared; a send that is under way has a copy, and entries of a queue are not.
            Workload::BigRoom | Workload::ManyRooms => clients * (SEND_BYTES + QUEUE_ENTRIES_BYTES),
            // No queue of this many clients may be full: they read as fast as the gateway sends.
            Workload::DefaultLimits => clients * SEND_BYTES,
            Workload::OneToOne | Workload::History | Workload::Presence => clients * QUEUE_BYTES_MAX,
            Workload::Offline | Workload::SignIn => 0,
        };
        // What is in the log costs the heap a little more than twice what the limit counts.
        let logs = match self {
            Workload::Offline | Workload::OneToOne => 3 * LOG_BYTES_MAX,
            _ => 0,
        };
        queues + shards as u64 * (PER_SHARD_BYTES + logs)
    }

    /// The frames that pushers send in turn, all of the same length.
    pub(super) fn templates(self) -> Vec<Template> {
        let payload = [b'x'; PAYLOAD_BYTES];
        let publish = |topic: &str| Template::publish(topic, &payload);
        match self {
            Workload::DefaultLimits => vec![publish(&room(0))],
            Workload::BigRoom => vec![publish(&live_room(0))],
            Workload::ManyRooms => {
                (0..self.readers() / MEMBERS_OF_SMALL_ROOMS).map(|number| publish(&live_room(number))).collect()
            }
            Workload::OneToOne => (0..self.readers()).map(|number| publish(&format!("@{}", reader(number)))).collect(),
            Workload::Offline => (0..self.absent()).map(|number| publish(&format!("@{}", absent(number)))).collect(),
            Workload::History => vec![Template::fixed(|encoder, out| {
                encoder.history(
                    out,
                    &HistoryRequest {
                        request: 1,
                        topic: &room(0),
                        since: None,
                        limit: LISTED,
                        ..HistoryRequest::default()
                    },
                )
            })],
            Workload::Presence => vec![Template::fixed(|encoder, out| encoder.presence(out, 1, &room(0), LISTED))],
            Workload::SignIn => Vec::new(),
        }
    }

    /// Messages that are published before the load, so that there is a history to ask for.
    pub(super) fn prepared(self) -> Option<(Template, usize)> {
        (self == Workload::History).then(|| (Template::publish(&room(0), &[b'x'; PAYLOAD_BYTES]), LISTED as usize))
    }
}

/// What is counted as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Messages that reached a reader; so many for each request.
    Deliveries(usize),
    /// Answers that are not Error.
    Answers,
    /// Connected.
    SignIns,
}

impl Unit {
    /// Units that a request brings.
    pub(super) fn per_request(self) -> f64 {
        match self {
            Unit::Deliveries(each) => each as f64,
            Unit::Answers | Unit::SignIns => 1.0,
        }
    }
}

const MEMBERS_OF_SMALL_ROOMS: usize = 10;
const PAYLOAD_BYTES: usize = 100;
/// Messages or members that a request lists.
const LISTED: u32 = 50;
const QUEUE_BYTES_MAX: u64 = 256 * 1024;
/// What one send copies together.
const SEND_BYTES: u64 = 64 * 1024;
/// References to messages of a hundred bytes, until they fill a queue.
const QUEUE_ENTRIES_BYTES: u64 = 96 * 1024;
const INBOX_MESSAGES_MAX: usize = 100;
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Mailboxes, letters that wait for them, the dedup window, receive buffers, and what the allocator keeps.
const PER_SHARD_BYTES: u64 = 64 << 20;

/// The name of a room; all are equally long.
fn room(number: usize) -> String {
    format!("chat:room{number:05}")
}

/// A room without a log. A reader on the same machine, which shares its cores with the gateway, falls behind at times: here
/// it misses messages, in a room with a log it would be closed as soon as that no longer reaches back.
fn live_room(number: usize) -> String {
    format!("live:room{number:05}")
}

/// The user id of a reader.
pub(super) fn reader(number: usize) -> String {
    format!("reader{number:05}")
}

/// The user id of somebody who is away.
pub(super) fn absent(number: usize) -> String {
    format!("absent{number:05}")
}

/// A frame to send very often: encoded once, only its message id is written anew.
#[derive(Clone, Debug)]
pub(super) struct Template {
    frame: Vec<u8>,
    /// Where the id stands, if the frame has one.
    id_at: Option<usize>,
}

/// Found again in the encoded frame.
const MARKER: ClientMessageId = ClientMessageId { high: 0x7269_6e67_6761_7465, low: 0x6f76_6572_6c6f_6164 };

impl Template {
    fn publish(topic: &str, payload: &[u8]) -> Template {
        let request =
            PublishRequest { request: 1, topic, client_message_id: MARKER, payload, ..PublishRequest::default() };
        let mut template = Template::fixed(|encoder, out| encoder.publish(out, &request));
        let marker = id_bytes(MARKER);
        template.id_at = template.frame.windows(marker.len()).position(|bytes| bytes == marker);
        template
    }

    fn fixed(encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Template {
        let mut frame = Vec::new();
        encode(&mut Encoder::default(), &mut frame);
        Template { frame, id_at: None }
    }

    /// Bytes of the frame.
    pub(super) fn len(&self) -> usize {
        self.frame.len()
    }

    /// Appends the frame with this id.
    pub(super) fn append(&self, out: &mut Vec<u8>, id: ClientMessageId) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        if let Some(at) = self.id_at
            && let Some(place) = out.get_mut(start + at..start + at + 16)
        {
            place.copy_from_slice(&id_bytes(id));
        }
    }
}

/// As they stand in a frame.
fn id_bytes(id: ClientMessageId) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.high.to_le_bytes());
    bytes[8..].copy_from_slice(&id.low.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringgate_core::wire::frames::{History, Presence};
    use ringgate_core::wire::{ClientFrame, Split, split};

    #[test]
    fn template_with_another_id_then_frame_that_the_gateway_reads() {
        for workload in Workload::ALL {
            let templates = workload.templates();
            let mut bytes = Vec::new();
            for (number, template) in templates.iter().enumerate() {
                let start = bytes.len();
                template.append(&mut bytes, ClientMessageId { high: 7, low: number as u64 + 1 });
                assert_eq!(bytes.len() - start, templates[0].len(), "{}: one length", workload.name());
            }
            let mut rest = bytes.as_slice();
            for number in 0..templates.len() as u64 {
                let Ok(Split::Frame(frame, later)) = split(rest, 1 << 20) else { panic!("a whole frame") };
                rest = later;
                match ClientFrame::parse(frame).unwrap() {
                    ClientFrame::Publish(publish) => {
                        assert_eq!(publish.client_message_id, ClientMessageId { high: 7, low: number + 1 });
                        assert_eq!(publish.payload.len(), PAYLOAD_BYTES);
                    }
                    ClientFrame::History(History { limit, .. }) | ClientFrame::Presence(Presence { limit, .. }) => {
                        assert_eq!(limit, LISTED);
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(rest.is_empty());
        }
    }
}

//! A Message frame that still waits for its stamp.
//!
//! The one frame that is built for every message, so it is laid out here in one pass, into memory of the right size. The
//! bytes are those that the flatbuffers crate's builder makes; the test below compares them.

use bytes::Bytes;

use super::header::{Kind, header};
use super::schema;
use super::table::Table;
use crate::id::{Position, Stamp};
use crate::limits::HEADER_BYTES;

/// See the module.
#[derive(Debug)]
pub struct Draft {
    frame: Vec<u8>,
    stamp_at: usize,
    /// Where the topic's text begins; its length is in the four bytes before.
    topic_at: usize,
    /// Where the sender's text begins; its length is in the four bytes before.
    sender_at: usize,
}

const STAMP_BYTES: usize = size_of::<schema::Stamp>();
const WORD: usize = size_of::<u32>();
const HALF: usize = size_of::<u16>();

/// A frame up to the end of its table, with the offsets to texts and payload still zero. There are four of them.
struct Head {
    bytes: [u8; Head::BYTES_MAX],
    len: usize,
    /// Where the fields are, in the frame.
    topic: usize,
    stamp: usize,
    sender: usize,
    payload: usize,
    trace: usize,
}

/// With a trace or not; with four bytes of padding before the sender or not.
static HEADS: [[Head; 2]; 2] =
    [[Head::new(false, false), Head::new(false, true)], [Head::new(true, false), Head::new(true, true)]];

impl Head {
    const BYTES_MAX: usize = HEADER_BYTES + (WORD + 7 * HALF).next_multiple_of(8) + 6 * WORD + STAMP_BYTES;

    /// The header, whose length is still missing; the offset of the table and what pads it; the vtable, which is its own
    /// length, the table's and where each field lies; the table, of which only the offset back to the vtable is filled in.
    const fn new(traced: bool, padded: bool) -> Self {
        let fields = if traced { 5 } else { 4 };
        let vtable_bytes = (2 + fields) * HALF;
        let table = (WORD + vtable_bytes).next_multiple_of(8);
        let topic = WORD;
        let stamp = topic + WORD;
        let sender = stamp + STAMP_BYTES + if padded { WORD } else { 0 };
        let payload = sender + WORD;
        let trace = payload + WORD;
        let table_bytes = if traced { trace } else { payload } + WORD;

        let mut bytes = [0; Self::BYTES_MAX];
        bytes.split_at_mut(HEADER_BYTES).0.copy_from_slice(&header(Kind::Message, 0));
        put_half(&mut bytes, HEADER_BYTES, table);
        let vtable = HEADER_BYTES + table - vtable_bytes;
        let halves = [vtable_bytes, table_bytes, topic, stamp, sender, payload, trace];
        let mut at = 0;
        while at < 2 + fields {
            put_half(&mut bytes, vtable + at * HALF, halves[at]);
            at += 1;
        }
        let table = HEADER_BYTES + table;
        put_half(&mut bytes, table, vtable_bytes);
        Head {
            bytes,
            len: table + table_bytes,
            topic: table + topic,
            stamp: table + stamp,
            sender: table + sender,
            payload: table + payload,
            trace: table + trace,
        }
    }
}

/// The numbers of a head are all small.
const fn put_half(bytes: &mut [u8; Head::BYTES_MAX], at: usize, value: usize) {
    [bytes[at], bytes[at + 1]] = (value as u16).to_le_bytes();
}

impl Draft {
    /// A Message of which only the stamp is missing.
    pub fn new(topic: &str, sender: &str, payload: &[u8], trace: Option<&str>) -> Self {
        // Trace, payload, sender and topic follow the table in this order, each of them at a multiple of four. What
        // follows the stamp begins at a multiple of eight, counted from the end.
        let trace_bytes = trace.map_or(0, text_bytes);
        let payload_bytes = WORD + payload.len().next_multiple_of(WORD);
        let tail_bytes = trace_bytes + payload_bytes + text_bytes(sender) + text_bytes(topic);
        let offsets = if trace.is_some() { 3 } else { 2 };
        let padded = !(tail_bytes + offsets * WORD).is_multiple_of(8);
        let head = &HEADS[usize::from(trace.is_some())][usize::from(padded)];

        let trace_at = head.len;
        let payload_at = trace_at + trace_bytes;
        let sender_at = payload_at + payload_bytes;
        let topic_at = sender_at + text_bytes(sender);
        let frame_bytes = head.len + tail_bytes;
        let mut first = head.bytes;
        // The length, which a header begins with.
        set_word(&mut first, 0, frame_bytes - HEADER_BYTES);
        set_word(&mut first, head.topic, topic_at - head.topic);
        set_word(&mut first, head.sender, sender_at - head.sender);
        set_word(&mut first, head.payload, payload_at - head.payload);
        if trace.is_some() {
            set_word(&mut first, head.trace, trace_at - head.trace);
        }

        let mut frame = Vec::with_capacity(frame_bytes);
        frame.extend_from_slice(&first[..head.len]);
        if let Some(trace) = trace {
            put_text(&mut frame, trace);
        }
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&[0; WORD][..payload_bytes - WORD - payload.len()]);
        put_text(&mut frame, sender);
        put_text(&mut frame, topic);
        debug_assert_eq!(frame.len(), frame_bytes);
        Draft { frame, stamp_at: head.stamp, topic_at: topic_at + WORD, sender_at: sender_at + WORD }
    }

    /// A draft of a whole Message frame that was built elsewhere; none if topic, sender or stamp is missing.
    pub(super) fn of_frame(frame: Vec<u8>) -> Option<Self> {
        type Fields<'a> = schema::Message<'a>;
        let table = Table::root(frame.get(HEADER_BYTES..)?).ok()?;
        let text_at = |slot| table.text_at(slot).map(|at| HEADER_BYTES + at);
        let (topic_at, sender_at) = (text_at(Fields::VT_TOPIC)?, text_at(Fields::VT_SENDER)?);
        let stamp_at = HEADER_BYTES + table.field(Fields::VT_STAMP)?;
        Some(Draft { frame, stamp_at, topic_at, sender_at })
    }

    /// Where it goes.
    pub fn topic(&self) -> &str {
        super::text(self.text(self.topic_at)).unwrap_or_default()
    }

    /// User id of who published it, in UTF-8: what it is hashed for needs no check of that.
    pub fn sender(&self) -> &[u8] {
        self.text(self.sender_at)
    }

    fn text(&self, at: usize) -> &[u8] {
        let length = self.frame.get(at - WORD..).and_then(|rest| rest.first_chunk());
        let length = length.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        self.frame.get(at..at + length).unwrap_or_default()
    }

    /// Fills in the stamp; afterwards the frame never changes.
    pub fn stamp(mut self, stamp: Stamp) -> Bytes {
        if let Some(place) = self.frame.get_mut(self.stamp_at..self.stamp_at + STAMP_BYTES) {
            place.copy_from_slice(&schema::Stamp::from(stamp).0);
        }
        Bytes::from(self.frame)
    }

    /// A whole Message frame with another position in its stamp; none if it is no such frame.
    pub fn restamp(frame: &[u8], position: Position) -> Option<Bytes> {
        let stamp = Draft::stamp_of(frame)?;
        Some(Draft::of_frame(frame.to_vec())?.stamp(Stamp { position, ..stamp }))
    }

    /// The stamp of a whole Message frame.
    pub fn stamp_of(frame: &[u8]) -> Option<Stamp> {
        let table = Table::root(frame.get(HEADER_BYTES..)?).ok()?;
        let stamp = table.structure(schema::Message::VT_STAMP).ok()??;
        Some(Stamp::from(&schema::Stamp(stamp)))
    }

    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Never: a frame has at least a header.
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }
}

fn set_word(bytes: &mut [u8], at: usize, value: usize) {
    if let Some(place) = bytes.get_mut(at..at + WORD) {
        place.copy_from_slice(&(value as u32).to_le_bytes());
    }
}

/// What [`put_text`] appends.
fn text_bytes(text: &str) -> usize {
    WORD + (text.len() + 1).next_multiple_of(WORD)
}

/// Length, text, a zero, and what pads them to a multiple of four.
fn put_text(frame: &mut Vec<u8>, text: &str) {
    frame.extend_from_slice(&(text.len() as u32).to_le_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame.extend_from_slice(&[0; WORD][..WORD - text.len() % WORD]);
}

#[cfg(test)]
mod tests {
    use flatbuffers::FlatBufferBuilder;

    use super::*;
    use crate::id::Position;
    use crate::wire::header::append_header;
    use crate::wire::{ServerFrame, Split, split};

    fn by_the_builder(topic: &str, sender: &str, payload: &[u8], trace: Option<&str>, stamp: Stamp) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let topic = Some(builder.create_string(topic));
        let sender = Some(builder.create_string(sender));
        let payload = Some(builder.create_vector(payload));
        let trace = trace.map(|trace| builder.create_string(trace));
        let stamp = schema::Stamp::from(stamp);
        let fields = schema::MessageArgs { topic, stamp: Some(&stamp), sender, payload, trace, sent_to: None };
        let table = schema::Message::create(&mut builder, &fields);
        builder.finish_minimal(table);
        let mut frame = Vec::new();
        append_header(&mut frame, Kind::Message, builder.finished_data().len());
        frame.extend_from_slice(builder.finished_data());
        frame
    }

    #[test]
    fn has_the_bytes_that_the_builder_makes() {
        let stamp = Stamp { position: Position { epoch: 5, offset: 9 }, message_id: 77, timestamp_ms: 123 };
        let text = "chat:general-talk";
        for topic_bytes in 1..10 {
            for sender_bytes in 1..10 {
                for payload_bytes in (0..10).chain([100, 65_536]) {
                    for trace in [None, Some("0"), Some("00-ab"), Some("00-abcdef")] {
                        let (topic, sender) = (&text[..topic_bytes], &text[..sender_bytes]);
                        let payload = vec![7; payload_bytes];
                        let draft = Draft::new(topic, sender, &payload, trace);
                        assert_eq!((draft.topic(), draft.sender()), (topic, sender.as_bytes()));
                        let expected = by_the_builder(topic, sender, &payload, trace, stamp);
                        assert_eq!((draft.len(), draft.frame.capacity()), (expected.len(), expected.len()));
                        assert!(draft.stamp(stamp) == expected, "{topic} {sender} {payload_bytes} {trace:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn is_stamped_in_place() {
        let stamp = Stamp { position: Position { epoch: 5, offset: 9 }, message_id: 77, timestamp_ms: 123 };
        let frame = Draft::new("chat:general", "alice", &[7; 100], Some("00-ab")).stamp(stamp);
        let Ok(Split::Frame(raw, [])) = split(&frame, 1 << 20) else { panic!("one whole frame") };
        let Ok(ServerFrame::Message(message)) = ServerFrame::parse(raw) else { panic!("a Message") };
        assert_eq!(message.stamp().map(Stamp::from), Some(stamp));
    }

    #[test]
    fn the_longest_head_takes_all_that_is_set_aside_for_it() {
        let lengths = HEADS.iter().flatten().map(|head| head.len);
        assert_eq!(lengths.max(), Some(Head::BYTES_MAX));
        assert!(!Draft::new("chat:a", "alice", b"", None).is_empty());
    }
}

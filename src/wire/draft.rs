//! A Message frame that still waits for its stamp.
//!
//! The one frame that is built for every message, so it is laid out here in one pass, into memory of the right size. The
//! bytes are those that the flatbuffers crate's builder makes; the test below compares them.

use bytes::Bytes;

use super::header::{Kind, append_header};
use super::schema;
use crate::id::Stamp;
use crate::limits::HEADER_BYTES;

/// See the module.
#[derive(Debug)]
pub struct Draft {
    frame: Vec<u8>,
    stamp_at: usize,
    /// Where the topic's text begins; its length is in the four bytes before.
    topic_at: usize,
}

const STAMP_BYTES: usize = size_of::<schema::Stamp>();
const WORD: usize = size_of::<u32>();

impl Draft {
    /// A Message of which only the stamp is missing.
    pub fn new(topic: &str, sender: &str, payload: &[u8], trace: Option<&str>) -> Self {
        // After topic and stamp: sender, payload, and trace if there is one. What follows the stamp begins at a multiple of eight, counted from the end.
        let offsets = if trace.is_some() { 3 } else { 2 };
        let text_bytes = |text: &str| WORD + (text.len() + 1).next_multiple_of(WORD);
        let payload_bytes = WORD + payload.len().next_multiple_of(WORD);
        let tail_bytes = trace.map_or(0, text_bytes) + payload_bytes + text_bytes(sender) + text_bytes(topic);
        let padding = (tail_bytes + offsets * WORD) % 8;
        let inline_bytes = 2 * WORD + STAMP_BYTES + padding + offsets * WORD;
        // Vtable: its own length, the table's, and where each field lies. The root offset and what pads it are in front.
        let vtable_bytes = (2 + 2 + offsets) * size_of::<u16>();
        let table_at = (WORD + vtable_bytes).next_multiple_of(8);

        let body_bytes = table_at + inline_bytes + tail_bytes;
        let mut frame = Vec::with_capacity(HEADER_BYTES + body_bytes);
        append_header(&mut frame, Kind::Message, body_bytes);
        let at = |frame: &Vec<u8>| frame.len() - HEADER_BYTES;
        put_word(&mut frame, table_at);
        pad_to(&mut frame, table_at - vtable_bytes);
        let sender_field = 2 * WORD + STAMP_BYTES + padding;
        let fields = [WORD, 2 * WORD, sender_field, sender_field + WORD, sender_field + 2 * WORD];
        for half in [vtable_bytes, inline_bytes].iter().chain(&fields[..2 + offsets]) {
            frame.extend_from_slice(&(*half as u16).to_le_bytes());
        }

        // The table. Offsets are from where they stand to what they name: trace, payload, sender, topic lie in this order.
        put_word(&mut frame, vtable_bytes);
        let trace_at = table_at + inline_bytes;
        let payload_at = trace_at + trace.map_or(0, text_bytes);
        let sender_at = payload_at + payload_bytes;
        let topic_at = sender_at + text_bytes(sender);
        let put_offset = |frame: &mut Vec<u8>, to: usize| put_word(frame, to - at(frame));
        put_offset(&mut frame, topic_at);
        let stamp_at = frame.len();
        frame.extend_from_slice(&[0; STAMP_BYTES]);
        pad_to(&mut frame, table_at + sender_field);
        put_offset(&mut frame, sender_at);
        put_offset(&mut frame, payload_at);
        if let Some(trace) = trace {
            put_offset(&mut frame, trace_at);
            put_text(&mut frame, trace);
        }
        put_word(&mut frame, payload.len());
        frame.extend_from_slice(payload);
        pad_to(&mut frame, sender_at);
        put_text(&mut frame, sender);
        put_text(&mut frame, topic);
        debug_assert_eq!(at(&frame), body_bytes);
        Draft { frame, stamp_at, topic_at: HEADER_BYTES + topic_at + WORD }
    }

    /// Where it goes.
    pub fn topic(&self) -> &str {
        let length = self.frame.get(self.topic_at - WORD..).and_then(|rest| rest.first_chunk());
        let length = length.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        let text = self.frame.get(self.topic_at..self.topic_at + length).unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }

    /// Fills in the stamp; afterwards the frame never changes.
    pub fn stamp(mut self, stamp: Stamp) -> Bytes {
        if let Some(place) = self.frame.get_mut(self.stamp_at..self.stamp_at + STAMP_BYTES) {
            place.copy_from_slice(&schema::Stamp::from(stamp).0);
        }
        Bytes::from(self.frame)
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

fn put_word(frame: &mut Vec<u8>, value: usize) {
    frame.extend_from_slice(&(value as u32).to_le_bytes());
}

/// Length, text, a zero, and what pads them to a multiple of four.
fn put_text(frame: &mut Vec<u8>, text: &str) {
    put_word(frame, text.len());
    frame.extend_from_slice(text.as_bytes());
    frame.extend_from_slice(&[0; WORD][..WORD - text.len() % WORD]);
}

/// Zeros up to this place of the body.
fn pad_to(frame: &mut Vec<u8>, at: usize) {
    frame.resize(HEADER_BYTES + at, 0);
}

#[cfg(test)]
mod tests {
    use flatbuffers::FlatBufferBuilder;

    use super::*;
    use crate::id::Position;
    use crate::wire::{ServerFrame, Split, split};

    fn by_the_builder(topic: &str, sender: &str, payload: &[u8], trace: Option<&str>, stamp: Stamp) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let topic = Some(builder.create_string(topic));
        let sender = Some(builder.create_string(sender));
        let payload = Some(builder.create_vector(payload));
        let trace = trace.map(|trace| builder.create_string(trace));
        let stamp = schema::Stamp::from(stamp);
        let fields = schema::MessageArgs { topic, stamp: Some(&stamp), sender, payload, trace };
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
                        assert_eq!(draft.topic(), topic);
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
}

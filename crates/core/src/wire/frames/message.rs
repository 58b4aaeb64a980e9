//! Message: a published message on its way to a recipient.
//!
//! The frame of a new message is laid out by [`Draft`], once for all its recipients. Here is what reads such a frame again,
//! to list it in a HistoryResult or to copy it into the sender's own inbox.

use crate::limits::HEADER_BYTES;
use crate::wire::Draft;
use crate::wire::encoder::Encoder;
use crate::wire::header::{Kind, WireError};
use crate::wire::schema;
use crate::wire::table::Table;

/// The fields of a Message.
pub(super) struct Message<'a> {
    pub(super) topic: Option<&'a str>,
    pub(super) stamp: Option<schema::Stamp>,
    pub(super) sender: Option<&'a str>,
    pub(super) payload: Option<&'a [u8]>,
    pub(super) trace: Option<&'a str>,
    pub(super) sent_to: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// Reads a whole frame, header and body.
    pub(super) fn of_frame(frame: &'a [u8]) -> Result<Self, WireError> {
        type Fields<'a> = schema::Message<'a>;
        let table = Table::root(frame.get(HEADER_BYTES..).unwrap_or_default())?;
        Ok(Message {
            topic: table.string(Fields::VT_TOPIC)?,
            stamp: table.structure(Fields::VT_STAMP)?.map(schema::Stamp),
            sender: table.string(Fields::VT_SENDER)?,
            payload: table.bytes(Fields::VT_PAYLOAD)?,
            trace: table.string(Fields::VT_TRACE)?,
            sent_to: table.string(Fields::VT_SENT_TO)?,
        })
    }
}

impl Encoder {
    /// A Message for its sender's own inbox with everything of `frame`, which went to another user's inbox: only the stamp
    /// is missing. None if `frame` is no Message.
    pub fn copy_for_sender(&mut self, frame: &[u8]) -> Option<Draft> {
        let message = Message::of_frame(frame).ok()?;
        let topic = Some(self.builder.create_string(&format!("@{}", message.sender?)));
        let sender = message.sender.map(|sender| self.builder.create_string(sender));
        let payload = message.payload.map(|payload| self.builder.create_vector(payload));
        let trace = message.trace.map(|trace| self.builder.create_string(trace));
        let sent_to = message.topic.map(|sent_to| self.builder.create_string(sent_to));
        let stamp = message.stamp.as_ref();
        let fields = schema::MessageArgs { topic, stamp, sender, payload, trace, sent_to };
        let table = schema::Message::create(&mut self.builder, &fields);
        let mut copy = Vec::new();
        self.finish(&mut copy, Kind::Message, table);
        Draft::of_frame(copy)
    }
}

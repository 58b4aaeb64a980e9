//! History, the question what was said in a topic, and its answer HistoryResult.

use bytes::Bytes;

use super::message::Message;
use crate::id::Position;
use crate::wire::encoder::{Encoder, SharedTexts};
use crate::wire::fields::{OutOfBounds, Parsed, TOPIC, topic};
use crate::wire::header::Kind;
use crate::wire::{schema, verify};

/// The fields of History.
#[derive(Clone, Copy, Debug, Default)]
pub struct History<'a> {
    /// Echoed in the answer.
    pub request: u32,
    /// Name with its `@` for an inbox; a checked one, if the frame was parsed.
    pub topic: &'a str,
    /// After this, oldest first.
    pub since: Option<Position>,
    /// The newest before this. Without both: the newest.
    pub before: Option<Position>,
    /// Most messages to list.
    pub limit: u32,
}

/// What [`Encoder::history_result`] needs.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct HistoryResult<'a> {
    pub request: u32,
    pub topic: &'a str,
    pub position: Position,
    /// Whole Message frames.
    pub frames: &'a [Bytes],
    pub more: bool,
    pub recovered: bool,
}

const BEFORE: &str = "before: must not stand beside since";

impl<'a> History<'a> {
    #[inline]
    pub(in crate::wire) fn parse(body: &'a [u8]) -> Parsed<Self> {
        let table: schema::History<'a> = verify::of_client(body, verify::TABLES_MAX)?;
        let request = table.request();
        let (since, before) = (table.since().map(Position::from), table.before().map(Position::from));
        Ok(match topic(table.topic()) {
            None => Err(OutOfBounds { request, problem: TOPIC }),
            Some(_) if since.is_some() && before.is_some() => Err(OutOfBounds { request, problem: BEFORE }),
            Some(topic) => Ok(History { request, topic, since, before, limit: table.limit() }),
        })
    }
}

impl Encoder {
    /// History (clients).
    pub fn history(&mut self, out: &mut Vec<u8>, fields: &History<'_>) {
        let History { request, limit, .. } = *fields;
        let topic = Some(self.builder.create_string(fields.topic));
        let (since, before) = (fields.since.map(Into::into), fields.before.map(Into::into));
        let table = schema::History::create(
            &mut self.builder,
            &schema::HistoryArgs { request, topic, since: since.as_ref(), limit, before: before.as_ref() },
        );
        self.finish(out, Kind::History, table);
    }

    /// HistoryResult from whole Message frames.
    pub fn history_result(&mut self, out: &mut Vec<u8>, fields: &HistoryResult<'_>) {
        let HistoryResult { request, topic, position, frames, more, recovered } = *fields;
        let mut list = Vec::with_capacity(frames.len());
        let mut topics = SharedTexts::default();
        for frame in frames {
            // Frames of our own logs can always be read; one that could not would be left out, not panic.
            let Ok(message) = Message::of_frame(frame) else { continue };
            let topic = message.topic.map(|topic| topics.or_create(&mut self.builder, topic));
            let sender = message.sender.map(|sender| self.builder.create_shared_string(sender));
            let payload = message.payload.map(|payload| self.builder.create_vector(payload));
            let trace = message.trace.map(|trace| self.builder.create_string(trace));
            let sent_to = message.sent_to.map(|sent_to| self.builder.create_string(sent_to));
            list.push(schema::Message::create(
                &mut self.builder,
                &schema::MessageArgs { topic, stamp: message.stamp.as_ref(), sender, payload, trace, sent_to },
            ));
        }
        let messages = Some(self.builder.create_vector(&list));
        let topic = Some(self.builder.create_string(topic));
        let position = schema::Position::from(position);
        let table = schema::HistoryResult::create(
            &mut self.builder,
            &schema::HistoryResultArgs { request, topic, position: Some(&position), messages, more, recovered },
        );
        self.finish(out, Kind::HistoryResult, table);
    }
}

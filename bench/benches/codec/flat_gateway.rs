//! FlatBuffers, continued: the messages that gateways send.
#![allow(unsafe_code, reason = "reading without verification is what one column is about")]

use bytes::Bytes;
use ringgate_core::id::{Position, Stamp};
use ringgate_core::wire::{Draft, Encoder, ServerFrame, encode, schema};

use super::flat::{Flat, root};
use super::messages::*;
use super::raw;

impl Flat for ChatMessage {
    type Input = Chat<'static>;
    type View<'a> = schema::Message<'a>;

    fn input(sample: Chat<'static>) -> Chat<'static> {
        sample
    }

    fn encode(_: &mut Encoder, input: &Chat<'static>, out: &mut Vec<u8>) {
        out.extend_from_slice(&chat_frame(input));
    }

    fn verified(frame: &[u8]) -> Self::View<'_> {
        let Ok(ServerFrame::Message(message)) = ServerFrame::parse(raw(frame)) else { panic!("our own Message") };
        message
    }

    unsafe fn unverified(frame: &[u8]) -> Self::View<'_> {
        // SAFETY: as promised by our caller.
        unsafe { root::<schema::Message<'_>>(frame) }
    }

    fn head(view: &Self::View<'_>) -> u64 {
        let offset = view.stamp().map_or(0, |stamp| stamp.position().offset());
        Sum::default().text(view.topic().unwrap_or_default()).number(offset).0
    }

    fn whole(view: &Self::View<'_>) -> u64 {
        let stamp = view.stamp().map(Stamp::from).unwrap_or_default();
        let sum = Sum::default().text(view.topic().unwrap_or_default()).number(stamp.position.epoch);
        let sum = sum.number(stamp.position.offset).number(stamp.message_id).number(stamp.timestamp_ms);
        let sum = sum.text(view.sender().unwrap_or_default()).bytes(view.payload().unwrap_or_default().bytes());
        sum.text(view.trace().unwrap_or_default()).0
    }

    fn value(view: &Self::View<'_>) -> Chat<'static> {
        let stamp = view.stamp().map(Stamp::from).unwrap_or_default();
        Chat {
            topic: view.topic().unwrap_or_default().to_owned().into(),
            epoch: stamp.position.epoch,
            offset: stamp.position.offset,
            message_id: stamp.message_id,
            timestamp_ms: stamp.timestamp_ms,
            sender: view.sender().unwrap_or_default().to_owned().into(),
            payload: Payload(view.payload().unwrap_or_default().bytes().to_vec().into()),
            trace: view.trace().map(|trace| trace.to_owned().into()),
        }
    }
}

/// A Message as the gateway makes it: drafted, then stamped.
fn chat_frame(chat: &Chat<'_>) -> Bytes {
    let position = Position { epoch: chat.epoch, offset: chat.offset };
    let stamp = Stamp { position, message_id: chat.message_id, timestamp_ms: chat.timestamp_ms };
    Draft::new(&chat.topic, &chat.sender, &chat.payload.0, chat.trace.as_deref()).stamp(stamp)
}

impl Flat for PresenceMessage {
    type Input = Presence<'static>;
    type View<'a> = schema::PresenceResult<'a>;

    fn input(sample: Presence<'static>) -> Presence<'static> {
        sample
    }

    fn encode(encoder: &mut Encoder, input: &Presence<'static>, out: &mut Vec<u8>) {
        let members = input.members.iter().map(|member| (&*member.user, &*member.device));
        encoder.presence_result(out, input.request, &input.room, input.count, members);
    }

    fn verified(frame: &[u8]) -> Self::View<'_> {
        let Ok(ServerFrame::PresenceResult(result)) = ServerFrame::parse(raw(frame)) else { panic!("our own frame") };
        result
    }

    unsafe fn unverified(frame: &[u8]) -> Self::View<'_> {
        // SAFETY: as promised by our caller.
        unsafe { root::<schema::PresenceResult<'_>>(frame) }
    }

    fn head(view: &Self::View<'_>) -> u64 {
        Sum::default().number(view.request()).number(view.count()).0
    }

    fn whole(view: &Self::View<'_>) -> u64 {
        let sum = Sum::default().number(view.request()).text(view.room().unwrap_or_default()).number(view.count());
        let members = view.members().into_iter().flatten();
        members.fold(sum, |sum, m| sum.text(m.user().unwrap_or_default()).text(m.device().unwrap_or_default())).0
    }

    fn value(view: &Self::View<'_>) -> Presence<'static> {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned().into();
        let members = view.members().into_iter().flatten();
        Presence {
            request: view.request(),
            room: text(view.room()),
            count: view.count(),
            members: members.map(|m| Member { user: text(m.user()), device: text(m.device()) }).collect(),
        }
    }
}

/// The gateway builds a page from the Message frames of the log, which it reads (verified) for that.
pub(crate) struct Page {
    request: u32,
    topic: String,
    position: Position,
    frames: Vec<Bytes>,
    more: bool,
    recovered: bool,
}

impl Flat for HistoryMessage {
    type Input = Page;
    type View<'a> = schema::HistoryResult<'a>;

    fn input(sample: History<'static>) -> Page {
        Page {
            request: sample.request,
            topic: sample.topic.into_owned(),
            position: Position { epoch: sample.epoch, offset: sample.offset },
            frames: sample.messages.iter().map(|message| chat_frame(message)).collect(),
            more: sample.more,
            recovered: sample.recovered,
        }
    }

    fn encode(encoder: &mut Encoder, page: &Page, out: &mut Vec<u8>) {
        let Page { request, position, more, recovered, .. } = *page;
        let (topic, frames) = (&*page.topic, &*page.frames);
        encoder.history_result(out, &encode::HistoryResult { request, topic, position, frames, more, recovered });
    }

    fn verified(frame: &[u8]) -> Self::View<'_> {
        let Ok(ServerFrame::HistoryResult(result)) = ServerFrame::parse(raw(frame)) else { panic!("our own frame") };
        result
    }

    unsafe fn unverified(frame: &[u8]) -> Self::View<'_> {
        // SAFETY: as promised by our caller.
        unsafe { root::<schema::HistoryResult<'_>>(frame) }
    }

    fn head(view: &Self::View<'_>) -> u64 {
        Sum::default().number(view.request()).number(view.position().map_or(0, |position| position.offset())).0
    }

    fn whole(view: &Self::View<'_>) -> u64 {
        let position = view.position().map(Position::from).unwrap_or_default();
        let sum = Sum::default().number(view.request()).text(view.topic().unwrap_or_default());
        let sum = sum.number(position.epoch).number(position.offset);
        let messages = view.messages().into_iter().flatten();
        let sum = messages.fold(sum, |sum, message| sum.number(ChatMessage::whole(&message)));
        sum.number(view.more()).number(view.recovered()).0
    }

    fn value(view: &Self::View<'_>) -> History<'static> {
        let position = view.position().map(Position::from).unwrap_or_default();
        History {
            request: view.request(),
            topic: view.topic().unwrap_or_default().to_owned().into(),
            epoch: position.epoch,
            offset: position.offset,
            messages: view.messages().into_iter().flatten().map(|message| ChatMessage::value(&message)).collect(),
            more: view.more(),
            recovered: view.recovered(),
        }
    }
}

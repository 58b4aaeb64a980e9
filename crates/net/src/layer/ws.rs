//! WebSocket on the layer below it, which is the bare socket or TLS: the server's side of it.
//!
//! The request comes first, bounded and judged as a whole; then frames in binary messages. Payloads are unmasked where the layer below
//! has left them and handed on as one stream, without the borders of messages; what is sent goes as one unmasked message for each
//! send. Where the subprotocol is JSON, each text is a frame, both ways (`crate::json`). Pings are answered here, the newest one where several wait. While nothing
//! waits, this owns the decoder's bytes and no other memory.

use std::sync::Arc;

use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;
use ringgate_core::limits::CONNECT_BODY_BYTES_MAX;
use ringgate_core::outbox::Chunk;
use ringgate_core::wire::ws::{
    Decoder, FrameHeader, HEADER_BYTES_MAX, Item, Message, Opcode, Peer, Violation, append_close, code,
};

use super::{Layer, LayerError, Progress};
use crate::Driver;
use crate::gather::{SEND_BYTES_MAX, append_rest};
use crate::json::{self, Texts, append_messages};
use crate::portion::Portion;
use crate::sends::{Owner, Send, SendKey, Sends};
use crate::ws::{Accepted, Failure, HEAD_BYTES_MAX, Refusal, Rules, Simd, Subprotocol, head_bytes, upgrade};

/// Bytes of the first text of a connection, which nobody has signed in yet: the longest Connect, with room for escapes and names of fields.
const FIRST_TEXT_BYTES_MAX: usize = 2 * CONNECT_BODY_BYTES_MAX;

// What an idle connection has on top of the layer below; a size that allocators keep whole blocks of.
const _: () = assert!(size_of::<Ws<super::plain::Plain>>() <= 64 && size_of::<Ws<crate::tls::Tls>>() <= 80);

/// See the module.
pub(crate) struct Ws<L> {
    below: L,
    upper: Upper,
}

/// All but the layer below, so that what it hands on can be taken in while it works.
struct Upper {
    stage: Stage,
    subprotocol: Subprotocol,
    is_first_text: bool,
    /// What a Close frame of ours says.
    close_code: u16,
    decoder: Decoder,
    aside: Option<Box<Aside>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The request has not come as a whole.
    Opening,
    Open,
    /// A Close frame, or an answer other than 101, is the last that is sent.
    Over,
}

/// Memory of connections that are not idle.
#[derive(Default)]
struct Aside {
    /// Until the request is judged.
    opening: Option<Opening>,
    /// The text whose end has not come.
    text: Vec<u8>,
    /// What waits for the next send, in this order: the answer to the request, the payload of a Pong, the body of a Close.
    http: Vec<u8>,
    pong: Option<Vec<u8>>,
    close: Option<Vec<u8>>,
}

impl Aside {
    fn has_answer(&self) -> bool {
        !self.http.is_empty() || self.pong.is_some() || self.close.is_some()
    }
}

struct Opening {
    rules: Arc<Rules>,
    /// The request so far.
    head: Vec<u8>,
}

/// What portions of the layer below have led to.
#[derive(Default)]
struct Taken {
    upgraded: Option<Box<Accepted>>,
    ended: bool,
    failure: Option<Failure>,
    /// Bytes of frames that were handed on in none.
    overhead_bytes: usize,
}

impl<L: Layer> Ws<L> {
    pub(super) fn new(below: L, rules: Arc<Rules>) -> Self {
        let decoder = Decoder::new(Peer::Client, rules.message_bytes_max);
        let aside = Aside { opening: Some(Opening { rules, head: Vec::new() }), ..Aside::default() };
        let aside = Some(Box::new(aside));
        Ws {
            below,
            upper: Upper {
                stage: Stage::Opening,
                subprotocol: Subprotocol::Binary,
                is_first_text: true,
                close_code: code::NORMAL,
                decoder,
                aside,
            },
        }
    }
}

impl Upper {
    fn take(&mut self, portion: Portion<'_>, taken: &mut Taken, above: &mut impl FnMut(Portion<'_>)) {
        match (self.stage, portion) {
            (Stage::Opening, portion) => self.take_request(&portion, taken),
            (Stage::Open, Portion::InPlace(bytes)) => self.take_frames(bytes, taken, above),
            (Stage::Open, Portion::Lent(bytes)) => self.take_frames(&mut bytes.to_vec(), taken, above),
            (Stage::Over, _) => {}
        }
    }

    fn take_request(&mut self, bytes: &[u8], taken: &mut Taken) {
        let Some(opening) = self.aside.as_deref_mut().and_then(|aside| aside.opening.as_mut()) else { return };
        let Opening { rules, head } = opening;
        let searched = head.len();
        let room = (HEAD_BYTES_MAX + 1).saturating_sub(searched);
        head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let judged = match head_bytes(head, searched) {
            Some(end) if end <= HEAD_BYTES_MAX && (end < head.len() || bytes.len() > room) => Err(Refusal::BadRequest(
                "Bytes follow the request; a client has to wait for the answer before it sends more.",
            )),
            Some(_) => upgrade(head, rules),
            None if head.len() > HEAD_BYTES_MAX => Err(Refusal::HeadTooLarge),
            // A client that speaks something else is told at once, and does not wait for the end of a line that never comes.
            None if !head.first().is_some_and(u8::is_ascii_alphabetic) => Err(Refusal::BadRequest(
                "This is no request of HTTP/1.1; the first line has to be \"GET PATH HTTP/1.1\".",
            )),
            None => return,
        };
        let http = match judged {
            Ok(mut accepted) => {
                self.stage = Stage::Open;
                self.subprotocol = accepted.subprotocol;
                let answer = std::mem::take(&mut accepted.answer);
                taken.upgraded = Some(Box::new(accepted));
                answer
            }
            Err(refusal) => {
                self.stage = Stage::Over;
                let answer = refusal.answer();
                taken.failure = Some(Failure::Refused(refusal));
                answer
            }
        };
        self.aside = Some(Box::new(Aside { http, ..Aside::default() }));
    }

    fn take_frames(&mut self, bytes: &mut [u8], taken: &mut Taken, above: &mut impl FnMut(Portion<'_>)) {
        let all = bytes.len();
        let (mut content, mut spared, mut failure, mut ping, mut close) = (0, 0, None, None, None);
        let Upper { decoder, aside, subprotocol, is_first_text, .. } = self;
        let read = decoder.read::<Simd>(bytes, |item| match item {
            // What comes behind a failure is not looked at.
            Item::Data { .. } if failure.is_some() => {}
            Item::Data { message: Message::Binary, bytes, .. } if *subprotocol == Subprotocol::Binary => {
                if !bytes.is_empty() {
                    content += bytes.len();
                    above(Portion::InPlace(bytes));
                }
            }
            Item::Data { message: Message::Text, ends, bytes } if *subprotocol == Subprotocol::Json => {
                content += bytes.len();
                let text_bytes_max = if *is_first_text { FIRST_TEXT_BYTES_MAX } else { u32::MAX as usize };
                match take_text(aside, bytes, ends, text_bytes_max) {
                    Ok(None) => {}
                    Ok(Some((text_bytes, mut frame))) => {
                        *is_first_text = false;
                        spared += text_bytes.saturating_sub(frame.len());
                        above(Portion::InPlace(&mut frame));
                    }
                    Err(error) => failure = Some(error),
                }
            }
            Item::Data { message, .. } => failure = Some(Failure::Message(message)),
            Item::Ping(payload) => ping = Some(payload.to_vec()),
            Item::Pong(_) => {}
            // The code is sent back (RFC 6455, 5.5.1); none for none.
            Item::Close(said) => {
                const NO_STATUS: u16 = 1005;
                close = Some(said.code.unwrap_or(NO_STATUS));
            }
        });
        // A text counts once it is whole: as its frame, and what it has beyond that here.
        taken.overhead_bytes += all - content + spared;
        if let Some(failure) = failure.or(read.err().map(Failure::Violation)) {
            self.say_close(failure.close_code(), &failure.to_string());
            taken.failure = Some(failure);
        } else if let Some(code) = close {
            self.say_close(code, "");
            taken.ended = true;
        } else if let Some(payload) = ping {
            self.waiting().pong = Some(payload);
        }
    }

    fn waiting(&mut self) -> &mut Aside {
        self.aside.get_or_insert_default()
    }

    fn say_close(&mut self, code: u16, reason: &str) {
        self.stage = Stage::Over;
        let mut body = Vec::new();
        append_close(code, reason, &mut body);
        self.waiting().close = Some(body);
    }

    fn has_answer(&self) -> bool {
        self.aside.as_deref().is_some_and(Aside::has_answer)
    }

    /// What waits, as bytes for the layer below.
    fn take_answer(&mut self) -> Vec<u8> {
        if !self.has_answer() {
            return Vec::new();
        }
        let Aside { mut http, pong, close, text, .. } = self.aside.take().map(|aside| *aside).unwrap_or_default();
        if !text.is_empty() {
            self.waiting().text = text;
        }
        for (opcode, payload) in [(Opcode::Pong, pong), (Opcode::Close, close)] {
            if let Some(payload) = payload {
                http.extend_from_slice(&FrameHeader::new(true, opcode, payload.len()));
                http.extend_from_slice(&payload);
            }
        }
        http
    }
}

/// Takes a piece of a text; at its end gives its bytes, and the frame that it means. A text that comes whole is not copied.
fn take_text(
    aside: &mut Option<Box<Aside>>,
    bytes: &[u8],
    ends: bool,
    text_bytes_max: usize,
) -> Result<Option<(usize, Vec<u8>)>, Failure> {
    let text_bytes = aside.as_deref().map_or(0, |aside| aside.text.len()) + bytes.len();
    if text_bytes > text_bytes_max {
        return Err(Failure::Violation(Violation::MessageTooLong(text_bytes_max as u32)));
    }
    if !ends {
        aside.get_or_insert_default().text.extend_from_slice(bytes);
        return Ok(None);
    }
    let mut frame = Vec::new();
    let appended = match aside.as_deref_mut().map(|aside| std::mem::take(&mut aside.text)) {
        Some(mut text) if !text.is_empty() => {
            text.extend_from_slice(bytes);
            json::append_frame(&text, &mut frame)
        }
        _ => json::append_frame(bytes, &mut frame),
    };
    if aside.as_deref().is_some_and(|aside| !aside.has_answer()) {
        *aside = None;
    }
    appended.map(|()| Some((text_bytes, frame))).map_err(Failure::Json)
}

/// What the layer below and this one have come to together.
fn joined(below: Progress, taken: Taken) -> Result<Progress, Box<LayerError>> {
    if let Some(failure) = taken.failure {
        return Err(Box::new(LayerError::Ws { failure, secured: below.secured }));
    }
    Ok(Progress {
        upgraded: taken.upgraded,
        ended: below.ended || taken.ended,
        overhead_bytes: below.overhead_bytes + taken.overhead_bytes,
        ..below
    })
}

impl<L: Layer> Layer for Ws<L> {
    fn take_in(&mut self, bytes: &mut [u8], mut above: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        let (Ws { below, upper }, mut taken) = (self, Taken::default());
        let progress = below.take_in(bytes, |portion| upper.take(portion, &mut taken, &mut above))?;
        joined(progress, taken)
    }

    fn take_content(
        &mut self,
        content: &mut [u8],
        mut above: impl FnMut(Portion<'_>),
    ) -> Result<Progress, Box<LayerError>> {
        let mut taken = Taken::default();
        self.upper.take(Portion::InPlace(content), &mut taken, &mut above);
        joined(Progress::default(), taken)
    }

    fn step(&mut self, mut above: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        let (Ws { below, upper }, mut taken) = (self, Taken::default());
        let progress = below.step(|portion| upper.take(portion, &mut taken, &mut above))?;
        joined(progress, taken)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.below.has_room(bytes)
    }

    fn kept(&self) -> &[u8] {
        self.below.kept()
    }

    fn has_answer(&self) -> bool {
        self.below.has_answer() || self.upper.has_answer()
    }

    fn take_answer(&mut self) -> Vec<u8> {
        let mut out = self.below.take_answer();
        let answer = self.upper.take_answer();
        // Where the layer below fails, the next send meets its error again.
        let _ = self.below.seal(&answer, &mut out);
        out
    }

    fn is_open(&self) -> bool {
        self.below.is_open() && self.upper.stage == Stage::Open
    }

    fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Box<LayerError>> {
        let frame = [&FrameHeader::new(true, Opcode::Binary, content.len()), content].concat();
        self.below.seal(&frame, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.upper.stage == Stage::Open {
            self.upper.say_close(self.upper.close_code, "");
            let _ = self.below.seal(&self.upper.take_answer(), out);
        }
        self.upper.stage = Stage::Over;
        self.below.finish(out);
    }

    fn explain(&mut self, reason: CloseReason) {
        self.upper.close_code = reason.code();
    }

    fn gather(
        &mut self,
        key: ConnectionKey,
        closing: bool,
        sends: &mut Sends,
        scratch: &mut Vec<u8>,
        driver: &mut impl Driver,
    ) -> Result<Option<SendKey>, Box<LayerError>> {
        let mut out = if self.has_answer() { self.take_answer() } else { sends.spare() };
        let (mut sent, mut more) = (0, false);
        if self.is_open() && self.upper.subprotocol == Subprotocol::Json {
            let direct = L::IS_TRANSPARENT && out.is_empty();
            let buffer = if direct { &mut out } else { &mut *scratch };
            buffer.clear();
            more = append_texts(buffer, key, &mut sends.texts, driver);
            if !direct && !scratch.is_empty() {
                self.below.seal(scratch, &mut out)?;
            }
        } else if self.is_open() {
            // Room for a header of any length goes before the content; what the header does not need of it is left out.
            let direct = L::IS_TRANSPARENT && out.is_empty();
            let buffer = if direct { &mut out } else { &mut *scratch };
            buffer.clear();
            buffer.resize(HEADER_BYTES_MAX, 0);
            more = append_rest(buffer, key, driver);
            let header = FrameHeader::new(true, Opcode::Binary, buffer.len() - HEADER_BYTES_MAX);
            let start = HEADER_BYTES_MAX - header.len();
            if buffer.len() == HEADER_BYTES_MAX {
                buffer.clear();
            } else if let Some(place) = buffer.get_mut(start..HEADER_BYTES_MAX) {
                place.copy_from_slice(&header);
            }
            if direct {
                sent = if out.is_empty() { 0 } else { start };
            } else if let Some(frame) = scratch.get(start..) {
                self.below.seal(frame, &mut out)?;
            }
        }
        if out.is_empty() && closing {
            self.finish(&mut out);
        }
        if out.is_empty() {
            sends.give_back(out);
            return Ok(None);
        }
        Ok(Some(sends.insert(Send { owner: Owner::Copied(out), sent, more })))
    }
}

/// As [`append_rest`], in text messages.
fn append_texts(buffer: &mut Vec<u8>, key: ConnectionKey, texts: &mut Texts, driver: &mut impl Driver) -> bool {
    while buffer.len() < SEND_BYTES_MAX {
        let Some(chunk) = driver.pull(key) else { return false };
        match chunk {
            Chunk::Data(delivery) => texts.append_shared(&delivery.frame, buffer),
            Chunk::Control(control) => {
                append_messages(&control, buffer);
                driver.recycle(key, control);
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use ringgate_core::wire::ws::append_client_frame;

    use super::super::plain::Plain;
    use super::*;

    const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn upgraded() -> Ws<Plain> {
        let mut ws = Ws::new(Plain, Arc::new(Rules::default()));
        assert!(ws.upper.aside.is_some() && !ws.is_open() && !ws.has_answer());
        let progress = ws.take_in(&mut REQUEST.as_bytes().to_vec(), |_| panic!("no content")).ok().unwrap();
        assert!(progress.upgraded.is_some() && ws.is_open() && ws.has_answer());
        assert!(ws.take_answer().starts_with(b"HTTP/1.1 101 "));
        ws
    }

    fn frames(frames: &[(Opcode, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (opcode, payload) in frames {
            append_client_frame(true, *opcode, payload, [1, 2, 3, 4], &mut out);
        }
        out
    }

    #[test]
    fn connection_is_idle_then_it_owns_no_memory_beside_its_own() {
        let mut ws = upgraded();
        assert!(ws.upper.aside.is_none(), "of the request and of its rules nothing is kept");
        let mut content = Vec::new();
        let mut bytes = frames(&[(Opcode::Ping, b"x"), (Opcode::Binary, b"hello")]);
        let progress = ws.take_in(&mut bytes, |portion| content.extend_from_slice(&portion)).ok().unwrap();
        assert_eq!((content.as_slice(), progress.overhead_bytes), (&b"hello"[..], 6 + 1 + 6));
        assert_eq!(ws.take_answer(), [0x8a, 1, b'x']);
        assert!(ws.upper.aside.is_none() && !ws.has_answer());
    }

    #[test]
    fn text_comes_in_pieces_then_its_bytes_count_once_and_nothing_of_it_is_kept() {
        let request = REQUEST.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: ringgate.json.v1\r\n\r\n");
        let mut ws = Ws::new(Plain, Arc::new(Rules::default()));
        assert!(ws.take_in(&mut request.into_bytes(), |_| {}).is_ok());
        ws.take_answer();
        let long = format!(r#"{{"type":"ping","note":"{}"}}"#, "n".repeat(5000));
        let short = r#"{"type":"publish","topic":"chat:a"}"#;
        for text in [&long, short] {
            let bytes = frames(&[(Opcode::Text, text.as_bytes())]);
            let (mut handed_on, mut counted) = (0, 0);
            for mut piece in bytes.chunks(1000).map(<[u8]>::to_vec) {
                let progress = ws.take_in(&mut piece, |portion| handed_on += portion.len()).ok().unwrap();
                counted += progress.overhead_bytes;
            }
            assert_eq!(counted + handed_on, bytes.len().max(handed_on + 6), "{text}");
            assert!(ws.upper.aside.is_none() && !ws.has_answer());
        }
    }

    #[test]
    fn several_pings_wait_then_the_newest_one_is_answered() {
        let mut ws = upgraded();
        for payload in [&b"1"[..], b"2", b"3"] {
            assert!(ws.take_in(&mut frames(&[(Opcode::Ping, payload), (Opcode::Pong, b"")]), |_| {}).is_ok());
        }
        assert_eq!(ws.take_answer(), [0x8a, 1, b'3']);
    }

    #[test]
    fn close_comes_behind_a_ping_then_the_close_alone_is_answered_and_nothing_is_sent_behind_it() {
        let mut ws = upgraded();
        let mut bytes =
            frames(&[(Opcode::Ping, b"1"), (Opcode::Close, &4000u16.to_be_bytes()), (Opcode::Binary, b"late")]);
        let progress = ws.take_in(&mut bytes, |_| panic!("it comes behind the Close")).ok().unwrap();
        assert!(progress.ended && !ws.is_open());
        assert_eq!(ws.take_answer(), [0x88, 2, 0x0f, 0xa0]);
        let mut out = Vec::new();
        ws.finish(&mut out);
        assert!(out.is_empty(), "one Close is enough: {out:?}");
    }

    #[test]
    fn connection_ends_here_then_the_reason_is_the_code_and_is_said_once() {
        for (reason, code) in [(None, 1000u16), (Some(CloseReason::TakenOver), 4500)] {
            let (mut ws, mut out) = (upgraded(), Vec::new());
            if let Some(reason) = reason {
                ws.explain(reason);
            }
            ws.finish(&mut out);
            ws.finish(&mut out);
            assert_eq!(out, [&[0x88, 2], &code.to_be_bytes()[..]].concat());
        }
        let (mut early, mut out) = (Ws::new(Plain, Arc::new(Rules::default())), Vec::new());
        early.finish(&mut out);
        assert!(out.is_empty(), "before the answer to the request, there are no frames: {out:?}");
    }
}

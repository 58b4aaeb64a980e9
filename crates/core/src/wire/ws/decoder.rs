//! Frames of a peer in their order: fragments of messages, control frames between them, the end.

use super::Peer;
use super::close::Close;
use super::header::{CONTROL_BYTES_MAX, HEADER_BYTES_MAX, Opcode, Received, header_bytes, parse};
use super::mask::mask;
use super::text::{Text, Validate};
use super::violation::Violation;

/// Fragments of one message, its last one aside, that may carry nothing: each costs its receiver work and its sender six bytes.
pub const EMPTY_FRAGMENTS_MAX: u8 = 128;

// What an idle connection keeps of this.
const _: () = assert!(size_of::<Decoder>() <= 48);

/// A kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// What a peer has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The next piece of a message, unmasked where it lies. It is empty only where `ends` is true.
    Data {
        /// Text or binary; all pieces of one message say the same.
        message: Message,
        /// The message ends with this piece, and the next one is of another message.
        ends: bool,
        /// The caller's to change.
        bytes: &'a mut [u8],
    },
    /// To be answered, unless a Close was sent, with a Pong of the same bytes, at most 125; only the last of several must be.
    Ping(&'a [u8]),
    /// At most 125 bytes.
    Pong(&'a [u8]),
    /// The last item: to be answered with a Close frame, if none was sent yet.
    Close(Close<'a>),
}

/// Reads the frames of one peer; see the module of the wire.
#[derive(Debug)]
pub struct Decoder {
    peer: Peer,
    stage: Stage,
    /// The kind of the message whose fragments come.
    message: Option<Message>,
    empty_fragments: u8,
    message_bytes_max: u32,
    /// Of the message under way, as far as its frames have announced them.
    message_bytes: u32,
    /// Bytes of the frame's payload that have not come.
    rest: u32,
    /// Turned so that it begins with the byte for the next one of the payload.
    key: [u8; 4],
    /// A header that is not whole.
    begun: [u8; HEADER_BYTES_MAX],
    begun_bytes: u8,
    text: Text,
    /// The payload of a control frame that is not whole.
    control: Option<Box<Control>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Data {
        fin: bool,
    },
    Control(Opcode),
    /// A Close has come, or a rule was broken: nothing is read any more.
    Over,
}

#[derive(Debug)]
struct Control {
    bytes: [u8; CONTROL_BYTES_MAX],
    length: u8,
}

impl Decoder {
    /// For what a peer sends after the opening handshake. A message may have `message_bytes_max` bytes in all its fragments.
    pub fn new(peer: Peer, message_bytes_max: u32) -> Decoder {
        Decoder {
            peer,
            stage: Stage::Header,
            message: None,
            empty_fragments: 0,
            message_bytes_max,
            message_bytes: 0,
            rest: 0,
            key: [0; 4],
            begun: [0; HEADER_BYTES_MAX],
            begun_bytes: 0,
            text: Text::default(),
            control: None,
        }
    }

    /// Whether nothing is read any more, since a Close has come or a rule was broken.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Takes the next bytes of the peer in, and hands on what is in them, in order. Bytes behind a Close, or behind a violation, are
    /// ignored (RFC 6455, 1.4 and 7.1.7). What was handed on before a violation keeps its meaning; a text that turns out not to be
    /// UTF-8 may have been handed on in part.
    pub fn read<V: Validate>(&mut self, bytes: &mut [u8], mut each: impl FnMut(Item<'_>)) -> Result<(), Violation> {
        let result = self.read_frames::<V>(bytes, &mut each);
        if result.is_err() {
            self.stage = Stage::Over;
            self.control = None;
        }
        result
    }

    fn read_frames<V: Validate>(
        &mut self,
        mut bytes: &mut [u8],
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Violation> {
        while !bytes.is_empty() {
            let (used, received) = match self.stage {
                Stage::Header => self.read_header(bytes)?,
                Stage::Data { .. } | Stage::Control(_) => (0, None),
                Stage::Over => return Ok(()),
            };
            let (_, rest) = bytes.split_at_mut_checked(used).unwrap_or_default();
            if let Some(received) = received {
                self.begin(received)?;
            }
            let here = rest.len().min(self.rest as usize);
            let (payload, rest) = rest.split_at_mut_checked(here).unwrap_or_default();
            bytes = rest;
            self.rest -= here as u32;
            if self.peer == Peer::Client {
                mask(payload, self.key, 0);
                self.key.rotate_left(here % 4);
            }
            match self.stage {
                Stage::Data { fin } => self.take_data::<V>(fin, payload, each)?,
                Stage::Control(opcode) => self.take_control(opcode, payload, each)?,
                Stage::Header | Stage::Over => {}
            }
        }
        Ok(())
    }

    /// How many bytes are of the header, and the header if it is whole with them.
    fn read_header(&mut self, bytes: &[u8]) -> Result<(usize, Option<Received>), Violation> {
        let kept = usize::from(self.begun_bytes);
        if kept == 0
            && let Some(received) = parse(bytes, self.peer)?
        {
            return Ok((received.header_bytes, Some(received)));
        }
        // Two steps at most: the second byte says how many there are.
        let wanted = header_bytes(self.begun.get(..kept).unwrap_or_default());
        let used = wanted.saturating_sub(kept).min(bytes.len());
        for (place, byte) in self.begun.iter_mut().skip(kept).zip(bytes.iter().take(used)) {
            *place = *byte;
        }
        self.begun_bytes += used as u8;
        let received = parse(self.begun.get(..kept + used).unwrap_or_default(), self.peer)?;
        if received.is_some() {
            self.begun_bytes = 0;
        }
        Ok((used, received))
    }

    fn begin(&mut self, received: Received) -> Result<(), Violation> {
        let Received { fin, opcode, length, key, .. } = received;
        let message = match opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                self.stage = Stage::Control(opcode);
                self.rest = length as u32;
                self.key = key;
                return Ok(());
            }
            Opcode::Continuation => self.message.ok_or(Violation::NothingToContinue)?,
            Opcode::Text | Opcode::Binary if self.message.is_some() => return Err(Violation::MessageNotFinished),
            Opcode::Text => Message::Text,
            Opcode::Binary => Message::Binary,
        };
        if opcode != Opcode::Continuation {
            (self.message, self.message_bytes, self.empty_fragments) = (Some(message), 0, 0);
        }
        let bytes = u64::from(self.message_bytes).saturating_add(length);
        if bytes > u64::from(self.message_bytes_max) {
            return Err(Violation::MessageTooLong(self.message_bytes_max));
        }
        if length == 0 && !fin {
            self.empty_fragments += 1;
            if self.empty_fragments > EMPTY_FRAGMENTS_MAX {
                return Err(Violation::TooManyEmptyFragments);
            }
        }
        (self.message_bytes, self.rest, self.key) = (bytes as u32, length as u32, key);
        self.stage = Stage::Data { fin };
        Ok(())
    }

    fn take_data<V: Validate>(
        &mut self,
        fin: bool,
        bytes: &mut [u8],
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Violation> {
        let Some(message) = self.message else { return Ok(()) };
        let frame_ends = self.rest == 0;
        let ends = fin && frame_ends;
        let is_utf8 = message == Message::Binary || (self.text.take::<V>(bytes) && (!ends || self.text.is_whole()));
        if !is_utf8 {
            return Err(Violation::TextNotUtf8);
        }
        if ends {
            self.message = None;
        }
        if frame_ends {
            self.stage = Stage::Header;
        }
        if ends || !bytes.is_empty() {
            each(Item::Data { message, ends, bytes });
        }
        Ok(())
    }

    fn take_control(&mut self, opcode: Opcode, bytes: &[u8], each: &mut impl FnMut(Item<'_>)) -> Result<(), Violation> {
        let begun = match self.control.take() {
            None if self.rest == 0 => return self.end_control(opcode, bytes, each),
            None if bytes.is_empty() => return Ok(()),
            begun => begun,
        };
        let mut control = begun.unwrap_or_else(|| Box::new(Control { bytes: [0; CONTROL_BYTES_MAX], length: 0 }));
        for (place, byte) in control.bytes.iter_mut().skip(usize::from(control.length)).zip(bytes) {
            *place = *byte;
        }
        control.length += bytes.len() as u8;
        if self.rest == 0 {
            let payload = control.bytes.get(..usize::from(control.length)).unwrap_or_default();
            return self.end_control(opcode, payload, each);
        }
        self.control = Some(control);
        Ok(())
    }

    fn end_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Violation> {
        self.stage = Stage::Header;
        match opcode {
            Opcode::Ping => each(Item::Ping(payload)),
            Opcode::Pong => each(Item::Pong(payload)),
            Opcode::Close => {
                let close = Close::parse(payload)?;
                self.stage = Stage::Over;
                each(Item::Close(close));
            }
            // Stage::Control holds the three above.
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        Ok(())
    }
}

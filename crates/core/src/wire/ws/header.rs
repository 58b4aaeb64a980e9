//! Headers of frames (RFC 6455, 5.2): two to fourteen bytes.

use std::ops::Deref;

use super::Peer;
use super::mask::mask;
use super::violation::Violation;

/// Bytes of the longest header: two, eight of length, four of the masking key.
pub const HEADER_BYTES_MAX: usize = 14;
/// Bytes of payload of a control frame at most.
pub const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const RESERVED_SHIFT: u32 = 4;
const RESERVED: u8 = 0b111;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
/// The two values of the short length that say how long the long one is.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message that began before.
    Continuation = 0,
    /// A text, or its first fragment.
    Text = 1,
    /// Bytes, or their first fragment.
    Binary = 2,
    /// The last frame of its sender.
    Close = 8,
    /// To be answered with a Pong that has its payload.
    Ping = 9,
    /// An answer to a Ping, or a heartbeat that nobody asked for.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Opcode, Violation> {
        Ok(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => return Err(Violation::ReservedOpcode(other)),
        })
    }

    /// Whether frames of this kind may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// A header of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// The last frame of its message.
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) length: u64,
    /// Of a client's frame.
    pub(super) key: [u8; 4],
    /// Bytes of the header itself.
    pub(super) header_bytes: usize,
}

/// How many bytes the header has that begins with these; two as long as the second one has not come.
pub(super) fn header_bytes(begun: &[u8]) -> usize {
    let Some(second) = begun.get(1) else { return 2 };
    let length = match second & !MASKED {
        LENGTH_16 => 2,
        LENGTH_64 => 8,
        _ => 0,
    };
    let key = if second & MASKED == 0 { 0 } else { 4 };
    2 + length + key
}

/// Reads a header. None while it is not whole; an error as soon as its first bytes break a rule.
pub(super) fn parse(bytes: &[u8], peer: Peer) -> Result<Option<Received>, Violation> {
    let [first, rest @ ..] = bytes else { return Ok(None) };
    let reserved = (first >> RESERVED_SHIFT) & RESERVED;
    if reserved != 0 {
        return Err(Violation::ReservedBits(reserved));
    }
    let (fin, opcode) = (first & FIN != 0, Opcode::from_bits(first & OPCODE)?);
    if opcode.is_control() && !fin {
        return Err(Violation::FragmentedControl);
    }
    let [second, rest @ ..] = rest else { return Ok(None) };
    match (peer, second & MASKED != 0) {
        (Peer::Client, false) => return Err(Violation::NotMasked),
        (Peer::Server, true) => return Err(Violation::Masked),
        _ => {}
    }
    let short = second & !MASKED;
    let (length, shorter_max, rest) = match short {
        LENGTH_16 => {
            let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*length)), 125, rest)
        }
        LENGTH_64 => {
            let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*length), u64::from(u16::MAX), rest)
        }
        short => (u64::from(short), 0, rest),
    };
    if length >> 63 != 0 {
        return Err(Violation::LengthTooLarge);
    }
    if short >= LENGTH_16 && length <= shorter_max {
        return Err(Violation::LengthNotMinimal(length));
    }
    if opcode.is_control() && length > CONTROL_BYTES_MAX as u64 {
        return Err(Violation::ControlTooLong(length));
    }
    let key = match peer {
        Peer::Client => {
            let Some(key) = rest.first_chunk::<4>() else { return Ok(None) };
            *key
        }
        Peer::Server => [0; 4],
    };
    Ok(Some(Received { fin, opcode, length, key, header_bytes: header_bytes(bytes) }))
}

/// An encoded header. It goes before the payload, in a buffer of its own or in the room that was left there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    bytes: [u8; HEADER_BYTES_MAX],
    length: u8,
}

impl FrameHeader {
    /// Of an unmasked frame, as servers send them, with so many bytes of payload. `fin` says that its message ends with it; a control
    /// frame has at most [`CONTROL_BYTES_MAX`] bytes, and `fin`.
    pub fn new(fin: bool, opcode: Opcode, payload_bytes: usize) -> FrameHeader {
        FrameHeader::encode(fin, opcode, payload_bytes, None)
    }

    /// Of a frame of a client, whose payload is to be masked with this key.
    pub fn masked(fin: bool, opcode: Opcode, payload_bytes: usize, key: [u8; 4]) -> FrameHeader {
        FrameHeader::encode(fin, opcode, payload_bytes, Some(key))
    }

    fn encode(fin: bool, opcode: Opcode, payload_bytes: usize, key: Option<[u8; 4]>) -> FrameHeader {
        debug_assert!(!opcode.is_control() || (fin && payload_bytes <= CONTROL_BYTES_MAX));
        let mut header = FrameHeader { bytes: [0; HEADER_BYTES_MAX], length: 0 };
        let masked = if key.is_some() { MASKED } else { 0 };
        header.push(&[if fin { FIN } else { 0 } | opcode as u8]);
        match payload_bytes {
            0..=125 => header.push(&[masked | payload_bytes as u8]),
            126..=0xffff => {
                header.push(&[masked | LENGTH_16]);
                header.push(&(payload_bytes as u16).to_be_bytes());
            }
            _ => {
                header.push(&[masked | LENGTH_64]);
                header.push(&(payload_bytes as u64).to_be_bytes());
            }
        }
        if let Some(key) = key {
            header.push(&key);
        }
        header
    }

    fn push(&mut self, bytes: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(usize::from(self.length)).zip(bytes) {
            *place = *byte;
        }
        self.length += bytes.len() as u8;
    }
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// Appends a whole frame of a client. The key has to be one that nobody can foresee (RFC 6455, 5.3).
pub fn append_client_frame(fin: bool, opcode: Opcode, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    out.extend_from_slice(&FrameHeader::masked(fin, opcode, payload.len(), key));
    let start = out.len();
    out.extend_from_slice(payload);
    mask(out.get_mut(start..).unwrap_or_default(), key, 0);
}

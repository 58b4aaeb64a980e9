//! Rules of RFC 6455 that a peer can break, each with the close code that it is told.

use super::code;

/// The rule that a peer has broken. The connection is to be failed: a Close frame with [`Self::close_code`], and nothing is read
/// any more (RFC 6455, 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// 5.2: a reserved bit is set, and no extension was agreed on. These are the three bits, as a number from 1 to 7.
    ReservedBits(u8),
    /// 5.2: an opcode that is not defined.
    ReservedOpcode(u8),
    /// 5.1: a frame of a client is not masked.
    NotMasked,
    /// 5.1: a frame of a server is masked.
    Masked,
    /// 5.2: a length that would fit in fewer bytes.
    LengthNotMinimal(u64),
    /// 5.2: the most significant bit of a length of 64 bits is set.
    LengthTooLarge,
    /// 5.5: a control frame is a fragment.
    FragmentedControl,
    /// 5.5: a control frame announces so many bytes, more than 125.
    ControlTooLong(u64),
    /// 5.4: a continuation of no message.
    NothingToContinue,
    /// 5.4: a new message begins within the fragments of another one.
    MessageNotFinished,
    /// 10.4: fragments of a message that carry nothing, more than [`super::EMPTY_FRAGMENTS_MAX`] of them.
    TooManyEmptyFragments,
    /// 10.4: a message of more bytes than this, the bound.
    MessageTooLong(u32),
    /// 8.1: a text that is not UTF-8.
    TextNotUtf8,
    /// 5.5.1: a Close frame whose body is one byte, half a code.
    CloseBodyOfOneByte,
    /// 7.4: a close code that may not be sent.
    CloseCode(u16),
    /// 5.5.1: the reason in a Close frame is not UTF-8.
    CloseReasonNotUtf8,
}

impl Violation {
    /// What the peer is told: 1002, 1007, 1008 or 1009 of RFC 6455, 7.4.1.
    pub fn close_code(self) -> u16 {
        match self {
            Violation::ReservedBits(_)
            | Violation::ReservedOpcode(_)
            | Violation::NotMasked
            | Violation::Masked
            | Violation::LengthNotMinimal(_)
            | Violation::LengthTooLarge
            | Violation::FragmentedControl
            | Violation::ControlTooLong(_)
            | Violation::NothingToContinue
            | Violation::MessageNotFinished
            | Violation::CloseBodyOfOneByte
            | Violation::CloseCode(_) => code::PROTOCOL_ERROR,
            Violation::TextNotUtf8 | Violation::CloseReasonNotUtf8 => code::INVALID_PAYLOAD,
            Violation::TooManyEmptyFragments => code::POLICY_VIOLATION,
            Violation::MessageTooLong(_) => code::TOO_BIG,
        }
    }
}

/// A sentence for the log and for the reason in the Close frame: what was wrong, and what would be right. At most 123 bytes.
impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Violation::ReservedBits(bits) => {
                write!(f, "reserved bits {bits:03b} are set; no extension was agreed on, so they must be 000")
            }
            Violation::ReservedOpcode(opcode) => {
                write!(f, "opcode {opcode:#x} is reserved; 0, 1, 2, 8, 9 and 0xa are defined")
            }
            Violation::NotMasked => f.write_str("a frame is not masked; clients must mask every frame"),
            Violation::Masked => f.write_str("a frame is masked; servers must not mask"),
            Violation::LengthNotMinimal(length) => {
                write!(f, "length {length} is not in its shortest form, which is the only one allowed")
            }
            Violation::LengthTooLarge => f.write_str("the first bit of a 64-bit length is set; it must be 0"),
            Violation::FragmentedControl => f.write_str("a control frame has no FIN bit; it must not be a fragment"),
            Violation::ControlTooLong(length) => {
                write!(f, "a control frame has {length} bytes of payload; at most 125 are allowed")
            }
            Violation::NothingToContinue => {
                f.write_str("a continuation frame without a message; one must begin with opcode 1 or 2")
            }
            Violation::MessageNotFinished => {
                f.write_str("a new message within fragments of another; these must go on with opcode 0")
            }
            Violation::TooManyEmptyFragments => {
                write!(f, "more than {} fragments of a message are empty", super::EMPTY_FRAGMENTS_MAX)
            }
            Violation::MessageTooLong(bytes_max) => write!(f, "a message is longer than {bytes_max} bytes"),
            Violation::TextNotUtf8 => f.write_str("a text message is not UTF-8"),
            Violation::CloseBodyOfOneByte => {
                f.write_str("a Close frame has a body of 1 byte; it must be empty or begin with a code of 2 bytes")
            }
            Violation::CloseCode(code) => {
                write!(f, "close code {code} may not be sent; 1000-1003, 1007-1013 and 3000-4999 may")
            }
            Violation::CloseReasonNotUtf8 => f.write_str("the reason in a Close frame is not UTF-8"),
        }
    }
}

impl std::error::Error for Violation {}

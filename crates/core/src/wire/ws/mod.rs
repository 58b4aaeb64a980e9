//! WebSocket (RFC 6455) after its opening handshake: frames in, frames out, and which rule a peer has broken.
//!
//! Pure and incremental. A [`Decoder`] is handed bytes as they come, unmasks them where they lie, and hands on pieces of
//! messages, of which it keeps nothing; it keeps a header that is not whole, at most 125 bytes of a control frame that is not whole,
//! and at most 3 bytes of a character of a text. Frames out are a [`FrameHeader`] and the payload as it is, so that a payload with many
//! recipients has one encoding; only clients mask ([`append_client_frame`]), with a key that is an argument.
//!
//! It does not speak HTTP, knows no extension, and decides nothing about close codes beyond what the RFC asks for.
//!
//! | file | what | RFC 6455 |
//! |---|---|---|
//! | `header` | headers of frames, both directions | 5.2 |
//! | `mask` | masking in place | 5.3 |
//! | `text` | UTF-8 that comes in pieces | 5.6, 8.1 |
//! | `close`, `code` | bodies of Close frames, and their codes | 5.5.1, 7.4 |
//! | `decoder` | the order of frames, fragments, bounds | 5.4, 5.5, 10.4 |
//! | `violation` | the rules, with their close codes | 7.1.7, 7.4.1 |

mod close;
pub mod code;
mod decoder;
mod header;
mod mask;
#[cfg(test)]
mod tests;
mod text;
mod violation;

pub use close::{Close, REASON_BYTES_MAX, append_close};
pub use code::may_be_sent;
pub use decoder::{Decoder, EMPTY_FRAGMENTS_MAX, Item, Message};
pub use header::{CONTROL_BYTES_MAX, FrameHeader, HEADER_BYTES_MAX, Opcode, append_client_frame};
pub use mask::mask;
pub use text::{Std, Validate, Validity};
pub use violation::Violation;

/// Which end of a connection the peer is: it says whose frames are masked (RFC 6455, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Its frames have to be masked.
    Client,
    /// Its frames must not be masked.
    Server,
}

//! The kinds without a body: Ping and its two answers (Pong of the gateway, ClientPong of a client), and Disconnect.

use crate::wire::encoder::Encoder;
use crate::wire::header::{Kind, WireError, append_header};

/// Refuses a body.
#[inline]
pub(in crate::wire) fn parse(body: &[u8]) -> Result<(), WireError> {
    if body.is_empty() { Ok(()) } else { Err(WireError::BodyLength) }
}

impl Encoder {
    /// An empty frame: Ping, Pong, ClientPong, Disconnect.
    pub fn empty(out: &mut Vec<u8>, kind: Kind) {
        append_header(out, kind, 0);
    }
}

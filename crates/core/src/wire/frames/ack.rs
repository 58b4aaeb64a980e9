//! Ack: a position, as a struct without a FlatBuffer around it. It has no answer.

use crate::id::Position;
use crate::wire::encoder::Encoder;
use crate::wire::header::{Kind, WireError, append_header};
use crate::wire::schema;

/// The client keeps everything in its inbox up to this position.
#[inline]
pub(in crate::wire) fn parse(body: &[u8]) -> Result<Position, WireError> {
    let bytes: [u8; size_of::<schema::Position>()] = body.try_into().map_err(|_| WireError::BodyLength)?;
    Ok(Position::from(&schema::Position(bytes)))
}

impl Encoder {
    /// Ack (clients): a struct, no FlatBuffer around it.
    pub fn ack(out: &mut Vec<u8>, position: Position) {
        let body = schema::Position::from(position);
        append_header(out, Kind::Ack, body.0.len());
        out.extend_from_slice(&body.0);
    }
}

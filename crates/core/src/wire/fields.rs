//! Checks that fields of several kinds have in common, and what an answer says of a field that fails one.

use super::header::WireError;
use super::{is_name, schema};
use crate::id::Recover;
use crate::limits::{NAME_BYTES_MAX, TOKEN_BYTES_MAX};

/// A request that can be read, but not carried out: a field is missing or out of bounds. It is answered with Error 107.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    /// Echoed in the answer.
    pub request: u32,
    /// The field's name, a colon, and what it may hold.
    pub problem: &'static str,
}

/// A request as it was read. The outer error closes the connection, the inner one is answered.
pub(super) type Parsed<T> = Result<Result<T, OutOfBounds>, WireError>;

pub(super) const ROOM: &str =
    "room: must have 1 to 128 bytes without control characters and blanks, with a visible character";
pub(super) const TOPIC: &str = "topic: must be @ and a user, or a room, of 1 to 128 bytes without control characters and \
                                blanks, with a visible character";
pub(super) const TOKEN: &str = "token: must have 1 to 8192 bytes";
pub(super) const RECOVER: &str = "recover: must be 0 (exact) or 1 (best)";

const _: () = assert!(NAME_BYTES_MAX == 128 && TOKEN_BYTES_MAX == 8192);

#[inline]
pub(super) fn name(value: Option<&str>) -> Option<&str> {
    value.filter(|name| is_name(name))
}

/// A room, or `@` and a user; the `@` does not count against the user's length.
#[inline]
pub(super) fn topic(value: Option<&str>) -> Option<&str> {
    value.filter(|topic| is_name(topic.strip_prefix('@').unwrap_or(topic)))
}

#[inline]
pub(super) fn token(value: Option<&str>) -> Option<&str> {
    value.filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX)
}

#[inline]
pub(super) fn recover(value: schema::Recover) -> Option<Recover> {
    match value {
        schema::Recover::Exact => Some(Recover::Exact),
        schema::Recover::Best => Some(Recover::Best),
        _ => None,
    }
}

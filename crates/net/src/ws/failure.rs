//! Why a WebSocket ends that the peer has not closed.

use std::fmt;

use ringgate_core::close::CloseReason;
use ringgate_core::wire::ws::{Message, Violation, code};

use super::refusal::Refusal;
use crate::json::Malformed;

/// What a peer did that ends its connection. The text is for logs and, after the opening handshake, the reason in the Close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its request was not accepted.
    Refused(Refusal),
    /// It broke a rule of RFC 6455.
    Violation(Violation),
    /// It sent a message of this kind, where the subprotocol has the other one only.
    Message(Message),
    /// It sent a text that is no request of `docs/json.md`.
    Json(Malformed),
}

impl Failure {
    /// What the Close frame says.
    pub(crate) fn close_code(&self) -> u16 {
        match self {
            // No frame is sent: the answer of HTTP says it.
            Failure::Refused(_) => code::POLICY_VIOLATION,
            Failure::Violation(violation) => violation.close_code(),
            Failure::Message(_) => code::UNSUPPORTED_DATA,
            Failure::Json(_) => CloseReason::BadRequest.code(),
        }
    }

    /// What the driver is told.
    pub(crate) fn reason(&self) -> CloseReason {
        match self {
            Failure::Violation(Violation::MessageTooLong(_)) => CloseReason::FrameTooBig,
            Failure::Refused(_) | Failure::Violation(_) | Failure::Message(_) | Failure::Json(_) => {
                CloseReason::BadRequest
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(refusal) => write!(f, "{}: {}", refusal.status(), refusal.sentence()),
            Failure::Violation(violation) => violation.fmt(f),
            Failure::Message(Message::Text) => f.write_str("a text message; ringgate.v1 has binary messages only"),
            Failure::Message(Message::Binary) => f.write_str("a binary message; ringgate.json.v1 has texts only"),
            Failure::Json(malformed) => malformed.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

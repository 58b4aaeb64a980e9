//! The opening handshake of WebSocket (RFC 6455, 4) for the accepting side: a request of HTTP/1.1 in, an answer out.
//!
//! Pure, as the codec of the frames is (`ringgate_core::wire::ws`). It stands in this crate because it parses with `httparse`, and a
//! text's UTF-8 is checked with `simdutf8`: the core's graph holds neither.
//!
//! | file | what |
//! |---|---|
//! | `upgrade` | the request: what it has to say, and the answer 101 |
//! | `origin` | which web pages may connect |
//! | `forwarded` | whom a proxy of HTTP has passed a request on for |
//! | `refusal` | every other answer, with a sentence |
//! | `failure` | why a connection that was asked for, or made, ends |
//! | `utf8` | the validator of texts |

mod failure;
mod forwarded;
mod origin;
mod refusal;
#[cfg(test)]
mod tests;
mod upgrade;
mod utf8;

pub use failure::Failure;
pub use forwarded::ForwardedHeader;
pub use origin::{OriginPattern, PatternError};
pub use refusal::Refusal;
pub use upgrade::{Accepted, Rules, Subprotocol, head_bytes, upgrade};
pub use utf8::Simd;

/// Bytes of a request, with all its headers.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Headers of a request.
pub const HEADERS_MAX: usize = 64;

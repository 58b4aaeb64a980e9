//! The frames of `docs/protocol.md` as JSON (`docs/json.md`): one object in each text message of a WebSocket.
//!
//! The shard sees frames only: a request becomes the frame that means the same before it is handed on, and a frame of the gateway
//! becomes a text on its way out. Pure, and in this crate for the reason that `ws` is: the core's graph holds no parser of JSON.
//!
//! | file | what |
//! |---|---|
//! | `request` | a text of a client becomes a frame |
//! | `push` | a frame of the gateway becomes a text |
//! | `texts` | texts of messages that have several recipients, each made once |
//! | `number`, `payload` | numbers of 64 and 128 bits; payloads as text or base64 |

mod number;
mod payload;
mod push;
mod request;
#[cfg(test)]
mod tests;
mod texts;

pub use push::append_text;
pub use request::{Malformed, append_frame};
pub(crate) use texts::{Texts, append_messages};

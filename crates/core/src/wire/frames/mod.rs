//! One file for each request with its answer, and for each kind that stands alone: the fields, [`Encoder`](super::Encoder)'s
//! method that builds the frame, and what reads it.
//!
//! Both directions of a request are in one file, since a field added to one usually changes the other: `connect` has Connect
//! and Connected, `publish` has Publish and Published. Joined and Left, which differ by their kind alone, share
//! `member_event`; the four kinds without a body share `empty`.
//!
//! What a client sends is checked field by field here. What a gateway sends is a generated view, verified in
//! [`ServerFrame::parse`](super::ServerFrame::parse); only Published, a struct, is read here.

mod ack;
mod connect;
mod empty;
mod error;
mod goodbye;
mod history;
mod member_event;
mod message;
mod presence;
mod publish;
mod refresh;
mod subscribe;
mod unsubscribe;

pub(super) use ack::parse as parse_ack;
pub use connect::{Connect, ConnectRequest, Connected, PROTOCOL_VERSION, RoomCursor, RoomCursors};
pub(super) use empty::parse as parse_empty;
pub use error::Error;
pub use history::{History, HistoryResult};
pub use presence::Presence;
pub use publish::{Publish, Published};
pub use refresh::Refresh;
pub use subscribe::{Subscribe, Subscribed};
pub use unsubscribe::Unsubscribe;

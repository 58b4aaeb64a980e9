//! A session: an authenticated user and device on a connection, with its rooms, cursors and rates.

mod admission;
mod grant;
mod rate;
mod state;

pub use admission::Admission;
pub use grant::{Authenticator, Grant, RoomGrants, Verb, pattern_matches};
pub use rate::Bucket;
pub use state::{
    Connection, InboxFeed, Lag, Membership, Memberships, PendingConnect, PendingRoom, Phase, Session, Tail, Ticks,
};

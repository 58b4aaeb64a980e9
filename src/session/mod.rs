//! A session: an authenticated user and device on a connection, with its rooms, cursors and rates.

mod grant;

pub use grant::{AuthError, Authenticator, Grant, RoomGrants, Verb, pattern_matches};

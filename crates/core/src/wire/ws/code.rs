//! Close codes of RFC 6455, 7.4.1, and of the registry that it founded.

/// The purpose of the connection is fulfilled.
pub const NORMAL: u16 = 1000;
/// The server shuts down, or the page was left.
pub const GOING_AWAY: u16 = 1001;
/// The peer has broken the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// The peer sent a kind of data that is not taken here.
pub const UNSUPPORTED_DATA: u16 = 1003;
/// The peer sent a text that is not UTF-8.
pub const INVALID_PAYLOAD: u16 = 1007;
/// The peer did what is not allowed here.
pub const POLICY_VIOLATION: u16 = 1008;
/// The peer sent a message that is too long.
pub const TOO_BIG: u16 = 1009;
/// The server did not agree on an extension that the client needs.
pub const MANDATORY_EXTENSION: u16 = 1010;
/// The server cannot go on.
pub const INTERNAL_ERROR: u16 = 1011;
/// The server starts anew.
pub const SERVICE_RESTART: u16 = 1012;
/// The server has too much to do.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// Whether a code may stand in a Close frame: not those that are reserved for what no frame has said (1004 to 1006, 1015), and not
/// those that nobody has defined (RFC 6455, 7.4.2).
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999)
}

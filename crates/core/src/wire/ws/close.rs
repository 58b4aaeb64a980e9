//! Bodies of Close frames (RFC 6455, 5.5.1 and 7.4): a code, and a reason for people.

use super::code::{self, may_be_sent};
use super::header::CONTROL_BYTES_MAX;
use super::violation::Violation;

/// Bytes of a reason at most: a control frame has room for 125, and the code takes two.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// What a Close frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// None if the frame has no body.
    pub code: Option<u16>,
    /// Empty if there is none.
    pub reason: &'a str,
}

impl<'a> Close<'a> {
    /// From the body of a Close frame.
    pub(super) fn parse(body: &'a [u8]) -> Result<Close<'a>, Violation> {
        match body {
            [] => Ok(Close { code: None, reason: "" }),
            [_] => Err(Violation::CloseBodyOfOneByte),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !may_be_sent(code) {
                    return Err(Violation::CloseCode(code));
                }
                let reason = core::str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
                Ok(Close { code: Some(code), reason })
            }
        }
    }
}

/// Appends the body of a Close frame: a code that may be sent ([`may_be_sent`]), and as much of the reason as has room, cut between characters. The
/// code 1005 ("no status") stands for no body at all, as in the interface of browsers; any other that may not be sent becomes 1011.
pub fn append_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    const NO_STATUS: u16 = 1005;
    if code == NO_STATUS {
        return;
    }
    let code = if may_be_sent(code) { code } else { code::INTERNAL_ERROR };
    out.extend_from_slice(&code.to_be_bytes());
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    out.extend_from_slice(reason.as_bytes().get(..end).unwrap_or_default());
}

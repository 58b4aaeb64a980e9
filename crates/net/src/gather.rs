//! What one send carries: everything that waits for a socket, copied together, encrypted, or a single frame as it is.

use super::Driver;
use super::sends::{Owner, Send, Sends};
use super::socket::Stage;
use crate::tls::Tls;
use ringgate_core::id::ConnectionKey;
use ringgate_core::outbox::Chunk;

/// Bytes of one send. Small frames are copied together up to this; a frame above `COPY_BYTES_MAX` travels alone, uncopied.
pub(super) const SEND_BYTES_MAX: usize = 64 * 1024;
const COPY_BYTES_MAX: usize = 8 * 1024;

/// Everything that is queued, as one send: what is alone goes out uncopied.
pub(super) fn gather_plain(key: ConnectionKey, sends: &mut Sends, driver: &mut impl Driver) -> Option<Send> {
    let first = driver.pull(key)?;
    if first.bytes().len() > COPY_BYTES_MAX {
        return Some(Send { owner: first.into(), sent: 0, more: true });
    }
    let Some(second) = driver.pull(key) else { return Some(Send { owner: first.into(), sent: 0, more: false }) };
    let mut buffer = sends.spare();
    append(&mut buffer, key, first, driver);
    append(&mut buffer, key, second, driver);
    let more = append_rest(&mut buffer, key, driver);
    Some(Send { owner: Owner::Copied(buffer), sent: 0, more })
}

/// Appends what is queued, as much as a send may carry; true when there may be more.
fn append_rest(buffer: &mut Vec<u8>, key: ConnectionKey, driver: &mut impl Driver) -> bool {
    while buffer.len() < SEND_BYTES_MAX {
        let Some(chunk) = driver.pull(key) else { return false };
        append(buffer, key, chunk, driver);
    }
    true
}

fn append(buffer: &mut Vec<u8>, key: ConnectionKey, chunk: Chunk, driver: &mut impl Driver) {
    buffer.extend_from_slice(chunk.bytes());
    if let Chunk::Control(control) = chunk {
        driver.recycle(key, control);
    }
}

/// Handshake bytes first, then everything that is queued, encrypted.
pub(super) fn gather_tls(
    tls: &mut Tls,
    key: ConnectionKey,
    stage: Stage,
    sends: &mut Sends,
    plaintext: &mut Vec<u8>,
    driver: &mut impl Driver,
) -> Result<Option<Send>, crate::tls::TlsError> {
    let mut more = false;
    let mut out = if tls.has_outgoing() { tls.take_outgoing() } else { sends.spare() };
    if tls.is_established() {
        plaintext.clear();
        more = append_rest(plaintext, key, driver);
        if !plaintext.is_empty() {
            tls.encrypt(plaintext, &mut out)?;
        }
        if out.is_empty() && stage == Stage::Flushing {
            tls.close_notify(&mut out);
        }
    }
    if out.is_empty() {
        sends.give_back(out);
        return Ok(None);
    }
    Ok(Some(Send { owner: Owner::Copied(out), sent: 0, more }))
}

//! What one send carries: everything that waits for a socket, copied together, encrypted, or a single frame as it is.

use super::send::{Owner, Sends};
use super::socket::Stage;
use super::{COPY_BYTES_MAX, Driver, SEND_BYTES_MAX};
use crate::id::ConnectionKey;
use crate::outbox::Chunk;
use crate::tls::Tls;

/// Everything that is queued, as one send: what is alone goes out uncopied.
pub(super) fn gather_plain(key: ConnectionKey, sends: &mut Sends, driver: &mut impl Driver) -> Option<Owner> {
    let first = driver.pull(key)?;
    if first.bytes().len() > COPY_BYTES_MAX {
        return Some(first.into());
    }
    let Some(second) = driver.pull(key) else { return Some(first.into()) };
    let mut buffer = sends.spare();
    append(&mut buffer, key, first, driver);
    append(&mut buffer, key, second, driver);
    while buffer.len() < SEND_BYTES_MAX
        && let Some(chunk) = driver.pull(key)
    {
        append(&mut buffer, key, chunk, driver);
    }
    Some(Owner::Copied(buffer))
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
) -> Result<Option<Owner>, crate::tls::TlsError> {
    let mut out = if tls.has_outgoing() { tls.take_outgoing() } else { sends.spare() };
    if tls.is_established() {
        plaintext.clear();
        while plaintext.len() < SEND_BYTES_MAX
            && let Some(chunk) = driver.pull(key)
        {
            append(plaintext, key, chunk, driver);
        }
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
    Ok(Some(Owner::Copied(out)))
}

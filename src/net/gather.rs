//! What one send carries: everything that waits for a socket, copied together, encrypted, or a single frame as it is.

use super::send::{Owner, Sends};
use super::socket::Stage;
use super::{COPY_BYTES_MAX, Driver, SEND_BYTES_MAX};
use crate::id::ConnectionKey;
use crate::outbox::Chunk;
use crate::tls::Tls;

/// Everything that is queued, as one send: a single message goes out uncopied.
pub(super) fn gather_plain(key: ConnectionKey, sends: &mut Sends, driver: &mut impl Driver) -> Option<Owner> {
    let mut buffer = match driver.pull(key)? {
        Chunk::Control(control) => control,
        Chunk::Data(first) => {
            if first.frame.len() > COPY_BYTES_MAX {
                return Some(Owner::Shared(first.frame));
            }
            let Some(second) = driver.pull(key) else { return Some(Owner::Shared(first.frame)) };
            let mut buffer = sends.spare();
            buffer.extend_from_slice(&first.frame);
            append(&mut buffer, &second);
            buffer
        }
    };
    while buffer.len() < SEND_BYTES_MAX
        && let Some(chunk) = driver.pull(key)
    {
        append(&mut buffer, &chunk);
    }
    Some(Owner::Copied(buffer))
}

fn append(buffer: &mut Vec<u8>, chunk: &Chunk) {
    match chunk {
        Chunk::Control(control) => buffer.extend_from_slice(control),
        Chunk::Data(delivery) => buffer.extend_from_slice(&delivery.frame),
    }
}

/// Handshake bytes first, then everything that is queued, encrypted.
pub(super) fn gather_tls(
    tls: &mut Tls,
    key: ConnectionKey,
    stage: Stage,
    plaintext: &mut Vec<u8>,
    driver: &mut impl Driver,
) -> Result<Option<Owner>, crate::tls::TlsError> {
    let mut out = tls.take_outgoing();
    if tls.is_established() {
        plaintext.clear();
        while plaintext.len() < SEND_BYTES_MAX
            && let Some(chunk) = driver.pull(key)
        {
            append(plaintext, &chunk);
            if let Chunk::Control(control) = chunk {
                driver.recycle(key, control);
            }
        }
        if !plaintext.is_empty() {
            tls.encrypt(plaintext, &mut out)?;
        }
        if out.is_empty() && stage == Stage::Flushing {
            tls.close_notify(&mut out);
        }
    }
    Ok(if out.is_empty() { None } else { Some(Owner::Copied(out)) })
}

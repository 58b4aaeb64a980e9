//! Copying what a driver has queued into one send.

use super::Driver;
use ringgate_core::id::ConnectionKey;
use ringgate_core::outbox::Chunk;

/// Bytes of one send. Small frames are copied together up to this; a frame above [`COPY_BYTES_MAX`] travels alone, uncopied.
pub(super) const SEND_BYTES_MAX: usize = 64 * 1024;
/// See [`SEND_BYTES_MAX`].
pub(super) const COPY_BYTES_MAX: usize = 8 * 1024;

/// Appends what is queued, as much as a send may carry; true when there may be more.
pub(super) fn append_rest(buffer: &mut Vec<u8>, key: ConnectionKey, driver: &mut impl Driver) -> bool {
    while buffer.len() < SEND_BYTES_MAX {
        let Some(chunk) = driver.pull(key) else { return false };
        append(buffer, key, chunk, driver);
    }
    true
}

pub(super) fn append(buffer: &mut Vec<u8>, key: ConnectionKey, chunk: Chunk, driver: &mut impl Driver) {
    buffer.extend_from_slice(chunk.bytes());
    if let Chunk::Control(control) = chunk {
        driver.recycle(key, control);
    }
}

//! A piece of what a peer sent, on its way from one layer to the next.

use std::ops::Deref;

/// Bytes that the layer above may read, and may change where it has them to itself.
pub(crate) enum Portion<'a> {
    /// In the receive buffer, or in a buffer of the layer below: may be changed where they lie.
    InPlace(&'a mut [u8]),
    /// Lent for reading alone, as rustls lends what it has decrypted.
    Lent(&'a [u8]),
}

impl Deref for Portion<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Portion::InPlace(bytes) => bytes,
            Portion::Lent(bytes) => bytes,
        }
    }
}

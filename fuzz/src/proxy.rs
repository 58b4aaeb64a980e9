//! Arbitrary bytes as the beginning of a connection from a proxy: however they are cut, they mean the same.

use ringgate_net::proxy::{HEADER_BYTES_MAX, parse};

/// Panics if a header depends on what follows it, on how it comes in pieces, or on more bytes than a header may have.
pub(crate) fn proxy(bytes: &[u8]) {
    let whole = parse(bytes);
    for length in 0..bytes.len() {
        let piece = parse(bytes.get(..length).unwrap_or_default());
        match whole {
            Ok(Some(header)) if length < header.bytes => assert_eq!(piece, Ok(None), "{length} B"),
            Ok(Some(_)) => assert_eq!(piece, whole, "{length} B"),
            Ok(None) => assert_eq!(piece, Ok(None), "{length} B"),
            Err(error) => assert!(piece == Ok(None) || piece == Err(error), "{length} B: {piece:?}"),
        }
    }
    match whole {
        Ok(Some(header)) => assert!(header.bytes <= bytes.len().min(HEADER_BYTES_MAX)),
        Ok(None) => assert!(bytes.len() < HEADER_BYTES_MAX, "more is waited for than a header may have"),
        Err(_) => {}
    }
}

//! UTF-8 of texts, checked with vector instructions where the processor has them.

use ringgate_core::wire::ws::{Validate, Validity};

/// The validator for [`ringgate_core::wire::ws::Decoder::read`].
#[derive(Clone, Copy, Debug)]
pub struct Simd;

impl Validate for Simd {
    #[inline]
    fn validate(bytes: &[u8]) -> Validity {
        match simdutf8::compat::from_utf8(bytes) {
            Ok(_) => Validity::Valid,
            Err(error) => Validity::of_error(bytes.len(), error.valid_up_to(), error.error_len()),
        }
    }
}

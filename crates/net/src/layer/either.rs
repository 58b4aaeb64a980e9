//! A connection that may become a WebSocket, until its first bytes say whether it is one: a request begins with `GET `, and no frame
//! does, because as the length of a body these bytes are 542 MB, far more than any limit allows.
//!
//! It counts how much of `GET ` has come, keeps no bytes, and gives way to the layers of what is spoken (`Layers::recognise`).

use std::sync::Arc;

use super::{Layer, LayerError, Progress};
use crate::portion::Portion;
use crate::ws::Rules;

/// What a request for a WebSocket begins with.
pub(crate) const REQUEST: &[u8; 4] = b"GET ";

/// See the module.
pub(crate) struct Either<L> {
    pub(super) below: L,
    pub(super) rules: Arc<Rules>,
    /// Bytes of [`REQUEST`] that have come.
    pub(super) matched: usize,
}

impl<L> Either<L> {
    pub(super) fn new(below: L, rules: Arc<Rules>) -> Self {
        Either { below, rules, matched: 0 }
    }

    /// Whether it is a WebSocket; none while that cannot be told.
    pub(super) fn look_at(&mut self, content: &[u8]) -> Option<bool> {
        for byte in content {
            if REQUEST.get(self.matched) != Some(byte) {
                return Some(false);
            }
            self.matched += 1;
            if self.matched == REQUEST.len() {
                return Some(true);
            }
        }
        None
    }
}

impl<L: Layer> Layer for Either<L> {
    fn take_in(&mut self, bytes: &mut [u8], above: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        self.below.take_in(bytes, above)
    }

    fn step(&mut self, above: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        self.below.step(above)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.below.has_room(bytes)
    }

    fn kept(&self) -> &[u8] {
        self.below.kept()
    }

    fn has_answer(&self) -> bool {
        self.below.has_answer()
    }

    fn take_answer(&mut self) -> Vec<u8> {
        self.below.take_answer()
    }

    fn is_open(&self) -> bool {
        self.below.is_open()
    }

    fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Box<LayerError>> {
        self.below.seal(content, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.below.finish(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_come_in_pieces_then_they_are_told_apart_at_the_first_that_decides() {
        let cases: [(&[&[u8]], Option<bool>); 7] = [
            (&[], None),
            (&[b"", b"G", b"ET"], None),
            (&[b"GET "], Some(true)),
            (&[b"G", b"E", b"T", b" /ws HTTP/1.1\r\n"], Some(true)),
            (&[b"GET", b"\0"], Some(false)),
            (&[b"GETTY"], Some(false)),
            (&[&[0x40, 0, 0, 0, 1]], Some(false)),
        ];
        for (pieces, wanted) in cases {
            let mut either = Either::new((), Arc::new(Rules::default()));
            let said = pieces.iter().find_map(|piece| either.look_at(piece));
            assert_eq!(said, wanted, "{pieces:?}");
        }
    }
}

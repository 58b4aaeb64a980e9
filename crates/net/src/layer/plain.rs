//! Frames on the bare socket: bytes are handed on as they came, and one frame alone goes out uncopied.

use ringgate_core::id::ConnectionKey;

use super::{Layer, LayerError, Progress};
use crate::Driver;
use crate::gather::{COPY_BYTES_MAX, append, append_rest};
use crate::portion::Portion;
use crate::sends::{Owner, Send, SendKey, Sends};

/// See the module. It has no state.
pub(crate) struct Plain;

impl Layer for Plain {
    const IS_TRANSPARENT: bool = true;

    #[inline]
    fn take_in(&mut self, bytes: &mut [u8], mut above: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        above(Portion::InPlace(bytes));
        Ok(Progress::default())
    }

    fn step(&mut self, _: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        Ok(Progress::default())
    }

    #[inline]
    fn has_room(&self, _: usize) -> bool {
        true
    }

    fn kept(&self) -> &[u8] {
        &[]
    }

    #[inline]
    fn has_answer(&self) -> bool {
        false
    }

    #[inline]
    fn take_answer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    #[inline]
    fn is_open(&self) -> bool {
        true
    }

    fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Box<LayerError>> {
        out.extend_from_slice(content);
        Ok(())
    }

    fn finish(&mut self, _: &mut Vec<u8>) {}

    #[inline]
    fn gather(
        &mut self,
        key: ConnectionKey,
        _: bool,
        sends: &mut Sends,
        _: &mut Vec<u8>,
        driver: &mut impl Driver,
    ) -> Result<Option<SendKey>, Box<LayerError>> {
        let Some(first) = driver.pull(key) else { return Ok(None) };
        if first.bytes().len() > COPY_BYTES_MAX {
            return Ok(Some(sends.insert(Send { owner: first.into(), sent: 0, more: true })));
        }
        let Some(second) = driver.pull(key) else {
            return Ok(Some(sends.insert(Send { owner: first.into(), sent: 0, more: false })));
        };
        let mut buffer = sends.spare();
        append(&mut buffer, key, first, driver);
        append(&mut buffer, key, second, driver);
        let more = append_rest(&mut buffer, key, driver);
        Ok(Some(sends.insert(Send { owner: Owner::Copied(buffer), sent: 0, more })))
    }
}

//! A connection that a proxy has to introduce, until the header of the PROXY protocol is whole: nothing is sent, what comes is kept up
//! to the longest header, and the driver does not know of it. `crate::introduce` reads the header and puts the layers of the listener here.

use std::net::SocketAddr;

use super::{Layer, LayerError, Progress};
use crate::portion::Portion;

/// See the module.
pub(crate) struct Header {
    /// Which listener has accepted it.
    pub(crate) listener: usize,
    pub(crate) proxy: SocketAddr,
    /// The header so far.
    pub(crate) bytes: Vec<u8>,
}

impl Layer for Header {
    fn take_in(&mut self, _: &mut [u8], _: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        Ok(Progress::default())
    }

    fn step(&mut self, _: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        Ok(Progress::default())
    }

    fn has_room(&self, _: usize) -> bool {
        true
    }

    fn kept(&self) -> &[u8] {
        &self.bytes
    }

    fn has_answer(&self) -> bool {
        false
    }

    fn take_answer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn is_open(&self) -> bool {
        false
    }

    fn seal(&mut self, _: &[u8], _: &mut Vec<u8>) -> Result<(), Box<LayerError>> {
        Ok(())
    }

    fn finish(&mut self, _: &mut Vec<u8>) {}
}

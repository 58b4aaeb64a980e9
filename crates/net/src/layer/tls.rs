//! TLS between the socket and what is above it; the protocol itself is in `crate::tls`.
//!
//! A step of its handshake costs more than a hundred messages, so the peer's bytes wait until it has its turn.

use super::{Layer, LayerError, Progress, Secured};
use crate::portion::Portion;
use crate::tls::{self, Tls};

impl Layer for Tls {
    #[inline]
    fn take_in(&mut self, bytes: &mut [u8], above: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        if !self.is_established() {
            self.hold_back(bytes)?;
            return Ok(Progress { waits: true, ..Progress::default() });
        }
        let progress = self.receive_portions(bytes, above)?;
        Ok(told(self, progress))
    }

    fn step(&mut self, above: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>> {
        let progress = self.receive_portions(&mut [], above)?;
        Ok(told(self, progress))
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.may_hold_back(bytes)
    }

    fn kept(&self) -> &[u8] {
        self.held_back()
    }

    #[inline]
    fn has_answer(&self) -> bool {
        self.has_outgoing()
    }

    #[inline]
    fn take_answer(&mut self) -> Vec<u8> {
        self.take_outgoing()
    }

    #[inline]
    fn is_open(&self) -> bool {
        self.is_established()
    }

    #[inline]
    fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Box<LayerError>> {
        Ok(self.encrypt(content, out)?)
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.close_notify(out);
    }
}

#[inline]
fn told(tls: &Tls, progress: tls::Progress) -> Progress {
    let secured = |handshake| Secured { handshake, compact: tls.is_compact() };
    Progress {
        secured: progress.established.map(secured),
        ended: progress.closed,
        overhead_bytes: progress.overhead_bytes,
        ..Progress::default()
    }
}

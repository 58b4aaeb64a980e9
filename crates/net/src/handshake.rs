//! Handshakes of a socket's layers: their steps, which have their turn, the end that a peer announces, and what it is told when
//! a layer refuses its bytes.

use super::layer::{Layer, LayerError, Secured, each};
use super::send::follows;
use super::sends::{Owner, Send};
use super::socket::{Peer, Stage};
use super::{Driver, Net};
use crate::ws::Failure;
use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;

impl Net {
    pub(super) fn step_handshake(&mut self, key: ConnectionKey, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.handshaking = false;
        if socket.stage != Stage::Open {
            return;
        }
        // Bytes behind the handshake may be in the same flight: they come after the news that it is over.
        let mut early = Vec::new();
        match each!(&mut socket.layers, layer => layer.step(|portion| early.extend_from_slice(&portion))) {
            Ok(progress) => {
                self.tell_secured(key, progress.secured, driver);
                if let Some(accepted) = progress.upgraded {
                    driver.upgraded(key, &accepted);
                }
                if !early.is_empty() {
                    self.hear_content(key, &mut early, driver);
                }
                if progress.ended {
                    return self.answer_close(key, driver);
                }
                self.flush(key, driver);
            }
            Err(error) => self.refuse(key, error, driver),
        }
    }

    fn tell_secured(&mut self, key: ConnectionKey, secured: Option<Secured>, driver: &mut impl Driver) {
        let Some(Secured { handshake, compact }) = secured else { return };
        self.metrics.tls_handshakes[handshake].increment();
        if compact {
            self.metrics.tls_compacted.increment();
        }
        driver.secured(key, handshake);
    }

    /// The peer sends no more: so does the gateway (RFC 8446, 6.1), with a close_notify that [`Self::close`] sends behind what
    /// is in the kernel.
    pub(super) fn answer_close(&mut self, key: ConnectionKey, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.peer == Peer::There && socket.stage == Stage::Open {
            socket.peer = Peer::Leaving;
            driver.ended(key, CloseReason::ConnectionClosed);
        }
    }

    /// The peer's bytes were refused.
    pub(super) fn refuse(&mut self, key: ConnectionKey, error: Box<LayerError>, driver: &mut impl Driver) {
        match *error {
            LayerError::Tls(_) => {
                self.send_answer(key);
                self.fail(key, &error, driver);
            }
            LayerError::Ws { failure, secured } => {
                self.tell_secured(key, secured, driver);
                self.dismiss(key, &failure, driver);
            }
        }
    }

    /// The driver is told; its [`Self::close`] sends what the peer is told.
    fn dismiss(&mut self, key: ConnectionKey, failure: &Failure, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.peer == Peer::There && socket.stage == Stage::Open {
            socket.peer = Peer::Refused;
            driver.websocket_failed(key, failure);
            driver.ended(key, failure.reason());
        }
    }

    pub(super) fn fail(&mut self, key: ConnectionKey, error: &LayerError, driver: &mut impl Driver) {
        if self.sockets.get(key).is_some_and(|socket| socket.stage == Stage::Open && socket.peer == Peer::There) {
            match error {
                LayerError::Tls(error) => driver.tls_failed(key, error),
                LayerError::Ws { failure, .. } => driver.websocket_failed(key, failure),
            }
        }
        self.end(key, error.reason(), driver);
    }

    /// Sends what a layer has for the peer, unless a send is in the kernel already. The kernel takes entries in their order, and
    /// tries this one before it looks at the cancel that follows.
    fn send_answer(&mut self, key: ConnectionKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if follows(socket, &mut self.sends) {
            return;
        }
        let answer = each!(&mut socket.layers, layer => layer.take_answer());
        if answer.is_empty() {
            return;
        }
        let index = self.sends.insert(Send { owner: Owner::Copied(answer), sent: 0, more: false });
        self.submit_send(key, index);
    }
}

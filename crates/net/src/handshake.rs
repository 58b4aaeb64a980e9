//! TLS of a socket: its handshake, its end, and what is told to the peer when it fails.

use super::send::follows;
use super::sends::{Owner, Send};
use super::socket::{Peer, Stage};
use super::{Driver, Net};
use crate::tls::TlsError;
use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;

impl Net {
    pub(super) fn step_handshake(&mut self, key: ConnectionKey, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.handshaking = false;
        if socket.stage != Stage::Open {
            return;
        }
        let Some(tls) = socket.tls.as_deref_mut() else { return };
        // Bytes behind the handshake may be in the same flight: they come after the news that it is over.
        let mut early = Vec::new();
        match tls.receive(&mut [], |plaintext| early.extend_from_slice(plaintext)) {
            Ok(progress) => {
                if let Some(handshake) = progress.established {
                    self.metrics.tls_handshakes[handshake].increment();
                    if tls.is_compact() {
                        self.metrics.tls_compacted.increment();
                    }
                    driver.secured(key, handshake);
                }
                if !early.is_empty() {
                    driver.received(key, &early);
                }
                if progress.closed {
                    return self.answer_close(key, driver);
                }
                self.flush(key, driver);
            }
            Err(error) => self.refuse_tls(key, &error, driver),
        }
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

    /// The alert, if there is one, is tried once; nobody waits for it.
    pub(super) fn refuse_tls(&mut self, key: ConnectionKey, error: &TlsError, driver: &mut impl Driver) {
        self.send_alert(key);
        self.fail_tls(key, error, driver);
    }

    pub(super) fn fail_tls(&mut self, key: ConnectionKey, error: &TlsError, driver: &mut impl Driver) {
        if self.sockets.get(key).is_some_and(|socket| socket.stage == Stage::Open && socket.peer == Peer::There) {
            driver.tls_failed(key, error);
        }
        self.end(key, CloseReason::TlsError, driver);
    }

    /// Sends what TLS has for the peer, unless a send is in the kernel already. The kernel takes entries in their order, and
    /// tries this one before it looks at the cancel that follows.
    fn send_alert(&mut self, key: ConnectionKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if follows(socket, &mut self.sends) {
            return;
        }
        let Some(tls) = socket.tls.as_deref_mut() else { return };
        let alert = tls.take_outgoing();
        if alert.is_empty() {
            return;
        }
        let index = self.sends.insert(Send { owner: Owner::Copied(alert), sent: 0, more: false });
        self.submit_send(key, index);
    }
}

//! A connection begins: accepted, and over TLS its handshake is over.

use std::net::IpAddr;

use crate::close::CloseReason;
use crate::id::{ConnectionKey, Now};
use crate::session::{Bucket, Connection, Phase};
use crate::shard::Shard;
use crate::transport::Transport;

impl Shard {
    pub(in crate::shard) fn on_opened(
        &mut self,
        key: ConnectionKey,
        peer: IpAddr,
        transport: Transport,
        is_open_to_websocket: bool,
        now: Now,
    ) {
        let client = &self.settings.client;
        let messages = Bucket::full(client.messages_burst, now.mono_ms());
        let bytes = Bucket::full(client.bytes_burst, now.mono_ms());
        let connection = Connection::new(peer, transport, messages, bytes, now.mono_ms());
        self.connections.insert_at(key, connection);
        if is_open_to_websocket {
            self.unrecognised.insert(key);
        } else {
            self.metrics.connections_accepted[transport].increment();
        }
        self.metrics.connections_active[transport].add(1);
        self.rearm(key, now);
        if self.draining.is_some() {
            self.close(key, CloseReason::Shutdown, "", now);
        }
    }

    /// Only now, or when it ends without a word, it counts as accepted: counters do not go back.
    pub(in crate::shard) fn on_recognised(&mut self, key: ConnectionKey, transport: Transport) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !self.unrecognised.remove(&key) {
            return;
        }
        self.metrics.connections_active[connection.transport].subtract(1);
        self.metrics.connections_active[transport].add(1);
        self.metrics.connections_accepted[transport].increment();
        connection.transport = transport;
    }

    pub(in crate::shard) fn on_forwarded(&mut self, key: ConnectionKey, peer: IpAddr, is_admitted: bool, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.peer = peer;
        if !is_admitted && !connection.is_closing() {
            self.close(key, CloseReason::Busy, "", now);
        }
    }

    pub(in crate::shard) fn on_secured(&mut self, key: ConnectionKey, now: Now) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.phase == Phase::Handshaking
        {
            connection.phase = Phase::AwaitConnect;
            self.rearm(key, now);
        }
    }
}

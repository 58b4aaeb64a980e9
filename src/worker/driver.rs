//! The core as the sockets see it: what happens to a socket becomes an event. Connections beyond the limits of the node are
//! turned away here, before the core knows them, by what [`Admission`] says.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use ringgate_core::close::CloseReason;
use ringgate_core::id::{ConnectionKey, Now, ShardId};
use ringgate_core::limits::{BUSY_AFTER_MS, BUSY_SPREAD_MS, Settings};
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::outbox::Chunk;
use ringgate_core::session::Admission;
use ringgate_core::shard::{Event, Shard, ShardOptions};
use ringgate_core::slots::Slots;
use ringgate_core::transport::Transport;
use ringgate_core::wire::Encoder;
use ringgate_net::Driver;
use ringgate_net::network::Network;
use ringgate_net::proxy::ProxyFailure;
use ringgate_net::tls::{Handshake, TlsError};
use ringgate_net::ws::{Accepted, Failure};

/// What stands in Connect where the token came with the request for a WebSocket (docs/protocol.md).
const TOKEN_OF_REQUEST: &str = "-";
/// Delays that refused clients are told.
const FAREWELLS: u32 = 16;

/// The core, as the sockets see it.
pub(super) struct Core {
    pub(super) shard: Shard,
    pub(super) now: Now,
    pub(super) id: ShardId,
    settings: Arc<Settings>,
    pub(super) metrics: Arc<ShardMetrics>,
    admission: Arc<Mutex<Admission>>,
    /// The addresses that admitted connections are counted for; none for a proxy that has not said whom it connects for.
    peers: Slots<Option<IpAddr>>,
    /// Proxies that say it in their request for a WebSocket.
    trusted_proxies: Vec<Network>,
    limited: bool,
    /// Why TLS or WebSocket failed, of connections whose close was not logged yet.
    pub(super) causes: HashMap<ConnectionKey, String>,
    /// Tokens that came with requests for a WebSocket, until Connect.
    tokens: HashMap<ConnectionKey, Box<str>>,
    /// Connections that were refused in this turn for want of a header of the PROXY protocol, for the log.
    pub(super) refused: Vec<(SocketAddr, ProxyFailure)>,
}

impl Core {
    pub(super) fn new(options: ShardOptions, admission: Arc<Mutex<Admission>>, trusted_proxies: Vec<Network>) -> Self {
        let client = &options.settings.client;
        Core {
            id: options.id,
            limited: client.connections_max != 0 || client.connections_per_address_max != 0 || client.accept_rate != 0,
            now: Now::default(),
            settings: options.settings.clone(),
            metrics: options.metrics.clone(),
            admission,
            peers: Slots::default(),
            trusted_proxies,
            causes: HashMap::new(),
            refused: Vec::new(),
            tokens: HashMap::new(),
            shard: Shard::new(options),
        }
    }
}

impl Core {
    /// The token that is to be verified: the one that Connect has brought, unless it asks for that of the request. Without one in the
    /// request, what stands in Connect is no token, and is refused as such.
    pub(super) fn token(&mut self, key: ConnectionKey, in_connect: Box<str>) -> Box<str> {
        match self.tokens.remove(&key) {
            Some(token) if *in_connect == *TOKEN_OF_REQUEST => token,
            _ => in_connect,
        }
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }

    /// A request for a WebSocket says that it was passed on for this client. That is believed of trusted proxies only.
    fn forwarded(&mut self, key: ConnectionKey, client: IpAddr) {
        if !self.shard.peer(key).is_some_and(|peer| self.is_trusted(peer)) {
            return;
        }
        let mut is_admitted = true;
        if let Some(counted @ None) = self.peers.get_mut(key) {
            let admission = self.admission.lock();
            match admission.map(|mut admission| admission.admit_client(&self.settings.client, client)) {
                Ok(Ok(())) => *counted = Some(client),
                Ok(Err(refusal)) => {
                    self.metrics.connections_refused[refusal].increment();
                    is_admitted = false;
                }
                Err(_) => is_admitted = false,
            }
        }
        self.shard.handle(Event::Forwarded { connection: key, peer: client, is_admitted }, self.now);
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub(super) fn release_spares(&mut self) {
        self.shard.release_spares();
        self.causes.shrink_to_fit();
        self.refused.shrink_to_fit();
        self.tokens.shrink_to_fit();
    }
}

impl Driver for Core {
    fn opened(
        &mut self,
        key: ConnectionKey,
        peer: SocketAddr,
        transport: Transport,
        is_open_to_websocket: bool,
    ) -> bool {
        let peer = peer.ip().to_canonical();
        if self.limited {
            let may_forward = transport.is_websocket() || is_open_to_websocket;
            let counted = Some(peer).filter(|peer| !(may_forward && self.is_trusted(*peer)));
            let Ok(mut admission) = self.admission.lock() else { return false };
            if let Err(refusal) = admission.admit(&self.settings.client, counted, self.now) {
                self.metrics.connections_refused[refusal].increment();
                return false;
            }
            self.peers.insert_at(key, counted);
        }
        self.shard.handle(Event::Opened { connection: key, peer, transport, is_open_to_websocket }, self.now);
        true
    }

    fn recognised(&mut self, key: ConnectionKey, transport: Transport) {
        self.shard.handle(Event::Recognised { connection: key, transport }, self.now);
    }

    fn proxy_refused(&mut self, peer: SocketAddr, failure: ProxyFailure) {
        self.refused.push((peer, failure));
    }

    fn secured(&mut self, key: ConnectionKey, _: Handshake) {
        self.shard.handle(Event::Secured { connection: key }, self.now);
    }

    fn expect(&mut self, key: ConnectionKey) {
        self.shard.expect(key);
    }

    fn received(&mut self, key: ConnectionKey, bytes: &[u8]) {
        self.shard.handle(Event::Received { connection: key, bytes }, self.now);
    }

    fn takes_more(&mut self, key: ConnectionKey) -> bool {
        self.shard.takes_more(key)
    }

    fn carried(&mut self, key: ConnectionKey, overhead_bytes: usize) {
        self.shard.carried(key, overhead_bytes, self.now);
    }

    fn tls_failed(&mut self, key: ConnectionKey, error: &TlsError) {
        self.causes.insert(key, error.to_string());
    }

    fn upgraded(&mut self, key: ConnectionKey, accepted: &Accepted) {
        if let Some(token) = &accepted.token {
            self.tokens.insert(key, token.as_str().into());
        }
        if let Some(client) = accepted.forwarded_for {
            self.forwarded(key, client);
        }
    }

    fn websocket_failed(&mut self, key: ConnectionKey, failure: &Failure) {
        self.causes.insert(key, failure.to_string());
    }

    fn ended(&mut self, key: ConnectionKey, reason: CloseReason) {
        self.shard.handle(Event::Ended { connection: key, reason }, self.now);
    }

    fn freed(&mut self, key: ConnectionKey) {
        self.causes.remove(&key);
        self.tokens.remove(&key);
        self.shard.handle(Event::Freed { connection: key }, self.now);
        if let Some(peer) = self.peers.remove_at(key)
            && let Ok(mut admission) = self.admission.lock()
        {
            admission.release(peer);
        }
    }

    fn pull(&mut self, key: ConnectionKey) -> Option<Chunk> {
        self.shard.pull(key, self.now)
    }

    fn progressed(&mut self, key: ConnectionKey) {
        self.shard.progressed(key, self.now);
    }

    fn recycle(&mut self, _key: ConnectionKey, buffer: Vec<u8>) {
        self.shard.recycle(buffer);
    }
}

/// The Goodbye frames that refused clients are sent in turn. Their delays differ, also between shards, so that the clients do not
/// come back all at once.
pub(super) fn farewells(id: ShardId) -> Vec<Vec<u8>> {
    let after_ms = |step: u32| BUSY_AFTER_MS + step % FAREWELLS * BUSY_SPREAD_MS / FAREWELLS;
    let farewell = |number: u32| {
        let mut frame = Vec::new();
        // Seven and 16 have no factor in common: all steps come, and those next to each other differ much.
        let after_ms = after_ms(u32::from(id.0) + number * 7);
        Encoder::default().goodbye(&mut frame, CloseReason::Busy, CloseReason::Busy.label(), after_ms);
        frame
    };
    (0..FAREWELLS).map(farewell).collect()
}

//! Clients that are byte queues and may send anything to shards; letters and tokens wait until they are told to go on.
//! [`ByteClients::check`] must hold after every step.
//!
//! They keep the promises that the shell makes to the core, and no others: no bytes after the end of a stream, one
//! end for each connection, a slot that is given out again only after `Freed`.

use std::collections::VecDeque;

use ringgate_core::close::{AuthError, CloseReason};
use ringgate_core::limits::Settings;
use ringgate_core::session::Grant;
use ringgate_core::shard::{Event, Shard};
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::ConnectRequest;
use ringgate_core::wire::{Kind, ServerFrame, Split, split};

use crate::world::{Client, Closing, Tokens, World};

/// See the module.
pub struct ByteClients {
    world: World,
    clients: Vec<ByteClient>,
}

/// One connection at a time. Its number is its index.
#[derive(Default)]
pub struct ByteClient {
    /// Its connection, until that is freed.
    connection: Option<Client>,
    /// Its side of the stream has ended.
    ended: bool,
    incoming: Vec<u8>,
    /// Whole frames that it got and nobody has looked at, as they stand on the wire.
    pub frames: VecDeque<Vec<u8>>,
    /// Code of the Goodbye it got on this connection, or the last one.
    pub goodbye: Option<u16>,
}

/// A token names its user: it is its own content. Those that begin with `!` are not accepted, those that begin with `~` have
/// ended.
fn user_in_token(token: &str) -> Result<Grant, AuthError> {
    match token.as_bytes().first() {
        Some(b'!') => Err(AuthError::Signature),
        Some(b'~') => Err(AuthError::Expired),
        _ => {
            let user: String = token.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
            Ok(Grant { user: format!("u{user}"), expires_at: 0, rooms: None, device: None })
        }
    }
}

impl ByteClients {
    /// Shards that have no connection yet; `clients` clients that are not connected.
    pub fn new(shards: usize, clients: usize, settings: Settings) -> ByteClients {
        let mut world = World::new(shards, settings);
        world.tokens = Tokens::WhenAsked;
        ByteClients { world, clients: (0..clients).map(|_| ByteClient::default()).collect() }
    }

    /// Opens a connection, unless the client has one. True when it has one now.
    pub fn open(&mut self, client: usize, transport: Transport) -> bool {
        if self.is_open(client) {
            return !self.clients[client].ended;
        }
        let shard = client % self.world.shards.len();
        let connection = Some(self.world.accept(shard, transport));
        self.clients[client] = ByteClient { connection, ..ByteClient::default() };
        true
    }

    /// The TLS handshake is over.
    pub fn secure(&mut self, client: usize) {
        if let Some(Client { shard, connection }) = self.clients[client].connection {
            self.world.handle(shard, Event::Secured { connection });
        }
    }

    /// Sends bytes as one piece.
    pub fn send(&mut self, client: usize, bytes: &[u8]) {
        if let ByteClient { connection: Some(connection), ended: false, .. } = self.clients[client] {
            self.world.receive(connection, bytes);
        }
    }

    /// Opens a connection and signs in as this user; everything settles.
    pub fn sign_in(&mut self, client: usize, user: &str) {
        self.open(client, Transport::Plain);
        let mut bytes = Vec::new();
        let request = ConnectRequest { request: 1, token: user, ..ConnectRequest::default() };
        self.world.encoder.connect(&mut bytes, &request);
        self.send(client, &bytes);
        self.settle();
    }

    /// The client ends its side, or its socket fails.
    pub fn end(&mut self, client: usize, reason: CloseReason) {
        let state = &mut self.clients[client];
        if let Some(connection) = state.connection
            && !std::mem::replace(&mut state.ended, true)
        {
            self.world.end(connection, reason);
        }
    }

    /// The client reads up to so many chunks. Everything it gets must be a frame of a gateway.
    pub fn read(&mut self, client: usize, chunks: usize) {
        let Some(connection) = self.clients[client].connection else { return };
        for _ in 0..chunks {
            let state = &mut self.clients[client];
            if !self.world.pull(connection, |bytes| state.take(bytes)) {
                break;
            }
            self.world.take_effects(connection.shard);
        }
    }

    /// Time passes, and every shard does what it has to do then.
    pub fn pass(&mut self, ms: u64) {
        self.world.pass(ms);
        for shard in 0..self.world.shards.len() {
            while self.world.turn(shard) {}
        }
    }

    /// Delivers the oldest letter.
    pub fn deliver(&mut self) -> bool {
        self.world.deliver()
    }

    /// Verifies the oldest token.
    pub fn verify(&mut self) -> bool {
        let Some(waiting) = self.world.unverified.front() else { return false };
        self.world.verify(waiting.client.shard, user_in_token)
    }

    /// Closes the oldest of the sockets that are to be closed.
    pub fn close(&mut self) -> bool {
        let Some(Closing { client: connection, flush, .. }) = self.world.closing.front().copied() else { return false };
        let client = self.clients.iter().position(|client| client.connection == Some(connection));
        let client = client.expect("a socket is of a client until it is freed");
        if flush && !self.clients[client].ended {
            self.read(client, usize::MAX);
        }
        self.clients[client].connection = None;
        self.world.free(connection);
        true
    }

    /// Lets everything happen that waits; nobody reads.
    pub fn settle(&mut self) {
        while self.verify() || self.deliver() || self.close() || self.advance() {}
    }

    fn advance(&mut self) -> bool {
        let mut more = false;
        for shard in 0..self.world.shards.len() {
            more |= self.world.shards[shard].advance(self.world.now);
            more |= self.world.take_effects(shard);
        }
        more
    }

    /// The node shuts down.
    pub fn drain(&mut self) {
        for shard in 0..self.world.shards.len() {
            self.world.handle(shard, Event::Drain);
        }
    }

    /// Whether the client has a connection.
    pub fn is_open(&self, client: usize) -> bool {
        self.clients[client].connection.is_some()
    }

    /// What a client got.
    pub fn client(&mut self, client: usize) -> &mut ByteClient {
        &mut self.clients[client]
    }

    /// Panics when a shard is broken.
    pub fn check(&self) {
        self.world.check();
    }

    /// Everybody leaves; then nothing may be left of them.
    pub fn end_all(&mut self) {
        for client in 0..self.clients.len() {
            self.end(client, CloseReason::ConnectionClosed);
        }
        self.settle();
        self.check();
        assert!(self.clients.iter().all(|client| client.connection.is_none()), "a connection that is not freed");
        let world = &self.world;
        assert_eq!(world.shards.iter().map(Shard::connections).sum::<usize>(), 0);
        let gauges: [(&str, u64); 6] = [
            ("plain connections", world.sum(|metrics| &metrics.connections_active[Transport::Plain])),
            ("TLS connections", world.sum(|metrics| &metrics.connections_active[Transport::Tls])),
            ("sessions", world.sum(|metrics| &metrics.sessions_active)),
            ("bytes in outboxes", world.sum(|metrics| &metrics.outbox_bytes)),
            ("queued", world.sum(|metrics| &metrics.deliveries_queued)),
            ("deferred", world.sum(|metrics| &metrics.deliveries_deferred)),
        ];
        for (name, value) in gauges {
            assert_eq!(value, 0, "{name}");
        }
    }
}

impl ByteClient {
    fn take(&mut self, bytes: &[u8]) {
        assert!(self.goodbye.is_none(), "bytes behind a Goodbye");
        self.incoming.extend_from_slice(bytes);
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = incoming.as_slice();
        while let Split::Frame(raw, later) = split(rest, 1 << 24).expect("a gateway's header is good") {
            assert!(self.goodbye.is_none(), "a frame behind a Goodbye");
            if let ServerFrame::Goodbye(goodbye) = ServerFrame::parse(raw).expect("a gateway's frame is good") {
                self.goodbye = Some(goodbye.code());
            }
            let length = rest.len() - later.len();
            self.frames.push_back(rest[..length].to_vec());
            rest = later;
        }
        self.incoming = rest.to_vec();
    }

    /// The next frame that it got of this kind; others before it are dropped.
    pub fn next_of(&mut self, kind: Kind) -> Option<Vec<u8>> {
        while let Some(frame) = self.frames.pop_front() {
            if frame.get(4) == Some(&(kind as u8)) {
                return Some(frame);
            }
        }
        None
    }
}

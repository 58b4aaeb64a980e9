//! A node without sockets: real shards, clients that are byte queues, letters and tokens that wait until they are
//! told to go on, virtual time. Whoever drives it may send anything; [`World::check`] must hold after every step.
//!
//! It keeps the promises that the shell makes to the core, and no others: no bytes after the end of a stream, one
//! end for each connection, a slot that is given out again only after `Freed`.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ringgate_core::close::{AuthError, CloseReason};
use ringgate_core::id::{ConnectionKey, Now, ShardId};
use ringgate_core::limits::Settings;
use ringgate_core::metrics::{Cell, ShardMetrics};
use ringgate_core::outbox::Chunk;
use ringgate_core::session::Grant;
use ringgate_core::shard::{Effect, Event, Letter, Shard, ShardOptions};
use ringgate_core::slots::next_generation;
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::ConnectRequest;
use ringgate_core::wire::{Encoder, Kind, ServerFrame, Split, split};

/// See the module.
pub(crate) struct World {
    shards: Vec<Shard>,
    metrics: Vec<Arc<ShardMetrics>>,
    now: Now,
    /// Letters under way: to which shard.
    mail: VecDeque<(usize, Letter)>,
    tokens: VecDeque<(usize, ConnectionKey, Option<u32>, Box<str>)>,
    /// Sockets that are to be closed: whether what is queued is sent first.
    closing: VecDeque<(usize, ConnectionKey, bool)>,
    clients: Vec<Client>,
    encoder: Encoder,
}

/// One connection at a time, in a slot of its own. Its number is its index.
#[derive(Default)]
pub(crate) struct Client {
    shard: usize,
    generation: u32,
    open: bool,
    /// Its side of the stream has ended.
    ended: bool,
    incoming: Vec<u8>,
    /// Whole frames that it got and nobody has looked at, as they stand on the wire.
    pub(crate) frames: VecDeque<Vec<u8>>,
    /// Code of the Goodbye it got on this connection, or the last one.
    pub(crate) goodbye: Option<u16>,
}

impl World {
    /// Shards that have no connection yet; `clients` clients that are not connected.
    pub(crate) fn new(shards: usize, clients: usize, settings: Settings) -> World {
        let settings = Arc::new(settings);
        let metrics: Vec<Arc<ShardMetrics>> = (0..shards).map(|_| Arc::default()).collect();
        let shard = |index: usize| {
            Shard::new(ShardOptions {
                id: ShardId(index as u16),
                shards: shards as u16,
                settings: settings.clone(),
                metrics: metrics[index].clone(),
                seed: 1,
            })
        };
        World {
            shards: (0..shards).map(shard).collect(),
            metrics: metrics.clone(),
            now: Now { mono_us: 1_000_000, unix_ms: 1_800_000_000_000 },
            mail: VecDeque::new(),
            tokens: VecDeque::new(),
            closing: VecDeque::new(),
            clients: (0..clients).map(|_| Client::default()).collect(),
            encoder: Encoder::default(),
        }
    }

    /// Opens a connection, unless the client has one. True when it has one now.
    pub(crate) fn open(&mut self, client: usize, transport: Transport) -> bool {
        let shard = client % self.shards.len();
        let state = &mut self.clients[client];
        if state.open {
            return !state.ended;
        }
        let generation = next_generation(state.generation);
        *state = Client { shard, generation, open: true, ..Client::default() };
        let connection = self.key(client);
        self.handle(shard, Event::Opened { connection, peer: IpAddr::from([127, 0, 0, 1]), transport });
        true
    }

    /// The TLS handshake is over.
    pub(crate) fn secure(&mut self, client: usize) {
        if self.clients[client].open {
            self.handle(self.clients[client].shard, Event::Secured { connection: self.key(client) });
        }
    }

    /// Sends bytes as one piece.
    pub(crate) fn send(&mut self, client: usize, bytes: &[u8]) {
        if self.clients[client].open && !self.clients[client].ended {
            self.handle(self.clients[client].shard, Event::Received { connection: self.key(client), bytes });
        }
    }

    /// Opens a connection and signs in as this user; everything settles.
    pub(crate) fn sign_in(&mut self, client: usize, user: &str) {
        self.open(client, Transport::Plain);
        let mut bytes = Vec::new();
        self.encoder.connect(&mut bytes, &ConnectRequest { request: 1, token: user, ..ConnectRequest::default() });
        self.send(client, &bytes);
        self.settle();
    }

    /// The client ends its side, or its socket fails.
    pub(crate) fn end(&mut self, client: usize, reason: CloseReason) {
        let state = &mut self.clients[client];
        if state.open && !std::mem::replace(&mut state.ended, true) {
            self.handle(self.clients[client].shard, Event::Ended { connection: self.key(client), reason });
        }
    }

    /// The client reads up to so many chunks. Everything it gets must be a frame of a gateway.
    pub(crate) fn read(&mut self, client: usize, chunks: usize) {
        let (shard, key) = (self.clients[client].shard, self.key(client));
        for _ in 0..chunks {
            if !self.clients[client].open {
                return;
            }
            let Some(chunk) = self.shards[shard].pull(key, self.now) else { break };
            match chunk {
                Chunk::Control(bytes) => {
                    self.clients[client].take(&bytes);
                    self.shards[shard].recycle(bytes);
                }
                Chunk::Data(delivery) => self.clients[client].take(&delivery.frame),
            }
            self.take_effects(shard);
        }
    }

    /// Time passes, and every shard does what it has to do then.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.mono_us += ms * 1000;
        self.now.unix_ms += ms;
        for shard in 0..self.shards.len() {
            while self.shards[shard].advance(self.now) {
                self.take_effects(shard);
            }
            self.take_effects(shard);
        }
    }

    /// Delivers the oldest letter.
    pub(crate) fn deliver(&mut self) -> bool {
        let Some((shard, letter)) = self.mail.pop_front() else { return false };
        self.handle(shard, Event::Mail(letter));
        true
    }

    /// Verifies the oldest token. It names its user: a token is its own content here. Those that begin with `!` are
    /// not accepted, those that begin with `~` have ended.
    pub(crate) fn verify(&mut self) -> bool {
        let Some((shard, connection, refresh, token)) = self.tokens.pop_front() else { return false };
        let result = match token.as_bytes().first() {
            Some(b'!') => Err(AuthError::Signature),
            Some(b'~') => Err(AuthError::Expired),
            _ => {
                let user: String = token.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
                Ok(Grant { user: format!("u{user}"), expires_at: 0, rooms: None, device: None })
            }
        };
        self.handle(shard, Event::Verified { connection, refresh, result });
        true
    }

    /// Closes the oldest of the sockets that are to be closed.
    pub(crate) fn close(&mut self) -> bool {
        let Some((shard, connection, flush)) = self.closing.pop_front() else { return false };
        if flush && !self.clients[connection.slot as usize].ended {
            self.read(connection.slot as usize, usize::MAX);
        }
        self.free(shard, connection);
        true
    }

    /// Lets everything happen that waits; nobody reads.
    pub(crate) fn settle(&mut self) {
        while self.verify() || self.deliver() || self.close() || self.advance() {}
    }

    /// The node shuts down.
    pub(crate) fn drain(&mut self) {
        for shard in 0..self.shards.len() {
            self.handle(shard, Event::Drain);
        }
    }

    /// Whether the client has a connection.
    pub(crate) fn is_open(&self, client: usize) -> bool {
        self.clients[client].open
    }

    /// What a client got.
    pub(crate) fn client(&mut self, client: usize) -> &mut Client {
        &mut self.clients[client]
    }

    /// A figure of all shards together.
    pub(crate) fn sum(&self, cell: impl Fn(&ShardMetrics) -> &Cell) -> u64 {
        self.metrics.iter().map(|metrics| cell(metrics).read()).sum()
    }

    /// Panics when a shard is broken.
    pub(crate) fn check(&self) {
        for shard in &self.shards {
            shard.invariants();
        }
    }

    /// Everybody leaves; then nothing may be left of them.
    pub(crate) fn end_all(&mut self) {
        for client in 0..self.clients.len() {
            self.end(client, CloseReason::ConnectionClosed);
        }
        self.settle();
        self.check();
        assert!(self.clients.iter().all(|client| !client.open), "a connection that is not freed");
        assert_eq!(self.shards.iter().map(Shard::connections).sum::<usize>(), 0);
        let gauges: [(&str, u64); 6] = [
            ("plain connections", self.sum(|metrics| &metrics.connections_active[Transport::Plain])),
            ("TLS connections", self.sum(|metrics| &metrics.connections_active[Transport::Tls])),
            ("sessions", self.sum(|metrics| &metrics.sessions_active)),
            ("bytes in outboxes", self.sum(|metrics| &metrics.outbox_bytes)),
            ("queued", self.sum(|metrics| &metrics.deliveries_queued)),
            ("deferred", self.sum(|metrics| &metrics.deliveries_deferred)),
        ];
        for (name, value) in gauges {
            assert_eq!(value, 0, "{name}");
        }
    }

    fn key(&self, client: usize) -> ConnectionKey {
        ConnectionKey { slot: client as u32, generation: self.clients[client].generation }
    }

    fn advance(&mut self) -> bool {
        let mut more = false;
        for shard in 0..self.shards.len() {
            more |= self.shards[shard].advance(self.now);
            more |= self.take_effects(shard);
        }
        more
    }

    fn handle(&mut self, shard: usize, event: Event<'_>) {
        self.shards[shard].handle(event, self.now);
        self.take_effects(shard);
    }

    fn take_effects(&mut self, shard: usize) -> bool {
        let mut any = false;
        while let Some(effect) = self.shards[shard].poll_effect() {
            any = true;
            match effect {
                Effect::Post(posted) => self.mail.push_back((usize::from(posted.to.0), posted.letter)),
                Effect::Verify { connection, refresh, token } => {
                    self.tokens.push_back((shard, connection, refresh, token));
                }
                // Clients read when they are told to.
                Effect::Writable { .. } => {}
                Effect::Close { connection, flush, .. } => self.closing.push_back((shard, connection, flush)),
                Effect::Abort { connection } => self.free(shard, connection),
                // What is received meanwhile is handed out all the same.
                Effect::Append { .. } => unreachable!("messages are kept in memory here"),
                Effect::Hold { .. } | Effect::SignedIn { .. } => {}
            }
        }
        any
    }

    fn free(&mut self, shard: usize, connection: ConnectionKey) {
        self.closing.retain(|(at, key, _)| (*at, *key) != (shard, connection));
        let client = &mut self.clients[connection.slot as usize];
        if client.generation == connection.generation && std::mem::take(&mut client.open) {
            self.handle(shard, Event::Freed { connection });
        }
    }
}

impl Client {
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
    pub(crate) fn next_of(&mut self, kind: Kind) -> Option<Vec<u8>> {
        while let Some(frame) = self.frames.pop_front() {
            if frame.get(4) == Some(&(kind as u8)) {
                return Some(frame);
            }
        }
        None
    }
}

//! A shard core and its clients, without sockets: what comes out of outboxes is counted and dropped.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringgate_core::id::{ConnectionKey, Now, Position, ShardId};
use ringgate_core::limits::Settings;
use ringgate_core::outbox::Chunk;
use ringgate_core::session::Grant;
use ringgate_core::shard::{Effect, Event, Shard, ShardOptions};
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::ConnectRequest;
use ringgate_core::wire::{Encoder, ServerFrame, Split, split};

/// The core, the time, and what was delivered.
pub(crate) struct Node {
    pub(crate) shard: Shard,
    now: Now,
    /// Messages that left an outbox.
    pub(crate) delivered: u64,
    /// Where the last Message stood.
    last: Option<bytes::Bytes>,
}

pub(crate) fn key(slot: u32) -> ConnectionKey {
    ConnectionKey { slot, generation: 1 }
}

impl Node {
    /// A shard with its default settings but for the rates, to which a bench is no client.
    pub(crate) fn new() -> Self {
        let mut settings = Settings::default();
        settings.client.messages_rate = 0;
        settings.client.bytes_rate = 0;
        let shard = Shard::new(ShardOptions {
            id: ShardId(0),
            shards: 1,
            settings: Arc::new(settings),
            metrics: Arc::default(),
            seed: 1,
        });
        Node { shard, now: Now { mono_us: 1_000_000, unix_ms: 1_800_000_000_000 }, delivered: 0, last: None }
    }

    /// Signs users `user-N` in, N being the slot, into a room if one is given.
    pub(crate) fn sign_in(&mut self, clients: u32, room: Option<&str>) {
        let mut encoder = Encoder::default();
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for slot in 0..clients {
            self.shard.handle(Event::Opened { connection: key(slot), peer, transport: Transport::Plain }, self.now);
            let mut bytes = Vec::new();
            let token = user(slot);
            encoder.connect(&mut bytes, &ConnectRequest { token: &token, device: "phone", ..Default::default() });
            self.receive(slot, &bytes);
            self.turn();
            if let Some(room) = room {
                bytes.clear();
                encoder.subscribe(&mut bytes, 1, (room, None).into());
                self.receive(slot, &bytes);
                self.turn();
            }
        }
    }

    /// Bytes of a client.
    pub(crate) fn receive(&mut self, slot: u32, bytes: &[u8]) {
        self.shard.handle(Event::Received { connection: key(slot), bytes }, self.now);
    }

    /// What a worker does after its completions: time, effects, sends. Until nothing is left to do.
    pub(crate) fn turn(&mut self) {
        loop {
            self.now.mono_us += 1;
            self.now.unix_ms = 1_800_000_000_000 + self.now.mono_ms();
            let more = self.shard.advance(self.now);
            while let Some(effect) = self.shard.poll_effect() {
                self.on_effect(effect);
            }
            if !more {
                return;
            }
        }
    }

    fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Writable { connection } => self.pull(connection),
            Effect::Verify { connection, refresh, token } => {
                let result = Ok(Grant { user: token.into(), expires_at: 2_000_000_000, rooms: None, device: None });
                self.shard.handle(Event::Verified { connection, refresh, result }, self.now);
            }
            Effect::SignedIn { .. } => {}
            other => panic!("nothing else is expected of one shard with friendly clients: {other:?}"),
        }
    }

    fn pull(&mut self, connection: ConnectionKey) {
        while let Some(chunk) = self.shard.pull(connection, self.now) {
            match chunk {
                Chunk::Control(buffer) => self.shard.recycle(buffer),
                Chunk::Data(delivery) => {
                    if !delivery.arrival.is_reply() {
                        self.delivered += 1;
                        self.last = Some(delivery.frame);
                    }
                }
            }
        }
    }

    /// Where the last message that was delivered stands.
    pub(crate) fn last_position(&self) -> Position {
        let frame = self.last.as_ref().expect("a message was delivered");
        let Ok(Split::Frame(raw, [])) = split(frame, 1 << 20) else { panic!("one whole frame") };
        let Ok(ServerFrame::Message(message)) = ServerFrame::parse(raw) else { panic!("a Message") };
        message.stamp().expect("a message has a stamp").position().into()
    }
}

pub(crate) fn user(slot: u32) -> String {
    format!("user-{slot:06}")
}

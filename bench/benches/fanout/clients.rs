//! A shard core and its clients, without sockets: what comes out of outboxes is counted and dropped.

use bytes::Bytes;
use ringgate_core::id::{ConnectionKey, Position};
use ringgate_core::outbox::Chunk;
use ringgate_core::session::Grant;
use ringgate_core::shard::{Effect, Event};
use ringgate_core::wire::encode::ConnectRequest;
use ringgate_core::wire::{Encoder, ServerFrame, Split, split};
use ringgate_sim::{Client, World, settings};

/// The shard, its clients by number, and what was delivered.
pub(crate) struct Node {
    world: World,
    clients: Vec<Client>,
    /// Messages that left an outbox.
    pub(crate) delivered: u64,
    /// Where the last Message stood.
    last: Option<Bytes>,
}

impl Node {
    /// A shard without clients.
    pub(crate) fn new() -> Self {
        let world = World::new(1, settings());
        Node { world, clients: Vec::new(), delivered: 0, last: None }
    }

    /// Signs users `user-N` in, N being their number, into a room if one is given.
    pub(crate) fn sign_in(&mut self, clients: u32, room: Option<&str>) {
        let mut encoder = Encoder::default();
        for number in 0..clients {
            let client = self.world.open(0);
            self.clients.push(client);
            let mut bytes = Vec::new();
            let token = user(number);
            encoder.connect(&mut bytes, &ConnectRequest { token: &token, device: "phone", ..Default::default() });
            self.receive(number, &bytes);
            self.turn();
            if let Some(room) = room {
                bytes.clear();
                encoder.subscribe(&mut bytes, 1, (room, None).into());
                self.receive(number, &bytes);
                self.turn();
            }
        }
    }

    /// Bytes of a client. What the shard wants done because of them is done at the end of the turn.
    pub(crate) fn receive(&mut self, client: u32, bytes: &[u8]) {
        let connection = self.clients[client as usize].connection;
        self.world.shards[0].handle(Event::Received { connection, bytes }, self.world.now);
    }

    /// What a worker does after its completions: time, effects, sends. Until nothing is left to do.
    pub(crate) fn turn(&mut self) {
        loop {
            self.world.pass_us(1);
            let more = self.world.shards[0].advance(self.world.now);
            while let Some(effect) = self.world.shards[0].poll_effect() {
                self.on_effect(effect);
            }
            if !more {
                return;
            }
        }
    }

    // What is measured stands here: the world could take the effects, and would move each of them into memory for that.
    fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Writable { connection } => self.pull(connection),
            Effect::Verify { connection, refresh, token } => {
                let result = Ok(Grant { user: token.into(), expires_at: 2_000_000_000, rooms: None, device: None });
                self.world.shards[0].handle(Event::Verified { connection, refresh, result }, self.world.now);
            }
            Effect::SignedIn { .. } => {}
            other => panic!("nothing else is expected of one shard with friendly clients: {other:?}"),
        }
    }

    fn pull(&mut self, connection: ConnectionKey) {
        let shard = &mut self.world.shards[0];
        while let Some(chunk) = shard.pull(connection, self.world.now) {
            match chunk {
                Chunk::Control(buffer) => shard.recycle(buffer),
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

    pub(crate) fn check(&self) {
        self.world.check();
    }
}

pub(crate) fn user(number: u32) -> String {
    format!("user-{number:06}")
}

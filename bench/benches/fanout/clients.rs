//! A shard core and its clients, without sockets: what comes out of outboxes is counted and dropped.

use ringgate_core::id::Position;
use ringgate_core::session::Grant;
use ringgate_core::shard::Event;
use ringgate_core::wire::encode::ConnectRequest;
use ringgate_core::wire::{Encoder, ServerFrame, Split, split};
use ringgate_sim::{Client, Reading, Tokens, World, settings};

/// The shard, and its clients by number.
pub(crate) struct Node {
    pub(crate) world: World,
    clients: Vec<Client>,
}

impl Node {
    /// A shard whose clients read at once.
    pub(crate) fn new() -> Self {
        let mut world = World::new(1, settings());
        world.reading = Reading::AtOnce;
        world.tokens = Tokens::AtOnce(|token| {
            Ok(Grant { user: token.into(), expires_at: 2_000_000_000, rooms: None, device: None })
        });
        Node { world, clients: Vec::new() }
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
            if !self.world.turn(0) {
                return;
            }
        }
    }

    /// Where the last message that was delivered stands.
    pub(crate) fn last_position(&self) -> Position {
        let frame = self.world.last.as_ref().expect("a message was delivered");
        let Ok(Split::Frame(raw, [])) = split(frame, 1 << 20) else { panic!("one whole frame") };
        let Ok(ServerFrame::Message(message)) = ServerFrame::parse(raw) else { panic!("a Message") };
        message.stamp().expect("a message has a stamp").position().into()
    }

    /// Friendly clients of one shard: nobody was closed, and nothing went to other shards or into an engine.
    pub(crate) fn check(&self) {
        let World { mail, closing, held, appends, .. } = &self.world;
        assert!(mail.is_empty() && closing.is_empty() && held.is_empty() && appends.is_empty());
        self.world.check();
    }
}

pub(crate) fn user(number: u32) -> String {
    format!("user-{number:06}")
}

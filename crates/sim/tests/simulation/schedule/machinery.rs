//! What the shell does: letters, tokens, sockets, the engine, time.

use ringgate_core::close::CloseReason;
use ringgate_core::id::ShardId;
use ringgate_core::limits;
use ringgate_core::metrics::ForgetReason;
use ringgate_core::shard::Event;
use ringgate_core::wire::{Encoder, Kind};
use ringgate_sim::{Client, Closing, Engine};

use super::{EngineCounts, Schedule};
use crate::ledger::JUMP_MS;

impl Schedule {
    /// What the ledger and deadlines count in: the wall clock jumps.
    pub(super) fn now_ms(&self) -> u64 {
        self.world.now.mono_ms()
    }

    /// The process is stopped for a while, and goes on: as in the worker, what has come meanwhile is read before deadlines are
    /// looked at.
    pub(super) fn stand_still(&mut self) {
        self.ledger.counts.stops += 1;
        let ms = 1_000 + self.random.below(120_000) as u64;
        self.world.pass(ms);
        let closing = self.world.closing.len();
        for shard in 0..self.world.shards.len() {
            self.world.work_off(shard);
        }
        self.distribute();
        use CloseReason::{Busy, Expired, NoPong, Slow, Stale};
        let late = |closing: &&Closing| matches!(closing.reason, Busy | Expired | NoPong | Slow | Stale);
        let closed = self.world.closing.iter().skip(closing).find(late);
        assert_eq!(closed, None, "a socket was closed before it was read");
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            if device.connection.is_some() && !device.stalled {
                Encoder::empty(&mut device.outgoing, Kind::Ping);
                self.flush(index);
            }
        }
    }

    /// Somebody sets the wall clock, by days: see [`JUMP_MS`].
    pub(super) fn jump(&mut self) {
        self.ledger.counts.jumps += 1;
        for device in &mut self.devices {
            device.latest_unix_ms = device.latest_unix_ms.max(self.world.now.unix_ms);
        }
        let days = 1 + self.random.below(3) as u64;
        let unix_ms = &mut self.world.now.unix_ms;
        *unix_ms = if self.random.one_in(2) { *unix_ms + days * JUMP_MS } else { *unix_ms - days * JUMP_MS };
    }

    /// The node is killed, and started again some time later: with the memory engine it knows nothing any more.
    pub(super) fn restart_from_nothing(&mut self) {
        let Schedule { devices, ledger, .. } = self;
        devices.iter_mut().for_each(|device| device.restarted(ledger));
        ledger.restart();
        self.world.pass(1 + self.random.below(3_000) as u64);
        self.world.restart();
        self.mailboxes.clear();
        self.jammed.fill(0);
    }

    /// Hands a shard an event; letters go on their way, messages to the engine.
    pub(crate) fn handle(&mut self, shard: usize, event: Event<'_>) {
        self.world.handle(shard, event);
        self.distribute();
    }

    /// Moves what shards want into mailboxes and engines. The rest waits in the world until the schedule says so.
    pub(super) fn distribute(&mut self) {
        self.world.mail.drain(..).for_each(|sent| self.mailboxes.post(sent));
        for call in self.world.calls.drain(..) {
            self.engines[call.shard].give(call);
        }
    }

    pub(super) fn receive(&mut self, client: Client, bytes: &[u8]) {
        self.world.receive(client, bytes);
        self.distribute();
    }

    /// The client's socket is reset.
    pub(super) fn end(&mut self, client: Client) {
        self.world.end(client, CloseReason::ConnectionReset);
        self.distribute();
    }

    /// The socket is gone: step three of its end.
    fn free(&mut self, client: Client) {
        if let Some(device) = self.devices.iter_mut().find(|device| device.connection == Some(client)) {
            device.lost(&self.ledger);
        }
        self.world.free(client);
        self.distribute();
    }

    /// Lets the machinery run a little, in random order.
    pub(super) fn shuffle(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let shard = self.random.below(self.world.shards.len());
            match self.random.below(9) {
                7 => self.work_of_engine(shard),
                8 => self.hear_engine(shard),
                0 => self.advance(shard),
                1 => self.send_mail(shard),
                2 if self.now_ms() < self.jammed[shard] => {}
                2 => self.read_mail(shard),
                3 => drop(self.verify(shard)),
                4 => self.end_sockets(),
                _ => {
                    let index = self.random.below(self.devices.len());
                    self.pull(index);
                }
            }
        }
    }

    pub(crate) fn advance(&mut self, shard: usize) {
        self.world.turn(shard);
        self.distribute();
    }

    fn send_mail(&mut self, shard: usize) {
        for (to, (letters, bytes)) in self.mailboxes.send(shard).into_iter().enumerate() {
            self.world.shards[shard].set_waiting(ShardId(to as u16), letters * self.weight, bytes);
        }
    }

    fn read_mail(&mut self, shard: usize) {
        for _ in 0..1 + self.random.below(16) {
            let Some(letter) = self.mailboxes.take(shard) else { break };
            self.handle(shard, Event::Mail(letter));
        }
    }

    /// The engine stores some of what it was given, or fails.
    fn work_of_engine(&mut self, shard: usize) {
        if self.random.one_in(30) {
            self.engines[shard].fail(&mut self.random, &mut self.world.disk, self.world.now.unix_ms);
        } else {
            let count = self.random.below(12);
            self.engines[shard].work(count, &mut self.world.disk, self.world.now.unix_ms);
        }
    }

    fn hear_engine(&mut self, shard: usize) {
        if let Some(event) = self.engines[shard].answer() {
            self.handle(shard, event);
            assert!(self.engines[shard].is_idle() || self.world.settings.engine == limits::Engine::Store);
        }
    }

    pub(crate) fn engines_did(&self) -> EngineCounts {
        let mut counts = self.engines_did;
        for Engine { stored, failures, read, .. } in &self.engines {
            let (stored, failures, read) = (*stored, *failures, *read);
            counts.add(EngineCounts { stored, failures, read, ..EngineCounts::default() });
        }
        counts.unloaded += self.world.sum(|metrics| &metrics.inbox_unloaded);
        counts
    }

    /// Topics that the node has forgotten because they were quiet for long.
    pub(crate) fn forgotten(&self) -> u64 {
        self.world.sum(|metrics| &metrics.topics_forgotten[ForgetReason::Age])
    }

    fn verify(&mut self, shard: usize) -> bool {
        let unix_ms = self.world.now.unix_ms;
        let any = self.world.verify(shard, |token| self.tokens.verify(token, unix_ms));
        self.distribute();
        any
    }

    /// Carries bytes from an outbox to a device that reads, and what it answers back.
    pub(crate) fn pull(&mut self, index: usize) {
        let Some(client) = self.devices[index].connection else { return };
        if self.devices[index].stalled {
            return self.flush(index);
        }
        for _ in 0..1 + self.random.below(12) {
            let (device, now) = (&mut self.devices[index], self.world.now);
            if !self.world.pull(client, |bytes| device.receive(bytes, &mut self.ledger, now)) {
                break;
            }
        }
        self.devices[index].read_ms = self.now_ms();
        self.world.take_effects(client.shard);
        self.distribute();
        self.flush(index);
    }

    /// Closes what the core wants closed: flushing ones give their bytes to the device first.
    fn end_sockets(&mut self) {
        let Some(Closing { client, flush, .. }) = self.world.closing.pop_back() else { return };
        let index = self.devices.iter().position(|device| device.connection == Some(client));
        if flush && let Some(index) = index {
            self.devices[index].stalled = false;
            for _ in 0..20 {
                self.pull(index);
            }
        }
        self.free(client);
    }

    /// All tokens are checked, all letters delivered, all closing sockets closed.
    pub(crate) fn settle(&mut self) {
        for shard in 0..self.world.shards.len() {
            while self.verify(shard) {}
            self.advance(shard);
        }
        while self.mailboxes.letters().next().is_some() || !self.engines.iter().all(Engine::is_idle) {
            let shard = self.random.below(self.world.shards.len());
            self.send_mail(shard);
            self.read_mail(shard);
            self.engines[shard].work(usize::MAX, &mut self.world.disk, self.world.now.unix_ms);
            self.hear_engine(shard);
        }
        while !self.world.closing.is_empty() {
            self.end_sockets();
        }
    }
}

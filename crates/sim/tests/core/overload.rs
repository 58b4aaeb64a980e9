//! More than shards can do: what waits is bounded, is refused in time, and small rooms do not wait for large ones.
//!
//! Here mailboxes are full at times, as those of the shell are.

use std::collections::VecDeque;
use std::sync::Arc;

use ringgate_core::close::ErrorCode;
use ringgate_core::id::Durability;
use ringgate_core::limits::{
    CREDIT_DELIVERIES, MAILBOX_BYTES_MAX, Namespace, Settings, WAY_DELIVERIES_MAX, WAY_LETTERS_MAX,
};
use ringgate_core::mesh::{Capacity, Mailbox, Wake, mailboxes};
use ringgate_core::shard::{Event, Letter};
use ringgate_core::wire::encode::PublishRequest;

use ringgate_sim::{Client, Got, Reading, Sent, World, settings};

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// Shards with mailboxes of the shell's size, and turns like those of the shell.
struct Node {
    world: World,
    mailboxes: Vec<Mailbox<Letter>>,
    waiting: Vec<Vec<VecDeque<Letter>>>,
}

const LETTERS_PER_TURN: usize = 2048;

impl Node {
    fn new(mut world: World) -> Node {
        world.reading = Reading::AtOnce;
        let shards = world.shards.len();
        let capacity = Capacity { letters: 8192, bytes: MAILBOX_BYTES_MAX, weight_of: Letter::bytes };
        let wakers = (0..shards).map(|_| Arc::new(Nobody) as Arc<dyn Wake>).collect();
        let waiting = (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect();
        Node { world, mailboxes: mailboxes(wakers, capacity), waiting }
    }

    /// A turn of one shard; its clients read everything.
    fn turn(&mut self, shard: usize) {
        for _ in 0..LETTERS_PER_TURN {
            let Some(letter) = self.mailboxes[shard].pop() else { break };
            self.world.handle(shard, Event::Mail(letter));
        }
        self.world.turn(shard);
        assert!(self.world.closing.is_empty(), "closed: {:?}", self.world.closing);
        assert!(self.world.appends.is_empty(), "there is no engine here");
        for Sent { from, to, letter } in self.world.mail.drain(..) {
            self.waiting[from][to].push_back(letter);
        }
        for to in 0..self.waiting[shard].len() {
            while let Some(letter) = self.waiting[shard][to].pop_front() {
                if let Err(letter) = self.mailboxes[shard].push(to, letter, true) {
                    self.waiting[shard][to].push_front(letter);
                    break;
                }
            }
            let (letters, bytes) =
                (self.waiting[shard][to].len(), self.waiting[shard][to].iter().map(Letter::bytes).sum());
            self.world.shards[shard].set_waiting(ringgate_core::id::ShardId(to as u16), letters, bytes);
        }
    }

    fn letters(&self) -> usize {
        self.waiting.iter().flatten().map(VecDeque::len).sum()
    }
}

fn live() -> Settings {
    let live = Namespace {
        durability: Durability::Ephemeral,
        publish_without_subscribe: true,
        history_size: 0,
        ..Namespace::named("live")
    };
    Settings { namespaces: vec![live], ..settings() }
}

fn members(world: &mut World, shard: usize, room: &str, count: usize) -> Vec<Client> {
    let member = |number| {
        let client = world.sign_in(shard, &format!("{shard}-{number}@{room}"));
        world.send(client, |encoder, out| encoder.subscribe(out, 2, (room, None).into()));
        world.read_all(client);
        client
    };
    (0..count).map(member).collect()
}

fn burst(world: &mut World, room: &str, messages: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in 0..messages {
        let fields = PublishRequest { request: request as u32 + 1, topic: room, payload, ..Default::default() };
        world.encoder.publish(&mut bytes, &fields);
    }
    bytes
}

/// Publishers on shard 2, the room's home on shard 0, members on shard 1: twice what shard 1 can do.
#[test]
fn shard_is_slow_then_letters_for_it_are_bounded() {
    let mut world = World::new(3, live());
    let room = world.room_at(0, "live");
    members(&mut world, 1, &room, 3000);
    let publishers: Vec<Client> = (0..4).map(|number| world.sign_in(2, &format!("publisher{number}"))).collect();
    let frames = burst(&mut world, &room, 20, &[1; 1000]);
    let mut node = Node::new(world);
    let (mut most, mut turns_ms) = (0, 0);
    for _ in 0..600 {
        node.world.pass(1);
        turns_ms += 1;
        for publisher in &publishers {
            let received = Event::Received { connection: publisher.connection, bytes: &frames };
            node.world.shards[2].handle(received, node.world.now);
        }
        for shard in 0..3 {
            node.turn(shard);
        }
        most = most.max(node.letters());
    }
    let (published, refused) =
        (node.world.sum(|m| &m.messages_published), node.world.sum(|m| &m.errors[ErrorCode::Overloaded]));
    assert!(most <= 2 * WAY_LETTERS_MAX, "{most} letters waited for mailboxes");
    assert!(refused > 5_000, "{refused} were refused");
    // Shard 1 was busy all the time: a turn does 65 536 deliveries.
    let delivered = node.world.sum(|m| &m.deliveries_sent);
    assert!(delivered >= turns_ms * 60_000, "{delivered} deliveries of {published} messages");
    // The load ends: what waited is worked off within as many turns as it may take, and the next message is taken.
    for _ in 0..WAY_DELIVERIES_MAX / 4096 + 10 {
        node.world.pass(1);
        (0..3).for_each(|shard| node.turn(shard));
    }
    let owed: u64 = node.world.shards.iter().map(|shard| shard.under_way().0).sum();
    assert!(owed < CREDIT_DELIVERIES, "{owed} deliveries are still owed");
    let published = node.world.sum(|m| &m.messages_published);
    let one = burst(&mut node.world, &room, 1, b"after");
    let received = Event::Received { connection: publishers[0].connection, bytes: &one };
    node.world.shards[2].handle(received, node.world.now);
    for _ in 0..5 {
        (0..3).for_each(|shard| node.turn(shard));
    }
    assert_eq!(node.world.sum(|m| &m.messages_published), published + 1);
    node.world.check();
}

#[test]
fn large_room_is_refused_then_publishes_to_a_small_room_are_taken() {
    let mut world = World::new(1, live());
    members(&mut world, 0, "live:large", 5000);
    let small = members(&mut world, 0, "live:small", 2);
    let publisher = world.sign_in(0, "publisher");
    let flood = burst(&mut world, "live:large", 500, b"large");
    let event = Event::Received { connection: publisher.connection, bytes: &flood };
    world.shards[0].handle(event, world.now);
    world.take_effects(0);
    let taken = world.sum(|m| &m.messages_published);
    assert!((10..200).contains(&taken), "{taken} messages to the large room were taken");
    let answer = {
        world.send(publisher, |encoder, out| {
            let fields = PublishRequest { request: 777, topic: "live:small", payload: b"small", ..Default::default() };
            encoder.publish(out, &fields);
        });
        world.read(publisher).into_iter().find(|got| matches!(got, Got::Published { request: 777, .. }))
    };
    assert!(answer.is_some(), "refused because of the large room");
    // One turn, and the message is there, however much of the large room waits.
    world.shards[0].work_off(world.now);
    for member in small {
        assert!(
            world.read(member).iter().any(|got| matches!(got, Got::Message { topic, .. } if topic == "live:small"))
        );
    }
    assert!(world.shards[0].pressure() > 20);
    world.check();
}

#[test]
fn room_always_has_jobs_then_its_holes_are_closed() {
    let mut world = World::new(1, live());
    let clients = members(&mut world, 0, "live:a", 5000);
    let publisher = world.sign_in(0, "publisher");
    let frames = burst(&mut world, "live:a", 30, b"x");
    world.shards[0].handle(Event::Received { connection: publisher.connection, bytes: &frames }, world.now);
    // All but two leave while jobs wait, some of them before their turn and some after it.
    world.shards[0].work_off(world.now);
    for client in &clients[2..] {
        world.send(*client, |encoder, out| encoder.unsubscribe(out, 3, "live:a"));
    }
    let mut turns = 0;
    while world.shards[0].work_off(world.now) {
        turns += 1;
        world.check();
    }
    assert!(turns < 15, "{turns} turns");
    for client in &clients[..2] {
        let messages = world.read(*client).into_iter().filter(|got| matches!(got, Got::Message { .. })).count();
        assert_eq!(messages, 30);
    }
    world.check();
}

#[test]
fn rooms_take_turns_then_messages_of_each_keep_their_order() {
    let mut world = World::new(1, live());
    let members_of: Vec<Vec<Client>> =
        (0..3).map(|room| members(&mut world, 0, &format!("live:{room}"), 700)).collect();
    let publisher = world.sign_in(0, "publisher");
    for number in 0..60u8 {
        let frames = burst(&mut world, &format!("live:{}", number % 3), 1, &[number]);
        world.shards[0].handle(Event::Received { connection: publisher.connection, bytes: &frames }, world.now);
    }
    while world.shards[0].work_off(world.now) {}
    for (room, members) in members_of.iter().enumerate() {
        for member in members {
            let got = world.read(*member).into_iter().filter_map(|got| match got {
                Got::Message { payload, .. } => Some(payload[0]),
                _ => None,
            });
            assert!(got.eq((0..20).map(|n| n * 3 + room as u8)));
        }
    }
}

/// Members that take nothing for a while: the room rests, its publishers are refused, and nobody is closed.
#[test]
fn members_do_not_keep_up_then_their_room_rests_until_they_do() {
    let mut settings = settings();
    settings.namespaces = vec![Namespace { publish_without_subscribe: true, ..Namespace::named("chat") }];
    let mut world = World::new(1, settings);
    let clients = members(&mut world, 0, "chat:a", 1000);
    let publisher = world.sign_in(0, "publisher");
    // A log of 100 messages, and 60 s of messages at 1 000 a second; members read 100 a second.
    let (mut published, mut refused, mut got) = (0, 0, vec![0; clients.len()]);
    let frames = burst(&mut world, "chat:a", 100, b"x");
    for step in 0..600 {
        world.pass(100);
        world.shards[0].handle(Event::Received { connection: publisher.connection, bytes: &frames }, world.now);
        while world.shards[0].advance(world.now) {}
        world.take_effects(0);
        for answer in world.read(publisher) {
            match answer {
                Got::Published { .. } => published += 1,
                Got::Error { code: 410, .. } => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        for (client, got) in clients.iter().zip(&mut got) {
            for _ in 0..10 {
                *got += usize::from(world.shards[0].pull(client.connection, world.now).is_some());
            }
        }
        if step % 50 == 0 {
            world.check();
        }
    }
    assert!(world.closed().is_empty(), "{:?}", world.closed().first());
    assert!(world.sum(|m| &m.deliveries_queued) < 1000 * 3000, "outboxes hold little");
    assert!(refused > 40_000 && published > 5_900, "{published} published, {refused} refused");
    let (least, most) = (got.iter().min(), got.iter().max());
    assert!(least >= Some(&5_900), "{least:?} to {most:?} messages to each");
}

#[test]
fn most_members_do_not_read_then_one_that_reads_gets_every_message() {
    let mut settings = live();
    (settings.client.write_timeout_ms, settings.client.ping_interval_ms) = (3_600_000, 3_600_000);
    let mut world = World::new(1, settings);
    members(&mut world, 0, "live:a", 20);
    let reader = world.sign_in(0, "reader");
    world.subscribe(reader, "live:a", None);
    let publisher = world.sign_in(0, "publisher");
    let frames = burst(&mut world, "live:a", 100, b"x");
    let mut got = 0;
    // One of 21 reads; 100 messages come at once, every 5 s.
    for _ in 0..20 {
        world.shards[0].handle(Event::Received { connection: publisher.connection, bytes: &frames }, world.now);
        for _ in 0..100 {
            world.pass(50);
            while world.shards[0].advance(world.now) {}
            world.take_effects(0);
            got += world.read(reader).len();
        }
        assert_eq!(world.read(publisher).len(), 100);
    }
    assert!(world.sum(|m| &m.rooms_rested) > 5);
    assert_eq!(world.sum(|m| &m.messages_published), 2000);
    assert_eq!(got, 2000, "every message came to the member that reads");
    world.check();
}

/// A room of one member that reads too slowly, and a publisher that writes as fast as it may: nobody else is refused for it.
#[test]
fn room_rests_for_minutes_then_publishes_to_others_are_taken() {
    let mut settings = live();
    settings.client.ping_interval_ms = 3_600_000;
    let mut world = World::new(1, settings);
    let slow = members(&mut world, 0, "live:slow", 1);
    members(&mut world, 0, "live:other", 50);
    let publisher = world.sign_in(0, "publisher");
    let flood = burst(&mut world, "live:slow", 100, b"x");
    let one = burst(&mut world, "live:other", 1, b"x");
    for _ in 0..600 {
        world.pass(100);
        for frames in [&flood, &one] {
            let event = Event::Received { connection: publisher.connection, bytes: frames };
            world.shards[0].handle(event, world.now);
        }
        while world.shards[0].advance(world.now) {}
        world.take_effects(0);
        let answers = world.read(publisher);
        assert!(matches!(answers.last(), Some(Got::Published { .. })), "{:?}", answers.last());
        // Little by little, so that it is never closed.
        assert!(world.shards[0].pull(slow[0].connection, world.now).is_some());
    }
    assert!(world.sum(|m| &m.rooms_rested) > 100);
    world.check();
}

/// An ephemeral message waits in a job while a member catches up with later ones from the log.
#[test]
fn later_logged_messages_were_delivered_then_an_ephemeral_one_is_dropped() {
    let mut settings = settings();
    settings.client.outbox_messages_max = 4;
    let mut world = World::new(1, settings);
    let reader = world.sign_in(0, "reader");
    world.subscribe(reader, "chat:a", None);
    let publisher = world.sign_in(0, "publisher");
    world.subscribe(publisher, "chat:a", None);
    let publish = |world: &mut World, number: u8, ephemeral| {
        let mut frame = Vec::new();
        let fields =
            PublishRequest { request: 1, topic: "chat:a", payload: &[number], ephemeral, ..Default::default() };
        world.encoder.publish(&mut frame, &fields);
        world.shards[0].handle(Event::Received { connection: publisher.connection, bytes: &frame }, world.now);
    };
    // Its outbox fills, and it lags.
    for number in 1..=6 {
        publish(&mut world, number, false);
    }
    world.shards[0].work_off(world.now);
    publish(&mut world, 7, true);
    publish(&mut world, 8, false);
    // It reads: the log brings it everything up to the eighth, and then the jobs have their turn.
    let mut order = Vec::new();
    for _ in 0..5 {
        for got in world.read(reader) {
            if let Got::Message { payload, .. } = got {
                order.push(payload[0]);
            }
        }
        world.read(publisher);
        world.work();
    }
    assert_eq!(order, [1, 2, 3, 4, 5, 6, 8]);
    world.check();
}

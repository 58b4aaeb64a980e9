//! Sign-ins that the gateway does not bring to an end in time: a client that said Connect in time is to come back.

use std::sync::Arc;

use ringgate::close::CloseReason;
use ringgate::id::{ConnectionKey, Now, ShardId};
use ringgate::limits::BUSY_AFTER_MS;
use ringgate::metrics::ShardMetrics;
use ringgate::session::{AuthError, Transport};
use ringgate::shard::{Effect, Event, Shard, ShardOptions};
use ringgate::wire::encode::ConnectRequest;
use ringgate::wire::{Encoder, ServerFrame, Split, split};

use crate::world::{Client, Got, World, settings};

const KEY: ConnectionKey = ConnectionKey { slot: 1, generation: 1 };

fn connect(user: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    Encoder::default().connect(&mut bytes, &ConnectRequest { request: 1, token: user, ..Default::default() });
    bytes
}

/// What a Goodbye says: its code, whether to come back, and when.
fn goodbye(shard: &mut Shard, now: Now) -> (u16, bool, u32) {
    let mut bytes = Vec::new();
    while let Some(chunk) = shard.pull(KEY, now) {
        bytes.extend_from_slice(chunk.bytes());
    }
    let Split::Frame(raw, b"") = split(&bytes, 1 << 16).unwrap() else { panic!("one frame, not {bytes:?}") };
    match ServerFrame::parse(raw).unwrap() {
        ServerFrame::Goodbye(goodbye) => (goodbye.code(), goodbye.reconnect(), goodbye.after_ms()),
        other => panic!("{other:?} instead of Goodbye"),
    }
}

#[test]
fn token_is_not_verified_in_time_then_busy_and_when_to_come_back() {
    let settings = Arc::new(settings());
    let timeout_ms = settings.client.connect_timeout_ms;
    let metrics = Arc::<ShardMetrics>::default();
    let mut shard = Shard::new(ShardOptions { id: ShardId(0), shards: 1, settings, metrics: metrics.clone(), seed: 1 });
    let at = |ms: u64| Now { mono_us: (1_000 + ms) * 1000, unix_ms: 1_800_000_000_000 + ms };
    let peer = [127, 0, 0, 1].into();
    shard.handle(Event::Opened { connection: KEY, peer, transport: Transport::Plain }, at(0));
    // Connect comes at the last moment; its deadline is from the accept all the same.
    shard.handle(Event::Received { connection: KEY, bytes: &connect("alice") }, at(timeout_ms - 100));
    let effects: Vec<_> = std::iter::from_fn(|| shard.poll_effect()).collect();
    assert!(matches!(&effects[..], [Effect::Verify { refresh: None, .. }]), "{effects:?}");
    shard.advance(at(timeout_ms - 100));
    assert!(shard.awaits_verification(KEY, false));
    shard.advance(at(timeout_ms + 100));
    let closed = std::iter::from_fn(|| shard.poll_effect())
        .find_map(|effect| if let Effect::Close { reason, .. } = effect { Some(reason) } else { None });
    assert_eq!(closed, Some(CloseReason::Busy));
    let (code, reconnect, after_ms) = goodbye(&mut shard, at(timeout_ms + 100));
    assert_eq!((code, reconnect), (3016, true));
    assert!((BUSY_AFTER_MS..BUSY_AFTER_MS + 120_000).contains(&after_ms), "{after_ms}");
    // An answer that comes now is of no use to anybody.
    assert!(!shard.awaits_verification(KEY, false));
    shard.handle(
        Event::Verified { connection: KEY, refresh: None, result: Err(AuthError::Expired) },
        at(timeout_ms + 200),
    );
    assert!(shard.poll_effect().is_none());
    shard.invariants();
}

#[test]
fn home_does_not_answer_in_time_then_busy() {
    let mut world = World::new(2, settings());
    // One of these users has its home on the other shard, whose mail is not delivered.
    let clients: Vec<Client> = (0..20)
        .map(|number| {
            let client = world.open(0);
            world.handle(
                0,
                Event::Received { connection: client.connection, bytes: &connect(&format!("user{number}")) },
            );
            client
        })
        .collect();
    assert!(!world.mail.is_empty());
    let waiting = world.mail.len();
    // The others are signed in, and would be slow if they did not read that.
    clients.iter().for_each(|client| _ = world.read(*client));
    world.pass(settings().client.connect_timeout_ms + 100);
    world.shards[0].advance(world.now);
    world.take_effects(0);
    let busy = world.closed.iter().filter(|(_, reason)| *reason == CloseReason::Busy).count();
    assert_eq!((busy, world.closed.len()), (waiting, waiting), "{:?}", world.closed);
    // The home's answers find nobody, and take the sessions back.
    world.work();
    world.check();
    for client in clients {
        let got = world.read(client);
        let was_closed = world.closed.iter().any(|(closed, _)| *closed == client);
        assert_eq!(got, if was_closed { vec![Got::Goodbye { code: 3016 }] } else { Vec::new() });
    }
}

#[test]
fn connect_does_not_come_in_time_then_stale_as_before() {
    let mut world = World::new(1, settings());
    let silent = world.open(0);
    world.pass(settings().client.connect_timeout_ms + 100);
    world.advance();
    assert_eq!(world.closed, [(silent, CloseReason::Stale)]);
}

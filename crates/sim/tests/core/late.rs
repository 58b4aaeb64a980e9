//! Sign-ins that the gateway does not bring to an end in time: a client that said Connect in time is to come back.

use std::sync::Arc;

use ringgate_core::close::{AuthError, CloseReason};
use ringgate_core::id::{ConnectionKey, Now, ShardId};
use ringgate_core::limits::{BUSY_AFTER_MS, Settings};
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::session::Grant;
use ringgate_core::shard::{Effect, Event, Shard, ShardOptions};
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::ConnectRequest;
use ringgate_core::wire::{Encoder, ServerFrame, Split, split};

use ringgate_sim::{Client, Got, World, settings};

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
    let mut shard =
        Shard::new(ShardOptions { id: ShardId(0), shards: 1, settings, metrics: metrics.clone(), seed: 1, run: 1 });
    let at = |ms: u64| Now { mono_us: (1_000 + ms) * 1000, unix_ms: 1_800_000_000_000 + ms };
    let peer = [127, 0, 0, 1].into();
    shard.handle(
        Event::Opened { connection: KEY, peer, transport: Transport::Plain, is_open_to_websocket: false },
        at(0),
    );
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
    let busy = world.closed().iter().filter(|(_, reason)| *reason == CloseReason::Busy).count();
    assert_eq!((busy, world.closed().len()), (waiting, waiting), "{:?}", world.closed());
    // The home's answers find nobody, and take the sessions back.
    world.work();
    world.check();
    for client in clients {
        let got = world.read(client);
        let was_closed = world.closed().iter().any(|(closed, _)| *closed == client);
        assert_eq!(got, if was_closed { vec![Got::Goodbye { code: 3016 }] } else { Vec::new() });
    }
}

#[test]
fn connect_does_not_come_in_time_then_stale_as_before() {
    let mut world = World::new(1, settings());
    let silent = world.open(0);
    world.pass(settings().client.connect_timeout_ms + 100);
    world.advance();
    assert_eq!(world.closed(), [(silent, CloseReason::Stale)]);
}

/// A session that ends at 1 000 ms, and sends a Refresh before that of which the gateway does not see to the token.
fn refreshing(settings: Settings) -> (Shard, impl Fn(u64) -> Now) {
    let metrics = Arc::<ShardMetrics>::default();
    let options = ShardOptions { id: ShardId(0), shards: 1, settings: Arc::new(settings), metrics, seed: 1, run: 1 };
    let mut shard = Shard::new(options);
    let at = |ms: u64| Now { mono_us: (1_000 + ms) * 1000, unix_ms: 1_800_000_000_000 + ms };
    let peer = [127, 0, 0, 1].into();
    shard.handle(
        Event::Opened { connection: KEY, peer, transport: Transport::Plain, is_open_to_websocket: false },
        at(0),
    );
    shard.handle(Event::Received { connection: KEY, bytes: &connect("alice") }, at(0));
    shard.handle(Event::Verified { connection: KEY, refresh: None, result: Ok(until(1)) }, at(0));
    let mut refresh = Vec::new();
    Encoder::default().refresh(&mut refresh, 5, "a newer one");
    shard.handle(Event::Received { connection: KEY, bytes: &refresh }, at(900));
    while shard.poll_effect().is_some() {}
    while shard.pull(KEY, at(900)).is_some() {}
    (shard, at)
}

fn until(seconds: u64) -> Grant {
    Grant { user: "alice".to_owned(), expires_at: 1_800_000_000 + seconds, rooms: None, device: None }
}

fn closed(shard: &mut Shard) -> Option<CloseReason> {
    std::iter::from_fn(|| shard.poll_effect())
        .find_map(|effect| if let Effect::Close { reason, .. } = effect { Some(reason) } else { None })
}

#[test]
fn a_refresh_came_in_time_and_is_verified_late_then_the_session_goes_on() {
    let (mut shard, at) = refreshing(settings());
    shard.advance(at(3000));
    assert_eq!(closed(&mut shard), None);
    shard.handle(Event::Verified { connection: KEY, refresh: Some(5), result: Ok(until(60)) }, at(3100));
    while shard.pull(KEY, at(3100)).is_some() {}
    shard.advance(at(59_000));
    assert_eq!(closed(&mut shard), None);
    shard.advance(at(60_100));
    assert_eq!(closed(&mut shard), Some(CloseReason::Expired));
}

#[test]
fn a_refresh_came_in_time_and_is_refused_late_then_the_session_has_expired() {
    let (mut shard, at) = refreshing(settings());
    shard.advance(at(3000));
    let result = Err(AuthError::Signature);
    shard.handle(Event::Verified { connection: KEY, refresh: Some(5), result }, at(3100));
    shard.advance(at(3200));
    assert_eq!(closed(&mut shard), Some(CloseReason::Expired));
}

#[test]
fn a_refresh_is_not_verified_for_too_long_then_busy() {
    let settings = settings();
    let timeout_ms = settings.client.connect_timeout_ms;
    let (mut shard, at) = refreshing(settings);
    shard.advance(at(900 + timeout_ms));
    assert_eq!(closed(&mut shard), None);
    shard.advance(at(1100 + timeout_ms));
    assert_eq!(closed(&mut shard), Some(CloseReason::Busy));
}

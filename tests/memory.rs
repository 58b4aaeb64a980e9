//! What an idle, signed-in connection costs in the core: live heap bytes, counted by the allocator.
//!
//! The process adds the socket's slot in `net` (32 bytes) and what the allocator rounds up; docs/performance.md has the
//! figures measured from outside.
#![allow(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use ringgate::id::{ConnectionKey, Now, ShardId};
use ringgate::limits::Settings;
use ringgate::session::{Grant, Transport};
use ringgate::shard::{Effect, Event, Shard, ShardOptions};
use ringgate::wire::Encoder;
use ringgate::wire::encode::ConnectRequest;

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only a counter moves beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Signs clients in and lets each heartbeat once.
fn sign_in(shard: &mut Shard, slots: std::ops::Range<u32>, now: Now) {
    let mut encoder = Encoder::default();
    for slot in slots {
        let connection = ConnectionKey { slot, generation: 1 };
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        shard.handle(Event::Opened { connection, peer, transport: Transport::Plain }, now);
        let user = format!("u123456-{slot}");
        let mut bytes = Vec::new();
        encoder.connect(&mut bytes, &ConnectRequest { token: &user, device: "phone", ..Default::default() });
        shard.handle(Event::Received { connection, bytes: &bytes }, now);
        while let Some(effect) = shard.poll_effect() {
            if let Effect::Verify { connection, refresh, token } = effect {
                let result = Ok(Grant { user: token.into(), expires_at: 2_000_000_000, rooms: None, device: None });
                shard.handle(Event::Verified { connection, refresh, result }, now);
            }
        }
        while let Some(chunk) = shard.pull(connection, now) {
            if let ringgate::outbox::Chunk::Control(buffer) = chunk {
                shard.recycle(buffer);
            }
        }
        shard.advance(now);
    }
}

#[test]
fn an_idle_connection_owns_little() {
    const FIRST: u32 = 1_000;
    const ALL: u32 = 15_000;
    let mut shard = Shard::new(ShardOptions {
        id: ShardId(0),
        shards: 1,
        settings: Arc::new(Settings::default()),
        metrics: Arc::default(),
        seed: 1,
    });
    let now = Now { mono_us: 1_000_000, unix_ms: 1_800_000_000_000 };
    sign_in(&mut shard, 0..FIRST, now);
    let before = LIVE.load(Ordering::Relaxed);
    sign_in(&mut shard, FIRST..ALL, now);
    let each = (LIVE.load(Ordering::Relaxed) - before) as f64 / f64::from(ALL - FIRST);
    println!("{each:.0} bytes for each idle connection in the core");
    assert!(each <= 330.0, "{each:.0} bytes for each idle connection");
    shard.invariants();
}

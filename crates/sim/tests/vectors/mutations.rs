//! Vectors with one byte changed, or cut short. Whatever comes out of a client, the gateway either reads a frame
//! whose fields are within bounds, or closes that one connection.

use ringgate_core::close::CloseReason;
use ringgate_core::limits::{Namespace, Settings};
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_core::wire::{ClientFrame, Encoder, Kind, ServerFrame, Split, WireError, split};
use ringgate_sim::bodies::check_client_frame;
use ringgate_sim::{ByteClients, Random};

use crate::index::{Vector, vectors};

/// Up to this length every byte takes every other value; above it, so many changes are drawn.
const EXHAUSTIVE_BYTES_MAX: usize = 2048;
const DRAWN: usize = 4096;

#[test]
fn are_read_within_bounds_or_refused() {
    let (mut read, mut refused) = (0, 0);
    for vector in vectors("client_") {
        for_each_change(&vector, |at, bytes| match judge(bytes) {
            Ok(()) => {
                read += 1;
                assert!(!(5..8).contains(&at), "{}: reserved bits were let through", vector.file);
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error == WireError::ReservedBits, (5..8).contains(&at), "{} at {at}", vector.file);
            }
        });
    }
    // Most bytes of a frame are text or numbers; but not nearly all of them.
    assert!(read > refused / 2 && refused > read / 10, "{read} read, {refused} refused");
}

#[test]
fn cut_short_are_incomplete_or_refused() {
    for vector in vectors("client_") {
        for_each_length(&vector, |length| {
            let mut bytes = vector.bytes[..length].to_vec();
            let wanted = if length < 8 { 8 } else { vector.bytes.len() };
            match split(&bytes, BODY_BYTES_MAX) {
                Ok(Split::Incomplete(incomplete)) => assert_eq!(incomplete, wanted, "{} of {length}", vector.file),
                other => panic!("{} of {length}: {other:?}", vector.file),
            }
            // The same bytes under a header that says that this is all.
            if length >= 8 {
                bytes[..4].copy_from_slice(&(length as u32 - 8).to_le_bytes());
                let _ = judge(&bytes);
            }
        });
    }
}

/// Every change goes to a session (or, before sign-in, to a connection) of a shard beside which two others talk.
#[test]
fn harm_only_the_session_that_sends_them() {
    let mut closed = 0;
    for vector in vectors("client_") {
        let mut neighbours = Neighbours::new();
        let mut sent = 0;
        for_each_change(&vector, |_, bytes| {
            neighbours.receive(vector.kind() == Some(Kind::Connect), bytes);
            sent += 1;
            if sent % 64 == 0 {
                neighbours.talk();
            }
            if sent % 1024 == 0 {
                closed += std::mem::replace(&mut neighbours, Neighbours::new()).end();
            }
        });
        neighbours.talk();
        closed += neighbours.end();
    }
    assert!(closed > 0, "somebody was closed");
}

/// The stream ends inside the frame.
#[test]
fn cut_short_leave_nothing_behind() {
    for vector in vectors("client_") {
        let mut neighbours = Neighbours::new();
        for_each_length(&vector, |length| {
            neighbours.begin(vector.kind() == Some(Kind::Connect));
            neighbours.world.send(0, &vector.bytes[..length]);
            neighbours.world.end(0, CloseReason::ConnectionClosed);
            neighbours.world.settle();
            assert!(!neighbours.world.is_open(0));
        });
        neighbours.talk();
        neighbours.end();
    }
}

const BODY_BYTES_MAX: usize = 64 * 1024 + 4096;

fn judge(bytes: &[u8]) -> Result<(), WireError> {
    let frame = match split(bytes, BODY_BYTES_MAX)? {
        Split::Frame(raw, _) => raw,
        Split::Incomplete(_) => return Ok(()),
    };
    check_client_frame(&ClientFrame::parse(frame)?, frame.body.len());
    Ok(())
}

/// Calls with the position and the vector's bytes, of which that one is changed.
fn for_each_change(vector: &Vector, mut call: impl FnMut(usize, &[u8])) {
    let mut bytes = vector.bytes.clone();
    let mut change = |at: usize, value: u8| {
        let before = std::mem::replace(&mut bytes[at], value);
        if before != value {
            call(at, &bytes);
        }
        bytes[at] = before;
    };
    if vector.bytes.len() <= EXHAUSTIVE_BYTES_MAX {
        for at in 0..vector.bytes.len() {
            (0..=255).for_each(|value| change(at, value));
        }
    } else {
        let mut random = Random::new(vector.bytes.len() as u64);
        // Header and the first tables change more than the long text behind them.
        for round in 0..DRAWN {
            let end = if round % 2 == 0 { vector.bytes.len() } else { 256 };
            change(random.below(end), random.bits() as u8);
        }
    }
}

/// Every length that is shorter, or a sample of them.
fn for_each_length(vector: &Vector, mut call: impl FnMut(usize)) {
    let length = vector.bytes.len();
    if length <= EXHAUSTIVE_BYTES_MAX {
        (0..length).for_each(call);
    } else {
        let mut random = Random::new(length as u64);
        (0..64).for_each(&mut call);
        (0..256).for_each(|_| call(random.below(length)));
    }
}

/// Client 0 sends what it wants; 1 and 2, on the two shards, write to each other.
struct Neighbours {
    world: ByteClients,
    encoder: Encoder,
    messages: u32,
    closed: usize,
}

impl Neighbours {
    fn new() -> Self {
        let mut settings = Settings::default();
        settings.client.messages_rate = 0;
        settings.client.bytes_rate = 0;
        settings.namespaces = vec![Namespace::named("chat"), Namespace::named("c")];
        let mut world = ByteClients::new(2, 3, settings);
        world.sign_in(1, "one");
        world.sign_in(2, "two");
        Neighbours { world, encoder: Encoder::default(), messages: 0, closed: 0 }
    }

    /// Client 0 has a connection on which a frame may begin.
    fn begin(&mut self, before_connect: bool) {
        if before_connect {
            self.world.end(0, CloseReason::ConnectionClosed);
            self.world.settle();
            self.world.open(0, Transport::Plain);
        } else if !self.world.is_open(0) {
            self.world.sign_in(0, "zero");
        }
    }

    fn receive(&mut self, before_connect: bool, bytes: &[u8]) {
        self.begin(before_connect);
        self.world.send(0, bytes);
        self.world.settle();
        self.world.read(0, usize::MAX);
        if self.world.is_open(0) && !matches!(split(bytes, BODY_BYTES_MAX), Ok(Split::Frame(_, []))) {
            // A longer length: the rest never comes.
            self.world.end(0, CloseReason::ConnectionReset);
            self.world.settle();
        }
        if !self.world.is_open(0) {
            self.closed += 1;
        }
    }

    /// A message from 1 to 2 arrives, whole and once.
    fn talk(&mut self) {
        self.messages += 1;
        let payload = self.messages.to_le_bytes();
        let request =
            PublishRequest { request: 7, topic: "@utwo", payload: &payload, ephemeral: true, ..Default::default() };
        let mut bytes = Vec::new();
        self.encoder.publish(&mut bytes, &request);
        self.world.send(1, &bytes);
        self.world.settle();
        self.world.check();
        self.world.read(1, usize::MAX);
        self.world.read(2, usize::MAX);
        assert!(self.world.client(1).next_of(Kind::Published).is_some(), "no answer to a neighbour");
        let received = self.world.client(2);
        let message = received.next_of(Kind::Message).expect("a message for a neighbour");
        let Ok(Split::Frame(raw, [])) = split(&message, BODY_BYTES_MAX) else { panic!("one frame") };
        let Ok(ServerFrame::Message(message)) = ServerFrame::parse(raw) else { panic!("a message") };
        assert_eq!(message.payload().map(|payload| payload.bytes()), Some(payload.as_slice()));
        assert_eq!(received.next_of(Kind::Message), None, "a message that nobody sent");
    }

    fn end(mut self) -> usize {
        self.world.check();
        self.world.end_all();
        self.closed
    }
}

//! Everything malformed is refused, at the level and with the close code that the index names.

use ringgate::limits::Settings;
use ringgate::wire::{ClientFrame, Kind, Split, WireError, split_of_client};

use crate::index::vectors;
use crate::world::World;

#[test]
fn is_refused_at_its_level() {
    for vector in vectors("malformed_") {
        let error = refusal(&vector.bytes).unwrap_or_else(|| panic!("{} was accepted", vector.file));
        assert_eq!(u64::from(error.close_reason().code()), close_of(&vector.entry), "{}", vector.file);
        let level = match error {
            WireError::Malformed => "verify",
            WireError::Field => "field",
            _ => "header",
        };
        assert_eq!(level, vector.text("level"), "{}: {}", vector.file, error.label());
    }
}

/// Once signed in: Goodbye with the code, and nobody else notices.
#[test]
fn closes_the_session_that_sent_it() {
    for vector in vectors("malformed_") {
        let mut world = World::new(2, 2, Settings::default());
        world.sign_in(0, "bad");
        world.sign_in(1, "good");
        world.send(0, &vector.bytes);
        world.settle();
        world.check();
        assert!(!world.is_open(0), "{}", vector.file);
        assert_eq!(world.client(0).goodbye.map(u64::from), Some(close_of(&vector.entry)), "{}", vector.file);
        world.send(1, &[0, 0, 0, 0, 2, 0, 0, 0]);
        world.read(1, usize::MAX);
        assert!(world.client(1).next_of(Kind::Pong).is_some(), "{}: the other session has no Pong", vector.file);
        world.end_all();
    }
}

/// The frame arrives in pieces of one byte: the verdict is the same, and as early as the header allows.
#[test]
fn is_refused_byte_by_byte() {
    for vector in vectors("malformed_") {
        let mut world = World::new(1, 1, Settings::default());
        world.sign_in(0, "bad");
        let early = vector.text("level") == "header" && split_of_client(&vector.bytes[..8], 1 << 16).is_err();
        for (at, byte) in vector.bytes.iter().enumerate() {
            assert!(world.is_open(0), "{} was refused before byte {at}", vector.file);
            world.send(0, &[*byte]);
            world.settle();
            if early && at == 7 {
                break;
            }
        }
        assert!(!world.is_open(0), "{}", vector.file);
        assert_eq!(world.client(0).goodbye.map(u64::from), Some(close_of(&vector.entry)), "{}", vector.file);
    }
}

fn close_of(entry: &serde_json::Value) -> u64 {
    entry["close"].as_u64().expect("a code")
}

fn refusal(bytes: &[u8]) -> Option<WireError> {
    match split_of_client(bytes, Settings::default().body_bytes_max()) {
        Err(error) => Some(error),
        Ok(Split::Frame(raw, rest)) => {
            assert!(rest.is_empty());
            ClientFrame::parse(raw).err()
        }
        Ok(Split::Incomplete(wanted)) => panic!("incomplete: {wanted} bytes are wanted"),
    }
}

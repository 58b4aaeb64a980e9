//! Everything malformed is refused, at the level and with the close code that the index names.

use ringgate_core::limits::Settings;
use ringgate_core::wire::{ClientFrame, Kind, OutOfBounds, ServerFrame, Split, WireError, split, split_of_client};
use ringgate_sim::ByteClients;

use crate::index::vectors;

#[test]
fn is_refused_at_its_level() {
    for vector in vectors("malformed_") {
        let file = &vector.file;
        let (level, problem) = match refusal(&vector.bytes).unwrap_or_else(|| panic!("{file} was accepted")) {
            Refusal::Closes(error) => {
                assert_eq!(Some(u64::from(error.close_reason().code())), vector.entry["close"].as_u64(), "{file}");
                match error {
                    WireError::Malformed => ("verify", ""),
                    WireError::Field(problem) => ("field", problem),
                    _ => ("header", ""),
                }
            }
            Refusal::Answers(problem) => {
                assert_eq!(vector.entry["error"].as_u64(), Some(107), "{file}");
                ("field", problem)
            }
        };
        assert_eq!(level, vector.text("level"), "{file}");
        let field = vector.entry["field"].as_str().unwrap_or_default();
        assert_eq!(problem.split(':').next(), Some(field), "{file}");
    }
}

/// A request with a field that is out of bounds: Error 107 names the field, and the session goes on.
#[test]
fn answers_a_request_whose_field_is_out_of_bounds() {
    let mut answered = 0;
    for vector in vectors("malformed_").into_iter().filter(|vector| vector.entry["error"].is_u64()) {
        let mut world = ByteClients::new(1, 1, Settings::default());
        world.sign_in(0, "bad");
        world.send(0, &vector.bytes);
        world.send(0, &[0, 0, 0, 0, 2, 0, 0, 0]);
        world.read(0, usize::MAX);
        let error = world.client(0).next_of(Kind::Error).unwrap_or_else(|| panic!("{}: no Error", vector.file));
        let Ok(Split::Frame(raw, [])) = split(&error, 1 << 16) else { panic!("one whole frame") };
        let Ok(ServerFrame::Error(error)) = ServerFrame::parse(raw) else { panic!("an Error") };
        assert_eq!(error.code(), 107, "{}", vector.file);
        let message = error.message().unwrap_or_default();
        assert_eq!(message.split(':').next(), vector.entry["field"].as_str(), "{}", vector.file);
        assert!(world.client(0).next_of(Kind::Pong).is_some(), "{}: the session does not go on", vector.file);
        world.check();
        world.end_all();
        answered += 1;
    }
    assert!(answered > 10, "{answered} vectors");
}

/// Once signed in: Goodbye with the code, and nobody else notices.
#[test]
fn closes_the_session_that_sent_it() {
    for vector in vectors("malformed_").into_iter().filter(|vector| vector.entry["close"].is_u64()) {
        let mut world = ByteClients::new(2, 2, Settings::default());
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
    for vector in vectors("malformed_").into_iter().filter(|vector| vector.entry["close"].is_u64()) {
        let mut world = ByteClients::new(1, 1, Settings::default());
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

enum Refusal {
    Closes(WireError),
    Answers(&'static str),
}

fn refusal(bytes: &[u8]) -> Option<Refusal> {
    match split_of_client(bytes, Settings::default().body_bytes_max()) {
        Err(error) => Some(Refusal::Closes(error)),
        Ok(Split::Frame(raw, rest)) => {
            assert!(rest.is_empty());
            match ClientFrame::parse(raw) {
                Err(error) => Some(Refusal::Closes(error)),
                Ok(ClientFrame::OutOfBounds(OutOfBounds { problem, .. })) => Some(Refusal::Answers(problem)),
                Ok(_) => None,
            }
        }
        Ok(Split::Incomplete(wanted)) => panic!("incomplete: {wanted} bytes are wanted"),
    }
}

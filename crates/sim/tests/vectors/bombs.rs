//! Frames that are small and would be expensive: the verifier's limits make them cheap.
//!
//! What a verification costs is counted, not timed. Every step of the verifier reads bytes of the buffer, and charges
//! them to the "apparent size" before it looks at them; the same bytes are charged each time that they are reached. So
//! the apparent size bounds the steps, the bytes scanned for UTF-8 among them, and the least limit with which the
//! verdict is something other than "apparent size too large" is what the verification costs.

use flatbuffers::{InvalidFlatbuffer, VerifierOptions, root_with_opts};
use ringgate_core::limits::{CONNECT_ROOMS_MAX, Settings};
use ringgate_core::wire::{ClientFrame, Encoder, Kind, RawFrame, WireError, schema};

use crate::index::vectors;

/// The limits of `docs/protocol.md`.
const TABLES_MAX: usize = 192;
fn size_max(body: &[u8]) -> usize {
    2 * body.len() + 1024
}

/// A Connect of this many rooms that are all the same table.
fn bomb(rooms: usize, room: &str) -> Vec<u8> {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let token = Some(builder.create_string("t"));
    let room = Some(builder.create_string(room));
    let cursor = schema::RoomCursor::create(&mut builder, &schema::RoomCursorArgs { room, ..Default::default() });
    let rooms = Some(builder.create_vector(&vec![cursor; rooms]));
    let connect = schema::ConnectArgs { version: 1, token, rooms, ..Default::default() };
    let connect = schema::Connect::create(&mut builder, &connect);
    builder.finish_minimal(connect);
    builder.finished_data().to_vec()
}

fn parse(kind: Kind, body: &[u8]) -> Result<ClientFrame<'_>, WireError> {
    ClientFrame::parse(RawFrame { kind, body })
}

fn verify(body: &[u8], max_tables: usize, max_apparent_size: usize) -> Result<(), InvalidFlatbuffer> {
    let options =
        VerifierOptions { max_depth: 8, max_tables, max_apparent_size, ignore_missing_null_terminator: false };
    root_with_opts::<schema::Connect<'_>>(&options, body).map(|_| ())
}

/// Bytes that the verifier reads until it has its verdict, given so many tables.
fn cost(body: &[u8], max_tables: usize) -> usize {
    let too_large = |size| matches!(verify(body, max_tables, size), Err(InvalidFlatbuffer::ApparentSizeTooLarge));
    let (mut low, mut high) = (0, 1 << 31);
    while low < high {
        let middle = usize::midpoint(low, high);
        if too_large(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

#[test]
fn cost_no_more_than_their_limit() {
    let bodies = [
        bomb(8_000, "chat:general"),
        bomb(100, &"r".repeat(128)),
        bomb(8_000, &"r".repeat(4_000)),
        vector("malformed_bomb.bin"),
        vector("malformed_bomb_within_table_limit.bin"),
    ];
    for body in bodies {
        let unlimited = cost(&body, usize::MAX);
        assert!(unlimited > 2 * size_max(&body), "{unlimited} bytes are no bomb for {} bytes", body.len());
        // One of the two bounds ends it, before twice the body and a little was read.
        match verify(&body, TABLES_MAX, size_max(&body)) {
            Err(InvalidFlatbuffer::TooManyTables) => assert!(cost(&body, TABLES_MAX) <= size_max(&body)),
            Err(InvalidFlatbuffer::ApparentSizeTooLarge) => assert!(cost(&body, TABLES_MAX) > size_max(&body)),
            other => panic!("{other:?}"),
        }
        assert_eq!(parse(Kind::Connect, &body).unwrap_err(), WireError::Malformed);
    }
}

/// The limit of total size is the documented one, to the byte: the largest number of references that costs no more
/// is accepted, one more is not.
#[test]
fn total_size_is_bounded_where_the_protocol_says() {
    let name = "r".repeat(60);
    let fits = |rooms: &usize| {
        let body = bomb(*rooms, &name);
        cost(&body, usize::MAX) <= size_max(&body)
    };
    let most = (1..=CONNECT_ROOMS_MAX).take_while(fits).last().expect("one room fits");
    assert!(most < CONNECT_ROOMS_MAX);
    for rooms in 1..=CONNECT_ROOMS_MAX {
        let body = bomb(rooms, &name);
        let verdict = parse(Kind::Connect, &body).map(|_| ());
        assert_eq!(verdict, if rooms <= most { Ok(()) } else { Err(WireError::Malformed) }, "{rooms} rooms");
    }
}

/// 192 tables in a Connect, itself among them. A list of more than 128 rooms is refused in any case, but only after
/// it was verified.
#[test]
fn tables_are_bounded_where_the_protocol_says() {
    for (rooms, is_malformed) in [(191, false), (192, true)] {
        let names: Vec<String> = (0..rooms).map(|room| format!("chat:{room}")).collect();
        let rooms: Vec<_> = names.iter().map(|name| (name.as_str(), None).into()).collect();
        let request = ringgate_core::wire::encode::ConnectRequest { token: "t", rooms: &rooms, ..Default::default() };
        let mut frame = Vec::new();
        Encoder::default().connect(&mut frame, &request);
        let error = parse(Kind::Connect, &frame[8..]).unwrap_err();
        assert!(matches!(error, WireError::Malformed | WireError::Field(_)));
        assert_eq!(error == WireError::Malformed, is_malformed, "{} rooms", rooms.len());
    }
}

/// Whatever the bytes: the worst body of the largest size costs no more than twice itself and a little, and what is
/// read after verification (names, 128 of them at most) is bounded by itself.
#[test]
fn the_largest_frame_is_bounded_too() {
    let body_bytes_max = Settings::default().body_bytes_max();
    let room = "r".repeat(body_bytes_max / 2);
    let rooms = (body_bytes_max - room.len() - 128) / 4;
    let body = bomb(rooms, &room);
    assert!(body.len() <= body_bytes_max && body.len() > body_bytes_max - 256);
    assert!(matches!(verify(&body, TABLES_MAX, size_max(&body)), Err(InvalidFlatbuffer::ApparentSizeTooLarge)));
    assert!(cost(&body, TABLES_MAX) > 40 * size_max(&body), "without the limit of size it costs this many times more");
    assert_eq!(parse(Kind::Connect, &body).unwrap_err(), WireError::Malformed);
}

fn vector(file: &str) -> Vec<u8> {
    vectors(file).remove(0).bytes.split_off(8)
}

use std::path::PathBuf;
use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;
use ringgate_core::wire::{ClientFrame, Encoder, Kind, Split, split};
use serde_json::Value;

use super::texts::{Texts, append_messages};
use super::{append_frame, append_text};

/// The golden vectors: name of the file, the frame, and the text that means the same.
static VECTORS: LazyLock<Vec<(String, Vec<u8>, Value)>> = LazyLock::new(|| {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/vectors"));
    let texts = std::fs::read(folder.join("texts.json")).expect("the vectors are in the repository");
    let texts: Vec<Value> = serde_json::from_slice(&texts).expect("JSON");
    let vectors = texts.into_iter().map(|entry| {
        let file = entry["file"].as_str().expect("a name").to_owned();
        (file.clone(), std::fs::read(folder.join(file)).expect("a frame"), entry["text"].clone())
    });
    vectors.collect()
});

/// What a client's frame says.
fn meaning(frame: &[u8]) -> String {
    let Ok(Split::Frame(raw, [])) = split(frame, usize::MAX) else { panic!("one whole frame: {frame:?}") };
    match ClientFrame::parse(raw).expect("a frame of a client") {
        ClientFrame::Connect(connect) => {
            let rooms: Vec<_> = connect.rooms.iter().collect();
            let (inbox, window) = (connect.inbox, connect.receive_window);
            let who = (connect.request, connect.version, connect.token, connect.device, connect.client);
            format!("{who:?} {inbox:?} {rooms:?} {} {window}", connect.ping_interval_ms)
        }
        frame => format!("{frame:?}"),
    }
}

fn frame_of(text: &str) -> Result<Vec<u8>, String> {
    let mut frame = Vec::new();
    append_frame(text.as_bytes(), &mut frame).map(|()| frame).map_err(|malformed| malformed.to_string())
}

#[test]
fn text_of_a_client_is_read_then_it_means_what_the_golden_frame_does() {
    let (mut compared, mut shortened) = (0, 0);
    for (file, frame, text) in &*VECTORS {
        if !file.starts_with("client_") {
            continue;
        }
        assert_eq!(frame_of(&text.to_string()).map(|frame| meaning(&frame)), Ok(meaning(frame)), "{file}");
        // Fields with their default may be left out, or be null; unknown ones are ignored.
        let is_default =
            |value: &Value| *value == 0 || *value == false || *value == "exact" || *value == Value::Array(vec![]);
        let mut short = text.as_object().expect("an object").clone();
        short.retain(|_, value| !is_default(value));
        shortened += usize::from(short.len() < text.as_object().map_or(0, serde_json::Map::len));
        short.insert("trace_of_tomorrow".to_owned(), serde_json::json!({"a": [1, {"b": null}]}));
        short.entry("since").or_insert(Value::Null);
        assert_eq!(
            frame_of(&Value::Object(short).to_string()).map(|frame| meaning(&frame)),
            Ok(meaning(frame)),
            "{file}"
        );
        compared += 1;
    }
    assert!(compared >= 25 && shortened >= 8, "{compared} compared, {shortened} shortened");
}

#[test]
fn frame_of_the_gateway_is_written_then_it_is_the_golden_text() {
    let mut compared = 0;
    for (file, frame, text) in &*VECTORS {
        if !file.starts_with("gateway_") {
            continue;
        }
        let Ok(Split::Frame(raw, [])) = split(frame, usize::MAX) else { panic!("{file}") };
        let mut written = Vec::new();
        append_text(raw, &mut written);
        let written: Value = serde_json::from_slice(&written).expect("JSON");
        assert_eq!(written, *text, "{file}");
        compared += 1;
    }
    assert!(compared >= 35, "{compared} compared");
}

#[test]
fn payload_is_base64_then_its_bytes_are_published() {
    let frame = frame_of(r#"{"type":"publish","topic":"chat:a","payload_base64":"AP8="}"#).expect("a request");
    let Ok(Split::Frame(raw, [])) = split(&frame, usize::MAX) else { panic!("one frame") };
    let Ok(ClientFrame::Publish(publish)) = ClientFrame::parse(raw) else { panic!("a Publish") };
    assert_eq!(publish.payload, [0, 0xff]);
}

#[test]
fn text_is_no_request_then_the_error_names_the_field_and_what_it_has_to_be() {
    for (text, expected) in [
        ("", "this is no JSON: EOF while parsing a value at line 1 column 0"),
        ("{", "this is no JSON: EOF while parsing an object at line 1 column 1"),
        ("[]x", "this is no JSON"),
        (r#"{"type":"ping"} {}"#, "this is no JSON: trailing characters"),
        ("7", "the text has to be an object"),
        ("{}", "type: is missing; there are connect, ping"),
        (r#"{"type":"shout"}"#, "type: is unknown; there are connect, ping"),
        (r#"{"type":"ack"}"#, "position: is missing"),
        (r#"{"type":5}"#, "type: has to be a string"),
        (r#"{"type":"publish","request":-1}"#, "request: has to be u32"),
        (r#"{"type":"publish","request":4294967296}"#, "request: has to be u32"),
        (r#"{"type":"publish","topic":["chat:a"]}"#, "topic: has to be a string"),
        (
            r#"{"type":"publish","payload":"a","payload_base64":"YQ=="}"#,
            "payload: must not stand beside payload_base64",
        ),
        (r#"{"type":"publish","payload_base64":"YQ"}"#, "payload_base64: has to be base64 of RFC 4648"),
        (
            r#"{"type":"publish","client_message_id":"7"}"#,
            "client_message_id: has to be a string of 32 hexadecimal digits",
        ),
        (
            r#"{"type":"ack","position":{"epoch":"1","offset":2}}"#,
            "position.offset: has to be a string of decimal digits",
        ),
        (r#"{"type":"ack","position":{"epoch":"1"}}"#, "position: missing field `offset`"),
        (r#"{"type":"subscribe","recover":"all"}"#, "recover: has to be `exact` or `best`"),
        (r#"{"type":"connect","rooms":[{"room":"chat:a"},{"since":null}]}"#, "rooms[1]: missing field `room`"),
        (r#"{"type":"ping","type":"ping"}"#, "duplicate field `type`"),
    ] {
        let error = frame_of(text).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn value_that_does_not_fit_is_a_secret_then_the_error_does_not_repeat_it() {
    for text in
        [r#"{"type":"connect","request":"s3cret"}"#, r#"{"type":"s3cret"}"#, r#"{"type":"ack","position":"s3cret"}"#]
    {
        let error = frame_of(text).expect_err(text);
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn arrays_are_nested_deeply_then_the_stack_does_not_grow_with_them() {
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    let unknown = format!(r#"{{"type":"ping","x":{deep}}}"#);
    assert_eq!(frame_of(&unknown), frame_of(r#"{"type":"ping"}"#), "an unknown field is ignored");
    let known = format!(r#"{{"type":"publish","topic":{deep}}}"#);
    assert_eq!(frame_of(&known), Err("topic: has to be a string".to_owned()));
    assert!(frame_of(&deep).is_err());
}

fn message(payload: &[u8]) -> Bytes {
    ringgate_core::wire::Draft::new("chat:a", "alice", payload, None).stamp(ringgate_core::id::Stamp::default())
}

#[test]
fn message_has_many_recipients_then_its_text_is_made_once() {
    let (mut texts, frame, mut out) = (Texts::default(), message(b"hello"), Vec::new());
    texts.append_shared(&frame, &mut out);
    let first = out.clone();
    for _ in 0..1000 {
        out.clear();
        texts.append_shared(&frame.clone(), &mut out);
        assert_eq!(out, first);
    }
    assert_eq!(texts.made, 1);
    // 0x81: the only frame of a text message; then its length.
    assert_eq!(first[..2], [0x81, 126]);
    let text: Value = serde_json::from_slice(&first[4..]).expect("JSON");
    assert_eq!((text["sender"].as_str(), text["payload"].as_str()), (Some("alice"), Some("hello")));
}

#[test]
fn memory_of_a_message_is_used_again_then_its_text_is_not_that_of_the_one_before() {
    let mut texts = Texts::default();
    for number in 0..10_000u32 {
        let (payload, mut out) = (number.to_string(), Vec::new());
        texts.append_shared(&message(payload.as_bytes()), &mut out);
        let start = out.iter().position(|byte| *byte == b'{').expect("an object");
        let text: Value = serde_json::from_slice(&out[start..]).expect("JSON");
        assert_eq!(text["payload"].as_str(), Some(&*payload));
    }
}

#[test]
fn several_answers_go_together_then_each_is_a_message_of_its_own() {
    let (mut frames, mut out) = (Vec::new(), Vec::new());
    Encoder::empty(&mut frames, Kind::Pong);
    Encoder::default().unsubscribed(&mut frames, 3, &"r".repeat(128), 0);
    append_messages(&frames, &mut out);
    let pong = br#"{"type":"pong"}"#;
    assert_eq!(out[..2], [0x81, pong.len() as u8]);
    assert_eq!(&out[2..2 + pong.len()], pong);
    let second = &out[2 + pong.len()..];
    assert_eq!(second[..2], [0x81, 126]);
    assert_eq!(usize::from(u16::from_be_bytes([second[2], second[3]])), second.len() - 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_anything_then_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = append_frame(&bytes, &mut Vec::new());
    }

    #[test]
    fn text_of_a_client_is_damaged_then_a_frame_or_an_error_comes(
        nth in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        with in proptest::sample::select(br#"{}[]",:0-1e.\ntu "#.to_vec()),
        cut in any::<bool>(),
    ) {
        let (_, _, text) = nth.get(&VECTORS);
        let mut text = text.to_string().into_bytes();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = with }
        let mut frame = Vec::new();
        if append_frame(&text, &mut frame).is_ok() {
            let is_whole = matches!(split(&frame, usize::MAX), Ok(Split::Frame(_, [])));
            prop_assert!(is_whole);
        } else {
            prop_assert!(frame.is_empty());
        }
    }
}

//! Every malformed golden vector over real sockets: its close code and then the end, or Error 107, and only for its sender.

use std::path::Path;

use ringgate_core::wire::{Kind, Split, split_of_client};
use serde_json::Value;

use crate::bystanders::Bystanders;
use crate::support::{Client, Frame, Gateway, Login};

pub(crate) struct Vector {
    pub(crate) file: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) verdict: Verdict,
}

/// What becomes of the frame in a session.
pub(crate) enum Verdict {
    /// The session is closed with this code.
    Close(u16),
    /// The request is answered with Error 107, which names this field.
    Error(String),
}

pub(crate) fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/vectors");
    let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
    let Value::Array(entries) = serde_json::from_str(&index).unwrap() else { panic!("an array") };
    let vectors: Vec<Vector> = entries
        .iter()
        .filter(|entry| entry["case"] == "malformed")
        .map(|entry| {
            let file = entry["file"].as_str().unwrap().to_owned();
            let bytes = std::fs::read(folder.join(&file)).unwrap();
            let verdict = match entry["close"].as_u64() {
                Some(close) => Verdict::Close(close as u16),
                None => Verdict::Error(entry["field"].as_str().unwrap().to_owned()),
            };
            Vector { file, bytes, verdict }
        })
        .collect();
    assert!(vectors.len() > 40);
    vectors
}

/// Each on a session of its own; `open` makes the connection.
fn each_closes_its_session(gateway: &Gateway, open: impl Fn(&Gateway) -> Client) {
    let bystanders = Bystanders::start(gateway);
    let (mut closed, mut answered) = ([0, 0], 0);
    for Vector { file, bytes, verdict } in vectors() {
        let mut client = open(gateway);
        client.sign_in(&Login::user("mallory"));
        client.send_bytes(&bytes);
        match verdict {
            Verdict::Close(code) => {
                let goodbye = client.expect_close(code);
                assert!(!goodbye.reconnect && !goodbye.reason.is_empty(), "{file}: {goodbye:?}");
                closed[usize::from(code == 3510)] += 1;
            }
            Verdict::Error(field) => {
                expect_bad_request(&mut client, &field, &file);
                client.ping();
                answered += 1;
            }
        }
    }
    bystanders.finish();
    assert_eq!(gateway.closed(ringgate_core::close::CloseReason::BadRequest), closed[0]);
    assert_eq!(gateway.closed(ringgate_core::close::CloseReason::FrameTooBig), closed[1]);
    assert!(closed[0] > 20 && closed[1] == 1 && answered > 10);
}

pub(crate) fn expect_bad_request(client: &mut Client, field: &str, file: &str) {
    let refusal = client.take("Error 107", |frame| match frame {
        Frame::Refused(refusal) => Some(refusal.clone()),
        _ => None,
    });
    assert_eq!(refusal.code, 107, "{file}");
    assert!(refusal.message.starts_with(&format!("{field}: ")), "{file}: {}", refusal.message);
}

#[test]
fn malformed_frame_after_sign_in_then_its_close_code_or_error() {
    let gateway = Gateway::start();
    each_closes_its_session(&gateway, Gateway::client);
    gateway.finish();
}

#[test]
fn malformed_frame_after_sign_in_over_tls_then_its_close_code_or_error() {
    let gateway = Gateway::start();
    each_closes_its_session(&gateway, Gateway::tls_client);
    gateway.finish();
}

/// As the first frame, and in two pieces that break inside the header.
#[test]
fn malformed_frame_before_sign_in_then_its_close_code() {
    let gateway = Gateway::start();
    for Vector { bytes, verdict, .. } in vectors() {
        let mut client = gateway.client();
        client.send_bytes(&bytes[..5]);
        // Fails when the gateway had enough before the end.
        let _ = client.try_send_bytes(&bytes[5..]);
        // A request is not allowed there, good or bad.
        client.expect_close(if let Verdict::Close(code) = verdict { code } else { 3501 });
    }
    gateway.finish();
}

/// What is right before it is carried out, what comes behind it is not looked at.
#[test]
fn malformed_frame_between_good_ones_then_those_before_it_count() {
    let gateway = Gateway::start();
    let mut bob = gateway.sign_in("bob");
    for Vector { file, bytes, verdict } in vectors() {
        let mut mallory = gateway.sign_in("mallory");
        let mut stream = Vec::new();
        let (before, behind) = (format!("before {file}"), format!("behind {file}"));
        mallory.send(|encoder, _| {
            let publish = |text: &str, out: &mut Vec<u8>, encoder: &mut ringgate_core::wire::Encoder| {
                let payload = text.as_bytes();
                let request = ringgate_core::wire::encode::PublishRequest {
                    request: 9,
                    topic: "@bob",
                    payload,
                    ..Default::default()
                };
                encoder.publish(out, &request);
            };
            publish(&before, &mut stream, encoder);
            stream.extend_from_slice(&bytes);
            publish(&behind, &mut stream, encoder);
        });
        mallory.send_bytes(&stream);
        match verdict {
            Verdict::Close(code) => {
                mallory.expect_close(code);
                assert_eq!(bob.texts(1), [before]);
            }
            Verdict::Error(field) => {
                expect_bad_request(&mut mallory, &field, &file);
                assert_eq!(bob.texts(2), [before, behind], "the session goes on");
            }
        }
    }
    bob.ping();
    assert!(bob.arrived().is_empty(), "something behind a malformed frame was carried out");
    gateway.finish();
}

/// Frames that a client may send, but not then.
#[test]
fn frame_at_the_wrong_time_then_its_close_code() {
    let gateway = Gateway::start();
    for kind in [Kind::Ping, Kind::ClientPong] {
        let mut client = gateway.client();
        client.send_empty(kind);
        assert_eq!(client.expect_close(3501).reason, "a frame before Connect");
    }
    let mut client = gateway.sign_in("alice");
    client.send_connect(&Login::user("alice"));
    assert_eq!(client.expect_close(3501).reason, "a second Connect");
    // Disconnect is allowed before anything else.
    let mut client = gateway.client();
    client.send_empty(Kind::Disconnect);
    client.expect_end();
    gateway.finish();
}

/// The headers alone: refused without waiting for a body that is announced.
#[test]
fn header_is_malformed_then_it_is_refused_before_the_body_comes() {
    let gateway = Gateway::start();
    let limit = ringgate_core::limits::Settings::default().body_bytes_max();
    let over = limit as u32 + 1;
    for (length, kind, flags, reserved, close) in [
        (u32::MAX, 3, 0, 0, 3510),
        (over, 3, 0, 0, 3510),
        (1 << 20, 9, 0, 0, 3510),
        (100, 77, 0, 0, 3501),
        (100, 3, 1, 0, 3501),
        (100, 3, 0, 0x0100, 3501),
        (100, 3, 0, 1, 3501),
        // The length is judged before anything else.
        (u32::MAX, 3, 1, 0, 3510),
        (over, 77, 0, 0, 3510),
        // So is what follows from the kind alone: a length that it cannot have, or that only gateways send it.
        (1, 2, 0, 0, 3501),
        (15, 4, 0, 0, 3501),
        (100, 132, 0, 0, 3501),
    ] {
        let mut header = length.to_le_bytes().to_vec();
        header.extend_from_slice(&[kind, flags]);
        header.extend_from_slice(&u16::to_le_bytes(reserved));
        assert!(split_of_client(&header, limit).is_err());
        let mut client = gateway.sign_in("alice");
        client.send_bytes(&header);
        client.expect_close(close);
    }
    // The limit itself is allowed: the header is waited upon.
    let mut header = (limit as u32).to_le_bytes().to_vec();
    header.extend_from_slice(&[3, 0, 0, 0]);
    assert!(matches!(split_of_client(&header, limit), Ok(Split::Incomplete(_))));
    let mut client = gateway.sign_in("alice");
    client.send_bytes(&header);
    client.send_bytes(&vec![0xff; limit - 1]);
    client.send_bytes(&[0xff]);
    client.expect_close(3501);
    gateway.finish();
}

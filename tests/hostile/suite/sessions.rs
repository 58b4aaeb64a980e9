//! Signing in: bad tokens, storms, takeovers, too many devices, names of every kind; tokens that are refreshed without end.

use jsonwebtoken::{Algorithm, EncodingKey};
use ringgate_auth::{DEV_KID, DEV_SECRET, Signer, TokenSpec};
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};
use ringgate_core::wire::{Encoder, Kind};
use serde_json::json;

use super::scene::{End, Scene};
use super::{Case, case};
use crate::support::{Client, Frame, Login, claims_token, connect_frame, dev_token, unix_seconds};

/// Names of 128 bytes or a little less, of many scripts.
fn names() -> Vec<String> {
    let pieces = [
        "a",
        "é",
        "ß",
        "Ж",
        "λ",
        "א",
        "ع",
        "अ",
        "ก",
        "한",
        "漢",
        "あ",
        "ა",
        "Ꭰ",
        "𐍈",
        "𝔘",
        "🦀",
        "👩‍👩‍👧",
        "e\u{301}",
        "\u{202e}x",
        "\u{200d}x",
        "x\u{fe0f}",
        "#",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{e000}",
        "/../",
        "%00",
        "'\"",
        "<b>",
        "\\",
    ];
    pieces.iter().map(|piece| piece.repeat(128 / piece.len())).collect()
}

/// Names that nobody could see, or that are none.
const UNSEEN: [&str; 8] =
    ["\u{200b}", "\u{2800}", "\u{200d}\u{200c}", "\u{3164}", "\u{ad}", "\u{e0100}", "\u{2060}\u{feff}", " "];

fn signed(claims: &serde_json::Value) -> String {
    claims_token(Algorithm::HS256, Some(DEV_KID), &EncodingKey::from_secret(DEV_SECRET.as_bytes()), claims)
}

/// Tokens that are no good for a user, and the code that says so.
fn bad_tokens(user: &str) -> Vec<(String, u16)> {
    let good = dev_token(user);
    let parts: Vec<_> = good.split('.').collect();
    let later = unix_seconds() + 3600;
    let other = EncodingKey::from_secret(b"another secret that is long enough for HS256");
    vec![
        ("x".to_owned(), 3500),
        ("..".to_owned(), 3500),
        ("a.b.c".to_owned(), 3500),
        ("\u{1f980}.\u{1f980}.\u{1f980}".to_owned(), 3500),
        ("A".repeat(8192), 3500),
        (good[..good.len() - 1].to_owned(), 3500),
        (format!("{good}A"), 3500),
        (format!("{}.{}.", parts[0], parts[1]), 3500),
        (format!("eyJhbGciOiJub25lIn0.{}.", parts[1]), 3500),
        (format!("{}.{}.{}", parts[0], parts[0], parts[2]), 3500),
        (signed(&json!({ "sub": user, "exp": 1 })), 3005),
        (signed(&json!({ "sub": user, "exp": later, "nbf": later })), 3017),
        (signed(&json!({ "sub": user })), 3500),
        (signed(&json!({ "exp": later })), 3500),
        (signed(&json!({ "sub": "", "exp": later })), 3500),
        (signed(&json!({ "sub": "x".repeat(129), "exp": later })), 3500),
        (signed(&json!({ "sub": 7, "exp": later })), 3500),
        (signed(&json!({ "sub": user, "exp": "never" })), 3500),
        (signed(&json!({ "sub": user, "exp": later, "device": "another" })), 3500),
        (claims_token(Algorithm::HS256, Some(DEV_KID), &other, &json!({ "sub": user, "exp": later })), 3500),
        (claims_token(Algorithm::HS256, Some("nobody's"), &other, &json!({ "sub": user, "exp": later })), 3500),
        (claims_token(Algorithm::HS512, Some(DEV_KID), &other, &json!({ "sub": user, "exp": later })), 3500),
    ]
}

fn patterns(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("closed:{number:0>3}-{}", "*".repeat(60))).collect()
}

fn token_with_patterns(user: &str, rooms: Vec<String>) -> String {
    let spec =
        TokenSpec { user: user.into(), issued_at: unix_seconds(), ttl_seconds: 3600, rooms, ..TokenSpec::default() };
    Signer::dev().sign(&spec).unwrap()
}

fn refused(scene: &Scene<'_>, login: &Login, code: u16) {
    let goodbye = scene.client().try_sign_in(login).expect_err("a refused sign-in");
    assert_eq!(goodbye.code, code, "{goodbye:?}, of {login:?}");
}

/// Refreshes until the gateway has answered all of them.
fn refresh(client: &mut Client, token: &str, times: usize) -> Vec<Frame> {
    let requests: Vec<u32> =
        (0..times).map(|_| client.send_request(|encoder, out, request| encoder.refresh(out, request, token))).collect();
    requests.into_iter().map(|request| client.answer(request)).collect()
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("tokens_of_every_bad_kind", |scene| {
            for (token, code) in bad_tokens(&scene.user) {
                refused(scene, &Login::token(token), code);
            }
        }),
        case("a_storm_of_bad_tokens_that_nobody_waits_for", |scene| {
            for (round, end) in End::ALL.into_iter().enumerate() {
                for (token, _) in bad_tokens(&scene.user).into_iter().skip(round) {
                    let mut client = scene.client();
                    client.send_connect(&Login::token(token));
                    end.of_client(client, false);
                }
            }
        }),
        case("a_storm_of_sign_ins_that_nobody_waits_for", |scene| {
            for end in End::ALL {
                for _ in 0..12 {
                    let mut client = scene.client();
                    client.send_bytes(&connect_frame(&scene.user));
                    end.of_client(client, false);
                }
            }
        }),
        case("many_connections_before_any_signs_in", |scene| {
            let mut clients: Vec<_> = (0..40).map(|_| scene.client()).collect();
            for (number, client) in clients.iter_mut().enumerate() {
                client.send_connect(&Login::user(&scene.user).device(&format!("d{}", number % 8)));
            }
        }),
        case("a_version_that_is_not_spoken", |scene| {
            for version in [2, 3, 255, u16::MAX] {
                refused(scene, &Login { version, ..Login::user(&scene.user) }, 3506);
            }
        }),
        case("one_device_takes_itself_over", |scene| {
            let mut last = scene.sign_in("d");
            for _ in 0..20 {
                let next = scene.sign_in("d");
                last.expect_close(4500);
                last = next;
            }
        }),
        case("takeovers_in_a_room_that_announces", |scene| {
            let login = Login::user(&scene.user).room(&scene.room("loud"), None);
            let clients: Vec<_> = (0..20).map(|_| scene.sign_in_as(&login)).collect();
            drop(clients);
        }),
        case("takeovers_that_nobody_reads", |scene| {
            let mut clients: Vec<_> = (0..30).map(|_| scene.client()).collect();
            for client in &mut clients {
                client.send_bytes(&connect_frame(&scene.user));
            }
        }),
        case("more_devices_than_may_be_connected", |scene| {
            let mut inside: Vec<_> = (0..16).map(|number| scene.sign_in(&format!("d{number}"))).collect();
            for number in 16..30 {
                refused(scene, &Login::user(&scene.user).device(&format!("d{number}")), 3504);
            }
            inside.iter_mut().for_each(Client::ping);
        }),
        case("more_devices_than_are_known", |scene| {
            for number in 0..50 {
                let mut client = scene.sign_in(&format!("d{number}"));
                client.publish(&scene.inbox(), "for all of them");
            }
        }),
        case("devices_with_names_of_every_script", |scene| {
            for name in names() {
                let connected = scene.client().sign_in(&Login::user(&scene.user).device(&name));
                assert_eq!(connected.user, scene.user);
            }
        }),
        case("users_with_names_of_every_script", |scene| {
            for name in names() {
                let mut client = scene.sign_in_as(&Login::user(&name));
                assert_eq!(client.connected().user, name);
                client.publish(&format!("@{name}"), &name);
                assert_eq!(client.message().text(), name);
            }
        }),
        case("devices_that_nobody_can_see", |scene| {
            for name in UNSEEN {
                refused(scene, &Login::user(&scene.user).device(name), 3501);
            }
        }),
        case("users_that_nobody_can_see", |scene| {
            for name in UNSEEN {
                refused(scene, &Login::user(name), 3500);
            }
        }),
        case("tokens_with_64_patterns", |scene| {
            for number in 0..12 {
                let token = token_with_patterns(&scene.user, patterns(64));
                let mut client = scene.sign_in_as(&Login::token(token).device(&format!("d{number}")));
                client.subscribe(&format!("closed:063-{number}"));
                assert_eq!(client.try_subscribe("closed:064-x", None).unwrap_err().code, 103);
            }
        }),
        case("tokens_with_patterns_of_their_own", |scene| {
            for number in 0..40 {
                let token = token_with_patterns(&scene.user, vec![format!("closed:{number}*")]);
                let mut client = scene.sign_in_as(&Login::token(token));
                client.subscribe(&format!("closed:{number}-x"));
            }
        }),
        case("tokens_with_65_patterns", |scene| {
            refused(scene, &Login::token(token_with_patterns(&scene.user, patterns(65))), 3500);
        }),
        case("inbox_positions_that_never_were", |scene| {
            for (epoch, offset) in [(0, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX, 0), (1, 1)] {
                let connected = scene
                    .client()
                    .sign_in(&Login::user(&scene.user).resume(ringgate_core::id::Position { epoch, offset }));
                assert!(!connected.inbox_recovered);
            }
        }),
        case("intervals_and_windows_of_every_size", |scene| {
            for (ping_interval_ms, receive_window) in [(1, 1), (u32::MAX, u32::MAX), (1, 0), (0, 1)] {
                let mut bytes = Vec::new();
                let token = dev_token(&scene.user);
                let fields = ConnectRequest {
                    request: 1,
                    token: &token,
                    ping_interval_ms,
                    receive_window,
                    ..ConnectRequest::default()
                };
                Encoder::default().connect(&mut bytes, &fields);
                let topic = scene.inbox();
                let mut encoder = Encoder::default();
                for request in 2..12 {
                    encoder.publish(&mut bytes, &PublishRequest { request, topic: &topic, ..Default::default() });
                }
                let mut client = scene.client();
                client.send_bytes(&bytes);
                for request in 2..12 {
                    client.published(request).unwrap();
                }
            }
        }),
        case("a_flood_of_refreshes_with_bad_tokens", |scene| {
            let mut client = scene.sign_in("d");
            for answer in refresh(&mut client, "a.b.c", 200) {
                assert!(matches!(&answer, Frame::Refused(refusal) if refusal.code == 400), "{answer:?}");
            }
        }),
        case("a_flood_of_refreshes_with_good_tokens", |scene| {
            let mut client = scene.sign_in("default");
            for answer in refresh(&mut client, &dev_token(&scene.user), 200) {
                assert!(matches!(answer, Frame::Refreshed { .. }), "{answer:?}");
            }
        }),
        case("refreshes_with_tokens_of_every_bad_kind", |scene| {
            let mut client = scene.sign_in("d");
            for (token, _) in bad_tokens(&scene.user) {
                assert!(client.try_refresh(&token).is_err());
            }
            client.ping();
        }),
        case("refreshes_that_nobody_waits_for", |scene| {
            for end in End::ALL {
                for _ in 0..4 {
                    let mut client = scene.sign_in("d");
                    let (token, mut bytes) = (dev_token(&scene.user), Vec::new());
                    let mut encoder = Encoder::default();
                    (1..100).for_each(|request| encoder.refresh(&mut bytes, request, &token));
                    client.send_bytes(&bytes);
                    end.of_client(client, false);
                }
            }
        }),
        case("refresh_with_the_token_of_another_user", |scene| {
            let mut client = scene.sign_in("d");
            assert_eq!(client.try_refresh(&dev_token("somebody-else")).unwrap_err().code, 400);
        }),
        case("a_refresh_takes_rooms_away", |scene| {
            let login = Login::token(token_with_patterns(&scene.user, patterns(1)));
            let mut client = scene.sign_in_as(&login.room("closed:000-x", None));
            client.try_refresh(&dev_token(&scene.user)).unwrap();
            client.take("Unsubscribed", |frame| {
                matches!(frame, Frame::Unsubscribed { request: 0, code: 103, .. }).then_some(())
            });
        }),
        case("disconnect_behind_a_refresh", |scene| {
            for _ in 0..8 {
                let mut client = scene.sign_in("d");
                client.send_request(|encoder, out, request| encoder.refresh(out, request, "a.b.c"));
                client.send_empty(Kind::Disconnect);
                client.rest();
            }
        }),
    ]
}

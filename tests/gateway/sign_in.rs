//! Signing in: every algorithm from key files, rotation, what is refused and how, and the end of a token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use ringgate_core::close::{AuthError, CloseReason};
use serde_json::json;

use crate::support::{Gateway, LISTENERS, Login, TempFolder, claims_token, unix_seconds};

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A gateway whose only key is [`SECRET`], without leeway, with further lines in `[token]`.
fn gateway_with_secret(token_lines: &str) -> Gateway {
    let key = format!("[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n");
    Gateway::toml(&format!("{LISTENERS}[token]\nleeway = \"0s\"\n{token_lines}\n{key}"))
}

fn secret_token(claims: &serde_json::Value) -> String {
    claims_token(Algorithm::HS256, None, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

/// A token of alice that ends so many seconds from now.
fn alice_until(seconds: u64) -> String {
    secret_token(&json!({ "sub": "alice", "exp": unix_seconds() + seconds }))
}

fn key_pair(algorithm: Algorithm) -> rcgen::KeyPair {
    let kind = match algorithm {
        Algorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
        Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        _ => &rcgen::PKCS_ED25519,
    };
    rcgen::KeyPair::generate_for(kind).unwrap()
}

fn private_key(algorithm: Algorithm, pair: &rcgen::KeyPair) -> EncodingKey {
    let pem = pair.serialize_pem();
    match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
        _ => EncodingKey::from_ed_pem(pem.as_bytes()),
    }
    .unwrap()
}

#[test]
fn leeway_then_a_token_that_ended_signs_in_until_it_is_over() {
    let key = format!("[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n");
    let gateway = Gateway::toml(&format!("{LISTENERS}[token]\nleeway = \"1h\"\n{key}"));
    let now = unix_seconds();
    let alice = |claims: serde_json::Value| Login::token(secret_token(&claims));
    let connected = gateway.client().sign_in(&alice(json!({ "sub": "alice", "exp": now - 60 })));
    assert_eq!(connected.expires_at, now - 60 + 3600);
    assert_eq!(gateway.refused_sign_in(&alice(json!({ "sub": "alice", "exp": now - 3600 }))), 3005);
    // Leeway also counts for a token that begins later.
    let begins = |nbf: u64| alice(json!({ "sub": "alice", "exp": now + 9000, "nbf": nbf }));
    gateway.client().sign_in(&begins(now + 3600));
    assert_eq!(gateway.refused_sign_in(&begins(now + 7200)), 3017);
    gateway.finish();
}

#[test]
fn keys_of_every_algorithm_are_in_files_then_tokens_are_accepted() {
    let folder = TempFolder::new();
    let mut toml = LISTENERS.to_owned();
    let mut tokens = Vec::new();
    let claims = json!({ "sub": "alice", "exp": unix_seconds() + 3600 });
    for (name, algorithm) in [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)] {
        let secret = format!("{SECRET}-{name}");
        // The line break that an editor leaves is no part of the secret.
        let path = folder.write(name, format!("{secret}\n"));
        let keys = format!("kid = \"{name}\"\nalgorithm = \"{name}\"\nsecret_file = \"{}\"\n", path.display());
        toml += &format!("[[token.keys]]\n{keys}");
        tokens.push(claims_token(algorithm, Some(name), &EncodingKey::from_secret(secret.as_bytes()), &claims));
    }
    for (name, algorithm) in [("RS256", Algorithm::RS256), ("ES256", Algorithm::ES256), ("EdDSA", Algorithm::EdDSA)] {
        let pair = key_pair(algorithm);
        let path = folder.write(name, pair.public_key_pem());
        let keys = format!("kid = \"{name}\"\nalgorithm = \"{name}\"\npublic_key_file = \"{}\"\n", path.display());
        toml += &format!("[[token.keys]]\n{keys}");
        tokens.push(claims_token(algorithm, Some(name), &private_key(algorithm, &pair), &claims));
    }
    let gateway = Gateway::toml(&toml);
    for token in &tokens {
        let connected = gateway.client().sign_in(&Login::token(token));
        assert_eq!((connected.user.as_str(), connected.version), ("alice", 1));
    }
    assert_eq!(gateway.sum(|m| &m.auth_succeeded), 6);
    // One bit of the signature changed.
    for token in &tokens {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        signature[0] ^= 1;
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert_eq!(gateway.refused_sign_in(&Login::token(forged)), 3500);
    }
    assert_eq!(gateway.sum_all(|m| &m.auth_failed), 6);
    gateway.finish();
}

#[test]
fn old_key_is_still_listed_then_its_tokens_are_accepted() {
    let key =
        |kid: &str| format!("[[token.keys]]\nkid = \"{kid}\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}{kid}\"\n");
    let sign = |kid: &str| {
        let secret = EncodingKey::from_secret(format!("{SECRET}{kid}").as_bytes());
        claims_token(Algorithm::HS256, Some(kid), &secret, &json!({ "sub": "alice", "exp": unix_seconds() + 3600 }))
    };
    let both = Gateway::toml(&format!("{LISTENERS}{}{}", key("new"), key("old")));
    for kid in ["new", "old"] {
        both.sign_in_with(&Login::token(sign(kid)));
    }
    both.finish();
    let after = Gateway::toml(&format!("{LISTENERS}{}", key("new")));
    after.sign_in_with(&Login::token(sign("new")));
    assert_eq!(after.refused_sign_in(&Login::token(sign("old"))), 3500);
    after.finish();
}

#[test]
fn claim_does_not_fit_then_the_token_is_refused() {
    let gateway = gateway_with_secret("audience = [\"ringgate\", \"chat\"]\nissuer = \"https://id.example.org\"");
    let now = unix_seconds();
    let good = json!({ "sub": "alice", "exp": now + 3600, "aud": "chat", "iss": "https://id.example.org" });
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        Login::token(secret_token(&claims))
    };
    gateway.sign_in_with(&Login::token(secret_token(&good)));
    gateway.sign_in_with(&with("aud", json!(["else", "ringgate"])));
    gateway.sign_in_with(&with("nbf", json!(now - 10)));
    assert_eq!(gateway.refused_sign_in(&with("exp", json!(now - 1))), 3005);
    assert_eq!(gateway.refused_sign_in(&with("nbf", json!(now + 3600))), 3017);
    for (name, value) in [
        ("aud", json!("else")),
        ("aud", json!([])),
        ("aud", json!(null)),
        ("iss", json!("https://id.example.com")),
        ("iss", json!(null)),
        ("exp", json!(null)),
        ("sub", json!("")),
        ("sub", json!("@alice")),
        ("sub", json!("a b")),
        ("sub", json!(7)),
        ("rooms", json!({ "write": ["chat:*"] })),
    ] {
        assert_eq!(gateway.refused_sign_in(&with(name, value.clone())), 3500, "{name} = {value}");
    }
    let failed = AuthError::ALL.iter().map(|error| (error.label(), gateway.sum(|m| &m.auth_failed[*error])));
    let failed: Vec<_> = failed.filter(|(_, count)| *count > 0).collect();
    assert_eq!(failed, [("expired", 1), ("not_yet_valid", 1), ("audience", 3), ("issuer", 2), ("claims", 6)]);
    gateway.finish();
}

#[test]
fn token_is_forged_or_garbage_then_it_is_refused() {
    let folder = TempFolder::new();
    let public = key_pair(Algorithm::RS256).public_key_pem();
    let path = folder.write("rsa.pem", &public);
    let gateway = Gateway::toml(&format!(
        "{LISTENERS}[[token.keys]]\nkid = \"rsa\"\nalgorithm = \"RS256\"\npublic_key_file = \"{}\"\n\
         [[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n",
        path.display()
    ));
    let claims = json!({ "sub": "alice", "exp": unix_seconds() + 3600 });
    let body = URL_SAFE_NO_PAD.encode(claims.to_string());
    let unsigned = |alg: &str| format!("{}.{body}.", URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string()));
    // The public key is public: as a secret it must open nothing.
    let confused = claims_token(Algorithm::HS256, Some("rsa"), &EncodingKey::from_secret(public.as_bytes()), &claims);
    let other_kid = claims_token(Algorithm::HS256, Some("x"), &EncodingKey::from_secret(SECRET.as_bytes()), &claims);
    let other_secret = claims_token(Algorithm::HS256, None, &EncodingKey::from_secret(b"other"), &claims);
    let other_alg = claims_token(Algorithm::HS512, None, &EncodingKey::from_secret(SECRET.as_bytes()), &claims);
    for forged in [
        unsigned("none"),
        unsigned("None"),
        unsigned("HS256"),
        confused,
        other_kid,
        other_secret,
        other_alg,
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        "..".to_owned(),
        "\u{1f512}".to_owned(),
    ] {
        assert_eq!(gateway.refused_sign_in(&Login::token(forged.clone())), 3500, "{forged}");
    }
    assert_eq!(gateway.sum(|m| &m.auth_succeeded), 0);
    gateway.finish();
}

#[test]
fn token_is_longer_than_8192_bytes_then_it_is_refused() {
    let gateway = gateway_with_secret("");
    let longest = (6000..6200)
        .map(|pad| secret_token(&json!({ "sub": "alice", "exp": unix_seconds() + 3600, "pad": "x".repeat(pad) })))
        .find(|token| token.len() == 8192)
        .unwrap();
    gateway.sign_in_with(&Login::token(longest));
    assert_eq!(gateway.refused_sign_in(&Login::token("x".repeat(8192))), 3500);
    assert_eq!(gateway.refused_sign_in(&Login::token("x".repeat(8193))), 3501);
    assert_eq!(gateway.refused_sign_in(&Login::token("")), 3501);
    gateway.finish();
}

#[test]
fn token_that_is_not_valid_yet_then_the_client_may_come_back() {
    let gateway = gateway_with_secret("");
    let (now, mut client) = (unix_seconds(), gateway.client());
    let token = secret_token(&json!({ "sub": "alice", "exp": now + 9000, "nbf": now as f64 + 3600.5 }));
    let goodbye = client.try_sign_in(&Login::token(token)).unwrap_err();
    assert_eq!((goodbye.code, goodbye.reason.as_str(), goodbye.reconnect), (3017, "token not yet valid", true));
    gateway.finish();
}

#[test]
fn dates_with_a_fraction_then_the_session_ends_in_time() {
    let gateway = gateway_with_secret("");
    let ends = unix_seconds() + 4;
    let claims = json!({ "sub": "alice", "exp": ends as f64 + 0.5, "nbf": 1.7e9, "iat": 1_700_000_000.25 });
    let mut alice = gateway.sign_in_with(&Login::token(secret_token(&claims)));
    assert_eq!(alice.connected().expires_at, ends);
    alice.expect_close(3005);
    assert!(unix_seconds() >= ends, "not before its time");
    gateway.finish();
}

#[test]
fn token_that_ends_beyond_2106_then_connected_and_refreshed_say_when_the_session_does() {
    let gateway = gateway_with_secret("");
    let last = u64::from(u32::MAX);
    for exp in [last + 1, u64::MAX] {
        let token = secret_token(&json!({ "sub": "alice", "exp": exp }));
        let mut alice = gateway.sign_in_with(&Login::token(&token));
        assert_eq!((alice.connected().expires_at, alice.try_refresh(&token)), (last, Ok(last)), "{exp}");
    }
    gateway.finish();
}

#[test]
fn token_refused_then_metrics_have_the_cause_and_the_client_has_not() {
    let gateway = gateway_with_secret("audience = [\"im\"]");
    let end = unix_seconds() + 3600;
    let unknown = claims_token(
        Algorithm::HS256,
        Some("unknown"),
        &EncodingKey::from_secret(SECRET.as_bytes()),
        &json!({ "sub": "alice", "exp": end, "aud": "im" }),
    );
    let bound = secret_token(&json!({ "sub": "alice", "exp": end, "aud": "im", "device": "phone" }));
    let elsewhere = secret_token(&json!({ "sub": "alice", "exp": end, "aud": "mail" }));
    for (token, cause) in [(unknown, "unknown_key"), (bound, "claims"), (elsewhere, "audience")] {
        let goodbye = gateway.client().try_sign_in(&Login::token(token)).unwrap_err();
        assert_eq!((goodbye.code, goodbye.reason.as_str()), (3500, "invalid token"), "{cause}");
        let metrics = crate::support::http(gateway.admin(), "GET", "/metrics");
        let sample = format!("ringgate_auth_total{{status=\"failed\",failure=\"{cause}\"}}");
        assert_eq!(metrics.sample(&sample), 1.0, "{cause}");
    }
    assert_eq!(gateway.sum(|m| &m.auth_succeeded), 0);
    gateway.finish();
}

#[test]
fn token_has_a_device_then_other_devices_are_refused() {
    let gateway = gateway_with_secret("");
    let claims = json!({ "sub": "alice", "exp": unix_seconds() + 3600, "device": "phone" });
    let login = Login::token(secret_token(&claims));
    gateway.sign_in_with(&login.clone().device("phone"));
    assert_eq!(gateway.refused_sign_in(&login.clone().device("tablet")), 3500);
    assert_eq!(gateway.refused_sign_in(&login), 3500, "no device means `default`");
    gateway.finish();
}

#[test]
fn version_is_not_1_then_refused() {
    let gateway = gateway_with_secret("");
    let login = Login { version: 2, ..Login::token(alice_until(3600)) };
    assert_eq!(gateway.refused_sign_in(&login), 3506);
    assert_eq!(gateway.closed(CloseReason::InappropriateProtocol), 1);
    gateway.finish();
}

#[test]
fn token_expires_then_the_session_ends_unless_refreshed() {
    let gateway = gateway_with_secret("");
    let ends = unix_seconds() + 10;
    let login =
        |device: &str, exp: u64| Login::token(secret_token(&json!({ "sub": "alice", "exp": exp }))).device(device);
    let mut forgetful = gateway.sign_in_with(&login("forgetful", ends));
    assert_eq!(forgetful.connected().expires_at, ends);
    let mut later = gateway.sign_in_with(&login("later", ends + 2));
    let mut careful = gateway.sign_in_with(&login("careful", ends));
    let new_end = ends + 3600;
    let newer = secret_token(&json!({ "sub": "alice", "exp": new_end }));
    assert_eq!(careful.try_refresh(&newer), Ok(new_end));
    let goodbye = forgetful.expect_close(3005);
    assert_eq!((goodbye.reason.as_str(), goodbye.reconnect), ("expired", true));
    assert!(unix_seconds() >= ends, "not before its time");
    // Two seconds after its first token has ended the careful one is still there.
    later.expect_close(3005);
    careful.ping();
    assert_eq!(gateway.closed(CloseReason::Expired), 2);
    gateway.finish();
}

#[test]
fn refresh_is_refused_then_nothing_changes() {
    let gateway = gateway_with_secret("");
    let ends = unix_seconds() + 10;
    let mut alice = gateway.sign_in_with(&Login::token(secret_token(&json!({ "sub": "alice", "exp": ends }))));
    let bobs = secret_token(&json!({ "sub": "bob", "exp": ends + 3600 }));
    let ended = secret_token(&json!({ "sub": "alice", "exp": ends - 3600 }));
    let not_yet = secret_token(&json!({ "sub": "alice", "exp": ends + 3600, "nbf": ends + 1800 }));
    for (token, code, text) in [
        (bobs, 400, "invalid token"),
        (ended, 109, "token expired"),
        (not_yet, 404, "token not yet valid"),
        ("garbage".to_owned(), 400, "invalid token"),
    ] {
        let refusal = alice.try_refresh(&token).unwrap_err();
        // Only what is a matter of time is worth another try.
        let temporary = code == 404;
        assert_eq!((refusal.code, refusal.message.as_str()), (code, text));
        assert_eq!((refusal.temporary, refusal.retry_after_ms > 0), (temporary, temporary));
    }
    alice.expect_close(3005);
    assert!(unix_seconds() >= ends, "not before its time");
    gateway.finish();
}

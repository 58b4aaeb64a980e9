//! Every algorithm, rotation, and every forgery that is worth a name.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn spec(user: &str) -> TokenSpec {
    TokenSpec { user: user.into(), issued_at: NOW, ttl_seconds: 3600, ..TokenSpec::default() }
}

fn keys(list: Vec<Key>) -> Keys {
    Keys::new(list, Claims { require_exp: true, ..Claims::default() })
}

fn pair(algorithm: Algorithm) -> (Signer, Key) {
    let kind = match algorithm {
        Algorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
        Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        _ => &rcgen::PKCS_ED25519,
    };
    let pair = rcgen::KeyPair::generate_for(kind).unwrap();
    let signer = Signer::from_key(pair.serialize_pem().as_bytes(), Some(algorithm), Some("k")).unwrap();
    let public = Key::public(Some("k".into()), algorithm, pair.public_key_pem().as_bytes()).unwrap();
    (signer, public)
}

#[test]
fn every_algorithm_signs_and_verifies() {
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let signer = Signer::from_key(SECRET, Some(algorithm), None).unwrap();
        let keys = keys(vec![Key::secret(None, algorithm, SECRET).unwrap()]);
        assert_eq!(keys.verify(&signer.sign(&spec("alice")).unwrap(), NOW).unwrap().user, "alice");
    }
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let (signer, key) = pair(algorithm);
        let grant = keys(vec![key]).verify(&signer.sign(&spec("bob")).unwrap(), NOW).unwrap();
        assert_eq!((grant.user.as_str(), grant.expires_at), ("bob", NOW + 3600), "{algorithm:?}");
    }
}

#[test]
fn the_old_key_is_accepted_during_a_rotation_and_not_after() {
    let old = Signer::from_key(b"old-old-old-old-old-old-old-old-old", None, Some("2025")).unwrap();
    let new = Signer::from_key(b"new-new-new-new-new-new-new-new-new", None, Some("2026")).unwrap();
    let key = |kid: &str, secret: &[u8]| Key::secret(Some(kid.into()), Algorithm::HS256, secret).unwrap();
    let both = keys(vec![
        key("2026", b"new-new-new-new-new-new-new-new-new"),
        key("2025", b"old-old-old-old-old-old-old-old-old"),
    ]);
    let (old, new) = (old.sign(&spec("a")).unwrap(), new.sign(&spec("a")).unwrap());
    assert!(both.verify(&old, NOW).is_ok());
    assert!(both.verify(&new, NOW).is_ok());
    let after = keys(vec![key("2026", b"new-new-new-new-new-new-new-new-new")]);
    assert_eq!(after.verify(&old, NOW), Err(AuthError::Invalid));
}

#[test]
fn algorithms_are_pinned_to_keys() {
    let (_, public) = pair(Algorithm::RS256);
    let keys_rs = keys(vec![public]);
    // A public key used as an HMAC secret, under the same kid.
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().public_key_pem();
    let confused = jsonwebtoken::encode(
        &jsonwebtoken::Header { kid: Some("k".into()), ..jsonwebtoken::Header::new(Algorithm::HS256) },
        &serde_json::json!({"sub": "eve", "exp": NOW + 60}),
        &jsonwebtoken::EncodingKey::from_secret(pem.as_bytes()),
    )
    .unwrap();
    assert_eq!(keys_rs.verify(&confused, NOW), Err(AuthError::Invalid));
    // alg: none, with and without a signature.
    let body = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"eve","exp":{}}}"#, NOW + 60));
    for header in [r#"{"alg":"none","kid":"k"}"#, r#"{"alg":"None"}"#, r#"{"typ":"JWT"}"#] {
        let header = URL_SAFE_NO_PAD.encode(header);
        for token in [format!("{header}.{body}."), format!("{header}.{body}.AAAA")] {
            assert_eq!(keys_rs.verify(&token, NOW), Err(AuthError::Invalid));
        }
    }
    // Extensions that a reader must understand, under a good signature (RFC 7515, 4.1.11).
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#);
    let signed = jsonwebtoken::crypto::sign(
        format!("{header}.{body}").as_bytes(),
        &jsonwebtoken::EncodingKey::from_secret(SECRET),
        Algorithm::HS256,
    );
    let keys_crit = keys(vec![Key::secret(None, Algorithm::HS256, SECRET).unwrap()]);
    assert_eq!(keys_crit.verify(&format!("{header}.{body}.{}", signed.unwrap()), NOW), Err(AuthError::Invalid));
    // The right key, another algorithm of its family.
    let hs512 = Signer::from_key(SECRET, Some(Algorithm::HS512), None).unwrap().sign(&spec("eve")).unwrap();
    let keys_hs = keys(vec![Key::secret(None, Algorithm::HS256, SECRET).unwrap()]);
    assert_eq!(keys_hs.verify(&hs512, NOW), Err(AuthError::Invalid));
}

#[test]
fn claims_are_judged() {
    let raw = |claims: Claims, body: serde_json::Value| {
        let token = jsonwebtoken::encode(
            &jsonwebtoken::Header::new(Algorithm::HS256),
            &body,
            &jsonwebtoken::EncodingKey::from_secret(SECRET),
        )
        .unwrap();
        Keys::new(vec![Key::secret(None, Algorithm::HS256, SECRET).unwrap()], claims).verify(&token, NOW)
    };
    let strict = Claims { require_exp: true, ..Claims::default() };
    let lenient = Claims { leeway_seconds: 30, ..strict.clone() };
    let ours = Claims { audience: vec!["im".into()], issuer: Some("idp".into()), ..strict.clone() };
    let json = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap();
    for (claims, body, wanted) in [
        (&strict, format!(r#"{{"sub":"a","exp":{NOW}}}"#), Err(AuthError::Expired)),
        (&lenient, format!(r#"{{"sub":"a","exp":{}}}"#, NOW - 29), Ok(())),
        (&lenient, format!(r#"{{"sub":"a","exp":{}}}"#, NOW - 30), Err(AuthError::Expired)),
        (&strict, r#"{"sub":"a"}"#.into(), Err(AuthError::Invalid)),
        (&Claims::default(), r#"{"sub":"a"}"#.into(), Ok(())),
        (&strict, format!(r#"{{"sub":"a","exp":{},"nbf":{}}}"#, NOW + 9, NOW + 1), Err(AuthError::NotYetValid)),
        (&lenient, format!(r#"{{"sub":"a","exp":{},"nbf":{}}}"#, NOW + 9, NOW + 30), Ok(())),
        (&ours, format!(r#"{{"sub":"a","exp":{},"aud":"im","iss":"idp"}}"#, NOW + 9), Ok(())),
        (&ours, format!(r#"{{"sub":"a","exp":{},"aud":["x","im"],"iss":"idp"}}"#, NOW + 9), Ok(())),
        (&ours, format!(r#"{{"sub":"a","exp":{},"aud":"x","iss":"idp"}}"#, NOW + 9), Err(AuthError::Invalid)),
        (&ours, format!(r#"{{"sub":"a","exp":{},"aud":"im","iss":"evil"}}"#, NOW + 9), Err(AuthError::Invalid)),
        (&ours, format!(r#"{{"sub":"a","exp":{}}}"#, NOW + 9), Err(AuthError::Invalid)),
        (&strict, format!(r#"{{"sub":"","exp":{}}}"#, NOW + 9), Err(AuthError::Invalid)),
        (&strict, format!(r#"{{"sub":"@a","exp":{}}}"#, NOW + 9), Err(AuthError::Invalid)),
        (&strict, format!(r#"{{"sub":"a b","exp":{}}}"#, NOW + 9), Err(AuthError::Invalid)),
        (&strict, format!(r#"{{"sub":"a","exp":{},"rooms":{{"fly":["*"]}}}}"#, NOW + 9), Err(AuthError::Invalid)),
        (&strict, r#"{"sub":"a","exp":"soon"}"#.to_owned(), Err(AuthError::Invalid)),
    ] {
        assert_eq!(raw(claims.clone(), json(&body)).map(|_| ()), wanted, "{body}");
    }
}

#[test]
fn equal_room_claims_are_shared() {
    let signer = Signer::from_key(SECRET, None, None).unwrap();
    let keys = keys(vec![Key::secret(None, Algorithm::HS256, SECRET).unwrap()]);
    let with_rooms = |user: &str| {
        let token = signer.sign(&TokenSpec { rooms: vec!["chat:*".into()], ..spec(user) }).unwrap();
        keys.verify(&token, NOW).unwrap().rooms.unwrap()
    };
    assert!(Arc::ptr_eq(&with_rooms("a"), &with_rooms("b")));
}

#[test]
fn mutated_and_huge_tokens_are_refused_quietly() {
    let signer = Signer::from_key(SECRET, None, None).unwrap();
    let keys = keys(vec![Key::secret(None, Algorithm::HS256, SECRET).unwrap()]);
    let token = signer.sign(&spec("alice")).unwrap();
    for index in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let mutated = String::from_utf8(bytes).unwrap();
        // The last characters of a base64 group may carry bits that mean nothing.
        if let Ok(grant) = keys.verify(&mutated, NOW) {
            assert_eq!(grant.user, "alice");
        }
    }
    assert_eq!(keys.verify(&"x".repeat(TOKEN_BYTES_MAX + 1), NOW), Err(AuthError::Invalid));
    for text in ["", ".", "..", "a.b.c", "é.é.é"] {
        assert_eq!(keys.verify(text, NOW), Err(AuthError::Invalid));
    }
}

#[test]
fn weak_and_wrong_keys_are_refused_with_a_reason() {
    assert!(Key::secret(None, Algorithm::HS256, b"short").err().unwrap().contains("at least 32"));
    assert!(Key::secret(None, Algorithm::RS256, SECRET).err().unwrap().contains("public key"));
    assert!(Key::public(None, Algorithm::ES256, b"junk").err().unwrap().contains("PEM"));
    assert!(parse_algorithm("none").unwrap_err().contains("HS256"));
}

/// What keys with these claims say to a token with this body.
fn judged(claims: Claims, body: &serde_json::Value, now: u64) -> Result<Grant, AuthError> {
    let header = jsonwebtoken::Header::new(Algorithm::HS256);
    let token = jsonwebtoken::encode(&header, body, &jsonwebtoken::EncodingKey::from_secret(SECRET)).unwrap();
    Keys::new(vec![Key::secret(None, Algorithm::HS256, SECRET).unwrap()], claims).verify(&token, now)
}

#[test]
fn leeway_then_sign_in_and_session_end_that_much_later() {
    let ended = serde_json::json!({"sub": "a", "exp": NOW});
    for leeway_seconds in [0, 1, 30] {
        let claims = Claims { leeway_seconds, require_exp: true, ..Claims::default() };
        let at = |seconds: u64| judged(claims.clone(), &ended, seconds).map(|grant| grant.expires_at);
        let end = NOW + leeway_seconds;
        assert_eq!(at(end - 1), Ok(end), "ended less than {leeway_seconds} s ago");
        assert_eq!(at(end), Err(AuthError::Expired), "ended {leeway_seconds} s ago");
    }
    // A token without an end gives a session without one; an end beyond all time stays there.
    let claims = Claims { leeway_seconds: 30, ..Claims::default() };
    let expires_at = |body| judged(claims.clone(), &body, NOW).map(|grant| grant.expires_at);
    assert_eq!(expires_at(serde_json::json!({"sub": "a"})), Ok(0));
    assert_eq!(expires_at(serde_json::json!({"sub": "a", "exp": u64::MAX})), Ok(u64::MAX));
}

#[test]
fn leeway_then_tokens_begin_that_much_earlier() {
    for leeway_seconds in [0, 1, 30] {
        let claims = Claims { leeway_seconds, ..Claims::default() };
        let begins = |nbf: u64| judged(claims.clone(), &serde_json::json!({"sub": "a", "nbf": nbf}), NOW).map(|_| ());
        assert_eq!(begins(NOW + leeway_seconds), Ok(()));
        assert_eq!(begins(NOW + leeway_seconds + 1), Err(AuthError::NotYetValid));
    }
}

#[test]
fn more_patterns_or_longer_ones_than_allowed_then_no_session() {
    let claims = Claims::default();
    let verdict = |rooms: serde_json::Value| {
        judged(claims.clone(), &serde_json::json!({"sub": "a", "rooms": rooms}), NOW).map(|grant| grant.rooms.unwrap())
    };
    let patterns = |count: usize| (0..count).map(|index| format!("chat:{index}")).collect::<Vec<_>>();
    let most = verdict(serde_json::json!(patterns(64))).unwrap();
    for list in [&most.subscribe, &most.publish, &most.presence, &most.history] {
        assert_eq!(*list, patterns(64));
    }
    assert_eq!(verdict(serde_json::json!(patterns(65))), Err(AuthError::Invalid));
    // Each verb has a list of its own.
    for verb in ["subscribe", "publish", "presence", "history"] {
        let lists = |count: usize| {
            let mut lists =
                serde_json::json!({"subscribe": patterns(64), "publish": patterns(64), "history": patterns(64)});
            lists[verb] = serde_json::json!(patterns(count));
            lists
        };
        assert!(verdict(lists(64)).is_ok(), "{verb}");
        assert_eq!(verdict(lists(65)), Err(AuthError::Invalid), "{verb}");
    }
    let long = |bytes: usize| serde_json::json!(["*".repeat(bytes)]);
    assert!(verdict(long(NAME_BYTES_MAX)).is_ok());
    assert_eq!(verdict(long(NAME_BYTES_MAX + 1)), Err(AuthError::Invalid));
}

#[test]
fn costs_follow_the_length_of_the_signature() {
    let keys = keys(Vec::new());
    let cost = |signer: &Signer| keys.cost(&signer.sign(&spec("alice")).unwrap());
    let secret = |algorithm| Signer::from_key(SECRET, Some(algorithm), None).unwrap();
    for (algorithm, wanted) in [(Algorithm::HS256, 1), (Algorithm::HS384, 1), (Algorithm::HS512, 40)] {
        assert_eq!(cost(&secret(algorithm)), wanted, "{algorithm:?}");
    }
    for (algorithm, wanted) in [(Algorithm::RS256, 15), (Algorithm::EdDSA, 40), (Algorithm::ES256, 40)] {
        assert_eq!(cost(&pair(algorithm).0), wanted, "{algorithm:?}");
    }
    // Nothing is free, or a flood of garbage would not count in the turn's budget.
    for (token, wanted) in [(String::new(), 1), ("a".repeat(64), 1), ("a".repeat(65), 40), ("a".repeat(128), 40)] {
        assert_eq!(keys.cost(&format!("a.b.{token}")), wanted, "{}", token.len());
    }
    assert_eq!(keys.cost(&format!("a.b.{}", "a".repeat(129))), 15);
    assert_eq!(keys.cost("no dots at all"), 1);
}

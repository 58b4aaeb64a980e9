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
    assert_eq!(after.verify(&old, NOW), Err(AuthError::UnknownKey));
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
    assert_eq!(keys_rs.verify(&confused, NOW), Err(AuthError::Algorithm));
    // alg: none, with and without a signature.
    let body = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"eve","exp":{}}}"#, NOW + 60));
    for (header, cause) in [
        (r#"{"alg":"none","kid":"k"}"#, AuthError::Algorithm),
        (r#"{"alg":"None"}"#, AuthError::Algorithm),
        (r#"{"typ":"JWT"}"#, AuthError::Malformed),
    ] {
        let header = URL_SAFE_NO_PAD.encode(header);
        for token in [format!("{header}.{body}."), format!("{header}.{body}.AAAA")] {
            assert_eq!(keys_rs.verify(&token, NOW), Err(cause));
        }
    }
    // The right key, another algorithm of its family.
    let hs512 = Signer::from_key(SECRET, Some(Algorithm::HS512), None).unwrap().sign(&spec("eve")).unwrap();
    let keys_hs = keys(vec![Key::secret(None, Algorithm::HS256, SECRET).unwrap()]);
    assert_eq!(keys_hs.verify(&hs512, NOW), Err(AuthError::Algorithm));
}

/// A token with exactly this header and these claims, signed with [`SECRET`].
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

const HS256: &str = r#"{"alg":"HS256"}"#;

#[test]
fn crit_in_the_header_then_refused_whatever_it_holds() {
    let keys = keys(vec![Key::secret(None, Algorithm::HS256, SECRET).unwrap()]);
    let claims = format!(r#"{{"sub":"eve","exp":{}}}"#, NOW + 60);
    assert!(keys.verify(&signed(HS256, &claims), NOW).is_ok());
    for crit in [r#"["b64"]"#, "[]", "null", "false", "0", r#""""#, "{}"] {
        let header = format!(r#"{{"alg":"HS256","crit":{crit},"b64":false}}"#);
        assert_eq!(keys.verify(&signed(&header, &claims), NOW), Err(AuthError::Malformed), "{crit}");
    }
}

#[test]
fn dates_with_fraction_or_exponent_then_the_session_ends_at_the_right_second() {
    let claims = Claims { require_exp: true, ..Claims::default() };
    let keys = Keys::new(vec![Key::secret(None, Algorithm::HS256, SECRET).unwrap()], claims);
    let ends = |claims: &str, now: u64| keys.verify(&signed(HS256, claims), now).map(|grant| grant.expires_at);
    for (exp, wanted) in [
        ("1800000100.5", NOW + 100),
        ("1800000100.0", NOW + 100),
        ("1800000100.999", NOW + 100),
        ("1.9e9", 1_900_000_000),
        ("19E8", 1_900_000_000),
        ("1.8000001005e9", NOW + 100),
        ("1e300", u64::MAX),
        ("18446744073709551616", u64::MAX),
    ] {
        let claims = format!(r#"{{"sub":"a","iat":1.7999999995e9,"nbf":1799999999.5,"exp":{exp}}}"#);
        assert_eq!(ends(&claims, NOW), Ok(wanted), "{exp}");
        if wanted < u64::MAX {
            assert_eq!(ends(&claims, wanted - 1), Ok(wanted), "{exp}");
            assert_eq!(ends(&claims, wanted), Err(AuthError::Expired), "{exp}");
        }
    }
    for exp in ["0", "-1", "-1.5", "-1e30", "0.0"] {
        assert_eq!(ends(&format!(r#"{{"sub":"a","exp":{exp}}}"#), NOW), Err(AuthError::Expired), "{exp}");
    }
    // What begins within a second begins with the next.
    let begins = |nbf: &str, now: u64| ends(&format!(r#"{{"sub":"a","nbf":{nbf},"exp":2e9}}"#), now).map(|_| ());
    for (nbf, first) in [("1800000000.0", NOW), ("1800000000.5", NOW + 1), ("1.8e9", NOW), ("-3.5", NOW)] {
        assert_eq!(begins(nbf, first), Ok(()), "{nbf}");
        if nbf != "-3.5" {
            assert_eq!(begins(nbf, first - 1), Err(AuthError::NotYetValid), "{nbf}");
        }
    }
    for claims in [r#"{"sub":"a","exp":"1900000000"}"#, r#"{"sub":"a","exp":[1]}"#, r#"{"sub":"a","exp":1e400}"#] {
        let refused = ends(claims, NOW).unwrap_err();
        assert!(matches!(refused, AuthError::Claims | AuthError::Malformed), "{claims}: {refused:?}");
    }
}

#[test]
fn token_refused_then_the_cause_is_named() {
    let old = Key::secret(Some("k".into()), Algorithm::HS512, SECRET).unwrap();
    let ours = Key::secret(Some("k".into()), Algorithm::HS256, SECRET).unwrap();
    let claims =
        Claims { audience: vec!["im".into()], issuer: Some("idp".into()), require_exp: true, ..Claims::default() };
    let keys = Keys::new(vec![old, ours], claims);
    let header = r#"{"alg":"HS256","kid":"k"}"#;
    let good = format!(r#"{{"sub":"a","exp":{},"aud":"im","iss":"idp"}}"#, NOW + 9);
    assert!(keys.verify(&signed(header, &good), NOW).is_ok());
    let with = |claim: &str| signed(header, &good.replacen('{', &format!("{{{claim},"), 1));
    let instead = |old: &str, new: &str| signed(header, &good.replace(old, new));
    let (unsigned, _) = signed(header, &good).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    for (token, cause) in [
        (instead(&format!("{}", NOW + 9), "1000"), AuthError::Expired),
        (with(&format!(r#""nbf":{}"#, NOW + 9)), AuthError::NotYetValid),
        (format!("{unsigned}.AAAA"), AuthError::Signature),
        (format!("{unsigned}.?"), AuthError::Signature),
        (signed(r#"{"alg":"RS256","kid":"k"}"#, &good), AuthError::Algorithm),
        (signed(r#"{"alg":"none","kid":"k"}"#, &good), AuthError::Algorithm),
        (signed(r#"{"alg":"HS256","kid":"other"}"#, &good), AuthError::UnknownKey),
        (signed(HS256, &good), AuthError::UnknownKey),
        (instead("\"im\"", "\"mail\""), AuthError::Audience),
        (instead("\"idp\"", "\"evil\""), AuthError::Issuer),
        (instead("\"sub\":\"a\"", "\"sub\":7"), AuthError::Claims),
        (with(r#""device":"""#), AuthError::Claims),
        (with(r#""rooms":{"fly":[]}"#), AuthError::Claims),
        (signed(header, &format!("{good}}}")), AuthError::Malformed),
        (signed("{", &good), AuthError::Malformed),
        ("a.b".to_owned(), AuthError::Malformed),
    ] {
        assert_eq!(keys.verify(&token, NOW), Err(cause), "{token}");
    }
}

#[test]
fn algorithm_is_called_ed25519_then_it_is_eddsa() {
    assert_eq!(parse_algorithm("Ed25519"), Ok(Algorithm::EdDSA));
    let (_, key) = pair(Algorithm::EdDSA);
    let keys = keys(vec![key]);
    let header = |name: &str| URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{name}","kid":"k"}}"#));
    // The name is known, so it is the signature that is looked at.
    for (name, cause) in
        [("EdDSA", AuthError::Signature), ("Ed25519", AuthError::Signature), ("Ed448", AuthError::Algorithm)]
    {
        assert_eq!(keys.verify(&format!("{}.e30.AAAA", header(name)), NOW), Err(cause), "{name}");
    }
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ours = Keys::new(
        vec![Key::public(Some("k".into()), Algorithm::EdDSA, pair.public_key_pem().as_bytes()).unwrap()],
        Claims::default(),
    );
    let message = format!("{}.{}", header("Ed25519"), URL_SAFE_NO_PAD.encode(r#"{"sub":"a"}"#));
    let private = jsonwebtoken::EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &private, Algorithm::EdDSA).unwrap();
    assert_eq!(ours.verify(&format!("{message}.{signature}"), NOW).map(|grant| grant.user), Ok("a".to_owned()));
}

/// A section of PEM around bytes.
fn pem_of(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

#[test]
fn public_key_as_secret_then_refused_in_every_form() {
    let public = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let pem = public.public_key_pem();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(&body).unwrap();
    let certificate = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap().cert;
    for (secret, form) in [
        (pem.as_bytes(), "PEM form"),
        (format!("\u{feff}{pem}").as_bytes(), "PEM form"),
        (certificate.pem().as_bytes(), "PEM form"),
        (certificate.der().as_ref(), "DER form"),
        (body.as_bytes(), "DER form"),
        (&der, "DER form"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b", "OpenSSH"),
        (br#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#, "JSON Web Key"),
    ] {
        let error = Key::secret(None, Algorithm::HS256, secret).err().unwrap_or_else(|| panic!("took {form}"));
        assert!(error.contains(form) && error.contains("public_key_file"), "{form}: {error}");
    }
    assert!(Key::secret(None, Algorithm::HS256, &[0x30; 32]).is_ok(), "bytes of its kind are no key");
}

#[test]
fn key_of_another_kind_then_it_is_named() {
    let refused = |algorithm, text: &str| Key::public(None, algorithm, text.as_bytes()).err().unwrap_or_default();
    let pair = |kind| rcgen::KeyPair::generate_for(kind).unwrap();
    let ed = pair(&rcgen::PKCS_ED25519);
    let p384 = pair(&rcgen::PKCS_ECDSA_P384_SHA384);
    // Which key it is stands in its head; what follows is not looked at where that does not fit.
    let p521 = [
        &[0x30, 0x81, 0x9b, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 35, 3][..],
        &[0x81, 0x86, 0, 4],
        &[7; 132],
    ]
    .concat();
    let rsa = |bytes: usize| {
        let length = |length: usize| [0x82, (length >> 8) as u8, length as u8];
        let modulus = [&[2][..], &length(bytes + 1), &[0, 0x80], &vec![1; bytes - 1]].concat();
        let exponent = [2, 3, 1, 0, 1];
        pem_of("RSA PUBLIC KEY", &[&[0x30][..], &length(modulus.len() + 5), &modulus, &exponent].concat())
    };
    for (algorithm, text, wanted) in [
        (Algorithm::RS256, rsa(128), "is an RSA key of 1024 bits; RS256 wants an RSA key of 2048"),
        (Algorithm::RS256, rsa(255), "is an RSA key of 2040 bits"),
        (Algorithm::RS256, rsa(2048), "is an RSA key of 16384 bits"),
        (Algorithm::ES256, pem_of("PUBLIC KEY", &p521), "is a P-521 key; ES256 wants a P-256 key"),
        (Algorithm::ES256, p384.public_key_pem(), "is a P-384 key; ES256 wants a P-256 key"),
        (Algorithm::ES256, ed.public_key_pem(), "is an Ed25519 key; ES256 wants a P-256 key"),
        (Algorithm::EdDSA, p384.public_key_pem(), "is a P-384 key; EdDSA wants an Ed25519 key"),
        (Algorithm::EdDSA, ed.serialize_pem(), "holds a private key (PRIVATE KEY)"),
        (Algorithm::EdDSA, format!("{}{}", ed.public_key_pem(), ed.serialize_pem()), "holds a private key"),
        (Algorithm::EdDSA, pem_of("ENCRYPTED PRIVATE KEY", &[1]), "holds a private key (ENCRYPTED PRIVATE KEY)"),
        (Algorithm::EdDSA, pem_of("OPENSSH PRIVATE KEY", &[1]), "holds a private key (OPENSSH PRIVATE KEY)"),
        (Algorithm::EdDSA, "ssh-ed25519 AAAA a@b".to_owned(), "is a public key of OpenSSH"),
        (Algorithm::EdDSA, pem_of("PUBLIC KEY", &[0x30, 0]), "is damaged"),
        (Algorithm::EdDSA, pem_of("X509 CRL", &[0x30, 0]), "holds no public key in PEM form, but X509 CRL"),
        (Algorithm::HS256, ed.public_key_pem(), "wants a secret"),
    ] {
        let error = refused(algorithm, &text);
        assert!(error.contains(wanted), "{algorithm:?} gives {error:?} instead of {wanted:?}");
    }
    assert!(Key::public(None, Algorithm::RS256, rsa(256).as_bytes()).is_ok());
    // A certificate stands for its key, and a byte order mark for nothing.
    let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&ed).unwrap();
    for text in [certificate.pem(), format!("\u{feff}{}", ed.public_key_pem())] {
        assert!(Key::public(None, Algorithm::EdDSA, text.as_bytes()).is_ok(), "{text}");
    }
}

#[test]
fn secret_of_text_then_one_line_break_at_its_end_is_no_part_of_it() {
    for (file, secret) in [
        (&b"secret"[..], &b"secret"[..]),
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b"secret\n\n", b"secret\n"),
        (b"secret \t\n", b"secret \t"),
        ("gehe\u{ef}m\n".as_bytes(), "gehe\u{ef}m".as_bytes()),
        // Bytes that are no text are kept, whatever the last one is.
        (b"\xff\xfe\n", b"\xff\xfe\n"),
        (b"\x00secret\n", b"\x00secret\n"),
        (b"\x1bsecret\r\n", b"\x1bsecret\r\n"),
        (b"\n", b""),
        (b"", b""),
    ] {
        assert_eq!(secret_in(file), secret, "{file:?}");
    }
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
        (&strict, r#"{"sub":"a"}"#.into(), Err(AuthError::Claims)),
        (&Claims::default(), r#"{"sub":"a"}"#.into(), Ok(())),
        (&strict, format!(r#"{{"sub":"a","exp":{},"nbf":{}}}"#, NOW + 9, NOW + 1), Err(AuthError::NotYetValid)),
        (&lenient, format!(r#"{{"sub":"a","exp":{},"nbf":{}}}"#, NOW + 9, NOW + 30), Ok(())),
        (&ours, format!(r#"{{"sub":"a","exp":{},"aud":"im","iss":"idp"}}"#, NOW + 9), Ok(())),
        (&ours, format!(r#"{{"sub":"a","exp":{},"aud":["x","im"],"iss":"idp"}}"#, NOW + 9), Ok(())),
        (&ours, format!(r#"{{"sub":"a","exp":{},"aud":"x","iss":"idp"}}"#, NOW + 9), Err(AuthError::Audience)),
        (&ours, format!(r#"{{"sub":"a","exp":{},"aud":"im","iss":"evil"}}"#, NOW + 9), Err(AuthError::Issuer)),
        (&ours, format!(r#"{{"sub":"a","exp":{}}}"#, NOW + 9), Err(AuthError::Audience)),
        (&strict, format!(r#"{{"sub":"","exp":{}}}"#, NOW + 9), Err(AuthError::Claims)),
        (&strict, format!(r#"{{"sub":"@a","exp":{}}}"#, NOW + 9), Err(AuthError::Claims)),
        (&strict, format!(r#"{{"sub":"a b","exp":{}}}"#, NOW + 9), Err(AuthError::Claims)),
        (&strict, format!(r#"{{"sub":"a","exp":{},"rooms":{{"fly":["*"]}}}}"#, NOW + 9), Err(AuthError::Claims)),
        (&strict, r#"{"sub":"a","exp":"soon"}"#.to_owned(), Err(AuthError::Claims)),
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
    assert_eq!(keys.verify(&"x".repeat(TOKEN_BYTES_MAX + 1), NOW), Err(AuthError::Malformed));
    for text in ["", ".", "..", "a.b.c", "é.é.é"] {
        assert_eq!(keys.verify(text, NOW), Err(AuthError::Malformed));
    }
}

#[test]
fn file_is_no_secret_for_a_gateway_then_no_token_is_signed_with_it() {
    let refused = |bytes: &[u8], algorithm| Signer::from_key(bytes, algorithm, None).err().unwrap();
    for algorithm in [None, Some(Algorithm::HS256), Some(Algorithm::HS512)] {
        assert_eq!(refused(b"short\n", algorithm), "the secret has 5 bytes; at least 32 are needed");
        assert!(refused(b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFoo someone@host", algorithm).contains("OpenSSH"));
    }
    assert!(refused(b"short", Some(Algorithm::RS256)).contains("not a private key in PEM form"));
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
    assert_eq!(verdict(serde_json::json!(patterns(65))), Err(AuthError::Claims));
    // Each verb has a list of its own.
    for verb in ["subscribe", "publish", "presence", "history"] {
        let lists = |count: usize| {
            let mut lists =
                serde_json::json!({"subscribe": patterns(64), "publish": patterns(64), "history": patterns(64)});
            lists[verb] = serde_json::json!(patterns(count));
            lists
        };
        assert!(verdict(lists(64)).is_ok(), "{verb}");
        assert_eq!(verdict(lists(65)), Err(AuthError::Claims), "{verb}");
    }
    let long = |bytes: usize| serde_json::json!(["*".repeat(bytes)]);
    assert!(verdict(long(NAME_BYTES_MAX)).is_ok());
    assert_eq!(verdict(long(NAME_BYTES_MAX + 1)), Err(AuthError::Claims));
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

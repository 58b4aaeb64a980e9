//! Requests for a WebSocket: the one of RFC 6455, each way to be wrong, origins, subprotocols, tokens.

use super::*;

/// The request of RFC 6455, 1.3, without its subprotocols, at the default path.
const REQUEST: &str = "GET /ws HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://server.example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    \r\n";

fn with(headers: &str) -> String {
    REQUEST.replace("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n"))
}

fn without(name: &str) -> String {
    let lines = REQUEST.split_inclusive("\r\n").filter(|line| !line.starts_with(&format!("{name}:")));
    let request: String = lines.collect();
    assert_ne!(request, REQUEST, "{name} is there");
    request
}

fn judge(request: &str) -> Result<Accepted, Refusal> {
    upgrade(request.as_bytes(), &Rules::default())
}

fn status(request: &str) -> u16 {
    judge(request).map_or_else(|refusal| refusal.status(), |_| 101)
}

#[test]
fn request_of_rfc_6455_then_its_answer() {
    let accepted = judge(REQUEST).unwrap();
    assert_eq!((accepted.subprotocol, &accepted.token), (Subprotocol::Binary, &None));
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(String::from_utf8(accepted.answer).unwrap(), answer);
}

#[test]
fn request_is_written_in_other_ways_that_are_right_then_it_is_accepted() {
    let requests = [
        REQUEST.replace("/ws ", "/ws?token=not-looked-at "),
        REQUEST.replace("/ws ", "http://server.example.com/ws "),
        REQUEST.replace("Connection: Upgrade", "connection: keep-alive, UPGRADE"),
        REQUEST.replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        REQUEST.replace("Upgrade: websocket", "UPGRADE: WebSocket"),
        with("Content-Length: 0"),
        with("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        without("Origin"),
        REQUEST.replace("\r\n", "\n"),
    ];
    for request in requests {
        assert_eq!(status(&request), 101, "{request}");
    }
    let token = judge(&REQUEST.replace("/ws ", "/ws?token=x&access_token=y ")).unwrap().token;
    assert_eq!(token, None, "the query holds no token");
}

#[test]
fn request_is_wrong_then_status_and_sentence_say_how() {
    let cases = [
        (400, without("Host"), "no \"Host\""),
        (400, with("Host: other.example.com"), "twice"),
        (400, with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), "twice"),
        (400, with("Origin: http://server.example.com"), "twice"),
        (400, without("Sec-WebSocket-Key"), "16 bytes in base64"),
        (400, REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "16 bytes in base64"),
        (400, REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "not base64"), "16 bytes in base64"),
        (400, with("Content-Length: 5"), "has a body"),
        (400, with("Transfer-Encoding: chunked"), "has a body"),
        (400, with("bad name: x"), "name of a header"),
        (400, with("X: a\u{1}b"), "value of a header"),
        (400, with("Sec-WebSocket-Protocol: é"), "not ASCII"),
        (400, REQUEST.replace("GET /ws HTTP/1.1", "\u{16}\u{3}\u{1}"), "no request of HTTP/1.1"),
        (400, REQUEST.replace("\r\n\r\n", "\r\n"), "ends before its empty line"),
        (400, with("Sec-WebSocket-Protocol: chat, superchat"), "ringgate.v1"),
        (403, REQUEST.replace("Origin: http://server", "Origin: http://evil"), "origin"),
        (403, REQUEST.replace("Origin: http://server.example.com", "Origin: null"), "origin"),
        (404, REQUEST.replace("/ws ", "/other "), "at /ws"),
        (404, REQUEST.replace("/ws ", "/ws/ "), "at /ws"),
        (405, REQUEST.replace("GET", "POST"), "GET"),
        (426, REQUEST.replace("HTTP/1.1", "HTTP/1.0"), "HTTP/1.1"),
        (426, REQUEST.replace("HTTP/1.1", "HTTP/2.0"), "HTTP/1.1"),
        (426, without("Upgrade"), "Upgrade: websocket"),
        (426, without("Connection"), "Connection: Upgrade"),
        (426, REQUEST.replace("websocket", "h2c"), "Upgrade: websocket"),
        (426, without("Sec-WebSocket-Version"), "has to be 13"),
        (426, REQUEST.replace("Version: 13", "Version: 8"), "has to be 13"),
    ];
    for (expected, request, says) in cases {
        let refusal = judge(&request).expect_err(&request);
        assert_eq!(refusal.status(), expected, "{request}");
        assert!(refusal.sentence().contains(says), "{refusal:?} says {says:?}");
        let answer = String::from_utf8(refusal.answer()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, format!("{}\n", refusal.sentence()));
        assert!(head.lines().any(|line| line == format!("Content-Length: {}", body.len())), "{answer}");
        assert!(head.contains("Connection: close") || head.contains("Connection: Upgrade, close"), "{answer}");
        match expected {
            405 => assert!(head.ends_with("\r\nAllow: GET")),
            426 => assert!(head.ends_with("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13")),
            _ => {}
        }
    }
    let busy = Refusal::Unavailable(7);
    let answer = String::from_utf8(busy.answer()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 7\r\n"), "{answer}");
}

#[test]
fn request_is_at_its_bounds_then_accepted_and_beyond_them_431() {
    let own = REQUEST.matches("\r\n").count() - 2;
    let headers = |many: usize| vec!["X: y"; many - own].join("\r\n");
    assert_eq!(status(&with(&headers(HEADERS_MAX))), 101);
    assert_eq!(status(&with(&headers(HEADERS_MAX + 1))), 431);
    let room = HEAD_BYTES_MAX - REQUEST.len() - "X: \r\n".len();
    let padded = |bytes: usize| with(&format!("X: {}", "y".repeat(bytes)));
    assert_eq!((padded(room).len(), status(&padded(room))), (HEAD_BYTES_MAX, 101));
    assert_eq!(status(&padded(room + 1)), 431);
}

#[test]
fn head_comes_in_pieces_then_its_end_is_found_wherever_it_is_cut() {
    for head in [REQUEST.to_owned(), REQUEST.replace("\r\n", "\n")] {
        let stream = format!("{head}\r\n\r\nbehind");
        for cut in 0..stream.len() {
            let (before, whole) = (&stream.as_bytes()[..cut], stream.as_bytes());
            if cut < head.len() {
                assert_eq!(head_bytes(before, 0), None, "{cut}");
                assert_eq!(head_bytes(whole, cut), Some(head.len()), "cut at {cut}");
            } else {
                assert_eq!(head_bytes(before, 0), Some(head.len()), "{cut}");
            }
        }
    }
    assert_eq!(head_bytes(b"", 0), None);
    assert_eq!(head_bytes(b"abc", 99), None);
}

#[test]
fn origin_is_of_the_same_host_then_allowed_by_default() {
    let cases = [
        ("http://a.test", "a.test", 101),
        ("https://a.test", "A.TEST", 101),
        ("https://a.test:443", "a.test", 101),
        ("https://a.test:8443", "a.test:8443", 101),
        ("https://a.test", "a.test:443", 101),
        ("http://[::1]:80", "[::1]", 101),
        ("http://a.test", "a.test:8080", 403),
        ("http://a.test:8080", "a.test", 403),
        ("http://b.test", "a.test", 403),
        ("http://a.test.evil", "a.test", 403),
        ("http://evil-a.test", "a.test", 403),
        ("http://a.test@evil", "a.test", 403),
        ("a.test", "a.test", 403),
        ("null", "null", 403),
        ("file://", "a.test", 403),
        ("", "a.test", 403),
    ];
    for (origin, host, expected) in cases {
        let request = REQUEST
            .replace("http://server.example.com", origin)
            .replace("Host: server.example.com", &format!("Host: {host}"));
        assert_eq!(status(&request), expected, "{origin} at {host}");
    }
}

#[test]
fn origins_are_listed_then_those_alone_are_allowed() {
    let allows = |patterns: &[&str], origin: &str| {
        let origins = patterns.iter().map(|pattern| OriginPattern::parse(pattern).unwrap()).collect();
        let rules = Rules { origins, ..Rules::default() };
        upgrade(REQUEST.replace("http://server.example.com", origin).as_bytes(), &rules).is_ok()
    };
    let listed = ["https://chat.test", "https://*.apps.test", "http://localhost:*", "app://shell:*"];
    for origin in [
        "https://chat.test",
        "https://CHAT.test:443",
        "https://a.apps.test",
        "https://a.b.apps.test",
        "http://localhost",
        "http://localhost:5173",
        "app://shell",
    ] {
        assert!(allows(&listed, origin), "{origin}");
    }
    for origin in [
        "http://chat.test",
        "https://chat.test:8443",
        "https://apps.test",
        "https://.apps.test",
        "https://evilapps.test",
        "https://a.apps.test:8443",
        "https://localhost:5173",
        "https://chat.test.evil",
        "http://server.example.com",
        "null",
    ] {
        assert!(!allows(&listed, origin), "{origin}");
    }
    assert!(allows(&["*"], "null") && allows(&["*"], "https://anything.test:1"));
}

#[test]
fn origin_pattern_is_wrong_then_the_error_says_what_would_be_right() {
    for (pattern, says) in [
        ("chat.test", "has no scheme"),
        ("://chat.test", "has no scheme"),
        ("https://chat.test/path", "more than a host"),
        ("https://chat.test:0", "not a number from 1"),
        ("https://chat.test:99999", "not a number from 1"),
        ("https://chat.test:+1", "not a number from 1"),
        ("app://shell", "needs a port"),
        ("https://", "has no host"),
        ("https://a*.test", "does not stand for whole labels"),
    ] {
        let error = OriginPattern::parse(pattern).expect_err(pattern).to_string();
        assert!(error.contains(says) && error.contains("write SCHEME://HOST"), "{pattern}: {error}");
    }
}

#[test]
fn subprotocols_are_asked_for_then_the_first_that_is_spoken_is_named() {
    let both = Rules::default();
    let binary = Rules { subprotocols: vec![Subprotocol::Binary], ..Rules::default() };
    let ask = |asked: &str, rules: &Rules| {
        let request = with(&format!("Sec-WebSocket-Protocol: {asked}"));
        upgrade(request.as_bytes(), rules).map(|accepted| {
            let answer = String::from_utf8(accepted.answer).unwrap();
            assert!(
                answer.contains(&format!("\r\nSec-WebSocket-Protocol: {}\r\n", accepted.subprotocol.name())),
                "{answer}"
            );
            accepted.subprotocol
        })
    };
    assert_eq!(ask("ringgate.v1", &both), Ok(Subprotocol::Binary));
    assert_eq!(ask("ringgate.json.v1, ringgate.v1", &both), Ok(Subprotocol::Json));
    assert_eq!(ask("chat,ringgate.v1 ,ringgate.json.v1", &both), Ok(Subprotocol::Binary));
    assert_eq!(ask("chat\r\nSec-WebSocket-Protocol: ringgate.json.v1", &both), Ok(Subprotocol::Json));
    assert_eq!(ask("ringgate.json.v1, ringgate.v1", &binary), Ok(Subprotocol::Binary));
    for unknown in ["ringgate.json.v1", "RINGGATE.V1", "ringgate.v2"] {
        assert_eq!(ask(unknown, &binary).map_err(|refusal| refusal.status()), Err(400), "{unknown}");
    }
}

#[test]
fn token_is_sent_then_taken_only_where_the_rules_allow() {
    let token = |headers: &str, rules: &Rules| {
        let accepted = upgrade(with(headers).as_bytes(), rules).unwrap();
        assert!(!format!("{accepted:?}").contains("secret"), "a log would show it");
        assert!(!String::from_utf8(accepted.answer).unwrap().contains("secret"), "it is not sent back");
        accepted.token
    };
    let everywhere = Rules {
        token_in_authorization: true,
        token_cookie: Some("session".to_owned()),
        token_subprotocol_prefix: Some("bearer.".to_owned()),
        ..Rules::default()
    };
    let authorization = "Authorization: Bearer a.secret";
    let cookie = "Cookie: other=1; session=b.secret; session2=x";
    let subprotocol = "Sec-WebSocket-Protocol: ringgate.v1, bearer.c.secret";
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(token(authorization, &everywhere), some("a.secret"));
    assert_eq!(token(cookie, &everywhere), some("b.secret"));
    assert_eq!(token(subprotocol, &everywhere), some("c.secret"));
    assert_eq!(token("Sec-WebSocket-Protocol: bearer.secret", &everywhere), some("secret"), "no other is asked for");
    assert_eq!(token(&[subprotocol, cookie, authorization].join("\r\n"), &everywhere), some("a.secret"));
    assert_eq!(token("Authorization: Basic secret", &everywhere), None);
    assert_eq!(token("Cookie: sessions=secret", &everywhere), None);
    let nowhere = Rules::default();
    assert_eq!(
        token(&[authorization, cookie, "Sec-WebSocket-Protocol: ringgate.v1, bearer.secret"].join("\r\n"), &nowhere),
        None
    );
    let twice = [authorization, authorization].join("\r\n");
    assert_eq!(upgrade(with(&twice).as_bytes(), &everywhere).map_err(|refusal| refusal.status()), Err(400));
}

proptest::proptest! {
    #[test]
    fn request_is_noise_then_it_is_refused_and_nothing_panics(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        at in 0..REQUEST.len(), byte in proptest::prelude::any::<u8>(),
    ) {
        proptest::prop_assert!(upgrade(&bytes, &Rules::default()).is_err());
        proptest::prop_assert!(head_bytes(&bytes, 0).is_none_or(|end| end <= bytes.len()));
        // One byte of a good request is another: never an answer that could be taken for two.
        let mut request = REQUEST.as_bytes().to_vec();
        request[at] = byte;
        let answer = upgrade(&request, &Rules::default()).map_or_else(|refusal| refusal.answer(), |accepted| accepted.answer);
        proptest::prop_assert!(answer.starts_with(b"HTTP/1.1 "));
        proptest::prop_assert_eq!(head_bytes(&answer, 0).is_some(), true);
    }

    #[test]
    fn utf8_is_checked_then_simd_and_std_agree(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), text in ".{0,80}", cut in 0usize..400) {
        use ringgate_core::wire::ws::{Std, Validate};
        let text = &text.as_bytes()[..cut.min(text.len())];
        proptest::prop_assert_eq!(Simd::validate(&bytes), Std::validate(&bytes));
        proptest::prop_assert_eq!(Simd::validate(text), Std::validate(text));
    }
}

//! The chat page of `examples/chat`, for `ringgate serve --dev --demo`: its files, and a sign-in that believes everybody.
//!
//! Never for more than development: tokens are signed with the key that everybody knows, for any name.

use std::io;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use ringgate_auth::{Signer, TokenSpec};

use crate::admin::{Admin, Answer, plain};
use crate::config::free_port;

/// Where the page is, if the port is free.
const DEFAULT_PORT: u16 = 7490;
const TOKEN_SECONDS: u64 = 3600;

/// Name, type and content of each file.
const FILES: [(&str, &str, &str); 5] = [
    ("", "text/html; charset=utf-8", include_str!("../examples/chat/index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("../examples/chat/style.css")),
    ("chat.js", "text/javascript; charset=utf-8", include_str!("../examples/chat/chat.js")),
    ("store.js", "text/javascript; charset=utf-8", include_str!("../examples/chat/store.js")),
    ("ringgate.js", "text/javascript; charset=utf-8", include_str!("../examples/chat/ringgate.js")),
];

struct Chat {
    /// Where the gateway takes WebSockets.
    websocket: String,
}

/// Serves the page on loopback until what it returns is dropped. `websocket` is the gateway's URL for it.
pub fn start(websocket: String) -> io::Result<Admin> {
    let address: SocketAddr = free_port(DEFAULT_PORT);
    Admin::start_pages(address, ("chat", "another port; no key sets this one"), Chat { websocket })
}

impl Answer for Chat {
    fn answer<T>(&self, request: &Request<T>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let path = request.uri().path();
        let Some(name) = path.strip_prefix("/chat/") else {
            let mut response = plain(StatusCode::FOUND, "the page is at /chat/\n");
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/chat/"));
            return response;
        };
        if name == "session" {
            return self.session(request.uri().query().unwrap_or_default());
        }
        match FILES.iter().find(|(file, _, _)| *file == name) {
            Some((_, kind, content)) => with_type(kind, *content),
            None => plain(StatusCode::NOT_FOUND, "there is no such file\n"),
        }
    }
}

impl Chat {
    /// `{"url": ..., "token": ...}` for `user=NAME`.
    fn session(&self, query: &str) -> Response<Full<Bytes>> {
        let value = query.split('&').find_map(|pair| pair.strip_prefix("user="));
        let user = value.and_then(decoded).filter(|user| ringgate_core::wire::is_name(user) && !user.starts_with('@'));
        let Some(user) = user else {
            return plain(StatusCode::BAD_REQUEST, "user has to be a name without blanks, and not begin with @\n");
        };
        let issued_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let spec = TokenSpec { user, issued_at, ttl_seconds: TOKEN_SECONDS, ..TokenSpec::default() };
        match Signer::dev().sign(&spec) {
            Ok(token) => {
                with_type("application/json", serde_json::json!({ "url": self.websocket, "token": token }).to_string())
            }
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }
}

fn with_type(kind: &'static str, content: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::OK, content);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Percent-encoded UTF-8.
fn decoded(value: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(value.len()), value.bytes());
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        bytes.push(match byte {
            b'%' => (digit(rest.next())? << 4 | digit(rest.next())?) as u8,
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Response<Full<Bytes>> {
        let chat = Chat { websocket: "ws://127.0.0.1:1/ws".to_owned() };
        chat.answer(&Request::get(path).body(()).unwrap())
    }

    #[test]
    fn page_and_its_files_are_asked_for_then_each_has_its_type() {
        for (name, kind, _) in FILES {
            let response = get(&format!("/chat/{name}"));
            assert_eq!(
                (response.status(), &response.headers()[CONTENT_TYPE]),
                (StatusCode::OK, &HeaderValue::from_static(kind))
            );
        }
        assert_eq!(get("/").headers()[LOCATION], "/chat/");
        assert_eq!(get("/chat/../src/demo.rs").status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn name_is_given_then_a_token_for_it_comes_and_every_other_name_is_refused() {
        for name in ["alice", "gr%C3%BC%C3%9Fe", "a%26b"] {
            assert_eq!(get(&format!("/chat/session?user={name}")).status(), StatusCode::OK, "{name}");
        }
        for query in ["", "?user=", "?user=a%20b", "?user=a+b", "?user=%40bob", "?user=%ff", "?user=%2", "?name=alice"]
        {
            assert_eq!(get(&format!("/chat/session{query}")).status(), StatusCode::BAD_REQUEST, "{query}");
        }
    }
}

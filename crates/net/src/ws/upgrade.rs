//! A request for a WebSocket (RFC 6455, 4.2): read, judged, answered. The query of its target is never looked at: what stands in a URL
//! is written into logs on its way, so no token is taken from there.

use std::net::IpAddr;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Header, Request, Status};

use super::forwarded::ForwardedHeader;
use super::origin::{OriginPattern, is_same_host};
use super::refusal::Refusal;
use super::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::network::Network;

/// Bytes that a client has drawn for `Sec-WebSocket-Key`.
const KEY_BYTES: usize = 16;
/// RFC 6455, 1.3.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What travels in the messages of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// Frames of `docs/protocol.md`, in binary messages.
    Binary,
    /// JSON, in texts.
    Json,
}

impl Subprotocol {
    /// Every value.
    pub const ALL: [Subprotocol; 2] = [Subprotocol::Binary, Subprotocol::Json];

    /// As in `Sec-WebSocket-Protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Subprotocol::Binary => "ringgate.v1",
            Subprotocol::Json => "ringgate.json.v1",
        }
    }
}

/// What a listener asks of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The only path at which connections are accepted; it begins with `/`.
    pub path: String,
    /// Origins that may connect. Where there are none, those of the host that the request names in `Host` may.
    pub origins: Vec<OriginPattern>,
    /// What is spoken here; a client that asks for nothing speaks the first one.
    pub subprotocols: Vec<Subprotocol>,
    /// A token may stand in `Authorization: Bearer TOKEN`.
    pub token_in_authorization: bool,
    /// A token may be the value of this cookie.
    pub token_cookie: Option<String>,
    /// A token may follow this prefix in an entry of `Sec-WebSocket-Protocol`, which is the one header that a page can choose.
    pub token_subprotocol_prefix: Option<String>,
    /// Proxies that are believed whom they pass a request on for.
    pub trusted_proxies: Vec<Network>,
    /// Where they say it.
    pub forwarded_header: ForwardedHeader,
    /// Bytes of a message, in all its fragments.
    pub message_bytes_max: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            path: "/ws".to_owned(),
            origins: Vec::new(),
            subprotocols: Subprotocol::ALL.to_vec(),
            token_in_authorization: false,
            token_cookie: None,
            token_subprotocol_prefix: None,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            message_bytes_max: 1 << 20,
        }
    }
}

/// A request that becomes a WebSocket.
#[derive(Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What is spoken on it.
    pub subprotocol: Subprotocol,
    /// Where the rules allow one and the client has sent one. It is a secret: never to be logged.
    pub token: Option<String>,
    /// Whom the request was passed on for, if it comes from one of the rules' trusted proxies: that is for the driver to look at.
    pub forwarded_for: Option<IpAddr>,
    /// The answer, 101.
    pub answer: Vec<u8>,
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "hidden");
        f.debug_struct("Accepted")
            .field("subprotocol", &self.subprotocol)
            .field("token", &token)
            .finish_non_exhaustive()
    }
}

/// How many bytes the request takes that begins with these: up to the empty line at its end. None while that has not come. The first
/// `searched` bytes were looked at before, and the end is not in them.
pub fn head_bytes(bytes: &[u8], searched: usize) -> Option<usize> {
    // The end is three bytes at least, with what may have come before.
    let start = searched.saturating_sub(3);
    let tail = bytes.get(start..)?;
    let ends = |at: usize| match tail.get(at..) {
        Some([b'\n', b'\n', ..]) => Some(start + at + 2),
        Some([b'\n', b'\r', b'\n', ..]) => Some(start + at + 3),
        _ => None,
    };
    (0..tail.len()).find_map(ends)
}

/// Judges a whole request, of [`head_bytes`] bytes.
pub fn upgrade(head: &[u8], rules: &Rules) -> Result<Accepted, Refusal> {
    if head.len() > HEAD_BYTES_MAX {
        return Err(Refusal::HeadTooLarge);
    }
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(Refusal::BadRequest("The request ends before its empty line.")),
        Err(error) => return Err(unreadable(error)),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::BadRequest("The request has no method, no target or no version."));
    };
    if method != "GET" {
        return Err(Refusal::Method);
    }
    if path_of(target) != rules.path {
        return Err(Refusal::NotFound(rules.path.clone()));
    }
    if version != 1 {
        return Err(Refusal::UpgradeRequired("A WebSocket connection needs HTTP/1.1."));
    }
    let headers = Headers(request.headers);
    if !headers.has_token("Connection", "upgrade")? || !headers.has_token("Upgrade", "websocket")? {
        return Err(Refusal::UpgradeRequired(
            "Only WebSocket connections are accepted here; their requests have \"Connection: Upgrade\" and \"Upgrade: websocket\".",
        ));
    }
    if headers.once("Sec-WebSocket-Version")? != Some("13") {
        return Err(Refusal::UpgradeRequired("\"Sec-WebSocket-Version\" has to be 13, once."));
    }
    let host = headers.once("Host")?.ok_or(Refusal::BadRequest("The request has no \"Host\"; it has to have one."))?;
    if headers.once("Transfer-Encoding")?.is_some() || headers.once("Content-Length")?.is_some_and(|value| value != "0")
    {
        return Err(Refusal::BadRequest("The request has a body; a request for a WebSocket has none."));
    }
    if let Some(origin) = headers.once("Origin")? {
        let is_allowed = match &rules.origins[..] {
            [] => is_same_host(origin, host),
            patterns => patterns.iter().any(|pattern| pattern.allows(origin)),
        };
        if !is_allowed {
            return Err(Refusal::Origin);
        }
    }
    let key = headers
        .once("Sec-WebSocket-Key")?
        .filter(|key| is_key(key))
        .ok_or(Refusal::BadRequest("\"Sec-WebSocket-Key\" is missing or is not 16 bytes in base64."))?;
    let asked: Vec<&str> = headers.list("Sec-WebSocket-Protocol")?.collect();
    let subprotocol = choose(&asked, rules)?;
    let token = token(&headers, &asked, rules)?.map(str::to_owned);
    let header = rules.forwarded_header;
    let forwarded_for = match rules.trusted_proxies[..] {
        [] => None,
        _ => {
            let elements: Vec<_> = headers.list(header.name())?.collect();
            header.client(elements.into_iter(), &rules.trusted_proxies)
        }
    };
    Ok(Accepted { subprotocol, token, forwarded_for, answer: answer(key, subprotocol, !asked.is_empty()) })
}

fn unreadable(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::HeadTooLarge,
        httparse::Error::Version => Refusal::UpgradeRequired("A WebSocket connection needs HTTP/1.1."),
        httparse::Error::HeaderName => Refusal::BadRequest("The name of a header has a character that is not allowed."),
        httparse::Error::HeaderValue => {
            Refusal::BadRequest("The value of a header has a character that is not allowed.")
        }
        httparse::Error::NewLine => {
            Refusal::BadRequest("A line of the request does not end as it has to, with CR and LF.")
        }
        httparse::Error::Token | httparse::Error::Status => {
            Refusal::BadRequest("This is no request of HTTP/1.1; the first line has to be \"GET PATH HTTP/1.1\".")
        }
    }
}

/// The path of a target, which may be a whole URI (RFC 9112, 3.2.2), without its query.
fn path_of(target: &str) -> &str {
    let rest = target.split_once("://").filter(|(scheme, _)| !scheme.contains('/')).map(|(_, rest)| rest);
    let path = match rest {
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    path.split(['?', '#']).next().unwrap_or(path)
}

/// The headers of a request.
struct Headers<'h, 'b>(&'h [Header<'b>]);

impl<'h, 'b> Headers<'h, 'b> {
    /// Values of every header with this name.
    fn all(&self, name: &'static str) -> impl Iterator<Item = Result<&'b str, Refusal>> + use<'h, 'b> {
        let headers = self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        headers.map(|header| {
            let value = std::str::from_utf8(header.value).ok().filter(|value| value.is_ascii());
            value
                .map(str::trim)
                .ok_or(Refusal::BadRequest("A header that is needed here has a value that is not ASCII."))
        })
    }

    /// The value of a header that must not be there twice: two servers could each believe another one.
    fn once(&self, name: &'static str) -> Result<Option<&'b str>, Refusal> {
        let mut values = self.all(name);
        let value = values.next().transpose()?;
        match values.next() {
            None => Ok(value),
            Some(_) => Err(Refusal::BadRequest(
                "One of the headers Host, Origin, Authorization, Content-Length, Transfer-Encoding, Sec-WebSocket-Key and \
                 Sec-WebSocket-Version is there twice.",
            )),
        }
    }

    /// Elements of a header that is a list, over all headers with this name.
    fn list(&self, name: &'static str) -> Result<impl Iterator<Item = &'b str> + use<'b>, Refusal> {
        let values: Vec<&'b str> = self.all(name).collect::<Result<_, _>>()?;
        Ok(values.into_iter().flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty()))
    }

    fn has_token(&self, name: &'static str, token: &str) -> Result<bool, Refusal> {
        Ok(self.list(name)?.any(|element| element.eq_ignore_ascii_case(token)))
    }
}

fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES)
}

/// The first of those that the client has asked for, in its order, that is spoken here.
fn choose(asked: &[&str], rules: &Rules) -> Result<Subprotocol, Refusal> {
    let is_token =
        |name: &&str| rules.token_subprotocol_prefix.as_deref().is_some_and(|prefix| name.starts_with(prefix));
    let mut names = asked.iter().filter(|name| !is_token(name)).peekable();
    let spoken = |name: &str| rules.subprotocols.iter().copied().find(|spoken| spoken.name() == name);
    let chosen =
        if names.peek().is_none() { rules.subprotocols.first().copied() } else { names.find_map(|name| spoken(name)) };
    chosen.ok_or(Refusal::BadRequest(
        "None of the subprotocols in \"Sec-WebSocket-Protocol\" is spoken here; ask for ringgate.v1 or \
         ringgate.json.v1.",
    ))
}

/// The first token that is found where the rules allow one.
fn token<'b>(headers: &Headers<'_, 'b>, asked: &[&'b str], rules: &Rules) -> Result<Option<&'b str>, Refusal> {
    if rules.token_in_authorization
        && let Some(value) = headers.once("Authorization")?
        && let Some((scheme, token)) = value.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
    {
        return Ok(Some(token.trim()));
    }
    if let Some(name) = &rules.token_cookie {
        for cookies in headers.all("Cookie") {
            let mut pairs = cookies?.split(';').filter_map(|pair| pair.trim().split_once('='));
            if let Some((_, token)) = pairs.find(|(key, _)| key == name) {
                return Ok(Some(token.trim_matches('"')));
            }
        }
    }
    let in_subprotocol = |prefix: &String| asked.iter().find_map(|name| name.strip_prefix(prefix.as_str()));
    Ok(rules.token_subprotocol_prefix.as_ref().and_then(in_subprotocol))
}

fn answer(key: &str, subprotocol: Subprotocol, was_asked: bool) -> Vec<u8> {
    let accept = accept(key);
    // A client that has not asked takes the answer for a failure if it names one (RFC 6455, 4.1).
    let subprotocol =
        if was_asked { format!("Sec-WebSocket-Protocol: {}\r\n", subprotocol.name()) } else { String::new() };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
         {subprotocol}\r\n"
    )
    .into_bytes()
}

/// `Sec-WebSocket-Accept` for a key: it proves that the server speaks WebSocket, and nothing else, so SHA-1 will do.
fn accept(key: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(ACCEPT_GUID.as_bytes());
    STANDARD.encode(hash.finish())
}

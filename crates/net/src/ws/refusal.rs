//! Answers of HTTP/1.1 to requests that do not become a WebSocket: a status, and a sentence in plain text. Nothing of what the client
//! sent is repeated in them.

use super::{HEAD_BYTES_MAX, HEADERS_MAX};

/// Why a request is not answered with 101. The connection is closed behind the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: it is no request for a WebSocket. The sentence says what is wrong and what would be right.
    BadRequest(&'static str),
    /// 403: the page's origin is not allowed here.
    Origin,
    /// 404: nothing is at that path; this one would be right.
    NotFound(String),
    /// 405: a method other than GET.
    Method,
    /// 426: another version of HTTP or of WebSocket, or no request to change the protocol at all.
    UpgradeRequired(&'static str),
    /// 431: more than [`HEAD_BYTES_MAX`] bytes or [`HEADERS_MAX`] headers.
    HeadTooLarge,
    /// 503: too many connections; to be tried again after so many seconds.
    Unavailable(u32),
}

impl Refusal {
    /// The number of the status.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::BadRequest(_) => 400,
            Refusal::Origin => 403,
            Refusal::NotFound(_) => 404,
            Refusal::Method => 405,
            Refusal::UpgradeRequired(_) => 426,
            Refusal::HeadTooLarge => 431,
            Refusal::Unavailable(_) => 503,
        }
    }

    /// The sentence in the body, also for the log.
    pub fn sentence(&self) -> String {
        match self {
            Refusal::BadRequest(sentence) | Refusal::UpgradeRequired(sentence) => (*sentence).to_owned(),
            Refusal::Origin => {
                "Pages of this origin may not connect. The gateway's configuration lists the origins that may."
                    .to_owned()
            }
            Refusal::NotFound(path) => {
                format!("Nothing is at this path. WebSocket connections are accepted at {path}.")
            }
            Refusal::Method => "A WebSocket connection begins with GET.".to_owned(),
            Refusal::HeadTooLarge => {
                format!("The request is longer than {HEAD_BYTES_MAX} bytes or has more than {HEADERS_MAX} headers.")
            }
            Refusal::Unavailable(seconds) => {
                format!("The gateway has as many connections as it may. Try again in {seconds} s.")
            }
        }
    }

    /// The whole answer.
    pub fn answer(&self) -> Vec<u8> {
        let (reason, header) = match self {
            Refusal::BadRequest(_) => ("Bad Request", String::new()),
            Refusal::Origin => ("Forbidden", String::new()),
            Refusal::NotFound(_) => ("Not Found", String::new()),
            Refusal::Method => ("Method Not Allowed", "Allow: GET\r\n".to_owned()),
            Refusal::UpgradeRequired(_) => {
                ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".to_owned())
            }
            Refusal::HeadTooLarge => ("Request Header Fields Too Large", String::new()),
            Refusal::Unavailable(seconds) => ("Service Unavailable", format!("Retry-After: {seconds}\r\n")),
        };
        // RFC 9110, 15.5.22 and 7.8: Upgrade is named in Connection.
        let connection = if matches!(self, Refusal::UpgradeRequired(_)) { "Upgrade, close" } else { "close" };
        let (status, sentence) = (self.status(), self.sentence());
        let length = sentence.len() + 1;
        format!(
            "HTTP/1.1 {status} {reason}\r\nConnection: {connection}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\n{header}\r\n{sentence}\n"
        )
        .into_bytes()
    }
}

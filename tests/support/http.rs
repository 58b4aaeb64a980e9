//! One HTTP request, for the admin listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case, and values.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of the one sample with this name and these labels, as it is written: `name{label="value"}`.
    pub(crate) fn sample(&self, name: &str) -> f64 {
        let value = self.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no sample {name} in\n{}", self.body)).parse().unwrap()
    }

    /// The sum of a family's samples, of which there is at least one.
    pub(crate) fn family(&self, name: &str) -> f64 {
        let values = self.body.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit(' ').next()
        });
        let values: Vec<f64> = values.map(|value| value.parse().unwrap()).collect();
        assert!(!values.is_empty(), "no sample of {name} in\n{}", self.body);
        values.iter().sum()
    }
}

/// Sends a request without a body and reads the whole answer.
pub(crate) fn http(address: SocketAddr, method: &str, path: &str) -> Answer {
    try_http(address, method, path).unwrap()
}

/// Like [`http`]; an error when nobody listens, or the listener goes before it has answered.
pub(crate) fn try_http(address: SocketAddr, method: &str, path: &str) -> std::io::Result<Answer> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    write!(socket, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {text}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Ok(Answer { status: status.unwrap_or_else(|| panic!("no status in {head}")), headers, body: body.to_owned() })
}

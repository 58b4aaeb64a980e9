//! A small client of the protocol of Redis (RESP 2), blocking, with a deadline for each answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `+OK`
    Simple(String),
    /// `-ERR ...`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3 abc`
    Bulk(Vec<u8>),
    /// A missing value.
    Nil,
    /// `*2 ...`
    Array(Vec<Value>),
}

impl Value {
    /// As text; `None` for lists and nil.
    pub fn text(&self) -> Option<String> {
        match self {
            Value::Simple(text) | Value::Error(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Value::Nil | Value::Array(_) => None,
        }
    }

    /// As a number; `None` if it is not written as one.
    pub fn integer(&self) -> Option<i64> {
        self.text()?.parse().ok()
    }

    /// The values of a list; empty for what is none.
    pub fn list(&self) -> &[Value] {
        match self {
            Value::Array(values) => values,
            _ => &[],
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// Longest array and string that a test's server has reason to send.
const LENGTH_MAX: usize = 64 << 20;

impl Client {
    /// Connects, with this long for connecting and for each answer.
    ///
    /// # Errors
    /// As `TcpStream::connect_timeout`.
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        let mut client = Client { stream: BufReader::new(stream) };
        client.set_timeout(timeout)?;
        Ok(client)
    }

    /// How long [`Self::read`] waits, from now on.
    ///
    /// # Errors
    /// When the timeout is zero.
    pub fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(timeout))
    }

    /// Sends a command and reads its answer. An error that the server answers is a [`Value::Error`].
    ///
    /// # Errors
    /// When the connection breaks, or no answer comes in time.
    pub fn command(&mut self, words: &[&str]) -> io::Result<Value> {
        self.send(words)?;
        self.read()
    }

    /// Sends a command alone.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        self.send_bytes(&words)
    }

    /// As [`Self::send`], of words that are no text.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send_bytes(&mut self, words: &[&[u8]]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes)
    }

    /// The next answer, or message of a subscription.
    ///
    /// # Errors
    /// `WouldBlock` when nothing came in time, `UnexpectedEof` when the server has closed, `InvalidData` for what is no RESP.
    pub fn read(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidData, format!("no RESP: {:?}", String::from_utf8_lossy(&line)));
        let text = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n")).ok_or_else(wrong)?;
        let (kind, rest) = text.split_at_checked(1).ok_or_else(wrong)?;
        let length = || match rest {
            "-1" => Ok(None),
            _ => rest.parse::<usize>().ok().filter(|length| *length <= LENGTH_MAX).map(Some).ok_or_else(wrong),
        };
        Ok(match kind {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(rest.parse().map_err(|_| wrong())?),
            "$" => match length()? {
                None => Value::Nil,
                Some(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Value::Bulk(bytes)
                }
            },
            "*" => match length()? {
                None => Value::Nil,
                Some(length) => Value::Array((0..length).map(|_| self.read()).collect::<io::Result<_>>()?),
            },
            _ => return Err(wrong()),
        })
    }
}

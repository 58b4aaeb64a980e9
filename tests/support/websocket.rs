//! The client's end of a WebSocket: the request by hand, the frames by `tungstenite`, which shares no code with the gateway.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ringgate_core::wire::{RawFrame, Split, split};
use ringgate_net::dial::{Trust, client_tls};
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::DEADLINE;

/// The example of RFC 6455, 1.3, and what it has to be answered with.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

trait Bytes: Read + Write + Send {}
impl<T: Read + Write + Send> Bytes for T {}

/// See the module.
pub(crate) struct WsStream {
    socket: WebSocket<Box<dyn Bytes>>,
    tcp: TcpStream,
    buffer: Vec<u8>,
    used: usize,
    /// Code and reason of the Close frame that came.
    closed: Option<(u16, String)>,
}

/// A request for a WebSocket at `/ws`, with more headers, each with its CR and LF.
pub(crate) fn upgrade_request(more: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: gateway.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

impl WsStream {
    /// Connects, over TLS if there is a certificate to trust, and asks for `ringgate.v1`.
    pub(crate) fn connect(address: SocketAddr, ca_pem: Option<&str>) -> WsStream {
        WsStream::ask(address, ca_pem, "Sec-WebSocket-Protocol: ringgate.v1\r\n")
    }

    /// As [`Self::connect`], with these headers, which ask for `ringgate.v1`.
    pub(crate) fn ask(address: SocketAddr, ca_pem: Option<&str>, headers: &str) -> WsStream {
        WsStream::ask_over(TcpStream::connect(address).unwrap(), ca_pem, headers)
    }

    /// As [`Self::ask`], on a connection that the test has made.
    pub(crate) fn ask_over(tcp: TcpStream, ca_pem: Option<&str>, headers: &str) -> WsStream {
        WsStream::try_ask_over(tcp, ca_pem, headers).unwrap()
    }

    /// As [`Self::ask_over`]; an error when the connection ends before there is an answer.
    pub(crate) fn try_ask_over(tcp: TcpStream, ca_pem: Option<&str>, headers: &str) -> io::Result<WsStream> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        let clone = tcp.try_clone()?;
        let mut bytes: Box<dyn Bytes> = match ca_pem {
            None => Box::new(clone),
            Some(pem) => {
                let config = client_tls(Trust::Pem(pem.as_bytes())).unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                Box::new(StreamOwned::new(ClientConnection::new(config, name).unwrap(), clone))
            }
        };
        bytes.write_all(upgrade_request(headers).as_bytes())?;
        bytes.flush()?;
        // The gateway has nothing to say behind the empty line before the client does.
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            bytes.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
        assert!(head.contains("Sec-WebSocket-Protocol: ringgate.v1\r\n"), "{head}");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let socket = WebSocket::from_raw_socket(bytes, Role::Client, Some(config));
        Ok(WsStream { socket, tcp, buffer: Vec::new(), used: 0, closed: None })
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The bytes as one binary message.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send_message(Message::Binary(bytes.to_vec().into()))
    }

    pub(crate) fn send_message(&mut self, message: Message) -> io::Result<()> {
        self.socket.send(message).map_err(io::Error::other)
    }

    /// Code and reason of the Close frame that came, if one has.
    pub(crate) fn closed(&self) -> Option<(u16, String)> {
        self.closed.clone()
    }

    /// Waits for a message, at most this long. False at the end of the stream.
    pub(crate) fn fill(&mut self, timeout: Duration) -> io::Result<bool> {
        self.tcp.set_read_timeout(Some(timeout))?;
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => self.buffer.extend_from_slice(&bytes),
            Ok(Message::Close(close)) => {
                self.closed = close.map(|close| (close.code.into(), close.reason.as_str().to_owned()));
            }
            Ok(Message::Pong(_)) => {}
            Ok(other) => panic!("the gateway sent {other:?}"),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(false),
            Err(Error::Io(error)) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                ErrorKind::UnexpectedEof => return Ok(false),
                _ => return Err(error),
            },
            Err(error) => panic!("{error}"),
        }
        Ok(true)
    }

    /// The next whole frame among the bytes that have come.
    pub(crate) fn next_frame(&mut self) -> Result<Option<RawFrame<'_>>, String> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let total = self.buffer.len();
        match split(&self.buffer, 64 << 20).map_err(|error| error.label().to_owned())? {
            Split::Frame(frame, rest) => {
                self.used = total - rest.len();
                Ok(Some(frame))
            }
            Split::Incomplete(_) => Ok(None),
        }
    }
}

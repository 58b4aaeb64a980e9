//! A client's connection, forwarded: two sockets, with TLS or without, what has come from each, and what is to go out to it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use ringgate_core::wire::{Kind, Split, split};
use rustls::Connection;

use super::book::Book;

const BODY_BYTES_MAX: usize = 1 << 20;

/// One end of a connection.
pub(super) struct Side {
    pub(super) stream: TcpStream,
    tls: Option<Box<Connection>>,
    incoming: Vec<u8>,
    /// What is to be written, and not before when.
    pub(super) outgoing: VecDeque<(Instant, Vec<u8>)>,
    /// What is being written, as it is on the wire.
    sealed: Vec<u8>,
    /// Nothing more comes.
    pub(super) read_over: bool,
    /// Nothing more goes out once what is there has: the other side sees the end.
    pub(super) ending: bool,
    write_over: bool,
}

impl Side {
    pub(super) fn new(stream: TcpStream, tls: Option<Connection>) -> Side {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let tls = tls.map(|mut tls| {
            // Frames wait for the end of the handshake.
            tls.set_buffer_limit(None);
            Box::new(tls)
        });
        Side {
            stream,
            tls,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            sealed: Vec::new(),
            read_over: false,
            ending: false,
            write_over: false,
        }
    }

    /// Reads what is there.
    pub(super) fn fill(&mut self) {
        let mut buffer = [0; 16_384];
        while !self.read_over {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.read_over = true,
                Ok(count) => self.open(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.read_over = true,
            }
        }
    }

    /// Takes in what has come, decrypted.
    fn open(&mut self, mut bytes: &[u8]) {
        let Some(tls) = &mut self.tls else { return self.incoming.extend_from_slice(bytes) };
        while !bytes.is_empty() && !self.read_over {
            let read = tls.read_tls(&mut bytes);
            self.read_over = read.is_err() || tls.process_new_packets().is_err();
            // It ends with an error when there is nothing more yet.
            let _ = tls.reader().read_to_end(&mut self.incoming);
        }
    }

    /// Takes the next whole frame out: with its header, and what it is.
    pub(super) fn take(&mut self) -> Option<(Kind, Vec<u8>)> {
        let Split::Frame(frame, rest) = split(&self.incoming, BODY_BYTES_MAX).unwrap() else { return None };
        let (kind, length) = (frame.kind, self.incoming.len() - rest.len());
        Some((kind, self.incoming.drain(..length).collect()))
    }

    /// Nothing overtakes what is there already.
    pub(super) fn push(&mut self, due: Instant, frame: Vec<u8>) {
        if !self.ending {
            self.outgoing.push_back((due, frame));
        }
    }

    /// Writes what is due, and what TLS has to say.
    pub(super) fn drain(&mut self, now: Instant) {
        while self.outgoing.front().is_some_and(|(due, _)| *due <= now) {
            let frame = self.outgoing.pop_front().map(|(_, frame)| frame).unwrap_or_default();
            match &mut self.tls {
                None => self.sealed.extend(frame),
                Some(tls) => tls.writer().write_all(&frame).unwrap(),
            }
        }
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.sealed).unwrap();
            }
        }
        while !self.sealed.is_empty() {
            match self.stream.write(&self.sealed) {
                Ok(count) => drop(self.sealed.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It has left.
                Err(_) => {
                    self.sealed.clear();
                    self.outgoing.clear();
                }
            }
        }
        if self.ending && self.outgoing.is_empty() && !self.write_over {
            self.write_over = true;
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.outgoing.front().map(|(due, _)| *due)
    }
}

/// A client's connection, and the proxy's own to the gateway for it.
pub(super) struct Link {
    pub(super) number: usize,
    pub(super) client: Side,
    pub(super) gateway: Side,
    pub(super) user: String,
    /// The client is about to end it.
    pub(super) leaving: bool,
    /// When each Ping without a Pong came.
    pub(super) pings: VecDeque<Instant>,
}

impl Link {
    pub(super) fn new(number: usize, client: Side, gateway: Side) -> Link {
        Link { number, client, gateway, user: String::new(), leaving: false, pings: VecDeque::new() }
    }

    /// No more passes from now on. What the client still sends is read, and so counted.
    pub(super) fn cut(&mut self, book: &mut Book) {
        book.cut.insert(self.number);
        self.client.ending = true;
        self.gateway.outgoing.clear();
        self.gateway.ending = true;
    }

    /// Whether its client reads what is passed.
    pub(super) fn is_open(&self) -> bool {
        !self.client.ending && !self.client.read_over
    }

    pub(super) fn is_over(&self) -> bool {
        self.client.read_over && self.client.write_over && self.gateway.write_over
    }
}

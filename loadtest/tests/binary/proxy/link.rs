//! A client's connection, forwarded: two sockets, what has come from each, and what is to go out to it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use ringgate_core::wire::{Kind, Split, split};

use super::book::Book;

const BODY_BYTES_MAX: usize = 1 << 20;

/// One end of a connection.
pub(super) struct Side {
    pub(super) stream: TcpStream,
    incoming: Vec<u8>,
    /// What is to be written, and not before when.
    pub(super) outgoing: VecDeque<(Instant, Vec<u8>)>,
    /// Nothing more comes.
    pub(super) read_over: bool,
    /// Nothing more goes out once what is there has: the other side sees the end.
    pub(super) ending: bool,
    write_over: bool,
}

impl Side {
    pub(super) fn new(stream: TcpStream) -> Side {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Side {
            stream,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            read_over: false,
            ending: false,
            write_over: false,
        }
    }

    /// Reads what is there.
    pub(super) fn fill(&mut self) {
        let mut buffer = [0; 16_384];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break self.read_over = true,
                Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break self.read_over = true,
            }
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

    /// Writes what is due.
    pub(super) fn drain(&mut self, now: Instant) {
        while let Some((due, mut frame)) = self.outgoing.pop_front() {
            if due > now {
                return self.outgoing.push_front((due, frame));
            }
            match self.stream.write(&frame) {
                Ok(count) if count == frame.len() => {}
                Ok(count) => self.outgoing.push_front((due, frame.split_off(count))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.outgoing.push_front((due, frame)),
                // It has left.
                Err(_) => self.outgoing.clear(),
            }
        }
        if self.ending && !self.write_over {
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
    /// No more passes from now on. What the client still sends is read, and so counted.
    pub(super) fn cut(&mut self, book: &mut Book) {
        book.cut.insert(self.number);
        self.client.ending = true;
        self.gateway.outgoing.clear();
        self.gateway.ending = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.client.read_over && self.client.write_over && self.gateway.write_over
    }
}

//! One plain connection outside a ring: for the few clients that push or that stand by, which need no ring and must not
//! wait for the turns of one.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringgate_core::wire::encode::ConnectRequest;
use ringgate_core::wire::{Encoder, Kind, RawFrame, ServerFrame};

use super::skim::Skim;
use super::tally::goodbye_code;

/// How long a client may take to be signed in before the run is given up.
pub(super) const SIGN_IN_WITHIN: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 256 * 1024;

/// A signed-in client whose socket never blocks.
pub(super) struct Line {
    socket: TcpStream,
    skim: Skim,
    buffer: Vec<u8>,
    /// Frames on their way; what stands before `sent` is in the socket.
    pub(super) out: Vec<u8>,
    sent: usize,
    /// `session` of its Connected: its upper bits are the shard.
    pub(super) session: u64,
}

/// How a connection has ended: with this close code, 0 without a Goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended(pub(super) u16);

impl Line {
    /// Connects, signs in and joins the rooms. The error says what was answered instead.
    pub(super) fn sign_in(gateway: SocketAddr, token: &str, rooms: &[&str]) -> Result<Line, String> {
        let socket =
            TcpStream::connect_timeout(&gateway, SIGN_IN_WITHIN).map_err(|error| format!("connect: {error}"))?;
        socket.set_nodelay(true).and_then(|()| socket.set_nonblocking(true)).map_err(|error| error.to_string())?;
        let mut line =
            Line { socket, skim: Skim::default(), buffer: vec![0; READ_BYTES], out: Vec::new(), sent: 0, session: 0 };
        let rooms: Vec<_> = rooms.iter().map(|room| (*room, None).into()).collect();
        let connect = ConnectRequest {
            token,
            device: "overload",
            client: concat!("ringgate-loadtest/", env!("CARGO_PKG_VERSION")),
            rooms: &rooms,
            ..ConnectRequest::default()
        };
        Encoder::default().connect(&mut line.out, &connect);
        let (deadline, mut missing) = (Instant::now() + SIGN_IN_WITHIN, 1 + rooms.len());
        while missing > 0 {
            let mut session = None;
            let mut refused = None;
            let ended = line.exchange(
                |kind| kind == Kind::Connected || kind == Kind::Error,
                |kind, body| match (kind, ServerFrame::parse(RawFrame { kind, body })) {
                    (Kind::Connected, Ok(ServerFrame::Connected(connected))) => {
                        session = Some(connected.session());
                        missing -= 1;
                    }
                    (Kind::Subscribed, _) => missing = missing.saturating_sub(1),
                    (Kind::Error, Ok(ServerFrame::Error(error))) => refused = Some(error.code()),
                    _ => {}
                },
            );
            line.session = session.unwrap_or(line.session);
            if let Err(Ended(code)) = ended {
                return Err(format!("a client was closed while it signed in, with code {code}"));
            }
            if let Some(code) = refused {
                return Err(format!("a client was refused its room with error {code}"));
            }
            if missing > 0 && Instant::now() > deadline {
                return Err(format!("a client was not signed in within {} s", SIGN_IN_WITHIN.as_secs()));
            }
            if missing > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(line)
    }

    /// The shard that has the session.
    pub(super) fn shard(&self) -> usize {
        (self.session >> 54) as usize
    }

    /// Bytes that the socket has not taken yet.
    pub(super) fn waiting(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Gives up what the socket has not taken, but for the rest of a frame that it has begun; all frames have this length.
    /// Returns the number of those that were given up.
    pub(super) fn give_up(&mut self, frame_bytes: usize) -> usize {
        let (before, whole) = (self.out.len(), self.sent.next_multiple_of(frame_bytes.max(1)));
        self.out.truncate(whole);
        (before - self.out.len()) / frame_bytes.max(1)
    }

    /// Writes and reads what goes without waiting. Answers the gateway's Ping itself.
    pub(super) fn exchange(
        &mut self,
        wants: impl Fn(Kind) -> bool,
        on_frame: impl FnMut(Kind, &[u8]),
    ) -> Result<(), Ended> {
        self.read(wants, on_frame)?;
        self.write()
    }

    fn write(&mut self) -> Result<(), Ended> {
        while self.waiting() > 0 {
            match self.socket.write(&self.out[self.sent..]) {
                Ok(0) => return Err(Ended(0)),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What it says about the end may be there to be read.
                Err(_) => break,
            }
        }
        if self.waiting() == 0 {
            self.out.clear();
            self.sent = 0;
        }
        Ok(())
    }

    fn read(&mut self, wants: impl Fn(Kind) -> bool, mut on_frame: impl FnMut(Kind, &[u8])) -> Result<(), Ended> {
        let Line { socket, skim, buffer, out, .. } = self;
        let mut goodbye = None;
        let wants = |kind| kind == Kind::Goodbye || wants(kind);
        loop {
            let length = match socket.read(buffer) {
                Ok(0) => return Err(Ended(goodbye.unwrap_or(0))),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(Ended(goodbye.unwrap_or(0))),
            };
            let read = skim.read(buffer.get(..length).unwrap_or_default(), wants, |kind, body| match kind {
                Kind::Goodbye => goodbye = Some(goodbye_code(body)),
                Kind::Ping => Encoder::empty(out, Kind::ClientPong),
                kind => on_frame(kind, body),
            });
            if read.is_err() {
                return Err(Ended(goodbye.unwrap_or(0)));
            }
            if length < buffer.len() {
                break;
            }
        }
        goodbye.map_or(Ok(()), |code| Err(Ended(code)))
    }
}

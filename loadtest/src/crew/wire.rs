//! What controller and workers say to each other: one JSON value a line, over TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::packed::Packed;
use crate::assignment::{Assignment, Part};
use crate::ledger::Books;
use crate::plan::{Order, Tally};

/// Both ends must have this version. The number is that of the form of these messages.
pub(super) const VERSION: &str = concat!("ringgate-loadtest ", env!("CARGO_PKG_VERSION"), ", crew 7");

/// From the controller.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// The answer to a worker that is taken in: [`VERSION`].
    Hello(String),
    /// The answer to a worker that is refused: the reason.
    Refused(String),
    /// Sent every second, so that a worker notices when its controller is gone.
    Beat,
    /// Asks for the time of the wall clock.
    Probe,
    /// The run begins.
    Start(Box<Start>),
    /// So many connections are wanted from now on, all workers together: plain, TLS.
    Want([usize; 2]),
    /// Something for the clients to do.
    Order(Order),
    /// Send what was recorded, and answer with this number.
    Collect(usize),
    /// The run is over: close all connections and send everything recorded.
    Stop,
}

/// What a worker needs to begin.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// What the run is made of.
    pub(super) assignment: Assignment,
    /// Which part is this worker's.
    pub(super) part: Part,
    /// Id of the run.
    pub(super) run: u64,
    /// The run's zero by the worker's wall clock, in nanoseconds since 1970.
    pub(super) zero_ns: u64,
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromWorker {
    /// The first line: [`VERSION`].
    Hello(String),
    /// The answer to Probe: the wall clock, in nanoseconds since 1970.
    Time(u64),
    /// Its present state.
    Status {
        /// Live counts.
        tally: Box<Tally>,
        /// CPU time of the process so far.
        cpu_ns: u64,
        /// Driver threads.
        threads: usize,
        /// The longest payload that the gateway takes, in bytes; 0 while that is not known.
        message_bytes_max: u32,
    },
    /// What was recorded since the last one.
    Record(Box<Packed>),
    /// The answer to the Collect of this number, after Status and Record.
    Collected(usize),
    /// After Stop: a piece of what its clients know of all messages.
    Books(Box<Books>),
    /// The answer to Stop, after Status, Record and Books. Nothing follows.
    End,
    /// It cannot go on. Nothing follows.
    Failed(String),
}

/// How often the controller sends Beat.
pub(super) const BEATS_EVERY: Duration = Duration::from_secs(1);
/// Longest line before Hello, and after it: a record is a few hundred kilobytes at most.
const HELLO_BYTES_MAX: usize = 4096;
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;
/// How long the other may take to read what was written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// One end of a connection between controller and worker.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    /// What has come of lines that are not complete yet.
    received: Vec<u8>,
    line_bytes_max: usize,
}

impl Wire {
    /// A connection whose other end has not said Hello.
    pub(super) fn new(stream: TcpStream) -> Result<Wire, String> {
        let prepared = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)));
        prepared.map_err(|error| error.to_string())?;
        Ok(Wire { stream, received: Vec::new(), line_bytes_max: HELLO_BYTES_MAX })
    }

    /// The other end has said Hello: its lines may be longer now.
    pub(super) fn trust(&mut self) {
        self.line_bytes_max = LINE_BYTES_MAX;
    }

    /// Sends a message. The error says what became of the other, as all errors here do.
    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), String> {
        let mut line = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.stream.write_all(&line).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("it did not read for {} s", WRITE_TIMEOUT.as_secs())
            }
            _ => format!("its connection ended ({error})"),
        })
    }

    /// The next message; none if it does not come in time.
    pub(super) fn receive<M: DeserializeOwned>(&mut self, timeout: Duration) -> Result<Option<M>, String> {
        let deadline = Instant::now() + timeout;
        let mut searched = 0;
        loop {
            if let Some(end) = self.received[searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=searched + end).collect();
                return match serde_json::from_slice(&line) {
                    Ok(message) => Ok(Some(message)),
                    Err(error) => Err(format!("it sent a line that is no message: {error}")),
                };
            }
            searched = self.received.len();
            if searched > self.line_bytes_max {
                return Err(format!("it sent a line of more than {} bytes", self.line_bytes_max));
            }
            if !self.read(deadline.saturating_duration_since(Instant::now()))? {
                return Ok(None);
            }
        }
    }

    /// Reads what is there; false if nothing comes in time.
    fn read(&mut self, timeout: Duration) -> Result<bool, String> {
        // A timeout of zero would be none at all.
        let timeout = timeout.max(Duration::from_millis(1));
        let mut chunk = [0; 16 << 10];
        match self.stream.set_read_timeout(Some(timeout)).and_then(|()| self.stream.read(&mut chunk)) {
            Ok(0) => Err("its connection ended".to_owned()),
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                Ok(true)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(false),
                ErrorKind::Interrupted => Ok(true),
                _ => Err(format!("its connection ended ({error})")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, Wire) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (other, Wire::new(listener.accept().unwrap().0).unwrap())
    }

    const SOON: Duration = Duration::from_millis(1);
    const LATER: Duration = Duration::from_secs(20);

    #[test]
    fn bytes_are_split_anywhere_then_each_line_is_read() {
        let (mut other, mut wire) = pair();
        other.write_all(b"{\"Hello\":\"x\"}\n\"Bea").unwrap();
        let hello: ToWorker = wire.receive(LATER).unwrap().unwrap();
        assert!(matches!(hello, ToWorker::Hello(version) if version == "x"));
        assert!(wire.receive::<ToWorker>(SOON).unwrap().is_none());
        other.write_all(b"t\"\n").unwrap();
        assert!(matches!(wire.receive(LATER).unwrap(), Some(ToWorker::Beat)));
        drop(other);
        assert_eq!(wire.receive::<ToWorker>(LATER).unwrap_err(), "its connection ended");
    }

    #[test]
    fn line_is_no_message_then_it_is_an_error() {
        let (mut other, mut wire) = pair();
        other.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert!(wire.receive::<FromWorker>(LATER).unwrap_err().contains("no message"));
        let (mut other, mut wire) = pair();
        other.write_all(&[b'x'; 2 * HELLO_BYTES_MAX]).unwrap();
        assert!(wire.receive::<FromWorker>(LATER).unwrap_err().contains("more than 4096 bytes"));
    }
}

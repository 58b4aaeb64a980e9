//! A connection to Redis: made, asked a few questions in order, and then taken apart into what reads and what writes.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::options::{Options, Server, Servers};
use crate::resp::{self, Answer, Answers, Malformed, Value, error_text};
use crate::slots::Slots;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection that is asked one thing after another.
pub(crate) struct Wire {
    read: Reader,
    write: Writer,
    answers: Answers,
    /// The connection, as Redis numbers it; 0 if it did not say.
    pub(crate) client: u64,
}

/// Commands, to be sent together.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    bytes: Vec<u8>,
    count: usize,
}

impl Questions {
    pub(crate) fn put(&mut self, arguments: &[&[u8]]) {
        resp::put(&mut self.bytes, arguments);
        self.count += 1;
    }
}

fn other(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

fn no_protocol(Malformed: Malformed) -> io::Error {
    other("what it answers is not Redis' protocol, or is longer than any answer may be")
}

impl Wire {
    /// Connects, and signs in. Fails after the time to connect.
    pub(crate) async fn to(server: &Server, options: &Options) -> io::Result<Wire> {
        let mut wire = Wire::dial(server, options).await?;
        let mut questions = Questions::default();
        if let Some(password) = &options.password {
            match &options.user {
                Some(user) => questions.put(&[b"AUTH", user.as_bytes(), password.0.as_bytes()]),
                None => questions.put(&[b"AUTH", password.0.as_bytes()]),
            }
        }
        if options.database != 0 {
            questions.put(&[b"SELECT", options.database.to_string().as_bytes()]);
        }
        questions.put(&[b"CLIENT", b"SETNAME", b"ringgate"]);
        questions.put(&[b"CLIENT", b"ID"]);
        let answers = wire.ask(questions, options.connect_timeout).await?;
        // A user who may not name the connection, or ask for its number, may go on without.
        let signed_in = answers.len().saturating_sub(2);
        answers.iter().take(signed_in).try_for_each(refused)?;
        wire.client = answers.last().and_then(Answer::number).unwrap_or(0);
        Ok(wire)
    }

    async fn dial(server: &Server, options: &Options) -> io::Result<Wire> {
        let dialed = async {
            let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
            stream.set_nodelay(true)?;
            let (read, write): (Reader, Writer) = match &options.tls {
                None => {
                    let (read, write) = stream.into_split();
                    (Box::new(read), Box::new(write))
                }
                Some(tls) => {
                    let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
                    let stream = TlsConnector::from(tls.0.clone()).connect(name, stream).await?;
                    let (read, write) = tokio::io::split(stream);
                    (Box::new(read), Box::new(write))
                }
            };
            Ok(Wire { read, write, answers: Answers::default(), client: 0 })
        };
        timeout(options.connect_timeout, dialed).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Asks, and waits for all answers.
    pub(crate) async fn ask(&mut self, questions: Questions, limit: Duration) -> io::Result<Vec<Value>> {
        let Questions { bytes, count } = questions;
        let asked = async {
            self.write.write_all(&bytes).await?;
            self.write.flush().await?;
            let mut answers = Vec::with_capacity(count);
            while answers.len() < count {
                match self.answers.take().map_err(no_protocol)? {
                    Some(answer) => answers.push(answer),
                    None => fill(&mut self.read, self.answers.buffer()).await?,
                }
            }
            Ok(answers)
        };
        timeout(limit, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// From now on whatever is sent is written, in order, and answers come as they do, until either end is dropped or fails.
    /// Answers are handed on in the order in which they came; who does not take them lets Redis wait.
    pub(crate) fn run<T, F>(self, answers: mpsc::Sender<T>, wrap: F) -> Lines
    where
        T: Send + 'static,
        F: Fn(Result<Vec<Value>, io::Error>) -> T + Send + 'static,
    {
        let Wire { mut read, mut write, answers: mut received, client: _ } = self;
        let (out, mut writes) = mpsc::unbounded_channel::<Bytes>();
        let writer = tokio::spawn(async move {
            while let Some(bytes) = writes.recv().await {
                let mut written = write.write_all(&bytes).await;
                if writes.is_empty() && written.is_ok() {
                    written = write.flush().await;
                }
                if written.is_err() {
                    return; // The reader hears of it, too.
                }
            }
        });
        let reader = tokio::spawn(async move {
            loop {
                let mut values = Vec::new();
                loop {
                    match received.take() {
                        Ok(Some(value)) => values.push(value),
                        Ok(None) => break,
                        Err(malformed) => {
                            let _ = answers.send(wrap(Err(no_protocol(malformed)))).await;
                            return;
                        }
                    }
                }
                if !values.is_empty() && answers.send(wrap(Ok(values))).await.is_err() {
                    return;
                }
                if let Err(error) = fill(&mut read, received.buffer()).await {
                    let _ = answers.send(wrap(Err(error))).await;
                    return;
                }
            }
        });
        Lines { out, tasks: [writer, reader] }
    }
}

/// The two directions of a connection. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Lines {
    out: mpsc::UnboundedSender<Bytes>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Lines {
    /// Writes behind what was written before. How much waits is bounded by who sends.
    pub(crate) fn send(&self, bytes: Bytes) {
        // A connection that has failed is heard of by its reader.
        let _ = self.out.send(bytes);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn fill(read: &mut Reader, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(READ_BYTES);
    match read.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// An error that Redis answered.
pub(crate) fn refused(answer: &Value) -> io::Result<()> {
    match answer {
        Value::ServerError(error) => Err(other(error_text(error))),
        _ => Ok(()),
    }
}

/// Where the one master is now. A Cluster has several, of which [`slots`] tells.
pub(crate) async fn master(options: &Options) -> io::Result<Server> {
    let (sentinels, master, password) = match &options.servers {
        Servers::Standalone(server) => return Ok(server.clone()),
        Servers::Sentinel { sentinels, master, password } => (sentinels, master, password),
        Servers::Cluster(_) => return Err(other("a Cluster has no one master")),
    };
    let mut last = other("no sentinel was asked");
    for sentinel in sentinels {
        match master_by(sentinel, master, password.as_ref().map(|password| password.0.as_str()), options).await {
            Ok(server) => return Ok(server),
            Err(error) => last = other(format!("sentinel {sentinel}: {error}")),
        }
    }
    Err(last)
}

/// The slot map of a Cluster, from the first of these nodes that answers.
pub(crate) async fn slots(options: &Options, nodes: &[Server]) -> io::Result<Slots> {
    let mut last = other("no node of the Cluster is known");
    for node in nodes {
        match slots_by(node, options).await {
            Ok(slots) => return Ok(slots),
            Err(error) => last = other(format!("node {node} of the Cluster: {error}")),
        }
    }
    Err(last)
}

async fn slots_by(node: &Server, options: &Options) -> io::Result<Slots> {
    let mut wire = Wire::to(node, options).await?;
    let mut questions = Questions::default();
    questions.put(&[b"CLUSTER", b"SLOTS"]);
    let answers = wire.ask(questions, options.connect_timeout).await?;
    answers.iter().try_for_each(refused)?;
    let slots = answers.first().and_then(|answer| Slots::of(answer, node));
    slots.ok_or_else(|| other("what it answers to CLUSTER SLOTS is not understood"))
}

async fn master_by(sentinel: &Server, master: &str, password: Option<&str>, options: &Options) -> io::Result<Server> {
    let mut wire = Wire::dial(sentinel, options).await?;
    let mut questions = Questions::default();
    if let Some(password) = password {
        questions.put(&[b"AUTH", password.as_bytes()]);
    }
    questions.put(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", master.as_bytes()]);
    let answers = wire.ask(questions, options.connect_timeout).await?;
    answers.iter().try_for_each(refused)?;
    let address = answers.last().and_then(Answer::array).unwrap_or_default();
    let host = address.first().and_then(Answer::text);
    let port = address.get(1).and_then(Answer::number).and_then(|port| u16::try_from(port).ok());
    match (host, port) {
        (Some(host), Some(port)) => Ok(Server { host: host.to_owned(), port }),
        _ => Err(other(format!("it knows no master called {master:?}"))),
    }
}

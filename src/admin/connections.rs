//! The connections of the admin listener: a bounded number of them, and none that stands still can keep a new one out.
//!
//! When all places are taken, the connection that has been idle for longest makes room. Idle since: its accept, or its last
//! whole request, so that a client that trickles bytes gains nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

/// Connections at once.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// The connections that are open.
#[derive(Default)]
pub(super) struct Connections(Mutex<Vec<Entry>>);

struct Entry {
    number: u64,
    idle_since: Instant,
    task: AbortHandle,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        // A list of handles is whole after every change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in that `task` serves. Where all places are taken, the one that is idle for longest is closed.
    pub(super) fn add(&self, number: u64, task: AbortHandle) {
        let mut entries = self.lock();
        while entries.len() >= CONNECTIONS_MAX {
            let oldest = entries.iter().enumerate().min_by_key(|(_, entry)| entry.idle_since);
            let Some(at) = oldest.map(|(at, _)| at) else { break };
            entries.swap_remove(at).task.abort();
        }
        entries.push(Entry { number, idle_since: Instant::now(), task });
    }

    /// A request has come on this connection.
    pub(super) fn on_request(&self, number: u64) {
        if let Some(entry) = self.lock().iter_mut().find(|entry| entry.number == number) {
            entry.idle_since = Instant::now();
        }
    }

    /// This connection has ended.
    pub(super) fn remove(&self, number: u64) {
        self.lock().retain(|entry| entry.number != number);
    }
}

/// A socket whose answers have a deadline each: a peer that does not read, or reads a byte now and then, is not waited for.
pub(super) struct Socket {
    socket: TcpStream,
    timeout: Duration,
    /// When the answer that is being written must be with the kernel; none between answers.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(socket: TcpStream, timeout: Duration) -> Socket {
        Socket { socket, timeout, deadline: None }
    }

    /// A write that has to wait waits until the deadline.
    fn in_time<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let timeout = self.timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        match written {
            Poll::Pending => deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready => ready,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.in_time(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, parts);
        self.in_time(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Called when everything of an answer was written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        if flushed.is_ready() {
            self.deadline = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

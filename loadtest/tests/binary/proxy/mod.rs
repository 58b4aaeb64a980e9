//! A proxy between the load tester and a gateway. It forwards whole frames, does faults to those that it was told to, and keeps
//! a book of what passed and of what it did. Where clients use TLS, it has TLS with them and with the gateway.
//!
//! | file | what |
//! |---|---|
//! | `fault` | what is done, and to which frames |
//! | `book` | what passed, and what a report must say about it |
//! | `link`, `pump` | a connection; the thread that has them all |
//!
//! One thread has all connections, so that the order of what it saw and did is one order. No fault is a matter of chance: frames
//! are counted, and a fault has its places among them.

mod book;
mod fault;
mod link;
mod pump;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ringgate::config::Config;
use ringgate_net::dial::{Trust, client_tls};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

pub(crate) use book::Book;
pub(crate) use fault::{Fault, Points, Subject};
use pump::Pump;

/// What a test waits for comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a gateway is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
}

/// How a proxy has TLS: as a server for clients, and as a client of the gateway, whose certificate it trusts.
struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    fn new() -> Tls {
        let (config, _) = Config::dev(Some(1)).unwrap();
        Tls { server: config.tls.unwrap(), client: client_tls(Trust::Anybody).unwrap() }
    }

    fn server(&self) -> Connection {
        ServerConnection::new(self.server.clone()).unwrap().into()
    }

    fn client(&self) -> Connection {
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(self.client.clone(), name).unwrap().into()
    }
}

/// See the module. Ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    over_tls: bool,
    book: Arc<(Mutex<Book>, Condvar)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// One before a gateway, which does this to the frames of all connections.
    pub(crate) fn start(gateway: Place, over_tls: bool, plan: &[(Fault, Points)]) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let book = Book::of(plan.len());
        let book = Arc::new((Mutex::new(book), Condvar::new()));
        let stop = Arc::<AtomicBool>::default();
        let tls = over_tls.then(Tls::new);
        let pump = Pump::new(gateway, tls, listener, plan);
        let thread = std::thread::spawn({
            let (book, stop) = (book.clone(), stop.clone());
            move || pump.run(&book, &stop)
        });
        Proxy { address, over_tls, book, stop, thread: Some(thread) }
    }

    /// Where clients connect to.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.over_tls { "tls" } else { "tcp" }, self.address)
    }

    /// Waits until the book says this.
    pub(crate) fn wait_until(&self, condition: impl Fn(&Book) -> bool) {
        let (book, changed) = &*self.book;
        let waited = {
            let book = book.lock().unwrap();
            changed.wait_timeout_while(book, PATIENCE, |book| !condition(book)).unwrap().1
        };
        assert!(!waited.timed_out(), "what was waited for has not passed");
    }

    /// The gateway was killed: all connections end, and no others are made. Its process is dead at once, but the kernel may take
    /// seconds to close the sockets that are in its rings when all cores are busy.
    pub(crate) fn gateway_is_gone(&self) {
        self.book.0.lock().unwrap().gateway_is_gone = true;
    }

    /// Ends all connections as `gateway_is_gone` does, but only when a client leaves, so that this client finds no gateway when
    /// it comes back. Waits until then.
    pub(crate) fn gateway_goes_when_a_client_leaves(&self) {
        self.book.0.lock().unwrap().goes_when_a_client_leaves = true;
        self.wait_until(|book| book.gateway_is_gone);
    }

    /// Ends it: what passed.
    pub(crate) fn finish(mut self) -> Book {
        self.end();
        std::mem::take(&mut *self.book.0.lock().unwrap())
    }

    fn end(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

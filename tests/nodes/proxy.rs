//! What stands between a gateway and Redis: passes bytes on, late, not at all, or ends connections, as it is told.
//!
//! Bytes that it holds are passed on when it is opened again, also those of a connection that one side has closed meanwhile: as after
//! a partition, in which segments are sent again until they arrive.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What becomes of bytes, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are passed on.
    Open,
    /// They are passed on, each portion so much later.
    Slow(Duration),
    /// They wait.
    Held,
    /// Connections are ended, and new ones, too.
    Cut,
    /// The proxy itself ends.
    Over,
}

/// See the module. Ends when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    way: Mutex<Way>,
    changed: Condvar,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// In front of this server.
    pub(crate) fn start(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { way: Mutex::new(Way::Open), changed: Condvar::new(), sockets: Mutex::default() });
        let shared = state.clone();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                match shared.way() {
                    Way::Over => return,
                    Way::Cut => drop(client),
                    // A server that is away ends the connection, too.
                    _ => drop(shared.join(client, server)),
                }
            }
        });
        Proxy { address, state }
    }

    /// Where the gateway connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub(crate) fn set(&self, way: Way) {
        *self.state.way.lock().unwrap() = way;
        self.state.changed.notify_all();
        if matches!(way, Way::Cut | Way::Over) {
            self.state.end_all();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Way::Over);
        // Wakes the thread that accepts. Fails when that has ended.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn way(&self) -> Way {
        *self.way.lock().unwrap()
    }

    fn end_all(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            // Fails when it has ended already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Connects to the server, and passes bytes on in both directions.
    fn join(self: &Arc<State>, client: TcpStream, server: SocketAddr) -> std::io::Result<()> {
        let server = TcpStream::connect(server)?;
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
            self.sockets.lock().unwrap().push(socket.try_clone()?);
        }
        // It may have been cut meanwhile.
        if matches!(self.way(), Way::Cut | Way::Over) {
            self.end_all();
        }
        for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            let state = self.clone();
            std::thread::spawn(move || state.pump(from, to));
        }
        Ok(())
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut bytes).unwrap_or(0);
            if !self.wait_for_way(Instant::now()) || read == 0 || to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        // Fails when it has ended already.
        let _ = from.shutdown(Shutdown::Read);
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Waits until bytes that came at this time may be passed on; false when they never may.
    fn wait_for_way(&self, came: Instant) -> bool {
        let mut way = self.way.lock().unwrap();
        loop {
            match *way {
                Way::Open => return true,
                Way::Cut | Way::Over => return false,
                Way::Held => way = self.changed.wait(way).unwrap(),
                Way::Slow(delay) => {
                    let left = (came + delay).saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return true;
                    }
                    way = self.changed.wait_timeout(way, left).unwrap().0;
                }
            }
        }
    }
}

//! A real gateway in this process, on free ports, small.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use ringgate::config::{Config, DEFAULT_ADMIN_PORT, Runtime};
use ringgate::server::{Server, StartError};
use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::limits::Namespace;
use ringgate_core::metrics::{Cell, Cells, ShardMetrics};
use ringgate_core::transport::{Handshake, Transport};
use ringgate_net::dial::Stream;

use super::client::{Client, Login};
use super::wait_until;
use super::websocket::WsStream;

/// For configurations in TOML: one plain listener on a free port.
pub(crate) const LISTENERS: &str = "[[listeners]]\naddress = \"127.0.0.1:0\"\n";

/// `tls.memory` in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsMemory {
    Ordinary,
    Compact,
}

/// See the module.
pub(crate) struct Gateway {
    server: Option<Server>,
    metrics: Vec<Arc<ShardMetrics>>,
    /// The certificate of the TLS listener, which clients trust.
    pub(crate) certificate: String,
    /// Clients' sockets, to be hung up at the end wherever the test has left the clients.
    sockets: Mutex<Vec<TcpStream>>,
}

impl Gateway {
    /// Two shards, development key and certificate, defaults.
    pub(crate) fn start() -> Gateway {
        Gateway::with(|_| {})
    }

    /// As [`Self::start`], with something changed.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Gateway {
        Gateway::try_with(change).unwrap()
    }

    /// One after the other: what TLS connections keep is ordinary, then compact.
    pub(crate) fn of_each_tls_memory() -> impl Iterator<Item = (Gateway, TlsMemory)> {
        [TlsMemory::Ordinary, TlsMemory::Compact].into_iter().map(|memory| (Gateway::with_tls(memory), memory))
    }

    /// What TLS connections keep is of this kind.
    pub(crate) fn with_tls(memory: TlsMemory) -> Gateway {
        Gateway::with(|config| {
            if memory == TlsMemory::Compact {
                config.make_tls_compact();
            }
        })
    }

    /// As [`Self::with`]; the error says why it does not start.
    pub(crate) fn try_with(change: impl FnOnce(&mut Config)) -> Result<Gateway, StartError> {
        let (mut config, certificate) = Config::dev(Some(2)).unwrap();
        config.runtime = small(Some(2));
        // A test that is kept waiting for a core must not run into them.
        (config.settings.inbox.ack_wait_ms, config.settings.inbox.ack_wait_ms_max) = (600_000, 600_000);
        let client = &mut config.settings.client;
        (client.handshake_timeout_ms, client.connect_timeout_ms) = (60_000, 60_000);
        for address in config.listeners.iter_mut().map(|listener| &mut listener.address).chain(&mut config.admin) {
            address.set_port(0);
        }
        change(&mut config);
        Gateway::of(config, certificate)
    }

    /// One namespace, the default one but for its changes.
    pub(crate) fn with_namespace(name: &str, change: impl FnOnce(&mut Namespace)) -> Gateway {
        Gateway::with(|config| {
            let mut namespace = Namespace::named(name);
            change(&mut namespace);
            config.settings.namespaces = vec![namespace];
        })
    }

    /// From a configuration file's text; see [`LISTENERS`]. Two small shards and a free admin port, unless it says more.
    pub(crate) fn toml(text: &str) -> Gateway {
        let mut config = Config::parse(text, "test.toml").unwrap_or_else(|problems| panic!("{problems}"));
        if config.runtime == Runtime::default() {
            config.runtime = small(Some(2));
        }
        if let Some(admin) = config.admin.as_mut().filter(|admin| admin.port() == DEFAULT_ADMIN_PORT) {
            admin.set_port(0);
        }
        Gateway::of(config, String::new()).unwrap()
    }

    fn of(config: Config, certificate: String) -> Result<Gateway, StartError> {
        let server = Server::start(config)?;
        let metrics = server.metrics().to_vec();
        Ok(Gateway { server: Some(server), metrics, certificate, sockets: Mutex::default() })
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("a gateway that runs")
    }

    fn address(&self, transport: Transport) -> SocketAddr {
        let mut listeners = self.server().addresses().iter();
        let listener = listeners.find(|listener| listener.front.transports().any(|one| one == transport));
        listener.unwrap_or_else(|| panic!("no listener for {}", transport.label())).address
    }

    /// Of the plain listener.
    pub(crate) fn tcp(&self) -> SocketAddr {
        self.address(Transport::Plain)
    }

    /// Of the WebSocket listener.
    pub(crate) fn ws(&self) -> SocketAddr {
        self.address(Transport::Ws)
    }

    /// Of the TLS listener.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.address(Transport::Tls)
    }

    /// Of the admin listener.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.server().admin_address().unwrap()
    }

    // Clients.

    /// A plain client that has said nothing yet.
    pub(crate) fn client(&self) -> Client {
        self.hang_up_later(Client::tcp(self.tcp()))
    }

    /// A TLS client that has said nothing yet.
    pub(crate) fn tls_client(&self) -> Client {
        self.hang_up_later(Client::tls(self.tls(), &self.certificate))
    }

    /// A client over WebSocket, or over WebSocket and TLS where there is such a listener, that has said nothing yet.
    pub(crate) fn ws_client(&self, transport: Transport) -> Client {
        let trusted = transport.has_tls().then_some(self.certificate.as_str());
        self.hang_up_later(Client::over_websocket(WsStream::connect(self.address(transport), trusted)))
    }

    /// As [`Self::sign_in`], over WebSocket.
    pub(crate) fn sign_in_over_ws(&self, user: &str) -> Client {
        let mut client = self.ws_client(Transport::Ws);
        client.sign_in(&Login::user(user));
        client
    }

    /// A client on a stream that the test has made.
    pub(crate) fn client_over(&self, stream: Stream) -> Client {
        self.hang_up_later(Client::over(stream))
    }

    /// A user who is signed in, with a development token and the default device.
    pub(crate) fn sign_in(&self, user: &str) -> Client {
        self.sign_in_with(&Login::user(user))
    }

    pub(crate) fn sign_in_with(&self, login: &Login) -> Client {
        let mut client = self.client();
        client.sign_in(login);
        client
    }

    /// The code of the Goodbye that this Connect is answered with.
    pub(crate) fn refused_sign_in(&self, login: &Login) -> u16 {
        match self.client().try_sign_in(login) {
            Ok(connected) => panic!("signed in: {connected:?}"),
            Err(goodbye) => goodbye.code,
        }
    }

    /// A socket with no protocol on it.
    pub(crate) fn raw(&self) -> TcpStream {
        Gateway::raw_at(self.tcp())
    }

    /// A socket to any listener, with no protocol on it.
    pub(crate) fn raw_at(address: SocketAddr) -> TcpStream {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(super::DEADLINE)).unwrap();
        socket
    }

    fn hang_up_later(&self, client: Client) -> Client {
        self.hang_up_socket_later(client.socket());
        client
    }

    /// For a socket that no [`Client`] has.
    pub(crate) fn hang_up_socket_later(&self, socket: &TcpStream) {
        self.sockets.lock().unwrap().push(socket.try_clone().unwrap());
    }

    // Figures.

    /// The figures of each shard.
    pub(crate) fn shards(&self) -> &[Arc<ShardMetrics>] {
        &self.metrics
    }

    /// A figure, summed over the shards.
    pub(crate) fn sum(&self, cell: impl Fn(&ShardMetrics) -> &Cell) -> u64 {
        self.metrics.iter().fold(0, |sum, shard| sum.wrapping_add(cell(shard).read()))
    }

    /// TLS handshakes that ended well: full, resumed.
    pub(crate) fn handshakes(&self) -> [u64; 2] {
        [self.sum(|m| &m.tls_handshakes[Handshake::Full]), self.sum(|m| &m.tls_handshakes[Handshake::Resumed])]
    }

    /// A figure for all values that it is counted by, summed over the shards.
    pub(crate) fn sum_all<E, const N: usize>(&self, cells: impl Fn(&ShardMetrics) -> &Cells<E, N>) -> u64 {
        self.metrics.iter().fold(0, |sum, shard| sum.wrapping_add(cells(shard).sum()))
    }

    /// Waits until a sum over the shards is exactly this.
    pub(crate) fn wait_for(&self, what: &str, wanted: u64, cell: impl Fn(&ShardMetrics) -> &Cell) {
        wait_until(format_args!("{what} = {wanted}"), || self.sum(&cell) == wanted);
    }

    /// Connections closed for this reason, over any transport.
    pub(crate) fn closed(&self, reason: CloseReason) -> u64 {
        Transport::ALL.iter().map(|transport| self.sum(|m| &m.closes[*transport][reason])).sum()
    }

    /// Connections closed, for any reason.
    pub(crate) fn all_closed(&self) -> u64 {
        CloseReason::ALL.iter().map(|reason| self.closed(*reason)).sum()
    }

    /// Requests refused with this code.
    pub(crate) fn refusals(&self, code: ErrorCode) -> u64 {
        self.sum(|metrics| &metrics.errors[code])
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> u64 {
        self.sum_all(|metrics| &metrics.connections_active)
    }

    // The end.

    /// Left minus right of the two equations that always hold when everything is quiet.
    fn imbalance(&self) -> (i64, i64) {
        let left = self.sum(|m| &m.deliveries_owed) as i64;
        let right = self.sum(|m| &m.deliveries_sent)
            + self.sum_all(|m| &m.deliveries_dropped)
            + self.sum(|m| &m.deliveries_queued)
            + self.sum(|m| &m.deliveries_deferred);
        let stored = (self.sum(|m| &m.inbox_stored) + self.sum(|m| &m.inbox_loaded)) as i64;
        let gone = self.sum(|m| &m.inbox_acked)
            + self.sum_all(|m| &m.inbox_expired)
            + self.sum(|m| &m.inbox_pending)
            + self.sum(|m| &m.inbox_unloaded);
        (left - right as i64, stored - gone as i64)
    }

    /// Waits until nothing moves, and checks that every delivery and every stored message is accounted for.
    pub(crate) fn check_conservation(&self) {
        wait_until(Unbalanced(self), || self.imbalance() == (0, 0));
    }

    /// Drains while clients are connected, and returns whether all of them went in time.
    pub(crate) fn shutdown(mut self, at_once: &AtomicBool) -> bool {
        self.server.take().expect("a gateway that runs").shutdown(at_once)
    }

    /// To be called at the end of every test: hangs up, and checks the books and that nothing is left.
    pub(crate) fn finish(mut self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            // Fails when the gateway has closed it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.wait_until_empty();
        let server = self.server.take().expect("a gateway that runs");
        assert!(server.shutdown(&AtomicBool::new(false)), "the gateway did not drain");
    }

    /// Waits until every connection is gone, and checks that nothing of them is left in any gauge.
    pub(crate) fn wait_until_empty(&self) {
        wait_until("no connection is open", || self.connections() == 0);
        self.wait_for("sessions", 0, |m| &m.sessions_active);
        self.wait_for("slots", 0, |m| &m.ring_slots_used);
        self.wait_for("queued deliveries", 0, |m| &m.deliveries_queued);
        self.wait_for("deferred deliveries", 0, |m| &m.deliveries_deferred);
        self.wait_for("bytes in outboxes", 0, |m| &m.outbox_bytes);
        self.check_conservation();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.server.is_some() && !std::thread::panicking() {
            panic!("a test ended without finish(), which is what checks the books");
        }
    }
}

/// Shown with the figures as they are when time is up.
struct Unbalanced<'a>(&'a Gateway);

impl std::fmt::Display for Unbalanced<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "balanced books: (deliveries, inbox) are off by {:?}", self.0.imbalance())
    }
}

/// Small tables and buffers: many gateways run beside each other.
fn small(shards: Option<usize>) -> Runtime {
    Runtime {
        shards,
        pin_cores: false,
        connections_per_shard_max: 512,
        recv_buffers: 64,
        recv_buffer_bytes: 2048,
        accepts_in_flight: 4,
        mailbox_capacity: 1024,
        ..Runtime::default()
    }
}

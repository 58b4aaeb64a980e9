//! A client that comes through the proxy, and what all of them do there.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringgate_core::close::CloseReason;
use ringgate_core::id::Position;
use ringgate_net::dial::{Stream, Trust, client_tls};
use rustls_pki_types::ServerName;
use socket2::{Domain, Socket, Type};

use crate::site::Site;
use crate::support::{Client, Frame, Login, WsStream, wait_until};

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Frames over TLS, which the gateway ends.
    Tls,
    /// WebSocket over TLS, which the gateway ends.
    Wss,
    /// WebSocket over TLS, which the proxy ends.
    WssEndedInFront,
}

/// How long connections are held with something said on them now and then.
const HOLD: Duration = Duration::from_secs(3);
const PAGE: &str = "Sec-WebSocket-Protocol: ringgate.v1\r\nOrigin: https://chat.example.org\r\n";

/// A connection to the proxy from this address of this host.
fn dial(site: &Site, way: Way, from: Ipv4Addr) -> TcpStream {
    let port = if way == Way::WssEndedInFront { &site.front_http } else { &site.front };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port.number)).into()).unwrap();
    socket.into()
}

/// A client from this address that has said nothing yet; none where the connection ends before it can.
pub(crate) fn client(site: &Site, way: Way, from: Ipv4Addr) -> Option<Client> {
    let socket = dial(site, way, from);
    if way != Way::Tls {
        return WsStream::try_ask_over(socket, Some(&site.certificate), PAGE).ok().map(Client::over_websocket);
    }
    let config = client_tls(Trust::Pem(site.certificate.as_bytes())).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    Stream::over(socket, Some((config, name))).ok().map(Client::over)
}

/// A user who is signed in.
pub(crate) struct Guest {
    way: Way,
    user: String,
    pub(crate) client: Client,
    inbox: Option<Position>,
    /// Messages to this user so far, and how many of them have come.
    written: u32,
    read: u32,
}

impl Guest {
    pub(crate) fn come(site: &Site, way: Way, user: &str) -> Guest {
        let client = sign_in(site, way, user, None);
        Guest { way, user: user.to_owned(), client, inbox: None, written: 0, read: 0 }
    }

    /// The name of the gateway that it is on.
    pub(crate) fn node(&self) -> &str {
        &self.client.connected().node
    }

    /// Comes again after the connection has ended, from where it was. Whether nothing is missing, as the gateway says.
    pub(crate) fn come_again(&mut self, site: &Site) -> bool {
        self.client = sign_in(site, self.way, &self.user, self.inbox);
        self.client.connected().inbox_recovered
    }

    /// Reads what was written to it: everything, once, and in order.
    pub(crate) fn read_all(&mut self) {
        while self.read < self.written {
            let message = self.client.message();
            assert_eq!(message.text(), self.read.to_string(), "{}", self.user);
            self.read += 1;
            self.inbox = Some(message.stamp.position);
            self.client.ack(message.stamp.position);
        }
        self.client.ping();
        assert!(self.client.kept().is_empty(), "nothing comes twice: {:?}", self.client.kept());
    }
}

/// Tries until it is signed in, as clients do: a gateway that has just ended may still be there for the proxy.
fn sign_in(site: &Site, way: Way, user: &str, inbox: Option<Position>) -> Client {
    let login = Login { inbox, ..Login::token(site.token(user)) };
    let mut signed_in = None;
    wait_until(format_args!("{user} is signed in"), || {
        signed_in =
            client(site, way, Ipv4Addr::LOCALHOST).and_then(|mut client| client.is_signed_in(&login).then_some(client));
        signed_in.is_some()
    });
    signed_in.unwrap()
}

/// The first writes the next message to the second.
pub(crate) fn write(guests: &mut [Guest], from: usize, to: usize) {
    let (topic, text) = (format!("@{}", guests[to].user), guests[to].written.to_string());
    guests[from].client.publish(&topic, text);
    guests[to].written += 1;
}

/// Those on this gateway.
fn on(guests: &[Guest], node: &str) -> Vec<usize> {
    (0..guests.len()).filter(|guest| guests[*guest].node() == node).collect()
}

/// Guests come, talk for a while, are sent away from one gateway and thrown out by the end of another one, come back through the
/// proxy, and miss nothing. `is_known_to_be_up` says whether the proxy sends new clients to a gateway again.
pub(crate) fn come_stay_and_move(site: &mut Site, way: Way, is_known_to_be_up: impl Fn(&Site, usize) -> bool) {
    let mut guests: Vec<_> = (0..12).map(|number| Guest::come(site, way, &format!("user{number}"))).collect();
    for node in ["gateway1", "gateway2", "gateway3"] {
        assert!(!on(&guests, node).is_empty(), "somebody is on {node}");
    }
    let until = Instant::now() + HOLD;
    while Instant::now() < until {
        for guest in 0..guests.len() {
            let next = (guest + 1) % guests.len();
            write(&mut guests, guest, next);
        }
        guests.iter_mut().for_each(Guest::read_all);
        std::thread::sleep(HOLD / 10);
    }

    // The gateways know clients by their own addresses.
    let mut stranger = client(site, way, Ipv4Addr::new(127, 0, 0, 77)).unwrap();
    assert!(stranger.try_sign_in(&Login::token("no token")).is_err());
    wait_until("a gateway logs the client's address", || site.has_logged("127.0.0.77"));

    // A gateway is drained.
    let (away, writer) = (on(&guests, "gateway2"), on(&guests, "gateway1")[0]);
    let mut drained = site.nodes[1].take().unwrap();
    drained.signal(libc::SIGTERM);
    let mut longest = Duration::ZERO;
    for guest in &away {
        let goodbye = guests[*guest].client.take("Goodbye", |frame| match frame {
            Frame::Goodbye(goodbye) => Some(goodbye.clone()),
            _ => None,
        });
        assert_eq!((goodbye.code, goodbye.reconnect), (CloseReason::Shutdown.code(), true));
        longest = longest.max(Duration::from_millis(goodbye.after_ms.into()));
        // The gateway waits for the client's end; it may have given it up by now.
        let _ = guests[*guest].client.socket().shutdown(Shutdown::Both);
        write(&mut guests, writer, *guest);
    }
    std::thread::sleep(longest);
    for guest in &away {
        assert!(guests[*guest].come_again(site), "nothing is missing");
        assert_ne!(guests[*guest].node(), "gateway2");
        guests[*guest].read_all();
    }
    assert_eq!(drained.ended().code, Some(0));

    // Another one is killed.
    let (away, writer) = (on(&guests, "gateway3"), on(&guests, "gateway1")[0]);
    drop(site.nodes[2].take());
    for guest in &away {
        write(&mut guests, writer, *guest);
    }
    for guest in &away {
        assert!(guests[*guest].come_again(site), "nothing is missing");
        assert_eq!(guests[*guest].node(), "gateway1");
        guests[*guest].read_all();
    }

    // The first one comes back.
    site.nodes[1] = Some(site.start_node(1));
    wait_until("the proxy knows that gateway2 is back", || is_known_to_be_up(site, 1));
    let mut newcomers = 0;
    let newcomer = loop {
        let newcomer = Guest::come(site, way, &format!("newcomer{newcomers}"));
        if newcomer.node() == "gateway2" {
            break newcomer;
        }
        newcomers += 1;
        assert!(newcomers < 300, "nobody comes to gateway2");
        std::thread::sleep(Duration::from_millis(50));
    };
    for guest in 0..guests.len() {
        let next = (guest + 1) % guests.len();
        write(&mut guests, guest, next);
    }
    guests.iter_mut().for_each(Guest::read_all);
    drop(newcomer);
}

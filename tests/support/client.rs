//! A blocking client: signs in, sends, and waits for exactly the frame that a test is about.
//!
//! Frames that nobody has asked for yet are kept in the order in which they came, so a test may look at answers
//! first and at messages later. It answers and acknowledges nothing by itself.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringgate_core::close::CloseReason;
use ringgate_core::id::{ClientMessageId, Position};
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use ringgate_core::wire::{Encoder, Kind, Published, RawFrame, ServerFrame};
use ringgate_net::dial::{Stream, Trust, Url};

use super::frames::{Connected, Frame, Goodbye, History, Message, Presence, Refusal, Subscribed};
use super::websocket::WsStream;
use super::{DEADLINE, dev_token};

/// What a Connect says.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) token: String,
    pub(crate) device: String,
    pub(crate) inbox: Option<Position>,
    pub(crate) rooms: Vec<(String, Option<Position>)>,
    /// 0 for the one that is spoken.
    pub(crate) version: u16,
}

impl Login {
    pub(crate) fn token(token: impl Into<String>) -> Login {
        Login { token: token.into(), device: String::new(), inbox: None, rooms: Vec::new(), version: 0 }
    }

    /// With a token of the development key.
    pub(crate) fn user(user: &str) -> Login {
        Login::token(dev_token(user))
    }

    pub(crate) fn device(mut self, device: &str) -> Login {
        device.clone_into(&mut self.device);
        self
    }

    /// Goes on after this position of the inbox.
    pub(crate) fn resume(mut self, position: Position) -> Login {
        self.inbox = Some(position);
        self
    }

    pub(crate) fn room(mut self, room: &str, since: Option<Position>) -> Login {
        self.rooms.push((room.to_owned(), since));
        self
    }
}

/// What carries frames.
enum Carrier {
    Stream(Stream),
    WebSocket(Box<WsStream>),
}

impl Carrier {
    fn tcp(&self) -> &TcpStream {
        match self {
            Carrier::Stream(stream) => stream.tcp(),
            Carrier::WebSocket(stream) => stream.tcp(),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Carrier::Stream(stream) => stream.send(bytes),
            Carrier::WebSocket(stream) => stream.send(bytes),
        }
    }

    fn fill(&mut self, timeout: Duration) -> io::Result<bool> {
        match self {
            Carrier::Stream(stream) => stream.fill(timeout),
            Carrier::WebSocket(stream) => stream.fill(timeout),
        }
    }

    fn next_frame(&mut self) -> Result<Option<RawFrame<'_>>, String> {
        match self {
            Carrier::Stream(stream) => stream.next_frame(),
            Carrier::WebSocket(stream) => stream.next_frame(),
        }
    }
}

/// See the module.
pub(crate) struct Client {
    stream: Carrier,
    encoder: Encoder,
    request: u32,
    held: VecDeque<Frame>,
    connected: Option<Connected>,
    resets: bool,
}

impl Client {
    /// A plain connection on which nothing was said yet.
    pub(crate) fn tcp(address: SocketAddr) -> Client {
        Client::open(address, false, Trust::Anybody).unwrap()
    }

    /// A TLS connection on which nothing was said yet.
    pub(crate) fn tls(address: SocketAddr, ca_pem: &str) -> Client {
        Client::open(address, true, Trust::Pem(ca_pem.as_bytes())).unwrap()
    }

    /// Plain or TLS; the error says why it does not connect.
    pub(crate) fn open(address: SocketAddr, tls: bool, trust: Trust<'_>) -> Result<Client, String> {
        let url = Url { host: address.ip().to_string(), port: address.port(), others: Vec::new(), tls };
        Stream::connect(&url, trust).map(Client::over)
    }

    /// On a stream that the test has made.
    pub(crate) fn over(stream: Stream) -> Client {
        Client::on(Carrier::Stream(stream))
    }

    /// On a WebSocket.
    pub(crate) fn over_websocket(stream: WsStream) -> Client {
        Client::on(Carrier::WebSocket(Box::new(stream)))
    }

    fn on(stream: Carrier) -> Client {
        // A gateway that does not read must fail a test, not hang it.
        stream.tcp().set_write_timeout(Some(DEADLINE)).unwrap();
        Client {
            stream,
            encoder: Encoder::default(),
            request: 0,
            held: VecDeque::new(),
            connected: None,
            resets: false,
        }
    }

    /// The WebSocket that carries it.
    pub(crate) fn websocket(&mut self) -> &mut WsStream {
        match &mut self.stream {
            Carrier::WebSocket(stream) => stream,
            Carrier::Stream(_) => panic!("there is no WebSocket"),
        }
    }

    /// The socket underneath.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// The answer to Connect.
    pub(crate) fn connected(&self) -> &Connected {
        self.connected.as_ref().expect("signed in")
    }

    /// Ends the connection with a reset, and nothing before it.
    pub(crate) fn reset(mut self) {
        socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO)).unwrap();
        self.resets = true;
    }

    // Sending.

    /// Sends any bytes.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.send(bytes).unwrap();
    }

    /// Sends any bytes to a gateway that may have closed already.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.send(bytes)
    }

    /// Sends what `build` appends.
    pub(crate) fn send(&mut self, build: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let mut out = Vec::new();
        build(&mut self.encoder, &mut out);
        self.send_bytes(&out);
    }

    /// Sends an empty frame.
    pub(crate) fn send_empty(&mut self, kind: Kind) {
        self.send(|_, out| Encoder::empty(out, kind));
    }

    /// Sends a frame with a new request id, which is returned.
    pub(crate) fn send_request(&mut self, build: impl FnOnce(&mut Encoder, &mut Vec<u8>, u32)) -> u32 {
        self.request += 1;
        let request = self.request;
        self.send(|encoder, out| build(encoder, out, request));
        request
    }

    pub(crate) fn ack(&mut self, position: Position) {
        self.send(|_, out| Encoder::ack(out, position));
    }

    /// Publishes without waiting for the answer; returns the request.
    pub(crate) fn send_publish(&mut self, publish: PublishRequest<'_>) -> u32 {
        self.send_request(|encoder, out, request| encoder.publish(out, &PublishRequest { request, ..publish }))
    }

    pub(crate) fn send_connect(&mut self, login: &Login) -> u32 {
        let rooms: Vec<_> = login.rooms.iter().map(|(room, since)| (room.as_str(), *since).into()).collect();
        self.send_request(|encoder, out, request| {
            encoder.connect(
                out,
                &ConnectRequest {
                    request,
                    version: login.version,
                    token: &login.token,
                    device: &login.device,
                    client: "test/1",
                    inbox: login.inbox,
                    rooms: &rooms,
                    ..ConnectRequest::default()
                },
            );
        })
    }

    // Sending and waiting for the answer.

    /// Signs in; or the Goodbye, with the end of the stream behind it.
    pub(crate) fn try_sign_in(&mut self, login: &Login) -> Result<Connected, Goodbye> {
        let request = self.send_connect(login);
        let answer = self.take("Connected or Goodbye", |frame| match frame {
            Frame::Connected(connected) if connected.request == request => Some(Ok(connected.clone())),
            Frame::Goodbye(goodbye) => Some(Err(goodbye.clone())),
            _ => None,
        });
        match &answer {
            Ok(connected) => self.connected = Some(connected.clone()),
            Err(_) => self.expect_end(),
        }
        answer
    }

    pub(crate) fn sign_in(&mut self, login: &Login) -> Connected {
        self.try_sign_in(login).unwrap_or_else(|goodbye| panic!("not signed in: {goodbye:?}"))
    }

    /// Signs in; false when the connection ends instead, with a Goodbye or without one.
    pub(crate) fn is_signed_in(&mut self, login: &Login) -> bool {
        self.send_connect(login);
        match self.read("Connected, or the end of the stream", Instant::now() + DEADLINE) {
            Some(Frame::Connected(connected)) => self.connected = Some(connected),
            Some(Frame::Goodbye(_)) | None => return false,
            Some(other) => panic!("{other:?} instead of Connected"),
        }
        true
    }

    /// Signs in; false when the gateway closes without a word, as it does to connections that it does not admit.
    pub(crate) fn is_admitted(&mut self, login: &Login) -> bool {
        let mut out = Vec::new();
        let (token, device) = (login.token.as_str(), login.device.as_str());
        self.encoder.connect(&mut out, &ConnectRequest { request: 1, token, device, ..ConnectRequest::default() });
        if self.try_send_bytes(&out).is_err() {
            return false;
        }
        match self.read("Connected, or the end of the stream", Instant::now() + DEADLINE) {
            Some(Frame::Connected(connected)) => self.connected = Some(connected),
            Some(Frame::Goodbye(goodbye)) if goodbye.code == CloseReason::Busy.code() => return false,
            Some(other) => panic!("{other:?} instead of Connected"),
            None => return false,
        }
        true
    }

    pub(crate) fn try_publish(&mut self, publish: PublishRequest<'_>) -> Result<Published, Refusal> {
        let request = self.send_publish(publish);
        self.published(request)
    }

    /// The answer to a Publish that was sent before.
    pub(crate) fn published(&mut self, request: u32) -> Result<Published, Refusal> {
        match self.answer(request) {
            Frame::Published(published) => Ok(published),
            Frame::Refused(refusal) => Err(refusal),
            other => panic!("a Publish was answered with {other:?}"),
        }
    }

    /// Publishes with nothing special about it.
    pub(crate) fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Published {
        let publish = PublishRequest { topic, payload: payload.as_ref(), ..PublishRequest::default() };
        self.try_publish(publish).unwrap_or_else(|refusal| panic!("{topic} refused: {refusal:?}"))
    }

    /// Publishes with a client message id.
    pub(crate) fn publish_with_id(&mut self, topic: &str, id: u64, payload: impl AsRef<[u8]>) -> Published {
        let client_message_id = ClientMessageId { high: 7, low: id };
        let payload = payload.as_ref();
        let publish = PublishRequest { topic, payload, client_message_id, ..PublishRequest::default() };
        self.try_publish(publish).unwrap_or_else(|refusal| panic!("{topic} refused: {refusal:?}"))
    }

    pub(crate) fn try_subscribe(&mut self, room: &str, since: Option<Position>) -> Result<Subscribed, Refusal> {
        let request = self.send_request(|encoder, out, request| encoder.subscribe(out, request, (room, since).into()));
        match self.answer(request) {
            Frame::Subscribed(subscribed) => Ok(subscribed),
            Frame::Refused(refusal) => Err(refusal),
            other => panic!("a Subscribe was answered with {other:?}"),
        }
    }

    pub(crate) fn subscribe(&mut self, room: &str) -> Subscribed {
        self.try_subscribe(room, None).unwrap_or_else(|refusal| panic!("{room} refused: {refusal:?}"))
    }

    pub(crate) fn try_unsubscribe(&mut self, room: &str) -> Result<(), Refusal> {
        let request = self.send_request(|encoder, out, request| encoder.unsubscribe(out, request, room));
        match self.answer(request) {
            Frame::Unsubscribed { room: left, code: 0, .. } if left == room => Ok(()),
            Frame::Refused(refusal) => Err(refusal),
            other => panic!("an Unsubscribe was answered with {other:?}"),
        }
    }

    pub(crate) fn try_presence(&mut self, room: &str, limit: u32) -> Result<Presence, Refusal> {
        let request = self.send_request(|encoder, out, request| encoder.presence(out, request, room, limit));
        match self.answer(request) {
            Frame::Presence(presence) => Ok(presence),
            Frame::Refused(refusal) => Err(refusal),
            other => panic!("a Presence was answered with {other:?}"),
        }
    }

    pub(crate) fn try_history(&mut self, topic: &str, since: Option<Position>, limit: u32) -> Result<History, Refusal> {
        let request = self.send_request(|encoder, out, request| {
            encoder.history(out, &HistoryRequest { request, topic, since, limit, ..HistoryRequest::default() })
        });
        match self.answer(request) {
            Frame::History(history) => Ok(history),
            Frame::Refused(refusal) => Err(refusal),
            other => panic!("a History was answered with {other:?}"),
        }
    }

    /// The new end of the session.
    pub(crate) fn try_refresh(&mut self, token: &str) -> Result<u64, Refusal> {
        let request = self.send_request(|encoder, out, request| encoder.refresh(out, request, token));
        match self.answer(request) {
            Frame::Refreshed { expires_at, .. } => Ok(expires_at),
            Frame::Refused(refusal) => Err(refusal),
            other => panic!("a Refresh was answered with {other:?}"),
        }
    }

    /// Ping, and its Pong.
    pub(crate) fn ping(&mut self) {
        self.send_empty(Kind::Ping);
        self.take_pong();
    }

    /// The answer to a Ping.
    pub(crate) fn take_pong(&mut self) {
        self.take("Pong", |frame| matches!(frame, Frame::Pong).then_some(()));
    }

    // Receiving.

    /// The first frame that `pick` takes, among those that came and those that come. Others are kept for later.
    pub(crate) fn take<T>(&mut self, what: &str, pick: impl Fn(&Frame) -> Option<T>) -> T {
        if let Some((index, taken)) = self.held.iter().enumerate().find_map(|(at, f)| pick(f).map(|taken| (at, taken)))
        {
            self.held.remove(index);
            return taken;
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let Some(frame) = self.read(what, deadline) else {
                panic!("the connection ended instead of {what}; before that came {:?}", self.held);
            };
            if let Some(taken) = pick(&frame) {
                return taken;
            }
            self.held.push_back(frame);
        }
    }

    /// The frame that answers this request.
    pub(crate) fn answer(&mut self, request: u32) -> Frame {
        let pick = |frame: &Frame| (frame.answers() == Some(request)).then(|| frame.clone());
        self.take(&format!("the answer to request {request}"), pick)
    }

    /// The next message of any topic.
    pub(crate) fn message(&mut self) -> Message {
        self.take("a Message", |frame| match frame {
            Frame::Message(message) => Some(message.clone()),
            _ => None,
        })
    }

    /// The next messages, as they came.
    pub(crate) fn messages(&mut self, count: usize) -> Vec<Message> {
        (0..count).map(|_| self.message()).collect()
    }

    /// The payloads of the next messages, as text.
    pub(crate) fn texts(&mut self, count: usize) -> Vec<String> {
        self.messages(count).iter().map(Message::text).collect()
    }

    /// Goodbye with this code, then the end of the stream.
    pub(crate) fn expect_close(&mut self, code: u16) -> Goodbye {
        let goodbye = self.take(&format!("Goodbye {code}"), |frame| match frame {
            Frame::Goodbye(goodbye) => Some(goodbye.clone()),
            _ => None,
        });
        assert_eq!(goodbye.code, code, "{goodbye:?}");
        self.expect_end();
        goodbye
    }

    /// The end of the stream, with no further frame. A client that went on sending may find a reset instead.
    pub(crate) fn expect_end(&mut self) {
        if let Some(frame) = self.read("the end of the stream", Instant::now() + DEADLINE) {
            panic!("{frame:?} instead of the end of the stream");
        }
    }

    /// Everything that comes until the end of the stream, behind what was kept.
    pub(crate) fn rest(&mut self) -> Vec<Frame> {
        let deadline = Instant::now() + DEADLINE;
        let mut frames: Vec<_> = self.held.drain(..).collect();
        while let Some(frame) = self.read("the end of the stream", deadline) {
            frames.push(frame);
        }
        frames
    }

    /// Everything that has come by now, behind what was kept.
    pub(crate) fn arrived(&mut self) -> Vec<Frame> {
        let mut frames: Vec<_> = self.held.drain(..).collect();
        let mut more = true;
        while more {
            // An end or a failure shows when the next frame is waited for.
            more = matches!(self.stream.fill(Duration::from_millis(1)), Ok(true));
            let before = frames.len();
            while let Some(raw) = self.stream.next_frame().unwrap() {
                frames.push(ServerFrame::parse(raw).expect("a good frame").into());
            }
            more &= frames.len() > before;
        }
        frames
    }

    /// Frames that came and that nobody has asked for.
    pub(crate) fn kept(&self) -> Vec<Frame> {
        self.held.iter().cloned().collect()
    }

    /// The next frame off the wire; none at the end of the stream.
    fn read(&mut self, what: &str, deadline: Instant) -> Option<Frame> {
        loop {
            if let Some(raw) = self.stream.next_frame().unwrap() {
                return Some(ServerFrame::parse(raw).expect("a good frame").into());
            }
            assert!(Instant::now() < deadline, "never came: {what}; but {:?}", self.held);
            match self.stream.fill(Duration::from_millis(100)) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error} while waiting for {what}"),
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A shutdown would say that the stream ends, and the reset would come behind that.
        if self.resets {
            return;
        }
        // The gateway that this test runs may hold a second descriptor of the socket. Fails when it is closed already.
        let _ = self.stream.tcp().shutdown(std::net::Shutdown::Both);
    }
}

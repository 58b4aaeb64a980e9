//! `ringgate client`: the smallest chat. Lines typed are published, arriving messages are printed.
//!
//! One blocking socket and one thread that reads lines. It heartbeats, acknowledges its inbox after printing, and
//! ends when its input is answered, when enough has arrived, or when it is told to; it does not reconnect.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

pub use ringgate_net::dial::{Stream, Trust, Url, client_tls};

use crate::logs::is_disguise;
use ringgate_core::id::{ClientMessageId, Position, Stamp};
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};
use ringgate_core::wire::{Encoder, Kind, ServerFrame};

/// Command line of `ringgate client`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Where the gateway is: tcp://HOST:PORT or tls://HOST:PORT.
    #[arg(long)]
    url: Url,
    /// A signed token; `ringgate token` makes one.
    #[arg(long, env = "RINGGATE_TOKEN", hide_env_values = true)]
    token: String,
    /// Send lines to this user; an @ in front of the name may be there. Without this and --room nothing is read, only printed.
    #[arg(long, value_name = "USER", conflicts_with = "room")]
    to: Option<String>,
    /// Join this room and send lines to it.
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    /// Name of this device; the same user and device again takes the session over.
    #[arg(long, default_value = "default")]
    device: String,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Certificates to trust, in PEM form; needed for tls:// unless --insecure.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Trust any certificate; for development.
    #[arg(long)]
    insecure: bool,
    /// End after this many messages have arrived.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Between two looks at the input while the socket is quiet.
const TICK: Duration = Duration::from_millis(20);

struct Chat {
    options: Options,
    stream: Stream,
    encoder: Encoder,
    out: Vec<u8>,
    user: String,
    ping_every: Duration,
    pong_within: Duration,
    last_sent: Instant,
    unanswered_ping: Option<Instant>,
    next_request: u32,
    /// Publishes without an answer.
    waiting: u32,
    refused: bool,
    arrived: u64,
    acknowledged: u64,
}

/// Runs the client until its end.
pub fn run(options: Options) -> Result<(), String> {
    let trust = match &options.ca {
        _ if options.insecure => Trust::Anybody,
        Some(path) => Trust::File(path),
        None if options.url.tls => {
            return Err(
                "tls:// needs --ca FILE with the certificates to trust, or --insecure in development".to_owned()
            );
        }
        None => Trust::Anybody,
    };
    let stream = Stream::connect(&options.url, trust)?;
    let stop = stop_flag()?;
    let mut chat = Chat {
        stream,
        encoder: Encoder::default(),
        out: Vec::new(),
        user: String::new(),
        ping_every: Duration::from_secs(30),
        pong_within: Duration::from_secs(5),
        last_sent: Instant::now(),
        unanswered_ping: None,
        next_request: 1,
        waiting: 0,
        refused: false,
        arrived: 0,
        acknowledged: 0,
        options,
    };
    chat.sign_in()?;
    let sends = chat.options.to.is_some() || chat.options.room.is_some();
    let lines = sends.then(read_lines);
    chat.talk(lines.as_ref(), &stop)?;
    if chat.refused { Err("a message was refused".to_owned()) } else { Ok(()) }
}

/// A thread that reads standard input; it may outlive the client, which then ends the process.
fn read_lines() -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn stop_flag() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).map_err(|error| error.to_string())?;
    }
    Ok(stop)
}

impl Chat {
    fn flush(&mut self) -> Result<(), String> {
        if !self.out.is_empty() {
            self.stream.send(&self.out).map_err(|error| format!("the connection was lost: {error}"))?;
            self.out.clear();
            self.last_sent = Instant::now();
        }
        Ok(())
    }

    fn request(&mut self) -> u32 {
        self.next_request += 1;
        self.next_request
    }

    fn sign_in(&mut self) -> Result<(), String> {
        let connect = ConnectRequest {
            request: 1,
            token: &self.options.token,
            device: &self.options.device,
            client: concat!("ringgate-client/", env!("CARGO_PKG_VERSION")),
            ..ConnectRequest::default()
        };
        self.encoder.connect(&mut self.out, &connect);
        self.flush()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.user.is_empty() {
            if Instant::now() > deadline {
                return Err("the gateway did not answer Connect within 10 s".to_owned());
            }
            self.receive(TICK)?;
        }
        if let Some(room) = self.options.room.clone() {
            let request = self.request();
            self.encoder.subscribe(&mut self.out, request, (&*room, None).into());
            self.waiting += 1;
            self.flush()?;
            while self.waiting > 0 && !self.refused {
                self.receive(TICK)?;
            }
            if self.refused {
                return Err(format!("the gateway refused the room {room}"));
            }
        }
        Ok(())
    }

    /// Sends lines, prints messages, heartbeats; returns at the end.
    fn talk(&mut self, lines: Option<&Receiver<String>>, stop: &AtomicBool) -> Result<(), String> {
        let mut input_ended = false;
        loop {
            while let Some(lines) = lines.filter(|_| !input_ended && self.waiting < 512) {
                match lines.try_recv() {
                    Ok(line) => self.publish(&line),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => input_ended = true,
                }
            }
            self.heartbeat()?;
            self.flush()?;
            let answered = input_ended && self.waiting == 0;
            let counted = self.options.count.is_some_and(|count| self.arrived >= count);
            if counted || (answered && self.options.count.is_none()) || stop.load(Ordering::Relaxed) {
                Encoder::empty(&mut self.out, Kind::Disconnect);
                return self.flush();
            }
            self.receive(TICK)?;
        }
    }

    fn publish(&mut self, line: &str) {
        let topic = match (&self.options.to, &self.options.room) {
            (Some(user), _) => format!("@{}", user.trim_start_matches('@')),
            (None, Some(room)) => room.clone(),
            // Nothing is read then.
            (None, None) => return,
        };
        let request = self.request();
        let client_message_id = ClientMessageId { high: u64::from(std::process::id()) << 32 | 1, low: unique(request) };
        let publish = PublishRequest {
            request,
            topic: &topic,
            client_message_id,
            payload: line.as_bytes(),
            ..PublishRequest::default()
        };
        self.encoder.publish(&mut self.out, &publish);
        self.waiting += 1;
    }

    fn heartbeat(&mut self) -> Result<(), String> {
        if self.unanswered_ping.is_some_and(|since| since.elapsed() > self.pong_within) {
            return Err("the gateway did not answer Ping in time".to_owned());
        }
        if self.unanswered_ping.is_none() && self.last_sent.elapsed() >= self.ping_every {
            Encoder::empty(&mut self.out, Kind::Ping);
            self.unanswered_ping = Some(Instant::now());
        }
        Ok(())
    }

    fn receive(&mut self, timeout: Duration) -> Result<(), String> {
        let open = self.stream.fill(timeout).map_err(|error| format!("the connection was lost: {error}"))?;
        let mut lines = String::new();
        let mut inbox = None;
        while let Some(raw) = self.stream.next_frame()? {
            let frame = ServerFrame::parse(raw).map_err(|error| format!("the gateway sent {}", error.label()))?;
            match frame {
                ServerFrame::Connected(connected) => {
                    connected.user().unwrap_or_default().clone_into(&mut self.user);
                    self.ping_every = Duration::from_millis(connected.ping_interval_ms().max(100).into());
                    self.pong_within = Duration::from_millis(connected.pong_timeout_ms().max(100).into());
                }
                ServerFrame::Ping => Encoder::empty(&mut self.out, Kind::ClientPong),
                ServerFrame::Pong => self.unanswered_ping = None,
                ServerFrame::Published(_) | ServerFrame::Subscribed(_) => self.waiting -= 1,
                ServerFrame::Error(error) => {
                    self.refused = true;
                    self.waiting = self.waiting.saturating_sub(1);
                    // Where it cannot be written, the exit code says it.
                    let (text, code) = (error.message().unwrap_or_default(), error.code());
                    let _ = writeln!(std::io::stderr(), "ringgate: refused: {text} ({code})");
                }
                ServerFrame::Message(message) => {
                    let stamp = message.stamp().map(Stamp::from).unwrap_or_default();
                    let topic = message.topic().unwrap_or_default();
                    if topic.starts_with('@') && stamp.position.offset > 0 {
                        if stamp.position.offset <= self.acknowledged {
                            continue;
                        }
                        self.acknowledged = stamp.position.offset;
                        inbox = Some(stamp.position);
                    }
                    self.arrived += 1;
                    lines.push_str(&show(&message, stamp, self.options.json));
                }
                ServerFrame::Goodbye(goodbye) => {
                    print_out(&lines)?;
                    return Err(format!(
                        "the gateway said goodbye: {} ({})",
                        goodbye.reason().unwrap_or_default(),
                        goodbye.code()
                    ));
                }
                // It asks for none of these, and events of members are not shown.
                ServerFrame::Unsubscribed(_)
                | ServerFrame::PresenceResult(_)
                | ServerFrame::HistoryResult(_)
                | ServerFrame::Refreshed(_)
                | ServerFrame::Joined(_)
                | ServerFrame::Left(_) => {}
            }
        }
        print_out(&lines)?;
        if let Some(position) = inbox {
            self.acknowledge(position);
        }
        self.flush()?;
        if open { Ok(()) } else { Err("the gateway closed the connection".to_owned()) }
    }

    fn acknowledge(&mut self, position: Position) {
        Encoder::ack(&mut self.out, position);
    }
}

/// Different for every message of every run, as far as deduplication asks.
fn unique(request: u32) -> u64 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    ((nanos as u64) << 16) ^ u64::from(request)
}

fn show(message: &ringgate_core::wire::schema::Message<'_>, stamp: Stamp, json: bool) -> String {
    let payload = message.payload().map(|payload| payload.bytes()).unwrap_or_default();
    let (topic, sender) = (message.topic().unwrap_or_default(), message.sender().unwrap_or_default());
    if !json {
        // Names and text from others must not move the cursor, turn the line around or set the title of this terminal.
        let harmless = |c: char| if c != '\t' && (c.is_control() || is_disguise(c)) { '\u{fffd}' } else { c };
        let show = |text: &str| text.chars().map(harmless).collect::<String>();
        let (topic, sender, text) = (show(topic), show(sender), show(&String::from_utf8_lossy(payload)));
        return if topic.starts_with('@') {
            format!("{sender}> {text}\n")
        } else {
            format!("{topic} {sender}> {text}\n")
        };
    }
    let mut object = serde_json::json!({
        "type": "message",
        "topic": topic,
        "sender": sender,
        "epoch": stamp.position.epoch,
        "offset": stamp.position.offset,
        "message_id": stamp.message_id,
        "timestamp_ms": stamp.timestamp_ms,
    });
    match std::str::from_utf8(payload) {
        Ok(text) => object["payload"] = text.into(),
        Err(_) => {
            use base64::Engine;
            object["payload_base64"] = base64::engine::general_purpose::STANDARD.encode(payload).into();
        }
    }
    if let Some(trace) = message.trace() {
        object["trace"] = trace.into();
    }
    format!("{object}\n")
}

/// Prints; a reader that went away ends the client quietly.
fn print_out(lines: &str) -> Result<(), String> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(format!("standard output cannot be written: {error}")),
        Ok(()) => Ok(()),
    }
}

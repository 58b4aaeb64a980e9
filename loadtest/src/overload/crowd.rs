//! The clients that read, on one ring: they sign in, join their room, count what arrives and acknowledge it where their
//! workload asks for that. The same ring makes the connections of a sign-in storm.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgate_core::close::CloseReason;
use ringgate_core::id::{ConnectionKey, Position, Stamp};
use ringgate_core::outbox::Chunk;
use ringgate_core::slots::Slots;
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::ConnectRequest;
use ringgate_core::wire::{Encoder, Kind, RawFrame, ServerFrame};
use ringgate_net::tls::Handshake;
use ringgate_net::{Bell, Driver, Net, NetOptions, Target};

use super::skim::Skim;
use super::tally::{Tally, goodbye_code};

/// A client: its token, and the room that it joins.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) token: String,
    pub(super) room: Option<String>,
}

/// What the crowd does.
pub(super) enum Role {
    /// Everybody comes and stays.
    Stay {
        members: Vec<Member>,
        /// Every message is acknowledged.
        acknowledge: bool,
    },
    /// Clients come in turn as [`Storm`] says, and leave as soon as they are signed in.
    Storm(Vec<Member>, Arc<Storm>),
}

/// How fast clients of a storm come.
#[derive(Default)]
pub(super) struct Storm {
    /// Connects that are due since the beginning.
    pub(super) due: AtomicU64,
    /// Connects that were begun.
    pub(super) begun: AtomicU64,
    /// Connects that were not begun because [`STORM_MAX`] were under way: the gateway keeps those waiting.
    pub(super) withheld: AtomicU64,
}

/// Clients of a storm that wait to be signed in.
pub(super) const STORM_MAX: usize = 2_000;
/// Of the others.
const CONNECTING_MAX: usize = 128;
/// Connects begun in one turn.
const CONNECTS_PER_TURN: u64 = 64;
/// A source address is used for so many connects in a row: each has ports of its own, and a port rests for a minute
/// after its connection.
const CONNECTS_PER_SOURCE: u64 = 1_000;
const SOURCES: u64 = 250;
const RECV_BUFFERS: u16 = 1024;
const RECV_BUFFER_BYTES: usize = 16 * 1024;
/// Longest sleep.
const NAP: Duration = Duration::from_millis(2);
/// Sockets that are to be closed may take so long.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Starts the thread; it ends when the tally is stopped.
pub(super) fn spawn(gateway: SocketAddr, role: Role, tally: Arc<Tally>) -> Result<JoinHandle<()>, String> {
    let run = move || {
        if let Err(error) = run(gateway, role, &tally) {
            tally.fault(error);
        }
    };
    std::thread::Builder::new().name("crowd".to_owned()).spawn(run).map_err(|error| format!("a thread: {error}"))
}

fn run(gateway: SocketAddr, role: Role, tally: &Arc<Tally>) -> Result<(), String> {
    let bell = Bell::new().map_err(|error| error.to_string())?;
    let slots = match &role {
        Role::Stay { members, .. } => members.len(),
        // Those that are being closed have a slot, too.
        Role::Storm(..) => 2 * STORM_MAX,
    };
    let options = NetOptions {
        slots: slots as u32 + 64,
        recv_buffers: RECV_BUFFERS,
        recv_buffer_bytes: RECV_BUFFER_BYTES,
        accepts_in_flight: 1,
        ..NetOptions::default()
    };
    let mut net = Net::new(options, Arc::default(), &bell).map_err(|error| error.to_string())?;
    let target = Target { address: gateway, tls: None };
    let mut crowd = Crowd {
        role,
        tally: tally.clone(),
        clients: Slots::default(),
        begun: 0,
        connecting: 0,
        delivered: 0,
        dirty: Vec::new(),
        leaving: VecDeque::new(),
        encoder: Encoder::default(),
    };
    while !tally.stopped() {
        let begun = crowd.begin(&mut net, &target)?;
        let busy = net.poll(&mut crowd);
        crowd.flush(&mut net);
        if busy || begun { net.submit() } else { net.wait(NAP) }
    }
    let keys: Vec<_> = crowd.clients.iter().map(|(key, _)| key).collect();
    for key in keys {
        net.close(key, false, &mut crowd);
    }
    let deadline = Instant::now() + LEAVE_WITHIN;
    while net.sockets() > 0 && Instant::now() < deadline {
        net.poll(&mut crowd);
        net.wait(NAP);
    }
    Ok(())
}

struct Client {
    member: usize,
    skim: Skim,
    out: Vec<u8>,
    is_dirty: bool,
    is_ready: bool,
    /// The last position to acknowledge.
    acknowledge: Option<Position>,
    /// The code of the Goodbye, if one has come.
    goodbye: Option<u16>,
    leaves: bool,
}

struct Crowd {
    role: Role,
    tally: Arc<Tally>,
    clients: Slots<Client>,
    begun: u64,
    connecting: usize,
    /// Messages of the bytes that are being read.
    delivered: u64,
    dirty: Vec<ConnectionKey>,
    leaving: VecDeque<ConnectionKey>,
    encoder: Encoder,
}

impl Crowd {
    fn members(&self) -> &[Member] {
        match &self.role {
            Role::Stay { members, .. } | Role::Storm(members, _) => members,
        }
    }

    /// Begins the connects that are due. True when there were any.
    fn begin(&mut self, net: &mut Net, target: &Target) -> Result<bool, String> {
        let (due, room) = match &self.role {
            Role::Stay { members, .. } => (members.len() as u64, CONNECTING_MAX.saturating_sub(self.connecting)),
            Role::Storm(_, storm) => {
                let (due, room) = (storm.due.load(Relaxed), STORM_MAX.saturating_sub(self.connecting));
                if room == 0 {
                    // Nobody waits for a place in the queue: who finds it full has not come.
                    storm.withheld.fetch_add(due.saturating_sub(self.begun), Relaxed);
                    self.begun = due.max(self.begun);
                }
                (due, room)
            }
        };
        let some = due.saturating_sub(self.begun).min(room as u64).min(CONNECTS_PER_TURN);
        for _ in 0..some {
            let lane = self.begun / CONNECTS_PER_SOURCE % SOURCES;
            let source = IpAddr::from([127, 0, 1, lane as u8 + 1]);
            match net.connect(Some(source), target) {
                Ok(key) => {
                    let member = (self.begun % self.members().len().max(1) as u64) as usize;
                    self.clients.insert_at(key, Client::new(member));
                    self.begun += 1;
                    self.connecting += 1;
                    if let Role::Storm(_, storm) = &self.role {
                        storm.begun.fetch_add(1, Relaxed);
                    }
                }
                // Slots of those that have left are free in a moment.
                Err(error) if error.kind() == std::io::ErrorKind::QuotaExceeded => break,
                Err(error) => return Err(format!("connect: {error}")),
            }
        }
        Ok(some > 0)
    }

    fn flush(&mut self, net: &mut Net) {
        let mut dirty = core::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.is_dirty = false;
            if let Some(position) = client.acknowledge.take() {
                Encoder::ack(&mut client.out, position);
            }
            net.flush(key, self);
        }
        self.dirty = dirty;
        while let Some(key) = self.leaving.pop_front() {
            net.close(key, false, self);
        }
    }

    fn on_frame(&mut self, key: ConnectionKey, kind: Kind, body: &[u8]) {
        let is_storm = matches!(self.role, Role::Storm(..));
        let Some(client) = self.clients.get_mut(key) else { return };
        let has_room = match &self.role {
            Role::Stay { members, .. } => members.get(client.member).is_some_and(|member| member.room.is_some()),
            Role::Storm(..) => false,
        };
        match kind {
            Kind::Message => {
                self.delivered += 1;
                if let Ok(ServerFrame::Message(message)) = ServerFrame::parse(RawFrame { kind, body })
                    && let Some(stamp) = message.stamp()
                {
                    client.acknowledge = Some(Stamp::from(stamp).position);
                    self.mark(key);
                }
            }
            Kind::Connected if is_storm => {
                self.tally.sign_ins.fetch_add(1, Relaxed);
                client.leaves = true;
                self.arrived(key);
                self.leaving.push_back(key);
            }
            Kind::Connected if !has_room => self.arrived(key),
            Kind::Subscribed => self.arrived(key),
            Kind::Ping => {
                Encoder::empty(&mut client.out, Kind::ClientPong);
                self.mark(key);
            }
            Kind::Error => self.tally.refuse(body),
            Kind::Goodbye => client.goodbye = Some(goodbye_code(body)),
            _ => {}
        }
    }

    fn arrived(&mut self, key: ConnectionKey) {
        if let Some(client) = self.clients.get_mut(key)
            && !core::mem::replace(&mut client.is_ready, true)
        {
            self.connecting = self.connecting.saturating_sub(1);
            self.tally.ready.fetch_add(1, Relaxed);
        }
    }

    fn mark(&mut self, key: ConnectionKey) {
        if let Some(client) = self.clients.get_mut(key)
            && !core::mem::replace(&mut client.is_dirty, true)
        {
            self.dirty.push(key);
        }
    }
}

impl Client {
    fn new(member: usize) -> Client {
        Client {
            member,
            skim: Skim::default(),
            out: Vec::new(),
            is_dirty: false,
            is_ready: false,
            acknowledge: None,
            goodbye: None,
            leaves: false,
        }
    }
}

impl Driver for Crowd {
    fn opened(&mut self, key: ConnectionKey, _: SocketAddr, _: Transport, _: bool) -> bool {
        let Crowd { clients, encoder, role, .. } = self;
        let Some(client) = clients.get_mut(key) else { return false };
        let (Role::Stay { members, .. } | Role::Storm(members, _)) = role;
        let Some(member) = members.get(client.member) else { return false };
        let room = member.room.as_deref().map(|room| (room, None).into());
        let connect = ConnectRequest {
            token: &member.token,
            device: "overload",
            client: concat!("ringgate-loadtest/", env!("CARGO_PKG_VERSION")),
            rooms: room.as_slice(),
            ..ConnectRequest::default()
        };
        encoder.connect(&mut client.out, &connect);
        true
    }

    fn secured(&mut self, _: ConnectionKey, _: Handshake) {}

    fn received(&mut self, key: ConnectionKey, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let mut skim = core::mem::take(&mut client.skim);
        let reads_messages = matches!(self.role, Role::Stay { acknowledge: true, .. });
        let wants = |kind| matches!(kind, Kind::Error | Kind::Goodbye) || reads_messages && kind == Kind::Message;
        let read = skim.read(bytes, wants, |kind, body| self.on_frame(key, kind, body));
        self.tally.deliveries.fetch_add(core::mem::take(&mut self.delivered), Relaxed);
        if let Err(error) = read {
            self.tally.fault(format!("the gateway sent {error}"));
            self.leaving.push_back(key);
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.skim = skim;
        }
    }

    fn ended(&mut self, key: ConnectionKey, _: CloseReason) {
        self.leaving.push_back(key);
    }

    fn freed(&mut self, key: ConnectionKey) {
        let Some(client) = self.clients.remove_at(key) else { return };
        if !client.is_ready {
            self.connecting = self.connecting.saturating_sub(1);
        } else if !client.leaves {
            self.tally.ready.fetch_sub(1, Relaxed);
        }
        if !client.leaves && !self.tally.stopped() {
            self.tally.close(client.goodbye.unwrap_or(0));
        }
    }

    fn pull(&mut self, key: ConnectionKey) -> Option<Chunk> {
        let client = self.clients.get_mut(key)?;
        (!client.out.is_empty()).then(|| Chunk::Control(core::mem::take(&mut client.out)))
    }

    fn recycle(&mut self, _: ConnectionKey, _: Vec<u8>) {}
}

//! Every phase of a connection x everything that may happen to it, and every kind of letter x a session that has ended in each
//! way: what is expected of each stands in tables. Nothing panics, and the invariants hold after each step.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;

use super::letter::{
    Attach, History, HistoryResult, PresenceResult, Publish, Published, SentCopy, Subscribe, Subscribed,
};
use super::*;
use crate::close::{AuthError, CloseReason, ErrorCode};
use crate::id::{ClientMessageId, Durability, InboxKey, LocalRoomKey, Position, Recover, RoomKey, Stamp};
use crate::outbox::{Arrival, Delivery};
use crate::session::{Grant, Phase};
use crate::topics::{Attachment, Gap};
use crate::transport::Transport;
use crate::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use crate::wire::{Draft, Kind};

const HERE: ShardId = ShardId(0);
const THERE: ShardId = ShardId(1);
const KEY: ConnectionKey = ConnectionKey { slot: 3, generation: 1 };
const AT_THE_END: Position = Position { epoch: 1, offset: 0 };

/// One of two shards: what the other one would do is done by the test.
struct Rig {
    shard: Shard,
    now: Now,
    posted: Vec<Letter>,
    encoder: Encoder,
}

impl Rig {
    fn new() -> Rig {
        let shard = Shard::new(ShardOptions {
            id: HERE,
            shards: 2,
            settings: Arc::default(),
            metrics: Arc::default(),
            seed: 7,
            run: 1,
        });
        let now = Now { mono_us: 1_000_000, unix_ms: 1_800_000_000_000 };
        Rig { shard, now, posted: Vec::new(), encoder: Encoder::default() }
    }

    fn handle(&mut self, event: Event<'_>) {
        self.shard.handle(event, self.now);
        self.shard.invariants();
        self.take_letters();
    }

    fn take_letters(&mut self) {
        while let Some(effect) = self.shard.poll_effect() {
            match effect {
                Effect::Post(Posted { letter, .. }) => self.posted.push(letter),
                // Every client reads.
                Effect::Writable { connection } => while self.shard.pull(connection, self.now).is_some() {},
                _ => {}
            }
        }
    }

    fn mail_to_edge(&mut self, letter: ToEdge) {
        self.handle(Event::Mail(Letter::ToEdge(letter)));
    }

    fn mail_to_home(&mut self, letter: ToHome) {
        self.handle(Event::Mail(Letter::ToHome(letter)));
    }

    fn say(&mut self, build: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        build(&mut self.encoder, &mut bytes);
        self.handle(Event::Received { connection: KEY, bytes: &bytes });
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_us += ms * 1000;
        self.now.unix_ms += ms;
        while self.shard.advance(self.now) {}
        self.shard.invariants();
        self.take_letters();
    }

    fn phase(&self) -> Option<Phase> {
        self.shard.connections.get(KEY).map(|connection| connection.phase)
    }

    /// A user whose inbox has its home on that shard.
    fn user_at(&self, home: ShardId) -> String {
        (0..).map(|number| format!("user{number}")).find(|user| self.shard.home_of_user(user) == home).unwrap()
    }

    /// A room whose home is that shard.
    fn room_at(&self, home: ShardId) -> String {
        (0..).map(|number| format!("chat:{number}")).find(|room| self.shard.home_of_room(room) == home).unwrap()
    }

    fn open(&mut self, connection: ConnectionKey, transport: Transport) {
        self.handle(Event::Opened {
            connection,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            transport,
            is_open_to_websocket: false,
        });
    }

    fn connect(&mut self) {
        let user = self.user_at(THERE);
        let request = ConnectRequest { request: 1, token: &user, device: "phone", ..Default::default() };
        self.say(|encoder, out| encoder.connect(out, &request));
    }

    fn verified(&mut self, refresh: Option<u32>, error: Option<AuthError>) {
        let grant = Grant { user: self.user_at(THERE), expires_at: 0, rooms: None, device: None };
        let result = error.map_or(Ok(grant), Err);
        self.handle(Event::Verified { connection: KEY, refresh, result });
    }

    fn attached(&mut self) {
        self.mail_to_edge(attached());
    }

    fn disconnect(&mut self) {
        self.say(|_, out| Encoder::empty(out, Kind::Disconnect));
    }

    fn ended(&mut self) {
        self.handle(Event::Ended { connection: KEY, reason: CloseReason::ConnectionReset });
    }

    fn freed(&mut self) {
        self.handle(Event::Freed { connection: KEY });
    }

    /// A shard with one connection in this phase; none for one that is gone.
    fn in_phase(phase: Option<Phase>) -> Rig {
        let mut rig = Rig::new();
        let transport = if phase == Some(Phase::Handshaking) { Transport::Tls } else { Transport::Plain };
        rig.open(KEY, transport);
        if !matches!(phase, Some(Phase::Handshaking | Phase::AwaitConnect)) {
            rig.connect();
        }
        if !matches!(phase, Some(Phase::Handshaking | Phase::AwaitConnect | Phase::Verifying)) {
            rig.verified(None, None);
        }
        if matches!(phase, None | Some(Phase::Ready | Phase::Pinged | Phase::Closing)) {
            rig.attached();
        }
        match phase {
            Some(Phase::Pinged) => {
                while rig.phase() == Some(Phase::Ready) {
                    rig.pass(1000);
                }
            }
            Some(Phase::Closing) => rig.disconnect(),
            None => {
                rig.ended();
                rig.freed();
            }
            _ => {}
        }
        assert_eq!(rig.phase(), phase);
        rig.posted.clear();
        rig
    }
}

fn attached() -> ToEdge {
    let attachment = Attachment { taken_over: None, start: 0, recovered: true, position: AT_THE_END };
    let inbox = InboxKey { slot: 9, generation: 1 };
    ToEdge::Attached { to: KEY, home: THERE, inbox, attachment: Box::new(attachment) }
}

/// What a step makes of a connection.
#[derive(Clone, Copy, Debug)]
enum Then {
    Same,
    To(Phase),
    Gone,
    /// The shell does not do this then.
    Never,
}

#[test]
fn event_in_each_phase_then_the_phase_is_as_the_table_says() {
    use Phase::{Attaching, AwaitConnect, Closing, Handshaking, Pinged, Ready, Verifying};
    use Then::{Gone, Never, Same, To};
    const CLOSES: Then = To(Closing);
    let phases = [
        None,
        Some(Handshaking),
        Some(AwaitConnect),
        Some(Verifying),
        Some(Attaching),
        Some(Ready),
        Some(Pinged),
        Some(Closing),
    ];
    type Step = fn(&mut Rig);
    #[rustfmt::skip]
    let table: [(&str, Step, [Then; 8]); 23] = [
        //                                               gone   Handshaking       AwaitConnect   Verifying      Attaching  Ready   Pinged     Closing
        ("opened", |r| r.open(KEY, Transport::Plain),   [To(AwaitConnect), Never, Never,         Never,         Never,     Never,  Never,     Never]),
        ("secured", |r| r.handle(Event::Secured { connection: KEY }),
                                                        [Same,  To(AwaitConnect), Same,          Same,          Same,      Same,   Same,      Same]),
        ("recognised", |r| r.handle(Event::Recognised { connection: KEY, transport: Transport::Ws }),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   Same,      Same]),
        ("forwarded", |r| r.handle(Event::Forwarded { connection: KEY, peer: IpAddr::V4(Ipv4Addr::BROADCAST), is_admitted: true }),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   Same,      Same]),
        ("forwarded, and refused", |r| r.handle(Event::Forwarded { connection: KEY, peer: IpAddr::V4(Ipv4Addr::BROADCAST), is_admitted: false }),
                                                        [Same,  CLOSES,           CLOSES,        CLOSES,        CLOSES,    CLOSES, CLOSES,    Same]),
        ("Connect", Rig::connect,                       [Same,  CLOSES,           To(Verifying), Same,          Same,      CLOSES, CLOSES,    Same]),
        ("Ping", |r| r.say(|_, out| Encoder::empty(out, Kind::Ping)),
                                                        [Same,  CLOSES,           CLOSES,        Same,          Same,      Same,   To(Ready), Same]),
        ("Disconnect", Rig::disconnect,                 [Same,  CLOSES,           CLOSES,        Same,          Same,      CLOSES, CLOSES,    Same]),
        ("garbage", |r| r.say(|_, out| out.extend([0xff; 64])),
                                                        [Same,  CLOSES,           CLOSES,        Same,          Same,      CLOSES, CLOSES,    Same]),
        ("a piece of a frame", |r| r.say(|_, out| { Encoder::empty(out, Kind::Ping); out.truncate(3); }),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   To(Ready), Same]),
        ("a good token", |r| r.verified(None, None),    [Same,  Same,             Same,          To(Attaching), Same,      Same,   Same,      Same]),
        ("a bad token", |r| r.verified(None, Some(AuthError::Signature)),
                                                        [Same,  Same,             Same,          CLOSES,        Same,      Same,   Same,      Same]),
        ("a good token of Refresh", |r| r.verified(Some(2), None),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   Same,      Same]),
        ("a bad token of Refresh", |r| r.verified(Some(2), Some(AuthError::Expired)),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   Same,      Same]),
        ("ended", Rig::ended,                           [Same,  CLOSES,           CLOSES,        CLOSES,        CLOSES,    CLOSES, CLOSES,    Same]),
        ("freed", Rig::freed,                           [Same,  Never,            Never,         Never,         Never,     Never,  Never,     Gone]),
        ("appended", |r| r.handle(Event::Appended { through: 1 }),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   Same,      Same]),
        ("append failed", |r| r.handle(Event::AppendFailed { from: 1 }),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   Same,      Same]),
        ("a topic loaded that nobody asked for", |r| r.handle(Event::Loaded { topic: "@bob".into(), result: Ok(Box::default()) }),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   Same,      Same]),
        ("messages read that nobody asked for", |r| r.handle(Event::Read { read: 1, result: Ok(Box::default()) }),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   Same,      Same]),
        ("ids remembered", |r| r.handle(Event::Remember(Vec::new())),
                                                        [Same,  Same,             Same,          Same,          Same,      Same,   Same,      Same]),
        ("drain", |r| { r.handle(Event::Drain); r.pass(1); },
                                                        [Same,  CLOSES,           CLOSES,        CLOSES,        CLOSES,    CLOSES, CLOSES,    Same]),
        ("an hour", |r| (0..3600).for_each(|_| r.pass(1000)),
                                                        [Same,  CLOSES,           CLOSES,        CLOSES,        CLOSES,    CLOSES, CLOSES,    Same]),
    ];
    for (name, step, expected) in table {
        for (phase, then) in phases.into_iter().zip(expected) {
            let wanted = match then {
                Never => continue,
                Same => phase,
                To(phase) => Some(phase),
                Gone => None,
            };
            let mut rig = Rig::in_phase(phase);
            step(&mut rig);
            assert_eq!(rig.phase(), wanted, "{name} in {phase:?}");
            rig.ended();
            rig.freed();
            assert_eq!(rig.shard.connections(), 0, "{name} in {phase:?}");
            assert_eq!(rig.shard.metrics.sessions_active.read(), 0, "{name} in {phase:?}");
        }
    }
}

/// How a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its socket is being closed.
    Closing,
    /// Its socket is being closed, because a newer session has taken its device over.
    TakenOver,
    /// Its slot is free.
    Closed,
    /// Another connection has its slot.
    Replaced,
}

fn kind(letter: &Letter) -> &'static str {
    match letter {
        Letter::ToHome(letter) => match letter {
            ToHome::Attach(_) => "Attach",
            ToHome::Detach { .. } => "Detach",
            ToHome::Publish(_) => "Publish",
            ToHome::Copy(_) => "Copy",
            ToHome::Ack { .. } => "Ack",
            ToHome::CatchUp { .. } => "CatchUp",
            ToHome::Subscribe(_) => "Subscribe",
            ToHome::Unsubscribe { .. } => "Unsubscribe",
            ToHome::Presence { .. } => "Presence",
            ToHome::History(_) => "History",
            ToHome::Credit { .. } => "Credit",
        },
        Letter::ToEdge(letter) => match letter {
            ToEdge::Attached { .. } => "Attached",
            ToEdge::Refused { .. } => "Refused",
            ToEdge::Unavailable { .. } => "Unavailable",
            ToEdge::Published(_) => "Published",
            ToEdge::Failed { .. } => "Failed",
            ToEdge::Deliver { .. } => "Deliver",
            ToEdge::CaughtUp { .. } => "CaughtUp",
            ToEdge::Subscribed(_) => "Subscribed",
            ToEdge::PresenceResult(_) => "PresenceResult",
            ToEdge::HistoryResult(_) => "HistoryResult",
            ToEdge::LookupFailed { .. } => "LookupFailed",
            ToEdge::NotSubscribed { .. } => "NotSubscribed",
            ToEdge::StartOver { .. } => "StartOver",
            ToEdge::Fanout { .. } => "Fanout",
        },
    }
}

const KINDS_TO_EDGE: usize = 14;
const KINDS_TO_HOME: usize = 11;

fn delivery() -> Delivery {
    Delivery { frame: Bytes::from_static(b"a message"), arrival: Arrival::UNTIMED }
}

const ROOM_AT_HOME: RoomKey = RoomKey { slot: 5, generation: 1 };

impl Rig {
    fn publish(&mut self) {
        let topic = format!("@{}", self.user_at(THERE));
        self.say(|encoder, out| {
            encoder.publish(out, &PublishRequest { request: 5, topic: &topic, ..Default::default() })
        });
    }

    fn subscribe(&mut self) {
        let room = self.room_at(THERE);
        self.say(|encoder, out| encoder.subscribe(out, 6, (&*room, None).into()));
    }

    fn presence(&mut self) {
        let room = self.room_at(THERE);
        self.say(|encoder, out| encoder.presence(out, 7, &room, 10));
    }

    fn history(&mut self) {
        let room = self.room_at(THERE);
        self.say(|encoder, out| {
            encoder.history(out, &HistoryRequest { request: 8, topic: &room, ..Default::default() })
        });
    }

    /// Joins a room, and the home has answered.
    fn join(&mut self) {
        self.subscribe();
        let subscribed = self.subscribed();
        self.mail_to_edge(subscribed);
    }

    /// The room that the session joined, as its Subscribe names it.
    fn local(&self) -> LocalRoomKey {
        let subscribe = self.posted.iter().find_map(|letter| match letter {
            Letter::ToHome(ToHome::Subscribe(subscribe)) => Some(subscribe.local),
            _ => None,
        });
        subscribe.expect("it has asked to join")
    }

    fn subscribed(&self) -> ToEdge {
        ToEdge::Subscribed(Box::new(Subscribed {
            to: KEY,
            request: 6,
            local: self.local(),
            room: ROOM_AT_HOME,
            recovered: true,
            position: AT_THE_END,
            start: 0,
            counted: true,
        }))
    }
}

#[test]
fn letter_to_a_session_that_has_ended_then_only_its_home_is_told() {
    type Ask = fn(&mut Rig);
    type Say = fn(&Rig) -> ToEdge;
    let no_request: Ask = |_| {};
    // What the session had asked before it ended, what comes, and what is posted for it.
    let table: [(Phase, Ask, Say, &[&str]); 15] = [
        (Phase::Attaching, no_request, |_| attached(), &["Detach"]),
        (Phase::Ready, no_request, |_| ToEdge::Refused { to: KEY, reason: CloseReason::TakenOver }, &[]),
        (Phase::Attaching, no_request, |_| ToEdge::Unavailable { to: KEY }, &[]),
        (
            Phase::Ready,
            Rig::publish,
            |_| {
                ToEdge::Published(Published {
                    to: KEY,
                    request: 5,
                    client_message_id: ClientMessageId::default(),
                    stamp: Stamp::default(),
                    durability: Durability::Memory,
                    duplicate: false,
                })
            },
            &[],
        ),
        (
            Phase::Ready,
            Rig::publish,
            |_| ToEdge::Failed { to: KEY, request: 5, code: ErrorCode::Overloaded, message: "overloaded" },
            &[],
        ),
        (Phase::Ready, no_request, |_| ToEdge::Deliver { to: KEY, offset: 1, delivery: delivery() }, &[]),
        (
            Phase::Ready,
            no_request,
            |_| {
                let gap = Gap { frames: vec![(1, delivery().frame)], upto: 1, ..Gap::default() };
                ToEdge::CaughtUp {
                    to: KEY,
                    topic: Source::Inbox(InboxKey { slot: 9, generation: 1 }),
                    gap: Box::new(gap),
                }
            },
            &[],
        ),
        (
            Phase::Ready,
            Rig::join,
            |rig| {
                let gap = Gap { frames: vec![(1, delivery().frame)], upto: 1, ..Gap::default() };
                let topic = Source::Room { room: ROOM_AT_HOME, local: rig.local() };
                ToEdge::CaughtUp { to: KEY, topic, gap: Box::new(gap) }
            },
            &[],
        ),
        // The home has counted it in meanwhile.
        (Phase::Ready, Rig::subscribe, Rig::subscribed, &["Unsubscribe"]),
        (
            Phase::Ready,
            Rig::presence,
            |rig| {
                let room = rig.room_at(THERE).into();
                ToEdge::PresenceResult(Box::new(PresenceResult {
                    to: KEY,
                    request: 7,
                    room,
                    count: 0,
                    members: Vec::new(),
                }))
            },
            &[],
        ),
        (
            Phase::Ready,
            Rig::history,
            |rig| {
                ToEdge::HistoryResult(Box::new(HistoryResult {
                    to: KEY,
                    request: 8,
                    topic: rig.room_at(THERE).into(),
                    position: AT_THE_END,
                    frames: Vec::new(),
                    more: false,
                    recovered: true,
                }))
            },
            &[],
        ),
        (
            Phase::Ready,
            Rig::subscribe,
            |rig| ToEdge::NotSubscribed { to: KEY, request: 6, local: rig.local(), counted: true },
            &[],
        ),
        (Phase::Ready, Rig::history, |_| ToEdge::LookupFailed { to: KEY, request: 8 }, &[]),
        (Phase::Ready, Rig::join, |rig| ToEdge::StartOver { local: rig.local() }, &[]),
        // Credit is given back in portions: too little for a letter.
        (
            Phase::Ready,
            Rig::join,
            |rig| ToEdge::Fanout {
                local: rig.local(),
                offset: 1,
                delivery: delivery(),
                without: None,
                home: THERE,
                room: ROOM_AT_HOME,
                logged: true,
                work: Work::of(1, 9),
            },
            &[],
        ),
    ];
    let mut kinds = BTreeSet::new();
    for (phase, ask, say, answers) in table {
        for end in [End::Closing, End::TakenOver, End::Closed, End::Replaced] {
            let mut rig = Rig::in_phase(Some(phase));
            ask(&mut rig);
            let letter = say(&rig);
            match end {
                End::TakenOver => rig.mail_to_edge(ToEdge::Refused { to: KEY, reason: CloseReason::TakenOver }),
                _ => rig.ended(),
            }
            if matches!(end, End::Closed | End::Replaced) {
                rig.freed();
            }
            let newer = ConnectionKey { generation: 2, ..KEY };
            if end == End::Replaced {
                rig.open(newer, Transport::Plain);
            }
            rig.posted.clear();
            let sent = rig.shard.metrics.frames_sent.read();
            let letter = Letter::ToEdge(letter);
            let name = kind(&letter);
            kinds.insert(name);
            rig.handle(Event::Mail(letter));
            rig.pass(1);
            assert_eq!(rig.posted.iter().map(kind).collect::<Vec<_>>(), answers, "{name} to a session that is {end:?}");
            assert_eq!(rig.shard.metrics.frames_sent.read(), sent, "{name} to a session that is {end:?}");
            assert_eq!(rig.shard.under_way(), (0, 0), "{name} to a session that is {end:?}");
            let newer_phase = rig.shard.connections.get(newer).map(|connection| connection.phase);
            assert_eq!(newer_phase, (end == End::Replaced).then_some(Phase::AwaitConnect), "{name}");
        }
    }
    assert_eq!(kinds.len(), KINDS_TO_EDGE, "every kind is in the table: {kinds:?}");
}

/// A user of this shard with a session on the other one, in a room of this shard.
struct Guest {
    rig: Rig,
    user: Arc<str>,
    room: Arc<str>,
    inbox: InboxKey,
    room_key: RoomKey,
    from: Address,
    /// The session that takes the device over.
    other: Address,
}

impl Guest {
    fn new() -> Guest {
        let mut rig = Rig::new();
        let (user, room): (Arc<str>, Arc<str>) = (rig.user_at(HERE).into(), rig.room_at(HERE).into());
        let from = Address { shard: THERE, connection: KEY };
        let other = Address { shard: THERE, connection: ConnectionKey { slot: 4, generation: 1 } };
        rig.mail_to_home(attach(&user, from));
        let Some(Letter::ToEdge(ToEdge::Attached { inbox, .. })) = rig.posted.pop() else { panic!("no answer") };
        rig.mail_to_home(subscribe(&room, &user, from));
        let Some(Letter::ToEdge(ToEdge::Subscribed(subscribed))) = rig.posted.pop() else { panic!("no answer") };
        let room_key = subscribed.room;
        let mut guest = Guest { rig, user, room, inbox, room_key, from, other };
        // One message waits in the inbox, one broadcast is under way.
        let topics = [format!("@{}", guest.user), guest.room.to_string()];
        for topic in topics {
            let letter = guest.publish(&topic);
            guest.rig.mail_to_home(letter);
        }
        guest.rig.posted.clear();
        guest
    }

    fn publish(&self, topic: &str) -> ToHome {
        ToHome::Publish(Box::new(Publish {
            from: self.from,
            request: 5,
            namespace: 0,
            client_message_id: ClientMessageId::default(),
            dedup_key: None,
            refused: None,
            draft: Draft::new(topic, &self.user, b"hello", None),
            ephemeral: false,
            ttl_ms: 0,
            received_us: 1,
        }))
    }
}

fn attach(user: &Arc<str>, from: Address) -> ToHome {
    ToHome::Attach(Box::new(Attach { user: user.clone(), device: "phone".into(), from, resume: None, fence: 0 }))
}

fn subscribe(room: &Arc<str>, user: &Arc<str>, from: Address) -> ToHome {
    ToHome::Subscribe(Box::new(Subscribe {
        room: room.clone(),
        namespace: 0,
        from,
        user: user.clone(),
        device: "phone".into(),
        request: 6,
        since: None,
        recover: Recover::Exact,
        local: LocalRoomKey { slot: 1, generation: 1 },
        counted: true,
    }))
}

#[test]
fn letter_from_a_session_that_has_ended_then_the_home_answers_as_the_table_says() {
    type Say = fn(&Guest) -> ToHome;
    // What is posted for a session that is closing (the home does not know it yet), that was taken over, that is closed.
    let table: [(Say, [&[&str]; 3]); KINDS_TO_HOME] = [
        (|g| attach(&g.user, g.from), [&["Attached"], &["Refused", "Attached"], &["Attached"]]),
        (|g| ToHome::Detach { inbox: g.inbox, from: g.from }, [&[], &[], &[]]),
        (
            |g| g.publish(&format!("@{}", g.user)),
            [&["Deliver", "Published"], &["Deliver", "Published"], &["Published"]],
        ),
        (
            |g| {
                ToHome::Copy(Box::new(SentCopy {
                    from: g.from,
                    draft: Draft::new(&format!("@{}", g.user), &g.user, b"hello", None),
                    message_id: 1,
                    timestamp_ms: 1,
                    ttl_ms: 0,
                    received_us: 1,
                }))
            },
            [&[], &["Deliver"], &[]],
        ),
        (|g| ToHome::Ack { inbox: g.inbox, from: g.from, offset: 1 }, [&[], &[], &[]]),
        (
            |g| ToHome::CatchUp { topic: Source::Inbox(g.inbox), from: g.from, since: 0 },
            [&["CaughtUp"], &["CaughtUp"], &["CaughtUp"]],
        ),
        (
            |g| subscribe(&format!("{}-too", g.room).into(), &g.user, g.from),
            [&["Subscribed"], &["Subscribed"], &["Subscribed"]],
        ),
        (|g| ToHome::Unsubscribe { room: g.room_key, from: g.from, taken_over: false }, [&[], &[], &[]]),
        (
            |g| ToHome::Presence { room: g.room.clone(), from: g.from, request: 7, limit: 10 },
            [&["PresenceResult"], &["PresenceResult"], &["PresenceResult"]],
        ),
        (
            |g| {
                let topic = g.room.clone();
                ToHome::History(Box::new(History {
                    topic,
                    from: g.from,
                    request: 8,
                    since: None,
                    before: None,
                    limit: 10,
                }))
            },
            [&["HistoryResult"], &["HistoryResult"], &["HistoryResult"]],
        ),
        (
            |g| {
                let work = g.rig.shard.ways.owed(THERE);
                ToHome::Credit {
                    from: THERE,
                    credit: Box::new(Credit { work, rooms: vec![(g.room_key, work.deliveries)] }),
                }
            },
            [&[], &[], &[]],
        ),
    ];
    let mut kinds = BTreeSet::new();
    for (say, expected) in table {
        for (end, answers) in [End::Closing, End::TakenOver, End::Closed].into_iter().zip(expected) {
            let mut guest = Guest::new();
            match end {
                End::TakenOver => guest.rig.mail_to_home(attach(&guest.user, guest.other)),
                End::Closed => guest.rig.mail_to_home(ToHome::Detach { inbox: guest.inbox, from: guest.from }),
                End::Closing | End::Replaced => {}
            }
            guest.rig.posted.clear();
            let letter = say(&guest);
            let letter = Letter::ToHome(letter);
            let name = kind(&letter);
            kinds.insert(name);
            guest.rig.handle(Event::Mail(letter));
            let posted: Vec<_> = guest.rig.posted.iter().map(kind).collect();
            assert_eq!(posted, answers, "{name} from a session that is {end:?}");
            let metrics = &guest.rig.shard.metrics;
            // An Ack moves the cursor of the session that has the device, and of no other.
            let stored = 1 + u64::from(name == "Publish") + u64::from(name == "Copy" && end != End::Closing);
            let pending = if name == "Ack" && end == End::Closing { 0 } else { stored };
            assert_eq!(metrics.inbox_pending.read(), pending, "{name} from a session that is {end:?}");
            let connected: Vec<_> = guest.rig.shard.homes.addresses(guest.inbox).collect();
            let wanted = match (name, end) {
                ("Attach", _) => vec![guest.from],
                (_, End::TakenOver) => vec![guest.other],
                ("Detach", _) | (_, End::Closed) => vec![],
                _ => vec![guest.from],
            };
            assert_eq!(connected, wanted, "{name} from a session that is {end:?}");
        }
    }
    assert_eq!(kinds.len(), KINDS_TO_HOME, "every kind is in the table: {kinds:?}");
}

/// A table with as many places as one home has names must not see them in a part of its places only.
#[test]
fn names_have_one_home_then_they_lie_everywhere_in_a_table() {
    const PLACES: u64 = 1024;
    for shards in [1, 64, 256] {
        let shard = Shard::new(ShardOptions {
            id: HERE,
            shards,
            settings: Arc::default(),
            metrics: Arc::default(),
            seed: 7,
            run: 1,
        });
        let names = (0..).map(|number| format!("chat:{number}"));
        let of_home = names.filter(|name| shard.home_of_room(name) == HERE).take(PLACES as usize);
        let mut taken = vec![false; PLACES as usize];
        of_home.for_each(|name| taken[(shard.hash.hash_one(&*name) % PLACES) as usize] = true);
        // Thrown at random, 1 - 1/e of the places are taken: 647.
        let taken = taken.iter().filter(|taken| **taken).count();
        assert!((580..720).contains(&taken), "{taken} of {PLACES} places with {shards} shards");
    }
}

//! Every bound of the core, with its default: what `config` fills in and what nothing below may exceed.
//!
//! Values are frozen at start. Units are in the names. 0 means "no limit" only where a field says so.

use crate::id::Durability;

/// Bytes of the frame header.
pub const HEADER_BYTES: usize = 8;
/// What a frame's body may need beyond its payload: names, ids, FlatBuffers tables.
pub const BODY_OVERHEAD_BYTES: usize = 4 * 1024;
/// Longest user id, device name or room name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest traceparent, in bytes.
pub const TRACE_BYTES_MAX: usize = 64;
/// Most rooms in one Connect.
pub const CONNECT_ROOMS_MAX: usize = 128;
/// Longest body of a Connect: a full set of rooms and the longest token. As much may wait unread behind it.
pub const CONNECT_BODY_BYTES_MAX: usize =
    TOKEN_BYTES_MAX + CONNECT_ROOMS_MAX * (NAME_BYTES_MAX + 64) + BODY_OVERHEAD_BYTES;
/// Most members in one answer to Presence.
pub const PRESENCE_MEMBERS_MAX: u32 = 1000;
/// Most messages in one answer to History.
pub const HISTORY_MESSAGES_MAX: u32 = 300;
/// Bytes after which an answer to History says `more` instead of growing.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024;
/// Most shards of a node: 8 bits of a message id, 10 of [`crate::id::Address::to_u64`].
pub const SHARDS_MAX: usize = 1 << 8;
/// Most nodes: 10 bits of a message id.
pub const NODES_MAX: usize = 1 << 10;
/// Most connections of a shard: 30 bits of the same.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 1 << 24;

/// When a client that found the gateway full or late may try again, at the earliest. What it is told has a spread added, as
/// the client adds none.
pub const BUSY_AFTER_MS: u32 = 5_000;
/// When a client may try again whose session the engine could not serve, at the earliest. A spread is added here, too.
pub const ENGINE_AWAY_AFTER_MS: u32 = 500;
/// The spread for clients that are refused before they are connections, in milliseconds: shorter than this.
pub const BUSY_SPREAD_MS: u32 = 5_000;

/// Use of a shard's log budget, in percent, above which the gateway warns; it may warn again once use fell below the second.
pub const LOG_WARNING_PERCENT: usize = 80;
/// See [`LOG_WARNING_PERCENT`].
pub const LOG_CALM_PERCENT: usize = 70;
/// A publisher's messages may take this many times what is free of a shard's log budget. However many publish as much as they
/// may, something is left for who comes next: with one of them a fifth of the budget, with ten a fortieth. (Shared-memory
/// switches bound their queues so: Choudhury and Hahne, "Dynamic queue length thresholds", 1998.)
pub const PUBLISHER_SHARE_OF_FREE: usize = 4;

/// Longest duration that a configuration may set, in milliseconds: ten years. Sums of it and a time of day cannot overflow.
pub const DURATION_MS_MAX: u64 = 3650 * 24 * 3600 * 1000;
/// Longest ping interval and pong timeout, in milliseconds: a day. Connected carries both in 32 bits.
pub const HEARTBEAT_MS_MAX: u64 = 24 * 3600 * 1000;

/// Longest dedup window, in milliseconds: twelve days. Times in it are kept modulo 2^32 ms, and further ahead could not be told
/// from the past.
pub const DEDUP_WINDOW_MS_MAX: u64 = 12 * 24 * 3600 * 1000;
/// Most client message ids of a shard: they are numbered in 32 bits.
pub const DEDUP_ENTRIES_MAX: usize = u32::MAX as usize / 2;

const _: () = assert!(HEARTBEAT_MS_MAX <= u32::MAX as u64);
const _: () = assert!(DEDUP_WINDOW_MS_MAX <= 1 << 30);
const _: () = assert!(CONNECTIONS_PER_SHARD_MAX <= 1 << 30);
const _: () = assert!(LOG_CALM_PERCENT < LOG_WARNING_PERCENT && LOG_WARNING_PERCENT < 100);
const _: () = assert!(TOKEN_BYTES_MAX > BODY_OVERHEAD_BYTES);

/// What the core is allowed to do, validated by `config` and shared by all shards.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name of the node, in Connected.
    pub node: String,
    /// Number of the node in message ids, 0..1024.
    pub node_number: u16,
    /// Bounds of one client.
    pub client: ClientLimits,
    /// Inboxes.
    pub inbox: InboxSettings,
    /// Namespaces of rooms, by name.
    pub namespaces: Vec<Namespace>,
    /// Bytes of the heap that the logs of one shard take before publishes are refused with `storage full`. A user who publishes
    /// much is refused before, see [`PUBLISHER_SHARE_OF_FREE`].
    pub log_bytes_per_shard_max: usize,
    /// Where messages are kept.
    pub engine: Engine,
    /// How safe a message is that an engine has stored.
    pub engine_durability: Durability,
    /// How long the position of a topic is kept in which nobody is and no message is left.
    pub topic_ttl_ms: u64,
    /// Such topics of one shard; the oldest go first.
    pub quiet_topics_max: usize,
    /// How long a client message id is remembered.
    pub dedup_window_ms: u64,
    /// Most client message ids that one shard remembers; the oldest go first.
    pub dedup_entries_max: usize,
    /// How long a drain waits for clients to go.
    pub shutdown_timeout_ms: u64,
}

/// Where messages are kept before they are delivered and answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// In the topic's log alone: at once.
    #[default]
    Memory,
    /// In a store that is told the stamp, and that says later that it has the message; see `shard::Effect::Append`.
    Store,
    /// In an engine that several nodes share: it gives the place, and tells every node what the others have stored; see
    /// `shard::Event::Arrived`.
    Shared,
}

/// Bounds of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientLimits {
    /// The client sends a Ping this often when it has nothing else to say, unless it wishes another interval.
    pub ping_interval_ms: u64,
    /// The shortest interval that a client may wish.
    pub ping_interval_ms_min: u64,
    /// The longest interval that a client may wish.
    pub ping_interval_ms_max: u64,
    /// The client expects Pong within this time.
    pub pong_timeout_ms: u64,
    /// Silence of this many ping intervals closes the connection.
    pub missed_pings_max: u32,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout_ms: u64,
    /// From accept to a whole Connect.
    pub connect_timeout_ms: u64,
    /// From the first byte of a frame to its last.
    pub frame_timeout_ms: u64,
    /// An outbox that is over its bound or not drained for this long closes the connection.
    pub write_timeout_ms: u64,
    /// Payload bytes of one message.
    pub message_bytes_max: usize,
    /// Bytes of messages waiting in an outbox. Answers wait beside them without a bound of their own: the frames of a client
    /// that has more than 64 KiB of answers to read are not looked at before it has read.
    pub outbox_bytes_max: usize,
    /// Messages waiting in an outbox.
    pub outbox_messages_max: usize,
    /// Rooms of one session.
    pub rooms_max: usize,
    /// Sessions (devices) of one user at once.
    pub sessions_per_user_max: usize,
    /// Requests of one session that wait for an answer.
    pub requests_in_flight_max: usize,
    /// Frames per second of one connection; 0 for no limit.
    pub messages_rate: u32,
    /// Frames that may come at once before the rate counts.
    pub messages_burst: u32,
    /// Bytes per second of one connection; 0 for no limit.
    pub bytes_rate: u32,
    /// Bytes that may come at once before the rate counts.
    pub bytes_burst: u32,
    /// Connections of the node; 0 for no limit.
    pub connections_max: usize,
    /// Connections of one address; 0 for no limit.
    pub connections_per_address_max: usize,
    /// IPv6 addresses that agree in so many bits count as one; 1 to 128.
    pub address_prefix_ipv6: u8,
    /// Accepts per second of the node; 0 for no limit.
    pub accept_rate: u32,
}

/// How inboxes behave.
#[derive(Clone, Debug, PartialEq)]
pub struct InboxSettings {
    /// Messages that wait for a user.
    pub messages_max: usize,
    /// Bytes that they take; one message waits whatever its size.
    pub bytes_max: usize,
    /// How long they wait.
    pub ttl_ms: u64,
    /// Devices of a user that are known, connected or not; who has been away longest goes first.
    pub devices_max: usize,
    /// How long a device is known after it was last connected.
    pub device_ttl_ms: u64,
    /// Messages that wait for a user who has never signed in.
    pub unknown_messages_max: usize,
    /// Bytes of the heap that all users take together, on one shard, who have never signed in. Beyond it, who was written to
    /// longest ago is forgotten with every message.
    pub unknown_bytes_per_shard_max: usize,
    /// Unacknowledged messages on their way to one device.
    pub in_flight_max: u64,
    /// Without Ack for this long they are sent again; doubles with each repetition up to `ack_wait_ms_max`.
    pub ack_wait_ms: u64,
    /// Longest wait between two repetitions.
    pub ack_wait_ms_max: u64,
    /// Who may write to a user: `true` for everyone who is signed in.
    pub publish_all: bool,
    /// A message to another user's inbox is kept in its sender's inbox, too, for the sender's other devices.
    pub copy_to_own_devices: bool,
}

/// What the rooms of one namespace are like. `chat:general` is in namespace `chat`.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// The part of the room name before the first colon.
    pub name: String,
    /// Where messages are kept.
    pub durability: Durability,
    /// Messages kept; 0 for none.
    pub history_size: usize,
    /// How long they are kept.
    pub history_ttl_ms: u64,
    /// Tell members who comes and goes.
    pub join_leave: bool,
    /// Answer Presence.
    pub presence: bool,
    /// Everyone who is signed in may subscribe; else the token must grant it.
    pub subscribe_all: bool,
    /// Everyone who is signed in may publish; else the token must grant it.
    pub publish_all: bool,
    /// A publisher need not be subscribed.
    pub publish_without_subscribe: bool,
    /// The publisher's own session receives the message, too.
    pub echo: bool,
    /// The log vanishes with the last member.
    pub vanish_when_empty: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            node: "ringgate".to_owned(),
            node_number: 0,
            client: ClientLimits::default(),
            inbox: InboxSettings::default(),
            namespaces: vec![Namespace::named("chat")],
            log_bytes_per_shard_max: 512 * 1024 * 1024,
            engine: Engine::Memory,
            engine_durability: Durability::Memory,
            topic_ttl_ms: 30 * 24 * 3600 * 1000,
            quiet_topics_max: 256 * 1024,
            dedup_window_ms: 5 * 60 * 1000,
            dedup_entries_max: 375_000,
            shutdown_timeout_ms: 30_000,
        }
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        ClientLimits {
            ping_interval_ms: 30_000,
            ping_interval_ms_min: 10_000,
            ping_interval_ms_max: 5 * 60 * 1000,
            pong_timeout_ms: 5_000,
            missed_pings_max: 3,
            handshake_timeout_ms: 5_000,
            connect_timeout_ms: 10_000,
            frame_timeout_ms: 30_000,
            write_timeout_ms: 10_000,
            message_bytes_max: 64 * 1024,
            outbox_bytes_max: 1024 * 1024,
            outbox_messages_max: 8 * 1024,
            rooms_max: 128,
            sessions_per_user_max: 16,
            requests_in_flight_max: 1024,
            messages_rate: 1000,
            messages_burst: 5000,
            bytes_rate: 4 * 1024 * 1024,
            bytes_burst: 16 * 1024 * 1024,
            connections_max: 0,
            connections_per_address_max: 0,
            address_prefix_ipv6: 64,
            accept_rate: 0,
        }
    }
}

impl ClientLimits {
    /// The ping interval of a client that wishes this one; 0 for none.
    pub fn ping_interval_of(&self, wished_ms: u32) -> u64 {
        if wished_ms == 0 {
            return self.ping_interval_ms;
        }
        let (min, max) = (self.ping_interval_ms_min, self.ping_interval_ms_max);
        u64::from(wished_ms).clamp(min.min(self.ping_interval_ms), max.max(self.ping_interval_ms))
    }

    /// Silence that closes a connection whose client pings this often.
    pub fn silence_ms_max(&self, ping_interval_ms: u64) -> u64 {
        ping_interval_ms * u64::from(self.missed_pings_max)
    }

    /// Silence after which the gateway asks: two intervals at least, where there is time for it. Most clients are about to
    /// send a Ping of their own, and one look at their deadline then stands for two of those.
    pub fn asked_after_ms(&self, ping_interval_ms: u64) -> u64 {
        let missed = self.missed_pings_max.min(ASKED_BEFORE_MISSED);
        (ping_interval_ms * u64::from(missed)).saturating_sub(self.patience_ms(ping_interval_ms))
    }

    /// How long a client has to answer, at least.
    pub fn patience_ms(&self, ping_interval_ms: u64) -> u64 {
        self.pong_timeout_ms.max(ping_interval_ms / 2)
    }
}

/// Nobody is asked later than this many intervals after it was heard, however many it may miss.
const ASKED_BEFORE_MISSED: u32 = 3;

impl InboxSettings {
    /// Unacknowledged messages that are sent to a device at most which wishes this number; 0 for none.
    pub fn receive_window_of(&self, wished: u32) -> u32 {
        let most = u32::try_from(self.in_flight_max).unwrap_or(u32::MAX);
        if wished == 0 { most } else { wished.min(most) }
    }
}

impl Default for InboxSettings {
    fn default() -> Self {
        InboxSettings {
            messages_max: 1000,
            bytes_max: 8 * 1024 * 1024,
            ttl_ms: 7 * 24 * 3600 * 1000,
            devices_max: 32,
            device_ttl_ms: 30 * 24 * 3600 * 1000,
            unknown_messages_max: 100,
            unknown_bytes_per_shard_max: 64 * 1024 * 1024,
            in_flight_max: 1024,
            ack_wait_ms: 30_000,
            ack_wait_ms_max: 5 * 60 * 1000,
            publish_all: true,
            copy_to_own_devices: false,
        }
    }
}

impl Namespace {
    /// A namespace with the defaults: 100 messages for an hour in memory, presence, open to everyone signed in.
    pub fn named(name: &str) -> Self {
        Namespace {
            name: name.to_owned(),
            durability: Durability::Memory,
            history_size: 100,
            history_ttl_ms: 3600 * 1000,
            join_leave: false,
            presence: true,
            subscribe_all: true,
            publish_all: true,
            publish_without_subscribe: false,
            echo: true,
            vanish_when_empty: false,
        }
    }
}

impl Settings {
    /// Longest body that a client may announce.
    pub fn body_bytes_max(&self) -> usize {
        CONNECT_BODY_BYTES_MAX.max(self.client.message_bytes_max + BODY_OVERHEAD_BYTES)
    }

    /// The namespace of a room name, when it is configured.
    pub fn namespace_of(&self, room: &str) -> Option<(usize, &Namespace)> {
        let (name, rest) = room.split_once(':')?;
        if rest.is_empty() {
            return None;
        }
        self.namespaces.iter().enumerate().find(|(_, namespace)| namespace.name == name)
    }
}

/// Letters that may wait for one shard's mailbox before requests that need another one are refused.
pub const WAY_LETTERS_MAX: usize = 4096;
/// Requests of one shard's sessions that may wait for the answers of homes before more are refused.
pub const ASKED_MAX: usize = 16 * 1024;
/// Bytes that may wait for the mailboxes of all shards, on one shard.
pub const WAYS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of heavy letters in one mailbox.
pub const MAILBOX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Deliveries of broadcasts that one home may owe to the members on one shard: some tens of turns.
pub const WAY_DELIVERIES_MAX: u64 = 512 * 1024;
/// Bytes of frames of the same broadcasts.
pub const WAY_BROADCAST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Deliveries that were worked off, or bytes of their frames, that are worth a letter to the home.
pub const CREDIT_DELIVERIES: u64 = 4096;
/// See [`CREDIT_DELIVERIES`].
pub const CREDIT_BYTES: usize = 256 * 1024;
/// What a broadcast costs beyond its deliveries, in deliveries.
pub const BROADCAST_COST: u64 = 16;

/// Bytes that may wait for the mailbox of one shard among so many.
pub fn way_bytes_max(shards: usize) -> usize {
    (WAYS_BYTES_MAX / shards.max(1)).max(1024 * 1024)
}

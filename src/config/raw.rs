//! The configuration as it stands in the file: types that only know syntax. `validate` gives it meaning.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use zeroize::Zeroizing;

/// A value with its place in the file, for messages.
pub(super) type At<T> = Option<Spanned<T>>;

/// An integer, or text with a unit.
#[derive(Clone, Debug)]
pub(super) enum Number {
    Integer(i128),
    Text(String),
}

/// Text with a unit.
#[derive(Clone, Debug)]
pub(super) struct Duration(pub(super) String);

/// Text that is wiped when it is dropped.
#[derive(Clone)]
pub(super) struct Secret(pub(super) Zeroizing<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(|text| Secret(Zeroizing::new(text)))
    }
}

/// A word, or a list of core numbers.
#[derive(Clone, Debug)]
pub(super) enum CoreList {
    Text(String),
    List(Vec<Number>),
}

/// A text, or a list of them.
#[derive(Clone, Debug)]
pub(super) enum Addresses {
    One(String),
    Several(Vec<String>),
}

// Visitors instead of `untagged` enums, whose errors say which variants there are, not what was expected.

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or a size like \"64KiB\"")
    }

    fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
        Ok(Number::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
        Ok(Number::Integer(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Number, E> {
        Ok(Number::Integer(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Number, E> {
        Ok(Number::Text(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, like \"25s\"")
    }

    fn visit_str<E>(self, text: &str) -> Result<Duration, E> {
        Ok(Duration(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

struct CoreListVisitor;

impl<'de> Visitor<'de> for CoreListVisitor {
    type Value = CoreList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\" or a list of core numbers like [0, 2, 4]")
    }

    fn visit_str<E>(self, text: &str) -> Result<CoreList, E> {
        Ok(CoreList::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<CoreList, A::Error> {
        let mut cores = Vec::new();
        while let Some(core) = list.next_element()? {
            cores.push(core);
        }
        Ok(CoreList::List(cores))
    }
}

impl<'de> Deserialize<'de> for CoreList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CoreList, D::Error> {
        deserializer.deserialize_any(CoreListVisitor)
    }
}

struct AddressesVisitor;

impl<'de> Visitor<'de> for AddressesVisitor {
    type Value = Addresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address like \"127.0.0.1:6379\", or a list of them")
    }

    fn visit_str<E>(self, text: &str) -> Result<Addresses, E> {
        Ok(Addresses::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
        let mut addresses = Vec::new();
        while let Some(address) = list.next_element()? {
            addresses.push(address);
        }
        Ok(Addresses::Several(addresses))
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Addresses, D::Error> {
        deserializer.deserialize_any(AddressesVisitor)
    }
}

macro_rules! section {
    ($name:ident { $($field:ident: $type:ty,)* }) => {
        #[derive(Deserialize, Clone, Debug, Default)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name { $(pub(super) $field: $type,)* }
    };
}

/// Keys that have another name now: the old one, and the new one.
pub(super) const RENAMED: [(&str, &str); 11] = [
    ("client.message_size_limit", "message_size_max"),
    ("client.queue_max_size", "outbox_size_max"),
    ("client.queue_max_messages", "outbox_messages_max"),
    ("client.room_limit", "rooms_max"),
    ("client.user_connection_limit", "sessions_per_user_max"),
    ("client.requests_in_flight_limit", "requests_in_flight_max"),
    ("client.connection_limit", "connections_max"),
    ("client.connection_limit_per_address", "connections_per_address_max"),
    ("client.connection_rate_limit", "accept_rate"),
    ("inbox.unknown_size_per_shard", "unknown_size_per_shard_max"),
    ("log.size_per_shard", "size_per_shard_max"),
];

section!(File {
    node: Node,
    runtime: Runtime,
    listeners: Vec<Listener>,
    tls: Option<Tls>,
    websocket: WebSocket,
    client: Client,
    token: Token,
    inbox: Inbox,
    log: Log,
    redis: At<Redis>,
    namespaces: Option<Vec<Namespace>>,
    admin: Admin,
    shutdown: Shutdown,
    logging: Logging,
});

section!(Node { name: At<String>, number: At<Number>, });

section!(Runtime {
    shards: At<Number>,
    pin_cores: Option<bool>,
    cores: At<CoreList>,
    huge_pages: Option<bool>,
    dumpable: Option<bool>,
    descriptors: At<String>,
    connections_per_shard_max: At<Number>,
    recv_buffers: At<Number>,
    recv_buffer_size: At<Number>,
    accepts_in_flight: At<Number>,
    mailbox_capacity: At<Number>,
});

section!(Listener {
    address: At<String>,
    tls: bool,
    protocols: At<Vec<Spanned<String>>>,
    ipv6_only: At<bool>,
    proxy_protocol: bool,
    trusted_proxies: Vec<Spanned<String>>,
});

section!(Tls { certificate: At<String>, key: At<String>, names: Vec<Spanned<String>>, memory: At<String>, });

section!(WebSocket {
    path: At<String>,
    origins: Vec<Spanned<String>>,
    token_cookie: At<String>,
    trusted_proxies: Vec<Spanned<String>>,
    forwarded_header: At<String>,
});

section!(Client {
    ping_interval: At<Duration>,
    ping_interval_min: At<Duration>,
    ping_interval_max: At<Duration>,
    pong_timeout: At<Duration>,
    missed_pings_max: At<Number>,
    handshake_timeout: At<Duration>,
    connect_timeout: At<Duration>,
    frame_timeout: At<Duration>,
    write_timeout: At<Duration>,
    message_size_max: At<Number>,
    outbox_size_max: At<Number>,
    outbox_messages_max: At<Number>,
    rooms_max: At<Number>,
    sessions_per_user_max: At<Number>,
    requests_in_flight_max: At<Number>,
    messages_rate: At<Number>,
    messages_burst: At<Number>,
    bytes_rate: At<Number>,
    bytes_burst: At<Number>,
    connections_max: At<Number>,
    connections_per_address_max: At<Number>,
    address_prefix_ipv6: At<Number>,
    accept_rate: At<Number>,
});

section!(Token {
    keys: Vec<Key>,
    leeway: At<Duration>,
    require_exp: Option<bool>,
    audience: Vec<String>,
    issuer: Option<String>,
});

section!(Key {
    kid: Option<String>,
    algorithm: At<String>,
    secret: At<Secret>,
    secret_file: At<String>,
    public_key_file: At<String>,
});

section!(Inbox {
    messages_max: At<Number>,
    size_max: At<Number>,
    ttl: At<Duration>,
    devices_max: At<Number>,
    device_ttl: At<Duration>,
    unknown_messages_max: At<Number>,
    unknown_size_per_shard_max: At<Number>,
    in_flight_max: At<Number>,
    ack_wait: At<Duration>,
    ack_wait_max: At<Duration>,
    publish: At<String>,
    copy_to_own_devices: Option<bool>,
});

section!(Log {
    engine: At<String>,
    size_per_shard_max: At<Number>,
    topic_ttl: At<Duration>,
    quiet_topics_max: At<Number>,
    dedup_window: At<Duration>,
    dedup_entries_max: At<Number>,
});

section!(Redis {
    address: At<Addresses>,
    mode: At<String>,
    sentinel_master: At<String>,
    sentinel_password: At<Secret>,
    user: At<String>,
    password: At<Secret>,
    password_file: At<String>,
    database: At<Number>,
    tls: Option<bool>,
    ca_file: At<String>,
    prefix: At<String>,
    connect_timeout: At<Duration>,
    command_timeout: At<Duration>,
    when_away: At<String>,
    wait_max: At<Duration>,
    replicas_min: At<Number>,
    allow_volatile: Option<bool>,
});

section!(Namespace {
    name: At<String>,
    durability: At<String>,
    history_size: At<Number>,
    history_ttl: At<Duration>,
    join_leave: Option<bool>,
    presence: Option<bool>,
    subscribe: At<String>,
    publish: At<String>,
    publish_without_subscribe: Option<bool>,
    echo: Option<bool>,
    vanish_when_empty: Option<bool>,
});

section!(Admin { enabled: Option<bool>, address: At<String>, hosts: Vec<Spanned<String>>, health_address: At<String>, });

section!(Shutdown { timeout: At<Duration>, });

section!(Logging { level: At<String>, format: At<String>, });

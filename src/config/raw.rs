//! The configuration as it stands in the file: types that only know syntax. `validate` gives it meaning.

use serde::Deserialize;
use toml::Spanned;

/// A value with its place in the file, for messages.
pub(super) type At<T> = Option<Spanned<T>>;

/// An integer, or text with a unit.
#[derive(Deserialize, Clone, Debug)]
#[serde(untagged)]
pub(super) enum Number {
    Integer(i64),
    Text(String),
}

/// A word, or a list of core numbers.
#[derive(Deserialize, Clone, Debug)]
#[serde(untagged)]
pub(super) enum CoreList {
    Text(String),
    List(Vec<i64>),
}

macro_rules! section {
    ($name:ident { $($field:ident: $type:ty,)* }) => {
        #[derive(Deserialize, Clone, Debug, Default)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name { $(pub(super) $field: $type,)* }
    };
}

section!(File {
    node: Node,
    runtime: Runtime,
    listeners: Vec<Listener>,
    tls: Option<Tls>,
    client: Client,
    token: Token,
    inbox: Inbox,
    log: Log,
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
    descriptors: At<String>,
    connections_per_shard_max: At<Number>,
    recv_buffers: At<Number>,
    recv_buffer_size: At<Number>,
    accepts_in_flight: At<Number>,
    mailbox_capacity: At<Number>,
});

section!(Listener { address: At<String>, tls: bool, });

section!(Tls { certificate: At<String>, key: At<String>, memory: At<String>, });

section!(Client {
    ping_interval: At<String>,
    pong_timeout: At<String>,
    missed_pings_max: At<Number>,
    handshake_timeout: At<String>,
    connect_timeout: At<String>,
    frame_timeout: At<String>,
    write_timeout: At<String>,
    message_size_limit: At<Number>,
    queue_max_size: At<Number>,
    queue_max_messages: At<Number>,
    room_limit: At<Number>,
    user_connection_limit: At<Number>,
    requests_in_flight_limit: At<Number>,
    messages_rate: At<Number>,
    messages_burst: At<Number>,
    bytes_rate: At<Number>,
    bytes_burst: At<Number>,
    connection_limit: At<Number>,
    connection_limit_per_address: At<Number>,
    connection_rate_limit: At<Number>,
});

section!(Token {
    keys: Vec<Key>,
    leeway: At<String>,
    require_exp: Option<bool>,
    audience: Vec<String>,
    issuer: Option<String>,
});

section!(Key {
    kid: Option<String>,
    algorithm: At<String>,
    secret: At<String>,
    secret_file: At<String>,
    public_key_file: At<String>,
});

section!(Inbox {
    messages_max: At<Number>,
    size_max: At<Number>,
    ttl: At<String>,
    devices_max: At<Number>,
    device_ttl: At<String>,
    unknown_messages_max: At<Number>,
    unknown_size_per_shard: At<Number>,
    in_flight_max: At<Number>,
    ack_wait: At<String>,
    ack_wait_max: At<String>,
    publish: At<String>,
});

section!(Log {
    size_per_shard: At<Number>,
    topic_ttl: At<String>,
    quiet_topics_max: At<Number>,
    dedup_window: At<String>,
    dedup_entries_max: At<Number>,
});

section!(Namespace {
    name: At<String>,
    durability: At<String>,
    history_size: At<Number>,
    history_ttl: At<String>,
    join_leave: Option<bool>,
    presence: Option<bool>,
    subscribe: At<String>,
    publish: At<String>,
    publish_without_subscribe: Option<bool>,
    echo: Option<bool>,
    vanish_when_empty: Option<bool>,
});

section!(Admin { enabled: Option<bool>, address: At<String>, });

section!(Shutdown { timeout: At<String>, });

section!(Logging { level: At<String>, format: At<String>, });

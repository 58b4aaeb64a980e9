//! One Redis, several gateways as processes, and a proxy between each of them and Redis.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringgate_auth::{Signer, TokenSpec};
use ringgate_test_servers::{Append, Options, Server};

use crate::proxy::Proxy;
use crate::support::{Client, Goodbye, Login, Process, http, try_http, unix_seconds};

/// What tokens are signed with.
const SECRET: &str = "a secret that all gateways of this test share";
/// Of each gateway, in seconds.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(3);

/// See the module.
pub(crate) struct World {
    pub(crate) redis: Server,
    pub(crate) nodes: Vec<Node>,
    pub(crate) addresses: Addresses,
}

/// Where clients find the gateways, as they are started at the moment.
pub(crate) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

pub(crate) struct Node {
    number: usize,
    pub(crate) proxy: Proxy,
    process: Process,
    admin: SocketAddr,
}

impl World {
    pub(crate) fn start(nodes: usize, append: Append) -> World {
        let redis = Server::start(&Options { append, ..Options::default() });
        let nodes: Vec<_> = (1..=nodes).map(|number| Node::start(number, redis.address())).collect();
        let addresses = nodes.iter().map(|node| node.process.tcp()).collect();
        World { redis, nodes, addresses: Arc::new(Mutex::new(addresses)) }
    }

    /// Kills a gateway, as kill -9.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].process.signal(libc::SIGKILL);
        self.nodes[node].process.ended();
    }

    /// Starts a gateway that was killed under its number; returns when it is ready.
    pub(crate) fn start_again(&mut self, node: usize) {
        let node_again = &mut self.nodes[node];
        (node_again.process, node_again.admin) = gateway(node_again.number, node_again.proxy.address());
        self.addresses.lock().unwrap()[node] = node_again.process.tcp();
    }

    /// Stops a gateway, as SIGSTOP.
    pub(crate) fn pause(&self, node: usize) {
        self.nodes[node].process.signal(libc::SIGSTOP);
    }

    pub(crate) fn resume(&self, node: usize) {
        self.nodes[node].process.signal(libc::SIGCONT);
    }

    /// A user with the default device; or the Goodbye.
    pub(crate) fn sign_in(&self, node: usize, user: &str) -> Result<Client, Goodbye> {
        let mut client = Client::tcp(self.nodes[node].process.tcp());
        client.try_sign_in(&Login::token(token(user))).map(|_| client)
    }

    /// A figure of a gateway.
    pub(crate) fn sample(&self, node: usize, name: &str) -> f64 {
        http(self.nodes[node].admin, "GET", "/metrics").sample(name)
    }

    /// User and device of everybody in a room, as each gateway tells it, sorted; none where one cannot tell.
    pub(crate) fn members(&self, room: &str) -> Option<Vec<Vec<(String, String)>>> {
        let at = |node| {
            let mut client = self.sign_in(node, &format!("observer{node}")).ok()?;
            client.try_presence(room, 100).ok().map(|presence| presence.members)
        };
        (0..self.nodes.len()).map(at).collect()
    }

    /// All gateways say that they are.
    pub(crate) fn is_ready(&self) -> bool {
        let ready = |node: &Node| try_http(node.admin, "GET", "/readyz").is_ok_and(|answer| answer.status == 200);
        self.nodes.iter().all(ready)
    }

    /// The newest log lines of each gateway.
    pub(crate) fn logs(&self, lines: usize) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            text += &format!("-- node {}\n", node.number);
            let errors = node.process.errors();
            text += &errors[errors.len().saturating_sub(lines)..].join("\n");
            text += "\n";
        }
        text
    }
}

impl Node {
    fn start(number: usize, redis: SocketAddr) -> Node {
        let proxy = Proxy::start(redis);
        let (process, admin) = gateway(number, proxy.address());
        Node { number, proxy, process, admin }
    }
}

/// A gateway process, and its admin listener.
fn gateway(number: usize, redis: SocketAddr) -> (Process, SocketAddr) {
    let process = Process::gateway(&configuration(number, redis));
    let admin = process.line("the admin listener", |line| line.starts_with("admin http://"));
    let admin = admin.trim_start_matches("admin http://").parse().unwrap();
    (process, admin)
}

/// Logs are long enough that nothing leaves them during a round; nothing is sent again for want of an Ack.
fn configuration(number: usize, redis: SocketAddr) -> String {
    let ping_interval = PING_INTERVAL.as_secs();
    format!(
        r#"
[node]
name = "node{number}"
number = {number}
[runtime]
shards = 2
pin_cores = false
connections_per_shard_max = 512
recv_buffers = 64
[[listeners]]
address = "127.0.0.1:0"
[client]
ping_interval = "{ping_interval}s"
pong_timeout = "2s"
[[token.keys]]
algorithm = "HS256"
secret = "{SECRET}"
[inbox]
messages_max = 100000
size_max = "64MiB"
ack_wait = "10m"
ack_wait_max = "10m"
[log]
engine = "redis"
[redis]
address = "{redis}"
allow_volatile = true
[[namespaces]]
name = "chat"
history_size = 100000
[admin]
address = "127.0.0.1:0"
"#
    )
}

/// A token of this user, good for an hour.
pub(crate) fn token(user: &str) -> String {
    let signer = Signer::from_key(SECRET.as_bytes(), None, None).unwrap();
    let spec = TokenSpec { user: user.into(), issued_at: unix_seconds(), ttl_seconds: 3600, ..TokenSpec::default() };
    signer.sign(&spec).unwrap()
}

/// Waits so long, or until something is true; whether it became true.
pub(crate) fn wait_at_most(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

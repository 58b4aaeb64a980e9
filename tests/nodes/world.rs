//! One Redis, or one primary with its replicas and Sentinels; several gateways as processes; and between each of them and Redis a proxy, a
//! wire of a network namespace, or nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringgate_auth::{Signer, TokenSpec};
use ringgate_test_servers::{Append, Options, PRIMARY_NAME, Sentinels, Server};

use crate::namespace::Namespace;
use crate::proxy::Proxy;
use crate::support::{Client, Goodbye, Login, Process, TempFolder, http, try_http, unix_seconds};

/// What tokens are signed with.
const SECRET: &str = "a secret that all gateways of this test share";
/// Of each gateway, in seconds.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(3);

/// How gateways reach Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Through a proxy each.
    Proxies,
    /// Each is in a network namespace of its own, with a wire to Redis.
    Wires,
    /// They ask Sentinels, and go to the primary that these name.
    Sentinels,
}

/// See the module.
pub(crate) struct World {
    redis: Redis,
    pub(crate) nodes: Vec<Node>,
    pub(crate) addresses: Addresses,
}

/// Where clients find the gateways, as they are started at the moment.
pub(crate) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

enum Redis {
    Alone(Server),
    Watched(Sentinels),
}

pub(crate) struct Node {
    number: usize,
    link: Link,
    process: Process,
    admin: SocketAddr,
}

/// What is between a gateway and Redis.
enum Link {
    Proxy(Proxy),
    Wire(Namespace),
    /// The table `[redis]` is the same for all.
    Sentinels(String),
}

impl World {
    pub(crate) fn start(nodes: usize, append: Append, layout: Layout) -> World {
        let mut options = Options { append, ..Options::default() };
        let (redis, link): (_, Box<dyn Fn() -> Link>) = match layout {
            Layout::Proxies => {
                let redis = Server::start(&options);
                let address = redis.address();
                (Redis::Alone(redis), Box::new(move || Link::Proxy(Proxy::start(address))))
            }
            Layout::Wires => {
                options.lines.push("bind 0.0.0.0".to_owned());
                (Redis::Alone(Server::start(&options)), Box::new(|| Link::Wire(Namespace::new())))
            }
            Layout::Sentinels => {
                let sentinels = Sentinels::start(&options);
                let addresses: Vec<_> = sentinels.addresses().iter().map(|at| format!("\"{at}\"")).collect();
                let addresses = addresses.join(", ");
                let lines =
                    format!("address = [{addresses}]\nmode = \"sentinel\"\nsentinel_master = \"{PRIMARY_NAME}\"\n");
                (Redis::Watched(sentinels), Box::new(move || Link::Sentinels(lines.clone())))
            }
        };
        let port = if let Redis::Alone(server) = &redis { server.address().port() } else { 0 };
        let nodes: Vec<_> = (1..=nodes).map(|number| Node::start(number, link(), port)).collect();
        let addresses = nodes.iter().map(|node| node.process.tcp()).collect();
        World { redis, nodes, addresses: Arc::new(Mutex::new(addresses)) }
    }

    /// The one server that there is.
    pub(crate) fn redis(&mut self) -> &mut Server {
        match &mut self.redis {
            Redis::Alone(server) => server,
            Redis::Watched(_) => panic!("there are several servers in this round"),
        }
    }

    /// The servers and those that watch them.
    pub(crate) fn sentinels(&mut self) -> &mut Sentinels {
        match &mut self.redis {
            Redis::Watched(sentinels) => sentinels,
            Redis::Alone(_) => panic!("there is one server in this round"),
        }
    }

    /// Kills a gateway, as kill -9.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].process.signal(libc::SIGKILL);
        self.nodes[node].process.ended();
    }

    /// Starts a gateway that was killed under its number; returns when it is ready.
    pub(crate) fn start_again(&mut self, node: usize) {
        let Redis::Alone(server) = &self.redis else { panic!("nodes stay in this round") };
        let port = server.address().port();
        let again = &mut self.nodes[node];
        (again.process, again.admin) = gateway(again.number, &again.link, port);
        self.addresses.lock().unwrap()[node] = again.process.tcp();
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
    /// `port` is that of the one Redis, if there is one.
    fn start(number: usize, link: Link, port: u16) -> Node {
        let (process, admin) = gateway(number, &link, port);
        Node { number, link, process, admin }
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        if let Link::Proxy(proxy) = &self.link { proxy } else { panic!("there are no proxies in this round") }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        if let Link::Wire(namespace) = &self.link { namespace } else { panic!("there are no wires in this round") }
    }
}

/// A gateway process, and its admin listener.
fn gateway(number: usize, link: &Link, port: u16) -> (Process, SocketAddr) {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_ringgate");
    let (redis, host, mut command) = match link {
        Link::Proxy(proxy) => (at(proxy.address()), Ipv4Addr::LOCALHOST, Command::new(PROGRAM)),
        Link::Sentinels(lines) => (lines.clone(), Ipv4Addr::LOCALHOST, Command::new(PROGRAM)),
        Link::Wire(namespace) => {
            let redis = SocketAddr::from((namespace.redis(), port));
            (at(redis), namespace.clients(), namespace.command(PROGRAM))
        }
    };
    let folder = TempFolder::new();
    let file = folder.write("ringgate.toml", configuration(number, host, &redis));
    command.args(["serve", "--config"]).arg(file);
    let process = Process::of(command);
    process.line("ready", |line| line.starts_with("ready: "));
    let admin = process.line("the admin listener", |line| line.starts_with("admin http://"));
    let admin = admin.trim_start_matches("admin http://").parse().unwrap();
    (process, admin)
}

fn at(redis: SocketAddr) -> String {
    format!("address = \"{redis}\"\n")
}

/// Logs are long enough that nothing leaves them during a round; nothing is sent again for want of an Ack.
fn configuration(number: usize, host: Ipv4Addr, redis: &str) -> String {
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
address = "{host}:0"
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
{redis}
allow_volatile = true
[[namespaces]]
name = "chat"
history_size = 100000
[admin]
address = "{host}:0"
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

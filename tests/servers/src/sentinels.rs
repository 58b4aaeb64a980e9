//! One primary, two replicas, three Sentinels with short timeouts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::resp::Value;
use crate::server::{Options, Role, Server};
use crate::wait_until;

/// The name under which the Sentinels know the servers.
pub const PRIMARY_NAME: &str = "ringgate-test";

/// See the module.
#[derive(Debug)]
pub struct Sentinels {
    /// The first one is the primary at the start.
    pub servers: Vec<Server>,
    /// Two of three must agree that the primary is down.
    pub sentinels: Vec<Server>,
}

impl Sentinels {
    /// Starts all six, and returns when every Sentinel knows all others. A primary that says nothing for 500 ms is down.
    pub fn start(options: &Options) -> Sentinels {
        let (primary, replicas) = Server::start_with_replicas(options, 2);
        let mut lines = vec![
            format!("sentinel monitor {PRIMARY_NAME} 127.0.0.1 {} 2", primary.address().port()),
            format!("sentinel down-after-milliseconds {PRIMARY_NAME} 500"),
            format!("sentinel failover-timeout {PRIMARY_NAME} 3000"),
        ];
        if let Some((user, password)) = primary.control_user() {
            lines.push(format!("sentinel auth-user {PRIMARY_NAME} {user}"));
            lines.push(format!("sentinel auth-pass {PRIMARY_NAME} {password}"));
        }
        let sentinel = |_| {
            Server::start_as(&Options { program: options.program, ..Options::default() }, Role::Sentinel(lines.clone()))
        };
        let sentinels: Vec<_> = (0..3).map(sentinel).collect();
        for sentinel in &sentinels {
            wait_until(format_args!("the Sentinel at {} knows all others", sentinel.address()), || {
                let master = master(sentinel);
                let is = |key: &str, wanted: &str| master.get(key).is_some_and(|value| value == wanted);
                is("num-slaves", "2") && is("num-other-sentinels", "2") && is("flags", "master")
            });
        }
        Sentinels { servers: std::iter::once(primary).chain(replicas).collect(), sentinels }
    }

    /// The place in [`Self::servers`] of the primary, as the first Sentinel that answers sees it; `None` if none answers.
    pub fn primary(&self) -> Option<usize> {
        let port = self.sentinels.iter().filter(|sentinel| sentinel.is_running()).find_map(primary_port)?;
        self.servers.iter().position(|server| server.address().port() == port)
    }

    /// Where clients ask for the primary.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(Server::address).collect()
    }

    /// Lets the Sentinels choose another primary while the old one is alive, and returns the new one's place.
    pub fn failover(&self) -> usize {
        let old = self.primary().expect("a primary");
        wait_until("a Sentinel begins a failover", || {
            // Refused while a replica is not known to be good.
            self.sentinels.iter().any(|sentinel| sentinel.try_command(&["SENTINEL", "FAILOVER", PRIMARY_NAME]).is_ok())
        });
        self.wait_for_failover(old)
    }

    /// Waits until every running Sentinel names one and the same other primary, which knows that it is one; returns its place.
    pub fn wait_for_failover(&self, old: usize) -> usize {
        let mut new = old;
        wait_until(format_args!("another primary than server {old}"), || {
            let running = || self.sentinels.iter().filter(|sentinel| sentinel.is_running());
            let mut ports = running().map(primary_port);
            let first = ports.next().flatten();
            new = self.servers.iter().position(|server| Some(server.address().port()) == first).unwrap_or(old);
            new != old && ports.all(|port| port == first) && self.servers.get(new).is_some_and(is_primary)
        });
        new
    }
}

fn is_primary(server: &Server) -> bool {
    server.info("replication").get("role").is_some_and(|role| role == "master")
}

fn primary_port(sentinel: &Server) -> Option<u16> {
    let answer = sentinel.try_command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY_NAME]).ok()?;
    answer.list().get(1)?.text()?.parse().ok()
}

/// What a Sentinel knows of the primary.
fn master(sentinel: &Server) -> BTreeMap<String, String> {
    let answer = sentinel.try_command(&["SENTINEL", "MASTER", PRIMARY_NAME]).unwrap_or(Value::Nil);
    let texts: Vec<_> = answer.list().iter().filter_map(Value::text).collect();
    texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

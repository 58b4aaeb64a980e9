//! A Cluster: three masters, with replicas or without.

use std::net::SocketAddr;

use crate::resp::Value;
use crate::server::{Options, Role, Server};
use crate::wait_until;

/// Slots of a Cluster.
pub const SLOTS: u16 = 16_384;
const MASTERS: usize = 3;

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    /// The first three are the masters at the start; a replica of node `n` is node `n + 3`.
    pub nodes: Vec<Server>,
}

impl Cluster {
    /// Three masters that share the slots, each with a replica if asked for; returned when every node calls the Cluster
    /// whole and every replica has its data. A node that says nothing for 2 s is down.
    pub fn start(options: &Options, with_replicas: bool) -> Cluster {
        let count = if with_replicas { 2 * MASTERS } else { MASTERS };
        let cluster = Cluster { nodes: (0..count).map(|_| Server::start_as(options, Role::Node)).collect() };
        for (index, node) in cluster.nodes.iter().enumerate() {
            // Equal epochs would be told apart only after the nodes have met.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index < MASTERS {
                let share = |index: usize| index * usize::from(SLOTS) / MASTERS;
                let (first, last) = (share(index).to_string(), (share(index + 1) - 1).to_string());
                node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
        }
        if let Some((first, others)) = cluster.nodes.split_first() {
            for node in others {
                let (port, bus) = (node.address().port().to_string(), node.bus_port().to_string());
                first.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
            }
        }
        cluster.wait_until_whole();
        for (replica, master) in cluster.nodes.iter().skip(MASTERS).zip(&cluster.nodes) {
            replica.command(&["CLUSTER", "REPLICATE", &id(master)]);
        }
        for replica in cluster.nodes.iter().skip(MASTERS) {
            replica.wait_for_primary_link();
        }
        // A master that has not heard yet that a node is its replica would not hand over to it.
        for node in &cluster.nodes {
            wait_until(format_args!("{} knows all replicas", node.address()), || {
                let answer = node.try_command(&["CLUSTER", "NODES"]).ok().and_then(|answer| answer.text());
                answer.unwrap_or_default().matches("slave").count() == count - MASTERS
            });
        }
        cluster.wait_until_whole();
        cluster
    }

    /// Waits until every running node knows all others and has a master for every slot.
    pub fn wait_until_whole(&self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            wait_until(format_args!("the Cluster is whole for {}", node.address()), || {
                let answer = node.try_command(&["CLUSTER", "INFO"]).ok().and_then(|answer| answer.text());
                let info = answer.unwrap_or_default();
                let is = |field: &str| info.lines().any(|line| line.trim_end() == field);
                is("cluster_state:ok")
                    && is(&format!("cluster_slots_ok:{SLOTS}"))
                    && is(&format!("cluster_known_nodes:{}", self.nodes.len()))
            });
        }
    }

    /// Where clients connect.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Server::address).collect()
    }

    /// The slot of a key, or of a channel of sharded pub/sub.
    pub fn slot_of(&self, key: &str) -> u16 {
        let node = self.nodes.iter().find(|node| node.is_running()).expect("a node that runs");
        let slot = node.command(&["CLUSTER", "KEYSLOT", key]).integer();
        slot.and_then(|slot| u16::try_from(slot).ok()).expect("a slot")
    }

    /// The place in [`Self::nodes`] of the master of a slot, if all running nodes agree on one.
    pub fn owner_of(&self, slot: u16) -> Option<usize> {
        let mut owners = self.nodes.iter().filter(|node| node.is_running()).map(|node| owner_port(node, slot));
        let port = owners.next()??;
        if owners.any(|other| other != Some(port)) {
            return None;
        }
        self.nodes.iter().position(|node| node.address().port() == port)
    }

    /// Moves a slot with its keys to another master, as `redis-cli --cluster reshard` does.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn move_slot(&self, slot: u16, to: usize) {
        let from = self.owner_of(slot).expect("a master of the slot");
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let (slot_text, port) = (slot.to_string(), target.address().port().to_string());
        target.command(&["CLUSTER", "SETSLOT", &slot_text, "IMPORTING", &id(source)]);
        source.command(&["CLUSTER", "SETSLOT", &slot_text, "MIGRATING", &id(target)]);
        loop {
            let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot_text, "100"]);
            // Names of keys need not be text.
            let keys = keys.list().iter().filter_map(|key| match key {
                Value::Bulk(name) => Some(name.as_slice()),
                _ => None,
            });
            let keys: Vec<&[u8]> = keys.collect();
            if keys.is_empty() {
                break;
            }
            let credentials = target.control_user();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "30000"];
            if let Some((user, password)) = &credentials {
                words.extend(["AUTH2", user, password]);
            }
            words.push("KEYS");
            let words: Vec<_> = words.into_iter().map(str::as_bytes).chain(keys).collect();
            let mut client = source.connect().expect("a connection");
            client.send_bytes(&words).expect("an order");
            let answer = client.read().expect("an answer");
            assert_eq!(
                answer,
                Value::Simple("OK".to_owned()),
                "keys of slot {slot} move from node {from} to node {to}"
            );
        }
        // The new master first: nobody may point to a node that does not know that it has the slot.
        for node in [target, source] {
            node.command(&["CLUSTER", "SETSLOT", &slot_text, "NODE", &id(target)]);
        }
        wait_until(format_args!("slot {slot} belongs to node {to}"), || self.owner_of(slot) == Some(to));
    }

    /// Makes a replica the master of its master's slots, with the consent of that one.
    ///
    /// # Panics
    /// When the node is a master.
    pub fn failover(&self, replica: usize) {
        let node = &self.nodes[replica];
        node.command(&["CLUSTER", "FAILOVER"]);
        wait_until(format_args!("node {replica} is a master"), || {
            node.info("replication").get("role").is_some_and(|role| role == "master")
        });
        self.wait_until_whole();
    }
}

fn id(node: &Server) -> String {
    node.command(&["CLUSTER", "MYID"]).text().expect("an id")
}

/// The port of the master of a slot, as a node sees it.
fn owner_port(node: &Server, slot: u16) -> Option<u16> {
    let answer = node.try_command(&["CLUSTER", "SLOTS"]).ok()?;
    answer.list().iter().find_map(|range| {
        let [first, last, master, ..] = range.list() else { return None };
        let contains = first.integer()? <= i64::from(slot) && i64::from(slot) <= last.integer()?;
        if !contains {
            return None;
        }
        master.list().get(1)?.integer().and_then(|port| u16::try_from(port).ok())
    })
}

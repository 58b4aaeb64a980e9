//! A gateway in a process of its own, which can be stopped and killed: this test binary once more.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use ringgate::config::Config;
use ringgate::server::Server;
use ringgate_core::transport::Transport;
use rustix::process::Signal;

use super::run::signal;
use crate::proxy::Place;

/// Set for that process.
const IS_GATEWAY: &str = "RINGGATE_TEST_IS_GATEWAY";
const TEST: &str = "faults::own_gateway::serves_until_its_parent_ends";
const SAYS: &str = "the gateway is at ";

/// See the module. Killed when dropped.
pub(super) struct OwnGateway {
    child: Child,
    pub(super) address: Place,
}

impl OwnGateway {
    pub(super) fn start() -> OwnGateway {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", TEST, "--ignored", "--nocapture"]).env(IS_GATEWAY, "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "a gateway says where it is");
            if let Some((_, address)) = line.split_once(SAYS) {
                let (plain, tls) = address.trim().split_once(' ').unwrap();
                break Place { plain: plain.parse().unwrap(), tls: tls.parse().unwrap() };
            }
        };
        OwnGateway { child, address }
    }

    pub(super) fn signal(&self, which: Signal) {
        signal(self.child.id(), which);
    }
}

impl Drop for OwnGateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "is the gateway of other tests, which start it in a process of its own"]
fn serves_until_its_parent_ends() {
    if std::env::var_os(IS_GATEWAY).is_none() {
        return;
    }
    let (mut config, _) = Config::dev(Some(2)).unwrap();
    for listener in &mut config.listeners {
        listener.address = (Ipv4Addr::LOCALHOST, 0).into();
    }
    config.admin = None;
    config.runtime.pin_cores = false;
    config.runtime.connections_per_shard_max = 1024;
    let server = Server::start(config).unwrap();
    let at =
        |transport| server.addresses().iter().find(|listener| listener.front.transport == transport).unwrap().address;
    println!("{SAYS}{} {}", at(Transport::Plain), at(Transport::Tls));
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

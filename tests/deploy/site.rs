//! Three gateways with `deploy/node.toml`, linked by a Redis, and a proxy in front of them.

use std::path::Path;
use std::process::Command;

use ringgate::config::dev_certificate;
use ringgate_auth::{Signer, TokenSpec};
use ringgate_test_servers::{Append, Options, Port, Server, User};

use crate::support::{Process, TempFolder, unix_seconds};

const SECRET: &str = "a secret of the deployment's own, long enough";
const PASSWORD: &str = "of-the-deployment-alone";

/// A file of deploy/ with texts replaced, each of which must be there.
pub(crate) fn filled(name: &str, edits: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    let mut text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (from, to) in edits {
        assert!(text.contains(from), "{from:?} is not in deploy/{name}");
        text = text.replace(from, to);
    }
    text
}

/// See the module. Gateway 1 is at 127.0.0.11, and so on; their ports are the same, as on hosts of their own.
pub(crate) struct Site {
    pub(crate) redis: Server,
    pub(crate) nodes: Vec<Option<Process>>,
    pub(crate) folder: TempFolder,
    /// Which clients trust, of gateways and proxies.
    pub(crate) certificate: String,
    /// Of the gateways: frames and WebSocket over TLS, WebSocket, health.
    tls: Port,
    ws: Port,
    health: Port,
    /// Where clients come to the proxy: what goes through to `tls`, and what goes to `ws`.
    pub(crate) front: Port,
    pub(crate) front_http: Port,
    proxy: Option<Process>,
    signer: Signer,
}

impl Site {
    /// Starts Redis and the gateways.
    pub(crate) fn start() -> Site {
        let folder = TempFolder::new();
        let (certificate, key) = dev_certificate().unwrap();
        folder.write("fullchain.pem", &certificate);
        folder.write("privkey.pem", key.as_bytes());
        folder.write("token.secret", SECRET);
        folder.write("redis.password", PASSWORD);
        let users = vec![User { name: "ringgate".to_owned(), password: PASSWORD.to_owned() }];
        let redis = Server::start(&Options { append: Append::EverySecond, users, ..Options::default() });
        let mut site = Site {
            redis,
            nodes: Vec::new(),
            folder,
            certificate,
            tls: Port::free(),
            ws: Port::free(),
            health: Port::free(),
            front: Port::free(),
            front_http: Port::free(),
            proxy: None,
            signer: Signer::from_key(SECRET.as_bytes(), None, None).unwrap(),
        };
        for node in 0..3 {
            let process = site.start_node(node);
            site.nodes.push(Some(process));
        }
        site
    }

    /// A gateway with this index; returned once it is ready.
    pub(crate) fn start_node(&self, node: usize) -> Process {
        let folder = self.folder.path("").display().to_string();
        let at = |port: &Port| format!("{}:{}", address(node), port.number);
        let text = filled(
            "node.toml",
            &[
                ("name = \"gateway1\"", &format!("name = \"gateway{}\"", node + 1)),
                ("number = 1 ", &format!("number = {} ", node + 1)),
                ("0.0.0.0:7443", &at(&self.tls)),
                ("0.0.0.0:7401", &at(&self.ws)),
                ("0.0.0.0:7481", &at(&self.health)),
                ("127.0.0.1:7480", "127.0.0.1:0"),
                ("10.0.0.0/24", "127.0.0.1/32"),
                ("im.example.org", "localhost"),
                ("10.0.0.31:6379", &self.redis.address().to_string()),
                ("/etc/ringgate/", &folder),
            ],
        );
        let small =
            "[runtime]\nshards = 1\npin_cores = false\nconnections_per_shard_max = 256\n[logging]\nformat = \"json\"\n";
        Process::gateway(&format!("{text}\n{small}"))
    }

    /// The edits that all proxies' files need for gateways on this host.
    pub(crate) fn addresses(&self) -> [(&'static str, String); 3] {
        [("10.0.0.11:", address(0)), ("10.0.0.12:", address(1)), ("10.0.0.13:", address(2))]
            .map(|(from, to)| (from, to + ":"))
    }

    pub(crate) fn tls_port(&self) -> u16 {
        self.tls.number
    }

    pub(crate) fn ws_port(&self) -> u16 {
        self.ws.number
    }

    pub(crate) fn health_port(&self) -> u16 {
        self.health.number
    }

    /// Starts the program in front of the gateways.
    pub(crate) fn put_in_front(&mut self, program: &str, arguments: &[&str]) {
        // Where Debian has it, also for users who do not have it on their search path.
        let path = Path::new("/usr/sbin").join(program);
        assert!(path.exists(), "{} is missing; tests/run installs the Debian package {program}", path.display());
        let mut command = Command::new(path);
        command.args(arguments);
        self.proxy = Some(Process::of(command));
    }

    /// What the proxy has said on standard error.
    pub(crate) fn proxy_errors(&self) -> Vec<String> {
        self.proxy.as_ref().map_or_else(Vec::new, Process::errors)
    }

    pub(crate) fn token(&self, user: &str) -> String {
        let spec =
            TokenSpec { user: user.to_owned(), issued_at: unix_seconds(), ttl_seconds: 3600, ..TokenSpec::default() };
        self.signer.sign(&spec).unwrap()
    }

    /// Whether a gateway has logged the end of a connection that came from this host.
    pub(crate) fn has_logged(&self, peer: &str) -> bool {
        let peer = format!("\"peer\":\"{peer}\"");
        let lines = self.nodes.iter().flatten().flat_map(Process::errors);
        lines.into_iter().any(|line| line.contains("connection closed") && line.contains(&peer))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            // Killed, nginx would leave its workers behind.
            proxy.signal(libc::SIGTERM);
            if !std::thread::panicking() {
                proxy.ended();
            }
        }
    }
}

fn address(node: usize) -> String {
    format!("127.0.0.{}", 11 + node)
}

//! SIGHUP: certificate, token keys and log level are exchanged under clients that stay; what is wrong changes nothing.

use std::net::SocketAddr;

use jsonwebtoken::{Algorithm, EncodingKey};
use ringgate::config::dev_certificate;
use ringgate_net::dial::Trust;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Login, Process, TempFolder, claims_token, http, unix_seconds, wait_until};

const OLD: &str = "old-old-old-old-old-old-old-old-old";
const NEW: &str = "new-new-new-new-new-new-new-new-new";

/// A gateway whose files can be changed.
struct Gateway {
    folder: TempFolder,
    process: Process,
    text: String,
}

impl Gateway {
    /// Two shards, a plain, a TLS and a WebSocket listener over TLS, the key [`OLD`]; returned with its certificate.
    fn start() -> (Gateway, String) {
        let folder = TempFolder::new();
        let certificate = new_certificate(&folder);
        folder.write("secret", OLD);
        let path = |name: &str| folder.path(name).display().to_string();
        let text = format!(
            "[runtime]\nshards = 2\nconnections_per_shard_max = 64\npin_cores = false\n\
             [[listeners]]\naddress = \"127.0.0.1:0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = true\n\
             [[listeners]]\naddress = \"127.0.0.1:0\"\ntls = true\nprotocols = [\"ws\"]\n\
             [tls]\ncertificate = \"{}\"\nkey = \"{}\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [logging]\nlevel = \"info\"\nformat = \"json\"\n[[token.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"{}\"\n",
            path("certificate.pem"),
            path("key.pem"),
            path("secret")
        );
        let file = folder.write("ringgate.toml", &text);
        let process = Process::ringgate(&["serve", "--config", file.to_str().unwrap()]);
        process.line("ready", |line| line.starts_with("ready: "));
        (Gateway { folder, process, text }, certificate)
    }

    fn write(&self, old: &str, new: &str) {
        assert!(self.text.contains(old), "{old}");
        self.folder.write("ringgate.toml", self.text.replace(old, new));
    }

    /// Sends the signal, waits until it was acted on, and returns how many files were taken and refused by now.
    fn hang_up(&self) -> [f64; 2] {
        let counts = |metrics: &Answer| {
            ["ok", "failed"]
                .map(|result| metrics.sample(&format!("ringgate_config_reloads_total{{result=\"{result}\"}}")))
        };
        let before = counts(&self.metrics());
        self.process.signal(libc::SIGHUP);
        let mut now = before;
        wait_until("the signal is acted on", || {
            now = counts(&self.metrics());
            now != before
        });
        now
    }

    fn metrics(&self) -> Answer {
        let line = self.process.line("the admin listener", |line| line.starts_with("admin http://"));
        http(line.trim_start_matches("admin http://").parse().unwrap(), "GET", "/metrics")
    }

    /// Whether a client that trusts this certificate gets a TLS connection, from both listeners that speak TLS.
    fn serves(&self, certificate: &str) -> bool {
        let serves = ["tls", "wss"].map(|scheme| {
            let url = self.process.url(scheme);
            let address: SocketAddr =
                url.trim_start_matches(&format!("{scheme}://")).trim_end_matches("/ws").parse().unwrap();
            Client::open(address, true, Trust::Pem(certificate.as_bytes())).is_ok()
        });
        assert_eq!(serves[0], serves[1], "tls and wss");
        serves[0]
    }

    /// Signs in, or says with which code that was refused.
    fn sign_in(&self, user: &str, secret: &str) -> Result<Client, u16> {
        let claims = json!({ "sub": user, "exp": unix_seconds() + 3600 });
        let token = claims_token(Algorithm::HS256, None, &EncodingKey::from_secret(secret.as_bytes()), &claims);
        let mut client = Client::tcp(self.process.tcp());
        client.try_sign_in(&Login::token(token)).map(|_| ()).map_err(|goodbye| goodbye.code)?;
        Ok(client)
    }

    /// Waits until so many lines have this message, and returns them.
    fn logged_times(&self, message: &str, count: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        wait_until(format_args!("{count} lines of \"{message}\""), || {
            lines = self.logged(message);
            lines.len() >= count
        });
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }

    /// Lines of the log with this message, until now.
    fn logged(&self, message: &str) -> Vec<Value> {
        let lines = self.process.errors().into_iter();
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines.filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message))).collect()
    }
}

/// Writes a certificate that no other gateway has, and its key.
fn new_certificate(folder: &TempFolder) -> String {
    let (certificate, key) = dev_certificate().unwrap();
    folder.write("certificate.pem", &certificate);
    folder.write("key.pem", key);
    certificate
}

#[test]
fn new_files_then_new_clients_get_them_and_others_stay() {
    let (mut gateway, first) = Gateway::start();
    let mut alice = gateway.sign_in("alice", OLD).unwrap_or_else(|code| panic!("{code}"));
    assert_eq!(gateway.sign_in("eve", NEW).err(), Some(3500));
    assert!(gateway.serves(&first));
    let second = new_certificate(&gateway.folder);
    gateway.folder.write("secret", NEW);
    gateway.write("level = \"info\"", "level = \"debug\"");
    assert_eq!(gateway.hang_up(), [1.0, 0.0]);
    // On every shard: connections are dealt out by a hash.
    for number in 0..8 {
        assert!(gateway.serves(&second) && !gateway.serves(&first));
        assert_eq!(gateway.sign_in("eve", OLD).err(), Some(3500));
        let mut bob = gateway.sign_in("bob", NEW).unwrap_or_else(|code| panic!("{code}"));
        bob.publish("@alice", number.to_string());
    }
    assert_eq!(alice.texts(8), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    // What is only for debug was not logged before, and is now.
    let refused = gateway.logged_times("token refused", 8);
    let causes: Vec<_> = refused.iter().map(|line| line["cause"].as_str().unwrap_or_default()).collect();
    assert_eq!(causes, ["signature"; 8]);
    let expiry = gateway.metrics().sample("ringgate_tls_cert_expiry_timestamp_seconds");
    assert!(expiry > unix_seconds() as f64, "{expiry}");
    gateway.process.signal(libc::SIGTERM);
    assert_eq!(gateway.process.ended().code, Some(0));
}

#[test]
fn files_that_are_wrong_then_the_old_ones_stay_in_force() {
    let (gateway, certificate) = Gateway::start();
    let (other, _) = dev_certificate().unwrap();
    let breaks: [(&str, &dyn Fn()); 4] = [
        ("tls.certificate", &|| drop(gateway.folder.write("certificate.pem", "garbage"))),
        // A certificate that was exchanged before its key was.
        ("tls.key", &|| drop(gateway.folder.write("certificate.pem", &other))),
        ("token.keys[0].secret_file", &|| {
            gateway.folder.write("certificate.pem", &certificate);
            gateway.folder.write("secret", "short");
        }),
        ("logging.level", &|| {
            gateway.folder.write("secret", NEW);
            gateway.write("level = \"info\"", "level = \"warning\"");
        }),
    ];
    for (count, (key, damage)) in breaks.iter().enumerate() {
        damage();
        assert_eq!(gateway.hang_up(), [0.0, count as f64 + 1.0], "{key}");
        let lines = gateway.logged_times("configuration not reloaded", count + 1);
        let problem = lines.last().unwrap()["problem"].as_str().unwrap().to_owned();
        assert!(problem.contains(key), "{problem} does not name {key}");
        assert!(gateway.serves(&certificate), "{key}");
        assert!(gateway.sign_in("alice", OLD).is_ok(), "{key}");
        assert_eq!(gateway.sign_in("alice", NEW).err(), Some(3500), "{key}");
    }
    assert!(gateway.logged("configuration reloaded").is_empty());
}

#[test]
fn anything_else_changed_then_it_is_named_as_in_need_of_a_restart() {
    let (gateway, _) = Gateway::start();
    // Written otherwise, and the default said aloud: nothing has changed.
    gateway
        .write("[admin]", "[client]\nping_interval = \"30000ms\"\nmessage_size_max = 65536\n[admin]\nenabled = true");
    assert_eq!(gateway.hang_up(), [1.0, 0.0]);
    // Said after all the rest.
    gateway.logged_times("configuration reloaded", 1);
    assert!(gateway.logged("changed, but needs a restart").is_empty());
    gateway.write(
        "[admin]",
        "[node]\nname = \"other\"\n[client]\nping_interval = \"20s\"\n[[namespaces]]\nname = \"chat\"\nhistory_size = 7\n[admin]",
    );
    assert_eq!(gateway.hang_up(), [2.0, 0.0]);
    let lines = gateway.logged_times("changed, but needs a restart", 1);
    let keys: Vec<_> = lines.iter().map(|line| line["keys"].as_str().unwrap_or_default().to_owned()).collect();
    for key in ["client.ping_interval", "namespaces[0].history_size", "node.name"] {
        assert!(keys[0].contains(key), "{key} in {keys:?}");
    }
    assert!(!keys[0].contains("admin") && !keys[0].contains("listeners"), "{keys:?}");
    let alice = gateway.sign_in("alice", OLD).unwrap_or_else(|code| panic!("{code}"));
    drop(alice);
}

#[test]
fn hang_up_of_a_development_gateway_then_it_goes_on() {
    let mut gateway = Process::dev_gateway(&[]);
    gateway.signal(libc::SIGHUP);
    gateway.error_line("the signal", |line| line.contains("no configuration to read again"));
    let mut alice = Client::tcp(gateway.tcp());
    alice.sign_in(&Login::user("alice"));
    drop(alice);
    gateway.signal(libc::SIGTERM);
    assert_eq!(gateway.ended().code, Some(0));
}

//! A real gateway in this process, and the load tester's binary beside it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::AtomicBool;

use ringgate::config::Config;
use ringgate::server::Server;
use ringgate::session::Transport;
use serde_json::Value;

pub(crate) struct Gateway(Option<Server>);

impl Gateway {
    pub(crate) fn start() -> Gateway {
        let (mut config, _) = Config::dev(Some(2)).unwrap();
        for listener in &mut config.listeners {
            listener.address.set_port(0);
        }
        config.admin = Some(([127, 0, 0, 1], 0).into());
        config.runtime.pin_cores = false;
        config.runtime.connections_per_shard_max = 1024;
        Gateway(Some(Server::start(config).unwrap()))
    }

    pub(crate) fn url(&self, transport: Transport) -> String {
        let server = self.0.as_ref().unwrap();
        let listener = server.addresses().iter().find(|listener| listener.transport == transport).unwrap();
        let scheme = if transport == Transport::Tls { "tls" } else { "tcp" };
        format!("{scheme}://{}", listener.address)
    }

    /// Where its metrics are.
    pub(crate) fn metrics_url(&self) -> String {
        let address = self.0.as_ref().unwrap().admin_address().unwrap();
        format!("http://{address}/metrics")
    }

    /// Runs a scenario with `--json -` and returns its exit code and result.
    pub(crate) fn drive(&self, scenario: &str, arguments: &[&str]) -> (i32, Value) {
        self.drive_over(Transport::Plain, scenario, arguments)
    }

    pub(crate) fn drive_over(&self, transport: Transport, scenario: &str, arguments: &[&str]) -> (i32, Value) {
        let url = self.url(transport);
        let mut all = vec![scenario, "--url", &url, "--dev", "--json", "-", "--quiet"];
        all.extend(arguments);
        let output = loadtest(&all);
        let result = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), result)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(server) = self.0.take() {
            server.shutdown(&AtomicBool::new(false));
        }
    }
}

pub(crate) fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringgate-loadtest")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn count(result: &Value, key: &str) -> u64 {
    result[key].as_u64().unwrap_or_else(|| panic!("{key} in {result}"))
}

/// Everything that was sent is accounted for, and nothing went wrong.
pub(crate) fn assert_clean(code: i32, result: &Value) {
    assert_eq!((code, &result["clean"]), (0, &Value::Bool(true)), "{result:#}");
    for key in ["lost", "duplicated", "reordered", "corrupted", "errors", "undecided"] {
        assert_eq!(count(result, key), 0, "{key}");
    }
}

/// A folder for one test; removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("ringgate-loadtest-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

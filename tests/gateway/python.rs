//! The Python client, another implementation of the wire, against this gateway.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Gateway, TempFolder, dev_token, dev_token_for};

#[test]
fn python_client_runs_its_tests_then_they_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // tests/mutants tests copies of this folder.
    let python =
        std::env::var_os("RINGGATE_PYTHON").map_or_else(|| root.join("target/python/bin/python"), PathBuf::from);
    assert!(python.exists(), "{} is missing; tests/run makes it", python.display());
    for (gateway, _) in Gateway::of_each_tls_memory() {
        run(python.as_path(), root, &gateway);
        gateway.finish();
    }
}

/// The client's own tests against this gateway, over TCP and over TLS with Python's ssl module.
fn run(python: &Path, root: &Path, gateway: &Gateway) {
    let folder = TempFolder::new();
    let ca = folder.write("ca.pem", &gateway.certificate);
    let users = ["alice", "bob", "carol", "dave"];
    let tokens: serde_json::Value = users.iter().map(|user| ((*user).to_owned(), dev_token(user))).collect();
    let output = Command::new(python)
        .current_dir(root.join("clients/python"))
        .args(["-m", "unittest", "tests.gateway_test"])
        .env("RINGGATE_TCP", gateway.tcp().to_string())
        .env("RINGGATE_TLS", gateway.tls().to_string())
        .env("RINGGATE_CA", ca)
        .env("RINGGATE_TOKENS", tokens.to_string())
        .env("RINGGATE_LATER", dev_token_for("alice", 7200))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // unittest calls a run without tests a success, too.
    let ran = said.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(ran.is_some_and(|ran| ran > 0), "{said}");
}

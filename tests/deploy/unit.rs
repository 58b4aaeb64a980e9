//! `deploy/ringgate.service`, and what all files have in common.

use std::process::Command;

use crate::site::filled;
use crate::support::TempFolder;

#[test]
fn unit_is_read_by_systemd_then_it_finds_nothing_wrong() {
    let folder = TempFolder::new();
    let program = ("/usr/local/bin/ringgate", env!("CARGO_BIN_EXE_ringgate"));
    let files = [
        ("ringgate.service", filled("ringgate.service", &[program])),
        ("ringgate-address.service", filled("ipvs/ringgate-address.service", &[])),
    ];
    for (name, text) in files {
        let unit = folder.write(name, text);
        let output = Command::new("systemd-analyze").arg("verify").arg(&unit).output();
        let output =
            output.unwrap_or_else(|error| panic!("systemd-analyze: {error}; tests/run installs the package systemd"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains(name), "{said}");
    }
}

#[test]
fn clients_are_silent_for_as_long_as_they_may_then_no_proxy_ends_the_connection_before_the_gateway() {
    // Three intervals of the longest kind that a client may wish.
    let node = filled("node.toml", &[]);
    assert!(node.contains("ping_interval_max = \"5m\""), "{node}");
    let haproxy = filled("haproxy.cfg", &[]);
    assert!(haproxy.contains("timeout client 16m\n") && haproxy.contains("timeout server 16m\n"));
    let nginx = filled("nginx.conf", &[]);
    for line in ["proxy_timeout 16m;", "proxy_read_timeout 16m;", "proxy_send_timeout 16m;"] {
        assert!(nginx.contains(line), "{line}");
    }
}

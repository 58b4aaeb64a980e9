//! `deploy/ipvs`: the directors' file, as keepalived reads it, and a gateway that has the clients' address without saying so.
//!
//! What a director does in the kernel is not tried: it needs the kernel's IPVS, which not every host of tests has. What reaches a gateway
//! with direct routing is: a packet for the clients' address in a frame for the gateway's own card.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use ringgate_auth::{Signer, TokenSpec};

use crate::site::filled;
use crate::support::{TempFolder, unix_seconds};

const SECRET: &str = "a secret of a gateway behind IPVS, long enough";

/// A command in a network namespace of its own. Root makes one as it is; others become root in one of users first.
fn in_namespace(script: &str) -> Command {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new("unshare");
    command.args(if is_root { &["--net"][..] } else { &["--net", "--user", "--map-root-user"] });
    command.args(["bash", "-c", script, "bash"]);
    command
}

#[test]
fn keepalived_reads_its_file_then_it_finds_nothing_wrong() {
    let program = Path::new("/usr/sbin/keepalived");
    assert!(program.exists(), "{} is missing; tests/run installs the Debian package keepalived", program.display());
    let folder = TempFolder::new();
    let text = filled("ipvs/keepalived.conf", &[]);
    let wrong = text.replace("lvs_method DR", "lvs_method DIRECT");
    for (name, text, is_good) in [("good.conf", text, true), ("wrong.conf", wrong, false)] {
        let file = folder.write(name, text);
        // With the card that the file names.
        let script = "PATH=$PATH:/usr/sbin:/sbin; ip link add eth0 type veth peer name other && exec keepalived --config-test --use-file \"$1\"";
        let output = in_namespace(script).arg(file).output().unwrap();
        assert_eq!(output.status.success(), is_good, "{name}: {output:?}");
    }
}

#[test]
fn every_gateway_of_node_toml_has_its_part_in_the_file_of_the_directors() {
    let text = filled("ipvs/keepalived.conf", &[]);
    for host in [11, 12, 13] {
        assert_eq!(text.matches(&format!("real_server 10.0.0.{host} 7443 {{")).count(), 1, "10.0.0.{host}");
    }
    // As node.toml has it, for each of them.
    assert!(filled("node.toml", &[]).contains("health_address = \"0.0.0.0:7481\""));
    for line in ["connect_port 7481", "path /readyz", "inhibit_on_failure"] {
        assert_eq!(text.matches(line).count(), 3, "{line}");
    }
    // More than three intervals of 5 min, as with the other proxies.
    assert!(text.contains("lvs_timeouts tcp 960 "));
    let address = "10.0.0.10/32";
    assert!(text.contains(address) && filled("ipvs/ringgate-address.service", &[]).contains(address));
}

/// A client and a gateway on one wire, each in a namespace of its own. `$1` is the gateway's program, `$2` its file, `$3` the settings, `$4` what
/// gives it the clients' address, `$5` a token.
const SCRIPT: &str = r#"
    set -euo pipefail
    PATH=$PATH:/usr/sbin:/sbin
    unshare --net sleep 300 &
    gateway=$!
    serving=
    trap 'kill -9 $gateway $serving' EXIT
    until [ "$(readlink /proc/$gateway/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
    within() { nsenter --net=/proc/$gateway/ns/net -- "$@"; }
    ip link add wire type veth peer name eth0 netns $gateway
    ip address add 10.0.0.5/24 dev wire
    ip link set wire up
    within ip link set lo up
    while read -r key _ value; do
        case $key in net.*) within sh -c "echo $value >/proc/sys/$(echo "$key" | tr . /)" ;; esac
    done <"$3"
    within ip address add 10.0.0.11/24 dev eth0
    within ip link set eth0 up
    within $4
    nsenter --net=/proc/$gateway/ns/net -- "$1" serve --config "$2" >"$2.out" 2>"$2.log" &
    serving=$!
    until grep -q '^ready' "$2.out"; do
        kill -0 $serving
        sleep 0.05
    done
    publish() { echo hello | timeout 20 "$1" client --url "tcp://$2:7443" --token "$3" --to bob >&2; }
    echo "own address: $(publish "$1" 10.0.0.11 "$5" && echo reached)"
    # The network asks whose address this is, and nobody says.
    publish "$1" 10.0.0.10 "$5" && echo "asked for: reached" || echo "asked for: nobody"
    # As a director passes it on.
    card=$(within ip -o link show eth0 | sed 's/.*ether \([0-9a-f:]*\).*/\1/')
    ip neighbour replace 10.0.0.10 lladdr "$card" dev wire
    echo "directly: $(publish "$1" 10.0.0.10 "$5" && echo reached)"
    grep -o '"peer":"[0-9.]*' "$2.log" | sort -u
"#;

#[test]
fn gateway_has_the_clients_address_then_it_answers_what_a_director_passes_on_and_is_silent_when_the_network_asks() {
    let folder = TempFolder::new();
    let file = folder.write(
        "ringgate.toml",
        format!(
            "[runtime]\nshards = 1\npin_cores = false\nconnections_per_shard_max = 64\n\
             [[listeners]]\naddress = \"0.0.0.0:7443\"\n\
             [[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n[logging]\nformat = \"json\"\n"
        ),
    );
    let unit = filled("ipvs/ringgate-address.service", &[]);
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let settings = folder.write("arp.conf", filled("ipvs/arp.conf", &[]));
    let signer = Signer::from_key(SECRET.as_bytes(), None, None).unwrap();
    let spec = TokenSpec { user: "alice".into(), issued_at: unix_seconds(), ttl_seconds: 600, ..TokenSpec::default() };
    let token = signer.sign(&spec).unwrap();
    // Root makes a namespace as it is; others become root in one of users first.
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut unshare = Command::new("unshare");
    unshare.args(if is_root { &["--net"][..] } else { &["--net", "--user", "--map-root-user"] });
    unshare
        .args(["bash", "-c", SCRIPT, "bash", env!("CARGO_BIN_EXE_ringgate")])
        .arg(&file)
        .arg(settings)
        .arg(command)
        .arg(token);
    let output = unshare.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    // Clients have their own address there: there is no header in front of what they say.
    let expected = ["own address: reached", "asked for: nobody", "directly: reached", "\"peer\":\"10.0.0.5"];
    assert_eq!(lines, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

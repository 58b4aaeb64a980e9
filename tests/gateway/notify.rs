//! The service manager is told what the process does: at a path, and at an abstract address.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use crate::support::{DEADLINE, LISTENERS, Process, TempFolder};

const KEY: &str = "[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";

/// A gateway that was started with these variables; its configuration stays in the folder.
fn gateway(folder: &TempFolder, variables: &[(&str, &str)]) -> Process {
    let file = folder.write("ringgate.toml", format!("{LISTENERS}{KEY}[admin]\nenabled = false\n"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.args(["serve", "--config", file.to_str().unwrap()]).envs(variables.iter().copied());
    Process::of(command)
}

/// The next datagram that is not WATCHDOG=1, by its lines, and how many of those came before it.
fn next(manager: &UnixDatagram) -> (Vec<String>, usize) {
    let mut beats = 0;
    loop {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).expect("a datagram");
        match std::str::from_utf8(&bytes[..length]).unwrap() {
            "WATCHDOG=1" => beats += 1,
            text => return (text.lines().map(str::to_owned).collect(), beats),
        }
    }
}

#[test]
fn service_manager_listens_then_it_is_told_ready_reloading_and_stopping() {
    let folder = TempFolder::new();
    let path = folder.path("notify");
    let name = format!("ringgate-test-{}", std::process::id());
    let managers = [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(), format!("@{name}")),
    ];
    for (manager, address) in managers {
        manager.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut gateway = gateway(&folder, &[("NOTIFY_SOCKET", &address)]);
        assert_eq!(next(&manager).0, ["READY=1", "STATUS=ready"]);
        gateway.signal(libc::SIGHUP);
        let (reloading, _) = next(&manager);
        assert_eq!((reloading.len(), reloading[0].as_str()), (3, "RELOADING=1"));
        let us: u64 = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(us > 0, "{us}");
        assert_eq!(next(&manager).0, ["READY=1", "STATUS=ready"]);
        gateway.signal(libc::SIGTERM);
        // Nothing came of a watchdog that nobody has asked for.
        assert_eq!(next(&manager), (vec!["STOPPING=1".to_owned(), "STATUS=draining".to_owned()], 0));
        assert_eq!(gateway.ended().code, Some(0));
    }
}

#[test]
fn watchdog_is_wanted_then_it_is_fed_while_the_shards_move() {
    let folder = TempFolder::new();
    let path = folder.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000")];
    let mut gateway = gateway(&folder, &variables);
    assert_eq!(next(&manager).0[0], "READY=1");
    for _ in 0..5 {
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"WATCHDOG=1");
    }
    gateway.signal(libc::SIGTERM);
    assert_eq!(next(&manager).0[0], "STOPPING=1");
    assert_eq!(gateway.ended().code, Some(0));
}

#[test]
fn socket_is_named_wrongly_or_nobody_listens_then_the_gateway_serves_and_says_so() {
    let folder = TempFolder::new();
    let nobody = folder.path("nobody").display().to_string();
    for (address, says) in
        [("run/notify", "NOTIFY_SOCKET run/notify: must be a path"), (nobody.as_str(), "(NOTIFY_SOCKET) was not told")]
    {
        let mut gateway = gateway(&folder, &[("NOTIFY_SOCKET", address)]);
        gateway.error_line("the warning", |line| line.contains("WARN") && line.contains(says));
        gateway.line("ready", |line| line.starts_with("ready: "));
        gateway.signal(libc::SIGTERM);
        assert_eq!(gateway.ended().code, Some(0));
    }
}

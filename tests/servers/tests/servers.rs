//! The servers that other tests stand on do what is said of them.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ringgate_test_servers::{
    Append, ClientKind, Cluster, Memory, Options, Program, SLOTS, Sentinels, Server, User, Value, wait_until,
};

fn is_alive(process: u32) -> bool {
    // A process that has ended and that nobody has waited for is a zombie.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn text(server: &Server, words: &[&str]) -> Option<String> {
    server.command(words).text()
}

#[test]
fn server_is_dropped_then_its_process_and_files_are_gone() {
    let server = Server::start(&Options::default());
    let (process, folder) = (server.process_id(), server.folder().to_owned());
    assert!(is_alive(process) && folder.join("server.conf").exists());
    assert_eq!(text(&server, &["PING"]).as_deref(), Some("PONG"));
    drop(server);
    assert!(!is_alive(process) && !folder.exists());
}

#[test]
fn test_panics_then_its_server_is_gone() {
    let (say, hear) = std::sync::mpsc::channel();
    let test = std::thread::spawn(move || {
        let server = Server::start(&Options::default());
        say.send((server.process_id(), server.folder().to_owned())).unwrap();
        panic!("as a test does");
    });
    assert!(test.join().is_err());
    let (process, folder) = hear.recv().unwrap();
    assert!(!is_alive(process));
    assert!(folder.join("server.log").exists(), "the files are left for whoever looks for the reason");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn thread_that_started_a_server_ends_then_the_server_lives_on() {
    let server = std::thread::spawn(|| Server::start(&Options::default())).join().unwrap();
    assert_eq!(text(&server, &["PING"]).as_deref(), Some("PONG"));
}

#[test]
fn parent_is_killed_then_its_server_ends() {
    let mut parent = Command::new(env!("CARGO_BIN_EXE_test-server"));
    let mut parent = parent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(parent.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let (_, process) = line.trim().rsplit_once(" process ").unwrap_or_else(|| panic!("{line:?}"));
    let process = process.parse().unwrap();
    assert!(is_alive(process));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until("the server ends with its parent", || !is_alive(process));
}

#[test]
fn server_is_killed_and_restarted_then_it_has_what_it_wrote_down() {
    for (program, append, wanted) in [
        (Program::Redis, Append::Off, None),
        (Program::Redis, Append::Always, Some("v".to_owned())),
        (Program::Valkey, Append::Always, Some("v".to_owned())),
    ] {
        let mut server = Server::start(&Options { program, append, ..Options::default() });
        let address = server.address();
        server.command(&["SET", "k", "v"]);
        server.kill();
        assert!(!server.is_running() && server.try_command(&["PING"]).is_err());
        server.restart();
        assert_eq!((server.address(), text(&server, &["GET", "k"])), (address, wanted), "{program:?} {append:?}");
    }
}

#[test]
fn server_ends_by_sigterm_and_writes_every_second_then_it_has_all() {
    let mut server = Server::start(&Options { append: Append::EverySecond, ..Options::default() });
    server.command(&["SET", "k", "v"]);
    server.terminate();
    assert!(server.try_command(&["PING"]).is_err());
    server.restart();
    assert_eq!(text(&server, &["GET", "k"]).as_deref(), Some("v"));
}

#[test]
fn server_is_paused_then_it_answers_when_it_goes_on() {
    let server = Server::start(&Options::default());
    let mut client = server.connect().unwrap();
    server.pause();
    client.set_timeout(Duration::from_millis(100)).unwrap();
    client.send(&["PING"]).unwrap();
    assert_eq!(client.read().unwrap_err().kind(), ErrorKind::WouldBlock);
    server.resume();
    client.set_timeout(ringgate_test_servers::DEADLINE).unwrap();
    assert_eq!(client.read().unwrap(), Value::Simple("PONG".to_owned()));
}

#[test]
fn users_are_given_then_only_they_sign_in() {
    let user = |name: &str| User { name: name.to_owned(), password: format!("password of {name}").replace(' ', "-") };
    for (users, names) in [(vec![user("ringgate")], vec!["ringgate"]), (vec![user("default")], vec!["default"])] {
        let server = Server::start(&Options { users, ..Options::default() });
        for name in ["ringgate", "default", "nobody"] {
            let mut client = ringgate_test_servers::Client::connect(server.address(), Duration::from_secs(30)).unwrap();
            let refused = client.command(&["GET", "k"]).unwrap();
            assert!(refused.text().unwrap().starts_with("NOAUTH"), "{refused:?}");
            let answer = client.command(&["AUTH", name, &format!("password-of-{name}")]).unwrap();
            let is_in = !matches!(answer, Value::Error(_));
            assert_eq!(is_in, names.contains(&name), "{name}: {answer:?}");
        }
        assert_eq!(text(&server, &["PING"]).as_deref(), Some("PONG"), "the tests' own user");
    }
}

#[test]
fn tls_is_asked_for_then_the_port_speaks_it_with_that_authority() {
    use rustls_pki_types::pem::PemObject;
    let server = Server::start(&Options { tls: true, ..Options::default() });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(server.authority_file()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
    let config =
        config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = std::net::TcpStream::connect(server.tls_address()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    stream.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn memory_is_bounded_then_the_policy_decides() {
    let memory = |policy| Options { memory: Some(Memory { bytes_max: 3 << 20, policy }), ..Options::default() };
    let value = "v".repeat(100_000);
    let fill = |server: &Server| -> Vec<bool> {
        (0..40).map(|n| server.try_command(&["SET", &format!("k{n}"), &value]).is_ok()).collect()
    };
    let full = Server::start(&memory("noeviction"));
    assert!(fill(&full).contains(&false));
    let error = full.try_command(&["SET", "k", &value]).unwrap_err().to_string();
    assert!(error.starts_with("OOM"), "{error}");
    let evicting = Server::start(&memory("allkeys-lru"));
    assert!(!fill(&evicting).contains(&false));
    assert_ne!(evicting.info("stats")["evicted_keys"], "0");
    // Changed while it runs.
    full.config_set("maxmemory-policy", "allkeys-lru");
    full.command(&["SET", "k", &value]);
}

#[test]
fn clients_are_killed_then_those_of_that_kind_alone() {
    let server = Server::start(&Options::default());
    let mut normal = server.connect().unwrap();
    normal.command(&["PING"]).unwrap();
    let mut subscriber = server.connect().unwrap();
    subscriber.command(&["SUBSCRIBE", "c"]).unwrap();
    assert_eq!(server.kill_clients(ClientKind::Pubsub), 1);
    assert_eq!(subscriber.read().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(normal.command(&["PING"]).unwrap(), Value::Simple("PONG".to_owned()));
    let mut subscriber = server.connect().unwrap();
    subscriber.command(&["SUBSCRIBE", "c"]).unwrap();
    assert_eq!(server.kill_clients(ClientKind::Normal), 1);
    assert!(normal.command(&["PING"]).is_err());
    server.command(&["PUBLISH", "c", "m"]);
    let message = subscriber.read().unwrap();
    let words: Vec<_> = message.list().iter().filter_map(Value::text).collect();
    assert_eq!(words, ["message", "c", "m"]);
}

#[test]
fn command_is_executed_then_it_is_counted_also_in_a_script() {
    let server = Server::start(&Options::default());
    assert_eq!(server.calls("xadd"), 0);
    server.command(&["XADD", "s", "*", "f", "v"]);
    server.command(&["EVAL", "return redis.call('XADD', 's', '*', 'f', 'v')", "0"]);
    assert_eq!((server.calls("xadd"), server.calls("eval")), (2, 1));
}

#[test]
fn primary_has_a_replica_then_it_has_the_data() {
    let users = vec![User { name: "ringgate".to_owned(), password: "p".to_owned() }];
    let (primary, replicas) = Server::start_with_replicas(&Options { users, ..Options::default() }, 1);
    primary.command(&["SET", "k", "v"]);
    wait_until("the replica has the value", || text(&replicas[0], &["GET", "k"]).as_deref() == Some("v"));
    assert_eq!(primary.info("replication")["connected_slaves"], "1");
    assert_eq!(primary.kill_clients(ClientKind::Replica), 1);
}

#[test]
fn primary_of_sentinels_dies_then_another_one_is_named() {
    let mut sentinels = Sentinels::start(&Options::default());
    assert_eq!(sentinels.primary(), Some(0));
    sentinels.servers[0].kill();
    let new = sentinels.wait_for_failover(0);
    sentinels.servers[new].command(&["SET", "k", "v"]);
    sentinels.servers[0].restart();
    wait_until("the old primary follows the new one", || {
        sentinels.servers[0].try_command(&["GET", "k"]).is_ok_and(|value| value.text().as_deref() == Some("v"))
    });
}

#[test]
fn failover_is_ordered_then_another_primary_is_named() {
    let users = vec![User { name: "ringgate".to_owned(), password: "p".to_owned() }];
    let sentinels = Sentinels::start(&Options { users, ..Options::default() });
    let new = sentinels.failover();
    assert_ne!(new, 0);
    assert_eq!(sentinels.primary(), Some(new));
    sentinels.servers[new].command(&["SET", "k", "v"]);
}

#[test]
fn cluster_without_replicas_then_slots_are_shared_and_move_with_their_keys() {
    let cluster = Cluster::start(&Options::default(), false);
    let owners = [0, SLOTS / 3 + 1, SLOTS - 1].map(|slot| cluster.owner_of(slot));
    assert_eq!(owners, [Some(0), Some(1), Some(2)]);
    let slot = cluster.slot_of("{a}:1");
    assert_eq!(slot, cluster.slot_of("{a}:2"));
    let owner = cluster.owner_of(slot).unwrap();
    for key in ["{a}:1", "{a}:2"] {
        cluster.nodes[owner].command(&["SET", key, key]);
    }
    let other = (owner + 1) % 3;
    cluster.move_slot(slot, other);
    assert_eq!(text(&cluster.nodes[other], &["GET", "{a}:2"]).as_deref(), Some("{a}:2"));
    let moved = cluster.nodes[owner].try_command(&["GET", "{a}:2"]).unwrap_err().to_string();
    assert!(moved.starts_with("MOVED"), "{moved}");
    cluster.wait_until_whole();
}

#[test]
fn master_of_a_cluster_is_lost_or_steps_back_then_its_replica_has_the_slots() {
    for program in [Program::Redis, Program::Valkey] {
        let mut cluster = Cluster::start(&Options { program, append: Append::Always, ..Options::default() }, true);
        cluster.failover(3);
        wait_until("all nodes agree", || cluster.owner_of(0) == Some(3));
        cluster.nodes[1].kill();
        let slot = SLOTS / 3 + 1;
        wait_until("the replica of the lost master is one", || cluster.owner_of(slot) == Some(4));
        cluster.nodes[1].restart();
        cluster.wait_until_whole();
        assert_eq!(cluster.owner_of(slot), Some(4), "{program:?}");
    }
}

#[test]
fn valkey_then_its_version_is_told() {
    let server = Server::start(&Options { program: Program::Valkey, ..Options::default() });
    assert!(server.info("server")["valkey_version"].starts_with("9."));
    assert!(Path::new(server.folder()).join("server.log").exists());
}

//! A table without room refuses clients; in a process without descriptors they wait in the backlog. Nobody spins, and clients get
//! in when others leave.

use std::collections::VecDeque;
use std::process::Command;
use std::time::Instant;

use ringgate_core::close::CloseReason;
use ringgate_core::metrics::Refusal;
use ringgate_net::Descriptors;

use crate::support::{
    Client, Frame, Gateway, Login, Process, TempFolder, claims_token, http, unix_seconds, wait_until,
};

const SLOTS: usize = 8;
/// Clients that come at once to a full table, and how often.
const REFUSED: usize = 100;
const ROUNDS: usize = 5;
/// Accepts in flight of the process.
const ACCEPTS: usize = 4;

fn a_full_table(descriptors: Descriptors) {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(1);
        config.runtime.connections_per_shard_max = SLOTS as u32;
        config.runtime.descriptors = descriptors;
    });
    let mut inside: Vec<_> = (0..SLOTS).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    let refused = || gateway.sum(|m| &m.connections_refused[Refusal::Full]);
    // More at once than there are spare slots.
    for round in 1..=ROUNDS {
        let others: Vec<_> = (0..REFUSED).map(|_| gateway.client()).collect();
        for mut client in others {
            client.expect_close(CloseReason::Busy.code());
        }
        assert_eq!(refused(), (round * REFUSED) as u64);
    }
    // Those inside go on as ever, and the shard enters the kernel for them alone.
    let (began, enters) = (Instant::now(), gateway.sum(|m| &m.ring_enters));
    const PINGS: u64 = 200;
    for ping in 0..PINGS as usize {
        inside[ping % SLOTS].ping();
    }
    let entered = gateway.sum(|m| &m.ring_enters) - enters;
    let bound = PINGS * 20 + began.elapsed().as_millis() as u64;
    assert!(entered <= bound, "{entered} enters for {PINGS} pings in {:?}", began.elapsed());
    assert_eq!(gateway.sum_all(|m| &m.connections_accepted), SLOTS as u64, "nobody else was accepted");
    assert_eq!(gateway.sum(|m| &m.accept_exhausted), 0);
    // One leaves, one gets in; and at last all of them.
    for number in 0..SLOTS {
        drop(inside.remove(0));
        wait_until("another one is in", || {
            let mut client = gateway.client();
            let is_in = client.is_admitted(&Login::user(&format!("late{number}")));
            inside.extend(is_in.then_some(client));
            is_in
        });
    }
    for client in &mut inside {
        client.ping();
    }
    gateway.finish();
}

#[test]
fn table_of_direct_descriptors_is_full_then_clients_are_refused_until_others_leave() {
    a_full_table(Descriptors::Direct);
}

#[test]
fn table_of_ordinary_descriptors_is_full_then_clients_are_refused_until_others_leave() {
    a_full_table(Descriptors::Ordinary);
}

/// A process whose limit of open files is reached although its table has room: something else holds descriptors.
#[test]
fn process_has_no_descriptors_then_clients_wait_until_others_leave() {
    const LIMIT: usize = 16 + 16 + 64;
    const CLIENTS: usize = 14;
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let folder = TempFolder::new();
    let config = folder.write(
        "ringgate.toml",
        format!(
            "[runtime]\nshards = 1\ndescriptors = \"ordinary\"\nconnections_per_shard_max = 16\n\
             accepts_in_flight = {ACCEPTS}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
             [admin]\naddress = \"127.0.0.1:0\"\n\
             [[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
        ),
    );
    // Descriptors that the program inherits, so many that there is room for a few clients only. Those that this test
    // inherited are closed: their number, and whether they are above the limit, is chance.
    let script = format!(
        "for fd in /proc/$$/fd/*; do fd=${{fd##*/}}; [ $fd -le 2 ] || eval \"exec $fd>&-\"; done; \
         for fd in $(seq 20 91); do eval \"exec $fd</dev/null\"; done; ulimit -n {LIMIT}; echo pid $$; \
         exec \"$0\" serve --config \"$1\""
    );
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_ringgate")).arg(&config);
    let process = Process::of(command);
    process.line("ready", |line| line.starts_with("ready: "));
    let address = process.tcp();
    let admin = process.line("admin", |line| line.starts_with("admin http://"));
    let admin = admin.trim_start_matches("admin http://").parse().unwrap();
    let pid = process.line("pid", |line| line.starts_with("pid "));
    let folder_of_descriptors = format!("/proc/{}/fd", pid.trim_start_matches("pid "));
    let open = || std::fs::read_dir(&folder_of_descriptors).unwrap().count();
    let before = open();
    assert!(before < LIMIT && before + CLIENTS > LIMIT, "{before} descriptors are open at the start");

    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let login = |user: usize| {
        let claims = serde_json::json!({"sub": format!("user{user}"), "exp": unix_seconds() + 3600});
        Login::token(claims_token(jsonwebtoken::Algorithm::HS256, None, &key, &claims))
    };
    let began = Instant::now();
    let mut clients: VecDeque<Client> = (0..CLIENTS).map(|_| Client::tcp(address)).collect();
    for (user, client) in clients.iter_mut().enumerate() {
        client.send_connect(&login(user));
    }
    let connected = |client: &mut Client| {
        client.take("Connected", |frame| matches!(frame, Frame::Connected(_)).then_some(()));
    };
    wait_until("the last descriptor is taken", || open() == LIMIT);
    // A request to the admin listener waits now, and is answered once there is a descriptor.
    let asking = std::thread::spawn(move || http(admin, "GET", "/healthz").status);
    let inside = LIMIT - before;
    for client in clients.iter_mut().take(inside) {
        connected(client);
    }
    for ping in 0..200 {
        clients[ping % inside].ping();
    }
    // One leaves, one gets in.
    for _ in inside..CLIENTS {
        clients.pop_front();
        connected(&mut clients[inside - 1]);
    }
    for client in &mut clients {
        client.ping();
    }
    // The admin listener needs descriptors, too.
    clients.truncate(2);
    wait_until("descriptors are free again", || open() + 4 <= LIMIT);
    assert_eq!(asking.join().unwrap(), 200);
    let metrics = http(admin, "GET", "/metrics");
    let exhausted = metrics.sample("ringgate_accept_exhausted_total{shard=\"0\"}");
    let pauses = began.elapsed().as_millis() as f64 / 100.0 + 2.0;
    assert!((1.0..=pauses * ACCEPTS as f64).contains(&exhausted), "{exhausted} times in {:?}", began.elapsed());
    assert_eq!(metrics.sample("ringgate_connections_accepted_total{transport=\"tcp\"}"), CLIENTS as f64);
}

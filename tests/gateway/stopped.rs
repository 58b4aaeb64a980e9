//! A gateway that was stopped for a while, as a machine that is moved or a debugger does it: what has come meanwhile is read
//! before silence is held against anybody, however much it is.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey};
use ringgate_core::wire::Kind;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_net::raise_descriptor_limit;
use serde_json::json;

use crate::support::{Client, Frame, LISTENERS, Login, Process, claims_token, unix_seconds, wait_until};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A gateway with one shard in a process of its own, which closes a client after nine seconds of silence.
struct Gateway(Process);

impl Gateway {
    fn start() -> Gateway {
        Gateway::with("ping_interval = \"3s\"\npong_timeout = \"1s\"\nmissed_pings_max = 3\n")
    }

    /// One with these keys of `client`.
    fn with(client: &str) -> Gateway {
        Gateway(Process::gateway(&format!(
            "{LISTENERS}[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n[admin]\nenabled = false\n\
             [client]\n{client}[runtime]\nshards = 1\n"
        )))
    }

    fn sign_in(&self, user: &str) -> Client {
        let claims = json!({ "sub": user, "exp": unix_seconds() + 3600 });
        let token = claims_token(Algorithm::HS256, None, &EncodingKey::from_secret(SECRET.as_bytes()), &claims);
        let mut client = Client::tcp(self.0.tcp());
        client.sign_in(&Login::token(token));
        client
    }

    /// Stops the process, and has it go on after this time.
    fn stop_for(&self, time: Duration, meanwhile: impl FnOnce()) {
        self.0.signal(libc::SIGSTOP);
        meanwhile();
        std::thread::sleep(time);
        self.0.signal(libc::SIGCONT);
    }
}

#[test]
fn client_pinged_while_the_process_was_stopped_then_it_is_not_closed() {
    let gateway = Gateway::start();
    let mut client = gateway.sign_in("alice");
    gateway.stop_for(Duration::from_secs(10), || client.send_empty(Kind::Ping));
    client.take_pong();
    client.ping();
}

#[test]
fn more_answers_than_a_turn_reads_came_meanwhile_then_nobody_is_closed() {
    // A turn reads 1 024 completions and then closes those whose time to answer is over.
    const CLIENTS: usize = 2_500;
    raise_descriptor_limit();
    // Everybody is asked after 4.1 seconds of silence, and closed after eight.
    let gateway = Gateway::with("ping_interval = \"4s\"\npong_timeout = \"3900ms\"\nmissed_pings_max = 2\n");
    let mut clients: Vec<Client> = Vec::with_capacity(CLIENTS);
    let mut heard = Instant::now();
    for number in 0..CLIENTS {
        clients.push(gateway.sign_in(&format!("user{number}")));
        if heard.elapsed() > Duration::from_secs(2) {
            clients.iter_mut().for_each(Client::ping);
            heard = Instant::now();
        }
    }
    // A test that is kept from running comes too late to stop it between the question and the end: then once more.
    wait_until("the gateway is stopped while it waits for answers", || {
        clients.iter_mut().for_each(Client::ping);
        let heard = Instant::now();
        for client in &mut clients {
            client.take("Ping", |frame| matches!(frame, Frame::Ping).then_some(()));
        }
        let in_time = heard.elapsed() < Duration::from_secs(6);
        gateway.stop_for(Duration::from_secs(if in_time { 6 } else { 0 }), || {
            for client in &mut clients {
                client.send_empty(Kind::ClientPong);
            }
        });
        in_time
    });
    clients.iter_mut().for_each(Client::ping);
}

#[test]
fn broadcasts_came_while_the_process_was_stopped_then_all_are_delivered() {
    // More than a shard keeps waiting.
    const PUBLISHERS: usize = 8;
    const EACH: usize = 400;
    let gateway = Gateway::start();
    let member = |user: &str| {
        let mut client = gateway.sign_in(user);
        client.subscribe("chat:busy");
        client
    };
    let mut reader = member("reader");
    let mut publishers: Vec<Client> = (0..PUBLISHERS).map(|number| member(&format!("publisher{number}"))).collect();
    // Longer than what the gateway takes for a stop.
    gateway.stop_for(Duration::from_millis(1500), || {
        for publisher in &mut publishers {
            for _ in 0..EACH {
                publisher.send_publish(PublishRequest { topic: "chat:busy", payload: &[7; 100], ..Default::default() });
            }
        }
    });
    assert_eq!(reader.messages(PUBLISHERS * EACH).len(), PUBLISHERS * EACH);
}

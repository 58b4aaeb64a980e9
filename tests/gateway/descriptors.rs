//! Both kinds of descriptors behave alike, and every slot is free again after each kind of end.

use std::net::TcpStream;
use std::time::Duration;

use ringgate_core::wire::Kind;
use ringgate_net::Descriptors;

use crate::support::{Gateway, Login};

const SLOTS: u32 = 64;

fn gateway_with(descriptors: Descriptors) -> Gateway {
    Gateway::with(|config| {
        config.runtime.descriptors = descriptors;
        config.runtime.connections_per_shard_max = SLOTS;
    })
}

fn messages_arrive(descriptors: Descriptors) {
    let gateway = gateway_with(descriptors);
    let mut plain: Vec<_> = (0..8).map(|user| gateway.sign_in(&format!("plain{user}"))).collect();
    let mut secured: Vec<_> = (0..8).map(|_| gateway.tls_client()).collect();
    for (user, client) in secured.iter_mut().enumerate() {
        client.sign_in(&Login::user(&format!("secured{user}")));
    }
    let large = vec![7; 60_000];
    for user in 0..8 {
        plain[user].publish(&format!("@secured{user}"), &large);
        secured[user].publish(&format!("@plain{user}"), "small");
        let message = secured[user].message();
        assert!(message.payload == large);
        secured[user].ack(message.stamp.position);
        let message = plain[user].message();
        assert_eq!(message.text(), "small");
        plain[user].ack(message.stamp.position);
    }
    gateway.wait_for("acknowledged", 16, |m| &m.inbox_acked);
    gateway.finish();
}

fn slots_come_back(descriptors: Descriptors) {
    let gateway = gateway_with(descriptors);
    let mut stays = gateway.sign_in("stays");
    // Several times as many connections as there are slots, of each kind of end.
    for round in 0..SLOTS {
        let login = Login::user("guest").device(&(round % 4).to_string());
        drop(gateway.client());
        gateway.sign_in_with(&login).send_empty(Kind::Disconnect);
        let mut leaves_unread = gateway.sign_in_with(&login);
        leaves_unread
            .send_publish(ringgate_core::wire::encode::PublishRequest { topic: "@stays", ..Default::default() });
        let reset = TcpStream::connect(gateway.tcp()).unwrap();
        socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
        drop(reset);
        drop(TcpStream::connect(gateway.tls()).unwrap());
        let mut secured = gateway.tls_client();
        secured.sign_in(&login);
        secured.send_empty(Kind::Ping);
        drop(secured);
        let mut garbage = gateway.client();
        garbage.send_bytes(&[8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        garbage.expect_close(3501);
    }
    gateway.wait_for("slots", 1, |m| &m.ring_slots_used);
    stays.ping();
    gateway.finish();
}

#[test]
fn direct_descriptors_then_messages_arrive() {
    messages_arrive(Descriptors::Direct);
}

#[test]
fn ordinary_descriptors_then_messages_arrive() {
    messages_arrive(Descriptors::Ordinary);
}

#[test]
fn direct_descriptors_are_closed_then_slots_are_free() {
    slots_come_back(Descriptors::Direct);
}

#[test]
fn ordinary_descriptors_are_closed_then_slots_are_free() {
    slots_come_back(Descriptors::Ordinary);
}

//! A drain while shards still have something to say to each other.

use std::sync::atomic::AtomicBool;

use crate::support::Gateway;

/// A shard without clients is done at once; clients of the others have inboxes and rooms on it nevertheless.
#[test]
fn shard_has_drained_first_then_the_others_still_drain() {
    let gateways: Vec<_> = (0..8)
        .map(|number| {
            let gateway = Gateway::start();
            let mut client = gateway.sign_in(&format!("user{number}"));
            client.subscribe("chat:lobby");
            (gateway, client)
        })
        .collect();
    for (gateway, mut client) in gateways {
        let draining = std::thread::spawn(move || gateway.shutdown(&AtomicBool::new(false)));
        client.expect_close(3001);
        drop(client);
        assert!(draining.join().unwrap(), "the drain did not end");
    }
}

//! A drain while shards still have something to say to each other.

use std::sync::atomic::AtomicBool;

use crate::support::Gateway;

/// A shard without clients is done at once; those of the others have their inboxes and rooms on it all the same.
#[test]
fn a_shard_that_is_done_first_does_not_hold_up_the_others() {
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

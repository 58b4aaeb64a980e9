//! Redis forgets a subscription without a word: what it knows is compared with what it had confirmed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringgate_core::shard::Event;
use ringgate_redis::{Options, Server, Servers};

use crate::node::{Node, options, redis, settings, until};

/// What begins the answer to the end of a subscription.
const ENDED: &[u8] = b"*3\r\n$12\r\nsunsubscribe\r\n";

/// Passes bytes on between the node and Redis, and can end a subscription of the node behind its back.
#[derive(Clone)]
struct Proxy {
    address: SocketAddr,
    /// To Redis, over the connection that has subscriptions.
    news: Arc<Mutex<Option<TcpStream>>>,
    /// The next answer to the end of a subscription is kept from the node.
    hides: Arc<AtomicBool>,
}

impl Proxy {
    fn start(redis: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let proxy = Proxy { address, news: Arc::default(), hides: Arc::default() };
        let accepting = proxy.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for node in listener.incoming().map_while(Result::ok) {
                let Ok(redis) = TcpStream::connect(redis) else { return };
                accepting.pass(node, redis);
            }
        });
        proxy
    }

    fn pass(&self, node: TcpStream, redis: TcpStream) {
        let (mut from_node, mut to_redis) = (node.try_clone().expect("a socket"), redis.try_clone().expect("a socket"));
        let (mut from_redis, mut to_node) = (redis, node);
        let (up, down) = (self.clone(), self.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(count @ 1..) = from_node.read(&mut buffer) {
                if buffer[..count].windows(10).any(|window| window == b"SSUBSCRIBE") {
                    *up.news.lock().expect("no panic") = to_redis.try_clone().ok();
                }
                if to_redis.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(count @ 1..) = from_redis.read(&mut buffer) {
                let mut bytes = buffer[..count].to_vec();
                if down.hides.load(Ordering::Relaxed)
                    && let Some(at) = bytes.windows(ENDED.len()).position(|window| window == ENDED)
                {
                    // Two lines for the channel, and one for how many are left.
                    let rest = &bytes[at + ENDED.len()..];
                    let ends = rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end);
                    let length = ends.take(3).last().expect("a whole answer") + 1;
                    bytes.drain(at..at + ENDED.len() + length);
                    down.hides.store(false, Ordering::Relaxed);
                }
                if to_node.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
    }

    fn end_subscription(&self, channel: &str) {
        self.hides.store(true, Ordering::Relaxed);
        let news = self.news.lock().expect("no panic");
        let command = format!("*2\r\n$12\r\nSUNSUBSCRIBE\r\n${}\r\n{channel}\r\n", channel.len());
        news.as_ref().expect("a connection for news").write_all(command.as_bytes()).expect("it is there");
    }
}

#[test]
fn redis_forgets_a_subscription_without_a_word_then_it_is_found_and_the_topic_is_heard_again() {
    let redis = redis();
    let proxy = Proxy::start(redis.address());
    let servers = Servers::Standalone(Server { host: "127.0.0.1".to_owned(), port: proxy.address.port() });
    let often = Options { servers, subscriptions_checked_every: Duration::from_millis(200), ..options(&redis) };
    let (node, other) = (Node::with(often, settings(), 1), Node::start(&redis, 2));
    node.loaded("chat:x");
    node.loaded("chat:y");
    let channel = redis.command(&["PUBSUB", "SHARDCHANNELS", "*:c:chat:x"]).list()[0].text().expect("a channel");
    proxy.end_subscription(&channel);
    until("Redis has ended it", || redis.command(&["PUBSUB", "SHARDCHANNELS", "*:c:chat:x"]).list().is_empty());
    other.store(other.record("chat:x", "unheard"));
    node.wait_for("a change", |event| matches!(event, Event::Changed { topic } if **topic == *"chat:x").then_some(()));
    assert!(!proxy.hides.load(Ordering::Relaxed), "the node was not told");
    assert_eq!(other.store(other.record("chat:x", "heard")).offset, 2);
    until("the second message is heard", || node.arrived("chat:x").1.offset == 2);
    assert_eq!(node.status.reconnects.load(Ordering::Relaxed), 0);
}

//! Two users who write to each other during the whole test, each message whole, once and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{Gateway, wait_until};

const PAUSE: Duration = Duration::from_millis(3);

/// See the module. A thread of its own, so that they go on while the test waits.
pub(crate) struct Bystanders {
    stop: Arc<AtomicBool>,
    exchanges: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Bystanders {
    pub(crate) fn start(gateway: &Gateway) -> Bystanders {
        let (stop, exchanges) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut pair = [gateway.sign_in("bystander0"), gateway.sign_in("bystander1")];
        let (stopped, counted) = (stop.clone(), exchanges.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = counted.load(Ordering::Relaxed);
                for (from, to) in [(0, 1), (1, 0)] {
                    let text = format!("{from} says {number}");
                    pair[from].publish(&format!("@bystander{to}"), &text);
                    let message = pair[to].message();
                    assert_eq!(message.text(), text);
                    pair[to].ack(message.stamp.position);
                }
                counted.store(number + 1, Ordering::Relaxed);
                // They keep to the gateway's limit of frames per second.
                std::thread::sleep(PAUSE);
            }
            // Nothing else came: the next frame is the answer to this.
            for client in &mut pair {
                client.ping();
                assert!(client.arrived().is_empty(), "bystanders got something that was not for them");
            }
        });
        let bystanders = Bystanders { stop, exchanges, thread };
        bystanders.go_on();
        bystanders
    }

    /// Waits until they have talked some more, from now on.
    pub(crate) fn go_on(&self) {
        let wanted = self.exchanges.load(Ordering::Relaxed) + 3;
        wait_until("bystanders talk", || {
            assert!(!self.thread.is_finished(), "bystanders were disturbed");
            self.exchanges.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Stops them, after another few words.
    pub(crate) fn finish(self) {
        self.go_on();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("bystanders were not disturbed");
    }
}

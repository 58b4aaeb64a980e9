//! The mailboxes of shards and what could stand in their place, behind one trait.

use std::sync::Arc;

use ringgate_core::mesh::{Capacity, Mailbox, Wake, mailboxes};
use ringgate_net::Bell;

/// As large as what really travels.
#[derive(Clone, Copy)]
pub(crate) struct Letter([u64; WORDS]);

const WORDS: usize = size_of::<ringgate_core::shard::Letter>() / 8;

impl Letter {
    pub(crate) fn new(number: u64) -> Self {
        Letter([number; WORDS])
    }

    pub(crate) fn number(&self) -> u64 {
        self.0[WORDS - 1]
    }
}

/// One direction between two threads, bounded. A full queue hands the letter back.
pub(crate) trait Queue {
    const NAME: &'static str;
    type Sender: Send;
    type Receiver: Send;
    fn new(capacity: usize) -> (Self::Sender, Self::Receiver);
    fn push(sender: &mut Self::Sender, letter: Letter) -> Result<(), Letter>;
    /// After the last letter of a turn.
    fn end_of_turn(_: &mut Self::Sender) {}
    fn pop(receiver: &mut Self::Receiver) -> Option<Letter>;
    /// Sleeps until there is a letter.
    fn wait(receiver: &mut Self::Receiver) -> Letter;
}

pub(crate) struct Mesh;
pub(crate) struct Crossbeam;
pub(crate) struct Flume;
pub(crate) struct Tokio;

/// A doorbell as threads of shards have it.
pub(crate) fn new_bell() -> Arc<Bell> {
    Arc::new(Bell::new().expect("an eventfd"))
}

/// Sleeps until it rings, without a runtime and without a timeout.
pub(crate) fn sleep_on(bell: &Bell) {
    rustix::io::read(bell, &mut [0u8; 8]).expect("an eventfd can be read");
}

pub(crate) struct Shard {
    mailbox: Mailbox<Letter>,
    bell: Arc<Bell>,
}

impl Queue for Mesh {
    const NAME: &'static str = "mesh";
    type Sender = Shard;
    type Receiver = Shard;

    fn new(capacity: usize) -> (Shard, Shard) {
        let bells = [new_bell(), new_bell()];
        let wakers = bells.iter().map(|bell| bell.clone() as Arc<dyn Wake>).collect();
        let mut shards = mailboxes(wakers, Capacity::letters(capacity))
            .into_iter()
            .zip(bells)
            .map(|(mailbox, bell)| Shard { mailbox, bell });
        match (shards.next(), shards.next()) {
            (Some(first), Some(second)) => (first, second),
            _ => unreachable!("two wakers make two mailboxes"),
        }
    }

    fn push(sender: &mut Shard, letter: Letter) -> Result<(), Letter> {
        sender.mailbox.push(1, letter, true)
    }

    fn end_of_turn(sender: &mut Shard) {
        sender.mailbox.ring();
    }

    fn pop(receiver: &mut Shard) -> Option<Letter> {
        receiver.mailbox.pop()
    }

    fn wait(receiver: &mut Shard) -> Letter {
        loop {
            if let Some(letter) = receiver.mailbox.pop() {
                return letter;
            }
            if receiver.mailbox.try_sleep() {
                sleep_on(&receiver.bell);
                receiver.mailbox.wake_up();
            }
        }
    }
}

impl Queue for Crossbeam {
    const NAME: &'static str = "crossbeam-channel";
    type Sender = crossbeam_channel::Sender<Letter>;
    type Receiver = crossbeam_channel::Receiver<Letter>;

    fn new(capacity: usize) -> (Self::Sender, Self::Receiver) {
        crossbeam_channel::bounded(capacity)
    }

    fn push(sender: &mut Self::Sender, letter: Letter) -> Result<(), Letter> {
        sender.try_send(letter).map_err(crossbeam_channel::TrySendError::into_inner)
    }

    fn pop(receiver: &mut Self::Receiver) -> Option<Letter> {
        receiver.try_recv().ok()
    }

    fn wait(receiver: &mut Self::Receiver) -> Letter {
        receiver.recv().expect("the sender lives")
    }
}

impl Queue for Flume {
    const NAME: &'static str = "flume";
    type Sender = flume::Sender<Letter>;
    type Receiver = flume::Receiver<Letter>;

    fn new(capacity: usize) -> (Self::Sender, Self::Receiver) {
        flume::bounded(capacity)
    }

    fn push(sender: &mut Self::Sender, letter: Letter) -> Result<(), Letter> {
        sender.try_send(letter).map_err(flume::TrySendError::into_inner)
    }

    fn pop(receiver: &mut Self::Receiver) -> Option<Letter> {
        receiver.try_recv().ok()
    }

    fn wait(receiver: &mut Self::Receiver) -> Letter {
        receiver.recv().expect("the sender lives")
    }
}

impl Queue for Tokio {
    const NAME: &'static str = "tokio mpsc";
    type Sender = tokio::sync::mpsc::Sender<Letter>;
    type Receiver = tokio::sync::mpsc::Receiver<Letter>;

    fn new(capacity: usize) -> (Self::Sender, Self::Receiver) {
        tokio::sync::mpsc::channel(capacity)
    }

    fn push(sender: &mut Self::Sender, letter: Letter) -> Result<(), Letter> {
        sender.try_send(letter).map_err(tokio::sync::mpsc::error::TrySendError::into_inner)
    }

    fn pop(receiver: &mut Self::Receiver) -> Option<Letter> {
        receiver.try_recv().ok()
    }

    fn wait(receiver: &mut Self::Receiver) -> Letter {
        receiver.blocking_recv().expect("the sender lives")
    }
}

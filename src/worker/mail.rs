//! Letters to and from other shards, and what the control plane asks.

use std::collections::VecDeque;
use std::sync::Arc;

use ringgate_core::id::ShardId;
use ringgate_core::mesh::Mailbox;
use ringgate_core::session::Authenticator;
use ringgate_core::shard::{Event, Letter, Posted};
use rustls::ServerConfig;

use super::driver::Core;

/// What travels through the mesh.
#[derive(Debug)]
pub enum Mail {
    /// From shard to shard.
    Letter(Letter),
    /// From the control plane.
    Control(Control),
    /// From the engine that keeps messages.
    Engine(Box<Event<'static>>),
}

// What is measured of the mesh in bench/ is as large.
const _: () = assert!(size_of::<Mail>() == size_of::<Letter>());

impl Mail {
    /// Bytes of the messages in it.
    pub fn bytes(&self) -> usize {
        match self {
            Mail::Letter(letter) => letter.bytes(),
            Mail::Control(_) => 0,
            Mail::Engine(event) => match &**event {
                Event::Read { result: Ok(read), .. } => read.messages.iter().map(|message| message.frame.len()).sum(),
                Event::Arrived { message, .. } => message.frame.len(),
                Event::Relayed { frame, .. } => frame.len(),
                _ => 0,
            },
        }
    }
}

/// What the control plane asks of a shard.
#[derive(Debug)]
pub enum Control {
    /// Stop accepting, tell every client to go, and end when all are gone.
    Drain,
    /// Use these from now on. A shard that has dropped its reference uses them.
    Reload(Arc<Reload>),
}

/// What can be exchanged while a gateway runs. Sessions that are signed in stay.
pub struct Reload {
    /// For connections accepted from now on. None keeps the present certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// For tokens looked at from now on.
    pub authenticator: Arc<dyn Authenticator>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

/// Letters for shards whose mailbox is full, in order.
pub(super) struct Backlog {
    by_shard: Vec<VecDeque<Letter>>,
    letters: usize,
}

impl Backlog {
    pub(super) fn new(shards: usize) -> Self {
        Backlog { by_shard: (0..shards).map(|_| VecDeque::new()).collect(), letters: 0 }
    }

    /// Letters in it.
    pub(super) fn letters(&self) -> usize {
        self.letters
    }

    pub(super) fn push(&mut self, posted: Posted) {
        if let Some(backlog) = self.by_shard.get_mut(usize::from(posted.to.0)) {
            backlog.push_back(posted.letter);
            self.letters += 1;
        }
    }

    /// Moves letters into mailboxes as far as there is room, and wakes shards that sleep. The core is told what is left.
    pub(super) fn send(&mut self, mailbox: &mut Mailbox<Mail>, core: &mut Core) {
        if self.letters == 0 {
            return;
        }
        for (to, backlog) in self.by_shard.iter_mut().enumerate().filter(|(_, backlog)| !backlog.is_empty()) {
            while let Some(letter) = backlog.pop_front() {
                let urgent = letter.is_urgent();
                match mailbox.push(to, Mail::Letter(letter), urgent) {
                    Ok(()) => self.letters -= 1,
                    Err(Mail::Letter(letter)) => {
                        backlog.push_front(letter);
                        core.metrics.mesh_full.increment();
                        break;
                    }
                    Err(Mail::Control(_) | Mail::Engine(_)) => break,
                }
            }
            core.shard.set_waiting(ShardId(to as u16), backlog.len(), backlog.iter().map(Letter::bytes).sum());
        }
        core.metrics.mesh_doorbells.add(mailbox.ring() as u64);
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub(super) fn release_spares(&mut self) {
        self.by_shard.iter_mut().for_each(VecDeque::shrink_to_fit);
    }
}

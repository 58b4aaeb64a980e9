//! An inbox at its home: devices that connect.

use std::sync::Arc;

use super::Topic;
use super::books::book_forgotten;
use super::topics::Homes;
use crate::close::CloseReason;
use crate::id::{Address, InboxKey, Now};
use crate::limits::Engine;
use crate::shard::letter::Attach;
use crate::shard::{Shard, ToEdge};
use crate::topics::{DeviceLimits, Inbox};

impl Shard {
    /// A device's session has ended.
    pub(super) fn on_detach(&mut self, inbox: InboxKey, from: Address, now: Now) {
        self.homes.detach(inbox, from, now);
        self.end_claim(inbox, from, now);
        self.homes.reads.forget(Topic::Inbox(inbox), from);
    }

    /// A device connects.
    pub(in crate::shard) fn on_attach(&mut self, attach: Attach, now: Now) {
        if self.settings.engine == Engine::Shared {
            if attach.fence == 0 {
                return self.claim(attach);
            }
            if !self.has_device(&attach) {
                return;
            }
        }
        let Attach { user, device, from, resume, fence } = attach;
        let name = (user.clone(), device.clone());
        let known = self.homes.inboxes.find(&user);
        let key = known.unwrap_or_else(|| self.homes.make_user(user, now));
        // What is found must not have left by the time it is to be brought.
        self.homes.trim(Topic::Inbox(key), now);
        let limits = DeviceLimits {
            sessions_max: self.settings.client.sessions_per_user_max,
            devices_max: self.settings.inbox.devices_max,
            ttl_ms: self.settings.inbox.device_ttl_ms,
        };
        let names = |homes: &Homes| -> Vec<Arc<str>> {
            let devices = homes.inboxes.get(key).map_or(&[][..], Inbox::devices);
            devices.iter().map(|device| device.name.clone()).collect()
        };
        let before = if self.settings.engine == Engine::Shared { names(&self.homes) } else { Vec::new() };
        let attached = self.homes.change_inbox(key, |inbox, publishers, _| {
            inbox.attach(&device, from, resume, limits, publishers, now.mono_ms())
        });
        match attached.flatten() {
            None => {
                let reason = CloseReason::ConnectionLimit;
                if fence != 0 {
                    let (user, device) = name;
                    return self.refuse_claim(&Attach { user, device, from, resume, fence }, reason);
                }
                self.post_to_edge(from.shard, ToEdge::Refused { to: from.connection, reason });
            }
            Some((attachment, expired)) => {
                if fence != 0 {
                    self.keep_claim(name, from, fence);
                }
                let forgotten = before.into_iter().filter(|device| !names(&self.homes).contains(device)).collect();
                self.keep_state(Topic::Inbox(key), forgotten, now);
                book_forgotten(&self.metrics, expired);
                // A client that resumes behind its stored cursor has kept what lies between.
                if attachment.recovered {
                    self.homes.remove_acknowledged(key, now);
                }
                if let Some(old) = attachment.taken_over {
                    let reason = CloseReason::TakenOver;
                    self.post_to_edge(old.shard, ToEdge::Refused { to: old.connection, reason });
                }
                let attachment = Box::new(attachment);
                self.post_to_edge(
                    from.shard,
                    ToEdge::Attached { to: from.connection, home: self.id, inbox: key, attachment },
                );
            }
        }
    }
}

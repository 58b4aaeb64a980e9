//! Devices whose sessions may be on any node of an engine that several nodes share: a session claims its device from the engine
//! before it is attached, and the newest claim wins. The engine's words may come in any order; a claim that is older than another
//! one that was heard of never gets the device.
//!
//! Invariant: `sessions` of a device is how many of its sessions wait for their claim or are attached here.

use std::sync::Arc;

use hashbrown::HashMap;

use super::Topic;
use crate::close::CloseReason;
use crate::id::{Address, InboxKey, Now};
use crate::keyed::{Keyed, keyed};
use crate::limits::Engine;
use crate::shard::letter::Attach;
use crate::shard::{ClaimId, DeviceLeft, Effect, Fence, Shard, ToEdge, Unclaimed};
use crate::topics::{Device, DeviceState, Inbox};

/// User and device.
type DeviceName = (Arc<str>, Arc<str>);

/// See the module.
#[derive(Debug)]
pub(in crate::shard) struct Claims {
    waiting: HashMap<ClaimId, Attach, Keyed>,
    next: ClaimId,
    devices: HashMap<DeviceName, Claimed, Keyed>,
    /// Sessions that are attached here.
    attached: HashMap<Address, (DeviceName, Fence), Keyed>,
}

#[derive(Debug, Default)]
struct Claimed {
    /// The newest claim that was heard of.
    fence: Fence,
    sessions: u32,
}

/// Sessions of a shard that may wait for their claims. Those that have ended meanwhile count: nobody says that they have.
const WAITING_MAX: usize = 64 * 1024;

impl Claims {
    pub(super) fn new(seed: u64) -> Self {
        Claims {
            waiting: HashMap::with_hasher(keyed(seed)),
            next: 1,
            devices: HashMap::with_hasher(keyed(seed)),
            attached: HashMap::with_hasher(keyed(seed)),
        }
    }

    /// Sessions that wait for their claim.
    pub(in crate::shard) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The claim of a session that is attached here.
    pub(super) fn fence(&self, session: Address) -> Option<Fence> {
        self.attached.get(&session).map(|(_, fence)| *fence)
    }

    fn begin(&mut self, attach: Attach) -> ClaimId {
        let claim = self.next;
        self.next += 1;
        self.devices.entry((attach.user.clone(), attach.device.clone())).or_default().sessions += 1;
        self.waiting.insert(claim, attach);
        claim
    }

    /// A claim was made, here or elsewhere.
    fn heard_of(&mut self, device: &DeviceName, fence: Fence) {
        if let Some(claimed) = self.devices.get_mut(device) {
            claimed.fence = claimed.fence.max(fence);
        }
    }

    fn is_newest(&self, device: &DeviceName, fence: Fence) -> bool {
        self.devices.get(device).is_some_and(|claimed| claimed.fence <= fence)
    }

    /// A session of the device neither waits nor is attached any more.
    fn forget(&mut self, device: &DeviceName) {
        if let Some(claimed) = self.devices.get_mut(device) {
            claimed.sessions -= 1;
            if claimed.sessions == 0 {
                self.devices.remove(device);
            }
        }
    }

    pub(super) fn invariants(&self) {
        let held: usize = self.devices.values().map(|claimed| claimed.sessions as usize).sum();
        assert!(held >= self.waiting.len() + self.attached.len(), "sessions of devices");
    }
}

impl Shard {
    /// Has the engine say that the device is this session's from now on.
    pub(super) fn claim(&mut self, attach: Attach) {
        if self.homes.claims.len() >= WAITING_MAX {
            let (to, reason) = (attach.from.connection, CloseReason::Busy);
            return self.post_to_edge(attach.from.shard, ToEdge::Refused { to, reason });
        }
        let (user, device, session) = (attach.user.clone(), attach.device.clone(), self.origin_of(attach.from));
        let claim = self.homes.claims.begin(attach);
        self.effects.push_back(Effect::Claim { claim, user, device, session });
    }

    /// The engine has answered a claim.
    pub(in crate::shard) fn on_claimed(&mut self, claim: ClaimId, result: Result<Fence, Unclaimed>, now: Now) {
        let Some(attach) = self.homes.claims.waiting.remove(&claim) else { return };
        match result {
            Ok(fence) => {
                self.homes.claims.heard_of(&(attach.user.clone(), attach.device.clone()), fence);
                // The topic may have left memory meanwhile.
                self.on_letter_to_home(super::ToHome::Attach(Box::new(Attach { fence, ..attach })), now);
            }
            Err(Unclaimed::Unavailable) => self.put_claim_off(&attach),
            Err(Unclaimed::TooMany) => self.refuse_claim(&attach, CloseReason::ConnectionLimit),
        }
    }

    /// Whether the session's claim is still the newest one. If it is not, the session has lost its device to another one.
    pub(super) fn has_device(&mut self, attach: &Attach) -> bool {
        let has = self.homes.claims.is_newest(&(attach.user.clone(), attach.device.clone()), attach.fence);
        if !has {
            self.refuse_claim(attach, CloseReason::TakenOver);
        }
        has
    }

    /// A session that has claimed its device, or waits for that, is not attached.
    pub(super) fn refuse_claim(&mut self, attach: &Attach, reason: CloseReason) {
        self.give_up_claim(attach);
        self.post_to_edge(attach.from.shard, ToEdge::Refused { to: attach.from.connection, reason });
    }

    /// As [`Self::refuse_claim`], because of the engine: it may be made soon.
    pub(super) fn put_claim_off(&mut self, attach: &Attach) {
        self.give_up_claim(attach);
        self.post_to_edge(attach.from.shard, ToEdge::Unavailable { to: attach.from.connection });
    }

    fn give_up_claim(&mut self, attach: &Attach) {
        let device = (attach.user.clone(), attach.device.clone());
        self.homes.claims.forget(&device);
        self.release(device, attach.fence, None);
    }

    /// A session that has claimed its device is attached.
    pub(super) fn keep_claim(&mut self, device: DeviceName, session: Address, fence: Fence) {
        self.homes.claims.attached.insert(session, (device, fence));
    }

    /// A session has ended: nobody need take its device over.
    pub(super) fn end_claim(&mut self, inbox: InboxKey, session: Address, now: Now) {
        if let Some((device, fence)) = self.homes.claims.attached.remove(&session) {
            self.homes.claims.forget(&device);
            let left = self.homes.inboxes.get(inbox).and_then(|inbox| {
                let left = inbox.devices().iter().find(|known| known.name == device.1)?;
                let state = DeviceState { fence, ..inbox.device_state(left, now) };
                Some(DeviceLeft { epoch: inbox.position().epoch, state })
            });
            self.release(device, fence, left);
        }
    }

    fn release(&mut self, device: DeviceName, fence: Fence, left: Option<DeviceLeft>) {
        if fence != 0 {
            let (user, device) = device;
            self.effects.push_back(Effect::Release { user, device, fence, left: left.map(Box::new) });
        }
    }

    /// A user's sessions, or those of one device, have to end.
    pub(in crate::shard) fn on_disconnect(
        &mut self,
        user: &Arc<str>,
        device: Option<Arc<str>>,
        reason: CloseReason,
        everywhere: bool,
    ) {
        if let Some(key) = self.homes.inboxes.find(user) {
            let devices = self.homes.inboxes.get(key).map_or(&[][..], Inbox::devices);
            let meant = devices.iter().filter(|known| device.as_ref().is_none_or(|device| *device == known.name));
            let sessions: Vec<Address> = meant.filter_map(Device::connected).collect();
            for session in sessions {
                self.post_to_edge(session.shard, ToEdge::Refused { to: session.connection, reason });
            }
        }
        if everywhere && self.settings.engine == Engine::Shared {
            self.effects.push_back(Effect::Disconnect { user: user.clone(), device, reason });
        }
    }

    /// A newer session, on whatever node, has claimed a device.
    pub(in crate::shard) fn on_evict(&mut self, user: Arc<str>, device: Arc<str>, fence: Fence) {
        let topic = format!("@{user}");
        let device = (user, device);
        self.homes.claims.heard_of(&device, fence);
        let Some(Topic::Inbox(inbox)) = self.homes.find(&topic) else { return };
        let sessions: Vec<Address> = self.homes.addresses(inbox).collect();
        for session in sessions {
            let is_older = |(held, its): &(DeviceName, Fence)| *held == device && *its < fence;
            if self.homes.claims.attached.get(&session).is_some_and(is_older) {
                let (to, reason) = (session.connection, CloseReason::TakenOver);
                self.post_to_edge(session.shard, ToEdge::Refused { to, reason });
            }
        }
    }
}

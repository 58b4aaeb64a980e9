//! A user at the inbox's home: devices, their cursors and where they are connected, and the log.
//!
//! A device is known for a time after it was last connected, and only so many are: the one that has been away longest goes
//! first. What a forgotten device had not read may leave the log without it, so the inbox remembers how far the forgotten
//! ones had read (`Kept::forgotten_at`).
//!
//! Invariants: device names are unique; more than `devices_max` are known only while all of them are connected; a cursor
//! never passes the log's end.

use std::sync::Arc;

use super::heads::Head;
use super::log::{Extent, Log};
use super::publishers::Publishers;
use super::size::{TABLE_ENTRY_BYTES, allocated, name_bytes};
use super::stored::{DeviceState, LoadedTopic, TopicState, to_mono_ms, to_unix_ms};
use crate::id::{Address, Now, Position};
use crate::limits::Engine;
use crate::named::Name;

/// A device of a user.
#[derive(Debug)]
pub struct Device {
    /// Name, unique within the user.
    pub name: Arc<str>,
    place: Place,
    /// Everything up to this offset was acknowledged.
    pub cursor: u64,
}

/// Where a device is connected, or since when it is not, in eight bytes: the highest bit, which no address has, says which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place(u64);

const AWAY: u64 = 1 << 63;
/// Of a device that is connected to another node: it is away from here, and not to be forgotten.
const ELSEWHERE: u64 = u64::MAX >> 1;
const _: () = assert!(crate::limits::SHARDS_MAX <= 1 << 9, "the highest bit of a packed address is free");

impl Place {
    fn connected(to: Address) -> Self {
        Place(to.to_u64() & !AWAY)
    }

    fn away(since_ms: u64) -> Self {
        Place(AWAY | since_ms)
    }
}

impl Device {
    /// The session that has it, if it is connected.
    pub fn connected(&self) -> Option<Address> {
        (self.place.0 & AWAY == 0).then(|| Address::from_u64(self.place.0))
    }

    /// Monotonic milliseconds at which its last session ended; none while it is connected, here or to another node.
    pub fn away_since_ms(&self) -> Option<u64> {
        (self.place.0 & AWAY != 0 && !self.is_elsewhere()).then_some(self.place.0 & !AWAY)
    }

    fn is_elsewhere(&self) -> bool {
        self.place.0 == AWAY | ELSEWHERE
    }

    /// What an engine has of a device that has no session here.
    fn loaded(state: &DeviceState, last: u64, engine: Engine, now: Now) -> Device {
        let place = match (state.away_since_ms, engine) {
            (Some(since_ms), _) => Place::away(to_mono_ms(since_ms, now)),
            (None, Engine::Shared) => Place::away(ELSEWHERE),
            // Connected when the node ended: it has been away since then, which nobody has written down.
            (None, Engine::Memory | Engine::Store) => Place::away(now.mono_ms()),
        };
        Device { name: state.name.clone(), place, cursor: state.cursor.min(last) }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    /// The user id.
    pub user: Arc<str>,
    epoch: u64,
    kept: Option<Box<Kept>>,
    devices: Devices,
    /// The user has signed in, now or before.
    known: bool,
    /// A device was forgotten.
    forgets: bool,
}

// What every known user costs, connected or not; see bench/results/connections.md.
const _: () = assert!(size_of::<Inbox>() <= 72);

/// The log of an inbox that was ever written to, and what belongs to it.
#[derive(Debug)]
struct Kept {
    log: Log,
    /// The lowest cursor of a device that was forgotten: `u64::MAX` for none.
    forgotten_at: u64,
    /// A number that the home chose when an unknown user was last written to; 0 for never.
    written: u64,
    /// Devices whose cursors went on over copies of what they had sent themselves.
    #[expect(clippy::box_collection, reason = "eight bytes where nothing is copied")]
    skipped: Option<Box<Vec<Skipped>>>,
}

/// A device whose cursor went on over copies that it was not sent: its client may still give the position before them.
#[derive(Debug)]
struct Skipped {
    device: Arc<str>,
    /// What the client had acknowledged itself.
    from: u64,
}

impl Kept {
    fn forget_skipped(&mut self, which: impl Fn(&Skipped) -> bool) {
        if let Some(skipped) = &mut self.skipped {
            skipped.retain(|one| !which(one));
        }
    }
}

/// What a slot of the table of inboxes takes: the inbox and its generation.
const SLOT_BYTES: usize = size_of::<Inbox>() + 8;

/// Nearly every user has one device, which then needs no allocation of its own.
#[derive(Debug)]
enum Devices {
    One(Device),
    /// None, too: the list is empty then.
    Many(Vec<Device>),
}

impl Devices {
    fn as_slice(&self) -> &[Device] {
        match self {
            Devices::One(device) => core::slice::from_ref(device),
            Devices::Many(devices) => devices,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Device] {
        match self {
            Devices::One(device) => core::slice::from_mut(device),
            Devices::Many(devices) => devices,
        }
    }

    fn push(&mut self, device: Device) {
        *self = match core::mem::replace(self, Devices::Many(Vec::new())) {
            Devices::Many(devices) if devices.is_empty() => Devices::One(device),
            Devices::One(first) => Devices::Many(vec![first, device]),
            Devices::Many(mut devices) => {
                devices.push(device);
                Devices::Many(devices)
            }
        };
    }

    fn remove(&mut self, index: usize) {
        if let Devices::Many(devices) = self {
            devices.remove(index);
        } else {
            *self = Devices::Many(Vec::new());
        }
    }
}

/// What [`Inbox::attach`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The session that had this device before and is to be closed.
    pub taken_over: Option<Address>,
    /// Everything after this offset is to be brought.
    pub start: u64,
    /// False when messages that the device had not read are gone, or may be.
    pub recovered: bool,
    /// The newest position.
    pub position: Position,
}

/// How many devices a user may have, and for how long they are known.
#[derive(Clone, Copy, Debug)]
pub struct DeviceLimits {
    /// Sessions at once.
    pub sessions_max: usize,
    /// Devices that are known, connected or not. Where more are connected already, they stay.
    pub devices_max: usize,
    /// Milliseconds for which a device is known that is not connected.
    pub ttl_ms: u64,
}

impl Name for Inbox {
    fn name(&self) -> &str {
        &self.user
    }
}

impl Inbox {
    /// A user of whom nothing is known.
    pub fn new(user: Arc<str>, epoch: u64) -> Self {
        Inbox { user, epoch, kept: None, devices: Devices::Many(Vec::new()), known: false, forgets: false }
    }

    /// A user who has signed in before, and of whose inbox only the position was kept.
    pub fn resumed(user: Arc<str>, head: Head) -> Self {
        let Head { position, missed } = head;
        let kept = (position.offset > 0).then(|| {
            let forgotten_at = if missed { 0 } else { position.offset };
            Box::new(Kept { log: Log::resumed(position), forgotten_at, written: 0, skipped: None })
        });
        Inbox { user, epoch: position.epoch, kept, devices: Devices::Many(Vec::new()), known: true, forgets: true }
    }

    /// A user whose inbox an engine has kept. No device is connected.
    pub fn loaded(user: Arc<str>, loaded: &LoadedTopic, engine: Engine, now: Now) -> Self {
        let LoadedTopic { position, state, .. } = loaded;
        let skipped: Vec<_> = state
            .devices
            .iter()
            .filter_map(|device| Some(Skipped { device: device.name.clone(), from: device.skipped_from? }))
            .collect();
        let is_kept = position.offset > 0 || state.forgotten_at.is_some() || !loaded.before.is_empty();
        let kept = is_kept.then(|| {
            Box::new(Kept {
                log: Log::loaded(loaded.extent(now), engine == Engine::Shared),
                forgotten_at: state.forgotten_at.unwrap_or(u64::MAX),
                written: 0,
                skipped: (!skipped.is_empty()).then(|| Box::new(skipped)),
            })
        });
        let mut inbox = Inbox { kept, known: state.known, ..Inbox::new(user, position.epoch) };
        for device in &state.devices {
            inbox.devices.push(Device::loaded(device, position.offset, engine, now));
        }
        inbox
    }

    /// An engine that several nodes share has said once more what it knows of the devices: those without a session here are as
    /// it says.
    pub fn refresh_devices(&mut self, state: &TopicState, now: Now) {
        let last = self.position().offset;
        self.known |= state.known;
        // A device that was to be forgotten here may have a session elsewhere: then the engine has not forgotten it.
        if let Some(kept) = &mut self.kept {
            kept.forgotten_at = state.forgotten_at.unwrap_or(u64::MAX);
        }
        self.forgets = state.forgotten_at.is_some();
        let mut devices: Vec<Device> = match core::mem::replace(&mut self.devices, Devices::Many(Vec::new())) {
            Devices::One(device) => vec![device],
            Devices::Many(devices) => devices,
        };
        devices.retain(|device| device.connected().is_some());
        let is_here = |name: &Arc<str>| devices.iter().any(|device| device.name == *name);
        let others = state.devices.iter().filter(|device| !is_here(&device.name));
        let others: Vec<_> = others.map(|device| Device::loaded(device, last, Engine::Shared, now)).collect();
        devices.into_iter().chain(others).for_each(|device| self.devices.push(device));
    }

    /// The engine has begun a new epoch: devices have acknowledged there what of it was carried over.
    pub fn begin_epoch(&mut self, loaded: &LoadedTopic, engine: Engine, publishers: &mut Publishers, now: Now) {
        if let Some(log) = self.log_mut() {
            log.discard(publishers);
        }
        let epoch = core::mem::replace(&mut self.epoch, loaded.position.epoch);
        let carried = loaded.before.iter().find(|before| before.epoch == epoch).map_or(0, |before| before.offset);
        let devices = self.devices.as_mut_slice().iter_mut();
        devices.for_each(|device| device.cursor = device.cursor.min(carried));
        let log = Log::loaded(loaded.extent(now), engine == Engine::Shared);
        self.kept = Some(Box::new(Kept { log, forgotten_at: u64::MAX, written: 0, skipped: None }));
    }

    /// What an engine is to keep of the inbox beside its messages.
    pub fn state(&self, now: Now) -> TopicState {
        let forgotten_at = if self.forgets { 0 } else { u64::MAX };
        let forgotten_at = self.kept.as_ref().map_or(forgotten_at, |kept| kept.forgotten_at);
        TopicState {
            floor: self.log().map_or(0, Log::floor),
            lost: self.log().map_or(0, Log::lost),
            known: self.known,
            forgotten_at: (forgotten_at != u64::MAX).then_some(forgotten_at),
            devices: self.devices().iter().map(|device| self.device_state(device, now)).collect(),
            forgotten: Vec::new(),
        }
    }

    /// What an engine is to keep of a device.
    pub fn device_state(&self, device: &Device, now: Now) -> DeviceState {
        let skipped = self.kept.as_ref().and_then(|kept| kept.skipped.as_ref());
        let skipped = skipped.and_then(|skipped| skipped.iter().find(|skipped| skipped.device == device.name));
        DeviceState {
            name: device.name.clone(),
            cursor: device.cursor,
            away_since_ms: device.away_since_ms().map(|since_ms| to_unix_ms(since_ms, now)),
            skipped_from: skipped.map(|skipped| skipped.from),
            fence: 0,
        }
    }

    /// Whether every known device has been away for this long.
    pub fn is_left(&self, linger_ms: u64, now_ms: u64) -> bool {
        let is_away =
            |device: &Device| device.away_since_ms().is_some_and(|since| since.saturating_add(linger_ms) <= now_ms);
        self.devices().iter().all(|device| device.is_elsewhere() || is_away(device))
    }

    /// What is to be kept of the inbox when it is quiet; none for a user who never signed in.
    pub fn head(&self) -> Option<Head> {
        self.known.then(|| Head { position: self.position(), missed: self.has_forgotten_unread() })
    }

    /// Known devices.
    pub fn devices(&self) -> &[Device] {
        self.devices.as_slice()
    }

    /// The log, if anything was ever stored.
    pub fn log(&self) -> Option<&Log> {
        self.kept.as_ref().map(|kept| &kept.log)
    }

    /// The log, if anything was ever stored.
    pub fn log_mut(&mut self) -> Option<&mut Log> {
        self.kept.as_mut().map(|kept| &mut kept.log)
    }

    /// The log, made on first use: in memory, or backed by an engine.
    pub fn make_log(&mut self, engine: Engine) -> &mut Log {
        &mut self.make_kept(engine).log
    }

    fn make_kept(&mut self, engine: Engine) -> &mut Kept {
        let (epoch, forgets) = (self.epoch, self.forgets);
        self.kept.get_or_insert_with(|| {
            let forgotten_at = if forgets { 0 } else { u64::MAX };
            let log = match engine {
                Engine::Memory => Log::new(epoch),
                Engine::Store => Log::loaded(Extent::empty(epoch), false),
                Engine::Shared => Log::loaded(Extent::empty(epoch), true),
            };
            Box::new(Kept { log, forgotten_at, written: 0, skipped: None })
        })
    }

    /// The newest position.
    pub fn position(&self) -> Position {
        self.log().map_or(Position { epoch: self.epoch, offset: 0 }, Log::position)
    }

    /// Devices that are connected.
    pub fn connected(&self) -> usize {
        self.devices().iter().filter(|device| device.connected().is_some()).count()
    }

    /// Whether the user has never signed in.
    pub fn is_unknown(&self) -> bool {
        !self.known
    }

    /// When an unknown user was last written to, as [`Self::set_written`] was told; 0 for never.
    pub fn written(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.written)
    }

    /// An unknown user is written to. Returns the number of the time before.
    pub fn set_written(&mut self, number: u64) -> u64 {
        core::mem::replace(&mut self.make_kept(Engine::Memory).written, number)
    }

    /// Bytes of the heap that messages take here. Users who have never signed in are there for their messages alone, so
    /// they count whole; for others the session stands.
    pub fn heap_bytes(&self) -> usize {
        let skipped = self.kept.as_ref().and_then(|kept| kept.skipped.as_ref());
        let skipped = skipped.map_or(0, |skipped| {
            allocated(size_of::<Vec<Skipped>>()) + allocated(skipped.capacity() * size_of::<Skipped>())
        });
        let log = self.kept.as_ref().map_or(0, |kept| allocated(size_of::<Kept>()) + kept.log.heap_bytes() + skipped);
        let user = if self.known { 0 } else { SLOT_BYTES + name_bytes(self.user.len()) + TABLE_ENTRY_BYTES };
        log + user
    }

    /// Connects a device. None when the user has `sessions_max` other sessions already. Also returns how many messages
    /// left because only a device that was forgotten now had not read them.
    pub fn attach(
        &mut self,
        name: &Arc<str>,
        from: Address,
        resume: Option<Position>,
        limits: DeviceLimits,
        publishers: &mut Publishers,
        now_ms: u64,
    ) -> Option<(Attachment, u64)> {
        let is_other =
            |device: &&Device| (device.connected().is_some() || device.is_elsewhere()) && device.name != *name;
        if self.devices().iter().filter(is_other).count() >= limits.sessions_max {
            return None;
        }
        self.known = true;
        let mut expired = self.forget_old(limits.ttl_ms, publishers, now_ms);
        let known = self.devices().iter().position(|device| device.name == *name);
        if known.is_none() && self.devices().len() >= limits.devices_max {
            expired += self.forget_longest_away(publishers, now_ms);
        }
        let position = self.position();
        let lost = self.log().map_or(0, Log::lost);
        let reached = |since: Position| self.log().map_or(since == position, |log| log.reaches(since));
        let cursor = known.and_then(|index| self.devices().get(index)).map(|device| device.cursor);
        let given = resume.map_or(0, |since| since.offset);
        let resume = resume.map(|since| Position { offset: self.behind_own(name, since, cursor), ..since });
        let (start, recovered) = match (resume, cursor) {
            (Some(since), _) if reached(since) => (since.offset, true),
            (Some(_), _) => (lost, false),
            (None, Some(cursor)) => (cursor.max(lost), cursor >= lost),
            (None, None) => (lost, !self.has_forgotten_unread()),
        };
        let taken_over = match known.and_then(|index| self.devices.as_mut_slice().get_mut(index)) {
            Some(device) => {
                let before = device.connected();
                // What was lost is told again until it was heard: a cursor moves behind it by an Ack alone.
                device.cursor = if recovered { start } else { device.cursor.min(start) };
                device.place = Place::connected(from);
                before
            }
            None => {
                let cursor = if recovered { start } else { 0 };
                self.devices.push(Device { name: name.clone(), place: Place::connected(from), cursor });
                None
            }
        };
        let taken_over = taken_over.filter(|old| *old != from);
        if let Some(kept) = self.kept.as_mut().filter(|_| recovered) {
            // A client that gives a position has kept everything before it.
            kept.forget_skipped(|skipped| skipped.device == *name && skipped.from < given && given >= start);
        }
        Some((Attachment { taken_over, start, recovered, position }, expired))
    }

    /// Whether a message left the log that a device had not read which was forgotten.
    fn has_forgotten_unread(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.forgotten_at < kept.log.lost())
    }

    /// Forgets devices that have been away for `ttl_ms`. Returns how many messages left because only they had not read
    /// them.
    pub fn forget_old(&mut self, ttl_ms: u64, publishers: &mut Publishers, now_ms: u64) -> u64 {
        let is_old =
            |device: &Device| device.away_since_ms().is_some_and(|since| since.saturating_add(ttl_ms) <= now_ms);
        let mut expired = 0;
        while let Some(index) = self.devices().iter().position(is_old) {
            expired += self.forget(index, publishers, now_ms);
        }
        expired
    }

    /// Forgets the device that has been away longest, if any is away. Returns how many messages left the log for it.
    fn forget_longest_away(&mut self, publishers: &mut Publishers, now_ms: u64) -> u64 {
        let away =
            self.devices().iter().enumerate().filter_map(|(index, device)| Some((device.away_since_ms()?, index)));
        match away.min() {
            Some((_, index)) => self.forget(index, publishers, now_ms),
            None => 0,
        }
    }

    fn forget(&mut self, index: usize, publishers: &mut Publishers, now_ms: u64) -> u64 {
        let cursor = self.devices().get(index).map_or(0, |device| device.cursor);
        let name = self.devices().get(index).map(|device| device.name.clone());
        self.devices.remove(index);
        self.forgets = true;
        if let Some(kept) = &mut self.kept {
            kept.forget_skipped(|skipped| Some(&skipped.device) == name.as_ref());
            kept.forgotten_at = kept.forgotten_at.min(cursor);
        }
        // Messages that no device has read stay for the next device that connects.
        self.remove_acknowledged(publishers, now_ms)
    }

    /// The device's session has ended. False when another session has the device by now.
    pub fn detach(&mut self, from: Address, now_ms: u64) -> bool {
        let place = Place::connected(from);
        match self.devices.as_mut_slice().iter_mut().find(|device| device.place == place) {
            Some(device) => {
                device.place = Place::away(now_ms);
                true
            }
            None => false,
        }
    }

    /// Whether another device than the one that is connected there is known.
    pub fn has_other_devices(&self, from: Address) -> bool {
        let place = Place::connected(from);
        self.devices().iter().any(|device| device.place != place)
    }

    /// Moves the cursor of the device that is connected there; returns how many messages left the log because every
    /// known device has acknowledged them.
    pub fn acknowledge(&mut self, from: Address, offset: u64, publishers: &mut Publishers, now_ms: u64) -> u64 {
        let last = self.position().offset;
        let place = Place::connected(from);
        if let Some(device) = self.devices.as_mut_slice().iter_mut().find(|device| device.place == place) {
            device.cursor = device.cursor.max(offset.min(last));
            if let Some(kept) = self.kept.as_mut().filter(|kept| kept.skipped.is_some()) {
                kept.forget_skipped(|skipped| skipped.device == device.name && skipped.from < offset);
                return self.skip_own(from, publishers, now_ms);
            }
        }
        self.remove_acknowledged(publishers, now_ms)
    }

    /// A device is not sent the copies of what it has sent itself: its cursor goes on over those that follow it. Returns the
    /// same as [`Self::acknowledge`].
    pub fn skip_own(&mut self, from: Address, publishers: &mut Publishers, now_ms: u64) -> u64 {
        let place = Place::connected(from);
        let device = self.devices.as_mut_slice().iter_mut().find(|device| device.place == place);
        if let (Some(device), Some(kept)) = (device, &mut self.kept) {
            let all = kept.skipped.get_or_insert_default();
            let end = kept.log.end_of_own(device.cursor, from);
            if end > device.cursor && all.iter().all(|skipped| skipped.device != device.name) {
                all.push(Skipped { device: device.name.clone(), from: device.cursor });
            }
            device.cursor = end;
        }
        self.remove_acknowledged(publishers, now_ms)
    }

    /// Where a client stands that gives this position: behind the copies that its device was not sent, if these are all that
    /// lies between.
    fn behind_own(&self, device: &Arc<str>, since: Position, cursor: Option<u64>) -> u64 {
        let all = self.kept.as_ref().and_then(|kept| kept.skipped.as_ref()).map_or(&[][..], |all| all);
        let skipped = all.iter().find(|skipped| skipped.device == *device);
        match (skipped, cursor) {
            (Some(skipped), Some(cursor))
                if since.epoch == self.epoch && (skipped.from..=cursor).contains(&since.offset) =>
            {
                cursor
            }
            _ => since.offset,
        }
    }

    /// Removes what every known device has acknowledged; returns how many messages that were.
    pub fn remove_acknowledged(&mut self, publishers: &mut Publishers, now_ms: u64) -> u64 {
        let is_shared = self.log().is_some_and(Log::is_shared);
        let readers = self.devices().iter().filter(|device| !is_shared || device.connected().is_some());
        let Some(passed) = readers.map(|device| device.cursor).min() else { return 0 };
        self.log_mut().map_or(0, |log| log.remove_through(passed, now_ms, publishers))
    }

    /// Whether no more than a [`Head`] need be kept: no message waits and no device is known.
    pub fn is_quiet(&self) -> bool {
        self.log().is_none_or(Log::is_empty) && self.devices().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnectionKey, ShardId};
    use crate::topics::{LogLimits, Message};
    use bytes::Bytes;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    struct User {
        inbox: Inbox,
        publishers: Publishers,
        limits: DeviceLimits,
        now_ms: u64,
    }

    fn address(slot: u32) -> Address {
        Address { shard: ShardId(255), connection: ConnectionKey { slot, generation: 1 } }
    }

    impl User {
        fn new(sessions_max: usize, devices_max: usize) -> User {
            User {
                inbox: Inbox::new("bob".into(), 9),
                publishers: Publishers::default(),
                limits: DeviceLimits { sessions_max, devices_max, ttl_ms: 30 * DAY_MS },
                now_ms: 0,
            }
        }

        fn store(&mut self, messages: usize) {
            let limits = LogLimits { messages_max: 100, bytes_max: usize::MAX, age_ms_max: u64::MAX };
            for _ in 0..messages {
                let message = Message { frame: Bytes::from_static(b"m"), ttl_ms: 0, from: None, publisher: 1 };
                self.inbox.make_log(Engine::Memory).commit(message, true, limits, &mut self.publishers, self.now_ms);
            }
        }

        fn attach(&mut self, name: &str, slot: u32, resume: Option<Position>) -> Option<(Attachment, u64)> {
            self.now_ms += 1;
            self.inbox.attach(&name.into(), address(slot), resume, self.limits, &mut self.publishers, self.now_ms)
        }

        fn ack(&mut self, slot: u32, offset: u64) -> u64 {
            self.inbox.acknowledge(address(slot), offset, &mut self.publishers, self.now_ms)
        }

        fn leave(&mut self, slot: u32) {
            self.now_ms += 1;
            assert!(self.inbox.detach(address(slot), self.now_ms));
        }

        /// A visit that reads everything: what was found at sign-in.
        fn visit(&mut self, name: &str, slot: u32) -> (bool, u64, u64) {
            let (attachment, expired) = self.attach(name, slot, None).unwrap();
            self.ack(slot, u64::MAX);
            self.leave(slot);
            (attachment.recovered, attachment.start, expired)
        }
    }

    #[test]
    fn devices_acknowledge_then_messages_leave_behind_the_lowest_cursor() {
        let mut user = User::new(2, 32);
        user.store(3);
        let (attached, _) = user.attach("phone", 1, None).unwrap();
        assert_eq!((attached.start, attached.recovered, attached.position.offset), (0, true, 3));
        user.attach("tablet", 2, None).unwrap();
        assert_eq!(user.ack(1, 2), 0, "the tablet has not read them");
        assert_eq!(user.ack(2, 99), 2, "a cursor never passes the end");
        user.leave(1);
        let (again, _) = user.attach("phone", 3, None).unwrap();
        assert_eq!((again.start, again.recovered), (2, true), "the stored cursor");
        let (lost, _) = user.attach("phone", 4, Some(Position { epoch: 9, offset: 1 })).unwrap();
        assert_eq!((lost.recovered, lost.start, lost.taken_over), (false, 2, Some(address(3))));
        assert!(!user.inbox.detach(address(3), 0), "the older session no longer has the device");
    }

    #[test]
    fn sessions_are_at_their_limit_then_only_a_takeover_is_accepted() {
        let mut user = User::new(2, 32);
        for (slot, name) in [(1, "a"), (2, "b")] {
            assert!(user.attach(name, slot, None).is_some());
        }
        assert!(user.attach("c", 3, None).is_none());
        assert!(user.attach("a", 4, None).is_some());
    }

    #[test]
    fn devices_are_too_many_then_the_one_away_longest_is_forgotten_with_its_unread_messages() {
        let mut user = User::new(16, 2);
        user.visit("tablet", 1);
        user.visit("phone", 2);
        user.visit("tablet", 3);
        user.store(5);
        assert_eq!(user.visit("browser", 4), (true, 0, 0), "the phone goes; the tablet has not read them either");
        assert_eq!(
            user.visit("phone", 5),
            (false, 5, 5),
            "the tablet goes, and all five with it: nobody else lacks them"
        );
        assert!(user.inbox.log().is_some_and(Log::is_empty));
        assert!(!user.visit("tablet", 6).0);
    }

    #[test]
    fn device_is_connected_then_it_is_not_forgotten() {
        let mut user = User::new(3, 1);
        for (slot, name) in [(1, "a"), (2, "b"), (3, "c")] {
            assert_eq!(user.attach(name, slot, None).map(|(_, expired)| expired), Some(0));
        }
        assert_eq!(user.inbox.devices().len(), 3);
    }

    #[test]
    fn device_is_away_for_too_long_then_it_is_forgotten() {
        let mut user = User::new(16, 32);
        user.visit("phone", 1);
        user.visit("tablet", 2);
        user.now_ms += 29 * DAY_MS;
        user.visit("tablet", 3);
        user.store(3);
        user.attach("laptop", 4, None).unwrap();
        user.ack(4, 3);
        user.now_ms += 2 * DAY_MS;
        assert_eq!(user.inbox.forget_old(user.limits.ttl_ms, &mut user.publishers, user.now_ms), 0);
        assert_eq!(user.inbox.devices().len(), 2, "the phone is gone, the tablet was there two days ago");
        assert_eq!(user.visit("tablet", 5), (true, 0, 0));
        assert!(!user.visit("phone", 6).0, "three messages left after it had gone");
    }

    #[test]
    fn cursor_is_behind_what_left_the_log_then_it_is_not_recovered() {
        let mut user = User::new(16, 32);
        user.visit("phone", 1);
        user.store(4);
        let limits = LogLimits { messages_max: 2, bytes_max: usize::MAX, age_ms_max: u64::MAX };
        user.inbox.make_log(Engine::Memory).trim(limits, 0, &mut user.publishers);
        let (attached, _) = user.attach("phone", 2, None).unwrap();
        assert_eq!((attached.start, attached.recovered), (2, false));
    }

    #[test]
    fn quiet_inbox_is_used_again_then_it_goes_on_from_its_head() {
        let mut user = User::new(16, 32);
        assert_eq!(user.inbox.head(), None, "nobody has a position of it");
        user.visit("phone", 1);
        user.store(2);
        user.visit("phone", 2);
        assert!(!user.inbox.is_quiet(), "the phone is known");
        user.now_ms += 31 * DAY_MS;
        user.inbox.forget_old(user.limits.ttl_ms, &mut user.publishers, user.now_ms);
        assert!(user.inbox.is_quiet());
        let head = user.inbox.head().unwrap();
        assert_eq!(head, Head { position: Position { epoch: 9, offset: 2 }, missed: false });
        user.inbox = Inbox::resumed("bob".into(), head);
        assert!(!user.inbox.is_unknown());
        user.store(1);
        assert_eq!(user.visit("phone", 3), (true, 2, 0));
        assert_eq!(user.inbox.head().map(|head| (head.position.offset, head.missed)), Some((3, true)));
    }
}

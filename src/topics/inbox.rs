//! A user at the inbox's home: devices, their cursors and where they are connected, and the log.
//!
//! Invariants: device names are unique; at most `devices_max` are known; a cursor never passes the log's end.

use std::sync::Arc;

use super::log::Log;
use crate::id::{Address, PackedAddress, Position};

/// A device of a user.
#[derive(Debug)]
pub struct Device {
    /// Name, unique within the user.
    pub name: Arc<str>,
    /// Where it is connected.
    pub connected: Option<PackedAddress>,
    /// Everything up to this offset was acknowledged.
    pub cursor: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    /// The user id.
    pub user: Arc<str>,
    epoch: u64,
    log: Option<Box<Log>>,
    devices: Devices,
    /// Unix milliseconds of the last change, for forgetting users who never come back.
    pub touched_ms: u64,
}

// What every known user costs, connected or not; see docs/performance.md.
const _: () = assert!(size_of::<Inbox>() <= 72);

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
    /// False when the client gave a position that the log no longer reaches.
    pub recovered: bool,
    /// The newest position.
    pub position: Position,
}

impl Inbox {
    /// A user seen for the first time.
    pub fn new(user: Arc<str>, epoch: u64, unix_ms: u64) -> Self {
        Inbox { user, epoch, log: None, devices: Devices::Many(Vec::new()), touched_ms: unix_ms }
    }

    /// Known devices.
    pub fn devices(&self) -> &[Device] {
        self.devices.as_slice()
    }

    /// The log, if anything was ever stored.
    pub fn log(&self) -> Option<&Log> {
        self.log.as_deref()
    }

    /// The log, made on first use.
    pub fn log_mut(&mut self) -> &mut Log {
        let epoch = self.epoch;
        self.log.get_or_insert_with(|| Box::new(Log::new(epoch)))
    }

    /// The newest position.
    pub fn position(&self) -> Position {
        self.log.as_ref().map_or(Position { epoch: self.epoch, offset: 0 }, |log| log.position())
    }

    /// Devices that are connected.
    pub fn connected(&self) -> usize {
        self.devices().iter().filter(|device| device.connected.is_some()).count()
    }

    /// Connects a device. None when the user has `sessions_max` other sessions already.
    pub fn attach(
        &mut self,
        name: &Arc<str>,
        from: Address,
        resume: Option<Position>,
        sessions_max: usize,
        unix_ms: u64,
    ) -> Option<Attachment> {
        let known = self.devices().iter().position(|device| device.name == *name);
        let others = self.devices().iter().filter(|device| device.connected.is_some() && device.name != *name).count();
        if others >= sessions_max {
            return None;
        }
        self.touched_ms = unix_ms;
        let position = self.position();
        let floor = self.log.as_ref().map_or(0, |log| log.floor());
        let reached = |since: Position| match &self.log {
            Some(log) => log.reaches(since),
            None => since == position,
        };
        let (start, recovered) = match resume {
            Some(since) if reached(since) => (since.offset, true),
            Some(_) => (floor, false),
            None => (known.and_then(|index| self.devices().get(index)).map_or(floor, |device| device.cursor), true),
        };
        let taken_over = match known.and_then(|index| self.devices.as_mut_slice().get_mut(index)) {
            Some(device) => {
                device.cursor = start;
                device.connected.replace(from.into()).map(Address::from)
            }
            None => {
                self.make_room(sessions_max.saturating_mul(2));
                self.devices.push(Device { name: name.clone(), connected: Some(from.into()), cursor: start });
                None
            }
        };
        Some(Attachment { taken_over: taken_over.filter(|old| *old != from), start, recovered, position })
    }

    /// Forgets the first device that is not connected when as many as allowed are known.
    fn make_room(&mut self, devices_max: usize) {
        if self.devices().len() >= devices_max
            && let Some(index) = self.devices().iter().position(|device| device.connected.is_none())
        {
            self.devices.remove(index);
        }
    }

    /// The device's session has ended. False when another session has the device by now.
    pub fn detach(&mut self, from: Address, unix_ms: u64) -> bool {
        self.touched_ms = unix_ms;
        match self.devices.as_mut_slice().iter_mut().find(|device| device.connected == Some(from.into())) {
            Some(device) => {
                device.connected = None;
                true
            }
            None => false,
        }
    }

    /// Moves the cursor of the device that is connected there; returns how many messages nobody needs any more and
    /// which therefore left the log.
    pub fn acknowledge(&mut self, from: Address, offset: u64) -> u64 {
        let last = self.position().offset;
        let from = Some(PackedAddress::from(from));
        if let Some(device) = self.devices.as_mut_slice().iter_mut().find(|device| device.connected == from) {
            device.cursor = device.cursor.max(offset.min(last));
        }
        self.drop_acknowledged()
    }

    fn drop_acknowledged(&mut self) -> u64 {
        let Some(passed) = self.devices().iter().map(|device| device.cursor).min() else { return 0 };
        let Some(log) = self.log.as_mut() else { return 0 };
        let mut dropped = 0;
        while log.floor() < passed && log.pop_front() {
            dropped += 1;
        }
        dropped
    }

    /// Whether nothing would be lost by forgetting the user.
    pub fn is_forgettable(&self, unix_ms: u64, age_ms_max: u64) -> bool {
        self.log.as_ref().is_none_or(|log| log.is_empty())
            && self.connected() == 0
            && self.touched_ms + age_ms_max <= unix_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnectionKey, ShardId};
    use bytes::Bytes;

    fn address(slot: u32) -> Address {
        Address { shard: ShardId(0), connection: ConnectionKey { slot, generation: 1 } }
    }

    fn store(inbox: &mut Inbox, messages: usize) {
        for _ in 0..messages {
            inbox.log_mut().commit(Bytes::from_static(b"m"), u64::MAX, None);
        }
    }

    #[test]
    fn cursors_and_acknowledged_messages() {
        let mut inbox = Inbox::new("bob".into(), 9, 0);
        store(&mut inbox, 3);
        let phone: Arc<str> = "phone".into();
        let tablet: Arc<str> = "tablet".into();
        let attached = inbox.attach(&phone, address(1), None, 2, 0).unwrap();
        assert_eq!((attached.start, attached.recovered, attached.position.offset), (0, true, 3));
        inbox.attach(&tablet, address(2), None, 2, 0).unwrap();
        assert_eq!(inbox.acknowledge(address(1), 2), 0, "the tablet has not read them");
        assert_eq!(inbox.acknowledge(address(2), 99), 2, "a cursor never passes the end");
        assert!(inbox.detach(address(1), 0));
        let again = inbox.attach(&phone, address(3), None, 2, 0).unwrap();
        assert_eq!(again.start, 2, "the stored cursor");
        let lost = inbox.attach(&phone, address(4), Some(Position { epoch: 9, offset: 1 }), 2, 0).unwrap();
        assert_eq!((lost.recovered, lost.start, lost.taken_over), (false, 2, Some(address(3))));
        assert!(!inbox.detach(address(3), 0), "the older session no longer has the device");
    }

    #[test]
    fn sessions_are_limited_but_a_takeover_is_not() {
        let mut inbox = Inbox::new("bob".into(), 9, 0);
        for (slot, name) in [(1, "a"), (2, "b")] {
            assert!(inbox.attach(&name.into(), address(slot), None, 2, 0).is_some());
        }
        assert!(inbox.attach(&"c".into(), address(3), None, 2, 0).is_none());
        assert!(inbox.attach(&"a".into(), address(4), None, 2, 0).is_some());
    }
}

//! States of devices, and ends of sessions, that Redis cannot take at the moment: merged by topic and by device, and bounded.
//! An entry for which this buffer has no room is dropped, and counted in `ringgate_redis_given_up_total`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate_core::id::ShardId;
use ringgate_core::shard::{DeviceLeft, Fence};
use ringgate_core::topics::TopicState;

use super::Work;
use crate::command::What;
use crate::outbound::Homes;
use crate::status::add;

/// Topics whose cursors wait, and sessions that have ended and wait to be told of.
const TOPICS_MAX: usize = 256 * 1024;
const RELEASES_MAX: usize = 256 * 1024;
/// Of what waits, as much is told in one tick.
const A_TICK: usize = 4096;
/// Commands that wait to be sent, beyond which states and releases wait here instead.
const COMMANDS_MAX: usize = 16 * 1024;
/// A pause after Redis has refused one.
const PAUSE: Duration = Duration::from_secs(1);
/// Refusals for reasons that do not pass by themselves, after which one is given up.
const TRIES_MAX: u8 = 5;

/// User and device.
type DeviceName = (Arc<str>, Arc<str>);

/// See the module.
pub(super) struct Later {
    cursors: HashMap<Arc<str>, Cursor>,
    releases: HashMap<DeviceName, Release>,
    /// How often those that are not done yet were refused, by topic and device; the device is empty for a state.
    tries: HashMap<DeviceName, u8>,
    due: Instant,
}

struct Cursor {
    shard: ShardId,
    epoch: u64,
    state: Box<TopicState>,
}

struct Release {
    shard: ShardId,
    fence: Fence,
    left: Option<Box<DeviceLeft>>,
}

impl Later {
    pub(super) fn new(now: Instant) -> Self {
        Later { cursors: HashMap::new(), releases: HashMap::new(), tries: HashMap::new(), due: now }
    }

    /// Whether what waits may be told now.
    fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.cursors.is_empty() && self.releases.is_empty()
    }

    /// Keeps what is told of a topic: the newest of each device. False if there is no room.
    fn put_cursor(&mut self, shard: ShardId, topic: Arc<str>, epoch: u64, state: Box<TopicState>) -> bool {
        let is_full = self.cursors.len() >= TOPICS_MAX;
        match self.cursors.get_mut(&topic) {
            Some(pending) if pending.epoch == epoch => merge(&mut pending.state, *state),
            None if is_full => return false,
            _ => drop(self.cursors.insert(topic, Cursor { shard, epoch, state })),
        }
        true
    }

    /// As [`Self::put_cursor`], of what was told before what waits.
    fn put_cursor_back(&mut self, shard: ShardId, topic: Arc<str>, epoch: u64, state: Box<TopicState>) -> bool {
        match self.cursors.remove(&topic) {
            Some(newer) if newer.epoch == epoch => {
                let mut state = state;
                merge(&mut state, *newer.state);
                self.put_cursor(shard, topic, epoch, state)
            }
            Some(newer) => self.put_cursor(newer.shard, topic, newer.epoch, newer.state),
            None => self.put_cursor(shard, topic, epoch, state),
        }
    }

    /// Keeps the newest release of a device. False if there is no room.
    fn put_release(&mut self, device: DeviceName, release: Release) -> bool {
        let is_full = self.releases.len() >= RELEASES_MAX;
        match self.releases.get_mut(&device) {
            Some(pending) if pending.fence > release.fence => {}
            Some(pending) => *pending = release,
            None if is_full => return false,
            None => drop(self.releases.insert(device, release)),
        }
        true
    }

    /// Whether one that was refused for a reason that does not pass by itself is asked for again.
    fn may_try_again(&mut self, name: DeviceName) -> bool {
        let tries = self.tries.entry(name.clone()).or_default();
        *tries += 1;
        let may = *tries < TRIES_MAX;
        if !may {
            self.tries.remove(&name);
        }
        may
    }
}

impl<H: Homes> Work<H> {
    /// There is room for another command that nobody waits for.
    fn has_room(&self) -> bool {
        self.partitions.waiting() < COMMANDS_MAX
    }

    /// Keeps what is told of a topic until the next tick.
    pub(super) fn keep_cursor(&mut self, shard: ShardId, topic: Arc<str>, epoch: u64, state: Box<TopicState>) {
        if !self.later.put_cursor(shard, topic, epoch, state) {
            add(&self.status.given_up, 1);
        }
    }

    /// What is known of a topic is told before what is asked of it next.
    pub(super) fn flush_cursor(&mut self, topic: &str) {
        if self.has_room()
            && let Some((topic, Cursor { shard, epoch, state })) = self.later.cursors.remove_entry(topic)
        {
            self.push(shard, What::Cursor { topic, epoch, state });
        }
    }

    /// A session has ended.
    pub(super) fn release(&mut self, shard: ShardId, device: DeviceName, fence: Fence, left: Option<Box<DeviceLeft>>) {
        let is_open = self.is_open(&format!("@{}", device.0));
        if is_open && self.has_room() && self.later.is_due(self.now) {
            let (user, device) = device;
            return self.push(shard, What::Release { user, device, fence, left });
        }
        if !self.later.put_release(device, Release { shard, fence, left }) {
            add(&self.status.given_up, 1);
        }
    }

    /// The device is claimed again: that its last session has ended is told before.
    pub(super) fn flush_release(&mut self, user: &Arc<str>, device: &Arc<str>) {
        if self.later.releases.is_empty() {
            return;
        }
        let name = (user.clone(), device.clone());
        if let Some(Release { shard, fence, left }) = self.later.releases.remove(&name) {
            let (user, device) = name;
            self.push(shard, What::Release { user, device, fence, left });
        }
    }

    /// Tells what waits, as far as there is room.
    pub(super) fn tell_later(&mut self) {
        if self.later.is_empty() || !self.later.is_due(self.now) {
            return;
        }
        // What is about a partition that is away stays.
        let cursors = self.later.cursors.keys().filter(|topic| self.is_open(topic));
        for topic in cursors.take(A_TICK).cloned().collect::<Vec<_>>() {
            self.flush_cursor(&topic);
        }
        let releases = self.later.releases.keys().filter(|(user, _)| self.is_open(&format!("@{user}")));
        for (user, device) in releases.take(A_TICK).cloned().collect::<Vec<_>>() {
            if self.has_room() {
                self.flush_release(&user, &device);
            }
        }
    }

    /// Redis has refused to take a state or a release: it is told again after a pause. `passes`: the reason passes by itself.
    pub(super) fn keep_for_later(&mut self, shard: ShardId, what: What, passes: bool) {
        self.later.due = self.now + PAUSE;
        let is_kept = match what {
            What::Cursor { topic, epoch, state } => {
                (passes || self.later.may_try_again((topic.clone(), "".into())))
                    && self.later.put_cursor_back(shard, topic, epoch, state)
            }
            What::Release { user, device, fence, left } => {
                (passes || self.later.may_try_again((user.clone(), device.clone())))
                    && self.later.put_release((user, device), Release { shard, fence, left })
            }
            _ => return,
        };
        if !is_kept {
            add(&self.status.given_up, 1);
        }
    }

    /// It was taken.
    pub(super) fn forget_tries(&mut self, what: &What) {
        if self.later.tries.is_empty() {
            return;
        }
        match what {
            What::Cursor { topic, .. } => drop(self.later.tries.remove(&(topic.clone(), "".into()))),
            What::Release { user, device, .. } => {
                self.later.tries.remove(&(user.clone(), device.clone()));
            }
            _ => {}
        }
    }
}

/// What is told later is true, but for what it does not speak of.
fn merge(known: &mut TopicState, told: TopicState) {
    known.floor = known.floor.max(told.floor);
    known.lost = known.lost.max(told.lost);
    known.known |= told.known;
    known.devices.retain(|device| !told.forgotten.contains(&device.name));
    known.forgotten.retain(|name| told.devices.iter().all(|device| device.name != *name));
    for device in told.devices {
        match known.devices.iter_mut().find(|known| known.name == device.name) {
            Some(known) => *known = device,
            None => known.devices.push(device),
        }
    }
    for name in told.forgotten {
        if !known.forgotten.contains(&name) {
            known.forgotten.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use ringgate_core::topics::DeviceState;

    use super::*;

    const SHARD: ShardId = ShardId(1);

    fn state(cursor: u64) -> Box<TopicState> {
        let device = DeviceState { name: "phone".into(), cursor, away_since_ms: None, skipped_from: None, fence: 1 };
        Box::new(TopicState { devices: vec![device], ..TopicState::default() })
    }

    fn release(fence: Fence) -> Release {
        Release { shard: SHARD, fence, left: None }
    }

    #[test]
    fn states_of_a_topic_wait_then_the_newest_counts_whether_it_was_told_before_or_after_a_refusal() {
        let mut later = Later::new(Instant::now());
        let cursor = |later: &Later| later.cursors["@bob"].state.devices[0].cursor;
        assert!(
            later.put_cursor(SHARD, "@bob".into(), 7, state(3)) && later.put_cursor(SHARD, "@bob".into(), 7, state(5))
        );
        assert_eq!(cursor(&later), 5);
        // Refused meanwhile, and told before what waits.
        assert!(later.put_cursor_back(SHARD, "@bob".into(), 7, state(4)));
        assert_eq!(cursor(&later), 5);
        assert!(later.put_cursor_back(SHARD, "@bob".into(), 6, state(9)));
        assert_eq!((cursor(&later), later.cursors["@bob"].epoch), (5, 7), "of an epoch before");
    }

    #[test]
    fn more_wait_than_there_is_room_for_then_those_that_wait_already_are_still_merged() {
        let mut later = Later::new(Instant::now());
        let topic = |number: usize| Arc::<str>::from(format!("@{number}"));
        assert!((0..TOPICS_MAX).all(|number| later.put_cursor(SHARD, topic(number), 1, state(1))));
        assert!(!later.put_cursor(SHARD, "@one too many".into(), 1, state(1)));
        assert!(later.put_cursor(SHARD, topic(0), 1, state(2)));
        let device = |number: usize| (topic(number), Arc::<str>::from("phone"));
        assert!((0..RELEASES_MAX).all(|number| later.put_release(device(number), release(2))));
        assert!(!later.put_release(("@one too many".into(), "phone".into()), release(2)));
        assert!(later.put_release(device(0), release(1)) && later.releases[&device(0)].fence == 2);
        assert!(later.put_release(device(0), release(3)) && later.releases[&device(0)].fence == 3);
    }

    #[test]
    fn one_is_refused_for_good_then_it_is_given_up_after_some_tries() {
        let mut later = Later::new(Instant::now());
        let name = || ("bob".into(), "phone".into());
        let tries = (0..TRIES_MAX).filter(|_| later.may_try_again(name())).count();
        assert_eq!((tries, later.tries.len()), (usize::from(TRIES_MAX) - 1, 0));
    }
}

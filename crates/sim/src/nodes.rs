//! Several nodes that share an engine, which gives messages their places and tells every node what the others have stored.
//!
//! What a node asks for is done by [`Nodes::work`]; what it is told of messages waits in `news` until a test delivers it, loses
//! it, or delivers it twice, in any order. The engine is one [`Disk`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use ringgate_core::limits::{Engine, Settings};
use ringgate_core::shard::{
    ClaimId, EngineUnavailable, Event, Fence, MemberChange, Origin, Present, Stored, StoredMessage, Unclaimed, Unstored,
};

use crate::disk::Disk;
use crate::world::{Append, Call, Storage, Task, World};

/// See the module.
pub struct Nodes {
    /// The nodes.
    pub nodes: Vec<World>,
    /// What the engine has.
    pub disk: Disk,
    /// What nodes are to be told, oldest first.
    pub news: VecDeque<News>,
    /// The engine is away: whatever it is asked for fails.
    pub is_away: bool,
    /// Which shard of which node has loaded which topic.
    interest: BTreeSet<(Arc<str>, usize, usize)>,
    /// By user and device: the newest claim, and where its session is.
    claims: BTreeMap<(Arc<str>, Arc<str>), Claim>,
    /// Claims that were given.
    fences: Fence,
    /// Shards that must still be told that a newer session has claimed a device.
    pub evictions: VecDeque<Eviction>,
    /// Claims that were given, and whose sessions have not heard of it yet.
    pub claimed: VecDeque<ClaimAnswer>,
    /// Topics that nodes are to load once more.
    pub changed: VecDeque<Changed>,
    /// Messages in no log, on their way to other nodes.
    pub relayed: VecDeque<Relayed>,
    /// The members of a room on a node.
    members: BTreeMap<(Arc<str>, usize), MembersHere>,
    settings: Settings,
}

#[derive(Clone, Debug, Default)]
struct MembersHere {
    count: u32,
    named: BTreeMap<(usize, u64), (Arc<str>, Arc<str>)>,
}

/// A topic of which a device is new.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The node's number.
    pub node: usize,
    /// The shard's number.
    pub shard: usize,
    topic: Arc<str>,
}

/// A message in no log.
#[derive(Clone, Debug)]
pub struct Relayed {
    /// The node's number.
    pub node: usize,
    /// The shard's number.
    pub shard: usize,
    topic: Arc<str>,
    frame: Bytes,
    origin: Origin,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    fence: Fence,
    /// The node and the shard where the session is; none when it has ended.
    holder: Option<(usize, usize)>,
}

/// A shard that has to be told that a device is another session's now.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// The node's number.
    pub node: usize,
    /// The shard's number.
    pub shard: usize,
    user: Arc<str>,
    device: Arc<str>,
    fence: Fence,
}

/// The engine's answer to a claim.
#[derive(Clone, Copy, Debug)]
pub struct ClaimAnswer {
    /// The node's number.
    pub node: usize,
    /// The shard's number.
    pub shard: usize,
    claim: ClaimId,
    fence: Fence,
}

/// A message that was stored, on its way to a shard of a node.
#[derive(Clone, Debug)]
pub struct News {
    /// The node's number.
    pub node: usize,
    /// The shard's number.
    pub shard: usize,
    /// The topic.
    pub topic: Arc<str>,
    /// Its epoch.
    pub epoch: u64,
    /// The message.
    pub message: StoredMessage,
}

impl Nodes {
    /// So many nodes, of so many shards each.
    pub fn new(nodes: usize, shards: usize, settings: &Settings) -> Nodes {
        let node = |number: usize| {
            let settings = Settings { engine: Engine::Shared, node_number: number as u16, ..settings.clone() };
            let mut world = World::new(shards, settings);
            world.storage = Storage::WhenAsked;
            world
        };
        Nodes {
            nodes: (0..nodes).map(node).collect(),
            disk: Disk::default(),
            news: VecDeque::new(),
            is_away: false,
            interest: BTreeSet::new(),
            claims: BTreeMap::new(),
            fences: 0,
            evictions: VecDeque::new(),
            claimed: VecDeque::new(),
            changed: VecDeque::new(),
            relayed: VecDeque::new(),
            members: BTreeMap::new(),
            settings: settings.clone(),
        }
    }

    /// Both clocks of every node go on.
    pub fn pass(&mut self, ms: u64) {
        self.nodes.iter_mut().for_each(|node| node.pass(ms));
    }

    /// The engine does the oldest thing that a node asks for; false if it asks for nothing.
    pub fn work(&mut self, node: usize) -> bool {
        let Some(Call { shard, task }) = self.nodes[node].calls.pop_front() else { return false };
        let unix_ms = self.nodes[node].now.unix_ms;
        let event = match task {
            Task::Append(Append { ticket, .. }) if self.is_away => {
                Some(Event::Stored { ticket, result: Err(Unstored::Away) })
            }
            Task::Load { topic, .. } if self.is_away => Some(Event::Loaded { topic, result: Err(EngineUnavailable) }),
            Task::Read { read, .. } if self.is_away => Some(Event::Read { read, result: Err(EngineUnavailable) }),
            Task::Claim { claim, .. } if self.is_away => {
                Some(Event::Claimed { claim, result: Err(Unclaimed::Unavailable) })
            }
            Task::Claim { claim, user, device, .. } if self.has_too_many(&user, &device) => {
                Some(Event::Claimed { claim, result: Err(Unclaimed::TooMany) })
            }
            Task::Claim { claim, user, device, .. } => {
                self.fences += 1;
                let fence = self.fences;
                let newest = Claim { fence, holder: Some((node, shard)) };
                let before = self.claims.insert((user.clone(), device.clone()), newest);
                if let Some((node, shard)) = before.and_then(|before| before.holder) {
                    let (user, device) = (user.clone(), device.clone());
                    self.evictions.push_back(Eviction { node, shard, user, device, fence });
                }
                self.claimed.push_back(ClaimAnswer { node, shard, claim, fence });
                self.disk.claim(&format!("@{user}").into(), &device, fence);
                None
            }
            Task::Release { user, device, fence, left } => {
                self.disk.release(&format!("@{user}").into(), &device, fence, left.as_deref());
                if let Some(newest) = self.claims.get_mut(&(user, device)).filter(|newest| newest.fence == fence) {
                    newest.holder = None;
                }
                None
            }
            Task::Members { topic, count, changes, anew } => {
                let here = self.members.entry((topic, node)).or_default();
                if anew {
                    here.named.clear();
                }
                here.count = count;
                for MemberChange { session, member } in changes {
                    match member {
                        Some(member) => drop(here.named.insert((shard, session), member)),
                        None => drop(here.named.remove(&(shard, session))),
                    }
                }
                None
            }
            Task::Presence { read, .. } if self.is_away => {
                Some(Event::Present { read, result: Err(EngineUnavailable) })
            }
            Task::Presence { read, topic, limit } => {
                let here = || self.members.iter().filter(|((room, _), _)| *room == topic).map(|(_, here)| here);
                let count = here().map(|here| here.count).sum();
                let members = here().flat_map(|here| here.named.values().cloned()).take(limit as usize).collect();
                Some(Event::Present { read, result: Ok(Box::new(Present { count, members })) })
            }
            Task::Disconnect { user, device, reason } => {
                let topic: Arc<str> = format!("@{user}").into();
                let interest = self.interest.iter().filter(|(known, _, _)| *known == topic);
                for (_, node, shard) in interest.cloned().collect::<Vec<_>>() {
                    let (user, device) = (user.clone(), device.clone());
                    self.nodes[node].handle(shard, Event::Disconnect { user, device, reason, everywhere: false });
                }
                None
            }
            Task::Relay { topic, frame, origin } => {
                let interest = self.interest.iter().filter(|(known, _, _)| *known == topic);
                self.relayed.extend(interest.map(|(topic, node, shard)| Relayed {
                    node: *node,
                    shard: *shard,
                    topic: topic.clone(),
                    frame: frame.clone(),
                    origin,
                }));
                None
            }
            Task::Append(Append { ticket, record, .. }) => {
                self.begin_above(&record.topic, record.position.epoch);
                let stored = self.disk.place(&record, unix_ms);
                if let Stored::Now(position) = stored {
                    let message = self.disk.message(&record.topic, position.offset).expect("it has just been stored");
                    let interest = self.interest.iter().filter(|(topic, _, _)| *topic == record.topic);
                    self.news.extend(interest.map(|(topic, node, shard)| News {
                        node: *node,
                        shard: *shard,
                        topic: topic.clone(),
                        epoch: position.epoch,
                        message: message.clone(),
                    }));
                }
                Some(Event::Stored { ticket, result: Ok(stored) })
            }
            Task::Load { topic, epoch } => {
                // From here on the node is told of what is stored.
                self.interest.insert((topic.clone(), node, shard));
                self.begin_above(&topic, epoch);
                let loaded = Box::new(self.disk.load(&topic, unix_ms));
                Some(Event::Loaded { topic, result: Ok(loaded) })
            }
            Task::Read { read, messages } if !self.disk.is_in_epoch(&messages.topic, messages.epoch) => {
                self.changed.push_back(Changed { node, shard, topic: messages.topic });
                Some(Event::Read { read, result: Err(EngineUnavailable) })
            }
            Task::Read { read, messages } => {
                Some(Event::Read { read, result: Ok(Box::new(self.disk.read(&messages, unix_ms))) })
            }
            Task::Cursor { topic, epoch, state } => {
                if self.disk.merge(&topic, epoch, &state) {
                    self.change_topic(&topic);
                }
                None
            }
            Task::Unload { topic } => {
                self.interest.remove(&(topic.clone(), node, shard));
                if self.interested(&topic) == 0 && self.vanishes(&topic) {
                    self.disk.remove(&topic);
                }
                None
            }
        };
        if let Some(event) = event {
            self.nodes[node].handle(shard, event);
        }
        true
    }

    /// A node ends without a word and is started again; its lease ends at the same moment.
    pub fn crash(&mut self, node: usize) {
        self.interest.retain(|(_, other, _)| *other != node);
        self.news.retain(|news| news.node != node);
        self.evictions.retain(|eviction| eviction.node != node);
        self.claimed.retain(|answer| answer.node != node);
        self.changed.retain(|changed| changed.node != node);
        self.relayed.retain(|relayed| relayed.node != node);
        self.members.retain(|(_, other), _| *other != node);
        let unix_ms = self.nodes[node].now.unix_ms;
        for ((user, device), claim) in &mut self.claims {
            if claim.holder.is_some_and(|(other, _)| other == node) {
                claim.holder = None;
                self.disk.lease_ended(&format!("@{user}").into(), device, claim.fence, unix_ms);
            }
        }
        self.nodes[node].restart();
    }

    /// Delivers news to the node that they are for.
    pub fn tell(&mut self, news: News) {
        let News { node, shard, topic, epoch, message } = news;
        self.nodes[node].handle(shard, Event::Arrived { topic, epoch, message: Box::new(message) });
    }

    /// Tells a node that a device is another session's now.
    pub fn evict(&mut self, eviction: Eviction) {
        let Eviction { node, shard, user, device, fence } = eviction;
        self.nodes[node].handle(shard, Event::Evict { user, device, fence });
    }

    /// Tells a node that a claim was given.
    pub fn answer_claim(&mut self, answer: ClaimAnswer) {
        let ClaimAnswer { node, shard, claim, fence } = answer;
        self.nodes[node].handle(shard, Event::Claimed { claim, result: Ok(fence) });
    }

    /// The node on which the newest session of a device is; none if it has ended.
    pub fn holder(&self, user: &str, device: &str) -> Option<usize> {
        self.claims.get(&(user.into(), device.into())).and_then(|newest| newest.holder).map(|(node, _)| node)
    }

    /// The engine forgets who is in which room.
    pub fn forget_members(&mut self) {
        self.members.clear();
    }

    /// Tells a node that what it knows of a topic may not be true any more.
    pub fn change(&mut self, changed: Changed) {
        let Changed { node, shard, topic } = changed;
        self.nodes[node].handle(shard, Event::Changed { topic });
    }

    /// Every node is told so of all its topics: news may have been lost.
    pub fn change_all(&mut self) {
        let all = self.interest.iter();
        self.changed.extend(all.map(|(topic, node, shard)| Changed {
            node: *node,
            shard: *shard,
            topic: topic.clone(),
        }));
    }

    /// Everything that is to be done at this moment, until nothing is left: news are delivered in their order.
    pub fn settle(&mut self) {
        loop {
            let mut any = false;
            for node in 0..self.nodes.len() {
                self.nodes[node].work();
                any |= self.work(node);
            }
            if let Some(news) = self.news.pop_front() {
                self.tell(news);
                any = true;
            }
            while let Some(changed) = self.changed.pop_front() {
                self.change(changed);
                any = true;
            }
            while let Some(Relayed { node, shard, topic, frame, origin }) = self.relayed.pop_front() {
                self.nodes[node].handle(shard, Event::Relayed { topic, frame, origin });
                any = true;
            }
            while let Some(answer) = self.claimed.pop_front() {
                self.answer_claim(answer);
                any = true;
            }
            while let Some(eviction) = self.evictions.pop_front() {
                self.evict(eviction);
                any = true;
            }
            if !any {
                return;
            }
        }
    }

    /// A node knows an epoch of a topic: the engine has none that is older any more.
    fn begin_above(&mut self, topic: &Arc<str>, epoch: u64) {
        if self.disk.begin_above(topic, epoch) {
            self.change_topic(topic);
        }
    }

    /// All nodes that have loaded a topic are told that it has changed.
    fn change_topic(&mut self, topic: &Arc<str>) {
        let interest = self.interest.iter().filter(|(known, _, _)| known == topic);
        self.changed.extend(interest.map(|(topic, node, shard)| Changed {
            node: *node,
            shard: *shard,
            topic: topic.clone(),
        }));
    }

    /// Whether a user has as many sessions with other devices as are allowed.
    fn has_too_many(&self, user: &str, device: &str) -> bool {
        let is_other = |((holder, name), claim): &(&(Arc<str>, Arc<str>), &Claim)| {
            **holder == *user && **name != *device && claim.holder.is_some()
        };
        self.claims.iter().filter(is_other).count() >= self.settings.client.sessions_per_user_max
    }

    /// Whether a room is deleted when no node has it in memory.
    fn vanishes(&self, topic: &str) -> bool {
        let namespace = self.settings.namespace_of(topic).and_then(|(index, _)| self.settings.namespaces.get(index));
        !topic.starts_with('@') && namespace.is_some_and(|namespace| namespace.vanish_when_empty)
    }

    /// The shard of a node that has a topic in memory.
    pub fn home(&self, node: usize, topic: &str) -> Option<usize> {
        let mut of_node = self.interest.iter().filter(|(known, other, _)| **known == *topic && *other == node);
        of_node.next().map(|(_, _, shard)| *shard)
    }

    /// How many shards of nodes have loaded a topic.
    pub fn interested(&self, topic: &str) -> usize {
        self.interest.iter().filter(|(known, _, _)| **known == *topic).count()
    }

    /// Panics when any structure of a shard is broken.
    pub fn check(&self) {
        self.nodes.iter().for_each(World::check);
    }
}

//! The names of everything in Redis.
//!
//! | name | type | what |
//! |---|---|---|
//! | `<prefix>:{nodes}:seed` | string | the seed of all nodes, in decimal |
//! | `<prefix>:{nodes}:format` | string | version of this format and number of partitions: `1 256` |
//! | `<prefix>:{nodes}:leases` | sorted set | runs of nodes (16 hexadecimal digits), by the end of their leases in Unix ms |
//! | `<prefix>:{nodes}:number:<n>` | string | the run that has the node number; expires with the lease |
//! | `<prefix>:{<tag>}:trial` | string | written once a second while Redis has refused to store something; expires after a second |
//! | `<prefix>:{<tag>}:g` | hash | `g`: replication id that the partition was last seen with, `e`: its least epoch |
//! | `<prefix>:{<tag>}:s:<topic>` | stream | messages; ids are `<epoch>-<offset - 1>`, field `m` see `record` |
//! | `<prefix>:{<tag>}:t:<topic>` | hash | marks, devices, fences; see `scripts` |
//! | `<prefix>:{<tag>}:k:<24 bytes>` | string | the answer to a client message id; expires with the dedup window |
//! | `<prefix>:{<tag>}:p:<topic>` | hash | nodes with members of a room: run, and `<sessions> <Unix seconds when it said so>` |
//! | `<prefix>:{<tag>}:m:<run>:<topic>` | hash | members on one of them: session (decimal), and `<bytes of user> <user><device>` |
//! | `<prefix>:{<tag>}:c:<topic>` | channel | news of the topic, see `record`; in database 3 channels begin with `<prefix>/3` |
//! | `<prefix>:{<tag>}:n:<run>` | channel | what is for one node, from topics of the partition |
//!
//! A topic belongs to a partition by a hash that all nodes share, and all of its names have the partition's tag, so that they are
//! in one slot of a Cluster. The tags are chosen so that slots lie evenly: partition `i` of `n` in `[i * 16384 / n, (i + 1) * 16384 / n)`.
//! What belongs to no topic has the tag `nodes`: it counts as one more partition, the last, and lives on the master of that one slot.
//! Channels are sharded ones, also outside a Cluster: Redis does the same for both kinds there.

use ringgate_core::topics::DedupKey;

/// Slots of a Cluster.
pub(crate) const SLOTS: usize = 16384;
/// The tag of what belongs to no topic.
const NODES: &str = "nodes";
/// Bytes of a dedup key that name the message; the others are derived.
const DEDUP_ID_BYTES: usize = 24;
/// Most partitions: each has some slots of its own.
pub(crate) const PARTITIONS_MAX: u16 = 1024;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    /// What channels begin with: they are the same in all databases of a server, so that its number is a part of them.
    channels: String,
    tags: Vec<String>,
    /// By partition; behind them that of the nodes.
    slots: Vec<usize>,
}

impl Keys {
    pub(crate) fn new(prefix: &str, database: u32, partitions: u16) -> Self {
        let partitions = usize::from(partitions.clamp(1, PARTITIONS_MAX));
        let channels = if database == 0 { prefix.to_owned() } else { format!("{prefix}/{database}") };
        let tags: Vec<String> = (0..partitions).map(|index| tag(index, partitions)).collect();
        let slots = tags.iter().map(String::as_str).chain([NODES]).map(|tag| slot(tag.as_bytes())).collect();
        Keys { prefix: prefix.to_owned(), channels, tags, slots }
    }

    /// What belongs to no topic counts as this partition.
    pub(crate) fn nodes_partition(&self) -> usize {
        self.tags.len()
    }

    /// The slot of a partition, or of what belongs to no topic.
    pub(crate) fn slot_of(&self, partition: usize) -> usize {
        self.slots.get(partition).copied().unwrap_or(0)
    }

    pub(crate) fn partitions(&self) -> usize {
        self.tags.len()
    }

    pub(crate) fn partition_of(&self, topic: &str) -> usize {
        partition_of(topic, self.tags.len())
    }

    fn tag_of(&self, topic: &str) -> &str {
        self.tags.get(self.partition_of(topic)).map_or("", String::as_str)
    }

    fn of_topic(&self, kind: &str, topic: &str) -> String {
        format!("{}:{{{}}}:{kind}:{topic}", self.prefix, self.tag_of(topic))
    }

    pub(crate) fn stream(&self, topic: &str) -> String {
        self.of_topic("s", topic)
    }

    pub(crate) fn state(&self, topic: &str) -> String {
        self.of_topic("t", topic)
    }

    pub(crate) fn channel(&self, topic: &str) -> String {
        format!("{}:{{{}}}:c:{topic}", self.channels, self.tag_of(topic))
    }

    /// The claim of a client message id; without one, a name that nothing has.
    pub(crate) fn dedup(&self, topic: &str, key: Option<&DedupKey>) -> Vec<u8> {
        let mut name = format!("{}:{{{}}}:k:", self.prefix, self.tag_of(topic)).into_bytes();
        if let Some(key) = key {
            name.extend_from_slice(key.to_bytes().get(..DEDUP_ID_BYTES).unwrap_or_default());
        }
        name
    }

    /// The nodes with members of a room.
    pub(crate) fn room_nodes(&self, topic: &str) -> String {
        self.of_topic("p", topic)
    }

    /// The members of a room on a node: what stands before and behind its run.
    pub(crate) fn room_members(&self, topic: &str) -> [String; 2] {
        [format!("{}:{{{}}}:m:", self.prefix, self.tag_of(topic)), format!(":{topic}")]
    }

    pub(crate) fn generation(&self, partition: usize) -> String {
        format!("{}:{{{}}}:g", self.prefix, self.tags.get(partition).map_or("", String::as_str))
    }

    /// What the channels of nodes begin with that belong to a partition: the run of the node follows.
    pub(crate) fn node_channels(&self, partition: usize) -> String {
        format!("{}:{{{}}}:n:", self.channels, self.tags.get(partition).map_or("", String::as_str))
    }

    pub(crate) fn node_channel(&self, partition: usize, run: u64) -> String {
        format!("{}{run:016x}", self.node_channels(partition))
    }

    pub(crate) fn trial(&self, partition: usize) -> String {
        format!("{}:{{{}}}:trial", self.prefix, self.tags.get(partition).map_or("", String::as_str))
    }

    pub(crate) fn seed(&self) -> String {
        format!("{}:{{nodes}}:seed", self.prefix)
    }

    pub(crate) fn format(&self) -> String {
        format!("{}:{{nodes}}:format", self.prefix)
    }

    pub(crate) fn leases(&self) -> String {
        format!("{}:{{nodes}}:leases", self.prefix)
    }

    pub(crate) fn number(&self, number: u16) -> String {
        format!("{}:{{nodes}}:number:{number}", self.prefix)
    }

    /// The partition of a node's channel; none if it is not one.
    pub(crate) fn partition_of_node_channel(&self, channel: &str) -> Option<usize> {
        let (tag, _) = channel.strip_prefix(self.channels.as_str())?.strip_prefix(":{")?.split_once("}:n:")?;
        self.tags.iter().position(|known| known == tag)
    }

    /// The topic of a channel; none if it is no topic's.
    pub(crate) fn topic_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        let rest = channel.strip_prefix(self.channels.as_str())?.strip_prefix(":{")?;
        rest.split_once("}:c:").map(|(_, topic)| topic)
    }
}

/// The partition of a topic, of so many.
pub(crate) fn partition_of(topic: &str, partitions: usize) -> usize {
    (hash(topic.as_bytes()) % partitions.max(1) as u64) as usize
}

/// FNV-1a with a last mix, as its low bits alone are weak. All nodes and all versions must agree.
fn hash(bytes: &[u8]) -> u64 {
    let hash =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// The first text of `p<index>`, `p<index>.1`, `p<index>.2` and so on that lies in the partition's slots.
fn tag(index: usize, partitions: usize) -> String {
    let slots = index * SLOTS / partitions..(index + 1) * SLOTS / partitions;
    let plain = format!("p{index}");
    let numbered = (1..).map(|number: u32| format!("{plain}.{number}"));
    let mut texts = std::iter::once(plain.clone()).chain(numbered);
    texts.find(|text| slots.contains(&slot(text.as_bytes()))).unwrap_or(plain)
}

/// The slot of a tag in a Cluster: CRC16 (XMODEM) modulo 16384, as Redis' specification of clusters says.
pub(crate) fn slot(tag: &[u8]) -> usize {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(*byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    });
    usize::from(crc) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_is_hashed_then_its_slot_is_the_one_that_redis_says() {
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!((slot(b"123456789"), slot(b"foo"), slot(b"p0")), (12739, 12182, slot(b"p0")));
    }

    #[test]
    fn key_belongs_to_no_topic_then_its_slot_is_that_of_the_last_partition() {
        let keys = Keys::new("rg", 0, 256);
        assert_eq!(keys.nodes_partition(), keys.partitions());
        assert_eq!(keys.slot_of(keys.nodes_partition()), slot(b"nodes"));
        assert_eq!(keys.slot_of(0), slot(keys.tags[0].as_bytes()));
    }

    #[test]
    fn partitions_are_made_then_their_slots_lie_evenly() {
        for partitions in [1, 128, 256, 1024] {
            let keys = Keys::new("rg", 0, partitions);
            let slots: Vec<usize> = keys.tags.iter().map(|tag| slot(tag.as_bytes())).collect();
            let width = SLOTS / usize::from(partitions);
            assert!(slots.iter().enumerate().all(|(index, slot)| slot / width == index), "{partitions}: {slots:?}");
        }
    }

    #[test]
    fn topics_are_many_then_no_partition_has_much_more_than_its_share() {
        let keys = Keys::new("rg", 0, 256);
        let mut counts = vec![0_u32; 256];
        (0..256_000).for_each(|user| counts[keys.partition_of(&format!("@user{user}"))] += 1);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(least >= Some(&850) && most <= Some(&1150), "{least:?} {most:?}");
    }

    #[test]
    fn names_of_a_topic_are_made_then_they_share_a_tag_and_lead_back_to_it() {
        let keys = Keys::new("rg", 0, 256);
        let topic = "chat:a}:c:b";
        let tag = keys.tag_of(topic);
        assert_eq!(keys.stream(topic), format!("rg:{{{tag}}}:s:{topic}"));
        assert_eq!(keys.topic_of(&keys.channel(topic)), Some(topic));
        let channel = keys.node_channel(keys.partition_of(topic), 7);
        assert_eq!(channel, format!("rg:{{{tag}}}:n:0000000000000007"));
        assert_eq!((keys.topic_of(&channel), keys.partition_of_node_channel(&keys.channel("chat:b"))), (None, None));
        assert_eq!(keys.partition_of_node_channel(&channel), Some(keys.partition_of(topic)));
        assert_eq!(Keys::new("rg", 3, 256).channel(topic), format!("rg/3:{{{tag}}}:c:{topic}"));
    }
}

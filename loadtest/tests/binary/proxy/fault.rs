//! What a proxy does to the frames that pass it, and to which of them.

use std::time::Duration;

/// What is done to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A Message never comes.
    Lose,
    /// A Message comes twice.
    Double,
    /// A Message comes again so much later, whatever has come meanwhile.
    DoubleLate(Duration),
    /// A Message comes after the next one of the same sender and topic.
    Swap,
    /// One bit of what the load tester writes at the front of a payload is another.
    FlipInStamp,
    /// One bit of what it fills the payload with is another.
    FlipInFill,
    /// A Message comes with half of its payload.
    Shorten,
    /// A Message comes to a client, or a member of a room, that it was not sent to, and not to the right one.
    Misdirect,
    /// A Message comes to a client, or a member of a room, that it was not sent to, and to the right one, too.
    Leak,
    /// A Message comes under another user's inbox or another room.
    OtherTopic,
    /// A Message comes as if another user had sent it.
    OtherSender,
    /// A message of another run comes, too, to the same client and from the same topic.
    Foreign,
    /// A message of another run comes, too, under another user's inbox or another room.
    ForeignElsewhere,
    /// A Message comes so much later, and so does what is behind it on its connection.
    DelayMessage(Duration),
    /// A Pong comes so much later, and so does what is behind it on its connection.
    DelayPong(Duration),
    /// The connection ends behind a Message.
    CutAfterMessage,
    /// A Published never comes.
    LoseAnswer,
    /// A Published comes twice.
    DoubleAnswer,
    /// A Published names the request of the publish before.
    OtherRequest,
    /// A Published comes so much later, and so does what is behind it on its connection.
    DelayAnswer(Duration),
    /// An Error comes instead of a Published, though the message is delivered.
    Refuse,
    /// The connection ends instead: the message is delivered, its sender does not know.
    CutAtAnswer,
    /// The connection ends before a Publish reaches the gateway.
    CutAtPublish,
    /// A Publish does not reach the gateway, and is answered with a temporary Error: storage is full, try again after so long.
    RefusePublish(Duration),
    /// A Pong never comes.
    LosePong,
    /// The connection ends instead of a Pong.
    CutAtPong,
    /// When a Publish comes, nothing passes any more on any connection, either way, for so long.
    StallAtPublish(Duration),
    /// When a Ping comes, nothing passes any more on any connection, either way, for so long.
    StallAtPing(Duration),
    /// When a Ping comes, nothing passes any more, ever: what comes is counted as sent and never arrives.
    FreezeAtPing,
}

/// A kind of frames that faults are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Subject {
    Publish,
    Published,
    Message,
    Ping,
    Pong,
}

impl Fault {
    /// What it is done to.
    pub(crate) fn subject(self) -> Subject {
        match self {
            Fault::Lose
            | Fault::Double
            | Fault::DoubleLate(_)
            | Fault::Swap
            | Fault::FlipInStamp
            | Fault::FlipInFill
            | Fault::Shorten
            | Fault::Misdirect
            | Fault::Leak
            | Fault::OtherTopic
            | Fault::OtherSender
            | Fault::Foreign
            | Fault::ForeignElsewhere
            | Fault::DelayMessage(_)
            | Fault::CutAfterMessage => Subject::Message,
            Fault::LoseAnswer
            | Fault::DoubleAnswer
            | Fault::OtherRequest
            | Fault::DelayAnswer(_)
            | Fault::Refuse
            | Fault::CutAtAnswer => Subject::Published,
            Fault::CutAtPublish | Fault::RefusePublish(_) | Fault::StallAtPublish(_) => Subject::Publish,
            Fault::LosePong | Fault::CutAtPong | Fault::DelayPong(_) => Subject::Pong,
            Fault::StallAtPing(_) | Fault::FreezeAtPing => Subject::Ping,
        }
    }
}

/// Which frames of a flow: counted from 0, whatever connection they come on. A flow is what one user gets of one sender under
/// one topic, or the Publishes, answers, Pings or Pongs of one user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Points {
    first: u64,
    every: u64,
    until: u64,
}

impl Points {
    /// All of them.
    pub(crate) const ALL: Points = Points { first: 0, every: 1, until: u64::MAX };

    /// This one.
    pub(crate) const fn once(at: u64) -> Points {
        Points { first: at, every: 1, until: at + 1 }
    }

    /// Each tenth from this on.
    pub(crate) const fn each_tenth(first: u64) -> Points {
        Points { first, every: 10, until: u64::MAX }
    }

    /// Whether this frame of its flow is one.
    pub(crate) fn has(self, index: u64) -> bool {
        index >= self.first && index < self.until && (index - self.first).is_multiple_of(self.every)
    }

    /// How many there are in a flow of so many frames.
    pub(crate) fn within(self, length: u64) -> u64 {
        (0..length).filter(|index| self.has(*index)).count() as u64
    }
}

//! What an entry of the ring is about: the operation and the connection, in the 64 bits that come back with its completion.

use ringgate_core::id::{ConnectionKey, GENERATION_MASK};

/// An operation in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// The slot of its key is the number of the accept.
    Accept = 1,
    Receive,
    Send,
    Shutdown,
    Close,
    Connect,
    /// It ends another one, whose own completion follows.
    Cancel,
    /// The close of a descriptor that never became a socket of ours.
    Discard,
    /// The poll of the doorbell.
    Bell,
    Peek,
    /// What such a descriptor is sent before.
    Farewell,
}

impl Operation {
    const ALL: [Operation; 11] = {
        use Operation::*;
        [Accept, Receive, Send, Shutdown, Close, Connect, Cancel, Discard, Bell, Peek, Farewell]
    };

    /// As the kernel is given it.
    pub(super) fn on(self, key: ConnectionKey) -> u64 {
        ((self as u64) << 56) | (u64::from(key.generation) << 32) | u64::from(key.slot)
    }

    /// As [`Self::on`], where there is no connection.
    pub(super) fn alone(self) -> u64 {
        (self as u64) << 56
    }

    /// What the kernel gives back; none of what was not given to it.
    pub(super) fn parse(data: u64) -> Option<(Operation, ConnectionKey)> {
        let operation = *Self::ALL.get(((data >> 56) as usize).wrapping_sub(1))?;
        Some((operation, ConnectionKey { slot: data as u32, generation: (data >> 32) as u32 & GENERATION_MASK }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_back_as_they_were_given() {
        for operation in Operation::ALL {
            for key in [(0, 0), (7, 1), (u32::MAX, GENERATION_MASK)] {
                let key = ConnectionKey { slot: key.0, generation: key.1 };
                assert_eq!(Operation::parse(operation.on(key)), Some((operation, key)));
            }
        }
        for unknown in [0, 12 << 56, u64::MAX] {
            assert_eq!(Operation::parse(unknown), None);
        }
    }
}

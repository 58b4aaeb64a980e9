//! A socket in the ring: which operations of it are in the kernel, and the three steps of its end.

use super::layer::Layers;
use super::quiet::Quiet;
use super::sends::SendKey;

// What every connection costs here.
const _: () = assert!(size_of::<Socket>() <= 24);

/// State of one slot. An idle plain socket is these few bytes and one armed receive in the kernel.
pub(super) struct Socket {
    /// The ordinary descriptor, or -1 where the slot itself is the descriptor.
    pub(super) fd: i32,
    /// Index of the send that is in the kernel.
    pub(super) send: Option<SendKey>,
    pub(super) receiving: bool,
    /// Each receive takes one buffer, and the driver is asked before the next; see [`super::Net::trust`].
    pub(super) stepwise: bool,
    /// What else is in the kernel.
    pub(super) step: Option<Step>,
    pub(super) stage: Stage,
    pub(super) peer: Peer,
    /// Nothing is received for now; see [`super::Net::hold`].
    pub(super) held: bool,
    /// Queued for a handshake step.
    pub(super) handshaking: bool,
    /// Whether it is to be looked at, or is being.
    pub(super) quiet: Quiet,
    pub(super) layers: Layers,
}

/// An operation at the beginning or at the end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connecting,
    Shutting,
}

/// What is known of the other end. The driver is told once that the peer ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// It has not ended the connection.
    There,
    /// Its bytes were refused, and the driver has been told. It is told, too, and may still send what nobody reads.
    Refused,
    /// It has said that it sends no more, and the driver has been told. It may still read.
    Leaving,
    /// It has closed its side, or the socket has failed.
    Gone,
}

/// How far the end of a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In use.
    Open,
    /// What is queued is being sent; then our side is shut.
    Flushing,
    /// Our side is shut; the peer's last bytes are thrown away until it closes, too.
    Lingering,
    /// Decided: operations in the kernel are cancelled.
    Joining,
    /// Nothing is in the kernel but the close itself.
    Closing,
}

impl Socket {
    pub(super) fn new(fd: i32, layers: Layers) -> Self {
        Socket {
            fd,
            send: None,
            receiving: false,
            stepwise: false,
            step: None,
            stage: Stage::Open,
            peer: Peer::There,
            held: false,
            handshaking: false,
            quiet: Quiet::New,
            layers,
        }
    }

    /// Whether the driver may still queue output.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Flushing)
    }

    /// Whether what the peer sends is taken in.
    pub(super) fn is_heard(&self) -> bool {
        self.stage == Stage::Open && self.peer == Peer::There
    }

    /// Whether nothing more is to be expected of the peer.
    pub(super) fn is_over(&self) -> bool {
        self.peer == Peer::Gone || matches!(self.stage, Stage::Joining | Stage::Closing)
    }

    /// Whether anything but the close is in the kernel.
    pub(super) fn is_in_kernel(&self) -> bool {
        self.send.is_some() || self.receiving || self.step.is_some() || self.quiet.is_peeking()
    }
}

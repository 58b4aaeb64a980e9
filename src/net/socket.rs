//! A socket in the ring: which operations of it are in the kernel, and the three steps of its end.

use super::quiet::Quiet;
use super::send::SendKey;
use crate::tls::Tls;

// What every connection costs here.
const _: () = assert!(size_of::<Socket>() <= 24);

/// State of one slot. An idle plain socket is these few bytes and one armed receive in the kernel.
pub(super) struct Socket {
    /// The ordinary descriptor, or -1 where the slot itself is the descriptor.
    pub(super) fd: i32,
    /// Index of the send that is in the kernel.
    pub(super) send: Option<SendKey>,
    pub(super) receiving: bool,
    pub(super) connecting: bool,
    pub(super) shutting: bool,
    pub(super) stage: Stage,
    /// The driver has been told that the peer is gone.
    pub(super) ended: bool,
    /// Nothing is received for now; see [`super::Net::hold`].
    pub(super) held: bool,
    /// Queued for a handshake step.
    pub(super) handshaking: bool,
    /// Whether it is to be looked at, or is being.
    pub(super) quiet: Quiet,
    pub(super) tls: Option<Box<Tls>>,
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
    pub(super) fn new(fd: i32) -> Self {
        Socket {
            fd,
            send: None,
            receiving: false,
            connecting: false,
            shutting: false,
            stage: Stage::Open,
            ended: false,
            held: false,
            handshaking: false,
            quiet: Quiet::New,
            tls: None,
        }
    }

    /// Whether the driver may still queue output.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Flushing)
    }

    /// Whether nothing more is to be expected of the peer.
    pub(super) fn is_over(&self) -> bool {
        self.ended || matches!(self.stage, Stage::Joining | Stage::Closing)
    }

    /// Whether anything but the close is in the kernel.
    pub(super) fn is_in_kernel(&self) -> bool {
        self.send.is_some() || self.receiving || self.connecting || self.shutting || self.quiet.is_peeking()
    }
}

//! What a connection speaks between the socket and its frames: layers, one file each, behind one trait.
//!
//! A layer keeps the state of one connection and touches no socket: it is handed bytes where the kernel put them, and is asked for
//! what goes into the next send. Every call is dispatched by a match over [`Layers`], so that a plain socket pays for none of it. A
//! layer that stands on another one, as WebSocket does on TCP or on TLS, is generic over it and calls the same methods.
//!
//! A new layer is a file here, its variant in [`Stacked`] with an arm in `each!`, and what [`Layers::accept`] makes it from.

mod either;
mod header;
mod plain;
#[cfg(test)]
mod tests;
mod tls;
mod ws;

use std::sync::Arc;

use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;
use ringgate_core::transport::{Handshake, Transport};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use super::Driver;
use super::gather::append_rest;
use super::portion::Portion;
use super::sends::{Owner, Send, SendKey, Sends};
use crate::tls::{Tls, TlsError};
use crate::ws::{Accepted, Failure, Rules};
use either::Either;
pub(super) use either::REQUEST;
pub(super) use header::Header;
use plain::Plain;
use ws::Ws;

/// A layer of one connection.
pub(super) trait Layer {
    /// What is sealed is the content itself: it may be gathered where it is sent from.
    const IS_TRANSPARENT: bool = false;

    /// Takes bytes of the peer in, and hands on what they carry, in order and where possible in place. What belongs to a handshake
    /// whose next step is costly is kept for [`Self::step`]; [`Progress::waits`] says so. An error ends the connection; what the peer
    /// is to be told of it is in [`Self::take_answer`].
    fn take_in(&mut self, bytes: &mut [u8], above: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>>;

    /// As [`Self::take_in`], for what the layer below has handed on before this layer was there.
    fn take_content(
        &mut self,
        content: &mut [u8],
        mut above: impl FnMut(Portion<'_>),
    ) -> Result<Progress, Box<LayerError>> {
        above(Portion::InPlace(content));
        Ok(Progress::default())
    }

    /// Makes the next step of a handshake with what was kept for it.
    fn step(&mut self, above: impl FnMut(Portion<'_>)) -> Result<Progress, Box<LayerError>>;

    /// Whether so many bytes can be kept beside those that wait for a step.
    fn has_room(&self, bytes: usize) -> bool;

    /// Bytes of the peer that wait for a step.
    fn kept(&self) -> &[u8];

    /// Whether [`Self::take_answer`] has something.
    fn has_answer(&self) -> bool;

    /// What the layer itself has to say to the peer, such as a part of its handshake or an alert. It goes before what is sealed later.
    fn take_answer(&mut self) -> Vec<u8>;

    /// Whether [`Self::seal`] may be called: the handshake is over.
    fn is_open(&self) -> bool;

    /// Appends to `out` what the peer is sent for this content.
    fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Box<LayerError>>;

    /// Appends what says that nothing follows, once; nothing where the layer has no such message, or its handshake is not over.
    fn finish(&mut self, out: &mut Vec<u8>);

    /// What [`Self::finish`] is to give as the reason, where the layer's message has one.
    fn explain(&mut self, _: CloseReason) {}

    /// Makes the next send of what waits: the layer's own bytes, then all that the driver has. Once nothing is left and `closing`, what
    /// [`Self::finish`] says. None when there is nothing to send. `scratch` is overwritten.
    fn gather(
        &mut self,
        key: ConnectionKey,
        closing: bool,
        sends: &mut Sends,
        scratch: &mut Vec<u8>,
        driver: &mut impl Driver,
    ) -> Result<Option<SendKey>, Box<LayerError>> {
        let mut more = false;
        let mut out = if self.has_answer() { self.take_answer() } else { sends.spare() };
        if self.is_open() {
            scratch.clear();
            more = append_rest(scratch, key, driver);
            if !scratch.is_empty() {
                self.seal(scratch, &mut out)?;
            }
            if out.is_empty() && closing {
                self.finish(&mut out);
            }
        }
        if out.is_empty() {
            sends.give_back(out);
            return Ok(None);
        }
        Ok(Some(sends.insert(Send { owner: Owner::Copied(out), sent: 0, more })))
    }
}

/// What a peer's bytes have led to, beside what was handed on.
#[derive(Default)]
pub(super) struct Progress {
    /// TLS has just been agreed on.
    pub(super) secured: Option<Secured>,
    /// The peer has said that it sends no more.
    pub(super) ended: bool,
    /// Bytes beyond those that were handed on, once the handshake is over.
    pub(super) overhead_bytes: usize,
    /// Something waits for [`Layer::step`].
    pub(super) waits: bool,
    /// The request for a WebSocket has just been accepted. It comes before any content does.
    pub(super) upgraded: Option<Box<Accepted>>,
}

/// How TLS was agreed on.
pub(super) struct Secured {
    pub(super) handshake: Handshake,
    pub(super) compact: bool,
}

/// Why a layer ends its connection. It is boxed where it is returned: a result that is good stays in registers.
pub(super) enum LayerError {
    /// What the peer is told of it is tried once; nobody waits for it.
    Tls(TlsError),
    /// What the peer is told of it is to reach it.
    Ws {
        failure: Failure,
        /// As in [`Progress`]: in what has failed was the end of the TLS handshake, too.
        secured: Option<Secured>,
    },
}

impl LayerError {
    /// What the driver is told.
    pub(super) fn reason(&self) -> CloseReason {
        match self {
            LayerError::Tls(_) => CloseReason::TlsError,
            LayerError::Ws { failure, .. } => failure.reason(),
        }
    }
}

impl From<TlsError> for Box<LayerError> {
    fn from(error: TlsError) -> Self {
        Box::new(LayerError::Tls(error))
    }
}

/// The layers of one socket: none, or what is behind one pointer.
pub(super) enum Layers {
    Plain(Plain),
    Stacked(Box<Stacked>),
}

// A plain socket has no memory of its own for this, and one over TLS a block of two words beside the state of TLS itself.
const _: () = assert!(size_of::<Layers>() == size_of::<usize>() && size_of::<Stacked>() <= 2 * size_of::<usize>());

/// Everything that is more than a plain socket.
pub(super) enum Stacked {
    Tls(Tls),
    Ws(Box<Ws<Plain>>),
    WsTls(Box<Ws<Tls>>),
    Either(Box<Either<Plain>>),
    EitherTls(Box<Either<Tls>>),
    Header(Box<Header>),
}

/// How frames travel on the connections of a listener.
#[derive(Clone)]
pub(super) enum Framing {
    /// On TCP or TLS alone.
    Bare,
    /// In messages of WebSocket.
    WebSocket(Arc<Rules>),
    /// As the first bytes of each connection say.
    Either(Arc<Rules>),
}

/// Evaluates an expression with the topmost layer of a `&mut Layers`, whichever it is.
macro_rules! each {
    ($layers:expr, $layer:ident => $value:expr) => {
        match $layers {
            $crate::layer::Layers::Plain($layer) => $value,
            $crate::layer::Layers::Stacked(stacked) => match &mut **stacked {
                $crate::layer::Stacked::Tls($layer) => $value,
                $crate::layer::Stacked::Ws($layer) => $value,
                $crate::layer::Stacked::WsTls($layer) => $value,
                $crate::layer::Stacked::Either($layer) => $value,
                $crate::layer::Stacked::EitherTls($layer) => $value,
                $crate::layer::Stacked::Header($layer) => $value,
            },
        }
    };
}
pub(super) use each;

impl Layers {
    /// Of a socket on which there is nothing but frames.
    pub(super) const PLAIN: Layers = Layers::Plain(Plain);

    /// For an accepted connection. None if what the transport needs was not set, or is refused.
    pub(super) fn accept(
        transport: Transport,
        server_tls: Option<&Arc<ServerConfig>>,
        framing: &Framing,
    ) -> Option<Layers> {
        let tls = match transport.has_tls() {
            false => None,
            true => Some(Tls::accept(server_tls?.clone()).ok()?),
        };
        Some(match (tls, framing.clone()) {
            (None, Framing::Bare) => Layers::PLAIN,
            (Some(tls), Framing::Bare) => Layers::stacked(Stacked::Tls(tls)),
            (None, Framing::WebSocket(rules)) => Layers::stacked(Stacked::Ws(Box::new(Ws::new(Plain, rules)))),
            (Some(tls), Framing::WebSocket(rules)) => Layers::stacked(Stacked::WsTls(Box::new(Ws::new(tls, rules)))),
            (None, Framing::Either(rules)) => Layers::stacked(Stacked::Either(Box::new(Either::new(Plain, rules)))),
            (Some(tls), Framing::Either(rules)) => {
                Layers::stacked(Stacked::EitherTls(Box::new(Either::new(tls, rules))))
            }
        })
    }

    /// For an accepted connection that a proxy introduces first.
    pub(super) fn behind(header: Header) -> Layers {
        Layers::stacked(Stacked::Header(Box::new(header)))
    }

    /// What has come of a header, if one has to come.
    pub(super) fn header(&self) -> Option<&Header> {
        match self {
            Layers::Stacked(stacked) => match &**stacked {
                Stacked::Header(header) => Some(header),
                _ => None,
            },
            Layers::Plain(_) => None,
        }
    }

    /// As [`Self::header`].
    pub(super) fn header_mut(&mut self) -> Option<&mut Header> {
        match self {
            Layers::Stacked(stacked) => match &mut **stacked {
                Stacked::Header(header) => Some(header),
                _ => None,
            },
            Layers::Plain(_) => None,
        }
    }

    /// Whether [`Self::recognise`] is to be asked about the content that comes.
    pub(super) fn may_become_websocket(&self) -> bool {
        matches!(self, Layers::Stacked(stacked) if matches!(**stacked, Stacked::Either(_) | Stacked::EitherTls(_)))
    }

    /// Becomes the layers of what is spoken once the content says it. Returns what they are, and how many bytes of [`REQUEST`] came before this
    /// content; none while it cannot be told.
    pub(super) fn recognise(&mut self, content: &[u8]) -> Option<(Transport, usize)> {
        let Layers::Stacked(stacked) = self else { return None };
        let (before, is_websocket) = match &mut **stacked {
            Stacked::Either(either) => (either.matched, either.look_at(content)?),
            Stacked::EitherTls(either) => (either.matched, either.look_at(content)?),
            Stacked::Tls(_) | Stacked::Ws(_) | Stacked::WsTls(_) | Stacked::Header(_) => return None,
        };
        let Layers::Stacked(stacked) = std::mem::replace(self, Layers::PLAIN) else { return None };
        *self = match (*stacked, is_websocket) {
            (Stacked::Either(_), false) => Layers::PLAIN,
            (Stacked::Either(either), true) => Layers::stacked(Stacked::Ws(Box::new(Ws::new(Plain, either.rules)))),
            (Stacked::EitherTls(either), false) => Layers::stacked(Stacked::Tls(either.below)),
            (Stacked::EitherTls(either), true) => {
                let Either { below, rules, .. } = *either;
                Layers::stacked(Stacked::WsTls(Box::new(Ws::new(below, rules))))
            }
            (other, _) => Layers::stacked(other),
        };
        Some((self.transport(), before))
    }

    fn stacked(stacked: Stacked) -> Layers {
        Layers::Stacked(Box::new(stacked))
    }

    /// For a connection that is being made, over TLS if there are settings for it.
    pub(super) fn connect(tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>) -> Result<Layers, TlsError> {
        let Some((config, name)) = tls else { return Ok(Layers::PLAIN) };
        let tls = Tls::connect(config.clone(), name.clone())?;
        Ok(Layers::stacked(Stacked::Tls(tls)))
    }

    /// Whether there is nothing between the socket and its frames.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Layers::Plain(_))
    }

    /// What the layers are.
    pub(super) fn transport(&self) -> Transport {
        match self {
            Layers::Plain(_) => Transport::Plain,
            Layers::Stacked(stacked) => match **stacked {
                Stacked::Either(_) | Stacked::Header(_) => Transport::Plain,
                Stacked::Tls(_) | Stacked::EitherTls(_) => Transport::Tls,
                Stacked::Ws(_) => Transport::Ws,
                Stacked::WsTls(_) => Transport::Wss,
            },
        }
    }

    /// As [`Layer::kept`].
    pub(super) fn kept(&self) -> &[u8] {
        match self {
            Layers::Plain(plain) => plain.kept(),
            Layers::Stacked(stacked) => match &**stacked {
                Stacked::Tls(tls) => tls.kept(),
                Stacked::Ws(ws) => ws.kept(),
                Stacked::WsTls(ws) => ws.kept(),
                Stacked::Either(either) => either.kept(),
                Stacked::EitherTls(either) => either.kept(),
                Stacked::Header(header) => header.kept(),
            },
        }
    }
}

//! FlatBuffers exactly as on our wire: encoded by [`Encoder`], read through the views of `wire`.
//!
//! Verified is what gateway and clients do with every frame. Unverified reads the same buffers without looking at
//! them first: what verification costs, and what nobody should do with bytes from outside.
#![allow(unsafe_code, reason = "reading without verification is what one column is about")]

use flatbuffers::Follow;
use ringgate_core::id::ClientMessageId;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_core::wire::{ClientFrame, Encoder, Kind, schema};

use super::messages::*;
use super::{Codec, body, raw};

#[derive(Default)]
pub(crate) struct Verified(Encoder);

#[derive(Default)]
pub(crate) struct Unverified(Encoder);

/// What one message is as a FlatBuffer.
pub(crate) trait Flat: Message {
    /// What the encoder takes.
    type Input;
    /// The view.
    type View<'a>;
    fn input(sample: Self::Whole<'static>) -> Self::Input;
    fn encode(encoder: &mut Encoder, input: &Self::Input, out: &mut Vec<u8>);
    fn verified(frame: &[u8]) -> Self::View<'_>;
    /// # Safety
    /// The frame must be one that [`Self::encode`] made.
    unsafe fn unverified(frame: &[u8]) -> Self::View<'_>;
    fn head(view: &Self::View<'_>) -> u64;
    fn whole(view: &Self::View<'_>) -> u64;
    fn value(view: &Self::View<'_>) -> Self::Whole<'static>;
}

impl<M: Flat> Codec<M> for Verified {
    const NAME: &'static str = "FlatBuffers";
    type Input = M::Input;

    fn prepare(sample: M::Whole<'static>) -> Self::Input {
        M::input(sample)
    }

    fn encode(&mut self, input: &Self::Input, out: &mut Vec<u8>) {
        M::encode(&mut self.0, input, out);
    }

    fn head(&mut self, frame: &[u8]) -> u64 {
        <M as Flat>::head(&M::verified(frame))
    }

    fn whole(&mut self, frame: &[u8]) -> u64 {
        M::whole(&M::verified(frame))
    }

    fn debug(&mut self, frame: &[u8]) -> String {
        format!("{:?}", M::value(&M::verified(frame)))
    }
}

impl<M: Flat> Codec<M> for Unverified {
    const NAME: &'static str = "FlatBuffers, unverified";
    const ENCODES: bool = false;
    type Input = M::Input;

    fn prepare(sample: M::Whole<'static>) -> Self::Input {
        M::input(sample)
    }

    fn encode(&mut self, input: &Self::Input, out: &mut Vec<u8>) {
        M::encode(&mut self.0, input, out);
    }

    fn head(&mut self, frame: &[u8]) -> u64 {
        // SAFETY: the bench passes frames of `encode` only.
        <M as Flat>::head(&unsafe { M::unverified(frame) })
    }

    fn whole(&mut self, frame: &[u8]) -> u64 {
        // SAFETY: the bench passes frames of `encode` only.
        M::whole(&unsafe { M::unverified(frame) })
    }

    fn debug(&mut self, frame: &[u8]) -> String {
        // SAFETY: the bench passes frames of `encode` only.
        format!("{:?}", M::value(&unsafe { M::unverified(frame) }))
    }
}

/// # Safety
/// The frame's body must be a FlatBuffer with this root.
pub(crate) unsafe fn root<'a, T: Follow<'a> + 'a>(frame: &'a [u8]) -> T::Inner {
    // SAFETY: as promised by our caller.
    unsafe { flatbuffers::root_unchecked::<T>(body(frame)) }
}

impl Flat for PingMessage {
    type Input = ();
    type View<'a> = ();

    fn input(_: Ping) {}

    fn encode(_: &mut Encoder, (): &(), out: &mut Vec<u8>) {
        Encoder::empty(out, Kind::Ping);
    }

    fn verified(frame: &[u8]) {
        assert!(matches!(ClientFrame::parse(raw(frame)), Ok(ClientFrame::Ping)));
    }

    unsafe fn unverified(frame: &[u8]) {
        Self::verified(frame);
    }

    fn head((): &()) -> u64 {
        0
    }

    fn whole((): &()) -> u64 {
        0
    }

    fn value((): &()) -> Ping {
        Ping {}
    }
}

impl Flat for PublishMessage {
    type Input = Publish<'static>;
    type View<'a> = ringgate_core::wire::Publish<'a>;

    fn input(sample: Publish<'static>) -> Publish<'static> {
        sample
    }

    fn encode(encoder: &mut Encoder, input: &Publish<'static>, out: &mut Vec<u8>) {
        let request = PublishRequest {
            request: input.request,
            topic: &input.topic,
            client_message_id: ClientMessageId { high: input.id_high, low: input.id_low },
            payload: &input.payload.0,
            ephemeral: input.ephemeral,
            ttl_seconds: input.ttl_seconds,
            trace: input.trace.as_deref(),
        };
        encoder.publish(out, &request);
    }

    fn verified(frame: &[u8]) -> Self::View<'_> {
        let Ok(ClientFrame::Publish(publish)) = ClientFrame::parse(raw(frame)) else { panic!("our own Publish") };
        publish
    }

    unsafe fn unverified(frame: &[u8]) -> Self::View<'_> {
        // SAFETY: as promised by our caller.
        let table: schema::Publish<'_> = unsafe { root::<schema::Publish<'_>>(frame) };
        ringgate_core::wire::Publish {
            request: table.request(),
            topic: table.topic().unwrap_or_default(),
            client_message_id: table.client_message_id().map(ClientMessageId::from).unwrap_or_default(),
            payload: table.payload().map(|payload| payload.bytes()).unwrap_or_default(),
            ephemeral: table.ephemeral(),
            ttl_seconds: table.ttl_seconds(),
            trace: table.trace(),
        }
    }

    fn head(view: &Self::View<'_>) -> u64 {
        Sum::default().number(view.request).text(view.topic).0
    }

    fn whole(view: &Self::View<'_>) -> u64 {
        let id = view.client_message_id;
        let sum = Sum::default().number(view.request).text(view.topic).number(id.high).number(id.low);
        let sum = sum.bytes(view.payload).number(view.ephemeral).number(view.ttl_seconds);
        sum.text(view.trace.unwrap_or_default()).0
    }

    fn value(view: &Self::View<'_>) -> Publish<'static> {
        Publish {
            request: view.request,
            topic: view.topic.to_owned().into(),
            id_high: view.client_message_id.high,
            id_low: view.client_message_id.low,
            payload: Payload(view.payload.to_vec().into()),
            ephemeral: view.ephemeral,
            ttl_seconds: view.ttl_seconds,
            trace: view.trace.map(|trace| trace.to_owned().into()),
        }
    }
}

//! Reads one FlatBuffers table and checks what it reads, in one go.
//!
//! For the hottest kind, Publish. The verifier of the flatbuffers crate looks at every field and keeps a trace for its
//! errors, and the accessors look everything up once more; together that was two thirds of what parsing a Publish cost.
//! What is refused is the same, but for the bound of total size: each field is looked at
//! once here, whatever lies where. The test below compares the two.

use flatbuffers::VOffsetT;

use super::WireError;

/// A table that is the root of its body. Invariant: every byte of `vtable` lies in the body, and their number is even.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    body: &'a [u8],
    at: usize,
    vtable: &'a [u8],
}

impl<'a> Table<'a> {
    /// The table that the first four bytes point to.
    pub(super) fn root(body: &'a [u8]) -> Result<Self, WireError> {
        let at = word(body, 0)? as usize;
        let back = i64::from(word(body, at)?.cast_signed());
        let vtable_at = usize::try_from(at as i64 - back).map_err(|_| WireError::Malformed)?;
        let length = half(body, vtable_at)?;
        let vtable = vtable_at.checked_add(length).and_then(|end| body.get(vtable_at..end));
        let vtable = vtable.filter(|_| length.is_multiple_of(2) && vtable_at.is_multiple_of(2));
        Ok(Table { body, at, vtable: vtable.ok_or(WireError::Malformed)? })
    }

    /// Where a field lies; none when it is absent.
    pub(super) fn field(&self, slot: VOffsetT) -> Option<usize> {
        match half(self.vtable, usize::from(slot)) {
            Ok(0) | Err(_) => None,
            Ok(offset) => Some(self.at + offset),
        }
    }

    /// Where the text of a string lies; none when it is absent or outside.
    pub(super) fn text_at(&self, slot: VOffsetT) -> Option<usize> {
        let at = self.field(slot)?;
        self.vector(at).ok()?;
        Some(at + word(self.body, at).ok()? as usize + WORD)
    }

    pub(super) fn u32(&self, slot: VOffsetT) -> Result<u32, WireError> {
        self.field(slot).map_or(Ok(0), |at| word(self.body, at))
    }

    pub(super) fn bool(&self, slot: VOffsetT) -> Result<bool, WireError> {
        let Some(at) = self.field(slot) else { return Ok(false) };
        self.body.get(at).map(|byte| *byte != 0).ok_or(WireError::Malformed)
    }

    /// The bytes of a struct; a struct that the schema generates is a wrapper of them.
    pub(super) fn structure<const N: usize>(&self, slot: VOffsetT) -> Result<Option<[u8; N]>, WireError> {
        let Some(at) = self.field(slot) else { return Ok(None) };
        self.body
            .get(at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .map(|bytes| Some(*bytes))
            .ok_or(WireError::Malformed)
    }

    pub(super) fn bytes(&self, slot: VOffsetT) -> Result<Option<&'a [u8]>, WireError> {
        let Some(at) = self.field(slot) else { return Ok(None) };
        self.vector(at).map(|(bytes, _)| Some(bytes))
    }

    pub(super) fn string(&self, slot: VOffsetT) -> Result<Option<&'a str>, WireError> {
        let Some(at) = self.field(slot) else { return Ok(None) };
        let (bytes, rest) = self.vector(at)?;
        if rest.first() != Some(&0) {
            return Err(WireError::Malformed);
        }
        super::text(bytes).map(Some).ok_or(WireError::Malformed)
    }

    /// The vector of bytes that a field names, and what follows it.
    fn vector(&self, field_at: usize) -> Result<(&'a [u8], &'a [u8]), WireError> {
        let start = field_at + word(self.body, field_at)? as usize;
        let length = word(self.body, start)? as usize;
        let rest = self.body.get(start + WORD..).unwrap_or_default();
        rest.split_at_checked(length).ok_or(WireError::Malformed)
    }
}

const WORD: usize = size_of::<u32>();

/// Four aligned bytes.
fn word(body: &[u8], at: usize) -> Result<u32, WireError> {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk()).filter(|_| at.is_multiple_of(WORD));
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(WireError::Malformed)
}

/// Two aligned bytes.
fn half(body: &[u8], at: usize) -> Result<usize, WireError> {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk()).filter(|_| at.is_multiple_of(2));
    bytes.map(|bytes| usize::from(u16::from_le_bytes(*bytes))).ok_or(WireError::Malformed)
}

#[cfg(test)]
mod tests {
    use flatbuffers::VerifierOptions;

    use super::*;
    use crate::id::ClientMessageId;
    use crate::wire::encode::PublishRequest;
    use crate::wire::schema::{self, Publish};
    use crate::wire::{ClientFrame, Encoder, Kind, RawFrame};

    /// Everything that a Publish says, as the verifier and the accessors of the crate read it.
    fn by_the_crate(body: &[u8]) -> Option<String> {
        let options = VerifierOptions { max_apparent_size: usize::MAX, ..VerifierOptions::default() };
        let table = flatbuffers::root_with_opts::<Publish<'_>>(&options, body).ok()?;
        let id = table.client_message_id().map(|id| id.0);
        let payload = table.payload().map(|payload| payload.bytes().to_vec());
        let head = (table.request(), table.topic(), id, table.ephemeral(), table.ttl_seconds(), table.trace());
        Some(format!("{head:?} {payload:?}"))
    }

    fn by_the_table(body: &[u8]) -> Option<String> {
        let read = || {
            let table = Table::root(body)?;
            let id = table.structure::<{ size_of::<schema::ClientMessageId>() }>(Publish::VT_CLIENT_MESSAGE_ID)?;
            let (request, topic) = (table.u32(Publish::VT_REQUEST)?, table.string(Publish::VT_TOPIC)?);
            let (ephemeral, ttl) = (table.bool(Publish::VT_EPHEMERAL)?, table.u32(Publish::VT_TTL_SECONDS)?);
            let head = (request, topic, id, ephemeral, ttl, table.string(Publish::VT_TRACE)?);
            let payload = table.bytes(Publish::VT_PAYLOAD)?;
            Ok::<_, WireError>(format!("{head:?} {payload:?}"))
        };
        read().ok()
    }

    /// Every byte takes every other value, and every two neighbours a few; and every prefix.
    #[test]
    fn reads_and_refuses_what_the_crate_does() {
        let mut frame = Vec::new();
        let request = PublishRequest {
            request: 9,
            topic: "chat:ä",
            client_message_id: ClientMessageId { high: 1, low: 2 },
            payload: b"hello",
            ephemeral: true,
            ttl_seconds: 3,
            trace: Some("00-ab"),
        };
        Encoder::default().publish(&mut frame, &request);
        let body = &frame[crate::limits::HEADER_BYTES..];
        assert!(matches!(ClientFrame::parse(RawFrame { kind: Kind::Publish, body }), Ok(ClientFrame::Publish(_))));
        let (mut read, mut refused) = (0, 0);
        let mut compare = |body: &[u8]| {
            let theirs = by_the_crate(body);
            assert_eq!(by_the_table(body), theirs, "{body:?}");
            *if theirs.is_some() { &mut read } else { &mut refused } += 1;
        };
        (8..=body.len()).for_each(|length| compare(&body[..length]));
        for at in 0..body.len() {
            let mut changed = body.to_vec();
            for value in 0..=u8::MAX {
                changed[at] = value;
                compare(&changed);
            }
            for (first, second) in [(0, 0), (1, 0), (2, 0), (0, 1), (0xff, 0xff), (0xfe, 0xff), (4, 0), (0, 0x80)] {
                changed.copy_from_slice(body);
                changed[at] = first;
                if let Some(next) = changed.get_mut(at + 1) {
                    *next = second;
                }
                compare(&changed);
            }
        }
        assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
    }
}

//! Redis' protocol (RESP2) as bytes: requests out, answers in. No I/O.
//!
//! An answer is cut off the receive buffer only when it is whole; its strings are parts of that buffer, uncopied.
//! Bytes from outside never panic: what is no answer is an error, after which the connection is closed.

use bytes::{Bytes, BytesMut};

/// An answer, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Nil,
    Int(i64),
    /// A status: `OK`, for one.
    Status(Bytes),
    Bulk(Bytes),
    Array(Vec<Value>),
    Error(Bytes),
}

impl Value {
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match self {
            Value::Status(bytes) | Value::Bulk(bytes) => Some(bytes),
            Value::Nil | Value::Int(_) | Value::Array(_) | Value::Error(_) => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        self.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// A number, whether it was sent as one or as text.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => self.text()?.parse().ok(),
        }
    }

    pub(crate) fn array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// The bytes are no answer of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Longest string of an answer: what Redis itself sends at most.
const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
const ELEMENTS_MAX: usize = 4 * 1024 * 1024;
const DEPTH_MAX: usize = 8;
/// Longest line: a number, a status or an error.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Takes the first answer off the buffer; none if it is not whole yet.
pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<Value>, Malformed> {
    let Some(end) = end_of(buffer, 0, 0)? else { return Ok(None) };
    let whole = buffer.split_to(end).freeze();
    let mut at = 0;
    build(&whole, &mut at).map(Some)
}

/// Kind and text of a line, and where the next one begins.
type Line<'a> = (u8, &'a [u8], usize);

/// The line that begins at `at`; none if it is not whole.
fn line(buffer: &[u8], at: usize) -> Result<Option<Line<'_>>, Malformed> {
    let rest = buffer.get(at..).unwrap_or_default();
    let Some(length) = rest.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if rest.len() >= LINE_BYTES_MAX { Err(Malformed) } else { Ok(None) };
    };
    let whole = rest.get(..length).unwrap_or_default();
    let (kind, text) = whole.split_first().ok_or(Malformed)?;
    let text = text.strip_suffix(b"\r").ok_or(Malformed)?;
    Ok(Some((*kind, text, at + length + 1)))
}

fn number(text: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)
}

fn length(text: &[u8], max: usize) -> Result<Option<usize>, Malformed> {
    match number(text)? {
        -1 => Ok(None),
        length => usize::try_from(length).ok().filter(|length| *length <= max).map(Some).ok_or(Malformed),
    }
}

fn end_of(buffer: &[u8], at: usize, depth: usize) -> Result<Option<usize>, Malformed> {
    let Some((kind, text, mut next)) = line(buffer, at)? else { return Ok(None) };
    match kind {
        b'+' | b'-' => Ok(Some(next)),
        b':' => number(text).map(|_| Some(next)),
        b'$' => {
            let Some(length) = length(text, BULK_BYTES_MAX)? else { return Ok(Some(next)) };
            let end = next + length + 2;
            match buffer.get(next + length..end) {
                Some(b"\r\n") => Ok(Some(end)),
                Some(_) => Err(Malformed),
                None => Ok(None),
            }
        }
        b'*' if depth < DEPTH_MAX => {
            for _ in 0..length(text, ELEMENTS_MAX)?.unwrap_or(0) {
                match end_of(buffer, next, depth + 1)? {
                    Some(end) => next = end,
                    None => return Ok(None),
                }
            }
            Ok(Some(next))
        }
        _ => Err(Malformed),
    }
}

/// The answer that begins at `at`, of which [`end_of`] has said that it is whole.
fn build(whole: &Bytes, at: &mut usize) -> Result<Value, Malformed> {
    let (kind, text, next) = line(whole, *at)?.ok_or(Malformed)?;
    *at = next;
    Ok(match kind {
        b'+' => Value::Status(whole.slice_ref(text)),
        b'-' => Value::Error(whole.slice_ref(text)),
        b':' => Value::Int(number(text)?),
        b'$' => match length(text, BULK_BYTES_MAX)? {
            Some(length) => {
                let bytes = whole.get(next..next + length).ok_or(Malformed)?;
                *at = next + length + 2;
                Value::Bulk(whole.slice_ref(bytes))
            }
            None => Value::Nil,
        },
        _ => match length(text, ELEMENTS_MAX)? {
            Some(count) => Value::Array((0..count).map(|_| build(whole, at)).collect::<Result<_, _>>()?),
            None => Value::Nil,
        },
    })
}

/// Puts a command behind those that are in the buffer.
pub(crate) fn put(out: &mut BytesMut, arguments: &[&[u8]]) {
    put_length(out, b'*', arguments.len());
    for argument in arguments {
        put_length(out, b'$', argument.len());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

fn put_length(out: &mut BytesMut, kind: u8, length: usize) {
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(length.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn answer_comes_in_pieces_then_it_is_taken_when_it_is_whole() {
        let bytes = b"*4\r\n$3\r\na\r\n\r\n:-7\r\n$-1\r\n*2\r\n+OK\r\n-ERR no\r\n:1\r\n";
        let (mut buffer, mut values) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            buffer.extend_from_slice(&[*byte]);
            values.extend(take(&mut buffer).expect("an answer"));
        }
        let inner = Value::Array(vec![Value::Status("OK".into()), Value::Error("ERR no".into())]);
        assert_eq!(values, [Value::Array(vec![bulk("a\r\n"), Value::Int(-7), Value::Nil, inner]), Value::Int(1)]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn bytes_are_no_answer_then_they_are_refused() {
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1);
        for bytes in ["HTTP/1.1 200 OK\r\n", "$-2\r\n", "$3\r\nabcde", ":x\r\n", "*99999999\r\n", "+OK\n", "\n", &deep]
        {
            let mut buffer = BytesMut::from(bytes.as_bytes());
            assert_eq!(take(&mut buffer), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(take(&mut BytesMut::from(&[b'+'; LINE_BYTES_MAX][..])), Err(Malformed), "a line without an end");
    }

    #[test]
    fn command_is_put_then_it_is_an_array_of_strings() {
        let mut out = BytesMut::new();
        put(&mut out, &[b"SET", b"k", b""]);
        assert_eq!(&out[..], b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}

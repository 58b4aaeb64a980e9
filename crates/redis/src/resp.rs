//! Redis' protocol by the `redis` crate: its commands as bytes, and bytes as its values. No I/O.
//!
//! The crate's parser keeps its place between two receives and bounds how deep answers lie within each other. How long an answer may be is
//! bounded here. Bytes from outside never panic: what is no answer is an error, after which the connection is closed.

use std::io::{self, Read};

use bytes::{Buf, BytesMut};
use redis::{Cmd, Parser};

pub(crate) use redis::{ServerError, ServerErrorKind, Value};

/// What the engine reads out of answers.
pub(crate) trait Answer {
    fn bytes(&self) -> Option<&[u8]>;
    fn text(&self) -> Option<&str>;
    /// A number, whether it was sent as one or as text.
    fn number(&self) -> Option<u64>;
    fn array(&self) -> Option<&[Value]>;
}

impl Answer for Value {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::BulkString(bytes) => Some(bytes),
            Value::SimpleString(text) => Some(text.as_bytes()),
            Value::Okay => Some(b"OK"),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        self.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    fn number(&self) -> Option<u64> {
        match self {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => self.text()?.parse().ok(),
        }
    }

    fn array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// An error as Redis has written it.
pub(crate) fn error_text(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// The bytes are no answer of Redis, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Longest answer. Pages of messages are asked for so that they are at most half as long.
pub(crate) const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Makes answers of what was received.
pub(crate) struct Answers {
    parser: Parser,
    /// Received, and not seen by the parser yet.
    received: BytesMut,
    /// Bytes that the parser has taken since the last whole answer.
    taken: usize,
    answer_bytes_max: usize,
}

impl Default for Answers {
    fn default() -> Self {
        Answers { parser: Parser::new(), received: BytesMut::new(), taken: 0, answer_bytes_max: ANSWER_BYTES_MAX }
    }
}

impl Answers {
    /// Where received bytes are put.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.received
    }

    /// The next answer; none if it is not whole yet. After an error the connection is of no use.
    pub(crate) fn take(&mut self) -> Result<Option<Value>, Malformed> {
        let received = Received { bytes: &mut self.received, taken: &mut self.taken, most: self.answer_bytes_max };
        match self.parser.parse_value(received) {
            Ok(value) => {
                self.taken = 0;
                Ok(Some(value))
            }
            // The crate calls what would block a timeout.
            Err(error) if error.is_timeout() => Ok(None),
            Err(_) => Err(Malformed),
        }
    }
}

/// Hands on what was received, and never says that it ends: the parser waits for the rest.
struct Received<'a> {
    bytes: &'a mut BytesMut,
    taken: &'a mut usize,
    most: usize,
}

impl Read for Received<'_> {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if *self.taken >= self.most {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let count = place.len().min(self.bytes.len());
        let (place, _) = place.split_at_mut(count);
        self.bytes.copy_to_slice(place);
        *self.taken += count;
        Ok(count)
    }
}

/// Puts a command behind those that are in the buffer.
pub(crate) fn put(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    let mut command = Cmd::with_capacity(arguments.len(), arguments.iter().map(|argument| argument.len()).sum());
    for argument in arguments {
        command.arg(*argument);
    }
    command.write_packed_command(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn taken(bytes: &[u8]) -> Result<Option<Value>, Malformed> {
        let mut answers = Answers::default();
        answers.buffer().extend_from_slice(bytes);
        answers.take()
    }

    #[test]
    fn answer_comes_in_pieces_then_it_is_taken_when_it_is_whole() {
        let bytes = b"*4\r\n$3\r\na\r\n\r\n:-7\r\n$-1\r\n*2\r\n+OK\r\n-ERR no\r\n:1\r\n";
        let (mut answers, mut values) = (Answers::default(), Vec::new());
        for byte in bytes {
            answers.buffer().extend_from_slice(&[*byte]);
            values.extend(answers.take().expect("an answer"));
        }
        let [Value::Array(parts), Value::Int(1)] = &values[..] else { panic!("{values:?}") };
        assert_eq!(parts[..3], [bulk("a\r\n"), Value::Int(-7), Value::Nil]);
        let [Value::Okay, Value::ServerError(error)] = parts[3].array().expect("an array") else { panic!("{parts:?}") };
        assert_eq!(error_text(error), "ERR no");
        assert!(answers.buffer().is_empty());
    }

    #[test]
    fn answers_come_together_then_they_are_taken_one_by_one() {
        let mut answers = Answers::default();
        answers.buffer().extend_from_slice(&b":1\r\n".repeat(5000));
        assert!((0..5000).all(|_| answers.take() == Ok(Some(Value::Int(1)))));
        assert_eq!(answers.take(), Ok(None));
    }

    #[test]
    fn bytes_are_no_answer_then_they_are_refused() {
        let deep = "*1\r\n".repeat(200);
        for bytes in ["HTTP/1.1 200 OK\r\n", "$3\r\nabcde", ":x\r\n", "*9999999999999999999999\r\n", "\n\n", &deep] {
            assert_eq!(taken(bytes.as_bytes()), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn answer_says_that_it_is_enormous_then_only_what_has_come_takes_memory() {
        for bytes in ["*9223372036854775807\r\n:1\r\n", "$9223372036854775807\r\nx", "%4611686018427387903\r\n"] {
            assert_eq!(taken(bytes.as_bytes()), Ok(None), "{bytes:?}");
        }
    }

    #[test]
    fn answer_is_longer_than_allowed_then_it_is_refused() {
        let most = 64 * 1024;
        for (start, rest) in [("$1000000\r\n", "x"), ("*1000000\r\n", ":1\r\n"), ("+", "x")] {
            let mut answers = Answers { answer_bytes_max: most, ..Answers::default() };
            answers.buffer().extend_from_slice(start.as_bytes());
            answers.buffer().extend_from_slice(rest.repeat(most / 2 / rest.len()).as_bytes());
            assert_eq!(answers.take(), Ok(None), "{start:?}");
            answers.buffer().extend_from_slice(rest.repeat(most / rest.len()).as_bytes());
            assert_eq!(answers.take(), Err(Malformed), "{start:?}");
        }
    }

    #[test]
    fn command_is_put_then_it_is_an_array_of_strings() {
        let mut out = b":1\r\n".to_vec();
        put(&mut out, &[b"SET", b"k", b""]);
        assert_eq!(&out[..], b":1\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}

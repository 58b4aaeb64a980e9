//! Which master of a Cluster has which slots, as its nodes say. No I/O.

use crate::keys::SLOTS;
use crate::options::Server;
use crate::resp::{Answer, ServerError, ServerErrorKind, Value};

/// The masters and their slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    /// First and last slot.
    ranges: Vec<(usize, usize, Server)>,
}

impl Slots {
    /// Of an answer to `CLUSTER SLOTS`; none if it is not one. `asked` is the node that has answered.
    pub(crate) fn of(value: &Value, asked: &Server) -> Option<Slots> {
        let mut ranges = Vec::new();
        for range in value.array()? {
            let [first, last, master, ..] = range.array()? else { return None };
            let [host, port, ..] = master.array()? else { return None };
            let [first, last, port] = [first, last, port].map(Answer::number);
            let (first, last) = (usize::try_from(first?).ok()?, usize::try_from(last?).ok()?);
            if first > last || last >= SLOTS {
                return None;
            }
            let server = server(host.text().unwrap_or_default(), u16::try_from(port?).ok()?, asked);
            ranges.push((first, last, server));
        }
        Some(Slots { ranges })
    }

    /// The master of a slot; none if no node has said that it has one.
    pub(crate) fn master(&self, slot: usize) -> Option<&Server> {
        self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, server)| server)
    }
}

/// A node that does not know its own name means the one by which it was asked.
fn server(host: &str, port: u16, asked: &Server) -> Server {
    let host = if host.is_empty() || host == "?" { &asked.host } else { host };
    Server { host: host.to_owned(), port }
}

/// Where a slot has moved to, of an answer that says so. `asked` is the node that has answered.
pub(crate) fn moved(error: &ServerError, asked: &Server) -> Option<Server> {
    if error.kind() != Some(ServerErrorKind::Moved) {
        return None;
    }
    let (host, port) = error.details()?.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    Some(server(host, port.parse().ok()?, asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Answers;

    fn value(text: &str) -> Value {
        let mut answers = Answers::default();
        answers.buffer().extend_from_slice(text.as_bytes());
        answers.take().expect("an answer").expect("a whole one")
    }

    fn server(host: &str, port: u16) -> Server {
        Server { host: host.to_owned(), port }
    }

    #[test]
    fn cluster_says_who_has_its_slots_then_the_master_of_each_is_known() {
        let text = "*2\r\n*4\r\n:0\r\n:99\r\n*3\r\n$9\r\n127.0.0.1\r\n:7000\r\n$2\r\nid\r\n*3\r\n$1\r\nr\r\n:7003\r\n$2\r\nid\r\n\
            *3\r\n:200\r\n:16383\r\n*3\r\n$-1\r\n:7001\r\n$2\r\nid\r\n";
        let slots = Slots::of(&value(text), &server("asked", 6379)).expect("slots");
        assert_eq!(slots.master(0), Some(&server("127.0.0.1", 7000)));
        assert_eq!(slots.master(99), Some(&server("127.0.0.1", 7000)));
        assert_eq!((slots.master(100), slots.master(16383)), (None, Some(&server("asked", 7001))));
    }

    #[test]
    fn answer_is_not_of_slots_then_it_is_none() {
        for text in [
            "+OK\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n+h\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n+h\r\n:1\r\n",
        ] {
            assert_eq!(Slots::of(&value(text), &server("asked", 1)), None, "{text:?}");
        }
    }

    #[test]
    fn slot_has_moved_then_its_new_master_is_read_from_the_error() {
        let moved = |text: &str| match value(text) {
            Value::ServerError(error) => moved(&error, &server("asked", 1)),
            other => panic!("{other:?}"),
        };
        assert_eq!(moved("-MOVED 3999 127.0.0.1:7001\r\n"), Some(server("127.0.0.1", 7001)));
        assert_eq!(moved("-MOVED 3999 ::1:7001\r\n"), Some(server("::1", 7001)));
        assert_eq!(moved("-MOVED 3999 :7001\r\n"), Some(server("asked", 7001)));
        assert_eq!(
            (moved("-ASK 3999 127.0.0.1:7001\r\n"), moved("-MOVED\r\n"), moved("-ERR no\r\n")),
            (None, None, None)
        );
    }
}

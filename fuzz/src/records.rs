//! What the fuzz target of TLS records does with its input; `tests/fuzz_corpus.rs` replays the corpus.

use ringgate_net::tls::compact::traffic::{
    ALERT, APPLICATION_DATA, CONTENT_BYTES_MAX, HANDSHAKE, Secret, Suite, TrafficKeys,
};
use ringgate_net::tls::compact::{Compact, RecordError};

/// Plays the input as what a client does: it seals what it likes with the right keys, cuts and changes what it sends, lets
/// the server answer. Plaintext is what was sealed as data, in order; an error is the last thing that happens, and has
/// its alert; nothing panics.
pub(crate) fn records(bytes: &[u8]) {
    let Some((&first, mut rest)) = bytes.split_first() else { return };
    let suite = Suite::ALL[usize::from(first) % Suite::ALL.len()];
    let keys = |byte| {
        let secret = Secret::new(&vec![byte; suite.secret_bytes()]).expect("no hash is longer");
        TrafficKeys::new(suite, &secret, 0).expect("the length of its hash")
    };
    let mut server = Compact::new(keys(1), keys(2), Vec::new());
    let (mut read, mut write) = (keys(2), keys(1));
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    // An act: what, how many bytes of the input belong to it, and these.
    while let [act, length, later @ ..] = rest {
        let (content, later) = later.split_at(usize::from(*length).min(later.len()));
        rest = later;
        let seal = |write: &mut TrafficKeys, content: &[u8], trailer: &[u8]| {
            let (mut record, context) = (Vec::new(), write.context().expect("good keys"));
            write.seal(&context, content, trailer, &mut record).expect("few records");
            record
        };
        let mut sent = match act % 8 {
            0 => {
                said.extend_from_slice(content);
                seal(&mut write, content, &[APPLICATION_DATA])
            }
            1 => {
                let padding = usize::from(*length) * 64;
                let content = content.get(..content.len().min(8)).unwrap_or_default();
                said.extend_from_slice(content);
                let padding = padding.min(CONTENT_BYTES_MAX - content.len());
                seal(&mut write, content, &[vec![APPLICATION_DATA], vec![0; padding]].concat())
            }
            2 => {
                let record = seal(&mut write, &[24, 0, 0, 1, length & 1], &[HANDSHAKE]);
                write.update().expect("good keys");
                record
            }
            3 => seal(&mut write, content, &[HANDSHAKE]),
            4 => seal(&mut write, content, &[ALERT]),
            5 => {
                // Any type, so that of data, too.
                if *length == APPLICATION_DATA {
                    said.extend_from_slice(content);
                }
                seal(&mut write, content, &[*length])
            }
            6 => content.to_vec(),
            _ => {
                answer(&mut server, &mut read, content);
                continue;
            }
        };
        if act & 8 != 0
            && let Some(byte) = content.first().and_then(|at| sent.get_mut(usize::from(*at)))
        {
            *byte ^= 1 << (length % 8);
        }
        // In two pieces, cut anywhere.
        let cut = usize::from(act >> 4) * sent.len() / 15;
        let (one, two) = sent.split_at_mut(cut);
        for piece in [one, two] {
            match server.receive(piece, |plaintext| heard.extend_from_slice(plaintext)) {
                Ok(_) => {}
                Err(error) => {
                    assert!(said.starts_with(&heard), "only what was sealed");
                    return after_error(&mut server, error);
                }
            }
        }
        assert!(said.starts_with(&heard), "only what was sealed");
    }
}

/// The server says something; the client can read it, whatever has happened.
fn answer(server: &mut Compact, read: &mut TrafficKeys, content: &[u8]) {
    let mut out = Vec::new();
    server.encrypt(content, &mut out).expect("nothing has failed");
    let mut rest = &mut out[..];
    let mut heard = Vec::new();
    while !rest.is_empty() {
        let length = 5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        let (record, later) = rest.split_at_mut(length);
        rest = later;
        let (content_type, content) = read.open(&read.context().expect("good keys"), record).expect("ours");
        match content_type {
            APPLICATION_DATA => heard.extend_from_slice(content),
            _ => {
                assert_eq!((content_type, &*content), (HANDSHAKE, &[24, 0, 0, 1, 0][..]));
                read.update().expect("good keys");
            }
        }
    }
    assert_eq!(heard, content);
}

fn after_error(server: &mut Compact, error: RecordError) {
    assert!(!matches!(error, RecordError::Internal | RecordError::Failed), "{error}");
    assert_eq!(server.has_outgoing(), error.alert().is_some());
    assert_eq!(server.take_outgoing().is_empty(), error.alert().is_none());
    assert_eq!(server.receive(&mut [0], |_| {}), Err(RecordError::Failed));
    assert!(server.encrypt(b"more", &mut Vec::new()).is_err() && !server.has_outgoing());
}

//! Every malformed golden vector, broken at every byte of its header: as the first frame, and in a session.

use super::{Case, case};
use crate::malformed::{Vector, Verdict, expect_bad_request, vectors};

const HEADER_BYTES: usize = 8;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for Vector { file, bytes, verdict } in vectors() {
        let name = file.trim_end_matches(".bin").to_owned();
        let (first, close) = (bytes.clone(), if let Verdict::Close(code) = verdict { code } else { 3501 });
        cases.push(case(format!("{name}_is_the_first_frame"), move |scene| {
            for at in splits(&first) {
                let mut client = scene.client();
                client.send_bytes(&first[..at]);
                // Fails when the gateway had enough before the end.
                let _ = client.try_send_bytes(&first[at..]);
                client.expect_close(close);
            }
        }));
        let about = name.clone();
        cases.push(case(format!("{name}_in_a_session"), move |scene| {
            let mut answered = match verdict {
                Verdict::Close(_) => None,
                Verdict::Error(_) => Some(scene.sign_in("answered")),
            };
            for at in splits(&bytes) {
                match (&verdict, &mut answered) {
                    (Verdict::Error(field), Some(client)) => {
                        client.send_bytes(&bytes[..at]);
                        client.send_bytes(&bytes[at..]);
                        expect_bad_request(client, field, &about);
                        client.ping();
                    }
                    (Verdict::Close(code), _) => {
                        let mut client = scene.sign_in("closed");
                        client.send_bytes(&bytes[..at]);
                        let _ = client.try_send_bytes(&bytes[at..]);
                        client.expect_close(*code);
                    }
                    (Verdict::Error(_), None) => unreachable!("signed in above"),
                }
            }
        }));
    }
    cases
}

fn splits(bytes: &[u8]) -> std::ops::RangeInclusive<usize> {
    1..=bytes.len().min(HEADER_BYTES)
}

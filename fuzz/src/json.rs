//! A text of a client: it becomes one whole frame, which the wire can read, or an error of one line.

use ringgate_core::wire::{ClientFrame, Split, split};
use ringgate_net::json::append_frame;

pub(crate) fn json(bytes: &[u8]) {
    let mut frame = Vec::new();
    match append_frame(bytes, &mut frame) {
        Ok(()) => {
            let Ok(Split::Frame(raw, [])) = split(&frame, usize::MAX) else { panic!("not one whole frame: {frame:?}") };
            // A field may be out of bounds; a table that cannot be read may not come of a text.
            if let Err(error) = ClientFrame::parse(raw) {
                assert!(matches!(error, ringgate_core::wire::WireError::Field(_)), "{error:?}");
            }
        }
        Err(error) => assert!(frame.is_empty() && !error.to_string().contains('\n')),
    }
}

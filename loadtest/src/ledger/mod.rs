//! What was sent and what became of it: lost, duplicated, reordered, changed and misdelivered messages are found one by
//! one, never as the difference of two sums.
//!
//! | file | what |
//! |---|---|
//! | `stamp` | what every payload says about itself |
//! | `sequences` | sets of sequences, of bounded size |
//! | `books` | what senders and receivers know, and how the two are held against each other |

mod books;
mod sequences;
mod stamp;

pub(crate) use books::{Answer, Balance, Books, Found, Ledger};
pub(crate) use stamp::{Recipient, Sender, Stamp, When};

/// How somebody who drove clients has ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// When it was told to: what its clients know.
    InOrder(Box<Books>),
    /// Before, or not in order: why.
    Lost(String),
}

impl Ended {
    /// Waits for a thread to end.
    pub(crate) fn join(thread: std::thread::JoinHandle<Ended>) -> Ended {
        thread.join().unwrap_or_else(|_| Ended::Lost("a driver thread panicked".to_owned()))
    }
}

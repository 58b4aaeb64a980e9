//! Several driver processes, also on several hosts: a controller that runs the show, and workers that have the clients.
//!
//! The controller tells every worker the same: what the run is made of, which part of it is whose, when its zero is, and
//! each order. Schedules are computed alike everywhere, so that nobody has to be told who sends what. Keys and
//! certificates do not travel: every worker has its own.
//!
//! | file | what |
//! |---|---|
//! | `wire`, `packed` | what the processes say to each other; histograms in text |
//! | `muster` | the controller waits for its workers |
//! | `relay` | the controller's end of one worker during a run |
//! | `worker` | a worker |

mod muster;
mod packed;
mod relay;
mod wire;
pub(crate) mod worker;

pub(crate) use muster::{Crew, Muster};

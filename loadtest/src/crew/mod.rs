//! Several driver processes, also on several hosts: a controller that directs them, and workers that drive the clients.
//!
//! The controller sends every worker the assignment of the run, the part of that worker, the zero of its times, and each
//! order. All workers compute the same schedules from these, so that single sends need not be coordinated. Keys and
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

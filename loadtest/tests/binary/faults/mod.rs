//! A gateway that misbehaves, and what the report says: exactly what was injected, and the exit code follows.
//!
//! Between load tester and gateway stands a proxy that does one fault at chosen places and counts. After each run every figure of
//! the report is compared with the proxy's book, and the figure that the fault is about with the number of its injections.
//!
//! | file | what |
//! |---|---|
//! | `frames` | one frame is lost, doubled, changed or misdirected |
//! | `delays` | everything comes, but late |
//! | `connections` | connections end, or nobody answers on them |
//! | `heartbeats` | Pings that keep connections alive are not answered |
//! | `churn` | clients come and go |
//! | `closed_loop` | clients wait for an answer, and it is a refusal |
//! | `driver` | the load tester itself is stopped |
//! | `run` | a run through the proxy, and its report beside the book |
//! | `load` | the loads, and how many messages there are in each |
//! | `own_gateway` | a gateway in a process of its own |

mod churn;
mod closed_loop;
mod connections;
mod delays;
mod driver;
mod frames;
mod heartbeats;
mod load;
mod own_gateway;
mod run;

//! The engine against a real Redis: effects in, events out, without a gateway.

mod faults;
mod node;
mod order;
mod reach;
mod topics;

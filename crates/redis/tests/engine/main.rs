//! The engine against a real Redis: effects in, events out, without a gateway.

mod cluster;
mod faults;
mod node;
mod order;
mod reach;
mod silent;
mod topics;

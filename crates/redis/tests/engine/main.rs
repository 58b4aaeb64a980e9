//! The engine against a real Redis: effects in, events out, without a gateway.

mod bounds;
mod clocks;
mod cluster;
mod epochs;
mod faults;
mod node;
mod order;
mod reach;
mod refusals;
mod silent;
mod topics;

//! The engine against a real Redis: effects in, events out, without a gateway.

mod node;
mod order;
mod server;
mod topics;

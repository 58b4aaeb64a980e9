//! The gateway from outside: real sockets, real TLS, real processes; one behaviour a file.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod cli;
mod cluster;
mod cores;
mod deadlines;
mod delivery;
mod descriptors;
mod doctor;
mod drain;
mod dumpable;
mod faults;
mod front;
mod inbox;
mod json;
mod limits;
mod logs;
mod metrics;
mod nodes;
mod notify;
mod openssl;
mod output;
mod presence;
mod proxied;
mod python;
mod reload;
mod room_history;
mod rooms;
mod sessions;
mod settings;
mod sign_in;
mod slow;
mod startup;
mod stopped;
mod tls;
mod websocket;

//! The load tester from outside: its binary against a real gateway in this process.

mod crew;
mod descriptors;
mod exit;
mod faults;
mod hosts;
mod html;
mod judged;
mod keys;
mod late;
mod metrics;
mod names;
mod nodes;
mod numbers;
mod proxy;
mod reconnect;
mod scenarios;
mod strangers;
mod support;
mod terminal;
mod tokens;

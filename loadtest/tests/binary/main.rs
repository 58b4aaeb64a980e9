//! The load tester from outside: its binary against a real gateway in this process.

mod crew;
mod descriptors;
mod exit;
mod hosts;
mod html;
mod judged;
mod keys;
mod late;
mod metrics;
mod names;
mod scenarios;
mod support;
mod terminal;

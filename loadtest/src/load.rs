//! The loads that can be driven, by this process or by workers.

use crate::Outcome;
use crate::crew::Muster;
use crate::mixed;
use crate::scenario::{self, Scenario};

/// See the module.
#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum Load {
    /// Connect and sign in, as fast as it goes or at a rate, then leave.
    Connect(scenario::Options),
    /// Connect, and hold with heartbeats.
    Idle(scenario::Options),
    /// Pings on a schedule.
    Ping(scenario::Options),
    /// Pairs of clients: one-to-one messages with acknowledgement.
    P2p(scenario::Options),
    /// Rooms: broadcasts to their members.
    Room(scenario::Options),
    /// Receivers leave, messages are sent to them, they come back and get what they missed.
    Offline(scenario::Options),
    /// Clients leave and come back at a rate.
    Churn(scenario::Options),
    /// All clients leave, and come back at once.
    Storm(scenario::Options),
    /// A share of a room's readers stops reading, and continues later.
    Slow(scenario::Options),
    /// A mixture from a TOML file: populations, rates, think times, phases (see mixed-example).
    Mixed(Box<mixed::Options>),
}

impl Load {
    /// Runs the load, alone or with the workers of a muster, and writes all results.
    pub(crate) fn run(&self, muster: Option<Muster>) -> Result<Outcome, String> {
        let (options, scenario) = match self {
            Load::Connect(options) => (options, Scenario::Connect),
            Load::Idle(options) => (options, Scenario::Idle),
            Load::Ping(options) => (options, Scenario::Ping),
            Load::P2p(options) => (options, Scenario::P2p),
            Load::Room(options) => (options, Scenario::Room),
            Load::Offline(options) => (options, Scenario::Offline),
            Load::Churn(options) => (options, Scenario::Churn),
            Load::Storm(options) => (options, Scenario::Storm),
            Load::Slow(options) => (options, Scenario::Slow),
            Load::Mixed(options) => return mixed::run(options, muster),
        };
        scenario::run(options, scenario, muster)
    }
}

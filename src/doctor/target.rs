//! What the host is asked to hold, and what follows from that for each shard.

use crate::config::{Config, DEFAULT_PORT, DEFAULT_TLS_PORT, Runtime};
use crate::cores::{self, Topology};
use ringgate_core::limits::{CONNECTIONS_PER_SHARD_MAX, Settings};

use super::report::{Check, Finding, State, count};

/// See the module.
pub(super) struct Target {
    pub(super) connections: u64,
    pub(super) tls: bool,
    /// `tls.memory = "compact"`.
    pub(super) compact: bool,
    /// With a number of shards, and with tables that are large enough for the connections.
    pub(super) runtime: Runtime,
    /// The size of a shard's table as it is configured; none without a configuration file.
    configured_table: Option<u64>,
    /// Where clients connect to.
    pub(super) ports: Vec<u16>,
    pub(super) log_bytes_per_shard: u64,
}

impl Target {
    /// From the command line, on top of a configuration if there is one.
    pub(super) fn new(connections: Option<u64>, tls: bool, shards: Option<usize>, config: Option<&Config>) -> Target {
        let mut runtime = config.map(|config| config.runtime.clone()).unwrap_or_default();
        runtime.shards = Some(shards.unwrap_or_else(|| runtime.shard_count()));
        let settings = Settings::default();
        let settings = config.map_or(&settings, |config| &config.settings);
        let configured = u64::from(runtime.connections_per_shard_max);
        let connections = connections.unwrap_or(configured * runtime.shard_count() as u64);
        let listeners = config.map_or(&[][..], |config| &config.listeners);
        let mut target = Target {
            connections,
            tls: tls || listeners.iter().any(|listener| listener.front.transport.has_tls()),
            compact: config
                .and_then(|config| config.tls.as_ref())
                .is_some_and(|tls| ringgate_net::tls::is_compact(tls)),
            configured_table: config.map(|_| configured),
            ports: match config {
                Some(_) => listeners.iter().map(|listener| listener.address.port()).collect(),
                None => vec![DEFAULT_PORT, DEFAULT_TLS_PORT],
            },
            log_bytes_per_shard: settings.log_bytes_per_shard_max as u64,
            runtime,
        };
        let table = target.table_wanted().max(target.configured_table.unwrap_or(0));
        target.runtime.connections_per_shard_max = u32::try_from(table).unwrap_or(u32::MAX);
        target
    }

    pub(super) fn shards(&self) -> u64 {
        self.runtime.shard_count() as u64
    }

    /// The core of each shard, on this machine; an error says why there is no such plan.
    pub(super) fn plan(&self, topology: &Topology) -> Result<Vec<usize>, String> {
        cores::plan(topology, &self.runtime.cores, self.runtime.shard_count())
    }

    /// Slots that a shard's table needs. The kernel deals connections out by a hash, so some shards get more than
    /// their share: five standard deviations above it are never reached in practice.
    pub(super) fn table_wanted(&self) -> u64 {
        self.table_of(self.shards())
    }

    /// As [`Self::table_wanted`], for another number of shards.
    pub(super) fn table_of(&self, shards: u64) -> u64 {
        let share = self.connections.div_ceil(shards.max(1));
        match shards {
            1 => share,
            _ => share + 5 * share.isqrt(),
        }
    }

    /// Whether shards and their tables fit the number of connections.
    pub(super) fn check(&self) -> Vec<Finding> {
        let wanted = self.table_wanted();
        let most = CONNECTIONS_PER_SHARD_MAX as u64;
        let shards = Check::new(
            "target",
            "shards",
            format!("at most {} connections each", count(most)),
            "A message's address has room for that many connections of a shard.",
        );
        let share = format!("{}, up to {} connections each", self.shards(), count(wanted));
        let shards = match wanted > most {
            false => shards.ok(share),
            true => shards.problem(share, format!("runtime.shards = {}", self.connections.div_ceil(most / 2))),
        };
        let table = Check::new(
            "target",
            "connections per shard",
            format!("at least {}", count(wanted)),
            "A shard whose table is full accepts nobody; the kernel deals connections out by a hash, not evenly.",
        );
        let fix = format!("runtime.connections_per_shard_max = {wanted}");
        let table = match self.configured_table {
            Some(configured) => table.at_least(Ok(configured), wanted, State::Problem, fix),
            None => table.warning("no --config to look at", fix),
        };
        vec![shards, table]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_dealt_to_shards_then_each_has_room_for_an_uneven_share() {
        let target = Target::new(Some(1_000_000), false, Some(4), None);
        assert_eq!(target.table_wanted(), 250_000 + 5 * 500);
        assert_eq!(target.runtime.connections_per_shard_max, 252_500);
        assert_eq!(Target::new(Some(1_000_000), false, Some(1), None).table_wanted(), 1_000_000);
        let states = |target: &Target| target.check().iter().map(|finding| finding.state).collect::<Vec<_>>();
        assert_eq!(states(&target), [State::Ok, State::Warning]);
    }

    #[test]
    fn configuration_is_smaller_than_the_target_then_a_finding() {
        let text = |more: &str| {
            format!(
                "[[listeners]]\naddress = \"127.0.0.1:9000\"\n[[token.keys]]\nalgorithm = \"HS256\"\n\
                 secret = \"0123456789abcdef0123456789abcdef\"\n[runtime]\nshards = 1\n{more}"
            )
        };
        let config = Config::parse(&text(""), "x").unwrap();
        let of_itself = Target::new(None, false, None, Some(&config));
        assert_eq!((of_itself.connections, of_itself.ports.clone()), (16_384, vec![9000]));
        assert!(of_itself.check().iter().all(|finding| finding.state == State::Ok));
        let more = Target::new(Some(20_000), false, None, Some(&config)).check();
        assert_eq!((more[1].state, more[1].found.as_str()), (State::Problem, "16 384"));
        assert_eq!(more[1].fix, "runtime.connections_per_shard_max = 20000");
    }

    #[test]
    fn target_is_above_what_slots_can_number_then_a_finding() {
        let findings = Target::new(Some(100_000_000), false, Some(2), None).check();
        assert_eq!((findings[0].state, findings[0].fix.as_str()), (State::Problem, "runtime.shards = 12"));
    }
}

//! `[runtime]`: shards, cores and tables, and whether this host can give them.

use ringgate_core::limits::{CONNECTIONS_PER_SHARD_MAX, SHARDS_MAX};
use ringgate_net::Descriptors;
use toml::Spanned;

use super::super::Runtime;
use super::super::raw::{self, At, CoreList, Number};
use super::Fits;
use super::check::{Check, at, take};
use crate::cores::Cores;

pub(super) fn runtime(raw: &raw::Runtime, fits: Fits, check: &mut Check<'_>) -> Runtime {
    let d = Runtime::default();
    let shards = match raw.shards.as_ref().map(Spanned::get_ref) {
        None => None,
        Some(Number::Text(text)) if text == "auto" => None,
        Some(Number::Text(text)) => {
            let text = format!("\"{text}\" is neither \"auto\" nor a number");
            check.problem("runtime.shards", raw.shards.as_ref().and_then(at), text);
            None
        }
        Some(Number::Integer(_)) => Some(check.count("runtime.shards", &raw.shards, 1, 1..=SHARDS_MAX as u64)),
    };
    let default = Runtime {
        shards,
        pin_cores: raw.pin_cores.unwrap_or(d.pin_cores),
        cores: cores(&raw.cores, check),
        huge_pages: raw.huge_pages.unwrap_or(d.huge_pages),
        dumpable: raw.dumpable.unwrap_or(d.dumpable),
        descriptors: check.choice(
            "runtime.descriptors",
            &raw.descriptors,
            d.descriptors,
            &[("auto", d.descriptors), ("direct", Descriptors::Direct), ("ordinary", Descriptors::Ordinary)],
        ),
        ..d
    };
    let runtime = take!(check, "runtime", raw, default, Runtime {
        connections_per_shard_max = count(connections_per_shard_max, 16..=CONNECTIONS_PER_SHARD_MAX as u64),
        recv_buffers = count(recv_buffers, 1..=32_768),
        recv_buffer_bytes = size(recv_buffer_size, 64..=1 << 20),
        accepts_in_flight = count(accepts_in_flight, 1..=1024),
        mailbox_capacity = count(mailbox_capacity, 1..=1 << 20),
        .. rest
    });
    if !runtime.recv_buffers.is_power_of_two() {
        let text = format!("{} is not a power of two", runtime.recv_buffers);
        check.problem("runtime.recv_buffers", raw.recv_buffers.as_ref().and_then(at), text);
    }
    for (key, text) in fits(&runtime) {
        let place = match key {
            "runtime.cores" => raw.cores.as_ref().and_then(at),
            "runtime.recv_buffers" => {
                let size = raw.recv_buffer_size.as_ref().and_then(at);
                raw.recv_buffers.as_ref().and_then(at).or(size).or(raw.shards.as_ref().and_then(at))
            }
            _ => raw.connections_per_shard_max.as_ref().and_then(at),
        };
        check.problem(key, place, text);
    }
    runtime
}

fn cores(raw: &At<CoreList>, check: &mut Check<'_>) -> Cores {
    let Some(value) = raw else { return Cores::Auto };
    let wrong = match value.get_ref() {
        CoreList::Text(text) if text == "auto" => return Cores::Auto,
        CoreList::Text(text) => format!("\"{text}\" is neither \"auto\" nor a list of core numbers like [0, 2, 4]"),
        CoreList::List(list) => match list.iter().map(core_number).collect::<Result<Vec<_>, _>>() {
            Err(wrong) => wrong,
            Ok(list) if list.is_empty() => "is empty; list at least one core, or write \"auto\"".to_owned(),
            Ok(list) => {
                let mut once = list.clone();
                once.sort_unstable();
                once.dedup();
                if once.len() == list.len() {
                    return Cores::List(list);
                }
                "names a core twice; more shards than cores share them in turn anyway".to_owned()
            }
        },
    };
    check.problem("runtime.cores", at(value), wrong);
    Cores::Auto
}

fn core_number(number: &Number) -> Result<usize, String> {
    match number {
        Number::Integer(core) => {
            usize::try_from(*core).map_err(|_| format!("has {core} in it; cores are counted from 0"))
        }
        Number::Text(text) => Err(format!("has \"{text}\" in it; cores are numbers, like [0, 2, 4]")),
    }
}

//! `[inbox]` and `[[namespaces]]`: what is kept, for how long, and whose it is.

use ringgate_core::id::Durability;
use ringgate_core::limits::{BODY_OVERHEAD_BYTES, DURATION_MS_MAX, InboxSettings, Namespace, Settings};
use ringgate_core::units::duration_text;

use super::super::raw;
use super::check::{Check, POSITIVE, at, take};

pub(super) fn inbox(raw: &raw::Inbox, message_bytes_max: usize, check: &mut Check<'_>) -> InboxSettings {
    let default = InboxSettings::default();
    let default = InboxSettings {
        publish_all: check.choice("inbox.publish", &raw.publish, default.publish_all, WHO),
        copy_to_own_devices: raw.copy_to_own_devices.unwrap_or(default.copy_to_own_devices),
        ..default
    };
    let inbox = take!(check, "inbox", raw, default, InboxSettings {
        messages_max = count(messages_max, POSITIVE),
        bytes_max = size(size_max, 1024..=1 << 40),
        ttl_ms = duration(ttl, 1000..=DURATION_MS_MAX),
        devices_max = count(devices_max, 1..=10_000),
        device_ttl_ms = duration(device_ttl, 1000..=DURATION_MS_MAX),
        unknown_messages_max = count(unknown_messages_max, POSITIVE),
        unknown_bytes_per_shard_max = size(unknown_size_per_shard_max, 64 * 1024..=1 << 50),
        in_flight_max = count(in_flight_max, POSITIVE),
        ack_wait_ms = duration(ack_wait, 10..=DURATION_MS_MAX),
        ack_wait_ms_max = duration(ack_wait_max, 10..=DURATION_MS_MAX),
        .. rest
    });
    if inbox.ack_wait_ms > inbox.ack_wait_ms_max {
        let (wait, most) = (duration_text(inbox.ack_wait_ms), duration_text(inbox.ack_wait_ms_max));
        let text = format!("\"{wait}\" is longer than inbox.ack_wait_max, which is \"{most}\"; raise that one too");
        check.problem("inbox.ack_wait", raw.ack_wait.as_ref().and_then(at), text);
    }
    for (key, bytes, place) in [
        ("inbox.size_max", inbox.bytes_max, &raw.size_max),
        ("inbox.unknown_size_per_shard_max", inbox.unknown_bytes_per_shard_max, &raw.unknown_size_per_shard_max),
    ] {
        if bytes < message_bytes_max + BODY_OVERHEAD_BYTES {
            let text = "is smaller than client.message_size_max and 4 KiB, so the largest message would not be kept";
            check.problem(key, place.as_ref().and_then(at), text);
        }
    }
    inbox
}

const WHO: &[(&str, bool)] = &[("all", true), ("token", false)];

pub(super) fn namespaces(raw: &raw::File, check: &mut Check<'_>) -> Vec<Namespace> {
    let Some(list) = &raw.namespaces else { return Settings::default().namespaces };
    let mut namespaces: Vec<Namespace> = Vec::new();
    for (index, raw) in list.iter().enumerate() {
        let key = |field: &str| format!("namespaces[{index}].{field}");
        let Some(name) = &raw.name else {
            check.problem(&key("name"), None, "is missing; rooms are called name:room");
            continue;
        };
        let text = name.get_ref();
        if !ringgate_core::wire::is_name(text) || text.contains([':', '@']) {
            check.problem(&key("name"), at(name), "must not be empty or hold a colon, an @ or blanks");
        }
        if namespaces.iter().any(|known| known.name == *text) {
            check.problem(&key("name"), at(name), format!("\"{text}\" is there twice; remove one"));
        }
        let d = Namespace::named(text);
        let durable = raw.durability.as_ref().filter(|durability| durability.get_ref() == "durable");
        if let Some(durable) = durable {
            let text = "\"durable\" needs a durable store, which this version does not have; use \"memory\"";
            check.problem(&key("durability"), at(durable), text);
        }
        let levels = [("memory", Durability::Memory), ("ephemeral", Durability::Ephemeral)];
        let durability = match durable {
            Some(_) => d.durability,
            None => check.choice(&key("durability"), &raw.durability, d.durability, &levels),
        };
        let kept = durability != Durability::Ephemeral;
        let history_size = check.count(&key("history_size"), &raw.history_size, d.history_size, 0..=1_000_000);
        namespaces.push(Namespace {
            durability,
            history_size: if kept { history_size } else { 0 },
            history_ttl_ms: check.duration(
                &key("history_ttl"),
                &raw.history_ttl,
                d.history_ttl_ms,
                1..=DURATION_MS_MAX,
            ),
            join_leave: raw.join_leave.unwrap_or(d.join_leave),
            presence: raw.presence.unwrap_or(d.presence),
            subscribe_all: check.choice(&key("subscribe"), &raw.subscribe, d.subscribe_all, WHO),
            publish_all: check.choice(&key("publish"), &raw.publish, d.publish_all, WHO),
            publish_without_subscribe: raw.publish_without_subscribe.unwrap_or(d.publish_without_subscribe),
            echo: raw.echo.unwrap_or(d.echo),
            vanish_when_empty: raw.vanish_when_empty.unwrap_or(d.vanish_when_empty),
            name: text.clone(),
        });
    }
    namespaces
}

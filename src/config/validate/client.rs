//! `[client]`: heartbeats, deadlines and limits of a connection.

use ringgate_core::limits::{BODY_OVERHEAD_BYTES, ClientLimits, DURATION_MS_MAX, HEADER_BYTES, HEARTBEAT_MS_MAX};
use ringgate_core::units::duration_text;

use super::super::raw;
use super::check::{Check, NO_LIMIT, POSITIVE, at, take};

pub(super) fn client(raw: &raw::Client, check: &mut Check<'_>) -> ClientLimits {
    let mut limits = take!(check, "client", raw, ClientLimits::default(), ClientLimits {
        ping_interval_ms = duration(ping_interval, 100..=HEARTBEAT_MS_MAX),
        ping_interval_ms_min = duration(ping_interval_min, 100..=HEARTBEAT_MS_MAX),
        ping_interval_ms_max = duration(ping_interval_max, 100..=HEARTBEAT_MS_MAX),
        pong_timeout_ms = duration(pong_timeout, 100..=HEARTBEAT_MS_MAX),
        missed_pings_max = count(missed_pings_max, 2..=100),
        handshake_timeout_ms = duration(handshake_timeout, 10..=DURATION_MS_MAX),
        connect_timeout_ms = duration(connect_timeout, 10..=DURATION_MS_MAX),
        frame_timeout_ms = duration(frame_timeout, 10..=DURATION_MS_MAX),
        write_timeout_ms = duration(write_timeout, 10..=DURATION_MS_MAX),
        message_bytes_max = size(message_size_max, 1..=16 << 20),
        outbox_bytes_max = size(outbox_size_max, 1024..=1 << 30),
        outbox_messages_max = count(outbox_messages_max, POSITIVE),
        rooms_max = count(rooms_max, 1..=65_535),
        sessions_per_user_max = count(sessions_per_user_max, 1..=65_535),
        requests_in_flight_max = count(requests_in_flight_max, 1..=65_535),
        messages_rate = count(messages_rate, NO_LIMIT),
        messages_burst = count(messages_burst, POSITIVE),
        bytes_rate = size(bytes_rate, NO_LIMIT),
        bytes_burst = size(bytes_burst, POSITIVE),
        connections_max = count(connections_max, NO_LIMIT),
        connections_per_address_max = count(connections_per_address_max, NO_LIMIT),
        address_prefix_ipv6 = count(address_prefix_ipv6, 1..=128),
        accept_rate = count(accept_rate, NO_LIMIT),
    });
    if limits.message_bytes_max > limits.outbox_bytes_max {
        let text = "is larger than client.outbox_size_max, so the largest message would fit no queue; raise that one";
        check.problem("client.message_size_max", raw.message_size_max.as_ref().and_then(at), text);
    }
    if limits.pong_timeout_ms >= limits.ping_interval_ms {
        let text = "must be shorter than client.ping_interval";
        check.problem("client.pong_timeout", raw.pong_timeout.as_ref().and_then(at), text);
    } else if limits.pong_timeout_ms >= limits.ping_interval_ms_min {
        if raw.ping_interval_min.is_none() {
            // A file from before there was such a minimum: its heartbeats stay as they were.
            limits.ping_interval_ms_min = limits.pong_timeout_ms + 1;
            if raw.ping_interval_max.is_none() {
                limits.ping_interval_ms_max = limits.ping_interval_ms_max.max(limits.ping_interval_ms);
            }
        } else {
            let (timeout, min) = (duration_text(limits.pong_timeout_ms), duration_text(limits.ping_interval_ms_min));
            let text = format!(
                "\"{timeout}\" must be shorter than client.ping_interval_min, the shortest interval that a client may wish, \
                 which is \"{min}\"; raise that one or lower this one"
            );
            check.problem("client.pong_timeout", raw.pong_timeout.as_ref().and_then(at), text);
        }
    }
    if limits.ping_interval_ms_min > limits.ping_interval_ms_max {
        let text = "is longer than client.ping_interval_max";
        check.problem("client.ping_interval_min", raw.ping_interval_min.as_ref().and_then(at), text);
    }
    let frame_bytes_max = limits.message_bytes_max + BODY_OVERHEAD_BYTES + HEADER_BYTES;
    if limits.bytes_rate != 0 && (limits.bytes_burst as usize) < frame_bytes_max {
        let text = format!(
            "{} is smaller than the largest frame, which could never be sent: {frame_bytes_max} bytes, \
             client.message_size_max and what goes with a payload; at least {frame_bytes_max}",
            limits.bytes_burst
        );
        let place = raw.bytes_burst.as_ref().and_then(at).or(raw.message_size_max.as_ref().and_then(at));
        check.problem("client.bytes_burst", place, text);
    }
    limits
}

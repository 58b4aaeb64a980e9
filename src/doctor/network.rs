//! The kernel's TCP settings, and whether connection tracking stands in the way.

use super::memory::PAGE_BYTES;
use super::report::{Check, Finding, State, bytes, count};
use super::target::Target;
use crate::host::Host;
use crate::host::memory::memory_bytes;
use ringgate_net::BACKLOG;

/// A buffer that starts larger than this is memory that every slow reader may take before the gateway's own bound.
const FIRST_BUFFER_BYTES_MAX: u64 = 256 * 1024;
/// A buffer may grow to this: the kernel's default, beside an outbox of 1 MiB.
const SEND_BUFFER_BYTES_MAX: u64 = 4 * 1024 * 1024;

const GROUP: &str = "network";

pub(super) fn check(host: &Host, target: &Target) -> Vec<Finding> {
    vec![
        backlog(host, "net.core.somaxconn", "The kernel cuts the queue of connections that wait for accept to it."),
        backlog(
            host,
            "net.ipv4.tcp_max_syn_backlog",
            "Connections whose handshake is under way; beyond it the kernel drops them or falls back to cookies.",
        ),
        memory(host, target),
        receive_buffers(host),
        send_buffers(host),
        local_ports(host, target),
        time_wait(host),
        migrate(host),
        table(host, target),
        tracking(host, target),
    ]
}

/// Pages of TCP memory above which the kernel economises: a broadcast lies in every socket for a moment, and a socket
/// that holds anything is charged a page. Never more than a quarter of the machine.
pub(super) fn tcp_pages_wanted(connections: u64, memory_bytes: u64) -> u64 {
    connections.min(memory_bytes / PAGE_BYTES / 4)
}

fn path(key: &str) -> String {
    format!("proc/sys/{}", key.replace('.', "/"))
}

fn backlog(host: &Host, key: &str, why: &str) -> Finding {
    let wanted = BACKLOG as u64;
    let check = Check::new(GROUP, key, format!("at least {}", count(wanted)), why);
    check.at_least(host.number(&path(key)), wanted, State::Warning, format!("sysctl -w {key}={wanted}"))
}

fn memory(host: &Host, target: &Target) -> Finding {
    let why = "Above the middle figure the kernel shrinks windows, above the last it drops; in pages, for all sockets.";
    let pages = memory_bytes(host).map(|memory| tcp_pages_wanted(target.connections, memory));
    let wanted = match &pages {
        Ok(pages) => format!("middle at least {}", count(*pages)),
        Err(_) => "a page a connection, at most a quarter of the memory".to_owned(),
    };
    let check = Check::new(GROUP, "net.ipv4.tcp_mem", wanted, why);
    match pages {
        Err(reason) => check.unknown(reason),
        Ok(pages) => {
            let fix = format!("sysctl -w net.ipv4.tcp_mem='{} {pages} {}'", pages * 3 / 4, pages * 2);
            check.at_least(host.number_at("proc/sys/net/ipv4/tcp_mem", 1), pages, State::Warning, fix)
        }
    }
}

fn receive_buffers(host: &Host) -> Finding {
    let check = Check::new(
        GROUP,
        "net.ipv4.tcp_rmem",
        format!("middle at most {}", bytes(FIRST_BUFFER_BYTES_MAX)),
        "What a client may send before it is read; the gateway reads at once, so little is enough.",
    );
    match host.number_at("proc/sys/net/ipv4/tcp_rmem", 1) {
        Err(reason) => check.unknown(reason),
        Ok(first) if first <= FIRST_BUFFER_BYTES_MAX => check.ok(bytes(first)),
        Ok(first) => check.warning(bytes(first), "sysctl -w net.ipv4.tcp_rmem='4096 131072 6291456'"),
    }
}

fn send_buffers(host: &Host) -> Finding {
    let check = Check::new(
        GROUP,
        "net.ipv4.tcp_wmem",
        format!("middle at most {}, last at most {}", bytes(FIRST_BUFFER_BYTES_MAX), bytes(SEND_BUFFER_BYTES_MAX)),
        "What the kernel keeps for a client that does not read, on top of client.outbox_size_max.",
    );
    let path = "proc/sys/net/ipv4/tcp_wmem";
    match (host.number_at(path, 1), host.number_at(path, 2)) {
        (Err(reason), _) | (_, Err(reason)) => check.unknown(reason),
        (Ok(first), Ok(last)) => {
            let found = format!("{}, {}", bytes(first), bytes(last));
            match first <= FIRST_BUFFER_BYTES_MAX && last <= SEND_BUFFER_BYTES_MAX {
                true => check.ok(found),
                false => check.warning(found, "sysctl -w net.ipv4.tcp_wmem='4096 16384 4194304'"),
            }
        }
    }
}

fn local_ports(host: &Host, target: &Target) -> Finding {
    let mut ports: Vec<String> = target.ports.iter().map(u16::to_string).collect();
    ports.dedup();
    let check = Check::new(
        GROUP,
        "net.ipv4.ip_local_port_range",
        format!("without {}", ports.join(", ")),
        "An outgoing connection may be given any port in it, also one that the gateway wants to listen on.",
    );
    let path = "proc/sys/net/ipv4/ip_local_port_range";
    let (first, last) = match (host.number_at(path, 0), host.number_at(path, 1)) {
        (Ok(first), Ok(last)) => (first, last),
        (Err(reason), _) | (_, Err(reason)) => return check.unknown(reason),
    };
    let reserved = host.read("proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let reserved = crate::cores::parse_list(&reserved);
    let inside = target.ports.iter().find(|port| {
        (first..=last).contains(&u64::from(**port)) && !reserved.contains(&usize::from(**port)) && **port != 0
    });
    match inside {
        None => check.ok(format!("{first} to {last}")),
        Some(port) => {
            check.warning(format!("{first} to {last}"), format!("sysctl -w net.ipv4.ip_local_reserved_ports={port}"))
        }
    }
}

fn time_wait(host: &Host) -> Finding {
    let why = "With 0 a port stays taken for a minute after an outgoing connection; it matters to load testers and \
               links, not to accepted connections.";
    let check = Check::new(GROUP, "net.ipv4.tcp_tw_reuse", "1, or 2 (loopback only)", why);
    match host.number::<u64>("proc/sys/net/ipv4/tcp_tw_reuse") {
        Err(reason) => check.unknown(reason),
        Ok(0) => check.warning("0", "sysctl -w net.ipv4.tcp_tw_reuse=1"),
        Ok(value) => check.ok(value.to_string()),
    }
}

fn migrate(host: &Host) -> Finding {
    let why = "Connections that wait on a listener when it closes go to another listener of the port, if there is one, \
               instead of being reset.";
    let check = Check::new(GROUP, "net.ipv4.tcp_migrate_req", "1", why);
    match host.number::<u64>("proc/sys/net/ipv4/tcp_migrate_req") {
        Err(reason) => check.unknown(reason),
        Ok(0) => check.warning("0", "sysctl -w net.ipv4.tcp_migrate_req=1"),
        Ok(value) => check.ok(value.to_string()),
    }
}

fn table(host: &Host, target: &Target) -> Finding {
    const KEY: &str = "net.ipv4.tcp_ehash_entries";
    let check = Check::new(
        GROUP,
        KEY,
        format!("at least {}", count(target.connections)),
        "Every packet is looked up in this table of all connections; where several share an entry, that is one more \
         look at memory for each.",
    );
    // Below zero in a namespace that shares the table of the host.
    let entries = host.number::<i64>(&path(KEY)).map(i64::unsigned_abs);
    let wanted = target.connections.next_power_of_two();
    let fix = format!(
        "thash_entries={wanted} on the kernel's command line; or a network namespace of its own, made while \
         net.ipv4.tcp_child_ehash_entries is {wanted}"
    );
    check.at_least(entries, target.connections, State::Warning, fix)
}

fn tracking(host: &Host, target: &Target) -> Finding {
    let wanted = target.connections + target.connections / 4;
    let check = Check::new(
        GROUP,
        "connection tracking",
        format!("not loaded, or nf_conntrack_max at least {}", count(wanted)),
        "A full table drops new connections, and each tracked one costs 256 bytes and more, and time for each packet.",
    );
    let max = "proc/sys/net/netfilter/nf_conntrack_max";
    if !host.exists(max) {
        // Without its neighbours its absence says nothing.
        return match host.read("proc/sys/net/core/somaxconn") {
            Ok(_) => check.ok("not loaded"),
            Err(reason) => check.unknown(reason),
        };
    }
    let fix =
        format!("nft rules with notrack for the gateway's ports, or sysctl -w net.netfilter.nf_conntrack_max={wanted}");
    match (host.number::<u64>(max), host.number::<u64>("proc/sys/net/netfilter/nf_conntrack_count")) {
        (Err(reason), _) | (_, Err(reason)) => check.unknown(reason),
        (Ok(max), Ok(now)) if max >= wanted => check.ok(format!("{} of {} tracked", count(now), count(max))),
        (Ok(max), Ok(0)) => check.warning(format!("loaded, tracks nothing now, at most {}", count(max)), fix),
        (Ok(max), Ok(now)) => check.problem(format!("{} of {} tracked", count(now), count(max)), fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::FakeHost;

    const MEMORY: (&str, &str) = ("proc/meminfo", "MemTotal:       24684092 kB\nMemAvailable:   23906940 kB\n");

    fn findings(files: &[(&str, &str)]) -> Vec<Finding> {
        let fake = FakeHost::new(files);
        check(&fake.host, &Target::new(Some(1_000_000), false, Some(4), None))
    }

    fn states(findings: &[Finding]) -> Vec<State> {
        findings.iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn host_is_tuned_then_good() {
        let findings = findings(&[
            MEMORY,
            ("proc/sys/net/core/somaxconn", "4096\n"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
            ("proc/sys/net/ipv4/tcp_mem", "750000\t1000000\t2000000\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/ipv4/tcp_tw_reuse", "2\n"),
            ("proc/sys/net/ipv4/tcp_migrate_req", "1\n"),
            ("proc/sys/net/ipv4/tcp_ehash_entries", "-1048576\n"),
        ]);
        assert_eq!(states(&findings), [State::Ok; 10], "{findings:#?}");
        assert_eq!(findings[9].found, "not loaded");
    }

    #[test]
    fn network_settings_are_too_small_then_each_is_named() {
        let findings = findings(&[
            MEMORY,
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "256\n"),
            ("proc/sys/net/ipv4/tcp_mem", "1000\t2000\t3000\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t1048576\t6291456\n"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t33554432\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "1024\t65535\n"),
            ("proc/sys/net/ipv4/tcp_tw_reuse", "0\n"),
            ("proc/sys/net/ipv4/tcp_migrate_req", "0\n"),
            ("proc/sys/net/ipv4/tcp_ehash_entries", "524288\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "7\n"),
        ]);
        let mut wanted = vec![State::Warning; 9];
        wanted.push(State::Problem);
        assert_eq!(states(&findings), wanted, "{findings:#?}");
        assert_eq!(findings[0].fix, "sysctl -w net.core.somaxconn=4096");
        assert_eq!(findings[2].fix, "sysctl -w net.ipv4.tcp_mem='750000 1000000 2000000'");
        assert_eq!(findings[5].fix, "sysctl -w net.ipv4.ip_local_reserved_ports=7400");
        assert!(findings[8].fix.starts_with("thash_entries=1048576 "), "{:?}", findings[8]);
        assert_eq!(findings[9].found, "7 of 262 144 tracked");
        assert!(findings[9].fix.contains("nf_conntrack_max=1250000"), "{:?}", findings[9]);
    }

    #[test]
    fn ports_are_reserved_then_they_are_not_counted() {
        let findings = findings(&[
            ("proc/sys/net/ipv4/ip_local_port_range", "1024\t65535\n"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", "7400,7440-7450\n"),
        ]);
        assert_eq!(findings[5].state, State::Ok);
    }

    #[test]
    fn connection_tracking_is_loaded_and_tracks_nothing_then_a_warning() {
        let findings = findings(&[
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "0\n"),
        ]);
        assert_eq!(findings[9].state, State::Warning);
    }

    #[test]
    fn host_tells_nothing_then_unknown() {
        assert_eq!(states(&findings(&[])), [State::Unknown; 10]);
    }

    #[test]
    fn target_needs_more_than_a_quarter_of_memory_then_a_quarter_is_wanted() {
        assert_eq!(tcp_pages_wanted(10_000, 24 << 30), 10_000);
        assert_eq!(tcp_pages_wanted(100_000_000, 16 << 30), 1 << 20);
    }
}

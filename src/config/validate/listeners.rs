//! `[[listeners]]` and `[admin]`: addresses, and which of them the kernel would take for the same.

use std::net::{IpAddr, SocketAddr};

use ringgate_core::transport::Transport;
use ringgate_net::Front;
use ringgate_net::network::Network;
use toml::Spanned;

use super::super::{DEFAULT_ADMIN_PORT, ListenerConfig, raw};
use super::check::{Check, at};

pub(super) fn listeners(raw: &raw::File, check: &mut Check<'_>) -> Vec<ListenerConfig> {
    if raw.listeners.is_empty() {
        let text = "there is none; add [[listeners]] with address = \"0.0.0.0:7400\"";
        check.problem("listeners", None, text);
    }
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    for (index, raw) in raw.listeners.iter().enumerate() {
        let key = format!("listeners[{index}].address");
        let Some(address) = check.address(&key, &raw.address) else { continue };
        let ipv6_only = raw.ipv6_only.as_ref().is_some_and(|only| *only.get_ref());
        if let Some(only) = raw.ipv6_only.as_ref().filter(|_| ipv6_only && address.is_ipv4()) {
            let text = "is for IPv6 addresses, and listeners.address is none; remove it";
            check.problem(&format!("listeners[{index}].ipv6_only"), at(only), text);
        }
        let transport = if raw.tls { Transport::Tls } else { Transport::Plain };
        let mut front = Front::new(transport);
        let (has_frames, has_websocket) = protocols(&format!("listeners[{index}].protocols"), raw, check);
        match has_frames {
            true => front.is_open_to_websocket = has_websocket,
            false => front.transport = transport.with_websocket(),
        }
        front.proxies = proxies(&format!("listeners[{index}].trusted_proxies"), raw, check);
        let listener = ListenerConfig { address, front, ipv6_only };
        if let Some((other, known)) = listeners.iter().enumerate().find(|(_, known)| overlap(known, &listener)) {
            let text = match known.address == address {
                true => format!("{address} is there twice; remove one"),
                false => {
                    let other = format!("listeners[{other}]");
                    let name = format!("listeners[{index}]");
                    taken(address, &format!("{other}.address"), known.address)
                        + &way_out([(&name, &listener), (&other, known)])
                }
            };
            check.problem(&key, raw.address.as_ref().and_then(at), text);
        }
        listeners.push(listener);
    }
    listeners
}

/// The networks whose connections begin with a header of the PROXY protocol.
fn proxies(key: &str, raw: &raw::Listener, check: &mut Check<'_>) -> Vec<Network> {
    let proxies = networks(key, &raw.trusted_proxies, check);
    match (raw.proxy_protocol, raw.trusted_proxies.first()) {
        (true, None) => {
            let text = "is missing, but the listener has proxy_protocol = true; write the networks of the proxies, \
                        like [\"10.0.0.0/8\"]";
            check.problem(key, raw.address.as_ref().and_then(at), text);
        }
        (false, Some(first)) => {
            let text = "has no effect, and connections are taken from everywhere, unless proxy_protocol = true; add that, or remove this";
            check.warn(key, at(first), text);
        }
        (true, Some(_)) | (false, None) => {}
    }
    if raw.proxy_protocol { proxies } else { Vec::new() }
}

/// Networks of proxies that are believed whom they speak for.
pub(super) fn networks(key: &str, raw: &[Spanned<String>], check: &mut Check<'_>) -> Vec<Network> {
    let mut networks = Vec::new();
    for (index, text) in raw.iter().enumerate() {
        let key = format!("{key}[{index}]");
        match Network::parse(text.get_ref()) {
            Ok(network) => {
                if network.is_everything() {
                    check.warn(
                        &key,
                        at(text),
                        format!("{network} is everybody: any client can say that it is another"),
                    );
                }
                networks.push(network);
            }
            Err(error) => check.problem(&key, at(text), error.to_string()),
        }
    }
    networks
}

/// Whether a listener takes frames alone, and whether it takes WebSocket: what `protocols` says.
fn protocols(key: &str, raw: &raw::Listener, check: &mut Check<'_>) -> (bool, bool) {
    let Some(list) = &raw.protocols else { return (true, false) };
    let names: Vec<_> = list.get_ref().iter().map(|name| name.get_ref().as_str()).collect();
    let both = "[\"tcp\"], [\"ws\"] or [\"tcp\", \"ws\"]";
    let wrong = match names[..] {
        ["tcp"] => return (true, false),
        ["ws"] => return (false, true),
        ["tcp", "ws"] | ["ws", "tcp"] => return (true, true),
        [] => format!("is empty; write {both}"),
        _ => match names.iter().find(|name| !["tcp", "ws"].contains(*name)) {
            Some(unknown) => format!("\"{unknown}\" is not one of \"tcp\", \"ws\""),
            None => format!("has a protocol twice; write {both}"),
        },
    };
    check.problem(key, at(list), wrong);
    (true, false)
}

fn taken(address: SocketAddr, key: &str, other: SocketAddr) -> String {
    format!("{address} and {key} {other} are the same to the kernel; choose another port, or remove one")
}

/// Where `[::]` takes IPv4 from a listener beside it, what keeps it from that. Names, and what they are.
fn way_out(both: [(&str, &ListenerConfig); 2]) -> String {
    let takes_all = |one: &ListenerConfig| one.address.is_ipv6() && one.address.ip().is_unspecified() && !one.ipv6_only;
    let is_ipv4 = |one: &ListenerConfig| one.address.ip().to_canonical().is_ipv4();
    let [one, other] = both;
    for ((name, all), (_, beside)) in [(one, other), (other, one)] {
        if takes_all(all) && is_ipv4(beside) {
            return format!("; {} takes IPv4, too, unless {name}.ipv6_only = true", all.address);
        }
    }
    String::new()
}

/// Whether both would take the same connections, so that the kernel gives the port to one of them only.
fn overlap(one: &ListenerConfig, other: &ListenerConfig) -> bool {
    let covers = |one: &ListenerConfig, other: &ListenerConfig| {
        let (all, one_of) = (one.address.ip(), other.address.ip().to_canonical());
        match all {
            IpAddr::V4(all) => all.is_unspecified() && one_of.is_ipv4(),
            IpAddr::V6(all) => all.is_unspecified() && (one_of.is_ipv6() || !one.ipv6_only),
        }
    };
    let (port, other_port) = (one.address.port(), other.address.port());
    let same = one.address.ip().to_canonical() == other.address.ip().to_canonical();
    port != 0 && port == other_port && (same || covers(one, other) || covers(other, one))
}

pub(super) fn admin(raw: &raw::Admin, listeners: &[ListenerConfig], check: &mut Check<'_>) -> Option<SocketAddr> {
    // Also where it is off: a mistake is better found now than when it is switched on.
    let address = match &raw.address {
        None => Some(SocketAddr::from(([127, 0, 0, 1], DEFAULT_ADMIN_PORT))),
        address => check.address("admin.address", address),
    };
    let address = address.filter(|_| raw.enabled.unwrap_or(true))?;
    beside_listeners("admin.address", &raw.address, address, listeners, check);
    Some(address)
}

pub(super) fn health(
    raw: &raw::Admin,
    admin: Option<SocketAddr>,
    listeners: &[ListenerConfig],
    check: &mut Check<'_>,
) -> Option<SocketAddr> {
    const KEY: &str = "admin.health_address";
    raw.health_address.as_ref()?;
    let address = check.address(KEY, &raw.health_address)?;
    beside_listeners(KEY, &raw.health_address, address, listeners, check);
    if let Some(admin) = admin.filter(|admin| overlap(&internal(*admin), &internal(address))) {
        check.problem(KEY, raw.health_address.as_ref().and_then(at), taken(address, "admin.address", admin));
    }
    Some(address)
}

/// A listener that is not for clients; at `[::]` it takes IPv4, too.
fn internal(address: SocketAddr) -> ListenerConfig {
    ListenerConfig::new(address, Transport::Plain)
}

/// The address of such a listener must not be one of `[[listeners]]`.
fn beside_listeners(
    key: &str,
    raw: &raw::At<String>,
    address: SocketAddr,
    listeners: &[ListenerConfig],
    check: &mut Check<'_>,
) {
    let own = internal(address);
    if let Some((index, known)) = listeners.iter().enumerate().find(|(_, known)| overlap(known, &own)) {
        let other = format!("listeners[{index}]");
        let mut text = taken(address, &format!("{other}.address"), known.address);
        if address.is_ipv4() {
            text += &way_out([("admin", &own), (&other, known)]);
        }
        check.problem(key, raw.as_ref().and_then(at), text);
    }
}

/// Host names as a request has them, in lower case.
pub(super) fn admin_hosts(raw: &raw::Admin, check: &mut Check<'_>) -> Vec<String> {
    for (index, host) in raw.hosts.iter().enumerate() {
        let text = host.get_ref();
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if text.is_empty() || text.ends_with('.') || !text.chars().all(is_host) {
            let wrong = format!(
                "\"{text}\" is not a host name; write it without scheme and port, like \"gateway.example.org\""
            );
            check.problem(&format!("admin.hosts[{index}]"), at(host), wrong);
        }
    }
    raw.hosts.iter().map(|host| host.get_ref().to_ascii_lowercase()).collect()
}

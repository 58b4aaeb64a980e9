//! Which web pages may connect: a browser names the page's origin, and lets any page connect to any server (RFC 6455, 10.2).

use std::fmt;

/// What the configuration allows: `*`, or SCHEME://HOST and perhaps a port, where HOST may begin with `*.` and the port may be `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    /// None allows every origin, `null` too.
    only: Option<Only>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Only {
    scheme: String,
    /// In lower case; behind `*.` where `subdomains` is true.
    host: String,
    subdomains: bool,
    /// None allows every port.
    port: Option<u16>,
}

/// Why a pattern cannot be read, in a sentence with what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

impl OriginPattern {
    /// Reads a pattern, such as `https://chat.example.com`, `https://*.example.com`, `http://localhost:*` or `*`. Without a port, that of
    /// the scheme is meant, which has to be `http` or `https` then.
    pub fn parse(text: &str) -> Result<OriginPattern, PatternError> {
        if text == "*" {
            return Ok(OriginPattern { only: None });
        }
        let wrong = |what: &str| {
            PatternError(format!(
                "origin \"{text}\" {what}; write SCHEME://HOST or SCHEME://HOST:PORT, where HOST may begin with \"*.\" and \
                 PORT may be \"*\", or \"*\" for every origin"
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
            return Err(wrong("has no scheme"));
        }
        if rest.contains(['/', '?', '#', '@']) {
            return Err(wrong("has more than a host and a port"));
        }
        let (host, port) = split_port(rest);
        let port = match port {
            Some("*") => None,
            Some(port) => {
                Some(port_number(port).ok_or_else(|| wrong("has a port that is not a number from 1 to 65535"))?)
            }
            None => {
                Some(default_port(&scheme).ok_or_else(|| wrong("needs a port, as its scheme has none of its own"))?)
            }
        };
        let (host, subdomains) = match host.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (host, false),
        };
        if host.is_empty() || host.contains('*') {
            return Err(wrong("has no host, or a \"*\" that does not stand for whole labels at its beginning"));
        }
        Ok(OriginPattern { only: Some(Only { scheme, host: host.to_ascii_lowercase(), subdomains, port }) })
    }

    /// Whether it allows an origin as a browser sends it.
    pub(super) fn allows(&self, origin: &str) -> bool {
        let Some(only) = &self.only else { return true };
        let Some(origin) = Origin::parse(origin) else { return false };
        let is_host = if only.subdomains {
            let host = origin.host.strip_suffix(only.host.as_str());
            host.and_then(|rest| rest.strip_suffix('.')).is_some_and(|label| !label.is_empty())
        } else {
            origin.host == only.host
        };
        is_host && origin.scheme == only.scheme && only.port.is_none_or(|port| origin.port == Some(port))
    }
}

/// Whether an origin is of the host to which the request goes: pages of the server itself. The port has to be the same one, too; one
/// that `Host` does not name is the one of the origin's scheme, as a proxy in front may speak TLS and the gateway none.
pub(super) fn is_same_host(origin: &str, host: &str) -> bool {
    let Some(origin) = Origin::parse(origin) else { return false };
    let (name, port) = split_port(host);
    let port = match port {
        Some(port) => port_number(port),
        None => default_port(&origin.scheme),
    };
    origin.host == name.to_ascii_lowercase() && origin.port.is_some() && origin.port == port
}

/// An origin, serialised as RFC 6454, 6.2 says.
struct Origin {
    scheme: String,
    host: String,
    /// None where the scheme has none and none is named.
    port: Option<u16>,
}

impl Origin {
    /// None for `null` and for what is no origin.
    fn parse(text: &str) -> Option<Origin> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(rest);
        if host.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
            return None;
        }
        let port = match port {
            Some(port) => Some(port_number(port)?),
            None => default_port(&scheme),
        };
        Some(Origin { host: host.to_ascii_lowercase(), scheme, port })
    }
}

/// Host and port of `host:port`; addresses of version 6 keep their brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn port_number(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

//! What the gateway is told of the Redis that links its nodes: `[redis]`, in types of our own.

use std::fmt;
use std::net::Ipv6Addr;

use zeroize::Zeroizing;

/// Where Redis is, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// At least one: of the server, of Sentinels, or of nodes of the Cluster.
    pub addresses: Vec<HostPort>,
    /// What answers at the addresses.
    pub mode: RedisMode,
    /// Of the Sentinels; none where they ask for none.
    pub sentinel_password: Option<Password>,
    /// User of the access control list; none for the default user.
    pub user: Option<String>,
    /// None where the server asks for none.
    pub password: Option<Password>,
    /// Number of the database; 0 in a Cluster.
    pub database: u32,
    /// None for connections without TLS.
    pub tls: Option<RedisTls>,
    /// Begins each key and channel; ASCII letters, digits, `_`, `.`, `:` and `-`.
    pub prefix: String,
    /// For a connection to be made, TLS and sign-in included.
    pub connect_timeout_ms: u64,
    /// For the answer to a command.
    pub command_timeout_ms: u64,
    /// What happens to publishes while Redis is away.
    pub when_away: WhenAway,
    /// A publish waits for Redis no longer than this.
    pub wait_ms_max: u64,
    /// Replicas that must have a message before it is answered; 0 for none.
    pub replicas_min: u32,
    /// Also a Redis that forgets messages is taken.
    pub allow_volatile: bool,
}

/// What answers at the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// The server itself.
    Standalone,
    /// Sentinels, which know the primary under this name.
    Sentinel {
        /// As in `sentinel monitor NAME ...`.
        master: String,
    },
    /// Nodes of a Cluster.
    Cluster,
}

/// What happens to publishes while Redis is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// They get a temporary error at once.
    Refuse,
    /// They wait, in bounded memory and for [`RedisConfig::wait_ms_max`].
    Wait,
}

/// TLS to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisTls {
    /// Certificates that are trusted, as PEM; none for those of the system.
    pub authorities: Option<Vec<u8>>,
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; that of IPv6 without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// Text that is wiped when it is dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl RedisConfig {
    /// The defaults, for a server at these addresses.
    pub fn at(addresses: Vec<HostPort>) -> RedisConfig {
        RedisConfig {
            addresses,
            mode: RedisMode::Standalone,
            sentinel_password: None,
            user: None,
            password: None,
            database: 0,
            tls: None,
            prefix: "rg".to_owned(),
            connect_timeout_ms: 2000,
            command_timeout_ms: 2000,
            when_away: WhenAway::Refuse,
            wait_ms_max: 10_000,
            replicas_min: 0,
            allow_volatile: false,
        }
    }
}

impl Password {
    /// Takes the text over; the caller keeps no copy.
    pub fn new(text: Zeroizing<String>) -> Password {
        Password(text)
    }

    /// To be handed to the server alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl HostPort {
    /// Reads `host:port`, `address:port` or `[address]:port`.
    ///
    /// # Errors
    /// What is wrong with the text, and what would be right.
    pub fn parse(text: &str) -> Result<HostPort, String> {
        if text.contains("://") {
            return Err(format!(
                "\"{text}\" is a URL; write host:port, like \"redis.example.org:6379\", and user, password, database and \
                 tls as keys of their own"
            ));
        }
        let wrong =
            || format!("\"{text}\" is no host and port; write them like \"redis.example.org:6379\" or \"[::1]:6379\"");
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(format!("\"{text}\" has no port; write \"[{text}]:6379\""));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && !host.is_empty() => (host, port),
            _ if is_host(text) => return Err(format!("\"{text}\" has no port; write \"{text}:6379\"")),
            _ => return Err(wrong()),
        };
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("\"{text}\" has \"{port}\" for a port; 1 to 65535, like \"{host}:6379\""))?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            None if is_host(host) => host,
            _ => return Err(wrong()),
        };
        Ok(HostPort { host: host.to_owned(), port })
    }
}

/// A name or an address of IPv4.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_then_read_and_shown_again() {
        for (text, host, port) in [
            ("redis.example.org:6379", "redis.example.org", 6379),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:65535", "::1", 65_535),
            ("redis-0_a:7000", "redis-0_a", 7000),
        ] {
            let parsed = HostPort::parse(text).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port, parsed.to_string().as_str()), (host, port, text));
        }
    }

    #[test]
    fn no_host_and_port_then_the_error_says_what_would_be_right() {
        for (text, wanted) in [
            ("", "like \"redis.example.org:6379\""),
            ("redis", "has no port; write \"redis:6379\""),
            ("::1", "has no port; write \"[::1]:6379\""),
            ("redis:", "like \"redis.example.org:6379\""),
            (":6379", "like \"redis.example.org:6379\""),
            ("redis:0", "has \"0\" for a port; 1 to 65535"),
            ("redis:65536", "has \"65536\" for a port"),
            ("[::1]:x", "has \"x\" for a port"),
            ("[redis]:6379", "or \"[::1]:6379\""),
            ("a:b:6379", "or \"[::1]:6379\""),
            ("two words:6379", "or \"[::1]:6379\""),
            ("redis://redis:6379/0", "is a URL; write host:port"),
        ] {
            let error = HostPort::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("\"{text}\"")) && error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn password_is_shown_then_without_its_text() {
        let mut config = RedisConfig::at(Vec::new());
        config.password = Some(Password::new(Zeroizing::new("s3cret".to_owned())));
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}

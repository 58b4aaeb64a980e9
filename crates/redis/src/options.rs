//! How Redis is reached, and what a node does while it is away.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::keys::PARTITIONS_MAX;

/// How Redis is reached, and what a node does while it is away. Values are frozen at start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Redis is.
    pub servers: Servers,
    /// User of Redis' access control list; none for the default user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Password>,
    /// Number of the database; a Cluster has 0 only.
    pub database: u32,
    /// TLS to servers and Sentinels; none for connections without.
    pub tls: Option<Tls>,
    /// What all names in Redis begin with: ASCII letters, digits, `.`, `_`, `-` and `:`, 1 to 64 bytes. Nodes with the same one are one.
    pub prefix: String,
    /// Into how many partitions topics are divided, 1 to 1024: each is in one slot of a Cluster. All nodes have the same number.
    pub partitions: u16,
    /// Until a connection is made and Redis has answered its first questions.
    pub connect_timeout: Duration,
    /// Until an answer has come: after that the connection is given up.
    pub command_timeout: Duration,
    /// What becomes of messages while Redis is away.
    pub when_away: WhenAway,
    /// Replicas that must have a message before it is said to be stored; 0 for none. Where they do not have it within half of
    /// `command_timeout`, its publisher is told that it may have been stored: it is, and is delivered.
    pub replicas_min: u32,
    /// How often it is compared what channels Redis thinks that this node hears with those that it should.
    pub subscriptions_checked_every: Duration,
    /// Milliseconds since 1970, by the clock of this node: only what Redis stores and tells is told by the clock of Redis.
    pub wall_clock: fn() -> u64,
}

/// The system's clock, in milliseconds since 1970.
pub(crate) fn system_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

impl Default for Options {
    fn default() -> Self {
        Options {
            servers: Servers::Standalone(Server { host: "127.0.0.1".to_owned(), port: 6379 }),
            user: None,
            password: None,
            database: 0,
            tls: None,
            prefix: "rg".to_owned(),
            partitions: 256,
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(2),
            when_away: WhenAway::Refuse,
            replicas_min: 0,
            subscriptions_checked_every: Duration::from_secs(30),
            wall_clock: system_clock,
        }
    }
}

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    Standalone(Server),
    /// Sentinels, which are asked for the master each time that a connection is made.
    Sentinel {
        /// Tried in this order.
        sentinels: Vec<Server>,
        /// What they call the master.
        master: String,
        /// Of the sentinels; none if they want none.
        password: Option<Password>,
    },
    /// A Cluster: some of its nodes, which are asked where the others are.
    Cluster(Vec<Server>),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// A name or an address.
    pub host: String,
    /// TCP.
    pub port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A password: no log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// TLS, 1.2 or 1.3: whom it trusts.
#[derive(Clone, Debug)]
pub struct Tls(pub(crate) Arc<ClientConfig>);

impl Tls {
    /// Trusts the authorities of these certificates (PEM), or those of the system if there are none. Says what is wrong with them.
    pub fn new(authorities: Option<&[u8]>) -> Result<Tls, String> {
        let mut roots = RootCertStore::empty();
        match authorities {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|error| format!("the authorities' certificates: {error}"))?;
                    roots.add(certificate).map_err(|error| format!("the authorities' certificates: {error}"))?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            return Err(
                "no certificate of an authority to trust: a file with PEM certificates, or the system's".to_owned()
            );
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        Ok(Tls(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }
}

/// What becomes of messages while Redis is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// They are refused at once.
    Refuse,
    /// They wait so long for Redis to come back, and are refused then.
    Wait(Duration),
}

/// Longest prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 64;

impl Options {
    /// What is wrong with them, and what would be right; none if nothing is.
    pub fn fault(&self) -> Option<String> {
        let prefix_is_right = (1..=PREFIX_BYTES_MAX).contains(&self.prefix.len())
            && self.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte));
        if !prefix_is_right {
            let prefix = &self.prefix;
            return Some(format!(
                "prefix {prefix:?}: 1 to {PREFIX_BYTES_MAX} of the letters a-z, A-Z, 0-9, '.', '_', '-' and ':' are right"
            ));
        }
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return Some(format!("partitions = {}: 1 to {PARTITIONS_MAX} are right", self.partitions));
        }
        if let Servers::Sentinel { sentinels, master, .. } = &self.servers
            && (sentinels.is_empty() || master.is_empty())
        {
            return Some("sentinel: the address of a sentinel and the name of the master are needed".to_owned());
        }
        if let Servers::Cluster(nodes) = &self.servers {
            if nodes.is_empty() {
                return Some("cluster: the address of one of its nodes is needed".to_owned());
            }
            if self.database != 0 {
                return Some(format!("database = {}: a Cluster has database 0 alone", self.database));
            }
        }
        if self.user.is_some() && self.password.is_none() {
            return Some("a user without a password: Redis wants both".to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_is_wrong_then_the_fault_names_it() {
        assert_eq!(Options::default().fault(), None);
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.fault().unwrap_or_default()
        };
        assert!(with(|options| options.prefix = "a{b}".to_owned()).starts_with("prefix \"a{b}\""));
        assert!(with(|options| options.prefix = String::new()).starts_with("prefix \"\""));
        assert!(with(|options| options.partitions = 0).starts_with("partitions = 0"));
        assert!(with(|options| options.user = Some("me".to_owned())).starts_with("a user without a password"));
        let none = Servers::Sentinel { sentinels: Vec::new(), master: "m".to_owned(), password: None };
        let options = Options { servers: none, ..Options::default() };
        assert!(options.fault().unwrap_or_default().starts_with("sentinel"));
        let cluster = |count| Servers::Cluster(vec![Server { host: "redis".to_owned(), port: 1 }; count]);
        let options = Options { servers: cluster(0), ..Options::default() };
        assert!(options.fault().unwrap_or_default().starts_with("cluster"));
        let options = Options { servers: cluster(1), database: 1, ..Options::default() };
        assert!(options.fault().unwrap_or_default().starts_with("database = 1"));
    }

    #[test]
    fn options_are_shown_then_the_password_is_not() {
        let options = Options { password: Some(Password("secret".to_owned())), ..Options::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}

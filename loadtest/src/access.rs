//! How the clients of this process sign in, and which addresses they connect to and from. Keys and tokens never leave this
//! process.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ringgate_auth::{Signer, TokenSpec};
use ringgate_core::transport::Transport;
use ringgate_net::Target;
use ringgate_net::dial::{Trust, Url, client_tls};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;

use crate::assignment::Assignment;
use crate::lookup::Lookup;
use crate::tickets;
use crate::tokens::{DEVICE, Listed};

/// How clients sign in, which certificates they trust, and which addresses they connect from.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(group(clap::ArgGroup::new("signing").args(["dev", "key", "token", "tokens"])))]
pub(crate) struct Credentials {
    /// Sign tokens with the development key of `serve --dev`.
    #[arg(long)]
    dev: bool,
    /// Sign tokens with this secret or private key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// `kid` of the tokens signed with --key.
    #[arg(long, requires = "key")]
    kid: Option<String>,
    /// Sign in with this token; for a single connection.
    #[arg(long)]
    token: Option<String>,
    /// Sign in with the tokens of this file, one `user,device,token` a line; clients take the lines in order. Each worker
    /// is given the same file.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Certificates to trust; with --dev any is trusted.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Addresses to connect from, each good for about 12 000 connections: a list, or a network such as 127.0.0.0/8.
    #[arg(long, value_name = "ADDRESSES", default_value = "", hide_default_value = true, value_parser = sources)]
    source: Sources,
}

fn sources(text: &str) -> Result<Sources, String> {
    if text.is_empty() { Ok(Sources::default()) } else { text.parse() }
}

impl Credentials {
    /// Those of `serve --dev`, whose certificate is the file `ca`.
    pub(crate) fn dev(ca: &Path) -> Credentials {
        Credentials { dev: true, ca: Some(ca.to_owned()), ..Credentials::default() }
    }

    /// Reads keys and certificates, and looks names up. An error names the option that is missing or wrong, and what would be
    /// right.
    pub(crate) fn access(&self, assignment: &Assignment) -> Result<Access, String> {
        let secured = |url: &Url| self.tls(url, assignment.no_resumption);
        let tokens = self.tokens()?;
        self.check_tokens(&tokens, assignment)?;
        Ok(Access {
            lookups: [self.lookup(&assignment.plain)?, self.lookup(&assignment.tls)?],
            tls: Box::new([secured(&assignment.plain)?, secured(&assignment.tls)?]),
            tokens,
            sources: self.source.clone(),
        })
    }

    /// Checks keys, tokens and certificates before a worker waits for its controller.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.tokens()?;
        self.source.family()?;
        self.ca.as_ref().map_or(Ok(()), |path| tls_of(path).map(|_| ()))
    }

    /// Refuses these options where workers have the clients. The error names the option, and where it belongs.
    pub(crate) fn check_none(&self) -> Result<(), String> {
        let given = [
            (self.dev, "--dev"),
            (self.key.is_some(), "--key"),
            (self.token.is_some(), "--token"),
            (self.tokens.is_some(), "--tokens"),
            (self.ca.is_some(), "--ca"),
            (!self.source.0.is_empty(), "--source"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, option)) => {
                Err(format!("the clients are the workers': give {option} to each `worker`, not to `controller`"))
            }
            None => Ok(()),
        }
    }

    fn tokens(&self) -> Result<Tokens, String> {
        if let Some(path) = &self.key {
            let signer = Signer::from_key_file(path, None, self.kid.as_deref());
            // An unreadable file may be a good key.
            let wanted = if std::fs::read(path).is_ok() { KEY_WANTED } else { "" };
            return Ok(Tokens::Signer(Box::new(signer.map_err(|error| format!("--key {error}{wanted}"))?)));
        }
        match (&self.token, &self.tokens) {
            (Some(token), _) => Ok(Tokens::Listed(Arc::new(Listed::one(token)?))),
            (None, Some(path)) => Ok(Tokens::Listed(Arc::new(Listed::read(path)?))),
            (None, None) if self.dev => Ok(Tokens::Signer(Box::new(Signer::dev()))),
            (None, None) => {
                Err("clients need tokens: give --dev, --key FILE, --tokens FILE or --token TOKEN".to_owned())
            }
        }
    }

    /// Checks that every client has a token, and, for pairs, a user of its own.
    fn check_tokens(&self, tokens: &Tokens, assignment: &Assignment) -> Result<(), String> {
        let Tokens::Listed(listed) = tokens else { return Ok(()) };
        let connections: usize = assignment.connections.iter().sum();
        match &self.tokens {
            _ if connections <= listed.len() => {}
            None => {
                return Err(format!(
                    "give --tokens FILE, with a line user,device,token for each of the {connections} connections, or --key FILE \
                     to sign tokens: --token is for one connection (--connections 1), as each further one would take over the \
                     session of the one before"
                ));
            }
            Some(path) => {
                return Err(format!(
                    "--tokens {} has {} lines with a token, and there are {connections} connections: add lines, or take \
                     at most {} connections",
                    path.display(),
                    listed.len(),
                    listed.len()
                ));
            }
        }
        match listed.shared_user() {
            Some(user) if assignment.addressed => Err(format!(
                "--tokens: give each client a user of its own for pairs: user \"{user}\" has several lines, and messages to a \
                 user go to all its devices"
            )),
            _ => Ok(()),
        }
    }

    /// The addresses of a gateway that clients can reach from the source addresses, if there are any.
    fn lookup(&self, url: &Url) -> Result<Lookup, String> {
        Lookup::new(url, self.source.family()?)
    }

    /// TLS for the first connection of a client, and for later ones; none for a plain URL.
    fn tls(&self, url: &Url, no_resumption: bool) -> Result<[Option<Secured>; 2], String> {
        if !url.tls {
            return Ok([None, None]);
        }
        let config = match &self.ca {
            Some(path) => tls_of(path)?,
            None if !self.dev => return Err("tls:// needs --ca FILE, with the certificates to trust".to_owned()),
            None => client_tls(Trust::Anybody)?,
        };
        let name = url.server_name()?;
        let resumption =
            if no_resumption { [Resumption::disabled(), Resumption::disabled()] } else { tickets::resumption() };
        Ok(resumption.map(|resumption| {
            let mut own = ClientConfig::clone(&config);
            own.resumption = resumption;
            Some((own.into(), name.clone()))
        }))
    }
}

/// Ends an error about a file that is no key.
const KEY_WANTED: &str = "; --key is the file with the secret that the gateway has (32 bytes or more), or with the private key \
                          (PEM) to the public one that it has";

/// TLS that trusts the certificates of --ca.
fn tls_of(path: &Path) -> Result<Arc<ClientConfig>, String> {
    let named = |error: String| format!("--ca {}: {error}", path.display());
    let pem = std::fs::read(path).map_err(|error| named(error.to_string()))?;
    client_tls(Trust::Pem(&pem)).map_err(named)
}

/// Settings, and the name that the certificate must be for.
type Secured = (Arc<ClientConfig>, ServerName<'static>);

/// [`Credentials`] with keys, tokens and certificates read, and names looked up.
pub(crate) struct Access {
    /// Addresses: plain, TLS.
    lookups: [Lookup; 2],
    /// Plain, TLS; for the first connection of a client, for later ones.
    tls: Box<[[Option<Secured>; 2]; 2]>,
    tokens: Tokens,
    /// Source addresses, if they are given.
    pub(crate) sources: Sources,
}

/// Where tokens come from.
enum Tokens {
    /// Signed for each client.
    Signer(Box<Signer>),
    /// Of a file, by the client's number.
    Listed(Arc<Listed>),
}

impl Access {
    /// The target of a client's next connect, after `refused` addresses in a row refused it; `has_been_there` means that it may
    /// have a ticket. None if the host has no address any more.
    pub(crate) fn target(
        &self,
        transport: Transport,
        client: u32,
        has_been_there: bool,
        refused: u8,
    ) -> Option<Target> {
        let address = self.lookup(transport).address(client as usize, refused.into())?;
        let tls = self.tls[transport as usize][usize::from(has_been_there)].clone();
        Some(Target { address, tls })
    }

    /// The addresses that clients connect to.
    pub(crate) fn lookup(&self, transport: Transport) -> &Lookup {
        &self.lookups[transport as usize]
    }

    /// The token and the device of client number `client`, whose user is this.
    pub(crate) fn token(&self, client: u32, user: String) -> Result<(String, String), String> {
        match &self.tokens {
            Tokens::Listed(listed) => {
                let entry = listed.entry(client).ok_or_else(|| "--tokens has too few lines".to_owned())?;
                Ok((entry.token.to_string(), entry.device.to_string()))
            }
            Tokens::Signer(signer) => {
                let token = signer.sign(&TokenSpec {
                    user,
                    issued_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
                    ttl_seconds: 24 * 3600,
                    ..TokenSpec::default()
                })?;
                Ok((token, DEVICE.to_owned()))
            }
        }
    }

    /// The users of `--tokens`, in the order of the clients; none without that file.
    pub(crate) fn listed(&self) -> Option<Arc<Listed>> {
        match &self.tokens {
            Tokens::Listed(listed) => Some(listed.clone()),
            Tokens::Signer(_) => None,
        }
    }
}

/// Addresses that clients connect from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Vec<(IpAddr, u32)>);

impl std::str::FromStr for Sources {
    type Err = String;

    /// `10.0.0.1,10.0.0.2` or `127.0.0.0/8`, or a mixture.
    fn from_str(text: &str) -> Result<Self, String> {
        let source = |part: &str| {
            let wanted = || format!("\"{part}\" is neither an address nor a network such as 127.0.0.0/8");
            let (address, bits) = part.split_once('/').map_or((part, None), |(address, bits)| (address, Some(bits)));
            let address: IpAddr = address.trim().parse().map_err(|_| wanted())?;
            let host_bits = match (address, bits) {
                (_, None) => 0,
                (IpAddr::V4(_), Some(bits)) => {
                    32u32.checked_sub(bits.parse().map_err(|_| wanted())?).ok_or_else(wanted)?
                }
                (IpAddr::V6(_), Some(bits)) => {
                    128u32.checked_sub(bits.parse().map_err(|_| wanted())?).ok_or_else(wanted)?
                }
            };
            // The network's own and its broadcast address are left out.
            Ok((address, if host_bits == 0 { 1 } else { (1u32 << host_bits.min(24)).saturating_sub(2).max(1) }))
        };
        text.split(',').map(source).collect::<Result<_, String>>().map(Sources)
    }
}

impl Sources {
    /// Whether they are IPv4; an error if they are both, and none if there are none.
    fn family(&self) -> Result<Option<bool>, String> {
        let of = |is_ipv4: bool| self.0.iter().map(|(address, _)| address).find(|address| address.is_ipv4() == is_ipv4);
        match (of(true), of(false)) {
            (Some(v4), Some(v6)) => Err(format!(
                "--source has IPv4 and IPv6 addresses ({v4}, {v6}): a connection is of one kind; use two workers for both"
            )),
            (v4, v6) => Ok(v4.or(v6).map(IpAddr::is_ipv4)),
        }
    }

    /// The address of a client: a list is dealt out in turns, so that the gateway sees as many hosts as it has addresses; of a
    /// network no more are taken than are needed. None if no source was given.
    pub(crate) fn of(&self, client: usize, clients_per_address: usize) -> Option<IpAddr> {
        let is_list = self.0.iter().all(|(_, count)| *count == 1);
        self.lane(if is_list { client } else { client / clients_per_address })
    }

    /// Address number `lane`, wrapping around.
    fn lane(&self, lane: usize) -> Option<IpAddr> {
        let total: usize = self.0.iter().map(|(_, count)| *count as usize).sum();
        let mut lane = lane.checked_rem(total)?;
        for (address, count) in &self.0 {
            if lane < *count as usize {
                let step = if *count == 1 { 0 } else { lane as u32 + 1 };
                return Some(match address {
                    IpAddr::V4(address) => IpAddr::V4((u32::from(*address) + step).into()),
                    IpAddr::V6(address) => IpAddr::V6((u128::from(*address) + u128::from(step)).into()),
                });
            }
            lane -= *count as usize;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_is_a_list_or_a_network_then_clients_are_dealt_to_its_addresses() {
        let lanes = |text: &str, count: usize| -> Vec<String> {
            let sources: Sources = text.parse().unwrap();
            (0..count).map(|lane| sources.lane(lane).unwrap().to_string()).collect()
        };
        assert_eq!(lanes("127.0.0.5,127.0.0.9", 3), ["127.0.0.5", "127.0.0.9", "127.0.0.5"]);
        assert_eq!(lanes("127.0.0.0/8", 3), ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        assert_eq!(lanes("127.1.0.0/30,::1", 3), ["127.1.0.1", "127.1.0.2", "::1"]);
        assert_eq!(Sources::default().lane(3), None);
        let of = |text: &str, client: usize| text.parse::<Sources>().unwrap().of(client, 100).unwrap().to_string();
        assert_eq!([of("127.0.0.5,127.0.0.9", 1), of("127.0.0.5,127.0.0.9", 2)], ["127.0.0.9", "127.0.0.5"]);
        assert_eq!([of("127.0.0.0/8", 99), of("127.0.0.0/8", 100)], ["127.0.0.1", "127.0.0.2"]);
        for bad in ["", "localhost", "127.0.0.0/33", "::/129", "1.2.3.4/x"] {
            assert!(bad.parse::<Sources>().unwrap_err().contains("127.0.0.0/8"), "{bad}");
        }
    }
}

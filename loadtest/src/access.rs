//! Who the clients are, where they go and where they come from: what a driver process has of its own and never sends on.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ringgate_auth::{Signer, TokenSpec};
use ringgate_core::session::Transport;
use ringgate_net::Target;
use ringgate_net::dial::{Trust, Url, client_tls};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;

use crate::assignment::Assignment;
use crate::lookup::Lookup;
use crate::tickets;

/// How the clients of this process sign in, whom they trust and where they connect from.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(group(clap::ArgGroup::new("tokens").args(["dev", "key", "token"])))]
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
    /// Use this token for all clients.
    #[arg(long)]
    token: Option<String>,
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

    /// Reads keys and certificates, and looks names up. Errors say which option is missing or what is wrong with it.
    pub(crate) fn access(&self, assignment: &Assignment) -> Result<Access, String> {
        let secured = |url: &Url| self.tls(url, assignment.no_resumption);
        Ok(Access {
            lookups: [Lookup::new(&assignment.plain)?, Lookup::new(&assignment.tls)?],
            tls: Box::new([secured(&assignment.plain)?, secured(&assignment.tls)?]),
            tokens: self.tokens()?,
            sources: self.source.clone(),
        })
    }

    /// Whether tokens can be had and certificates be read; asked before anything is waited for.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.tokens()?;
        self.ca.as_ref().map_or(Ok(()), |path| tls_of(path).map(|_| ()))
    }

    /// An error if any of these options is given.
    pub(crate) fn check_none(&self) -> Result<(), String> {
        let given = [
            (self.dev, "--dev"),
            (self.key.is_some(), "--key"),
            (self.token.is_some(), "--token"),
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
        match (&self.key, &self.token) {
            (Some(path), _) => {
                let signer = Signer::from_key_file(path, None, self.kid.as_deref());
                Ok(Tokens::Signer(Box::new(signer.map_err(|error| format!("--key {error}"))?)))
            }
            (None, Some(token)) => Ok(Tokens::Fixed(token.clone())),
            (None, None) if self.dev => Ok(Tokens::Signer(Box::new(Signer::dev()))),
            (None, None) => Err("clients need tokens: give --dev, --key FILE or --token TOKEN".to_owned()),
        }
    }

    /// TLS for the first time, and again; none for a plain URL.
    fn tls(&self, url: &Url, no_resumption: bool) -> Result<[Option<Secured>; 2], String> {
        if !url.tls {
            return Ok([None, None]);
        }
        let config = match &self.ca {
            Some(path) => tls_of(path)?,
            None if !self.dev => return Err("tls:// needs --ca FILE".to_owned()),
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

/// TLS that trusts the certificates of --ca.
fn tls_of(path: &Path) -> Result<Arc<ClientConfig>, String> {
    let named = |error: String| format!("--ca {}: {error}", path.display());
    let pem = std::fs::read(path).map_err(|error| named(error.to_string()))?;
    client_tls(Trust::Pem(&pem)).map_err(named)
}

/// Settings, and the name that the certificate must be for.
type Secured = (Arc<ClientConfig>, ServerName<'static>);

/// What becomes of [`Credentials`] in a run.
pub(crate) struct Access {
    /// Where to: plain, TLS.
    lookups: [Lookup; 2],
    /// With what: plain, TLS; for the first time, and again.
    tls: Box<[[Option<Secured>; 2]; 2]>,
    tokens: Tokens,
    /// Source addresses, if they are given.
    pub(crate) sources: Sources,
}

/// Where tokens come from.
enum Tokens {
    /// Signed for each client.
    Signer(Box<Signer>),
    /// One for all: every client is another device of one user.
    Fixed(String),
}

impl Access {
    /// Where a client connects to after so many addresses refused it in a row; a client that has been there may have a
    /// ticket. None if the host has no address any more.
    pub(crate) fn target(&self, transport: Transport, has_been_there: bool, refused: u8) -> Option<Target> {
        let address = self.lookup(transport).address(refused.into())?;
        let tls = self.tls[transport as usize][usize::from(has_been_there)].clone();
        Some(Target { address, tls })
    }

    /// The addresses that clients connect to.
    pub(crate) fn lookup(&self, transport: Transport) -> &Lookup {
        &self.lookups[transport as usize]
    }

    /// A token for a user.
    pub(crate) fn token(&self, user: String) -> Result<String, String> {
        match &self.tokens {
            Tokens::Fixed(token) => Ok(token.clone()),
            Tokens::Signer(signer) => signer.sign(&TokenSpec {
                user,
                issued_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
                ttl_seconds: 24 * 3600,
                ..TokenSpec::default()
            }),
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
    fn sources_are_lists_and_networks() {
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

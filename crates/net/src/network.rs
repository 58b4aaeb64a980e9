//! Networks of addresses, as configurations name those of trusted proxies: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::fmt;
use std::net::IpAddr;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// It has no address, or none of a prefix's length behind its slash.
    Syntax(String),
    /// The address has bits beyond the prefix. This network is the one that has it.
    Beyond(String, Network),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Syntax(text) => {
                write!(f, "\"{text}\" is not a network; write an address, or one with a prefix like \"10.0.0.0/8\"")
            }
            NetworkError::Beyond(text, network) => {
                write!(f, "\"{text}\" has bits beyond its prefix; the network is \"{network}\"")
            }
        }
    }
}

impl std::error::Error for NetworkError {}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// The address with its first bits alone.
fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    let prefix_bits = u32::from(prefix_bits);
    match address {
        IpAddr::V4(address) => {
            IpAddr::V4((address.to_bits() & u32::MAX.checked_shl(32 - prefix_bits.min(32)).unwrap_or(0)).into())
        }
        IpAddr::V6(address) => {
            IpAddr::V6((address.to_bits() & u128::MAX.checked_shl(128 - prefix_bits.min(128)).unwrap_or(0)).into())
        }
    }
}

impl Network {
    /// Reads `ADDRESS/BITS`, or an address alone, which is a network of one.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError::Syntax(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            None => bits_max,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
        };
        if prefix_bits > bits_max {
            return Err(wrong());
        }
        let network = Network { address: masked(address, prefix_bits), prefix_bits };
        if network.address == address { Ok(network) } else { Err(NetworkError::Beyond(text.to_owned(), network)) }
    }

    /// Whether it has this address. An IPv4 address that was mapped into IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix_bits) == self.address
    }

    /// Whether it has every address of its kind.
    pub fn is_everything(&self) -> bool {
        self.prefix_bits == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_inside_or_outside_then_contains_says_which() {
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["11.0.0.0", "9.255.255.255", "::"][..],
            ),
            ("192.0.2.7", &["192.0.2.7"], &["192.0.2.6"]),
            ("192.0.2.128/25", &["192.0.2.128", "192.0.2.255"], &["192.0.2.127"]),
            ("0.0.0.0/0", &["1.2.3.4"], &["::1"]),
            ("::/0", &["::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("2001:db8::/33", &["2001:db8::1", "2001:db8:7fff::"], &["2001:db8:8000::"]),
            ("::1", &["::1"], &["::2"]),
        ] {
            let network = Network::parse(network).unwrap();
            for (addresses, wanted) in [(inside, true), (outside, false)] {
                for address in addresses {
                    assert_eq!(network.contains(address.parse().unwrap()), wanted, "{address} in {network}");
                }
            }
        }
    }

    #[test]
    fn text_is_no_network_then_the_error_says_what_would_be_right() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "::/999",
            "example.org",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(Network::parse(text), Err(NetworkError::Syntax(text.to_owned())));
        }
        let error = Network::parse("10.1.0.0/8").unwrap_err().to_string();
        assert_eq!(error, "\"10.1.0.0/8\" has bits beyond its prefix; the network is \"10.0.0.0/8\"");
    }
}

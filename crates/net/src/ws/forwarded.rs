//! Whom a proxy of HTTP has passed a request on for: the header that it appends to, `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! What a client has written there itself comes first, and is not to be believed; each proxy appends the address that it was connected from. So the list is
//! read from its end: the addresses of trusted proxies are passed over, and the next one is the client. Only one of both headers is
//! looked at, because a proxy that appends to one passes the other on as the client has written it.

use std::net::{IpAddr, SocketAddr};

use crate::network::Network;

/// The header that trusted proxies append to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: CLIENT, PROXY, ...`
    #[default]
    XForwardedFor,
    /// `Forwarded: for=CLIENT;proto=https, for=PROXY, ...`
    Forwarded,
}

impl ForwardedHeader {
    /// As in a request.
    pub(super) fn name(self) -> &'static str {
        match self {
            ForwardedHeader::XForwardedFor => "X-Forwarded-For",
            ForwardedHeader::Forwarded => "Forwarded",
        }
    }

    /// The address in an element of its list; none where it has none that can be read, as with `unknown`.
    fn address(self, element: &str) -> Option<IpAddr> {
        match self {
            ForwardedHeader::XForwardedFor => address(element),
            ForwardedHeader::Forwarded => element.split(';').find_map(|pair| {
                let (name, value) = pair.trim().split_once('=')?;
                if name.trim().eq_ignore_ascii_case("for") { address(value.trim().trim_matches('"')) } else { None }
            }),
        }
    }

    /// The last address in the list, from its beginning to its end, that is none of the trusted proxies. None as well where something
    /// stands before it that is no address: who wrote that is not known.
    pub(super) fn client<'a>(
        self,
        elements: impl DoubleEndedIterator<Item = &'a str>,
        trusted: &[Network],
    ) -> Option<IpAddr> {
        for element in elements.rev() {
            let address = self.address(element)?;
            if !trusted.iter().any(|network| network.contains(address)) {
                return Some(address);
            }
        }
        None
    }
}

/// With a port or without one; IPv6 also in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_has_proxies_at_its_end_then_the_last_address_before_them_is_the_client() {
        use ForwardedHeader::{Forwarded, XForwardedFor};
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|network| Network::parse(network).unwrap());
        let cases: [(ForwardedHeader, &str, Option<&str>); 19] = [
            (XForwardedFor, "192.0.2.1", Some("192.0.2.1")),
            (XForwardedFor, "1.1.1.1,192.0.2.1", Some("192.0.2.1")),
            (XForwardedFor, "1.1.1.1, 192.0.2.1, 10.0.0.2, 2001:db8::5", Some("192.0.2.1")),
            (XForwardedFor, "192.0.2.1:4711", Some("192.0.2.1")),
            (XForwardedFor, "[2001:db9::1]:4711", Some("2001:db9::1")),
            (XForwardedFor, "[2001:db9::1]", Some("2001:db9::1")),
            (XForwardedFor, "::ffff:192.0.2.1", Some("192.0.2.1")),
            (XForwardedFor, "::ffff:10.0.0.1", None),
            (XForwardedFor, "10.0.0.1, 10.0.0.2", None),
            (XForwardedFor, "1.1.1.1, unknown, 10.0.0.2", None),
            (XForwardedFor, "192.0.2.999", None),
            (XForwardedFor, "", None),
            (Forwarded, "for=192.0.2.1", Some("192.0.2.1")),
            (Forwarded, "for=1.1.1.1, proto=https;For=\"192.0.2.1:4711\";by=10.0.0.1, for=10.0.0.2", Some("192.0.2.1")),
            (Forwarded, "for=\"[2001:db9::1]:4711\"", Some("2001:db9::1")),
            (Forwarded, "for=1.1.1.1, for=_hidden", None),
            (Forwarded, "for=1.1.1.1, proto=https", None),
            (Forwarded, "192.0.2.1", None),
            (Forwarded, "for=", None),
        ];
        for (header, list, wanted) in cases {
            let client = header.client(list.split(',').map(str::trim), &trusted);
            assert_eq!(client, wanted.map(|wanted| wanted.parse().unwrap()), "{}: {list}", header.name());
        }
    }
}

//! The header of the PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt, revision 2020/03/05): who is at the other end
//! of a connection that a proxy or load balancer has passed on.
//!
//! Pure: bytes in, an address out; nothing is kept or allocated. Additional fields of version 2 (TLVs) are passed over. What is not TCP over IPv4 or IPv6
//! is refused, except where the proxy says that it speaks for itself (LOCAL, UNKNOWN, UNSPEC): then the other end is the proxy.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a header of version 2, with its additional fields. The text of version 1 has at most [`LINE_BYTES_MAX`].
pub const HEADER_BYTES_MAX: usize = 536;
/// Bytes of a header of version 1, with CR and LF.
pub const LINE_BYTES_MAX: usize = 107;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that it takes.
    pub bytes: usize,
    /// The client; none where the proxy speaks for itself.
    pub client: Option<SocketAddr>,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The connection begins with something else.
    Missing,
    /// It takes more than so many bytes.
    TooLong(usize),
    /// It begins as one, and this is wrong with it.
    Malformed(&'static str),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Missing => f.write_str("no header of the PROXY protocol"),
            HeaderError::TooLong(bytes) => write!(f, "a header of the PROXY protocol with more than {bytes} bytes"),
            HeaderError::Malformed(what) => write!(f, "a malformed header of the PROXY protocol: {what}"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// Reads the header that a connection begins with; none while it is not whole. That it is none is said at the first byte that differs.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if begins(bytes, SIGNATURE) {
        parse_binary(bytes)
    } else if begins(bytes, LINE_START) {
        parse_line(bytes)
    } else {
        Err(HeaderError::Missing)
    }
}

/// Whether one of both is the beginning of the other.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

fn parse_line(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let within = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(HeaderError::TooLong(LINE_BYTES_MAX)) };
    };
    let header = |client| Ok(Some(Header { bytes: end + 2, client }));
    let line = within.get(LINE_START.len()..end).and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or(HeaderError::Malformed("it is not ASCII"))?;
    let mut words = line.split(' ');
    let is_ipv4 = match words.next() {
        Some("TCP4") => true,
        Some("TCP6") => false,
        // What follows it is to be ignored.
        Some("UNKNOWN") => return header(None),
        _ => return Err(HeaderError::Malformed("it names neither TCP4, TCP6 nor UNKNOWN")),
    };
    let [Some(source), Some(destination), Some(source_port), Some(destination_port), None] =
        [words.next(), words.next(), words.next(), words.next(), words.next()]
    else {
        return Err(HeaderError::Malformed("it has not two addresses and two ports"));
    };
    let address = |text: &str| text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == is_ipv4);
    let (Some(source), Some(_)) = (address(source), address(destination)) else {
        return Err(HeaderError::Malformed("an address is none of the kind that it names"));
    };
    let (Some(port), Some(_)) = (port(source_port), port(destination_port)) else {
        return Err(HeaderError::Malformed("a port is no number up to 65535"));
    };
    header(Some(SocketAddr::new(source.to_canonical(), port)))
}

/// A decimal number as the protocol has it: no sign, no zeros in front.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn parse_binary(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    if command >> 4 != 2 {
        return Err(HeaderError::Malformed("its version is not 2"));
    }
    let is_local = match command & 0xf {
        0 => true,
        1 => false,
        _ => return Err(HeaderError::Malformed("its command is neither LOCAL nor PROXY")),
    };
    let total = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if total > HEADER_BYTES_MAX {
        return Err(HeaderError::TooLong(HEADER_BYTES_MAX));
    }
    let (Some(body), length) = (bytes.get(FIXED_BYTES..total), total - FIXED_BYTES) else { return Ok(None) };
    let short = || HeaderError::Malformed("its length has no room for the addresses");
    let client = match (is_local, family) {
        (true, _) | (false, 0x00) => None,
        (false, 0x11) if length >= 12 => {
            let source = body.first_chunk::<4>().ok_or_else(short)?;
            Some((IpAddr::V4(Ipv4Addr::from(*source)), body.get(8..10)))
        }
        (false, 0x21) if length >= 36 => {
            let source = body.first_chunk::<16>().ok_or_else(short)?;
            Some((IpAddr::V6(Ipv6Addr::from(*source)).to_canonical(), body.get(32..34)))
        }
        (false, 0x11 | 0x21) => return Err(short()),
        (false, _) => return Err(HeaderError::Malformed("its addresses are not those of TCP over IPv4 or IPv6")),
    };
    let client = match client {
        None => None,
        Some((source, Some([high, low]))) => Some(SocketAddr::new(source, u16::from_be_bytes([*high, *low]))),
        Some(_) => return Err(short()),
    };
    Ok(Some(Header { bytes: total, client }))
}

/// Why a connection of a listener that needs a header is closed. The text is for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFailure {
    /// Its peer is in none of the trusted networks.
    Untrusted,
    /// What it begins with.
    Header(HeaderError),
    /// Its header was not whole in time.
    TimedOut,
    /// It ended within its header.
    Ended,
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxyFailure::Untrusted => f.write_str("it comes from none of listeners.trusted_proxies"),
            ProxyFailure::Header(error) => error.fmt(f),
            ProxyFailure::TimedOut => f.write_str("no whole header of the PROXY protocol in time"),
            ProxyFailure::Ended => f.write_str("it ended within its header of the PROXY protocol"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    /// A header of version 2: command, family, and what follows the length.
    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        [SIGNATURE, &[command, family], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    fn ipv6_body() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&source.octets()[..], &[0; 16], &[0xff, 0xfe, 1, 0xbb]].concat()
    }

    const IPV4_BODY: &[u8] = &[192, 0, 2, 7, 10, 0, 0, 1, 0xdc, 4, 1, 0xbb];

    #[test]
    fn header_is_whole_then_the_client_is_read_and_what_follows_is_left() {
        // A field of 3 bytes, of type NOOP.
        let with_fields = [IPV4_BODY, &[4, 0, 3, 1, 2, 3]].concat();
        let longest = [IPV4_BODY, &[0; HEADER_BYTES_MAX - FIXED_BYTES - 12]].concat();
        let cases = [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n".to_vec(), client("192.0.2.7:56324")),
            (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n".to_vec(), client("255.255.255.255:65535")),
            (b"PROXY TCP6 2001:db8::7 ::1 65534 443\r\n".to_vec(), client("[2001:db8::7]:65534")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 443\r\n".to_vec(), client("192.0.2.7:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(), None),
            (binary(0x21, 0x11, IPV4_BODY), client("192.0.2.7:56324")),
            (binary(0x21, 0x11, &with_fields), client("192.0.2.7:56324")),
            (binary(0x21, 0x11, &longest), client("192.0.2.7:56324")),
            (binary(0x21, 0x21, &ipv6_body()), client("[2001:db8::7]:65534")),
            (binary(0x21, 0x00, b""), None),
            (binary(0x20, 0x00, b""), None),
            (binary(0x20, 0x31, &[7; 216]), None),
        ];
        for (bytes, client) in cases {
            let wanted = Header { bytes: bytes.len(), client };
            assert_eq!(parse(&bytes), Ok(Some(wanted)), "{}", bytes.escape_ascii());
            assert_eq!(parse(&[&bytes[..], b"\r\nmore"].concat()), Ok(Some(wanted)), "{}", bytes.escape_ascii());
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes[..length]), Ok(None), "{length} B of {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn bytes_are_no_header_then_the_first_wrong_byte_says_so() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"PROXX",
            b"PROXY\t",
            b"proxy ",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"\0",
        ] {
            assert_eq!(parse(bytes), Err(HeaderError::Missing), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn header_breaks_a_rule_then_the_error_names_it() {
        let long_line = [b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat();
        let lines: [&[u8]; 14] = [
            b"PROXY \r\n",
            b"PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
            b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
            b"PROXY TCP4 192.0.2.007 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 ::1 10.0.0.1 1 2\r\n",
            b"PROXY TCP6 ::1 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 \r\n",
            b"PROXY TCP4 192.0.2.\xff 10.0.0.1 1 2\r\n",
        ];
        let binaries = [
            binary(0x11, 0x11, IPV4_BODY),
            binary(0x22, 0x11, IPV4_BODY),
            binary(0x21, 0x12, IPV4_BODY),
            binary(0x21, 0x31, &[0; 216]),
            binary(0x21, 0x11, &IPV4_BODY[..11]),
            binary(0x21, 0x21, &ipv6_body()[..35]),
        ];
        for bytes in lines.into_iter().chain(binaries.iter().map(Vec::as_slice)) {
            assert!(matches!(parse(bytes), Err(HeaderError::Malformed(_))), "{}", bytes.escape_ascii());
        }
        assert_eq!(parse(&long_line), Err(HeaderError::TooLong(LINE_BYTES_MAX)));
        let long = binary(0x21, 0x11, &[0; HEADER_BYTES_MAX - FIXED_BYTES + 1]);
        assert_eq!(parse(&long[..FIXED_BYTES]), Err(HeaderError::TooLong(HEADER_BYTES_MAX)));
    }
}

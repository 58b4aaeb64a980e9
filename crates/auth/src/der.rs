//! As much of DER (X.690) as it takes to say what a public key is, and what a certificate says of itself (RFC 5280).
//! Nothing here is trusted: signatures are checked by aws-lc and webpki. Never panics on any input.

/// A value: tag, content, and both with the length between them.
#[derive(Clone, Copy)]
struct Value<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// The first value, and what follows it.
fn split(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Five bytes of length are more than any file has.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let whole = bytes.get(..bytes.len() - rest.len())?;
    Some((Value { tag, content, whole }, rest))
}

/// The one value that all bytes are.
fn only(bytes: &[u8], tag: u8) -> Option<Value<'_>> {
    split(bytes).filter(|(value, rest)| value.tag == tag && rest.is_empty()).map(|(value, _)| value)
}

/// Takes the next value off, if it has this tag.
fn take<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<Value<'a>> {
    let (value, rest) = split(bytes).filter(|(value, _)| value.tag == tag)?;
    *bytes = rest;
    Some(value)
}

/// What a public key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// With the bits of its modulus.
    Rsa(usize),
    RsaPss,
    P256,
    P384,
    P521,
    Ed25519,
    Ed448,
    X25519,
    Other,
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyKind::Rsa(bits) => write!(f, "an RSA key of {bits} bits"),
            KeyKind::RsaPss => f.write_str("an RSA-PSS key"),
            KeyKind::P256 => f.write_str("a P-256 key"),
            KeyKind::P384 => f.write_str("a P-384 key"),
            KeyKind::P521 => f.write_str("a P-521 key"),
            KeyKind::Ed25519 => f.write_str("an Ed25519 key"),
            KeyKind::Ed448 => f.write_str("an Ed448 key"),
            KeyKind::X25519 => f.write_str("an X25519 key"),
            KeyKind::Other => f.write_str("a key of another kind"),
        }
    }
}

/// A public key, and its bytes as aws-lc takes them: PKCS #1 for RSA, the point for curves.
pub(crate) struct PublicKey<'a> {
    pub(crate) kind: KeyKind,
    pub(crate) bytes: &'a [u8],
}

/// Of a SubjectPublicKeyInfo.
pub(crate) fn public_key(spki: &[u8]) -> Option<PublicKey<'_>> {
    let mut inside = only(spki, SEQUENCE)?.content;
    let mut algorithm = take(&mut inside, SEQUENCE)?.content;
    let bits = take(&mut inside, BIT_STRING).filter(|_| inside.is_empty())?;
    let (0, bytes) = bits.content.split_first().map(|(unused, bytes)| (*unused, bytes))? else { return None };
    let identifier = take(&mut algorithm, OBJECT)?.content;
    let curve = take(&mut algorithm, OBJECT).map(|curve| curve.content);
    let kind = match (identifier, curve) {
        ([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1], _) => KeyKind::Rsa(modulus_bits(bytes)?),
        ([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10], _) => KeyKind::RsaPss,
        ([0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], Some([0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7])) => KeyKind::P256,
        ([0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], Some([0x2b, 0x81, 4, 0, 34])) => KeyKind::P384,
        ([0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], Some([0x2b, 0x81, 4, 0, 35])) => KeyKind::P521,
        ([0x2b, 0x65, 110], _) => KeyKind::X25519,
        ([0x2b, 0x65, 112], _) => KeyKind::Ed25519,
        ([0x2b, 0x65, 113], _) => KeyKind::Ed448,
        _ => KeyKind::Other,
    };
    Some(PublicKey { kind, bytes })
}

/// Of an RSAPublicKey (PKCS #1).
pub(crate) fn rsa_public_key(pkcs1: &[u8]) -> Option<PublicKey<'_>> {
    Some(PublicKey { kind: KeyKind::Rsa(modulus_bits(pkcs1)?), bytes: pkcs1 })
}

fn modulus_bits(pkcs1: &[u8]) -> Option<usize> {
    let mut inside = only(pkcs1, SEQUENCE)?.content;
    let modulus = take(&mut inside, INTEGER)?.content;
    take(&mut inside, INTEGER).filter(|_| inside.is_empty())?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let (first, rest) = modulus.get(zeros..)?.split_first()?;
    Some(rest.len() * 8 + (8 - first.leading_zeros() as usize))
}

/// What a certificate says of itself.
pub(crate) struct Certificate<'a> {
    /// Names in DER, to be compared.
    pub(crate) issuer: &'a [u8],
    pub(crate) subject: &'a [u8],
    /// Unix seconds, both within it.
    pub(crate) begins: i64,
    pub(crate) ends: i64,
    /// The key, as SubjectPublicKeyInfo.
    pub(crate) spki: &'a [u8],
    /// DNS names and addresses that it is for.
    pub(crate) names: Vec<String>,
}

impl<'a> Certificate<'a> {
    /// None if it is damaged.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Certificate<'a>> {
        let mut signed = only(der, SEQUENCE)?.content;
        let mut inside = take(&mut signed, SEQUENCE)?.content;
        take(&mut signed, SEQUENCE)?;
        take(&mut signed, BIT_STRING).filter(|_| signed.is_empty())?;
        // The version is left out where it is 1.
        take(&mut inside, 0xa0);
        take(&mut inside, INTEGER)?;
        take(&mut inside, SEQUENCE)?;
        let issuer = take(&mut inside, SEQUENCE)?.whole;
        let mut validity = take(&mut inside, SEQUENCE)?.content;
        let subject = take(&mut inside, SEQUENCE)?.whole;
        let spki = take(&mut inside, SEQUENCE)?.whole;
        let begins = time(&mut validity)?;
        let ends = time(&mut validity)?;
        let mut names = Vec::new();
        while let Some((value, rest)) = split(inside) {
            inside = rest;
            if value.tag == 0xa3 {
                names = alternative_names(value.content)?;
            }
        }
        inside.is_empty().then_some(Certificate { issuer, subject, begins, ends, spki, names })
    }
}

/// The extension subjectAltName among the extensions.
fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut extensions = only(extensions, SEQUENCE)?.content;
    let mut names = Vec::new();
    while let Some(extension) = take(&mut extensions, SEQUENCE) {
        let mut extension = extension.content;
        let identifier = take(&mut extension, OBJECT)?.content;
        if identifier != [0x55, 0x1d, 17] {
            continue;
        }
        // Whether it is critical.
        take(&mut extension, 0x01);
        let mut list = only(take(&mut extension, OCTET_STRING)?.content, SEQUENCE)?.content;
        while let Some((name, rest)) = split(list) {
            list = rest;
            match (name.tag, name.content) {
                (0x82, text) => names.push(printable(text)),
                (0x87, bytes) => {
                    let four = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
                    let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from));
                    names.extend(address.map(|address| address.to_string()));
                }
                _ => {}
            }
        }
    }
    extensions.is_empty().then_some(names)
}

/// A name (SEQUENCE of SETs) as people know it: its common name, or the organisation.
pub(crate) fn name_text(name: &[u8]) -> String {
    let attributes = || {
        let mut sets = only(name, SEQUENCE).map_or(&[][..], |name| name.content);
        std::iter::from_fn(move || {
            let mut attribute = split(take(&mut sets, SET)?.content)?.0.content;
            let identifier = take(&mut attribute, OBJECT)?.content;
            Some((identifier, split(attribute)?.0.content))
        })
    };
    let of =
        |wanted: &[u8]| attributes().find(|(identifier, _)| *identifier == wanted).map(|(_, text)| printable(text));
    of(&[0x55, 4, 3]).or_else(|| of(&[0x55, 4, 10])).unwrap_or_else(|| "(no name)".to_owned())
}

/// Text for messages: bounded, without what would drive a terminal.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().take(128).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Unix seconds of a UTCTime or GeneralizedTime; RFC 5280 wants seconds and UTC in both.
fn time(bytes: &mut &[u8]) -> Option<i64> {
    let (value, rest) = split(bytes)?;
    *bytes = rest;
    let text = value.content.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let (year, text) = match (value.tag, text.len()) {
        (UTC_TIME, 12) => {
            let year = number(text.get(..2)?);
            (year + if year < 50 { 2000 } else { 1900 }, text.get(2..)?)
        }
        (GENERALIZED_TIME, 14) => (number(text.get(..4)?), text.get(4..)?),
        _ => return None,
    };
    let mut pairs = text.chunks(2).map(number);
    let mut next = |range: std::ops::RangeInclusive<i64>| pairs.next().filter(|value| range.contains(value));
    let (month, day) = (next(1..=12)?, next(1..=31)?);
    let (hour, minute, second) = (next(0..=23)?, next(0..=59)?, next(0..=60)?);
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit.wrapping_sub(b'0')))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// "2026-11-30 12:00:00 UTC" of Unix seconds.
pub(crate) fn time_text(unix_seconds: i64) -> String {
    let (days, seconds) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms_and_shown() {
        let read = |tag: u8, text: &str| time(&mut &[&[tag, text.len() as u8], text.as_bytes()].concat()[..]);
        for (tag, text, wanted) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20240229120000Z", Some(1_709_208_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "700101000000", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "7001010000Z", None),
            (GENERALIZED_TIME, "2024022912000x", None),
            (INTEGER, "700101000000Z", None),
        ] {
            assert_eq!(read(tag, text), wanted, "{text}");
        }
        assert_eq!(time_text(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time_text(1_709_208_061), "2024-02-29 12:01:01 UTC");
        assert_eq!(time_text(253_402_300_799), "9999-12-31 23:59:59 UTC");
        assert_eq!(time_text(-1), "1969-12-31 23:59:59 UTC");
    }

    #[test]
    fn certificate_cut_or_changed_anywhere_then_no_panic() {
        let mut parameters =
            rcgen::CertificateParams::new(vec!["a.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "name\u{1b}");
        let pair = rcgen::KeyPair::generate().unwrap();
        let der = parameters.self_signed(&pair).unwrap().der().to_vec();
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(certificate.names, ["a.example", "10.0.0.1"]);
        assert_eq!(certificate.issuer, certificate.subject);
        assert_eq!(name_text(certificate.subject), "name\u{fffd}");
        assert_eq!(public_key(certificate.spki).unwrap().kind, KeyKind::P256);
        for end in 0..der.len() {
            assert!(Certificate::parse(&der[..end]).is_none(), "cut at {end}");
            for byte in [0, 0x30, 0x84, 0xff] {
                let mut changed = der.clone();
                changed[end] = byte;
                if let Some(certificate) = Certificate::parse(&changed) {
                    name_text(certificate.issuer);
                    public_key(certificate.spki);
                }
            }
        }
    }
}

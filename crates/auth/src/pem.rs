//! PEM files (RFC 7468), read so that nothing in them goes unseen.
//!
//! Every `-----BEGIN` counts, wherever it stands: behind a byte order mark, indented, or on the line that ends the section
//! before it. Readers that want it at the start of a line leave such a section out without a word, and the next certificate
//! is taken for the first. What is not what was asked for is named as what it is. Decoded bytes are wiped when dropped.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Padding is sometimes left out by hand.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const BEGIN: &str = "-----BEGIN ";

/// One section of a file.
pub(crate) struct Section {
    /// What stands between `-----BEGIN ` and `-----`.
    pub(crate) label: String,
    /// Its content; empty where it is encrypted.
    pub(crate) der: Zeroizing<Vec<u8>>,
    encrypted: bool,
}

/// Whether bytes are, or hold, PEM.
pub(crate) fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes())
}

/// All sections of a file, in its order. The error says which one is damaged, or what the file is instead.
pub(crate) fn sections(bytes: &[u8]) -> Result<Vec<Section>, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("is text in UTF-16; save it as UTF-8".to_owned());
    }
    // What stands around sections may be in any encoding; sections themselves are ASCII.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len()));
    text.extend(bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }));
    let mut sections = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let number = sections.len() + 1;
        let damaged = |label: &str, why: &str| format!("section {number} ({label}) is damaged: {why}");
        let (label, after) = after
            .split_once("-----")
            .filter(|(label, _)| !label.contains('\n'))
            .ok_or_else(|| damaged("?", "its first line has no end"))?;
        let end = format!("-----END {label}-----");
        let (body, after) =
            after.split_once(end.as_str()).ok_or_else(|| damaged(label, &format!("{end} is missing")))?;
        if body.contains(BEGIN) {
            return Err(damaged(label, &format!("{end} is missing")));
        }
        let (headers, body) = split_headers(body);
        let encrypted = label == "ENCRYPTED PRIVATE KEY" || headers.contains("ENCRYPTED");
        // With room for all of it: what grows leaves copies behind that nobody wipes.
        let mut digits = Zeroizing::new(String::with_capacity(body.len()));
        digits.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
        let mut der = Zeroizing::new(vec![0; base64::decoded_len_estimate(digits.len())]);
        let length = BASE64.decode_slice(digits.as_bytes(), &mut der);
        der.truncate(length.map_err(|_| damaged(label, "it is not base64"))?);
        sections.push(Section { label: label.to_owned(), der, encrypted });
        rest = after;
    }
    if sections.is_empty() && bytes.first() == Some(&0x30) && bytes.contains(&0) {
        return Err("is binary (DER or PKCS #12), not PEM; convert it with openssl".to_owned());
    }
    Ok(sections)
}

/// Header lines of the old kind ("Proc-Type: 4,ENCRYPTED"), and what follows them.
fn split_headers(body: &str) -> (&str, &str) {
    let is_header = |line: &str| line.contains(':');
    let lines = body.trim_start_matches(['\r', '\n']);
    if !lines.lines().next().is_some_and(is_header) {
        return ("", body);
    }
    // Headers end with an empty line.
    let end = ["\r\n\r\n", "\n\n"].iter().filter_map(|gap| lines.find(gap)).min().unwrap_or(lines.len());
    lines.split_at(end)
}

/// The first private key of a file that can be used, or what there is instead of one.
pub(crate) fn private_key(bytes: &[u8]) -> Result<Section, String> {
    let mut labels = Vec::new();
    for section in sections(bytes)? {
        match section.label.as_str() {
            _ if section.encrypted => {
                return Err("is encrypted, and nobody is there to be asked for the passphrase; decrypt it with \
                            `openssl pkey -in FILE -out PLAIN`"
                    .to_owned());
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => return Ok(section),
            "OPENSSH PRIVATE KEY" => {
                return Err("is an OpenSSH key; give a PKCS #8 key in PEM form (-----BEGIN PRIVATE KEY-----), as \
                            openssl makes them"
                    .to_owned());
            }
            label => labels.push(label.to_owned()),
        }
    }
    labels.dedup();
    Err(match labels.as_slice() {
        [] => "holds no private key in PEM form".to_owned(),
        labels => format!("holds no private key in PEM form, but {}", labels.join(", ")),
    })
}

/// All certificates of a file, the first of which is the server's.
pub(crate) fn certificates(bytes: &[u8]) -> Result<Vec<Section>, String> {
    let mut labels = Vec::new();
    let mut certificates = Vec::new();
    for section in sections(bytes)? {
        match section.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" => certificates.push(section),
            "TRUSTED CERTIFICATE" => {
                return Err("holds a TRUSTED CERTIFICATE, which is openssl's own form; convert it with \
                            `openssl x509 -in FILE -out PLAIN`"
                    .to_owned());
            }
            label => labels.push(label.to_owned()),
        }
    }
    labels.dedup();
    match labels.as_slice() {
        _ if !certificates.is_empty() => Ok(certificates),
        [] => Err("holds no certificate in PEM form".to_owned()),
        labels => Err(format!("holds no certificate in PEM form, but {}", labels.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &[u8]) -> Vec<(String, Vec<u8>)> {
        let sections = sections(text).unwrap_or_else(|error| panic!("{error}"));
        sections.into_iter().map(|section| (section.label, section.der.to_vec())).collect()
    }

    #[test]
    fn section_behind_mark_blanks_or_another_sections_end_then_it_is_seen() {
        let one = "-----BEGIN A-----\nAQID\n-----END A-----";
        let two = "-----BEGIN B C-----\r\nBAU\r\n-----END B C-----\r\n";
        let wanted = [("A".to_owned(), vec![1, 2, 3]), ("B C".to_owned(), vec![4, 5])];
        for text in [
            format!("{one}\n{two}"),
            format!("{one}{two}"),
            format!("\u{feff}{one}\n\u{feff}{two}"),
            format!("  {one}\n\t{two}"),
            format!("subject=/CN=x\n{one}\nissuer: y\n{two}trailing words"),
        ] {
            assert_eq!(labels(text.as_bytes()), wanted, "{text:?}");
        }
        assert!(labels(b"").is_empty() && labels(b"nothing").is_empty());
        let in_latin_1 = [b"caf\xe9\n", one.as_bytes()].concat();
        assert_eq!(labels(&in_latin_1), wanted[..1]);
    }

    #[test]
    fn section_damaged_then_the_error_says_which() {
        for (text, wanted) in [
            ("-----BEGIN A-----\nAQID\n-----END A-----\n-----BEGIN B-----\nA*QI\n-----END B-----", "section 2 (B)"),
            ("-----BEGIN A-----\nAQID\n", "section 1 (A) is damaged: -----END A----- is missing"),
            ("-----BEGIN A-----\nAQID\n-----BEGIN A-----\nAQID\n-----END A-----", "-----END A----- is missing"),
            ("-----BEGIN A\nAQID", "its first line has no end"),
            ("\u{0}0", ""),
        ] {
            match sections(text.as_bytes()) {
                Ok(sections) => assert!(wanted.is_empty() && sections.is_empty(), "{text:?}"),
                Err(error) => assert!(error.contains(wanted), "{text:?} gives {error}"),
            }
        }
        assert!(sections(&[0xff, 0xfe, b'-', 0]).err().unwrap().contains("UTF-16"));
        assert!(sections(&[0x30, 0x82, 1, 0, 2]).err().unwrap().contains("DER"));
    }

    #[test]
    fn key_of_another_kind_then_it_is_named() {
        let section = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        let old = section("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAQID");
        for (text, wanted) in [
            (old, "is encrypted"),
            (section("ENCRYPTED PRIVATE KEY", "AQID"), "is encrypted"),
            (section("OPENSSH PRIVATE KEY", "AQID"), "OpenSSH"),
            (section("PUBLIC KEY", "AQID"), "no private key in PEM form, but PUBLIC KEY"),
            ("garbage".to_owned(), "holds no private key in PEM form"),
        ] {
            let error = private_key(text.as_bytes()).err().unwrap();
            assert!(error.contains(wanted), "{text} gives {error}");
        }
        let after_parameters = section("EC PARAMETERS", "AQID") + &section("EC PRIVATE KEY", "BAUG");
        assert_eq!(*private_key(after_parameters.as_bytes()).unwrap().der, [4, 5, 6]);
        assert!(certificates(section("TRUSTED CERTIFICATE", "AQID").as_bytes()).err().unwrap().contains("openssl"));
        assert!(certificates(section("PRIVATE KEY", "AQID").as_bytes()).err().unwrap().contains("but PRIVATE KEY"));
    }
}

//! Certificates and chains of certificates, good and bad.

use std::path::PathBuf;

use super::*;

/// A folder of a test, removed when dropped.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn new(name: &str) -> Files {
        let folder = std::env::temp_dir().join(format!("ringgate-certificate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Files { folder }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Issues certificates: those of tests, for a name, between two years.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

fn parameters(name: &str, years: (i32, i32), is_ca: bool) -> rcgen::CertificateParams {
    let names = if is_ca { Vec::new() } else { vec![name.to_owned()] };
    let mut parameters = rcgen::CertificateParams::new(names).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    parameters.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    if is_ca {
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    parameters
}

impl Authority {
    fn root(name: &str) -> Authority {
        let pair = rcgen::KeyPair::generate().unwrap();
        Authority(rcgen::CertifiedIssuer::self_signed(parameters(name, (2000, 2100), true), pair).unwrap())
    }

    fn intermediate(&self, name: &str) -> Authority {
        let pair = rcgen::KeyPair::generate().unwrap();
        Authority(rcgen::CertifiedIssuer::signed_by(parameters(name, (2000, 2100), true), pair, &self.0).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate and its key.
    fn issue(&self, name: &str, years: (i32, i32)) -> (String, String) {
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters(name, years, false).signed_by(&pair, &self.0).unwrap();
        (certificate.pem(), pair.serialize_pem())
    }
}

/// 2026-06-01.
const NOW: i64 = 1_780_272_000;

/// What is said of a certificate's file, with the key that belongs to it.
fn judged(files: &Files, chain: impl AsRef<[u8]>, key: &str, names: &[&str]) -> Result<Vec<String>, CertificateError> {
    let (certificate_path, key_path) = (files.folder.join("chain.pem"), files.folder.join("chain.key"));
    std::fs::write(&certificate_path, chain).unwrap();
    std::fs::write(&key_path, key).unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).try_into().unwrap()).collect();
    load(&certificate_path, &key_path, &names, NOW).map(|loaded| loaded.warnings)
}

#[test]
fn intermediate_ends_first_then_the_end_is_that_of_the_servers_certificate() {
    let files = Files::new("ends");
    let pair = rcgen::KeyPair::generate().unwrap();
    let root = Authority::root("Root");
    let short = rcgen::CertifiedIssuer::signed_by(parameters("Middle", (2000, 2027), true), pair, &root.0).unwrap();
    let short = Authority(short);
    let (leaf, key) = short.issue("im.example.org", (2026, 2028));
    let chain = leaf + &short.pem();
    let (certificate_path, key_path) = (files.folder.join("chain.pem"), files.folder.join("chain.key"));
    std::fs::write(&certificate_path, &chain).unwrap();
    std::fs::write(&key_path, key).unwrap();
    // 2028-01-01.
    let when = 1_830_297_600;
    assert_eq!(load(&certificate_path, &key_path, &[], NOW).map(|loaded| loaded.ends).unwrap(), when);
    assert_eq!(ends(chain.as_bytes()), Some(when));
}

#[test]
fn certificate_that_clients_may_refuse_then_a_warning_says_why() {
    let files = Files::new("judged");
    let root = Authority::root("Root");
    let middle = root.intermediate("Middle");
    // Of the same name, and with another key.
    let (impostor, other) = (root.intermediate("Middle"), Authority::root("Other"));
    let (leaf, key) = middle.issue("im.example.org", (2026, 2027));
    let (old, old_key) = middle.issue("im.example.org", (2020, 2026));
    let (early, early_key) = middle.issue("im.example.org", (2027, 2028));
    let (of_root, key_of_root) = root.issue("im.example.org", (2026, 2027));
    let join = |parts: &[&str]| parts.concat();
    let (middle, root, impostor, other) = (middle.pem(), root.pem(), impostor.pem(), other.pem());
    for (chain, key, names, wanted) in [
        (join(&[&leaf, &middle]), &key, &["im.example.org"][..], &[][..]),
        (join(&[&leaf, &middle, &root]), &key, &["im.example.org"], &[]),
        // A root that clients know need not be sent, but nobody can see that it is one.
        (join(&[&of_root]), &key_of_root, &[], &["holds one certificate, issued by Root"]),
        (join(&[&leaf]), &key, &[], &["holds one certificate, issued by Middle"]),
        (
            join(&[&leaf, &root, &middle]),
            &key,
            &[],
            &["gap after certificate 1: that was issued by Middle, and the next one is Root"],
        ),
        (join(&[&leaf, &other]), &key, &[], &["gap after certificate 1", "next one is Other"]),
        (join(&[&leaf, &middle, &other]), &key, &[], &["gap after certificate 2"]),
        (join(&[&leaf, &impostor]), &key, &[], &["is no chain from its first certificate to its last"]),
        (join(&[&old, &middle]), &old_key, &[], &["has expired", "(im.example.org) ended 2026-01-01 00:00:00 UTC"]),
        (join(&[&early, &middle]), &early_key, &[], &["is not valid yet", "begins 2027-01-01", "clock"]),
        (
            join(&[&leaf, &middle]),
            &key,
            &["im.example.org", "example.org", "10.0.0.1"],
            &["is not for example.org, which tls.names has; it is for im.example.org", "is not for 10.0.0.1"],
        ),
    ] {
        let warnings = judged(&files, &chain, key, names).unwrap();
        let shown = warnings.join("\n");
        assert_eq!(warnings.is_empty(), wanted.is_empty(), "{shown}");
        for wanted in wanted {
            assert!(shown.contains(wanted), "{shown} instead of {wanted}");
        }
    }
    let (certificate, key) = dev_certificate().unwrap();
    assert_eq!(judged(&files, certificate, &key, &["localhost", "127.0.0.1"]).unwrap(), Vec::<String>::new());
    let pair = rcgen::KeyPair::generate().unwrap();
    let nameless = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&pair).unwrap();
    let warnings = judged(&files, nameless.pem(), &pair.serialize_pem(), &["a"]).unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("names no host in subjectAltName"), "{warnings:?}");
}

#[test]
fn file_with_marks_or_without_line_breaks_then_the_first_certificate_stays_the_first() {
    let files = Files::new("marks");
    let root = Authority::root("Root");
    let (leaf, key) = root.issue("im.example.org", (2026, 2027));
    for chain in [
        format!("\u{feff}{leaf}{}", root.pem()),
        format!("\u{feff}{leaf}\u{feff}{}", root.pem()),
        format!("{}{}", leaf.trim_end(), root.pem()),
        format!("  {leaf}{}", root.pem()),
    ] {
        assert_eq!(judged(&files, &chain, &key, &["im.example.org"]).unwrap(), Vec::<String>::new(), "{chain}");
        assert_eq!(judged(&files, &chain, &format!("\u{feff}{key}"), &[]).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn chain_damaged_then_it_is_blamed_and_not_the_key() {
    let files = Files::new("damaged");
    let root = Authority::root("Root");
    let (leaf, key) = root.issue("im.example.org", (2026, 2027));
    let root = root.pem();
    let cut = |pem: &str| {
        let lines: Vec<_> = pem.lines().collect();
        [&lines[..2], &lines[4..]].concat().join("\n")
    };
    for (chain, wanted) in [
        (format!("{leaf}{}", root.replace("MII", "M*I")), "section 2 (CERTIFICATE) is damaged: it is not base64"),
        (format!("{leaf}{}", cut(&root)), "certificate 2 of it cannot be read"),
        (format!("{}\n{root}", cut(&leaf)), "certificate 1 of it cannot be read"),
        (leaf.replace("-----END CERTIFICATE-----", ""), "-----END CERTIFICATE----- is missing"),
    ] {
        match judged(&files, &chain, &key, &[]) {
            Err(CertificateError::Certificate(text)) => assert!(text.contains(wanted), "{text}"),
            other => panic!("{wanted}: {other:?}"),
        }
    }
    for (key, wanted) in [
        (cut(&key), "cannot be used"),
        (key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "is encrypted"),
        (key.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY"), "is an OpenSSH key"),
        (leaf.clone(), "holds no private key in PEM form, but CERTIFICATE"),
    ] {
        match judged(&files, &leaf, &key, &[]) {
            Err(CertificateError::Key(text)) => assert!(text.contains(wanted), "{text}"),
            other => panic!("{wanted}: {other:?}"),
        }
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let directory = std::env::temp_dir().join(format!("ringgate-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (certificate, _) = dev_certificate().unwrap();
    let (_, key) = dev_certificate().unwrap();
    let (certificate_path, key_path) = (directory.join("c.pem"), directory.join("k.pem"));
    std::fs::write(&certificate_path, certificate).unwrap();
    std::fs::write(&key_path, key).unwrap();
    let Err(CertificateError::Key(text)) = certificate_from_files(&certificate_path, &key_path) else {
        panic!("accepted a key that does not match");
    };
    assert!(text.contains("does not belong to the certificate"), "{text}");
    let Err(CertificateError::Certificate(text)) = certificate_from_files(&key_path, &key_path) else {
        panic!("accepted a key as a certificate");
    };
    assert!(text.contains("no certificate"), "{text}");
    std::fs::remove_dir_all(&directory).unwrap();
}

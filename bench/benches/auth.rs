//! Verifying a token through `auth::Keys`: what a sign-in costs beside the sockets.
//!
//! `Authenticator::cost` budgets with these figures.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;

use criterion::BenchmarkId;
use ringgate_auth::{Algorithm, Claims, Key, Keys, Signer, TokenSpec};
use ringgate_core::session::Authenticator;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of more than thirty-two bytes for benches";

fn main() {
    let mut criterion = support::settings();
    let mut group = criterion.benchmark_group("auth verify");
    for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::EdDSA, Algorithm::ES256] {
        let (signer, key) = pair(algorithm);
        let keys = Keys::new(vec![key], Claims { require_exp: true, ..Claims::default() });
        let spec = TokenSpec {
            user: "user-123456".into(),
            device: Some("phone".into()),
            issued_at: NOW,
            ttl_seconds: 3600,
            rooms: vec!["chat:*".into()],
        };
        let token = signer.sign(&spec).expect("the key signs");
        assert_eq!(keys.verify(&token, NOW).expect("the token is good").user, "user-123456");
        let bits = if algorithm == Algorithm::RS256 { " (2048 bits)" } else { "" };
        group.bench_function(BenchmarkId::from_parameter(format!("{algorithm:?}{bits}")), |bencher| {
            bencher.iter(|| keys.verify(black_box(&token), NOW));
        });
    }
    group.finish();
    criterion.final_summary();
}

fn pair(algorithm: Algorithm) -> (Signer, Key) {
    let kind = match algorithm {
        Algorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
        Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Algorithm::EdDSA => &rcgen::PKCS_ED25519,
        _ => {
            let signer = Signer::from_key(SECRET, Some(algorithm), Some("k")).expect("a secret");
            return (signer, Key::secret(Some("k".into()), algorithm, SECRET).expect("a secret"));
        }
    };
    let pair = rcgen::KeyPair::generate_for(kind).expect("a key can be made");
    let signer = Signer::from_key(pair.serialize_pem().as_bytes(), Some(algorithm), Some("k")).expect("a private key");
    let public = Key::public(Some("k".into()), algorithm, pair.public_key_pem().as_bytes()).expect("a public key");
    (signer, public)
}

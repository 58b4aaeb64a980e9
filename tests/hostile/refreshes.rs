//! Signed-in clients that have tokens verified all the time: the dearest thing that a client can ask for.

use std::io::Write;
use std::time::Instant;

use jsonwebtoken::{Algorithm, EncodingKey};
use ringgate_core::wire::Encoder;
use serde_json::json;

use crate::support::{Gateway, LISTENERS, Login, TempFolder, claims_token, unix_seconds};

const CLIENTS: usize = 150;
const REFRESHES: u32 = 100;

#[test]
fn clients_flood_with_refreshes_of_bad_signatures_then_others_still_sign_in() {
    let folder = TempFolder::new();
    let [key, other] = [(), ()].map(|()| rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap());
    let public = folder.write("public.pem", key.public_key_pem());
    let gateway = Gateway::toml(&format!(
        "{LISTENERS}[[token.keys]]\nalgorithm = \"ES256\"\npublic_key_file = \"{}\"\n[client]\nmessages_rate = 0\n",
        public.display()
    ));
    let token = |key: &rcgen::KeyPair, user: &str| {
        let claims = json!({ "sub": user, "exp": unix_seconds() + 3600 });
        claims_token(Algorithm::ES256, None, &EncodingKey::from_ec_der(&key.serialize_der()), &claims)
    };
    let mut flooders: Vec<_> = (0..CLIENTS)
        .map(|number| gateway.sign_in_with(&Login::token(token(&key, &format!("flooder{number}")))))
        .collect();
    let bad = token(&other, "flooder0");
    let mut flood = Vec::new();
    let mut encoder = Encoder::default();
    for request in 1..=REFRESHES {
        encoder.refresh(&mut flood, request, &bad);
    }
    for flooder in &mut flooders {
        // What the gateway does not take now it takes later: the rest is of no interest.
        flooder.socket().set_nonblocking(true).unwrap();
        let _ = flooder.socket().write(&flood);
    }
    let began = Instant::now();
    for number in 0..10 {
        gateway.sign_in_with(&Login::token(token(&key, &format!("late{number}"))));
    }
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    assert!(gateway.sum_all(|m| &m.auth_failed) > 0, "nothing was flooded");
    drop(flooders);
    gateway.finish();
}

//! Settings of a file, as clients meet them: the right to publish.

use jsonwebtoken::{Algorithm, EncodingKey};
use ringgate_core::close::ErrorCode;
use ringgate_core::wire::encode::PublishRequest;
use serde_json::json;

use crate::support::{Client, Gateway, LISTENERS, Login, claims_token, unix_seconds};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn gateway(toml: &str) -> Gateway {
    Gateway::toml(&format!("{LISTENERS}[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n{toml}"))
}

/// A token whose `rooms` grants publishing to these, and nothing else.
fn may_publish(user: &str, topics: &[&str]) -> Login {
    let claims = json!({ "sub": user, "exp": unix_seconds() + 3600, "rooms": { "publish": topics } });
    Login::token(claims_token(Algorithm::HS256, None, &EncodingKey::from_secret(SECRET.as_bytes()), &claims))
}

/// The code of the refusal, if it is one.
fn publish(client: &mut Client, topic: &str) -> Result<(), u16> {
    let publish = PublishRequest { topic, payload: b"hi", ..PublishRequest::default() };
    client.try_publish(publish).map(|_| ()).map_err(|refusal| refusal.code)
}

#[test]
fn inbox_publish_token_then_only_granted_users_are_written_to() {
    let gateway = gateway("[inbox]\npublish = \"token\"\n");
    let mut bob = gateway.sign_in_with(&may_publish("bob", &[]));
    let mut alice = gateway.sign_in_with(&may_publish("alice", &["@bob"]));
    assert_eq!(publish(&mut alice, "@carol"), Err(103));
    assert_eq!(publish(&mut bob, "@alice"), Err(103));
    assert_eq!(publish(&mut alice, "@bob"), Ok(()));
    assert_eq!(bob.texts(1), ["hi"]);
    let stored = gateway.sum(|m| &m.messages_published);
    assert_eq!((gateway.refusals(ErrorCode::PermissionDenied), stored), (2, 1));
    gateway.finish();
}

#[test]
fn namespace_publish_token_then_only_granted_members_publish() {
    let gateway = gateway("[[namespaces]]\nname = \"news\"\npublish = \"token\"\n[[namespaces]]\nname = \"chat\"\n");
    let mut bob = gateway.sign_in_with(&may_publish("bob", &[]));
    let mut alice = gateway.sign_in_with(&may_publish("alice", &["news:a"]));
    for room in ["news:a", "news:b", "chat:a"] {
        bob.subscribe(room);
        alice.subscribe(room);
    }
    assert_eq!((publish(&mut bob, "news:a"), publish(&mut alice, "news:b")), (Err(103), Err(103)));
    // The other namespace lets everybody publish.
    assert_eq!((publish(&mut bob, "chat:a"), publish(&mut alice, "news:a")), (Ok(()), Ok(())));
    assert_eq!((bob.texts(2).len(), alice.texts(2).len()), (2, 2));
    assert_eq!(gateway.refusals(ErrorCode::PermissionDenied), 2);
    gateway.finish();
}

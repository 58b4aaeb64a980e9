//! `index.json`: what each vector holds, and whether the index is complete.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ringgate_core::wire::Kind;
use serde_json::Value;

/// One vector.
pub(crate) struct Vector {
    pub(crate) file: String,
    pub(crate) bytes: Vec<u8>,
    /// The object of the index.
    pub(crate) entry: Value,
}

impl Vector {
    pub(crate) fn text(&self, key: &str) -> &str {
        self.entry[key].as_str().unwrap_or_default()
    }

    pub(crate) fn fields(&self) -> &Value {
        &self.entry["fields"]
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.entry["kind"].as_u64()? as u8)
    }
}

/// Every vector whose file name begins so.
pub(crate) fn vectors(prefix: &str) -> Vec<Vector> {
    let vectors: Vec<Vector> = read().into_iter().filter(|vector| vector.file.starts_with(prefix)).collect();
    assert!(!vectors.is_empty());
    vectors
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/vectors"))
}

fn read() -> Vec<Vector> {
    let text = std::fs::read_to_string(folder().join("index.json")).expect("index.json");
    let Value::Array(entries) = serde_json::from_str(&text).expect("JSON") else { panic!("an array") };
    let vector = |entry: Value| {
        let file = entry["file"].as_str().expect("a file").to_owned();
        let bytes = std::fs::read(folder().join(&file)).expect("the vector's file");
        Vector { file, bytes, entry }
    };
    entries.into_iter().map(vector).collect()
}

#[test]
fn names_every_file_once() {
    let listed: Vec<String> = read().into_iter().map(|vector| vector.file).collect();
    let distinct: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), distinct.len(), "a file is listed twice");
    let there: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.ends_with(".bin"))
        .collect();
    assert_eq!(distinct, there);
}

/// Every kind in each direction that it travels in, as the smallest, an ordinary and the largest frame, where the
/// kind has fields at all.
#[test]
fn covers_every_kind_of_the_wire() {
    let all = read();
    let cases = |kind: Kind, direction: &str| -> BTreeSet<&str> {
        all.iter()
            .filter(|vector| vector.kind() == Some(kind) && vector.text("direction") == direction)
            .map(|vector| vector.text("case"))
            .filter(|case| *case != "malformed")
            .collect()
    };
    for kind in Kind::ALL {
        let directions: &[&str] = match kind {
            Kind::Ping => &["client", "gateway"],
            kind if (*kind as u8) < 128 => &["client"],
            _ => &["gateway"],
        };
        let empty = matches!(kind, Kind::Ping | Kind::Pong | Kind::ClientPong | Kind::Disconnect);
        let wanted: &[&str] = if empty { &["minimal"] } else { &["maximal", "minimal", "typical"] };
        for direction in ["client", "gateway"] {
            let wanted = if directions.contains(&direction) { wanted } else { &[] };
            assert!(cases(*kind, direction).into_iter().eq(wanted.iter().copied()), "{kind:?} of a {direction}");
        }
    }
}

#[test]
fn agrees_with_the_headers() {
    for vector in read() {
        assert_eq!(vector.entry["kind"].as_u64(), vector.bytes.get(4).copied().map(u64::from), "{}", vector.file);
        let named =
            vector.kind().map(|kind| if kind == Kind::ClientPong { "Pong".into() } else { format!("{kind:?}") });
        assert_eq!(vector.entry["name"].as_str(), named.as_deref(), "{}", vector.file);
    }
}

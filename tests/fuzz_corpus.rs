//! Replays the inputs of the fuzz targets through the targets' own code, without a fuzzer: what was found once stays
//! found. `fuzz/run` looks for more.

#[path = "../fuzz/src/bodies.rs"]
mod bodies;
#[cfg(feature = "gateway")]
#[path = "../fuzz/src/records.rs"]
mod records;
#[path = "../fuzz/src/world.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod world;

use std::path::{Path, PathBuf};

#[test]
fn frame() {
    replay(&["fuzz/corpus/frame", "schemas/vectors"], bodies::frame);
}

#[test]
fn shard() {
    replay(&["fuzz/corpus/shard"], bodies::shard);
}

#[cfg(feature = "gateway")]
#[test]
fn records() {
    replay(&["fuzz/corpus/records"], records::records);
}

fn replay(folders: &[&str], body: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut replayed = 0;
    for folder in folders {
        let entries = std::fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        for file in files {
            let bytes = std::fs::read(&file).expect("an input");
            if let Err(panic) = std::panic::catch_unwind(|| body(&bytes)) {
                eprintln!("the input was {}", file.display());
                std::panic::resume_unwind(panic);
            }
            replayed += 1;
        }
    }
    assert!(replayed >= 60, "{replayed} inputs: the corpus is not there");
}

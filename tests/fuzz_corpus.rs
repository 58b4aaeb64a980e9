//! Replays the inputs of the fuzz targets through the targets' own code, without a fuzzer: what was found once stays
//! found. `fuzz/run` looks for more.

#[path = "../fuzz/src/connections.rs"]
mod connections;
#[path = "../fuzz/src/json.rs"]
mod json;
#[path = "../fuzz/src/proxy.rs"]
mod proxy;
#[path = "../fuzz/src/records.rs"]
mod records;

use std::path::{Path, PathBuf};

use ringgate_sim::{Random, bodies};

#[test]
fn corpus_of_frames_is_replayed_then_no_panic() {
    replay(&["fuzz/corpus/frame", "schemas/vectors"], bodies::frame);
}

#[test]
fn corpus_of_shards_is_replayed_then_no_panic() {
    replay(&["fuzz/corpus/shard"], bodies::shard);
}

#[test]
fn corpus_of_records_is_replayed_then_no_panic() {
    replay(&["fuzz/corpus/records"], records::records);
}

#[test]
fn corpus_of_connections_is_replayed_then_no_panic() {
    replay(&["fuzz/corpus/connections"], connections::connections);
}

#[test]
fn corpus_of_proxies_is_replayed_then_pieces_mean_the_same() {
    replay(&["fuzz/corpus/proxy"], proxy::proxy);
}

#[test]
fn headers_of_proxies_are_mutated_then_pieces_mean_the_same() {
    replay_mutated("fuzz/corpus/proxy", 100, proxy::proxy);
}

#[test]
fn texts_are_mutated_then_one_frame_or_an_error_comes() {
    replay(&["fuzz/corpus/json"], json::json);
    replay_mutated("fuzz/corpus/json", 300, json::json);
}

#[test]
fn records_are_mutated_then_no_panic() {
    replay_mutated("fuzz/corpus/records", 300, records::records);
}

#[test]
fn connections_are_mutated_then_no_panic() {
    replay_mutated("fuzz/corpus/connections", 10, connections::connections);
}

/// Each input, so many times, with a few bytes changed, or with another behind it.
fn replay_mutated(folder: &str, mutations: usize, body: fn(&[u8])) {
    let mut random = Random::new(1);
    let inputs = inputs(&[folder]);
    for (_, input) in &inputs {
        for _ in 0..mutations {
            let mut bytes = input.clone();
            if random.one_in(2) {
                bytes.extend_from_slice(&inputs[random.below(inputs.len())].1);
            }
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.bits() as u8;
            }
            bytes.truncate(4096);
            if let Err(panic) = std::panic::catch_unwind(|| body(&bytes)) {
                eprintln!("the input was {bytes:?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn replay(folders: &[&str], body: fn(&[u8])) {
    for (file, bytes) in inputs(folders) {
        if let Err(panic) = std::panic::catch_unwind(|| body(&bytes)) {
            eprintln!("the input was {}", file.display());
            std::panic::resume_unwind(panic);
        }
    }
}

fn inputs(folders: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut inputs = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        for file in files {
            let bytes = std::fs::read(&file).expect("an input");
            inputs.push((file, bytes));
        }
    }
    assert!(inputs.len() >= 60, "{} inputs: the corpus is not there", inputs.len());
    inputs
}

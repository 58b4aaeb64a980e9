//! The seeded simulation of several nodes that share an engine: clients wander between nodes, sessions are taken over, nodes crash, news
//! and words of the engine are lost, doubled and mixed up, the engine is away for a while, and on some seeds loses what it has stored.
//!
//! `RINGGATE_SEEDS=1000 cargo test -p ringgate-sim --test nodes` runs more seeds; a failure names its seed, and
//! `RINGGATE_SEED=7` runs that one alone.

mod clients;

use clients::Clients;
use ringgate_sim::Random;

/// What the clients of one seed do and what happens to them.
const STEPS: usize = 1500;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("RINGGATE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("RINGGATE_SEEDS").unwrap_or(150)).collect(),
    }
}

#[test]
fn clients_wander_between_nodes_then_each_topic_has_one_order_and_nobody_misses_a_message_in_silence() {
    let (seeds, mut published) = (seeds(), 0);
    for seed in &seeds {
        let seed = *seed;
        let run = std::panic::catch_unwind(|| {
            let mut random = Random::new(seed);
            // On every fourth seed the engine loses messages that it had said it stored.
            let mut clients = Clients::new(&mut random, seed % 4 == 3);
            for _ in 0..STEPS {
                clients.step(&mut random);
            }
            clients.heal();
            clients.judge()
        });
        match run {
            Ok(count) => published += count,
            Err(panic) => {
                eprintln!("seed {seed}: RINGGATE_SEED={seed} cargo test -p ringgate-sim --test nodes");
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{published} messages on {} seeds", seeds.len());
    assert!(published > 10 * seeds.len(), "{published} messages on {} seeds", seeds.len());
}

//! A Redis for an experiment: says where it listens, and ends with its standard input, or with this process.

use std::io::Read;

use ringgate_test_servers::{Options, Server};

fn main() {
    let server = Server::start(&Options::default());
    println!("{} process {}", server.address(), server.process_id());
    // An input that cannot be read has ended, too.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

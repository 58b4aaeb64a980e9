//! The floor: servers that do the socket operations of a gateway and as little else as possible.
//!
//! They speak just enough of the wire that the load tester drives them as it drives ringgate: they check no token, keep
//! no log, verify no frame, deduplicate nothing and answer with frames made in advance. What ringgate costs beyond them
//! is what ringgate is responsible for. One thread; `--engine ring` or `--engine epoll`.

mod epoll;
mod exchange;
mod ring;
mod tls;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A bare server to measure ringgate against. Never expose it: it believes every token.
#[derive(Parser)]
#[command(name = "ringgate-floor", version, about)]
struct Options {
    /// Where to listen; loopback only.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How to wait for sockets.
    #[arg(long, value_enum, default_value = "ring")]
    engine: Engine,
    /// Speak TLS; the ring only.
    #[arg(long)]
    tls: bool,
    /// Most connections.
    #[arg(long, default_value_t = 16_000)]
    connections: u32,
    #[command(flatten)]
    variant: ring::Variant,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Ring,
    Epoll,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringgate-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> std::io::Result<()> {
    if !options.listen.ip().is_loopback() {
        return Err(std::io::Error::other("this server believes every token: it listens on loopback only"));
    }
    let listener = TcpListener::from(listen(options.listen)?);
    if options.tls && matches!(options.engine, Engine::Epoll) {
        return Err(std::io::Error::other("--tls is for --engine ring"));
    }
    let tls = options.tls.then(tls::settings).transpose()?;
    println!("{}://{}", if options.tls { "tls" } else { "tcp" }, listener.local_addr()?);
    println!("ready");
    std::io::stdout().flush()?;
    match options.engine {
        Engine::Ring => ring::serve(&listener, options.connections, tls, options.variant),
        Engine::Epoll => epoll::serve(&listener),
    }
}

fn listen(address: SocketAddr) -> std::io::Result<socket2::Socket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket)
}

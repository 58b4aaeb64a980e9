//! The gateway's TLS in both modes, on two ports, with a few words of HTTP behind it: what TLS test suites talk to.
//!
//! Every request is answered; the client ends the connection. Blocking sockets, a thread for
//! each: nothing of the gateway but its TLS is in here. See tests/tls_conformance/run.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringgate::config::certificate_from_files;
use ringgate_net::tls::{Tls, make_compact};
use rustls::ServerConfig;

const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
const END_OF_REQUEST: &[u8] = b"\r\n\r\n";
/// Longer than any test suite waits before it says something.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(certificate), Some(key)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: tls-conformance-server CERTIFICATE KEY, both PEM files");
        std::process::exit(2);
    };
    let ordinary = certificate_from_files(Path::new(&certificate), Path::new(&key)).unwrap_or_else(|error| {
        eprintln!("{error:?}");
        std::process::exit(1);
    });
    let mut compact = ordinary.clone();
    make_compact(&mut compact);
    let servers = [("ordinary", ordinary), ("compact", compact)].map(|(name, config)| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        println!("{name} {}", listener.local_addr().expect("an address").port());
        std::thread::spawn(move || serve(&listener, &Arc::new(config)))
    });
    for server in servers {
        let _ = server.join();
    }
}

fn serve(listener: &TcpListener, config: &Arc<ServerConfig>) {
    for socket in listener.incoming().flatten() {
        let config = config.clone();
        std::thread::spawn(move || {
            // A peer that goes away ends its own connection.
            let _ = talk(socket, config);
        });
    }
}

fn talk(mut socket: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let mut tls = Tls::accept(config).map_err(std::io::Error::other)?;
    let (mut bytes, mut request) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let length = socket.read(&mut bytes)?;
        let result = tls.receive(&mut bytes[..length], |plaintext| request.extend_from_slice(plaintext));
        let mut out = tls.take_outgoing();
        while let Some(end) = request.windows(END_OF_REQUEST.len()).position(|window| window == END_OF_REQUEST) {
            request.drain(..end + END_OF_REQUEST.len());
            tls.encrypt(ANSWER, &mut out).map_err(std::io::Error::other)?;
        }
        let over = length == 0 || result.as_ref().map_or(true, |progress| progress.closed);
        if over && result.is_ok() {
            tls.close_notify(&mut out);
        }
        socket.write_all(&out)?;
        if over {
            // Bytes that nobody reads would reset the connection, and the alert with it.
            socket.shutdown(Shutdown::Write)?;
            while socket.read(&mut bytes)? > 0 {}
            return Ok(());
        }
    }
}

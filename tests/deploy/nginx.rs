//! `deploy/nginx.conf`: TCP through `stream`, WebSocket through `http`.

use std::net::TcpStream;

use crate::guest::{Way, come_stay_and_move};
use crate::site::{Site, filled};
use crate::support::wait_until;

fn start() -> Site {
    let mut site = Site::start();
    let folder = site.folder.path("").display().to_string();
    let of = |name: &str| format!("{folder}{name}");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.iter().map(|kind| format!("    {kind}_temp_path {folder}{kind};\n")).collect();
    let addresses = site.addresses();
    let mut edits: Vec<(&str, String)> = vec![
        ("listen 7443", format!("listen 127.0.0.1:{}", site.front.number)),
        ("listen 443", format!("listen 127.0.0.1:{}", site.front_http.number)),
        (":7443", format!(":{}", site.tls_port())),
        (":7401", format!(":{}", site.ws_port())),
        ("load_module modules/", "load_module /usr/lib/nginx/modules/".to_owned()),
        ("/etc/nginx/", folder.clone()),
        ("/run/nginx.pid", of("nginx.pid")),
        ("/var/log/nginx/", folder.clone()),
        ("http {\n", format!("http {{\n{temporary}")),
        ("worker_processes auto", "worker_processes 2".to_owned()),
        ("worker_rlimit_nofile 210000;", String::new()),
        ("worker_connections 200000", "worker_connections 500".to_owned()),
    ];
    edits.extend(addresses);
    let edits: Vec<_> = edits.iter().map(|(from, to)| (*from, to.as_str())).collect();
    let file = site.folder.write("nginx.conf", filled("nginx.conf", &edits));
    let errors = of("error.log");
    site.put_in_front("nginx", &["-c", file.to_str().unwrap(), "-e", &errors, "-g", "daemon off;"]);
    wait_until(format_args!("nginx listens; {:?}", site.proxy_errors()), || {
        let ports = [&site.front, &site.front_http];
        ports.iter().all(|port| TcpStream::connect(("127.0.0.1", port.number)).is_ok())
    });
    site
}

#[test]
fn gateways_are_behind_nginx_then_clients_come_stay_and_move_and_miss_nothing() {
    for way in [Way::Tls, Way::Wss, Way::WssEndedInFront] {
        // It tries a gateway that was away when `fail_timeout` is over.
        come_stay_and_move(&mut start(), way, |_, _| true);
    }
}

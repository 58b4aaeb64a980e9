//! Starting, or not: what is wrong is named with file, line and key, or with the call that failed and what would help.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ringgate::config::dev_certificate;
use ringgate_net::Descriptors;

use crate::support::{Gateway, LISTENERS, Login, Process, TempFolder};

const KEY: &str = "[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";

/// What `ringgate check` says about this text: its exit code and its lines.
fn check(folder: &TempFolder, text: &str) -> (i32, Vec<String>) {
    let file = folder.write("ringgate.toml", text);
    let mut process = Process::ringgate(&["check", file.to_str().unwrap()]);
    let ended = process.ended();
    let short = |line: String| line.replace(folder.as_ref().to_str().unwrap(), "");
    (ended.code.unwrap(), ended.out.into_iter().chain(ended.err).map(short).collect())
}

#[test]
fn file_has_several_problems_then_each_is_named_with_file_line_and_key() {
    let folder = TempFolder::new();
    let text = format!(
        "{LISTENERS}[client]\nping_interval = \"5 apples\"\nmessage_size_max = \"2MiB\"\n[node]\nnumber = 1024\n\
         [[namespaces]]\nname = \"chat\"\ndurability = \"durable\"\n[runtime]\nrecv_buffers = 1000\n{KEY}"
    );
    let (code, lines) = check(&folder, &text);
    assert_eq!(code, 1);
    let starts = [
        "ringgate: /ringgate.toml:7: node.number: 1024 is out of bounds; 0 to 1023",
        "/ringgate.toml:4: client.ping_interval: \"5 apples\" is not a duration",
        "/ringgate.toml:5: client.message_size_max: is larger than client.outbox_size_max",
        "/ringgate.toml:10: namespaces[0].durability: \"durable\" needs a durable store",
        "/ringgate.toml:12: runtime.recv_buffers: 1000 is not a power of two",
    ];
    for start in starts {
        let plain = start.trim_start_matches("ringgate: ");
        let found = lines.iter().any(|line| line.trim_start_matches("ringgate: ").starts_with(plain));
        assert!(found, "{start} not in {lines:#?}");
    }
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    // `serve` says what `check` says.
    let file = folder.path("ringgate.toml");
    let served = Process::ringgate(&["serve", "--config", file.to_str().unwrap()]).ended();
    assert_eq!((served.code, served.out.len(), served.err.len()), (Some(1), 0, starts.len()));
}

#[test]
fn file_has_one_problem_then_its_line_and_remedy_are_named() {
    let folder = TempFolder::new();
    for (text, line, says) in [
        (String::new(), "", "listeners: there is none; add [[listeners]] with address ="),
        (LISTENERS.to_owned(), "", "token.keys: there is none; add [[token.keys]] with algorithm"),
        (format!("{LISTENERS}{KEY}[client]\nroom_limits = 3\n"), ":7", "unknown field `room_limits`"),
        (format!("{LISTENERS}{KEY}["), ":6", ""),
        (format!("[[listeners]]\naddress = \"localhost\"\n{KEY}"), ":2", "listeners[0].address: \"localhost\" is not"),
        (format!("{LISTENERS}tls = true\n{KEY}"), "", "tls: is missing, but a listener has tls = true"),
        (
            format!("{LISTENERS}[[token.keys]]\nalgorithm = \"RS256\"\npublic_key_file = \"/no/such/file\"\n"),
            ":5",
            "token.keys[0].public_key_file: /no/such/file cannot be read: No such file",
        ),
        (
            format!("{LISTENERS}[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"short\"\n"),
            ":5",
            "token.keys[0].secret: the secret has 5 bytes; at least 32 are needed",
        ),
        (
            format!("{LISTENERS}{KEY}[runtime]\nconnections_per_shard_max = 16777216\n"),
            ":7",
            "runtime.connections_per_shard_max: 16777280 slots in one table are more than the limit of open files",
        ),
    ] {
        // What is said about the table depends on where sockets live on this kernel.
        let says = match Descriptors::for_this_kernel() {
            Descriptors::Ordinary => says.replace("16777280 slots in one table", ""),
            Descriptors::Direct => says.to_owned(),
        };
        let (code, lines) = check(&folder, &text);
        assert_eq!(code, 1, "{text}");
        assert!(lines[0].starts_with(&format!("ringgate: /ringgate.toml{line}: ")), "{line} in {lines:?} of {text}");
        assert!(lines[0].contains(&says), "{says} in {lines:?} of {text}");
    }
    let missing = Process::ringgate(&["check", "/no/such/file.toml"]).ended();
    assert_eq!(missing.code, Some(1));
    assert!(missing.err[0].starts_with("ringgate: /no/such/file.toml: cannot be read: "), "{missing:?}");
}

#[test]
fn development_key_is_configured_then_it_is_refused() {
    let folder = TempFolder::new();
    let path = folder.write("secret", format!("{}\n", ringgate_auth::DEV_SECRET));
    for source in
        [format!("secret = \"{}\"", ringgate_auth::DEV_SECRET), format!("secret_file = \"{}\"", path.display())]
    {
        let (code, lines) = check(&folder, &format!("{LISTENERS}[[token.keys]]\nalgorithm = \"HS256\"\n{source}\n"));
        assert_eq!(code, 1);
        let key = source.split(' ').next().unwrap();
        let says = format!("ringgate: /ringgate.toml:5: token.keys[0].{key}: is the public development key;");
        assert!(lines[0].starts_with(&says), "{lines:?}");
    }
}

#[test]
fn certificate_and_key_do_not_belong_together_then_refused() {
    let folder = TempFolder::new();
    let (certificate, key) = dev_certificate().unwrap();
    let (_, other_key) = dev_certificate().unwrap();
    let text = |certificate: &Path, key: &Path| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("{LISTENERS}tls = true\n[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n{KEY}")
    };
    let certificate = folder.write("certificate.pem", certificate);
    let key = folder.write("key.pem", key);
    let other_key = folder.write("other.pem", other_key);
    let garbage = folder.write("garbage.pem", "garbage");
    let (code, lines) = check(&folder, &text(&certificate, &key));
    assert_eq!(code, 0, "{lines:?}");
    for (certificate, key, line, says) in [
        (&certificate, &other_key, 6, "tls.key: /certificate.pem and /other.pem: the key does not belong to"),
        (&certificate, &garbage, 6, "tls.key: /garbage.pem holds no private key in PEM form"),
        (&garbage, &key, 5, "tls.certificate: /garbage.pem holds no certificate in PEM form"),
        (&folder.path("none.pem"), &key, 5, "tls.certificate: /none.pem cannot be read: No such file"),
    ] {
        let (code, lines) = check(&folder, &text(certificate, key));
        assert_eq!(code, 1);
        assert!(lines[0].starts_with(&format!("ringgate: /ringgate.toml:{line}: {says}")), "{says} in {lines:?}");
    }
}

#[test]
fn default_text_gets_a_listener_and_a_key_then_a_gateway_serves_with_it() {
    let folder = TempFolder::new();
    let printed = Process::ringgate(&["config"]).ended();
    assert_eq!(printed.code, Some(0));
    let text = format!("{}\n{LISTENERS}{KEY}", printed.out.join("\n"));
    let (code, lines) = check(&folder, &text);
    let cores = std::thread::available_parallelism().unwrap();
    assert_eq!((code, lines), (0, vec![format!("/ringgate.toml: good; {cores} shards, 1 listeners, 1 namespaces")]));
    // It says what is the default anyway.
    let written = ringgate::config::Config::parse(&text, "written").unwrap();
    let default = ringgate::config::Config::parse(&format!("{LISTENERS}{KEY}"), "default").unwrap();
    assert_eq!((written.settings, written.runtime), (default.settings, default.runtime));
    // And a gateway serves with it.
    let gateway = Gateway::toml(&format!("{LISTENERS}{KEY}"));
    assert_eq!(gateway.refused_sign_in(&Login::token("garbage")), 3500);
    gateway.finish();
}

#[test]
fn port_is_taken_then_the_address_is_named() {
    let folder = TempFolder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!("[[listeners]]\naddress = \"{address}\"\n{KEY}[admin]\nenabled = false\n");
    let file = folder.write("ringgate.toml", text);
    let ended = Process::ringgate(&["serve", "--config", file.to_str().unwrap()]).ended();
    assert_eq!(ended.code, Some(1));
    let says = format!("ringgate: cannot listen on {address}: Address already in use");
    assert!(ended.err[0].starts_with(&says), "{ended:?}");
    assert!(ended.err[0].contains("another process listens there"), "{ended:?}");
    // The admin's port is taken.
    let text = format!("{LISTENERS}{KEY}[admin]\naddress = \"{address}\"\n");
    let file = folder.write("admin.toml", text);
    let ended = Process::ringgate(&["serve", "--config", file.to_str().unwrap()]).ended();
    assert_eq!(ended.code, Some(1));
    assert!(ended.err[0].contains(&format!("the admin listener cannot listen on {address}")), "{ended:?}");
}

#[test]
fn port_of_another_gateway_then_no_start() {
    // Shards share a port among them (SO_REUSEPORT), and the kernel would let a second gateway join them.
    let admin_off = "[admin]\nenabled = false\n";
    let first = Process::gateway(&format!("{LISTENERS}{KEY}{admin_off}"));
    let address = first.tcp();
    let folder = TempFolder::new();
    for listen in [address.to_string(), format!("0.0.0.0:{}", address.port())] {
        let text = format!("[[listeners]]\naddress = \"{listen}\"\n{KEY}{admin_off}");
        let file = folder.write("second.toml", text);
        let ended = Process::ringgate(&["serve", "--config", file.to_str().unwrap()]).ended();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let says = format!("ringgate: cannot listen on {listen}: Address already in use");
        assert!(ended.err[0].starts_with(&says), "{ended:?}");
        assert!(ended.out.iter().all(|line| !line.starts_with("ready")), "{ended:?}");
    }
}

#[test]
fn what_serve_would_refuse_then_check_refuses_it_with_the_same_words() {
    let folder = TempFolder::new();
    let off = "[admin]\nenabled = false\n";
    // Nobody else has it while it is bound here: what is refused is refused before anything is bound.
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let listener = |address: &str| format!("[[listeners]]\naddress = \"{address}:{port}\"\n");
    for (text, says) in [
        (
            format!("{LISTENERS}{KEY}[runtime]\ncores = [0, 4095]\n{off}"),
            "/ringgate.toml:7: runtime.cores: names core 4095, which".to_owned(),
        ),
        (
            format!("{}{KEY}[admin]\naddress = \"127.0.0.1:{port}\"\n", listener("127.0.0.1")),
            format!("/ringgate.toml:7: admin.address: 127.0.0.1:{port} and listeners[0].address 127.0.0.1:{port} are"),
        ),
        (
            format!("{}{}{KEY}{off}", listener("0.0.0.0"), listener("127.0.0.1")),
            format!(
                "/ringgate.toml:4: listeners[1].address: 127.0.0.1:{port} and listeners[0].address 0.0.0.0:{port} are"
            ),
        ),
        (
            format!("{}{}{KEY}{off}", listener("[::]"), listener("127.0.0.1")),
            format!(
                "/ringgate.toml:4: listeners[1].address: 127.0.0.1:{port} and listeners[0].address [::]:{port} are"
            ),
        ),
        (
            format!(
                "{LISTENERS}{KEY}[runtime]\nshards = 256\nrecv_buffers = 32768\nrecv_buffer_size = \"1MiB\"\n{off}"
            ),
            "runtime.recv_buffers: the receive buffers of 256 shards".to_owned(),
        ),
    ] {
        let (code, checked) = check(&folder, &text);
        assert_eq!(code, 1, "{text}");
        assert!(checked.iter().any(|line| line.contains(&says)), "{says} in {checked:?}");
        let file = folder.path("ringgate.toml");
        let served = Process::ringgate(&["serve", "--config", file.to_str().unwrap()]).ended();
        let served: Vec<_> =
            served.err.iter().map(|line| line.replace(folder.as_ref().to_str().unwrap(), "")).collect();
        assert_eq!(served, checked);
    }
    drop(holder);
}

#[test]
fn listener_at_all_ipv6_addresses_then_ipv4_is_taken_too_unless_told_otherwise() {
    let key = format!("{KEY}[admin]\nenabled = false\n");
    let at_all = "[[listeners]]\naddress = \"[::]:0\"\n";
    let gateway = Gateway::toml(&format!("{at_all}{key}"));
    let port = gateway.tcp().port();
    for address in ["127.0.0.1", "::1"] {
        let mut client = crate::support::Client::tcp(std::net::SocketAddr::new(address.parse().unwrap(), port));
        assert_eq!(client.try_sign_in(&Login::token("garbage")).unwrap_err().code, 3500, "{address}");
    }
    gateway.finish();
    let gateway = Gateway::toml(&format!("{at_all}ipv6_only = true\n{key}"));
    let port = gateway.tcp().port();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    let mut client = crate::support::Client::tcp(std::net::SocketAddr::new("::1".parse().unwrap(), port));
    assert_eq!(client.try_sign_in(&Login::token("garbage")).unwrap_err().code, 3500);
    gateway.finish();
}

#[test]
fn certificate_that_has_expired_then_check_and_serve_warn_and_go_on() {
    let folder = TempFolder::new();
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["im.example.org".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let certificate = folder.write("certificate.pem", parameters.self_signed(&pair).unwrap().pem());
    let key = folder.write("key.pem", pair.serialize_pem());
    let text = format!(
        "{LISTENERS}tls = true\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\nnames = [\"chat.example.org\"]\n{KEY}\
         [admin]\naddress = \"127.0.0.1:0\"\n",
        certificate.display(),
        key.display()
    );
    let warnings = [
        "/ringgate.toml:5: tls.certificate: /certificate.pem has expired: certificate 1",
        "/ringgate.toml:5: tls.certificate: /certificate.pem is not for chat.example.org, which tls.names has",
    ];
    let (code, lines) = check(&folder, &text);
    assert_eq!(code, 0, "{lines:?}");
    for warning in warnings {
        let wanted = format!("ringgate: warning: {warning}");
        assert!(lines.iter().any(|line| line.starts_with(&wanted)), "{wanted} in {lines:?}");
    }
    let gateway = Process::gateway(&text);
    gateway.error_line("the warning", |line| line.contains("WARN") && line.contains("has expired"));
    let admin = gateway.line("the admin listener", |line| line.starts_with("admin http://"));
    let metrics = crate::support::http(admin.trim_start_matches("admin http://").parse().unwrap(), "GET", "/metrics");
    assert_eq!(metrics.sample("ringgate_tls_cert_expiry_timestamp_seconds"), 1_609_459_200.0);
}

#[test]
fn table_is_above_the_limit_of_open_files_then_the_error_names_a_limit_that_does() {
    let folder = TempFolder::new();
    for (descriptors, wanted) in [("direct", 5064), ("ordinary", 2 * 5064 + 64)] {
        let runtime = format!("shards = 2\ndescriptors = \"{descriptors}\"\nconnections_per_shard_max = 5000\n");
        let file = folder.write("ringgate.toml", format!("{LISTENERS}{KEY}[runtime]\n{runtime}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.args(["serve", "--config", file.to_str().unwrap()]);
        limit_open_files(&mut command, 1000);
        let ended = Process::of(command).ended();
        assert_eq!(ended.code, Some(1));
        let line = &ended.err[0];
        assert!(line.contains(":9: runtime.connections_per_shard_max: "), "{ended:?}");
        assert!(line.contains("more than the limit of open files, 1000"), "{ended:?}");
        assert!(line.contains(&format!("ulimit -n {wanted}")), "{ended:?}");
    }
}

#[allow(unsafe_code, reason = "limits of a child are set between fork and exec")]
pub(crate) fn limit_open_files(command: &mut Command, limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: the closure makes one system call, which is safe after fork; the pointer is to its own copy.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[test]
fn seccomp_forbids_io_uring_then_no_start() {
    let folder = TempFolder::new();
    let file = folder.write("ringgate.toml", format!("{LISTENERS}{KEY}[admin]\nenabled = false\n"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.args(["serve", "--config", file.to_str().unwrap()]);
    forbid_io_uring(&mut command);
    let ended = Process::of(command).ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = ended.err.iter().find(|line| line.starts_with("ringgate: ")).unwrap();
    assert!(line.contains("io_uring_setup: Operation not permitted"), "{ended:?}");
    assert!(line.contains("seccomp") && line.contains("allow io_uring_setup"), "{ended:?}");
}

#[test]
fn a_call_is_refused_then_the_gateway_does_not_start_and_names_what_is_in_the_way() {
    let folder = TempFolder::new();
    let file = folder.write("ringgate.toml", format!("{LISTENERS}{KEY}[admin]\nenabled = false\n"));
    for (call, error, says) in [
        (libc::SYS_io_uring_enter, libc::EPERM, ["io_uring_enter: Operation not permitted", "seccomp"]),
        (libc::SYS_io_uring_register, libc::EPERM, ["io_uring_register(EVENTFD): Operation not permitted", "seccomp"]),
        (libc::SYS_io_uring_register, libc::ENOMEM, ["io_uring_register", "LimitMEMLOCK="]),
        (libc::SYS_io_uring_setup, libc::ENOMEM, ["io_uring_setup", "LimitMEMLOCK="]),
        (libc::SYS_io_uring_setup, libc::EMFILE, ["io_uring_setup", "LimitNOFILE="]),
        (libc::SYS_eventfd2, libc::EMFILE, ["eventfd", "LimitNOFILE="]),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.args(["serve", "--config", file.to_str().unwrap()]);
        refuse_call(&mut command, call, error);
        let ended = Process::of(command).ended();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.out.iter().all(|line| !line.starts_with("ready")), "{ended:?}");
        let line = ended.err.iter().find(|line| line.starts_with("ringgate: ")).unwrap();
        assert!(says.iter().all(|says| line.contains(says)), "{says:?} not in {line}");
    }
}

#[test]
fn descriptors_run_out_at_the_start_then_the_limit_is_named() {
    // Few enough for the rings of sixteen shards not to be made; a table of its own takes none.
    let folder = TempFolder::new();
    let runtime = "shards = 16\ndescriptors = \"direct\"\nconnections_per_shard_max = 16\naccepts_in_flight = 1\n";
    let file = folder.write("ringgate.toml", format!("{LISTENERS}{KEY}[runtime]\n{runtime}[admin]\nenabled = false\n"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.args(["serve", "--config", file.to_str().unwrap()]);
    limit_open_files(&mut command, 32);
    let ended = Process::of(command).ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = ended.err.iter().find(|line| line.starts_with("ringgate: ")).unwrap();
    assert!(line.contains("Too many open files") && line.contains("LimitNOFILE="), "{ended:?}");
}

/// Lets io_uring_setup fail with EPERM, as container runtimes do, and everything else work.
pub(crate) fn forbid_io_uring(command: &mut Command) {
    refuse_call(command, libc::SYS_io_uring_setup, libc::EPERM);
}

/// Lets one system call of the program fail with this error, and everything else work.
#[allow(unsafe_code, reason = "a filter of a child is installed between fork and exec")]
fn refuse_call(command: &mut Command, call: libc::c_long, error: i32) {
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    let fail = libc::SECCOMP_RET_ERRNO | error as u32;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let filter = [
        // The number of the system call is the first field of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: 1, k: call as u32 },
        statement(libc::BPF_RET | libc::BPF_K, fail),
        statement(libc::BPF_RET | libc::BPF_K, ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: prctl copies the program, which lives until it returns.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls, which is safe after fork, and allocates nothing.
    unsafe { command.pre_exec(install) };
}

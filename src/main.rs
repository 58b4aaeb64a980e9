//! The command line of the gateway.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringgate::admin::Admin;
use ringgate::config::{Config, Running, default_text, log_filter, parse_duration_ms};
use ringgate::notify::Notifier;
use ringgate::server::Server;
use ringgate::{client, demo, doctor, logs, version};
use ringgate_auth::{Keys, Signer, TokenSpec, parse_algorithm};
use ringgate_core::transport::Transport;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A connection gateway for instant messaging and realtime push.
#[derive(Parser)]
#[command(name = "ringgate", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(Serve),
    /// Validate a configuration file, and name everything that is wrong with it.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print the commented default configuration.
    Config,
    /// Sign a token and print it.
    Token(Token),
    /// A small chat client: lines typed are sent, arriving messages are printed.
    Client(client::Options),
    /// Check whether this host can hold a number of connections, and name what to change.
    Doctor(doctor::Options),
    /// Print the reference of all metrics, as Markdown.
    Metrics,
    /// Print version, commit and features.
    Version,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["config", "dev"])))]
struct Serve {
    /// Configuration file; `ringgate config` prints one to start from.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For development: loopback only, a well-known key, a certificate made now.
    #[arg(long)]
    dev: bool,
    /// With --dev: number of shards; one per core if not given.
    #[arg(long, value_name = "N", requires = "dev", value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: Option<u16>,
    /// With --dev: keep little of each TLS connection, as `tls.memory = "compact"` does.
    #[arg(long, requires = "dev")]
    compact_tls: bool,
    /// With --dev: serve a chat page, too, and keep copies of what a user sends in the own inbox.
    #[arg(long, requires = "dev")]
    demo: bool,
    /// With --dev: write the certificate there, for clients' --ca.
    #[arg(long, value_name = "FILE", requires = "dev")]
    dev_ca: Option<PathBuf>,
    /// How to log.
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What to log: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("signer").required(true).args(["key", "dev"])))]
struct Token {
    /// Secret, or private key in PEM form.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Sign with the development key.
    #[arg(long)]
    dev: bool,
    /// User id.
    #[arg(long)]
    user: String,
    /// Bind the token to a device.
    #[arg(long)]
    device: Option<String>,
    /// How long it is good for; 0s for ever.
    #[arg(long, default_value = "1h", value_parser = parse_duration_ms)]
    ttl: u64,
    /// A room pattern that is granted, for instance 'chat:*'; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    rooms: Vec<String>,
    /// HS256, HS384, HS512, RS256, ES256 or EdDSA; found out from the key if not given.
    #[arg(long, requires = "key")]
    algorithm: Option<String>,
    /// Key id for the token's header.
    #[arg(long, requires = "key")]
    kid: Option<String>,
}

fn main() -> ExitCode {
    let command = match command() {
        Ok(command) => command,
        Err(code) => return code,
    };
    let result = match command {
        Command::Serve(options) => serve(options),
        Command::Check { file } => check(&file),
        Command::Config => say(default_text().trim_end()),
        Command::Token(options) => token(options),
        Command::Client(options) => client::run(options),
        Command::Doctor(options) => match doctor::run(&options) {
            Ok(report) => match say(report.text.trim_end()) {
                Ok(()) if report.has_problems => return ExitCode::FAILURE,
                said => said,
            },
            Err(text) => Err(text),
        },
        Command::Metrics => say(ringgate::admin::reference().trim_end()),
        Command::Version => {
            say(&format!("ringgate {} ({})\nfeatures: {}", version::VERSION, version::COMMIT, version::FEATURES))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

/// What was asked for. Help and version go to standard output, mistakes to standard error.
fn command() -> Result<Command, ExitCode> {
    Cli::try_parse().map(|cli| cli.command).map_err(|error| match (error.exit_code(), error.print()) {
        (0, Err(unwritten)) if unwritten.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&cannot_write(&unwritten));
            ExitCode::FAILURE
        }
        (code, _) => ExitCode::from(u8::try_from(code).unwrap_or(2)),
    })
}

/// Says on standard error what went wrong. Where that cannot be written either, the exit code has to do.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "ringgate: {text}");
}

fn cannot_write(error: &std::io::Error) -> String {
    format!("standard output cannot be written: {error}")
}

fn check(file: &Path) -> Result<(), String> {
    let config = Config::load(file).map_err(|problems| problems.to_string())?;
    for warning in &config.warnings {
        complain(&format!("warning: {}", warning.in_file(&file.display().to_string())));
    }
    say(&format!(
        "{}: good; {} shards, {} listeners, {} namespaces",
        file.display(),
        config.runtime.shard_count(),
        config.listeners.len(),
        config.settings.namespaces.len()
    ))
}

/// Prints a line; a closed pipe is not an error.
fn say(text: &str) -> Result<(), String> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(cannot_write(&error)),
        _ => Ok(()),
    }
}

fn token(options: Token) -> Result<(), String> {
    if !ringgate_core::wire::is_name(&options.user) || options.user.starts_with('@') {
        return Err(format!(
            "--user {:?} must be 1 to 128 bytes without blanks, with a visible character, not starting with @",
            options.user
        ));
    }
    let signer = match &options.key {
        Some(path) => {
            let algorithm = options.algorithm.as_deref().map(parse_algorithm).transpose()?;
            Signer::from_key_file(path, algorithm, options.kid.as_deref())?
        }
        None => Signer::dev(),
    };
    let spec = TokenSpec {
        user: options.user,
        device: options.device,
        issued_at: unix_seconds(),
        ttl_seconds: options.ttl / 1000,
        rooms: options.rooms,
    };
    say(&signer.sign(&spec)?)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether others of the same user may read this process's memory, and the kernel dump it.
fn set_dumpable(dumpable: bool) {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    let behavior = if dumpable { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    // No kernel refuses either.
    let _ = set_dumpable_behavior(behavior);
}

fn serve(options: Serve) -> Result<(), String> {
    // Before the first secret is read.
    set_dumpable(false);
    // First: a SIGHUP must not end a gateway that starts.
    let signals = watch_signals()?;
    let (mut config, certificate) = match &options.config {
        Some(path) => (Config::load(path).map_err(|problems| problems.to_string())?, None),
        None => {
            let (mut config, certificate) = Config::dev(options.shards.map(usize::from))?;
            if options.compact_tls {
                config.make_tls_compact();
            }
            config.settings.inbox.copy_to_own_devices = options.demo;
            (config, Some(certificate))
        }
    };
    if let Some(format) = options.log_format {
        config.logging.json = matches!(format, LogFormat::Json);
    }
    let level_is_given = options.log_level.is_some();
    if let Some(level) = options.log_level {
        config.logging.level = level;
    }
    set_dumpable(config.runtime.dumpable);
    ringgate::abort::on_panic(config.logging.json).map_err(|error| format!("cannot start a thread: {error}"))?;
    let logs = start_logging(&config.logging)?;
    let mut reloading = Reloading { file: options.config.clone(), level_is_given, running: Running::of(&config), logs };
    reloading.warn(&config);
    let (shards, timeout_ms) = (config.runtime.shard_count(), config.settings.shutdown_timeout_ms);
    // Said in any case: whether they are off is inherited.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(!config.runtime.huge_pages) {
        tracing::warn!(%error, "huge pages stay as they are");
    }
    let notifier = service_manager();
    let mut server = Server::start_with(config, give_memory_back).map_err(|error| error.to_string())?;
    if let Some(notifier) = &notifier {
        notifier.ready();
        let started = notifier.start_watchdog(server.readiness().clone());
        started.map_err(|error| format!("cannot start the watchdog's thread: {error}"))?;
    }
    if let (Some(path), Some(certificate)) = (&options.dev_ca, &certificate) {
        std::fs::write(path, certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let chat = options.demo.then(|| chat_page(&server)).transpose()?;
    let lines = addresses(&server, shards, certificate.is_some(), chat.as_ref())?;
    let mut out = std::io::stdout();
    if let Err(error) = out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        // The gateway starts nevertheless: a full disk must not prevent that.
        lines.lines().for_each(|_| logs::COUNTS.count_failed());
        tracing::warn!(%error, "standard output cannot be written; the lines with the addresses are missing there");
    }
    while signals.count.load(Ordering::Relaxed) == 0 {
        if signals.reload.swap(false, Ordering::Relaxed) {
            notifier.iter().for_each(|notifier| notifier.reloading());
            let good = reloading.reload(&mut server, || signals.count.load(Ordering::Relaxed) > 0);
            server.count_reload(good);
            notifier.iter().for_each(|notifier| notifier.ready());
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    tracing::info!(timeout_ms, "draining; a second signal ends at once");
    notifier.iter().for_each(|notifier| notifier.stopping());
    let emptied = server.shutdown(&signals.at_once);
    let because = match emptied {
        true => "every client has gone",
        false if signals.at_once.load(Ordering::Relaxed) => "a second signal",
        false => "shutdown.timeout",
    };
    tracing::info!(emptied, because, "stopped");
    // The kernel closes connections that did not drain in time when the process ends.
    Ok(())
}

/// Where the environment names one wrongly, the gateway serves clients nevertheless, and says so.
fn service_manager() -> Option<Arc<Notifier>> {
    match Notifier::from_environment() {
        Ok(notifier) => notifier.map(Arc::new),
        Err(error) => {
            tracing::warn!(error, "the service manager is not told anything");
            None
        }
    }
}

/// What a SIGHUP needs to know.
struct Reloading {
    /// None for a development gateway.
    file: Option<PathBuf>,
    /// `--log-level` stands above the file.
    level_is_given: bool,
    running: Running,
    logs: Logs,
}

impl Reloading {
    /// Reads the file again and goes on with what can be exchanged: certificate, token keys, log level. A file in which
    /// anything is wrong changes nothing. False if so, or if a shard did not take it before `is_stopping` or in time.
    fn reload(&mut self, server: &mut Server, is_stopping: impl Fn() -> bool) -> bool {
        let Some(file) = self.file.clone() else {
            tracing::warn!("SIGHUP: a development gateway has no configuration to read again");
            return false;
        };
        let config = match Config::load(&file) {
            Ok(config) => config,
            Err(problems) => {
                for problem in &problems.problems {
                    let problem = problem.in_file(&problems.file);
                    tracing::error!(problem, "configuration not reloaded; everything stays as it is");
                }
                return false;
            }
        };
        self.warn(&config);
        let needs_restart = self.running.needs_restart(&config);
        if !needs_restart.is_empty() {
            tracing::warn!(keys = needs_restart.join(", "), "changed, but needs a restart");
        }
        let mut good = true;
        if !self.level_is_given
            && let Err(error) = log_filter(&config.logging.level).and_then(|filter| (self.logs.set_filter)(filter))
        {
            tracing::error!(error, "the log level stays as it is");
            good = false;
        }
        let keys = config.keys.len();
        let keyring = Keys::new(config.keys, config.claims);
        if let Err(error) = server.reload(keyring, config.tls, config.tls_ends, is_stopping) {
            tracing::error!(error, "configuration reloaded in part");
            return false;
        }
        let (level, certificate_ends) = (config.logging.level, config.tls_ends);
        tracing::info!(keys, certificate_ends, level, "configuration reloaded: token keys, certificate, log level");
        good
    }

    /// Says in the log what `ringgate check` says of a configuration that is good.
    fn warn(&self, config: &Config) {
        let file = self.file.as_deref().map_or_else(String::new, |file| file.display().to_string());
        for warning in &config.warnings {
            tracing::warn!("{}", warning.in_file(&file));
        }
    }
}

/// Returns free pages of this thread to the kernel: after a ramp of connections there are many.
#[allow(unsafe_code, reason = "mi_collect has no safe wrapper")]
fn give_memory_back() {
    // SAFETY: takes no pointers; it only touches the allocator's own state of this thread.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// The page of `--demo`, until it is dropped.
fn chat_page(server: &Server) -> Result<Admin, String> {
    let websocket =
        server.urls().into_iter().find(|url| url.starts_with("ws://")).ok_or("there is no listener for ws")?;
    demo::start(websocket).map_err(|error| format!("the chat page: {error}"))
}

/// The lines that a person, or the load tester, starts from.
fn addresses(server: &Server, shards: usize, dev: bool, chat: Option<&Admin>) -> Result<String, String> {
    let mut lines = server.urls();
    lines.extend(server.admin_address().map(|admin| format!("admin http://{admin}")));
    lines.extend(server.health_address().map(|health| format!("health http://{health}")));
    if dev {
        let spec =
            TokenSpec { user: "alice".into(), issued_at: unix_seconds(), ttl_seconds: 3600, ..TokenSpec::default() };
        let token = Signer::dev().sign(&spec)?;
        lines.push(format!("token of alice, good for an hour: {token}"));
        if let Some(plain) = server.addresses().iter().find(|l| l.front.transport == Transport::Plain) {
            lines.push("development only: everybody knows this gateway's key. Talk with yourself:".to_owned());
            lines.push(format!(
                "  ringgate client --url tcp://{} --token $(ringgate token --dev --user bob) --room chat:general",
                plain.address
            ));
        }
    }
    if let Some(chat) = chat {
        let page = format!("http://{}/chat/", chat.address());
        lines.push(format!("chat {page} (alice and bob side by side: {page}?side-by-side)"));
    }
    lines.push(format!("ready: {shards} shards\n"));
    Ok(lines.join("\n"))
}

/// Logs go to standard error through a thread of their own: a terminal that does not read must not stop a shard.
fn start_logging(logging: &ringgate::config::Logging) -> Result<Logs, String> {
    let (writer, guard) = logs::start(std::io::stderr(), logging.json, &logs::COUNTS)
        .map_err(|error| format!("the log's thread: {error}"))?;
    let filter = log_filter(&logging.level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    let (done, set_filter) = if logging.json {
        let builder = builder.json().flatten_event(true).with_target(false).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), exchange(move |filter| handle.reload(filter)))
    } else {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let builder = builder.with_target(false).with_ansi(is_terminal).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), exchange(move |filter| handle.reload(filter)))
    };
    done.map_err(|error| error.to_string())?;
    Ok(Logs { set_filter, _guard: guard })
}

/// Logging that runs.
struct Logs {
    set_filter: SetFilter,
    /// What is left is written when it is dropped.
    _guard: logs::Guard,
}

/// Changes what is logged.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String>>;

fn exchange<E: std::fmt::Display>(reload: impl Fn(EnvFilter) -> Result<(), E> + 'static) -> SetFilter {
    Box::new(move |filter| reload(filter).map_err(|error| error.to_string()))
}

struct Signals {
    count: Arc<AtomicUsize>,
    at_once: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

/// SIGTERM and SIGINT: the first drains, the second ends at once. SIGHUP: the configuration is read again.
fn watch_signals() -> Result<Signals, String> {
    let (count, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let reload = Arc::new(AtomicBool::new(false));
    let hung_up = reload.clone();
    signal_hook_register(signal_hook::consts::SIGHUP, move || hung_up.store(true, Ordering::Relaxed))?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let (count, at_once) = (count.clone(), at_once.clone());
        let seen = move || {
            if count.fetch_add(1, Ordering::Relaxed) > 0 {
                at_once.store(true, Ordering::Relaxed);
            }
        };
        signal_hook_register(signal, seen)?;
    }
    Ok(Signals { count, at_once, reload })
}

#[allow(unsafe_code, reason = "registering a signal action")]
fn signal_hook_register(signal: i32, action: impl Fn() + Sync + Send + 'static) -> Result<(), String> {
    // SAFETY: the action only touches atomics, which is allowed in a signal handler.
    unsafe { signal_hook::low_level::register(signal, action) }
        .map(|_| ())
        .map_err(|error| format!("signal {signal}: {error}"))
}

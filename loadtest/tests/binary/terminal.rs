//! The view on a terminal: it appears, ends in order when asked to, and leaves the terminal as it was.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringgate_core::transport::Transport;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::support::Gateway;

const ROWS: u16 = 30;
const COLUMNS: u16 = 100;
const ENTER_SCREEN: &str = "\u{1b}[?1049h";
const LEAVE_SCREEN: &str = "\u{1b}[?1049l";

/// A pseudo-terminal with the load tester on it.
struct Terminal {
    keyboard: File,
    line: File,
    before: Termios,
    shown: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    fn run(gateway: &Gateway, arguments: &[&str], environment: &[(&str, &str)]) -> Terminal {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
        let line = OpenOptions::new().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&line, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let before = tcgetattr(&line).unwrap();
        let end = || Stdio::from(line.try_clone().unwrap());
        let url = gateway.url(Transport::Plain);
        // A session of its own, with this as its terminal, as a shell in a window has it.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_ringgate-loadtest")])
            .args(["p2p", "--url", &url, "--dev", "--connections", "10", "--rate", "50", "--duration", "10m"])
            .args(arguments)
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color")
            .envs(environment.iter().copied())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keyboard = File::from(controller);
        let shown: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut screen, seen) = (keyboard.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Terminal { keyboard, line, before, shown, child }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// What a person sees now.
    fn seen(&self) -> String {
        let mut parser = vt100::Parser::new(ROWS, COLUMNS, 0);
        parser.process(&self.shown.lock().unwrap());
        parser.screen().contents()
    }

    fn wait_until_seen(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.seen().contains(text) {
            assert!(Instant::now() < deadline, "\"{text}\" is not there in time, but this:\n{}", self.seen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn press(&mut self, key: u8) {
        self.keyboard.write_all(&[key]).unwrap();
    }

    /// Waits for the end; the exit code, and what was shown after the screen.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        self.wait_until_seen("this load tester was busy");
        let now = tcgetattr(&self.line).unwrap();
        assert_eq!(modes(&now), modes(&self.before), "the terminal is as it was");
        let shown = self.shown();
        let after = shown.rsplit_once(LEAVE_SCREEN).map_or(shown.as_str(), |(_, after)| after);
        (status.code(), after.to_owned())
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.line).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Of use only when a test has failed: otherwise it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn modes(termios: &Termios) -> impl PartialEq + std::fmt::Debug + use<> {
    (termios.input_modes, termios.output_modes, termios.control_modes, termios.local_modes)
}

const CTRL_C: u8 = 3;

#[test]
fn ctrl_c_ends_the_screen_in_order() {
    let gateway = Gateway::start();
    let mut terminal = Terminal::run(&gateway, &[], &[]);
    terminal.wait_until_seen("10 of 10");
    terminal.wait_until_seen("deliver latency");
    assert!(terminal.shown().contains(ENTER_SCREEN) && terminal.is_raw());
    assert!(terminal.shown().contains("38;5;"), "there are colours");
    terminal.press(CTRL_C);
    let (code, after) = terminal.end();
    assert_eq!(code, Some(1), "{after}");
    assert!(after.contains("ended early") && after.contains("\u{1b}[?25h"), "{after}");
}

#[test]
fn q_does_the_same_and_no_color_is_obeyed() {
    let gateway = Gateway::start();
    let mut terminal = Terminal::run(&gateway, &[], &[("NO_COLOR", "1")]);
    terminal.wait_until_seen("deliver latency");
    terminal.press(b'q');
    terminal.wait_until_seen("ended early");
    assert!(terminal.shown().contains(LEAVE_SCREEN) && !terminal.shown().contains("38;5;"));
    assert_eq!(terminal.end().0, Some(1));
}

#[test]
fn lines_where_a_screen_is_not_wanted() {
    let gateway = Gateway::start();
    for (arguments, environment) in [(&["--plain"][..], &[][..]), (&[], &[("TERM", "dumb")])] {
        let mut terminal = Terminal::run(&gateway, arguments, environment);
        terminal.wait_until_seen("10 of 10 connections");
        terminal.wait_until_seen("delivered/s");
        assert!(!terminal.is_raw());
        // The terminal makes a signal of it.
        terminal.press(CTRL_C);
        let (code, shown) = terminal.end();
        assert_eq!(code, Some(1), "{shown}");
        assert!(!shown.contains('\u{1b}') && shown.contains("ended early"), "{shown:?}");
    }
}

//! A thread that draws the scene and reads keys. The terminal is restored also after a panic.
//!
//! In raw mode Ctrl-C is a key and no signal, so it is handled here.

use std::io::Stderr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;

use super::draw::{self, Palette};
use super::scene::{Look, Scene};
use crate::interrupt;
use crate::tty::{self, restore, restore_on_panic, take};

/// Time between two drawings, and the longest time between a key and its effect.
const FRAME: Duration = Duration::from_millis(200);

/// A screen on a terminal; given back when dropped.
pub(crate) struct Screen {
    scene: Arc<Mutex<Scene>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    /// Takes the terminal. None if it is too small, or cannot be taken.
    pub(crate) fn start(scene: Scene) -> Option<Screen> {
        let (width, height) = terminal::size().ok()?;
        if width < draw::WIDTH_MIN || height < draw::HEIGHT_MIN {
            return None;
        }
        restore_on_panic();
        let terminal = take()?;
        let scene = Arc::new(Mutex::new(scene));
        let ended = Arc::new(AtomicBool::new(false));
        let (shown, stop) = (scene.clone(), ended.clone());
        let watch = move || watch(terminal, &shown, &stop);
        let Ok(thread) = std::thread::Builder::new().name("screen".to_owned()).spawn(watch) else {
            restore();
            return None;
        };
        Some(Screen { scene, ended, thread: Some(thread) })
    }

    /// Shows this from the next drawing on.
    pub(crate) fn show(&self, look: Look<'_>) {
        if let Ok(mut scene) = self.scene.lock() {
            scene.add(look);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has said so, and the terminal is restored below.
            let _ = thread.join();
        }
        restore();
    }
}

fn watch(mut terminal: Terminal<CrosstermBackend<Stderr>>, scene: &Mutex<Scene>, ended: &AtomicBool) {
    let palette = Palette::of_environment();
    while !ended.load(Ordering::Relaxed) {
        {
            let Some(ours) = tty::lock() else { return };
            let Ok(scene) = scene.lock() else { return };
            // A terminal that is gone has nothing to be shown.
            if !*ours || terminal.draw(|frame| draw::draw(frame, &scene, palette, Instant::now())).is_err() {
                return;
            }
        }
        // Without keys there is still a view.
        match event::poll(FRAME) {
            Ok(true) => {
                if let Ok(event) = event::read() {
                    answer(&event, scene);
                }
            }
            Ok(false) => {}
            Err(_) => std::thread::sleep(FRAME),
        }
    }
}

fn answer(event: &Event, scene: &Mutex<Scene>) {
    let Event::Key(key) = event else { return };
    let is_ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    if key.kind == KeyEventKind::Press && (is_ctrl_c || key.code == KeyCode::Char('q')) {
        interrupt::ask();
        if let Ok(mut scene) = scene.lock() {
            scene.ending = true;
        }
    }
}

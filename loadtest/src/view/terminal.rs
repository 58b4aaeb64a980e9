//! A thread that draws the scene and reads keys; and giving the terminal back, whatever happens.
//!
//! In raw mode Ctrl-C is a key and no signal, so it is handled here.

use std::io::{Stderr, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};

use super::draw::{self, Palette};
use super::scene::{Look, Scene};
use crate::interrupt;

/// Between two looks for keys, and so between a key and its effect, and between two drawings.
const FRAME: Duration = Duration::from_millis(200);

/// Whether the terminal is ours. Whoever draws holds the lock, so that nothing is drawn after it was given back.
static OURS: Mutex<bool> = Mutex::new(false);

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

    /// Shows how things stand, from the next drawing on.
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

fn take() -> Option<Terminal<CrosstermBackend<Stderr>>> {
    let mut ours = OURS.lock().ok()?;
    terminal::enable_raw_mode().ok()?;
    *ours = true;
    drop(ours);
    let taken = execute!(stderr(), EnterAlternateScreen, Hide);
    let terminal = taken.and_then(|()| Terminal::new(CrosstermBackend::new(stderr())));
    terminal.inspect_err(|_| restore()).ok()
}

/// Gives the terminal back, if it was taken.
pub(crate) fn restore() {
    // Whoever draws is soon done, unless it has panicked while drawing; then the lock is free only after this.
    let deadline = Instant::now() + Duration::from_millis(100);
    let mut ours = loop {
        match OURS.try_lock() {
            Ok(ours) => break Some(ours),
            Err(_) if Instant::now() > deadline => break None,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let was_ours = ours.as_mut().is_none_or(|ours| std::mem::take(&mut **ours));
    if was_ours {
        // There is nobody left to tell if this fails.
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// Before a panic is reported: on the screen nobody would read it.
fn restore_on_panic() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            report(panic);
        }));
    });
}

fn watch(mut terminal: Terminal<CrosstermBackend<Stderr>>, scene: &Mutex<Scene>, ended: &AtomicBool) {
    let palette = Palette::of_environment();
    while !ended.load(Ordering::Relaxed) {
        {
            let Ok(ours) = OURS.lock() else { return };
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

//! Takes the terminal for a screen, and restores it also after a panic or a second signal.

use std::io::{Stderr, stderr};
use std::sync::{Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};

/// Whether the terminal is ours. The thread that draws holds the lock, so that nothing is drawn after it was given back.
static OURS: Mutex<bool> = Mutex::new(false);

/// Held by the thread that draws: the terminal is not restored meanwhile. None after a panic while drawing.
pub(crate) fn lock() -> Option<MutexGuard<'static, bool>> {
    OURS.lock().ok()
}

/// Takes the terminal; none if it cannot be had.
pub(crate) fn take() -> Option<Terminal<CrosstermBackend<Stderr>>> {
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
    // A thread that draws is soon done, unless it has panicked while drawing; then the lock is free only after this.
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
        // If this fails, there is nowhere to report it.
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// Restores the terminal before a panic is reported, as the screen would hide it.
pub(crate) fn restore_on_panic() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            report(panic);
        }));
    });
}

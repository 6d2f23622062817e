//! The echo of the terminal, which is off before a question for a secret shows: who types fast is not shown what they type.
//!
//! Who waits for an answer cannot be woken, so whoever ends the process meanwhile calls [`restore`]: no shell is left without an echo.

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// The terminal as it was before the question that is open.
static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Told when the open question has ended.
static ENDED: Condvar = Condvar::new();

/// How long an open question may take to end by itself, as it does at Ctrl-C; what it restores then must not come after [`restore`].
const OWN_END: Duration = Duration::from_millis(50);

/// Whether a command sees to its end itself when it is to stop.
static ENDS_IN_ORDER: AtomicBool = AtomicBool::new(false);

/// The terminal without an echo; dropping it turns the echo on again.
pub(super) struct EchoOff(());

impl EchoOff {
    /// Turns the echo off; there may be no terminal, and then nobody types.
    pub(super) fn begin() -> Option<Self> {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // Without it, a signal that ends the process leaves the terminal as it is.
            let (ready, watching) = mpsc::channel();
            let watch = std::thread::Builder::new().name("echo".to_owned());
            if watch.spawn(move || restore_at_signals(&ready)).is_ok() {
                // It ends with an error where the watch cannot begin.
                let _ = watching.recv();
            }
        });
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let before = tcgetattr(&terminal).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Now, &quiet).ok()?;
        *open_question() = Some((terminal, before));
        Some(Self(()))
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        put_back(&mut open_question());
        ENDED.notify_all();
    }
}

/// Makes the terminal what it was before the question that is open, if one is.
pub(super) fn restore() {
    let waited = ENDED.wait_timeout_while(open_question(), OWN_END, |open| open.is_some());
    put_back(&mut waited.unwrap_or_else(PoisonError::into_inner).0);
}

fn put_back(open: &mut Option<(File, Termios)>) {
    if let Some((terminal, before)) = open.take() {
        // Nothing can be done for a terminal that has gone away.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}

/// Notes that a command ends in order when it is to stop, and restores the terminal then.
pub(super) fn leave_signals_to_command() {
    ENDS_IN_ORDER.store(true, Ordering::Release);
}

fn open_question() -> MutexGuard<'static, Option<(File, Termios)>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process at Ctrl-C and SIGTERM as they would, but restores the terminal before; unless a command does so itself.
#[expect(clippy::exit, reason = "a signal ends the process wherever it is, as it would without this")]
fn restore_at_signals(ready: &mpsc::Sender<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let _: io::Result<()> = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let _ = ready.send(());
        loop {
            let status = tokio::select! {
                _ = terminated.recv() => 128 + SignalKind::terminate().as_raw_value(),
                _ = interrupted.recv() => 128 + SignalKind::interrupt().as_raw_value(),
            };
            if !ENDS_IN_ORDER.load(Ordering::Acquire) {
                restore();
                std::process::exit(status);
            }
        }
    });
}

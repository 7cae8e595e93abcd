//! The terminal: lines out, keys in, and its modes, which are restored at the end.

use super::ClientError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::time::Duration;

/// Switch to an empty screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Prints lines to standard output. A closed pipe is no failure.
pub(super) fn print(lines: &[String]) -> Result<(), ClientError> {
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    write(&text)
}

fn write(text: &str) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(ClientError::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A screen that is drawn repeatedly, with keys that are read one by one.
#[derive(Debug)]
pub(super) struct Screen {
    /// The modes to be restored; `None`: standard input is no terminal, and no keys are read.
    modes: Option<Termios>,
}

impl Screen {
    /// Takes the terminal over; `None` if standard output is no terminal.
    pub(super) fn open() -> Result<Option<Self>, ClientError> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let stdin = io::stdin();
        let modes = termios::tcgetattr(&stdin).ok();
        if let Some(modes) = &modes {
            let mut keys = modes.clone();
            keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            let set = termios::tcsetattr(&stdin, OptionalActions::Now, &keys);
            set.map_err(|error| ClientError::Output(error.into()))?;
        }
        let screen = Self { modes };
        write(ENTER)?;
        Ok(Some(screen))
    }

    /// Draws the lines that fit, each cut at the right edge.
    pub(super) fn draw(&self, lines: &[String]) -> Result<(), ClientError> {
        let size = termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()));
        let shown = lines.iter().take(rows).map(|line| {
            let line: String = line.chars().take(columns).collect();
            format!("{line}\x1b[K")
        });
        write(&format!("\x1b[H{}\x1b[J", shown.collect::<Vec<_>>().join("\r\n")))
    }

    /// Waits for a key or until `time` is over; true if `q` or Ctrl-C was pressed, or standard input has ended.
    pub(super) fn wait_for_end(&self, time: Duration) -> bool {
        if self.modes.is_none() {
            std::thread::sleep(time);
            return false;
        }
        let stdin = io::stdin();
        let limit =
            Timespec { tv_sec: time.as_secs().try_into().unwrap_or(1), tv_nsec: time.subsec_nanos().into() };
        let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
        if !matches!(poll(&mut watched, Some(&limit)), Ok(1..)) {
            return false;
        }
        let mut keys = [0; 16];
        match stdin.lock().read(&mut keys) {
            Ok(0) | Err(_) => true,
            Ok(count) => keys[..count].iter().any(|key| matches!(key, b'q' | b'Q' | 0x03)),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A failure cannot be handled here.
        let _ = write(LEAVE);
        if let Some(modes) = &self.modes {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, modes);
        }
    }
}

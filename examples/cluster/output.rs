//! The output: lines with a node's name in front, coloured on a terminal.

use std::io::{self, IsTerminal, Write};

/// The colours of nodes; red is for errors.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 96];

/// Standard output, until its reader closes it.
#[derive(Debug)]
pub(crate) struct Output {
    is_coloured: bool,
    /// The reader has closed it.
    pub(crate) is_closed: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        // https://no-color.org
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_coloured: io::stdout().is_terminal() && !unwanted, is_closed: false }
    }

    /// Writes a line of a node's log.
    pub(crate) fn log(&mut self, index: usize, name: &str, line: &str) {
        if self.is_coloured {
            self.line(&format!("\x1b[{}m{name:>3} |\x1b[0m {line}", COLOURS[index % COLOURS.len()]));
        } else {
            self.line(&format!("{name:>3} | {line}"));
        }
    }

    /// Writes a line that needs attention.
    pub(crate) fn alarm(&mut self, text: &str) {
        if self.is_coloured {
            self.line(&format!("\x1b[1;31m{text}\x1b[0m"));
        } else {
            self.line(text);
        }
    }

    /// Writes one line, or several, at once.
    pub(crate) fn line(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        if !self.is_closed && writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            self.is_closed = true;
        }
    }
}

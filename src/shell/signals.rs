//! Signals, as readable events of the poll loop.

use mio::event::Source;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals as SignalSource;
use std::io;

/// What the signals that have come ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// SIGTERM or SIGINT.
    pub(super) end: bool,
    /// SIGHUP.
    pub(super) reload: bool,
}

/// The signals that a node listens to. Others keep what the system does with them.
pub(super) struct Signals {
    source: SignalSource,
}

impl Signals {
    pub(super) fn register(registry: &Registry, token: Token) -> io::Result<Self> {
        let mut source = SignalSource::new([SIGTERM, SIGINT, SIGHUP])?;
        source.register(registry, token, Interest::READABLE)?;
        Ok(Self { source })
    }

    /// What has come since the last call. Never waits.
    pub(super) fn take(&mut self) -> Asked {
        self.source.pending().fold(Asked::default(), |asked, signal| Asked {
            end: asked.end || signal == SIGTERM || signal == SIGINT,
            reload: asked.reload || signal == SIGHUP,
        })
    }
}

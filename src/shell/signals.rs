//! Signals, as readable events of the poll loop.

use mio::event::Source;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals as SignalSource;
use std::io;

/// The signals that have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pending {
    /// SIGTERM or SIGINT.
    pub(super) shutdown: bool,
    /// SIGHUP.
    pub(super) reload: bool,
}

/// The signals that a node handles. Others keep the system's default.
pub(super) struct Signals {
    source: SignalSource,
}

impl Signals {
    pub(super) fn register(registry: &Registry, token: Token) -> io::Result<Self> {
        let mut source = SignalSource::new([SIGTERM, SIGINT, SIGHUP])?;
        source.register(registry, token, Interest::READABLE)?;
        Ok(Self { source })
    }

    /// Takes the signals that have come since the last call. Never blocks.
    pub(super) fn take(&mut self) -> Pending {
        self.source.pending().fold(Pending::default(), |pending, signal| Pending {
            shutdown: pending.shutdown || signal == SIGTERM || signal == SIGINT,
            reload: pending.reload || signal == SIGHUP,
        })
    }
}

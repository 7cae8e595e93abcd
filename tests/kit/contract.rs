//! The shell's part of one connection: its state, a check of the node's actions, and the delivery of input.

use olivia::base::time::Now;
use olivia::node::{Action, ConnKey, Node};

/// Delivers input of a connection to a node: into the memory that [`Node::room`] offers first, as a shell does. Late: the
/// rest is buffered for the next turn.
pub fn receive(node: &mut Node, now: Now, key: ConnKey, bytes: &[u8], is_late: bool) {
    let room = node.room(key);
    let (first, rest) = bytes.split_at(room.len().min(bytes.len()));
    room[..first.len()].copy_from_slice(first);
    if !first.is_empty() {
        node.filled(now, key, first.len());
    }
    if is_late { node.buffer(now, key, rest) } else { node.received(now, key, rest) }
}

/// Returns the connection of an action.
pub const fn conn_of(action: Action) -> ConnKey {
    let (Action::Connect(key, _)
    | Action::Flush(key)
    | Action::ShutdownWrite(key)
    | Action::Close(key)
    | Action::StopReading(key)
    | Action::ResumeReading(key)) = action;
    key
}

/// The state of one connection at the shell. The shell clears `is_flushing` when all output is written.
#[derive(Debug, Default, Clone, Copy)]
pub struct Contract {
    pub is_flushing: bool,
    pub is_stopped: bool,
    /// The node has shut down its side: the other end reads the end of the stream.
    pub has_shut: bool,
    pub is_closed: bool,
}

impl Contract {
    /// Applies an action of the node; panics if the contract does not allow it.
    pub fn act(&mut self, action: Action) {
        assert!(!self.is_closed, "{action:?} after Close");
        match action {
            Action::Connect(..) => {}
            Action::Flush(_) => {
                assert!(!std::mem::replace(&mut self.is_flushing, true), "second Flush: {action:?}");
            }
            Action::ShutdownWrite(_) => {
                assert!(!std::mem::replace(&mut self.has_shut, true), "shut twice: {action:?}");
            }
            Action::StopReading(_) => {
                assert!(!std::mem::replace(&mut self.is_stopped, true), "stopped twice: {action:?}");
            }
            Action::ResumeReading(_) => {
                assert!(std::mem::replace(&mut self.is_stopped, false), "resumed twice: {action:?}");
            }
            Action::Close(_) => self.is_closed = true,
        }
    }

    /// Checks after a call that pending output has a Flush; `waiting` are its bytes.
    pub fn check(&self, waiting: usize) {
        assert!(self.is_flushing || waiting == 0, "{waiting} bytes wait without a Flush");
    }
}

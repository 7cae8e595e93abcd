//! Commands that other nodes carry out: the request, the errors, and the queue by which lower layers pass work to the
//! command layer.

use crate::node::ids::{LookupKey, NodeId, PeerKey, PendingKey};
use crate::wire::encoder::Protocol;
use crate::wire::field::Excerpt;
use crate::wire::owned_args::OwnedArgs;
use std::collections::VecDeque;
use std::fmt;

/// A command with its arguments, to be carried out by a node.
#[derive(Debug)]
pub(in crate::node) struct Request {
    /// In upper case; `EXEC` for the requests of a transaction.
    pub(in crate::node) name: Box<[u8]>,
    pub(in crate::node) args: OwnedArgs,
    /// The protocol of the client.
    pub(in crate::node) protocol: Protocol,
}

/// The effect of a command on keys that no node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum OnMissing {
    /// It may create them, on their home node only.
    Creates,
    /// None: any node can carry it out.
    NoEffect,
    /// An error.
    Refused,
}

/// A command that is forwarded to the node that holds its keys, for a client.
#[derive(Debug)]
pub(in crate::node) struct ForwardedCommand {
    pub(in crate::node) request: Request,
    /// The keys on whose old values it depends, at least one.
    pub(in crate::node) keys: Vec<Box<[u8]>>,
    pub(in crate::node) on_missing: OnMissing,
    /// The highest version that a node has reported as moved to another node.
    pub(in crate::node) moved_version: u64,
    /// Nodes named by hints that are unknown here, or cannot be queried.
    pub(in crate::node) absent: Vec<NodeName>,
    /// Nodes that were queried as the home node and refused, because a filter there claims a key.
    pub(in crate::node) home_changes: u32,
}

/// A deletion or a floor: sent once to every node that it concerns, each of which answers.
#[derive(Debug, Default)]
pub(in crate::node) struct Broadcast {
    /// The version of the deletion, or the floor.
    pub(super) version: u64,
    /// A node had a value.
    pub(super) had: bool,
    /// Nodes that were not reached, or have not answered.
    pub(super) unreached: Vec<NodeName>,
}

/// A node in an error: its address, or its id if no address is known.
pub(in crate::node) type NodeName = String;

/// Why another node did not carry out a command, or may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) enum Failure {
    /// This node was queried and has not answered.
    Unknown(NodeName),
    /// These nodes may hold a key and cannot be queried.
    Unreachable(Vec<NodeName>),
    /// The keys are on several nodes.
    Apart,
    /// Each node that was queried named another one.
    Moving,
    /// The deadline passed on this node, or it had no room.
    NotDone(NodeName),
    /// This node has no memory to forward the command.
    NoMemory,
    /// The node that holds the key does not accept the command: it is too long, or unknown there.
    NotTaken,
    /// It was carried out, but its reply is longer than this node accepts, or has memory for.
    ReplyTooLong,
    /// The key is deleted elsewhere, but not on these nodes, which may hold it.
    Undeleted(Vec<NodeName>),
    /// The keys are removed elsewhere, but these nodes have not answered.
    Unflushed(Vec<NodeName>),
}

/// The most nodes that an error names.
const NAMED_MAX: usize = 4;

impl Failure {
    /// The first word of the error in RESP. Clients repeat a command by themselves after `TRYAGAIN`, which is only
    /// returned if nothing was done.
    pub(in crate::node) const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "UNKNOWN",
            Self::Unreachable(_) | Self::Undeleted(_) | Self::Unflushed(_) => "UNREACHABLE",
            Self::Apart => "CROSSSLOT",
            Self::Moving | Self::NotDone(_) => "TRYAGAIN",
            Self::NoMemory | Self::NotTaken | Self::ReplyTooLong => "ERR",
        }
    }

    /// Whether the command certainly had no effect.
    pub(in crate::node) const fn had_no_effect(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Apart
            | Self::Moving
            | Self::NotDone(_)
            | Self::NoMemory
            | Self::NotTaken => true,
            Self::Unknown(_) | Self::ReplyTooLong | Self::Undeleted(_) | Self::Unflushed(_) => false,
        }
    }

    /// The error about a command on `key`. Displays as a sentence.
    pub(in crate::node) const fn about<'a>(&'a self, key: &'a [u8]) -> About<'a> {
        About(self, key)
    }
}

/// A failure of a command on a key.
#[derive(Debug)]
pub(in crate::node) struct About<'a>(&'a Failure, &'a [u8]);

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = Excerpt(self.1);
        match self.0 {
                Failure::Unknown(node) => write!(
                    f,
                    "outcome unknown: {node} has not answered; the command on '{key}' was carried out once or not at \
                     all. Read the key before you repeat it"
                ),
                Failure::Unreachable(nodes) => write!(
                    f,
                    "nothing was done: '{key}' may be on {}, which cannot be reached; try again when it is linked, or \
                     half a minute after it was lost",
                    Names(nodes)
                ),
                Failure::Apart => f.write_str(
                    "nothing was done: the keys are not on one node; send a request for each, or create keys that \
                     belong together with the same {tag} in them, as {cart7}:a and {cart7}:b",
                ),
                Failure::Moving => write!(f, "nothing was done: '{key}' is moving between nodes; try again"),
                Failure::NotDone(node) => {
                    write!(f, "nothing was done: {node} had no time for the command on '{key}'; try again")
                }
                Failure::NoMemory => write!(f, "nothing was done: no memory to forward the command on '{key}'"),
                Failure::NotTaken => write!(
                    f,
                    "nothing was done: '{key}' is on another node, which does not take this command: it is longer than \
                     key_bytes_max and value_bytes_max, or than that node has memory for, or that node has another version"
                ),
                Failure::ReplyTooLong => write!(
                    f,
                    "the command on '{key}' was carried out by another node, but its reply is longer than value_bytes_max, or \
                     than this node has memory for"
                ),
                Failure::Undeleted(nodes) => write!(
                    f,
                    "'{key}' is deleted on all other nodes, but may be on {}, which has not answered; repeat DEL when it \
                     is linked",
                    Names(nodes)
                ),
                Failure::Unflushed(nodes) => write!(
                    f,
                    "{} has not answered yet; it removes its keys when it is linked. All others have",
                    Names(nodes)
                ),
            }
    }
}

/// Nodes in an error.
struct Names<'a>(&'a [NodeName]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, node) in self.0.iter().take(NAMED_MAX).enumerate() {
            write!(f, "{}{node}", if at > 0 { ", " } else { "" })?;
        }
        match self.0.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Work of the command layer, queued by a layer below it and done before the call that caused it returns.
#[derive(Debug)]
pub(in crate::node) enum QueuedCommand {
    /// A command that a peer has sent.
    FromPeer(Box<PeerCommand>),
    /// A command to be forwarded that can be carried out here.
    Own(LookupKey),
    /// A transaction whose part on another node is done.
    Transaction(PendingKey),
}

/// A command from a peer.
#[derive(Debug)]
pub(in crate::node) struct PeerCommand {
    pub(in crate::node) peer: PeerKey,
    /// The number that the answer repeats.
    pub(in crate::node) number: u32,
    pub(in crate::node) request: Request,
    /// It may create keys.
    pub(in crate::node) create: bool,
    /// Deadline on the sender's hybrid clock: from then on the command must not be carried out.
    pub(in crate::node) deadline: u64,
    /// Nodes that have answered NOTHOLDER, whatever their filters claim.
    pub(in crate::node) refused: Vec<NodeId>,
}

/// Commands that the layers below the command layer have queued, in order.
#[derive(Debug, Default)]
pub(in crate::node) struct CommandQueue {
    queue: VecDeque<QueuedCommand>,
}

impl CommandQueue {
    pub(in crate::node) fn push(&mut self, command: QueuedCommand) {
        self.queue.push_back(command);
    }

    pub(in crate::node) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(in crate::node) fn next(&mut self) -> Option<QueuedCommand> {
        self.queue.pop_front()
    }
}

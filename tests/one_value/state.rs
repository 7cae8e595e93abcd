//! A state of the model. Every byte of it distinguishes states, so it has only fields that a handler or check reads,
//! and unused fields have their default.

use super::scenarios::Operation;
use std::fmt;
use std::ops::{Index, IndexMut};

/// Nodes are X, Y and Z.
pub type Node = u8;
/// A reading of a hybrid clock. 0: none.
pub type Version = u8;
/// A set of nodes, or of increments, as bits.
pub type Set = u8;

pub const NODES_MAX: usize = 3;
/// Frames in one direction of a link.
const FRAMES_MAX: usize = 4;

pub const fn bit(at: u8) -> Set {
    1 << at
}

pub const fn has(set: Set, at: u8) -> bool {
    set & bit(at) != 0
}

/// One `T` per node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PerNode<T>([T; NODES_MAX]);

impl<T> Index<Node> for PerNode<T> {
    type Output = T;

    fn index(&self, node: Node) -> &T {
        &self.0[usize::from(node)]
    }
}

impl<T> IndexMut<Node> for PerNode<T> {
    fn index_mut(&mut self, node: Node) -> &mut T {
        &mut self.0[usize::from(node)]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Value {
    pub version: Version,
    /// The increments that it holds.
    pub increments: Set,
}

/// The clock that a heartbeat acknowledged, until a later one acknowledges `mark`, the own clock when it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pending {
    pub ack: Version,
    pub mark: Version,
}

/// The slot of the key in the table of keys that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Moved {
    pub version: Version,
    pub holder: Option<Node>,
}

/// A node's view of a peer's filter for the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum View {
    #[default]
    Absent,
    Claims,
    Unknown,
}

/// A node's state of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Peer {
    pub view: View,
    /// Entries of the peer's changelog that are applied here.
    pub applied: u8,
    /// Entries of the own changelog that were put into the link to it.
    pub sent: u8,
    /// All own keys are to be tested against its filter.
    pub resync: bool,
    /// The own clock that it acknowledged, with everything that it had sent.
    pub acked: Version,
    pub pending: Pending,
    /// Its highest clock that was processed here.
    pub heard: Version,
}

/// An entry of a changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    Addition,
    Block,
}

/// The changelog of a node: entries as bits, additions set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Changelog {
    entries: u8,
    pub len: u8,
}

impl Changelog {
    pub const fn push(&mut self, change: Change) {
        if matches!(change, Change::Addition) {
            self.entries |= bit(self.len);
        }
        self.len += 1;
    }

    pub const fn get(self, at: u8) -> Change {
        if has(self.entries, at) { Change::Addition } else { Change::Block }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    Incr,
    Nx,
    Del,
    Flush,
}

/// The request that is open at a node. One at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    pub verb: Verb,
    /// INCR: which increment.
    pub increment: u8,
    pub floor: Version,
    pub queried: Set,
    /// Peers whose answers are outstanding.
    pub waiting: Set,
    pub hinted: Set,
    /// Peers that answered that they do not hold the key.
    pub tried: Set,
    pub hops: u8,
    /// Number of requests to the home node to create the key.
    pub creations: u8,
    /// DEL: a peer could not be reached.
    pub is_partial: bool,
    /// For checks: the node knew the key when the request came, and the key existed ever since.
    pub known: bool,
    /// For checks, DEL: values that the node could see when the request came, by holder and version.
    pub visible: PerNode<Version>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Member {
    pub clock: Version,
    pub value: Option<Value>,
    pub tombstone: Option<Version>,
    pub floor: Version,
    pub moved: Option<Moved>,
    /// The bit of the key in the own filter.
    pub bit: bool,
    /// The key was dropped and frames of that time are still under way.
    pub dropped_lately: bool,
    pub log: Changelog,
    pub peers: PerNode<Peer>,
    pub request: Option<Request>,
    /// Requests so far: answers to earlier ones are dropped.
    pub serial: u8,
    /// For checks: reads of this node must not return less.
    pub seen: Version,
    /// For checks: this node knew of the key, which has existed ever since.
    pub known: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Body {
    #[default]
    Empty,
    /// Entries of the sender's changelog, and its bit when they were put into the link.
    Changes {
        from: u8,
        to: u8,
        image: bool,
    },
    Snapshot {
        image: bool,
        position: u8,
    },
    Invalidate {
        version: Version,
        is_held: bool,
    },
    Newer {
        version: Version,
        is_held: bool,
    },
    Lookup {
        serial: u8,
    },
    Found {
        serial: u8,
        version: Version,
    },
    NotFound {
        serial: u8,
        moved: Version,
        hints: Set,
    },
    Execute {
        serial: u8,
        verb: Verb,
        increment: u8,
        create: bool,
        tried: Set,
    },
    Executed {
        serial: u8,
        version: Version,
    },
    NotHolder {
        serial: u8,
        moved: Version,
        hints: Set,
    },
    Delete {
        serial: u8,
        version: Version,
    },
    Deleted {
        serial: u8,
        version: Version,
        hints: Set,
    },
    Beat {
        ack: Version,
        position: u8,
    },
    Floor {
        serial: u8,
        version: Version,
    },
    Floored {
        serial: u8,
    },
}

impl Body {
    /// The request that an answer belongs to.
    pub const fn serial(self) -> Option<u8> {
        match self {
            Self::Found { serial, .. }
            | Self::NotFound { serial, .. }
            | Self::Executed { serial, .. }
            | Self::NotHolder { serial, .. }
            | Self::Deleted { serial, .. }
            | Self::Floored { serial } => Some(serial),
            Self::Empty
            | Self::Changes { .. }
            | Self::Snapshot { .. }
            | Self::Invalidate { .. }
            | Self::Newer { .. }
            | Self::Lookup { .. }
            | Self::Execute { .. }
            | Self::Delete { .. }
            | Self::Beat { .. }
            | Self::Floor { .. } => None,
        }
    }

    /// Returns the holders that an answer names, and the version that it names as moved there.
    pub const fn hints(self) -> (Set, Version) {
        match self {
            Self::NotFound { moved, hints, .. } | Self::NotHolder { moved, hints, .. } => (hints, moved),
            Self::Deleted { hints, .. } => (hints, 0),
            Self::Empty
            | Self::Changes { .. }
            | Self::Snapshot { .. }
            | Self::Invalidate { .. }
            | Self::Newer { .. }
            | Self::Lookup { .. }
            | Self::Found { .. }
            | Self::Execute { .. }
            | Self::Executed { .. }
            | Self::Delete { .. }
            | Self::Beat { .. }
            | Self::Floor { .. }
            | Self::Floored { .. } => (0, 0),
        }
    }
}

/// For traces.
impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |is_held: bool| if is_held { "HELD" } else { "GONE" };
        let claim = |image: bool| if image { "claims" } else { "does not claim" };
        match *self {
            Self::Empty => write!(f, "-"),
            Self::Changes { from, to, image } => {
                write!(f, "changes {from}..{to}, the filter {} the key", claim(image))
            }
            Self::Snapshot { image, position } => {
                write!(f, "snapshot at {position}, the filter {} the key", claim(image))
            }
            Self::Invalidate { version, is_held } => write!(f, "INVALIDATE {version} {}", state(is_held)),
            Self::Newer { version, is_held } => write!(f, "NEWER {version} {}", state(is_held)),
            Self::Lookup { .. } => write!(f, "LOOKUP"),
            Self::Found { version, .. } => write!(f, "VALUE {version}"),
            Self::NotFound { moved, hints, .. } => write!(f, "NONE, moved {moved}, hints {}", names(hints)),
            Self::Execute { verb, create, tried, .. } => {
                let create = if create { ", create" } else { "" };
                write!(f, "EXECUTE {verb:?}{create}, refused by {}", names(tried))
            }
            Self::Executed { version, .. } => write!(f, "EXECUTED {version}"),
            Self::NotHolder { moved, hints, .. } => {
                write!(f, "NOTHOLDER, moved {moved}, hints {}", names(hints))
            }
            Self::Delete { version, .. } => write!(f, "DELETE {version}"),
            Self::Deleted { version, hints, .. } => write!(f, "DELETED {version}, hints {}", names(hints)),
            Self::Beat { ack, position } => write!(f, "BEAT, acknowledges {ack}, changelog {position}"),
            Self::Floor { version, .. } => write!(f, "FLOOR {version}"),
            Self::Floored { .. } => write!(f, "FLOORED"),
        }
    }
}

pub fn name(node: Node) -> &'static str {
    ["X", "Y", "Z"][usize::from(node)]
}

fn names(set: Set) -> String {
    let named: Vec<&str> = (0..3).filter(|node| has(set, *node)).map(name).collect();
    if named.is_empty() { "none".to_owned() } else { named.join(" ") }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Frame {
    pub clock: Version,
    pub body: Body,
}

/// Frames in one direction of a link, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Frames {
    frames: [Frame; FRAMES_MAX],
    len: u8,
}

impl Frames {
    /// Adds a frame; false if there are as many as the model allows.
    pub fn push(&mut self, frame: Frame) -> bool {
        let Some(slot) = self.frames.get_mut(usize::from(self.len)) else { return false };
        *slot = frame;
        self.len += 1;
        true
    }

    pub fn as_slice(&self) -> &[Frame] {
        &self.frames[..usize::from(self.len)]
    }

    pub fn remove(&mut self, at: usize) -> Frame {
        let frame = self.frames[at];
        self.frames[at..].rotate_left(1);
        self.len -= 1;
        self.frames[usize::from(self.len)] = Frame::default();
        frame
    }
}

/// The expected outcome: the highest version that was written or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Top {
    pub version: Version,
    /// A tombstone or a floor, which beats a value of the same version.
    pub is_gone: bool,
    pub holder: Node,
    /// The value expired, or was lost by a crash.
    pub has_departed: bool,
    /// A value of the same version expired elsewhere.
    pub is_tied: bool,
}

/// Everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct State {
    pub members: PerNode<Member>,
    /// By sender, then receiver.
    pub links: PerNode<PerNode<Frames>>,
    pub is_up: PerNode<PerNode<bool>>,
    /// Operations left, by `Operation`.
    pub left: [u8; Operation::ALL.len()],
    pub top: Top,
    /// The highest version that was deleted, expired or flushed: values up to it are doomed.
    pub gone: Version,
    /// The floor of the last answered FLUSHALL MESH.
    pub flushed: Version,
    /// Increments that were carried out, and that were answered as carried out.
    pub done: Set,
    pub answered: Set,
    /// Increments given out.
    pub increments: u8,
    pub nx_winners: u8,
    pub had_set: bool,
    pub had_break: bool,
    pub had_restart: bool,
    pub had_departure: bool,
}

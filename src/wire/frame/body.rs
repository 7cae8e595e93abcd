//! The payloads of frames: one variant of [`Body`] per kind, read from and written to bytes.

use super::kind::{FLAG_ANSWER, FLAG_CREATE, FLAG_GONE, FLAG_HAD, FLAG_TTL_ONLY, Kind, VALUE_HEAD_BYTES};
use super::lists::{Addresses, Arguments, Blocks, HINT_BYTES, HINTS_MAX, Hashes, Hints, Images};
use super::{FrameError, MAGIC, REASON_BYTES_MAX};
use crate::wire::encoder::Protocol;

/// The milliseconds left of a key without TTL.
const NO_TTL: u64 = u64::MAX;

/// A position in a changelog: the receiver has every change before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The epoch of the changelog: larger after each start of the node.
    pub epoch: u64,
    /// The number of the next change.
    pub seq: u64,
}

/// What a version belongs to: a value or a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// A value that the sender holds.
    Held,
    /// A deletion, eviction or expiry that the sender remembers.
    Gone,
}

impl KeyState {
    const fn flags(self) -> u16 {
        match self {
            Self::Held => 0,
            Self::Gone => FLAG_GONE,
        }
    }

    const fn of(flags: u16) -> Self {
        if flags & FLAG_GONE != 0 { Self::Gone } else { Self::Held }
    }
}

/// A command that the receiver must carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteCommand<'a> {
    /// The name of its row in the command table.
    pub name: &'a [u8],
    /// Its arguments.
    pub arguments: Arguments<'a>,
    /// Whether it may create the key.
    pub create: bool,
    /// Deadline on the hybrid clock of the sender: from then on the receiver must not carry it out.
    pub deadline: u64,
    /// Nodes that have answered NOTHOLDER; claims of their filters are ignored.
    pub refused: Hints<'a>,
    /// The protocol of the client, which is that of the reply.
    pub protocol: Protocol,
}

/// The part of a key that a GET requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// The value, with version and TTL.
    Value,
    /// Only the TTL.
    Ttl,
}

/// The content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// A heartbeat. `request` counts them; an answer repeats it.
    Heartbeat {
        /// The position at the end of the sender's changelog.
        head: Head,
        /// The wall clock of the sender, in milliseconds since 1970.
        wall_ms: u64,
        /// The highest clock of the receiver whose frame the sender has processed.
        ack: u64,
        /// Whether it answers a heartbeat.
        is_answer: bool,
    },
    /// Added keys; `request` is the low half of the first one's number.
    Delta(Hashes<'a>),
    /// Rebuilt blocks; `request` is the low half of the first one's number.
    Block(Images<'a>),
    /// A snapshot of the filter follows; `request` is the low half of its position in the changes of blocks.
    Snap {
        /// Its position in the changelog.
        head: Head,
        /// Its size, as the logarithm of its blocks.
        size_log2: u8,
    },
    /// Blocks of the snapshot; `request` is the number of the first.
    Piece(Blocks<'a>),
    /// The snapshot is complete.
    SnapEnd,
    /// Requests the changes from a position on; without one, a snapshot. `request` is the low half of the position in
    /// the changes of blocks.
    Resync(Option<Head>),
    /// A query for a key; the answer repeats its `request`.
    Get {
        /// The key.
        key: &'a [u8],
        /// The requested part.
        wanted: Wanted,
    },
    /// The node holds the key.
    Value {
        /// Its hash.
        hash: u64,
        /// The version of its value.
        version: u64,
        /// Milliseconds until it expires; `None`, on the wire the largest number, if it has no TTL.
        left_ms: Option<u64>,
        /// The value; empty if only the TTL was requested.
        value: &'a [u8],
    },
    /// The node does not hold the key.
    None {
        /// Its hash.
        hash: u64,
        /// The version that is known to have moved to another node; 0: none.
        moved_version: u64,
        /// Nodes that may hold it.
        hints: Hints<'a>,
    },
    /// A NONE without a hash: the key of a GET, DELETE or EXECUTE is longer than the node accepts, so it does not
    /// hold it.
    NotTaken,
    /// Nodes that the sender is linked to.
    Peers(Addresses<'a>),
    /// The link ends, with a reason as text.
    Bye(&'a [u8]),
    /// The receiver must drop older values of the key.
    Invalidate {
        /// The key.
        key: &'a [u8],
        /// The version of the value, or of the deletion.
        version: u64,
        /// Whether it is that of a value or a deletion.
        state: KeyState,
    },
    /// The answer to an INVALIDATE with a lower version than the sender's.
    Newer {
        /// The key.
        key: &'a [u8],
        /// The sender's version.
        version: u64,
        /// Whether it is that of a value or a deletion.
        state: KeyState,
    },
    /// The receiver must delete the key; the answer repeats the `request`.
    Delete {
        /// The key.
        key: &'a [u8],
        /// The least version of the deletion.
        version: u64,
    },
    /// The key is deleted.
    Deleted {
        /// Its hash.
        hash: u64,
        /// The version of the deletion.
        version: u64,
        /// Whether there was a value.
        had: bool,
        /// Nodes that may hold it.
        hints: Hints<'a>,
    },
    /// The receiver must carry out a command that depends on the old value; the answer repeats the `request`.
    Execute(RemoteCommand<'a>),
    /// The command was carried out.
    Executed {
        /// The hash of its key.
        hash: u64,
        /// The version of the key after the command; 0: none.
        version: u64,
        /// Whether the key exists after the command.
        state: KeyState,
        /// The reply for the client.
        reply: &'a [u8],
    },
    /// The command was not carried out, since the node does not hold the key.
    NotHolder {
        /// The hash of its key.
        hash: u64,
        /// The version that is known to have moved to another node; 0: none.
        moved_version: u64,
        /// Nodes that may hold it.
        hints: Hints<'a>,
    },
    /// The receiver must drop all keys up to this version; the answer repeats the `request`.
    Floor(u64),
    /// The receiver of FLOOR has dropped them.
    Floored(u64),
    /// The command was not carried out, since its deadline has passed or the node has no room for it.
    NotDone {
        /// The hash of its key.
        hash: u64,
    },
    /// Blocks of the Bloom filter of deletions that the sender no longer remembers individually; `request` is the
    /// number of the first block.
    Discarded {
        /// The highest version of these deletions: newer values stay.
        version: u64,
        /// The blocks.
        blocks: Blocks<'a>,
    },
}

impl<'a> Body<'a> {
    /// Whether the frame is part of digest sync: changes, snapshots, and requests for them.
    pub const fn is_about_filter(&self) -> bool {
        matches!(
            self,
            Self::Delta(_)
                | Self::Block(_)
                | Self::Snap { .. }
                | Self::Piece(_)
                | Self::SnapEnd
                | Self::Resync(_)
        )
    }

    /// Reads a payload whose length was checked by the header.
    pub(super) fn read(kind: Kind, flags: u16, payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut fields = Fields { rest: payload };
        let body = match kind {
            Kind::Heartbeat => fields.heartbeat(flags & FLAG_ANSWER != 0),
            Kind::Delta => Some(Body::Delta(Hashes::read(payload))),
            Kind::Block => Some(Body::Block(Images::read(payload))),
            Kind::Snap => {
                fields.head().zip(fields.byte()).map(|(head, size_log2)| Body::Snap { head, size_log2 })
            }
            Kind::Piece => Some(Body::Piece(Blocks::read(payload))),
            Kind::SnapEnd => Some(Body::SnapEnd),
            Kind::Resync => Some(Body::Resync(fields.head())),
            Kind::Get => {
                let wanted = if flags & FLAG_TTL_ONLY != 0 { Wanted::Ttl } else { Wanted::Value };
                Some(Body::Get { key: payload, wanted })
            }
            Kind::Value => fields.value(),
            Kind::None if payload.is_empty() => Some(Body::NotTaken),
            Kind::None => {
                fields.hinted().map(|(hash, moved_version, hints)| Body::None { hash, moved_version, hints })
            }
            Kind::Peers => Some(Body::Peers(Addresses::read(payload).map_err(FrameError::Address)?)),
            Kind::Bye => Some(Body::Bye(payload)),
            Kind::Invalidate => {
                let state = KeyState::of(flags);
                fields.number().map(|version| Body::Invalidate { key: fields.rest, version, state })
            }
            Kind::Newer => {
                let state = KeyState::of(flags);
                fields.number().map(|version| Body::Newer { key: fields.rest, version, state })
            }
            Kind::Delete => fields.number().map(|version| Body::Delete { key: fields.rest, version }),
            Kind::Deleted => {
                let had = flags & FLAG_HAD != 0;
                fields.hinted().map(|(hash, version, hints)| Body::Deleted { hash, version, had, hints })
            }
            Kind::Execute => {
                let command = fields.command(flags & FLAG_CREATE != 0);
                Some(Body::Execute(command.map_err(|left| FrameError::Command(payload.len() - left))?))
            }
            Kind::Executed => fields.number().zip(fields.number()).map(|(hash, version)| Body::Executed {
                hash,
                version,
                state: KeyState::of(flags),
                reply: fields.rest,
            }),
            Kind::NotHolder => fields.hinted().map(|(hash, moved_version, hints)| Body::NotHolder {
                hash,
                moved_version,
                hints,
            }),
            Kind::Floor => fields.number().map(Body::Floor),
            Kind::Floored => fields.number().map(Body::Floored),
            Kind::NotDone => fields.number().map(|hash| Body::NotDone { hash }),
            Kind::Discarded => {
                fields.number().map(|version| Body::Discarded { version, blocks: Blocks::read(fields.rest) })
            }
            Kind::Fragment => None,
        };
        // Never the error, since the length was checked, and a fragment has no body of its own.
        body.ok_or(FrameError::Length(kind.row().name, 0, "more"))
    }
}

/// Appends one frame to `out`. The caller bounds the payload: keys and values by the limits, lists by the functions of
/// `write`. The receiver refuses a longer one.
pub fn put(out: &mut Vec<u8>, clock: u64, request: u32, body: &Body<'_>) {
    match *body {
        Body::Heartbeat { head, wall_ms, ack, is_answer } => {
            let flags = if is_answer { FLAG_ANSWER } else { 0 };
            put_frame(out, Kind::Heartbeat, flags, request, clock, |out| {
                put_head(out, head);
                out.extend(wall_ms.to_le_bytes());
                out.extend(ack.to_le_bytes());
            });
        }
        Body::Delta(hashes) => {
            put_frame(out, Kind::Delta, 0, request, clock, |out| out.extend(hashes.entries.as_flattened()));
        }
        Body::Block(images) => {
            put_frame(out, Kind::Block, 0, request, clock, |out| out.extend(images.entries.as_flattened()));
        }
        Body::Snap { head, size_log2 } => put_frame(out, Kind::Snap, 0, request, clock, |out| {
            put_head(out, head);
            out.push(size_log2);
        }),
        Body::Piece(blocks) => {
            put_frame(out, Kind::Piece, 0, request, clock, |out| out.extend(blocks.entries.as_flattened()));
        }
        Body::SnapEnd => put_frame(out, Kind::SnapEnd, 0, request, clock, |_| {}),
        Body::Resync(head) => put_frame(out, Kind::Resync, 0, request, clock, |out| {
            if let Some(head) = head {
                put_head(out, head);
            }
        }),
        Body::Get { key, wanted } => {
            let flags = match wanted {
                Wanted::Value => 0,
                Wanted::Ttl => FLAG_TTL_ONLY,
            };
            put_frame(out, Kind::Get, flags, request, clock, |out| out.extend(key));
        }
        Body::Value { hash, version, left_ms, value } => {
            put_frame(out, Kind::Value, 0, request, clock, |out| {
                out.reserve(VALUE_HEAD_BYTES + value.len());
                out.extend(hash.to_le_bytes());
                out.extend(version.to_le_bytes());
                out.extend(left_ms.unwrap_or(NO_TTL).to_le_bytes());
                out.extend(value);
            });
        }
        Body::None { hash, moved_version, hints } => {
            put_frame(out, Kind::None, 0, request, clock, |out| put_hinted(out, hash, moved_version, hints));
        }
        Body::NotTaken => put_frame(out, Kind::None, 0, request, clock, |_| {}),
        Body::Peers(peers) => put_frame(out, Kind::Peers, 0, request, clock, |out| out.extend(peers.bytes)),
        Body::Bye(reason) => {
            let reason = &reason[..reason.len().min(REASON_BYTES_MAX)];
            put_frame(out, Kind::Bye, 0, request, clock, |out| out.extend(reason));
        }
        Body::Invalidate { key, version, state } => {
            put_frame(out, Kind::Invalidate, state.flags(), request, clock, |out| {
                put_versioned(out, version, key);
            });
        }
        Body::Newer { key, version, state } => {
            put_frame(out, Kind::Newer, state.flags(), request, clock, |out| {
                put_versioned(out, version, key)
            });
        }
        Body::Delete { key, version } => {
            put_frame(out, Kind::Delete, 0, request, clock, |out| put_versioned(out, version, key));
        }
        Body::Deleted { hash, version, had, hints } => {
            let flags = if had { FLAG_HAD } else { 0 };
            put_frame(out, Kind::Deleted, flags, request, clock, |out| {
                put_hinted(out, hash, version, hints);
            });
        }
        Body::Execute(command) => {
            let flags = if command.create { FLAG_CREATE } else { 0 };
            put_frame(out, Kind::Execute, flags, request, clock, |out| put_command(out, &command));
        }
        Body::Executed { hash, version, state, reply } => {
            put_frame(out, Kind::Executed, state.flags(), request, clock, |out| {
                out.extend(hash.to_le_bytes());
                put_versioned(out, version, reply);
            });
        }
        Body::NotHolder { hash, moved_version, hints } => {
            put_frame(out, Kind::NotHolder, 0, request, clock, |out| {
                put_hinted(out, hash, moved_version, hints);
            });
        }
        Body::Floor(version) => {
            put_frame(out, Kind::Floor, 0, request, clock, |out| out.extend(version.to_le_bytes()));
        }
        Body::Floored(version) => {
            put_frame(out, Kind::Floored, 0, request, clock, |out| out.extend(version.to_le_bytes()));
        }
        Body::NotDone { hash } => {
            put_frame(out, Kind::NotDone, 0, request, clock, |out| out.extend(hash.to_le_bytes()));
        }
        Body::Discarded { version, blocks } => {
            put_frame(out, Kind::Discarded, 0, request, clock, |out| {
                put_versioned(out, version, blocks.entries.as_flattened());
            });
        }
    }
}

fn put_versioned(out: &mut Vec<u8>, version: u64, bytes: &[u8]) {
    out.extend(version.to_le_bytes());
    out.extend(bytes);
}

fn put_hinted(out: &mut Vec<u8>, hash: u64, version: u64, hints: Hints<'_>) {
    out.extend(hash.to_le_bytes());
    out.extend(version.to_le_bytes());
    out.extend(hints.entries.as_flattened());
}

/// Writes a command, whose name has at most 255 bytes.
fn put_command(out: &mut Vec<u8>, command: &RemoteCommand<'_>) {
    let RemoteCommand { name, arguments, create: _, deadline, refused, protocol } = *command;
    let name = &name[..name.len().min(usize::from(u8::MAX))];
    out.extend(deadline.to_le_bytes());
    out.push(u8::try_from(refused.len()).unwrap_or(u8::MAX));
    out.extend(refused.entries.as_flattened());
    out.push(match protocol {
        Protocol::Lines => 1,
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    });
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend(name);
    out.extend(arguments.bytes);
}

fn put_head(out: &mut Vec<u8>, head: Head) {
    out.extend(head.epoch.to_le_bytes());
    out.extend(head.seq.to_le_bytes());
}

/// Appends a header and the payload that `payload` writes, then sets the length in the header.
pub(super) fn put_frame(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: u16,
    request: u32,
    clock: u64,
    payload: impl FnOnce(&mut Vec<u8>),
) {
    out.extend([MAGIC, kind.row().byte]);
    out.extend(flags.to_le_bytes());
    let length_at = out.len();
    out.extend([0; 4]);
    out.extend(request.to_le_bytes());
    out.extend(clock.to_le_bytes());
    let start = out.len();
    payload(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// A cursor over a payload.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn head(&mut self) -> Option<Head> {
        Some(Head { epoch: self.number()?, seq: self.number()? })
    }

    fn heartbeat(&mut self, is_answer: bool) -> Option<Body<'a>> {
        Some(Body::Heartbeat { head: self.head()?, wall_ms: self.number()?, ack: self.number()?, is_answer })
    }

    /// A hash, a version and hints.
    fn hinted(&mut self) -> Option<(u64, u64, Hints<'a>)> {
        Some((self.number()?, self.number()?, Hints::read(self.rest)))
    }

    /// Reads a command; the error is the number of bytes left where it is invalid.
    fn command(&mut self, create: bool) -> Result<RemoteCommand<'a>, usize> {
        let left = self.rest.len();
        let deadline = self.number().ok_or(left)?;
        let left = self.rest.len();
        let refusals = self.byte().map_or(0, usize::from);
        let ids = self.rest.get(..refusals * HINT_BYTES).filter(|_| refusals <= HINTS_MAX).ok_or(left)?;
        self.rest = &self.rest[ids.len()..];
        let refused = Hints::read(ids);
        let left = self.rest.len();
        let protocol = match self.byte() {
            Some(1) => Protocol::Lines,
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) | None => return Err(left),
        };
        let left = self.rest.len();
        let name_bytes = self.byte().ok_or(left)?;
        let (name, rest) = self.rest.split_at_checked(name_bytes.into()).ok_or(left)?;
        let arguments = Arguments::read(rest).map_err(|at| rest.len() - at)?;
        Ok(RemoteCommand { name, arguments, create, deadline, refused, protocol })
    }

    fn value(mut self) -> Option<Body<'a>> {
        let (hash, version) = (self.number()?, self.number()?);
        let left_ms = Some(self.number()?).filter(|&left_ms| left_ms != NO_TTL);
        Some(Body::Value { hash, version, left_ms, value: self.rest })
    }
}

//! Messages and bytes between nodes, counted by their purpose.

use olivia::wire::frame::{Body, FrameLimits, MAGIC, Parsed, parse};

/// A number of messages and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    const fn less(self, before: Self) -> Self {
        Self { messages: self.messages - before.messages, bytes: self.bytes - before.bytes }
    }
}

/// All messages, without the headers of TCP and IP.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    /// GET and its answers, without the bytes of the values.
    pub(crate) queries: Sum,
    /// Added keys, blocks, snapshots, and requests for them.
    pub(crate) digests: Sum,
    /// Heartbeats.
    pub(crate) heartbeats: Sum,
    /// Handshakes, PEERS and BYE.
    pub(crate) others: Sum,
    /// Bytes of values.
    pub(crate) values: u64,
}

impl Traffic {
    /// Returns the traffic since `before`.
    pub(crate) const fn since(self, before: Self) -> Self {
        Self {
            queries: self.queries.less(before.queries),
            digests: self.digests.less(before.digests),
            heartbeats: self.heartbeats.less(before.heartbeats),
            others: self.others.less(before.others),
            values: self.values - before.values,
        }
    }

    /// Returns the sum without the values.
    pub(crate) const fn all(self) -> Sum {
        Sum {
            messages: self.queries.messages
                + self.digests.messages
                + self.heartbeats.messages
                + self.others.messages,
            bytes: self.queries.bytes + self.digests.bytes + self.heartbeats.bytes + self.others.bytes,
        }
    }

    fn count(&mut self, body: &Body<'_>, bytes: usize) {
        if body.is_about_filter() {
            self.digests.add(bytes);
        } else if let Body::Value { value, .. } = body {
            self.queries.add(bytes - value.len());
            self.values += value.len() as u64;
        } else if matches!(body, Body::Get { .. } | Body::None { .. } | Body::NotTaken) {
            self.queries.add(bytes);
        } else if matches!(body, Body::Heartbeat { .. }) {
            self.heartbeats.add(bytes);
        } else {
            self.others.add(bytes);
        }
    }
}

/// A splitter of the bytes from one end of a link into messages.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    /// The bytes of an incomplete message.
    partial: Vec<u8>,
}

impl Listener {
    /// Counts the messages that end in `bytes`.
    pub(crate) fn frames(&mut self, bytes: &[u8], limits: FrameLimits, traffic: &mut Traffic) {
        if self.partial.is_empty() {
            let used = whole(bytes, limits, traffic);
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            self.partial.extend_from_slice(bytes);
            let used = whole(&self.partial, limits, traffic);
            self.partial.drain(..used);
        }
    }
}

/// Counts whole messages and returns their bytes. A line of the handshake is a message.
fn whole(bytes: &[u8], limits: FrameLimits, traffic: &mut Traffic) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest[0] == MAGIC {
            match parse(rest, limits) {
                Parsed::Frame { frame, consumed } => {
                    traffic.count(&frame.body, consumed);
                    at += consumed;
                }
                Parsed::Fragment { consumed, bytes } if consumed + bytes <= rest.len() => {
                    traffic.others.add(consumed + bytes);
                    at += consumed + bytes;
                }
                Parsed::Fragment { .. } | Parsed::Partial => return at,
                Parsed::Broken(error) => panic!("a node has said what is no frame: {error}"),
                Parsed::Oversized { .. } => panic!("a node has said more than it takes itself"),
            }
        } else {
            let Some(end) = memchr::memchr(b'\n', rest) else { return at };
            traffic.others.add(end + 1);
            at += end + 1;
        }
    }
    at
}

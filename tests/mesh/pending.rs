//! The requests of clients: their random choice and their encoding.

use super::oracle::{Item, Local, Stamp, key_shown};
use super::protocol::Verb;
use super::world::World;
use olivia::base::rng::Rng;

/// The subject of a request.
#[derive(Debug, Clone)]
pub enum What {
    Keys(Verb, Vec<Item>),
    Peers,
    Stats,
    Mesh,
    Filter,
    Ping,
    Quit,
}

/// The node's state of an argument at the time of the request.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub local: Local,
    /// From when on an answer from elsewhere counts.
    pub from: Stamp,
}

/// One request.
#[derive(Debug)]
pub struct PendingRequest {
    pub id: String,
    pub what: What,
    /// The position of its end in the bytes of its connection.
    pub end: usize,
    /// When its node was given it whole.
    pub given: Option<Stamp>,
    /// Whether it has been carried out, as far as can be seen.
    pub is_done: bool,
    /// It was carried out in the call that gave it to the node.
    pub is_prompt: bool,
    /// It waited for no earlier reply: it was written at the moment at which it appeared.
    pub is_fresh: bool,
    /// The oracle lists it as a change that may have been carried out.
    pub is_uncertain: bool,
    pub expected: Vec<Expected>,
    /// Hosts that were linked to the node then, if that was looked at.
    pub linked: Vec<usize>,
}

impl PendingRequest {
    pub const fn nothing() -> Self {
        Self {
            id: String::new(),
            what: What::Ping,
            end: 0,
            given: None,
            is_done: false,
            is_prompt: false,
            is_fresh: false,
            is_uncertain: false,
            expected: Vec::new(),
            linked: Vec::new(),
        }
    }
}

/// The behaviour of the clients of one seed. A rate of n means one in n; 0: never.
#[derive(Debug)]
pub struct Style {
    pub keys: u64,
    pub items: u64,
    pub reads: u64,
    pub deadlines: u64,
    pub deletes: u64,
    pub others: u64,
    pub padding: u64,
    pub seconds: u64,
    pub burst: u64,
    pub think_us: u64,
    pub requests: u64,
    pub rude: u64,
    pub sleepy: u64,
}

impl Style {
    /// `is_fine`: requests are short.
    pub fn draw(rng: &mut Rng, is_fine: bool) -> Self {
        let mut pick = |choices: &[u64]| choices[usize::try_from(rng.below(choices.len() as u64)).unwrap()];
        let style = Self {
            keys: pick(&[3, 12, 60, 300, 3_000]),
            items: pick(&[1, 2, 4, 12]),
            reads: pick(&[2, 3, 6]),
            deadlines: pick(&[0, 2, 5]),
            deletes: pick(&[0, 3, 8]),
            others: pick(&[10, 50]),
            padding: pick(&[0, 20, 200, 20_000]),
            seconds: pick(&[1, 3, 20, 1_000_000]),
            burst: pick(&[1, 4, 40]),
            think_us: pick(&[300, 3_000, 20_000]),
            requests: pick(&[5, 50, 1_000]),
            rude: pick(&[0, 3, 20]),
            sleepy: pick(&[0, 5, 50]),
        };
        if !is_fine && rng.one_in(32) {
            // So many that a snapshot takes several pieces, and filters are made again while they grow.
            let (keys, items, deletes) = (60_000, 1_000, if rng.one_in(2) { 0 } else { 3 });
            let (padding, burst, think_us) = (0, 1, 20_000);
            return Self { keys, items, deletes, reads: 1, padding, burst, think_us, ..style };
        }
        if !is_fine && rng.one_in(16) {
            // So many keys that filters grow, and shrink again.
            return Self { keys: 8_000, items: 300, deletes: 2, padding: 0, burst: 1, ..style };
        }
        if !is_fine {
            return style;
        }
        let (keys, items) = (style.keys.min(60), style.items.min(3));
        Self { keys, items, padding: 20, burst: style.burst.min(4), ..style }
    }
}

impl World {
    /// Appends a client's request to what it is about to write.
    pub fn put_pending(&mut self, at: usize, what: What, text: &mut Vec<u8>) {
        let begin = text.len();
        let mut id = String::new();
        let client = &mut self.clients[at];
        if client.serial.is_multiple_of(3) {
            id = format!("r{}", client.serial);
            text.extend(format!("{id}:").bytes());
        }
        client.serial += 1;
        self.put_request(&what, text);
        text.push(b'\n');
        let client = &mut self.clients[at];
        client.written += text.len() - begin;
        let end = client.written;
        let request = PendingRequest { id, what, end, ..PendingRequest::nothing() };
        client.pending.push_back(request);
    }

    fn put_request(&self, what: &What, text: &mut Vec<u8>) {
        let (verb, items) = match what {
            What::Keys(verb, items) => (*verb, items),
            What::Peers => return text.extend(b"REQUEST peers"),
            What::Stats => return text.extend(b"STATS"),
            What::Mesh => return text.extend(b"MESH"),
            What::Filter => return text.extend(b"REQUEST bloomfilter"),
            What::Ping => return text.extend(b"PING"),
            What::Quit => return text.extend(b"QUIT"),
        };
        let word: &[u8] = match verb {
            Verb::Get => b"GET",
            Verb::Set => b"SET",
            Verb::SetEx => b"SETEX",
            Verb::Del => b"DEL",
            Verb::Expire => b"EXPIRE",
            Verb::Ttl => b"TTL",
            Verb::Who => b"WHO",
            Verb::Append => b"APPEND",
        };
        text.extend(word);
        for (at, item) in items.iter().enumerate() {
            text.push(if at == 0 { b' ' } else { b',' });
            text.extend(key_shown(item.key));
            if matches!(verb, Verb::Set | Verb::SetEx | Verb::Append) {
                text.push(b':');
                text.extend(self.oracle.text(item.value));
            }
            if matches!(verb, Verb::SetEx | Verb::Expire) {
                text.extend(format!(":{}", item.seconds).bytes());
            }
        }
    }

    /// Draws a request for a host.
    pub fn compose(&mut self, host: usize) -> What {
        let Self { rng, style, .. } = self;
        if rng.one_in(style.others) {
            let others = [What::Peers, What::Stats, What::Mesh, What::Filter, What::Ping];
            return others[usize::try_from(rng.below(5)).unwrap()].clone();
        }
        // Byte by byte, values that grow take too long.
        if !self.plan.is_fine && rng.one_in(16) {
            return self.compose_append(host);
        }
        let verb = if !rng.one_in(style.reads) {
            [Verb::Get, Verb::Get, Verb::Get, Verb::Get, Verb::Get, Verb::Ttl, Verb::Who]
                [usize::try_from(rng.below(7)).unwrap()]
        } else if rng.one_in(style.deletes) {
            Verb::Del
        } else if rng.one_in(style.deadlines) {
            [Verb::SetEx, Verb::SetEx, Verb::Expire][usize::try_from(rng.below(3)).unwrap()]
        } else {
            Verb::Set
        };
        let count = if verb == Verb::Who { 1 } else { 1 + rng.below(style.items) };
        let mut items: Vec<Item> = Vec::new();
        for _ in 0..count {
            let key = u32::try_from(self.rng.below(self.style.keys)).unwrap();
            // Of equal keys in one request the last stands; that is tested elsewhere.
            if items.iter().any(|item| item.key == key) {
                continue;
            }
            let padding = usize::try_from(self.rng.below(self.style.padding + 1)).unwrap();
            let padding = if self.rng.one_in(4) { padding } else { padding % 30 };
            let value = if matches!(verb, Verb::Set | Verb::SetEx) {
                self.oracle.new_value(host, key, padding)
            } else {
                usize::MAX
            };
            items.push(Item { key, value, seconds: 1 + self.rng.below(self.style.seconds) });
        }
        What::Keys(verb, items)
    }
}

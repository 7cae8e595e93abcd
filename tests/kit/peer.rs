//! A peer whose every byte the test controls, and one node, with a client that must be served after each attack, and an
//! audit of the node after each call.

use super::driver::{ClientId, Driver};
pub use super::ms;
use olivia::config::{Config, Secret};
use olivia::node::{CloseReason, FilterState, Node, NodeId, PeerView};
use olivia::store::HashSecret;
use olivia::wire::frame::{
    self, Address, Body, FrameLimits, Head, Hints, KeyState, Parsed, RemoteCommand, put, put_blocks,
    put_deltas, put_piece,
};
use olivia::wire::handshake::{
    Answer, ConnectArgs, Links, Offer, Proof, Prover, derive_hash_secret, hash_check_text,
    public_hash_secret, put_counter_offer, put_offer, put_proof, put_welcome, read_answer, read_request,
};
use olivia::wire::remote_reply::{RemoteReply, RequestResult, put_keys, put_result};

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const LISTEN: &str = "127.0.0.1:5454";

const LIMITS: FrameLimits = FrameLimits { key_bytes_max: 1 << 16, value_bytes_max: 1 << 23 };

/// A configuration with a secret.
pub fn secretive() -> Config {
    Config { mesh_secret: Some(Secret::new(SECRET.to_owned())), ..Config::default() }
}

/// The identity that a peer offers.
#[derive(Debug, Clone)]
pub struct Face {
    pub node: [u8; 16],
    pub listen: String,
    pub nonce: [u8; 16],
    pub hash: u64,
    /// Its wall clock.
    pub wall_ms: u64,
    pub secret: Option<&'static str>,
    /// The address from which the node sees it.
    pub seen: String,
    /// The links that it states in its offer.
    pub links: Links,
}

const NONCE: [u8; 16] = [0xCD; 16];

impl Face {
    /// A node without a secret, on this machine, that listens on port 6000 + `number`.
    pub fn new(number: u16) -> Self {
        let mut node = [0xAB; 16];
        node[..2].copy_from_slice(&number.to_be_bytes());
        Self {
            node,
            listen: format!("127.0.0.1:{}", 6_000 + number),
            nonce: NONCE,
            hash: HashSecret::from_bytes(public_hash_secret()).hash(&hash_check_text(&NONCE)).0,
            wall_ms: 1_700_000_000_000,
            secret: None,
            seen: "127.0.0.1:40000".to_owned(),
            links: Links::Unstated,
        }
    }

    /// A node with the secret, on another machine.
    pub fn elsewhere(number: u16) -> Self {
        Self {
            listen: format!("192.0.2.{}:5454", 10 + number),
            seen: format!("192.0.2.{}:40000", 10 + number),
            secret: Some(SECRET),
            hash: HashSecret::from_bytes(derive_hash_secret(SECRET.as_bytes()))
                .hash(&hash_check_text(&NONCE))
                .0,
            ..Self::new(number)
        }
    }

    pub fn offer(&self) -> Offer<'_> {
        Offer {
            node: self.node,
            listen: self.listen.as_bytes(),
            nonce: self.nonce,
            hash: self.hash,
            wall_ms: self.wall_ms,
            links: self.links,
        }
    }

    pub fn id(&self) -> NodeId {
        NodeId(self.node)
    }

    /// The offer of a dialling peer.
    pub fn offer_line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        put_offer(&mut line, &self.offer());
        line
    }

    /// The proof of a dialling peer.
    pub fn proof_line(&self, node: &Face) -> Vec<u8> {
        let secret = self.secret.map(str::as_bytes);
        let mut line = Vec::new();
        put_proof(&mut line, &Proof::of(secret, Prover::Dialler, &self.offer(), &node.offer()));
        line
    }

    /// The counter offer of a dialled peer.
    pub fn counter_line(&self, node: &Face) -> Vec<u8> {
        let secret = self.secret.map(str::as_bytes);
        let mut line = Vec::new();
        let proof = Proof::of(secret, Prover::Acceptor, &self.offer(), &node.offer());
        put_counter_offer(&mut line, b"h1", &self.offer(), &proof);
        line
    }

    /// The identity in an offer.
    pub fn of(offer: &Offer<'_>) -> Self {
        let listen = String::from_utf8(offer.listen.to_vec()).unwrap();
        Self {
            node: offer.node,
            listen,
            nonce: offer.nonce,
            hash: offer.hash,
            wall_ms: offer.wall_ms,
            links: offer.links,
            ..Self::new(0)
        }
    }
}

/// A frame that came from the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Heartbeat {
        request: u32,
        head: Head,
        is_answer: bool,
    },
    Resync(Option<Head>),
    Get {
        request: u32,
        key: Vec<u8>,
    },
    Value {
        request: u32,
        value: Vec<u8>,
    },
    None {
        request: u32,
        moved_version: u64,
    },
    Peers(Vec<Address>),
    Bye(String),
    /// A frame of the node's own filter.
    Changelog,
    Invalidate {
        key: Vec<u8>,
        version: u64,
        state: KeyState,
    },
    Newer {
        key: Vec<u8>,
        version: u64,
        state: KeyState,
    },
    Execute {
        request: u32,
        /// The name and the arguments, with blanks between them.
        words: String,
        create: bool,
        /// The hybrid clock from which on the command must not be carried out.
        deadline: u64,
        /// Nodes that have refused.
        refused: Vec<[u8; 16]>,
    },
    /// `reply` is the first result, after `!` if it is an error.
    Executed {
        request: u32,
        version: u64,
        reply: String,
    },
    NotHolder {
        request: u32,
        moved_version: u64,
        hints: Vec<[u8; 16]>,
    },
    NotDone {
        request: u32,
    },
    Delete {
        request: u32,
        key: Vec<u8>,
        version: u64,
    },
    Deleted {
        request: u32,
        version: u64,
        had: bool,
    },
    Floor {
        request: u32,
        version: u64,
    },
    Floored {
        request: u32,
    },
    /// The filter of discarded deletions.
    Discarded,
}

impl Received {
    fn of(frame: &frame::Frame<'_>) -> Self {
        let request = frame.request;
        match frame.body {
            Body::Heartbeat { head, is_answer, .. } => Self::Heartbeat { request, head, is_answer },
            Body::Resync(head) => Self::Resync(head),
            Body::Get { key, .. } => Self::Get { request, key: key.to_vec() },
            Body::Value { value, .. } => Self::Value { request, value: value.to_vec() },
            Body::None { moved_version, .. } => Self::None { request, moved_version },
            Body::NotTaken => Self::None { request, moved_version: 0 },
            Body::Peers(addresses) => Self::Peers(addresses.iter().collect()),
            Body::Bye(reason) => Self::Bye(String::from_utf8(reason.to_vec()).unwrap()),
            Body::Delta(_) | Body::Block(_) | Body::Snap { .. } | Body::Piece(_) | Body::SnapEnd => {
                Self::Changelog
            }
            Body::Invalidate { key, version, state } => {
                Self::Invalidate { key: key.to_vec(), version, state }
            }
            Body::Newer { key, version, state } => Self::Newer { key: key.to_vec(), version, state },
            Body::Execute(RemoteCommand { name, arguments, create, deadline, refused, .. }) => {
                let words: Vec<_> = std::iter::once(name).chain(arguments.iter()).collect();
                let words = String::from_utf8_lossy(&words.join(&b' ')).into_owned();
                Self::Execute { request, words, create, deadline, refused: refused.iter().collect() }
            }
            Body::Executed { version, reply, .. } => {
                let remote = RemoteReply::read(reply).unwrap();
                let first = remote.results().next();
                let reply = first.map_or_else(String::new, |result| {
                    let text = String::from_utf8_lossy(result.bytes);
                    if result.is_error { format!("!{text}") } else { text.into_owned() }
                });
                Self::Executed { request, version, reply }
            }
            Body::NotHolder { moved_version, hints, .. } => {
                Self::NotHolder { request, moved_version, hints: hints.iter().collect() }
            }
            Body::NotDone { .. } => Self::NotDone { request },
            Body::Delete { key, version } => Self::Delete { request, key: key.to_vec(), version },
            Body::Deleted { version, had, .. } => Self::Deleted { request, version, had },
            Body::Floor(version) => Self::Floor { request, version },
            Body::Floored(_) => Self::Floored { request },
            Body::Discarded { .. } => Self::Discarded,
        }
    }

    /// Returns the request number of a GET.
    pub fn query(&self) -> Option<u32> {
        if let Self::Get { request, .. } = self { Some(*request) } else { None }
    }

    /// Returns the request number of an EXECUTE, and the words of its command.
    pub fn command(&self) -> Option<(u32, &str)> {
        if let Self::Execute { request, words, .. } = self { Some((*request, words)) } else { None }
    }
}

/// The last replies to the bystander of a node whose key `own` is gone.
pub const WITHOUT_OWN: &str = ":GOT \n0:PONG 1\n";

/// One node and a client of it, the bystander.
#[derive(Debug)]
pub struct World {
    pub driver: Driver,
    bystander: ClientId,
    /// The last replies to the bystander, to `GET own` and `PING`.
    pub last: &'static str,
    /// The secret with which the node hashes keys.
    hash_secret: HashSecret,
}

impl World {
    /// Starts a node with one key, `own`.
    pub fn new(config: Config) -> Self {
        assert_eq!(config.limits.check(), Ok(()));
        assert_eq!(config.mesh.check(), Ok(()));
        let secret = config.mesh_secret.as_ref();
        let bytes = secret.map_or_else(public_hash_secret, |secret| derive_hash_secret(secret.as_bytes()));
        let mut driver = Driver::new(Config { password: None, ..config.clone() });
        driver.watch = Some(Node::audit);
        let bystander = driver.client();
        assert_eq!(driver.call(bystander, "SET own:1\n"), ":SAT own:1\n");
        driver.node.reconfigure(driver.now, config);
        Self { driver, bystander, last: ":GOT own:1\n0:PONG 1\n", hash_secret: HashSecret::from_bytes(bytes) }
    }

    /// A node without a secret, and a peer that it does not know yet.
    pub fn open() -> (Self, Face) {
        (Self::new(Config::default()), Face::new(1))
    }

    /// A node with a secret, and a peer elsewhere that it does not know yet.
    pub fn with_secret() -> (Self, Face) {
        (Self::new(secretive()), Face::elsewhere(1))
    }

    pub fn join(&mut self, peers: &[&str]) {
        self.driver.join(LISTEN, peers);
    }

    /// Returns the hash of a key on this mesh.
    pub fn hash(&self, key: &str) -> u64 {
        self.hash_secret.hash(key.as_bytes()).0
    }

    /// Returns keys whose hashes have the highest bit `high`.
    pub fn keys(&self, high: u64) -> impl Iterator<Item = String> + use<> {
        let secret = self.hash_secret.clone();
        (0..).map(|n| format!("k{n}")).filter(move |key| secret.hash(key.as_bytes()).0 >> 63 == high)
    }

    /// Checks that the bystander is answered correctly.
    pub fn check(&mut self) {
        let bystander = self.bystander;
        assert_eq!(self.driver.call(bystander, "GET own\nPING\n"), ":GOT own:1\n0:PONG 1\n");
    }

    /// Takes the driver out; the bystander is not checked.
    pub fn into_driver(mut self) -> Driver {
        self.last = "";
        std::mem::replace(&mut self.driver, Driver::new(Config::default()))
    }

    /// Checks that the bystander is answered in one call, whatever work is pending.
    pub fn check_at_once(&mut self) {
        let bystander = self.bystander;
        self.driver.deliver(bystander, b"PING\n");
        assert_eq!(self.driver.waiting(bystander), 9, "a client waits for the work of a peer");
        self.driver.read_now(bystander);
        assert_eq!(self.driver.take(bystander), "0:PONG 1\n");
    }

    pub fn call(&mut self, text: &str) -> String {
        let bystander = self.bystander;
        self.driver.call(bystander, text)
    }

    /// Sends a request of the bystander, without reading the reply.
    pub fn begin(&mut self, text: &str) {
        let bystander = self.bystander;
        self.driver.send(bystander, text);
    }

    /// Returns the replies to the bystander since the last call.
    pub fn replies(&mut self) -> String {
        let bystander = self.bystander;
        self.driver.take(bystander)
    }

    /// Returns a number of STATS.
    pub fn stat(&mut self, name: &str) -> u64 {
        let stats = self.call("STATS\n");
        let field = stats.split([' ', ',']).find_map(|field| field.strip_prefix(&format!("{name}:")));
        field.unwrap_or_else(|| panic!("no {name} in {stats}")).trim().parse().unwrap()
    }

    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.driver.node.stats().connections_closed[reason as usize]
    }

    /// Returns the node's view of a peer.
    pub fn view(&self, face: &Face) -> Option<PeerView> {
        self.driver.node.peers(self.driver.now).into_iter().find(|view| view.id == Some(face.id()))
    }

    pub fn is_linked(&self, face: &Face) -> bool {
        self.view(face).is_some_and(|view| view.is_linked)
    }

    /// Returns the state of a peer's filter at the node.
    pub fn filter(&self, face: &Face) -> FilterState {
        self.view(face).unwrap().filter
    }

    /// Sends the offer of a face to the node on a new connection; returns the reply.
    pub fn offer(&mut self, face: &Face) -> (ClientId, String) {
        let accepted = self.driver.connect(&face.seen);
        let conn = accepted.unwrap_or_else(|_| self.driver.connect_node(&face.seen));
        let reply = self.driver.call(conn, String::from_utf8(face.offer_line()).unwrap().as_str());
        (conn, reply)
    }

    /// Sends an offer and checks the counter offer and its proof; returns the node's face.
    pub fn offered(&mut self, face: &Face) -> (ClientId, Face) {
        let (conn, reply) = self.offer(face);
        let Ok(Answer::Offer(theirs, proof)) = read_answer(reply.trim_end().as_bytes()) else {
            panic!("no counter offer: {reply}")
        };
        let secret = face.secret.map(str::as_bytes);
        assert!(Proof::of(secret, Prover::Acceptor, &theirs, &face.offer()).matches(&proof));
        (conn, Face::of(&theirs))
    }

    /// Sends an offer and the proof; returns the reply.
    pub fn proven(&mut self, face: &Face) -> (ClientId, String) {
        let (conn, node) = self.offered(face);
        self.driver.send(conn, face.proof_line(&node));
        (conn, self.driver.take(conn))
    }

    /// Dials the node and becomes its peer.
    pub fn dial(&mut self, face: &Face) -> Link {
        let (conn, node) = self.offered(face);
        self.driver.send(conn, face.proof_line(&node));
        let mut welcome = Vec::new();
        put_welcome(&mut welcome, b"h2");
        let mut came = self.driver.take_bytes(conn);
        assert!(came.starts_with(&welcome), "{}", String::from_utf8_lossy(&came));
        came.drain(..welcome.len());
        Link::new(conn, came)
    }

    /// Returns the next dial of the node, which must come within a minute, and its address.
    pub fn next_dial(&mut self) -> (ClientId, String) {
        for _ in 0..600 {
            if let Some((conn, addr)) = self.driver.next_dial() {
                return (conn, addr.to_string());
            }
            self.driver.pass(ms(100));
        }
        panic!("no dial within a minute");
    }

    /// Lets the next dial of the node succeed; returns its offer, with the dialled address as `seen`.
    pub fn picked_up(&mut self) -> (ClientId, Face) {
        let (conn, seen) = self.next_dial();
        self.driver.pick_up(conn);
        let node = self.node_at(conn, &seen);
        (conn, node)
    }

    /// Returns the node's offer on a dial to `seen` that succeeded.
    pub fn node_at(&mut self, conn: ClientId, seen: &str) -> Face {
        let line = self.driver.take(conn);
        let args = line.trim_end().strip_prefix("h1:REQUEST connect ").unwrap();
        let Ok(ConnectArgs::Offer(offer)) = read_request(args.as_bytes()) else { panic!("{line}") };
        Face { seen: seen.to_owned(), ..Face::of(&offer) }
    }

    /// Lets the next dial of the node succeed and becomes its peer.
    pub fn accept(&mut self, face: &Face) -> Link {
        let (conn, node) = self.picked_up();
        self.driver.send(conn, face.counter_line(&node));
        let line = self.driver.take(conn);
        let Ok(ConnectArgs::Proof(proof)) =
            read_request(line.trim_end().strip_prefix("h2:REQUEST connect ").unwrap().as_bytes())
        else {
            panic!("{line}")
        };
        let secret = face.secret.map(str::as_bytes);
        assert!(Proof::of(secret, Prover::Dialler, &node.offer(), &face.offer()).matches(&proof));
        let mut welcome = Vec::new();
        put_welcome(&mut welcome, b"h2");
        self.driver.send(conn, welcome);
        Link::new(conn, self.driver.take_bytes(conn))
    }

    /// Makes a link and reads its first frames.
    pub fn linked(&mut self, face: &Face) -> Link {
        let mut link = self.dial(face);
        let first = self.frames(&mut link);
        assert!(first.contains(&Received::Resync(None)), "{first:?}");
        link
    }

    /// Makes a link to a peer whose filter is known and empty, of two blocks.
    pub fn known(&mut self, face: &Face) -> Link {
        let mut link = self.linked(face);
        self.publish(&mut link, head(1, 0), 1, &[0; 16]);
        assert_eq!(self.filter(face), FilterState::Known);
        link
    }

    /// Sends frames, each with its number, in one piece.
    pub fn send(&mut self, link: &Link, frames: &[(u32, Body<'_>)]) {
        self.driver.send(link.conn, bytes_of(frames));
    }

    /// Returns the frames that have arrived since the last call; panics on other bytes.
    pub fn frames(&mut self, link: &mut Link) -> Vec<Received> {
        link.came.extend(self.driver.take_bytes(link.conn));
        let mut at = 0;
        let mut received = Vec::new();
        while at < link.came.len() {
            match frame::parse(&link.came[at..], LIMITS) {
                Parsed::Frame { frame, consumed } => {
                    received.push(Received::of(&frame));
                    at += consumed;
                }
                Parsed::Fragment { consumed, bytes } => {
                    let Some(fragment) = link.came[at + consumed..].get(..bytes) else { break };
                    link.fragments.extend_from_slice(fragment);
                    at += consumed + bytes;
                    if let Parsed::Frame { frame, .. } = frame::parse(&link.fragments, LIMITS) {
                        received.push(Received::of(&frame));
                        link.fragments.clear();
                    }
                }
                Parsed::Partial => break,
                other @ (Parsed::Broken(_) | Parsed::Oversized { .. }) => panic!("{other:?}"),
            }
        }
        link.came.drain(..at);
        received
    }

    /// Returns the request numbers of the GETs among [`World::frames`].
    pub fn queries(&mut self, link: &mut Link) -> Vec<u32> {
        self.frames(link).iter().filter_map(Received::query).collect()
    }

    /// Sends a whole snapshot.
    pub fn publish(&mut self, link: &mut Link, head: Head, size_log2: u8, words: &[u64]) {
        let mut bytes = bytes_of(&[(0, Body::Snap { head, size_log2 })]);
        put_piece(&mut bytes, 0, 0, words);
        bytes.extend(bytes_of(&[(0, Body::SnapEnd)]));
        self.driver.send(link.conn, bytes);
    }

    /// Returns the reason of the BYE of a link, which must be closed or closing.
    pub fn bye_reason(&mut self, link: &mut Link) -> String {
        let received = self.frames(link);
        assert!(self.driver.has_ended(link.conn), "{received:?}");
        let Some(Received::Bye(reason)) = received.last() else { panic!("no BYE: {received:?}") };
        reason.clone()
    }
}

impl Drop for World {
    /// Checks that the bystander is answered, after the requests of the test that it waits for.
    fn drop(&mut self) {
        if std::thread::panicking() || self.last.is_empty() {
            return;
        }
        let mut replies = self.call("GET own\nPING\n");
        if !replies.ends_with(self.last) {
            self.driver.pass(ms(100));
            replies += &self.replies();
        }
        assert!(replies.ends_with(self.last), "{replies:?} instead of {:?}", self.last);
    }
}

/// A node without a secret, and a link to its one peer; see [`World::linked`].
pub fn linked() -> (World, Face, Link) {
    let (mut world, face) = World::open();
    let link = world.linked(&face);
    (world, face, link)
}

/// The same with a known filter; see [`World::known`].
pub fn known() -> (World, Face, Link) {
    let (mut world, face) = World::open();
    let link = world.known(&face);
    (world, face, link)
}

/// One end of a link, and the received bytes that are not parsed yet.
#[derive(Debug)]
pub struct Link {
    pub conn: ClientId,
    pub came: Vec<u8>,
    /// A frame that has come in fragments so far.
    fragments: Vec<u8>,
}

impl Link {
    pub const fn new(conn: ClientId, came: Vec<u8>) -> Self {
        Self { conn, came, fragments: Vec::new() }
    }
}

pub fn head(epoch: u64, seq: u64) -> Head {
    Head { epoch, seq }
}

/// A heartbeat of a node with the right clock.
pub fn beat(head: Head, is_answer: bool) -> Body<'static> {
    Body::Heartbeat { head, wall_ms: 1_700_000_000_000, ack: 0, is_answer }
}

/// Encodes the reply of a command that was carried out by a peer, for [`executed`].
pub fn remote_reply(is_error: bool, reply: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_keys(&mut bytes, &[]);
    put_result(&mut bytes, RequestResult { is_error, bytes: reply.as_bytes() });
    bytes
}

/// The answer of a peer that has carried out a command.
pub fn executed(hash: u64, version: u64, remote_reply: &[u8]) -> Body<'_> {
    Body::Executed { hash, version, state: KeyState::Held, reply: remote_reply }
}

/// The answer of a node that does not hold a key and has no hints.
pub fn none(hash: u64) -> Body<'static> {
    Body::None { hash, moved_version: 0, hints: Hints::default() }
}

pub fn heartbeat(request: u32) -> (u32, Body<'static>) {
    (request, beat(head(1, 0), false))
}

pub fn bytes_of(frames: &[(u32, Body<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (request, body) in frames {
        put(&mut bytes, 0, *request, body);
    }
    bytes
}

/// Encodes deltas from position `first` on.
pub fn deltas(first: u64, hashes: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_deltas(&mut bytes, 0, first, hashes.iter().copied());
    bytes
}

/// Encodes one rebuilt block.
pub fn block(seq: u64, number: u32, image: [u64; 8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_blocks(&mut bytes, 0, seq, std::iter::once((number, image)));
    bytes
}

/// Encodes blocks of a snapshot.
pub fn piece(first: u32, words: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_piece(&mut bytes, 0, first, words);
    bytes
}

/// Encodes a header with any length, without a payload.
pub fn header(kind: u8, flags: u16, length: u32) -> Vec<u8> {
    let mut bytes = vec![frame::MAGIC, kind];
    bytes.extend(flags.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend([0; 12]);
    bytes
}

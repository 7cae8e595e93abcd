//! A network that behaves as TCP does: on each connection ordered bytes, or an end to them.
//!
//! Each direction of a wire is a pipe of limited room, in which bytes move in pieces of any size, each later than the
//! one before. Lost pieces are sent again and so are only late; a piece for a closed socket is answered with a reset; a
//! lost reset is not sent again, so that a connection can be half open as long as neither end writes. Paths between
//! hosts have a delay and can be cut, each direction by itself.
//!
//! The network does not depend on nodes: a socket is a wire and a side.

use super::agenda::Agenda;
use super::world::Event;
use olivia::base::rng::Rng;
use olivia::node::ConnKey;
use std::collections::VecDeque;

/// One microsecond and one millisecond.
pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;

/// Pieces that one write is cut into at most.
const PIECES_MAX: usize = 24;

/// The owner of an end of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Host(usize),
    Client(usize),
}

/// One of the two ends of a wire; that of the dialler is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub wire: usize,
    pub side: usize,
}

impl Port {
    pub const fn other(self) -> Self {
        Self { wire: self.wire, side: 1 - self.side }
    }
}

/// The state of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    /// Not known to its program yet.
    Waiting,
    Open,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    No,
    Sent,
    Arrived,
}

/// The way from one end to the other.
#[derive(Debug)]
struct Pipe {
    data: VecDeque<u8>,
    /// Number of the bytes that have arrived.
    arrived: usize,
    /// Lengths of the pieces on their way, and when each is there.
    pieces: VecDeque<(u64, usize)>,
    /// Lengths of what has arrived and was not read, and when.
    unread: VecDeque<(u64, usize)>,
    fin: Fin,
    room: usize,
    /// The writer waits for room.
    wants_room: bool,
    is_held: bool,
}

/// One connection.
#[derive(Debug)]
struct Wire {
    parties: [Party; 2],
    sockets: [Socket; 2],
    /// The connection key of each end at its node.
    keys: [Option<ConnKey>; 2],
    pipes: [Pipe; 2],
    syn_is_held: bool,
}

/// One direction between two hosts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path {
    pub delay: u64,
    /// Added by a fault.
    pub more: u64,
    /// Number of faults that cut it.
    pub cuts: u32,
}

/// The behaviour of the connections of one seed.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Bytes of a piece on its way, at most.
    pub piece: usize,
    /// Bytes on their way and unread, at most; between hosts.
    pub room: usize,
    pub link_room: usize,
    /// One write in so many takes only a part.
    pub partial: u64,
    pub jitter: u64,
    pub nanos_per_byte: u64,
}

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Bytes,
    End,
    Nothing,
}

pub struct Net {
    wires: Vec<Wire>,
    hosts: usize,
    paths: Vec<Path>,
    /// Hosts that are off: nothing arrives there.
    pub is_off: Vec<bool>,
    /// Hosts without a program that listens: connections are refused.
    pub is_deaf: Vec<bool>,
    /// Hosts that leave connections unanswered.
    pub is_mute: Vec<bool>,
    pub manners: Manners,
    /// Wires with something held back by a cut.
    held: Vec<usize>,
    /// The longest time that bytes of one host have waited in the socket of another.
    pub longest_unread: u64,
    pub rng: Rng,
    pub now: u64,
}

impl Net {
    pub fn new(hosts: usize, manners: Manners, rng: Rng) -> Self {
        Self {
            wires: Vec::new(),
            hosts,
            paths: vec![Path::default(); hosts * hosts],
            is_off: vec![false; hosts],
            is_deaf: vec![true; hosts],
            is_mute: vec![false; hosts],
            manners,
            held: Vec::new(),
            longest_unread: 0,
            rng,
            now: 0,
        }
    }

    pub fn path_mut(&mut self, from: usize, to: usize) -> &mut Path {
        &mut self.paths[from * self.hosts + to]
    }

    /// Whether nothing gets from one party to the other.
    fn is_cut(&self, from: Party, to: Party) -> bool {
        match (from, to) {
            (Party::Host(from), Party::Host(to)) => {
                from != to
                    && (self.paths[from * self.hosts + to].cuts > 0 || self.is_off[from] || self.is_off[to])
            }
            (Party::Host(host), Party::Client(_)) | (Party::Client(_), Party::Host(host)) => {
                self.is_off[host]
            }
            (Party::Client(_), Party::Client(_)) => true,
        }
    }

    fn delay(&mut self, from: Party, to: Party) -> u64 {
        let base = match (from, to) {
            (Party::Host(from), Party::Host(to)) => {
                let path = self.paths[from * self.hosts + to];
                path.delay + path.more
            }
            (Party::Client(_), _) | (_, Party::Client(_)) => 20 * US,
        };
        base + self.rng.below(self.manners.jitter + 1)
    }

    pub fn key(&self, port: Port) -> Option<ConnKey> {
        self.wires[port.wire].keys[port.side]
    }

    pub fn party(&self, port: Port) -> Party {
        self.wires[port.wire].parties[port.side]
    }

    pub fn is_open(&self, port: Port) -> bool {
        self.wires[port.wire].sockets[port.side] == Socket::Open
    }

    pub fn is_gone(&self, port: Port) -> bool {
        self.wires[port.wire].sockets[port.side] == Socket::Gone
    }

    /// Makes an end known to its program.
    pub fn open(&mut self, port: Port, key: Option<ConnKey>) {
        let wire = &mut self.wires[port.wire];
        wire.sockets[port.side] = Socket::Open;
        wire.keys[port.side] = key;
    }

    /// Begins to connect to a host. The answer comes as an event.
    pub fn dial(&mut self, agenda: &mut Agenda<Event>, from: Party, to: usize, key: Option<ConnKey>) -> Port {
        let pipe = |room| Pipe {
            data: VecDeque::new(),
            arrived: 0,
            pieces: VecDeque::new(),
            unread: VecDeque::new(),
            fin: Fin::No,
            room,
            wants_room: false,
            is_held: false,
        };
        let (first, room) = match from {
            Party::Client(_) => (usize::MAX, self.manners.room),
            Party::Host(_) => (self.manners.link_room, self.manners.link_room),
        };
        self.wires.push(Wire {
            parties: [from, Party::Host(to)],
            sockets: [Socket::Waiting; 2],
            keys: [key, None],
            pipes: [pipe(first), pipe(room)],
            syn_is_held: false,
        });
        let port = Port { wire: self.wires.len() - 1, side: 0 };
        let delay = self.delay(from, Party::Host(to));
        agenda.put(self.now + delay, Event::Syn(port.wire));
        port
    }

    /// A connection attempt arrives. Gives the end of the host that it is for, if that takes it.
    pub fn syn(&mut self, agenda: &mut Agenda<Event>, wire: usize) -> Option<Port> {
        let [from, to] = self.wires[wire].parties;
        let Party::Host(host) = to else { return None };
        if self.wires[wire].sockets[0] == Socket::Gone {
            return None;
        }
        if self.is_cut(from, to) || self.is_cut(to, from) || self.is_mute[host] {
            self.wires[wire].syn_is_held = true;
            self.held.push(wire);
            return None;
        }
        let delay = self.delay(to, from);
        if self.is_deaf[host] {
            self.wires[wire].sockets[1] = Socket::Gone;
            agenda.put(self.now + delay, Event::Reset(Port { wire, side: 0 }));
            return None;
        }
        agenda.put(self.now + delay, Event::Connected(wire));
        Some(Port { wire, side: 1 })
    }

    /// Writes what there is room for; gives how much that was.
    pub fn write(&mut self, agenda: &mut Agenda<Event>, port: Port, bytes: &[u8]) -> usize {
        let wire = &self.wires[port.wire];
        let pipe = &wire.pipes[port.side];
        let mut count = bytes.len().min(pipe.room.saturating_sub(pipe.data.len()));
        if count > 1 && pipe.room != usize::MAX && self.rng.one_in(self.manners.partial) {
            count = 1 + usize::try_from(self.rng.below(count as u64)).unwrap();
        }
        let (from, to) = (wire.parties[port.side], wire.parties[1 - port.side]);
        let pipe = &mut self.wires[port.wire].pipes[port.side];
        pipe.wants_room = count < bytes.len();
        if count == 0 || pipe.fin != Fin::No {
            return 0;
        }
        pipe.data.extend(&bytes[..count]);
        let is_idle = pipe.pieces.is_empty();
        let mut last = pipe.pieces.back().map_or(0, |piece| piece.0);
        let mut left = count;
        let mut pieces = Vec::new();
        while left > 0 {
            let most = self.manners.piece.min(left) as u64;
            let cut = usize::try_from(1 + self.rng.below(most)).unwrap();
            let cut = if pieces.len() + 1 >= PIECES_MAX { left } else { cut };
            let delay = self.delay(from, to) + self.manners.nanos_per_byte * cut as u64;
            last = last.max(self.now + delay);
            pieces.push((last, cut));
            left -= cut;
        }
        if is_idle {
            agenda.put(pieces[0].0, Event::Piece(port));
        }
        self.wires[port.wire].pipes[port.side].pieces.extend(pieces);
        count
    }

    /// The next piece from an end arrives at the other. Gives the other end if something is new there.
    pub fn piece(&mut self, agenda: &mut Agenda<Event>, port: Port) -> Option<Port> {
        let to = port.other();
        if self.is_cut(self.party(port), self.party(to)) {
            self.wires[port.wire].pipes[port.side].is_held = true;
            self.held.push(port.wire);
            return None;
        }
        let back = self.delay(self.party(to), self.party(port));
        let wire = &mut self.wires[port.wire];
        let pipe = &mut wire.pipes[port.side];
        if wire.sockets[to.side] == Socket::Gone {
            pipe.data.clear();
            pipe.pieces.clear();
            pipe.arrived = 0;
            pipe.unread.clear();
            // No end is left that could be reset.
            if wire.sockets[port.side] != Socket::Gone {
                agenda.put(self.now + back, Event::Reset(port));
            }
            return None;
        }
        match pipe.pieces.pop_front() {
            Some((_, 0)) => pipe.fin = Fin::Arrived,
            Some((_, count)) => {
                pipe.arrived += count;
                pipe.unread.push_back((self.now, count));
            }
            None => return None,
        }
        if let Some((at, _)) = pipe.pieces.front() {
            agenda.put((*at).max(self.now), Event::Piece(port));
        }
        (wire.sockets[to.side] == Socket::Open).then_some(to)
    }

    /// Reads up to `most` bytes into `into`. A writer that waits for room is notified.
    pub fn read(&mut self, agenda: &mut Agenda<Event>, port: Port, most: usize, into: &mut Vec<u8>) -> Read {
        into.clear();
        let from = port.other();
        let back = self.delay(self.party(port), self.party(from));
        let is_link = [port, from].iter().all(|end| matches!(self.party(*end), Party::Host(_)));
        let pipe = &mut self.wires[port.wire].pipes[from.side];
        if pipe.arrived == 0 {
            return if pipe.fin == Fin::Arrived { Read::End } else { Read::Nothing };
        }
        let count = pipe.arrived.min(most);
        let (front, behind) = pipe.data.as_slices();
        into.extend_from_slice(&front[..front.len().min(count)]);
        into.extend_from_slice(&behind[..count - into.len()]);
        pipe.data.drain(..count);
        let mut left = count;
        while let Some((at, unread)) = pipe.unread.front_mut().filter(|_| left > 0) {
            if is_link {
                self.longest_unread = self.longest_unread.max(self.now - *at);
            }
            let read = left.min(*unread);
            (*unread, left) = (*unread - read, left - read);
            if *unread == 0 {
                pipe.unread.pop_front();
            }
        }
        pipe.arrived -= count;
        if pipe.wants_room {
            pipe.wants_room = false;
            agenda.put(self.now + back, Event::Room(from));
        }
        Read::Bytes
    }

    /// Whether there is something to read, the end included.
    pub fn is_readable(&self, port: Port) -> bool {
        let pipe = &self.wires[port.wire].pipes[1 - port.side];
        pipe.arrived > 0 || pipe.fin == Fin::Arrived
    }

    /// Bytes written and not yet read.
    pub fn unread(&self, port: Port) -> usize {
        self.wires[port.wire].pipes[port.side].data.len()
    }

    /// Whether there is room to write.
    pub fn has_room(&self, port: Port) -> bool {
        let pipe = &self.wires[port.wire].pipes[port.side];
        pipe.data.len() < pipe.room
    }

    /// Sends the end behind what was written.
    pub fn shut(&mut self, agenda: &mut Agenda<Event>, port: Port) {
        let delay = self.delay(self.party(port), self.party(port.other()));
        let pipe = &mut self.wires[port.wire].pipes[port.side];
        if pipe.fin != Fin::No {
            return;
        }
        pipe.fin = Fin::Sent;
        let at = pipe.pieces.back().map_or(0, |piece| piece.0).max(self.now + delay);
        if pipe.pieces.is_empty() && !pipe.is_held {
            agenda.put(at, Event::Piece(port));
        }
        pipe.pieces.push_back((at, 0));
    }

    /// The program closes its end: an end behind what was written, or a reset if something is unread.
    pub fn close(&mut self, agenda: &mut Agenda<Event>, port: Port) {
        if self.wires[port.wire].sockets[port.side] == Socket::Gone {
            return;
        }
        if self.wires[port.wire].pipes[1 - port.side].arrived > 0 {
            return self.reset(agenda, port);
        }
        self.shut(agenda, port);
        self.wires[port.wire].sockets[port.side] = Socket::Gone;
    }

    /// An end breaks off: the other gets a reset, unless that is lost.
    pub fn reset(&mut self, agenda: &mut Agenda<Event>, port: Port) {
        let to = port.other();
        self.vanish(port);
        let delay = self.delay(self.party(port), self.party(to));
        if !self.is_cut(self.party(port), self.party(to)) {
            agenda.put(self.now + delay, Event::Reset(to));
        }
    }

    /// An end is gone without a word.
    pub fn vanish(&mut self, port: Port) {
        let wire = &mut self.wires[port.wire];
        wire.sockets[port.side] = Socket::Gone;
        let pipe = &mut wire.pipes[port.side];
        // Bytes in flight are lost with the end that would have sent them again.
        pipe.pieces.clear();
        pipe.data.clear();
        pipe.arrived = 0;
    }

    /// A reset arrives at an end. False if that is gone.
    pub fn reset_arrives(&mut self, port: Port) -> bool {
        let wire = &mut self.wires[port.wire];
        let was = std::mem::replace(&mut wire.sockets[port.side], Socket::Gone);
        for pipe in &mut wire.pipes {
            pipe.data.clear();
            pipe.pieces.clear();
            pipe.arrived = 0;
        }
        was != Socket::Gone
    }

    /// Gives a connection another room, as a reader that has become slow does, or fast again.
    pub fn set_room(&mut self, agenda: &mut Agenda<Event>, wire: usize, room: usize) {
        for side in [0, 1] {
            let pipe = &mut self.wires[wire].pipes[side];
            if pipe.room == usize::MAX {
                continue;
            }
            pipe.room = room;
            if pipe.data.len() < room && std::mem::take(&mut pipe.wants_room) {
                agenda.put(self.now, Event::Room(Port { wire, side }));
            }
        }
    }

    /// Some connection that is open at both ends.
    pub fn any_open(&mut self) -> Option<usize> {
        let count = self.wires.len() as u64;
        let mut tries = (0..30).map(|_| usize::try_from(self.rng.below(count)).unwrap());
        tries.find(|wire| self.wires.get(*wire).is_some_and(|wire| wire.sockets == [Socket::Open; 2]))
    }

    /// Sends again what was held back by cuts that are no more.
    pub fn release(&mut self, agenda: &mut Agenda<Event>) {
        for wire in std::mem::take(&mut self.held) {
            let again = self.now + self.rng.below(300 * MS);
            if std::mem::take(&mut self.wires[wire].syn_is_held) {
                agenda.put(again, Event::Syn(wire));
            }
            for side in [0, 1] {
                if std::mem::take(&mut self.wires[wire].pipes[side].is_held) {
                    agenda.put(again, Event::Piece(Port { wire, side }));
                }
            }
        }
    }
}

//! The requests of clients, and the queries and answers between nodes that they cause.

use super::model::{Fault, Step};
use super::rules::Rule;
use super::state::{Body, Member, Node, PerNode, Request, Set, Verb, Version, View, bit, has};

/// Maximum number of times that hints lead a request to a peer that it queried before.
const HOPS_MAX: u8 = 6;
/// Maximum number of requests to a home node to create a key.
const CREATIONS_MAX: u8 = 2;

/// Nodes by rendezvous rank for the key, highest first. Not the order of ids, which decides ties.
const RANKS: [Node; 3] = [1, 0, 2];

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// GET: the version that was found.
    Found(Option<Version>),
    Done,
    /// A link was lost after the command had left.
    Unknown,
    /// An unlinked peer may hold the key.
    NotDone,
    /// The home node would not create the key.
    TryAgain,
}

/// Requests of clients.
impl Step {
    pub fn open(&mut self, node: Node, verb: Verb) {
        let mut visible = PerNode::default();
        for other in 0..self.nodes {
            let sees = other == node || self.view(node, other) == View::Claims;
            if let Some(value) = self.state.members[other].value.filter(|_| sees) {
                visible[other] = value.version;
            }
        }
        let increment = self.state.increments;
        if verb == Verb::Incr {
            self.state.increments += 1;
        }
        let Member { moved, tombstone, floor, known, .. } = self.state.members[node];
        let mut least = floor;
        if self.obeys(Rule::MovedIsFloor) {
            least = least.max(moved.map_or(0, |moved| moved.version));
        }
        if self.obeys(Rule::TombstoneIsFloor) {
            least = least.max(tombstone.unwrap_or(0));
        }
        self.member(node).serial += 1;
        self.member(node).request = Some(Request {
            verb,
            increment,
            floor: least,
            queried: 0,
            waiting: 0,
            hinted: 0,
            tried: 0,
            hops: 0,
            creations: 0,
            is_partial: false,
            known,
            visible,
        });
        match verb {
            Verb::Get | Verb::Incr | Verb::Nx => {}
            Verb::Del => {
                let version = self.stamp(node);
                self.delete(node, version);
            }
            Verb::Flush => self.flush_all(node),
        }
        self.proceed(node);
    }

    fn flush_all(&mut self, node: Node) {
        let version = self.stamp(node);
        self.flush(node, version);
        let serial = self.state.members[node].serial;
        let mut waiting = 0;
        for peer in self.linked(node) {
            self.send(node, peer, Body::Floor { serial, version });
            waiting |= bit(peer);
        }
        if !self.obeys(Rule::FlushWaits) {
            waiting = 0;
        }
        if let Some(request) = &mut self.member(node).request {
            request.waiting = waiting;
        }
    }

    /// A client writes the key at a node.
    pub fn set(&mut self, node: Node) {
        let version = self.store(node, 0);
        self.state.had_set = true;
        if version <= self.state.flushed {
            self.broken(Fault::FlushedLater);
        }
    }

    /// Takes the next step of the open request, if it waits for no answer.
    pub fn proceed(&mut self, node: Node) {
        let Some(request) = self.state.members[node].request else { return };
        match request.verb {
            Verb::Get if self.holds(node) => {
                let own = self.state.members[node].value.map(|value| value.version);
                self.finish(node, End::Found(own));
            }
            _ if request.waiting != 0 => {}
            Verb::Get => match self.next_peer(node, request) {
                Some(peer) => {
                    let serial = self.state.members[node].serial;
                    self.call(node, peer, Body::Lookup { serial });
                }
                None => self.finish(node, End::Found(None)),
            },
            Verb::Incr | Verb::Nx => self.proceed_command(node, request),
            Verb::Del => self.proceed_delete(node, request),
            Verb::Flush => {
                if !request.is_partial && self.is_everything_linked() {
                    self.state.flushed = self.state.flushed.max(self.state.members[node].floor);
                }
                self.finish(node, End::Done);
            }
        }
    }

    /// The peer to query next: those that claim the key, then those that hints name, then unknown ones.
    fn next_peer(&self, node: Node, request: Request) -> Option<Node> {
        let holder_known = self.state.members[node].moved.and_then(|moved| moved.holder).map_or(0, bit);
        let hinted = request.hinted | holder_known;
        let tiers = [self.peers_with(node, View::Claims), hinted, self.peers_with(node, View::Unknown)];
        let is_free = |peer: &Node| !has(request.queried, *peer);
        tiers.into_iter().find_map(|tier| self.linked(node).filter(is_free).find(|peer| has(tier, *peer)))
    }

    fn call(&mut self, node: Node, peer: Node, body: Body) {
        if let Some(request) = &mut self.member(node).request {
            request.queried |= bit(peer);
            request.waiting |= bit(peer);
        }
        self.send(node, peer, body);
    }

    fn proceed_command(&mut self, node: Node, request: Request) {
        let Request { verb, increment, known, .. } = request;
        if self.holds(node) {
            self.carry_out(node, verb, increment, known);
            self.answer_command(node, verb, increment);
            return;
        }
        let serial = self.state.members[node].serial;
        let execute = |create| Body::Execute { serial, verb, increment, create, tried: request.tried };
        if let Some(peer) = self.next_peer(node, request) {
            return self.call(node, peer, execute(false));
        }
        let holder_known = self.state.members[node].moved.and_then(|moved| moved.holder).map_or(0, bit);
        let is_up = self.state.is_up[node];
        let may_hold = |peer: Node| {
            !is_up[peer]
                && (self.view(node, peer) != View::Absent || has(request.hinted | holder_known, peer))
        };
        if self.others(node).any(may_hold) && self.obeys(Rule::ViewKept) {
            return self.finish(node, End::NotDone);
        }
        let is_here = |rank: &Node| *rank == node || (*rank < self.nodes && is_up[*rank]);
        let home_node = RANKS.into_iter().find(is_here).unwrap_or(node);
        if home_node == node || !self.obeys(Rule::HomeNode) {
            self.carry_out(node, verb, increment, known);
            self.answer_command(node, verb, increment);
        } else if request.creations == CREATIONS_MAX {
            self.finish(node, End::TryAgain);
        } else {
            if let Some(request) = &mut self.member(node).request {
                request.creations += 1;
            }
            self.call(node, home_node, execute(true));
        }
    }

    /// Carries a command out at the node that holds the key, or on nothing.
    fn carry_out(&mut self, node: Node, verb: Verb, increment: u8, known: bool) {
        let old = self.state.members[node].value;
        if verb == Verb::Incr {
            if has(self.state.done, increment) {
                self.broken(Fault::CarriedOutTwice);
            }
            self.state.done |= bit(increment);
            self.store(node, old.map_or(0, |value| value.increments) | bit(increment));
        } else if old.is_none() {
            self.store(node, 0);
            self.state.nx_winners += 1;
            if self.state.nx_winners > 1 && !self.state.had_departure && !self.state.had_set {
                self.broken(Fault::TwoWinners);
            }
        }
        if old.is_none() && known {
            self.broken(Fault::Recreated);
        }
    }

    fn answer_command(&mut self, node: Node, verb: Verb, increment: u8) {
        if verb == Verb::Incr {
            self.state.answered |= bit(increment);
        }
        self.finish(node, End::Done);
    }

    fn proceed_delete(&mut self, node: Node, request: Request) {
        let serial = self.state.members[node].serial;
        let version = self.state.members[node].tombstone.unwrap_or(0);
        let claims = self.peers_with(node, View::Claims) | self.peers_with(node, View::Unknown);
        let wanted = (claims | request.hinted) & !request.queried;
        let mut is_waiting = false;
        for peer in self.others(node).filter(|peer| has(wanted, *peer)) {
            if self.state.is_up[node][peer] {
                self.call(node, peer, Body::Delete { serial, version });
                is_waiting = true;
            } else if let Some(request) = &mut self.member(node).request {
                request.is_partial = true;
            }
        }
        if !is_waiting {
            self.finish(node, End::Done);
        }
    }

    fn finish(&mut self, node: Node, end: End) {
        let Some(request) = self.member(node).request.take() else { return };
        match (request.verb, end) {
            (Verb::Get, End::Found(None)) => {
                if request.known && !self.state.had_break {
                    self.broken(Fault::NotFound);
                }
            }
            (Verb::Get, End::Found(Some(version))) => {
                if version < self.state.members[node].seen {
                    self.broken(Fault::Older);
                }
                let member = self.member(node);
                member.seen = member.seen.max(version);
            }
            (Verb::Del, End::Done) => {
                let unlinked =
                    |peer: Node| !self.state.is_up[node][peer] && self.view(node, peer) != View::Absent;
                let is_partial = request.is_partial || self.others(node).any(unlinked);
                let is_still_there = |holder: Node| {
                    let version = self.state.members[holder].value.map_or(0, |value| value.version);
                    version > 0 && version == request.visible[holder]
                };
                if !is_partial && (0..self.nodes).any(is_still_there) {
                    self.broken(Fault::DeletedNothing);
                }
                let member = self.member(node);
                let deleted = member.tombstone.unwrap_or(0);
                member.seen = member.seen.max(deleted);
            }
            (_, End::TryAgain) => {
                if self.is_quiet() && !self.is_held() {
                    self.broken(Fault::Refused);
                }
            }
            (_, End::Found(_) | End::Done | End::Unknown | End::NotDone) => {}
        }
    }

    /// The link to a peer is lost: what was queried there is not answered any more.
    pub fn request_lost(&mut self, node: Node, peer: Node) {
        let Some(request) = &mut self.member(node).request else { return };
        if !has(request.waiting, peer) {
            return;
        }
        request.waiting &= !bit(peer);
        request.is_partial = true;
        match request.verb {
            Verb::Incr | Verb::Nx => self.finish(node, End::Unknown),
            Verb::Get | Verb::Del | Verb::Flush => self.proceed(node),
        }
    }
}

/// Requests of peers, and their answers.
impl Step {
    pub fn serve(&mut self, node: Node, peer: Node, body: Body) {
        let Member { value, moved, .. } = self.state.members[node];
        let moved = moved.map_or(0, |moved| moved.version);
        let hints = self.hints(node, peer);
        match body {
            Body::Lookup { serial } => {
                let answer = match value {
                    Some(value) => Body::Found { serial, version: value.version },
                    None => Body::NotFound { serial, moved, hints },
                };
                self.send(node, peer, answer);
            }
            Body::Execute { serial, verb, increment, create, tried } => {
                let known = self.state.members[peer].request.is_some_and(|request| request.known);
                let may_create = create && self.knows_no_holder(node, tried | bit(peer));
                if value.is_some() || may_create {
                    self.carry_out(node, verb, increment, known);
                    let version = self.state.members[node].value.map_or(0, |value| value.version);
                    self.send(node, peer, Body::Executed { serial, version });
                } else {
                    self.send(node, peer, Body::NotHolder { serial, moved, hints });
                }
            }
            Body::Delete { serial, version } => {
                let own = value.map(|value| value.version);
                let is_deleted = own.is_some_and(|own| own < version || self.obeys(Rule::DeleteIsCommand));
                let mut version = version;
                if is_deleted {
                    version = self.stamp(node).max(version);
                    self.delete(node, version);
                } else if own.is_none() {
                    self.leave_tombstone(node, version);
                }
                self.send(node, peer, Body::Deleted { serial, version, hints });
            }
            Body::Floor { serial, version } => {
                self.flush(node, version);
                self.send(node, peer, Body::Floored { serial });
            }
            Body::Empty
            | Body::Changes { .. }
            | Body::Snapshot { .. }
            | Body::Invalidate { .. }
            | Body::Newer { .. }
            | Body::Beat { .. }
            | Body::Found { .. }
            | Body::NotFound { .. }
            | Body::Executed { .. }
            | Body::NotHolder { .. }
            | Body::Deleted { .. }
            | Body::Floored { .. } => {}
        }
    }

    /// Whether the node has no evidence that a node beyond `tried` holds the key.
    fn knows_no_holder(&self, node: Node, tried: Set) -> bool {
        let tried = if self.obeys(Rule::TriedExcluded) { tried } else { 0 };
        let holder_known = self.state.members[node].moved.and_then(|moved| moved.holder);
        let claims = self.peers_with(node, View::Claims);
        claims & !tried == 0 && holder_known.is_none_or(|holder| has(tried, holder))
    }

    pub fn answered(&mut self, node: Node, peer: Node, body: Body) {
        if let Body::Executed { version, .. } = body {
            self.executed(node, peer, version);
        }
        if body.serial() != Some(self.state.members[node].serial) || !self.has_queried(node, peer) {
            return;
        }
        let (hints, moved) = body.hints();
        let Some(request) = &mut self.member(node).request else { return };
        request.waiting &= !bit(peer);
        request.hinted |= hints;
        let has_risen = moved > request.floor;
        request.floor = request.floor.max(moved);
        if request.queried & hints != 0 && (has_risen || request.hops < HOPS_MAX) {
            request.queried &= !hints;
            request.hops += 1;
        }
        let Request { verb, increment, floor, .. } = *request;
        if let Body::NotHolder { .. } = body {
            request.tried |= bit(peer);
        } else if let Body::Deleted { version, .. } = body {
            self.leave_tombstone(node, version);
            if self.obeys(Rule::DeletedInvalidates) {
                self.yields(node, peer, version, false, false);
            }
        } else if let Body::Executed { .. } = body {
            return self.answer_command(node, verb, increment);
        } else if let Body::Found { version, .. } = body
            && version >= floor
        {
            if self.obeys(Rule::ValueSetsMoved) {
                self.remember(node, version, Some(peer));
            }
            return self.finish(node, End::Found(Some(version)));
        }
        self.proceed(node);
    }

    /// The holder carried out a command of this node and stored it at a version.
    fn executed(&mut self, node: Node, holder: Node, version: Version) {
        if self.obeys(Rule::ExecutedInvalidates) && !self.yields(node, holder, version, true, true) {
            return;
        }
        if self.obeys(Rule::ExecutedSetsMoved) {
            self.remember(node, version, Some(holder));
        }
        let member = self.member(node);
        member.seen = member.seen.max(version);
    }
}

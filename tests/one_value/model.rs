//! The protocol for one key: the handlers of a node for each frame and each change of a link.
//!
//! The handlers follow the frames table of `wire` and the rules of `rules.rs`; requests of clients are in
//! `requests.rs`. A handler that detects a broken promise records a [`Fault`].

use super::rules::Rule;
use super::state::{
    Body, Change, Frame, Frames, Member, Moved, Node, Peer, Pending, PerNode, Set, State, Top, Value, Verb,
    Version, View, bit, has,
};

use std::ops::Range;

/// A promise that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Linked and quiet, two nodes hold the key.
    TwoValues,
    /// Linked and quiet, no node holds the value of the highest version.
    NewestLost,
    /// Linked and quiet, a value is held below a delete, an expired or a flushed version.
    Resurrected,
    /// Linked and quiet, a filter does not claim the key of its node.
    NotClaimed,
    /// A read returned less than its node wrote or was notified of.
    Older,
    /// A read found nothing, although its node knew the key and the key existed ever since.
    NotFound,
    /// A command created the key, although its node knew the key and the key existed ever since.
    Recreated,
    /// An answered increment is not in the value, and nothing but increments happened.
    IncrementLost,
    /// Two SET NX were answered as the one that set the key.
    TwoWinners,
    /// A command was carried out twice.
    CarriedOutTwice,
    /// DEL was answered without an error, and what its node could see is still there.
    DeletedNothing,
    /// A SET after the answer to `FLUSHALL MESH` is below its floor.
    FlushedLater,
    /// All is linked and quiet, no node holds the key, and a command could not create it.
    Refused,
}

/// One step from a state: the state that it leads to, and what it broke.
#[derive(Debug)]
pub struct Step {
    pub state: State,
    pub nodes: u8,
    pub without: Option<Rule>,
    pub fault: Option<Fault>,
    /// A link or a changelog is longer than the model allows: the step does not count.
    pub is_beyond: bool,
}

/// Reading.
impl Step {
    pub fn obeys(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    pub fn member(&mut self, node: Node) -> &mut Member {
        &mut self.state.members[node]
    }

    pub fn others(&self, node: Node) -> impl Iterator<Item = Node> + use<> {
        (0..self.nodes).filter(move |other| *other != node)
    }

    pub fn linked(&self, node: Node) -> impl Iterator<Item = Node> + use<> {
        let is_up = self.state.is_up[node];
        self.others(node).filter(move |other| is_up[*other])
    }

    pub fn view(&self, node: Node, peer: Node) -> View {
        self.state.members[node].peers[peer].view
    }

    /// Linked peers with this view of their filter.
    pub fn peers_with(&self, node: Node, view: View) -> Set {
        let peers = self.linked(node).filter(|peer| self.view(node, *peer) == view);
        peers.fold(0, |set, peer| set | bit(peer))
    }

    pub fn is_everything_linked(&self) -> bool {
        (0..self.nodes).all(|node| self.linked(node).count() + 1 == usize::from(self.nodes))
    }

    pub fn holds(&self, node: Node) -> bool {
        self.state.members[node].value.is_some()
    }

    pub fn is_held(&self) -> bool {
        (0..self.nodes).any(|node| self.holds(node))
    }

    /// A peer's filter claims the key, and no image is under way that may be older than the key: such a claim is that
    /// of a deleted key, and no evidence of a new one.
    fn claims_now(&self, node: Node, peer: Node) -> bool {
        let log = self.state.members[peer].log;
        let mut ahead = self.state.members[node].peers[peer].applied..log.len;
        self.view(node, peer) == View::Claims && ahead.all(|at| log.get(at) == Change::Addition)
    }

    /// Nodes that may have the key, for `querier`, which `node` cannot answer.
    pub fn hints(&self, node: Node, querier: Node) -> Set {
        if !self.obeys(Rule::Hints) {
            return 0;
        }
        let holder_known = self.state.members[node].moved.and_then(|moved| moved.holder);
        match holder_known.filter(|holder| *holder != querier) {
            Some(holder) => bit(holder),
            None => self
                .others(node)
                .filter(|peer| *peer != querier && self.view(node, *peer) == View::Claims)
                .fold(0, |set, peer| set | bit(peer)),
        }
    }

    /// Whether nothing is under way or due: no frame, change, resync or request.
    pub fn is_quiet(&self) -> bool {
        (0..self.nodes).all(|node| {
            let member = &self.state.members[node];
            let is_idle = |peer: Node| {
                let at_peer = &member.peers[peer];
                at_peer.sent == member.log.len
                    && !at_peer.resync
                    && at_peer.view != View::Unknown
                    && self.state.links[node][peer].as_slice().is_empty()
            };
            member.request.is_none() && self.others(node).all(is_idle)
        }) && self.is_everything_linked()
    }

    /// No frame is under way and no change waits to be sent.
    fn is_still(&self) -> bool {
        (0..self.nodes).all(|node| {
            let member = &self.state.members[node];
            self.linked(node).all(|peer| {
                member.peers[peer].sent == member.log.len
                    && self.state.links[node][peer].as_slice().is_empty()
            })
        })
    }
}

/// Checks.
impl Step {
    pub fn broken(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// A write or a delete took place.
    fn raise_top(&mut self, top: Top) {
        let order = |top: Top| (top.version, top.is_gone, top.holder);
        let old = self.state.top;
        if order(top) >= order(old) {
            let is_tied = old.version == top.version && old.has_departed && !top.is_gone;
            self.state.top = Top { is_tied, ..top };
        }
    }

    /// The key was removed on some node: no client may rely on it.
    fn departed(&mut self, version: Version) {
        self.state.gone = self.state.gone.max(version);
        self.state.had_departure = true;
        self.forget_known();
    }

    fn forget_known(&mut self) {
        for node in 0..self.nodes {
            let member = self.member(node);
            member.known = false;
            if let Some(request) = &mut member.request {
                request.known = false;
            }
        }
    }

    /// Completes an action: ghosts, and the checks of a quiet state.
    pub fn run(&mut self) {
        let mut known = PerNode::default();
        let gone = self.state.gone;
        let lives = |node: Node| self.state.members[node].value.is_some_and(|value| value.version > gone);
        for node in 0..self.nodes {
            let member = &self.state.members[node];
            let holder_known = member.moved.and_then(|moved| moved.holder);
            let sees =
                |peer: Node| lives(peer) && (self.claims_now(node, peer) || holder_known == Some(peer));
            known[node] = member.known || lives(node) || self.linked(node).any(sees);
        }
        (0..self.nodes).for_each(|node| self.member(node).known = known[node]);
        if !self.is_held() {
            self.forget_known();
        }
        if self.is_still() {
            (0..self.nodes).for_each(|node| self.member(node).dropped_lately = false);
        }
        if self.is_quiet() {
            self.check_agreement();
        }
    }

    fn check_agreement(&mut self) {
        let top = self.state.top;
        let holders: Vec<Node> = (0..self.nodes).filter(|node| self.holds(*node)).collect();
        match holders[..] {
            [] if top.version > 0 && !top.is_gone && !top.has_departed && !top.is_tied => {
                self.broken(Fault::NewestLost);
            }
            [] => {}
            [holder] => {
                let version = self.state.members[holder].value.map_or(0, |value| value.version);
                let is_top = (version, holder) == (top.version, top.holder);
                let was_lost = top.is_gone || top.has_departed;
                if (was_lost || !is_top) && !(was_lost && self.state.had_restart) {
                    self.broken(if was_lost { Fault::Resurrected } else { Fault::NewestLost });
                }
                if self.others(holder).any(|node| self.view(node, holder) != View::Claims) {
                    self.broken(Fault::NotClaimed);
                }
                self.check_increments(holder);
            }
            _ => self.broken(Fault::TwoValues),
        }
    }

    /// For scenarios in which nothing but increments happens.
    fn check_increments(&mut self, holder: Node) {
        let increments = self.state.members[holder].value.map_or(0, |value| value.increments);
        let is_alone = !self.state.had_set && !self.state.had_departure && !self.state.had_break;
        if is_alone && self.state.answered & !increments != 0 {
            self.broken(Fault::IncrementLost);
        }
    }
}

/// The own keys.
impl Step {
    pub fn stamp(&mut self, node: Node) -> Version {
        let member = self.member(node);
        member.clock += 1;
        member.clock
    }

    /// Stores a value of this node, with the version of now, and notifies peers.
    pub fn store(&mut self, node: Node, increments: Set) -> Version {
        let version = self.stamp(node);
        let is_new = !self.holds(node);
        let beside = self.obeys(Rule::TombstoneBesideValue);
        let member = self.member(node);
        member.value = Some(Value { version, increments });
        if !beside {
            member.tombstone = None;
        }
        member.seen = member.seen.max(version);
        if is_new {
            self.log(node, Change::Addition);
            self.member(node).bit = true;
        }
        self.raise_top(Top { version, holder: node, ..Top::default() });
        if self.obeys(Rule::SetInvalidates) {
            self.notify(node, version);
        }
        if self.state.members[node].request.is_some_and(|request| request.verb == Verb::Get) {
            self.proceed(node);
        }
        version
    }

    /// Sends an own version to the peers that may hold the key.
    fn notify(&mut self, node: Node, version: Version) {
        for peer in self.linked(node) {
            if self.view(node, peer) != View::Absent {
                self.invalidate(node, peer, version, true);
            }
        }
    }

    fn log(&mut self, node: Node, change: Change) {
        let log = &mut self.member(node).log;
        if log.len == 8 {
            self.is_beyond = true;
        } else {
            log.push(change);
        }
    }

    /// Removes the own value. The filter keeps its bit until its block is rebuilt.
    pub fn drop_value(&mut self, node: Node) {
        self.member(node).value = None;
        self.member(node).dropped_lately = true;
    }

    /// The own value expires.
    pub fn expire(&mut self, node: Node) {
        let Some(Value { version, .. }) = self.state.members[node].value else { return };
        self.drop_value(node);
        if self.state.top.version == version && !self.state.top.is_gone {
            let is_top = self.state.top.holder == node;
            self.state.top.has_departed |= is_top;
            self.state.top.is_tied |= !is_top;
        }
        let covers = self.covers();
        let is_behind =
            self.others(node).any(|peer| !covers(self.state.members[node].peers[peer].acked, version));
        if is_behind && self.obeys(Rule::ExpiryLeavesTombstone) {
            self.leave_tombstone(node, version);
        }
        self.departed(version);
    }

    /// Keeps a tombstone, unless there is a newer one.
    pub fn leave_tombstone(&mut self, node: Node, version: Version) {
        let tombstone = &mut self.member(node).tombstone;
        *tombstone = Some(version.max(tombstone.unwrap_or(0)));
    }

    /// Deletes the key here, by command.
    pub fn delete(&mut self, node: Node, version: Version) {
        self.drop_value(node);
        self.leave_tombstone(node, version);
        self.raise_top(Top { version, is_gone: true, ..Top::default() });
        self.departed(version);
    }

    /// Empties this node up to a version.
    pub fn flush(&mut self, node: Node, floor: Version) {
        self.member(node).floor = self.state.members[node].floor.max(floor);
        if self.state.members[node].value.is_some_and(|value| value.version <= floor) {
            self.drop_value(node);
        }
        self.raise_top(Top { version: floor, is_gone: true, ..Top::default() });
        self.departed(floor);
    }

    /// The node rebuilds the block of its filter, which clears the bit of a dropped key.
    pub fn rebuild(&mut self, node: Node) {
        self.member(node).bit = false;
        self.log(node, Change::Block);
    }

    /// The process ends and another begins at the same place, with nothing.
    pub fn restart(&mut self, node: Node) {
        if self.holds(node) && self.state.top.holder == node && !self.state.top.is_gone {
            self.state.top.has_departed = true;
        }
        for peer in self.others(node) {
            self.part(node, peer);
            let member = self.member(peer);
            member.peers[node] = Peer { view: View::Unknown, ..Default::default() };
            if member.moved.is_some_and(|moved| moved.holder == Some(node)) {
                member.moved = None;
            }
        }
        *self.member(node) = Member::default();
        self.state.had_restart = true;
        for peer in self.others(node) {
            self.member(node).peers[peer].view = View::Unknown;
        }
        self.departed(0);
    }
}

/// Links.
impl Step {
    pub fn send(&mut self, from: Node, to: Node, body: Body) {
        let clock = self.state.members[from].clock;
        self.is_beyond |= !self.state.links[from][to].push(Frame { clock, body });
    }

    /// Puts the pending entries of the changelog into the link.
    pub fn send_changes(&mut self, from: Node, to: Node) {
        let member = &self.state.members[from];
        let (sent, len, image) = (member.peers[to].sent, member.log.len, member.bit);
        if sent < len {
            self.member(from).peers[to].sent = len;
            self.send(from, to, Body::Changes { from: sent, to: len, image });
        }
    }

    /// Skips what is pending and sends the whole filter.
    pub fn send_snapshot(&mut self, from: Node, to: Node) {
        let member = self.member(from);
        let (image, position) = (member.bit, member.log.len);
        member.peers[to].sent = position;
        self.send(from, to, Body::Snapshot { image, position });
    }

    fn invalidate(&mut self, from: Node, to: Node, version: Version, is_held: bool) {
        if self.obeys(Rule::AdditionsFirst) {
            self.send_changes(from, to);
        }
        self.send(from, to, Body::Invalidate { version, is_held });
    }

    fn newer(&mut self, from: Node, to: Node, version: Version, is_held: bool) {
        if self.obeys(Rule::AdditionsFirst) {
            self.send_changes(from, to);
        }
        self.send(from, to, Body::Newer { version, is_held });
    }

    /// The link between two nodes breaks; what was under way is lost.
    pub fn part(&mut self, one: Node, other: Node) {
        for (node, peer) in [(one, other), (other, one)] {
            self.state.links[node][peer] = Frames::default();
            self.state.is_up[node][peer] = false;
            let keeps = self.obeys(Rule::ViewKept);
            let at_peer = &mut self.member(node).peers[peer];
            at_peer.resync = false;
            at_peer.pending = Pending::default();
            if !keeps {
                at_peer.view = View::Absent;
            }
        }
        for (node, peer) in [(one, other), (other, one)] {
            self.request_lost(node, peer);
        }
    }

    /// Two nodes link. Each resumes the changelog of the other where it stands, or gets a snapshot.
    pub fn meet(&mut self, one: Node, other: Node, resumes: bool) {
        for (node, peer) in [(one, other), (other, one)] {
            self.state.is_up[node][peer] = true;
        }
        for (node, peer) in [(one, other), (other, one)] {
            let at_peer = self.state.members[node].peers[peer];
            let (their_clock, their_floor) = (self.state.members[peer].clock, self.state.members[peer].floor);
            let tests = self.obeys(Rule::ReconnectTestsAll);
            let hello_counts = !self.obeys(Rule::HelloAcknowledgesNothing);
            let heard = self.state.members[peer].peers[node].heard;
            if self.obeys(Rule::ClockAdopted) {
                let member = self.member(node);
                member.clock = member.clock.max(their_clock);
            }
            if their_floor > self.state.members[node].floor {
                self.flush(node, their_floor);
            }
            let mine = &mut self.member(node).peers[peer];
            if hello_counts {
                mine.acked = mine.acked.max(heard);
            }
            if resumes && at_peer.view != View::Unknown {
                mine.resync = tests;
                self.member(peer).peers[node].sent = at_peer.applied;
            } else {
                mine.view = View::Unknown;
                self.send_snapshot(peer, node);
            }
        }
    }
}

/// Frames that arrive.
impl Step {
    pub fn deliver(&mut self, from: Node, to: Node, at: usize) {
        self.arrive(from, to, at, true);
    }

    /// Changes and a notice: what answers the notice stands for the answer to the addition.
    pub fn deliver_together(&mut self, from: Node, to: Node) {
        self.arrive(from, to, 0, false);
        self.arrive(from, to, 0, true);
    }

    fn arrive(&mut self, from: Node, to: Node, at: usize, is_answered: bool) {
        let Frame { clock, body } = self.state.links[from][to].remove(at);
        if self.obeys(Rule::ClockAdopted) {
            self.member(to).clock = self.member(to).clock.max(clock);
        }
        let heard = &mut self.member(to).peers[from].heard;
        *heard = clock.max(*heard);
        match body {
            Body::Empty => {}
            Body::Changes { from: first, to: end, image } => {
                self.apply(to, from, first..end, image, is_answered);
            }
            Body::Snapshot { image, position } => self.snapshot_ends(to, from, image, position),
            Body::Invalidate { version, is_held } => self.invalidated(to, from, version, is_held, true),
            Body::Newer { version, is_held } => self.invalidated(to, from, version, is_held, false),
            Body::Beat { ack, position } => self.beaten(to, from, ack, position),
            Body::Lookup { .. } | Body::Execute { .. } | Body::Delete { .. } | Body::Floor { .. } => {
                self.serve(to, from, body);
            }
            Body::Found { .. }
            | Body::NotFound { .. }
            | Body::Executed { .. }
            | Body::NotHolder { .. }
            | Body::Deleted { .. }
            | Body::Floored { .. } => self.answered(to, from, body),
        }
    }

    /// Applies these entries of the changelog of `peer`.
    fn apply(&mut self, node: Node, peer: Node, entries: Range<u8>, image: bool, is_answered: bool) {
        let (log, end) = (self.state.members[peer].log, entries.end);
        let mut order: Vec<u8> = entries.collect();
        let mut image = image;
        if !self.obeys(Rule::OneQueue) {
            // Images were taken when the block was rebuilt, and are sent after the additions.
            order.sort_by_key(|at| matches!(log.get(*at), Change::Block));
            image = false;
        }
        for at in order {
            match log.get(at) {
                Change::Addition => {
                    self.member(node).peers[peer].view = View::Claims;
                    if is_answered {
                        self.added(node, peer);
                    }
                }
                Change::Block => {
                    self.member(node).peers[peer].view = if image { View::Claims } else { View::Absent };
                }
            }
        }
        self.member(node).peers[peer].applied = end;
    }

    /// A peer added the key to its filter.
    fn added(&mut self, node: Node, peer: Node) {
        let member = &self.state.members[node];
        if let Some(own) = member.value {
            if self.obeys(Rule::AdditionAnswered) {
                self.invalidate(node, peer, own.version, true);
            }
        } else if let Some(tombstone) = member.tombstone
            && self.obeys(Rule::AdditionMeetsTombstone)
        {
            self.invalidate(node, peer, tombstone, false);
        }
    }

    fn snapshot_ends(&mut self, node: Node, peer: Node, image: bool, position: u8) {
        let is_reconnect = self.view(node, peer) == View::Unknown;
        let rule = if is_reconnect { Rule::ReconnectTestsAll } else { Rule::SnapshotTestsAll };
        let tests = self.obeys(rule);
        let at_peer = &mut self.member(node).peers[peer];
        at_peer.view = if image { View::Claims } else { View::Absent };
        at_peer.applied = position;
        at_peer.resync |= tests;
    }

    /// Tests the key against the filter of a peer, as a resync does with every key.
    pub fn resync(&mut self, node: Node, peer: Node) {
        self.member(node).peers[peer].resync = false;
        if self.view(node, peer) != View::Claims {
            return;
        }
        let Member { value, tombstone, .. } = self.state.members[node];
        let own = value.map_or(0, |value| value.version);
        match tombstone {
            Some(tombstone) if tombstone >= own => self.invalidate(node, peer, tombstone, false),
            _ if own > 0 => self.invalidate(node, peer, own, true),
            _ => {}
        }
    }

    /// A peer holds the key at a version, or a tombstone of it: INVALIDATE, or NEWER in answer to one.
    pub fn invalidated(&mut self, node: Node, peer: Node, version: Version, is_held: bool, answers: bool) {
        let repeats_query = self.obeys(Rule::InvalidateRepeatsQuery);
        let member = self.member(node);
        member.seen = member.seen.max(version);
        if let Some(request) = &mut member.request {
            request.floor = request.floor.max(version);
            if repeats_query {
                request.queried &= !bit(peer);
            }
        }
        if self.yields(node, peer, version, is_held, answers) {
            self.remember(node, version, is_held.then_some(peer));
        }
        self.proceed(node);
    }

    /// Compares what this node has with a version of a peer: drops what is older, or, if the peer's is, answers.
    /// True if the peer's stands.
    pub fn yields(&mut self, node: Node, peer: Node, version: Version, is_held: bool, answers: bool) -> bool {
        let Member { value, tombstone, .. } = self.state.members[node];
        if let Some(own) = value {
            let decides = self.obeys(Rule::TiesDecided);
            let wins_tie = !decides || (is_held && node > peer);
            if own.version > version || (own.version == version && wins_tie) {
                if answers && self.obeys(Rule::NewerAnswered) {
                    self.newer(node, peer, own.version, true);
                }
                return false;
            }
            self.drop_value(node);
            if !is_held {
                self.departed(version);
            }
        }
        let is_newer = |tombstone: &Version| *tombstone > version || is_held && *tombstone == version;
        if let Some(tombstone) = tombstone.filter(is_newer) {
            if answers && self.obeys(Rule::TombstoneAnswers) {
                self.newer(node, peer, tombstone, false);
            }
            return false;
        }
        true
    }

    /// Enters a version in the table of moved keys.
    pub fn remember(&mut self, node: Node, version: Version, holder: Option<Node>) {
        let member = self.member(node);
        if member.moved.is_none_or(|moved| moved.version <= version) {
            member.moved = Some(Moved { version, holder });
        }
    }

    /// Whether an acknowledged clock covers what was sent at another: frames that left together share one.
    fn covers(&self) -> fn(Version, Version) -> bool {
        if self.obeys(Rule::AcknowledgedMeansBelow) {
            |acked, clock| acked > clock
        } else {
            |acked, clock| acked >= clock
        }
    }

    /// A heartbeat. Time has passed since the last frame.
    pub fn beat(&mut self, from: Node, to: Node) {
        self.stamp(from);
        let member = &self.state.members[from];
        let (ack, position) = (member.peers[to].heard, member.log.len);
        self.send(from, to, Body::Beat { ack, position });
    }

    /// A peer has processed everything up to the own clock `ack`, and its changelog has `position` entries.
    ///
    /// Its additions up to there were answered here by now, if it holds older values. So `ack` counts as soon as it
    /// acknowledges the clock of this moment, and with it those answers.
    fn beaten(&mut self, node: Node, peer: Node, ack: Version, position: u8) {
        let covers = self.covers();
        let names_position = self.obeys(Rule::BeatNamesPosition);
        let after_resync = self.obeys(Rule::AcknowledgedAfterResync);
        let twice = self.obeys(Rule::AcknowledgedTwice);
        let mark = self.state.members[node].clock;
        let at_peer = &mut self.member(node).peers[peer];
        let is_applied = at_peer.applied >= position || !names_position;
        let is_tested = !at_peer.resync && at_peer.view != View::Unknown;
        if at_peer.pending.ack > 0 && covers(ack, at_peer.pending.mark) {
            at_peer.acked = at_peer.acked.max(at_peer.pending.ack);
            at_peer.pending = Pending::default();
        }
        if is_applied && (is_tested || !after_resync) {
            if !twice {
                at_peer.acked = at_peer.acked.max(ack);
            } else if at_peer.pending.ack == 0 && ack > at_peer.acked {
                at_peer.pending = Pending { ack, mark };
            }
        }
    }

    /// Whether every peer has acknowledged all that could bring the deleted key back.
    pub fn may_collect(&self, node: Node) -> bool {
        let member = &self.state.members[node];
        let Some(tombstone) = member.tombstone else { return false };
        let covers = self.covers();
        self.others(node).all(|peer| {
            let at_peer = &member.peers[peer];
            let is_resyncing = at_peer.resync || at_peer.view == View::Unknown;
            self.state.is_up[node][peer]
                && (!is_resyncing || !self.obeys(Rule::ResyncKeepsTombstones))
                && covers(at_peer.acked, tombstone)
        })
    }

    /// A command on the TTL, at the holder.
    pub fn touch(&mut self, node: Node) {
        if self.obeys(Rule::TtlKeepsVersion) {
            return;
        }
        let version = self.stamp(node);
        if let Some(value) = &mut self.member(node).value {
            value.version = version;
        }
        self.notify(node, version);
    }

    pub fn has_queried(&self, node: Node, peer: Node) -> bool {
        self.state.members[node].request.is_some_and(|request| has(request.waiting, peer))
    }
}

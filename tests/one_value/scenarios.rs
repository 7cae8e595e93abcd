//! The scenarios: the numbers of operations of each kind, in any order, at any node.

use super::model::{Fault, Step};
use super::rules::Rule;
use super::state::{Node, State, Value, View, name};
use Operation::{
    Beat, Break, Del, Expire, Flush, Forget, Get, Incr, Nx, Overrun, Rebuild, Restart, Set, SetAhead, Touch,
};

/// An operation from outside the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Set,
    /// SET at a node whose clock has jumped ahead by two.
    SetAhead,
    Del,
    Get,
    Incr,
    /// SET NX.
    Nx,
    /// GETEX, EXPIRE, PERSIST or TOUCH.
    Touch,
    Expire,
    /// FLUSHALL MESH.
    Flush,
    /// A node rebuilds the block of its filter from which the key was dropped.
    Rebuild,
    /// Changes are lost from the ring before they were sent: a snapshot follows.
    Overrun,
    Break,
    Restart,
    Beat,
    /// Another key takes the slot in the table of moved keys.
    Forget,
}

impl Operation {
    pub const ALL: [Self; 15] = [
        Self::Set,
        Self::SetAhead,
        Self::Del,
        Self::Get,
        Self::Incr,
        Self::Nx,
        Self::Touch,
        Self::Expire,
        Self::Flush,
        Self::Rebuild,
        Self::Overrun,
        Self::Break,
        Self::Restart,
        Self::Beat,
        Self::Forget,
    ];

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Set => "SET",
            Self::SetAhead => "SET, with a clock that is ahead",
            Self::Del => "DEL",
            Self::Get => "GET",
            Self::Incr => "INCR",
            Self::Nx => "SET NX",
            Self::Touch => "EXPIRE",
            Self::Expire => "its key expires",
            Self::Flush => "FLUSHALL MESH",
            Self::Rebuild => "rebuilds the block",
            Self::Overrun => "ring overrun, a snapshot leaves",
            Self::Break => "link breaks",
            Self::Restart => "restarts",
            Self::Beat => "a heartbeat leaves",
            Self::Forget => "another key takes the slot of moved",
        }
    }
}

/// A bounded world.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub nodes: u8,
    /// The node that holds the key at first, known to all.
    pub holder: Option<Node>,
    /// Answers wait in their own queue, and frames of the ordered stream overtake them.
    pub answers_wait: bool,
    /// An addition and the notice that follows it can be read together: then the notice alone is answered.
    pub reads_together: bool,
    pub operations: &'static [(Operation, u8)],
    /// Operations that happen at one node only.
    pub places: &'static [(Operation, Node)],
    /// The promises that do not hold in this scenario.
    pub unchecked: &'static [Fault],
}

impl Scenario {
    pub fn budget(&self, operation: Operation) -> u8 {
        let found = self.operations.iter().find(|(counted, _)| *counted == operation);
        found.map_or(0, |(_, count)| *count)
    }

    /// Whether an operation may happen at a node.
    pub fn takes_place(&self, operation: Operation, node: Node) -> bool {
        self.places.iter().all(|(placed, place)| *placed != operation || *place == node)
    }

    /// A step that begins in a state.
    pub fn step(&self, state: State, without: Option<Rule>) -> Step {
        Step { state, nodes: self.nodes, without, fault: None, is_beyond: false }
    }

    /// For people: `3 nodes, X holds the key: 1 SET, 2 INCR`.
    pub fn text(&self) -> String {
        let holder = self.holder.map_or("", |_| ", X holds the key");
        let waits = if self.answers_wait { ", answers can be overtaken" } else { "" };
        let together = if self.reads_together { ", additions are read with notices" } else { "" };
        let counted = self.operations.iter().map(|(operation, count)| format!("{count} {operation:?}"));
        let places = self.places.iter().map(|(operation, node)| format!("{operation:?} at {}", name(*node)));
        let operations = counted.chain(places).collect::<Vec<_>>().join(", ");
        format!("{} nodes{holder}{waits}{together}: {operations}", self.nodes)
    }

    /// The first state: all linked, all known.
    pub fn start(&self) -> State {
        let mut state = State::default();
        for operation in Operation::ALL {
            state.left[operation as usize] = self.budget(operation);
        }
        for node in 0..self.nodes {
            for peer in (0..self.nodes).filter(|peer| *peer != node) {
                state.is_up[node][peer] = true;
                if self.holder == Some(peer) {
                    state.members[node].peers[peer].view = View::Claims;
                }
            }
            if self.holder.is_some() {
                state.members[node].clock = 1;
                state.members[node].known = true;
            }
        }
        if let Some(holder) = self.holder {
            state.members[holder].value = Some(Value { version: 1, increments: 0 });
            state.members[holder].bit = true;
            state.members[holder].seen = 1;
            state.top.version = 1;
            state.top.holder = holder;
        }
        state
    }
}

/// A scenario of which all states are searched, with all rules.
#[derive(Debug)]
pub struct World {
    pub scenario: Scenario,
    /// Number of states; above [`STATES_MAX`] the search ends there.
    pub states: usize,
}

/// A rule, and the scenario in which its absence breaks a promise.
#[derive(Debug)]
pub struct Need {
    pub rule: Rule,
    pub scenario: Scenario,
    pub fault: Fault,
}

/// States after which a search ends.
pub const STATES_MAX: usize = 20_000_000;

const fn two(operations: &'static [(Operation, u8)]) -> Scenario {
    Scenario {
        nodes: 2,
        holder: None,
        answers_wait: false,
        reads_together: false,
        operations,
        places: &[],
        unchecked: &[],
    }
}

const fn three(operations: &'static [(Operation, u8)]) -> Scenario {
    Scenario { nodes: 3, ..two(operations) }
}

impl Scenario {
    const fn held(self) -> Self {
        Self { holder: Some(0), ..self }
    }

    const fn overtaking(self) -> Self {
        Self { answers_wait: true, ..self }
    }

    const fn together(self) -> Self {
        Self { reads_together: true, ..self }
    }

    const fn at(self, places: &'static [(Operation, Node)]) -> Self {
        Self { places, ..self }
    }

    const fn unchecked(self, unchecked: &'static [Fault]) -> Self {
        Self { unchecked, ..self }
    }

    const fn with(self, states: usize) -> World {
        World { scenario: self, states }
    }
}

/// Searched by `make test`.
pub const SMALL: &[World] = &[
    two(&[(Set, 2), (SetAhead, 1)]).with(846),
    two(&[(Set, 1), (SetAhead, 1), (Break, 1)]).with(9013),
    two(&[(Set, 1), (Del, 1), (Rebuild, 1)]).held().with(297),
    two(&[(Set, 1), (Del, 1), (Get, 1), (Rebuild, 1)]).held().with(3520),
    two(&[(Set, 2), (Get, 1), (Rebuild, 1)]).held().overtaking().with(1182),
    two(&[(Incr, 2), (Expire, 1)]).held().with(345),
    two(&[(Set, 1), (Flush, 1)]).with(91),
    three(&[(Nx, 2), (Get, 1)]).with(2424),
    three(&[(Incr, 2)]).with(843),
    two(&[(Set, 2), (Restart, 1)]).unchecked(&[Fault::Older]).with(3149),
    two(&[(Set, 2), (SetAhead, 1)]).together().with(1097),
];

/// Searched by `make model`.
pub const LARGE: &[World] = &[
    two(&[(Set, 2), (SetAhead, 1), (Break, 1), (Overrun, 1), (Rebuild, 1)]).with(396_400),
    two(&[(Set, 2), (Del, 1), (Expire, 1), (Break, 1), (Rebuild, 1)]).with(1_675_482),
    two(&[(Set, 1), (Incr, 2), (Del, 1), (Break, 1)]).with(4_179_386),
    two(&[(Set, 2), (Get, 1), (Incr, 1), (Rebuild, 1)]).held().overtaking().with(22_506),
    two(&[(Set, 3), (Restart, 1), (Break, 1)]).unchecked(&[Fault::Older]).with(170_304),
    two(&[(Set, 2), (Flush, 1), (Del, 1), (Break, 1)]).with(2_547_883),
    two(&[(Set, 2), (Touch, 1), (Expire, 1), (Break, 1)]).with(56_115),
    two(&[(Set, 1), (Del, 1), (Beat, 4)]).with(165_294),
    two(&[(Set, 1), (Del, 1), (Beat, 3), (Break, 1)]).at(&[(Set, 0), (Del, 1)]).with(1_596_131),
    two(&[(Set, 2), (Expire, 1), (Beat, 1), (Break, 1)]).with(406_766),
    two(&[(Set, 2), (Expire, 1), (Beat, 2), (Break, 1)]).with(3_443_041),
    two(&[(Set, 2), (Expire, 1), (Beat, 1), (Overrun, 1)]).with(11_678),
    two(&[(Set, 1), (Incr, 1), (Forget, 2), (Rebuild, 1), (Break, 1)])
        .held()
        .unchecked(&FRESHNESS)
        .with(42_322),
    three(&[(Incr, 2), (Get, 1), (Break, 1)]).held().unchecked(&[Fault::NotFound]).with(120_009),
    three(&[(Incr, 2), (Break, 1)]).with(171_559),
    three(&[(Incr, 2), (Expire, 1), (Rebuild, 1)]).held().with(202_039),
    three(&[(Incr, 1), (Del, 1), (Get, 1), (Rebuild, 1)]).held().with(372_414),
    two(&[(Set, 2), (Del, 1), (Get, 1), (Rebuild, 1)]).held().overtaking().with(86_816),
    three(&[(Set, 1), (Del, 1), (Get, 1), (Rebuild, 1)]).held().with(941_052),
    three(&[(Nx, 2), (Get, 2), (Rebuild, 1)]).with(10_105),
    three(&[(Set, 2), (Get, 1), (Rebuild, 1)]).held().overtaking().with(171_187),
    three(&[(Set, 2), (Get, 2), (Rebuild, 1)]).at(&[(Get, 2)]).held().overtaking().with(267_143),
    three(&[(Set, 1), (Incr, 2), (Get, 1)]).with(1_955_477),
    three(&[(Set, 1), (Flush, 1), (Get, 1)]).held().with(148_553),
    three(&[(Set, 1), (Incr, 1), (Forget, 2), (Rebuild, 1)]).held().unchecked(&FRESHNESS).with(11_171),
    three(&[(Set, 1), (Del, 1), (Incr, 1), (Get, 1)]).held().with(STATES_MAX + 1),
    three(&[(Set, 2), (Break, 2)]).with(12_079_586),
    two(&[(Set, 2), (Del, 1), (Beat, 4), (Break, 1)]).at(&[(Del, 1)]).with(STATES_MAX + 1),
    three(&[(Set, 1), (Del, 1), (Beat, 2), (Break, 1)]).with(STATES_MAX + 1),
    two(&[(Set, 2), (SetAhead, 1), (Break, 1), (Overrun, 1)]).together().with(305_640),
    two(&[(Set, 2), (Del, 1), (Expire, 1), (Break, 1)]).together().with(998_210),
    two(&[(Set, 2), (Del, 1), (Beat, 2), (Break, 1)]).at(&[(Del, 1)]).together().with(14_591_319),
    two(&[(Set, 2), (Expire, 1), (Beat, 2), (Break, 1)]).together().with(4_034_523),
    three(&[(Set, 1), (Incr, 2), (Get, 1)]).together().with(2_440_268),
    three(&[(Set, 2), (Get, 1)]).held().together().with(117_807),
];

/// The promises that depend on the table of moved keys, whose slots may be overwritten.
const FRESHNESS: [Fault; 2] = [Fault::NotFound, Fault::Older];

const fn need(rule: Rule, fault: Fault, scenario: Scenario) -> Need {
    Need { rule, scenario, fault }
}

/// Each rule but those of [`Rule::BESIDE_OTHERS`].
pub const NEEDS: &[Need] = &[
    need(Rule::SetInvalidates, Fault::TwoValues, two(&[(Set, 2)]).held()),
    need(Rule::AdditionAnswered, Fault::TwoValues, two(&[(Set, 2)])),
    need(Rule::NewerAnswered, Fault::TwoValues, two(&[(Set, 2)]).together()),
    need(Rule::TombstoneAnswers, Fault::Resurrected, two(&[(Set, 2), (Del, 1)]).together()),
    need(Rule::TiesDecided, Fault::TwoValues, two(&[(Set, 2)])),
    need(Rule::ClockAdopted, Fault::FlushedLater, two(&[(Set, 1), (Flush, 1)]).held()),
    need(
        Rule::AdditionsFirst,
        Fault::Recreated,
        three(&[(Set, 1), (Incr, 1), (Forget, 1)]).held().unchecked(&FRESHNESS),
    ),
    need(Rule::ReconnectTestsAll, Fault::TwoValues, two(&[(Set, 2), (Break, 1)])),
    need(Rule::SnapshotTestsAll, Fault::TwoValues, two(&[(Set, 2), (Overrun, 2)])),
    need(Rule::Hints, Fault::NotFound, three(&[(Set, 1), (Get, 1)]).held()),
    need(Rule::ViewKept, Fault::Recreated, two(&[(Incr, 1), (Break, 1)]).held()),
    need(Rule::HomeNode, Fault::IncrementLost, two(&[(Incr, 2)])),
    need(Rule::TriedExcluded, Fault::Refused, two(&[(Incr, 1), (Expire, 1)]).held()),
    need(Rule::MovedIsFloor, Fault::Older, three(&[(Set, 2), (Get, 1)]).held()),
    need(Rule::AdditionMeetsTombstone, Fault::Resurrected, two(&[(Set, 1), (Del, 1)])),
    need(Rule::DeleteIsCommand, Fault::DeletedNothing, two(&[(SetAhead, 1), (Del, 1)]).held()),
    need(Rule::DeletedInvalidates, Fault::Older, two(&[(Set, 1), (SetAhead, 1), (Del, 1), (Get, 1)]).held()),
    need(
        Rule::BeatNamesPosition,
        Fault::Resurrected,
        two(&[(Set, 1), (Del, 1), (Beat, 4)]).at(&[(Set, 0), (Del, 1)]),
    ),
    need(
        Rule::HelloAcknowledgesNothing,
        Fault::Resurrected,
        two(&[(Set, 1), (Del, 1), (Beat, 3), (Break, 1)]).at(&[(Set, 0), (Del, 1)]),
    ),
    need(
        Rule::AcknowledgedTwice,
        Fault::Resurrected,
        two(&[(Set, 1), (Del, 1), (Beat, 3), (Break, 1)]).at(&[(Set, 0), (Del, 1)]),
    ),
    need(
        Rule::AcknowledgedMeansBelow,
        Fault::Resurrected,
        two(&[(Set, 1), (Del, 1), (Beat, 4), (Break, 1)]).at(&[(Set, 0), (Del, 1)]),
    ),
    need(Rule::ExpiryLeavesTombstone, Fault::Resurrected, two(&[(Set, 2), (Expire, 1)])),
    need(Rule::TtlKeepsVersion, Fault::NewestLost, two(&[(Set, 2), (Touch, 1)])),
    need(Rule::FlushWaits, Fault::FlushedLater, two(&[(Set, 1), (Flush, 1)])),
    need(Rule::RebuildWaits, Fault::NotFound, three(&[(Set, 1), (Get, 1), (Rebuild, 1)]).held()),
    need(Rule::OneQueue, Fault::NotClaimed, two(&[(Set, 2), (Rebuild, 1)]).held()),
    need(
        Rule::ValueSetsMoved,
        Fault::Older,
        three(&[(Set, 2), (Get, 2), (Rebuild, 1)]).at(&[(Get, 2)]).held().overtaking(),
    ),
    need(Rule::ExecutedSetsMoved, Fault::NotFound, two(&[(Set, 1), (Incr, 1), (Get, 1)])),
    need(Rule::ExecutedInvalidates, Fault::Older, two(&[(Set, 1), (Del, 1), (Incr, 1), (Get, 1)])),
    need(Rule::TombstoneIsFloor, Fault::Older, three(&[(Set, 1), (Del, 1), (Get, 1)]).held()),
    need(Rule::InvalidateRepeatsQuery, Fault::NotFound, two(&[(Set, 2), (Get, 1)]).held().overtaking()),
];

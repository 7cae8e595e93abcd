//! The possible next actions: operations of clients, of time and of the network, while a scenario has any left, and the
//! steps of the protocol.

use super::model::Step;
use super::rules::Rule;
use super::scenarios::{Operation, Scenario};
use super::state::{Body, Frame, Node, State, Verb, View, name};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// An operation at one node.
    Operate(Operation, Node),
    /// An operation on what one node sends to another, or on their link.
    Between(Operation, Node, Node),
    /// The pending entries of a changelog leave.
    Changes(Node, Node),
    /// The frame at this place among those under way arrives. All before it are answers, which it overtook.
    Deliver(Node, Node, usize),
    /// The first two frames arrive together: an addition, and the notice that follows it.
    DeliverTogether(Node, Node),
    /// A broken link is made again; each end resumes the changelog of the other, or gets a snapshot.
    Link(Node, Node, bool),
    /// A resync tests the key.
    Resync(Node, Node),
    Collect(Node),
}

impl Action {
    /// All actions that are possible in a state, always in the same order.
    pub fn all(scenario: &Scenario, state: &State, without: Option<Rule>) -> Vec<Self> {
        let mut actions = Vec::new();
        let step = scenario.step(*state, without);
        for node in 0..scenario.nodes {
            for operation in Operation::ALL {
                let is_left = state.left[operation as usize] > 0 && scenario.takes_place(operation, node);
                if is_left && is_possible(&step, operation, node) {
                    actions.push(Self::Operate(operation, node));
                }
            }
            for peer in step.others(node) {
                pair_actions(scenario, &step, node, peer, &mut actions);
            }
            if state.left[Operation::Beat as usize] < scenario.budget(Operation::Beat)
                && step.may_collect(node)
            {
                actions.push(Self::Collect(node));
            }
        }
        actions
    }

    /// Takes the step.
    pub fn take(self, scenario: &Scenario, state: State, without: Option<Rule>) -> Step {
        let mut step = scenario.step(state, without);
        match self {
            Self::Operate(operation, node) => {
                step.state.left[operation as usize] -= 1;
                operate(&mut step, operation, node);
            }
            Self::Between(operation, from, to) => {
                step.state.left[operation as usize] -= 1;
                if operation == Operation::Overrun {
                    step.send_snapshot(from, to);
                } else if operation == Operation::Beat {
                    step.beat(from, to);
                } else {
                    step.state.had_break = true;
                    step.part(from, to);
                }
            }
            Self::Changes(from, to) => step.send_changes(from, to),
            Self::Deliver(from, to, at) => step.deliver(from, to, at),
            Self::DeliverTogether(from, to) => step.deliver_together(from, to),
            Self::Link(one, other, resumes) => step.meet(one, other, resumes),
            Self::Resync(node, peer) => step.resync(node, peer),
            Self::Collect(node) => step.member(node).tombstone = None,
        }
        step.run();
        step
    }

    /// For people, with the state before it.
    pub fn describe(self, before: &State) -> String {
        match self {
            Self::Operate(operation, node) => format!("{} {}", name(node), operation.text()),
            Self::Between(operation, from, to) => {
                format!("{}-{} {}", name(from), name(to), operation.text())
            }
            Self::Changes(from, to) => format!("{} sends its changes to {}", name(from), name(to)),
            Self::Deliver(from, to, at) => {
                let Frame { clock, body } = before.links[from][to].as_slice()[at];
                let late = if at > 0 { ", which overtakes" } else { "" };
                format!("{} to {}, clock {clock}: {body}{late}", name(from), name(to))
            }
            Self::DeliverTogether(from, to) => {
                let frames = before.links[from][to].as_slice();
                format!("{} to {}: {} and {}", name(from), name(to), frames[0].body, frames[1].body)
            }
            Self::Link(one, other, resumes) => {
                let how = if resumes { "resume" } else { "snapshot" };
                format!("{}-{} link again: {how}", name(one), name(other))
            }
            Self::Resync(node, peer) => format!("{} tests its key against {}", name(node), name(peer)),
            Self::Collect(node) => format!("{} collects its tombstone", name(node)),
        }
    }
}

fn is_possible(step: &Step, operation: Operation, node: Node) -> bool {
    let member = &step.state.members[node];
    match operation {
        Operation::Set | Operation::SetAhead | Operation::Restart => true,
        Operation::Del | Operation::Get | Operation::Incr | Operation::Nx | Operation::Flush => {
            member.request.is_none()
        }
        Operation::Touch | Operation::Expire => member.value.is_some(),
        Operation::Rebuild => {
            let waits = member.dropped_lately && step.obeys(Rule::RebuildWaits);
            member.bit && member.value.is_none() && !waits
        }
        Operation::Forget => member.moved.is_some(),
        Operation::Overrun | Operation::Beat | Operation::Break => false,
    }
}

fn pair_actions(scenario: &Scenario, step: &Step, from: Node, to: Node, actions: &mut Vec<Action>) {
    let state = &step.state;
    let left = |operation: Operation| state.left[operation as usize] > 0;
    if !state.is_up[from][to] {
        if from < to {
            actions.extend([true, false].map(|resumes| Action::Link(from, to, resumes)));
        }
        return;
    }
    let member = &state.members[from];
    let frames = state.links[from][to].as_slice();
    if member.peers[to].sent < member.log.len {
        actions.push(Action::Changes(from, to));
        if left(Operation::Overrun) {
            actions.push(Action::Between(Operation::Overrun, from, to));
        }
    }
    if !frames.is_empty() {
        actions.push(Action::Deliver(from, to, 0));
    }
    if let [Frame { body: Body::Changes { .. }, .. }, Frame { body: Body::Invalidate { .. }, .. }, ..] =
        frames
        && scenario.reads_together
    {
        actions.push(Action::DeliverTogether(from, to));
    }
    if let Some(at) = overtaking(scenario, step, frames) {
        actions.push(Action::Deliver(from, to, at));
    }
    if left(Operation::Break) && from < to {
        actions.push(Action::Between(Operation::Break, from, to));
    }
    if left(Operation::Beat) {
        actions.push(Action::Between(Operation::Beat, from, to));
    }
    if member.peers[to].resync && member.peers[to].view != View::Unknown {
        actions.push(Action::Resync(from, to));
    }
}

/// The first frame that may overtake those before it, if it is not the first of all.
fn overtaking(scenario: &Scenario, step: &Step, frames: &[Frame]) -> Option<usize> {
    let is_answer = |frame: &Frame| matches!(frame.body, Body::Found { .. } | Body::NotFound { .. });
    let is_beat = |frame: &Frame| matches!(frame.body, Body::Beat { .. });
    let ordered = frames.iter().position(|frame| !is_answer(frame)).filter(|_| scenario.answers_wait);
    let beat = frames.iter().position(is_beat).filter(|_| !step.obeys(Rule::BeatKeepsOrder));
    beat.or(ordered).filter(|at| *at > 0)
}

fn operate(step: &mut Step, operation: Operation, node: Node) {
    match operation {
        Operation::Set => step.set(node),
        Operation::SetAhead => {
            step.member(node).clock += 2;
            step.set(node);
        }
        Operation::Del => step.open(node, Verb::Del),
        Operation::Get => step.open(node, Verb::Get),
        Operation::Incr => step.open(node, Verb::Incr),
        Operation::Nx => step.open(node, Verb::Nx),
        Operation::Flush => step.open(node, Verb::Flush),
        Operation::Touch => step.touch(node),
        Operation::Expire => step.expire(node),
        Operation::Rebuild => step.rebuild(node),
        Operation::Restart => step.restart(node),
        Operation::Forget => step.member(node).moved = None,
        Operation::Overrun | Operation::Beat | Operation::Break => {}
    }
}

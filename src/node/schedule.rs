//! What the node does on its own account: the one list of its sources of work.
//!
//! [`Node::tick`](super::Node::tick), [`Node::has_work`](super::Node::has_work) and
//! [`Node::next_deadline`](super::Node::next_deadline) follow from the list; nothing else in the node has
//! work of its own.

use crate::base::time::{Instant, Now};
use crate::limits::TIMERS_PER_STEP;
use crate::node::conn::reader;
use crate::node::digest::sync;
use crate::node::lookup::remote;
use crate::node::state::State;
use crate::node::tasks;
use crate::node::timers;

/// A queue with work in it.
struct Source {
    /// Whether a step would do something now. O(1).
    has_work: fn(&State, Now) -> bool,
    /// Does one bounded step.
    step: fn(&mut State, Now),
    /// When there will be work if nothing comes in before; `None`: never, as things stand. O(1).
    next_deadline: fn(&State) -> Option<Instant>,
}

/// In the order of their steps.
const SOURCES: [Source; 6] = [
    Source {
        has_work: timers::has_work,
        step: |state, now| timers::run(state, now, TIMERS_PER_STEP),
        next_deadline: |state| state.timers.next_deadline().map(Instant::from_millis),
    },
    Source {
        has_work: |state, now| state.keyspace.has_work(now),
        step: |state, now| state.keyspace.step(now),
        next_deadline: |state| state.keyspace.next_deadline(),
    },
    Source { has_work: |state, _| sync::has_work(state), step: sync::step, next_deadline: |_| None },
    Source {
        has_work: |state, _| state.mesh.lookups.has_work(),
        step: |state, now| remote::step(state, now, TIMERS_PER_STEP),
        next_deadline: |_| None,
    },
    Source { has_work: |state, _| state.tasks.has_work(), step: tasks::step, next_deadline: |_| None },
    Source {
        has_work: |state, _| !state.runnable.is_empty(),
        step: reader::run_next,
        next_deadline: |_| None,
    },
];

/// Does one step of each source that has work.
pub(in crate::node) fn tick(state: &mut State, now: Now) {
    for source in &SOURCES {
        if (source.has_work)(state, now) {
            (source.step)(state, now);
        }
    }
}

/// Whether any source has work.
pub(in crate::node) fn has_work(state: &State, now: Now) -> bool {
    SOURCES.iter().any(|source| (source.has_work)(state, now))
}

/// When the first source has work, if nothing comes in before.
pub(in crate::node) fn next_deadline(state: &State) -> Option<Instant> {
    SOURCES.iter().filter_map(|source| (source.next_deadline)(state)).min()
}

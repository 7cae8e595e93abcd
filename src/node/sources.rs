//! The list of all sources of background work.
//!
//! Every queue of work of the node is one row of [`SOURCES`], which has its step, its check for work and its next
//! deadline. Ticking, `has_work` and `next_deadline` iterate over the rows, so no queue can be missed.

use crate::base::time::{Instant, Now};
use crate::limits::TIMERS_PER_STEP;
use crate::node::command::tasks;
use crate::node::conn::reader;
use crate::node::digest::sync;
use crate::node::lookup::remote;
use crate::node::schedule::Class;
use crate::node::state::State;
use crate::node::timers;
use crate::node::versions::{collection, discarded, floor, resync, writers};

/// A queue of work.
struct Source {
    /// Its name in the backlogs.
    name: &'static str,
    /// Whether there is work now. O(1).
    has_work: fn(&State, Now) -> bool,
    /// Does one bounded step. Returns its cost in keys, without the cost charged to connections.
    step: fn(&mut State, Now) -> usize,
    /// When there will be work if no event arrives before; `None`: not before the next event. O(1).
    next_deadline: fn(&State) -> Option<Instant>,
    /// The backlog: entries, or milliseconds that the earliest one is late.
    backlog: fn(&State, Now) -> u64,
}

/// All sources, in the order of their steps: one of links, one of clients, and those of due work.
const SOURCES: [Source; 12] = [
    Source {
        name: "input of links",
        has_work: |state, _| state.runnable.has(Class::Links),
        step: |state, now| step_connection(state, now, Class::Links),
        next_deadline: |_| None,
        backlog: |state, _| state.runnable.len(Class::Links),
    },
    Source {
        name: "input of clients",
        has_work: |state, _| state.runnable.has(Class::Clients),
        step: |state, now| step_connection(state, now, Class::Clients),
        next_deadline: |_| None,
        backlog: |state, _| state.runnable.len(Class::Clients),
    },
    Source {
        name: "timers",
        has_work: timers::has_work,
        step: |state, now| timers::run(state, now, TIMERS_PER_STEP),
        next_deadline: |state| state.timers.next_deadline().map(Instant::from_millis),
        backlog: |state, now| late_ms(state.timers.next_deadline().map(Instant::from_millis), now),
    },
    Source {
        name: "expiry and own filter",
        has_work: |state, now| state.keyspace.has_work(now),
        step: |state, now| state.keyspace.step(now),
        next_deadline: |state| state.keyspace.next_deadline(),
        backlog: |state, now| late_ms(state.keyspace.next_deadline(), now),
    },
    Source {
        name: "digests",
        has_work: |state, _| sync::has_work(state),
        step: sync::step,
        next_deadline: |_| None,
        backlog: |state, _| state.keyspace.changelog().backlog(),
    },
    Source {
        name: "resyncs",
        has_work: |state, _| resync::has_work(state),
        step: resync::step,
        next_deadline: |_| None,
        backlog: |state, _| state.mesh.versions.resyncs.len() as u64,
    },
    Source {
        name: "tombstones",
        has_work: |state, _| state.keyspace.has_acknowledged_tombstones(),
        step: collection::step,
        next_deadline: |_| None,
        backlog: |state, _| state.keyspace.tombstones().len() as u64,
    },
    Source {
        name: "discarded deletions",
        has_work: |state, _| discarded::has_work(state),
        step: discarded::step,
        next_deadline: |_| None,
        backlog: |state, _| state.mesh.versions.discards.len() as u64,
    },
    Source {
        name: "floor",
        has_work: |state, _| floor::has_work(state),
        step: floor::step,
        next_deadline: |_| None,
        backlog: |state, _| u64::from(floor::has_work(state)),
    },
    Source {
        name: "waiting writers",
        has_work: writers::has_work,
        step: writers::step,
        next_deadline: writers::next_deadline,
        backlog: |state, _| state.mesh.versions.writers.len() as u64,
    },
    Source {
        name: "lookups",
        has_work: |state, _| state.mesh.lookups.backlog() + state.mesh.pending.backlog() > 0,
        step: |state, now| remote::step(state, now, TIMERS_PER_STEP),
        next_deadline: |_| None,
        backlog: |state, _| (state.mesh.lookups.backlog() + state.mesh.pending.backlog()) as u64,
    },
    Source {
        name: "tasks",
        has_work: |state, _| state.tasks.has_work(),
        step: tasks::step,
        next_deadline: |_| None,
        backlog: |state, _| state.tasks.len() as u64,
    },
];

/// The sources of due work.
const DUE: &[Source] = SOURCES.split_at(2).1;

/// Milliseconds by which something due at `deadline` is late.
fn late_ms(deadline: Option<Instant>, now: Now) -> u64 {
    deadline.map_or(0, |deadline| now.mono.millis().saturating_sub(deadline.millis()))
}

fn step_connection(state: &mut State, now: Now, class: Class) -> usize {
    if let Some(key) = state.runnable.pop(class) {
        reader::run(state, now, key);
    }
    0
}

/// Does one step of each source of a class that has work; returns whether any had.
pub(in crate::node) fn step(state: &mut State, now: Now, class: Class) -> bool {
    let sources = match class {
        Class::Links => &SOURCES[..1],
        Class::Clients => &SOURCES[1..2],
        Class::Due => DUE,
    };
    let mut has_worked = false;
    for source in sources {
        if (source.has_work)(state, now) {
            let cost = (source.step)(state, now);
            state.runnable.has_stepped(cost);
            has_worked = true;
        }
    }
    has_worked
}

/// Whether any source has work.
pub(in crate::node) fn has_work(state: &State, now: Now) -> bool {
    SOURCES.iter().any(|source| (source.has_work)(state, now))
}

/// Whether any source of background work has work.
pub(in crate::node) fn has_due_work(state: &State, now: Now) -> bool {
    DUE.iter().any(|source| (source.has_work)(state, now))
}

/// The earliest deadline of all sources.
pub(in crate::node) fn next_deadline(state: &State) -> Option<Instant> {
    SOURCES.iter().filter_map(|source| (source.next_deadline)(state)).min()
}

/// All sources with their backlogs.
pub(in crate::node) fn backlogs(state: &State, now: Now) -> impl Iterator<Item = (&'static str, u64)> {
    SOURCES.iter().map(move |source| (source.name, (source.backlog)(state, now)))
}

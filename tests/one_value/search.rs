//! Breadth-first search through all states of a scenario, and the shortest trace to a broken promise.
//!
//! States are distinguished by 64 bits of their hash: among 30 million the chance that two share one is below
//! 1 in 10,000. Of each state only its parent and the number of the action that led to it are kept.

use super::actions::Action;
use super::model::Fault;
use super::rules::Rule;
use super::scenarios::Scenario;
use super::state::State;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use xxhash_rust::xxh3::xxh3_64;

/// The result of a search.
#[derive(Debug)]
pub struct Outcome {
    /// States that were reached.
    pub states: usize,
    /// The longest of the shortest paths.
    pub depth: usize,
    /// The search ended at its limit, not at the last state.
    pub is_cut: bool,
    pub violation: Option<Violation>,
}

#[derive(Debug)]
pub struct Violation {
    pub fault: Fault,
    /// One action per line.
    pub trace: Vec<String>,
}

/// The parent and the action of a state.
struct Origin {
    parent: u32,
    action: u16,
}

/// Searches all states, or up to `states_max`, with one rule switched off or none.
pub fn search(scenario: &Scenario, without: Option<Rule>, states_max: usize) -> Outcome {
    let mut seen: HashSet<u64, BuildHasherDefault<Identity>> = HashSet::default();
    let mut origins = vec![Origin { parent: 0, action: 0 }];
    let start = scenario.start();
    let mut bytes = Bytes(Vec::new());
    seen.insert(bytes.hash(&start));
    let mut level = vec![(start, 0)];
    let mut depth = 0;
    while !level.is_empty() {
        let mut next = Vec::new();
        for (state, at) in level {
            let actions = Action::all(scenario, &state, without);
            for (number, action) in actions.into_iter().enumerate() {
                let step = action.take(scenario, state, without);
                let fault = step.fault.filter(|fault| !scenario.unchecked.contains(fault));
                if step.is_beyond {
                    continue;
                }
                let action = u16::try_from(number).expect("few actions");
                let is_new = seen.insert(bytes.hash(&step.state));
                if fault.is_none() && !is_new {
                    continue;
                }
                origins.push(Origin { parent: at, action });
                let index = u32::try_from(origins.len() - 1).expect("memory for so many states");
                if let Some(fault) = fault {
                    let trace = trace(scenario, without, &origins);
                    let violation = Some(Violation { fault, trace });
                    return Outcome { states: seen.len(), depth, is_cut: false, violation };
                }
                next.push((step.state, index));
            }
            if seen.len() > states_max {
                return Outcome { states: seen.len(), depth, is_cut: true, violation: None };
            }
        }
        level = next;
        depth += usize::from(!level.is_empty());
    }
    Outcome { states: seen.len(), depth, is_cut: false, violation: None }
}

/// The actions that lead to the last state.
fn trace(scenario: &Scenario, without: Option<Rule>, origins: &[Origin]) -> Vec<String> {
    let mut path = Vec::new();
    let mut at = origins.len() - 1;
    while at > 0 {
        path.push(usize::from(origins[at].action));
        at = usize::try_from(origins[at].parent).expect("an index");
    }
    let mut state = scenario.start();
    let mut lines = Vec::new();
    for number in path.into_iter().rev() {
        let action = Action::all(scenario, &state, without)[number];
        lines.push(action.describe(&state));
        state = action.take(scenario, state, without).state;
    }
    lines
}

/// Collects what is hashed.
struct Bytes(Vec<u8>);

impl Bytes {
    fn hash(&mut self, state: &State) -> u64 {
        self.0.clear();
        state.hash(self);
        xxh3_64(&self.0)
    }
}

impl Hasher for Bytes {
    fn finish(&self) -> u64 {
        xxh3_64(&self.0)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn write_u8(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Lengths and variants: all are small.
    fn write_isize(&mut self, number: isize) {
        self.0.push(number.to_le_bytes()[0]);
    }

    fn write_usize(&mut self, number: usize) {
        self.0.push(number.to_le_bytes()[0]);
    }
}

/// Hashes are their own hashes.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

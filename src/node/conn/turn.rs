//! The budget of one turn of a connection, and the spent part of it.

use crate::node::schedule::Account;

/// The turn of a connection: its budget in keys, once it has begun, and its cost so far.
#[derive(Default)]
pub(in crate::node) struct Turn {
    budget: Option<usize>,
    pub(super) cost: usize,
    /// The cost of bytes that were counted as work when they were read, and are charged with their request.
    pub(super) counted: usize,
}

impl Turn {
    /// One without a budget: nothing is done in it.
    pub(in crate::node) const fn over() -> Self {
        Self { budget: Some(0), cost: 0, counted: 0 }
    }

    /// Begins it, unless it has begun.
    pub(super) fn begin(&mut self, account: &mut Account) {
        self.budget.get_or_insert_with(|| account.begin_turn());
    }

    /// Whether all of it is spent.
    pub(super) fn is_over(&self) -> bool {
        self.budget.is_some_and(|budget| self.cost >= budget)
    }

    /// The cost above the budget.
    pub(super) fn excess(&self) -> usize {
        self.cost.saturating_sub(self.budget.unwrap_or(0))
    }
}

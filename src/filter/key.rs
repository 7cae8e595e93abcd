//! The key of a peer's filter.

use crate::base::slots::Key;

/// The tag of [`FilterKey`].
#[derive(Debug)]
pub enum FilterTag {}

/// The key of one peer's filter.
pub type FilterKey = Key<FilterTag>;

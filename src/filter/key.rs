//! The name of a peer's filter.

use crate::base::slots::Key;

/// The tag of [`FilterKey`].
#[derive(Debug)]
pub enum FilterTag {}

/// Names the filter of one peer.
pub type FilterKey = Key<FilterTag>;

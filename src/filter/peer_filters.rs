//! What this node knows of the other nodes' filters, and which of them claim a key.
//!
//! A peer's filter lies apart, or as a column of a bank where more than [`SEPARATE_MAX`] filters of
//! its size are known; who asks does not see which. Whatever is large is done in steps: a snapshot is
//! written beside what is known and then takes its place; a filter that moves into a column is searched
//! where it was until the column is whole; one that changes its size leaves its column first.
//!
//! A peer whose filter is not known, or may lack keys, is told by [`PeerFilters::unknown`]: it may have
//! any key. Everything fits in a budget; what does not is refused, and the peer is unknown. Sequence
//! numbers and epochs are not here: [`super::receiver`].

use super::bit_sliced::{Bank, Column, Disposal};
use super::bloom::Bloom;
use super::rate::false_positive_rate_at_fill;
use super::size::{Block, Size, mask_of, merge};
use crate::base::slots::{Key, Slots};
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::{fmt, mem};

/// Filters of one size that lie apart; one more, and they become columns of a bank. Below, a bank would
/// cost 64 columns for few filters and not be faster.
pub const SEPARATE_MAX: usize = 8;

/// Images held back for a filter that is changing its size; one more and it is in doubt.
pub const HELD_BLOCKS_MAX: usize = 1_024;

/// A filter with more of its bits set than this claims nearly every key: 5.8 % and more.
pub const FILL_MAX: f64 = 0.7;

/// The tag of [`FilterKey`].
#[derive(Debug)]
pub enum FilterTag {}

/// Names a peer's filter here.
pub type FilterKey = Key<FilterTag>;

/// Why something about a peer's filter was refused. Where it says that the filter is dropped, the peer is
/// unknown from then on; else nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterError {
    /// No peer has this key any more.
    Stale,
    /// A change of a filter that is not known.
    NotKnown,
    /// It has no such block.
    NoSuchBlock,
    /// Sizes change by one doubling or halving at a time, within the limits.
    WrongSize,
    /// It is still changing its size, or being replaced by a snapshot.
    Busy,
    /// It does not fit into what all filters of peers may take, or into memory. It is dropped.
    OverBudget,
    /// More than 70 % of its bits are set. It is dropped.
    Overfull,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stale => "no such peer",
            Self::NotKnown => "a change of a filter that is not known",
            Self::NoSuchBlock => "a block beyond the filter",
            Self::WrongSize => "a filter doubles or halves, within 1 to 2^26 blocks",
            Self::Busy => "the filter is still changing",
            Self::OverBudget => "the filter does not fit into peer_filters_max",
            Self::Overfull => "more than 70 % of the filter's bits are set",
        })
    }
}

#[derive(Debug)]
pub(super) enum Home {
    Unknown,
    Separate(Bloom),
    Sliced(Place),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) bank: usize,
    pub(super) column: Column,
}

/// A copy of the filter in the making, block by block.
#[derive(Debug)]
pub(super) enum Copying {
    No,
    IntoColumn { place: Place, next: usize },
    OutOfColumn { filter: Bloom, next: usize },
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) home: Home,
    pub(super) copying: Copying,
    /// The snapshot being written.
    pub(super) incoming: Option<Bloom>,
    /// The size that the filter is changing to.
    pub(super) resize: Option<Size>,
    /// Images of blocks of that size, to be written when it is reached.
    pub(super) held: BTreeMap<u32, Block>,
    /// Stands in the queue of work.
    pub(super) queued: bool,
}

/// All peers' filters.
#[derive(Debug)]
pub struct PeerFilters {
    pub(super) peers: Slots<FilterTag, Peer>,
    /// Whose filter lies apart.
    pub(super) separate: Vec<FilterKey>,
    /// Whose filter is not known or may lack keys.
    unknown: Vec<FilterKey>,
    pub(super) banks: Slab<Bank>,
    work: VecDeque<FilterKey>,
    pub(super) disposal: Disposal,
    pub(super) bytes: u64,
    bytes_max: u64,
}

impl PeerFilters {
    /// Nobody's filter, in at most `bytes_max` bytes.
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            peers: Slots::new(),
            separate: Vec::new(),
            unknown: Vec::new(),
            banks: Slab::new(),
            work: VecDeque::new(),
            disposal: Disposal::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Changes the budget. Filters above a lower one stay.
    pub const fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// A peer of whose filter nothing is known.
    pub fn join(&mut self) -> FilterKey {
        let (home, copying) = (Home::Unknown, Copying::No);
        let held = BTreeMap::new();
        let peer = Peer { home, copying, incoming: None, resize: None, held, queued: false };
        let key = self.peers.insert(peer);
        self.unknown.push(key);
        key
    }

    /// Forgets a peer.
    pub fn leave(&mut self, key: FilterKey) {
        self.forget(key);
        self.unknown.retain(|other| *other != key);
        self.peers.remove(key);
    }

    /// Forgets a peer's filter: it is unknown.
    pub fn forget(&mut self, key: FilterKey) {
        self.drop_incoming(key);
        self.drop_home(key);
        self.doubt(key);
    }

    /// Drops what has come of a snapshot, and gives its memory back in steps; what is known stays.
    pub fn drop_snapshot(&mut self, key: FilterKey) {
        self.drop_incoming(key);
    }

    /// Bytes that the filters take, with those that are on their way back to the system.
    pub const fn bytes(&self) -> u64 {
        self.bytes + self.disposal.bytes()
    }

    /// Appends the peers whose filter claims the hash. A few cache lines for each 64 filters of one size.
    #[inline]
    pub fn claimants(&self, hash: u64, out: &mut Vec<FilterKey>) {
        let filter = |key: &FilterKey| match self.peers.get(*key) {
            Some(Peer { home: Home::Separate(filter), .. }) => Some(filter),
            Some(_) | None => None,
        };
        for keys in self.separate.chunks(64) {
            // Without a branch on what memory says, so that all of it is asked for at once.
            let mut hopeful = 0u64;
            for (at, filter) in keys.iter().map(filter).enumerate() {
                let claims = filter.is_some_and(|filter| filter.first_lane_contains(hash));
                hopeful |= u64::from(claims) << at;
            }
            while hopeful != 0 {
                let key = keys[hopeful.trailing_zeros() as usize];
                if filter(&key).is_some_and(|filter| filter.contains(hash)) {
                    out.push(key);
                }
                hopeful &= hopeful - 1;
            }
        }
        for (_, bank) in &self.banks {
            bank.claimants(hash, out);
        }
    }

    /// Whether one peer's filter claims the hash. One cache line, or eight.
    pub fn claims(&self, key: FilterKey, hash: u64) -> bool {
        match self.peers.get(key).map(|peer| &peer.home) {
            None | Some(Home::Unknown) => false,
            Some(Home::Separate(filter)) => filter.contains(hash),
            Some(Home::Sliced(place)) => {
                self.banks.get(place.bank).is_some_and(|bank| bank.claims(place.column, hash))
            }
        }
    }

    /// The peers that may have any key, since their filter is not known or may lack keys. The latter can
    /// be among the claimants too.
    pub fn unknown(&self) -> &[FilterKey] {
        &self.unknown
    }

    /// Whether the peer may have keys that its filter does not claim.
    pub fn is_unknown(&self, key: FilterKey) -> bool {
        self.unknown.contains(&key)
    }

    /// From here on the peer may have keys that its filter does not claim.
    pub fn doubt(&mut self, key: FilterKey) {
        if self.peers.get(key).is_some() && !self.is_unknown(key) {
            self.unknown.push(key);
        }
    }

    /// The filter has caught up: what it does not claim, the peer does not have.
    ///
    /// # Errors
    /// `NotKnown` for a peer whose filter is not known; it stays unknown.
    pub fn trust(&mut self, key: FilterKey) -> Result<(), FilterError> {
        match self.peers.get(key).ok_or(FilterError::Stale)?.home {
            Home::Unknown => Err(FilterError::NotKnown),
            Home::Separate(_) | Home::Sliced(_) => {
                self.unknown.retain(|other| *other != key);
                Ok(())
            }
        }
    }

    /// The size that the peer last announced: of its snapshot, or that which its filter has or will have.
    pub fn size(&self, key: FilterKey) -> Option<Size> {
        let peer = self.peers.get(key)?;
        let announced = peer.incoming.as_ref().map(Bloom::size).or(peer.resize);
        announced.or_else(|| self.home_size(peer))
    }

    /// The share of bits that are set in what is searched, 0 to 1.
    pub fn fill(&self, key: FilterKey) -> Option<f64> {
        match &self.peers.get(key)?.home {
            Home::Unknown => None,
            Home::Separate(filter) => Some(filter.fill()),
            Home::Sliced(place) => {
                let bank = self.banks.get(place.bank)?;
                Some(bank.ones(place.column) as f64 / bank.size().bits() as f64)
            }
        }
    }

    /// The false-positive rate to expect of what is searched. Microseconds.
    pub fn predicted_false_positive_rate(&self, key: FilterKey) -> Option<f64> {
        self.fill(key).map(false_positive_rate_at_fill)
    }

    /// A block of what is searched: for audits. `None` while it changes its size.
    pub fn block(&self, key: FilterKey, number: usize) -> Option<Block> {
        let peer = self.peers.get(key).filter(|peer| peer.resize.is_none())?;
        match &peer.home {
            Home::Unknown => None,
            Home::Separate(filter) => filter.image(filter.size(), number),
            Home::Sliced(place) => {
                let bank = self.banks.get(place.bank).filter(|bank| number < bank.size().blocks())?;
                Some(bank.read_block(place.column, number))
            }
        }
    }

    /// How many filters lie apart, and how many as columns.
    pub fn layout(&self) -> (usize, usize) {
        (self.separate.len(), self.banks.iter().map(|(_, bank)| bank.columns_live()).sum())
    }

    /// Begins to write a snapshot beside what is known, which goes on to be searched, in doubt. A snapshot
    /// that had been begun is dropped. If both do not fit, what is known goes.
    ///
    /// # Errors
    /// `OverBudget`: the peer's filter is dropped.
    pub fn begin_snapshot(&mut self, key: FilterKey, size: Size) -> Result<(), FilterError> {
        self.drop_incoming(key);
        self.cancel(key);
        self.doubt(key);
        if !self.fits(size.bytes()) {
            self.drop_home(key);
        }
        let Some(incoming) = self.fits(size.bytes()).then(|| Bloom::try_new(size)).flatten() else {
            self.drop_home(key);
            return Err(FilterError::OverBudget);
        };
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        peer.incoming = Some(incoming);
        self.bytes += size.bytes();
        Ok(())
    }

    /// Writes a block of the snapshot.
    ///
    /// # Errors
    /// Nothing is changed.
    pub fn snapshot_block(
        &mut self,
        key: FilterKey,
        number: usize,
        image: &Block,
    ) -> Result<(), FilterError> {
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        let filter = peer.incoming.as_mut().ok_or(FilterError::NotKnown)?;
        if filter.replace_block(number, image) { Ok(()) } else { Err(FilterError::NoSuchBlock) }
    }

    /// The snapshot is whole: it takes the place of what was known, and is trusted.
    ///
    /// # Errors
    /// `Overfull`: snapshot and filter are dropped.
    pub fn finish_snapshot(&mut self, key: FilterKey) -> Result<(), FilterError> {
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        let incoming = peer.incoming.as_ref().ok_or(FilterError::NotKnown)?;
        if incoming.fill() > FILL_MAX {
            self.forget(key);
            return Err(FilterError::Overfull);
        }
        let filter = peer.incoming.take();
        self.drop_home(key);
        if let (Some(filter), Some(peer)) = (filter, self.peers.get_mut(key)) {
            let size = filter.size();
            peer.home = Home::Separate(filter);
            self.separate.push(key);
            self.slice(size);
        }
        self.trust(key)
    }

    /// Adds a hash to a peer's filter, and to its snapshot if one is being written.
    ///
    /// # Errors
    /// `NotKnown` changes nothing; `Overfull` drops the filter.
    pub fn add(&mut self, key: FilterKey, hash: u64) -> Result<(), FilterError> {
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        if let Some(filter) = &mut peer.incoming {
            filter.insert(hash);
        } else if matches!(peer.home, Home::Unknown) {
            return Err(FilterError::NotKnown);
        }
        match &mut peer.copying {
            Copying::No => {}
            Copying::IntoColumn { place, .. } => self.banks[place.bank].insert(place.column, hash),
            Copying::OutOfColumn { filter, .. } => {
                filter.insert(hash);
            }
        }
        if let Some(size) = peer.resize
            && let Ok(number) = u32::try_from(size.block_of(hash))
            && let Some(image) = peer.held.get_mut(&number)
        {
            merge(image, &mask_of(hash));
        }
        match &mut peer.home {
            Home::Unknown => {}
            Home::Separate(filter) => {
                filter.insert(hash);
            }
            Home::Sliced(place) => self.banks[place.bank].insert(place.column, hash),
        }
        self.check_fill(key)
    }

    /// Puts an image in the place of a block of a peer's filter, in the numbers of the announced size.
    ///
    /// # Errors
    /// `NotKnown`, `NoSuchBlock` and `Busy` (too many images for a filter that is changing its size)
    /// change nothing; `Overfull` drops the filter.
    pub fn replace_block(&mut self, key: FilterKey, number: u32, image: &Block) -> Result<(), FilterError> {
        let size = self.size(key).ok_or(FilterError::NotKnown)?;
        let at = number as usize;
        if at >= size.blocks() {
            return Err(FilterError::NoSuchBlock);
        }
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        if let Some(filter) = &mut peer.incoming {
            // What is searched meanwhile is in doubt and goes soon.
            filter.replace_block(at, image);
            return Ok(());
        }
        if peer.resize.is_some() {
            if peer.held.len() >= HELD_BLOCKS_MAX && !peer.held.contains_key(&number) {
                return Err(FilterError::Busy);
            }
            peer.held.insert(number, *image);
            return Ok(());
        }
        if let Copying::IntoColumn { place, .. } = peer.copying {
            self.banks[place.bank].write_block(place.column, at, image);
        }
        match &mut peer.home {
            Home::Unknown => return Err(FilterError::NotKnown),
            Home::Separate(filter) => {
                filter.replace_block(at, image);
            }
            Home::Sliced(place) => self.banks[place.bank].replace_block(place.column, at, image),
        }
        self.check_fill(key)
    }

    /// Begins to double or halve a peer's filter; [`PeerFilters::step`] does it, and it is searched
    /// meanwhile.
    ///
    /// # Errors
    /// `NotKnown`, `WrongSize` and `Busy` change nothing; `OverBudget` drops the filter.
    pub fn resize(&mut self, key: FilterKey, size: Size) -> Result<(), FilterError> {
        let peer = self.peers.get(key).ok_or(FilterError::Stale)?;
        if peer.incoming.is_some() || peer.resize.is_some() {
            return Err(FilterError::Busy);
        }
        let old = self.home_size(peer).ok_or(FilterError::NotKnown)?;
        if old.doubled() != Some(size) && old.halved() != Some(size) {
            return Err(FilterError::WrongSize);
        }
        self.cancel(key);
        let growth = if size > old { size.bytes() } else { 0 };
        let apart = self.peers.get(key).is_some_and(|peer| matches!(peer.home, Home::Separate(_)));
        let copy = if apart { 0 } else { old.bytes() };
        let room = if self.fits(copy + growth) && !apart { Bloom::try_new(old) } else { None };
        if !self.fits(copy + growth) || room.is_none() && !apart {
            self.forget(key);
            return Err(FilterError::OverBudget);
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.resize = Some(size);
            if let Some(filter) = room {
                peer.copying = Copying::OutOfColumn { filter, next: 0 };
            }
            self.bytes += copy;
        }
        if apart {
            self.reshape(key)?;
        }
        self.enqueue(key);
        Ok(())
    }

    /// Does one bounded piece of waiting work, tens of µs; false if there was none.
    pub fn step(&mut self) -> bool {
        let Some(key) = self.work.pop_front() else { return self.disposal.step() };
        if let Some(peer) = self.peers.get_mut(key) {
            peer.queued = false;
            if self.step_peer(key) {
                self.enqueue(key);
            }
        }
        true
    }

    /// Whether [`PeerFilters::step`] has work.
    pub fn has_work(&self) -> bool {
        !self.work.is_empty() || !self.disposal.is_empty()
    }

    pub(super) fn home_size(&self, peer: &Peer) -> Option<Size> {
        match &peer.home {
            Home::Unknown => None,
            Home::Separate(filter) => Some(filter.size()),
            Home::Sliced(place) => self.banks.get(place.bank).map(Bank::size),
        }
    }

    pub(super) const fn fits(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.bytes_max
    }

    fn check_fill(&mut self, key: FilterKey) -> Result<(), FilterError> {
        if self.fill(key).is_some_and(|fill| fill > FILL_MAX) {
            self.forget(key);
            return Err(FilterError::Overfull);
        }
        Ok(())
    }

    pub(super) fn enqueue(&mut self, key: FilterKey) {
        if let Some(peer) = self.peers.get_mut(key)
            && !mem::replace(&mut peer.queued, true)
        {
            self.work.push_back(key);
        }
    }
}

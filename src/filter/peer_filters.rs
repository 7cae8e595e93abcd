//! The filters of all peers, and which of them claim a key.
//!
//! A peer's filter is separate, or a column of a bank where more than [`SEPARATE_MAX`] filters of
//! its size are known; callers do not see which. Large work is done in steps: a snapshot is
//! written beside what is known and then replaces it; a filter that moves into a column is searched
//! where it was until the column is complete.
//!
//! A peer whose filter is not known, or may lack keys, is listed by [`PeerFilters::unknown`]: it may have
//! any key. All filters together have a budget; what exceeds it is refused, and the peer is unknown. Positions in
//! changelogs are not here: [`super::receiver`].

use super::bit_sliced::{Bank, Column};
use super::bloom::Bloom;
use super::deferred_free::DeferredFree;
use super::key::{FilterKey, FilterTag};
use super::rate::false_positive_rate_at_fill;
use super::size::{BLOCK_WORDS, Block, Size};
use crate::base::slots::Slots;
use slab::Slab;
use std::collections::VecDeque;
use std::{fmt, mem};

/// Filters of one size that stay separate; one more, and they become columns of a bank. Below, a bank would
/// cost 64 columns for few filters and not be faster.
pub const SEPARATE_MAX: usize = 8;

/// A filter with more of its bits set than this claims nearly every key: 5.8 % and more.
pub const FILL_MAX: f64 = 0.7;

/// Blocks that one step copies into a column: 256 KiB of rows, tens of µs.
const COLUMN_BLOCKS_PER_STEP: usize = 64;

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
            Self::OverBudget => "the filter does not fit into peer_filters_max",
            Self::Overfull => "more than 70 % of the filter's bits are set",
        })
    }
}

/// Where a filter lies.
#[derive(Debug)]
enum Home {
    Unknown,
    Separate(Bloom),
    Sliced(Place),
}

#[derive(Debug, Clone, Copy)]
struct Place {
    bank: usize,
    column: Column,
}

#[derive(Debug)]
struct Peer {
    home: Home,
    /// The column that a separate filter is being copied into, and the next block.
    copying: Option<(Place, usize)>,
    /// The snapshot being written.
    incoming: Option<Bloom>,
    /// In the queue of work.
    is_queued: bool,
}

/// All peers' filters.
#[derive(Debug)]
pub struct PeerFilters {
    peers: Slots<FilterTag, Peer>,
    /// Peers whose filter is separate.
    separate: Vec<FilterKey>,
    /// Peers whose filter is not known or may lack keys.
    unknown: Vec<FilterKey>,
    banks: Slab<Bank>,
    /// Peers whose filter is being copied.
    work: VecDeque<FilterKey>,
    freed: DeferredFree,
    bytes: u64,
    bytes_max: u64,
}

impl PeerFilters {
    /// No filters, in at most `bytes_max` bytes.
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            peers: Slots::new(),
            separate: Vec::new(),
            unknown: Vec::new(),
            banks: Slab::new(),
            work: VecDeque::new(),
            freed: DeferredFree::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Changes the budget. Filters above a lower one stay.
    pub const fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// A peer whose filter is unknown.
    pub fn join(&mut self) -> FilterKey {
        let peer = Peer { home: Home::Unknown, copying: None, incoming: None, is_queued: false };
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
        self.drop_snapshot(key);
        self.drop_home(key);
        self.mark_outdated(key);
    }

    /// Drops an incomplete snapshot, and gives its memory back in steps; what is known stays.
    pub fn drop_snapshot(&mut self, key: FilterKey) {
        if let Some(filter) = self.peers.get_mut(key).and_then(|peer| peer.incoming.take()) {
            self.dispose(filter);
        }
    }

    /// Bytes that the filters take, with those that are not given back to the system yet.
    pub const fn bytes(&self) -> u64 {
        self.bytes + self.freed.bytes()
    }

    /// Appends the peers whose filter claims the hash. A few cache lines per 64 filters of one size.
    #[inline]
    pub fn claimants(&self, hash: u64, out: &mut Vec<FilterKey>) {
        let filter = |key: &FilterKey| match self.peers.get(*key) {
            Some(Peer { home: Home::Separate(filter), .. }) => Some(filter),
            Some(_) | None => None,
        };
        for keys in self.separate.chunks(64) {
            // Without a branch on what was loaded, so that all loads are in flight at once.
            let mut candidates = 0u64;
            for (at, filter) in keys.iter().map(filter).enumerate() {
                let claims = filter.is_some_and(|filter| filter.first_lane_contains(hash));
                candidates |= u64::from(claims) << at;
            }
            while candidates != 0 {
                let key = keys[candidates.trailing_zeros() as usize];
                if filter(&key).is_some_and(|filter| filter.contains(hash)) {
                    out.push(key);
                }
                candidates &= candidates - 1;
            }
        }
        for (_, bank) in &self.banks {
            bank.claimants(hash, out);
        }
    }

    /// Which of these hashes, at most 64, some peer's filter claims: a bit each, in their order. Filter by filter, so that the
    /// cache lines of many hashes are in flight at once.
    pub fn claimed(&self, hashes: &[u64]) -> u64 {
        let mut claimed = 0;
        for key in &self.separate {
            let Some(Peer { home: Home::Separate(filter), .. }) = self.peers.get(*key) else { continue };
            // Without a branch on what was loaded.
            let lanes = hashes.iter().rev().map(|hash| filter.first_lane_contains(*hash));
            let mut candidates = lanes.fold(0, |bits, is_set| bits << 1 | u64::from(is_set)) & !claimed;
            while candidates != 0 {
                let at = candidates.trailing_zeros();
                claimed |= u64::from(filter.contains(hashes[at as usize])) << at;
                candidates &= candidates - 1;
            }
        }
        for (_, bank) in &self.banks {
            let rows = hashes.iter().rev().map(|hash| bank.is_claimed(*hash));
            claimed |= rows.fold(0, |bits, is_claimed| bits << 1 | u64::from(is_claimed));
        }
        claimed
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
    pub fn mark_outdated(&mut self, key: FilterKey) {
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

    /// The size of what is searched.
    pub fn size(&self, key: FilterKey) -> Option<Size> {
        self.home_size(self.peers.get(key)?)
    }

    /// The size of the snapshot that is being written.
    pub fn incoming_size(&self, key: FilterKey) -> Option<Size> {
        self.peers.get(key)?.incoming.as_ref().map(Bloom::size)
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

    /// A block of what is searched: for audits.
    pub fn block(&self, key: FilterKey, number: usize) -> Option<Block> {
        match &self.peers.get(key)?.home {
            Home::Unknown => None,
            Home::Separate(filter) => filter.block(number).copied(),
            Home::Sliced(place) => {
                let bank = self.banks.get(place.bank).filter(|bank| number < bank.size().blocks())?;
                Some(bank.read_block(place.column, number))
            }
        }
    }

    /// How many filters are separate, and how many are columns.
    pub fn layout(&self) -> (usize, usize) {
        (self.separate.len(), self.banks.iter().map(|(_, bank)| bank.columns_live()).sum())
    }

    /// Begins to write a snapshot beside what is known, which is searched meanwhile. A snapshot
    /// that was begun before is dropped. If both do not fit, what is known is dropped.
    ///
    /// # Errors
    /// `OverBudget`: the peer's filter is dropped.
    pub fn begin_snapshot(&mut self, key: FilterKey, size: Size) -> Result<(), FilterError> {
        self.drop_snapshot(key);
        if !self.fits(size.bytes()) {
            self.forget(key);
        }
        let Some(incoming) = self.fits(size.bytes()).then(|| Bloom::try_new(size)).flatten() else {
            self.forget(key);
            return Err(FilterError::OverBudget);
        };
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        peer.incoming = Some(incoming);
        self.bytes += size.bytes();
        Ok(())
    }

    /// Writes a block of the snapshot. Additions since its beginning are in the image already, or follow.
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
        if number >= filter.size().blocks() {
            return Err(FilterError::NoSuchBlock);
        }
        filter.replace_block(number, image);
        Ok(())
    }

    /// The snapshot is complete: it replaces what was known. Whether it lacks keys is the caller's to know
    /// ([`PeerFilters::trust`]).
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
        Ok(())
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
        if let Some((place, _)) = peer.copying {
            self.banks[place.bank].insert(place.column, hash);
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

    /// Prefetches what adding this hash changes.
    #[inline]
    pub fn fetch(&self, key: FilterKey, hash: u64) {
        let Some(peer) = self.peers.get(key) else { return };
        if let Some(filter) = &peer.incoming {
            filter.fetch(hash);
        }
        match &peer.home {
            Home::Unknown => {}
            Home::Separate(filter) => filter.fetch(hash),
            Home::Sliced(place) => self.banks[place.bank].fetch(hash),
        }
    }

    /// Replaces a block of what is searched.
    ///
    /// # Errors
    /// `NotKnown` and `NoSuchBlock` change nothing; `Overfull` drops the filter.
    pub fn replace_block(&mut self, key: FilterKey, number: u32, image: &Block) -> Result<(), FilterError> {
        let size = self.size(key).ok_or(FilterError::NotKnown)?;
        let at = number as usize;
        if at >= size.blocks() {
            return Err(FilterError::NoSuchBlock);
        }
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        if let Some((place, _)) = peer.copying {
            self.banks[place.bank].write_block(place.column, at, image);
        }
        match &mut peer.home {
            Home::Unknown => {}
            Home::Separate(filter) => {
                filter.replace_block(at, image);
            }
            Home::Sliced(place) => self.banks[place.bank].replace_block(place.column, at, image),
        }
        self.check_fill(key)
    }

    /// Does one bounded piece of waiting work, tens of µs; false if there was none.
    pub fn step(&mut self) -> bool {
        let Some(key) = self.work.pop_front() else { return self.freed.step() };
        if let Some(peer) = self.peers.get_mut(key) {
            peer.is_queued = false;
            if self.copy_into_column(key) {
                self.enqueue(key);
            }
        }
        true
    }

    /// Whether [`PeerFilters::step`] has work.
    pub fn has_work(&self) -> bool {
        !self.work.is_empty() || !self.freed.is_empty()
    }

    fn home_size(&self, peer: &Peer) -> Option<Size> {
        match &peer.home {
            Home::Unknown => None,
            Home::Separate(filter) => Some(filter.size()),
            Home::Sliced(place) => self.banks.get(place.bank).map(Bank::size),
        }
    }

    const fn fits(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.bytes_max
    }

    fn check_fill(&mut self, key: FilterKey) -> Result<(), FilterError> {
        if self.fill(key).is_some_and(|fill| fill > FILL_MAX) {
            self.forget(key);
            return Err(FilterError::Overfull);
        }
        Ok(())
    }

    fn enqueue(&mut self, key: FilterKey) {
        if let Some(peer) = self.peers.get_mut(key)
            && !mem::replace(&mut peer.is_queued, true)
        {
            self.work.push_back(key);
        }
    }
}

/// Columns.
impl PeerFilters {
    /// Begins to copy separate filters of a size into columns: into free ones of a bank that exists,
    /// into a new bank if more than [`SEPARATE_MAX`] wait for one. What does not fit stays separate.
    fn slice(&mut self, size: Size) {
        let is_settled = |key: &FilterKey| {
            let peer = self.peers.get(*key);
            peer.is_some_and(|peer| peer.copying.is_none() && self.home_size(peer) == Some(size))
        };
        let settled: Vec<FilterKey> = self.separate.iter().copied().filter(is_settled).collect();
        for (moved, key) in settled.iter().copied().enumerate() {
            let Some(place) = self.free_column(key, size, settled.len() - moved) else { return };
            if let Some(peer) = self.peers.get_mut(key) {
                peer.copying = Some((place, 0));
                self.enqueue(key);
            }
        }
    }

    fn free_column(&mut self, key: FilterKey, size: Size, waiting: usize) -> Option<Place> {
        let banks = self.banks.iter_mut().filter(|(_, bank)| bank.size() == size);
        let taken = banks.into_iter().find_map(|(bank, rows)| Some((bank, rows.take(key)?)));
        if let Some((bank, column)) = taken {
            return Some(Place { bank, column });
        }
        if waiting <= SEPARATE_MAX || !self.fits(Bank::bytes(size)) {
            return None;
        }
        let mut rows = Bank::try_new(size)?;
        let column = rows.take(key)?;
        self.bytes += Bank::bytes(size);
        Some(Place { bank: self.banks.insert(rows), column })
    }

    /// Copies some blocks of a separate filter into its column; true if there are more.
    fn copy_into_column(&mut self, key: FilterKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let (Home::Separate(filter), Some((place, next))) = (&peer.home, &mut peer.copying) else {
            return false;
        };
        let Some(bank) = self.banks.get_mut(place.bank) else { return false };
        let blocks: &[Block] = filter.words().as_chunks::<BLOCK_WORDS>().0;
        let until = blocks.len().min(*next + COLUMN_BLOCKS_PER_STEP);
        for (number, block) in blocks.iter().enumerate().take(until).skip(*next) {
            bank.write_block(place.column, number, block);
        }
        *next = until;
        if until < blocks.len() {
            return true;
        }
        let place = *place;
        bank.switch_on(place.column, filter.ones());
        peer.copying = None;
        if let Home::Separate(filter) = mem::replace(&mut peer.home, Home::Sliced(place)) {
            self.separate.retain(|other| *other != key);
            self.dispose(filter);
        }
        false
    }

    fn release(&mut self, place: Place) {
        let Some(bank) = self.banks.get_mut(place.bank) else { return };
        bank.release(place.column);
        if bank.columns_taken() == 0 {
            let bank = self.banks.remove(place.bank);
            self.bytes -= Bank::bytes(bank.size());
            self.freed.put(bank.into_words());
        }
    }

    fn dispose(&mut self, filter: Bloom) {
        self.bytes -= filter.bytes();
        self.freed.put(filter.into_words());
    }

    fn drop_home(&mut self, key: FilterKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let copying = peer.copying.take();
        let home = mem::replace(&mut peer.home, Home::Unknown);
        copying.into_iter().for_each(|(place, _)| self.release(place));
        match home {
            Home::Unknown => {}
            Home::Separate(filter) => {
                self.separate.retain(|other| *other != key);
                self.dispose(filter);
            }
            Home::Sliced(place) => self.release(place),
        }
    }
}
